"""Instruments: figures come with what they need, what one lacks is one sentence, the real ones can hear."""

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from slmlab.cli import main
from slmlab.corpus.engines import speak
from slmlab.corpus.prosody import KINDS
from slmlab.corpus.voices import Voice
from slmlab.errors import LabError
from slmlab.metrics import instruments
from slmlab.metrics.instruments import INSTRUMENTS, figures, open_instruments
from slmlab.sound.audio import Wave

PACKAGES = {
    "whisper": "faster_whisper",
    "dnsmos": "speechmos",
    "sim": "resemblyzer",
    "vad": "silero_vad",
}
LOUD, SOFT = np.full(16_000, 0.5, np.float32), np.full(8_000, 0.1, np.float32)
PRETENDED = {
    "whisper": lambda wave, language: "mama" if wave[0] > 0.2 else "mam",
    "dnsmos": lambda wave: 3.25,
    "sim": lambda wave, reference: 0.5 if len(wave) != len(reference) else 1.0,
    "vad": lambda wave: 0.75,
}


def said_by_espeak(text: str, pitch: float) -> Wave:
    return speak(text, "sw", Voice("v", pitch=pitch), KINDS["synthetic"], 0)


def test_every_instrument_says_in_words_what_it_measures_and_what_fools_it():
    assert set(INSTRUMENTS.index) == set(PACKAGES)
    assert INSTRUMENTS.map(len).min().min() > 2
    assert INSTRUMENTS["what fools it"].str.len().min() > 80


def test_figures_come_with_what_they_need():
    assert figures({}, LOUD, "mama", SOFT) == {}
    assert figures(PRETENDED, LOUD) == {"whisper_heard": "mama", "dnsmos": 3.25, "vad": 0.75}
    alone = figures({"whisper": PRETENDED["whisper"]}, SOFT, "mama")
    assert alone == {"whisper_heard": "mam", "whisper_cer": 0.25}
    both = figures(PRETENDED, LOUD, "mama", SOFT, "sw")
    assert (both["whisper_cer"], both["whisper_added"], both["sim"]) == (0.0, -0.25, 0.5)
    assert figures(PRETENDED, SOFT, "mama", LOUD, "sw")["whisper_added"] == 0.25


@pytest.mark.parametrize("name", PACKAGES)
def test_a_machine_without_the_extra_is_told_the_command(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    assert main(["measure", "a.wav", "--instruments", name, "--reference", "a.wav"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"slmlab: the instrument '{name}' needs {INSTRUMENTS.package[name]} (")
    assert said.endswith("run `pip install 'slmlab[instruments]'`.\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--instruments", "ears"], "no instrument 'ears': choose among whisper, dnsmos, sim, vad"),
        (["--instruments", "sim"], "'sim' compares two voices: give --reference"),
        (["--whisper", "base"], "or --instruments whisper as well"),
    ],
)
def test_what_cannot_be_measured_is_named(options: list[str], named: str, capsys: pytest.CaptureFixture[str]):
    assert main(["measure", "a.wav", *options]) == 2
    assert named in capsys.readouterr().err


def test_weights_that_are_not_whisper_s_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Unsupported model binary version")

    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=refuse))
    with pytest.raises(LabError, match=r"lacks config.json: give a folder of Whisper's weights"):
        open_instruments(["whisper"], str(tmp_path))
    for name in instruments.WHISPER_FILES[:3]:
        (tmp_path / name).touch()
    with pytest.raises(LabError, match=r"holds no weights for faster-whisper \(Unsupported model"):
        open_instruments(["whisper"], str(tmp_path))
    with pytest.raises(LabError, match="/no/where does not exist"):
        open_instruments(["whisper"], "/no/where")


def test_measure_prints_instruments_in_its_table(
    random_chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked = []

    def pretend(names: list[str], whisper: str) -> instruments.Opened:
        asked.append((names, whisper))
        return PRETENDED

    monkeypatch.setattr(instruments, "open_instruments", pretend)
    path = tmp_path / "a.wav"
    soundfile.write(path, said_by_espeak("mama anapika", 150), 16_000)
    given = [
        "measure",
        str(path),
        "--text",
        "mama",
        "--reference",
        str(path),
        "--checkpoints",
        str(random_chain),
    ]
    given += ["--instruments", "whisper,dnsmos,sim,vad", "--whisper", "some/weights"]
    assert main(given) == 0
    assert asked == [(["whisper", "dnsmos", "sim", "vad"], "some/weights")]
    said = capsys.readouterr().out
    assert re.search(r"^whisper_heard +mam$", said, re.MULTILINE)
    assert re.search(r"^dnsmos \(1 to 5\) +3\.250$", said, re.MULTILINE)
    assert re.search(r"^whisper_added \(whisper_cer less the recording's\) +0\.000$", said, re.MULTILINE)
    assert main([*given, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["sim"], row["vad"], row["whisper_cer"]) == (1.0, 0.75, 0.25)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["dnsmos", "sim", "vad"])
def test_the_real_instruments_tell_speech_from_noise(name: str):
    pytest.importorskip(PACKAGES[name])
    (use,) = open_instruments([name]).values()
    speech, other = (said_by_espeak("Mama anapika chakula sokoni leo.", hertz) for hertz in (120, 125))
    noise = (0.1 * np.random.default_rng(0).standard_normal(len(speech))).astype(np.float32)
    if name == "sim":
        assert use(speech, speech) == pytest.approx(1.0, abs=1e-5)
        assert use(speech, other) > 0.8 > use(speech, noise)
        assert np.isnan(use(speech, noise[:640]))
    else:
        heard, unheard = use(speech), use(noise)
        limits = {"dnsmos": (2.0, 1.5), "vad": (0.6, 0.05)}[name]
        assert heard > limits[0]
        assert unheard < limits[1]


@pytest.mark.filterwarnings("default")
def test_the_real_whisper_hears_swahili():
    pytest.importorskip("faster_whisper")
    if not (place := os.environ.get("SLMLAB_WHISPER")):
        pytest.skip("SLMLAB_WHISPER names no folder of Whisper's weights")
    opened, text = open_instruments(["whisper"], place), "Mama anapika chakula sokoni leo."
    said = figures(opened, said_by_espeak(text, 120), text, said_by_espeak(text, 120), "sw")
    assert said["whisper_cer"] < 0.6
    assert said["whisper_added"] == 0
    with pytest.raises(LabError, match="Whisper does not know the language 'sbw'"):
        figures(opened, said_by_espeak(text, 120), language="sbw")
