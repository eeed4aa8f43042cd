"""Exercises of notebook 10: the margin, the loss, and what it is before the first step."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from slmlab.notebook.exercises import Exercise, between, like
from slmlab.preference import losses

FOUR = (
    torch.tensor([-10.0, -20.0, -31.0]),
    torch.tensor([-12.0, -15.0, -30.0]),
    torch.tensor([-11.0, -19.0, -31.0]),
    torch.tensor([-11.5, -17.0, -33.0]),
)
MARGINS = torch.tensor([-3.0, 0.0, 2.0, 40.0])


def _margin(chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor) -> Tensor:
    return (chosen - reference_chosen) - (rejected - reference_rejected)


margin = Exercise(
    difficulty=1,
    minutes=5,
    fault=like(
        losses.margin,
        (FOUR,),
        {
            "The reference is missing: what counts is how far the policy has moved from it.": (
                lambda chosen, rejected, *_: chosen - rejected
            ),
            "The sign is turned: the chosen side should have gained on the rejected one.": (
                lambda *four: -losses.margin(*four)
            ),
            "Both sides must be compared with the reference; you subtracted the rejected one's twice.": (
                lambda chosen, rejected, _, reference: (chosen - reference) - (rejected - reference)
            ),
        },
    ),
    solution=(_margin, losses.margin),
    why="Two models can only be compared by what they say of the same utterances.",
)


def _probability(margins: Tensor, beta: float) -> Tensor:
    return 1 - torch.sigmoid(beta * margins)


loss = Exercise(
    difficulty=2,
    minutes=8,
    fault=like(
        losses.dpo,
        ((MARGINS, 0.1), (MARGINS, 1.0)),
        {
            "That is the probability that the pair is lost; the loss is −log of winning it.": _probability,
            "β must scale the margin inside the sigmoid.": lambda margins, _: losses.dpo(margins, 1.0),
            "The sign is turned: a large margin must cost nothing.": (
                lambda margins, beta: losses.dpo(-margins, beta)
            ),
        },
    ),
    solution=(lambda margins, beta: -functional.logsigmoid(beta * margins), losses.dpo),
    why="A pair already won by far pulls no more: the gradient is β σ(−β Δ).",
)

start = Exercise(
    difficulty=1,
    minutes=2,
    fault=between(
        0.6931,
        0.6932,
        "Too small: before the first step nothing is won yet, every margin is 0.",
        "Too large: before the first step nothing is lost yet, every margin is 0.",
    ),
    solution=(lambda: math.log(2), losses.dpo),
    why="ln 2, whatever the model, the pairs and β. A run that begins elsewhere scores the wrong tokens.",
)
