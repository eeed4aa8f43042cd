"""Two processes write one store of votes, or one study's rows, on full disks, until kill -9 comes at random
moments: what was said to be written is there, once.
"""

import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pandas as pd
from filelock import FileLock

from bench import listeners
from slmlab.errors import LabError
from slmlab.people.store import Store
from slmlab.study import rows
from slmlab.training.cache import DONE

STUDY = SimpleNamespace(preset="tiny", language="sw")
SENTENCES = 3
FULL = 20_000
"""Bytes of a file that a full disk has room for, at most."""


@dataclass(frozen=True)
class Job:
    """A stand-in for a cell of a study."""

    number: int

    @property
    def name(self) -> str:
        """For its folder."""
        return str(self.number)

    table = "toy"


KIND = rows.Kind(
    Job,
    "figures",
    key=lambda study, job: job.name,
    stages=lambda study, jobs: [],
    tables=lambda study, job, folders: {"figures": pd.DataFrame({"sentence": range(SENTENCES), "cer": 0.1})},
    share=lambda study, jobs, folders, target: None,
)


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond some bytes."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def _publish_until_killed(folder: Path, first: int, pipe: Connection) -> None:
    rng = random.Random(first)
    for number in range(first, first + 1_000_000, 2):
        say = folder / f"say.{number}"
        say.mkdir()
        (say / DONE).touch()
        publish = partial(rows.publish, KIND, STUDY, [Job(number)], {say.name: say}, folder)
        with FileLock(folder / "publishing.lock"):
            try:
                with full_disk(rng.randrange(FULL)):
                    publish()
            except LabError:
                publish()
        pipe.send(number)


def _vote_until_killed(folder: Path, first: int, pipe: Connection) -> None:
    listeners._write_until_killed(folder / "votes.db", pipe)


def _acknowledged(folder: Path, write: Callable[[Path, int, Connection], None], n: int) -> list[Any]:
    """What pairs of processes said they had written before both were killed, n times."""
    rng, said = random.Random(0), []
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.kills"])
    for trial in range(n):
        ends = [context.Pipe(duplex=False) for _ in range(2)]
        writers = [
            context.Process(target=write, args=(folder, 2_000_000 * trial + side, theirs))
            for side, (_, theirs) in enumerate(ends)
        ]
        for writer, (_, theirs) in zip(writers, ends, strict=True):
            writer.start()
            theirs.close()
        ends[trial % 2][0].poll(30)
        for writer in writers:
            time.sleep(rng.uniform(0, 0.05))
            os.kill(writer.pid or 0, signal.SIGKILL)
            writer.join()
        said += [item for ours, _ in ends for item in listeners._drain(ours)]
    return said


def measured(n: int = 200) -> list[listeners.Row]:
    """Votes and rows lost and doubled in n trials, half of them each."""
    with TemporaryDirectory() as folder:
        store = Store(Path(folder) / "votes.db")
        store.set_test(listeners.TEST)
        votes = _acknowledged(Path(folder), _vote_until_killed, n // 2)
        lost, doubled = listeners.audit(store, votes)
        store.close()
        jobs = _acknowledged(Path(folder), _publish_until_killed, n - n // 2)
        table = rows.read_rows("tiny", "toy-figures", Path(folder))
    lost += sum(
        SENTENCES - min(there, SENTENCES)
        for there in table["number"].value_counts().reindex(jobs, fill_value=0)
    )
    doubled += int(table.duplicated(["number", "sentence"]).sum())
    how = f"{n} times two writers killed at random, {len(votes)} votes and {len(jobs)} jobs acknowledged"
    return [
        ("kills.lost", lost, "votes and rows", 0, "lower", how),
        ("kills.doubled", doubled, "votes and rows", 0, "lower", how),
    ]
