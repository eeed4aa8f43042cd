"""Kokoro says what espeak-ng spells, repeats itself to the bit, and refuses what is not its own."""

import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from slmlab import files
from slmlab.corpus import kokoro
from slmlab.corpus.build import CorpusSpec, build
from slmlab.corpus.engines import engine_of, espeak, speak
from slmlab.corpus.kokoro import Kokoro
from slmlab.corpus.prosody import KINDS, PlannedWord
from slmlab.corpus.voices import KOKORO as kokoro_voices
from slmlab.corpus.voices import Voice, voice_pool
from slmlab.errors import LabError
from slmlab.training.presets import preset

VOICE = Voice("v", pitch=120.0)
WORDS = (PlannedWord("Hujambo,", rate=0.8), PlannedWord("mama?", rate=1.0))


class Session:
    """In place of onnxruntime's: each symbol is a tenth of a second of a tone, and the inputs are kept."""

    asked: dict[str, np.ndarray]

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        Session.asked = inputs
        hertz = np.repeat(100 + inputs["tokens"][0], 2400) / inputs["speed"][0]
        return [0.3 * np.sin(2 * np.pi * np.cumsum(hertz) / 24_000).astype(np.float32)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights that pass for the real ones, and of two voices."""
    runtime = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=Session)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    (tmp_path / "kokoro.onnx").write_bytes(b"weights")
    monkeypatch.setattr(kokoro, "WEIGHTS", hashlib.sha256(b"weights").hexdigest())
    styles = np.arange(20 * 256, dtype=np.float32).reshape(20, 1, 256)
    np.savez(tmp_path / "voices.npz", af_one=styles, jm_two=-styles)
    return tmp_path


def test_espeak_spells_and_kokoro_reads_what_it_knows(folder: Path):
    engine = Kokoro(str(folder), espeak().phonemes)
    assert engine.symbols("Hujambo, mama? Chakula...", "sw", VOICE) == "huɟˈambo, mˈama? ʧakˈula..."
    assert engine.symbols("3.5", "sw", VOICE) == "tˈatu nˌukta tˈano"
    assert (kokoro.SYMBOLS[";"], kokoro.SYMBOLS["a"], kokoro.SYMBOLS["ᵻ"]) == (1, 43, 177)
    assert len(kokoro.SYMBOLS) == 114


def test_words_pace_and_voice_reach_the_network(folder: Path):
    engine = Kokoro(str(folder), espeak().phonemes)
    wave = engine.say(WORDS, "sw", replace(VOICE, id="jm_two", rate=1.1), 1.0, 0)
    tokens, style, speed = (Session.asked[name] for name in ("tokens", "style", "speed"))
    assert tokens.tolist() == [[0, *(kokoro.SYMBOLS[c] for c in "huɟˈambo, mˈama?"), 0]]
    assert style[0, :2].tolist() == [-15 * 256, -(15 * 256 + 1)]  # the row of 16 symbols
    assert speed == pytest.approx([0.99])
    assert len(wave) == 18 * 1600
    engine.say(WORDS, "sw", replace(VOICE, rate=9.0), 1.0, 0)
    assert Session.asked["speed"] == pytest.approx([2.0])


def test_a_voice_of_the_lab_is_always_the_same_voice_of_kokoro_s(folder: Path):
    engine = Kokoro(str(folder), espeak().phonemes)
    chosen = {voice.id: engine.voice_of(voice) for voice in voice_pool("parts", 60)}
    assert chosen == {voice.id: engine.voice_of(voice) for voice in reversed(voice_pool("parts", 60))}
    assert 15 < list(chosen.values()).count("af_one") < 45
    assert engine.voice_of(replace(VOICE, id="af_one")) == "af_one"


def test_a_corpus_is_spoken_by_it_kept_in_the_manifest_and_made_again(folder: Path, tmp_path: Path):
    (folder / "lines.txt").write_text("Mama anapika.\nBaba analala.\n", encoding="utf-8")
    name = f"kokoro:{folder}"
    spec = CorpusSpec("natural", "sw", n_voices=2, n=2, engine=name, lines=str(folder / "lines.txt"))
    corpus = build(spec, tmp_path / "natural", workers=1)
    row = corpus.rows.iloc[1]
    assert row["engine"] == engine_of(name).name
    assert row["engine"].startswith(f"kokoro {kokoro.WEIGHTS[:8]}, 2 voices ")
    assert (row["source"], json.loads(row["params"])["engine"]) == ("made", name)
    assert set(corpus.rows["voice"]) == {"parts-00", "parts-01"}
    assert len(corpus.wave(1)) == round(row["seconds"] * 16_000)


def test_human_hears_it_where_the_environment_names_it(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KOKORO", raising=False)
    without = preset("human")
    with pytest.raises(LabError, match="where KOKORO names the folder"):
        engine_of("kokoro")
    monkeypatch.setenv("KOKORO", str(folder))
    assert engine_of("kokoro").name == engine_of(f"kokoro:{folder}").name
    heard = preset("human")
    for group, minutes in {"parts": 12, "backbone": 8, "sw": 12}.items():
        *others, spec = heard.corpora[group]
        assert tuple(others) == without.corpora[group]
        assert (spec.minutes, spec.engine) == (minutes, "kokoro")
        assert [voice.id for voice in voice_pool(spec.pool, spec.n_voices)] == [*kokoro_voices]
    assert heard.corpora["judge_b"] == without.corpora["judge_b"]
    assert heard.tokenizer.config.n_speakers == without.tokenizer.config.n_speakers + 4


def broken(folder: Path, what: str) -> None:
    if what == "weights":
        (folder / "kokoro.onnx").write_bytes(b"another model's")
    elif what == "voices":
        (folder / "voices.npz").unlink()
    elif what == "no archive":
        (folder / "voices.npz").write_bytes(b"voices")
    elif what == "shape":
        np.savez(folder / "voices.npz", one=np.zeros((510, 128), np.float32))
    elif what == "model":
        (folder / "kokoro.onnx").unlink()


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("weights", r"kokoro.onnx holds another model's weights \(sha256 \w{16}…, expected \w{16}…\)"),
        ("voices", r"holds no voices \(\*.npz or voices\*.bin\): put"),
        ("no archive", r"voices.npz holds no voices of Kokoro"),
        ("shape", r"voices.npz holds \{\(510, 128\)\}, expected \(510, 1, 256\)"),
        ("model", r"holds no weights \(\*.onnx\): put"),
    ],
)
def test_what_is_not_kokoro_s_is_named(folder: Path, what: str, named: str):
    broken(folder, what)
    with pytest.raises(LabError, match=named):
        engine_of(f"kokoro:{folder}")


def test_sentences_that_it_cannot_say_are_named(folder: Path, languages_folder: Path):
    engine = engine_of(f"kokoro:{folder / 'kokoro.onnx'}")
    with pytest.raises(LabError, match="31 symbols, at most 20; write one sentence"):
        engine.say((*WORDS, PlannedWord("habari yako?")), "sw", VOICE, 1.0, 0)
    (languages_folder / "lo").mkdir()
    (languages_folder / "lo" / "language.toml").write_text('name = "Lao"\nwords = "characters"\n')
    with pytest.raises(LabError, match="'lo' has no espeak-ng voice"):
        engine.say((PlannedWord("sabaidee"),), "lo", VOICE, 1.0, 0)


def test_without_onnxruntime_one_command_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(LabError, match=r"run `pip install 'slmlab\[natural\]'`"):
        engine_of(f"kokoro:{tmp_path}")


def test_weights_lie_in_a_folder_or_at_a_hub_id_or_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked = []

    def fetch(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        if name == "gone/model":
            raise FileNotFoundError("ConnectError: no route\nmore")
        return str(tmp_path)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=fetch))
    assert files.weights(str(tmp_path), ["*.bin"]) == tmp_path
    assert asked == []
    assert files.weights("some/model", ["*.bin"]) == tmp_path
    assert files.weights("some/model", ["*.bin"], "v1") == tmp_path
    assert asked == [("some/model", None, ["*.bin"]), ("some/model", "v1", ["*.bin"])]
    with pytest.raises(
        LabError, match=r"gone/model .* did not give it \(ConnectError: no route\): go online"
    ):
        files.weights("gone/model", [])
    with pytest.raises(LabError, match=r"/no/such/folder does not exist: give a folder of weights"):
        files.weights("/no/such/folder", [])
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(LabError, match="run `pip install huggingface_hub`"):
        files.weights("some/model", [])


def test_the_real_kokoro_speaks_swahili_and_repeats_itself():
    pytest.importorskip("onnxruntime")
    if not (place := os.environ.get("SLMLAB_KOKORO")):
        pytest.skip("SLMLAB_KOKORO names no folder of Kokoro's weights and voices")
    name, text = f"kokoro:{place}", "Mama anapika chakula."
    first = speak(text, "sw", VOICE, KINDS["synthetic"], 0, name)
    assert 1.0 < len(first) / 16_000 < 4.0
    speak("Baba analala.", "sw", replace(VOICE, id="w"), KINDS["synthetic"], 0, name)
    assert speak(text, "sw", VOICE, KINDS["synthetic"], 0, name).tobytes() == first.tobytes()
