"""Pairs survive the table, and what cannot be learned from is refused in a sentence."""

import contextlib
import dataclasses
import hashlib
import io
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmlab.corpus import pairs as table
from slmlab.corpus.pairs import Pair
from slmlab.errors import LabError
from slmlab.preference.tune import held_out

REAL = Pair("a", "vi", "Chị Hà ơi", (1, 2, 6560), (1, 2), "real", (7,), "stability", 0.5)
JUDGED = Pair("b", "sw", "moja mbili", (3,), (4, 4), "judge")


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    table.write([REAL, JUDGED], tmp_path / "pairs.parquet")
    assert table.read(tmp_path / "pairs.parquet") == [REAL, JUDGED]


def test_tokens_may_be_numbers_of_numpy(tmp_path: Path) -> None:
    table.write(
        [dataclasses.replace(REAL, chosen_tokens=tuple(np.array(REAL.chosen_tokens)))],
        tmp_path / "pairs.parquet",
    )
    assert table.read(tmp_path / "pairs.parquet") == [REAL]


def test_tokens_are_written_as_trl_reads_them(tmp_path: Path) -> None:
    table.write([REAL], tmp_path / "pairs.parquet")
    _, row = next(table.numbered(tmp_path / "pairs.parquet"))
    assert (row["prompt"], row["chosen"], row["rejected"]) == (
        "Chị Hà ơi", "<|s_1|><|s_2|><|s_6560|>", "<|s_1|><|s_2|>",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rejected_tokens": REAL.chosen_tokens}, r"pair 1 \('a2'\) has two equal sides"),
        ({"rejected_tokens": ()}, "has a side without tokens"),
        ({"chosen_tokens": (6561,)}, r"the chosen_tokens \(6561,\), expected whole numbers from 0 to 6560"),
        ({"prompt": " ?!"}, "has a text without a word"),
        ({"origin": "chance"}, "has the origin 'chance', expected one of real, judge, people"),
        ({"weight": float("nan")}, "has the weight nan, expected a number above 0"),
        ({"weight": "much"}, "has the weight 'much', expected a number above 0"),
        ({"id": "a"}, "has an id that another one has too"),
        ({"chosen_sound": "gone.wav"}, r"has a sound that is gone \(.*gone.wav\)"),
    ],
)
def test_bad_pairs_are_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    bad = dataclasses.replace(REAL, **{"id": "a2"} | change)
    with pytest.raises(LabError, match=said):
        table.write([REAL, bad], tmp_path / "pairs.parquet")
    assert not (tmp_path / "pairs.parquet").exists()


def test_a_sound_must_be_the_one_that_was_judged(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"sound")
    digest = hashlib.sha256(b"sound").hexdigest()
    heard = dataclasses.replace(REAL, chosen_sound="a.wav", chosen_sha256=digest)
    table.check([heard], "votes", tmp_path)
    with pytest.raises(LabError, match="is not the one that was judged"):
        table.check([dataclasses.replace(heard, chosen_sha256="0" * 64)], "votes", tmp_path)


def test_nothing_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="holds no pair"):
        table.check([], "votes")
    with pytest.raises(LabError, match="does not exist"):
        table.read(tmp_path / "votes.parquet")
    (tmp_path / "votes.parquet").write_bytes(b"PAR1")
    with pytest.raises(LabError, match="is no readable table"):
        table.read(tmp_path / "votes.parquet")


def test_votes_between_equal_tokens_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vote = {"prompt": "moja", "chosen": "<|s_1|>", "rejected": "<|s_3|>"}
    file = tmp_path / "votes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in (vote, vote | {"rejected": "<|s_1|>"})))
    assert [(pair.chosen_tokens, pair.rejected_tokens) for pair in table.read(file, "sw")] == [((1,), (3,))]
    assert (
        "1 votes left out, between sounds that are the same row of speech tokens" in capsys.readouterr().out
    )
    file.write_text("[1, 2]\n")
    with pytest.raises(
        LabError, match="row 0: no prompt and no chosen and no rejected: it is no preference table"
    ):
        table.read(file, "sw")


def test_a_table_that_cannot_be_written_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table.pq, "write_table", full)
    with pytest.raises(LabError, match=r"could not be written .*No space left"):
        table.write([REAL], tmp_path / "pairs.parquet")
    assert not list(tmp_path.iterdir())


