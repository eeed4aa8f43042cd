"""The flow-matching decoder: codes and a timbre become the mel spectrogram of that voice saying them.

The path starts at the tokenizer's own blurred mel plus noise, not at noise alone, so it is short and four
Euler steps walk it. Timbre comes from outside the codes: the same codes with another timbre are the same
speech in another voice.

Axes: b batch, t tokens (25 Hz), f mel frames (f = 2 t), m mel bins, j code dimensions, c timbre numbers, d
width.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional

from slmlab.models import flow_matching
from slmlab.models.blocks import ConvNeXt, frame_mask, masked_loss, masked_mean, restore, standardise
from slmlab.models.tokenizer import FRAMES_PER_TOKEN, token_mask

SLOW = 5  # frames, a tenth of a second
NOISE = 0.1  # of its training noise: what speech is decoded from; see `Chain.to_mels`


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the velocity network, and its path."""

    timbre_width: int
    """Numbers that describe a voice."""
    n_mels: int = 80
    """Mel bins of a frame."""
    width: int = 192
    """Channels of every block."""
    layers: int = 8
    """Blocks."""
    dims: int = 8
    """Ternary digits of a code."""
    noise: float = 0.3
    """Standard deviation of the noise added to the tokenizer's standardised mel where the path starts."""
    drop: float = 0.1
    """Share of training utterances whose conditions are all taken away, for classifier-free guidance."""
    sharpen: float = field(default=0.0, metadata={"later": True})
    """How far decoded mels are made to move as recordings do: 0 not at all, 1 as much; see `sharpened`."""


