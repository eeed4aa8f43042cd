"""Speech changed before a network hears it in training, so that it serves voices and rooms it never met.

Everything works on log-mel and draws from torch's global generator; lengths come with the batch, and what
lies beyond them never reaches what lies within.

Axes: b batch, f mel frames (50 Hz), m mel bins.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from slmlab.models.blocks import frame_mask, masked_mean, peak


@dataclass(frozen=True)
class Augmentation:
    """How far speech is changed."""

    tract: float = 0.1
    """Frequencies, pitch too, are stretched by up to this share, as another vocal tract would."""
    speed: float = 0.1
    """Time is stretched by up to this share."""
    noise: float = 0.3
    """Share of the utterances that get a steady noise."""
    level: tuple[float, float] = (-5.0, -1.5)
    """Least and greatest level of that noise against the utterance's peak, in nats (1 is 8.7 dB)."""
    bands: int = 1
    """Stretches of mel bins that go missing, each up to a sixth of the bins."""
    gaps: int = 1
    """Stretches of frames that go missing, each up to a tenth of the utterance."""


def augment(mel: Tensor, frames: Tensor, how: Augmentation) -> tuple[Tensor, Tensor]:
    """Another voice, pace and room, with parts missing: `(b f m)` to `(b f' m)`, each with lengths `(b,)`."""
    (b, _, m), device = mel.shape, mel.device
    tract, speed = (1 + share * (2 * torch.rand(b, device=device) - 1) for share in (how.tract, how.speed))
    mel, frames = stretch(mel, frames, tract, speed)
    mask = frame_mask(frames, mel.shape[1])
    mel = add_noise(mel, mask, how.noise, how.level)
    gaps = random_stretches(frames, mel.shape[1], how.gaps, 1 / 10)
    bands = random_stretches(torch.full((b,), m, device=device), m, how.bands, 1 / 6)
    missing = rearrange(gaps, "b f -> b f 1") | rearrange(bands, "b m -> b 1 m")
    return torch.where(missing, masked_mean(mel, mask), mel), frames


def stretch(mel: Tensor, frames: Tensor, tract: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
    """Each utterance with its own vocal tract and its own pace, by linear interpolation.

    Of log-mels `(b f m)` with lengths `(b,)`: frequencies are multiplied by the factors `tract` `(b,)`, pace
    by `speed` `(b,)`. The longest of the new lengths is f' of the new `(b f' m)`.
    """
    (_, f, m), device = mel.shape, mel.device
    new = (frames / speed).round().long().clamp_min(1)
    bins = torch.arange(m, device=device) / rearrange(tract, "b -> b 1")
    times = torch.arange(int(new.max()), device=device) * rearrange(frames / new, "b -> b 1")
    times = torch.minimum(times, rearrange(frames - 1, "b -> b 1"))
    x = rearrange(2 * bins / (m - 1) - 1, "b m -> b 1 m").expand(-1, times.shape[1], -1)
    y = rearrange(2 * times / max(f - 1, 1) - 1, "b f -> b f 1").expand(-1, -1, m)
    image = rearrange(mel, "b f m -> b 1 f m")
    grid = torch.stack([x, y], dim=-1).to(mel.dtype)
    warped = functional.grid_sample(image, grid, padding_mode="border", align_corners=True)
    return rearrange(warped, "b 1 f m -> b f m"), new


def add_noise(mel: Tensor, mask: Tensor, share: float, level: tuple[float, float]) -> Tensor:
    """A steady noise of random level and tilt under a share of the utterances `(b f m)`: powers are added.

    The mask `(b f 1)` is 1 at real frames; `level` is against the utterance's peak, in nats.
    """
    b, _, m = mel.shape
    low, high = level
    drawn, tilt, chosen = torch.rand(3, b, 1, 1, device=mel.device)
    slope = 1.5 * tilt * torch.linspace(1, -1, m, device=mel.device)
    noise = peak(mel, mask) + low + (high - low) * drawn + slope
    noisy = torch.logaddexp(2 * mel, 2 * (noise + 0.5 * torch.randn_like(mel))) / 2
    return torch.where(chosen < share, noisy, mel)


def random_stretches(lengths: Tensor, size: int, count: int, share: float) -> Tensor:
    """True on `count` stretches of each row, each up to `share` of its length: `(b,)` to `(b size)`."""
    rows = rearrange(lengths, "b -> b 1 1")
    span, start = torch.rand(2, len(lengths), count, 1, device=lengths.device)
    span = span * share * rows
    start = start * (rows - span)
    where = torch.arange(size, device=lengths.device)
    return ((where >= start) & (where < start + span)).any(1)
