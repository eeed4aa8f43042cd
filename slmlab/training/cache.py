"""What was computed once is not computed again: stages that need each other, kept by what went into them.

A stage's key is a digest of its config, of all code that its function reaches, and of its inputs' keys. Its
results lie in `cache/<name>-<key>/`; `done.json` there is written last, so a folder without it is of a stage
that was cut off, and its training goes on where it stopped. A lock lets one process in at a time.
"""

import ast
import fcntl
import functools
import importlib.util
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from graphlib import TopologicalSorter
from multiprocessing import connection
from pathlib import Path
from typing import Any

from slmlab.errors import LabError
from slmlab.files import digest, plain, read_json, replace_text

DONE = "done.json"
ERROR = "error.txt"  # the traceback of what should not have happened
BEGUN = "begun.json"  # when this attempt began, and what attempts before it took
SPAWN = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork


@dataclass(frozen=True)
class Stage:
    """One thing to be made: a corpus, a network, a table."""

    name: str
    """What it is called in messages, in the cache and as an input of others."""
    inputs: tuple[str, ...]
    """Names of the stages it reads."""
    run: Callable[[Path, dict[str, Path]], Mapping[str, Any]]
    """`(own folder, folders of the inputs by name) → metrics`; a top-level function, or a partial of one."""
    config: Any
    """Dataclasses or JSON values: what decides the result besides code, inputs and a partial's arguments."""


def run_stages(
    stages: Sequence[Stage], cache: str | Path, workers: int = 2, fresh: bool = False
) -> dict[str, Path]:
    """Make every stage that the cache does not hold, in order of need, some side by side.

    Args:
        stages: with all that they need among them.
        cache: the folder of results.
        workers: processes at a time, which share the cores; 1 works in this process.
        fresh: make everything anew.

    Returns:
        name → folder of the results; its `done.json` has `seconds`, `memory_mib` and `metrics`.

    Raises:
        LabError: stages failed; those that do not depend on them are finished all the same.
    """
    folders = stage_folders(stages, Path(cache))
    left = {stage.name: stage for stage in stages if fresh or not (folders[stage.name] / DONE).exists()}
    made, failed = folders.keys() - left.keys(), dict[str, str]()
    team = _Team(workers)
    try:
        while left or team.busy:
            ready = [stage for stage in left.values() if made >= set(stage.inputs)]
            for stage in ready[: workers - len(team.busy)]:
                del left[stage.name]
                _say(f"{stage.name}: started")
                team.start(stage, folders[stage.name], {name: folders[name] for name in stage.inputs}, fresh)
            for name, problem in team.finished():
                if problem:
                    failed[name] = problem
                    _say(f"{name}: failed")
                else:
                    made |= {name}
                    _say(f"{name}: done in {read_done(folders[name])['seconds']:.0f} s")
            for stage in [stage for stage in left.values() if failed.keys() & set(stage.inputs)]:
                failed[left.pop(stage.name).name] = "needs one that failed"
    finally:
        team.stop()
    if failed:
        why = "; ".join(f"{name}: {problem}" for name, problem in failed.items())
        raise LabError(
            f"{len(failed)} of {len(stages)} stages are not done; the others are kept in {cache}. {why}"
        )
    return folders


def read_done(folder: Path) -> dict[str, Any]:
    """What a finished stage left in its folder: `name`, `seconds`, `memory_mib`, `metrics`."""
    done: dict[str, Any] = read_json(folder / DONE)
    return done


def stage_folders(stages: Sequence[Stage], cache: Path) -> dict[str, Path]:
    """Where each stage's results belong: `name-key`, with the first 12 digits of the key."""
    plan = {stage.name: stage for stage in stages}
    unknown = {name for stage in stages for name in stage.inputs} - plan.keys()
    if unknown or len(plan) < len(stages):
        why = f"{', '.join(sorted(unknown))} not among them" if unknown else "two share a name"
        raise LabError(f"Stages {', '.join(stage.name for stage in stages)} are no plan: {why}.")
    keys: dict[str, str] = {}
    for name in TopologicalSorter({stage.name: stage.inputs for stage in stages}).static_order():
        stage = plan[name]
        run = functools.partial(stage.run)  # a partial of a partial is one partial
        said = [name, run.args, run.keywords, stage.config]
        keys[name] = digest([said, code_of(run.func), [keys[source] for source in stage.inputs]])
    return {name: cache / f"{name}-{keys[name][:12]}" for name in plan}


