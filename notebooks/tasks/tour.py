"""Exercises of notebook 00: the tour."""

import math

from tasks.exercise import exercise


@exercise(
    difficulty=1,
    minutes=3,
    mistakes={
        "That is one token's worth: there are 25 of them a second.": lambda: math.log2(6561),
        "6561 is how many codes there are; choosing one of them takes log2(6561) bits.": lambda: 25 * 6561,
        "Do not round up to whole bits: a token is worth log2(6561), a bit less than 13.": lambda: 25 * 13,
        "A digit of three levels holds more than one bit: log2(3).": lambda: 25 * 8,
        "That is the natural logarithm; bits need the one to base 2.": lambda: 25 * math.log(6561),
    },
    tolerance=0.01,
)
def bits():
    """A WAV file has 256 000 bits a second, so tokens are 800 times smaller."""
    return 25 * math.log2(6561)


@exercise(
    difficulty=1,
    minutes=4,
    cases=[(10, 300), (300, 300), (1200, 300)],
    mistakes={
        "You divide by the authentic hours only; alpha is a share of all hours.": lambda s, a: s / a,
        "That is the authentic share; alpha is the synthetic one.": lambda s, a: a / (s + a),
        "A share is between 0 and 1; leave the percent for the text.": lambda s, a: 100 * s / (s + a),
    },
)
def alpha(synthetic_hours, authentic_hours):
    """At 1200 synthetic hours beside 300 authentic ones alpha is 0.8, where the paper hears erosion."""
    return synthetic_hours / (synthetic_hours + authentic_hours)


@exercise(
    difficulty=1,
    minutes=2,
    mistakes={
        "There the words are understood best, but listeners liked it least.": lambda: 100,
        "There the words are hardly understood; look at the third panel, not the first.": lambda: 3,
        "That is a share; the answer is asked in percent: multiply by 100.": lambda: 0.5,
        "There erosion has begun; look for the highest point of the third panel.": lambda: 80,
    },
)
def peak():
    """So the best mixture for the ear is not the best for the error rate: that is the gap to bridge."""
    return 50
