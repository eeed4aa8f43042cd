"""What every notebook begins with, how the series is executed without a person, and how it is kept in git.

`start` is the set-up cell; `execute` runs notebooks at a preset; `strip` takes out what must not be kept:
sounds and the state of widgets.
"""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from slmlab import pipeline, plots, score
from slmlab.corpus.build import Corpus
from slmlab.errors import LabError
from slmlab.presets import Preset, preset
from slmlab.voice import Chain

BOOK = pipeline.ROOT / "notebooks"
SETUP = """\
REPOSITORY = ""  # on Colab: the https address of this notebook's git repository; elsewhere leave it empty
if REPOSITORY:
    !git clone --depth 1 $REPOSITORY slmlab-copy
    %cd slmlab-copy
    %pip install --quiet --constraint constraints.txt --editable .

from slmlab import notebook

lab = notebook.start()"""
"""The first code cell of every notebook, word for word."""
LONGEST = 900
"""Seconds that a cell may take."""


@dataclass(frozen=True)
class Lab:
    """What a notebook works with; nothing is loaded before it is asked for."""

    preset_name: str
    """Which size: `tiny`, or what the environment variable PRESET says."""

    @property
    def preset(self) -> Preset:
        """All numbers of this size."""
        return preset(self.preset_name)

    @cached_property
    def chain(self) -> Chain:
        """Text to wave: made here, shipped, or trained now."""
        return Chain(pipeline.checkpoint_folder(self.preset_name))

    @property
    def understood(self) -> bool:
        """Whether what the chain says can be understood: not at `smoke`, which only proves that all runs."""
        return self.preset_name != "smoke"

    def recordings(self, language: str, split: str = "dev") -> Corpus:
        """Held-out stand-in recordings: `dev` to look at; `test` and `unseen` only to score."""
        return score.held_out(pipeline.held_out_folder(self.preset_name), split, language)


def start() -> Lab:
    """Set the style of figures, read PRESET, and hand over the lab."""
    plots.use_style()
    lab = Lab(os.environ.get("PRESET", "tiny"))
    print(f"slmlab, preset {lab.preset.name}")
    if not lab.understood:
        print("smoke proves that everything runs: its networks hardly trained, so its speech is noise.")
    return lab


def notebooks() -> list[Path]:
    """The series in order."""
    return sorted(BOOK.glob("[0-9][0-9]_*.ipynb"))


def execute(preset_name: str, paths: Sequence[Path], folder: Path) -> dict[str, float]:
    """Run notebooks without a person and keep them, whole with sounds, in a folder.

    Args:
        preset_name: at which size.
        paths: which notebooks.
        folder: where the executed ones go.

    Returns:
        seconds by notebook.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    folder.mkdir(parents=True, exist_ok=True)
    seconds = {}
    for path in paths:
        book = nbformat.read(path, as_version=4)
        client = NotebookClient(
            book, timeout=LONGEST, kernel_name="python3", resources={"metadata": {"path": str(BOOK)}}
        )
        began = time.monotonic()
        try:
            client.execute(env=os.environ | {"PRESET": preset_name, "TQDM_DISABLE": "1"})
        except CellExecutionError as error:
            raise LabError(f"{path.name} stopped at preset {preset_name}: {error}") from error
        seconds[path.stem] = time.monotonic() - began
        nbformat.write(book, folder / path.name)
        print(f"{path.stem}: {seconds[path.stem]:.0f} s", flush=True)
    return seconds


def strip(path: Path) -> None:
    """Take sounds and widgets out of an executed notebook, in place; pictures and tables stay."""
    import nbformat

    book = nbformat.read(path, as_version=4)
    book.metadata.pop("widgets", None)
    for cell in book.cells:
        cell.metadata = nbformat.NotebookNode(
            {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
        )
        if cell.cell_type == "code":
            cell.outputs = [kept for kept in map(_silent, cell.outputs) if kept]
    nbformat.write(book, path)


def _silent(output: Any) -> Any:
    """An output without sound and widgets; None if nothing is left."""
    if output.output_type not in ("display_data", "execute_result"):
        return output
    data = output.data
    data.pop("application/vnd.jupyter.widget-view+json", None)
    if re.search(r"data:audio", str(data.get("text/html", ""))):
        del data["text/html"]
    if set(data) == {"text/plain"} and data["text/plain"].startswith(("VBox(", "HBox(")):
        return None
    return output