def code_of(function: Callable[..., Any]) -> list[str]:
    """Code of a function and of all of its package that it names, itself or through others, without what
    does not run: comments, docstrings, layout. A class that is named counts whole.
    """
    own = function.__module__
    package = own.partition(".")[0]
    code: dict[tuple[str, str], list[str]] = {}
    wanted = [(own, function.__qualname__.partition(".")[0])]
    while wanted:
        at = wanted.pop()
        module = _module(at[0])
        if at not in code and at[1] in module.definitions:
            nodes = module.definitions[at[1]]
            code[at] = [ast.unparse(node) for node in nodes]
            wanted += [
                place for place in module.named(nodes) if place[0] == own or place[0].split(".")[0] == package
            ]
    return [line for _, lines in sorted(code.items()) for line in lines]


@dataclass(frozen=True)
class _Module:
    """What a module's names mean."""

    name: str
    """Dotted."""
    definitions: dict[str, list[ast.stmt]]
    """Statements at the top that bind a name, without prose."""
    imports: dict[str, tuple[str, str]]
    """Module and name there that an imported name means; of a module the name is empty."""

    def named(self, nodes: Iterable[ast.stmt]) -> set[tuple[str, str]]:
        """Places that the statements name: module and name there."""
        found = set[tuple[str, str]]()
        for node in (part for top in nodes for part in ast.walk(top)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                module, name = self.imports.get(node.value.id, ("", "-"))
                if not name:
                    found.add((module, node.attr))
            elif isinstance(node, ast.Name):
                found.add(self.imports.get(node.id, (self.name, node.id)))
        return found


def _module(name: str) -> _Module:
    """A module read from its file; nothing of it is run. What is not written in Python names nothing."""
    origin = _origin(name)
    return _parsed(name, origin, os.stat(origin).st_mtime_ns) if origin else _Module(name, {}, {})


@functools.cache
def _origin(name: str) -> str:
    """The file of a module, or nothing where there is no such module or no Python in it."""
    try:
        spec = importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):
        return ""
    origin = spec.origin if spec else None
    return origin if origin and origin.endswith(".py") else ""


