"""What D1 to D13, T1 to T15 and C1 to C3 say of the alignment study's rows, in inequalities.

Systems that a claim compares stand side by side as the points of one arm, so that the scaling study's numbers
and draws serve here too: the same test sentences are drawn again for all systems and seeds.

Axis legend: k systems, s seeds, n sentences (or texts of a round), d draws.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from einops import rearrange

from slmlab.errors import LabError
from slmlab.metrics.statistics import average, ranks_agree
from slmlab.study import claims
from slmlab.study.alignment import ALPHA, ALPHAS, CANDIDATES, FOREIGN, STYLE, Aligned
from slmlab.study.claims import (
    CORRELATION,
    Arm,
    Claim,
    Floats,
    Measured,
    Part,
    family,
    mean,
    point_change,
    ratio,
)
from slmlab.study.sweep import Results

ALPHA_STAR = 0.5
System = tuple[str, str, str, float]
"""Language, method, part, α: a unit without its seed."""
Compared = tuple[str, str, Mapping[str, str]]
"""A method, the method it is compared with, and the direction of each measure's difference."""
FAMILIES = {"D": "dgsa", "T": "tdsc", "C": "cloning"}
"""What the families are called among the arms."""
COMPARED: dict[str, Compared] = {
    "D1": ("dgsa", "sft", {"wer": "below"}),
    "D2": ("dgsa", "sft", {"h": "above"}),
    "D3": ("dgsa", "sft", {"repetition": "below"}),
    "D4": ("dgsa", "sft", {"z": "above"}),
    "D5": ("dpo", "sft", {"h": "above"}),
    "D6": ("dpo", "sft", {"wer": "above"}),
    "D7": ("rejection", "dgsa", {"h": "below"}),
    "D8": ("dgsa.no-expressivity", "dgsa", {"h": "below"}),
    "D9": ("dgsa.no-stability", "dgsa", {"wer": "above"}),
    "D10": ("dgsa.random-speaker", "dgsa", {"wer": "above"}),
    "D11": ("dgsa.fixed-weights", "dgsa", {"wer": "above"}),
    "T1": ("tdsc", "sft", {"wer": "below"}),
    "T2": ("tdsc", "sft", {"repetition": "below"}),
    "T3": ("tdsc", "sft", {"h": "above"}),
    "T4": ("tdsc", "self-training", {"wer": "below"}),
    "T5": ("tdsc", "rejection", {"wer": "below"}),
    "T9": ("tdsc.no-dpo", "tdsc", {"wer": "above", "h": "below"}),
    "T10": ("tdsc.one-temperature", "tdsc", {"h": "below"}),
    "T11": ("tdsc.no-length-filter", "tdsc", {"wer": "above"}),
    "T12": ("tdsc.fixed-temperature", "tdsc", {"h": "below"}),
    "T13": ("tdsc.no-repetition-filter", "tdsc", {"repetition": "above"}),
}
"""Claims that set one method against another; WER and repetition in points."""


def judged(results: Aligned) -> dict[str, dict[str, dict[str, Any]]]:
    """By family's letter: the claims judged."""
    known = {claim.id: claim for claim in claims.declared()}
    found = {}
    for letter in FAMILIES:
        tests = {
            name: parts for name in known if name[0] == letter and (parts := _parts(results, known[name]))
        }
        found[letter] = family(tests)
    return found


def arm(results: Aligned, systems: Sequence[System]) -> Arm | None:
    """Systems as the points 0, 1, … of one arm, with the seeds that all of them have.

    None without any, and where there are too few recordings to standardise expressivity on.
    """

    def marked(table: pd.DataFrame) -> pd.DataFrame:
        parts = []
        for point, (language, method, part, alpha) in enumerate(systems):
            own = (table["language"] == language) & (table["method"] == method) & (table["part"] == part)
            parts.append(table[own & np.isclose(table["alpha"], alpha)].assign(point=float(point)))
        return pd.concat(parts, ignore_index=True).assign(arm="aligned", split="test")

    runs = marked(results.runs)
    shared = runs.groupby("seed")["point"].nunique() if len(runs) else pd.Series(dtype=int)
    seeds = shared.index[shared == len(systems)]
    if not len(seeds):
        return None
    rows, recordings = marked(results.rows), results.recordings
    recordings = recordings[recordings["language"] == systems[0][0]]
    rows, runs = (table[table["seed"].isin(seeds)] for table in (rows, runs))
    with suppress(LabError):
        return Arm(Results(rows, runs, recordings, pd.DataFrame(), {}), "aligned")
    return None


