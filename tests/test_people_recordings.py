"""One's own voice: kept with consent, refused with a reason, and importable as a corpus."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from slmlab.corpus import collections
from slmlab.errors import LabError
from slmlab.files import sha256_of
from slmlab.people import recordings
from slmlab.sound import SAMPLE_RATE, audio


def sound(tmp_path: Path, wave: np.ndarray) -> Path:
    path = tmp_path / "in.wav"
    audio.write(path, wave, generated=False)
    return path


def speechlike(seconds: float = 1.5, level: float = 0.3) -> np.ndarray:
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return level * np.sin(2 * np.pi * 150 * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "recordings.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_a_recording_is_kept_with_words_and_consent_and_is_a_corpus(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    row = recordings.keep(sound(tmp_path, speechlike()), '  Habari\n ya "leo". ', "Ana", True, folder, "sw")
    again = recordings.keep(sound(tmp_path, speechlike(2.0)), "Asante.", "Ana", True, folder)
    assert row["speaker"] == again["speaker"]
    assert "Ana" not in (folder / "recordings.tsv").read_text(encoding="utf-8")
    assert table(folder) == [{name: one[name] for name in recordings.COLUMNS} for one in (row, again)]
    assert (row["text"], row["language"], again["language"]) == ('Habari ya "leo".', "sw", "")
    assert row["consent"].startswith(f"{recordings.CONSENT} Agreed on 20")
    consent = json.loads((folder / row["speaker"] / "consent.json").read_text())
    assert consent["speaker"] == "Ana"
    assert consent["statement"] == recordings.CONSENT
    clips = collections.read(folder)
    assert sorted((c.text, c.speaker) for c in clips) == [
        ("Asante.", row["speaker"]),
        ('Habari ya "leo".', row["speaker"]),
    ]
    assert row["sha256"] == sha256_of(folder / row["file"])
    assert not audio.read(folder / row["file"])[1].generated


def test_who_takes_a_recording_away_takes_its_words_and_consent_away(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    path = sound(tmp_path, speechlike())
    first, second = (recordings.keep(path, text, "Ana", True, folder) for text in ("Habari.", "Asante."))
    (folder / first["file"]).unlink()
    recordings.write_table(folder)
    assert [row["file"] for row in table(folder)] == [second["file"]]


def test_recordings_older_than_the_table_come_into_it(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    row = recordings.keep(sound(tmp_path, speechlike()), "Habari.", "Ana", True, folder)
    (folder / "recordings.tsv").unlink()
    recordings.write_table(folder)
    assert table(folder) == [{name: row[name] for name in recordings.COLUMNS}]
    new = recordings.keep(sound(tmp_path, speechlike()), "Asante.", "Ben", True, folder)
    assert [line["speaker"] for line in table(folder)] == [row["speaker"], new["speaker"]]


def test_a_line_that_is_no_row_stays_to_the_byte_and_closes_nothing(tmp_path: Path) -> None:
    kept = [b"a.wav\tHabari.\n", b"\xff.wav\tN\xe9.\tx\t\xe9\tCC0\n", b"b.wav\t" + b"x" * 140_000 + b"\n"]
    recordings.keep(sound(tmp_path, speechlike()), "Habari.", "Ana", True, tmp_path / "r")
    place = tmp_path / "r" / "recordings.tsv"
    lines = place.read_bytes().split(b"\n")
    place.write_bytes(lines[0] + b"\tmood\n" + lines[1] + b"\tgay\n" + b"".join(kept))
    recordings.keep(sound(tmp_path, speechlike()), "Asante.", "Ana", True, tmp_path / "r")
    assert place.read_bytes().endswith(b"".join(kept))
    head, *rows = place.read_bytes().split(b"\n")[:3]
    assert head.endswith(b"\tmood")
    assert [row.rpartition(b"\t")[2] for row in rows] == [b"gay", b""]
    clips = collections.read(tmp_path / "r")
    assert [clip.text for clip in clips if not clip.fault] == ["Habari.", "Asante."]
    assert [clip.fault.partition("line ")[2][:24] for clip in clips[2:]] == [
        "4 has 2 cells in place o",
        "5 is not UTF-8: save the",
        "6 cannot be read (field ",
    ]


@pytest.mark.parametrize("content", [b"file\ttext\rspeaker\r", b"name\tword\n", b"\xff\xfe\0"])
def test_a_table_that_cannot_be_read_is_told_of_and_left_and_nothing_is_stored(
    tmp_path: Path, content: bytes
) -> None:
    recordings.keep(sound(tmp_path, speechlike()), "Habari.", "Ana", True, tmp_path / "r")
    (tmp_path / "r" / "recordings.tsv").write_bytes(content)
    before = sorted((tmp_path / "r").rglob("*"))
    with pytest.raises(LabError, match=r"recordings\.tsv (has lines that end in CR|lacks the columns)"):
        recordings.keep(sound(tmp_path, speechlike()), "Asante.", "Ana", True, tmp_path / "r")
    assert sorted((tmp_path / "r").rglob("*")) == before
    assert (tmp_path / "r" / "recordings.tsv").read_bytes() == content


def test_a_broken_consent_closes_nobody_elses_folder(tmp_path: Path) -> None:
    ana = recordings.keep(sound(tmp_path, speechlike()), "Habari.", "Ana", True, tmp_path / "r")
    for i, content in enumerate(("", "[]", '{"speaker": 3, "statement": "", "agreed_at": ""}')):
        (tmp_path / "r" / f"speaker-{i}").mkdir()
        (tmp_path / "r" / f"speaker-{i}" / "consent.json").write_text(content)
    again = recordings.keep(sound(tmp_path, speechlike()), "Asante.", "Ana", True, tmp_path / "r")
    assert again["speaker"] == ana["speaker"]
    (tmp_path / "r" / "recordings.tsv").unlink()
    recordings.write_table(tmp_path / "r")
    assert len(table(tmp_path / "r")) == 2


def test_the_mark_of_generated_speech_is_seen_and_never_removed(tmp_path: Path) -> None:
    audio.write(tmp_path / "g.wav", speechlike())
    with pytest.raises(LabError, match="generated speech by its own mark"):
        recordings.keep(tmp_path / "g.wav", "Habari.", "Ana", True, tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("wave", "words"),
    [
        (speechlike(0.2), "at least 0.5 s"),
        (np.clip(speechlike(level=5), -1, 1), "clipped"),
        (speechlike(level=0.001), "almost silent"),
        (np.concatenate([np.zeros(60000), speechlike(0.02)]), "hardly anything sounds"),
        (speechlike(25), "at most 20 s"),
    ],
)
def test_what_is_no_good_recording_is_explained(tmp_path: Path, wave: np.ndarray, words: str) -> None:
    with pytest.raises(LabError, match=words):
        recordings.keep(sound(tmp_path, wave), "Habari.", "Ana", True, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_nothing_is_stored_without_consent_or_name(tmp_path: Path) -> None:
    path = sound(tmp_path, speechlike())
    with pytest.raises(LabError, match="consent"):
        recordings.keep(path, "Habari.", "Ana", False, tmp_path / "r")
    with pytest.raises(LabError, match="name"):
        recordings.keep(path, "Habari.", " \x00 ", True, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_nothing_stays_of_a_recording_that_could_not_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise LabError("no space")

    monkeypatch.setattr(recordings, "write_table", full)
    with pytest.raises(LabError, match="no space"):
        recordings.keep(sound(tmp_path, speechlike()), "Habari.", "Ana", True, tmp_path / "r")
    assert [path.name for path in (tmp_path / "r").rglob("*") if path.is_file()] == ["consent.json"]