@functools.lru_cache(maxsize=1000)
def _parsed(name: str, origin: str, changed: int) -> _Module:
    """The module as its file was at the time `changed`."""
    tree = ast.parse(Path(origin).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [line for line in node.body if not _is_prose(line)] or [ast.Pass()]
    definitions: dict[str, list[ast.stmt]] = {}
    for top in tree.body:
        for bound in _bound(top):
            definitions.setdefault(bound, []).append(top)
    imports = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                at = (full, "") if _origin(full) else (node.module, alias.name)
                imports[alias.asname or alias.name] = at
    return _Module(name, definitions, imports)


def _bound(statement: ast.stmt) -> list[str]:
    """Names that a statement at the top of a module defines."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [statement.name]
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def _is_prose(line: ast.stmt) -> bool:
    if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)):
        return False
    return isinstance(line.value.value, str)


def _make(stage: Stage, folder: Path, inputs: dict[str, Path], fresh: bool) -> str:
    """Make one stage, unless another process has just made it; returns what went wrong, or nothing."""
    try:
        with locked(folder.with_name(folder.name + ".lock")):
            if fresh:
                shutil.rmtree(folder, ignore_errors=True)
            elif (folder / DONE).exists():
                return ""
            folder.mkdir(exist_ok=True)
            before, started = _spent(folder), time.monotonic()
            with suppress(LabError):  # a full disk is told by the work itself
                replace_text(folder / BEGUN, json.dumps({"at": time.time(), "before": before}) + "\n")
            metrics = plain(stage.run(folder, inputs))
            seconds = before + time.monotonic() - started
            done = {"name": stage.name, "seconds": seconds, "memory_mib": memory_mib()}
            for file in (ERROR, BEGUN):
                (folder / file).unlink(missing_ok=True)
            replace_text(folder / DONE, json.dumps(done | {"metrics": metrics}, indent=2) + "\n")
            return ""
    except LabError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error} ({_kept_trace(folder / ERROR)})."


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """One process at a time; the lock falls when the file is closed or the process dies."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _spent(folder: Path) -> float:
    """Seconds that attempts cut off before took: each up to the last file that it wrote."""
    if not (folder / BEGUN).exists():
        return 0.0
    begun = read_json(folder / BEGUN)
    last = max(file.stat().st_mtime for file in folder.rglob("*"))
    return float(begun["before"] + max(0.0, last - begun["at"]))


def _kept_trace(file: Path) -> str:
    """Keep the traceback of the exception at hand, if the disk takes it; where it is."""
    try:
        file.write_text(traceback.format_exc(), encoding="utf-8")
    except OSError as error:
        return f"nothing can be written to {file.parent} either, {error.strerror}: free some space there"
    return f"see {file}"


def memory_mib() -> float:
    """Most memory that this process, or one that it started, ever held."""
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return most / (2**20 if sys.platform == "darwin" else 2**10)


class _Team:
    """Up to `workers` processes, each making one stage; a team of one makes it on the spot."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.busy: dict[Any, tuple[str, int, Any]] = {}
        self.answers: list[tuple[str, str]] = []

    def start(self, stage: Stage, *task: Any) -> None:
        """Begin a stage, with a share of the cores and an own line of the terminal for its bars."""
        if self.workers == 1:
            self.answers.append((stage.name, _make(stage, *task)))
            return
        place = min(set(range(self.workers)) - {place for _, place, _ in self.busy.values()})
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=_work, args=(theirs,))
        cores = max(1, (os.cpu_count() or 1) // self.workers)
        own = {"OMP_NUM_THREADS": str(cores), "TQDM_POSITION": str(place), "TQDM_LEAVE": ""}
        if not sys.stderr.isatty():  # a bar that is wiped off leaves an empty stripe in a notebook
            own["TQDM_DISABLE"] = "1"
        before = {name: os.environ.get(name) for name in own}
        os.environ.update(own)
        process.start()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        theirs.close()
        self.busy[ours] = (stage.name, place, process)
        # Not as an argument: `Process.start` would wait for ever for a dead process to read a long one.
        with suppress(BrokenPipeError, ConnectionResetError):
            ours.send((stage, *task))

    def finished(self) -> list[tuple[str, str]]:
        """Wait for stages to end: their names, and what went wrong or nothing."""
        answers, self.answers = self.answers, []
        ready = connection.wait(list(self.busy)) if self.busy else []
        for line in [line for line in self.busy if line in ready]:
            name, _, process = self.busy.pop(line)
            try:
                answers.append((name, line.recv()))
                process.join()
            except (EOFError, ConnectionResetError):
                process.join()
                answers.append((name, _end_of(process.exitcode)))
        return answers

    def stop(self) -> None:
        """End what still runs."""
        for _, _, process in self.busy.values():
            process.terminate()
            process.join()


def _end_of(code: int) -> str:
    """Why a process may have ended without an answer."""
    why = (
        "-9 is a kill, perhaps for want of memory"
        if code < 0
        else "its last words stand above; a program that calls the lab must be a file, with what it does "
        'under `if __name__ == "__main__":`'
    )
    return f"its process ended with code {code} ({why})."


def _work(line: Any) -> None:
    """A worker's life: one stage, one answer; it ends with its parent, which alone hears Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (connection.wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    line.send(_make(*line.recv()))


def _say(line: str) -> None:
    """Print a line, in place of a bar if one stands there."""
    print(f"\r\x1b[2K{line}" if sys.stdout.isatty() else line, flush=True)
