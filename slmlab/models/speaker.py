"""The speaker encoder: a few seconds of anybody become a point on a sphere, near to what else they say.

It gives the decoder its timbre and the metrics their SIM. Trained to tell voices apart by an angle with a
margin (AAM-softmax, Deng et al. 2019), pooled by attentive statistics (Okabe et al. 2018). What was said, in
which language, how loudly and in which room should not show; how high a voice lies may, since it is a part of
who speaks.

Axes: b batch, f mel frames (50 Hz), t steps of two frames, m mel bins, d width, e numbers of an embedding, v
voices.
"""

import math
from dataclasses import dataclass, field

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional

from slmlab.models.augmentation import Augmentation, augment, stretch
from slmlab.models.blocks import FLOOR, ConvNeXt, even, frame_mask, peak


@dataclass(frozen=True)
class SpeakerConfig:
    """Sizes of the speaker encoder, and what it learns from."""

    n_speakers: int
    """Voices to tell apart in training."""
    n_mels: int = 80
    """Mel bins of a frame."""
    width: int = 128
    """Channels of every block."""
    layers: int = 3
    """Blocks."""
    width_out: int = 64
    """Numbers of an embedding."""
    margin: float = 0.2
    """Radians by which a training voice must be nearer to its own centre than it would need to be."""
    scale: float = 24.0
    """What cosines are multiplied by before the softmax."""
    tracts: tuple[float, ...] = (0.89, 1.0, 1.12)
    """Every voice is also heard with its frequencies times these, and counts as another voice then."""
    shortest: float = 0.4
    """Least share of a training crop that is heard."""
    augmentation: Augmentation = field(default_factory=lambda: Augmentation(tract=0.0, noise=0.5))
    """How speech is changed in training without becoming another voice."""


class SpeakerEncoder(nn.Module):
    """Mel to an embedding of length 1."""

    def __init__(self, config: SpeakerConfig) -> None:
        super().__init__()
        self.config = config
        d = config.width
        self.stem = nn.Linear(2 * config.n_mels, d)
        self.blocks = nn.ModuleList(ConvNeXt(d) for _ in range(config.layers))
        self.attention = nn.Sequential(nn.Linear(d, d // 2), nn.Tanh(), nn.Linear(d // 2, d))
        self.norm = nn.LayerNorm(2 * d)
        self.out = nn.Linear(2 * d, config.width_out)
        self.head = nn.Linear(config.width_out, config.n_speakers * len(config.tracts), bias=False)

    def forward(self, mel: Tensor, frames: Tensor) -> Tensor:
        """Log-mel `(b f m)` with lengths `(b,)` to `(b e)`, each of length 1, the same at any loudness."""
        mask = frame_mask(frames, mel.shape[1])
        h = (1 + (mel - peak(mel, mask)).clamp(min=-FLOOR) * (2 / FLOOR)) * mask
        h = self.stem(rearrange(even(h), "b (t two) m -> b t (two m)", two=2))
        mask = mask[:, ::2]
        for block in self.blocks:
            h = block(h, mask)
        return functional.normalize(self.out(self.norm(self.pool(h, mask))), dim=-1)

    def pool(self, h: Tensor, mask: Tensor) -> Tensor:
        """Mean and deviation of `(b t d)` over time, `(b 2d)`: every channel weighs the steps its own way."""
        weight = self.attention(h).masked_fill(mask == 0, -torch.inf).softmax(dim=1)
        mean = reduce(weight * h, "b t d -> b d", "sum")
        spread = reduce(weight * (h - rearrange(mean, "b d -> b 1 d")) ** 2, "b t d -> b d", "sum")
        return torch.cat([mean, (spread + 1e-5).sqrt()], dim=-1)


def with_margin(cosines: Tensor, speaker: Tensor, margin: float, scale: float) -> Tensor:
    """`(b v)` cosines to `(b v)` logits: s cos θ, and s cos(θ + margin) for the true voice `(b,)`."""
    true = functional.one_hot(speaker, cosines.shape[-1]).bool()
    sines = (1 - cosines**2).clamp(min=1e-6).sqrt()
    narrowed = cosines * math.cos(margin) - sines * math.sin(margin)
    return scale * torch.where(true, narrowed, cosines)


def speaker_loss(model: SpeakerEncoder, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """AAM-softmax over voices and their stretched doubles, on the beginnings of crops, changed.

    The batch holds `mel` (b f m), `frames` (b,), `speaker` (b,): crops that begin anywhere in an utterance.
    """
    config, frames = model.config, batch["frames"]
    tracts = torch.tensor(config.tracts, device=frames.device)
    double = torch.randint(len(tracts), frames.shape, device=frames.device)
    share = config.shortest + (1 - config.shortest) * torch.rand(frames.shape, device=frames.device)
    frames = (frames * share).long().clamp_min(1)
    mel, frames = stretch(batch["mel"], frames, tracts[double], torch.ones_like(share))
    voice = batch["speaker"] * len(tracts) + double
    embedding = model(*augment(mel, frames, config.augmentation))
    cosines = functional.linear(embedding, functional.normalize(model.head.weight, dim=-1))
    loss = functional.cross_entropy(with_margin(cosines, voice, config.margin, config.scale), voice)
    return loss, {"aam": loss.detach(), "accuracy": (cosines.argmax(-1) == voice).float().mean()}
