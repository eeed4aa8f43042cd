"""What was computed once is not computed again: stages that need each other, kept by what went into them.

A stage's key is a digest of its config, of all code that its function reaches, and of its inputs' keys. Its
results lie in `cache/<name>-<key>/`; `done.json` there is written last, so a folder without it is of a stage
that was cut off, and its training goes on where it stopped. A lock lets one process in at a time.
"""

import functools
import math
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from multiprocessing import connection
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm.auto import tqdm

from slmlab import places
from slmlab.errors import LabError
from slmlab.files import digest, read_json, write_json
from slmlab.training.code import code_of

DONE = "done.json"
ERROR = "error.txt"  # the traceback of what should not have happened
BEGUN = "begun.json"  # as old as this attempt; the seconds that attempts before it took
SPAWN = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork, and Windows has none


@dataclass(frozen=True)
class Stage:
    """One thing to be made: a corpus, a network, a table."""

    name: str
    """What it is called in messages, in the cache and as an input of others."""
    inputs: tuple[str, ...]
    """Names of the stages it reads."""
    run: Callable[..., Mapping[str, Any] | None]
    """`(own folder, folders of the inputs by name) → metrics, if any`; a top-level function, or a partial."""
    config: Any = None
    """Dataclasses or JSON values: what decides the result besides code, inputs and a partial's arguments."""
    at: Mapping[str, str] = field(default_factory=dict)
    """More arguments of `run`, by name, that decide nothing: where lies what the config has the sha256 of."""


def run_stages(
    stages: Collection[Stage],
    cache: str | Path,
    workers: int = 2,
    fresh: bool = False,
    keep_going: bool = False,
) -> dict[str, Path]:
    """Make every stage that the cache does not hold, in order of need, some side by side.

    Args:
        stages: with all that they need among them.
        cache: the folder of results.
        workers: processes at a time, which share the cores; 1 works in this process.
        fresh: make everything anew.
        keep_going: after a failure, finish the stages that do not depend on it, as studies do overnight.

    Returns:
        name → folder of the results; its `done.json` has `seconds`, `memory_mib` and `metrics`.

    Raises:
        LabError: a stage failed, and the others were stopped; or, asked to keep going, some failed.
    """
    folders = stage_folders(stages, Path(cache))
    waiting = {stage.name: stage for stage in missing(stages, Path(cache), fresh)}
    done, failed = folders.keys() - waiting.keys(), dict[str, str]()
    team, hidden = _Team(workers), None if workers > 1 else True
    bar = tqdm(
        desc="all stages", total=len(waiting), unit="stage", position=workers, leave=False, disable=hidden
    )
    try:
        while (waiting or team.busy) and (keep_going or not failed):
            ready = [stage for stage in waiting.values() if done >= set(stage.inputs)]
            for stage in ready[: workers - len(team.busy)]:
                del waiting[stage.name]
                _print(f"{stage.name}: started")
                team.start(stage, folders[stage.name], {name: folders[name] for name in stage.inputs}, fresh)
            for name, problem in team.finished():
                bar.update()
                if not problem:
                    done |= {name}
                    _print(f"{name}: done in {read_done(folders[name])['seconds']:.0f} s")
                    continue
                failed[name] = problem
                if keep_going:
                    _print(f"{name}: failed: {problem}")
            stuck = [stage for stage in waiting.values() if failed.keys() & set(stage.inputs)]
            for stage in stuck * keep_going:
                failed[waiting.pop(stage.name).name] = "needs one that failed"
            bar.refresh()
    finally:
        bar.close()
        team.stop()
    if failed:
        raise _failure(failed, len(stages), keep_going)
    return folders


def _failure(failed: Mapping[str, str], n: int, kept_going: bool) -> LabError:
    """What went wrong in some of n stages, in a sentence or two."""
    why = "; ".join(f"{name}: {problem}" for name, problem in failed.items()).rstrip(".")
    if kept_going:
        why = f"{len(failed)} of {n} stages are not done. {why}"
    elif n > 1:
        why = f"{why}. The others were stopped"
    return LabError(f"{why}. What was finished is kept: the same command goes on from there.")


def with_needs(stages: Collection[Stage], wanted: Iterable[str]) -> list[Stage]:
    """Of stages those of some names, and all that they need."""
    plan = {stage.name: stage for stage in stages}
    names, waiting = set[str](), list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.add(name)
            waiting += plan[name].inputs
    return [stage for stage in stages if stage.name in names]


def missing(stages: Collection[Stage], cache: Path, fresh: bool = False) -> list[Stage]:
    """Stages that the cache does not hold; if they are wanted `fresh`, all."""
    folders = stage_folders(stages, cache)
    return [stage for stage in stages if fresh or not (folders[stage.name] / DONE).exists()]


def read_done(folder: Path) -> dict[str, Any]:
    """What a finished stage left in its folder: `name`, `seconds`, `memory_mib`, `metrics`."""
    done: dict[str, Any] = read_json(folder / DONE)
    return done


