"""Every committed notebook is whole: executed, quiet, small, described, with exercises; no second package."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import nbformat
import pytest
from tasks.exercise import Exercise

from slmlab.errors import LabError
from slmlab.notebook import lab, series

LARGEST = 1_000_000  # bytes
LONGEST_REBUILD = 12  # lines of an idea that a notebook may build again, if it compares it with the package's
SERIES = series.notebooks()
TASKS = sorted(path for path in (series.BOOK / "tasks").glob("[a-z]*.py") if path.stem != "exercise")
each_notebook = pytest.mark.parametrize("path", SERIES, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def shown(path: Path) -> list[nbformat.NotebookNode]:
    return [output for cell in code(path) for output in cell.outputs if "data" in output]


@each_notebook
def test_is_executed_in_order_without_error(path: Path) -> None:
    cells = code(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]


@each_notebook
def test_writes_nothing_to_stderr(path: Path) -> None:
    assert not [out.text for cell in code(path) for out in cell.outputs if out.get("name") == "stderr"]


@each_notebook
def test_is_small_and_holds_no_sound_and_no_widget(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size <= LARGEST
    assert "data:audio" not in text
    assert "application/vnd.jupyter.widget" not in text
    assert set(read(path).metadata) <= {"kernelspec", "language_info"}


@each_notebook
def test_begins_with_what_you_will_hear_and_the_one_set_up(path: Path) -> None:
    cells = read(path).cells
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith(f"# {path.name[:2]} · ")
    assert "**What you will hear:**" in cells[0].source
    assert code(path)[0].source == lab.SETUP


@each_notebook
def test_has_something_to_hear_to_see_and_to_change(path: Path) -> None:
    source = "\n".join(cell.source for cell in code(path))
    assert re.search(r"\b(player|compare)\(", source)
    assert "Picture(" in source
    assert "controls(" in source


@each_notebook
def test_has_three_exercises_at_its_end(path: Path) -> None:
    assert len(checks(path)) >= 3


@each_notebook
def test_every_exercise_waits_for_an_answer(path: Path) -> None:
    verdicts = [
        out.data["text/plain"] for out in shown(path) if "Your turn" in out.data.get("text/plain", "")
    ]
    assert len(verdicts) >= len(checks(path))


@each_notebook
def test_every_picture_says_what_it_shows(path: Path) -> None:
    for output in shown(path):
        if "image/png" in output.data:
            assert len(output.metadata.get("image/png", {}).get("alt", "")) > 20
            assert output.data["text/plain"] == output.metadata["image/png"]["alt"]


@each_notebook
def test_nothing_is_defined_that_the_package_should_hold(path: Path) -> None:
    cells = code(path)
    for i, cell in enumerate(cells):
        for node in ast.parse(without_magic(cell.source)).body:
            assert not isinstance(node, ast.ClassDef), f"{node.name}: classes belong into the package"
            if isinstance(node, ast.FunctionDef):
                rest = "\n".join([cell.source, *(later.source for later in cells[i + 1 :])])
                assert excused(node, rest), (
                    f"{node.name} is no exercise, moves no control, and is not compared with the package"
                )


def without_magic(source: str) -> str:
    return re.sub(r"^(\s*)[!%].*$", r"\1pass", source, flags=re.MULTILINE)


def excused(node: ast.FunctionDef, rest: str) -> bool:
    """An exercise's stub, what a control shows, or a short rebuild that an assert compares."""
    stub = isinstance(node.body[-1], ast.Raise) and f".check({node.name})" in rest
    control = re.search(rf"controls\(\s*{node.name}\b", rest)
    lines = (node.end_lineno or 0) - node.lineno + 1
    return bool(stub or control or (lines <= LONGEST_REBUILD and asserted(node.name, rest)))


