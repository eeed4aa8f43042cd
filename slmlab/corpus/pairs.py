"""Pairs: one text said twice, the better and the worse, and who thinks so. One table, from a vote to DPO.

A table is a Parquet or a JSON Lines file. Its columns are the fields of `Pair` and two strings, `chosen` and
`rejected`, which TRL's trainers take with `prompt`: speech tokens as `<|s_12|>`, or `sha256:…` of a sound
whose tokens are not known. The votes of people (`slmlab.people.export`, which adds columns of its own), the
verdicts of a judge, and recordings set against a model's samples are all such tables.
"""

import dataclasses
import json
import os
import re
import reprlib
import sys
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
from slmlab.language.texts import BROKEN, lines_of, read_text

ORIGINS = ("real", "judge", "people")
SIDES = ("chosen", "rejected")
N_CODES = 6561
CODE = re.compile(r"<\|s_(\d{1,9})\|>")
SOUND = "sha256:"
TOKENS = tuple[int, ...]
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


FIELDS: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(Pair)}
TYPES = {str: pa.string(), float: pa.float64(), TOKENS: pa.list_(pa.int32())}
EXPECTED = {str: "text", float: "a number above 0", TOKENS: f"whole numbers from 0 to {N_CODES - 1}"}
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
        side: as_string(row[f"{side}_tokens"]) or f"{SOUND}{row[f'{side}_sha256']}" for side in SIDES
    }


def check(pairs: Sequence[Pair], source: str, sounds: str | Path = "") -> None:
    """LabError unless pairs can be learned from, with their `source`; sounds lie in the folder `sounds`."""
    if not pairs:
        raise LabError(f"{source} holds no pair: make or label some before tuning.")
    ids: set[str] = set()
    for i, pair in enumerate(pairs):
        if fault := _fault(pair, ids, Path(sounds)):
            raise LabError(f"{source}, pair {i} {fault}: correct or remove it.")
        ids.add(pair.id)


def _fault(pair: Pair, ids: set[str], folder: Path) -> str:
    """What is wrong with a pair, or nothing; `ids` are those before it, its sounds lie in a folder."""
    name = f"({reprlib.repr(pair.id)})"
    for field, kind in FIELDS.items():
        if not _fits(value := getattr(pair, field), kind):
            return f"{name} has the {field} {reprlib.repr(value)}, expected {EXPECTED[kind]}"
    faults = {
        "an id that another one has too": pair.id in ids,
        f"the origin {pair.origin!r}, expected one of {', '.join(ORIGINS)}": pair.origin not in ORIGINS,
        "a text without a word": not for_scoring(pair.prompt),
        "a side without tokens": not (pair.chosen_tokens and pair.rejected_tokens),
        "two equal sides": pair.chosen_tokens == pair.rejected_tokens,
    }
    sounds = ((pair.chosen_sound, pair.chosen_sha256), (pair.rejected_sound, pair.rejected_sha256))
    for sound, digest in ((folder / sound, digest) for sound, digest in sounds if sound):
        is_gone = not os.path.isfile(sound)
        faults[f"a sound that is gone ({sound})"] = is_gone
        is_other = bool(digest) and not is_gone and files.sha256_of(sound) != digest
        faults[f"a sound that is not the one that was judged ({sound})"] = is_other
    return next((f"{name} has {fault}" for fault, wrong in faults.items() if wrong), "")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a field may have a value."""
    if kind == TOKENS:
        return isinstance(value, tuple) and all(
            isinstance(c, Integral) and 0 <= int(c) < N_CODES for c in value
        )
    is_float = isinstance(value, int | float) and 0 < value <= sys.float_info.max
    return is_float if kind is float else isinstance(value, str)


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
    for i, (where, row) in enumerate(numbered(path)):
        try:
            pair = _pair(row, f"{path.stem}-{i}", language, encode)
            if pair.origin == "people" and pair.chosen_tokens == pair.rejected_tokens != ():
                alike += 1
                continue
            if fault := _fault(pair, ids, path.parent):
                raise LabError(f"{fault}.")
            if usable:
                usable(pair)
        except LabError as error:
            faults.append(" ".join(f"{where}: {error}".split()))
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


def _pair(row: Any, name: str, language: str, encode: Encode | None) -> Pair:
    """A row as a pair, in the language given unless it names one; its values may be of other types."""
    if isinstance(row, LabError):
        raise row
    cells = row if isinstance(row, dict) else {}
    if missing := [key for key in ("prompt", *SIDES) if not isinstance(cells.get(key), str)]:
        raise LabError(f"no {' and no '.join(missing)}: it is no preference table.")
    values: dict[str, Any] = {"id": name, "language": language, "origin": "people", "prompt": cells["prompt"]}
    values["group"] = cells.get("split") or ""  # what exports called it before
    values |= {key: cells[key] for key in FIELDS if cells.get(key) not in (None, "")}
    for side in SIDES:
        given, digest = (values.get(f"{side}_{of}") for of in ("tokens", "sha256"))
        values[f"{side}_tokens"] = _tokens(side, cells[side], given, digest, encode)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Pair(**values)


def _tokens(side: str, told: str, given: Any, digest: Any, encode: Encode | None) -> Any:
    """Speech tokens of a side: those given beside its string, or those that it spells, or whose sound it
    names; LabError where the string says something else than the columns beside it.
    """
    sound = told.removeprefix(SOUND) if told.startswith(SOUND) else ""
    spelt = [int(token) for token in CODE.findall(told)]
    if sound and digest and sound != digest:
        raise LabError(f"{side} and {side}_sha256 differ: one of them was changed.")
    if given:
        if spelt and isinstance(given, list) and spelt != given:
            raise LabError(f"{side} and {side}_tokens differ: one of them was changed.")
        return given
    if sound and encode:
        return list(encode(sound))
    if sound:
        raise LabError(
            f"{side} names a sound ({told[:20]}…) whose tokens are not known: give the folder of the "
            "systems' sounds with --clips."
        )
    if CODE.sub("", told).strip():
        raise LabError(f"{side} is no row of speech tokens: expected <|s_12|><|s_7|>…, found {told[:40]!r}.")
    return spelt


def numbered(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows of a Parquet or JSON Lines file, each with its place; a LabError for one that cannot be read."""
    if path.suffix == ".jsonl":
        lines = enumerate(lines_of(read_text(path, broken=True)))
        rows = [(i, _parsed(line)) for i, line in lines if line.strip()]
    else:
        remedy = "export the votes, or make the pairs, again"
        try:
            rows = list(enumerate(read_table(path, remedy).to_pylist()))
        except (ValueError, OverflowError) as error:
            raise LabError(f"{path} is no readable table ({error}): {remedy}.") from error
    return ((f"{path}, row {i}", row) for i, row in rows)


def _parsed(line: str) -> Any:
    """The value that a line has in JSON, or a LabError."""
    try:
        row = json.loads(line)
        if BROKEN.search(json.dumps(row, ensure_ascii=False)):
            return LabError("not UTF-8: export it again.")
    except (ValueError, RecursionError) as error:
        return LabError(f"no readable table ({error}): export it again.")
    return row