def test_exported_votes_are_pairs_of_people(tmp_path: Path) -> None:
    """Strings alone, or numbers beside them; what a vote has besides stays where it is."""
    votes = [
        {"prompt": "moja", "chosen": "<|s_1|><|s_2|>", "rejected": "<|s_3|>", "split": "train", "side": "A"},
        {"prompt": "mbili", "chosen": "?", "rejected": "?", "chosen_tokens": [5], "rejected_tokens": [6, 6]},
    ]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in votes))
    assert table.read(tmp_path / "votes.jsonl", language="sw") == [
        Pair("votes-0", "sw", "moja", (1, 2), (3,), "people", group="train"),
        Pair("votes-1", "sw", "mbili", (5,), (6, 6), "people"),
    ]
    (tmp_path / "votes.jsonl").write_text(json.dumps(votes[0] | {"chosen": "sha256:ab"}) + "\n")
    with pytest.raises(LabError, match=r"row 0: chosen names a sound .sha256:ab.*with --clips"):
        table.read(tmp_path / "votes.jsonl", language="sw")
    heard = table.read(tmp_path / "votes.jsonl", "sw", encode={"ab": [8, 8]}.__getitem__)
    assert heard[0].chosen_tokens == (8, 8)
    for change, said in (
        ({"chosen": "?", "chosen_tokens": ["a"]}, r"has the chosen_tokens \('a',\), expected whole numbers"),
        ({"chosen": "?", "chosen_tokens": [1.5]}, r"has the chosen_tokens \(1.5,\), expected whole numbers"),
        (
            {"chosen": "?", "chosen_tokens": [[1]]},
            r"has the chosen_tokens \(\[1\],\), expected whole numbers",
        ),
        ({"chosen_tokens": 5}, "has the chosen_tokens 5, expected whole numbers"),
        ({"style": 7}, "has the style 7, expected whole numbers"),
        ({"id": ["a"]}, r"has the id \('a',\), expected text"),
        (
            {"id": "a\nb", "weight": 10**400},
            r"row 0: \('a\\nb'\) has the weight 1000+\.+0+, expected a number",
        ),
        ({"language": 7}, "has the language 7, expected text"),
        ({"chosen_sound": 3}, "has the chosen_sound 3, expected text"),
        ({"chosen_sound": "a" * 300}, "has a sound that is gone"),
        ({"prompt": "moja \ud800"}, "row 0: not UTF-8"),
    ):
        (tmp_path / "votes.jsonl").write_text(json.dumps(votes[0] | change) + "\n")
        with pytest.raises(LabError, match=said):
            table.read(tmp_path / "votes.jsonl", language="sw")
    (tmp_path / "votes.jsonl").write_text('{"prompt": "moja"}\n')
    with pytest.raises(LabError, match="no chosen and no rejected: it is no preference table"):
        table.read(tmp_path / "votes.jsonl")


def test_a_parquet_file_of_what_python_does_not_hold_is_one_sentence(tmp_path: Path) -> None:
    offsets, content = (pa.py_buffer(part) for part in (b"\0\0\0\0\x02\0\0\0", b"a\xff"))
    for prompt in (pa.StringArray.from_buffers(1, offsets, content), pa.array([2**60], pa.timestamp("us"))):
        pq.write_table(pa.table({"prompt": prompt}), tmp_path / "votes.parquet")
        with pytest.raises(LabError, match=r"votes\.parquet is no readable table \(.*\): export the votes"):
            table.read(tmp_path / "votes.parquet", "sw")


VOTE = {"prompt": "moja", "chosen": "<|s_1|>", "rejected": "<|s_3|>"}


def rows_read(file: Path, rows: list[object]) -> list[str]:
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return [pair.id for pair in table.read(file, "sw")]


def test_what_cannot_be_used_is_named_by_row_and_the_rest_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        VOTE,
        "{broken",
        VOTE | {"chosen": "<|s_7|>", "chosen_tokens": [1]},
        VOTE | {"chosen": "sha256:ab", "chosen_tokens": [1], "chosen_sha256": "cd"},
        VOTE | {"origin": "judge", "rejected": "<|s_1|>"},
        VOTE | {"id": "votes-0"},
        VOTE | {"prompt": "a\u2028b"},
        VOTE | {"chosen": f"<|s_{'9' * 5000}|>"},
    ]
    assert rows_read(tmp_path / "votes.jsonl", rows) == ["votes-0", "votes-6"]
    said = capsys.readouterr().out.replace(f"left out: {tmp_path}/votes.jsonl, row ", "")
    for line, told in zip(
        said.split("\n"),
        (
            "1: no readable table",
            "2: chosen and chosen_tokens differ",
            "3: chosen and chosen_sha256 differ",
            "4: ('votes-4') has two equal sides",
            "5: ('votes-0') has an id that another one has too",
            "7: chosen is no row of speech tokens",
            "",
        ),
        strict=True,
    ):
        assert line.startswith(told)


def test_our_own_export_with_any_line_separator_is_read(tmp_path: Path) -> None:
    pair = dataclasses.replace(REAL, prompt="mama\u2028anapika\x85leo\u2029")
    file = tmp_path / "votes.jsonl"
    file.write_text(json.dumps(table.as_row(pair), ensure_ascii=False) + "\n", encoding="utf-8")
    assert [read.prompt for read in table.read(file)] == [pair.prompt]


VALUE = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=4), st.lists(st.integers(-1, 7000), max_size=3)
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.builds(
                lambda change: VOTE | change, st.dictionaries(st.sampled_from(sorted(table.FIELDS)), VALUE)
            ),
            VALUE,
            st.text(max_size=8),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_row_is_used_or_named(rows: list[object]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as said:
        file = Path(folder) / "votes.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in [VOTE | {"id": "first"}, *rows]))
        used = len(table.read(file, "sw"))
        equal = re.search(r"(\d+) votes left out", said.getvalue())
        assert used + said.getvalue().count("left out: ") + int(equal[1] if equal else 0) == 1 + len(rows)


def test_no_text_is_both_learned_and_looked_at() -> None:
    many = [dataclasses.replace(JUDGED, id=str(i), prompt=f"moja {'a' * (i // 2)}") for i in range(200)]
    learned, watched = held_out(many)
    assert len(learned) + len(watched) == 200
    assert 4 <= len(watched) <= 40
    assert not {pair.prompt for pair in learned} & {pair.prompt for pair in watched}
