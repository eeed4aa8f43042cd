"""Exercises of notebook 08: what a tie is worth, whether a listener is consistent, and what agreement is."""

import itertools
from functools import partial

import numpy as np
import pandas as pd

from slmlab.people import ranking
from slmlab.people.design import TIE
from tasks.exercise import exercise

ANSWERS = ("A", "B", "tie", "both_bad")


def _strength_apart(won, lost, tied):
    votes = np.array([won, lost, tied], dtype=float)
    first, second = ranking.strengths(votes, [("a", "b")], ("a", "b"))
    return float(first - second)


def _odds(won, lost, tied, of_ties=0.5, given=0.25):
    return float(np.log((won + of_ties * tied + given) / (lost + of_ties * tied + given)))


@exercise(
    difficulty=1,
    minutes=5,
    cases=[(62, 38, 0), (10, 10, 5), (30, 10, 20), (5, 0, 1)],
    mistakes={
        "Ties are missing: each is half a win for both.": partial(_odds, of_ties=0.0),
        "A tie is half a win for each system, not a whole one.": partial(_odds, of_ties=1.0),
        "That is the share of wins; asked is the logarithm of the odds.": (
            lambda won, lost, tied: (won + tied / 2) / (won + lost + tied)
        ),
        "The half tie that is given beforehand is missing: a system that never lost is at infinity.": (
            partial(_odds, given=0.0)
        ),
        "Turned round: this is the second system's lead.": lambda won, lost, tied: _odds(lost, won, tied),
    },
    reference=_strength_apart,
    package=[ranking.strengths],
    tolerance=1e-3,
)
def apart(won, lost, tied):
    """Bradley-Terry for two systems is nothing but the log-odds of their votes."""
    return np.log((won + tied / 2 + 0.25) / (lost + tied / 2 + 0.25))


@exercise(
    difficulty=2,
    minutes=8,
    cases=list(itertools.product(ANSWERS, ANSWERS)),
    mistakes={
        "The sides were swapped: the same letter twice is the opposite opinion.": lambda a, b: a == b,
        "A tie that is a tie again is consistent too.": lambda a, b: {a, b} == {"A", "B"},
        "A tie and 'both bad' are two opinions: one likes both, the other neither.": (
            lambda a, b: {a, b} == {"A", "B"} or {a, b} <= {"tie", "both_bad"}
        ),
    },
    reference=lambda before, again: ranking.preferred(before, "x", "y") == ranking.preferred(again, "y", "x"),
    package=[ranking.preferred],
)
def same(before, again):
    """Only because the side shown is stored can this be asked at all."""
    return again == {"A": "B", "B": "A"}.get(before, before)


def _package_alpha(one, other):
    rows = []
    for i, answers in enumerate(zip(one, other, strict=True)):
        first, second = ranking.oriented(str(i), f"clip {i} x", f"clip {i} y")
        shown = {"item": str(i), "first": first, "second": second}
        rows += [
            shown | {"listener": listener, "decision": TIE if answer == "T" else answer}
            for listener, answer in enumerate(answers)
        ]
    return ranking.agreement(pd.DataFrame(rows), resamples=2)["alpha"]


def _agreement(one, other):
    return float(np.mean([a == b for a, b in zip(one, other, strict=True)]))


def _beyond(one, other, first, second):
    """Agreement beyond that of answers drawn from two rows, each with its own shares."""
    shares = [pd.Series([*row]).value_counts(normalize=True) for row in (first, second)]
    chance = float(shares[0].mul(shares[1], fill_value=0).sum())
    return (_agreement(one, other) - chance) / (1 - chance) if chance < 1 else 1.0


@exercise(
    difficulty=3,
    minutes=20,
    cases=[
        ("AABBA", "AABBA"),
        ("AAAAB", "AAAAA"),
        ("ABABABAB", "AABBABBA"),
        ("AAABBTTTAB", "AABBBTTAAB"),
    ],
    mistakes={
        "That is how often they agree; two coins agree half of the time. Take chance away.": _agreement,
        "Nearly: chance is drawn without putting back, n (n − 1) pairs of the n = 2 · items answers.": (
            lambda one, other: _beyond(one, other, one + other, one + other)
        ),
        "That is Cohen's kappa, with each listener's own shares; α pools all answers.": (
            lambda one, other: _beyond(one, other, one, other)
        ),
    },
    reference=_package_alpha,
    package=[ranking.agreement, ranking.oriented],
)
def alpha(one, other):
    """1 is perfect, 0 is what coins would reach, and below 0 they disagree on purpose."""
    answers, n = one + other, len(one + other)
    observed = np.mean([a != b for a, b in zip(one, other, strict=True)])
    expected = 1 - sum(answers.count(a) - 1 for a in answers) / (n * (n - 1))
    return float(1 - observed / expected)
