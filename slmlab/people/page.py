"""The five faces in a browser or a notebook cell: Listen, Compare, Rate, Record, Results.

A listener holds an unguessable token in their browser and sees and changes only the session behind it. With a
login their name is the key instead: the browser keeps the session's public name, which is worth nothing to
anybody else, and any browser they log in from finds their open session. The page decides nothing: trials,
sides and what was voted live in the store. Reachable from this machine alone unless a password is given; then
Listen and Results, which name systems, are the teacher's.
"""

import hmac
import json
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import gradio as gr

from slmlab.errors import LabError
from slmlab.people import export, recordings, views
from slmlab.people.design import TASKS, Study, from_pairs, from_systems, whole
from slmlab.people.store import (
    BOTH_BAD,
    LEFT,
    NAME_LENGTH,
    RIGHT,
    SCORES,
    SKIP,
    TIE,
    Place,
    Session,
    Store,
    Vote,
    clean,
    session_of,
)

HERE = Path(__file__).parent
TEACHER = "teacher"
PAIR_BUTTONS = {
    LEFT: "A is better (A)",
    TIE: "No difference (T)",
    RIGHT: "B is better (B)",
    BOTH_BAD: "Both bad (X)",
    SKIP: "Skip (S)",
}
EMPTY_TOKENS = {"pair": "", "rate": ""}
TASK_NAMES = {"Naturalness": "nmos", "Same voice?": "smos"}
FACE_TASKS = {"pair": ("pair",), "rate": tuple(TASK_NAMES.values())}
REPORT_JS = "(tokens, _, tags, note) => [tokens, window.slmlab.report(), tags, note]"


@dataclass(frozen=True)
class Lab:
    """One study on disk: `votes.db`, `clips/`, `recordings/`, `export/`."""

    folder: Path
    """Where they are."""
    store: Store
    """Its events."""

    @staticmethod
    def open(folder: str | Path) -> "Lab":
        """The study of a folder; LabError if none was made there."""
        folder = Path(folder).resolve()
        if not (folder / "votes.db").is_file():
            raise LabError(f"{folder} holds no study: make one with --systems or --pairs")
        lab = Lab(folder, Store(folder / "votes.db"))
        _ = lab.study
        return lab

    @staticmethod
    def make(
        folder: str | Path, systems: Path | list[Path] | None = None, pairs: Path | None = None
    ) -> "Lab":
        """A new study of a folder of systems or a file of pairs; all of it, or after a LabError nothing."""
        folder = Path(folder).resolve()
        if (folder / "votes.db").is_file():
            raise LabError(
                f"{folder} holds a study already: leave --systems and --pairs out, or choose another"
            )
        if (systems is None) == (pairs is None):
            raise LabError("give either a folder of systems or a file of pairs")
        with whole(folder) as part:
            study = from_pairs(pairs, part) if pairs else from_systems(systems or [], part, folder.name)
            with closing(Store(part / "votes.db")) as store:  # closed, so that it is one file and can move
                store.set_study(study)
        return Lab.open(folder)

    @property
    def study(self) -> Study:
        """What is asked."""
        return self.store.study

    @property
    def clips(self) -> Path:
        """The one folder whose files are served."""
        return self.folder / "clips"

    def address(self, clip: str) -> str:
        """Of a clip's sound on the page."""
        return f"/gradio_api/file={self.clips / clip}.wav"

    def page(self, place: Place, message: str = "") -> str:
        """The trial that a session stands at."""
        return views.trial_page(self.study, place, self.address, message)


