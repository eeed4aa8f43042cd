"""The page as a server: who may come in, what is served, and what ten thousand strange requests can do."""

import json
import random
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from bench.load import CLIP, Client, Server

from slmlab.cli import main
from slmlab.errors import LabError
from slmlab.people import page as app
from slmlab.people import simulated as listeners
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
def lab(tmp_path_factory: pytest.TempPathFactory) -> app.Lab:
    folder = tmp_path_factory.mktemp("lab")
    return app.Lab.make(folder / "study", make_systems(folder / "systems"))


@pytest.fixture(scope="module")
def url(lab: app.Lab) -> Iterator[str]:
    server = Server(lab.folder)
    yield server.url
    server.kill()


@pytest.fixture(scope="module")
def guarded(lab: app.Lab) -> Iterator[str]:
    server = Server(lab.folder, ("--password", "room", "--teacher-password", "boss"))
    yield server.url
    server.kill()


def call(url: str, name: str, *data: object, cookies: str = "") -> httpx.Response:
    body = {"data": list(data), "session_hash": "test"}
    return httpx.post(f"{url}gradio_api/run/{name}", json=body, headers={"cookie": cookies}, timeout=60)


def outputs(url: str, name: str, *data: object, cookies: str = "") -> list[object]:
    return list(call(url, name, *data, cookies=cookies).raise_for_status().json()["data"])


def test_a_vote_over_http_is_in_the_store_and_the_next_pair_comes(lab: app.Lab, url: str) -> None:
    tokens, page = outputs(url, "start_pair", None, "Naturalness", "Ana")
    first = CLIP.findall(page)
    assert len(first) == 2
    for address in first:
        sound = httpx.get(url.rstrip("/") + address)
        assert sound.status_code == 200
        assert sound.content[:4] == b"RIFF"
    report = json.dumps({"decision": "B", "trial": 0, "attempt": 0, **ANSWERED})
    page, tags, note = outputs(url, "vote_pair", tokens, report, ["melody"], "fine")
    assert (tags, note) == ([], "")
    assert CLIP.findall(page) != first
    vote = lab.store.table("votes").iloc[-1]
    assert (vote["decision"], vote["tags"], vote["note"], vote["plays"]) == ("B", "melody", "fine", "1|1")
    assert f"{vote['first']}.wav" in first[0]
    assert outputs(url, "resume", tokens)[0] == page
    back = outputs(url, "undo_pair", tokens, json.dumps({"trial": 1, "attempt": 0}), [], "")[0]
    assert CLIP.findall(back) == first


def test_ratings_over_http(lab: app.Lab, url: str) -> None:
    for what, clips in (("Naturalness", 1), ("Same voice?", 2)):
        tokens, page = outputs(url, "start_rate", None, what, "Bayo")
        assert len(CLIP.findall(page)) == clips
        report = json.dumps({"decision": "4", "trial": 0, "attempt": 0, **ANSWERED})
        assert "data-trial='1'" in outputs(url, "vote_rate", tokens, report, [], "")[0]
    assert lab.store.table("votes").iloc[-1]["decision"] == "4"


def test_a_vote_without_hearing_is_sent_back(lab: app.Lab, url: str) -> None:
    tokens, _ = outputs(url, "start_pair", None, "Naturalness", "Čeda")
    report = {"decision": "A", "trial": 0, "attempt": 0, "heard": False, "plays": [0, 0], "ms": 5}
    page = outputs(url, "vote_pair", tokens, json.dumps(report), [], "")[0]
    assert "data-trial='0'" in page
    assert "hear every clip" in page
    page = outputs(url, "vote_pair", tokens, json.dumps(report | {"override": True}), [], "")[0]
    assert "data-trial='1'" in page


