"""Every figure that applies to one sound, with what it is counted in.

This is where a metric goes: a line in `FIGURES`. `slmlab measure` prints it, `slmlab run` keeps it for each
test sentence, and `slmlab compare` compares it.

Axis legend: s samples, f frames, m mel bins, d embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from slmlab.metrics import prosody
from slmlab.metrics.error_rates import cer, wer
from slmlab.metrics.tokens import length_ratio
from slmlab.sound import SAMPLE_RATE, audio, features


@dataclass(frozen=True)
class Sound:
    """A sound and what is known of it: what a figure may be computed from."""

    wave: audio.Wave
    """(s) at 16 kHz."""
    mel: Any
    """Log-mel (f m)."""
    f0: Any
    """F0 in Hz (f), 0 where unvoiced."""
    energy: Any
    """Energy (f) in dB."""
    language: str = ""
    """Of the text, whose cut into words counts."""
    text: str | None = None
    """What it should say."""
    heard: str | None = None
    """What a recogniser heard in it."""
    reference: "Sound | None" = None
    """A recording of the same words."""
    path: Any = None
    """Frames of it and of the reference that belong together (p 2), after DTW on the mel."""
    embed: Callable[[audio.Wave], ArrayLike] | None = None
    """Gives the speaker embedding (d) of a wave."""


@dataclass(frozen=True)
class Figure:
    """A metric of one sound."""

    unit: str
    """What it is counted in."""
    of: Callable[[Any], float]
    """The value of a `Sound`; NaN where undefined."""
    needs: tuple[str, ...] = ()
    """Fields of the sound without which it does not apply."""


THERE, SAID, HEARD = ("reference",), ("text",), ("text", "heard")
FIGURES = {
    "seconds": Figure("s", lambda x: len(x.wave) / SAMPLE_RATE),
    "loudness": Figure("dB of full scale", lambda x: audio.loudness(x.wave)),
    "clipped": Figure("share", lambda x: float((np.abs(x.wave) >= audio.CLIPPED_LEVEL).mean())),
    "speech_share": Figure("share", lambda x: float(prosody.speech_frames(x.energy).mean())),
    "voiced_share": Figure("share", lambda x: prosody.voiced_share(x.f0, x.energy)),
    "f0_median": Figure("Hz", lambda x: prosody.f0_median(x.f0)),
    "f0_std": Figure("Hz", lambda x: prosody.f0_std(x.f0)),
    "f0_range": Figure("Hz", lambda x: prosody.f0_range(x.f0)),
    "f0_spread": Figure("semitones", lambda x: prosody.f0_spread(x.f0)),
    "energy_std": Figure("dB", lambda x: prosody.energy_std(x.energy)),
    "rate_variation": Figure("0 is a metronome", lambda x: prosody.rate_variation(x.energy)),
    "speaking_rate": Figure("letters/s", lambda x: prosody.speaking_rate(x.text, x.energy, x.language), SAID),
    "cer": Figure("wrong letters over letters", lambda x: cer(x.text, x.heard, x.language), HEARD),
    "wer": Figure("wrong words over words", lambda x: wer(x.text, x.heard, x.language), HEARD),
    "length_ratio": Figure("1 is as long", lambda x: length_ratio(len(x.wave), len(x.reference.wave)), THERE),
    "f0_correlation": Figure(
        "-1 to 1", lambda x: prosody.f0_correlation(x.f0, x.reference.f0, x.path), THERE
    ),
    "f0_rmse": Figure("Hz", lambda x: prosody.f0_rmse(x.f0, x.reference.f0, x.path), THERE),
    "mel_distance": Figure("dB", lambda x: prosody.mel_distance(x.mel, x.reference.mel, x.path), THERE),
    "similarity": Figure(
        "-1 to 1",
        lambda x: prosody.similarity(x.embed(x.wave), x.embed(x.reference.wave)),
        ("reference", "embed"),
    ),
}
"""By name, in the order in which they are printed."""
UNITS = {name: figure.unit for name, figure in FIGURES.items()} | {
    "entropy": "bits",
    "repetition": "share",
    "repeats_at": "0 begins, 1 ends",
    "calibrated_cer": "cer less the recording's",
    "whisper_cer": "wrong letters over letters",
    "whisper_added": "whisper_cer less the recording's",
    "dnsmos": "1 to 5",
    "vad": "share",
    "sim": "-1 to 1",
}
"""What all figures of a sound are counted in: those above, of its tokens, of the instruments."""


def describe(
    wave: audio.Wave,
    text: str | None = None,
    reference: audio.Wave | None = None,
    heard: str | None = None,
    embed: Callable[[audio.Wave], ArrayLike] | None = None,
    language: str = "",
) -> dict[str, float]:
    """Every metric that applies to one sound (s) at 16 kHz, of whatever system; see `Sound` for the rest.

    Returns:
        name → value, NaN where undefined; always the same names for the same arguments given.
    """
    audio.check(wave, "the sound")
    sound = Sound(wave, *features.extract(wave), language, text, heard, embed=embed)
    if reference is not None:
        audio.check(reference, "the reference")
        other = Sound(reference, *features.extract(reference))
        sound = replace(sound, reference=other, path=prosody.align(sound.mel, other.mel))
    return {
        name: figure.of(sound)
        for name, figure in FIGURES.items()
        if all(getattr(sound, need) is not None for need in figure.needs)
    }
