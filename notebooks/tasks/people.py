"""Exercises of notebook 08: what a tie is worth, whether a listener is consistent, and what agreement is."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from slmlab.notebook.exercises import Exercise, like
from slmlab.people import ranking
from slmlab.people.ranking import HALF_A_TIE
from slmlab.people.store import TIE

VOTES = ((62, 38, 0), (10, 10, 5), (30, 10, 20), (5, 0, 1))
REPEATS = tuple(
    (one, other) for one in ("A", "B", "tie", "both_bad") for other in ("A", "B", "tie", "both_bad")
)
TWO_LISTENERS = (
    ("AABBA", "AABBA"),
    ("AAAAB", "AAAAA"),
    ("ABABABAB", "AABBABBA"),
    ("AAABBTTTAB", "AABBBTTAAB"),
)


def _apart(won: float, lost: float, tied: float) -> float:
    fitted = ranking.strengths(np.array([won, lost, tied], dtype=float), [("a", "b")], ("a", "b"))
    return float(fitted[0] - fitted[1])


def _odds(won: float, lost: float, tied: float, of_ties: float = 0.5) -> float:
    return float(np.log((won + of_ties * tied + HALF_A_TIE / 2) / (lost + of_ties * tied + HALF_A_TIE / 2)))


def _share(won: float, lost: float, tied: float) -> float:
    return (won + tied / 2) / (won + lost + tied)


def _same(before: str, again: str) -> bool:
    return ranking._meant(before, "x", "y") == ranking._meant(again, "y", "x")


def _alpha(one: Sequence[str], other: Sequence[str]) -> float:
    rows = []
    for i, answers in enumerate(zip(one, other, strict=True)):
        first, second = ranking.oriented(str(i), f"clip {i} x", f"clip {i} y")
        shown = {"item": str(i), "first": first, "second": second}
        rows += [
            shown | {"listener": who, "decision": {"T": TIE}.get(said, said)}
            for who, said in zip(("one", "other"), answers, strict=True)
        ]
    return ranking.agreement(pd.DataFrame(rows), resamples=2)["alpha"]


def _agreement(one: Sequence[str], other: Sequence[str]) -> float:
    return float(np.mean([a == b for a, b in zip(one, other, strict=True)]))


def _beyond_chance(one: str, other: str) -> float:
    answers, n = one + other, len(one + other)
    observed = np.mean([a != b for a, b in zip(one, other, strict=True)])
    expected = 1 - sum(answers.count(a) - 1 for a in answers) / (n * (n - 1))
    return float(1 - observed / expected)


def _with_replacement(one: Sequence[str], other: Sequence[str]) -> float:
    shares = pd.Series([*one, *other]).value_counts(normalize=True).to_numpy()
    chance = float((shares**2).sum())
    return (_agreement(one, other) - chance) / (1 - chance)


def _kappa(one: Sequence[str], other: Sequence[str]) -> float:
    first, second = (pd.Series(list(said)).value_counts(normalize=True) for said in (one, other))
    chance = float(first.mul(second, fill_value=0).sum())
    return (_agreement(one, other) - chance) / (1 - chance) if chance < 1 else 1.0


apart = Exercise(
    difficulty=1,
    minutes=5,
    fault=like(
        _apart,
        VOTES,
        {
            "Ties are missing: each is half a win for both.": lambda won, lost, tied: _odds(
                won, lost, tied, 0.0
            ),
            "A tie is half a win for each system, not a whole one.": lambda won, lost, tied: _odds(
                won, lost, tied, 1.0
            ),
            "That is the share of wins; asked is the logarithm of the odds.": _share,
            "The half tie that is given beforehand is missing: a system that never lost is at infinity.": (
                lambda won, lost, tied: (
                    float(np.log((won + tied / 2) / (lost + tied / 2))) if lost + tied else np.inf
                )
            ),
            "Turned round: that is how much stronger the second system is.": lambda won, lost, tied: (
                -_odds(won, lost, tied)
            ),
        },
        tolerance=1e-3,
    ),
    solution=(
        lambda won, lost, tied: np.log((won + tied / 2 + 0.25) / (lost + tied / 2 + 0.25)),
        ranking.strengths,
    ),
    why="Bradley-Terry for two systems is nothing but the log-odds of their votes.",
)
same = Exercise(
    difficulty=2,
    minutes=8,
    fault=like(
        _same,
        REPEATS,
        {
            "The sides were swapped: the same letter twice is the opposite opinion.": lambda a, b: a == b,
            "A tie that is a tie again is consistent too.": lambda a, b: {a, b} == {"A", "B"},
            "A tie and 'both bad' are two opinions: one likes both, the other neither.": (
                lambda a, b: {a, b} == {"A", "B"} or {a, b} <= {"tie", "both_bad"}
            ),
        },
    ),
    solution=(
        lambda before, again: again == {"A": "B", "B": "A"}.get(before, before),
        ranking._meant,
    ),
    why="Only because the side shown is stored can this be asked at all.",
)
alpha = Exercise(
    difficulty=3,
    minutes=20,
    fault=like(
        _alpha,
        TWO_LISTENERS,
        {
            "That is how often they agree; two coins agree half of the time. Take chance away.": _agreement,
            "Nearly: chance is drawn without putting back, n (n − 1) pairs of the n = 2 · items answers.": (
                _with_replacement
            ),
            "That is Cohen's kappa, with each listener's own shares; α pools all answers.": _kappa,
        },
    ),
    solution=(_beyond_chance, ranking.agreement, ranking.oriented),
    why="1 is perfect, 0 is what coins would reach, and below 0 they disagree on purpose.",
)
