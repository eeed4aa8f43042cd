"""Exercises: answers shown pass their own checks; each likely mistake is told which one it is. In 00 to 03,
answers and mistakes that are written another way are recognised, too.
"""

import importlib
import inspect
import math
import textwrap
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from tasks import corpus, prosody, tokens, tour
from tasks.exercise import HARDEST, NOTEBOOK_NAMES, Exercise, exercise

from slmlab.corpus.prosody import LIVELY, SYNTHETIC
from slmlab.language.text import normalise
from slmlab.notebook import series

LONGEST_ANSWER = 5  # lines
WIDEST_ANSWER = 100  # characters
TASKS = sorted(path.stem for path in Path(tour.__file__).parent.glob("[a-z]*.py"))
EVERY = {
    f"{name}.{title}": exercise
    for name in TASKS
    for title, exercise in vars(importlib.import_module(f"tasks.{name}")).items()
    if isinstance(exercise, Exercise)
}
BOOK = nbformat.read(series.BOOK / "07_judges.ipynb", as_version=4)
BUILT = next(cell.source.split("\n\n")[0] for cell in BOOK.cells if cell.source.startswith("def edits("))
"""What notebook 07 builds before it asks for a word error rate."""
every_exercise = pytest.mark.parametrize("task", EVERY.values(), ids=EVERY)


def _added(x: int, y: int) -> int:
    return x + y


@exercise(
    difficulty=2,
    minutes=3,
    cases=[(1,), (3,)],
    mistakes={"You squared it.": lambda x: x * x},
    package=(normalise,),
)
def double(x: int) -> int:
    """Twice is once and once again."""
    return _added(x, x)


def _twice(x: Any) -> Any:
    """As `double`, for other cases."""
    return 2 * x


def task_of(*cases: tuple[Any, ...], answer: Any = _twice) -> Exercise:
    return exercise(difficulty=1, minutes=1, cases=cases)(answer)


def takes(task: Exercise) -> str:
    """The names of an answer's arguments; none for a value."""
    return ", ".join(inspect.signature(task.solution).parameters)


def run_as_shown(task: Exercise) -> Any:
    """What a reader gets who pastes all that is shown into the notebook's stub; for a value, the value."""
    names: dict[str, Any] = {"np": np, "pd": pd, "torch": torch}
    assert names.keys() == NOTEBOOK_NAMES
    exec(BUILT, names)
    *needed, shown = task.shown_answer().split("\n\n")
    if not takes(task):
        exec("\n".join(needed), names)
        return eval(shown, names)
    exec(f"def answer({takes(task)}):\n{textwrap.indent(task.shown_answer(), '    ')}", names)
    return names["answer"]


@every_exercise
def test_the_shown_answer_passes_its_own_check(task: Exercise) -> None:
    assert task.check(run_as_shown(task)).fault == ""


@every_exercise
def test_each_mistake_is_told_by_its_own_sentence(task: Exercise) -> None:
    """None is right, and no two mistakes are one and the same in all the cases that are tried."""
    for sentence, mistake in task.mistakes.items():
        assert task.check(mistake if takes(task) else mistake()).fault == sentence


@every_exercise
def test_the_shown_answer_is_short(task: Exercise) -> None:
    own = task.shown_answer().split("\n\n")[-1].splitlines()  # what it needs stands before an empty line
    assert len(own) <= LONGEST_ANSWER
    assert max(map(len, own)) <= WIDEST_ANSWER


def test_an_answer_is_helpers_then_the_body_without_private_names_then_the_package() -> None:
    assert (
        double.shown_answer() == "def added(x: int, y: int) -> int:\n    return x + y\n\nreturn added(x, x)"
    )
    assert double.shown_package().startswith("def normalise(")


def test_a_value_is_shown_with_what_it_comes_to() -> None:
    assert tour.bits.shown_answer() == "import math\n\n25 * math.log2(6561)\n# 317"
    assert tour.peak.shown_answer() == "50"
    assert tour.peak.shown_package() == ""


def test_an_answer_may_work_in_place() -> None:
    """Each call has numbers of its own: what one answer did to them is no fault of the next."""
    doubled = task_of((np.ones(3),))

    def in_place(x: Any) -> Any:
        x *= 2
        return x

    assert [doubled.check(in_place).right for _ in range(2)] == [True, True]


def test_no_answer_yet_is_no_mistake() -> None:
    def stub(x: int) -> int:
        raise NotImplementedError

    for answer in (..., stub):
        verdict = double.check(answer)
        assert verdict.fault is None
        assert not verdict.right
        assert verdict._repr_mimebundle_()["text/plain"].endswith("Your turn.")


def test_a_right_answer_a_named_mistake_and_another() -> None:
    assert double.check(lambda x: x + x).right
    assert double.check(lambda x: x**2).fault == "You squared it."
    assert double.check(lambda x: 2 * x + 1).fault == "For 1 it gives 3; the package finds 2."


def test_an_answer_that_gives_no_numbers_is_told_so() -> None:
    assert "a generator was returned" in double.check(lambda x: (2 * x for _ in range(1))).fault


def test_a_case_is_shown_in_one_line_and_a_function_by_its_name() -> None:
    applied = task_of((_twice, np.ones((2, 2))), answer=lambda f, x: f(x))
    assert applied.check(lambda f, x: x).fault.startswith("For _twice, array([[1., 1.], [1., 1.]]) it gives")


def test_an_answer_that_stops_is_reported_not_raised() -> None:
    assert "ZeroDivisionError" in double.check(lambda x: 1 / 0).fault


def test_a_value_is_not_told_the_solution() -> None:
    secret = task_of((), answer=lambda: 42)
    assert "42" not in secret.check(41).fault
    assert secret.check(42).right


