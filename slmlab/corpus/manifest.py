"""The ledger of a corpus: one row an utterance, with all that is needed to check it or to make it again.

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

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), False, {"is": "name of the utterance, unique in the corpus"}),
        pa.field("language", pa.string(), False, {"is": "code of the language"}),
        pa.field("split", pa.string(), False, {"is": "the one split that its sentence belongs to"}),
        pa.field("kind", pa.string(), False, {"is": "synthetic, lively, authentic, or recorded"}),
        pa.field(
            "source", pa.string(), False, {"is": "made by an engine, or recorded: the collection's name"}
        ),
        pa.field("engine", pa.string(), False, {"is": "product and version that spoke; empty for people"}),
        pa.field("voice", pa.string(), False, {"is": "who speaks: id of a voice or of a person"}),
        pa.field("seed", pa.int64(), False, {"is": "what chance was drawn from; -1 for people"}),
        pa.field("params", pa.string(), False, {"is": "JSON: engine, voice and prosody in numbers"}),
        pa.field("text", pa.string(), False, {"is": "the transcript, right or wrong"}),
        pa.field("spoken", pa.string(), False, {"is": "what was really said, as far as known"}),
        pa.field("seconds", pa.float64(), False, {"is": "length of the sound"}),
        pa.field("sha256", pa.string(), False, {"is": "of the 16 kHz samples as little-endian int16"}),
        pa.field("file", pa.string(), False, {"is": "the recording's path; empty for made speech"}),
        pa.field("consent", pa.string(), False, {"is": "under what terms the recording may be used"}),
        pa.field("heard", pa.string(), True, {"is": "what judge A read in it"}),
        pa.field("cer", pa.float64(), True, {"is": "judge A's character error rate, 0 to 1 and above"}),
        pa.field("wer", pa.float64(), True, {"is": "judge A's word error rate, 0 to 1 and above"}),
        pa.field("duration_ratio", pa.float64(), True, {"is": "seconds over those expected for the text"}),
    ]
)
SCORES = ("heard", "cer", "wer", "duration_ratio")


def table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a data frame with the ledger's columns and types; scores not given are empty."""
    known = set(SCHEMA.names)
    for i, row in enumerate(rows):
        missing, foreign = known - set(SCORES) - set(row), set(row) - known
        if missing or foreign:
            raise LabError(
                f"Row {i} of the manifest lacks {sorted(missing)} and has unknown {sorted(foreign)}."
            )
    columns = {name: [row.get(name) for row in rows] for name in SCHEMA.names}
    return pa.table(columns, schema=SCHEMA).to_pandas()


def write(rows: pd.DataFrame, path: str | Path) -> None:
    """Write the ledger, whole or not at all, after checking it."""
    path = Path(path)
    check(rows, path)
    with whole(path) as part:
        pq.write_table(pa.Table.from_pandas(rows[SCHEMA.names], SCHEMA, preserve_index=False), part)


def read(path: str | Path) -> pd.DataFrame:
    """The checked rows of a ledger; LabError names the file and what is wrong in it."""
    path = Path(path)
    if not path.is_file():
        raise LabError(f"{path} does not exist: build or import the corpus first.")
    try:
        found = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise LabError(f"{path} is not a readable Parquet file ({error}): build the corpus again.") from error
    missing = [name for name in SCHEMA.names if name not in found.column_names and name not in SCORES]
    if missing:
        raise LabError(
            f"{path} lacks the columns {', '.join(missing)}: it is no manifest, or an older one; build again."
        )
    for name in SCORES:
        if name not in found.column_names:
            found = found.append_column(SCHEMA.field(name), pa.nulls(len(found), SCHEMA.field(name).type))
    try:
        rows = found.select(SCHEMA.names).cast(SCHEMA).to_pandas()
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
