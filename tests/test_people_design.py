"""Clips before listeners: opaque names, equal loudness, pairs of every sentence two systems share."""

import csv
import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from slmlab.errors import LabError
from slmlab.files import from_plain
from slmlab.people import design
from slmlab.people.design import DISTORTED, REFERENCE_SECONDS, REFERENCES, ListeningTest
from slmlab.sound import SAMPLE_RATE, audio


def tone(seconds: float, level: float, hertz: float = 200.0) -> np.ndarray:
    return level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)


@pytest.fixture
def systems(tmp_path: Path) -> Path:
    root = tmp_path / "systems"
    for i, level in enumerate((0.02, 0.2, 0.5)):
        for n in range(4):
            path = root / f"sys{i}" / f"{n:03d}.wav"
            audio.write(path, tone(1.0, level, 150 + 40 * n))
            path.with_suffix(".txt").write_text(f"Words of {n}.\n")
    (root / "sys0" / "000.json").write_text(json.dumps({"tokens": [3, 1, 2], "seed": 7}))
    audio.write(root / "sys0" / "alone.wav", tone(1.0, 0.1))
    return root


def test_pairs_are_all_pairs_of_systems_at_every_shared_sentence(systems: Path, tmp_path: Path) -> None:
    made = design.from_systems(systems, tmp_path / "lab")
    assert len(made.pairs) == 4 * 3
    clips = made.by_name
    for pair in made.pairs:
        assert clips[pair.first].sentence == clips[pair.second].sentence
        assert clips[pair.first].system < clips[pair.second].system
    assert made.systems == ("sys0", "sys1", "sys2")
    first = next(c for c in made.clips if c.system == "sys0" and c.sentence == "000")
    assert (first.tokens, first.seed, first.text) == ((3, 1, 2), 7, "Words of 0.")
    assert from_plain(ListeningTest, json.loads(json.dumps(asdict(made))), "the test") == made


def test_clips_are_equally_loud_and_the_originals_stay(systems: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in systems.rglob("*.wav")}
    made = design.from_systems(systems, tmp_path / "lab")
    levels = [
        design.lufs(audio.read(tmp_path / "lab" / "clips" / f"{c.name}.wav")[0])
        for c in made.clips
        if c.system != DISTORTED
    ]
    assert max(levels) - min(levels) < 0.1
    assert {path: path.read_bytes() for path in before} == before
    gains = {c.system: c.gain_db for c in made.clips if c.sentence == "000" and c.system != DISTORTED}
    assert gains["sys0"] - gains["sys1"] == pytest.approx(20, abs=0.05), "0.02 is 20 dB below 0.2"


def test_nothing_played_tells_who_speaks(systems: Path, tmp_path: Path) -> None:
    made = design.from_systems(systems, tmp_path / "lab")
    for clip in made.clips:
        assert set(clip.name) <= set("0123456789abcdef")
        with soundfile.SoundFile(tmp_path / "lab" / "clips" / f"{clip.name}.wav") as file:
            assert (file.samplerate, file.channels, file.subtype, file.comment) == (16000, 1, "PCM_16", "")
    assert len({c.name for c in made.clips}) == len(made.clips)


def test_gold_pairs_set_a_clip_against_its_ruin(systems: Path, tmp_path: Path) -> None:
    made = design.from_systems(systems, tmp_path / "lab")
    assert len(made.gold) == 12
    for pair in made.gold:
        assert pair.answer == pair.first
        assert made.by_name[pair.second].system == DISTORTED
        assert made.by_name[pair.first].sentence == made.by_name[pair.second].sentence


def test_a_distorted_clip_is_far_from_the_clean_one() -> None:
    clean = tone(1.0, 0.3).astype(np.float32)
    ruined = design.distort(clean, 0)
    assert abs(np.corrcoef(clean, ruined)[0, 1]) < 0.8
    assert np.abs(ruined).max() < 10


