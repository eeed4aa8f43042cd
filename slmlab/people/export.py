"""Votes as tables that other programs read: a preference table for training, all votes, and the events.

`prompt`, `chosen` and `rejected` are the columns that TRL's preference trainers take. Speech tokens stand in
them as `<|s_12|>`, since TRL tokenises strings, and as numbers in columns beside. A sound whose tokens are
not known is named by its hash instead.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from slmlab.errors import LabError
from slmlab.language.text import as_string
from slmlab.people import ranking
from slmlab.people.design import TASKS, Clip, Study
from slmlab.people.store import LEFT, RIGHT, SIMULATED, Store

TEST_SHARE = 0.1
TEXT, IDS = pa.string(), pa.list_(pa.int64())
SCHEMA = pa.schema(
    [
        *((name, TEXT) for name in ("prompt", "chosen", "rejected")),
        *((name, IDS) for name in ("chosen_tokens", "rejected_tokens")),
        *(
            (name, TEXT)
            for name in ("split", "pair", "sentence", "annotator", "side", "decision", "reasons", "note")
        ),
        *((name, TEXT) for name in ("chosen_system", "rejected_system", "chosen_sha256", "rejected_sha256")),
        *((name, pa.float64()) for name in ("chosen_gain_db", "rejected_gain_db")),
        *((name, pa.int64()) for name in ("chosen_seed", "rejected_seed", "ms")),
        ("plays", TEXT),
    ]
)


def split_of(prompt: str) -> str:
    """train or test, by the prompt alone: no prompt stands on both sides."""
    point = int.from_bytes(hashlib.blake2b(prompt.encode(), digest_size=6).digest(), "big") / 2**48
    return "test" if point < TEST_SHARE else "train"


def preferences(store: Store) -> pd.DataFrame:
    """One row for each vote that counts and prefers one of two clips, with the columns of `SCHEMA`.

    Left out: practice, gold, repeats, ties, both bad, skips, and listeners whom the study's rules exclude.
    """
    study = store.study
    votes = ranking.votes_of(store)
    kept = ranking.counting(votes, ranking.exclusions(votes, study.rules))
    people = annotators(store)
    rows = [_row(study, vote, people) for vote in kept[kept["decision"].isin([LEFT, RIGHT])].itertuples()]
    return pa.Table.from_pylist(rows, schema=SCHEMA).to_pandas()


def all_votes(store: Store) -> pd.DataFrame:
    """Votes and ratings of every task, as `ranking.votes_of` gives them."""
    every = [ranking.votes_of(store, task) for task in TASKS]
    return pd.concat([one for one in every if len(one)] or every[:1], ignore_index=True)


def annotators(store: Store) -> dict[str, str]:
    """Listener → L01, L02, … in the order in which they came: names stay in the store.

    Whoever came stays in that order whatever happens later, so that every export gives them the same number.
    A simulated listener is `simulated L03`: nobody shall take a program's votes for a person's.
    """
    came = store.table("sessions").groupby("listener")["event"].min().sort_values()
    return {
        name: f"{SIMULATED} L{i:02d}" if name.startswith(SIMULATED) else f"L{i:02d}"
        for i, name in enumerate(came.index, start=1)
    }


def write(store: Store, folder: str | Path) -> list[Path]:
    """Write preferences (Parquet and JSON Lines), all votes and ratings (Parquet) and the events (JSON
    Lines), each with the numbers of `annotators` in place of names.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pandas(preferences(store), SCHEMA, preserve_index=False)
    pq.write_table(table, folder / "preferences.parquet")
    _write_lines(folder / "preferences.jsonl", table.to_pylist())
    votes, people = all_votes(store), annotators(store)
    votes["listener"] = [people[name] for name in votes["listener"]]
    votes.to_parquet(folder / "votes.parquet", index=False)
    _write_lines(folder / "events.jsonl", [_numbered(event, people) for event in store.events()])
    return [folder / n for n in ("preferences.parquet", "preferences.jsonl", "votes.parquet", "events.jsonl")]


def read(path: str | Path) -> pd.DataFrame:
    """A preference table from the Parquet or the JSON Lines file: the same table from either.

    Raises:
        LabError: the file is not there or is no preference table.
    """
    path = Path(path)
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
        else:
            table = pa.Table.from_pylist(_lines(path), schema=SCHEMA)
        return table.select(SCHEMA.names).cast(SCHEMA).to_pandas()
    except FileNotFoundError:
        raise LabError(f"{path} does not exist: export the votes first") from None
    except (KeyError, ValueError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise LabError(f"{path} is no preference table ({error}): export the votes again") from error


def take_in(path: str | Path, store: Store) -> None:
    """Add the events of an `events.jsonl` to a store; those that are there already change nothing.

    Into a store that is empty or holds an earlier export of the same one: every store numbers its own people
    from L01.
    """
    store.take_in(_lines(Path(path)))


def _numbered(event: dict[str, Any], people: Mapping[str, str]) -> dict[str, Any]:
    """An event with a listener's number in place of the name; who only made a recording has none."""
    named = {
        who: people.get(event["body"][who], "") for who in ("listener", "speaker") if who in event["body"]
    }
    return event | {"body": event["body"] | named}


def _row(study: Study, vote: Any, people: dict[str, str]) -> dict[str, Any]:
    first, second = study.by_name[vote.first], study.by_name[vote.second]
    chosen, rejected = (first, second) if vote.decision == LEFT else (second, first)
    prompt = chosen.text or chosen.sentence
    both = {
        f"{name}{suffix}": value
        for name, clip in (("chosen", chosen), ("rejected", rejected))
        for suffix, value in _of_clip(clip).items()
    }
    return both | {
        "prompt": prompt,
        "split": split_of(prompt),
        "pair": vote.item,
        "sentence": vote.sentence,
        "annotator": people[vote.listener],
        "side": vote.decision,
        "decision": vote.decision,
        "reasons": vote.tags,
        "note": vote.note,
        "ms": vote.ms,
        "plays": vote.plays,
    }


def _of_clip(clip: Clip) -> dict[str, Any]:
    return {
        "": as_string(clip.tokens) or f"sha256:{clip.sha256}",
        "_tokens": list(clip.tokens),
        "_system": clip.system,
        "_sha256": clip.sha256,
        "_gain_db": clip.gain_db,
        "_seed": clip.seed,
    }


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
