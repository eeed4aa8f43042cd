"""The five faces in a browser or a notebook cell: Listen, Compare, Rate, Record, Results.

A listener holds an unguessable token in their browser and sees and changes only the session behind it. With a
login their name is the key instead: the browser keeps the session's public name, which is worth nothing to
anybody else, and any browser they log in from finds their open session. The page decides nothing: trials,
sides and votes live in the store. Reachable from this machine alone unless a password is given; then
Listen and Results, which name systems, are the teacher's.
"""

import atexit
import hmac
import io
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import gradio as gr
import segno
from pydantic import Json

from slmlab.errors import LabError
from slmlab.people import export, recordings, views
from slmlab.people.design import ANSWERS, BOTH_BAD, LEFT, RIGHT, SCORES, SKIP, TIE, ListeningTest, valid
from slmlab.people.store import FILE, Session, Store, Vote, clean, make_test, open_test, session_of

HERE = Path(__file__).parent
TEACHER = "teacher"
LOOPBACK = "127.0.0.1"
PAIR_BUTTONS = {
    LEFT: "A is better (A)",
    TIE: "No difference (T)",
    RIGHT: "B is better (B)",
    BOTH_BAD: "Both bad (X)",
    SKIP: "Skip (S)",
}
UNDO = "undo"
NOBODY = "nobody"
"""A token that opens nothing: a browser would not keep an empty one in place of another."""
RATINGS = {"Naturalness": "nmos", "Same voice?": "smos"}
FACES = {"pair": ("pair",), "rate": tuple(RATINGS.values())}
"""Compare and Rate, by their names in the page's ids, with the tasks of each."""
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden"}


@dataclass(frozen=True)
class Door:
    """Who may come in: the room with its password, the login 'teacher' with its own. One that was made up
    here is printed; what somebody typed is not.
    """

    password: str
    teacher_password: str
    made: bool

    def __call__(self, name: str, typed: str) -> bool:
        """Whether they may."""
        expected = self.teacher_password if name.strip().lower() == TEACHER else self.password
        named = clean(name) != ""  # the name is what leads back to a session
        return hmac.compare_digest(typed.encode(), expected.encode()) and named


@dataclass(frozen=True, kw_only=True)
class Report(Vote):
    """A vote as page.js tells it, tags and note apart, with the trial and attempt that were shown."""

    trial: int
    attempt: int


@dataclass(frozen=True)
class Desk:
    """Compare or Rate, a face of FACES, for whoever sits there; in a notebook for one listener, `solo`.

    A method takes what a browser sent, which may be anything.
    """

    store: Store
    face: str
    solo: str = ""

    def resume(self, token: Any, request: gr.Request) -> tuple[str, str]:
        """The trial that a returning browser left, and its token; nothing if it was never here.

        With a login and no token, the open session of that name: begun on another device, say.
        """
        token, name = self.own(token, request), self.login(request)
        if name is not None:
            token = token or self.store.open_of(name, FACES[self.face]) or ""
        try:
            return self._page(token), token
        except LabError:
            return "", token

    def begin(self, token: Any, rating: Any, name: Any, request: gr.Request) -> tuple[str, str]:
        """The first trial of a new session, or where the open one of a login stands; and its token."""
        task = RATINGS.get(rating, "nmos") if self.face == "rate" else "pair"
        login = self.login(request)
        try:
            if login is None:
                token = self.store.open_session(str(name or ""), task)
            else:
                token = self.store.open_of(login, [task])
                token = token or Session(session_of(self.store.open_session(login, task)))
            return self._page(token), token
        except LabError as error:
            return views.error_page(error), self.own(token, request)

    def answer(
        self, token: Any, report: Any, tags: Any, note: Any, request: gr.Request
    ) -> tuple[str, Any, Any]:
        """Append a vote, or take the last one back, as page.js reports; the next trial and empty fields. What
        could not be taken is asked again, its fields left as they are.
        """
        token, message = self.own(token, request), ""
        fields: tuple[Any, Any] = ([], "")
        try:
            told: Report = valid(Json[Report], report, "what the page sent")
            if told.decision == UNDO:
                self.store.undo(token, told.trial, told.attempt)
            else:
                words = tuple(map(str, tags)) if isinstance(tags, list) else ()
                vote = replace(told, tags=words, note=str(note or ""))
                self.store.vote(token, told.trial, told.attempt, vote)
        except LabError as error:
            message, fields = str(error), (gr.skip(), gr.skip())
        try:
            return self._page(token, message), *fields
        except LabError as error:
            return views.error_page(error), *fields

    def own(self, token: Any, request: gr.Request) -> str:
        """A browser's token; with a login, only that of their own session: others may have sat here."""
        name = self.login(request)
        if name is None:
            return str(token or "")
        session = Session(token or "")
        try:
            return session if self.store.place(session).listener == name else ""
        except (LabError, UnicodeEncodeError):  # a browser may send what is no text at all
            return ""

    def login(self, request: gr.Request) -> str | None:
        """The name that sessions are kept under; None where a token is the only key."""
        name = self.solo or getattr(request, "username", None)
        return None if name is None else clean(name)

    def _page(self, token: str, message: str = "") -> str:
        return views.trial_page(self.store, self.store.place(token), message)


