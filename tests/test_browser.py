"""The course in a real browser: what a reader runs, moves and presses, and that nothing complains meanwhile.

All notebooks are visited by `pytest -m course` only (minutes each); a small one shows each time that a visit
sees what it should. Screenshots go to `SLMLAB_SCREENSHOTS` where that names a folder.
"""

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from bench import browser

from slmlab.notebook import series

pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
SHOTS = Path(os.environ["SLMLAB_SCREENSHOTS"]) if "SLMLAB_SCREENSHOTS" in os.environ else None
SMALL = """\
import ipywidgets, numpy
from slmlab.notebook.players import compare, controls, hum, player

def sung(pitch, word, which, how):
    wave = hum(numpy.full(30, pitch))
    return player(wave, which, word) if how == "one" else compare({"a": wave, "b": wave})

controls(
    sung,
    pitch=ipywidgets.IntSlider(200, min=100, max=300),
    word=ipywidgets.Text("la la"),
    which=ipywidgets.Dropdown(options=["x", "y"]),
    how=ipywidgets.ToggleButtons(options=["one", "two"]),
)
"""
BROKEN = """\
import sys

import ipywidgets
from IPython.display import display

display(ipywidgets.IntSlider(2, description="nothing"))
print("a warning", file=sys.stderr)
"""


def visit(path: Path, moves: int) -> browser.Visit:
    with browser.copied(path) as folder, browser.jupyter(folder) as address, browser.opened() as page:
        return browser.visit(page, address, path.name, SHOTS, moves)


def notebook(path: Path, *cells: str) -> Path:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    return path


def test_a_visit_moves_presses_and_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "PATIENCE", 2.0)
    found = visit(notebook(tmp_path / "small.ipynb", SMALL, BROKEN), moves=2)
    names = [move.control.split(": ")[1] for move in found.moves]
    assert names == ["pitch", "pitch", "word", "word", "which", "which", "how", "how"]
    assert all(0 < move.seconds < 20 for move in found.moves)
    assert found.played == 1, "the toggle was pressed twice: one sound again"
    assert [text.split(": ", 1)[1].strip() for text in found.complaints] == [
        "nothing: nothing changed when it was moved",
        "a warning",
    ]


def test_the_slowest_control_is_judged_by_its_own_moves() -> None:
    moves = [browser.Move("a", 0.2)] * 9 + [browser.Move("a", 0.4)] + [browser.Move("b", 0.3)] * 10
    assert browser.slowest(moves) == browser.Move("a", pytest.approx(0.31))


@pytest.mark.course
@pytest.mark.parametrize("path", series.notebooks(), ids=lambda path: path.stem)
def test_a_notebook_works_for_its_reader(path: Path) -> None:
    found = visit(path, moves=1)
    assert found.complaints == []
    assert found.played > 0
    assert found.moves