def measure(of: Arm, name: str) -> Measured:
    """A measure of an arm: `wer` and `repetition` in points, `h` in bits, the others as they are."""
    if name in ("h", "h_spoken"):
        return of.entropy(name)
    if name == "wer" or name.startswith("repetition"):
        share = of.wer if name == "wer" else of.mean(name)
        return replace(share, value=100 * share.value, draws=100 * share.draws)
    return of.mean(name, clear=name not in ("sim", "sim_strangers"))


def _parts(results: Aligned, claim: Claim) -> list[Part]:
    """The inequalities of one claim; none where its rows are missing."""
    if claim.id in COMPARED:
        return _compared(results, claim)
    special: dict[str, Callable[[Aligned, Claim], list[Part]]] = {
        **{"D12": _grows_with_alpha, "D13": _style, "T6": _pass_rate, "T7": _fastest_first},
        **{"T8": _flat_then_up, "T14": _with_temperature, "T15": _accepted},
        **{"C1": _cloned, "C2": _kept_voice, "C3": partial(_cloned, part=FOREIGN)},
    }
    return special[claim.id](results, claim)


def _system(method: str, part: str = "", alpha: float = ALPHA, language: str = "vi") -> System:
    return language, method, part, alpha if language == "vi" else 1.0


def _compared(results: Aligned, claim: Claim) -> list[Part]:
    method, other, directions = COMPARED[claim.id]
    language = "vi" if claim.id[0] == "D" else "sw"
    both = arm(results, [_system(name, language=language) for name in (method, other)])
    if both is None:
        return []
    return [
        Part(mean, (both.change("z", 0, 1),), direction, claim.margin)
        if name == "z"
        else Part(point_change(0, 1), (measure(both, name),), direction, claim.margin)
        for name, direction in directions.items()
    ]


def _grows_with_alpha(results: Aligned, claim: Claim) -> list[Part]:
    systems = [_system(method, alpha=a) for method in ("sft", "dgsa") for a in ALPHAS]
    whole, n = arm(results, systems), len(ALPHAS)

    def rises(x: Floats) -> float:
        return ranks_agree(np.repeat(np.array(ALPHAS) - ALPHA_STAR, x.shape[1]), (x[n:] - x[:n]).ravel())

    return [Part(rises, (whole.entropy(),), "above", 0.0, CORRELATION)] if whole else []


def _style(results: Aligned, claim: Claim) -> list[Part]:
    both = arm(results, [_system("sft", STYLE), _system("sft")])
    if both is None:
        return []
    livelier = Part(mean, (both.change("f0_spread", 0, 1),), "above")
    return [livelier, Part(point_change(0, 1), (measure(both, "sim"),), "within", claim.unchanged)]


def over_rounds(results: Aligned) -> Arm | None:
    """The start, the model after each round of TDSC, and the last, in order."""
    own = results.runs[(results.runs["language"] == "sw") & (results.runs["method"] == "tdsc")]
    between = sorted({part for part in own["part"] if part.isdigit()}, key=int)
    whole = [("sft", ""), *(("tdsc", part) for part in between), ("tdsc", "")]
    return arm(results, [_system(*what, language="sw") for what in whole]) if between else None


def _fastest_first(results: Aligned, claim: Claim) -> list[Part]:
    whole = over_rounds(results)
    if whole is None or len(whole.points) < 4:
        return []
    wer, late = measure(whole, "wer"), len(whole.points) - 3

    def slows(x: Floats) -> float:
        w = average(x, 1)
        return float((w[0] - w[2]) / 2 - (w[2] - w[-1]) / late)

    return [Part(slows, (wer,), "above"), Part(point_change(-1, 0), (wer,), "below")]


def _flat_then_up(results: Aligned, claim: Claim) -> list[Part]:
    whole = over_rounds(results)
    if whole is None or len(whole.points) < 4:
        return []
    h = whole.entropy()
    return [
        Part(point_change(-1, 2), (h,), "above"),
        Part(point_change(2, 0), (h,), "within", claim.unchanged),
    ]


