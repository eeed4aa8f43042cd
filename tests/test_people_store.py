"""The store of votes: nothing lost, nothing twice, history never rewritten."""

import contextlib
import dataclasses
import io
import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from bench import listeners as bench
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from slmlab.errors import LabError
from slmlab.people import export
from slmlab.people import store as events
from slmlab.people.simulated import paper_test
from slmlab.people.store import Store, Vote


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "votes.db")
    made.set_test(paper_test(3, 6))
    return made


@contextlib.contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond some bytes."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def vote_all(store: Store, token: str, decision: str = "A") -> events.Place:
    place = store.place(token)
    while place.current is not None:
        place = store.vote(token, place.trial, place.attempt, Vote(decision))
    return place


def test_commits_reach_the_disk(store: Store) -> None:
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_vote_sent_twice_counts_once(store: Store) -> None:
    token = store.open_session("Ana")
    for _ in range(3):
        place = store.vote(token, 0, 0, Vote("B"))
    assert (place.trial, place.attempt) == (1, 0)
    assert [e["kind"] for e in store.events()] == ["study", "session", "vote"]


def test_a_vote_on_another_trial_than_the_one_shown_changes_nothing(store: Store) -> None:
    token = store.open_session("Ana")
    for trial, attempt in ((1, 0), (0, 1), (-1, 0), (10**6, 0)):
        assert store.vote(token, trial, attempt, Vote("A")).trial == 0
    assert len(list(store.events())) == 2


def test_undo_is_an_event_and_the_trial_comes_back(store: Store) -> None:
    token = store.open_session("Ana")
    first = store.place(token).current
    store.vote(token, 0, 0, Vote("A"))
    place = store.undo(token, 1, 0)
    assert (place.trial, place.attempt, place.current) == (0, 1, first)
    assert store.undo(token, 1, 0) == place, "a second press of the same button changes nothing"
    place = store.vote(token, 0, 1, Vote("B"))
    assert [e["kind"] for e in store.events()] == ["study", "session", "vote", "undo", "vote"]
    assert list(store.votes()["decision"]) == ["B"]
    assert store.sessions().loc[0, ["done", "undone"]].tolist() == [1, 1]


def test_nothing_to_undo(store: Store) -> None:
    token = store.open_session("Ana")
    assert store.undo(token, 0, 0).trial == 0
    assert len(list(store.events())) == 2


def test_history_cannot_be_rewritten(store: Store) -> None:
    for statement in ("UPDATE events SET body = '{}'", "DELETE FROM events"):
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            store._db.execute(statement)


def test_coming_back_finds_the_same_pair_on_the_same_sides(store: Store) -> None:
    token = store.open_session("Ana")
    for n in range(7):
        before = store.place(token)
        again = Store(store.path).place(token)
        assert again.current == before.current
        assert again.trial == n
        store.vote(token, n, 0, Vote("tie"))


def test_a_vote_of_another_store_is_its_session_s_whatever_it_says(store: Store, tmp_path: Path) -> None:
    vote_all(store, store.open_session("Ana"))
    told = {"listener": "Bayo", "session": "another", "at": 0.0}
    events = [e | {"body": e["body"] | (told if e["kind"] == "vote" else {})} for e in store.events()]
    copy = Store(tmp_path / "copy.db")
    copy.take_in(enumerate(events))
    pd.testing.assert_frame_equal(copy.votes(), store.votes())


def test_events_carried_over_twice_give_the_same_tables(store: Store, tmp_path: Path) -> None:
    tokens = [store.open_session(name) for name in ("Ana", "Bayo", "Čeda")]
    vote_all(store, tokens[0])
    for n in range(5):
        store.vote(
            tokens[1], n, 0, Vote("skip", tags=("melody", "unknown"), note="<b>hm</b>\nok", plays=(1, 2))
        )
    store.undo(tokens[1], 5, 0)
    copy = Store(tmp_path / "copy.db")
    copy.take_in(enumerate(json.loads(json.dumps(list(store.events())))))
    copy.take_in(enumerate(store.events()))
    assert list(copy.events()) == list(store.events())
    pd.testing.assert_frame_equal(copy.sessions(), store.sessions())
    pd.testing.assert_frame_equal(copy.votes(), store.votes())
    done = store.sessions().set_index("listener")["done"].to_dict()
    assert done == {"Ana": len(store.place(tokens[0]).trials), "Bayo": 4, "Čeda": 0}
    assert len(store.votes()) == sum(done.values())


