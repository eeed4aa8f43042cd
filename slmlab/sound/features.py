"""What the networks see of a sound and what a listener hears of its melody: log-mel, F0, energy at 50 Hz.

One centred STFT serves both the mel spectrogram and F0. nnAudio gives the mel filters; the transform is
torch's FFT, since nnAudio's own is a convolution: the same values (a test compares them), five times slower,
and its square root has no gradient where a sound is digitally silent.

Axis legend: b batch, s samples, f frames (f = s // 320), k frequency bins, m mel bins, g grid of possible F0,
c candidates for F0 in one frame (the first is "unvoiced").
"""

import math
import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from einops import einsum, rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from slmlab.errors import LabError
from slmlab.sound.audio import SAMPLE_RATE

N_FFT = 1024
HOP = 320
FRAME_RATE = SAMPLE_RATE // HOP
N_MELS = 80
MAX_HZ = 8000.0
LOG_FLOOR = 1e-5
ENERGY_WINDOW = 640
ENERGY_FLOOR = -80.0


@dataclass(frozen=True)
class PitchConfig:
    """How F0 is found: Boersma (1993), with the autocorrelation taken from the mel front end's spectrum."""

    lowest: float = 50.0
    """Hz; low enough for creaky voice, and 64 ms still hold three periods."""
    highest: float = 450.0
    """Hz."""
    per_octave: int = 48
    """Points of the grid of possible F0 in an octave; a parabola refines between them."""
    top_hz: float = 2000.0
    """Harmonics above this do not vote."""
    n_candidates: int = 4
    """Peaks of the autocorrelation kept for each frame."""
    voicing: float = 0.5
    """Autocorrelation, 0 to 1, above which a frame is rather voiced."""
    octave_cost: float = 0.04
    """Preference for the higher of two equal peaks, per octave."""
    jump_cost: float = 0.35
    """Price of a change of one octave from frame to frame."""
    switch_cost: float = 0.2
    """Price of a change between voiced and unvoiced."""
    quiet: float = 35.0
    """Frames this many dB below the loudest count as silence."""


PITCH = PitchConfig()


def log_mel(wave: Tensor | NDArray[np.float32]) -> Tensor:
    """Natural logarithm of the magnitude mel spectrogram; differentiable, on the wave's own device.

    Slaney mel scale and norm, 80 bins to 8 kHz, Hann window of 1024, centred with zeros around the sound.

    Args:
        wave: (b s) or (s), 16 kHz.

    Returns:
        (b f m) with f = s // 320; b is 1 for a single wave. Never below ln(1e-5).
    """
    return _log_mel(_spectrum(_waves(wave)))


def energy(wave: Tensor | NDArray[np.float32]) -> Tensor:
    """RMS level of 40 ms around each frame's centre, in dB of full scale, floor -80.

    Args:
        wave: (s), 16 kHz.

    Returns:
        (f)
    """
    return _energy(_one_wave(wave))


def f0(wave: Tensor | NDArray[np.float32], config: PitchConfig = PITCH) -> Tensor:
    """Fundamental frequency in Hz, 0 where unvoiced.

    Args:
        wave: (s), 16 kHz.

    Returns:
        (f)
    """
    waves = _one_wave(wave)
    return _f0(_spectrum(waves), _energy(waves), config)


def extract(wave: Tensor | NDArray[np.float32]) -> tuple[Tensor, Tensor, Tensor]:
    """Everything about one utterance at the price of one STFT.

    Args:
        wave: (s), 16 kHz.

    Returns:
        log-mel (f m), F0 (f) in Hz, energy (f) in dB.
    """
    waves = _one_wave(wave)
    if not torch.isfinite(waves).all():
        raise LabError(
            "the wave holds samples that are not numbers (NaN or infinity): make or record it again."
        )
    with torch.no_grad():
        spectrum, level = _spectrum(waves), _energy(waves)
        return _log_mel(spectrum)[0], _f0(spectrum, level, PITCH), level


def semitones(f0: Tensor) -> Tensor:
    """The melody without the speaker's register: 12 log2(F0 / its median over the voiced frames).

    Args:
        f0: (f) in Hz, 0 where unvoiced.

    Returns:
        (f) in semitones, NaN where unvoiced.
    """
    pitch = torch.where(f0 > 0, 12 * torch.log2(f0.clamp(min=1e-3)), torch.nan)
    return pitch - pitch.nanquantile(0.5)


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


@cache
@torch.inference_mode(False)  # kept for later calls, which may want gradients
def _window(device: torch.device) -> Tensor:
    return torch.hann_window(N_FFT, device=device)


