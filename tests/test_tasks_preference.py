"""The exercises of notebook 10: solutions are right, and likely mistakes are told apart."""

import math

import pytest
from tasks import preference as tasks

from slmlab.preference import losses


def test_solutions_are_right() -> None:
    assert tasks.margin.check(losses.margin).right
    assert tasks.loss.check(losses.dpo).right
    assert tasks.start.check(0.6931).right
    assert tasks.start.check(math.log(2)).right


@pytest.mark.parametrize(
    ("exercise", "answer", "said"),
    [
        (tasks.margin, lambda a, b, c, d: a - b, "The reference is missing"),
        (tasks.margin, lambda a, b, c, d: (b - d) - (a - c), "The sign is turned"),
        (tasks.loss, lambda margins, beta: losses.dpo(-margins, beta), "The sign is turned"),
        (tasks.loss, lambda margins, beta: losses.dpo(margins, 1.0), "β must scale"),
        (tasks.start, 0.0, "Too small"),
        (tasks.start, 1.0, "Too large"),
    ],
)
def test_mistakes_are_named(exercise: object, answer: object, said: str) -> None:
    assert exercise.check(answer).fault.startswith(said)  # type: ignore[attr-defined]
