"""The store: every vote is one row appended to SQLite and forced to disk before the next pair is shown.

Nothing is ever changed or removed; taking a vote back is an event too. Where a session stands is found by
going through its events, so nothing is kept twice. Any number of processes may write at once.
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
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field, Json

from slmlab.errors import LabError
from slmlab.people.design import ANSWERS, SKIP, Count, ListeningTest, Whole, from_pairs, from_systems, valid
from slmlab.people.schedule import MAIN, Trial, schedule

Task = Annotated[str, Field(pattern=f"^({'|'.join(ANSWERS)})$")]
SIMULATED = "simulated"
"""How the name of every listener begins who is a program and no person."""
NOTE_LENGTH = 2000
NAME_LENGTH = 80
STALE_SECONDS = 3600.0
FILE = "votes.db"
"""Of the store, in the folder of its test."""

SCHEMA = 4
"""`PRAGMA user_version`: tables and views that stood beside the events before are left alone."""
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
SESSION_COLUMNS = (
    *("session", "event", "listener", "task", "number"),
    *("started", "last", "trials", "done", "undone"),
)
VOTE_COLUMNS = [
    *("session", "listener", "task", "trial", "event", "kind", "item", "first", "second", "answer"),
    *("repeats", "decision", "tags", "note", "heard", "override", "plays", "ms", "at"),
]


@dataclass(frozen=True)
class Vote:
    """What a listener said about one trial: a decision that the task knows, the reasons ticked, their own
    words (never shown as HTML); whether every clip was heard to its end, or they chose to vote without; how
    often each clip was started, and milliseconds from its appearance to the vote, -1 if not known.
    """

    decision: str
    tags: tuple[str, ...] = ()
    note: str = ""
    heard: bool = True
    override: bool = False
    plays: tuple[int, ...] = ()
    ms: int = -1


@dataclass(frozen=True)
class Begun:
    """What is drawn when a session begins: its number in the test, and the whole schedule."""

    listener: str
    task: Task
    number: Count
    trials: tuple[Trial, ...] = field(repr=False)


@dataclass(frozen=True)
class Place(Begun):
    """Where a session stands: its public name, a hash of its token; the event with which it began; when
    something happened in it, in seconds since 1970; what was said of each trial and stands, the last to be
    given at the end; and how often the vote on each trial was taken back.
    """

    session: str
    event: int
    times: list[float] = field(default_factory=list)
    votes: dict[int, dict[str, Any]] = field(default_factory=dict)
    undone: Counter[int] = field(default_factory=Counter)

    @property
    def trial(self) -> int:
        """Number of the trial to show; the number of trials when all are done."""
        return next((n for n in range(len(self.trials)) if n not in self.votes), len(self.trials))

    @property
    def attempt(self) -> int:
        """How often this trial's vote was taken back."""
        return self.undone[self.trial]

    @property
    def current(self) -> Trial | None:
        """The trial to show; None at the end."""
        return self.trials[self.trial] if self.trial < len(self.trials) else None


