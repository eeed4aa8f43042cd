"""One's own voice: kept with consent, refused with a reason, and importable as a corpus."""

import json
from pathlib import Path

import numpy as np
import pytest

from slmlab.corpus import imports
from slmlab.errors import LabError
from slmlab.people import recordings
from slmlab.sound import SAMPLE_RATE, audio


def sound(tmp_path: Path, wave: np.ndarray) -> Path:
    path = tmp_path / "in.wav"
    audio.write(path, wave, generated=False)
    return path


def speechlike(seconds: float = 1.5, level: float = 0.3) -> np.ndarray:
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return level * np.sin(2 * np.pi * 150 * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))


def test_a_recording_is_kept_with_words_and_consent_and_is_a_corpus(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    kept = recordings.keep(sound(tmp_path, speechlike()), "  Habari\n ya leo. ", "Ana", True, folder)
    again = recordings.keep(sound(tmp_path, speechlike(2.0)), "Asante.", "Ana", True, folder)
    assert kept.path.parent == again.path.parent
    assert "Ana" not in str(kept.path)
    consent = json.loads((kept.path.parent / "consent.json").read_text())
    assert consent["speaker"] == "Ana"
    assert consent["statement"] == recordings.CONSENT
    clips = imports.plain(folder)
    assert sorted((c.text, c.speaker) for c in clips) == [
        ("Asante.", kept.speaker),
        ("Habari ya leo.", kept.speaker),
    ]
    assert not audio.is_generated(kept.path)


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
