"""The figures promised for people as judges: rows of id, value, unit, bar, better, how."""

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from slmlab.people import ranking
from slmlab.people.design import LEFT, RIGHT, Rules
from slmlab.people.simulated import KINDS, crowd, paper_test, simulated_votes
from slmlab.people.store import Store, Vote

Row = tuple[str, float, str, float, str, str]
TEST = paper_test()
STRENGTHS = dict(zip(TEST.systems, np.log(0.62 / 0.38) * np.arange(2, -3, -1.0), strict=True))
"""Of five systems: neighbours are preferred 62 : 38."""


def total(*kinds: list[Row]) -> list[Row]:
    """Rows of the same ids in the same order added up, with how each part was measured."""
    return [
        (*rows[0][:1], sum(row[1] for row in rows), *rows[0][2:5], "; ".join(row[5] for row in rows))
        for rows in zip(*kinds, strict=True)
    ]


def killed_writers(kills: int = 180, seed: int = 0) -> list[Row]:
    """A process that votes without pause is killed at a random moment, again and again."""
    rng = random.Random(seed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.listeners"])
    acknowledged: list[tuple[str, int]] = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "votes.db"
        store = Store(path)
        store.set_test(TEST)
        for _ in range(kills):
            ours, theirs = context.Pipe(duplex=False)
            writer = context.Process(target=_write_until_killed, args=(path, theirs))
            writer.start()
            theirs.close()
            ours.poll(30)  # the first vote has been cast: from here on any moment will do
            time.sleep(rng.uniform(0, 0.05))
            os.kill(writer.pid or 0, signal.SIGKILL)
            writer.join()
            acknowledged += _drain(ours)
        how = f"{kills} kill -9 of a writing process, {len(acknowledged)} votes acknowledged"
        return cost(*audit(store, acknowledged), how)


def cost(lost: int, doubled: int, how: str) -> list[Row]:
    """The rows of what kills cost."""
    return [
        ("votes.lost", lost, "votes", 0, "lower", how),
        ("votes.doubled", doubled, "votes", 0, "lower", how),
    ]


def _write_until_killed(path: Path, pipe: Connection) -> None:
    store = Store(path)
    while True:
        token = store.open_session("")
        place = store.place(token)
        while place.current is not None:
            trial = place.trial
            place = store.vote(token, trial, place.attempt, Vote(LEFT if trial % 2 else RIGHT))
            pipe.send((place.session, trial))


def _drain(pipe: Connection) -> list[tuple[str, int]]:
    """What a killed process had sent before it died."""
    votes = []
    try:
        while True:
            votes.append(pipe.recv())
    except (EOFError, OSError):
        pipe.close()
        return votes


def audit(store: Store, acknowledged: list[tuple[str, int]]) -> tuple[int, int]:
    """Votes acknowledged but not there, and votes that are there twice; all if the file is damaged."""
    with closing(sqlite3.connect(store.path)) as db:
        if db.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            return len(acknowledged), len(acknowledged)
    cast = [(e["session"], e["body"]["trial"]) for e in store.events() if e["kind"] == "vote"]
    there = set(store.votes()[["session", "trial"]].itertuples(index=False, name=None))
    return len(set(acknowledged) - there), len(cast) - len(set(cast))


def ranks(simulations: int = 100, resamples: int = 200) -> list[Row]:
    """Five simulated systems, neighbours 62 : 38, 20 simulated listeners with 40 pairs each."""
    truth = np.array(list(STRENGTHS.values()))
    best, covered = [], []
    for i in range(simulations):
        votes = simulated_votes(TEST, crowd(20, STRENGTHS, seed=i, lapse=0.0, ties=0.0), 20 * i)
        board = ranking.leaderboard(ranking.counting(votes), TEST.systems, resamples, seed=i)
        best.append(board["system"][0] == "a")
        board = board.set_index("system").loc[list(STRENGTHS)]
        covered.append((board["low"].to_numpy() <= truth) & (truth <= board["high"].to_numpy()))
    how = f"{simulations} simulations, 5 systems 62 : 38, 20 simulated listeners x 40 pairs"
    share = 100 * float(np.mean(covered))
    within = f"{how}; {share:.1f} % of 95 % intervals hold the truth (asked: 90 to 98); value = that - 94"
    return [
        ("rank.recovered", 100 * float(np.mean(best)), "%", 95, "higher", how),
        ("rank.coverage", share - 94, "points", 4, "within", within),
    ]


def flags(n: int = 400) -> list[Row]:
    """Careless simulated listeners are found by gold and sides, honest ones are left in peace."""
    share = {}
    for kind in KINDS:
        votes = simulated_votes(TEST, crowd(n, STRENGTHS, kind, seed=77))
        share[kind] = 100 * len(ranking.exclusions(votes, Rules())) / n
    shares = f"lazy {share['lazy']:.1f} %, left {share['left']:.1f} %"
    how = f"{n} simulated listeners of each kind, 40 pairs + 12 gold each; {shares}"
    return [
        ("listeners.flagged", min(share["lazy"], share["left"]), "%", 95, "higher", how),
        ("listeners.false_flags", share["honest"], "%", 5, "lower", how),
    ]