def test_the_open_session_of_a_listener_and_task_is_found(store: Store) -> None:
    token = store.open_session(" Ana\t ")
    store.open_session("Bayo")
    store.open_session("Ana", "nmos")
    assert store.open_of("Čeda", ["pair"]) is None
    assert store.open_of("Ana", ["smos"]) is None
    assert store.place(store.open_of("Ana", ["smos", "nmos"])).task == "nmos"
    found = store.open_of("Ana", ["pair"])
    assert found == events.session_of(token)
    assert store.place(found) == store.place(token)
    assert store.place(found).listener == "Ana"
    with pytest.raises(LabError, match="not known"):
        store.place(str(found))
    vote_all(store, found)
    assert store.open_of("Ana", ["pair"]) is None, "nothing is open after the end"
    again = store.open_session("Ana")
    assert store.open_of("Ana", ["pair"]) == events.session_of(again)


def test_the_token_is_nowhere_in_the_store(store: Store) -> None:
    token = store.open_session("Ana")
    store.close()
    assert all(token.encode() not in path.read_bytes() for path in store.path.parent.iterdir())


def test_a_forged_session_changes_nothing(store: Store) -> None:
    token = store.open_session("Ana")
    for forged in ("", token[:-1], token + "x", events.session_of(token), "' OR 1=1 --", "\udcff"):
        for attempt in (lambda t: store.vote(t, 0, 0, Vote("A")), store.place, lambda t: store.undo(t, 0, 0)):
            with pytest.raises(LabError, match="not known"):
                attempt(forged)
    assert len(list(store.events())) == 2


def test_what_a_vote_may_be(store: Store) -> None:
    token = store.open_session("Ana")
    with pytest.raises(LabError, match="'C' is no answer"):
        store.vote(token, 0, 0, Vote("C"))
    with pytest.raises(LabError, match="'3' is no answer"):
        store.vote(token, 0, 0, Vote("3"))
    with pytest.raises(LabError, match="hear every clip"):
        store.vote(token, 0, 0, Vote("A", heard=False))
    store.vote(token, 0, 0, Vote("A", heard=False, override=True))
    store.vote(token, 1, 0, Vote("skip", heard=False))
    assert store.votes()[["decision", "heard", "override"]].values.tolist() == [
        ["A", 0, 1],
        ["skip", 0, 0],
    ]


def test_notes_are_one_line_of_text_and_tags_are_the_tests(store: Store) -> None:
    token = store.open_session("Ana")
    store.vote(
        token, 0, 0, Vote("A", tags=("noise", "<script>", "melody"), note="a\x00\n <i>b</i>" + "c" * 9999)
    )
    row = store.votes().iloc[0]
    assert row["tags"] == "melody|noise"
    assert row["note"].startswith("a <i>b</i>ccc")
    assert len(row["note"]) == events.NOTE_LENGTH


