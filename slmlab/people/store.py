"""The store: every vote is one row appended to SQLite and forced to disk before the next pair is shown.

Nothing is ever changed or removed; taking a vote back is an event too. What people want to read (sessions,
votes) are tables derived from the events: kept up to date in the same transaction, and equal to the byte
when they are thrown away and made again. Any number of processes may write at once.
"""

import hashlib
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from slmlab.errors import LabError
from slmlab.people import schedule
from slmlab.people.design import TASKS, Study
from slmlab.people.schedule import Trial

LEFT, RIGHT, TIE, BOTH_BAD, SKIP = "A", "B", "tie", "both_bad", "skip"
PAIR_DECISIONS = (LEFT, RIGHT, TIE, BOTH_BAD, SKIP)
SCORES = ("1", "2", "3", "4", "5")
SIMULATED = "simulated"
"""How the name of every listener begins who is a program and no person."""
NOTE_LENGTH = 2000
NAME_LENGTH = 80
STALE_SECONDS = 3600.0

EVENTS = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('study', 'session', 'vote', 'undo', 'recording')),
    session TEXT,
    at REAL NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX events_of_session ON events (session, kind);
CREATE TRIGGER events_stay BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER events_last BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are never removed'); END;
"""
DERIVED = """
DROP TABLE IF EXISTS sessions;
DROP TABLE IF EXISTS votes;
DROP TABLE IF EXISTS given;
CREATE TABLE sessions (
    session TEXT PRIMARY KEY, event INTEGER, listener TEXT, task TEXT, number INTEGER,
    started REAL, last REAL, trials INTEGER, done INTEGER, undone INTEGER
) WITHOUT ROWID;
CREATE TABLE votes (
    session TEXT, trial INTEGER, event INTEGER, kind TEXT, item TEXT, first TEXT, second TEXT,
    answer TEXT, repeats INTEGER, decision TEXT, tags TEXT, note TEXT, heard INTEGER, override INTEGER,
    plays TEXT, ms INTEGER, at REAL, PRIMARY KEY (session, trial)
) WITHOUT ROWID;
CREATE TABLE given (session TEXT, item TEXT, PRIMARY KEY (session, item)) WITHOUT ROWID;
"""
TABLES = ("sessions", "votes", "given")
MIGRATIONS = (EVENTS, DERIVED)
"""Version n of the schema is what the first n of these make; `PRAGMA user_version` says where a file stands.
After a migration the derived tables are made again from the events."""


@dataclass(frozen=True)
class Vote:
    """What a listener said about one trial."""

    decision: str
    """A, B, tie, both_bad or skip of a pair; 1 to 5 or skip of a rating."""
    tags: tuple[str, ...] = ()
    """Reasons ticked."""
    note: str = ""
    """Their own words; never shown as HTML."""
    heard: bool = True
    """Whether every clip was heard to its end."""
    override: bool = False
    """Whether the listener chose to vote without."""
    plays: tuple[int, ...] = ()
    """How often each clip was started."""
    ms: int = -1
    """Milliseconds from the pair's appearance to the vote; -1 if not known."""


@dataclass(frozen=True)
class Place:
    """Where a session stands."""

    session: str
    """Its public name: a hash of its token."""
    listener: str
    """Whose it is."""
    task: str
    """pair, nmos or smos."""
    trial: int
    """Number of the trial to show; the number of trials when all are done."""
    attempt: int
    """How often this trial's vote was taken back."""
    trials: tuple[Trial, ...] = field(repr=False)
    """The whole schedule."""

    @property
    def current(self) -> Trial | None:
        """The trial to show; None at the end."""
        return self.trials[self.trial] if self.trial < len(self.trials) else None


class Session(str):
    """The public name of a session, in place of its token: for whoever has shown that it is theirs."""