@cache
@torch.inference_mode(False)  # kept for later calls, which may want gradients
def _mel_filters(device: torch.device) -> Tensor:
    """nnAudio's mel filters (m k), from the module its MelSpectrogram takes them from.

    nnAudio.features would take a second and a half to import, and build Fourier kernels that nobody uses.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nnAudio.librosa_functions import get_mel

        filters = get_mel(SAMPLE_RATE, N_FFT, N_MELS, fmin=0.0, fmax=MAX_HZ, htk=False, norm=1)
    return torch.as_tensor(filters, dtype=torch.float32, device=device)


def _spectrum(waves: Tensor) -> Tensor:
    """Centred complex STFT: (b s) -> (b k f)."""
    spectrum = torch.stft(
        waves, N_FFT, HOP, N_FFT, _window(waves.device), center=True, pad_mode="constant", return_complex=True
    )
    return spectrum[..., : waves.shape[-1] // HOP]


def _log_mel(spectrum: Tensor) -> Tensor:
    mel = einsum(_mel_filters(spectrum.device), spectrum.abs(), "m k, b k f -> b f m")
    return mel.clamp(min=LOG_FLOOR).log()


def _energy(waves: Tensor) -> Tensor:
    """(1 s) -> (f)"""
    power = functional.avg_pool1d(waves**2, ENERGY_WINDOW, HOP, ENERGY_WINDOW // 2, count_include_pad=False)
    level = 10 * torch.log10(power.clamp(min=10 ** (ENERGY_FLOOR / 10)))
    return level[0, : waves.shape[-1] // HOP]


@cache
@torch.inference_mode(False)  # kept for later calls, which may want gradients
def _autocorrelation_basis(config: PitchConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """The grid of F0 (g), and cosines (k g) that turn a power spectrum into autocorrelation at those periods.

    Each is divided by the autocorrelation of the Hann window at that lag (Boersma 1993, eq. 9), so that a
    perfectly periodic sound reaches 1 at its period whatever the period is.
    """
    octaves = math.log2(config.highest / config.lowest)
    grid = config.lowest * 2 ** torch.arange(0, octaves, 1 / config.per_octave, device=device)
    bins = torch.arange(N_FFT // 2 + 1, device=device) * SAMPLE_RATE / N_FFT
    votes = ((bins > config.lowest / 2) & (bins <= config.top_hz)).float()
    x = SAMPLE_RATE / grid / N_FFT
    window = (1 - x) * (2 / 3 + torch.cos(2 * math.pi * x) / 3) + torch.sin(2 * math.pi * x) / (2 * math.pi)
    cosines = torch.cos(2 * math.pi * einsum(bins, 1 / grid, "k, g -> k g"))
    return grid, rearrange(votes, "k -> k 1") * cosines / window


def _f0(spectrum: Tensor, level: Tensor, config: PitchConfig) -> Tensor:
    """(1 k f), (f) -> (f)"""
    grid, basis = _autocorrelation_basis(config, spectrum.device)
    power = spectrum[0].abs() ** 2
    total = einsum((basis != 0).any(1).float(), power, "k, k f -> f")
    strength = einsum(power, basis, "k f, k g -> f g") / rearrange(total.clamp(min=1e-9), "f -> f 1")
    frequency, score = _candidates(grid, strength, config)
    below = (level.max() - level) / config.quiet
    unvoiced = config.voicing + (below - 1).clamp(min=0)
    score = torch.cat((rearrange(unvoiced, "f -> f 1"), score), dim=1)
    frequency = torch.cat((torch.zeros_like(frequency[:, :1]), frequency), dim=1)
    path = _best_path(frequency.cpu().double().numpy(), score.cpu().double().numpy(), config)
    return frequency.gather(1, torch.as_tensor(path, device=frequency.device)[:, None])[:, 0]


def _candidates(grid: Tensor, strength: Tensor, config: PitchConfig) -> tuple[Tensor, Tensor]:
    """The highest peaks of each frame's autocorrelation: (g), (f g) -> F0 in Hz and score, both (f c)."""
    left, middle, right = strength[:, :-2], strength[:, 1:-1], strength[:, 2:]
    is_peak = (middle >= left) & (middle > right)
    octaves_below_top = torch.log2(grid[-1] / grid[1:-1])
    score = torch.where(is_peak, middle - config.octave_cost * octaves_below_top, -math.inf)
    score, place = score.topk(config.n_candidates, dim=1)
    a, b, c = (values.gather(1, place) for values in (left, middle, right))
    shift = 0.5 * (a - c) / (a - 2 * b + c).clamp(max=-1e-9)
    frequency = grid[1:-1][place] * 2 ** (shift.clamp(-0.5, 0.5) / config.per_octave)
    return frequency, score


def _best_path(
    frequency: NDArray[np.float64], score: NDArray[np.float64], config: PitchConfig
) -> NDArray[np.int64]:
    """Viterbi over the candidates (f c): strong peaks, few jumps, few changes of voicing; (f) indices."""
    voiced = frequency > 0
    octave = np.log2(np.where(voiced, frequency, 1.0))
    jump = config.jump_cost * np.abs(octave[:-1, :, None] - octave[1:, None, :])
    switches = voiced[:-1, :, None] != voiced[1:, None, :]
    cost = np.where(switches, config.switch_cost, np.where(voiced[:-1, :, None], jump, 0.0))
    came_from = np.zeros(score.shape, dtype=np.int64)
    best = score[0]
    columns = np.arange(score.shape[1])
    for frame in range(1, len(score)):
        arriving = best[:, None] - cost[frame - 1]
        came_from[frame] = arriving.argmax(0)
        best = arriving[came_from[frame], columns] + score[frame]
    path = np.empty(len(score), dtype=np.int64)
    path[-1] = best.argmax()
    for frame in range(len(score) - 1, 0, -1):
        path[frame - 1] = came_from[frame, path[frame]]
    return path


def register(f0: Tensor) -> Tensor:
    """`(1,)`: the median F0 in octaves from 150 Hz, 0 where nothing is voiced: how high a voice lies."""
    voiced = f0[f0 > 0]
    return torch.log2(voiced.median() / 150).reshape(1) if len(voiced) else torch.zeros(1)
