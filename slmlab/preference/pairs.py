"""Pairs: one text said twice, the better and the worse, and who thinks so; a table that can be looked at.

A table is Parquet with the columns that TRL's trainers take (`prompt`, `chosen`, `rejected`, speech tokens
as strings `<|s_12|>`) beside the same tokens as numbers, so that the exported votes of people, a judge's
verdicts and recordings set against own samples are one kind of thing here.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from slmlab import files
from slmlab.errors import LabError
from slmlab.language.text import as_string, for_scoring

ORIGINS = ("real", "judge", "people")
N_CODES = 6561
CODE = re.compile(r"<\|s_(\d+)\|>")


@dataclass(frozen=True)
class Pair:
    """One text said twice."""

    id: str
    """Its name, unique in a table."""
    language: str
    """Of the text."""
    text: str
    """What both sides should say; the column `prompt`."""
    chosen: tuple[int, ...]
    """Speech tokens of the better side, 0 to 6560; the column `chosen_tokens`."""
    rejected: tuple[int, ...]
    """Speech tokens of the worse side."""
    origin: str
    """Who prefers: `real` (a recording against an own sample), `judge` or `people`."""
    style: tuple[int, ...] = ()
    """Speech tokens in whose manner both sides are scored; none is the plain manner."""
    group: str = ""
    """Which of several sets it belongs to: `stability`, `expressivity`, or `train` and `test` of votes."""
    weight: float = 1.0
    """How much its loss counts."""
    chosen_sound: str = ""
    """File of the better side, if it was made to be listened to."""
    rejected_sound: str = ""
    """File of the worse side."""
    chosen_sha256: str = ""
    """Digest of that file when it was judged; empty: not checked."""
    rejected_sha256: str = ""
    """The same of the worse side."""


WORDS = {field.name for field in dataclasses.fields(Pair) if field.type in (str, "str")}
TOKENS = pa.list_(pa.int32())
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), False) for name in ("id", "language", "prompt", "chosen", "rejected")),
        *(pa.field(name, TOKENS, False) for name in ("chosen_tokens", "rejected_tokens", "style")),
        *(pa.field(name, pa.string(), False) for name in ("origin", "group")),
        pa.field("weight", pa.float64(), False),
        *(
            pa.field(f"{side}_{of}", pa.string(), False)
            for of in ("sound", "sha256")
            for side in ("chosen", "rejected")
        ),
    ]
)


def check(pairs: Sequence[Pair], source: str, sounds: str | Path = "") -> Sequence[Pair]:
    """The same pairs, if they can be learned from.

    Args:
        pairs: any number of them.
        source: what they are called in messages: a file, or who made them.
        sounds: folder that relative names of sounds begin at.

    Raises:
        LabError: there is none, or one has equal or empty sides, no text, a code that does not exist, a
            weight that is no weight, the id of another, or a sound that is gone or not the one judged.
    """
    if not pairs:
        raise LabError(f"{source} holds no pair: make or label some before tuning.")
    seen: set[str] = set()
    for i, pair in enumerate(pairs):
        if fault := _fault(pair, seen) or _lost(pair, Path(sounds)):
            raise LabError(f"{source}, pair {i} ('{pair.id}') {fault}: correct or remove it.")
        seen.add(pair.id)
    return pairs


def _fault(pair: Pair, seen: set[str]) -> str:
    """What is wrong with a pair in itself, or nothing."""
    both = (*pair.chosen, *pair.rejected, *pair.style)
    if not all(isinstance(code, Integral) for code in both):
        return "has a speech token that is no whole number"
    weight = pair.weight if isinstance(pair.weight, int | float) else math.nan
    faults = {
        "has an id that another one has too": pair.id in seen,
        f"has the origin {pair.origin!r}, expected one of {', '.join(ORIGINS)}": pair.origin not in ORIGINS,
        "has a text without a word": not for_scoring(pair.text),
        "has a side without tokens": not (pair.chosen and pair.rejected),
        "has two equal sides": pair.chosen == pair.rejected,
        f"has a code outside 0 to {N_CODES - 1}": bool(both) and not 0 <= min(both) <= max(both) < N_CODES,
        f"has the weight {pair.weight}, expected a number above 0": not 0 < weight < math.inf,
    }
    return next((fault for fault, found in faults.items() if found), "")


def _lost(pair: Pair, sounds: Path) -> str:
    """What is wrong with the sounds of a pair, or nothing."""
    for name, digest in (
        (pair.chosen_sound, pair.chosen_sha256),
        (pair.rejected_sound, pair.rejected_sha256),
    ):
        if name and not (sounds / name).is_file():
            return f"has a sound that is gone ({sounds / name})"
        if name and digest and hashlib.sha256((sounds / name).read_bytes()).hexdigest() != digest:
            return f"has a sound that is not the one that was judged ({sounds / name})"
    return ""


def write(pairs: Sequence[Pair], path: str | Path) -> None:
    """Write a checked table, whole or not at all."""
    path = Path(path)
    check(pairs, str(path), path.parent)
    rows = [
        dataclasses.asdict(pair)
        | {"prompt": pair.text, "chosen_tokens": pair.chosen, "rejected_tokens": pair.rejected}
        | {"chosen": as_string(pair.chosen), "rejected": as_string(pair.rejected)}
        for pair in pairs
    ]
    columns = {name: [row[name] for row in rows] for name in SCHEMA.names}
    with files.whole(path) as part:
        pq.write_table(pa.table(columns, schema=SCHEMA), part)


def read(
    path: str | Path, language: str = "", encode: Callable[[str], Sequence[int]] | None = None
) -> list[Pair]:
    """The checked pairs of a table of this lab, or of the exported votes of people, Parquet or JSONL.

    Votes need `prompt`, `chosen` and `rejected`; what they have besides (listeners, sides, latencies) stays
    where it is, but for `split`, which becomes their group. Several votes on the same two sounds are so many
    pairs: what many prefer weighs more. Votes between sounds that the tokenizer cannot tell apart are left
    out, and counted.

    Args:
        path: `.parquet` or `.jsonl`; relative names of sounds begin at its folder.
        language: of rows that do not name one.
        encode: gives the speech tokens of a sound by its sha256, for sides that only name it.
    """
    path = Path(path)
    known = {field.name for field in dataclasses.fields(Pair)}
    pairs, alike = [], 0
    for i, row in enumerate(_rows(path)):
        where = f"{path}, row {i}"
        given = row if isinstance(row, dict) else {}
        missing = [name for name in ("prompt", "chosen", "rejected") if not isinstance(given.get(name), str)]
        if missing:
            raise LabError(f"{where} lacks {', '.join(missing)}: it is no preference table.")
        kept: dict[str, Any] = {"id": f"{path.stem}-{i}", "language": language}
        kept |= {name: row[name] for name in known if row.get(name) is not None}
        for side in ("chosen", "rejected"):
            kept[side] = row.get(f"{side}_tokens") or _tokens(row[side], encode, f"{where}, {side}")
        kept |= {"text": row["prompt"], "style": row.get("style") or []}
        kept |= {"group": row.get("group") or row.get("split") or "", "origin": row.get("origin") or "people"}
        for name in ("chosen", "rejected", "style"):
            if not isinstance(kept[name], list | tuple):
                raise LabError(f"{where}: {name} is {kept[name]!r}, expected a list of speech tokens.")
            kept[name] = tuple(kept[name])
        if wrong := [name for name in kept.keys() & WORDS if not isinstance(kept[name], str)]:
            raise LabError(f"{where}: {', '.join(sorted(wrong))} should be text.")
        if kept["origin"] == "people" and kept["chosen"] == kept["rejected"] != ():
            alike += 1
        else:
            pairs.append(Pair(**kept))
    if alike:
        print(f"{path}: {alike} votes left out, between sounds that are the same row of speech tokens")
    return list(check(pairs, str(path), path.parent))


def _tokens(written: str, encode: Callable[[str], Sequence[int]] | None, where: str) -> Sequence[int]:
    """Speech tokens that a string spells, or those of the sound it names."""
    if encode and written.startswith("sha256:"):
        return encode(written.removeprefix("sha256:"))
    if written.startswith("sha256:"):
        raise LabError(
            f"{where} names a sound ({written[:20]}…) whose tokens are not known: give the folder of the "
            "systems' sounds with --clips."
        )
    if CODE.sub("", written).strip():
        raise LabError(
            f"{where} is no row of speech tokens: expected <|s_12|><|s_7|>…, found {written[:40]!r}."
        )
    return [int(token) for token in CODE.findall(written)]


def _rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a Parquet or JSONL file as dictionaries."""
    if not path.is_file():
        raise LabError(f"{path} does not exist: export the votes, or make the pairs first.")
    try:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        raise LabError(f"{path} is no readable table ({error}): export it again.") from error


def held_out(pairs: Iterable[Pair], one_in: int = 10) -> tuple[list[Pair], list[Pair]]:
    """Pairs to learn from and pairs to look at, split by text: no text is on both sides.

    Every tenth text by the hash of its spelling; a table of one text has nothing to look at.
    """
    learned: list[Pair] = []
    watched: list[Pair] = []
    for pair in pairs:
        point = hashlib.sha256(for_scoring(pair.text).encode()).digest()[0]
        (watched if point % one_in == 0 else learned).append(pair)
    return (learned, watched) if learned else (watched, [])