def test_references_are_cut_to_three_seconds_and_not_compared(systems: Path, tmp_path: Path) -> None:
    for n in range(4):
        audio.write(systems / REFERENCES / f"{n:03d}.wav", tone(5.0, 0.2))
    made = design.from_systems(systems, tmp_path / "lab")
    assert len(made.pairs) == 12
    assert sorted(made.references) == ["000", "001", "002", "003"]
    assert {made.by_name[name].seconds for name in made.references.values()} == {REFERENCE_SECONDS}
    assert all(made.by_name[g.first].system == REFERENCES for g in made.gold), "gold is a person's recording"


def test_a_sound_too_short_for_the_standard_still_has_a_loudness() -> None:
    assert design.lufs(tone(0.2, 0.1).astype(np.float32)) == pytest.approx(
        20 * np.log10(0.1 / 2**0.5), abs=0.1
    )


def test_pairs_from_a_file(systems: Path, tmp_path: Path) -> None:
    table = systems / "pairs.csv"
    table.write_text(
        "first,second,first_system,second_system,text,answer\n"
        "sys0/000.wav,sys1/000.wav,sys0,sys1,Habari.,\n"
        "sys2/001.wav,sys0/001.wav,sys2,sys0,,first\n"
    )
    made = design.from_pairs(table, tmp_path / "lab")
    assert [made.by_name[n].system for n in (made.pairs[0].first, made.pairs[0].second)] == ["sys0", "sys1"]
    assert made.by_name[made.pairs[0].first].text == "Habari."
    assert [g.answer == g.first for g in made.gold] == [True]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sys0/000.wav,,a,b,", "line 2 lacks second"),
        ("sys0/000.wav,sys1/000.wav,a,b,maybe", "answer is 'maybe'"),
    ],
)
def test_a_wrong_pairs_file_is_explained(systems: Path, tmp_path: Path, line: str, words: str) -> None:
    table = systems / "pairs.csv"
    table.write_text(f"first,second,first_system,second_system,answer\n{line}\n")
    with pytest.raises(LabError, match=words):
        design.from_pairs(table, tmp_path / "lab")


@pytest.mark.parametrize(("encoding", "line"), [("latin-1", 3)])
def test_a_pairs_file_in_another_encoding_is_explained(
    systems: Path, tmp_path: Path, encoding: str, line: int
) -> None:
    table = systems / "pairs.csv"
    pair = "sys0/000.wav,sys1/000.wav,a,b"
    text = f"first,second,first_system,second_system,text\n{pair},Habari.\n{pair},Größe\n"
    table.write_bytes(text.encode(encoding))
    with pytest.raises(LabError, match=rf"pairs\.csv, line {line} is not UTF-8"):
        design.from_pairs(table, tmp_path / "lab")
    table.write_text(text.replace("000", "001", 1), encoding="utf-8-sig")
    assert {c.text for c in design.from_pairs(table, tmp_path / "lab").clips} >= {"Habari.", "Größe"}


