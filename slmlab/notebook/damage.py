"""Ways to break a sound on purpose, so that every number can be asked whether it notices.

Each takes a wave `(s,)` at 16 kHz and says how much; each has a setting that changes nothing. All but the
last know nothing of speech: what they do happens to recordings too, in bad microphones and on bad lines.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.signal import butter, sosfiltfilt

from slmlab.errors import LabError
from slmlab.models.vocoder import Vocoder
from slmlab.sound import SAMPLE_RATE, audio, features
from slmlab.sound.audio import Wave

CLEAN = 80.0
"""dB of speech over noise from which `noisy` adds none."""
ENVELOPE = 5
"""Mel bins over which a vocoder that is to sing another melody looks at the old one's mel: its envelope."""
FADE = 80
"""Samples over which one piece of a sound goes over into the next: 5 ms, so that a cut does not click."""


def noisy(wave: ArrayLike, snr: float, seed: int = 0) -> Wave:
    """White noise, `snr` dB softer than the speech without its pauses; 80 and more add none."""
    samples = _samples(wave)
    if snr >= CLEAN:
        return samples
    level = 10 ** ((audio.loudness(samples) - snr) / 20)
    noise = np.random.default_rng(seed).standard_normal(len(samples), dtype=np.float32)
    return samples + np.float32(level) * noise


def muffled(wave: ArrayLike, hertz: float) -> Wave:
    """Nothing left above a frequency, where half of the level is gone; 8000 Hz and more change nothing."""
    samples = _samples(wave)
    if hertz >= SAMPLE_RATE / 2:
        return samples
    if hertz <= 0:
        raise LabError(f"a sound cannot be muffled at {hertz} Hz: give a frequency above 0.")
    slopes = butter(4, hertz, fs=SAMPLE_RATE, output="sos")
    return sosfiltfilt(slopes, samples).astype(np.float32)


def overdriven(wave: ArrayLike, gain: float) -> Wave:
    """Recorded too loud: the peak raised `gain` dB above full scale, cut off there, and lowered again."""
    samples = _samples(wave)
    ceiling = np.float32(np.abs(samples).max() * 10 ** (-gain / 20))
    return samples if gain <= 0 else samples.clip(-ceiling, ceiling)


def played_faster(wave: ArrayLike, speed: float) -> Wave:
    """A tape at the wrong speed, `(s / speed,)`: 2 is twice as fast and an octave higher, resonances too."""
    if speed <= 0:
        raise LabError(f"a tape cannot run at {speed} times its speed: give a number above 0.")
    return audio.resample(_samples(wave), SAMPLE_RATE, SAMPLE_RATE / speed)


def stuck(wave: ArrayLike, times: int, start: float = 0.5, seconds: float = 0.2) -> Wave:
    """A piece from a share `start` of the sound on, said `times` more times, as by a model in a loop."""
    samples = _samples(wave)
    first, length = int(start * len(samples)), int(seconds * SAMPLE_RATE)
    last = first + length
    if times <= 0:
        return samples
    if last + FADE > len(samples):
        raise LabError(
            f"the piece to repeat ends at {last / SAMPLE_RATE:.2f} s, the sound at "
            f"{len(samples) / SAMPLE_RATE:.2f} s: begin earlier or take a shorter piece."
        )
    into = np.linspace(0, 1, FADE, dtype=np.float32)
    piece = samples[first:last].copy()
    piece[:FADE] = into * piece[:FADE] + (1 - into) * samples[last : last + FADE]
    return np.concatenate([samples[:last], np.tile(piece, times), samples[last:]])


def bent(
    wave: ArrayLike, vocoder: Vocoder, semitones: float = 0.0, melody: float = 1.0, voicing: float = 0.0
) -> Wave:
    """Said again by a vocoder with another melody: words stay, the way they are said does not.

    At the neutral settings it is the vocoder's own copy, not the wave.

    Args:
        wave: of which whole frames of 320 samples are used.
        vocoder: a trained one.
        semitones: by which all pitch is moved.
        melody: distance of F0 from its median, in octaves, times this: 0 is a drone, -1 upside down.
        voicing: added to the logits of voicing: -10 is a whisper, 10 a buzz.
    """
    with torch.inference_mode():
        mel = features.log_mel(_samples(wave))
        scores, voiced = vocoder.pitch(mel)
        f0 = vocoder.pitch.f0(scores)
        middle = f0[voiced > 0].median() if bool((voiced > 0).any()) else f0.median()
        moved = (middle * (f0 / middle) ** melody * 2 ** (semitones / 12)).clamp(
            vocoder.config.lowest, vocoder.config.highest
        )
        said = vocoder.synthesise(mel, moved, voiced + voicing, smoothing=ENVELOPE)[0, 0]
    return said.clamp(-1, 1).numpy()


def _samples(wave: ArrayLike) -> Wave:
    samples = np.asarray(wave, dtype=np.float32)
    audio.check(samples, "the sound to break")
    return samples
