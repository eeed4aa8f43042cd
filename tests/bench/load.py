"""The server under load and under kill -9: what a hundred listeners wait for, and what a crash costs them.

And any work beside another program that is busy.
"""

import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np

from bench.browser import free_port, until_there
from bench.listeners import TEST, Row, audit, cost
from bench.peers import alternate
from slmlab.errors import LabError
from slmlab.people.design import LEFT, RIGHT
from slmlab.people.store import FILE, Store, session_of

SHOWN = re.compile(r"data-trial='(\d+)' data-attempt='(\d+)'")
CLIP = re.compile(r"src='([^']+)'")


@dataclass
class Client:
    """A browser as far as the server can tell: a token, and the trial on its page."""

    http: httpx.AsyncClient | None = None
    """Connection to whatever server runs now."""
    token: str = ""
    """What the browser keeps."""
    page: str = ""
    """The trial last shown."""

    async def start(self, name: str) -> None:
        """Open a session."""
        self.page, self.token = await self.call("start_pair", None, "Naturalness", name)

    async def vote(self, decision: str) -> None:
        """Vote on the trial shown and receive the next."""
        trial, attempt = self.at
        report = {"decision": decision, "trial": trial, "attempt": attempt, "heard": True, "ms": 3000}
        self.page = (await self.call("vote_pair", self.token, json.dumps(report), [], ""))[0]

    async def resume(self) -> None:
        """Load the page again, with nothing but the token."""
        self.page = (await self.call("resume_pair", self.token))[0]

    async def call(self, name: str, *data: Any) -> list[Any]:
        """The outputs of one of the page's functions."""
        answer = await self.http.post(f"/gradio_api/run/{name}", json={"data": data, "session_hash": "bench"})
        answer.raise_for_status()
        return list(answer.json()["data"])

    @property
    def at(self) -> tuple[int, int]:
        """Trial and attempt shown."""
        shown = SHOWN.search(self.page)
        if shown is None:
            raise LabError(f"no trial is shown: {self.page[:200]}")
        return int(shown[1]), int(shown[2])

    @property
    def clips(self) -> list[str]:
        """Addresses of the clips shown, in order."""
        return CLIP.findall(self.page)


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`slmlab app` on a folder as a process of its own, killed at last (kill -9): its address, and itself."""
    port = free_port()
    command = [sys.executable, "-m", "slmlab", "app", str(folder), "--port", str(port), *flags]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until_there(f"http://127.0.0.1:{port}/", process, "slmlab app")
        yield f"http://127.0.0.1:{port}/", process
    finally:
        process.kill()
        process.wait()


@contextmanager
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """Another program that keeps a core busy meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def slowdown(job: Callable[[], object], rounds: int = 5) -> tuple[float, float]:
    """How many times longer a job takes beside a busy neighbour than alone, and its seconds alone."""
    quiet, busy = [], []
    for _ in range(rounds):
        quiet += alternate([job], 1)[0]
        with neighbour():
            busy += alternate([job], 1)[0]
    return statistics.median(busy) / statistics.median(quiet), statistics.median(quiet)


def served(measure: Callable[[Path], list[Row]]) -> list[Row]:
    """Run a measurement on a test of names without sounds, in a folder of its own."""
    with TemporaryDirectory() as folder:
        Store(Path(folder) / FILE).set_test(TEST)
        return measure(Path(folder))


def waiting(folder: Path, clients: int = 100, seconds: float = 60.0, pause: float = 3.0) -> list[Row]:
    """How long listeners wait between click and the next pair's clip addresses."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    _use(cores[:1])
    try:
        with serving(folder) as (url, _):
            _use(cores[1:2])
            waits = asyncio.run(_crowd(url, clients, seconds, pause))
    finally:
        _use(cores)
    how = f"{clients} clients, a vote every {pause:g} s each, {seconds:g} s: {len(waits)} votes, median "
    how += f"{1000 * float(np.median(waits)):.0f} ms; server and clients on a core each"
    p95 = 1000 * float(np.quantile(waits, 0.95))
    return [("votes.p95", p95, "ms", 500, "lower", how)]


def _use(cores: Sequence[int]) -> None:
    """Run on these cores alone, and so does what is started from now on; of none given, as before."""
    if cores:
        os.sched_setaffinity(0, cores)


async def _crowd(url: str, clients: int, seconds: float, pause: float) -> list[float]:
    waits: list[float] = []
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
        crowd = [Client(http) for _ in range(clients)]
        for i, client in enumerate(crowd):
            await client.start(f"simulated client {i}")
        end = time.monotonic() + seconds
        await asyncio.gather(*(_steady(client, i, end, pause, waits) for i, client in enumerate(crowd)))
    return waits


async def _steady(client: Client, i: int, end: float, pause: float, waits: list[float]) -> None:
    rng = random.Random(i)
    await asyncio.sleep(rng.uniform(0, pause))
    while (clicked := time.monotonic()) < end:
        before = client.clips
        await client.vote(rng.choice((LEFT, RIGHT)))
        waits.append(time.monotonic() - clicked)
        if client.clips == before:
            raise LabError("the same pair came again: the vote was not taken")
        await asyncio.sleep(max(0.0, clicked + pause - time.monotonic()))


def resuming(folder: Path, trials: int = 50) -> list[Row]:
    """Whether a page loaded anew shows the pair and sides that were left."""
    with serving(folder) as (url, _):
        share = 100 * asyncio.run(_resumed(url, trials))
    how = f"{trials} sessions left at a random trial and loaded again by token over HTTP"
    return [("votes.resume", share, "%", 100, "higher", how)]


async def _resumed(url: str, trials: int) -> float:
    same = 0
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        for i in range(trials):
            rng = random.Random(i)
            left = Client(http)
            await left.start(f"simulated client {i}")
            for _ in range(rng.randrange(5)):
                await left.vote(rng.choice((LEFT, RIGHT)))
            back = Client(http, left.token)
            await back.resume()
            same += (back.at, back.clips) == (left.at, left.clips)
    return same / trials


def killed_servers(folder: Path, kills: int = 20, clients: int = 10) -> list[Row]:
    """The whole server is killed under voting load; listeners press again until they are answered."""
    acknowledged: list[tuple[str, int]] = []
    crowd = [Client() for _ in range(clients)]
    rng = random.Random(0)

    async def vote_until_killed(url: str, server: subprocess.Popen[bytes]) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            for client in crowd:
                client.http = http
                if not client.token:
                    await client.start("simulated client")
            voting = [asyncio.create_task(_hasty(client, acknowledged)) for client in crowd]
            await asyncio.sleep(rng.uniform(0.5, 2.5))
            server.kill()
            await asyncio.gather(*voting)

    for _ in range(kills):
        with serving(folder) as (url, server):
            asyncio.run(vote_until_killed(url, server))
    how = f"{kills} kill -9 of the server, {clients} clients, {len(acknowledged)} votes acknowledged"
    return cost(*audit(Store(folder / FILE), acknowledged), how)


async def _hasty(client: Client, acknowledged: list[tuple[str, int]]) -> None:
    """Vote without pause until the server is gone; what was not answered is sent again to the next one."""
    while True:
        at = client.at[0]
        try:
            if "trial done" in client.page:
                await client.start("simulated client")
                continue
            await client.vote(LEFT if at % 2 else RIGHT)
        except httpx.HTTPError:
            return
        acknowledged.append((session_of(client.token), at))
