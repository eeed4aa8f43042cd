"""The store: every vote is one row appended to SQLite and forced to disk before the next pair is shown.

Nothing is ever changed or removed; taking a vote back is an event too. What people want to read (sessions,
votes) is computed from the events, so nothing is kept twice. Any number of processes may write at once.
"""

import hashlib
import json
import secrets
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from slmlab.errors import LabError
from slmlab.files import from_plain
from slmlab.people.design import ANSWERS, SKIP, ListeningTest, from_pairs, from_systems
from slmlab.people.schedule import MAIN, Trial, schedule

SIMULATED = "simulated"
"""How the name of every listener begins who is a program and no person."""
NOTE_LENGTH = 2000
NAME_LENGTH = 80
STALE_SECONDS = 3600.0
FILE = "votes.db"
"""Of the store, in the folder of its test."""

SCHEMA = 3
"""`PRAGMA user_version`: 1 had the events alone, 2 kept tables beside them."""
EVENTS = (
    """CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL CHECK (kind IN ('study', 'session', 'vote', 'undo', 'recording')),
        session TEXT,
        at REAL NOT NULL,
        body TEXT NOT NULL
    )""",
    "CREATE INDEX events_of_session ON events (session, kind)",
    """CREATE TRIGGER events_stay BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'events are never changed'); END""",
    """CREATE TRIGGER events_last BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'events are never removed'); END""",
)
VIEWS = (
    *(f"DROP TABLE IF EXISTS {name}" for name in ("sessions", "votes", "given")),
    # A vote stands until it is taken back; the keys of both end in session, trial and attempt.
    """CREATE VIEW standing AS
        SELECT id, session, at, body, json_extract(body, '$.trial') AS trial FROM events AS vote
        WHERE kind = 'vote'
        AND NOT EXISTS (SELECT 1 FROM events WHERE key = 'undo' || substr(vote.key, 5))""",
    """CREATE VIEW sessions AS
        SELECT session, id AS event, json_extract(body, '$.listener') AS listener,
            json_extract(body, '$.task') AS task, json_extract(body, '$.number') AS number, at AS started,
            (SELECT MAX(at) FROM events WHERE session = began.session) AS last,
            json_array_length(body, '$.trials') AS trials,
            (SELECT COUNT(*) FROM standing WHERE session = began.session) AS done,
            (SELECT COUNT(*) FROM events WHERE session = began.session AND kind = 'undo') AS undone
        FROM events AS began WHERE kind = 'session' ORDER BY session""",
)
VOTE_COLUMNS = [
    *("session", "listener", "task", "trial", "event", "kind", "item", "first", "second", "answer"),
    *("repeats", "decision", "tags", "note", "heard", "override", "plays", "ms", "at"),
]


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
    """The events of one listening test in one SQLite file, made if it is not there; beside it lie `clips/`,
    `recordings/` and `export/`. A LabError: the file is no store, or was written by a newer slmlab.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.folder = self.path.parent
        self.folder.mkdir(parents=True, exist_ok=True)
        self._threads = threading.local()
        self._sessions = lru_cache(maxsize=4096)(self._read_session)
        try:
            self._migrate()
        except sqlite3.DatabaseError as error:
            raise LabError(
                f"{self.path} cannot be used as a store of votes ({error}): give another"
            ) from error

    def set_test(self, test: ListeningTest) -> None:
        """Fix the test; the first to be set stays, and another is a LabError."""
        with self._writing():
            self._append("study", "study", None, asdict(test))
        if self.test != test:
            raise LabError(f"{self.path} belongs to the test '{self.test.title}': choose another folder")

    @cached_property
    def test(self) -> ListeningTest:
        """What is asked; LabError if nothing was set."""
        row = self._db.execute("SELECT body FROM events WHERE key = 'study'").fetchone()
        if row is None:
            raise LabError(f"{self.path} holds no listening test yet: make one of a folder of systems first")
        return from_plain(ListeningTest, json.loads(row[0]), str(self.path), lenient=True)

    @property
    def clips(self) -> Path:
        """The one folder whose files are served."""
        return self.folder / "clips"

    def open_session(self, listener: str, task: str = "pair") -> str:
        """Draw and store the schedule of a new session; its unguessable token is returned, never stored."""
        if task not in ANSWERS:
            raise LabError(f"there is no task '{task[:40]}': expected {', '.join(ANSWERS)}")
        token = secrets.token_urlsafe(24)
        session = session_of(token)
        listener = clean(listener) or f"listener {session[:6]}"
        with self._writing():
            (number,) = self._db.execute("SELECT COUNT(*) FROM events WHERE kind = 'session'").fetchone()
            trials = schedule(self.test, task, number, *self._coverage(task, listener))
            body = {"listener": listener, "task": task, "number": number, "trials": list(map(asdict, trials))}
            self._append(f"session {session}", "session", session, body)
        return token

    def open_of(self, listener: str, tasks: Sequence[str]) -> Session | None:
        """The session of these tasks that a listener last began and has not ended; None if none.

        Anybody may type a name: ask only for one that came with a login.
        """
        newest = self._db.execute(
            "SELECT session FROM sessions WHERE listener = ? AND done < trials "
            f"AND task IN ({', '.join('?' * len(tasks))}) ORDER BY event DESC LIMIT 1",
            (clean(listener), *tasks),
        ).fetchone()
        return Session(newest[0]) if newest else None

    def place(self, token: str) -> Place:
        """Where a token's session stands, on the same sides after every return; LabError if there is none."""
        session = session_of(token)
        listener, task, trials = self._sessions(session)
        done = {n for (n,) in self._db.execute("SELECT trial FROM standing WHERE session = ?", (session,))}
        trial = next((n for n in range(len(trials)) if n not in done), len(trials))
        return Place(session, listener, task, trial, self._undone(session, trial), trials)

    def vote(self, token: str, trial: int, attempt: int, vote: Vote) -> Place:
        """Append a vote and return what comes next, once it is on disk.

        A vote sent twice counts once; a vote on anything but the trial shown changes nothing. A LabError: no
        such session, or the vote is not one of those asked for.
        """
        with self._writing():
            place = self.place(token)
            if (trial, attempt) == (place.trial, place.attempt) and place.current is not None:
                body = {"trial": trial, **asdict(_checked(vote, place.task, self.test))}
                self._append(f"vote {place.session} {trial} {attempt}", "vote", place.session, body)
        return self.place(token)

    def undo(self, token: str, trial: int, attempt: int) -> Place:
        """Take the last vote back, as an event, if the session still stands at this trial and attempt."""
        with self._writing():
            place = self.place(token)
            last = self._db.execute(
                "SELECT trial FROM standing WHERE session = ? ORDER BY id DESC LIMIT 1", (place.session,)
            ).fetchone()
            if last and (trial, attempt) == (place.trial, place.attempt):
                key = f"undo {place.session} {last[0]} {self._undone(place.session, last[0])}"
                self._append(key, "undo", place.session, {"trial": last[0]})
        return self.place(token)

    def note_recording(self, body: Mapping[str, Any]) -> None:
        """Append that somebody recorded a sound, and what they agreed to."""
        with self._writing():
            self._append(f"recording {secrets.token_hex(12)}", "recording", None, body)

    def events(self) -> Iterator[dict[str, Any]]:
        """Every event in order, as a dictionary of id, key, kind, session, at and body."""
        names = ("id", "key", "kind", "session", "at", "body")
        for row in self._db.execute(f"SELECT {', '.join(names)} FROM events ORDER BY id"):
            yield dict(zip(names, row, strict=True)) | {"body": json.loads(row[-1])}

    def take_in(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Append events written out by another store; those that are here already are left alone."""
        with self._writing():
            for e in events:
                self._append(e["key"], e["kind"], e["session"], e["body"], e["at"])

    def sessions(self) -> pd.DataFrame:
        """Every session: who, which task, when, how many trials, done and taken back."""
        return pd.read_sql_query("SELECT * FROM sessions", self._db)

    def votes(self) -> pd.DataFrame:
        """Every vote that stands, with the trial it answers: `VOTE_COLUMNS`."""
        rows = []
        for event, session, at, body, number in self._db.execute("SELECT * FROM standing"):
            listener, task, trials = self._sessions(session)
            vote = json.loads(body)
            vote |= {name: int(vote[name]) for name in ("heard", "override")}
            vote |= {name: "|".join(map(str, vote[name])) for name in ("tags", "plays")}
            came = {"session": session, "listener": listener, "task": task, "event": event, "at": at}
            rows.append(vote | came | trials[number].columns())
        table = pd.DataFrame(rows, columns=VOTE_COLUMNS)
        return table.sort_values(["session", "trial"], ignore_index=True)

    def close(self) -> None:
        """Close this thread's connection."""
        if db := getattr(self._threads, "db", None):
            db.close()
            del self._threads.db

    @property
    def _db(self) -> sqlite3.Connection:
        """This thread's connection."""
        if not hasattr(self._threads, "db"):
            db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            db.execute("PRAGMA synchronous = FULL")
            self._threads.db = db
        return self._threads.db

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction that is on disk when the block ends, or never was."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _migrate(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        with self._writing():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA:
                known = f"this slmlab knows up to {SCHEMA}"
                raise LabError(f"{self.path} has schema {version}, {known}: update slmlab")
            if version < SCHEMA:
                for statement in (*(() if version else EVENTS), *VIEWS, f"PRAGMA user_version = {SCHEMA}"):
                    self._db.execute(statement)

    def _append(
        self, key: str, kind: str, session: str | None, body: Mapping[str, Any], at: float | None = None
    ) -> None:
        """One event; an event whose key is there already changes nothing."""
        if not self._db.execute("SELECT 1 FROM events WHERE key = ?", (key,)).fetchone():
            content = json.dumps(body, ensure_ascii=False, sort_keys=True)
            row = (key, kind, session, time.time() if at is None else at, content)
            self._db.execute("INSERT INTO events (key, kind, session, at, body) VALUES (?, ?, ?, ?, ?)", row)

    def _read_session(self, session: str) -> tuple[str, str, tuple[Trial, ...]]:
        """Listener, task and schedule of a session, which never change."""
        row = self._db.execute("SELECT body FROM events WHERE key = ?", (f"session {session}",)).fetchone()
        if row is None:
            raise LabError("this session is not known here: start a new one from the first page")
        body = json.loads(row[0])
        trials = tuple(Trial(**{**trial, "shown": tuple(trial["shown"])}) for trial in body["trials"])
        return body["listener"], body["task"], trials

    def _undone(self, session: str, trial: int) -> int:
        """How often the vote on a trial was taken back."""
        (times,) = self._db.execute(
            "SELECT COUNT(*) FROM events WHERE session = ? AND kind = 'undo' "
            "AND json_extract(body, '$.trial') = ?",
            (session, trial),
        ).fetchone()
        return int(times)

    def _coverage(self, task: str, listener: str) -> tuple[Counter[str], set[str]]:
        """How many listeners judged each item or are still about to, and the items given to one listener.

        Who left an hour ago is not about to.
        """
        coverage, familiar = Counter[str](), set[str]()
        voted = set(self._db.execute("SELECT session, trial FROM standing"))
        sessions = self._db.execute("SELECT session, listener, last FROM sessions WHERE task = ?", (task,))
        for session, name, last in sessions:
            waiting = last > time.time() - STALE_SECONDS
            for n, trial in enumerate(self._sessions(session)[2]):
                if trial.kind == MAIN:
                    coverage[trial.item] += waiting or (session, n) in voted
                    familiar |= {trial.item} if name == listener else set()
        return coverage, familiar


def open_test(folder: str | Path) -> Store:
    """The store of the listening test in a folder; LabError if none was made there."""
    path = Path(folder).resolve() / FILE
    if not path.is_file():
        raise LabError(f"{path.parent} holds no listening test: make one with --systems or --pairs")
    store = Store(path)
    _ = store.test
    return store


def make_test(
    folder: str | Path,
    systems: str | Path | Sequence[str | Path] | None = None,
    pairs: str | Path | None = None,
) -> Store:
    """A new listening test of a folder of systems or a file of pairs: all, or a LabError and nothing."""
    folder, remedy = Path(folder).resolve(), "leave --systems and --pairs out, or choose another"
    if (folder / FILE).is_file():
        raise LabError(f"{folder} holds a listening test already: {remedy}")
    if (systems is None) == (pairs is None):
        raise LabError("give either a folder of systems or a file of pairs")
    fresh = not folder.exists()
    part = folder / f".making-{secrets.token_hex(4)}"  # inside: the same disk, and surely writable
    part.mkdir(parents=True)
    try:
        test = from_pairs(pairs, part) if pairs else from_systems(systems or [], part, folder.name)
        with closing(Store(part / FILE)) as store:  # closed, so that it is one file and can move
            store.set_test(test)
        if (folder / "clips").exists():
            raise LabError(f"{folder} holds clips of another listening test: choose another folder")
        for name in ("clips", FILE):
            (part / name).rename(folder / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if fresh and not any(folder.iterdir()):
            folder.rmdir()
    return open_test(folder)


def session_of(token: str) -> str:
    """The public name of a token's session, from which the token cannot be found; a `Session` is one."""
    if isinstance(token, Session):
        return token
    return hashlib.sha256(str(token).encode("utf-8", "replace")).hexdigest()[:32]


def clean(text: str, length: int = NAME_LENGTH) -> str:
    """One line of what somebody typed, without control characters, cut to a length."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(line.split())[:length]


def _checked(vote: Vote, task: str, test: ListeningTest) -> Vote:
    if vote.decision not in ANSWERS[task]:
        expected = f"expected one of {', '.join(ANSWERS[task])}"
        raise LabError(f"'{clean(vote.decision, 40)}' is no answer here: {expected}")
    if not (vote.heard or vote.override or vote.decision == SKIP):
        raise LabError("hear every clip to its end first, or choose 'vote without hearing'")
    return Vote(
        decision=vote.decision,
        tags=tuple(tag for tag in test.tags if tag in vote.tags),
        note=clean(vote.note, NOTE_LENGTH),
        heard=bool(vote.heard),
        override=bool(vote.override),
        plays=tuple(max(0, min(int(n), 999)) for n in vote.plays[:2]),
        ms=max(-1, min(int(vote.ms), 10**9)),
    )
