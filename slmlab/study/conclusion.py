"""What came out, in three sentences to retell: of the run, of the scaling study, of the alignment study.

Each is computed from rows. A change counts when its 95 % interval over sentences leaves 0 out.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial

import numpy as np

from slmlab.errors import LabError
from slmlab.metrics.statistics import average
from slmlab.study import claims, scaling
from slmlab.study.alignment import ALONE, ALPHA, Aligned
from slmlab.study.claims import Arm, NoRows, Part, System

UNSURE = "as far as these rows can tell"


def of_the_run(rates: Mapping[str, float]) -> str:
    """How well the run is understood: WER by language."""
    if not rates:
        return "In this run nothing was said."
    shares = " and ".join(f"{100 * rate:.0f} % of the words of {name}" for name, rate in rates.items())
    return f"In this run a recogniser misread {shares} that the lab's voice said."


def of_scaling(results: scaling.Results | None) -> str:
    """What more synthetic speech does to clarity and to melody, from the first α to the last."""
    arms = claims.arms_of(results) if results else []
    if results is None or not arms:
        return "What synthetic speech does to a voice has not been studied here yet."
    arm = arms[0]
    wer, last = arm.measure("wer"), len(arm.points) - 1
    first, final = (float(average(wer.value[k])) for k in (0, last))
    _, how_clear = told(
        Part(claims.point_change(last, 0), (wer,), "below"), "is better understood", "is worse understood"
    )
    clear = f"{how_clear or 'is understood as well as before, ' + UNSURE}"
    spread, how_lively = told(
        Part(claims.mean, (arm.change("f0_spread", last, 0),), "below"), "sounds flatter", "sounds livelier"
    )
    recordings = average(results.recordings["f0_spread"])
    melody = (
        f", and the pitch of what stays clear moves by {abs(spread):.1f} semitones "
        f"{'less' if spread < 0 else 'more'} (recordings have {recordings:.1f} in all)"
        if np.isfinite(spread)
        else ""
    )
    lively = how_lively or "sounds no flatter and no livelier, " + UNSURE
    share = " to ".join(f"{100 * arm.points[k]:.0f} %" for k in (0, last))
    return (
        f"A model that learns from more synthetic speech {clear} and {lively}: from {share} of it, misread "
        f"words go from {first:.0f} to {final:.0f} %{melody}."
    )


def of_alignment(results: Aligned | None) -> str:
    """What each of the paper's two ways of tuning does to clarity and variety."""
    ways = {"with recordings (DGSA)": ("dgsa", ALPHA), "without recordings (TDSC)": ("tdsc", ALONE)}
    found = []
    for name, (method, alpha) in ways.items():
        with suppress(NoRows):
            if results:
                both = Arm.of_systems(results, [System("sft", alpha=alpha), System(method, alpha=alpha)])
                found.append(f"the one {name} {_tuned(both)}")
    if not found:
        return "The paper's two ways of tuning have not been tried here yet."
    return f"Of the paper's two ways of tuning, {'; '.join(found)}."


def _tuned(both: Arm) -> str:
    """What changes from the first system to the second."""
    wer, h = both.measure("wer"), both.entropy()
    before, after = average(wer.value, 1)
    change = partial(Part, claims.point_change(1, 0), direction="above")
    _, words = told(change(measured=(wer,)), "fewer", "more")
    bits, variety = told(change(measured=(h,)), "less varied", "more varied")
    clear = f"leaves {words} words misread" if words else f"misreads as many words as before, {UNSURE}"
    varied = f"makes speech {variety}" if variety else f"keeps its variety, {UNSURE}"
    return f"{clear} ({before:.1f} → {after:.1f} %) and {varied} (token entropy {bits:+.2f} bits)"


def told(part: Part, lower: str, higher: str) -> tuple[float, str]:
    """A change and its word: `lower` or `higher` if it is sure, nothing if not; NaN where it is undefined."""
    try:
        estimate = part.estimate
    except LabError:
        return float("nan"), ""
    low, high = estimate.interval()
    return estimate.value, lower if high < 0 else higher if low > 0 else ""