def test_only_the_clip_folder_is_served(lab: app.Lab, url: str) -> None:
    (lab.folder / "recordings").mkdir(exist_ok=True)
    (lab.folder / "recordings" / "mine.wav").write_bytes(b"private")
    clip = next(lab.clips.iterdir())
    assert httpx.get(f"{url}gradio_api/file={clip}").status_code == 200
    outside = [
        lab.folder / "votes.db", lab.folder / "recordings" / "mine.wav", "/etc/passwd", Path(app.__file__),
        Path.cwd() / "pyproject.toml", "pyproject.toml", lab.folder.parent / "systems" / "smooth" / "00.wav",
        f"{lab.clips}/../votes.db", f"{lab.clips}/..%2fvotes.db", f"{lab.clips}/%2e%2e/votes.db",
        f"{lab.clips}/....//votes.db", f"{lab.clips}/..\\votes.db", f"{lab.clips}\x00/../votes.db".encode(),
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
    assert httpx.get(f"{url}gradio_api/file={lab.clips}").status_code in (403, 404, 405)


def test_a_forged_session_is_told_so_and_changes_nothing(lab: app.Lab, url: str) -> None:
    outputs(url, "start_pair", None, "Naturalness", "Dora")
    n = len(list(lab.store.events()))
    for forged in ("x" * 32, "", {"a": 1}, ["b"], None, 7, lab.store.table("sessions")["session"].iloc[0]):
        report = json.dumps({"decision": "A", "trial": 0, "attempt": 0, **ANSWERED})
        page = outputs(url, "vote_pair", {"pair": forged}, report, [], "")[0]
        assert "not known" in page
        assert CLIP.findall(page) == []
    assert len(list(lab.store.events())) == n


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


def test_ten_thousand_strange_requests_lose_nothing_and_break_nothing(lab: app.Lab) -> None:
    rng = random.Random(0)
    token = lab.store.open_session("Ema")
    before, n = lab.store.dump(), len(list(lab.store.events()))
    for i in range(10_000):
        tokens = {"pair": token} if i % 2 else strange(rng)
        if i % 5 == 0:
            tokens = app._owned(lab, tokens, SimpleNamespace(username="Ema"))
        report = json.dumps(strange(rng)) if i % 3 else strange(rng)
        if i % 4 == 0:
            page = app._undone(lab, tokens, "pair", report)
        else:
            page = app._voted(lab, tokens, "pair", report, strange(rng), strange(rng))
        assert "<script" not in page
    assert (lab.store.dump(), len(list(lab.store.events()))) == (before, n)
    assert lab.store.place(token).trial == 0


def test_strange_requests_over_http_leave_the_server_standing(lab: app.Lab, url: str) -> None:
    rng = random.Random(1)
    names = (
        "vote_pair",
        "undo_pair",
        "start_pair",
        "resume",
        "vote_rate",
        "results",
        "listen",
        "record",
        "nothing",
    )
    votes = lab.store.table("votes")
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
    assert lab.store.table("votes").equals(votes)
    assert httpx.get(url).status_code == 200


def test_names_words_and_notes_are_read_never_run(lab: app.Lab, url: str) -> None:
    tokens, page = outputs(url, "start_pair", None, "Naturalness", EVIL)
    for n in range(8):
        report = json.dumps({"decision": "tie", "trial": n, "attempt": 0, **ANSWERED})
        page = outputs(url, "vote_pair", tokens, report, [], EVIL)[0]
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


def test_without_the_password_nothing_is_served(lab: app.Lab, guarded: str) -> None:
    clip = next(lab.clips.iterdir())
    for address in (f"gradio_api/file={clip}", "config", "gradio_api/info"):
        assert httpx.get(guarded + address).status_code == 401
    assert call(guarded, "start_pair", None, "Naturalness", "Ana").status_code == 401
    wrong = httpx.post(f"{guarded}login", data={"username": "Ana", "password": "boss"})
    assert wrong.status_code == 400


def test_systems_are_named_to_the_teacher_alone(lab: app.Lab, guarded: str) -> None:
    listeners.listen(lab.store, listeners.SimulatedListener("simulated Fay", {"smooth": 2.0}))
    shown = {}
    for name, password in (("Ana", "room"), ("teacher", "boss")):
        login = httpx.post(f"{guarded}login", data={"username": name, "password": password})
        assert login.status_code == 200
        cookies = "; ".join(f"{key}={value}" for key, value in login.cookies.items())
        shown[name] = [
            outputs(guarded, n, w, cookies=cookies)[0] for n, w in (("results", "pair"), ("listen", "01"))
        ]
        started = outputs(guarded, "start_pair", None, "Naturalness", "somebody else", cookies=cookies)[1]
        assert not re.search("smooth|rough", started)
    assert shown["Ana"] == ["", ""]
    assert all("smooth" in page and "rough" in page for page in shown["teacher"])
    assert "Ana" in set(lab.store.table("sessions")["listener"]), "the login's name, not the one typed"


def cookies_of(url: str, name: str) -> str:
    """What a browser holds after a login to the room."""
    login = httpx.post(f"{url}login", data={"username": name, "password": "room"}).raise_for_status()
    return "; ".join(f"{key}={value}" for key, value in login.cookies.items())


def vote_for(trial: int, decision: str = "A") -> str:
    return json.dumps({"decision": decision, "trial": trial, "attempt": 0, **ANSWERED})


def test_the_next_person_to_log_in_at_a_browser_is_not_the_last_one(lab: app.Lab, guarded: str) -> None:
    hana, iva = cookies_of(guarded, "Hana"), cookies_of(guarded, "Iva")
    tokens, page = outputs(guarded, "start_pair", None, "Naturalness", "", cookies=hana)
    assert outputs(guarded, "resume", tokens, cookies=hana)[0] == page
    before = lab.store.dump()
    for name, data in (("vote_pair", (vote_for(0), [], "")), ("undo_pair", (vote_for(0), [], ""))):
        assert "not known" in outputs(guarded, name, tokens, *data, cookies=iva)[0]
    shown = outputs(guarded, "resume", tokens, cookies=iva)
    assert (shown[0], shown[1], shown[3]) == ("", "", app.EMPTY_TOKENS), "Iva sees Start"
    assert lab.store.dump() == before
    outputs(guarded, "start_pair", tokens, "Naturalness", "", cookies=iva)
    sessions = lab.store.table("sessions").set_index("listener")
    assert sessions.loc[["Hana", "Iva"], "done"].tolist() == [0, 0]


def test_a_login_finds_its_open_session_from_any_browser(lab: app.Lab, guarded: str) -> None:
    at_home, elsewhere = cookies_of(guarded, "Jan"), cookies_of(guarded, "Jan")
    tokens, _ = outputs(guarded, "start_pair", None, "Naturalness", "", cookies=at_home)
    page = outputs(guarded, "vote_pair", tokens, vote_for(0), [], "", cookies=at_home)[0]
    rated = outputs(guarded, "start_rate", tokens, "Same voice?", "", cookies=at_home)[1]
    for known in (None, {"pair": "x" * 32, "rate": 7}, app.EMPTY_TOKENS):
        shown = outputs(guarded, "resume", known, cookies=elsewhere)
        assert shown[:2] == [page, rated]
    n = len(lab.store.table("sessions"))
    tokens, again = outputs(guarded, "start_pair", None, "Naturalness", "", cookies=elsewhere)
    assert (again, len(lab.store.table("sessions"))) == (page, n), "Start goes on, too"
    for trial in range(1, len(lab.store.place(app.Session(tokens["pair"])).trials)):
        page = outputs(guarded, "vote_pair", tokens, vote_for(trial), [], "", cookies=elsewhere)[0]
    assert "Thank you" in page
    another = outputs(guarded, "start_pair", tokens, "Naturalness", "", cookies=elsewhere)[1]
    assert "data-trial='0'" in another, "a new round after the end"
    assert len(lab.store.table("sessions")) == n + 1


def test_a_typed_name_opens_nobodys_session_and_a_browser_can_be_handed_over(lab: app.Lab, url: str) -> None:
    tokens, page = outputs(url, "start_pair", None, "Naturalness", "Kim")
    assert outputs(url, "resume", None)[:2] == ["", ""], "anybody could type a name"
    public = {"pair": app.session_of(tokens["pair"])}
    assert outputs(url, "resume", public)[0] == "", "the public name of a session is no token"
    assert outputs(url, "start_pair", None, "Naturalness", "Kim")[0] != tokens
    assert outputs(url, "leave") == ["", "", app.EMPTY_TOKENS]
    made = [c["props"] for c in httpx.get(f"{url}config").json()["components"]]
    assert {p.get("elem_id") for p in made if p.get("visible")} >= {"pair-leave", "rate-leave"}
    assert outputs(url, "resume", tokens)[0] == page, "the token alone leads back"


def test_no_login_without_a_name() -> None:
    allowed = app.access("0.0.0.0", False, "room", "boss")
    assert allowed is not None
    assert (allowed("Ana", "room"), allowed(" ", "room"), allowed("teacher", "room")) == (True, False, False)


def test_no_analytics_and_nothing_from_elsewhere(url: str) -> None:
    page = httpx.get(url).text
    config = httpx.get(f"{url}config").json()
    assert config["analytics_enabled"] is False
    assert not re.findall(r"<(?:script|link)[^>]+(?:src|href)=[\"']https?://(?!127\.0\.0\.1)", page)


def test_recording_over_the_page(lab: app.Lab) -> None:
    with pytest.raises(LabError, match="record or upload"):
        app._recorded(lab, None, "Habari.", "Ana", True)
    source = lab.folder.parent / "in.wav"
    t = np.arange(24000) / SAMPLE_RATE
    audio.write(source, 0.3 * np.sin(2 * np.pi * 150 * t), generated=False)
    assert "Saved: 1.5 s" in app._recorded(lab, str(source), "Habari.", "Ana", True)
    said = [e["body"] for e in lab.store.events() if e["kind"] == "recording"][-1]
    assert said["consent"].startswith("This is my own voice")
    assert "Ana" not in json.dumps(said)


def test_a_notebooks_listener_goes_on_where_they_left(lab: app.Lab) -> None:
    tokens, _ = app._begun(lab, {}, "pair", "pair", "", None, "me")
    lab.store.vote(tokens["pair"], 0, 0, app.Vote("A"))
    assert app._remembered(app.Lab.open(lab.folder), "me") == tokens
    assert "data-trial='1'" in app._resumed(lab, app._remembered(lab, "me")["pair"])
    assert app._remembered(lab, "you") == app.EMPTY_TOKENS
    assert (lab.folder / "notebook_tokens.json").stat().st_mode & 0o077 == 0


def test_the_command_explains_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app", str(tmp_path / "nothing")]) == 2
    assert "holds no study" in capsys.readouterr().err
    systems = make_systems(tmp_path / "systems")
    assert main(["app", str(tmp_path / "study"), "--systems", str(systems), "--host", "0.0.0.0"]) == 2
    assert "--password" in capsys.readouterr().err
    assert not (tmp_path / "study").exists(), "nothing is made before it is clear that it may be served"
    app.Lab.make(tmp_path / "study", systems)
    assert main(["app", str(tmp_path / "study"), "--systems", str(systems)]) == 2
    assert "holds a study already" in capsys.readouterr().err


def test_a_study_that_could_not_be_made_can_be_made_again(tmp_path: Path) -> None:
    systems = make_systems(tmp_path / "systems")
    sidecar = systems / "smooth" / "03.json"
    sidecar.write_text('{"seed": "?"}')
    with pytest.raises(LabError, match=r"03\.json: the seed"):
        app.Lab.make(tmp_path / "study", systems)
    assert not (tmp_path / "study").exists()
    sidecar.unlink()
    made = app.Lab.make(tmp_path / "study", systems)
    assert sorted(path.name for path in made.folder.iterdir() if "votes.db-" not in path.name) == [
        "clips",
        "votes.db",
    ]
    assert made.study.title == "study"
    assert {path.stem for path in made.clips.iterdir()} == set(made.study.by_name)


def test_the_benchs_client_reads_the_page(lab: app.Lab) -> None:
    token = lab.store.open_session("Gus")
    client = Client(None, {"pair": token}, lab.page(lab.store.place(token)))
    assert client.at == (0, 0)
    assert len(client.clips) == 2
