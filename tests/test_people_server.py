"""The page as a server: who may come in, what is served, and what ten thousand strange requests can do."""

import io
import json
import os
import random
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import numpy as np
import pytest
import segno
from bench.load import CLIP, Client, serving

from slmlab.cli import main
from slmlab.errors import LabError
from slmlab.people import page as app
from slmlab.people import simulated, views
from slmlab.people.store import Session, Store, make_test, open_test, session_of
from slmlab.sound import SAMPLE_RATE, audio

ANSWERED = {"heard": True, "plays": [1, 1], "ms": 2000}
EVIL = "<script>document.title='run'</script>${1+1}{{7*7}}"


def make_systems(root: Path, sentences: int = 4) -> Path:
    """Two systems of short tones, and references, with the words of each sentence."""
    rng = np.random.default_rng(0)
    for name, roughness in (("smooth", 0.0), ("rough", 0.3), ("references", 0.05)):
        for n in range(sentences):
            t = np.arange(int(0.4 * SAMPLE_RATE)) / SAMPLE_RATE
            wave = np.sin(2 * np.pi * (150 + 30 * n) * t) + roughness * rng.standard_normal(len(t))
            audio.write(root / name / f"{n:02d}.wav", 0.2 * wave)
            (root / name / f"{n:02d}.txt").write_text(f"Sentence {n}. {EVIL if n == 0 else ''}")
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("server")
    return make_test(folder / "test", make_systems(folder / "systems"))


@pytest.fixture(scope="module")
def url(store: Store) -> Iterator[str]:
    with serving(store.folder) as (address, _):
        yield address


@pytest.fixture(scope="module")
def guarded(store: Store) -> Iterator[str]:
    with serving(store.folder, "--password", "room", "--teacher-password", "boss") as (address, _):
        yield address


def call(url: str, name: str, *data: object, cookies: str = "") -> httpx.Response:
    body = {"data": list(data), "session_hash": "test"}
    return httpx.post(f"{url}gradio_api/run/{name}", json=body, headers={"cookie": cookies}, timeout=60)


def outputs(url: str, name: str, *data: object, cookies: str = "") -> list[object]:
    return list(call(url, name, *data, cookies=cookies).raise_for_status().json()["data"])


def test_a_vote_over_http_is_in_the_store_and_the_next_pair_comes(store: Store, url: str) -> None:
    page, token = outputs(url, "start_pair", None, "Naturalness", "Ana")
    first = CLIP.findall(page)
    assert len(first) == 2
    for address in first:
        sound = httpx.get(url.rstrip("/") + address)
        assert sound.status_code == 200
        assert sound.content[:4] == b"RIFF"
    report = json.dumps({"decision": "B", "trial": 0, "attempt": 0, **ANSWERED})
    page, tags, note = outputs(url, "vote_pair", token, report, ["melody"], "fine")
    assert (tags, note) == ([], "")
    assert CLIP.findall(page) != first
    vote = store.votes().iloc[-1]
    assert (vote["decision"], vote["tags"], vote["note"], vote["plays"]) == ("B", "melody", "fine", "1|1")
    assert f"{vote['first']}.wav" in first[0]
    assert outputs(url, "resume_pair", token)[0] == page
    undo = json.dumps({"decision": "undo", "trial": 1, "attempt": 0})
    back = outputs(url, "vote_pair", token, undo, [], "")[0]
    assert CLIP.findall(back) == first


def test_ratings_over_http(store: Store, url: str) -> None:
    for what, clips in (("Naturalness", 1), ("Same voice?", 2)):
        page, token = outputs(url, "start_rate", None, what, "Bayo")
        assert len(CLIP.findall(page)) == clips
        report = json.dumps({"decision": "4", "trial": 0, "attempt": 0, **ANSWERED})
        assert "data-trial='1'" in outputs(url, "vote_rate", token, report, [], "")[0]
    assert store.votes().iloc[-1]["decision"] == "4"


