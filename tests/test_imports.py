"""Folders of people's recordings become corpora; broken files are listed, not fatal."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from slmlab.corpus import collections
from slmlab.corpus.build import SETTINGS, Corpus
from slmlab.corpus.collections import Clip, read
from slmlab.corpus.imports import ImportSpec, bring_in
from slmlab.errors import LabError
from slmlab.sound import audio

SPEC = ImportSpec("mine", "sw", consent="CC0, said by myself")


def sound(path: Path, rate: int = 16_000, channels: int = 1, seconds: float = 1.0, **options: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(int(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * 150 * t) * (1 + 0.5 * np.sin(2 * np.pi * 3 * t))
    soundfile.write(path, np.stack([wave] * channels, axis=1), rate, **options)


def skipped(corpus: Corpus) -> list[tuple[str, str]]:
    """File and reason of what did not come along."""
    settings = json.loads((corpus.folder / SETTINGS).read_text())
    return [(clip["file"], clip["reason"]) for clip in settings["skipped"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plain folder: two speakers, odd formats, and files that cannot be used."""
    root = tmp_path / "mine"
    sound(root / "asha" / "a.wav", rate=44_100, channels=2, subtype="PCM_24")
    sound(root / "asha" / "b.flac", rate=8_000)
    sound(root / "juma" / "c.mp3", rate=48_000)
    sound(root / "juma" / "silent_text.wav")
    sound(root / "juma" / "long.wav", seconds=31)
    (root / "juma" / "noise.wav").write_bytes(b"this is not a sound")
    texts = {
        "asha/a": "Habari gani?",
        "asha/b": "Nzuri sana.",
        "juma/c": "Mama anapika.",
        "juma/long": "Ndefu mno.",
    }
    for name, text in (texts | {"juma/noise": "Kelele tu."}).items():
        (root / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
    return root


def test_a_plain_folder_comes_in_and_what_is_broken_is_listed(folder: Path, tmp_path: Path):
    corpus = bring_in(read(folder), SPEC, tmp_path / "corpus")
    rows = corpus.rows
    assert rows["text"].tolist() == ["Habari gani?", "Nzuri sana.", "Mama anapika."]
    assert rows["voice"].tolist() == ["asha", "asha", "juma"]
    assert set(rows["consent"]) == {"CC0, said by myself"}
    assert set(rows["source"]) == {"mine"}
    assert rows["seconds"].to_numpy() == pytest.approx(1.0, abs=0.06)
    reasons = {Path(file).name: reason for file, reason in skipped(corpus)}
    assert set(reasons) == {"silent_text.wav", "long.wav", "noise.wav"}
    assert "no transcript" in reasons["silent_text.wav"]


def test_generated_speech_is_no_recording_of_a_person(folder: Path, tmp_path: Path):
    audio.write(folder / "asha" / "a.wav", np.sin(np.arange(16_000)))
    corpus = bring_in(read(folder), SPEC, tmp_path / "c")
    (file, reason) = next(each for each in skipped(corpus) if "a.wav" in each[0])
    assert "generated" in reason
    assert "asha" in file


def test_recordings_are_read_again_when_they_are_heard(folder: Path, tmp_path: Path):
    corpus = bring_in(read(folder), SPEC, tmp_path / "corpus")
    assert len(corpus.wave(1)) == round(corpus.rows["seconds"].iloc[1] * 16_000)
    (folder / "asha" / "b.flac").unlink()
    with pytest.raises(LabError, match=r"b\.flac is gone"):
        Corpus.load(corpus.folder).wave(1)


def test_kept_waves_outlive_their_recordings(folder: Path, tmp_path: Path):
    spec = ImportSpec("mine", "sw", consent="CC0", keep_wave=True, split="dev")
    corpus = bring_in(read(folder), spec, tmp_path / "corpus")
    (folder / "asha" / "b.flac").unlink()
    assert np.abs(corpus.wave(1)).max() > 0.05
    assert set(corpus.rows["split"]) == {"dev"}


def test_an_ljspeech_folder_comes_in(tmp_path: Path):
    sound(tmp_path / "lj" / "wavs" / "LJ001.wav", rate=22_050)
    (tmp_path / "lj" / "metadata.csv").write_text("LJ001|Nina 3.|Nina tatu.\n", encoding="utf-8")
    clips = read(tmp_path / "lj", "ljspeech")
    assert clips == [Clip(tmp_path / "lj" / "wavs" / "LJ001.wav", "Nina tatu.", "reader")]
    assert len(bring_in(clips, SPEC, tmp_path / "corpus")) == 1


def test_a_common_voice_folder_comes_in(tmp_path: Path):
    sound(tmp_path / "cv" / "clips" / "x.mp3", rate=32_000)
    rows = [
        "client_id\tpath\tsentence\tup_votes",
        'f00\tx.mp3\tAlisema "njoo" leo.\t2',
        "f01\tgone.mp3\tHaipo.\t2",
    ]
    (tmp_path / "cv" / "validated.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    corpus = bring_in(read(tmp_path / "cv", "common_voice"), SPEC, tmp_path / "corpus")
    assert corpus.rows["text"].tolist() == ['Alisema "njoo" leo.']
    assert corpus.rows["voice"].tolist() == ["cv-f00"]
    assert "gone.mp3" in skipped(corpus)[0][0]


def test_one_sentence_is_on_one_side_whoever_reads_it(tmp_path: Path):
    texts = ["moja", "mbili", "tatu", "nne", "tano", "sita", "saba", "nane"]
    sound(tmp_path / "a.wav")
    clips = [Clip(tmp_path / "a.wav", text, speaker) for speaker in "xyz" for text in texts]
    rows = bring_in(clips, SPEC, tmp_path / "corpus").rows
    assert rows.groupby("text")["split"].nunique().max() == 1


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda root: read(root, "ljspeech"), r"metadata\.csv does not exist"),
        (lambda root: read(root, "common_voice"), r"validated\.tsv does not exist"),
        (lambda root: read(root / "nowhere"), "nowhere is no folder"),
        (lambda root: bring_in([], SPEC, root / "c"), "no recording can be used"),
        (lambda root: bring_in([Clip(root / "x.wav", "habari", "a")], SPEC, root / "c"), r"x\.wav"),
        (lambda root: bring_in([], ImportSpec("m", "sw", consent=" "), root / "c"), "consent"),
        (lambda root: bring_in([], ImportSpec("m", "xx", consent="CC0"), root / "c"), "xx"),
    ],
)
def test_unusable_collections_are_explained(tmp_path: Path, make, named: str):
    with pytest.raises(LabError, match=named):
        make(tmp_path)


def test_tables_in_another_shape_are_explained(tmp_path: Path):
    (tmp_path / "metadata.csv").write_text("no bars here\n")
    with pytest.raises(LabError, match="line 1"):
        read(tmp_path, "ljspeech")
    (tmp_path / "validated.tsv").write_text("who\twhat\na\tb\n")
    with pytest.raises(LabError, match="lacks the columns path, sentence, client_id"):
        read(tmp_path, "common_voice")
    (tmp_path / "metadata.csv").write_bytes(b"a|\xff\xfe")
    assert "line 1 is not UTF-8" in read(tmp_path, "ljspeech")[0].fault


def test_a_source_is_read_only_where_fetch_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collections, "recordings", lambda name: tmp_path / "home" / name)
    with pytest.raises(LabError, match=r"elsewhere/joshua is not what `slmlab fetch` brought"):
        read(tmp_path / "elsewhere" / "joshua", "source")