class Store:
    """The events of one study, in one file.

    Args:
        path: of the SQLite file; made if it is not there.

    Raises:
        LabError: the file is no store, or was written by a newer slmlab.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._threads = threading.local()
        self._trials = lru_cache(maxsize=4096)(self._read_trials)
        try:
            self._migrate()
        except sqlite3.DatabaseError as error:
            raise LabError(
                f"{self.path} cannot be used as a store of votes ({error}): give another"
            ) from error

    def set_study(self, study: Study) -> None:
        """Fix the study; the first to be set stays.

        Raises:
            LabError: another study is there already.
        """
        with self._writing() as db:
            self._append(db, "study", "study", None, json.loads(study.dumps()))
        if self.study.dumps() != study.dumps():
            raise LabError(f"{self.path} belongs to the study '{self.study.title}': choose another folder")

    @property
    def study(self) -> Study:
        """The study; LabError if none was set."""
        if not hasattr(self, "_study"):
            row = self._db().execute("SELECT body FROM events WHERE key = 'study'").fetchone()
            if row is None:
                raise LabError(f"{self.path} holds no study yet: make one from a folder of systems first")
            self._study = Study.loads(row[0])
        return self._study

    def open_session(self, listener: str, task: str = "pair") -> str:
        """Draw and store the schedule of a new session; its unguessable token is returned, never stored."""
        if task not in TASKS:
            raise LabError(f"there is no task '{task[:40]}': expected {', '.join(TASKS)}")
        token = secrets.token_urlsafe(24)
        session = session_of(token)
        listener = clean(listener, NAME_LENGTH) or f"listener {session[:6]}"
        study = self.study
        with self._writing() as db:
            (number,) = db.execute("SELECT COUNT(*) FROM sessions").fetchone()
            coverage, known = self._coverage(db, task, time.time()), self._known(db, listener, task)
            trials = schedule.schedule(study, task, number, coverage, known)
            body = {
                "listener": listener,
                "task": task,
                "number": number,
                "trials": [asdict(trial) for trial in trials],
            }
            self._append(db, f"session {session}", "session", session, body)
        return token

    def open_of(self, listener: str, task: str) -> Session | None:
        """The session of a task that a listener last began and has not ended; None if there is none.

        Anybody may type a name: ask only for one that came with a login.
        """
        row = self._db().execute(
            "SELECT session FROM sessions WHERE listener = ? AND task = ? AND done < trials "
            "ORDER BY event DESC LIMIT 1",
            (clean(listener, NAME_LENGTH), task),
        )
        found = row.fetchone()
        return Session(found[0]) if found else None

    def place(self, token: str) -> Place:
        """Where the session of a token stands; the same pair on the same sides after every return."""
        return self._place(self._db(), session_of(token))

    def vote(self, token: str, trial: int, attempt: int, vote: Vote) -> Place:
        """Append a vote and return what comes next, once it is on disk.

        A vote sent twice counts once; a vote on anything but the trial shown changes nothing.

        Raises:
            LabError: no such session, or the vote is not one of those asked for.
        """
        session = session_of(token)
        with self._writing() as db:
            place = self._place(db, session)
            if (trial, attempt) == (place.trial, place.attempt) and place.current is not None:
                body = {"trial": trial, **asdict(_checked(vote, place.task, self.study))}
                self._append(db, f"vote {session} {trial} {attempt}", "vote", session, body)
                place = self._place(db, session)
        return place

    def undo(self, token: str, trial: int, attempt: int) -> Place:
        """Take the last vote back, as an event, if the session still stands at this trial and attempt."""
        session = session_of(token)
        with self._writing() as db:
            place = self._place(db, session)
            last = db.execute(
                "SELECT trial FROM votes WHERE session = ? ORDER BY event DESC LIMIT 1", (session,)
            ).fetchone()
            if last and (trial, attempt) == (place.trial, place.attempt):
                key = f"undo {session} {last[0]} {self._undone(db, session, last[0])}"
                self._append(db, key, "undo", session, {"trial": last[0]})
                place = self._place(db, session)
        return place

    def note_recording(self, body: Mapping[str, Any]) -> None:
        """Append that somebody recorded a sound, and what they agreed to."""
        with self._writing() as db:
            self._append(db, f"recording {secrets.token_hex(12)}", "recording", None, body)

    def events(self) -> Iterator[dict[str, Any]]:
        """Every event in order, as a dictionary of id, key, kind, session, at and body."""
        for row in self._db().execute("SELECT id, key, kind, session, at, body FROM events ORDER BY id"):
            yield dict(zip(("id", "key", "kind", "session", "at"), row[:5], strict=True)) | {
                "body": json.loads(row[5])
            }

    def take_in(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Append events written out by another store; those that are here already are left alone."""
        with self._writing() as db:
            for e in events:
                self._append(db, e["key"], e["kind"], e["session"], e["body"], e["at"])

    def table(self, name: str) -> pd.DataFrame:
        """A derived table: sessions or votes."""
        if name not in TABLES:
            raise LabError(f"there is no table '{name}': expected {', '.join(TABLES)}")
        return pd.read_sql_query(f"SELECT * FROM {name}", self._db())

    def rebuild(self) -> None:
        """Throw the derived tables away and make them again from the events."""
        with self._writing() as db:
            _rebuild(db)

    def dump(self) -> bytes:
        """The derived tables as bytes: equal stores give equal bytes."""
        db = self._db()
        rows = {name: db.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in TABLES}
        return json.dumps(rows, ensure_ascii=False).encode()

    def close(self) -> None:
        """Close this thread's connection."""
        if db := getattr(self._threads, "db", None):
            db.close()
            del self._threads.db

    def _db(self) -> sqlite3.Connection:
        """This thread's connection."""
        if not hasattr(self._threads, "db"):
            db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            db.execute("PRAGMA synchronous = FULL")
            self._threads.db = db
        return self._threads.db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on disk when the block ends, or never was."""
        db = self._db()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    def _migrate(self) -> None:
        db = self._db()
        db.execute("PRAGMA journal_mode = WAL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise LabError(
                f"{self.path} has schema {version}, this slmlab knows up to {len(MIGRATIONS)}: update slmlab"
            )
        if version == len(MIGRATIONS):
            return
        with self._writing() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()  # another process may have been first
            for step in MIGRATIONS[version:]:
                _script(db, step)
            _rebuild(db)
            db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _append(
        self,
        db: sqlite3.Connection,
        key: str,
        kind: str,
        session: str | None,
        body: Mapping[str, Any],
        at: float | None = None,
    ) -> None:
        """One event and what follows from it; an event whose key is there already changes nothing."""
        written = json.dumps(body, ensure_ascii=False, sort_keys=True)
        if db.execute("SELECT 1 FROM events WHERE key = ?", (key,)).fetchone():
            return
        at = time.time() if at is None else at
        made = db.execute(
            "INSERT INTO events (key, kind, session, at, body) VALUES (?, ?, ?, ?, ?)",
            (key, kind, session, at, written),
        )
        _derive(db, (made.lastrowid, kind, session, at, written), self._trials)

    def _read_trials(self, session: str) -> tuple[Trial, ...]:
        return _trials(self._db(), session)

    def _place(self, db: sqlite3.Connection, session: str) -> Place:
        row = db.execute("SELECT listener, task FROM sessions WHERE session = ?", (session,)).fetchone()
        if row is None:
            raise LabError("this session is not known here: start a new one from the first page")
        listener, task = row
        trials = self._trials(session)
        done = {n for (n,) in db.execute("SELECT trial FROM votes WHERE session = ?", (session,))}
        trial = next((n for n in range(len(trials)) if n not in done), len(trials))
        return Place(session, listener, task, trial, self._undone(db, session, trial), trials)

    def _undone(self, db: sqlite3.Connection, session: str, trial: int) -> int:
        """How often the vote on a trial was taken back."""
        (times,) = db.execute(
            "SELECT COUNT(*) FROM events WHERE session = ? AND kind = 'undo' "
            "AND json_extract(body, '$.trial') = ?",
            (session, trial),
        ).fetchone()
        return int(times)

    def _coverage(self, db: sqlite3.Connection, task: str, now: float) -> dict[str, int]:
        """How many listeners judged each item or are still about to; who left an hour ago is not."""
        rows = db.execute(
            "SELECT g.item, COUNT(*) FROM given g JOIN sessions s USING (session) LEFT JOIN votes v "
            "ON v.session = g.session AND v.item = g.item AND v.kind = 'main' "
            "WHERE s.task = ? AND (v.item IS NOT NULL OR s.last > ?) GROUP BY g.item",
            (task, now - STALE_SECONDS),
        )
        return dict(rows.fetchall())

    def _known(self, db: sqlite3.Connection, listener: str, task: str) -> set[str]:
        rows = db.execute(
            "SELECT item FROM given JOIN sessions USING (session) WHERE listener = ? AND task = ?",
            (listener, task),
        )
        return {item for (item,) in rows}


def session_of(token: str) -> str:
    """The public name of a token's session, from which the token cannot be found; a `Session` is one."""
    if isinstance(token, Session):
        return token
    return hashlib.sha256(str(token).encode("utf-8", "replace")).hexdigest()[:32]


