"""Exercises of notebook 02: mel, pitch, energy, entropy."""

import itertools
import math

import numpy as np

from slmlab import metrics
from slmlab.metrics import prosody as pitch
from slmlab.metrics import tokens as codes
from tasks.exercise import exercise


@exercise(
    difficulty=1,
    minutes=6,
    cases=[
        (np.array([0.0, 100.0, 110.0, 121.0, 110.0, 100.0, 90.0]),),
        (np.array([0.0, 200.0, 220.0, 0.0, 242.0, 220.0, 200.0, 180.0]),),
    ],
    mistakes={
        "That is in Hz: one melody would count double for a high voice. Take 12 log2 first.": metrics.f0_std,
        "Unvoiced frames carry a 0 that is no pitch, and its logarithm is no number: take f0[f0 > 0].": (
            lambda f0: np.std(12 * np.log2(f0))
        ),
        "The 0 of unvoiced frames is no pitch: drop it.": lambda f0: np.std(12 * np.log2(np.maximum(f0, 1))),
        "These are octaves; an octave has 12 semitones.": lambda f0: metrics.f0_spread(f0) / 12,
        "That is the natural logarithm; take that to base 2.": lambda f0: metrics.f0_spread(f0) * math.log(2),
        "You divide by n - 1, which guesses the spread of more than is there; divide by n.": (
            lambda f0: np.std(12 * np.log2(f0[f0 > 0]), ddof=1)
        ),
    },
    reference=metrics.f0_spread,
    package=[metrics.f0_spread, pitch.over_voiced],
)
def spread(f0):
    """Semitones: the same melody counts the same in a low and in a high voice."""
    voiced = f0[f0 > 0]
    return float(np.std(12 * np.log2(voiced)))


@exercise(
    difficulty=2,
    minutes=8,
    cases=[([1, 1, 2, 2],), ([5] * 8,), ([1, 2, 3, 4, 5, 6, 7, 8],), ([3, 3, 3, 1],)],
    mistakes={
        "These are nats: take the logarithm to base 2, and the unit is bits.": (
            lambda tokens: metrics.prosodic_entropy([tokens]) * math.log(2)
        ),
        "You count which codes occur: weigh each by how often it occurs.": lambda row: math.log2(
            len(set(row))
        ),
        "The sign is turned: the logarithm of a share is negative, so the sum needs a minus.": (
            lambda tokens: -metrics.prosodic_entropy([tokens])
        ),
    },
    reference=lambda tokens: metrics.prosodic_entropy([tokens]),
    package=[metrics.prosodic_entropy, codes.entropy],
)
def entropy(tokens):
    """One code alone has no surprise in it; eight equally frequent ones have three bits."""
    shares = [tokens.count(code) / len(tokens) for code in set(tokens)]
    return -sum(share * math.log2(share) for share in shares)


def _n_places(tokens, last):
    """How many of the places before `last` begin five equal tokens, or fewer at the very end."""
    return sum(len(set(tokens[i : i + 5])) == 1 for i in range(last))


@exercise(
    difficulty=2,
    minutes=8,
    cases=[
        ([7] * 10,),
        ([1, 2, 3] + [4] * 5 + [5, 6],),
        ([1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3],),
        ([1, 2, 3, 4] * 3,),
    ],
    mistakes={
        "Four followers must be equal to it: five equal tokens.": lambda y: metrics.repetition_rate(y, k=3),
        "All four followers must be equal, not the fourth alone: 1 2 3 4 1 is no run.": (
            lambda y: np.mean(np.array(y[:-4]) == y[4:])
        ),
        "Five tokens can begin at N - 4 places: divide by that.": lambda y: _n_places(y, len(y) - 4) / len(y),
        "One equal follower is a pause or a long vowel; ask for four.": lambda y: metrics.repetition_rate(
            y, k=1
        ),
        "That is their number; a share is asked for: divide by N - 4.": lambda y: _n_places(y, len(y) - 4),
        "The last four tokens have no four followers: stop at place N - 4.": lambda y: _n_places(y, len(y)),
        "The last four tokens have no four followers: stop at place N - 4 (you went on to N).": (
            lambda y: _n_places(y, len(y)) / len(y)
        ),
        "The last four tokens have no four followers: stop at place N - 4 (and divide by it).": (
            lambda y: _n_places(y, len(y)) / (len(y) - 4)
        ),
        "You count runs; count places: a run of six has two at which five equal tokens begin.": (
            lambda y: sum(len(list(run)) >= 5 for _, run in itertools.groupby(y)) / (len(y) - 4)
        ),
    },
    reference=metrics.repetition_rate,
    package=[metrics.repetition_rate, codes.repeats],
)
def repetition(tokens):
    """A model that has lost its way says one token again and again; silence does so too, beware."""
    places = range(len(tokens) - 4)
    return sum(len(set(tokens[i : i + 5])) == 1 for i in places) / len(places)
