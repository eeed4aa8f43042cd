"""Pitch: F0 by the method of Boersma (1993), with the autocorrelation taken from the mel's own spectrum.

Axes: f frames, k frequency bins, g grid of possible F0, c candidates for F0 in one frame (the first is
"unvoiced").
"""

import math
from functools import cache

import numpy as np
import torch
from einops import einsum, rearrange
from numpy.typing import NDArray
from torch import Tensor

from slmlab.sound import SAMPLE_RATE
from slmlab.sound.mel import N_FFT, frequencies

LOWEST, HIGHEST = 50.0, 450.0  # Hz; low enough for creaky voice, and 64 ms still hold three periods
PER_OCTAVE = 48  # points of the grid of possible F0; a parabola refines between them
TOP_HZ = 2000.0  # harmonics above this do not vote
N_CANDIDATES = 4  # peaks of the autocorrelation of each frame that are considered
VOICING = 0.5  # autocorrelation, 0 to 1, above which a frame is rather voiced
OCTAVE_COST = 0.04  # preference for the higher of two equal peaks, per octave
JUMP_COST = 0.35  # price of a change of one octave from frame to frame
SWITCH_COST = 0.2  # price of a change between voiced and unvoiced
QUIET = 35.0  # frames this many dB below the loudest count as silence


def f0(spectrum: Tensor, energy: Tensor) -> Tensor:
    """Fundamental frequency in Hz, 0 if unvoiced: complex spectrum `(k f)`, energy `(f)` in dB, to `(f)`."""
    grid, basis = _autocorrelation_basis(spectrum.device)
    power = spectrum.abs() ** 2
    total = einsum((basis != 0).any(1).float(), power, "k, k f -> f")
    strength = einsum(power, basis, "k f, k g -> f g") / rearrange(total.clamp(min=1e-9), "f -> f 1")
    frequency, score = _candidates(grid, strength)
    below = (energy.max() - energy) / QUIET
    unvoiced = VOICING + (below - 1).clamp(min=0)
    score = torch.cat((rearrange(unvoiced, "f -> f 1"), score), dim=1)
    frequency = torch.cat((torch.zeros_like(frequency[:, :1]), frequency), dim=1)
    path = _best_path(frequency.cpu().double().numpy(), score.cpu().double().numpy())
    return frequency.gather(1, torch.as_tensor(path, device=frequency.device)[:, None])[:, 0]


def semitones(f0: Tensor) -> Tensor:
    """F0 `(f)` in Hz, 0 where unvoiced, to semitones from its median over voiced frames, NaN elsewhere."""
    pitch = torch.where(f0 > 0, 12 * torch.log2(f0.clamp(min=1e-3)), torch.nan)
    return pitch - pitch.nanquantile(0.5)


def register(f0: Tensor) -> Tensor:
    """How high a voice lies: the median of F0 `(f)` in octaves from 150 Hz, `(1)`, 0 where none is voiced."""
    voiced = f0[f0 > 0]
    return torch.log2(voiced.median() / 150).reshape(1) if len(voiced) else torch.zeros(1)


@cache
@torch.inference_mode(False)  # kept for later calls, which may want gradients
def _autocorrelation_basis(device: torch.device) -> tuple[Tensor, Tensor]:
    """The grid of F0 (g), and cosines (k g) that turn a power spectrum into autocorrelation at those periods.

    Each is divided by the autocorrelation of the Hann window at that lag (Boersma 1993, eq. 9), so that a
    perfectly periodic sound reaches 1 at its period whatever the period is.
    """
    grid = LOWEST * 2 ** torch.arange(0, math.log2(HIGHEST / LOWEST), 1 / PER_OCTAVE, device=device)
    bins = frequencies(N_FFT).to(device)
    votes = ((bins > LOWEST / 2) & (bins <= TOP_HZ)).float()
    x = SAMPLE_RATE / grid / N_FFT
    window = (1 - x) * (2 / 3 + torch.cos(2 * math.pi * x) / 3) + torch.sin(2 * math.pi * x) / (2 * math.pi)
    cosines = torch.cos(2 * math.pi * einsum(bins, 1 / grid, "k, g -> k g"))
    return grid, rearrange(votes, "k -> k 1") * cosines / window


def _candidates(grid: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
    """The highest peaks of each frame's autocorrelation: (g), (f g) -> F0 in Hz and score, both (f c)."""
    left, middle, right = strength[:, :-2], strength[:, 1:-1], strength[:, 2:]
    is_peak = (middle >= left) & (middle > right)
    octaves_below_top = torch.log2(grid[-1] / grid[1:-1])
    score = torch.where(is_peak, middle - OCTAVE_COST * octaves_below_top, -math.inf)
    score, place = score.topk(N_CANDIDATES, dim=1)
    a, b, c = (values.gather(1, place) for values in (left, middle, right))
    shift = 0.5 * (a - c) / (a - 2 * b + c).clamp(max=-1e-9)
    frequency = grid[1:-1][place] * 2 ** (shift.clamp(-0.5, 0.5) / PER_OCTAVE)
    return frequency, score


def _best_path(frequency: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.int64]:
    """Viterbi over the candidates (f c): strong peaks, few jumps, few changes of voicing; (f) indices."""
    voiced = frequency > 0
    octave = np.log2(np.where(voiced, frequency, 1.0))
    jump = JUMP_COST * np.abs(octave[:-1, :, None] - octave[1:, None, :])
    switches = voiced[:-1, :, None] != voiced[1:, None, :]
    cost = np.where(switches, SWITCH_COST, np.where(voiced[:-1, :, None], jump, 0.0))
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