def test_a_vote_without_hearing_is_sent_back(store: Store, url: str) -> None:
    _, token = outputs(url, "start_pair", None, "Naturalness", "Čeda")
    report = {"decision": "A", "trial": 0, "attempt": 0, "heard": False, "plays": [0, 0], "ms": 5}
    page, *fields = outputs(url, "vote_pair", token, json.dumps(report), ["melody"], "my own words")
    assert "data-trial='0'" in page
    assert "hear every clip" in page
    assert fields == [{"__type__": "update"}] * 2, "what was typed stays there"
    page = outputs(url, "vote_pair", token, json.dumps(report | {"override": True}), [], "")[0]
    assert "data-trial='1'" in page


def test_only_the_clip_folder_is_served(store: Store, url: str) -> None:
    (store.folder / "recordings").mkdir(exist_ok=True)
    (store.folder / "recordings" / "mine.wav").write_bytes(b"private")
    clip = next(store.clips.iterdir())
    assert httpx.get(f"{url}gradio_api/file={clip}").status_code == 200
    folder, clips = store.folder, store.clips
    outside = [
        folder / "votes.db", folder / "recordings" / "mine.wav", "/etc/passwd", Path(app.__file__),
        Path.cwd() / "pyproject.toml", "pyproject.toml", folder.parent / "systems" / "smooth" / "00.wav",
        f"{clips}/../votes.db", f"{clips}/..%2fvotes.db", f"{clips}/%2e%2e/votes.db",
        f"{clips}/....//votes.db", f"{clips}/..\\votes.db", f"{clips}\x00/../votes.db".encode(),
    ]  # fmt: skip
    for path in outside:
        asked = path if isinstance(path, str) else path.decode() if isinstance(path, bytes) else str(path)
        for route in ("gradio_api/file=", "file=", "gradio_api/file/", "static/", "assets/", "svelte/"):
            try:
                answer = httpx.get(url + route + asked.replace("\x00", "%00"))
            except httpx.InvalidURL:
                continue
            assert answer.status_code in (400, 403, 404, 405, 422, 500), (route, asked, answer.status_code)
            assert b"SQLite" not in answer.content
    assert httpx.get(f"{url}gradio_api/file={store.clips}").status_code in (403, 404, 405)


def test_a_forged_session_is_told_so_and_changes_nothing(store: Store, url: str) -> None:
    outputs(url, "start_pair", None, "Naturalness", "Dora")
    n = len(list(store.events()))
    for forged in ("x" * 32, "", {"a": 1}, ["b"], None, 7, store.sessions()["session"].iloc[0]):
        report = json.dumps({"decision": "A", "trial": 0, "attempt": 0, **ANSWERED})
        page = outputs(url, "vote_pair", forged, report, [], "")[0]
        assert "not known" in page
        assert CLIP.findall(page) == []
    assert len(list(store.events())) == n


def strange(rng: random.Random, depth: int = 0) -> object:
    """Something a page would never send."""
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind < 6:
        return [
            None, True, rng.randrange(-(2**70), 2**70), rng.random() * 1e300,
            "".join(chr(rng.choice((0, 10, 60, 8238, 55296, rng.randrange(1, 0xD7FF)))) for _ in range(9)),
            rng.choice((EVIL, "' OR 1=1;--", "../" * 9, "A", "tie", "NaN", "{" * 500)),
        ][kind]  # fmt: skip
    if kind == 6:
        return [strange(rng, depth + 1) for _ in range(rng.randrange(4))]
    keys = ("decision", "trial", "attempt", "heard", "override", "plays", "ms", "pair", "rate", EVIL)
    return {rng.choice(keys): strange(rng, depth + 1) for _ in range(rng.randrange(6))}


def test_ten_thousand_strange_requests_lose_nothing_and_break_nothing(store: Store) -> None:
    rng = random.Random(0)
    token = store.open_session("Ema")
    before = list(store.events())
    desk, visitors = app.Desk(store, "pair"), (None, SimpleNamespace(username="Ema"))
    for i in range(10_000):
        visitor = visitors[i % 5 == 0]
        sent = (session_of(token) if visitor else token) if i % 2 else strange(rng)
        report = strange(rng)
        if i % 4 == 0 and isinstance(report, dict):
            report["decision"] = "undo"
        report = json.dumps(report) if i % 3 else report
        page = desk.answer(sent, report, strange(rng), strange(rng), visitor)[0]
        assert "<script" not in page
    assert list(store.events()) == before
    assert store.place(token).trial == 0