def build(store: Store, solo: str = "") -> gr.Blocks:
    """The page of a listening test; in a notebook it is `solo`'s, who is found by this name."""
    test = store.test
    _find_own_place()
    with gr.Blocks(title=test.title, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        with gr.Tabs(selected="compare"):
            with gr.Tab("Listen", id="listen", elem_id="listen"):
                _listen(store)
            with gr.Tab("Compare", id="compare"):
                pair_screen, pair_token, pair_leave = _judge(page, Desk(store, "pair", solo))
            with gr.Tab("Rate", id="rate"):
                rate_screen, rate_token, rate_leave = _judge(page, Desk(store, "rate", solo))
            with gr.Tab("Record", id="record"):
                _record(store)
            with gr.Tab("Results", id="results", elem_id="results") as results:
                _results(store, results)
        who = gr.HTML(elem_id="who")
        page.load(_who, None, [who], queue=False, api_name="who")
        gr.on(
            [pair_leave.click, rate_leave.click],
            lambda: ("", "", NOBODY, NOBODY),
            None,
            [pair_screen, rate_screen, pair_token, rate_token],
            queue=False,
            api_name="leave",
        )
    return page


def serve(store: Store, host: str, port: int | None, share: bool, door: Door | None) -> None:
    """Serve until Ctrl-C on an address of this machine, to `share` through Gradio's tunnel as well, for those
    whom `access` lets in; without a port, on the first free one from 7860 on.
    """
    test = store.test
    print(f"slmlab app: {test.title}, {len(test.pairs)} pairs; Ctrl-C ends it, every vote is kept")
    welcome = "Any name will do that nobody else here has; remember it to come back. "
    welcome += "The password is the room's."
    login: dict[str, Any] = {"auth": door, "auth_message": welcome if door else None}
    page = build(store)
    page.launch(server_port=port, **login, **_launching(store, host, share))
    if not _is_loopback(host):
        _invite(f"http://{_address_in_the_room(host)}:{page.server_port}")
    if door:
        told = door.teacher_password if door.made else "that you gave"
        print("listeners: any name, the room's password")
        print(f"you, to see Listen and Results: {TEACHER}, password {told}", flush=True)
    page.block_thread()


def _invite(address: str) -> None:
    """Print where the room finds the page, for phones as a QR code too, where the terminal can draw one."""
    code = io.StringIO()
    segno.make(address, micro=False).terminal(code, compact=True)
    print(f"for the room: {address}")
    with suppress(UnicodeEncodeError):
        code.getvalue().encode(sys.stdout.encoding or "ascii")
        print(code.getvalue(), end="", flush=True)


def show(
    folder: str | Path, listener: str = "me", systems: list[Path] | None = None, height: int = 900
) -> gr.Blocks:
    """The same page in a notebook cell, for one person, on this machine alone; run again, it goes on."""
    exists = (Path(folder) / FILE).is_file()
    store = open_test(folder) if exists or systems is None else make_test(folder, systems)
    page = build(store, solo=listener)
    page.launch(inline=True, height=height, quiet=True, **_launching(store))
    return page


def access(host: str, share: bool, password: str, teacher_password: str) -> Door | None:
    """Who may come in: None for anybody at this machine; a teacher's password that is not given is made up.

    LabError: other machines reach it and there is no password.
    """
    if not password:
        if share or not _is_loopback(host):
            raise LabError(f"{'share' if share else host} lets other machines in: give a --password")
        return None
    return Door(password, teacher_password or secrets.token_urlsafe(9), not teacher_password)


def is_teacher(request: gr.Request | None) -> bool:
    """Whether systems may be named to whoever asks: the teacher, or anybody where there is no password."""
    name = getattr(request, "username", None)
    return name is None or name.strip().lower() == TEACHER


def _who(request: gr.Request) -> str:
    """What page.css reads to leave out what is not for this visitor: Gradio 6 hides no tab later on."""
    named = "" if getattr(request, "username", None) is None else "named"
    return f"<i class='{named}{'' if is_teacher(request) else ' listener'}'></i>"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _address_in_the_room(host: str) -> str:
    """Where others reach a server on `host`: if that is every address, the one towards the network."""
    if host not in ("0.0.0.0", "::"):
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        try:
            route.connect(("192.0.2.1", 9))  # of no machine (RFC 5737), and nothing is sent
            return str(route.getsockname()[0])
        except OSError:
            return socket.gethostname()


def _find_own_place() -> None:
    """Where uploads wait, a folder of this process: Gradio's own is everybody's, whoever made it first."""
    if "GRADIO_TEMP_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="slmlab-app-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["GRADIO_TEMP_DIR"] = folder


def _launching(store: Store, host: str = LOOPBACK, share: bool = False) -> dict[str, Any]:
    """What every launch has in common: our own look, nobody told, one folder served, nothing kept of calls.

    Where and to whom is said outright, as hosted notebooks would share by themselves. The page asks itself
    whether it is there, which a proxy for the world outside could not answer.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    os.environ["no_proxy"] = ",".join(
        filter(None, dict.fromkeys((known, "localhost", LOOPBACK, "::1", host)))
    )
    look = gr.themes.Base(
        primary_hue="blue", text_size="lg", font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )
    return {
        "server_name": host,
        "share": share,
        "theme": look,
        "css": (HERE / "page.css").read_text(encoding="utf-8"),
        "head": f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>",
        "allowed_paths": [str(store.clips)],
        "blocked_paths": [str(store.folder / name) for name in (FILE, recordings.FOLDER, "export")],
        "max_file_size": "20mb",
        "enable_monitoring": False,
        "run_history": False,  # a browser that listeners share would keep what each answered
        "mcp_server": False,
        "prevent_thread_lock": True,
        "ssr_mode": False,
        "footer_links": [],
    }


def _judge(page: gr.Blocks, desk: Desk) -> tuple[gr.HTML, gr.components.Component, gr.Button]:
    """Compare or Rate: a start, a trial, the answers; screen, token and the button that hands over."""
    test, face = desk.store.test, desk.face
    secret = f"slmlab {desk.store.folder.name} {test.clips[0].name}"
    kept = gr.State if desk.solo else partial(gr.BrowserState, storage_key=f"{secret} {face}", secret=secret)
    token = kept(NOBODY)
    with gr.Column(elem_classes="face"):
        screen = gr.HTML(elem_id=f"{face}-screen")
        with gr.Column(elem_classes="start"):
            gr.Markdown(test.instructions)
            if face == "pair" and test.pairs:
                gr.Markdown(views.round_length(test))
            ratings = [name for name, task in RATINGS.items() if task != "smos" or test.references]
            rating = gr.Radio(ratings, value=ratings[0], label="What to rate", visible=face == "rate")
            name = gr.Textbox(
                label="Your name, or any name", max_length=80, elem_id=f"{face}-name", visible=not desk.solo
            )
            start = gr.Button("Start", variant="primary", elem_id=f"{face}-start")
        with gr.Column(elem_classes="work"):
            decide = _answers(test, face)
            with gr.Accordion("Why? (if you like)", open=False, elem_classes="why"):
                tags = gr.CheckboxGroup(list(test.tags), show_label=False, elem_id=f"{face}-tags")
                note = gr.Textbox(show_label=False, placeholder="in your own words", max_length=2000)
            report = gr.Textbox("{}", visible=False)
            decide.append(_button(face, UNDO, "Undo the last (U)", "secondary", size="sm"))
            ids: dict[str, Any] = {"elem_id": f"{face}-leave", "elem_classes": "leave"}
            leave = gr.Button("Not you? Start as someone else", size="sm", visible=not desk.solo, **ids)
    page.load(desk.resume, [token], [screen, token], queue=False, api_name=f"resume_{face}")
    start.click(desk.begin, [token, rating, name], [screen, token], api_name=f"start_{face}", **QUICK)
    gr.on(
        [button.click for button in decide],
        desk.answer,
        [token, report, tags, note],
        [screen, tags, note],
        js="(token, _, tags, note) => [token, window.slmlab.report(), tags, note]",
        api_name=f"vote_{face}",
        **QUICK,
    )
    return screen, token, leave


def _answers(test: ListeningTest, face: str) -> list[gr.Button]:
    """The buttons that answer a trial; their ids end in the decision."""
    if face == "pair":
        with gr.Row():
            first = [_button(face, d, PAIR_BUTTONS[d]) for d in (LEFT, TIE, RIGHT)]
        with gr.Row():
            return first + [_button(face, d, PAIR_BUTTONS[d], "secondary") for d in (BOTH_BAD, SKIP)]
    with gr.Row():
        scores = [_button(face, s, f"{s} {word}") for s, word in zip(SCORES, test.words, strict=True)]
    return [*scores, _button(face, SKIP, "Skip (S)", "secondary")]


def _button(face: str, decision: str, label: str, variant: Any = "primary", size: Any = "lg") -> gr.Button:
    look: dict[str, Any] = {"variant": variant, "size": size, "min_width": 80}
    return gr.Button(label, elem_id=f"{face}-{decision}", elem_classes="decide", **look)


def _listen(store: Store) -> None:
    words = {c.sentence: c.text for c in store.test.clips}
    sentences = [(f"{name} {text}".strip(), name) for name, text in sorted(words.items())]
    sentence = gr.Dropdown(sentences, value=None, label="Sentence")
    view = gr.HTML()

    def look(sentence: str, request: gr.Request) -> str:
        return _told(views.listen_page, store, sentence) if is_teacher(request) and sentence else ""

    sentence.change(look, [sentence], [view], queue=False, api_name="listen")


def _record(store: Store) -> None:
    texts = sorted({c.text for c in store.test.clips if c.text})
    folder = store.folder / recordings.FOLDER
    if folder.is_dir():
        recordings.write_table(folder)
    gr.Markdown(f"Read the words aloud, hear yourself, save. **Consent:** {recordings.CONSENT}")
    first = texts[0] if texts else None
    text = gr.Dropdown(texts, value=first, allow_custom_value=True, label="Words to read")
    sound = gr.Audio(sources=["microphone", "upload"], type="filepath", label="Your voice", buttons=[])
    name = gr.Textbox(label="Your name, or any name", max_length=80)
    language = gr.Textbox(label="Language, as its code: sw, vi, … (if you like)", max_length=80)
    agreed = gr.Checkbox(label="I agree")
    save = gr.Button("Save", variant="primary", elem_id="record-save")
    answer = gr.HTML(elem_id="record-said")

    def record(*fields: Any) -> tuple[str | None, str]:
        try:
            return None, keep_recording(store, *fields)
        except LabError as error:
            return fields[0], views.error_page(error)

    fields = [sound, text, name, language, agreed]
    save.click(record, fields, [sound, answer], queue=False, api_name="record")


def keep_recording(store: Store, sound: Any, text: Any, name: Any, language: Any, agreed: Any) -> str:
    """Keep a recording beside the votes and note that it was made; thanks, or a LabError: what is missing."""
    if not sound:
        raise LabError("record or upload a sound first")
    folder = store.folder / recordings.FOLDER
    row = recordings.keep(sound, text or "", name or "", bool(agreed), folder, language or "")
    store.note_recording({field: row[field] for field in ("sha256", "speaker", "seconds", "consent")})
    return f"<div class='lab'><p class='text'>Saved: {row['seconds']:.1f} s. Thank you.</p></div>"


def _results(store: Store, tab: gr.Tab) -> None:
    tasks = [("Pairs", "pair"), ("Naturalness", "nmos"), ("Likeness of voices", "smos")]
    with gr.Row():
        task = gr.Radio(tasks, value="pair", show_label=False)
        again = gr.Button("Show", variant="primary", elem_id="results-show")
        out = gr.Button("Export", elem_id="results-export")
    view = gr.HTML(elem_id="results-shown")

    def look(task: str, request: gr.Request) -> str:
        return _told(views.results_page, store, task) if is_teacher(request) and task in ANSWERS else ""

    def write(request: gr.Request) -> str:
        return _told(_export, store) if is_teacher(request) else ""

    gr.on([tab.select, task.change, again.click], look, [task], [view], queue=False, api_name="results")
    out.click(write, None, [view], queue=False, api_name="export")


def _export(store: Store) -> str:
    return views.export_page(store, export.write(store, store.folder / "export"))


def _told(make: Callable[..., str], *what: Any) -> str:
    """A page, or the sentence that says why there is none."""
    try:
        return make(*what)
    except LabError as error:
        return views.error_page(error)
