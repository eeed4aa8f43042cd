"""Exercises of notebook 02: mel, pitch, energy, entropy."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slmlab import metrics
from slmlab.metrics import prosody as melody
from slmlab.metrics import tokens as codes
from slmlab.notebook.exercises import Exercise, like

ROWS = ([1, 1, 2, 2], [5] * 8, [1, 2, 3, 4, 5, 6, 7, 8], [3, 3, 3, 1])
MELODIES = (
    np.array([0.0, 100.0, 110.0, 121.0, 110.0, 100.0, 90.0]),
    np.array([0.0, 200.0, 220.0, 0.0, 242.0, 220.0, 200.0, 180.0]),
)
Melody = NDArray[np.float64]


def _entropy(tokens: Sequence[int]) -> float:
    return metrics.prosodic_entropy([tokens])


def _bits(tokens: Sequence[int]) -> float:
    shares = [tokens.count(code) / len(tokens) for code in set(tokens)]
    return -sum(share * math.log2(share) for share in shares)


def _nats(tokens: Sequence[int]) -> float:
    return _entropy(tokens) * math.log(2)


def _turned(tokens: Sequence[int]) -> float:
    return -_entropy(tokens)


def _distinct(tokens: Sequence[int]) -> float:
    return math.log2(len(set(tokens)))


entropy = Exercise(
    difficulty=2,
    minutes=8,
    fault=like(
        _entropy,
        [(row,) for row in ROWS],
        {
            "These are nats: take the logarithm to base 2, and the unit is bits.": _nats,
            "You count which codes occur, not how often: weigh each by its frequency.": _distinct,
            "The sign is turned: the logarithm of a share is negative, so the sum needs a minus.": _turned,
        },
    ),
    solution=(_bits, metrics.prosodic_entropy, codes.entropy),
    why="One code alone has no surprise in it; eight equally frequent ones have three bits.",
)


def _semitones(f0: Melody) -> float:
    voiced = f0[f0 > 0]
    return float(np.std(12 * np.log2(voiced)))


def _spread_of_all(f0: Melody) -> float:
    return float(np.std(12 * np.log2(f0)))


def _spread_with_gaps(f0: Melody) -> float:
    return float(np.std(12 * np.log2(np.maximum(f0, 1.0))))


def _spread_of_sample(f0: Melody) -> float:
    return float(np.std(12 * np.log2(f0[f0 > 0]), ddof=1))


def _spread_in_nats(f0: Melody) -> float:
    return metrics.f0_spread(f0) * math.log(2)


def _spread_in_octaves(f0: Melody) -> float:
    return metrics.f0_spread(f0) / 12


spread = Exercise(
    difficulty=1,
    minutes=6,
    fault=like(
        metrics.f0_spread,
        [(melody,) for melody in MELODIES],
        {
            "That is in Hz: the same melody would count double for a high voice. Take 12 log2 first.": (
                metrics.f0_std
            ),
            "Unvoiced frames carry a 0 that is no pitch, and its logarithm is no number: take f0[f0 > 0].": (
                _spread_of_all
            ),
            "Unvoiced frames carry a 0 that is no pitch: leave them out.": _spread_with_gaps,
            "These are octaves; an octave has 12 semitones.": _spread_in_octaves,
            "That is the natural logarithm; an octave is a doubling, so take the one to base 2.": (
                _spread_in_nats
            ),
            "You divide by n - 1, which guesses the spread of more than is there; here n is meant.": (
                _spread_of_sample
            ),
        },
    ),
    solution=(_semitones, metrics.f0_spread, melody.over_voiced),
    why="Semitones: the same melody counts the same in a low and in a high voice.",
)


def _share_of_places(tokens: Sequence[int]) -> float:
    places = range(len(tokens) - 4)
    return sum(len(set(tokens[i : i + 5])) == 1 for i in places) / len(places)


def _runs_of_four(tokens: Sequence[int]) -> float:
    return metrics.repetition_rate(tokens, k=3)


def _over_all(tokens: Sequence[int]) -> float:
    return metrics.repetition_rate(tokens) * (len(tokens) - 4) / len(tokens)


def _neighbours(tokens: Sequence[int]) -> float:
    return metrics.repetition_rate(tokens, k=1)


def _count(tokens: Sequence[int]) -> float:
    return metrics.repetition_rate(tokens) * (len(tokens) - 4)


def _cut_short(tokens: Sequence[int]) -> int:
    return sum(len(set(tokens[i : i + 5])) == 1 for i in range(len(tokens)))


def _runs(tokens: Sequence[int]) -> int:
    return sum(len(list(run)) >= 5 for _, run in itertools.groupby(tokens))


repetition = Exercise(
    difficulty=2,
    minutes=8,
    fault=like(
        metrics.repetition_rate,
        [
            ([7] * 10,),
            ([1, 2, 3] + [4] * 5 + [5, 6],),
            ([1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3],),
            ([1, 2, 3, 4] * 3,),
        ],
        {
            "Four followers must be equal to the first: five equal tokens in all.": _runs_of_four,
            "All four followers must be equal, not the fourth alone: 1 2 3 4 1 is no run.": lambda tokens: (
                np.mean(np.array(tokens[:-4]) == tokens[4:])
            ),
            "There are N - 4 places at which five tokens can begin: divide by that.": _over_all,
            "One equal follower is a pause or a long vowel; the paper asks for four.": _neighbours,
            "That is how many there are; a share is asked for: divide by the N - 4 places.": _count,
            "The last four tokens have no four followers: stop at place N - 4.": _cut_short,
            "The last four tokens have no four followers: stop at place N - 4 (you went on to N).": (
                lambda tokens: _cut_short(tokens) / len(tokens)
            ),
            "The last four tokens have no four followers: stop at place N - 4 (and divide by it).": (
                lambda tokens: _cut_short(tokens) / (len(tokens) - 4)
            ),
            "You count runs; count places: a run of six has two at which five equal tokens begin.": (
                lambda tokens: _runs(tokens) / (len(tokens) - 4)
            ),
        },
    ),
    solution=(_share_of_places, metrics.repetition_rate, codes.repeats),
    why="A model that has lost its way says one token again and again; silence does so too, beware.",
)