def test_strange_requests_over_http_leave_the_server_standing(store: Store, url: str) -> None:
    rng = random.Random(1)
    names = (
        "vote_pair",
        "start_pair",
        "resume_pair",
        "vote_rate",
        "results",
        "listen",
        "record",
        "nothing",
    )
    votes = store.votes()
    for _ in range(150):
        body = json.dumps({"data": [strange(rng) for _ in range(rng.randrange(6))]}).encode(
            "utf-8", "replace"
        )
        answer = httpx.post(
            f"{url}gradio_api/run/{rng.choice(names)}",
            content=body,
            headers={"content-type": "application/json"},
        )
        assert answer.status_code in (200, 400, 404, 405, 422, 500)
    assert store.votes().equals(votes)
    assert httpx.get(url).status_code == 200


def test_names_words_and_notes_are_read_never_run(store: Store, url: str) -> None:
    page, token = outputs(url, "start_pair", None, "Naturalness", EVIL)
    for n in range(8):
        report = json.dumps({"decision": "tie", "trial": n, "attempt": 0, **ANSWERED})
        page = outputs(url, "vote_pair", token, report, [], EVIL)[0]
        assert "<script" not in page
    results = outputs(url, "results", "pair")[0]
    assert "<script" not in results
    assert "document.title=" in unescape(results), "the note is there to be read"


def test_beyond_this_machine_only_with_a_password() -> None:
    for host, share in (
        ("0.0.0.0", False),
        ("192.168.1.5", False),
        ("::", False),
        ("127.0.0.1", True),
        ("box", False),
    ):
        with pytest.raises(LabError, match="--password"):
            app.access(host, share, "", "")
    for host in ("127.0.0.1", "localhost", "::1"):
        assert app.access(host, False, "", "") is None


def test_without_the_password_nothing_is_served(store: Store, guarded: str) -> None:
    clip = next(store.clips.iterdir())
    for address in (f"gradio_api/file={clip}", "config", "gradio_api/info"):
        assert httpx.get(guarded + address).status_code == 401
    assert call(guarded, "start_pair", None, "Naturalness", "Ana").status_code == 401
    wrong = httpx.post(f"{guarded}login", data={"username": "Ana", "password": "boss"})
    assert wrong.status_code == 400


def test_systems_are_named_to_the_teacher_alone(store: Store, guarded: str) -> None:
    simulated.listen(store, simulated.SimulatedListener("simulated Fay", {"smooth": 2.0}))
    shown = {}
    for name, password in (("Ana", "room"), ("teacher", "boss")):
        login = httpx.post(f"{guarded}login", data={"username": name, "password": password})
        assert login.status_code == 200
        cookies = "; ".join(f"{key}={value}" for key, value in login.cookies.items())
        shown[name] = [
            outputs(guarded, n, w, cookies=cookies)[0] for n, w in (("results", "pair"), ("listen", "01"))
        ]
        started = outputs(guarded, "start_pair", None, "Naturalness", "somebody else", cookies=cookies)[0]
        assert not re.search("smooth|rough", started)
    assert shown["Ana"] == ["", ""]
    assert all("smooth" in page and "rough" in page for page in shown["teacher"])
    assert "Ana" in set(store.sessions()["listener"]), "the login's name, not the one typed"


def cookies_of(url: str, name: str) -> str:
    """What a browser holds after a login to the room."""
    login = httpx.post(f"{url}login", data={"username": name, "password": "room"}).raise_for_status()
    return "; ".join(f"{key}={value}" for key, value in login.cookies.items())


def vote_for(trial: int, decision: str = "A") -> str:
    return json.dumps({"decision": decision, "trial": trial, "attempt": 0, **ANSWERED})


