"""Exercises of notebook 02: mel, pitch, energy, entropy."""

import math

from slmlab import metrics
from slmlab.exercises import Exercise, like

ROWS = ([1, 1, 2, 2], [5] * 8, [1, 2, 3, 4, 5, 6, 7, 8], [3, 3, 3, 1])


def _nats(tokens: list[int]) -> float:
    return metrics.prosodic_entropy([tokens]) * math.log(2)


def _codes(tokens: list[int]) -> float:
    return math.log2(len(set(tokens)))


entropy = Exercise(
    difficulty=2,
    minutes=8,
    fault=like(
        lambda tokens: metrics.prosodic_entropy([tokens]),
        [(row,) for row in ROWS],
        {
            "These are nats: take the logarithm to base 2, and the unit is bits.": _nats,
            "You count which codes occur, not how often: weigh each by its frequency.": _codes,
            "The sign is turned: a logarithm of a share is negative, so the sum needs a minus.": lambda tokens: (
                -metrics.prosodic_entropy([tokens])
            ),
        },
    ),
    solution=(metrics.prosodic_entropy, metrics._entropy),
    why="One code only has no surprise in it, eight even ones have three bits.",
)