def test_a_pairs_file_that_is_no_table_is_explained(systems: Path, tmp_path: Path) -> None:
    table = systems / "pairs.csv"
    endless = "x" * (csv.field_size_limit() + 1)
    table.write_text(f"first,second,first_system,second_system\na.wav,b.wav,a,b\n{endless},,,\n")
    with pytest.raises(LabError, match=r"pairs\.csv, line 3 cannot be read \(field larger"):
        design.from_pairs(table, tmp_path / "lab")
    with pytest.raises(LabError, match=r"nothing\.csv does not exist"):
        design.from_pairs(systems / "nothing.csv", tmp_path / "lab")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("sys1/002.txt", "eins\nGröße".encode("latin-1"), r"002\.txt, line 2 is not UTF-8"),
        ("sys1/002.json", b'{"text": "\xe9"}', r"002\.json, line 1 is not UTF-8"),
        ("sys1/002.json", b"{'seed': 1}", r"002\.json is .*: Invalid JSON"),
        ("sys1/002.json", b"[1]", r"002\.json is .*expected a dict"),
        ("sys1/002.json", b'{"seed": "seven"}', r"002\.json, seed is 'seven': expected a valid integer"),
        ("sys1/002.json", b'{"seed": Infinity}', r"002\.json, seed is inf"),
        ("sys1/002.json", b'{"seed": 9223372036854775808}', r"002\.json, seed is"),
        ("sys1/002.json", b'{"tokens": "12"}', r"002\.json, tokens is '12': expected"),
        ("sys1/002.json", b'{"tokens": [1, null]}', r"002\.json, tokens, 1 is None"),
    ],
)
def test_a_test_that_fails_says_where_and_leaves_nothing(
    systems: Path, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (systems / name).write_bytes(content)
    with pytest.raises(LabError, match=words):
        design.from_systems(systems, tmp_path / "lab")
    assert not (tmp_path / "lab").exists()
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "mine.txt").write_text("of somebody")
    with pytest.raises(LabError, match=words):
        design.from_systems(systems, tmp_path / "lab")
    assert [path.name for path in (tmp_path / "lab").iterdir()] == ["mine.txt"]


def test_a_study_is_checked_as_a_whole_before_it_is_made(
    systems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (systems / "sys0" / "notes.m4a").write_bytes(b"x")
    (systems / "sys0" / "000.wav").write_bytes(b"x")
    (systems / "sys1" / "001.wav").write_bytes(b"")
    with pytest.raises(LabError, match=r"nothing was made: .*sys0/000\.wav .*; .*sys1/001\.wav is empty"):
        design.from_systems(systems, tmp_path / "lab")
    assert "sys0: 1 files are not used, the first notes.m4a" in capsys.readouterr().out
    (systems / "distorted").mkdir()
    audio.write(systems / "sys1" / "000.flac", tone(0.5, 0.1))
    with pytest.raises(LabError, match="sys1 has 2 sounds called 000, keep one") as raised:
        design.from_systems(systems, tmp_path / "lab")
    assert "no system can be called 'distorted'" in str(raised.value)
    lines = ("a,b,s,t,", "a,a,s,t,", "b,a,t,s,", "a,c,distorted,t,", "a,d,references,t,", "a,e,s", "a,,s,t,")
    (systems / "pairs.csv").write_text(
        "\n".join(("first,second,first_system,second_system,answer", *lines)).replace("a,b", "sys2/000.wav,b")
    )
    with pytest.raises(LabError) as raised:
        design.from_pairs(systems / "pairs.csv", tmp_path / "lab")
    assert re.findall(
        r"pairs\.csv, line (\d) (?:has|lacks|comp)|no system can be called '(\w+)'", str(raised.value)
    ) == [("3", ""), ("", "distorted"), ("", "references"), ("7", ""), ("8", "")]
    assert not (tmp_path / "lab").exists()


def test_clips_of_another_test_are_not_mixed_in(systems: Path, tmp_path: Path) -> None:
    made = design.from_systems(systems, tmp_path / "lab")
    before = sorted((tmp_path / "lab").rglob("*"))
    assert len(before) == 1 + len(made.clips)
    with pytest.raises(LabError, match="holds clips of another listening test"):
        design.from_systems(systems, tmp_path / "lab")
    assert sorted((tmp_path / "lab").rglob("*")) == before


def test_systems_that_share_no_sentence(tmp_path: Path) -> None:
    for name in ("a", "b"):
        audio.write(tmp_path / "s" / name / f"{name}.wav", tone(0.5, 0.1))
    with pytest.raises(LabError, match="no sentence is said by two systems"):
        design.from_systems(tmp_path / "s", tmp_path / "lab")
    with pytest.raises(LabError, match="is no folder"):
        design.from_systems(tmp_path / "nothing", tmp_path / "lab")