def test_the_next_person_to_log_in_at_a_browser_is_not_the_last_one(store: Store, guarded: str) -> None:
    hana, iva = cookies_of(guarded, "Hana"), cookies_of(guarded, "Iva")
    page, token = outputs(guarded, "start_pair", None, "Naturalness", "", cookies=hana)
    assert outputs(guarded, "resume_pair", token, cookies=hana)[0] == page
    before = list(store.events())
    for decision in ("A", "undo"):
        vote = vote_for(0, decision)
        assert "not known" in outputs(guarded, "vote_pair", token, vote, [], "", cookies=iva)[0]
    assert outputs(guarded, "resume_pair", token, cookies=iva) == ["", ""], "Iva sees Start"
    assert list(store.events()) == before
    outputs(guarded, "start_pair", token, "Naturalness", "", cookies=iva)
    sessions = store.sessions().set_index("listener")
    assert sessions.loc[["Hana", "Iva"], "done"].tolist() == [0, 0]


def test_a_login_finds_its_open_session_from_any_browser(store: Store, guarded: str) -> None:
    at_home, elsewhere = cookies_of(guarded, "Jan"), cookies_of(guarded, "Jan")
    _, token = outputs(guarded, "start_pair", None, "Naturalness", "", cookies=at_home)
    page = outputs(guarded, "vote_pair", token, vote_for(0), [], "", cookies=at_home)[0]
    rated = outputs(guarded, "start_rate", "", "Same voice?", "", cookies=at_home)[0]
    for sent in (None, {"pair": "x" * 32, "rate": 7}, "", "x" * 32):
        assert outputs(guarded, "resume_pair", sent, cookies=elsewhere)[0] == page
        assert outputs(guarded, "resume_rate", sent, cookies=elsewhere)[0] == rated
    n = len(store.sessions())
    again, token = outputs(guarded, "start_pair", None, "Naturalness", "", cookies=elsewhere)
    assert (again, len(store.sessions())) == (page, n), "Start goes on, too"
    for trial in range(1, len(store.place(Session(token)).trials)):
        page = outputs(guarded, "vote_pair", token, vote_for(trial), [], "", cookies=elsewhere)[0]
    assert "Thank you" in page
    another = outputs(guarded, "start_pair", token, "Naturalness", "", cookies=elsewhere)[0]
    assert "data-trial='0'" in another, "a new round after the end"
    assert len(store.sessions()) == n + 1


def test_a_typed_name_opens_nobodys_session_and_a_browser_can_be_handed_over(store: Store, url: str) -> None:
    page, token = outputs(url, "start_pair", None, "Naturalness", "Kim")
    assert outputs(url, "resume_pair", None) == ["", app.NOBODY], "anybody could type a name"
    assert outputs(url, "resume_pair", session_of(token))[0] == "", "a session's public name is no token"
    assert outputs(url, "start_pair", None, "Naturalness", "Kim")[1] != token
    assert outputs(url, "leave") == ["", "", app.NOBODY, app.NOBODY], "both screens and both tokens"
    assert outputs(url, "resume_pair", app.NOBODY)[0] == ""
    made = [c["props"] for c in httpx.get(f"{url}config").json()["components"]]
    assert {p.get("elem_id") for p in made if p.get("visible")} >= {"pair-leave", "rate-leave"}
    assert outputs(url, "resume_pair", token)[0] == page, "the token alone leads back"


def test_no_login_without_a_name() -> None:
    allowed = app.access("0.0.0.0", False, "room", "boss")
    assert allowed is not None
    assert (allowed("Ana", "room"), allowed(" ", "room"), allowed("teacher", "room")) == (True, False, False)


def test_no_analytics_and_nothing_from_elsewhere(url: str) -> None:
    page = httpx.get(url).text
    config = httpx.get(f"{url}config").json()
    assert config["analytics_enabled"] is False
    assert not re.findall(r"<(?:script|link)[^>]+(?:src|href)=[\"']https?://(?!127\.0\.0\.1)", page)


