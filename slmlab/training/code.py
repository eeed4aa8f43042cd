"""The code that a function reaches: when it changes, what the function made is stale."""

import ast
import functools
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from slmlab.errors import LabError

Place = tuple[str, str]
"""A module, dotted, and a name in it; no name means the module itself."""
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_of(function: Callable[..., Any]) -> list[str]:
    """Code of a function and of all of its package that it names, itself or through others.

    Comments, docstrings and layout are left out. A class that is named counts whole. LabError for a function
    of the program itself, be it a file, a cell or a pipe: other processes cannot import it from there.
    """
    if function.__module__ == "__main__":
        raise LabError(
            f"The function {function.__qualname__} stands in the program that is run: put it into a file of "
            "its own, and import it from there."
        )
    package = function.__module__.partition(".")[0]
    code: dict[Place, list[str]] = {}
    waiting = [(function.__module__, function.__qualname__.partition(".")[0])]
    while waiting:
        place = module, name = waiting.pop()
        if place not in code and module.partition(".")[0] == package:
            file = _file(module)
            code[place], places = _read(file, file.stat().st_mtime_ns, module, name) if file else ([], set())
            waiting += places
    return [line for _, lines in sorted(code.items()) for line in lines]


def _named(nodes: Iterable[ast.AST], module: str, imports: Mapping[str, Place]) -> set[Place]:
    """Places that statements of a module name."""
    places = set[Place]()
    for node in (part for top in nodes for part in ast.walk(top)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            source, name = imports.get(node.value.id, (module, node.value.id))
            if not name:
                places.add((source, node.attr))
        elif isinstance(node, ast.Name):
            places.add(imports.get(node.id, (module, node.id)))
    return places


@functools.lru_cache(maxsize=10_000)
def _read(file: Path, changed: int, module: str, name: str) -> tuple[list[str], set[Place]]:
    """The code that binds a name in a module's file as it was at the time `changed`, and the places it names.

    Nothing of it is run.
    """
    definitions, imports = _parse(file, changed)
    nodes = definitions.get(name, [])
    passed_on = {imports[name]} if name in imports else set()
    return [ast.unparse(node) for node in nodes], _named(nodes, module, imports) | passed_on


@functools.cache
def _file(module: str) -> Path | None:
    """The file of a module; None where there is no such module or no Python in it."""
    with suppress(ModuleNotFoundError, ValueError):
        spec = importlib.util.find_spec(module)
        if spec and spec.origin and spec.origin.endswith(".py"):
            return Path(spec.origin)
    return None


@functools.lru_cache(maxsize=1000)
def _parse(file: Path, changed: int) -> tuple[dict[str, list[ast.stmt]], dict[str, Place]]:
    """Statements at a module's top by the name they bind, and the places of names it imports."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    definitions: dict[str, list[ast.stmt]] = {}
    imports: dict[str, Place] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, *DEFINITIONS)):
            node.body = [line for line in node.body if not _is_prose(line)] or [ast.Pass()]
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                imports[alias.asname or alias.name] = (full, "") if _file(full) else (node.module, alias.name)
    for top in tree.body:
        stored = (n.id for n in ast.walk(top) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        for bound in (top.name,) if isinstance(top, DEFINITIONS) else set(stored):
            definitions.setdefault(bound, []).append(top)
    return definitions, imports


def _is_prose(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
