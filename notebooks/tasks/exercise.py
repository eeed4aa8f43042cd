"""Exercises: an answer is checked, the likely mistake is named, and a short answer is folded below.

An exercise is written as its own short answer, decorated with `exercise`: readers are shown the source of a
function that passes the check. The exercises themselves are in `notebooks/tasks`, a file for each notebook.
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
from types import MappingProxyType
from typing import Any

import numpy as np

HARDEST = 3
"""Difficulty of the hardest exercises."""
NOTEBOOK_NAMES = {"np", "pd", "torch"}
"""What a notebook has imported before its exercises."""
LONGEST_CASE = 200
"""Characters of a case that a verdict still quotes."""
PRIVATE = re.compile(r"(?<![\w.])_(?=[a-z])")
"""The mark of a private name; readers who paste an answer do not need it."""
MIXED_LIBRARIES = (
    ". The arguments are torch tensors, and torch does not take numpy's arrays: write `spectrum.angle()` for "
    "`np.angle(spectrum)`, and so on."
)
NOTHING: Mapping[str, Callable[..., Any]] = MappingProxyType({})

Function = Callable[..., Any]


@dataclass(frozen=True)
class Exercise:
    """One task; its text stands in the notebook."""

    difficulty: int
    """1 to 3."""
    minutes: int
    """How long it takes, about."""
    solution: Function
    """A short answer: it takes what the notebook's stub takes, or nothing where a value is asked for. Its
    docstring says what it teaches.
    """
    find_fault: Callable[[Any], str]
    """What is wrong with an answer, in a sentence; empty when nothing is."""
    mistakes: Mapping[str, Function]
    """Likely wrong answers, by the sentence that explains them."""
    package: Sequence[Any]
    """What does the same in the package."""

    def check(self, answer: Any) -> "Verdict":
        """Judge an answer: a value, or a function. `...` and a function that raises NotImplementedError are
        no answer yet; an error inside an answer is reported, not raised.
        """
        if answer is ...:
            return Verdict(self, None)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # the verdict says what is wrong
                return Verdict(self, self.find_fault(answer))
        except NotImplementedError:
            return Verdict(self, None)
        except Exception as error:
            mixed = isinstance(error, TypeError) and "Tensor" in str(error) and "numpy" in str(error)
            hint = MIXED_LIBRARIES if mixed else ""
            return Verdict(self, f"Your answer stopped with {type(error).__name__}: {error}{hint}")

    def shown_answer(self) -> str:
        """A short answer: imports, helpers, and last what replaces the stub's `...` or `raise`.

        For a function, all of it can be pasted there.
        """
        body = _body(self.solution)
        if not inspect.signature(self.solution).parameters:
            value = self.solution()
            body = body.removeprefix("return ") + (f"\n# {value:.4g}" if isinstance(value, float) else "")
        parts = [*map(_source, _helpers(self.solution)), body]
        imports = _imports(self.solution, "\n".join(parts))
        return PRIVATE.sub("", "\n\n".join([*filter(None, [imports]), *parts]))

    def shown_package(self) -> str:
        """Source of the package that does the same, private helpers included; empty where there is none."""
        return "\n\n".join(_source(part) for own in self.package for part in (own, *_helpers(own)))


@dataclass(frozen=True)
class Verdict:
    """What a check says; shown as the last line of a cell."""

    exercise: Exercise
    """What was asked."""
    fault: str | None
    """What is wrong, in a sentence; empty when nothing is, None when there is no answer yet."""

    @property
    def right(self) -> bool:
        """Whether the answer holds."""
        return self.fault == ""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """How Jupyter shows it: the verdict, and an answer folded away."""
        exercise = self.exercise
        stars = "●" * exercise.difficulty + "○" * (HARDEST - exercise.difficulty)
        about = f"{stars} · {exercise.minutes} min"
        verdict = "Your turn."
        if self.fault is not None:
            verdict = f"✗ {self.fault}" if self.fault else f"✓ Right. {inspect.getdoc(exercise.solution)}"
        folded = f"<details><summary>An answer</summary><pre>{html.escape(exercise.shown_answer())}</pre>"
        if package := exercise.shown_package():
            folded += f"In the package:<pre>{html.escape(package)}</pre>"
        return {
            "text/html": f"<p><b>{about}</b> &nbsp; {html.escape(verdict)}</p>{folded}</details>",
            "text/plain": f"{about} · {verdict}",
        }


def exercise(
    *,
    difficulty: int,
    minutes: int,
    cases: Sequence[tuple[Any, ...]] = ((),),
    mistakes: Mapping[str, Function] = NOTHING,
    reference: Function | None = None,
    fault: Callable[[Any], str] | None = None,
    package: Sequence[Any] | None = None,
    tolerance: float = 1e-4,
) -> Callable[[Function], Exercise]:
    """Make an `Exercise` of the function below: its short answer, whose docstring says what it teaches.

    Args:
        difficulty: 1 to 3.
        minutes: how long it takes, about.
        cases: arguments with which an answer is compared with the reference; none for a value.
        mistakes: wrong answers by the sentence that explains them: an answer that agrees with one is told so.
        reference: the right function of the package; without it the answer itself.
        fault: finds what is wrong with an answer, where cases and mistakes do not do.
        package: what does the same in the package, and is shown; the reference if nothing is named.
        tolerance: relative and absolute.
    """

    def make(solution: Function) -> Exercise:
        find_fault = fault or _comparison(reference or solution, cases, mistakes, tolerance)
        shown = package if package is not None else [reference] if reference else []
        return Exercise(difficulty, minutes, solution, find_fault, mistakes, shown)

    return make


def _comparison(
    reference: Function, cases: Sequence[tuple[Any, ...]], mistakes: Mapping[str, Function], tolerance: float
) -> Callable[[Any], str]:
    """A fault finder: an answer must agree with the reference in all cases."""

    def result(function: Function, case: tuple[Any, ...]) -> Any:
        value = function(*copy.deepcopy(case))  # an answer may work in place
        if isinstance(value, (Iterator, Mapping, Set)):
            kind = type(value).__name__
            raise TypeError(f"a {kind} was returned; a number, a list or an array is asked for")
        return value

    def agree(one: Function, other: Function, case: tuple[Any, ...]) -> bool:
        return _close(result(one, case), result(other, case), tolerance)

    def find_fault(answer: Any) -> str:
        function = answer if callable(answer) else lambda: answer
        wrong = [case for case in cases if not agree(function, reference, case)]
        if not wrong:
            return ""
        for sentence, mistake in mistakes.items():
            if all(agree(function, mistake, case) for case in cases):
                return sentence
        case = min(wrong, key=lambda case: len(repr(case)))
        if not case:
            return f"{answer!r} is not what the package finds; think again about what is asked."
        quoted = ", ".join(map(_quoted, case))
        where = quoted if len(quoted) <= LONGEST_CASE else "one of the cases tried"
        given, right = result(function, case), result(reference, case)
        return f"For {where} it gives {given!r}; the package finds {right!r}."

    return find_fault


def _quoted(value: Any) -> str:
    return value.__name__ if callable(value) else " ".join(repr(value).split())


def _close(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return bool(a == b)
    first, second = np.asarray(a, dtype=np.complex128), np.asarray(b, dtype=np.complex128)
    return first.shape == second.shape and np.allclose(first, second, tolerance, tolerance, equal_nan=True)


def _source(part: Any) -> str:
    return textwrap.dedent(inspect.getsource(part)).rstrip()


def _body(function: Function) -> str:
    """What a function does, as it is written, without its docstring."""
    source = _source(function)
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef), "an answer is a function"
    first = definition.body[1].lineno - 1
    return textwrap.dedent("\n".join(source.splitlines()[first:]))


def _helpers(part: Any) -> list[Any]:
    """Private functions of its own module that a function names."""
    names = [node.id for node in ast.walk(ast.parse(_source(part))) if isinstance(node, ast.Name)]
    module = vars(inspect.getmodule(part))
    private = [module.get(name) for name in dict.fromkeys(names) if name.startswith("_")]
    return [value for value in private if inspect.isfunction(value)]


def _imports(function: Function, code: str) -> str:
    """Of the imports of a function's module those that the code needs and a notebook lacks."""
    used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)} - NOTEBOOK_NAMES
    lines = []
    for node in ast.parse(inspect.getsource(inspect.getmodule(function) or function)).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            node.names = [name for name in node.names if (name.asname or name.name) in used]
            lines += [ast.unparse(node)] if node.names else []
    return "\n".join(lines)
