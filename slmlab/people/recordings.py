"""One's own voice: a recording is checked, and stored with its words and with what its speaker agreed to.

The folder made is one that `slmlab.corpus.imports.plain` reads: a subfolder a speaker, sounds and texts of
the same name.
"""

import json
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slmlab.errors import LabError
from slmlab.people.design import sha256_of
from slmlab.people.store import NAME_LENGTH, clean
from slmlab.sound import SAMPLE_RATE, audio

CONSENT = (
    "This is my own voice. It may be used to train and test speech systems of this project, "
    "and I can have the recording removed at any time."
)
SHORTEST, LONGEST = 0.5, 20.0
CLIPPED_SHARE = 0.001
QUIET_DB = -45.0


@dataclass(frozen=True)
class Recording:
    """A recording that was kept."""

    path: Path
    """The WAV file."""
    text: str
    """What was to be read."""
    seconds: float
    """Its length."""
    sha256: str
    """Of the file."""
    speaker: str
    """The speaker's folder; their name stands only in its `consent.json`."""


def keep(source: str | Path, text: str, speaker: str, agreed: bool, folder: str | Path) -> Recording:
    """Check a recording and put it into the folder of its speaker.

    Raises:
        LabError: no consent, no name, no words, or a sound too short, too long, too quiet or clipped.
    """
    speaker, text = clean(speaker, NAME_LENGTH), " ".join(str(text).split())
    if not agreed:
        raise LabError("tick the consent first: without it nothing is stored")
    if not speaker or not text:
        raise LabError("give a name (any name) and the words you read")
    wave, info = audio.read(source, LONGEST)
    check(wave, info.clipped)
    place = _folder_of(Path(folder), speaker)
    path = place / f"{secrets.token_hex(6)}.wav"
    audio.write(path, wave, generated=False)
    path.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
    return Recording(path, text, len(wave) / SAMPLE_RATE, sha256_of(path), place.name)


def check(wave: audio.Wave, clipped: float) -> None:
    """LabError, saying what to do, unless a wave (s) is long, loud and clean enough."""
    seconds = len(wave) / SAMPLE_RATE
    if seconds < SHORTEST:
        raise LabError(
            f"this lasts {seconds:.1f} s, at least {SHORTEST} s is needed: read the whole sentence"
        )
    if clipped > CLIPPED_SHARE:
        raise LabError(f"{100 * clipped:.1f} % of this is clipped: move back or turn the microphone down")
    if audio.loudness(wave) < QUIET_DB:
        raise LabError(f"this is almost silent ({audio.loudness(wave):.0f} dB): come nearer or turn it up")
    if float(np.mean(np.abs(wave) > 0.02)) < 0.02:
        raise LabError("hardly anything sounds in this: did the microphone hear you?")


def _folder_of(folder: Path, speaker: str) -> Path:
    """The speaker's folder, under a name that tells nothing, with their consent in it."""
    for known in folder.glob("*/consent.json"):
        if json.loads(known.read_text(encoding="utf-8"))["speaker"] == speaker:
            return known.parent
    place = folder / f"speaker-{secrets.token_hex(4)}"
    place.mkdir(parents=True)
    consent = {"speaker": speaker, "statement": CONSENT, "agreed_at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    (place / "consent.json").write_text(json.dumps(consent, ensure_ascii=False, indent=1), encoding="utf-8")
    return place