def asserted(name: str, source: str) -> bool:
    """Whether an assert, or a line that an assert's values come from, names a function."""
    tree = ast.parse(without_magic(source))
    asserts = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    values = {part.id for node in asserts for part in ast.walk(node) if isinstance(part, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            made = {
                part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)
            }
            if made & values:
                values |= {part.id for part in ast.walk(node.value) if isinstance(part, ast.Name)}
    return name in values


def checks(path: Path) -> list[str]:
    return re.findall(r"\.check\(", "\n".join(cell.source for cell in code(path)))


def test_a_notebook_is_executed_and_stripped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [
        "import os; print(os.environ['PRESET'])",
        "import ipywidgets; from IPython.display import HTML, display; display(ipywidgets.IntSlider())",
        "HTML('<audio src=\"data:audio/wav;base64,AAAA\"></audio>')",
        "1 + 1",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    path = tmp_path / "00_small.ipynb"
    nbformat.write(book, path)
    full = series.executed(path, "smoke")
    assert "data:audio" in nbformat.writes(full)
    kept = series.strip(full)
    assert [len(cell.outputs) for cell in kept.cells] == [1, 0, 1, 1]
    assert kept.cells[0].outputs[0].text == "smoke\n"
    assert kept.cells[3].outputs[0].data["text/plain"] == "2"
    assert not any("data:audio" in str(output) for cell in kept.cells for output in cell.outputs)
    assert "vnd.jupyter.widget" not in nbformat.writes(kept)
    assert "data:audio" in nbformat.writes(full), "the executed one keeps its sound"


def test_a_copy_of_a_notebook_elsewhere_finds_the_exercises(tmp_path: Path) -> None:
    cells = [lab.SETUP, "from tasks import tour as exercises\nexercises.peak.check(50)"]
    path = tmp_path / "00_copy.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    (verdict,) = series.executed(path, "tiny").cells[1].outputs
    assert "✓ Right." in verdict.data["text/plain"]


def test_notebooks_run_side_by_side_and_are_kept_in_order(tmp_path: Path) -> None:
    paths = []
    for mine, other in (("00_a", "01_b"), ("01_b", "00_a")):
        meet = (
            "import os, time; from slmlab import places; from pathlib import Path\n"
            f"Path('{mine}').touch()\n"
            "for _ in range(1200):\n"
            f"    if Path('{other}').exists(): break\n"
            "    time.sleep(0.05)\n"
            "else: raise TimeoutError('nobody came')\n"
            "print(int(os.environ['OMP_NUM_THREADS']) * 2 <= max(2, places.usable_cores()))"
        )
        paths.append(tmp_path / f"{mine}.ipynb")
        cells = [nbformat.v4.new_code_cell(meet)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), paths[-1])
    seconds = series.execute("smoke", paths, tmp_path / "kept")
    assert list(seconds) == ["00_a", "01_b"]
    assert min(seconds.values()) > 0
    for path in paths:
        kept = nbformat.read(tmp_path / "kept" / path.name, as_version=4)
        assert kept.cells[0].outputs[0].text == "True\n"
        assert "<html" in (tmp_path / "kept" / f"{path.stem}.html").read_text()


def test_a_broken_cell_names_notebook_and_error(tmp_path: Path) -> None:
    path = tmp_path / "00_broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    with pytest.raises(LabError, match=r"00_broken.ipynb stopped .* ZeroDivisionError: division by zero"):
        series.executed(path, "smoke")


def test_after_a_broken_notebook_no_other_begins(tmp_path: Path) -> None:
    cells = {"00_broken": "1 / 0", "01_slow": "import time; time.sleep(6)", "02_later": "1"}
    for name, cell in cells.items():
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
        nbformat.write(book, tmp_path / f"{name}.ipynb")
    with pytest.raises(LabError, match=r"00_broken.ipynb stopped"):
        series.execute("smoke", sorted(tmp_path.glob("*.ipynb")), tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").glob("*.ipynb")] == ["01_slow.ipynb"]


def test_who_takes_too_long_or_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "LONGEST", 1)
    cells = {
        "a cell took over 1 s": "import time; time.sleep(30)",
        "its kernel died": "import os; os._exit(1)",
    }
    for why, cell in cells.items():
        path = tmp_path / "00_sad.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]), path)
        with pytest.raises(LabError, match=rf"00_sad.ipynb stopped .*: {why}\."):
            series.executed(path, "smoke")


def test_a_series_that_is_not_there_is_named() -> None:
    with pytest.raises(LabError, match="'99'"):
        series.notebooks("99")


@pytest.mark.parametrize("module", TASKS, ids=lambda path: path.stem)
def test_exercises_say_how_hard_they_are_and_what_they_teach(module: Path) -> None:
    for value in vars(importlib.import_module(f"tasks.{module.stem}")).values():
        if isinstance(value, Exercise):
            assert 1 <= value.difficulty <= 3
            assert 1 <= value.minutes <= 30
            assert inspect.getdoc(value.solution).endswith(".")


@each_notebook
def test_shown_answers_take_what_the_stub_takes(path: Path) -> None:
    source = "\n".join(without_magic(cell.source) for cell in code(path))
    stubs = {
        node.name: node.args for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)
    }
    (tasks,) = re.findall(r"from tasks import (\w+) as exercises", source)
    module = importlib.import_module(f"tasks.{tasks}")
    asked = re.findall(r"exercises\.(\w+)\.check\((\w+)?", source)
    assert len(asked) >= 3
    for title, answer in asked:
        first = getattr(module, title).solution
        wanted = [argument.arg for argument in stubs[answer].args] if answer in stubs else []
        assert list(inspect.signature(first).parameters) == wanted
