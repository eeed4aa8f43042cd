"""The exercises of notebooks 11 to 13: right answers pass, and likely mistakes are told apart."""

import pytest
from tasks import alignment as tasks
from tasks.exercise import Exercise

RIGHT = {
    "weights": lambda a, s: (1 - max(0.0, (a - s) / (1 - s)), max(0.0, (a - s) / (1 - s))),
    "others": lambda voices, i: [j for j in range(len(voices)) if voices[j] == voices[i] and j != i],
    "pair_weights": lambda s, e, n, m: (s * (n + m) / n, e * (n + m) / m),
    "fate": lambda w, r, n: (
        "length" if n < 0.5 or n > 2 else "repetition" if r >= 0.1 else "words" if w >= 0.4 else "accepted"
    ),
    "pair": lambda wers: (
        (wers.index(min(wers)), wers.index(max(wers))) if min(wers) < 0.4 <= max(wers) else (-1, -1)
    ),
    "temperatures": lambda k: [0.7, 1.0, 0.8 + 0.1 * k],
    "relative": lambda before, after: 100 * (after / before - 1),
    "front": ["dgsa"],
    "not_worse": lambda draws, margin: (1 + sum(x >= margin for x in draws)) / (1 + len(draws)) < 0.05,
}
WRONG = {
    "weights": (lambda a, s: (1 - (a - s) / (1 - s), (a - s) / (1 - s)), "Below α\\*"),
    "others": (lambda voices, i: [j for j in range(len(voices)) if voices[j] == voices[i]], "The utterance"),
    "pair_weights": (lambda s, e, n, m: (s, e), "Of sets of different sizes"),
    "fate": (
        lambda w, r, n: (
            "words"
            if w >= 0.4
            else "length"
            if not 0.5 <= n <= 2
            else "repetition"
            if r >= 0.1
            else "accepted"
        ),
        "Words are asked last",
    ),
    "pair": (lambda wers: (wers.index(min(wers)), wers.index(max(wers))), "The worst that was accepted"),
    "temperatures": (lambda k: [0.7, 1.0, 1.3 + 0.1 * k], "That is the paper's other schedule"),
    "relative": (lambda before, after: after - before, "Those are points"),
    "front": (["dgsa", "dpo"], "Standard DPO is beaten"),
    "not_worse": (lambda draws, margin: sum(draws) / len(draws) < margin, "The mean alone"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass(name: str) -> None:
    exercise: Exercise = getattr(tasks, name)
    assert exercise.check(RIGHT[name]).right


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_named(name: str) -> None:
    exercise: Exercise = getattr(tasks, name)
    answer, said = WRONG[name]
    verdict = exercise.check(answer)
    assert not verdict.right
    assert verdict.fault.startswith(said.replace("\\", ""))
