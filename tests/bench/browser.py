"""The course as its reader meets it: JupyterLab in a real browser, every control moved, every player pressed.

Needs playwright and a Chromium of the system. Times are the reader's: from the key to the picture drawn or
the sound ready to be played.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from slmlab import files
from slmlab.errors import LabError
from slmlab.notebook import series

if TYPE_CHECKING:
    from playwright.sync_api import Frame, Locator, Page

START_SECONDS = 180.0
LONGEST = 900.0
"""Seconds that a notebook may take."""
PATIENCE = 60.0
"""Seconds until a control that changed nothing is given up."""
MOVES = 5
"""Of each control."""
QUIET = ("favicon", "ERR_INTERNET_DISCONNECTED", "net::ERR_NAME_NOT_RESOLVED")
"""Parts of console errors that are the machine's, not ours: JupyterLab looks for news without a net."""
CONTROLS = ".noUi-handle, .widget-dropdown select, .widget-text input, .widget-toggle-buttons"
WATCH = """(cell, kinds) => {
  // Until something to see or to hear has come into the cell and is whole.
  const area = cell.querySelector('.jp-Cell-outputWrapper');
  const began = performance.now();
  window.slmlabMoved = new Promise(done => new MutationObserver(async (changes, watch) => {
    for (const change of changes) for (const node of change.addedNodes) {
      if (node.nodeType !== 1 || node.closest('.widget-inline-hbox')) continue;
      const shown = node.matches(kinds) ? node : node.querySelector(kinds);
      if (!shown) continue;
      watch.disconnect();
      if (shown.tagName === 'IFRAME') await new Promise(loaded => {
        shown.addEventListener('load', loaded);
        if (shown.contentDocument?.readyState === 'complete' && shown.contentDocument.body?.children.length)
          loaded();
      });
      if (shown.tagName === 'IMG') await shown.decode();
      requestAnimationFrame(() => done((performance.now() - began) / 1000));
      return;
    }
  }).observe(area, { childList: true, subtree: true }));
}"""
SHOWN = "iframe, img, table, .jp-RenderedText pre, .widget-html-content b"


@dataclass(frozen=True)
class Move:
    """One control moved once."""

    control: str
    """Notebook and name."""
    seconds: float
    """Until what it changes was there."""


@dataclass
class Visit:
    """A notebook opened, run, and everything in it tried."""

    notebook: str
    """Its file's name."""
    seconds: float = 0.0
    """Until all of it had run."""
    moves: list[Move] = field(default_factory=list)
    """Of all controls."""
    played: int = 0
    """Players that were heard."""
    complaints: list[str] = field(default_factory=list)
    """Console errors, errors of cells, what went to stderr, controls and players that gave no answer."""