def stage_folders(stages: Collection[Stage], cache: Path) -> dict[str, Path]:
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
        settings = [name, run.args, run.keywords, stage.config]
        keys[name] = digest([settings, code_of(run.func), [keys[source] for source in stage.inputs]])
    return {name: cache / f"{name}-{keys[name][:12]}" for name in plan}


def _make(stage: Stage, folder: Path, inputs: dict[str, Path], fresh: bool) -> str:
    """Make one stage, unless another process has just made it; returns what went wrong, or nothing."""
    try:
        with FileLock(folder.with_name(folder.name + ".lock")):
            if fresh:
                shutil.rmtree(folder, ignore_errors=True)
            elif (folder / DONE).exists():
                return ""
            folder.mkdir(exist_ok=True)
            before, started = _seconds_before(folder), time.monotonic()
            with suppress(LabError):  # a full disk is told by the work itself
                write_json(folder / BEGUN, before)
            metrics = stage.run(folder, inputs, **stage.at) or {}
            done: dict[str, Any] = {"name": stage.name, "metrics": metrics}
            done |= {"seconds": before + time.monotonic() - started, "memory_mib": memory_mib()}
            for file in (ERROR, BEGUN):
                (folder / file).unlink(missing_ok=True)
            write_json(folder / DONE, done)
            return ""
    except LabError as error:
        return str(error)
    except Exception as error:
        trace, where = folder / ERROR, f"see {folder / ERROR}"
        try:
            trace.write_text(traceback.format_exc(), encoding="utf-8")
        except OSError as full:
            where = f"nothing can be written to {folder} either, {full.strerror}: free some space there"
        return f"{type(error).__name__}: {error} ({where})."


def _seconds_before(folder: Path) -> float:
    """Seconds that earlier attempts took that were cut off: each up to the last file that it wrote."""
    begun = folder / BEGUN
    if not begun.exists():
        return 0.0
    last = max(file.stat().st_mtime for file in folder.rglob("*"))
    return float(read_json(begun) + last - begun.stat().st_mtime)


def memory_mib() -> float:
    """Most memory that this process, or one that it started, ever held; NaN on Windows."""
    try:
        import resource
    except ImportError:
        return math.nan
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return most / (2**20 if sys.platform == "darwin" else 2**10)


class _Team:
    """Up to `workers` processes, each making one stage; a team of one makes it on the spot."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.busy: dict[Any, tuple[str, int, Any]] = {}
        """By the pipe to a process: its stage's name, its line of the terminal, and the process."""
        self.answers: list[tuple[str, str]] = []

    def start(self, stage: Stage, *task: Any) -> None:
        """Begin a stage, with a share of the cores and a line of the terminal for its bars."""
        if self.workers == 1:
            self.answers.append((stage.name, _make(stage, *task)))
            return
        line = min(set(range(self.workers)) - {line for _, line, _ in self.busy.values()})
        share = max(1, places.usable_cores() // self.workers)
        settings = {"OMP_NUM_THREADS": str(share), "TQDM_POSITION": str(line), "TQDM_LEAVE": ""}
        if not sys.stderr.isatty():  # a bar that is wiped off leaves an empty stripe in a notebook
            settings["TQDM_DISABLE"] = "1"
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=_work, args=(theirs,))
        before = dict(os.environ)
        os.environ.update(settings)
        with places.without_program():
            process.start()
        os.environ.clear()
        os.environ.update(before)
        theirs.close()
        self.busy[ours] = (stage.name, line, process)
        # Not as an argument: `Process.start` would wait for ever for a dead process to read a long one.
        with suppress(BrokenPipeError, ConnectionResetError):
            ours.send((stage, *task))

    def finished(self) -> list[tuple[str, str]]:
        """Wait a second for stages to end: the names of those that did, and what went wrong or nothing."""
        answers, self.answers = self.answers, []
        ready: list[Any] = connection.wait(list(self.busy), timeout=1) if self.busy else []
        for pipe in ready:
            name, _, process = self.busy.pop(pipe)
            problem = None
            with suppress(EOFError, ConnectionResetError):
                problem = pipe.recv()
            process.join()
            answers.append((name, _why_ended(process.exitcode) if problem is None else problem))
        return answers

    def stop(self) -> None:
        """End what still runs."""
        for _, _, process in self.busy.values():
            process.terminate()
            process.join()


def _why_ended(code: int) -> str:
    """Why a process may have ended without an answer."""
    why = "its last words stand above" if code >= 0 else "-9 is a kill, perhaps for want of memory"
    return f"its process ended with code {code} ({why})."


def _work(pipe: Any) -> None:
    """A worker's life: one stage, one answer; it ends with its parent, which alone hears Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (connection.wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    try:
        task = pipe.recv()
    except (AttributeError, ImportError) as error:  # a setting whose class stands in the program itself
        pipe.send(f"its process cannot import what it is given ({error}): put that into a file of its own.")
    else:
        pipe.send(_make(*task))


def _print(line: str) -> None:
    """Print a line, in place of a bar if one stands there."""
    print(f"\r\x1b[2K{line}" if sys.stdout.isatty() else line, flush=True)
