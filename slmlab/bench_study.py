"""The bars that the studies' rows answer: minutes, hours, effects, and how many claims have a verdict."""

from collections.abc import Mapping
from typing import Any

from slmlab.study import alignment, alignment_claims, claims, sweep
from slmlab.study.alignment import ALPHA, Aligned

Row = tuple[str, float, str, float, str, str, bool]
CORE = [f"D{i}" for i in (*range(1, 8), 13)] + [f"T{i}" for i in (*range(1, 9), 14, 15)] + ["C1", "C2", "C3"]
FEWEST_SEEDS = 3


def rows(preset_name: str) -> list[Row]:
    """All bars of the alignment study, as arguments of `bench.Row`; none before it was run."""
    results = alignment.read_results(preset_name)
    if results is None:
        return []
    judged = alignment_claims.judged(results)
    found = {name: row for family, _ in judged.values() for name, row in family.items()}
    return [*_minutes(results), *_effects(results, found), *_claims(found), *_hours(results, preset_name)]


def _minutes(results: Aligned) -> list[Row]:
    made = []
    for method, alpha, bar in (("dgsa", ALPHA, 10.0), ("tdsc", 1.0, 15.0)):
        runs = results.runs[(results.runs["method"] == method) & (results.runs["alpha"] == alpha)]
        taken = runs["tuning_seconds"] / 60
        if len(taken) and taken.max() > 0:
            how = (
                f"the longest of {(taken > 0).sum()} seeds on one core, another run on the other; no scoring"
            )
            made.append((f"{method}.minutes", float(taken.max()), "min", bar, "lower", how, True))
    return made


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
        if claim in found:
            row = found[claim]
            value, low, high = (row[part] for part in ("estimate", "low", "high"))
            how = f"{claim}: {value:.3g} [{low:.3g}, {high:.3g}], adjusted p {row['p_adjusted']:.3f}"
            if claim == "T1":
                start = alignment_claims.arm(results, [("sw", "sft", "", 1.0)])
                assert start is not None  # T1 was judged against it
                value *= 100 / float(alignment_claims.measure(start, "wer").value.mean())
                how += ", in points; here relative to SFT"
            sure = not tested or row["p_adjusted"] < claims.LEVEL
            made.append((name, value, unit, bar, better, how, sure))
    return made


def _claims(found: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """How many claims have a verdict from enough seeds."""
    sure = {name for name, row in found.items() if len(row["by_seed"]) >= FEWEST_SEEDS}
    wanted = {"core": CORE, "full": [c.id for c in claims.declared() if c.id[0] in "DTC"]}
    how = f"verdicts computed from {FEWEST_SEEDS} or more seeds"
    return [
        (f"claims.{name}", float(len(sure & set(ids))), "claims", float(len(ids)), "higher", how, True)
        for name, ids in wanted.items()
    ]


def _hours(results: Aligned, preset_name: str) -> list[Row]:
    """Hours of two cores that every row takes, added up from what each took."""
    core, full = (alignment.seconds(results, preset_name, extent) / 7200 for extent in ("core", "full"))
    scaling = sweep.read_results(preset_name)
    if scaling is not None:
        spent = scaling.cells[["training_seconds", "speaking_seconds"]]
        full += float(spent.to_numpy().sum()) / 7200
    how = "seconds of all stages, each on one core with another beside it, halved"
    return [
        ("paper.core.hours", core, "h", 4.0, "lower", f"D, T, C core claims: {how}", True),
        ("paper.full.hours", full, "h", full, "lower", f"all rows there are, the sweep's too: {how}", True),
    ]