def time_features(time: Tensor, width: int) -> Tensor:
    """`(b,)` times in [0, 1] to `(b, width)` sines and cosines of a thousandfold range of frequencies."""
    rates = torch.exp(torch.linspace(0, math.log(1000), width // 2, device=time.device))
    angle = rearrange(time, "b -> b 1") * rates
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class FlowDecoder(nn.Module):
    """A network that says in which direction, at a point of the path, the speech lies.

    It guesses the path's end, as what the prior lacks of it, and the velocity leads there: untrained it gives
    back the prior, and the last step leaves no noise behind, as a network that gives the velocity itself must
    learn to.
    """

    adamw_names = ("lacking",)
    spread: Tensor
    """`(2 m)` how much more recordings move than decoded mels, slowly and quickly; see `fit_spread`."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        d = config.width
        self.stem = nn.Linear(2 * config.n_mels, d)
        self.codes = nn.Linear(config.dims, d)
        self.code_blocks = nn.ModuleList(ConvNeXt(d) for _ in range(2))
        self.condition = nn.Sequential(
            nn.Linear(d + config.timbre_width, d), nn.SiLU(), nn.Linear(d, d), nn.SiLU()
        )
        self.modulation = nn.Linear(d, 3 * d)
        self.offsets = nn.Parameter(torch.zeros(config.layers, 3 * d))
        self.blocks = nn.ModuleList(ConvNeXt(d) for _ in range(config.layers))
        self.norm = nn.LayerNorm(d)
        self.lacking = nn.Linear(d, config.n_mels)
        for layer in (self.modulation, self.lacking):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        if config.sharpen:
            self.register_buffer("spread", torch.ones(2, config.n_mels))

    def embed_codes(self, digits: Tensor, frames: Tensor) -> Tensor:
        """Codes `(b t j)` with their neighbours, `(b t d)`: the same all along the path."""
        mask = token_mask(digits, frames)
        codes = self.codes(digits)
        for block in self.code_blocks:
            codes = block(codes, mask)
        return codes

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        codes: Tensor,
        prior: Tensor,
        timbre: Tensor,
        frames: Tensor,
        given: Tensor,
    ) -> Tensor:
        """The path's end `(b f m)` as guessed at `x` `(b f m)` and `time` `(b,)`, in standardised mel.

        `codes` `(b t d)` are from `embed_codes`, `prior` `(b f m)` is the tokenizer's mel, standardised; with
        timbre `(b c)` and lengths `(b,)`. Where `given` `(b,)` is 0, not 1, all conditions are withheld.
        """
        mask = frame_mask(frames, x.shape[1])
        given = rearrange(given, "b -> b 1 1")
        h = self.stem(torch.cat([x, prior * given], dim=-1))
        h = h + repeat(codes * given, "b t d -> b (t k) d", k=FRAMES_PER_TOKEN)
        voice = timbre * given[:, 0]
        condition = self.condition(torch.cat([time_features(time, self.config.width), voice], dim=-1))
        modulation = rearrange(self.modulation(condition), "b d -> b 1 d")
        for block, offset in zip(self.blocks, self.offsets, strict=True):
            h = block(h, mask, modulation + offset)
        return (prior + self.lacking(self.norm(h))) * mask

    @torch.no_grad()
    def decode(
        self,
        digits: Tensor,
        prior: Tensor,
        timbre: Tensor,
        frames: Tensor,
        steps: int = 4,
        cfg_strength: float = 0.0,
        noise: Tensor | None = None,
    ) -> list[Tensor]:
        """Log-mels `(b f m)` on the way from the tokenizer's mel `prior` plus `noise` to speech.

        The last is speech; it alone is `sharpened`.

        `noise` `(b f m)` is drawn from torch's generator when it is not given; `cfg_strength` 0 means no
        guidance.
        """
        mean = standardise(prior)
        noise = torch.randn_like(mean) if noise is None else noise
        ones = torch.ones(len(mean), device=mean.device)
        codes = self.embed_codes(digits, frames)

        def velocity(x: Tensor, time: Tensor) -> Tensor:
            end = self(x, time, codes, mean, timbre, frames, ones)
            if cfg_strength:
                freely = self(x, time, codes, mean, timbre, frames, 0 * ones)
                end = flow_matching.guided(end, freely, cfg_strength)
            return flow_matching.towards(end, x, time)

        times = flow_matching.cosine_times(steps).to(mean.device)
        states = flow_matching.solve(velocity, mean + self.config.noise * noise, times)
        *way, end = (restore(state) for state in states)
        return [*way, self.sharpened(end, frames)]

    def sharpened(self, mel: Tensor, frames: Tensor) -> Tensor:
        """A decoded log-mel `(b f m)` that moves as recordings do, in each bin.

        A network that learns to be near the truth on average moves too little, the quicker the less, and
        sounds muffled; its spread is mended as in statistical synthesis (global variance: Toda and Tokuda
        2007), apart for what is slow and what is quick.
        """
        if not self.config.sharpen:
            return mel
        mean, *parts = movements(mel, frame_mask(frames, mel.shape[1]))
        gains = self.spread**self.config.sharpen
        return mean + sum(gain * part for gain, part in zip(gains, parts, strict=True))

    @torch.no_grad()
    def fit_spread(self, decoded: Iterable[Tensor], recorded: Iterable[Tensor]) -> None:
        """Learn, once after training, how much more recorded mels `(f m)` move than as they are decoded."""
        power = torch.zeros(2, *self.spread.shape)
        for total, mels in zip(power, (decoded, recorded), strict=True):
            for mel in mels:
                _, *parts = movements(mel[None], torch.ones(1, len(mel), 1))
                total += torch.stack([part.square().mean((0, 1)) for part in parts])
        self.spread.copy_(torch.where(power[0] > 0, power[1] / power[0], 1.0).sqrt())


def movements(mel: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A mel `(b f m)` under a mask `(b f 1)` as a sum: its mean `(b 1 m)`, what is slow about it, the rest.

    Slow is what a mean over `SLOW` frames lets through.
    """
    mean = masked_mean(mel, mask)
    sums, counts = (
        rearrange(functional.avg_pool1d(rearrange(x, "b f m -> b m f"), SLOW, 1, SLOW // 2), "b m f -> b f m")
        for x in ((mel - mean) * mask, mask)
    )
    slow = sums / counts.clamp_min(1 / SLOW)
    return mean, slow, mel - mean - slow


def decoder_loss(model: FlowDecoder, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Masked mean squared error of the velocity times 1 - t, at one random time of every utterance's path.

    That is the error of the path's end. The batch holds `mel` (b f m), `prior` (b f m) the tokenizer's mel,
    `digits` (b t j), `timbre` (b c), `frames` (b), and `clean` (b), 0 where the mel is too noisy to learn
    from.
    """
    data, prior, frames = standardise(batch["mel"]), standardise(batch["prior"]), batch["frames"]
    time = torch.rand(len(data)).to(data.device)
    given = (torch.rand(len(data)) >= model.config.drop).float().to(data.device)
    source = prior + model.config.noise * torch.randn(data.shape).to(data.device)
    point, _ = flow_matching.path(source, data, time)
    codes = model.embed_codes(batch["digits"], frames)
    end = model(point, time, codes, prior, batch["timbre"], frames, given)
    mask = frame_mask(frames, data.shape[1]) * rearrange(batch["clean"], "b -> b 1 1")
    loss = masked_loss((end - data) ** 2, mask)
    return loss, {"flow": loss.item()}
