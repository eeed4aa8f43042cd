"""Griffin-Lim, the vocoder's baseline."""

import math

import torch
from einops import rearrange
from torch import Tensor

from slmlab.sound.mel import HOP, istft, mel_filters, stft


def magnitudes(mel: Tensor, rounds: int = 60) -> Tensor:
    """Undo the mel filters: the non-negative magnitudes whose mel is nearest, `(b f m)` → `(b k f)`.

    From the clipped pseudo-inverse by the multiplicative rule of Lee & Seung (2001), which stays positive.
    """
    filters = mel_filters(mel.device)
    target = rearrange(mel.exp(), "b f m -> b m f")
    magnitude = (torch.linalg.pinv(filters) @ target).clamp(min=0) + 1e-8
    spread = filters.T @ target
    for _ in range(rounds):
        magnitude = magnitude * spread / (filters.T @ (filters @ magnitude) + 1e-9)
    return magnitude


@torch.no_grad()
def griffin_lim(mel: Tensor, iterations: int = 60, momentum: float = 0.99) -> Tensor:
    """The baseline without learning: phases that agree with the magnitudes (Perraudin et al. 2013).

    Args:
        mel: `(b f m)`, natural logarithm of magnitude mel.
        iterations: projections, there and back.
        momentum: 0 is Griffin & Lim's own (1984).

    Returns:
        `(b s)` with s = 320 f; the same at every call.
    """
    magnitude = magnitudes(mel)
    magnitude = torch.cat((magnitude, magnitude[..., -1:]), dim=-1)
    angles = 2 * math.pi * torch.rand(magnitude.shape[1:], generator=torch.Generator().manual_seed(0))
    phase = torch.polar(torch.ones_like(angles), angles).to(mel.device)
    previous = torch.zeros_like(phase)
    for _ in range(iterations):
        wave = istft(magnitude * phase, mel.shape[1] * HOP)
        spectrum = stft(wave)
        ahead = spectrum - momentum / (1 + momentum) * previous
        phase, previous = ahead / (ahead.abs() + 1e-12), spectrum
    return istft(magnitude * phase, mel.shape[1] * HOP)
