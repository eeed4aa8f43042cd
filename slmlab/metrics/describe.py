"""Every figure that applies to one sound, with what it is counted in."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from slmlab.metrics import prosody
from slmlab.metrics.error_rates import cer, wer
from slmlab.metrics.tokens import length_ratio
from slmlab.sound import SAMPLE_RATE, audio, features

UNITS = {
    "seconds": "s",
    "loudness": "dB of full scale",
    "clipped": "share",
    "speech_share": "share",
    "voiced_share": "share",
    "f0_median": "Hz",
    "f0_std": "Hz",
    "f0_range": "Hz",
    "f0_spread": "semitones",
    "energy_std": "dB",
    "rate_variation": "0 is a metronome",
    "speaking_rate": "letters/s",
    "cer": "wrong letters over letters",
    "wer": "wrong words over words",
    "length_ratio": "1 is as long",
    "f0_correlation": "-1 to 1",
    "f0_rmse": "Hz",
    "mel_distance": "dB",
    "similarity": "-1 to 1",
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
"""What the figures of a sound are counted in."""


def describe(
    wave: audio.Wave,
    text: str | None = None,
    reference: audio.Wave | None = None,
    heard: str | None = None,
    embed: Callable[[audio.Wave], ArrayLike] | None = None,
    language: str = "",
) -> dict[str, float]:
    """Every metric that applies to one sound, of whatever system.

    Args:
        wave: (s) at 16 kHz.
        text: what it should say.
        reference: (s) at 16 kHz, a recording of the same words; melodies are compared after DTW on the mel.
        heard: what a recogniser heard in it.
        embed: gives the speaker embedding (d) of a wave.
        language: of the text, whose cut into words counts.

    Returns:
        name → value, NaN where undefined; always the same names for the same arguments given.
    """
    audio.check(wave, "the sound")
    mel, f0, energy = features.extract(wave)
    figures = {
        "seconds": len(wave) / SAMPLE_RATE,
        "loudness": audio.loudness(wave),
        "clipped": float((np.abs(wave) >= audio.CLIPPED_LEVEL).mean()),
        "speech_share": float(prosody.speech_frames(energy).mean()),
        "voiced_share": prosody.voiced_share(f0, energy),
        "f0_median": prosody.f0_median(f0),
        "f0_std": prosody.f0_std(f0),
        "f0_range": prosody.f0_range(f0),
        "f0_spread": prosody.f0_spread(f0),
        "energy_std": prosody.energy_std(energy),
        "rate_variation": prosody.rate_variation(energy),
    }
    if text is not None:
        figures["speaking_rate"] = prosody.speaking_rate(text, energy, language)
        if heard is not None:
            figures |= {"cer": cer(text, heard, language), "wer": wer(text, heard, language)}
    if reference is not None:
        audio.check(reference, "the reference")
        reference_mel, reference_f0, _ = features.extract(reference)
        path = prosody.align(mel, reference_mel)
        figures |= {
            "length_ratio": length_ratio(len(wave), len(reference)),
            "f0_correlation": prosody.f0_correlation(f0, reference_f0, path),
            "f0_rmse": prosody.f0_rmse(f0, reference_f0, path),
            "mel_distance": prosody.mel_distance(mel, reference_mel, path),
        }
        if embed is not None:
            figures["similarity"] = prosody.similarity(embed(wave), embed(reference))
    return figures
