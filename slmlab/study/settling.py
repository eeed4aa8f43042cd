"""Rates of a method are settled on dev, by judge A, before any test sentence is said."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from slmlab import files
from slmlab.errors import LabError
from slmlab.files import digest
from slmlab.preference import dgsa, methods, tdsc
from slmlab.preference.methods import SCALES, Scale
from slmlab.study import alignment, scaling
from slmlab.study.alignment import Unit
from slmlab.study.scaling import Study
from slmlab.training.cache import Stage, read_done, run_stages


def settle(
    preset_name: str,
    unit: Unit,
    lrs: Sequence[float] = (),
    sft_lrs: Sequence[float] = (),
    sft_weights: Sequence[float] = (),
    steps: int = 0,
    rounds: int = 0,
) -> pd.DataFrame:
    """Dev figures of a method at every combination of rates.

    Trials are kept in the cache; asked again they are read. Of what is empty or 0 the preset's is taken.

    Args:
        preset_name: `smoke` or `tiny`.
        unit: which method, from which start.
        lrs: rates of DPO.
        sft_lrs: rates of SFT in a round.
        sft_weights: weights of the SFT term beside DPO.
        steps: of DGSA, and of DPO in a round.
        rounds: of TDSC.
    """
    if unit.method not in methods.METHODS or preset_name not in SCALES:
        raise LabError(
            f"there is no method {unit.method!r} at preset {preset_name!r}: methods are "
            f"{', '.join(methods.METHODS)}, presets {', '.join(SCALES)}."
        )
    if unit.language not in ("vi", "sw") or (unit.method in dgsa.VARIANTS and unit.language == "sw"):
        raise LabError(
            f"the study has nothing of {unit.language!r} for {unit.method} to learn from: expected vi or sw, "
            "and vi alone for DGSA and its like, since sw has no recordings."
        )
    if (sft_lrs or rounds) and unit.method not in tdsc.VARIANTS:
        raise LabError(f"{unit.method} has neither rounds nor an SFT of its own, as TDSC has.")
    if min(steps, rounds) < 0:
        raise LabError(f"steps={steps} and rounds={rounds}: expected none below 0.")
    usual = SCALES[preset_name]
    usual = replace(usual, rounds=rounds or usual.rounds)
    tried = list(_tried(usual, unit.method in dgsa.VARIANTS, lrs, sft_lrs, sft_weights, steps))
    study = alignment.study_of(preset_name, unit.language)
    needed = (f"train.{alignment.start_of(study, unit).name}", "study.codes")
    trials = [
        Stage(
            f"trial.{unit.tuned}.{digest(scale)[:6]}",
            needed,
            partial(_trial, study, unit, scale),
            scale,
        )
        for _, scale in tried
    ]
    wanted = [*ground(study, unit), *trials]
    done = run_stages(wanted, files.CACHE / preset_name, workers=min(2, len(trials)))
    found = [read_done(done[trial.name]) for trial in trials]
    return pd.DataFrame(
        [
            rates | one["metrics"] | {"seconds": one["seconds"]}
            for (rates, _), one in zip(tried, found, strict=True)
        ]
    )


def ground(study: Study, unit: Unit) -> list[Stage]:
    """What must be there before a unit's method can be tried: its start, and recordings as tokens."""
    later = ("say.", "tune.", "study.recordings", "corpus.held_out")
    stages = alignment.stages(study, [replace(unit, part="")])
    return [stage for stage in stages if not stage.name.startswith(later)]


def _tried(
    usual: Scale,
    real: bool,
    lrs: Sequence[float],
    sft_lrs: Sequence[float],
    sft_weights: Sequence[float],
    steps: int,
) -> Iterator[tuple[dict[str, float], Scale]]:
    """Every combination of rates by name, and the scale with them; `real`: where real speech teaches."""
    name = "dgsa" if real else "dpo"
    dpo = usual.dgsa if real else usual.dpo
    for lr in lrs or [dpo.train.lr]:
        for sft_lr in sft_lrs or [usual.sft.lr]:
            for weight in sft_weights or [dpo.sft]:
                train = replace(dpo.train, lr=lr, steps=steps or dpo.train.steps)
                how: dict[str, Any] = {name: replace(dpo, sft=weight, train=train)}
                rates = {"sft lr": sft_lr, "dpo lr": lr, "sft weight": weight}
                yield rates, replace(usual, sft=replace(usual.sft, lr=sft_lr), **how)


def _trial(study: Study, unit: Unit, scale: Scale, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """Stage: a method at one scale, for its dev figures alone."""
    with scaling.one_thread():
        return alignment.try_method(study, unit, scale, folder, inputs)[1]