@contextmanager
def jupyter(folder: Path, command: Sequence[str] = ()) -> Iterator[str]:
    """JupyterLab on a folder, ended at last; its address.

    Args:
        folder: what it shows.
        command: what starts it instead of this Python, such as `make lab`; given LAB_ARGS.
    """
    port = free_port()
    settings = (f"--ServerApp.port={port}", "--IdentityProvider.token=", "--no-browser", "--allow-root")
    root = f"--ServerApp.root_dir={folder}"
    started = [*command, f"LAB_ARGS={' '.join(settings)}"] if command else None
    server = subprocess.Popen(
        started or [sys.executable, "-m", "jupyterlab", *settings, root],
        cwd=files.ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until_there(f"http://127.0.0.1:{port}/api", server, "make lab")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def until_there(address: str, server: subprocess.Popen[bytes], command: str) -> None:
    """Wait until a server answers; LabError naming the command that starts it if it does not."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise LabError(f"the server did not start within {START_SECONDS:g} s: run `{command}` and see why")


@contextmanager
def opened(width: int = 1280, height: int = 900) -> Iterator["Page"]:
    """A page of a fresh browser, as large as a projector's picture."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if not chromium:
        raise LabError("a browser is needed: `pip install playwright` and `apt-get install chromium`")
    with sync_playwright() as control:
        browser = control.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(1000 * START_SECONDS)
        yield page
        browser.close()


def visit(page: "Page", address: str, name: str, shots: Path | None = None, moves: int = MOVES) -> Visit:
    """Open a notebook, run all of it, move every control, press every player.

    Args:
        page: of a browser.
        address: of JupyterLab.
        name: of the notebook in its folder.
        shots: where screenshots go, one a screen.
        moves: of each control.
    """
    found = Visit(name)
    page.on("console", lambda said: _console(found, said.type, said.text))
    page.on("pageerror", lambda error: found.complaints.append(f"page error: {error}"))
    page.goto(f"{address}/lab/tree/{name}?reset")
    page.get_by_text("| Idle").wait_for()
    began = time.monotonic()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    _until_run(page)
    found.seconds = time.monotonic() - began
    cells = page.locator(".jp-Notebook .jp-CodeCell")
    for cell in (cells.nth(i) for i in range(cells.count())):
        _move_all(page, cell, found, moves)
        _play_all(page, cell, found)
        _look(cell, found)
    if shots:
        _shoot(page, shots, Path(name).stem)
    return found


def first_sound() -> float:
    """Seconds from `make lab` until notebook 00 is heard: four times Shift + Enter, Space in the player."""
    began = time.monotonic()
    with jupyter(files.ROOT, ("make", "lab")) as address, opened() as page:
        page.goto(f"{address}/lab/tree/00_tour.ipynb?reset")
        page.get_by_text("| Idle").wait_for()
        page.locator(".jp-Notebook .jp-MarkdownCell").first.click()
        for _ in range(4):
            page.keyboard.press("Shift+Enter")
        frame = page.locator(".jp-Notebook iframe[srcdoc]").first.element_handle().content_frame()
        section = frame.locator("section").first if frame else page.locator("section").first
        section.focus()
        page.keyboard.press("Space")
        if not heard(frame, section):
            raise LabError("the first player of notebook 00 was pressed and not heard: open it and see why")
        return time.monotonic() - began


def _console(found: Visit, kind: str, text: str) -> None:
    if kind == "error" and not any(part in text for part in QUIET):
        found.complaints.append(f"console: {text}")


def _until_run(page: "Page") -> None:
    """Wait until every code cell has a number before it and none a star."""
    page.wait_for_function(
        """() => {
          const all = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')];
          const marks = all.map(cell => cell.querySelector('.jp-InputPrompt').textContent);
          window.slmlabBegan ||= marks.some(mark => mark.includes('*'));
          return window.slmlabBegan && marks.every(mark => /\\d/.test(mark) && !mark.includes('*'))
            && document.body.textContent.includes('| Idle');
        }""",
        timeout=1000 * LONGEST,
        polling=200,
    )


def _look(cell: "Locator", found: Visit) -> None:
    """Nothing may have gone wrong in a cell or to stderr, nor a control been answered by a mistake."""
    wrong = cell.locator(
        "[data-mime-type$='stderr'], .jp-RenderedText[data-mime-type$='error'], .widget-html-content b"
    )
    found.complaints += [f"{found.notebook}: {text}" for text in wrong.all_inner_texts()]


def _move_all(page: "Page", cell: "Locator", found: Visit, moves: int) -> None:
    """Move each control of a cell and time what follows."""
    controls = cell.locator(CONTROLS)
    for i in range(controls.count()):
        control = controls.nth(i)
        label = "c => c.closest(':has(> .widget-label)').querySelector('.widget-label').textContent"
        name = f"{found.notebook}: {control.evaluate(label)}"
        control.scroll_into_view_if_needed()
        for turn in range(moves):
            cell.evaluate(WATCH, SHOWN)
            if not _moved(page, control, turn):
                break
            race = "Promise.race([window.slmlabMoved, new Promise(r => setTimeout(() => r(-1), %d))])"
            seconds = page.evaluate(race % (1000 * PATIENCE))
            if seconds < 0:
                found.complaints.append(f"{name}: nothing changed when it was moved")
                break
            found.moves.append(Move(name, seconds))


def _moved(page: "Page", control: "Locator", turn: int) -> bool:
    """One move as a person makes it; False if there is nowhere to go."""
    kind = control.evaluate("c => c.className + ' ' + c.tagName")
    if "noUi-handle" in kind:
        low, now, high = (
            float(control.get_attribute(f"aria-value{end}") or 0) for end in ("min", "now", "max")
        )
        control.focus()
        page.keyboard.press("ArrowLeft" if now >= high or (turn % 4 == 3 and now > low) else "ArrowRight")
    elif "SELECT" in kind:
        n = control.locator("option").count()
        now = int(control.evaluate("c => c.selectedIndex"))
        control.select_option(index=(now + 1) % n)
        return n > 1
    elif "INPUT" in kind:
        text = control.input_value()
        control.fill(text[:-1] if turn % 2 == 0 and len(text) > 1 else f"{text}a")
        control.press("Enter")
    else:
        buttons = control.locator("button:not(.mod-active)")
        buttons.first.click()
    return True


def _play_all(page: "Page", cell: "Locator", found: Visit) -> None:
    """Press Space in every player of a cell until it is heard."""
    frames = cell.locator("iframe[srcdoc]")
    for i in range(frames.count()):
        frame = frames.nth(i).element_handle().content_frame()
        for section in frame.locator("section").all() if frame else []:
            section.focus()
            page.keyboard.press("Space")
            if heard(frame, section):
                found.played += 1
            else:
                title = section.get_attribute("aria-label")
                found.complaints.append(f"{found.notebook}: {title}: pressed, and not heard")
            page.keyboard.press("Space")


def heard(frame: "Frame | None", section: "Locator") -> bool:
    """Whether a player's sound moves on within two seconds."""
    if frame is None:
        return False
    from playwright.sync_api import TimeoutError

    audio = section.locator("audio").element_handle()
    try:
        frame.wait_for_function("a => a.currentTime > 0 || a.ended", arg=audio, timeout=2000, polling=20)
    except TimeoutError:
        return False
    return True


def _shoot(page: "Page", folder: Path, name: str) -> None:
    """A notebook as screenshots from top to bottom."""
    folder.mkdir(parents=True, exist_ok=True)
    scroller = page.locator(".jp-WindowedPanel-outer").first
    scroller.evaluate("s => s.scrollTo(0, 0)")
    for i in range(60):
        page.wait_for_timeout(400)
        page.screenshot(path=folder / f"{name}-{i:02d}.png")
        more = "s => { const t = s.scrollTop; s.scrollBy(0, s.clientHeight - 60); return s.scrollTop > t; }"
        if not scroller.evaluate(more):
            return


@contextmanager
def copied(path: Path) -> Iterator[Path]:
    """A folder with a copy of a notebook, since JupyterLab saves what it ran."""
    with TemporaryDirectory() as folder:
        shutil.copy(path, folder)
        yield Path(folder)


def slowest(moves: Sequence[Move]) -> Move:
    """The control whose 95th percentile is the highest, with that."""
    by_name: dict[str, list[float]] = {}
    for move in moves:
        by_name.setdefault(move.control, []).append(move.seconds)
    return max(
        (Move(name, float(np.quantile(s, 0.95))) for name, s in by_name.items()), key=lambda m: m.seconds
    )


def course(names: Sequence[str], moves: int = MOVES, shots: Path | None = None) -> Iterator[Visit]:
    """Visit notebooks, a JupyterLab and a browser each; names are their numbers."""
    for path in [path for name in names for path in series.notebooks(name)]:
        with copied(path) as folder, jupyter(folder) as address, opened() as page:
            yield visit(page, address, path.name, shots, moves)


def main(shots: str, *names: str) -> None:
    """Visit notebooks and print what was found: a look at the course before it is given."""
    for found in course(names or [""], shots=Path(shots)):
        last = slowest(found.moves) if found.moves else "no control"
        print(f"{found.notebook}: ran in {found.seconds:.0f} s, {found.played} players heard, {last}")
        for complaint in found.complaints:
            print(f"  ✗ {complaint}")


if __name__ == "__main__":
    main(*sys.argv[1:])
