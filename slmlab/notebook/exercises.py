"""Exercises: an answer is checked, the likely mistake is named, and a short answer is folded below.

What is shown as an answer is read from the source of a function that passes the check, so that the two cannot
part; where the package does the same, its own source follows. The exercises themselves are in `tasks`,
a file for each notebook.
"""

import ast
import copy
import html
import inspect
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST = 3
"""Difficulty of the hardest exercises."""
USUAL = ("np", "pd", "torch", "Tensor")
"""What notebooks have imported."""
LONGEST_CASE = 200
"""Characters of an example that is still shown."""
PRIVATE = re.compile(r"(?<![\w.])_(?=[a-z])")
"""What begins a name that a module keeps for itself; in a notebook it has none."""


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
        """How Jupyter shows it: the verdict, and an answer folded away."""
        stars = "●" * self.exercise.difficulty + "○" * (MOST - self.exercise.difficulty)
        about = f"{stars} · {self.exercise.minutes} min"
        said = "Your turn."
        if self.answered:
            said = f"✗ {self.fault}" if self.fault else f"✓ Right. {self.exercise.why}"
        folded = f"<details><summary>An answer</summary><pre>{html.escape(self.exercise.answer())}</pre>"
        if package := self.exercise.package():
            folded += f"In the package:<pre>{html.escape(package)}</pre>"
        return {
            "text/html": f"<p><b>{about}</b> &nbsp; {html.escape(said)}</p>{folded}</details>",
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
    """First a function that answers what was asked, with the arguments of the notebook's stub, or with none
    where a value is asked for; then helpers of its own module; then what does the same in the package.
    """
    why: str = ""
    """What the right answer teaches, in a sentence."""

    def check(self, answer: Any) -> Verdict:
        """Judge an answer: a value, or a function. `...` and a function that raises NotImplementedError are
        no answer yet; an error inside an answer is reported, not raised.
        """
        if answer is ...:
            return Verdict(self, "", answered=False)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # the verdict says what is wrong
                return Verdict(self, self.fault(answer))
        except NotImplementedError:
            return Verdict(self, "", answered=False)
        except Exception as error:
            return Verdict(self, f"Your answer stopped with {type(error).__name__}: {error}")

    def answer(self) -> str:
        """A short answer: imports, helpers, and last what replaces the stub's `...` or `raise`.

        For a function, all of it can be pasted there.
        """
        first, helpers, _ = self._parts()
        shown = _body(first)
        if not inspect.signature(first).parameters:
            value = first()
            shown = shown.removeprefix("return ") + (f"\n# {value:.4g}" if isinstance(value, float) else "")
        written = [*map(_source, helpers), shown]
        return PRIVATE.sub("", "\n\n".join([*_imports(first, "\n".join(written)), *written]))

    def package(self) -> str:
        """Source of the package that does the same; empty where there is none."""
        return "\n\n".join(map(_source, self._parts()[2]))

    def _parts(self) -> tuple[Callable[..., Any], list[Any], list[Any]]:
        """The answer, helpers of its own module, and what other modules have."""
        first, *others = self.solution
        ours = [part.__module__ == first.__module__ for part in others]
        helpers = [part for part, own in zip(others, ours, strict=True) if own]
        return first, helpers, [part for part, own in zip(others, ours, strict=True) if not own]


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

    def tried(function: Callable[..., Any], case: tuple[Any, ...]) -> Any:
        given = function(*copy.deepcopy(case))  # an answer may work in place
        if isinstance(given, (Iterator, Mapping, Set)):
            raise TypeError(
                f"a {type(given).__name__} was returned; a number, a list or an array is asked for"
            )
        return given

    def agrees_on(case: tuple[Any, ...], answer: Callable[..., Any], other: Callable[..., Any]) -> bool:
        return _close(tried(answer, case), tried(other, case), tolerance)

    def agrees(answer: Callable[..., Any], other: Callable[..., Any]) -> bool:
        return all(agrees_on(case, answer, other) for case in cases)

    def fault(answer: Any) -> str:
        function = answer if callable(answer) else lambda: answer
        if agrees(function, reference):
            return ""
        for sentence, mistake in mistakes.items():
            if agrees(function, mistake):
                return sentence
        apart = [case for case in cases if not agrees_on(case, function, reference)]
        case = min(apart, key=lambda case: len(repr(case)))
        if not case:
            return f"{answer!r} is not what the package finds; think again about what is asked."
        shown = ", ".join(map(_shown, case))
        given = (
            f"For {shown} it gives" if len(shown) <= LONGEST_CASE else "For one of the cases tried it gives"
        )
        return f"{given} {tried(function, case)!r}; the package finds {tried(reference, case)!r}."

    return fault


def between(lowest: float, highest: float, low: str, high: str) -> Callable[[Any], str]:
    """A fault finder for a number: `low` or `high` says what is likely wrong outside the limits."""

    def fault(answer: Any) -> str:
        if not lowest <= float(answer) <= highest:
            return low if float(answer) < lowest else high
        return ""

    return fault


def _shown(value: Any) -> str:
    return value.__name__ if callable(value) else " ".join(repr(value).split())


def _close(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return bool(a == b)
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return first.shape == second.shape and np.allclose(first, second, tolerance, tolerance, equal_nan=True)


def _source(part: Any) -> str:
    return textwrap.dedent(inspect.getsource(part)).rstrip()


def _imports(function: Callable[..., Any], written: str) -> list[str]:
    """What else of its module's imports the written code needs, as one paragraph, or none."""
    used = {node.id for node in ast.walk(ast.parse(written)) if isinstance(node, ast.Name)} - set(USUAL)
    module = ast.parse(inspect.getsource(inspect.getmodule(function) or function))
    lines = []
    for node in module.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            node.names = [name for name in node.names if (name.asname or name.name) in used]
            lines += [ast.unparse(node)] if node.names else []
    return ["\n".join(lines)] if lines else []


def _body(function: Callable[..., Any]) -> str:
    """What a function does, as it is written; a lambda's line is found by where it begins, one a line."""
    module = inspect.getsource(inspect.getmodule(function) or function)
    (found,) = [
        node
        for node in ast.walk(ast.parse(module))
        if isinstance(node, (ast.FunctionDef, ast.Lambda)) and node.lineno == function.__code__.co_firstlineno
    ]
    if isinstance(found, ast.Lambda):
        return f"return {ast.get_source_segment(module, found.body)}"
    return textwrap.dedent("\n".join(module.splitlines()[found.body[0].lineno - 1 : found.end_lineno]))
