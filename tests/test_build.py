"""A corpus depends on its settings alone, appears whole or not at all, and can be made again from its
manifest.
"""

import dataclasses
import itertools
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from slmlab.corpus import build as building
from slmlab.corpus import manifest
from slmlab.corpus.build import CHUNK, Corpus, CorpusSpec, build
from slmlab.corpus.engines import speak
from slmlab.corpus.prosody import SYNTHETIC
from slmlab.errors import LabError
from slmlab.language.sentences import SPLITS, split_of
from slmlab.language.text import normalise
from slmlab.sound import audio, features

SMALL = CorpusSpec("small", "sw", kind="authentic", pool="authentic", n_voices=4, split="lm", n=6, seed=3)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return build(SMALL, tmp_path_factory.mktemp("corpora") / "small", workers=1)


def test_features_and_manifest_tell_the_same(small: Corpus):
    assert len(small) == 6
    assert small.rows["id"].tolist() == [f"small-{i:06d}" for i in range(6)]
    for i in range(6):
        frames = int(small.rows["seconds"].iloc[i] * 50 + 1e-6)
        assert small.mel(i).shape == (frames, 80)
        assert small.mel(i).dtype == torch.float32
        assert small.f0(i).shape == small.energy(i).shape == (frames,)
        assert small.frames()[i] == frames
    assert small.hours == pytest.approx(small.rows["seconds"].sum() / 3600)
    assert small.mel(-1).equal(small.mel(5))
    with pytest.raises(IndexError):
        small.mel(6)


def test_speech_is_made_again_from_the_manifest(small: Corpus):
    for i in (3, 0):
        wave = small.wave(i)
        assert len(wave) == round(small.rows["seconds"].iloc[i] * 16_000)
        mel, f0, _ = features.extract(wave)
        assert torch.equal(mel.half().float(), small.mel(i))
        assert torch.equal(f0, small.f0(i))


def test_speech_that_comes_out_differently_is_refused(small: Corpus):
    rows = small.rows.copy()
    rows.loc[2, "seed"] += 1
    with pytest.raises(LabError, match="'small-000002': the sound differs"):
        dataclasses.replace(small, rows=rows).wave(2)


def test_kept_waves_are_the_ones_that_would_be_made(small: Corpus, tmp_path: Path):
    kept = build(dataclasses.replace(SMALL, keep_wave=True, n=2), tmp_path / "kept", workers=1)
    assert np.array_equal(kept.wave(1), small.wave(1))


def test_two_processes_make_what_one_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spec = dataclasses.replace(SMALL, kind="lively", n=5 * CHUNK + 3)
    one = build(spec, tmp_path / "one", workers=1)
    monkeypatch.setattr(building, "WORTH_HELP", 0.0)
    monkeypatch.setattr(building, "AHEAD", 2 * CHUNK + 1)
    here: list[str] = []

    def slowly(text: str, *rest: object) -> object:
        here.append(text)
        time.sleep(2.0)  # so that the other processes have something left to say
        return speak(text, *rest)

    monkeypatch.setattr(building, "speak", slowly)
    two = build(spec, tmp_path / "two", workers=2)
    assert 0 < len(here) < len(two)
    assert one.rows["id"].tolist() == [f"small-{i:06d}" for i in range(5 * CHUNK + 3)]
    assert one.rows.equals(two.rows)
    assert all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 8, 25])
def test_order_and_number_do_not_depend_on_who_is_slow(workers: int, n: int, monkeypatch):
    def sound(row: int) -> str:
        time.sleep(0.001 * (row * 7 % 10))
        return f"{row} spoken"

    monkeypatch.setattr(building, "AHEAD", 8)
    monkeypatch.setattr(building, "_sound", sound)
    monkeypatch.setattr(building, "ProcessPoolExecutor", lambda n, mp_context: ThreadPoolExecutor(n))
    assert list(building._spoken(iter(range(n)), workers)) == [(row, f"{row} spoken") for row in range(n)]


