"""A critic makes the decoder's mel sharp: it tells decoded from recorded mels, the decoder learns to pass.

Flow matching with few steps and little noise gives nearly the mean of all that codes may sound like; a mean
is blurred, and blurred speech is muffled. Trained on, the decoder's last step is held against recordings by
three listeners: distance (L1), a critic of small convolutions over time and frequency that learns alongside
(least squares, Mao et al. 2017, and its features, Larsen et al. 2016), and the tokenizer's own encoder,
frozen, in which what was said should look the same. Steps before the last are as in generating speech.

It is a trial: trained by the critic from nothing the decoder lost words; after flow matching it is untried.

Axes: b batch, t tokens, f mel frames, m mel bins, j code dimensions, c timbre numbers, k channels.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from slmlab.models.blocks import frame_mask, masked_loss, restore, standardise
from slmlab.models.decoder import FlowDecoder
from slmlab.models.flow_matching import cosine_times
from slmlab.models.tokenizer import FRAMES_PER_TOKEN, SpeechTokenizer, frozen


@dataclass(frozen=True)
class CriticConfig:
    """The critic, and how the decoder is sampled while it looks."""

    channels: int = 12
    """Of the first convolution; later ones have two, three and four times as many."""
    kernel: int = 5
    """Frames and mel bins that one convolution sees; odd."""
    steps: int = 4
    """Of the decoder, from prior to speech."""
    noise: float = 0.1
    """Of the decoder's training noise, that is added to the prior."""


class Critic(nn.Module):
    """Scores of patches of a mel, given the tokenizer's blurred mel of the same speech: 1 is recorded."""

    def __init__(self, config: CriticConfig) -> None:
        super().__init__()
        widths = [2, *(config.channels * n for n in (1, 2, 3, 4))]
        size, around = config.kernel, config.kernel // 2
        self.layers = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], size, stride=(1, 1 if i == 0 else 2), padding=around)
            for i in range(4)
        )
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, mel: Tensor, prior: Tensor, mask: Tensor) -> list[Tensor]:
        """Mels `(b f m)`, standardised, mask `(b f 1)` → features `(b f k m')` of each layer, scores last."""
        here = rearrange(mask, "b f 1 -> b 1 f 1")
        x = torch.stack((mel, prior), dim=1)
        features = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x * here), 0.1)
            features.append(x)
        features.append(self.head(x * here))
        return [rearrange(feature, "b k f m -> b f (k m)") for feature in features]


class Sharpening(nn.Module):
    """A decoder, its critic, and the frozen tokenizer that listens: what is trained is the first two."""

    def __init__(self, decoder: FlowDecoder, tokenizer: SpeechTokenizer, config: CriticConfig) -> None:
        super().__init__()
        self.config, self.decoder, self.critic = config, decoder, Critic(config)
        self.tokenizer = tokenizer.requires_grad_(False)

    def forward(self, digits: Tensor, prior: Tensor, timbre: Tensor, frames: Tensor) -> Tensor:
        """The decoder's last step `(b f m)`, standardised, with gradients; those before it without."""
        config, decoder = self.config, self.decoder
        noise = config.noise * torch.randn_like(prior)
        states = decoder.decode(digits, prior, timbre, frames, config.steps, noise=noise)
        time = cosine_times(config.steps)[-2].to(prior.device).expand(len(prior))
        codes = decoder.embed_codes(digits, frames)
        ones = torch.ones_like(time)
        return decoder(standardise(states[-2]), time, codes, standardise(prior), timbre, frames, ones)


def sharpening_loss(model: Sharpening, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Of the decoder: L1, passing for recorded, features of critic and tokenizer; of the critic: its errors.

    The batch is the decoder's with `prosody` (b f p): what the tokenizer hears beside the mel.
    """
    frames, prior = batch["frames"], standardise(batch["prior"])
    recorded = standardise(batch["mel"])
    mask = frame_mask(frames, recorded.shape[1])
    shown = mask * rearrange(batch["clean"], "b -> b 1 1")
    decoded = model(batch["digits"], batch["prior"], batch["timbre"], frames)
    real, fake = model.critic(recorded, prior, mask), model.critic(decoded.detach(), prior, mask)
    with frozen(model.critic):
        passing = model.critic(decoded, prior, mask)
    heard = [model.tokenizer.listen(restore(mel), batch["prosody"], frames) for mel in (decoded, recorded)]
    parts = {
        "mel": masked_loss((decoded - recorded).abs(), shown),
        "passing": masked_loss((passing[-1] - 1) ** 2, shown),
        "features": torch.stack(
            [
                masked_loss((ours - theirs.detach()).abs(), shown)
                / masked_loss(theirs.detach().abs(), shown).clamp(min=1e-3)
                for ours, theirs in zip(passing[:-1], real[:-1], strict=True)
            ]
        ).mean(),
        "unlike": masked_loss((heard[0] - heard[1]).abs(), shown[:, ::FRAMES_PER_TOKEN]),
        "critic": masked_loss((real[-1] - 1) ** 2, shown) + masked_loss(fake[-1] ** 2, shown),
    }
    weights = {"mel": 4.0, "passing": 1.0, "features": 2.0, "unlike": 1.0, "critic": 1.0}
    loss = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
    return loss, {name: value.item() for name, value in parts.items()}
