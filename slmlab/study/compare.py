"""Two runs sentence by sentence: what one does better than the other, with intervals and sounds side by side.

Only sentences that both said count, and of each figure only those where both have it. Intervals are over
sentences, given the two trainings.

Axis legend: k the two runs, n sentences, d draws.
"""

from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slmlab.errors import LabError
from slmlab.files import replace_text
from slmlab.language import languages
from slmlab.metrics import UNITS
from slmlab.metrics.statistics import Estimate, draws_of, estimated, holm
from slmlab.study import report, tables
from slmlab.study.claims import LEVEL
from slmlab.study.page import page
from slmlab.study.tables import Section, section

SETTINGS = ("preset", "seeds", "lm", "commit", "fresh", "machine")
"""What a run says of itself, and may differ in, besides how it drew the tokens of a language."""
COUNTED = {
    "wer": lambda language, text: len(language.cut(text)),
    "cer": lambda language, text: len(language.counted_letters(text)),
}
"""Rates of errors, which are summed over sentences: what each is a share of."""
DRAWS = 10_000
"""Of sentences: so many that Holm's correction over dozens of figures leaves something sure."""
HEAD = ["figure", "in", "n", "A", "B", "B less A [95 %]", "p (Holm)", "so B is"]


def compare(a: Path, b: Path) -> tuple[str, Path]:
    """What two runs' folders differ in, as a text, and as a page `compared.html` in the second.

    Raises:
        LabError: a folder holds no run, both are the same, different judges read them, or no sentence is in
            both.
    """
    (first, ours), (second, theirs) = (report.read_run(run.resolve()) for run in (a, b))
    if a.resolve() == b.resolve():
        raise LabError(f"{a} and {b} are one run: give the folders of two.")
    both = paired(ours, theirs)
    if both.empty:
        raise LabError(f"{a} and {b} have no sentence in common: nothing can be compared.")
    judges = [sorted(set(both[f"judge_{which}"])) for which in "ab"]
    if judges[0] != judges[1]:
        named = " and ".join(f"judge {'/'.join(names)}" for names in judges)
        raise LabError(f"{a} and {b} were read by {named}, who err differently: give both the same --judge.")
    remarks = _remarks((a, b), (first, second), (len(ours), len(theirs), len(both)))
    groups, text = dict[str, list[Section]](), [*remarks]
    for code, rows in both.groupby("language", sort=False):
        lines = differences(rows, str(code))
        name = tables.spoken(str(code))
        groups[name] = [section("compared", lines, HEAD), *_side_by_side(rows, (a, b))]
        text += ["", name, pd.DataFrame(lines, columns=HEAD).to_string(index=False)]
    lead = "".join(f"<p>{escape(remark)}</p>" for remark in remarks)
    plain = page(f"{a.name} and {b.name}, compared", f"<div class='first'>{lead}</div>", groups)
    replace_text(b / "compared.html", plain)
    return "\n".join(text), b / "compared.html"


def paired(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows of the sentences that both runs said: their columns end in `_a` and `_b`.

    The k-th time that a system says a sentence of a language goes with the k-th time in the other run.
    """
    who = ["system", "language", "text"]
    a, b = (
        pd.DataFrame([{"system": "", "judge": "b"} | row for row in rows], columns=None if rows else who)
        for rows in (ours, theirs)
    )
    a, b = (table.assign(time=table.groupby(who, dropna=False).cumcount()) for table in (a, b))
    return a.merge(b, on=[*who, "time"], suffixes=("_a", "_b"))


def differences(rows: pd.DataFrame, code: str) -> list[list[str]]:
    """A line for each figure that both runs have of the sentences of a language: `HEAD`."""
    found: dict[str, tuple[Any, Estimate]] = {}
    for name in UNITS:
        if {f"{name}_a", f"{name}_b"} <= set(rows):
            values = rows[[f"{name}_a", f"{name}_b"]].astype(np.float64)
            kept = values.notna().all(axis=1)
            if kept.sum() >= 2:
                count = COUNTED.get(name, lambda *_: 1)
                weights = np.array([count(languages.find(code), text) for text in rows.loc[kept, "text"]])
                found[name] = _change(values[kept].to_numpy(), weights)
    ps = [min(1.0, 2 * min(estimate.p_above(), estimate.p_below())) for _, estimate in found.values()]
    return [
        _line(name, int((rows[f"{name}_a"].notna() & rows[f"{name}_b"].notna()).sum()), *found[name], p)
        for name, p in zip(found, holm(ps), strict=True)
    ]


def _change(values: Any, weights: Any) -> tuple[Any, Estimate]:
    """The weighted means of both runs (k) of values (n k), and the second less the first with its draws."""
    means = np.average(values, axis=0, weights=weights)
    drawn, changes = draws_of(len(weights), DRAWS), weights * (values[:, 1] - values[:, 0])
    return means, estimated(means[1] - means[0], changes[drawn].sum(1) / weights[drawn].sum(1))


def _line(name: str, n: int, means: Any, estimate: Estimate, p: float) -> list[str]:
    change = tables.bracketed(estimate.value, *estimate.interval(), "+.3g")
    told = "–" if p >= LEVEL else "higher" if estimate.value > 0 else "lower"
    return [name, UNITS[name], f"{n}", *(f"{mean:.3g}" for mean in means), change, f"{p:.3f}", told]


def _remarks(places: tuple[Path, Path], told: tuple[Any, Any], counts: tuple[int, int, int]) -> list[str]:
    """Who is compared, what sets the runs apart, and what was left out."""
    ours, theirs, both = counts
    drawn = [one.get("sampling") or {} for one in told]
    settings = [
        {name: one.get(name) or "–" for name in SETTINGS}
        | {"sampling": {code: own[code] for code in drawn[0] if code in drawn[1]}}
        for one, own in zip(told, drawn, strict=True)
    ]
    first, second = pd.json_normalize(settings, sep=" ").fillna("–").to_dict("records")
    unlike = [f"{name} {first[name]} → {second[name]}" for name in first if first[name] != second[name]]
    unknown = [
        f"How {place} drew its tokens was not kept." for place, n in zip(places, drawn, strict=True) if not n
    ]
    left = [
        f"{n - both} sentences of {place} are not in the other run and are left out."
        for place, n in zip(places, (ours, theirs), strict=True)
        if n > both
    ]
    return [
        f"A is {places[0]}, B is {places[1]}: {both} sentences that both said.",
        f"Their settings differ in: {'; '.join(unlike)}." if unlike else "Their settings are the same.",
        *unknown,
        *left,
        "Intervals are over sentences, given one training each: another seed may differ by more.",
    ]


def _side_by_side(rows: pd.DataFrame, places: tuple[Path, Path]) -> list[Section]:
    """A section for each sentence of which both runs kept the sound."""
    if not {"sound_a", "sound_b"} <= set(rows):
        return []
    parts = []
    for row in rows[rows["sound_a"].notna() & rows["sound_b"].notna()].to_dict("records"):
        paths = [place / "sounds" / row[f"sound_{which}"] for place, which in zip(places, "ab", strict=True)]
        if all(path.is_file() for path in paths):
            heard = [
                f"{which.upper()} (CER {row[f'cer_{which}']:.2f})\nheard: {row[f'heard_{which}']}"
                for which in "ab"
            ]
            title = tables.sentence(row["text"], row["language"]).replace("\n", " ")
            parts.append(Section(title, sounds=list(zip(heard, paths, strict=True)), shown=True))
    return parts