def clean(text: str, length: int) -> str:
    """One line of what somebody typed, without control characters, cut to a length."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(line.split())[:length]


def _checked(vote: Vote, task: str, study: Study) -> Vote:
    allowed = PAIR_DECISIONS if task == "pair" else (*SCORES, SKIP)
    if vote.decision not in allowed:
        raise LabError(
            f"'{clean(vote.decision, 40)}' is no answer here: expected one of {', '.join(allowed)}"
        )
    if not (vote.heard or vote.override or vote.decision == SKIP):
        raise LabError("hear every clip to its end first, or choose 'vote without hearing'")
    return Vote(
        decision=vote.decision,
        tags=tuple(tag for tag in study.tags if tag in vote.tags),
        note=clean(vote.note, NOTE_LENGTH),
        heard=bool(vote.heard),
        override=bool(vote.override),
        plays=tuple(max(0, min(int(n), 999)) for n in vote.plays[:2]),
        ms=max(-1, min(int(vote.ms), 10**9)),
    )


def _trials(db: sqlite3.Connection, session: str) -> tuple[Trial, ...]:
    (body,) = db.execute("SELECT body FROM events WHERE key = ?", (f"session {session}",)).fetchone()
    return tuple(Trial(**{**row, "shown": tuple(row["shown"])}) for row in json.loads(body)["trials"])


def _script(db: sqlite3.Connection, script: str) -> None:
    """Run statements inside the open transaction (sqlite3's executescript would end it)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            db.execute(statement)
            statement = ""


def _rebuild(db: sqlite3.Connection) -> None:
    _script(db, DERIVED)
    for row in db.execute("SELECT id, kind, session, at, body FROM events ORDER BY id").fetchall():
        _derive(db, row, lambda session: _trials(db, session))


def _derive(
    db: sqlite3.Connection, row_of_event: tuple[Any, ...], trials_of: Callable[[str], tuple[Trial, ...]]
) -> None:
    """What one event changes in the derived tables."""
    event, kind, session, at, body = row_of_event
    if kind not in ("session", "vote", "undo"):
        return
    said = json.loads(body)
    if kind == "session":
        row = (
            session,
            event,
            said["listener"],
            said["task"],
            said["number"],
            at,
            at,
            len(said["trials"]),
            0,
            0,
        )
        db.execute(f"INSERT INTO sessions VALUES ({','.join('?' * len(row))})", row)
        items = {(session, t["item"]) for t in said["trials"] if t["kind"] == schedule.MAIN}
        db.executemany("INSERT INTO given VALUES (?, ?)", sorted(items))
        return
    if kind == "vote":
        row = _vote_row(session, event, at, said, trials_of(session)[said["trial"]])
        db.execute(f"INSERT INTO votes VALUES ({','.join('?' * len(row))})", row)
        change = "done = done + 1"
    else:
        db.execute("DELETE FROM votes WHERE session = ? AND trial = ?", (session, said["trial"]))
        change = "done = done - 1, undone = undone + 1"
    db.execute(f"UPDATE sessions SET {change}, last = ? WHERE session = ?", (at, session))


def _vote_row(session: str, event: int, at: float, said: Mapping[str, Any], trial: Trial) -> tuple[Any, ...]:
    first, second = (*trial.shown, "")[:2]
    return (
        *(session, said["trial"], event, trial.kind, trial.item, first, second, trial.answer, trial.of),
        *(said["decision"], "|".join(said["tags"]), said["note"], int(said["heard"]), int(said["override"])),
        *("|".join(map(str, said["plays"])), said["ms"], at),
    )