@dataclass(frozen=True)
class Event:
    """A row of the store, in seconds since 1970: whatever comes again under its key is the same event;
    the body is a `ListeningTest`, a `Begun`, a `Vote` with its trial, a trial taken back, or a recording.
    """

    key: str
    kind: Literal["study", "session", "vote", "undo", "recording"]
    session: str | None
    at: Annotated[float, Field(allow_inf_nan=False)]
    body: dict[str, Any]


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
        return valid(Json[ListeningTest], row[0], str(self.path))

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
            every, coverage, familiar = self._places(), Counter[str](), set[str]()
            since = time.time() - STALE_SECONDS  # who left before is not about to judge anything
            for place in every:
                for n, trial in enumerate(place.trials if place.task == task else ()):
                    if trial.kind == MAIN:
                        coverage[trial.item] += place.times[-1] > since or n in place.votes
                        familiar |= {trial.item} if place.listener == listener else set()
            trials = schedule(self.test, task, len(every), coverage, familiar)
            body = asdict(Begun(listener, task, len(every), trials))
            self._append(f"session {session}", "session", session, body)
        return token

    def open_of(self, listener: str, tasks: Sequence[str]) -> Session | None:
        """The session of these tasks that a listener last began and has not ended; None if none.

        Anybody may type a name: ask only for one that came with a login.
        """
        own = (place for place in self._places() if place.listener == clean(listener) and place.task in tasks)
        newest = max((p for p in own if p.current), key=lambda place: place.event, default=None)
        return Session(newest.session) if newest else None

    def place(self, token: str) -> Place:
        """Where a token's session stands, on the same sides after every return; LabError if there is none."""
        session = session_of(token)
        self._begun(session)
        return self._places(session)[0]

    def vote(self, token: str, trial: int, attempt: int, vote: Vote) -> Place:
        """Append a vote and return what comes next, once it is on disk.

        A vote sent twice counts once; a vote on anything but the trial shown changes nothing. A LabError: no
        such session, the vote is not one of those asked for, or it cannot be written.
        """
        with self._writing():
            place = self.place(token)
            if (trial, attempt) == (place.trial, place.attempt) and place.current is not None:
                body = {"trial": place.trial, **asdict(_checked(vars(vote), place.task, self.test))}
                self._append(f"vote {place.session} {trial:d} {attempt:d}", "vote", place.session, body)
        return self.place(token)

    def undo(self, token: str, trial: int, attempt: int) -> Place:
        """Take the last vote back, as an event, if the session still stands at this trial and attempt."""
        with self._writing():
            place = self.place(token)
            if place.votes and (trial, attempt) == (place.trial, place.attempt):
                last = next(reversed(place.votes))
                key = f"undo {place.session} {last} {place.undone[last]}"
                self._append(key, "undo", place.session, {"trial": last})
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

    def take_in(self, events: Iterable[tuple[Any, Any]]) -> None:
        """Append events written out by another store, each with its place in a file for messages.

        Those that are here already are left alone; what is no event of this test is left out, in a line.
        """
        with self._writing():
            for place, told in events:
                try:
                    event = self._known(told)
                except LabError as error:
                    print(f"left out: {place}: {error}")
                else:
                    self._append(event.key, event.kind, event.session, event.body, event.at)

    def sessions(self) -> pd.DataFrame:
        """Every session: who, which task, when, how many trials, done and taken back."""
        rows = []
        for place in self._places():
            who = (place.session, place.event, place.listener, place.task, place.number)
            done = (len(place.trials), len(place.votes), place.undone.total())
            rows.append((*who, place.times[0], place.times[-1], *done))
        table = pd.DataFrame(rows, columns=SESSION_COLUMNS)
        return table.sort_values("session", ignore_index=True)

    def votes(self) -> pd.DataFrame:
        """Every vote that stands, with the trial it answers: `VOTE_COLUMNS`; what is none is left out, in a
        line.
        """
        rows = []
        for place in self._places():
            about = {"session": place.session, "listener": place.listener, "task": place.task}
            for number, told in place.votes.items():
                try:
                    vote = _checked(told, place.task, self.test)
                except LabError as error:
                    print(f"left out: {self.path}, event {told['event']}: {error}")
                    continue
                said: dict[str, Any] = {"tags": "|".join(vote.tags), "plays": "|".join(map(str, vote.plays))}
                said |= {"heard": int(vote.heard), "override": int(vote.override)}
                when = {"trial": number, "event": told["event"], "at": told["at"]}
                rows.append(vars(vote) | said | about | when | place.trials[number].columns())
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
        """A transaction that is on disk when the block ends, or never was: then a LabError."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:
                yield
        except sqlite3.OperationalError as error:
            where, remedy = (
                f"{self.folder.name}/{self.path.name}",
                "free some space, or wait for who else writes",
            )
            raise LabError(f"{where} could not be written ({error}) and is as it was: {remedy}") from error

    def _migrate(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        with self._writing():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA:
                known = f"this slmlab knows up to {SCHEMA}"
                raise LabError(f"{self.path} has schema {version}, {known}: update slmlab")
            if version < SCHEMA:
                for statement in (*(() if version else EVENTS), f"PRAGMA user_version = {SCHEMA}"):
                    self._db.execute(statement)

    def _append(
        self, key: str, kind: str, session: str | None, body: Mapping[str, Any], at: float | None = None
    ) -> None:
        """One event; an event whose key is there already changes nothing."""
        if not self._db.execute("SELECT 1 FROM events WHERE key = ?", (key,)).fetchone():
            content = json.dumps(body, ensure_ascii=False, sort_keys=True)
            row = (key, kind, session, time.time() if at is None else at, content)
            self._db.execute("INSERT INTO events (key, kind, session, at, body) VALUES (?, ?, ?, ?, ?)", row)

    def _begun(self, session: str | None) -> Begun:
        """What was drawn when a session began; LabError if none did."""
        asked = "SELECT body FROM events WHERE session = ? AND kind = 'session' ORDER BY id"
        row = self._db.execute(asked, (session,)).fetchone()
        if row is None:
            raise LabError("this session is not known here: start a new one from the first page")
        return _begun(row[0])

    def _places(self, session: str | None = None) -> list[Place]:
        """Where each session stands, or where one does: its events, one after the other."""
        found: dict[str, Place] = {}
        which = "session IS NOT NULL" if session is None else "session = :session"
        asked = f"SELECT id, kind, session, at, body FROM events WHERE {which} ORDER BY id"
        for number, kind, name, at, body in self._db.execute(asked, {"session": session}):
            if kind == "session":
                found.setdefault(name, Place(**vars(_begun(body)), session=name, event=number))
            place = found[name]
            place.times.append(at)
            if kind != "session":
                told = valid(Json[dict[str, Any]], body, f"{self.path}, event {number}")
                trial = told.get("trial")
                if type(trial) is not int or trial not in range(len(place.trials)):
                    print(f"left out: {self.path}, event {number}: there is no trial {str(trial)[:40]}")
                elif kind == "vote":
                    place.votes[trial] = told | {"event": number, "at": at}
                elif place.votes.pop(trial, None):
                    place.undone[trial] += 1
        return list(found.values())

    def _known(self, told: Any) -> Event:
        """An event of this test; LabError: it is none."""
        if isinstance(told, LabError):
            raise told
        event: Event = valid(Event, told, "the event")
        if event.kind == "study":
            valid(ListeningTest, event.body, "the listening test")
        elif event.kind == "session":
            begun: Begun = valid(Begun, event.body, "the session")
            n = 1 if begun.task == "nmos" else 2
            for names in (trial.shown for trial in begun.trials):
                if len(names) != n or not set(names) <= self.test.by_name.keys():
                    raise LabError(f"its session shows {', '.join(names)[:80]!r}, expected {n} of the clips")
        elif event.kind != "recording":
            begun = self._begun(event.session)
            trial = valid(Whole, event.body.get("trial"), "its trial")
            if trial not in range(len(begun.trials)):
                raise LabError(f"its session has no trial {trial}")
            said = asdict(_checked(event.body, begun.task, self.test)) if event.kind == "vote" else {}
            return replace(event, body={"trial": trial, **said})
        return event


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


@lru_cache(maxsize=4096)
def _begun(body: str) -> Begun:
    begun: Begun = valid(Json[Begun], body, "a session")
    return begun


def _checked(said: Mapping[str, Any], task: str, test: ListeningTest) -> Vote:
    """What was said about a trial as a vote of this task, in bounds; LabError if it is none."""
    vote: Vote = valid(Vote, {**said, "note": clean(said.get("note", ""), NOTE_LENGTH)}, "the vote")
    if vote.decision not in ANSWERS[task]:
        expected = f"expected one of {', '.join(ANSWERS[task])}"
        raise LabError(f"'{clean(vote.decision, 40)}' is no answer here: {expected}")
    if not (vote.heard or vote.override or vote.decision == SKIP):
        raise LabError("hear every clip to its end first, or choose 'vote without hearing'")
    return replace(
        vote,
        tags=tuple(tag for tag in test.tags if tag in vote.tags),
        plays=tuple(max(0, min(n, 999)) for n in vote.plays[:2]),
        ms=max(-1, min(vote.ms, 10**9)),
    )
