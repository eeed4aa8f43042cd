"""The notebooks as files: executed without a person, and kept in git without sounds and widgets."""

import asyncio
import copy
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from tqdm.auto import tqdm

from slmlab import files, places
from slmlab.errors import LabError
from slmlab.progress import BAR

BOOK = files.ROOT / "notebooks"
EXECUTED = "notebooks"
"""The folder of a run that the executed series goes to."""
QUIET = ["--log-level=40"]
"""Kernels say errors only."""
METADATA = ("kernelspec", "language_info")
"""What a notebook says of itself in git."""
WIDGET = "application/vnd.jupyter.widget-view+json"
LONGEST = 900
"""Seconds that a cell may take."""


def notebooks(only: str = "") -> list[Path]:
    """The notebooks in order; `only` is the beginning of the names wanted, such as `03`."""
    paths = sorted(path for path in BOOK.glob("[0-9][0-9]_*.ipynb") if path.name.startswith(only))
    if not paths:
        raise LabError(f"no notebook in {BOOK} has a name that begins with {only!r}: give a number like 03.")
    return paths


def execute(preset_name: str, paths: Sequence[Path], folder: Path, workers: int = 2) -> dict[str, float]:
    """Run notebooks without a person and keep them, with their sounds, as notebooks and as pages.

    So many `workers` share the cores; the seconds of each notebook are returned. After an error those that
    run are let end, and no other begins.
    """
    from nbconvert import HTMLExporter

    folder.mkdir(parents=True, exist_ok=True)
    share = max(1, places.usable_cores() // workers)
    seconds, errors = dict[str, float](), list[Exception]()
    turns, bar = asyncio.Semaphore(workers), tqdm(desc="notebooks", total=len(paths), **BAR)

    async def keep(path: Path) -> None:
        async with turns:
            if errors:
                return
            began = time.monotonic()
            try:
                book = await _executed(path, preset_name, share)
                nbformat.write(book, folder / path.name)
                page, _ = HTMLExporter(embed_images=True).from_notebook_node(book)
                (folder / f"{path.stem}.html").write_text(page, encoding="utf-8")
            except Exception as error:
                errors.append(error)
            else:
                seconds[path.stem] = time.monotonic() - began
                bar.write(f"{path.stem}: {seconds[path.stem]:.0f} s")
                bar.update()

    async def keep_all() -> None:
        await asyncio.gather(*map(keep, paths))

    with bar:
        asyncio.run(keep_all())
    for error in errors:
        if not isinstance(error, LabError):
            raise error
    if errors:
        raise LabError(" ".join(map(str, errors)))
    return {path.stem: seconds[path.stem] for path in paths}


def executed(path: Path, preset_name: str) -> nbformat.NotebookNode:
    """A notebook after all its cells ran in a kernel of their own; LabError names it and the error."""
    return asyncio.run(_executed(path, preset_name))


async def _executed(path: Path, preset_name: str, share: int | None = None) -> nbformat.NotebookNode:
    """The same beside others, on its share of the cores."""
    book = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(
        book, timeout=LONGEST, kernel_name="python3", resources=place, extra_arguments=QUIET
    )
    environment = os.environ | {"PRESET": preset_name, "TQDM_DISABLE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(files.ROOT), os.environ.get("PYTHONPATH")]))
    if share is not None:
        environment["OMP_NUM_THREADS"] = str(share)
    stopped = f"{path.name} stopped at preset {preset_name}"
    try:
        await client.async_execute(env=environment)
    except CellExecutionError as error:
        raise LabError(f"{stopped} with {error.ename}: {error.evalue}") from error
    except CellTimeoutError as error:
        raise LabError(f"{stopped}: a cell took over {LONGEST} s.") from error
    except DeadKernelError as error:
        raise LabError(f"{stopped}: its kernel died.") from error
    return book


def strip(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An executed notebook as it is kept in git: without sounds and widgets; pictures and tables stay."""
    book = copy.deepcopy(book)
    book.metadata = nbformat.NotebookNode(
        {name: part for name, part in book.metadata.items() if name in METADATA}
    )
    for cell in book.cells:
        cell.metadata = nbformat.NotebookNode()
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            for output in cell.outputs:
                if "data:audio" in output.get("data", {}).get("text/html", ""):
                    del output.data["text/html"]
    return book


def main(preset_name: str, only: str = "") -> None:
    """Execute the series in place, as it is committed."""
    for path in notebooks(only):
        nbformat.write(strip(executed(path, preset_name)), path)
        print(f"{path.name}: executed at {preset_name}, {path.stat().st_size / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except LabError as error:
        sys.exit(f"slmlab: {error}")