def test_a_killed_process_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(building, "WORTH_HELP", 0.0)
    spoken = building._spoken

    def kill(*args: object) -> Iterator[object]:
        for pair in spoken(*args):
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
            yield pair

    monkeypatch.setattr(building, "_spoken", kill)
    with pytest.raises(LabError, match="killed"):
        build(dataclasses.replace(SMALL, kind="lively", n=16 * CHUNK), tmp_path / "c", workers=2)
    assert list(tmp_path.iterdir()) == []


def test_minutes_are_filled_by_the_first_sentences(tmp_path: Path):
    spec = dataclasses.replace(SMALL, kind="synthetic", pool="synthetic", n_voices=2, n=None, minutes=0.25)
    corpus = build(spec, tmp_path / "m", workers=1)
    seconds = corpus.rows["seconds"].to_numpy()
    assert seconds.sum() >= 15
    assert seconds[:-1].sum() < 15


def test_each_voice_speaks_as_often_as_any_other(tmp_path: Path):
    corpus = build(dataclasses.replace(SMALL, n=8), tmp_path / "v", workers=1)
    assert corpus.rows["voice"].value_counts().tolist() == [2, 2, 2, 2]
    assert len(set(corpus.rows["voice"].iloc[:4])) == 4


def test_a_finished_corpus_is_not_made_twice(small: Corpus, monkeypatch: pytest.MonkeyPatch):
    def never(*_: object) -> None:
        raise AssertionError("spoken again")

    monkeypatch.setattr(building, "_sound", never)
    assert build(SMALL, small.folder, workers=1).rows.equals(small.rows)
    with pytest.raises(AssertionError):
        build(dataclasses.replace(SMALL, seed=4), small.folder, workers=1)
    assert len(Corpus.load(small.folder)) == 6


def test_other_settings_replace_a_corpus_but_never_other_files(tmp_path: Path):
    folder = tmp_path / "c"
    build(dataclasses.replace(SMALL, n=1), folder, workers=1)
    assert len(build(dataclasses.replace(SMALL, n=2), folder, workers=1)) == 2
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(LabError, match="no corpus"):
        build(dataclasses.replace(SMALL, n=1), tmp_path / "thesis", workers=1)
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))  # bytes of a file: fewer than a mel has
    try:
        with pytest.raises(LabError, match="c could not be written"):
            build(dataclasses.replace(SMALL, n=1), tmp_path / "c", workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_no_sentence_voice_or_recording_is_in_two_splits(tmp_path: Path):
    pools = {
        "parts": "parts",
        "judge_a": "judge_a",
        "judge_b": "judge_b",
        "lm": "authentic",
        "dev": "dev",
        "test": "test",
    }
    made = {}
    for split, pool in pools.items():
        spec = CorpusSpec(split, "sw", kind="lively", pool=pool, n_voices=5, split=split, n=10)
        made[split] = build(spec, tmp_path / split, workers=1).rows
    for (name, a), (other, b) in itertools.combinations(made.items(), 2):
        assert not {*map(normalise, a["spoken"])} & {*map(normalise, b["spoken"])}, (name, other)
        assert not set(a["voice"]) & set(b["voice"]), (name, other)
        assert not set(a["sha256"]) & set(b["sha256"]), (name, other)
    assert set(pools) <= set(SPLITS)
    assert all(split_of("sw", text) == split for split, rows in made.items() for text in rows["spoken"])


def test_wrong_transcripts_are_marked_by_what_was_spoken(tmp_path: Path):
    crowd = dataclasses.replace(SMALL.performance().recording, wrong_transcripts=1.0)
    spec = dataclasses.replace(SMALL, prosody=dataclasses.replace(SYNTHETIC, recording=crowd))
    rows = build(spec, tmp_path / "w", workers=1).rows
    assert (rows["text"] != rows["spoken"]).all()


def test_the_same_settings_have_the_same_digest_as_ever():
    """Rows of the studies are known by it; only a change of what is spoken may change it (see FORMAT)."""
    assert SMALL.digest() == "447d03ba868df43f0ae3dce764896f93d636948e14ed984398de1a14184c1dc1"


def test_settings_of_the_users_own_are_written_down(small: Corpus):
    settings = json.loads((small.folder / building.SETTINGS).read_text())
    assert settings["digest"] == SMALL.digest()
    assert settings["spec"]["seed"] == 3
    assert json.loads(small.rows["params"].iloc[0])["prosody"]["focus_rise"] == 3.0


def test_a_text_file_is_read_aloud(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("Habari ya asubuhi.\n\nNinaenda shuleni.\n", encoding="utf-8")
    spec = dataclasses.replace(SMALL, kind="lively", n=2, lines=str(tmp_path / "mine.txt"))
    corpus = build(spec, tmp_path / "c", workers=1)
    assert corpus.rows["text"].tolist() == ["Habari ya asubuhi.", "Ninaenda shuleni."]
    with pytest.raises(LabError, match="has 2 sentences, 3"):
        build(dataclasses.replace(spec, n=3), tmp_path / "d", workers=1)
    with pytest.raises(LabError, match=r"mine\.txt holds \d s of speech, expected 60 s"):
        build(dataclasses.replace(spec, n=None, minutes=1.0), tmp_path / "d", workers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "WORTH_HELP", 0.0)
        patch.setattr(building, "ProcessPoolExecutor", lambda n, mp_context: ThreadPoolExecutor(1))
        assert len(build(dataclasses.replace(spec, n=None, minutes=0.04), tmp_path / "d", workers=2)) == 2


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"n": None}, "minutes or n"),
        ({"minutes": 1.0}, "minutes or n"),
        ({"language": "xx"}, "xx"),
        ({"pool": "crowd"}, "crowd"),
        ({"kind": "sung"}, "sung"),
        ({"split": "train"}, "train"),
        ({"engine": "hal"}, "hal"),
        ({"lines": "/nowhere.txt"}, "nowhere"),
    ],
)
def test_impossible_settings_are_named(tmp_path: Path, changes: dict, named: str):
    with pytest.raises(LabError, match=named):
        build(dataclasses.replace(SMALL, **changes), tmp_path / "c", workers=1)