def test_many_threads_and_connections_at_once(store: Store) -> None:
    def listen(i: int) -> None:
        vote_all(Store(store.path), store.open_session(f"L{i}"))

    threads = [threading.Thread(target=listen, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sessions = store.sessions()
    assert sorted(sessions["number"]) == list(range(6))
    assert (sessions["done"] == sessions["trials"]).all()
    assert len(store.votes()) == sessions["trials"].sum()


def test_killed_writers_lose_nothing_and_double_nothing() -> None:
    rows = bench.killed_writers(kills=6)
    assert [row[:2] for row in rows] == [("votes.lost", 0), ("votes.doubled", 0)]
    acknowledged = int(rows[0][-1].split(", ")[1].split()[0])
    assert acknowledged >= 6


@pytest.mark.parametrize("version", [1, 2])
def test_an_old_schema_is_migrated(store: Store, tmp_path: Path, version: int) -> None:
    """The first had the events alone, the second kept tables of its own beside them."""
    token = store.open_session("Ana")
    store.vote(token, 0, 0, Vote("A"))
    old = sqlite3.connect(tmp_path / "old.db", isolation_level=None)
    for statement in events.EVENTS:
        old.execute(statement)
    if version == 2:
        for name in ("sessions", "votes", "given"):
            old.execute(f"CREATE TABLE {name} (session TEXT, item TEXT, PRIMARY KEY (session, item))")
    for e in store.events():
        row = (e["id"], e["key"], e["kind"], e["session"], e["at"], json.dumps(e["body"]))
        old.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", row)
    old.execute(f"PRAGMA user_version = {version}")
    old.close()
    migrated = Store(tmp_path / "old.db")
    pd.testing.assert_frame_equal(migrated.votes(), store.votes())
    pd.testing.assert_frame_equal(migrated.sessions(), store.sessions())
    assert migrated.place(token).trial == 1
    assert migrated._db.execute("PRAGMA user_version").fetchone() == (events.SCHEMA,)


def test_a_vote_that_is_none_is_left_out_of_tables_in_a_line(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However it came into the file: nothing is ever removed from it."""
    token = store.open_session("Ana")
    place = store.vote(token, 0, 0, Vote("A"))
    bad = [{"trial": 1, "decision": 5}, {"trial": 2, "decision": "B", "ms": "late"}, {"trial": 10**9}, {}]
    with store._writing():
        for i, body in enumerate(bad):
            store._append(f"vote {place.session} {i} bad", "vote", place.session, body)
    assert list(store.votes()["decision"]) == ["A"]
    said = capsys.readouterr().out
    assert len(set(re.findall(r"left out: \S+votes\.db, event (\d+):", said))) == len(bad)
    export.write(store, tmp_path / "export")
    assert len(export.read(tmp_path / "export" / "preferences.jsonl")) <= 1


def test_a_newer_schema_and_a_foreign_file_are_refused(tmp_path: Path) -> None:
    newer = sqlite3.connect(tmp_path / "newer.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(LabError, match="schema 99"):
        Store(tmp_path / "newer.db")
    (tmp_path / "text.db").write_text("no database, but long enough to look at " * 50)
    with pytest.raises(LabError, match="cannot be used"):
        Store(tmp_path / "text.db")


def test_a_test_stored_before_a_setting_existed_has_its_default(tmp_path: Path) -> None:
    """Votes of last year stay readable when a listening test gains a setting."""
    old = Store(tmp_path / "votes.sqlite")
    body = asdict(paper_test(3, 6))
    del body["overlap"], body["rules"]
    with old._writing():
        old._append("study", "study", None, body)
    assert old.test == paper_test(3, 6)


def test_the_first_test_stays(store: Store) -> None:
    store.set_test(paper_test(3, 6))
    with pytest.raises(LabError, match="another folder"):
        store.set_test(paper_test(2, 2))
    assert store.test == paper_test(3, 6)


@pytest.mark.skipif(os.name != "posix", reason="no limit to the size of a file here")
def test_a_full_disk_is_told_and_the_vote_is_asked_again(store: Store) -> None:
    token = store.open_session("Ana")
    log = store.path.with_name("votes.db-wal")
    for room in range(0, 4000, 500):  # for less than the row: nothing of it may be there
        with full_disk(log.stat().st_size + room), pytest.raises(LabError, match="free some space"):
            store.vote(token, 0, 0, Vote("A"))
        assert store.place(token).trial == 0
        assert len(list(store.events())) == 2
    store.vote(token, 0, 0, Vote("A"))
    store.vote(token, 1, 0, Vote("B"))
    assert list(store.votes()["decision"]) == ["A", "B"]


VALUES = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=4)),
        st.sampled_from(["vote", "session", "study", "undo", "recording", "pair", "A", "skip", "3"]),
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def spoilt(event: object, data: st.DataObject) -> object:
    """An event with any value in some place of it."""
    if isinstance(event, dict) and event and data.draw(st.booleans()):
        name = data.draw(st.sampled_from(sorted(event)))
        return event | {name: spoilt(event[name], data)}
    if isinstance(event, list) and event and data.draw(st.booleans()):
        return [spoilt(event[0], data), *event[1:]]
    return data.draw(VALUES)


@settings(max_examples=30, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(st.data())
def test_an_event_with_anything_in_it_is_taken_or_left_out_in_a_line(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as said:
        store = Store(Path(folder) / "votes.db")
        store.set_test(dataclasses.replace(paper_test(2, 3), n_gold=1))
        vote_all(store, store.open_session("Ana"))
        store.note_recording({"speaker": "Ana", "seconds": 1.0})
        kept = list(store.events())
        i = data.draw(st.integers(0, len(kept) - 1))
        copy = Store(Path(folder) / "copy.db")
        copy.take_in(enumerate([*kept[:i], spoilt(kept[i], data), *kept[i + 1 :]]))
        assert len(list(copy.events())) + said.getvalue().count("left out: ") == len(kept)
        if copy._db.execute("SELECT 1 FROM events WHERE key = 'study'").fetchone():
            copy.sessions()
            export.write(copy, folder)
            copy.open_session("Bayo")
        store.close()
        copy.close()
