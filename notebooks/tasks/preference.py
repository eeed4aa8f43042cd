"""Exercises of notebook 10: the margin, the loss, and what it is before the first step."""

import math

import torch
from torch.nn import functional

from slmlab.preference import losses
from tasks.exercise import exercise

FOUR = (
    torch.tensor([-10.0, -20.0, -31.0]),
    torch.tensor([-12.0, -15.0, -30.0]),
    torch.tensor([-11.0, -19.0, -31.0]),
    torch.tensor([-11.5, -17.0, -33.0]),
)
MARGINS = torch.tensor([-3.0, 0.0, 2.0, 40.0])


@exercise(
    difficulty=1,
    minutes=5,
    cases=[FOUR],
    mistakes={
        "The reference is missing, or is the same for both sides: ask how far each side has moved from it.": (
            lambda chosen, rejected, *_: chosen - rejected
        ),
        "The sign is turned: the chosen side should have gained more.": lambda *four: -losses.margin(*four),
    },
    reference=losses.margin,
)
def margin(chosen, rejected, reference_chosen, reference_rejected):
    """Two models can only be compared by what they say of the same utterances."""
    return (chosen - reference_chosen) - (rejected - reference_rejected)


@exercise(
    difficulty=2,
    minutes=8,
    cases=[(MARGINS, 0.1), (MARGINS, 1.0)],
    mistakes={
        "That is the probability that the pair is lost; the loss is −log of winning it.": (
            lambda margins, beta: 1 - torch.sigmoid(beta * margins)
        ),
        "β must scale the margin inside the sigmoid.": lambda margins, _: losses.dpo(margins, 1.0),
        "The sign is turned: a large margin must cost nothing.": lambda margins, b: losses.dpo(-margins, b),
    },
    reference=losses.dpo,
)
def loss(margins, beta):
    """A pair already won by far pulls no more: the gradient is β σ(−β Δ)."""
    return -functional.logsigmoid(beta * margins)


def _start_fault(answer):
    if abs(answer - math.log(2)) < 6e-5:
        return ""
    side, done = ("small", "won") if answer < math.log(2) else ("large", "lost")
    return f"Too {side}: before the first step nothing is {done} yet, every margin is 0."


@exercise(difficulty=1, minutes=2, fault=_start_fault, package=[losses.dpo])
def start():
    """ln 2, whatever the model, the pairs and β. A run that begins elsewhere scores the wrong tokens."""
    return math.log(2)
