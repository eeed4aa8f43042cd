"""The golden record: what the lab said and judged before its rooms were moved, to be said and judged after.

`python tests/golden/record.py` writes it anew: only when what the lab says, or its rows, is meant to change.

    speech.safetensors   for ten sentences a language: speech tokens (t), and every 25th sample of the wave
    ledger.json          all claims with their estimates, intervals, p and verdicts, to the last digit
    rows.json            for each table of `data/results/`: rows, and a digest of all columns but the key
"""

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from slmlab import files
from slmlab.files import plain
from slmlab.language.sentences import sentences
from slmlab.speech.chain import Chain
from slmlab.study import alignment, report, scaling
from slmlab.study.rows import RESULTS

HERE = Path(__file__).parent
LANGUAGES = ("vi", "sw")
EVERY = 25  # samples


def speech() -> dict[str, torch.Tensor]:
    """Tokens `<language>.<i>.tokens` and thinned waves `<language>.<i>.wave` of the shipped chain."""
    chain = Chain(files.SHIPPED / "tiny")
    kept: dict[str, torch.Tensor] = {}
    for language in LANGUAGES:
        texts = sentences(language, "test", 10, seed=0)
        names = sorted(chain.voices)
        timbres = torch.stack([chain.named_timbre(names[i % len(names)]) for i in range(len(texts))])
        for i, said in enumerate(chain.say(texts, language, timbres)):
            kept[f"{language}.{i}.tokens"] = torch.tensor(said.codes)
            kept[f"{language}.{i}.wave"] = said.wave[::EVERY].clone()
    return kept


def ledger() -> list[dict[str, Any]]:
    """Every claim as it is judged from the rows that are committed."""
    judged: list[dict[str, Any]] = json.loads(json.dumps(plain(report.judged("tiny")[2])))
    return judged


def rows() -> dict[str, dict[str, Any]]:
    """By table: how many rows, and a digest of every column but `key`."""
    found = {}
    for path in sorted(RESULTS.glob("*.parquet")):
        table = pq.read_table(path)
        total = hashlib.sha256()
        for name in sorted(set(table.column_names) - {"key"}):
            total.update(f"{name} {table.schema.field(name).type}\n".encode())
            total.update(json.dumps(table.column(name).to_pylist()).encode())
        found[path.name] = {"rows": len(table), "sha256": total.hexdigest()}
    return found


def keys_of(name: str, rows: pd.DataFrame) -> list[str]:
    """The keys that the code as it is would give the rows of a table of this name."""
    kind: Any = alignment.UNITS if "-aligned-" in name else scaling.CELLS
    identity = [field.name for field in fields(kind.job)]
    known: dict[Any, str] = {}
    for at in rows[identity].drop_duplicates().itertuples(index=False):
        job = kind.job(*at)
        known[tuple(at)] = kind.key(alignment.study_of("tiny", getattr(job, "language", "vi")), job)
    return [known[tuple(at)] for at in rows[identity].itertuples(index=False)]


def orphans() -> list[str]:
    """Tables with rows whose key is not the one that the code would give them: they would be made again."""
    tables = {path.name: pd.read_parquet(path) for path in sorted(RESULTS.glob("*.parquet"))}
    keyed = {name: rows for name, rows in tables.items() if "key" in rows}
    return [name for name, rows in keyed.items() if (rows["key"] != keys_of(name, rows)).any()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    save_file(speech(), HERE / "speech.safetensors")
    (HERE / "ledger.json").write_text(
        json.dumps(ledger(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (HERE / "rows.json").write_text(json.dumps(rows(), indent=1) + "\n", encoding="utf-8")
    print("orphans:", orphans())
