"""The figures promised for listening and labelling: rows of `{id, value, unit, bar, better, how}`."""

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from slmlab.people import ranking, simulated
from slmlab.people.design import Rules
from slmlab.people.simulated import paper_study, simulated_votes
from slmlab.people.store import LEFT, RIGHT, Store, Vote

Row = dict[str, Any]


def total(*kinds: list[Row]) -> list[Row]:
    """Rows of one id added up, with how each part was measured."""
    added: dict[str, Row] = {}
    for row in (row for kind in kinds for row in kind):
        before = added.get(row["id"])
        both = (
            {"value": before["value"] + row["value"], "how": f"{before['how']}; {row['how']}"}
            if before
            else {}
        )
        added[row["id"]] = row | both
    return list(added.values())


def killed_writers(kills: int = 180, seed: int = 0) -> list[Row]:
    """A process that votes without pause is killed at a random moment, again and again."""
    rng = random.Random(seed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.listeners"])
    acknowledged: list[tuple[str, int]] = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "votes.db"
        store = Store(path)
        store.set_study(paper_study())
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
        lost, doubled = audit(store, acknowledged)
    how = f"{kills} kill -9 of a writing process, {len(acknowledged)} votes acknowledged"
    return [
        {"id": "votes.lost", "value": lost, "unit": "votes", "bar": 0, "better": "lower", "how": how},
        {"id": "votes.doubled", "value": doubled, "unit": "votes", "bar": 0, "better": "lower", "how": how},
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
    """What a killed process had said before it died."""
    said = []
    try:
        while True:
            said.append(pipe.recv())
    except (EOFError, OSError):
        pipe.close()
        return said


def audit(store: Store, acknowledged: list[tuple[str, int]]) -> tuple[int, int]:
    """Votes acknowledged but not there, and votes that are there twice; derived tables must rebuild equal."""
    before = store.dump()
    store.rebuild()
    if store.dump() != before or _integrity(store.path) != "ok":
        return len(acknowledged), len(acknowledged)
    cast = [(e["session"], e["body"]["trial"]) for e in store.events() if e["kind"] == "vote"]
    return len(set(acknowledged) - set(cast)), len(cast) - len(set(cast))


def _integrity(path: Path) -> str:
    db = sqlite3.connect(path)
    (answer,) = db.execute("PRAGMA integrity_check").fetchone()
    db.close()
    return str(answer)


def ranks(simulations: int = 100, resamples: int = 200) -> list[Row]:
    """Five simulated systems, neighbours 62 : 38, 20 simulated listeners with 40 pairs each."""
    study = paper_study()
    truth = np.log(0.62 / 0.38) * np.arange(4, -1, -1.0)
    truth -= truth.mean()
    known = dict(zip(study.systems, truth, strict=True))
    found, covered = [], []
    for i in range(simulations):
        votes = ranking.counting(
            simulated_votes(study, simulated.crowd(20, known, seed=i, lapse=0.0, ties=0.0), 20 * i)
        )
        board = ranking.leaderboard(votes, study.systems, resamples, seed=i).table.set_index("system")
        found.append(board.index[0] == "a")
        board = board.loc[list(study.systems)]
        covered.append((board["low"].to_numpy() <= truth) & (truth <= board["high"].to_numpy()))
    how = f"{simulations} simulations, 5 systems 62 : 38, 20 simulated listeners x 40 pairs"
    share = 100 * float(np.mean(covered))
    within = f"{how}; {share:.1f} % of 95 % intervals hold the truth (asked: 90 to 98); value = that - 94"
    return [
        {
            "id": "rank.recovered",
            "value": 100 * float(np.mean(found)),
            "unit": "%",
            "bar": 95,
            "better": "higher",
            "how": how,
        },
        {
            "id": "rank.coverage",
            "value": share - 94,
            "unit": "points",
            "bar": 4,
            "better": "within",
            "how": within,
        },
    ]


def flags(n: int = 400) -> list[Row]:
    """Careless simulated listeners are found by gold and sides, honest ones are left in peace."""
    study = paper_study()
    known = dict(zip(study.systems, np.log(0.62 / 0.38) * np.arange(4, -1, -1.0), strict=True))
    share = {}
    for kind in simulated.KINDS:
        votes = simulated_votes(study, simulated.crowd(n, known, kind, seed=77))
        share[kind] = 100 * len(ranking.exclusions(votes, Rules())) / n
    careless = min(share["lazy"], share["left"])
    found = f"lazy {share['lazy']:.1f} %, left {share['left']:.1f} %"
    how = f"{n} simulated listeners of each kind, 40 pairs + 12 gold each; {found}"
    return [
        {
            "id": "listeners.flagged",
            "value": careless,
            "unit": "%",
            "bar": 95,
            "better": "higher",
            "how": how,
        },
        {
            "id": "listeners.false_flags",
            "value": share["honest"],
            "unit": "%",
            "bar": 5,
            "better": "lower",
            "how": how,
        },
    ]
