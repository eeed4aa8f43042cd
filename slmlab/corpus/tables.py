"""Tables that people bring, row by row: what is there is read, what is wrong is told with its line, and no
row ends the reading.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slmlab.errors import LabError
from slmlab.language.texts import BROKEN, lines_of, read_text

LONGEST = 10_000
"""Characters of a cell; what has more is a table gone wrong."""


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    place: str
    """File and line, for messages."""
    cells: tuple[str, ...]
    """As they stand there, but for spaces around them."""
    fault: str = ""
    """Why it cannot be used, in one sentence; empty if it can."""
    text: str = ""
    """The line as it is in the file; lines, where cells in quotes have several."""


def read(path: Path, delimiter: str, quoted: bool = False) -> Iterator[Row]:
    """Rows of a table that are not blank; LabError where there is no text at all.

    Lines end at LF or CRLF alone. Cells stand in quotes where they need to, if it is `quoted` as spreadsheets
    do; else a quote is a character like others.
    """
    text = read_text(path, broken=True)
    if "\r" in text and "\n" not in text:
        raise LabError(f"{path} has lines that end in CR alone, as old Macs wrote: save it with LF or CRLF.")
    lines = lines_of(text)
    how: dict[str, Any] = {"strict": True} if quoted else {"quoting": csv.QUOTE_NONE}
    rows = csv.reader((line.replace("\r", " ") + "\n" for line in lines), delimiter=delimiter, **how)
    while (start := rows.line_num) < len(lines):
        place, fault = f"{path}, line {start + 1}", ""
        cells: tuple[str, ...] = ()
        try:
            cells = tuple(cell.strip() for cell in next(rows))
        except csv.Error as error:
            there = f" to {rows.line_num}" * (rows.line_num > start + 1)
            fault = f"{place}{there} cannot be read ({error}): mend it."
        if any(map(BROKEN.search, cells)):
            fault = f"{place} is not UTF-8: save the table as UTF-8."
        elif any(len(cell) > LONGEST for cell in cells):
            fault = f"{place} has a cell of {max(map(len, cells))} characters, at most {LONGEST} are read."
        if fault or any(cells):
            yield Row(place, cells, fault, "\n".join(lines[start : rows.line_num]))


def with_names(
    path: Path, needed: Sequence[str], delimiter: str = "\t", quoted: bool = False
) -> Iterator[tuple[Row, dict[str, str]]]:
    """Rows below a line of column names, each with its cells by name; of one with a fault, no cells.

    LabError where the table has no line of names, or one that lacks a column or has it twice.
    """
    rows = read(path, delimiter, quoted)
    names = next(rows, Row(str(path), ())).cells
    if missing := [name for name in needed if names.count(name) != 1]:
        raise LabError(
            f"{path} lacks the columns {', '.join(missing)}, or has one twice: expected {', '.join(needed)}; "
            "is it the right table?"
        )
    return named(rows, names)


def named(rows: Iterable[Row], names: Sequence[str]) -> Iterator[tuple[Row, dict[str, str]]]:
    """Rows with their cells by name; one of another width has a fault."""
    for row in rows:
        if not row.fault and len(row.cells) != len(names):
            told = f"{row.place} has {len(row.cells)} cells in place of {len(names)}: mend it."
            row = replace(row, fault=told)
        yield row, {} if row.fault else dict(zip(names, row.cells, strict=True))
