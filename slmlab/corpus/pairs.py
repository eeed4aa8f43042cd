"""Pairs: one text said twice, the better and the worse, and who thinks so. One table, from a vote to DPO.

A table is a Parquet or a JSON Lines file. Its columns are the fields of `Pair` and two strings, `chosen` and
`rejected`, which TRL's trainers take with `prompt`: speech tokens as `<|s_12|>`, or `sha256:…` of a sound
whose tokens are not known. The votes of people (`slmlab.people.export`, which adds columns of its own), the
verdicts of a judge, and recordings set against a model's samples are all such tables.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from slmlab import files
from slmlab.corpus.manifest import read_table
from slmlab.errors import LabError
from slmlab.language.text import for_scoring
from slmlab.language.texts import lines_of, read_text

ORIGINS = ("real", "judge", "people")
SIDES = ("chosen", "rejected")
N_CODES = 6561
CODE = re.compile(r"<\|s_(\d{1,9})\|>")
Encode = Callable[[str], Sequence[int]]
"""Gives the speech tokens of a sound by its sha256."""


@dataclass(frozen=True)
class Pair:
    """One text said twice: a row of the table.

    `id` is unique in a table; `language` is empty in a file whose reader tells. `origin` is who prefers:
    `real` (a recording against an own sample), `judge` or `people`. Tokens are 0 to 6560; both sides are
    scored in the manner of `style`, the plain one without. `group` is which of several sets it belongs to:
    `stability`, `expressivity`, or `train` and `test` of votes; `weight` is how much its loss counts. Sounds
    are files made to be listened to, with their digests when they were judged; an empty one is not checked.
    """

    id: str
    language: str
    prompt: str
    chosen_tokens: tuple[int, ...]
    rejected_tokens: tuple[int, ...]
    origin: str
    style: tuple[int, ...] = ()
    group: str = ""
    weight: float = 1.0
    chosen_sound: str = ""
    rejected_sound: str = ""
    chosen_sha256: str = ""
    rejected_sha256: str = ""


TOKENS = tuple[int, ...]
TYPES = {str: pa.string(), float: pa.float64(), TOKENS: pa.list_(pa.int32())}
ACCEPTED: dict[Any, Any] = {
    str: (str, "text"),
    float: (object, "a number"),
    TOKENS: (list | tuple, "a list of speech tokens"),
}
FIELDS: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(Pair)}
SCHEMA = pa.schema(
    [*((side, pa.string()) for side in SIDES), *((name, TYPES[kind]) for name, kind in FIELDS.items())]
)


def as_string(tokens: Sequence[int]) -> str:
    """Speech tokens as a tokeniser with one symbol a token, such as TRL's, reads them.

    >>> as_string([12, 0])
    '<|s_12|><|s_0|>'
    """
    return "".join(f"<|s_{token}|>" for token in tokens)


def as_row(pair: Pair) -> dict[str, Any]:
    """A pair with the columns of `SCHEMA`."""
    row = dataclasses.asdict(pair)
    return row | {
        side: as_string(row[f"{side}_tokens"]) or f"sha256:{row[f'{side}_sha256']}" for side in SIDES
    }


def check(pairs: Sequence[Pair], source: str, sounds: str | Path = "") -> Sequence[Pair]:
    """The same pairs, if they can be learned from; LabError names what is wrong, by their `source`.

    Relative names of sounds begin at the folder `sounds`.
    """
    if not pairs:
        raise LabError(f"{source} holds no pair: make or label some before tuning.")
    ids: set[str] = set()
    for i, pair in enumerate(pairs):
        if fault := _fault(pair, ids) or _fault_of_sounds(pair, Path(sounds)):
            raise LabError(f"{source}, pair {i} ('{pair.id}') {fault}: correct or remove it.")
        ids.add(pair.id)
    return pairs


def _fault(pair: Pair, ids: set[str]) -> str:
    """What is wrong with a pair in itself, or nothing."""
    codes = (*pair.chosen_tokens, *pair.rejected_tokens, *pair.style)
    if not all(isinstance(code, Integral) for code in codes):
        return "has a speech token that is no whole number"
    weight = pair.weight if isinstance(pair.weight, int | float) else math.nan
    faults = {
        "has an id that another one has too": pair.id in ids,
        f"has the origin {pair.origin!r}, expected one of {', '.join(ORIGINS)}": pair.origin not in ORIGINS,
        "has a text without a word": not for_scoring(pair.prompt),
        "has a side without tokens": not (pair.chosen_tokens and pair.rejected_tokens),
        "has two equal sides": pair.chosen_tokens == pair.rejected_tokens,
        f"has a code outside 0 to {N_CODES - 1}": any(not 0 <= code < N_CODES for code in codes),
        f"has the weight {pair.weight}, expected a number above 0": not 0 < weight < math.inf,
    }
    return next((fault for fault, wrong in faults.items() if wrong), "")


def _fault_of_sounds(pair: Pair, folder: Path) -> str:
    """What is wrong with the sounds of a pair, or nothing."""
    sounds = ((pair.chosen_sound, pair.chosen_sha256), (pair.rejected_sound, pair.rejected_sha256))
    for name, digest in sounds:
        if name and not (folder / name).is_file():
            return f"has a sound that is gone ({folder / name})"
        if name and digest and hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            return f"has a sound that is not the one that was judged ({folder / name})"
    return ""


def write(pairs: Sequence[Pair], path: str | Path) -> None:
    """Write a checked table as Parquet, whole or not at all."""
    path = Path(path)
    check(pairs, str(path), path.parent)
    with files.whole(path) as part:
        pq.write_table(pa.Table.from_pylist([as_row(pair) for pair in pairs], SCHEMA), part)


def read(
    path: str | Path,
    language: str = "",
    encode: Encode | None = None,
    usable: Callable[[Pair], None] | None = None,
) -> list[Pair]:
    """The pairs of a table that can be learned from; what is wrong with the others is printed, by row.

    A row needs `prompt`, `chosen` and `rejected`, and has the `language` given unless it names one; columns
    that are no fields of a pair stay where they are. A row that names no origin is a vote. Several votes on
    the same two sounds are so many pairs: what many prefer weighs more. Votes between sounds that the
    tokenizer cannot tell apart are left out, and counted. `encode` serves sides that only name a sound;
    `usable` raises a LabError for a pair that whoever asks cannot use. LabError: no pair is left.
    """
    path, pairs, faults, alike = Path(path), list[Pair](), list[str](), 0
    ids: set[str] = set()
    for i, (where, row) in enumerate(_numbered(path)):
        try:
            pair = _pair(row, f"{path.stem}-{i}", language, encode, where)
            if pair.origin == "people" and pair.chosen_tokens == pair.rejected_tokens != ():
                alike += 1
                continue
            if fault := _fault(pair, ids) or _fault_of_sounds(pair, path.parent):
                raise LabError(f"{where} ('{pair.id}') {fault}.")
            if usable:
                usable(pair)
        except LabError as error:
            faults.append(str(error) if str(error).startswith(where) else f"{where}: {error}")
            continue
        ids.add(pair.id)
        pairs.append(pair)
    if alike:
        print(f"{path}: {alike} votes left out, between sounds that are the same row of speech tokens")
    if not pairs:
        why = f"; the first of {len(faults)} that cannot be used: {faults[0]}" if faults else ""
        raise LabError(f"{path} holds no pair: make or label some before tuning{why}")
    for fault in faults:
        print(f"left out: {fault}")
    return pairs


def _pair(row: Any, name: str, language: str, encode: Encode | None, where: str) -> Pair:
    """A row as a pair, in the language given unless it names one."""
    if isinstance(row, LabError):
        raise row
    cells = row if isinstance(row, dict) else {}
    if missing := [key for key in ("prompt", *SIDES) if not isinstance(cells.get(key), str)]:
        raise LabError(f"{where} lacks {', '.join(missing)}: it is no preference table.")
    values: dict[str, Any] = {"id": name, "language": language, "origin": "people", "prompt": cells["prompt"]}
    values["group"] = cells.get("split") or ""  # what exports called it before
    values |= {key: cells[key] for key in FIELDS if cells.get(key) not in (None, "")}
    for side in SIDES:
        if not values.get(f"{side}_tokens"):
            values[f"{side}_tokens"] = _tokens(cells[side], encode, f"{where}, {side}")
    for key, value in values.items():
        accepted, expected = ACCEPTED[FIELDS[key]]
        if not isinstance(value, accepted):
            raise LabError(f"{where}: {key} is {value!r}, expected {expected}.")
        values[key] = tuple(value) if FIELDS[key] == TOKENS else value
    for side in SIDES:
        _check_side(cells[side], values[f"{side}_tokens"], values.get(f"{side}_sha256"), f"{where}: {side}")
    return Pair(**values)


def _check_side(told: str, tokens: Sequence[Any], digest: str | None, where: str) -> None:
    """LabError where a string names other tokens, or another sound, than the columns beside it."""
    spelt = [int(token) for token in CODE.findall(told)]
    if spelt and all(isinstance(token, Integral) for token in tokens) and spelt != list(tokens):
        raise LabError(f"{where} and {where.split()[-1]}_tokens differ: one of them was changed.")
    if digest and told.startswith("sha256:") and told.removeprefix("sha256:") != digest:
        raise LabError(f"{where} and {where.split()[-1]}_sha256 differ: one of them was changed.")


def _tokens(text: str, encode: Encode | None, where: str) -> Sequence[int]:
    """Speech tokens that a string spells, or those of the sound it names."""
    if text.startswith("sha256:"):
        if encode:
            return encode(text.removeprefix("sha256:"))
        raise LabError(
            f"{where} names a sound ({text[:20]}…) whose tokens are not known: give the folder of the "
            "systems' sounds with --clips."
        )
    if CODE.sub("", text).strip():
        raise LabError(f"{where} is no row of speech tokens: expected <|s_12|><|s_7|>…, found {text[:40]!r}.")
    return [int(token) for token in CODE.findall(text)]


def read_rows(path: Path) -> list[Any]:
    """Rows of a Parquet or JSON Lines file as they are, each a dictionary if it is a table's; LabError names
    one that cannot be read.
    """
    rows = []
    for _, row in _numbered(path):
        if isinstance(row, LabError):
            raise row
        rows.append(row)
    return rows


def _numbered(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows, each with its place; in place of one that cannot be read, a LabError."""
    if path.suffix != ".jsonl":
        rows = read_table(path, "export the votes, or make the pairs, again").to_pylist()
        yield from ((f"{path}, row {i}", row) for i, row in enumerate(rows))
        return
    for i, line in enumerate(lines_of(read_text(path, "replace"))):
        where = f"{path}, row {i}"
        if "\ufffd" in line:
            yield where, LabError(f"{where} is not UTF-8: export it again.")
        elif line.strip():
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield where, LabError(f"{where} is no readable table ({error}): export it again.")
