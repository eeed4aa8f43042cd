"""The bars of the studies: minutes, hours, effects, how many claims have a verdict; and what a kill costs.

Run as a program, with a folder for the cache and one for rows, it is a sweep of a few small runs: what the
bars of resuming and repeating start and kill.
"""

import random
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch

from slmlab import files
from slmlab.preference.methods import SCALES
from slmlab.preference.tdsc import TDSCConfig
from slmlab.study import alignment, claims, scaling
from slmlab.study import rows as store
from slmlab.study.alignment import ALONE, ALPHA, Aligned
from slmlab.study.claims import FEWEST_SEEDS, Arm, System
from slmlab.study.scaling import CELLS, Cell, Study
from slmlab.training import shelf
from slmlab.training.cache import run_stages

Row = tuple[str, float, str, float, str, str, bool]
CORE = [f"D{i}" for i in (*range(1, 8), 13)] + [f"T{i}" for i in (*range(1, 9), 14, 15)] + ["C1", "C2", "C3"]
KILLS = 20
WAIT = (4.0, 25.0)
"""Seconds after which a sweep is killed, drawn evenly."""
WORST_CER = 0.35
"""Dev CER at α = 80 % up to which a short training counts as one."""


def of_scaling(preset_name: str) -> list[Row]:
    """What the scaling study's rows say of its cost, and how many of its claims are settled."""
    results = scaling.read_results(preset_name)
    if results is None:
        return []
    cells, rows = results.cells, results.rows
    main = cells["arm"] == "authentic"
    if not main.any():
        return []
    dev = rows[(rows["arm"] == "authentic") & (rows["split"] == "dev") & (rows["point"] == ALPHA)]
    cer = dev["letter_errors"].sum() / max(1, dev["letters"].sum())
    spent = cells[["training_seconds", "speaking_seconds"]].sum(axis=1) / 120
    settled = sum(
        len(row.get("by_seed", ())) >= FEWEST_SEEDS or row["id"] in claims.SEEDLESS
        for row in claims.ledger(results, None)
        if row["id"][0] in "SE" and row["arms"]
    )
    beside = "each run on one core with another beside it"
    trained = cells.loc[main, "training_seconds"] / 60
    how = (
        f"median of {main.sum()} trainings, {beside}, the longest {trained.max():.1f}; "
        f"dev CER at α = 80 %: {100 * cer:.1f} %"
    )
    return [
        ("sweep.run_minutes", float(trained.median()), "min", 3.0, "lower", how, bool(cer <= WORST_CER)),
        (
            "sweep.minutes",
            float(spent[main].sum()),
            "min",
            75.0,
            "lower",
            f"{main.sum()} runs of the authentic arm: their seconds, {beside}, halved",
            True,
        ),
        (
            "extended.minutes",
            float(spent[~main].sum()),
            "min",
            float(spent[~main].sum()),
            "lower",
            f"arms {', '.join(sorted(cells.loc[~main, 'arm'].unique())) or 'none yet'}; only reported",
            True,
        ),
        (
            "claims.scaling",
            float(settled),
            "claims",
            16.0,
            "higher",
            f"verdicts computed from {FEWEST_SEEDS} or more seeds; {', '.join(claims.SEEDLESS)} needs none",
            True,
        ),
    ]


def repeated() -> list[Row]:
    """The same small runs twice, from nothing: scores that differ."""
    with TemporaryDirectory() as folder:
        tables = []
        for name in "ab":
            place = Path(folder) / name
            _start(place).wait()
            tables.append(scaling.read_results("smoke", place / "results"))
    first, second = (found.rows for found in tables if found is not None)
    same = (first == second) | (first.isna() & second.isna())
    how = f"{first.size} scores of two small runs of the sweep, made twice from nothing"
    return [("sweep.repeat", float((~same).to_numpy().sum()), "scores", 0.0, "lower", how, True)]


def resumed() -> list[Row]:
    """Small sweeps killed at random moments, each gone on with until it ends: runs made twice, or lost."""
    draw, kills, wrong = random.Random(0), 0, 0
    while kills < KILLS:
        with TemporaryDirectory() as folder:
            place, made, ended = Path(folder), dict[str, int](), False
            while not ended:
                process = _start(place)
                try:
                    process.wait(draw.uniform(*WAIT) if kills < KILLS else None)
                    ended = True
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    kills += 1
                files = place.glob("cache/smoke/*/done.json")
                now = {file.parent.name: file.stat().st_mtime_ns for file in files}
                wrong += sum(now.get(name) != moment for name, moment in made.items())
                made = now
            found = scaling.read_results("smoke", place / "results")
            wrong += len(_small()[1]) - (0 if found is None else len(found.cells))
    how = f"{kills} kills at random moments, {WAIT[0]:g} to {WAIT[1]:g} s after a start, at smoke"
    return [("sweep.resume", float(wrong), "runs", 0.0, "lower", how, True)]


def _small() -> tuple[Study, list[Cell]]:
    """A few short runs with the networks at hand."""
    study = scaling.study_of("smoke", shelf.checkpoint_folder("tiny"))
    return study, scaling.plan(study, ["authentic"], [0], [0.5, 0.8])