def test_a_verdict_shows_difficulty_minutes_and_the_folded_solution() -> None:
    shown = tokens.code.check(...)._repr_mimebundle_()
    assert shown["text/plain"].startswith("●" + "○" * (HARDEST - 1) + " · 5 min")
    answer, package = shown["text/html"].partition("<details>")[2].split("In the package:")
    assert "3**place" in answer
    assert "def digits_to_codes" in package


def test_a_mistake_that_divides_by_nothing_warns_nobody() -> None:
    spreads = task_of((np.zeros(3),), answer=lambda x: 0.0)
    assert "nan" in spreads.check(lambda x: float(np.mean(x[x > 0]))).fault


@pytest.mark.parametrize(
    ("task", "right"),
    [
        (tour.bits, 25 * 8 * math.log2(3)),
        (tour.alpha, lambda s, a: s / (s + a)),
        (tour.peak, 50),
        (corpus.alpha, lambda rows: rows.seconds[rows.kind == "synthetic"].sum() / rows.seconds.sum()),
        (corpus.melody_only, replace(LIVELY, rate_spread=0.0, phrase_rate_spread=0.0, focus_slowing=0.0)),
        (corpus.leaks, lambda train, test: len([s for s in test if normalise(s) in map(normalise, train)])),
        (prosody.spread, lambda f0: np.std([12 * math.log2(hz) for hz in f0 if hz])),
        (
            prosody.entropy,
            lambda row: sum(-row.count(v) / len(row) * math.log2(row.count(v) / len(row)) for v in set(row)),
        ),
        (prosody.repetition, lambda y: np.mean([len(set(y[i : i + 5])) == 1 for i in range(len(y) - 4)])),
        (tokens.code, lambda digits: sum((d + 1) * 3**i for i, d in enumerate(digits))),
        (tokens.collapse, lambda row: [symbol for symbol, _ in groupby(row) if symbol]),
        (corpus.melody_only, replace(corpus.melody_only.solution(), rate=1.0, pause_share=0.0)),
        (tokens.gradient, 0.915),
    ],
)
def test_an_answer_of_ones_own_is_right(task: Exercise, right: object) -> None:
    assert task.check(right).fault == ""


@pytest.mark.parametrize(
    ("task", "wrong", "word"),
    [
        (tour.bits, math.log2(6561), "25 of them"),
        (tour.alpha, lambda s, a: s / a, "share of all"),
        (tour.peak, 100, "liked it least"),
        (tour.peak, 80, "erosion has begun"),
        (corpus.alpha, lambda rows: (rows.kind == "synthetic").mean(), "count utterances"),
        (corpus.melody_only, replace(LIVELY, rate_spread=0.0), "phrase_rate_spread, focus_slowing"),
        (corpus.melody_only, SYNTHETIC, "flat too"),
        (corpus.melody_only, "lively", "This is a str"),
        (
            corpus.melody_only,
            replace(corpus.melody_only.solution(), question_rise=-5.0),
            "leave question_rise",
        ),
        (corpus.leaks, lambda train, test: corpus.leaks.solution(test, train), "how many test sentences"),
        (corpus.leaks, partial(corpus._leaks, corpus._letters), "ôm is not ốm"),
        (
            corpus.leaks,
            lambda train, test: sum(normalise(s) in " ".join(map(normalise, train)) for s in test),
            "within another",
        ),
        (tokens.gradient, 1 - 0.3**2, "tanh is forgotten"),
        (
            corpus.alpha,
            lambda rows: 1 - rows.seconds[rows.kind == "synthetic"].sum() / rows.seconds.sum(),
            "authentic share",
        ),
        (corpus.leaks, lambda train, test: len(set(train) & set(test)), "as typed"),
        (prosody.spread, lambda f0: np.std([hz for hz in f0 if hz]), "in Hz"),
        (prosody.spread, lambda f0: np.std(12 * np.log2(f0)), "f0[f0 > 0]"),
        (prosody.spread, lambda f0: (12 * np.log2(f0[f0 > 0])).std(ddof=1), "n - 1"),
        (prosody.spread, lambda f0: 12 * np.log(f0[f0 > 0]).std(), "natural"),
        (prosody.entropy, lambda row: math.log2(len(set(row))), "how often"),
        (
            prosody.repetition,
            lambda y: np.mean([len(set(y[i : i + 4])) == 1 for i in range(len(y) - 3)]),
            "five equal",
        ),
        (
            prosody.repetition,
            lambda y: sum(len(set(y[i : i + 5])) == 1 for i in range(len(y) - 4)),
            "a share",
        ),
        (
            prosody.repetition,
            lambda y: np.mean([len(set(y[i : i + 5])) == 1 for i in range(len(y))]),
            "no four",
        ),
        (
            prosody.repetition,
            lambda y: sum(len([*run]) > 4 for _, run in groupby(y)) / (len(y) - 4),
            "count places",
        ),
        (tokens.code, lambda digits: sum(d * 3**i for i, d in enumerate(digits)), "add 1"),
        (
            tokens.collapse,
            lambda row: [symbol for symbol, _ in groupby(s for s in row if s)],
            "merge repeats first",
        ),
        (tokens.gradient, 1, "tanh"),
        (tour.bits, 325, "not round up"),
        (
            prosody.repetition,
            lambda y: np.mean([y[i] == y[i + 4] for i in range(len(y) - 4)]),
            "not the fourth alone",
        ),
    ],
)
def test_the_likely_mistake_is_named(task: Exercise, wrong: object, word: str) -> None:
    assert word in task.check(wrong).fault
