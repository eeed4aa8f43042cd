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

from slmlab import files
from slmlab.errors import LabError

BOOK = files.ROOT / "notebooks"
EXECUTED = "notebooks"
"""The folder of a run that the executed series goes to."""
QUIET = ["--log-level=40"]
"""Kernels say errors only."""
KEPT = ("kernelspec", "language_info")
"""What a notebook says of itself in git."""
LONGEST = 900
"""Seconds that a cell may take."""


def notebooks(only: str = "") -> list[Path]:
    """The notebooks in order; `only` is the beginning of the names wanted, such as `03`."""
    found = sorted(path for path in BOOK.glob("[0-9][0-9]_*.ipynb") if path.name.startswith(only))
    if not found:
        raise LabError(f"no notebook in {BOOK} has a name that begins with {only!r}: give a number like 03.")
    return found


def execute(preset_name: str, paths: Sequence[Path], folder: Path, workers: int = 2) -> dict[str, float]:
    """Run notebooks without a person and keep them, with their sounds, as notebooks and as pages.

    Args:
        preset_name: at which size.
        paths: which notebooks.
        folder: where the executed ones go.
        workers: notebooks at a time, which share the cores.

    Returns:
        seconds by notebook.
    """
    from nbconvert import HTMLExporter

    folder.mkdir(parents=True, exist_ok=True)
    cores = max(1, (os.cpu_count() or 1) // workers)
    waiting, seconds = list(paths), dict[str, float]()

    async def keep(path: Path) -> None:
        began = time.monotonic()
        book = await _executed(path, preset_name, cores)
        seconds[path.stem] = time.monotonic() - began
        nbformat.write(book, folder / path.name)
        page, _ = HTMLExporter(embed_images=True).from_notebook_node(book)
        (folder / path.name).with_suffix(".html").write_text(page, encoding="utf-8")
        print(f"{path.stem}: {seconds[path.stem]:.0f} s", flush=True)

    async def work() -> None:
        while waiting:
            try:
                await keep(waiting.pop(0))
            except BaseException:
                waiting.clear()  # those that run are let end, no other begins
                raise

    async def work_all() -> None:
        ends = await asyncio.gather(*(work() for _ in range(workers)), return_exceptions=True)
        problems = [end for end in ends if end is not None]
        if problems and all(isinstance(problem, LabError) for problem in problems):
            raise LabError(" ".join(map(str, problems)))
        for problem in problems:
            raise problem

    asyncio.run(work_all())
    return {path.stem: seconds[path.stem] for path in paths}


def executed(path: Path, preset_name: str) -> nbformat.NotebookNode:
    """A notebook after all its cells ran in a kernel of their own; LabError names it and the error."""
    return asyncio.run(_executed(path, preset_name))


async def _executed(path: Path, preset_name: str, cores: int | None = None) -> nbformat.NotebookNode:
    """The same beside others, on so many cores."""
    book = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(
        book, timeout=LONGEST, kernel_name="python3", resources=where, extra_arguments=QUIET
    )
    found = os.pathsep.join([str(files.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    ours = {"PRESET": preset_name, "TQDM_DISABLE": "1", "PYTHONPATH": found}
    if cores is not None:
        ours["OMP_NUM_THREADS"] = str(cores)
    try:
        await client.async_execute(env=os.environ | ours)
    except CellExecutionError as error:
        raise LabError(
            f"{path.name} stopped at preset {preset_name} with {error.ename}: {error.evalue}"
        ) from error
    except (CellTimeoutError, DeadKernelError) as error:
        why = f"a cell took over {LONGEST} s" if isinstance(error, CellTimeoutError) else "its kernel died"
        raise LabError(f"{path.name} stopped at preset {preset_name}: {why}.") from error
    return book


def strip(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An executed notebook as it is kept in git: without sounds and widgets; pictures and tables stay."""
    kept = copy.deepcopy(book)
    kept.metadata = nbformat.NotebookNode(
        {name: part for name, part in book.metadata.items() if name in KEPT}
    )
    for cell in kept.cells:
        cell.metadata = nbformat.NotebookNode()
        if cell.cell_type == "code":
            cell.outputs = [silent for output in cell.outputs if (silent := _silent(output))]
    return kept


def _silent(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """An output without sound and widgets; None if nothing is left that says anything."""
    data = output.get("data", {})
    was_widget = data.pop("application/vnd.jupyter.widget-view+json", None)
    if "data:audio" in data.get("text/html", ""):
        del data["text/html"]
    return None if was_widget else output


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
