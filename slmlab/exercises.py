"""Exercises: an answer is checked, the likely mistake is named, and the solution is the package's own source.

The exercises themselves are in `slmlab.tasks`, a file for each notebook.
"""

import html
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST = 3
"""Difficulty of the hardest exercises."""
LONGEST_CASE = 80
"""Characters of an example that is still shown."""


@dataclass(frozen=True)
class Verdict:
    """What a check says; shown as the last line of a cell."""

    exercise: "Exercise"
    """What was asked."""
    fault: str
    """What is wrong, in a sentence; empty when nothing is."""
    answered: bool = True
    """False when there was no answer yet."""

    @property
    def right(self) -> bool:
        """Whether the answer holds."""
        return self.answered and not self.fault

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """How Jupyter shows it: the verdict, and the solution folded away."""
        stars = "●" * self.exercise.difficulty + "○" * (MOST - self.exercise.difficulty)
        about = f"{stars} · {self.exercise.minutes} min"
        said = "Your turn."
        if self.answered:
            said = f"✗ {self.fault}" if self.fault else f"✓ Right. {self.exercise.why}"
        source = html.escape(self.exercise.source())
        folded = f"<details><summary>A solution, from the package</summary><pre>{source}</pre></details>"
        return {
            "text/html": f"<p><b>{about}</b> &nbsp; {html.escape(said)}</p>{folded if source else ''}",
            "text/plain": f"{about} · {said}",
        }


@dataclass(frozen=True)
class Exercise:
    """One task; its text stands in the notebook."""

    difficulty: int
    """1 to 3."""
    minutes: int
    """How long it takes, about."""
    fault: Callable[[Any], str]
    """What is wrong with an answer, in a sentence; empty when nothing is."""
    solution: Sequence[Any]
    """Functions or classes of the package whose source is the answer; none where looking is the answer."""
    why: str = ""
    """What the right answer teaches, in a sentence."""

    def check(self, answer: Any) -> Verdict:
        """Judge an answer: a value, or a function. `...` and a function that raises NotImplementedError are
        no answer yet; an error inside an answer is reported, not raised.
        """
        if answer is ...:
            return Verdict(self, "", answered=False)
        try:
            return Verdict(self, self.fault(answer))
        except NotImplementedError:
            return Verdict(self, "", answered=False)
        except Exception as error:
            return Verdict(self, f"Your answer stopped with {type(error).__name__}: {error}")

    def source(self) -> str:
        """The solution as it stands in the package."""
        return "\n\n".join(inspect.getsource(part).rstrip() for part in self.solution)


def like(
    reference: Callable[..., Any],
    cases: Sequence[tuple[Any, ...]],
    mistakes: Mapping[str, Callable[..., Any]],
    tolerance: float = 1e-4,
) -> Callable[[Any], str]:
    """A fault finder: an answer must agree with `reference` in all cases; one that agrees with a mistake
    instead is told which.

    Args:
        reference: the right function.
        cases: arguments to try it with; `[()]` for an exercise whose answer is a value.
        mistakes: wrong functions by the sentence that explains them.
        tolerance: relative and absolute.
    """

    def agrees(answer: Callable[..., Any], other: Callable[..., Any]) -> bool:
        return all(_close(answer(*case), other(*case), tolerance) for case in cases)

    def fault(answer: Any) -> str:
        function = answer if callable(answer) else lambda: answer
        if agrees(function, reference):
            return ""
        for sentence, mistake in mistakes.items():
            if agrees(function, mistake):
                return sentence
        case = next(case for case in cases if not _close(function(*case), reference(*case), tolerance))
        if not case:
            return f"{answer!r} is not what the package finds; think again about what is asked."
        shown = ", ".join(map(repr, case))
        given = f"For {shown} it gives" if len(shown) <= LONGEST_CASE else "It gives"
        return f"{given} {function(*case)!r}; the package finds {reference(*case)!r}."

    return fault


def between(lowest: float, highest: float, low: str, high: str) -> Callable[[Any], str]:
    """A fault finder for a number: `low` or `high` says what is likely wrong outside the limits."""

    def fault(answer: Any) -> str:
        if not lowest <= float(answer) <= highest:
            return low if float(answer) < lowest else high
        return ""

    return fault


def _close(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return bool(a == b)
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return first.shape == second.shape and np.allclose(first, second, tolerance, tolerance, equal_nan=True)
