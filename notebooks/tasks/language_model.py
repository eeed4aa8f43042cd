"""Exercises of notebook 04: temperature, repetition, and what a language model is taught where."""

import torch

from slmlab.models import lm
from slmlab.speech import sampling
from tasks.exercise import exercise

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0])
LAST = [7, 7, 3, 4, 5, 6, 8, 9, 1, 2]


@exercise(
    difficulty=1,
    minutes=5,
    cases=[(LOGITS, 0.5), (LOGITS, 1.0), (LOGITS, 2.0)],
    mistakes={
        "You multiplied by the temperature: heat would make it surer. Divide.": lambda x, t: (x * t).softmax(
            -1
        ),
        "You divided the probabilities; their sum is 1 no more: divide logits.": lambda x, t: (
            x.softmax(-1) / t
        ),
        "These do not add up to 1: after the exponential, divide by the sum.": lambda x, t: (x / t).exp(),
        "This forgets the temperature.": lambda x, t: x.softmax(-1),
    },
    package=[sampling.candidates],
)
def sharpen(logits, temperature):
    """It raises every probability to the power 1/t, and makes them add up to 1 again."""
    return (logits / temperature).softmax(-1)


@exercise(
    difficulty=2,
    minutes=10,
    cases=[
        ([7, 7, 7, 4, 5, 6, 8, 9, 1, 2], 7, 0.25),
        *((LAST, 7, 0.25), (LAST, 7, 0.2), (LAST, 3, 0.25), (LAST, 11, 0.1)),
        ([7] * 10, 7, 1.0),
        ([7, 3, 4, 5], 7, 0.25),
    ],
    mistakes={
        "Exactly the share is enough to draw again: use >=, not >.": (
            lambda past, chosen, share: past.count(chosen) > share * len(past)
        ),
        "You compare a count with a share: a share of the window is share · len(past) tokens.": (
            lambda past, chosen, share: past.count(chosen) >= share
        ),
        "The window need not be 10 long: a share of it is share · len(past) tokens.": (
            lambda past, chosen, share: past.count(chosen) >= share * 10
        ),
        "You only look at the last token: count in the window.": lambda past, new, share: past[-1] == new,
        "Turned round: draw again when the token is frequent.": (
            lambda past, chosen, share: past.count(chosen) < share * len(past)
        ),
    },
    package=[sampling.draw],
)
def draw_again(past, chosen, share):
    """The second draw is from all tokens: the nucleus would only hand back the same one."""
    return list(past).count(chosen) >= share * len(past)


@exercise(
    difficulty=3,
    minutes=15,
    cases=[(5, 3), (1, 2), (9, 0)],
    mistakes={
        "One too late: the place before a token predicts it, so <speech> predicts the first.": (
            lambda head, codes: list(range(head, head + codes + 1))
        ),
        "The end is missing: the last code predicts <end>, or speech never stops.": (
            lambda head, codes: list(range(head - 1, head + codes - 1))
        ),
        "One too late, and no end: <speech> predicts the first code, the last code predicts <end>.": (
            lambda head, codes: list(range(head, head + codes))
        ),
        "You teach the text too: letters are given, not taught.": lambda head, codes: list(
            range(head + codes)
        ),
    },
    package=[lm.assemble],
)
def lesson_places(head, codes):
    """Off by one here is the commonest silent fault of language models: the loss falls all the same."""
    return list(range(head - 1, head + codes))
