"""One mel for all: recordings are measured by it, networks read it, and the vocoder listens to itself in it.

The transform is torch's FFT: nnAudio's own is a convolution, which gives the same values (a test compares
them) five times slower. nnAudio gives the scale and the filters, both Slaney's: the scale is linear below
1 kHz, 200/3 Hz a mel, and logarithmic above.

Axes: b batch, s samples, f frames (f = s // 320), k frequency bins, m mel bins.
"""

from functools import cache

import torch
from einops import einsum, rearrange
from nnAudio.librosa_functions import get_mel, hz_to_mel, mel_frequencies
from torch import Tensor
from torch.nn import functional

from slmlab.sound import SAMPLE_RATE

N_FFT = 1024
HOP = 320  # samples from frame to frame
FRAME_RATE = SAMPLE_RATE // HOP
N_MELS = 80
LOG_FLOOR = 1e-5
ENERGY_WINDOW = 640
ENERGY_FLOOR = -80.0
CPU = torch.device("cpu")  # constants are made there: they have values also where weights have none (`meta`)


def stft(wave: Tensor, size: int = N_FFT, hop: int = HOP) -> Tensor:
    """Centred spectrum with a Hann window and zeros around: `(b s)` → complex `(b k f)`, f = s // hop + 1."""
    window = torch.hann_window(size, device=wave.device)
    return torch.stft(wave, size, hop, window=window, pad_mode="constant", return_complex=True)


def istft(spectrum: Tensor, length: int, size: int = N_FFT, hop: int = HOP) -> Tensor:
    """The wave `(b s)` of `length` samples whose `stft` is nearest to a spectrum `(b k f)`."""
    window = torch.hann_window(size, device=spectrum.device)
    return torch.istft(spectrum, size, hop, window=window, length=length)


def log_mel(spectrum: Tensor) -> Tensor:
    """Natural logarithm of the mel of magnitudes, never below ln(1e-5): complex `(b k f)` → `(b f m)`."""
    mel = einsum(mel_filters(spectrum.device), spectrum.abs(), "m k, b k f -> b f m")
    return mel.clamp(min=LOG_FLOOR).log()


def energy(wave: Tensor) -> Tensor:
    """RMS level of 40 ms around each frame's centre, in dB of full scale, floor -80: `(b s)` → `(b f)`."""
    power = functional.avg_pool1d(wave**2, ENERGY_WINDOW, HOP, ENERGY_WINDOW // 2, count_include_pad=False)
    level = 10 * torch.log10(power.clamp(min=10 ** (ENERGY_FLOOR / 10)))
    return level[:, : wave.shape[-1] // HOP]


@cache
@torch.inference_mode(False)  # kept for later calls, which may want gradients
def mel_filters(device: torch.device = CPU) -> Tensor:
    """Triangles on the mel scale, each of area 1, from 0 Hz to half the sample rate: `(m k)`."""
    return torch.as_tensor(get_mel(SAMPLE_RATE, N_FFT, N_MELS), device=device)


def mel_peaks() -> Tensor:
    """The frequency at which each mel filter is highest: `(m)` in Hz."""
    hertz = mel_frequencies(N_MELS + 2, fmax=SAMPLE_RATE / 2)[1:-1]
    return torch.as_tensor(hertz, dtype=torch.float32, device=CPU)


def mel_bin(hertz: float) -> float:
    """Where a frequency lies among the mel bins: 0 is at the peak of the first, 79 at that of the last."""
    return float(hz_to_mel(hertz) / hz_to_mel(SAMPLE_RATE / 2) * (N_MELS + 1) - 1)


def frequencies(size: int) -> Tensor:
    """Hz of each bin of a spectrum: `(k)`."""
    return torch.arange(size // 2 + 1, device=CPU) * SAMPLE_RATE / size


def mel_interpolation(hertz: Tensor) -> Tensor:
    """Straight lines between the mel filters' centres of gravity, read at any Hz: `(...)` → `(... m)`."""
    filters = mel_filters()
    centres = einsum(filters, frequencies(N_FFT), "m k, k -> m") / filters.sum(1)
    above = torch.searchsorted(centres, hertz).clamp(1, N_MELS - 1)
    share = ((hertz - centres[above - 1]) / (centres[above] - centres[above - 1])).clamp(0, 1)
    share = rearrange(share, "... -> ... 1")
    return (1 - share) * functional.one_hot(above - 1, N_MELS) + share * functional.one_hot(above, N_MELS)
