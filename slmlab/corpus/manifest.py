"""The manifest of a corpus: one row an utterance, with all that is needed to check it or to make it again.

A Parquet file, so that a study over many corpora is a table join. The columns are declared once, below;
reading checks them, and what is wrong is named by file, row and column.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from slmlab.errors import LabError
from slmlab.files import whole

MADE = "made"
RECORDED = "recorded"

TEXT = pa.string()
SCORES = ("heard", "cer", "wer", "duration_ratio")
"""Columns that may be empty, or absent from a file."""
SCHEMA = pa.schema(
    [
        pa.field(name, kind, name in SCORES, {"is": meaning})
        for name, kind, meaning in (
            ("id", TEXT, "name of the utterance, unique in the corpus"),
            ("language", TEXT, "code of the language"),
            ("split", TEXT, "the one split that its sentence belongs to"),
            ("kind", TEXT, "synthetic, lively, authentic, or recorded"),
            ("source", TEXT, "made by an engine, or recorded: the collection's name"),
            ("engine", TEXT, "product and version that spoke; empty for people"),
            ("voice", TEXT, "who speaks: id of a voice or of a person"),
            ("seed", pa.int64(), "what chance was drawn from; -1 for people"),
            ("params", TEXT, "JSON: engine, voice and prosody in numbers"),
            ("text", TEXT, "the transcript, right or wrong"),
            ("spoken", TEXT, "what was really said, as far as known"),
            ("seconds", pa.float64(), "length of the sound"),
            ("sha256", TEXT, "of the 16 kHz samples as little-endian int16"),
            ("file", TEXT, "the recording's path; empty for made speech"),
            ("consent", TEXT, "under what terms the recording may be used"),
            ("heard", TEXT, "what judge A read in it"),
            ("cer", pa.float64(), "judge A's character error rate, 0 to 1 and above"),
            ("wer", pa.float64(), "judge A's word error rate, 0 to 1 and above"),
            ("duration_ratio", pa.float64(), "seconds over those expected for the text"),
        )
    ]
)
REQUIRED = [name for name in SCHEMA.names if name not in SCORES]


def table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a data frame with the manifest's columns and types; scores not given are empty."""
    for i, row in enumerate(rows):
        missing, foreign = set(REQUIRED) - set(row), set(row) - set(SCHEMA.names)
        if missing or foreign:
            raise LabError(
                f"Row {i} of the manifest lacks {sorted(missing)} and has unknown {sorted(foreign)}."
            )
    columns = {name: [row.get(name) for row in rows] for name in SCHEMA.names}
    return pa.table(columns, schema=SCHEMA).to_pandas()


def write(rows: pd.DataFrame, path: str | Path) -> None:
    """Write the manifest, whole or not at all, after checking it."""
    path = Path(path)
    check(rows, path)
    with whole(path) as part:
        pq.write_table(pa.Table.from_pandas(rows[SCHEMA.names], SCHEMA, preserve_index=False), part)


def read_table(path: Path, remedy: str) -> pa.Table:
    """The table in a Parquet file; LabError where there is none, with what to do."""
    if not path.is_file():
        raise LabError(f"{path} does not exist: {remedy}.")
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise LabError(f"{path} is no readable table ({error}): {remedy}.") from error


def read(path: str | Path) -> pd.DataFrame:
    """The checked rows of a manifest; LabError names the file and what is wrong in it."""
    path = Path(path)
    content = read_table(path, "build or import the corpus again")
    if missing := [name for name in REQUIRED if name not in content.column_names]:
        raise LabError(
            f"{path} lacks the columns {', '.join(missing)}: it is no manifest, or an older one; build again."
        )
    for name in set(SCORES) - set(content.column_names):
        content = content.append_column(name, pa.nulls(len(content)))
    try:
        rows = content.select(SCHEMA.names).cast(SCHEMA).to_pandas()
    except (pa.ArrowInvalid, ValueError) as error:
        raise LabError(f"{path} holds values of the wrong type ({error}): build the corpus again.") from error
    check(rows, path)
    return rows


def check(rows: pd.DataFrame, path: str | Path) -> None:
    """LabError unless ids are unique, texts are there, and lengths are positive."""
    faults = {
        "an id that another row has too": rows["id"].duplicated(),
        "no text": rows["text"].str.strip() == "",
        "a length that is not above 0 s": ~(rows["seconds"] > 0),
        "no sha256": rows["sha256"].str.len() != 64,
    }
    for fault, where in faults.items():
        if where.any():
            i = int(where.to_numpy().argmax())
            raise LabError(
                f"{path}, row {i} ('{rows['id'].iloc[i]}') has {fault} ({int(where.sum())} such rows): "
                f"correct or remove it."
            )