def by_text(above: str, below: str, group: str, chosen: pd.DataFrame) -> Measured:
    """Sums over candidates (k s n) of two columns, divided; k is each value of `group`, n the texts."""
    sums = chosen.groupby([group, "seed", "place"])[[above, below]].sum()
    values, seeds = (sorted(chosen[name].unique()) for name in (group, "seed"))
    n = int(chosen["place"].max()) + 1
    full = sums.reindex(pd.MultiIndex.from_product([values, seeds, range(n)]), fill_value=0)
    shape = {"k": len(values), "s": len(seeds)}
    counts = (rearrange(full[name].to_numpy(float), "(k s n) -> k s n", **shape) for name in (above, below))
    over, under = counts
    return ratio(over, under, seeds)


def of_tdsc(results: Aligned) -> pd.DataFrame:
    """The ledger's sums of TDSC itself."""
    table = results.candidates
    return table[(table["method"] == "tdsc") & (table["part"] == CANDIDATES)] if len(table) else table


def _pass_rate(results: Aligned, claim: Claim) -> list[Part]:
    tried = of_tdsc(results)
    if not len(tried):
        return []
    return [Part(point_change(-1, 0), (by_text("passed", "tried", "round", tried),), "above")]


def set_entropies(results: Aligned) -> tuple[list[str], Measured]:
    """Sets of the last round's candidates, temperatures ascending, then `accepted`; their H_p (k s)."""
    table = results.sets[results.sets["method"] == "tdsc"]
    names = [*sorted({name for name in table["set"] if name != "accepted"}, key=float), "accepted"]
    seeds = sorted(table["seed"].unique())
    ordered = table.set_index(["set", "seed"]).loc[[(name, seed) for name in names for seed in seeds]]
    values = rearrange(ordered["h"].to_numpy(float), "(k s) -> k s", s=len(seeds))
    moved = np.stack([np.asarray(d, dtype=np.float64) for d in ordered["h_draws"]], 1)
    draws = values + rearrange(moved, "d (k s) -> d k s", s=len(seeds))
    return names, Measured(values, draws, tuple(seeds), lacking=True)


def last_round(results: Aligned) -> pd.DataFrame:
    """The ledger's sums of TDSC's last round."""
    tried = of_tdsc(results)
    return tried[tried["round"] == tried["round"].max()]


def _with_temperature(results: Aligned, claim: Claim) -> list[Part]:
    last = last_round(results)
    if not len(last):
        return []
    wer, loops, passed = (
        by_text(above, below, "temperature", last)
        for above, below in (("errors", "words"), ("repetition", "tried"), ("passed", "tried"))
    )
    h = set_entropies(results)[1]
    by_heat = replace(h, value=h.value[:-1], draws=h.draws[:, :-1])

    def rises(x: Floats) -> float:
        return float(average(np.array([ranks_agree(range(len(x)), x[:, s]) for s in range(x.shape[1])])))

    up = [Part(rises, (measured,), "above", 0.0, CORRELATION) for measured in (wer, by_heat, loops)]
    return [*up, Part(rises, (passed,), "below", 0.0, CORRELATION)]


def _accepted(results: Aligned, claim: Claim) -> list[Part]:
    last = last_round(results)
    if not len(last) or not last["passed"].sum():
        return []
    names, h = set_entropies(results)
    h = replace(h, n=int(last["place"].max()) + 1)
    one, accepted = names.index("1"), names.index("accepted")
    wer = by_text("errors", "words", "temperature", last)
    good = by_text("passed_errors", "passed_words", "language", last)

    def nearer(x: Floats, y: Floats) -> float:
        return float(average(np.abs(y[0] - x[0])) - average(np.abs(y[0] - x[one])))

    return [Part(point_change(accepted, one), (h,), "above"), Part(nearer, (wer, good), "below")]


def _cloned(results: Aligned, claim: Claim, part: str = "") -> list[Part]:
    """SIM to the wanted voice less to strangers, of what each language's method says."""
    parts = []
    for language, method in (("vi", "dgsa"), ("sw", "tdsc")):
        own = arm(results, [_system(method, part, language=language)])
        if own is None:
            return []
        x = own.column("sim") - own.column("sim_strangers")
        counted = np.isfinite(x)
        nearer = ratio(np.where(counted, x, 0), counted.astype(np.float64), own.seeds)
        parts.append(Part(mean, (nearer,), "above"))
    return parts


def _kept_voice(results: Aligned, claim: Claim) -> list[Part]:
    both = arm(results, [_system("dgsa"), _system("sft")])
    return [Part(point_change(0, 1), (measure(both, "sim"),), "within", claim.margin)] if both else []
