"""What the networks see of a sound and what a listener hears of its melody: log-mel, F0, energy at 50 Hz.

Here waves are checked and measured; `mel` and `pitch` do the arithmetic.

Axes: b batch, s samples, f frames (f = s // 320), m mel bins.
"""

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from slmlab.errors import LabError
from slmlab.sound import mel, pitch
from slmlab.sound.mel import HOP


def log_mel(wave: Tensor | NDArray[np.float32]) -> Tensor:
    """Natural logarithm of the magnitude mel spectrum of waves (b s) or (s), 16 kHz: (b f m), f = s // 320.

    Slaney mel scale and norm, 80 bins to 8 kHz, Hann window of 1024, centred with zeros around the sound;
    never below ln(1e-5); differentiable, on the wave's own device.
    """
    return mel.log_mel(_spectrum(_waves(wave)))


def energy(wave: Tensor | NDArray[np.float32]) -> Tensor:
    """RMS level of 40 ms around each frame's centre, in dB of full scale, floor -80: (s), 16 kHz, to (f)."""
    return mel.energy(_one_wave(wave))[0]


def f0(wave: Tensor | NDArray[np.float32]) -> Tensor:
    """Fundamental frequency in Hz, 0 where unvoiced: (s), 16 kHz, to (f)."""
    waves = _one_wave(wave)
    return pitch.f0(_spectrum(waves)[0], mel.energy(waves)[0])


@torch.no_grad()
def extract(wave: Tensor | NDArray[np.float32]) -> tuple[Tensor, Tensor, Tensor]:
    """Log-mel (f m), F0 (f) in Hz and energy (f) in dB of a wave (s), 16 kHz, at the price of one STFT."""
    waves = _one_wave(wave)
    if not torch.isfinite(waves).all():
        raise LabError(
            "the wave holds samples that are not numbers (NaN or infinity): make or record it again."
        )
    spectrum, level = _spectrum(waves), mel.energy(waves)[0]
    return mel.log_mel(spectrum)[0], pitch.f0(spectrum[0], level), level


def _spectrum(waves: Tensor) -> Tensor:
    """(b s) to (b k f), without the frame that is centred on the end."""
    return mel.stft(waves)[..., : waves.shape[-1] // HOP]


def _waves(wave: Tensor | NDArray[np.float32]) -> Tensor:
    """Any accepted wave as (b s) float32, at least one frame long."""
    waves = torch.as_tensor(wave)
    if waves.ndim == 1:
        waves = rearrange(waves, "s -> 1 s")
    if waves.ndim != 2 or not waves.is_floating_point():
        raise LabError(
            f"a wave is (s) or (b s) of floats, found shape {tuple(waves.shape)} of {waves.dtype}."
        )
    if waves.shape[-1] < HOP:
        raise LabError(
            f"the sound has {waves.shape[-1]} samples where one frame needs {HOP} (20 ms): take a longer one."
        )
    return waves.float()


def _one_wave(wave: Tensor | NDArray[np.float32]) -> Tensor:
    """A single wave as (1 s)."""
    waves = _waves(wave)
    if len(waves) != 1:
        raise LabError(f"F0 and energy are taken of one wave (s) at a time, found {len(waves)} waves.")
    return waves