def _start(place: Path) -> subprocess.Popen[bytes]:
    """Begin, or go on with, the small sweep in a folder, in a process of its own."""
    command = [sys.executable, "-m", "bench.studies", f"{place / 'cache'}", f"{place / 'results'}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def alone(preset_name: str) -> list[Row]:
    """TDSC of one seed with the machine to itself, as a person runs it; what it needs is made if missing."""
    unit = alignment.unit_of(preset_name, "tdsc")
    study, scale = alignment.study_of(preset_name, unit.language), SCALES[preset_name]
    inputs = run_stages(alignment.stages_before(study, unit), files.CACHE / preset_name)
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        alignment.try_method(study, unit, scale, Path(folder), inputs)
        minutes = (time.perf_counter() - started) / 60
    how = (
        f"{scale.rounds} rounds of {scale.prompts} texts, {TDSCConfig.candidates} candidates each, "
        f"seed 0 alone, {torch.get_num_threads()} threads, judging and watching included"
    )
    results = alignment.read_results(preset_name)
    if results is not None and len(in_study := _tuning_minutes(results, "tdsc", 1.0)):
        how += f"; in the study, on one core beside another run, at most {in_study.max():.1f}"
    return [("tdsc.minutes", minutes, "min", 15.0, "lower", how, True)]


def rows(preset_name: str) -> list[Row]:
    """All bars of the alignment study, as arguments of `bench.Row`; none before it was run."""
    results = alignment.read_results(preset_name)
    if results is None:
        return []
    ledger = {row["id"]: row for row in claims.ledger(None, results)}
    return [*_minutes(results), *_effects(results, ledger), *_claims(ledger), *_hours(results, preset_name)]


def _minutes(results: Aligned) -> list[Row]:
    taken = _tuning_minutes(results, "dgsa", ALPHA)
    how = f"the longest of {len(taken)} seeds on one core, another run on the other; no scoring"
    return [("dgsa.minutes", float(taken.max()), "min", 10.0, "lower", how, True)] if len(taken) else []


def _tuning_minutes(results: Aligned, method: str, alpha: float) -> "pd.Series[float]":
    """What each seed's tuning took in the study."""
    runs = results.runs[(results.runs["method"] == method) & (results.runs["alpha"] == alpha)]
    return runs.loc[runs["tuning_seconds"] > 0, "tuning_seconds"] / 60


def _effects(results: Aligned, found: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Effects of DGSA and TDSC against SFT, from the claims that test them."""
    bars = {
        "dgsa.expressivity": ("D4", "z", 0.0, "higher", True),
        "dgsa.wer": ("D1", "points", 2.0, "lower", False),
        "tdsc.wer": ("T1", "%", -20.0, "lower", True),
        "tdsc.entropy": ("T3", "bits", 0.0, "higher", False),
    }
    made = []
    for name, (claim, unit, bar, better, tested) in bars.items():
        if "estimate" in (row := found.get(claim, {})):
            value, low, high = (row[part] for part in ("estimate", "low", "high"))
            how = f"{claim}: {value:.3g} [{low:.3g}, {high:.3g}], adjusted p {row['p_adjusted']:.3f}"
            if claim == "T1":
                start = Arm.of_systems(results, [System("sft", alpha=ALONE)])
                value *= 100 / float(start.measure("wer").value.mean())
                how += ", in points; here relative to SFT"
            sure = not tested or row["p_adjusted"] < claims.LEVEL
            made.append((name, value, unit, bar, better, how, sure))
    return made


def _claims(found: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """How many claims have a verdict from enough seeds."""
    sure = {name for name, row in found.items() if len(row.get("seeds", ())) >= FEWEST_SEEDS}
    wanted = {"core": CORE, "full": [c.id for c in claims.declared() if c.id[0] in "DTC"]}
    how = f"verdicts computed from {FEWEST_SEEDS} or more seeds"
    return [
        (f"claims.{name}", float(len(sure & set(ids))), "claims", float(len(ids)), "higher", how, True)
        for name, ids in wanted.items()
    ]


def seconds(results: Aligned, preset_name: str, extent: str) -> float:
    """Seconds of one core that the units of `core` or `full` took, speech and tokens before them included."""
    units = alignment.plan(preset_name, extent, sorted(map(int, results.runs["seed"].unique())))
    spent = results.runs.merge(pd.DataFrame(units))[alignment.SECONDS]
    return float(spent.to_numpy().sum()) + sum(results.seconds.values())


def _hours(results: Aligned, preset_name: str) -> list[Row]:
    """Hours of two cores that every row takes, added up from what each took."""
    core, full = (seconds(results, preset_name, extent) / 7200 for extent in ("core", "full"))
    other = scaling.read_results(preset_name)
    if other is not None:
        spent = other.cells[["training_seconds", "speaking_seconds"]]
        starts = results.runs[results.runs["alpha"] < ALONE]  # those that are cells of the sweep count once
        shared = starts.loc[starts["alpha"].isin(other.cells["point"]), "training_seconds"]
        full += (float(spent.to_numpy().sum()) - float(shared.sum())) / 7200
    how = "seconds of all stages, each on one core with another beside it, halved"
    return [
        ("paper.core.hours", core, "h", 4.0, "lower", f"D, T, C core claims: {how}", True),
        ("paper.full.hours", full, "h", full, "lower", f"all rows there are, the sweep's too: {how}", True),
    ]


if __name__ == "__main__":
    files.CACHE = Path(sys.argv[1])
    store.run(CELLS, *_small(), target=Path(sys.argv[2]))
