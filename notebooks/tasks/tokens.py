"""Exercises of notebook 03: speech tokens."""

import itertools
import math
from collections.abc import Sequence

import torch

from slmlab.models.fsq import LEVELS, digits_to_codes, quantise
from slmlab.models.judges import transcribe
from slmlab.notebook.exercises import Exercise, like


def _code(digits: Sequence[int]) -> int:
    return int(digits_to_codes(torch.tensor(digits)))


def _worth(digits: Sequence[int]) -> int:
    return sum((digit + 1) * 3**place for place, digit in enumerate(digits))


def _slope() -> float:
    return 1 - math.tanh(0.3) ** 2


def _unshifted(digits: Sequence[int]) -> int:
    return sum(digit * LEVELS**place for place, digit in enumerate(digits))


def _backwards(digits: Sequence[int]) -> int:
    return _code(digits[::-1])


def _binary(digits: Sequence[int]) -> int:
    return sum((digit + 1) * 2**place for place, digit in enumerate(digits))


code = Exercise(
    difficulty=1,
    minutes=5,
    fault=like(
        _code,
        [([-1, -1, -1],), ([1, 0, -1],), ([0, 1, 1, -1],)],
        {
            "Levels begin at -1, places of a number at 0: add 1 to each digit first.": _unshifted,
            "The order is turned: the first digit is worth 1, the next 3, the next 9.": _backwards,
            "Three levels make base 3, not base 2.": _binary,
        },
    ),
    solution=(_worth, digits_to_codes),
    why="Eight digits of base 3: 6561 codes, and no codebook was learnt.",
)


def _collapse(row: Sequence[int]) -> list[int]:
    return [symbol for symbol, _ in itertools.groupby(row) if symbol]


def _blanks_first(path: Sequence[int]) -> list[int]:
    return [symbol for symbol, _ in itertools.groupby(s for s in path if s)]


def _only_blanks(path: Sequence[int]) -> list[int]:
    return [symbol for symbol in path if symbol]


def _only_repeats(path: Sequence[int]) -> list[int]:
    return [symbol for symbol, _ in itertools.groupby(path)]


collapse = Exercise(
    difficulty=2,
    minutes=6,
    fault=like(
        _collapse,
        [([0, 3, 3, 0, 3, 0],), ([1, 1, 2, 0, 0, 2, 2],), ([0, 0],)],
        {
            "You take blanks out first, so a real double letter melts into one: merge repeats first.": (
                _blanks_first
            ),
            "Repeats must become one symbol before the blanks go.": _only_blanks,
            "Repeats are merged; now take out the blanks (0).": _only_repeats,
        },
    ),
    solution=(_collapse, transcribe),
    why="The blank exists for two reasons: to say nothing, and to keep double letters apart.",
)

gradient = Exercise(
    difficulty=3,
    minutes=8,
    fault=like(
        _slope,
        [()],
        {
            "That is the true slope of rounding; the quantiser pretends that there was no rounding.": (
                lambda: 0.0
            ),
            "The rounding is passed straight through, but tanh in `bound` has a slope of its own.": lambda: (
                1.0
            ),
            "tanh is forgotten: 0.3 is what goes into it, and its slope is 1 - tanh².": lambda: 1 - 0.3**2,
            "That is the value of tanh; its slope is 1 - tanh².": lambda: math.tanh(0.3),
        },
        tolerance=0.001,
    ),
    solution=(_slope, quantise),
    why="So the encoder learns although rounding itself has no slope.",
)
