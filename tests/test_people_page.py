"""A whole session in a real browser: by mouse, by keyboard alone, after closing it, and inside JupyterLab.

Screenshots go to `SLMLAB_SCREENSHOTS` where that names a folder.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from bench.browser import jupyter
from bench.load import serving
from test_people_server import EVIL, make_systems

from slmlab.people.page import TEACHER
from slmlab.people.store import Store, make_test

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
PATIENCE = 1000 * float(os.environ.get("SLMLAB_PATIENCE", "60"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two systems at one sentence: one pair that counts, a practice pair and gold."""
    folder = tmp_path_factory.mktemp("page")
    return make_test(folder / "test", make_systems(folder / "systems", 2))


@pytest.fixture(scope="module")
def url(store: Store) -> Iterator[str]:
    with serving(store.folder) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as control:
        made = control.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield made
        made.close()


@pytest.fixture
def page(browser: playwright.Browser) -> Iterator[playwright.Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


def shoot(page: playwright.Page, name: str) -> None:
    if folder := os.environ.get("SLMLAB_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def at(frame: playwright.Frame | playwright.Page, face: str = "pair") -> tuple[str, str] | None:
    """Trial and attempt shown; None before the first."""
    shown = frame.locator(f"section.trial[data-face={face}]")
    if not shown.count():
        return None
    return shown.get_attribute("data-trial"), shown.get_attribute("data-attempt")


def wait_for_trial(frame: playwright.Frame | playwright.Page, n: int, face: str = "pair") -> None:
    frame.locator(f"section.trial[data-face={face}][data-trial='{n}']").wait_for()


def hear(frame: playwright.Frame | playwright.Page, n: int) -> None:
    """Wait until the first n clips were heard to their end."""
    for i in range(n):
        frame.locator(f"section.trial:visible button.heard[data-clip='{i}']").wait_for()


def test_a_session_by_mouse_with_gate_undo_and_return(
    store: Store, url: str, browser: playwright.Browser, page: playwright.Page
) -> None:
    page.goto(url)
    page.locator("#pair-start").wait_for()
    shoot(page, "start")
    page.locator("#pair-name textarea, #pair-name input").fill(EVIL)
    page.locator("#pair-start").click()
    wait_for_trial(page, 0)
    shoot(page, "pair")
    page.wait_for_timeout(500)
    page.locator("#pair-A").click()
    assert "Hear every clip" in page.locator("section.trial:visible .message").inner_text()
    assert at(page) == ("0", "0"), "the gate holds"
    for n in range(2):
        for clip in (0, 1):
            page.locator(f"section.trial:visible button[data-clip='{clip}']").click()
            page.locator(f"section.trial:visible button.heard[data-clip='{clip}']").wait_for()
        shoot(page, f"heard-{n}")
        page.locator("#pair-B").dblclick() if n else page.locator("#pair-A").click()
        wait_for_trial(page, n + 1)
    page.wait_for_timeout(500)  # a click sooner is taken for the second half of a double click
    page.locator("#pair-undo").click()
    wait_for_trial(page, 1)
    assert at(page) == ("1", "1")
    shown = [page.locator("section.trial:visible audio").nth(i).get_attribute("src") for i in (0, 1)]
    state = page.context.storage_state()
    page.context.close()
    again = browser.new_context(storage_state=state)
    back = again.new_page()
    back.goto(url)
    wait_for_trial(back, 1)
    assert [back.locator("section.trial:visible audio").nth(i).get_attribute("src") for i in (0, 1)] == shown
    assert back.title() != "run"
    again.close()
    events = [e["kind"] for e in store.events()]
    assert events == ["study", "session", "vote", "vote", "undo"]


def test_heard_is_what_was_played_whatever_events_say(url: str, page: playwright.Page) -> None:
    page.goto(url)
    page.locator("#pair-name textarea, #pair-name input").fill("Heard")
    page.locator("#pair-start").click()
    wait_for_trial(page, 0)
    page.wait_for_timeout(500)
    claim = (
        "document.querySelectorAll('section.trial audio').forEach((a) => a.dispatchEvent(new Event('ended')))"
    )
    page.evaluate(claim)
    page.locator("#pair-A").click()
    assert "Hear every clip" in page.locator("section.trial:visible .message").inner_text()
    page.evaluate("window.addEventListener('ended', (event) => event.stopImmediatePropagation(), true)")
    page.keyboard.press("1")
    hear(page, 1)
    page.keyboard.press("2")
    hear(page, 2)
    page.locator("#pair-A").click()
    wait_for_trial(page, 1)


def test_a_sound_that_does_not_load_is_told(url: str, page: playwright.Page) -> None:
    page.route("**/*.wav", lambda route: route.abort())
    page.goto(url)
    page.locator("#pair-name textarea, #pair-name input").fill("Deaf")
    page.locator("#pair-start").click()
    page.get_by_text("A sound did not load").wait_for()
    page.get_by_role("button", name="Vote without hearing").click()
    page.wait_for_timeout(500)
    page.locator("#pair-B").click()
    wait_for_trial(page, 1)


@pytest.fixture
def phone(browser: playwright.Browser) -> Iterator[playwright.Page]:
    """390 pixels wide, touched, and playing nothing that was not."""
    made = browser.new_context(
        viewport={"width": 390, "height": 664}, device_scale_factor=2, is_mobile=True, has_touch=True
    )
    made.set_default_timeout(PATIENCE)
    yield made.new_page()
    made.close()


SMALL = """() => [...document.querySelectorAll('button, textarea, label:has(> input)')]
    .filter((e) => e.checkVisibility({ visibilityProperty: true }) && e.offsetHeight)
    .filter((e) => Math.min(e.offsetHeight, e.offsetWidth) < 44).map((e) => e.outerHTML.slice(0, 200))"""


def test_a_phone_fits_touches_and_hears(url: str, phone: playwright.Page) -> None:
    phone.goto(url)
    phone.locator("#pair-name textarea, #pair-name input").fill("Phone")
    assert phone.evaluate(SMALL) == []
    phone.locator("#pair-start").tap()
    wait_for_trial(phone, 0)
    phone.locator(".why button").first.tap()
    phone.locator(".why textarea").wait_for()
    assert phone.evaluate(SMALL) == []
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    cut = "(all) => all.filter((b) => b.scrollWidth > b.clientWidth + 1).length"
    assert phone.locator("button.decide:visible, .players button:visible").evaluate_all(cut) == 0
    assert phone.evaluate("[...document.querySelectorAll('audio')].every((a) => a.paused)")
    for clip in (0, 1):
        phone.locator(f"section.trial:visible button[data-clip='{clip}']").tap()
        phone.locator(f"section.trial:visible button.heard[data-clip='{clip}']").wait_for()
    shoot(phone, "phone")
    phone.locator("#pair-A").tap()
    wait_for_trial(phone, 1)


def test_a_slow_net_and_a_browser_that_holds_sounds_back_are_told(url: str, phone: playwright.Page) -> None:
    waiting: list[playwright.Route] = []
    phone.route("**/*.wav", lambda route: waiting.append(route))
    phone.clock.install()
    phone.goto(url)
    phone.locator("#pair-name textarea, #pair-name input").fill("Slow")
    phone.locator("#pair-start").tap()
    wait_for_trial(phone, 0)
    phone.locator("section.trial:visible button[data-clip='0']").tap()
    phone.locator("button.loading[data-clip='0']").wait_for()
    assert not phone.locator(".override:visible").count()
    phone.clock.fast_forward(7000)
    phone.get_by_text("The connection is slow").wait_for()
    phone.locator(".override:visible").wait_for()
    refusal = "Promise.reject(new DOMException('', 'NotAllowedError'))"
    phone.evaluate(f"void (HTMLMediaElement.prototype.play = () => {refusal})")
    phone.locator("section.trial:visible button[data-clip='1']").tap()
    phone.get_by_text("held the sound back").wait_for()
    for route in waiting:
        route.abort()


def test_a_whole_session_by_keyboard_alone(store: Store, url: str, page: playwright.Page) -> None:
    page.goto(url)
    page.locator("#pair-start").wait_for()
    press_until(page, "Tab", "document.activeElement.closest('#pair-name') !== null")
    page.keyboard.type("Keyboard")
    press_until(page, "Tab", "document.activeElement.id === 'pair-start'")
    page.keyboard.press("Enter")
    wait_for_trial(page, 0)
    n = int(page.locator("section.trial:visible progress").get_attribute("max"))
    keys = ["a", "b", "t", "x", "ArrowLeft", "s"]
    for trial in range(n):
        for i, key in enumerate("12"):
            page.keyboard.press(key)
            page.locator(f"section.trial:visible button.heard[data-clip='{i}']").wait_for()
        page.keyboard.press(keys[trial % len(keys)])
        if trial + 1 < n:
            wait_for_trial(page, trial + 1)
    page.locator("section.done").wait_for()
    shoot(page, "done")
    sessions = store.sessions().set_index("listener")
    assert sessions.loc["Keyboard", "done"] == n
    votes = store.votes()
    votes = votes[votes["session"] == sessions.loc["Keyboard", "session"]]
    assert list(votes["decision"]) == [["A", "B", "tie", "both_bad", "A", "skip"][i % 6] for i in range(n)]
    assert (votes["ms"] > 0).all()
    assert set(votes["plays"]) == {"1|1"}


def press_until(page: playwright.Page, key: str, condition: str) -> None:
    for _ in range(60):
        if page.evaluate(condition):
            return
        page.keyboard.press(key)
    raise AssertionError(f"{key} never led to {condition}")


def test_rating_by_keys(store: Store, url: str, page: playwright.Page) -> None:
    page.goto(url)
    page.get_by_role("tab", name="Rate").click()
    page.get_by_label("Same voice?").check()
    page.locator("#rate-name textarea, #rate-name input").fill("Rater")
    page.locator("#rate-start").click()
    wait_for_trial(page, 0, "rate")
    shoot(page, "rate")
    for key in "rp":
        page.keyboard.press(key)
        page.wait_for_timeout(800)
    hear(page, 2)
    page.keyboard.press("4")
    wait_for_trial(page, 1, "rate")
    assert store.votes().iloc[-1]["decision"] in ("4", "skip", "A", "B", "tie", "both_bad")
    assert 4 in [int(d) for d in store.votes()["decision"] if d.isdigit()]


def test_listen_and_results_are_readable(url: str, page: playwright.Page) -> None:
    page.goto(url)
    page.get_by_role("tab", name="Results").click()
    page.get_by_text("sessions done").wait_for()
    page.locator("#results-show").click()
    page.get_by_text("do not count if fewer than 80%").wait_for()
    shoot(page, "results")
    page.get_by_role("tab", name="Listen").click()
    page.get_by_label("Sentence").click()
    page.get_by_role("option", name="00").click()
    page.locator(".cards img").first.wait_for()
    shoot(page, "listen")
    words = page.locator(".text:visible").last.inner_text()
    assert words == f"Sentence 0. {EVIL}", "words are read, never run"
    page.get_by_role("tab", name="Record").click()
    page.locator("#record-save").wait_for()
    page.locator("#record-save").click()
    page.get_by_text("record or upload a sound first").wait_for()
    shoot(page, "record")
    assert page.title() != "run"


def test_a_browser_is_handed_over_to_somebody_else(url: str, page: playwright.Page) -> None:
    page.goto(url)
    page.locator("#pair-start").wait_for()
    page.locator("#pair-name textarea, #pair-name input").fill("Lea")
    page.locator("#pair-start").click()
    wait_for_trial(page, 0)
    shoot(page, "leave")
    page.once("dialog", lambda asked: asked.dismiss())
    page.locator("#pair-leave").click()
    page.wait_for_timeout(1000)
    assert at(page) == ("0", "0"), "a slip loses nothing"
    page.once("dialog", lambda asked: asked.accept())
    page.locator("#pair-leave").click()
    page.locator("#pair-start").wait_for()
    page.reload()
    page.locator("#pair-start").wait_for()
    page.wait_for_timeout(1000)
    assert at(page) is None, "the token is forgotten"


@pytest.fixture
def guarded(store: Store) -> Iterator[str]:
    with serving(store.folder, "--password", "room", "--teacher-password", "boss") as (address, _):
        yield address


def test_a_listener_sees_no_tab_that_names_systems(guarded: str, browser: playwright.Browser) -> None:
    seen = {}
    for name, password in (("Ana", "room"), (TEACHER, "boss")):
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(guarded)
        page.get_by_text("Any name will do").wait_for()
        page.get_by_label("username").fill(name)
        page.get_by_label("password").fill(password)
        page.get_by_role("button", name="Login").click()
        page.locator("#who .named").wait_for(state="attached")
        page.locator("#pair-start").wait_for()
        seen[name] = [tab.inner_text() for tab in page.get_by_role("tab").all()]
        assert not page.locator("#pair-name").is_visible(), "the login's name counts"
        shoot(page, f"start-{name}")
    assert seen == {
        "Ana": ["Compare", "Rate", "Record"],
        TEACHER: ["Listen", "Compare", "Rate", "Record", "Results"],
    }


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[str]:
    """JupyterLab on a folder with one notebook whose cell shows the page."""
    systems = make_systems(tmp_path / "systems", 2)
    folders = [str(systems / name) for name in ("smooth", "rough")]
    call = f"page = app.show({str(tmp_path / 'test')!r}, systems={folders!r})"
    code = f"from slmlab.people import page as app\n{call}"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, tmp_path / "cell.ipynb")
    with jupyter(tmp_path) as address:
        yield address


def test_the_page_works_inside_jupyterlab(notebook: str, page: playwright.Page) -> None:
    page.goto(f"{notebook}/lab/tree/cell.ipynb")
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # a key pressed before that is lost
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Control+Enter")
    page.locator(".jp-OutputArea iframe").wait_for()
    frame = page.frame_locator(".jp-OutputArea iframe")
    frame.locator("#pair-start").click()
    frame.locator("section.trial[data-trial='0']").wait_for()
    for clip in (0, 1):
        frame.locator(f"section.trial:visible button[data-clip='{clip}']").click()
        frame.locator(f"section.trial:visible button.heard[data-clip='{clip}']").wait_for()
    page.keyboard.press("b")
    frame.locator("section.trial[data-trial='1']").wait_for()
    shoot(page, "jupyter")
