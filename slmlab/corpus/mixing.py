"""How much of the training speech is synthetic, by hours, and which of it is good enough to be used.

alpha = hours of synthetic speech / hours of all speech (the paper's §3). A larger alpha keeps the synthetic
utterances of a smaller one and adds to them, so that the points of a sweep differ in nothing but the
addition.
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slmlab.errors import LabError
from slmlab.language.text import words_of

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Mixture:
    """Which rows of an authentic and of a synthetic manifest are trained on, ascending; and hours in all.

    `alpha` is what was reached: utterances are whole, so it may miss the wish by half an utterance.
    """

    authentic: Rows
    synthetic: Rows
    alpha: float
    hours: float


def mix(
    authentic: pd.DataFrame, synthetic: pd.DataFrame, alpha: float, seed: int, hours: float | None = None
) -> Mixture:
    """Choose utterances so that the wanted share of the hours is synthetic.

    Without `hours`, the speech wanted in all, every authentic utterance is taken; alpha must then be below
    1. LabError where alpha is no share, or there is not enough speech.
    """
    if not 0 <= alpha <= 1:
        raise LabError(f"alpha is a share of the hours: found {alpha}, expected 0 to 1.")
    if hours is None and alpha == 1:
        raise LabError("alpha 1 has no authentic speech to measure by: give the hours wanted in all.")
    if hours is None:
        real = np.arange(len(authentic), dtype=np.int64)
        seconds = _seconds(authentic, real) * alpha / (1 - alpha)
    else:
        real = _take(authentic, (1 - alpha) * hours * 3600, seed, "authentic")
        seconds = alpha * hours * 3600
    synthesised = _take(synthetic, seconds, seed, "synthetic")
    parts = _seconds(authentic, real), _seconds(synthetic, synthesised)
    total = sum(parts)
    if total == 0:
        raise LabError(f"A mixture at alpha {alpha} of no more than this speech is empty: give more hours.")
    return Mixture(real, synthesised, alpha=parts[1] / total, hours=total / 3600)


def quality_filter(
    rows: pd.DataFrame, max_wer: float = 0.4, duration: tuple[float, float] = (0.8, 1.5)
) -> tuple[NDArray[np.bool_], pd.DataFrame]:
    """Keep what a recogniser understands, of natural length, without loops (the paper's §7).

    Args:
        rows: a manifest with the scores `wer`, `heard` and `duration_ratio` filled in.
        max_wer: rows must stay below it.
        duration: bounds of the duration ratio, both allowed.

    Returns:
        for each row whether it passed; and by engine `n`, `kept`, `acceptance`, and the shares lost to
        `errors`, `duration` and `loops`, which may overlap.
    """
    if empty := [name for name in ("wer", "heard", "duration_ratio") if rows[name].isna().any()]:
        raise LabError(
            f"The filter needs every row's {', '.join(empty)}: let judge A score the corpus first."
        )
    lost = pd.DataFrame(
        {
            "errors": ~(rows["wer"] < max_wer),
            "duration": ~rows["duration_ratio"].between(*duration),
            "loops": [loops(*row) for row in zip(rows["heard"], rows["text"], rows["language"], strict=True)],
        }
    )
    kept = ~lost.any(axis=1)
    table = (
        lost.assign(engine=rows["engine"].to_numpy(), n=1, kept=kept)
        .groupby("engine")
        .agg({"n": "sum", "kept": "sum", "errors": "mean", "duration": "mean", "loops": "mean"})
    )
    table.insert(2, "acceptance", table["kept"] / table["n"])
    return kept.to_numpy(), table.reset_index()


def balanced(rows: pd.DataFrame, kept: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """Of the rows kept, about equal hours from every engine: as many as the scarcest one has."""
    shares = [np.flatnonzero(kept & (rows["engine"] == engine)) for engine in rows["engine"].unique()]
    least = min(_seconds(rows, share) for share in shares)
    chosen = np.zeros(len(rows), dtype=bool)
    for share in shares:
        chosen[share[_take(rows.iloc[share], least, seed, "kept")]] = True
    return chosen


def duration_ratios(rows: pd.DataFrame, reference: pd.DataFrame) -> NDArray[np.float64]:
    """Seconds of each row over those expected for its text.

    Expected is a line a + b · letters, fitted by least squares for each language on trusted speech, the
    `reference`, which needs texts of two lengths or more in each.
    """
    ratios = np.empty(len(rows))
    languages = rows["language"].to_numpy()
    for language in rows["language"].unique():
        trusted = reference[reference["language"] == language]
        letters = _letters(trusted)
        if len(np.unique(letters)) < 2:
            raise LabError(
                f"No durations to learn from: the reference has {len(trusted)} utterances in '{language}', "
                "texts of at least two lengths are needed."
            )
        slope, start = np.polyfit(letters, trusted["seconds"].to_numpy(), 1)
        here = languages == language
        expected = start + slope * _letters(rows[here])
        ratios[here] = rows["seconds"].to_numpy()[here] / np.maximum(expected, 0.1)
    return ratios


def loops(heard: str, text: str, language: str = "", times: int = 3, longest: int = 4) -> bool:
    """Whether up to `longest` words are heard `times` times in a row without the text doing so."""
    again = re.compile(rf"(?<!\S)((?:\S+ ){{1,{longest}}})\1{{{times - 1}}}")
    in_heard, in_text = (
        again.search("".join(f"{word} " for word in words_of(said, language))) for said in (heard, text)
    )
    return in_heard is not None and in_text is None


def _take(rows: pd.DataFrame, seconds: float, seed: int, what: str) -> Rows:
    """The beginning of one random order of the rows, as near to the wanted length as whole rows come."""
    order = np.random.default_rng((seed, len(what))).permutation(len(rows))
    lengths = rows["seconds"].to_numpy()[order]
    reached = np.concatenate([[0.0], np.cumsum(lengths)])
    slack = float(lengths.max(initial=0.0)) / 2
    if seconds > reached[-1] + slack:
        raise LabError(
            f"The mixture needs {seconds / 3600:.3f} h of {what} speech, there is {reached[-1] / 3600:.3f} "
            "h: build more of it, or ask for another alpha."
        )
    n = int(np.abs(reached - seconds).argmin())
    return np.sort(order[:n]).astype(np.int64)


def _seconds(rows: pd.DataFrame, places: Rows) -> float:
    return float(rows["seconds"].to_numpy()[places].sum())


def _letters(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Letters of each text."""
    pairs = zip(rows["text"], rows["language"], strict=True)
    return np.array([len("".join(words_of(*pair))) for pair in pairs], dtype=np.float64)