def test_recording_over_the_page(store: Store) -> None:
    with pytest.raises(LabError, match="record or upload"):
        app.keep_recording(store, None, "Habari.", "Ana", "sw", True)
    source = store.folder.parent / "in.wav"
    t = np.arange(24000) / SAMPLE_RATE
    audio.write(source, 0.3 * np.sin(2 * np.pi * 150 * t), generated=False)
    assert "Saved: 1.5 s" in app.keep_recording(store, str(source), "Habari.", "Ana", "sw", True)
    noted = [e["body"] for e in store.events() if e["kind"] == "recording"][-1]
    assert noted["consent"].startswith("This is my own voice")
    assert "Ana" not in json.dumps(noted)
    row = (store.folder / "recordings" / "recordings.tsv").read_text(encoding="utf-8").splitlines()[-1]
    assert row.split("\t")[1:4] == ["Habari.", noted["speaker"], "sw"]


def test_a_vote_that_cannot_be_written_is_asked_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    token, desk = store.open_session("Nia"), app.Desk(store, "pair")
    with monkeypatch.context() as patch:
        patch.setattr(store, "_append", full)
        page, *fields = desk.answer(token, vote_for(0), ["melody"], "my own words", None)
    assert "could not be written (database or disk is full)" in page
    assert "data-trial='0' data-attempt='0'" in page
    assert fields == [gr.skip()] * 2
    assert "data-trial='1'" in desk.answer(token, vote_for(0), ["melody"], "my own words", None)[0]


def test_a_notebooks_listener_goes_on_where_they_left(store: Store) -> None:
    desk = app.Desk(store, "pair", solo="me")
    _, token = desk.begin("", "Naturalness", "", None)
    page, _, _ = desk.answer(token, vote_for(0), [], "", None)
    again = app.Desk(open_test(store.folder), "pair", solo="me")
    assert again.resume("", None) == (page, token)
    assert "data-trial='1'" in page
    assert app.Desk(store, "pair", solo="you").resume("", None) == ("", "")


SHOWN = """
import json, os, re, sys
from html import unescape

import gradio.networking, httpx
from slmlab.people import page as app

gradio.networking.setup_tunnel = lambda **_: sys.exit("a public link was asked for")
page = app.show(sys.argv[1])
cache = os.stat(page.GRADIO_CACHE)
with httpx.Client(base_url=page.local_url, trust_env=False) as browser:
    body = {"data": [None, "Naturalness", "me"], "session_hash": "test"}
    shown = browser.post("/gradio_api/run/start_pair", json=body).json()["data"][0]
    addresses = map(unescape, re.findall("src='([^']+)'", shown))
    sounds = [browser.get(address).content[:4].decode() for address in addresses]
found = [page.share, page.share_url, page.server_name, page.mcp_server, page.run_history, sounds]
print(json.dumps([*found, cache.st_uid == os.getuid(), cache.st_mode & 0o077]))
"""


