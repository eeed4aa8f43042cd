"""The rows of both studies under `data/results/`: computed once, published, merged and read back here.

A study consists of jobs: the cells of the scaling study, the units of the alignment study. Every row carries
its job's key, a digest of all that the row depends on. A job whose key is published is not computed again.
What a job leaves on its way lies in the cache: a run that was killed goes on there, mid-training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from filelock import FileLock

from slmlab import files, places
from slmlab.errors import LabError
from slmlab.sound import SAMPLE_RATE, audio
from slmlab.training.cache import DONE, Stage, run_stages, stage_folders

RESULTS = files.DATA / "results"
WITHIN = ("split", "sentence", "round", "place", "temperature", "noise", "sample", "set")
"""Columns that tell the rows of one job apart, as far as a table has them."""
EXACT = ("temperature", "noise")
"""Settings among the figures: they are kept exactly."""
Folders = Mapping[str, Path]
"""Folders of finished stages by name."""


@dataclass(frozen=True)
class Kind:
    """What sets the jobs of one study apart; every function takes the study's numbers first.

    A job is a dataclass; its fields are columns of all its rows, its `name` is for stages (the last is
    `say.<name>`), files and messages, and its `table` is how the names of its tables begin.
    """

    job: type[Any]
    """The dataclass of its jobs."""
    last: str
    """The table that is written last: a job with a row there is published."""
    key: Callable[[Any, Any], str]
    """A digest of all that a job's rows depend on."""
    stages: Callable[[Any, Sequence[Any]], list[Stage]]
    """All stages that jobs need."""
    tables: Callable[[Any, Any, Folders], dict[str, pd.DataFrame]]
    """The rows of a finished job by table."""
    share: Callable[[Any, Sequence[Any], Folders, Path], None]
    """Publishes what is no job's own: recordings, and sounds to listen to."""


def run(kind: Kind, study: Any, wanted: Sequence[Any], workers: int = 0, target: Path = RESULTS) -> list[Any]:
    """Compute the jobs that have no rows yet and publish those that finish, even when others fail.

    `workers` processes run side by side, a thread each; 0 takes one a core.

    Returns:
        The jobs that had to be computed.

    Raises:
        LabError: some jobs failed.
    """
    published = set(read_rows(study.preset, f"*-{kind.last}", target).get("key", ()))
    missing = [job for job in wanted if kind.key(study, job) not in published]
    if missing:
        stages, cache = kind.stages(study, missing), files.CACHE / study.preset
        folders = stage_folders(stages, cache)  # asked before: an edit of the code meanwhile moves nothing
        try:
            run_stages(stages, cache, workers or places.usable_cores(), keep_going=True)
        finally:
            with FileLock(files.CACHE / "publishing.lock"):  # rows are read, merged and written back
                publish(kind, study, missing, folders, target)
    return missing


def publish(kind: Kind, study: Any, jobs: Sequence[Any], folders: Folders, target: Path) -> None:
    """Merge the rows of finished jobs into the tables of `target`."""
    finished = [job for job in jobs if (folders[f"say.{job.name}"] / DONE).exists()]
    labels = [field.name for field in fields(kind.job)]
    new: dict[str, list[pd.DataFrame]] = {}
    for job in finished:
        own = {"key": kind.key(study, job)} | {name: getattr(job, name) for name in labels}
        for name, rows in kind.tables(study, job, folders).items():
            new.setdefault(f"{job.table}-{name}", []).append(rows.assign(**own))
    for name in sorted(new, key=lambda name: name.endswith(kind.last)):
        _merge(kind, study, new[name], labels, target / f"{study.preset}-{name}.parquet")
    if finished:
        kind.share(study, finished, folders, target)


def _merge(kind: Kind, study: Any, new: list[pd.DataFrame], labels: list[str], path: Path) -> None:
    """Put new rows in place of old ones; rows of the study's language whose key is no longer current go.

    So the rows of two chains never mix: whoever trains anew begins the table anew.
    """
    old = [read_frame(path)] if path.exists() else []
    rows = pd.concat([*old, *new], ignore_index=True)
    own = rows[rows["language"] == study.language] if "language" in rows else rows
    jobs = [kind.job(*values) for values in own[labels].drop_duplicates().itertuples(index=False)]
    stale = own.index[~own["key"].isin({kind.key(study, job) for job in jobs})]
    order = [*labels, *(name for name in WITHIN if name in rows)]
    rows = rows.drop(stale).drop_duplicates(order, keep="last")
    write_rows(rows.sort_values(order, kind="stable"), path)


def small(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows as they are published: counts in two bytes, figures with three digits."""
    kinds = {
        name: np.int16 if np.issubdtype(rows[name].dtype, np.integer) else np.float16
        for name in rows.select_dtypes("number")
        if name not in EXACT
    }
    return rows.astype(kinds)


def small_draws(metrics: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Entropies as columns of one row; `<name>_draws` become differences from `<name>`, which are small."""
    columns: dict[str, list[Any]] = {}
    for name, value in metrics.items():
        figure = np.array(value, dtype=np.float64)  # JSON has null for NaN: float64 takes both
        if name.endswith("_draws"):
            figure = (figure - np.float64(metrics[name.removesuffix("_draws")])).astype(np.float16)
        columns[name] = [figure if figure.ndim else np.float64(figure)]
    return columns


def read_frame(path: Path) -> pd.DataFrame:
    """A table of rows; LabError where the file is damaged."""
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise LabError(f"{path} is no readable table ({error}): delete it and make it again.") from None


def read_rows(preset_name: str, pattern: str, target: Path = RESULTS) -> pd.DataFrame:
    """The rows of all tables `<preset>-<pattern>`, empty without one; figures are doubles again."""
    tables = [read_frame(path) for path in sorted(target.glob(f"{preset_name}-{pattern}.parquet"))]
    rows = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return rows.astype({name: np.float64 for name in rows if rows[name].dtype == np.float16})


def write_rows(rows: pd.DataFrame, path: Path) -> None:
    """Write a table small, whole or not at all; equal rows give equal bytes."""
    table = pa.Table.from_pandas(rows.reset_index(drop=True), preserve_index=False).replace_schema_metadata()
    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    others = [name for name in table.column_names if name not in floats]
    with files.whole(path) as part:
        pq.write_table(
            table,
            part,
            compression="zstd",
            compression_level=19,
            use_dictionary=[*others, "codes.list.element"],
            column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
        )


def copy_sound(source: Path, target: Path) -> None:
    """Publish a generated sound as FLAC, half as large as WAV and marked like it."""
    wave = audio.read(source)[0]
    with soundfile.SoundFile(target, "w", SAMPLE_RATE, channels=1, subtype="PCM_16", format="FLAC") as file:
        file.comment = audio.GENERATED
        file.write(wave)
