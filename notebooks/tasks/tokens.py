"""Exercises of notebook 03: speech tokens."""

import itertools
import math

import torch

from slmlab.models.fsq import digits_to_codes, quantise
from slmlab.models.judges import transcribe
from tasks.exercise import exercise


@exercise(
    difficulty=1,
    minutes=5,
    cases=[([-1, -1, -1],), ([1, 0, -1],), ([0, 1, 1, -1],)],
    mistakes={
        "Levels begin at -1: add 1 to each digit first.": lambda row: sum(
            d * 3**i for i, d in enumerate(row)
        ),
        "The order is turned: the first digit is worth 1, the next 3.": lambda digits: code.solution(
            digits[::-1]
        ),
        "Three levels make base 3, not base 2.": lambda row: sum((d + 1) * 2**i for i, d in enumerate(row)),
    },
    reference=lambda digits: int(digits_to_codes(torch.tensor(digits))),
    package=[digits_to_codes],
)
def code(digits):
    """Eight digits of base 3: 6561 codes, and no codebook was learnt."""
    return sum((digit + 1) * 3**place for place, digit in enumerate(digits))


@exercise(
    difficulty=2,
    minutes=6,
    cases=[([0, 3, 3, 0, 3, 0],), ([1, 1, 2, 0, 0, 2, 2],), ([0, 0],)],
    mistakes={
        "You take blanks out first, so a real double letter melts into one: merge repeats first.": (
            lambda row: [symbol for symbol, _ in itertools.groupby(s for s in row if s)]
        ),
        "Repeats must become one symbol before the blanks go.": lambda row: [s for s in row if s],
        "Repeats are merged; now take out the blanks.": lambda row: [s for s, _ in itertools.groupby(row)],
    },
    package=[transcribe],
)
def collapse(row):
    """The blank exists for two reasons: to say nothing, and to keep double letters apart."""
    return [symbol for symbol, _ in itertools.groupby(row) if symbol]


@exercise(
    difficulty=3,
    minutes=8,
    mistakes={
        "That is the true slope of rounding; the quantiser pretends that there was no rounding.": lambda: 0,
        "The rounding is passed straight through, but tanh in `bound` has a slope of its own.": lambda: 1,
        "tanh is forgotten: 0.3 is what goes into it, and its slope is 1 - tanh².": lambda: 1 - 0.3**2,
        "That is the value of tanh; its slope is 1 - tanh².": lambda: math.tanh(0.3),
    },
    package=[quantise],
    tolerance=0.001,
)
def gradient():
    """So the encoder learns although rounding itself has no slope."""
    return 1 - math.tanh(0.3) ** 2