def test_damaged_folders_are_named(small: Corpus, tmp_path: Path):
    broken = tmp_path / "broken"
    shutil.copytree(small.folder, broken)
    content = (broken / building.FEATURES).read_bytes()
    (broken / building.FEATURES).write_bytes(content[: len(content) // 2])
    with pytest.raises(LabError, match=r"features\.safetensors cannot be read"):
        Corpus.load(broken)
    (broken / building.FEATURES).unlink()
    with pytest.raises(LabError, match=r"features\.safetensors cannot be read"):
        Corpus.load(broken)
    (broken / building.FEATURES).write_bytes(content)
    manifest.write(small.rows.iloc[:5], broken / building.MANIFEST)
    with pytest.raises(LabError, match=r"6 utterances, .* 5"):
        Corpus.load(broken)


def test_a_damaged_corpus_is_made_again(small: Corpus, tmp_path: Path):
    shutil.copytree(small.folder, tmp_path / "c")
    (tmp_path / "c" / building.FEATURES).write_bytes(b"half")
    again = build(SMALL, tmp_path / "c", workers=1)
    assert again.rows.equals(small.rows)
    assert again.mel(5).equal(small.mel(5))


def test_a_recording_that_is_gone_is_named(small: Corpus, tmp_path: Path):
    rows = small.rows.copy()
    rows.loc[1, "file"] = str(tmp_path / "gone.wav")
    with pytest.raises(LabError, match=r"row 'small-000001': its recording .*gone\.wav is gone"):
        dataclasses.replace(small, rows=rows).wave(1)
    audio.write(tmp_path / "gone.wav", np.sin(np.arange(8_000) / 20))
    with pytest.raises(LabError, match="differs"):
        dataclasses.replace(small, rows=rows).wave(1)


FROM_STDIN = """
import sys
from slmlab.corpus.build import CorpusSpec, build
from slmlab.errors import LabError
try:
    build(CorpusSpec("toy", "sw", n=4), sys.argv[1], workers=2)
except LabError as error:
    sys.exit(f"slmlab: {error}")
"""


def test_a_program_without_a_file_has_helpers_too(tmp_path: Path):
    asked = [sys.executable, "-", str(tmp_path / "toy")]
    ended = subprocess.run(asked, input=FROM_STDIN, timeout=120, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert len(Corpus.load(tmp_path / "toy")) == 4
