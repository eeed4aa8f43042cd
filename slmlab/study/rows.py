"""The rows of both studies under `data/results/`."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from slmlab import files
from slmlab.sound import SAMPLE_RATE, audio

RESULTS = files.ROOT / "data" / "results"


def write_rows(rows: pd.DataFrame, path: Path) -> None:
    """Write a table small, whole or not at all; equal rows give equal bytes."""
    table = pa.Table.from_pandas(rows.reset_index(drop=True), preserve_index=False).replace_schema_metadata()
    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    with files.whole(path) as part:
        pq.write_table(
            table,
            part,
            compression="zstd",
            compression_level=19,
            use_dictionary=[
                *(name for name in table.column_names if name not in floats),
                "codes.list.element",
            ],
            column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
        )


def write_flac(path: Path, wave: audio.Wave) -> None:
    """A generated sound, half as large as WAV and marked like it."""
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, channels=1, subtype="PCM_16", format="FLAC") as file:
        file.comment = audio.GENERATED
        file.write(wave)
