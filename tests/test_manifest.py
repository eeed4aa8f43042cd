"""A manifest keeps its rows, and says by file, row and column what is wrong with one."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slmlab.corpus import manifest
from slmlab.errors import LabError


def row(i: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"a-{i}",
        "language": "sw",
        "split": "lm",
        "kind": "lively",
        "source": manifest.MADE,
        "engine": "espeak-ng 1.52.0",
        "voice": "parts-01",
        "seed": i,
        "params": "{}",
        "text": "habari gani",
        "spoken": "habari gani",
        "seconds": 1.5,
        "sha256": "0" * 64,
        "file": "",
        "consent": "",
    } | changes


def test_rows_come_back_as_they_went(tmp_path: Path):
    rows = manifest.table([row(0), row(1, cer=0.25, heard="habari")])
    manifest.write(rows, tmp_path / "m.parquet")
    back = manifest.read(tmp_path / "m.parquet")
    assert list(back.columns) == manifest.SCHEMA.names
    assert back["seed"].tolist() == [0, 1]
    assert back["cer"].isna().tolist() == [True, False]
    assert back["cer"].iloc[1] == 0.25
    assert list(tmp_path.iterdir()) == [tmp_path / "m.parquet"]


def test_every_column_says_what_it_is():
    assert all(field.metadata[b"is"] for field in manifest.SCHEMA)


def test_a_manifest_without_scores_gets_empty_ones(tmp_path: Path):
    table = pa.Table.from_pandas(manifest.table([row(0)])).drop_columns(list(manifest.SCORES))
    pq.write_table(table, tmp_path / "m.parquet")
    assert manifest.read(tmp_path / "m.parquet")["wer"].isna().all()


def test_a_missing_column_is_named(tmp_path: Path):
    pq.write_table(
        pa.Table.from_pandas(manifest.table([row(0)])).drop_columns("voice"), tmp_path / "m.parquet"
    )
    with pytest.raises(LabError, match=r"m\.parquet lacks the columns voice"):
        manifest.read(tmp_path / "m.parquet")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"id": "a-0"}, "an id that another row has too"),
        ({"text": "  "}, "no text"),
        ({"seconds": 0.0}, "not above 0 s"),
        ({"sha256": "short"}, "no sha256"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, changes: dict[str, Any], named: str):
    with pytest.raises(LabError, match=f"row 1 .*{named}"):
        manifest.write(manifest.table([row(0), row(1, **changes)]), tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()


def test_a_row_with_too_little_or_too_much_is_named():
    lacking = row(0)
    del lacking["seed"]
    with pytest.raises(LabError, match="seed"):
        manifest.table([lacking])
    with pytest.raises(LabError, match="mood"):
        manifest.table([row(0, mood="glad")])


def test_a_file_that_is_no_manifest_is_named(tmp_path: Path):
    with pytest.raises(LabError, match="does not exist"):
        manifest.read(tmp_path / "none.parquet")
    (tmp_path / "m.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(LabError, match="is no readable table"):
        manifest.read(tmp_path / "m.parquet")


def test_a_value_of_the_wrong_type_is_an_error(tmp_path: Path):
    pd.DataFrame([row(0, seconds="long")]).to_parquet(tmp_path / "m.parquet")
    with pytest.raises(LabError, match="wrong type"):
        manifest.read(tmp_path / "m.parquet")
