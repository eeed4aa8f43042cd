"""Votes as tables that other programs read: preferences for training, all votes, and the events.

The table of preferences is one of pairs (`slmlab.corpus.pairs`), which `slmlab align people` and TRL's
trainers take; columns of the vote stand beside.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from slmlab.corpus import pairs
from slmlab.corpus.pairs import Pair
from slmlab.errors import LabError
from slmlab.files import fraction, replace_text, whole
from slmlab.language.text import for_scoring
from slmlab.people import ranking
from slmlab.people.design import LEFT, RIGHT, ListeningTest
from slmlab.people.store import SIMULATED, Store

TEST_SHARE = 0.1
NEEDED = ("prompt", *pairs.SIDES)
SCHEMA = pa.schema(
    [
        *pairs.SCHEMA,
        *((name, pa.string()) for name in ("pair", "sentence", "annotator", "side", "decision", "reasons")),
        *((name, pa.string()) for name in ("note", "chosen_system", "rejected_system", "plays")),
        *((name, pa.float64()) for name in ("chosen_gain_db", "rejected_gain_db")),
        *((name, pa.int64()) for name in ("chosen_seed", "rejected_seed", "ms")),
    ]
)


def split_of(prompt: str) -> str:
    """train or test, by the words alone: no sentence stands on both sides, however it is written."""
    return "test" if fraction(for_scoring(prompt)) < TEST_SHARE else "train"


def preferences(store: Store) -> pd.DataFrame:
    """One row for each vote that counts and prefers one of two clips, with the columns of `SCHEMA`.

    Left out: practice, gold, repeats, ties, both bad, skips, and listeners whom the test's rules exclude.
    """
    votes, people = ranking.votes_of(store), annotators(store)
    valid = ranking.counting(votes, ranking.exclusions(votes, store.test.rules))
    decided = valid[valid["decision"].isin([LEFT, RIGHT])].itertuples()
    rows = [_row(f"vote-{i}", store.test, vote, people) for i, vote in enumerate(decided)]
    return pa.Table.from_pylist(rows, schema=SCHEMA).to_pandas()


def annotators(store: Store) -> dict[str, str]:
    """Listener → L01, L02, … in the order in which they came, so the same in every export; no name leaves.

    A simulated listener is `simulated L03`: nobody shall take a program's votes for a person's.
    """
    came = store.sessions().groupby("listener")["event"].min().sort_values()
    return {
        name: f"{SIMULATED} L{i:02d}" if name.startswith(SIMULATED) else f"L{i:02d}"
        for i, name in enumerate(came.index, start=1)
    }


def write(store: Store, folder: str | Path) -> list[Path]:
    """Write preferences (Parquet and JSON Lines), all votes and ratings (Parquet) and the events (JSON
    Lines), each with the numbers of `annotators` in place of names.
    """
    names = ("preferences.parquet", "preferences.jsonl", "votes.parquet", "events.jsonl")
    files = [Path(folder) / name for name in names]
    table = pa.Table.from_pandas(preferences(store), SCHEMA, preserve_index=False)
    votes, people = ranking.with_systems(store.votes(), store.test), annotators(store)
    with whole(files[0]) as part:
        pq.write_table(table, part)
    with whole(files[2]) as part:
        votes.assign(listener=votes["listener"].map(people)).to_parquet(part, index=False)
    events = [_numbered(event, people) for event in store.events()]
    for file, rows in ((files[1], table.to_pylist()), (files[3], events)):
        replace_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return files


def read(path: str | Path) -> pd.DataFrame:
    """A preference table, the same from the Parquet or the JSON Lines file; rows that are none are left out,
    each in a line. LabError: all of them are.
    """
    rows, faults = [], list[str]()
    for place, row in pairs.numbered(Path(path)):
        told = {"group": row.get("split"), **row} if isinstance(row, dict) else {}
        try:
            if missing := [name for name in NEEDED if not isinstance(told.get(name), str)]:
                why = f"is {row}" if isinstance(row, LabError) else f"lacks {', '.join(missing)}"
                raise LabError(f"{place} {why}")
            rows += pa.Table.from_pylist([told], SCHEMA).to_pylist()
        except LabError as error:
            faults.append(str(error))
        except (ArithmeticError, TypeError, ValueError) as error:
            faults.append(f"{place} cannot stand in a table: {error}")
    if faults and not rows:
        raise LabError(f"{path} is no preference table ({faults[0]}): export the votes again")
    for fault in faults:
        print(f"left out: {fault}")
    return pa.Table.from_pylist(rows, SCHEMA).to_pandas()


def take_in(path: str | Path, store: Store) -> None:
    """Add the new events of an `events.jsonl` to a store that is empty or holds an earlier export of the same
    one: every store numbers its own people from L01. What is no event is left out, each in a line.
    """
    store.take_in(pairs.numbered(Path(path)))


def _numbered(event: dict[str, Any], people: Mapping[str, str]) -> dict[str, Any]:
    """An event with a listener's number in place of the name; who only made a recording has none."""
    body = event["body"]
    numbers = {who: people.get(str(body[who]), "") for who in ("listener", "speaker") if who in body}
    return event | {"body": body | numbers}


def _row(name: str, test: ListeningTest, vote: Any, people: dict[str, str]) -> dict[str, Any]:
    """A vote as a pair, with the columns of the vote."""
    first, second = test.by_name[vote.first], test.by_name[vote.second]
    chosen, rejected = (first, second) if vote.decision == LEFT else (second, first)
    prompt = chosen.text or chosen.sentence
    pair = Pair(name, "", prompt, chosen.tokens, rejected.tokens, origin="people", group=split_of(prompt))
    pair = replace(pair, chosen_sha256=chosen.sha256, rejected_sha256=rejected.sha256)
    about = {"pair": vote.item, "annotator": people[vote.listener], "reasons": vote.tags}
    about |= {"side": vote.decision, "decision": vote.decision}
    about |= {of: getattr(vote, of) for of in ("sentence", "note", "ms", "plays")}
    for side, clip in (("chosen", chosen), ("rejected", rejected)):
        about |= {f"{side}_{of}": getattr(clip, of) for of in ("system", "gain_db", "seed")}
    return pairs.as_row(pair) | about