def build(lab: Lab, solo: str = "") -> gr.Blocks:
    """The page of a study.

    Args:
        lab: the study.
        solo: in a notebook: the one listener, whose tokens are kept beside the study.
    """
    with gr.Blocks(title=lab.study.title, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        if solo:
            tokens: gr.components.Component = gr.State(EMPTY_TOKENS)
        else:
            key = f"slmlab {lab.folder.name} {lab.study.clips[0].name}"
            tokens = gr.BrowserState(EMPTY_TOKENS, storage_key=key, secret=key)
        with gr.Tabs(selected="compare"):
            with gr.Tab("Listen", id="listen", elem_id="listen"):
                _listen(lab)
            with gr.Tab("Compare", id="compare"):
                pair_screen, pair_leave = _judge(lab, "pair", tokens, solo)
            with gr.Tab("Rate", id="rate"):
                rate_screen, rate_leave = _judge(lab, "rate", tokens, solo)
            with gr.Tab("Record", id="record"):
                _record(lab)
            with gr.Tab("Results", id="results", elem_id="results"):
                _results(lab)
        who = gr.HTML(elem_id="who")

        def resume(known: Any, request: gr.Request) -> tuple[Any, ...]:
            known = _remembered(lab, solo) if solo else _found(lab, _owned(lab, known, request), request)
            return *(_resumed(lab, known[face]) for face in EMPTY_TOKENS), _who(request), known

        def leave() -> tuple[str, str, dict[str, str]]:
            return "", "", dict(EMPTY_TOKENS)

        gone = [pair_screen, rate_screen, tokens]
        gr.on([pair_leave.click, rate_leave.click], leave, None, gone, queue=False, api_name="leave")
        back = [pair_screen, rate_screen, who, tokens]
        page.load(resume, [tokens], back, queue=False, api_name="resume")
    return page


def serve(
    lab: Lab, host: str, port: int | None, share: bool, allowed: Callable[[str, str], bool] | None
) -> None:
    """Serve until Ctrl-C.

    Args:
        lab: the study.
        host: address of this machine to listen on.
        port: the first free one from 7860 on if None.
        share: through Gradio's tunnel as well.
        allowed: from `access`.
    """
    print(f"slmlab app: {lab.study.title}, {len(lab.study.pairs)} pairs; Ctrl-C ends it, every vote is kept")
    welcome = "Any name will do that nobody else here has; remember it to come back. "
    welcome += "The password is the room's."
    build(lab).launch(
        server_name=host,
        server_port=port,
        share=share,
        auth=allowed,
        auth_message=welcome if allowed else None,
        **_launching(lab),
    )


def show(
    folder: str | Path, listener: str = "me", systems: list[Path] | None = None, height: int = 900
) -> gr.Blocks:
    """The same page in a notebook cell, for one person, on this machine alone; run again, it goes on."""
    known = (Path(folder) / "votes.db").is_file()
    lab = Lab.open(folder) if known or systems is None else Lab.make(folder, systems)
    page = build(lab, solo=listener)
    page.launch(inline=True, height=height, prevent_thread_lock=True, quiet=True, **_launching(lab))
    return page


def access(host: str, share: bool, password: str, teacher_password: str) -> Callable[[str, str], bool] | None:
    """Who may come in: None for anybody at this machine, otherwise a check of name and password.

    Raises:
        LabError: reachable from other machines, but without a password.
    """
    if not password:
        if share or not _is_loopback(host):
            raise LabError(f"{'share' if share else host} lets other machines in: give a --password")
        return None
    if not teacher_password:
        teacher_password = secrets.token_urlsafe(9)
        print(f"slmlab app: log in as '{TEACHER}' with {teacher_password} to see Listen and Results")

    def allowed(name: str, given: str) -> bool:
        expected = teacher_password if name.strip().lower() == TEACHER else password
        named = clean(name, NAME_LENGTH) != ""  # the name is what leads back to a session
        return hmac.compare_digest(given.encode(), expected.encode()) and named

    return allowed


def is_teacher(request: gr.Request | None) -> bool:
    """Whether systems may be named to whoever asks: the teacher, or anybody where there is no password."""
    name = getattr(request, "username", None)
    return name is None or name.strip().lower() == TEACHER


def _who(request: gr.Request | None) -> str:
    """What page.css reads to leave out what is not for this visitor: Gradio 6 hides no tab later on."""
    known = "" if getattr(request, "username", None) is None else "named"
    return f"<i class='{known}{'' if is_teacher(request) else ' listener'}'></i>"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _launching(lab: Lab) -> dict[str, Any]:
    """What every launch has in common: our own look, nobody told, one folder served."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    look = gr.themes.Base(
        primary_hue="blue", text_size="lg", font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )
    return {
        "theme": look,
        "css": (HERE / "page.css").read_text(encoding="utf-8"),
        "head": f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>",
        "allowed_paths": [str(lab.clips)],
        "blocked_paths": [
            str(lab.folder / name) for name in ("votes.db", "notebook_tokens.json", "recordings", "export")
        ],
        "max_file_size": "20mb",
        "enable_monitoring": False,
        "ssr_mode": False,
        "footer_links": [],
    }


def _judge(lab: Lab, face: str, tokens: Any, solo: str) -> tuple[gr.HTML, gr.Button]:
    """Compare or Rate: a start, a trial, the answers; its screen and the button that hands over."""
    study = lab.study
    with gr.Column(elem_classes="face"):
        screen = gr.HTML(elem_id=f"{face}-screen")
        with gr.Column(elem_classes="start"):
            gr.Markdown(study.instructions)
            if face == "pair" and study.pairs:
                gr.Markdown(views.round_length(study))
            rated = [name for name, task in TASK_NAMES.items() if task != "smos" or study.references]
            task = gr.Radio(rated, value="Naturalness", label="What to rate", visible=face == "rate")
            name = gr.Textbox(solo, label="Your name, or any name", max_length=80, elem_id=f"{face}-name")
            start = gr.Button("Start", variant="primary", elem_id=f"{face}-start")
        with gr.Column(elem_classes="work"):
            decide = _answers(study, face)
            with gr.Accordion("Why? (if you like)", open=False, elem_classes="why"):
                tags = gr.CheckboxGroup(list(study.tags), show_label=False, elem_id=f"{face}-tags")
                note = gr.Textbox(show_label=False, placeholder="in your own words", max_length=2000)
            report = gr.Textbox("{}", visible=False)
            undo = gr.Button("Undo the last (U)", size="sm", elem_id=f"{face}-undo", elem_classes="decide")
            leave = gr.Button(
                "Not you? Start as someone else",
                size="sm",
                visible=not solo,
                elem_id=f"{face}-leave",
                elem_classes="leave",
            )

    def begin(known: Any, task: str, name: str, request: gr.Request) -> tuple[Any, str]:
        task = TASK_NAMES.get(task, "nmos") if face == "rate" else "pair"
        return _begun(lab, known, face, task, name, request, solo)

    def voted(
        known: Any, report: str, tags: list[str], note: str, request: gr.Request
    ) -> tuple[str, list[str], str]:
        return _voted(lab, _owned(lab, known, request), face, report, tags, note), [], ""

    def undone(
        known: Any, report: str, tags: list[str], note: str, request: gr.Request
    ) -> tuple[str, list[str], str]:
        return _undone(lab, _owned(lab, known, request), face, report), [], ""

    asked, answer = [tokens, report, tags, note], [screen, tags, note]
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
    start.click(begin, [tokens, task, name], [tokens, screen], api_name=f"start_{face}", **quick)
    gr.on([b.click for b in decide], voted, asked, answer, js=REPORT_JS, api_name=f"vote_{face}", **quick)
    undo.click(undone, asked, answer, js=REPORT_JS, api_name=f"undo_{face}", **quick)
    return screen, leave


def _answers(study: Study, face: str) -> list[gr.Button]:
    """The buttons that answer a trial; their ids end in the decision."""
    if face == "pair":
        with gr.Row():
            first = [_button(face, d, PAIR_BUTTONS[d], "primary") for d in (LEFT, TIE, RIGHT)]
        with gr.Row():
            return first + [_button(face, d, PAIR_BUTTONS[d], "secondary") for d in (BOTH_BAD, SKIP)]
    with gr.Row():
        scores = [_button(face, s, f"{s} {w}", "primary") for s, w in zip(SCORES, study.words, strict=True)]
    return [*scores, _button(face, SKIP, "Skip (S)", "secondary")]


def _button(face: str, decision: str, label: str, variant: Any) -> gr.Button:
    return gr.Button(
        label, variant=variant, elem_id=f"{face}-{decision}", elem_classes="decide", min_width=80
    )


def _tokens(known: Any) -> dict[str, str]:
    """A browser's tokens, whatever it sent; what the server found itself stays what it is."""
    given = known if isinstance(known, Mapping) else {}
    keys = {face: given.get(face) or "" for face in EMPTY_TOKENS}
    return {face: key if isinstance(key, Session) else str(key) for face, key in keys.items()}


def _login(request: gr.Request | None) -> str | None:
    """The name somebody logged in under, as sessions keep it; None where there is no login."""
    name = getattr(request, "username", None)
    return None if name is None else clean(name, NAME_LENGTH)


def _owned(lab: Lab, known: Any, request: gr.Request | None) -> dict[str, str]:
    """A browser's tokens without those of anybody else who logged in there before."""
    tokens, name = _tokens(known), _login(request)
    if name is None:
        return tokens
    return {face: key if _belongs(lab, key := Session(token), name) else "" for face, token in tokens.items()}


def _belongs(lab: Lab, session: Session, name: str) -> bool:
    try:
        return lab.store.place(session).listener == name
    except (LabError, UnicodeEncodeError):  # a browser may send what is no text at all
        return False


def _found(lab: Lab, tokens: dict[str, str], request: gr.Request | None) -> dict[str, str]:
    """Tokens, and where there is none the open session of whoever logged in: on another device, say."""
    name = _login(request)
    if name is None:
        return tokens
    opened = {
        face: [found for task in tasks if (found := lab.store.open_of(name, task))]
        for face, tasks in FACE_TASKS.items()
    }
    return {face: token or next(iter(opened[face]), "") for face, token in tokens.items()}


def _begun(
    lab: Lab, known: Any, face: str, task: str, name: str, request: gr.Request | None, solo: str
) -> tuple[dict[str, str], str]:
    login = _login(request)
    tokens = _owned(lab, known, request)
    try:
        if login is None:
            token = lab.store.open_session(solo or str(name or ""), task)
        else:
            begun = lab.store.open_of(login, task)
            token = begun or Session(session_of(lab.store.open_session(login, task)))
    except LabError as error:
        return tokens, views.error_page(error)
    tokens[face] = token
    if solo:
        _remember(lab, solo, tokens)
    return tokens, lab.page(lab.store.place(token))


def _resumed(lab: Lab, token: str) -> str:
    """The trial a returning browser left; nothing if it was never here."""
    try:
        return lab.page(lab.store.place(token)) if token else ""
    except LabError:
        return ""


def _voted(lab: Lab, known: Any, face: str, report: str, tags: Any, note: Any) -> str:
    token = _tokens(known)[face]
    try:
        said = _report(report)
        vote = Vote(
            decision=str(said.get("decision")),
            tags=tuple(map(str, tags)) if isinstance(tags, list) else (),
            note=str(note or ""),
            heard=said.get("heard") is True,
            override=said.get("override") is True,
            plays=tuple(int(n) for n in said.get("plays") or ()),
            ms=int(said.get("ms", -1)),
        )
        return lab.page(lab.store.vote(token, said["trial"], said["attempt"], vote))
    except LabError as error:
        return _mistaken(lab, token, error)


def _undone(lab: Lab, known: Any, face: str, report: str) -> str:
    token = _tokens(known)[face]
    try:
        said = _report(report)
        return lab.page(lab.store.undo(token, said["trial"], said["attempt"]))
    except LabError as error:
        return _mistaken(lab, token, error)


def _report(report: Any) -> dict[str, Any]:
    """What the page reported, as an object with whole numbers trial and attempt."""
    try:
        said = json.loads(report)
        numbers = [said["trial"], said["attempt"], said.get("ms", -1), *(said.get("plays") or ())]
        if not all(type(n) is int and abs(n) < 2**31 for n in numbers):
            raise ValueError
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        raise LabError("the page and the server do not understand each other: load the page again") from None
    return dict(said)


def _mistaken(lab: Lab, token: str, error: LabError) -> str:
    """The trial again with what was wrong; the sentence alone if there is no such session."""
    try:
        return lab.page(lab.store.place(token), str(error))
    except LabError as unknown:
        return views.error_page(unknown)


def _listen(lab: Lab) -> None:
    words = {c.sentence: c.text for c in lab.study.clips}
    sentences = [(f"{name} {text}".strip(), name) for name, text in sorted(words.items())]
    sentence = gr.Dropdown(sentences, value=None, label="Sentence")
    shown = gr.HTML()

    def look(sentence: str, request: gr.Request) -> str:
        if not is_teacher(request) or not sentence:
            return ""
        return views.listen_page(lab.study, sentence, lab.clips, lab.address)

    sentence.change(look, [sentence], [shown], queue=False, api_name="listen")


def _record(lab: Lab) -> None:
    texts = sorted({c.text for c in lab.study.clips if c.text})
    gr.Markdown(f"Read the words aloud, hear yourself, save. **Consent:** {recordings.CONSENT}")
    text = gr.Dropdown(
        texts, value=texts[0] if texts else None, allow_custom_value=True, label="Words to read"
    )
    sound = gr.Audio(sources=["microphone", "upload"], type="filepath", label="Your voice", buttons=[])
    name = gr.Textbox(label="Your name, or any name", max_length=80)
    agreed = gr.Checkbox(label="I agree")
    save = gr.Button("Save", variant="primary", elem_id="record-save")
    said = gr.HTML(elem_id="record-said")

    def store(sound: str | None, text: str, name: str, agreed: bool) -> tuple[str | None, str]:
        try:
            return None, _recorded(lab, sound, text, name, agreed)
        except LabError as error:
            return sound, views.error_page(error)

    save.click(store, [sound, text, name, agreed], [sound, said], queue=False, api_name="record")


def _recorded(lab: Lab, sound: str | None, text: str, name: str, agreed: bool) -> str:
    if not sound:
        raise LabError("record or upload a sound first")
    kept = recordings.keep(sound, text or "", name or "", bool(agreed), lab.folder / "recordings")
    lab.store.note_recording(
        {
            "sha256": kept.sha256,
            "speaker": kept.speaker,
            "seconds": kept.seconds,
            "consent": recordings.CONSENT,
        }
    )
    return f"<div class='lab'><p class='text'>Saved: {kept.seconds:.1f} s. Thank you.</p></div>"


def _results(lab: Lab) -> None:
    with gr.Row():
        task = gr.Radio(
            [("Pairs", "pair"), ("Naturalness", "nmos"), ("Likeness of voices", "smos")],
            value="pair",
            show_label=False,
        )
        again = gr.Button("Show", variant="primary", elem_id="results-show")
        out = gr.Button("Export", elem_id="results-export")
    shown = gr.HTML(elem_id="results-shown")

    def look(task: str, request: gr.Request) -> str:
        return views.results_page(lab.store, task) if is_teacher(request) and task in TASKS else ""

    def write(request: gr.Request) -> str:
        if not is_teacher(request):
            return ""
        return views.export_page(lab.store, export.write(lab.store, lab.folder / "export"))

    again.click(look, [task], [shown], queue=False, api_name="results")
    out.click(write, None, [shown], queue=False, api_name="export")


def _memory(lab: Lab) -> Path:
    return lab.folder / "notebook_tokens.json"


def _remembered(lab: Lab, listener: str) -> dict[str, str]:
    path = _memory(lab)
    known = json.loads(path.read_text()) if path.is_file() else {}
    return _tokens(known.get(listener))


def _remember(lab: Lab, listener: str, tokens: dict[str, str]) -> None:
    path = _memory(lab)
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.touch(mode=0o600)
    path.write_text(json.dumps({**known, listener: tokens}))