def test_a_notebook_s_page_takes_nothing_from_its_surroundings(tmp_path: Path) -> None:
    (tmp_path / "gradio").mkdir(mode=0o500)  # where Gradio would put uploads, made by somebody else
    surroundings = {
        **{"KAGGLE_KERNEL_RUN_TYPE": "Interactive", "GRADIO_SHARE": "true", "GRADIO_SERVER_NAME": "0.0.0.0"},
        **{"GRADIO_MCP_SERVER": "true", "TMPDIR": str(tmp_path), "no_proxy": "intra.net"},
        **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9"),
    }
    folder = tmp_path / "a#1" / "b%20c" / "q? ü & 'd'"
    make_test(folder, make_systems(tmp_path / "systems"))
    command = [sys.executable, "-c", SHOWN, str(folder)]
    done = subprocess.run(command, env=os.environ | surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == [False, None, "127.0.0.1", False, False, ["RIFF", "RIFF"], True, 0]
    assert not list(tmp_path.glob("slmlab-app-*")), "nothing is left behind"


def test_the_room_is_told_where_the_page_is(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launched = SimpleNamespace(launch=lambda **_: None, block_thread=lambda: None, server_port=7861)
    monkeypatch.setattr(app, "build", lambda _: launched)
    app.serve(store, "127.0.0.1", None, False, None)
    assert "for the room" not in capsys.readouterr().out
    app.serve(store, "0.0.0.0", None, False, app.access("0.0.0.0", False, "violet", "boss"))
    said = capsys.readouterr().out
    address = re.search(r"for the room: http://(\S+):7861", said)[1]
    assert address != "0.0.0.0"
    assert (
        "any name, the room's password\nyou, to see Listen and Results: teacher, password that you gave\n"
        in said
    )
    assert not re.search(r"\b(violet|boss)\b", said), "what somebody typed is in no log"
    door = app.access("0.0.0.0", False, "violet", "")
    app.serve(store, "0.0.0.0", None, False, door)
    assert f"teacher, password {door.teacher_password}\n" in capsys.readouterr().out, "nobody else knows it"
    app.serve(store, "192.168.1.5", None, False, None)
    said = capsys.readouterr().out
    assert "http://192.168.1.5:7861" in said
    drawn = io.StringIO()
    segno.make("http://192.168.1.5:7861").terminal(drawn, compact=True)
    assert drawn.getvalue() in said, "what a phone reads"
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "cp1252"))
    app.serve(store, "192.168.1.5", None, False, None)  # a terminal that has no blocks to draw with


def test_the_results_state_the_rules_before_anybody_voted(tmp_path: Path) -> None:
    store = make_test(tmp_path / "test", make_systems(tmp_path / "systems"))
    pairs, scores = (unescape(views.results_page(store, task)) for task in ("pair", "nmos"))
    for page in (pairs, scores):
        assert "do not count if fewer than 80% of the checks are right (from 6 checks on)" in page
        assert "without hearing in more than 50% of trials" in page
    assert "one side so often that chance does it more rarely than p = 0.001" in pairs
    assert "one score in more than 95% of trials (from 12 on)" in scores


def test_results_and_exports_that_cannot_be_made_are_a_sentence(tmp_path: Path) -> None:
    store = make_test(tmp_path / "test", make_systems(tmp_path / "systems"))
    (store.folder / "export").write_text("in the way")
    assert "could not be written" in app._told(app._export, store)
    next(store.clips.iterdir()).unlink()
    shown = [app._told(views.listen_page, store, clip.sentence) for clip in store.test.clips]
    assert any("does not exist" in page for page in shown)


def test_the_command_explains_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app", str(tmp_path / "nothing")]) == 2
    assert "holds no listening test" in capsys.readouterr().err
    systems = make_systems(tmp_path / "systems")
    assert main(["app", str(tmp_path / "test"), "--systems", str(systems), "--host", "0.0.0.0"]) == 2
    assert "--password" in capsys.readouterr().err
    assert not (tmp_path / "test").exists(), "nothing is made before it is clear that it may be served"
    make_test(tmp_path / "test", systems)
    assert main(["app", str(tmp_path / "test"), "--systems", str(systems)]) == 2
    assert "holds a listening test already" in capsys.readouterr().err


def test_a_test_that_could_not_be_made_can_be_made_again(tmp_path: Path) -> None:
    systems = make_systems(tmp_path / "systems")
    sidecar = systems / "smooth" / "03.json"
    sidecar.write_text('{"seed": "?"}')
    with pytest.raises(LabError, match=r"03\.json, seed"):
        make_test(tmp_path / "test", systems)
    assert not (tmp_path / "test").exists()
    sidecar.unlink()
    made = make_test(tmp_path / "test", systems)
    assert sorted(path.name for path in made.folder.iterdir() if "votes.db-" not in path.name) == [
        "clips",
        "votes.db",
    ]
    assert made.test.title == "test"
    assert {path.stem for path in made.clips.iterdir()} == set(made.test.by_name)


def test_the_benchs_client_reads_the_page(store: Store) -> None:
    token = store.open_session("Gus")
    client = Client(None, token, views.trial_page(store, store.place(token)))
    assert client.at == (0, 0)
    assert len(client.clips) == 2
