"""Tables that people bring, row by row: what is there is read, what is wrong is told with its line, and no
row ends the reading.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmlab.errors import LabError
from slmlab.language.texts import lines_of, read_text

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


def read(path: Path, delimiter: str, quoted: bool = False) -> Iterator[Row]:
    """Rows of a table that are not blank; LabError where there is no text at all.

    Lines end at LF or CRLF alone. Cells stand in quotes where they need to, if it is `quoted` as spreadsheets
    do; else a quote is a character like others.
    """
    text = read_text(path, "replace")
    if "\r" in text and "\n" not in text:
        raise LabError(f"{path} has lines that end in CR alone, as old Macs wrote: save it with LF or CRLF.")
    lines = (f"{line}\n" for line in lines_of(re.sub("\r(?!\n)", " ", text)))
    how: dict[str, Any] = {"strict": True} if quoted else {"quoting": csv.QUOTE_NONE}
    rows = csv.reader(lines, delimiter=delimiter, **how)
    while True:
        place = f"{path}, line {rows.line_num + 1}"
        try:
            cells = tuple(cell.strip() for cell in next(rows))
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(place, (), f"{place} cannot be read ({error}): mend it.")
            continue
        fault = ""
        if any("\ufffd" in cell for cell in cells):
            fault = f"{place} is not UTF-8: save the table as UTF-8."
        elif any(len(cell) > LONGEST for cell in cells):
            fault = f"{place} has a cell of {max(map(len, cells))} characters, at most {LONGEST} are read."
        if any(cells):
            yield Row(place, cells, fault)


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
    for row in rows:
        fault = row.fault
        if not fault and len(row.cells) != len(names):
            fault = f"{row.place} has {len(row.cells)} of {len(names)} cells: is it cut off? Mend it."
        cells = {} if fault else dict(zip(names, row.cells, strict=True))
        yield Row(row.place, row.cells, fault), cells
