"""Two recognisers that hear what was said: one filters speech, the other scores it.

They agree on what goes in and out (log-mel in, CTC log-probabilities of characters out, both at 50 Hz; one network serves
every language of the alphabet) and on nothing between, so that an error of the filter is not an error of the score:

- `AttentiveJudge` (A) reads all the mel bins and mixes time by self-attention and short convolutions, as a conformer does;
- `ConvolutionalJudge` (B) reads a coarser spectrum, evened out in mean and spread, and mixes time by wide depthwise convolutions
  with squeeze-and-excitation; it has no attention.

Both work inside at 25 Hz and say two outputs a step, because Vietnamese after NFD has up to 25 symbols a second, and CTC
needs a blank between two that are equal. Every normalisation counts an utterance's own frames alone, and frames of padding are
zero before every convolution: the answer does not depend on the batch.

Axes: b batch, f mel frames (50 Hz), t steps (25 Hz), m mel bins, d width, h heads, n symbols of the text, v alphabet.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from slmlab.errors import LabError
from slmlab.text import Alphabet

BLANK = 0
FLOOR = 7.0  # nats under the utterance's peak (61 dB): deeper silence than this differs between engines and means nothing


@dataclass(frozen=True)
class AttentiveConfig:
    """The shape of judge A."""

    alphabet_size: int
    """Symbols of the alphabet, the blank (id 0) included."""
    mels: int = 80
    """Mel bins of the input."""
    width: int = 144
    """Channels of every block."""
    blocks: int = 4
    """Blocks of attention, convolution and feed-forward."""
    heads: int = 4
    """Attention heads; they divide the width."""
    kernel: int = 15
    """Steps of 40 ms that one depthwise convolution sees; odd."""
    expansion: int = 3
    """Width of the feed-forward layers over the width of the block."""
    dropout: float = 0.0
    """Share of channels dropped at the end of each branch in training."""


@dataclass(frozen=True)
class ConvolutionalConfig:
    """The shape of judge B."""

    alphabet_size: int
    """Symbols of the alphabet, the blank (id 0) included."""
    mels: int = 80
    """Mel bins of the input; even."""
    width: int = 160
    """Channels of every block."""
    kernels: tuple[int, ...] = (9, 9, 13, 13, 17, 17, 21, 21)
    """One block each: the steps of 40 ms that its depthwise convolution sees; odd."""
    expansion: int = 2
    """Width of the pointwise layers over the width of the block."""
    squeeze: int = 8
    """Width of the block over the width of its squeeze-and-excitation."""
    dropout: float = 0.0
    """Share of channels dropped at the end of each block in training."""


def frame_mask(frames: Tensor, length: int) -> Tensor:
    """True where a frame belongs to its utterance: `(b)` lengths → `(b length)`."""
    return torch.arange(length, device=frames.device) < rearrange(frames, "b -> b 1")


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of `x (b f d)` over the frames where `mask (b f)` is true → `(b 1 d)`."""
    weight = rearrange(mask, "b f -> b f 1").to(x.dtype)
    return reduce(x * weight, "b f d -> b 1 d", "sum") / reduce(weight, "b f 1 -> b 1 1", "sum").clamp_min(1)


def lift_floor(mel: Tensor, mask: Tensor) -> Tensor:
    """Log-mel `(b f m)` with everything deeper than FLOOR under the utterance's peak raised to that level."""
    heard = mel.masked_fill(~rearrange(mask, "b f -> b f 1"), -torch.inf)
    return torch.maximum(mel, reduce(heard, "b f m -> b 1 1", "max") - FLOOR)


def pair_frames(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Two frames side by side: `(b f m)` at 50 Hz → `(b t 2m)` at 25 Hz, zeros where padded, and the mask `(b t)`."""
    x = x * rearrange(mask, "b f -> b f 1")
    if x.shape[1] % 2:
        x, mask = F.pad(x, (0, 0, 0, 1)), F.pad(mask, (0, 1))
    return rearrange(x, "b (t two) m -> b t (two m)", two=2), reduce(mask.float(), "b (t 2) -> b t", "max").bool()


class TimeConvolution(nn.Module):
    """Depthwise convolution over the steps of `(b t d)`; steps of padding count as silence.

    It is computed as products with small banded matrices, a stretch of BLOCK steps each: forwards and backwards this takes
    less than half the time of the depthwise kernel that torch has for processors.
    """

    BLOCK = 16

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, width, kernel).uniform_(-1, 1) * kernel**-0.5)
        self.bias = nn.Parameter(torch.zeros(width))

    def bands(self) -> Tensor:
        """The kernels as matrices `(d, BLOCK + kernel - 1, BLOCK)`: column i holds the kernel from row i on."""
        (_, _, kernel), size = self.weight.shape, self.BLOCK
        rows = F.pad(self.weight[0], (0, size)).repeat(1, size)[:, : size * (size + kernel - 1)]
        return rearrange(rows, "d (column row) -> d row column", column=size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`(b t d)`, mask `(b t)` → `(b t d)`."""
        (b, t, _), kernel, size = x.shape, self.weight.shape[2], self.BLOCK
        x = rearrange(x * rearrange(mask, "b t -> b t 1"), "b t d -> d b t")
        x = F.pad(x, (kernel // 2, kernel // 2 + -t % size)).unfold(2, size + kernel - 1, size)
        y = rearrange(x, "d b blocks row -> d (b blocks) row") @ self.bands()
        y = rearrange(y, "d (b blocks) column -> b (blocks column) d", b=b)
        return y[:, :t] + self.bias


class Stem(nn.Module):
    """Normalised mel to steps: a triple of 40 ms steps into one vector, twice the rate of the blocks halved."""

    def __init__(self, mels: int, width: int) -> None:
        super().__init__()
        self.inwards = nn.Linear(6 * mels, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, mel: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`(b f m)`, mask `(b f)` → `(b t d)`, mask `(b t)`; each step sees its neighbours too (120 ms)."""
        x, mask = pair_frames(mel, mask)
        around = F.pad(x, (0, 0, 1, 1)).unfold(1, 3, 1)
        return self.norm(self.inwards(rearrange(around, "b t m three -> b t (three m)"))), mask


class AttentiveBlock(nn.Module):
    """Attention over the utterance, a short gated convolution and a feed-forward layer, each added to its input."""

    def __init__(self, config: AttentiveConfig) -> None:
        super().__init__()
        d, wide = config.width, config.width * config.expansion
        self.heads, self.dropout = config.heads, nn.Dropout(config.dropout)
        self.norm_attention, self.norm_gate, self.norm_feed = (nn.LayerNorm(d) for _ in range(3))
        self.qkv, self.attended = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.gate, self.conv = nn.Linear(d, 2 * d, bias=False), TimeConvolution(d, config.kernel)
        self.norm_conv, self.convolved = nn.LayerNorm(d), nn.Linear(d, d, bias=False)
        self.up, self.down = nn.Linear(d, wide), nn.Linear(wide, d, bias=False)

    def attend(self, x: Tensor, mask: Tensor) -> Tensor:
        """Every step `(b t d)` looks at the steps of its utterance, `mask (b t)`."""
        q, k, v = rearrange(self.qkv(x), "b t (three h d) -> three b h t d", three=3, h=self.heads)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=rearrange(mask, "b t -> b 1 1 t"))
        return self.attended(rearrange(y, "b h t d -> b t (h d)"))

    def convolve(self, x: Tensor, mask: Tensor) -> Tensor:
        """Every step `(b t d)` looks at its neighbours, through a gate."""
        y = self.conv(F.glu(self.gate(x), dim=-1), mask)
        return self.convolved(F.silu(self.norm_conv(y)))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`(b t d)`, mask `(b t)` → `(b t d)`."""
        x = x + self.dropout(self.attend(self.norm_attention(x), mask))
        x = x + self.dropout(self.convolve(self.norm_gate(x), mask))
        return x + self.dropout(self.down(F.silu(self.up(self.norm_feed(x)))))


class ConvolutionalBlock(nn.Module):
    """A wide depthwise convolution, channels weighed by the whole utterance, and a pointwise bottleneck turned outwards."""

    def __init__(self, config: ConvolutionalConfig, kernel: int) -> None:
        super().__init__()
        d, wide, narrow = config.width, config.width * config.expansion, config.width // config.squeeze
        self.conv, self.norm = TimeConvolution(d, kernel), nn.LayerNorm(d)
        self.squeeze, self.excite = nn.Linear(d, narrow), nn.Linear(narrow, d)
        self.up, self.down = nn.Linear(d, wide), nn.Linear(wide, d, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`(b t d)`, mask `(b t)` → `(b t d)`."""
        y = self.norm(self.conv(x, mask))
        y = y * torch.sigmoid(self.excite(F.silu(self.squeeze(masked_mean(y, mask)))))
        return x + self.dropout(self.down(F.silu(self.up(y))))


class Outwards(nn.Module):
    """Steps to log-probabilities: two frames a step."""

    def __init__(self, width: int, alphabet_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 2 * alphabet_size)

    def forward(self, x: Tensor, length: int) -> Tensor:
        """`(b t d)` → log-probabilities `(b f v)` of the first `length` frames."""
        logits = rearrange(self.head(self.norm(x)), "b t (two v) -> b (t two) v", two=2)
        return logits[:, :length].log_softmax(-1)


class AttentiveJudge(nn.Module):
    """Judge A: every mel bin less its mean over the utterance, then attention and short convolutions."""

    def __init__(self, config: AttentiveConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(config.mels, config.width)
        self.blocks = nn.ModuleList(AttentiveBlock(config) for _ in range(config.blocks))
        self.out = Outwards(config.width, config.alphabet_size)

    def forward(self, mel: Tensor, frames: Tensor) -> Tensor:
        """Log-mel `(b f m)` at 50 Hz with lengths `(b)` → log-probabilities `(b f v)`; those of padding mean nothing."""
        mask = frame_mask(frames, mel.shape[1])
        mel = lift_floor(mel, mask)
        x, steps = self.stem((mel - masked_mean(mel, mask)) / 2, mask)
        for block in self.blocks:
            x = block(x, steps)
        return self.out(x, mel.shape[1])


class ConvolutionalJudge(nn.Module):
    """Judge B: upper mel bins in pairs, mean and spread of the utterance taken away, then convolutions alone."""

    def __init__(self, config: ConvolutionalConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(config.mels * 3 // 4, config.width)
        self.blocks = nn.ModuleList(ConvolutionalBlock(config, kernel) for kernel in config.kernels)
        self.out = Outwards(config.width, config.alphabet_size)

    def coarsen(self, mel: Tensor) -> Tensor:
        """`(b f m)` → `(b f 3m/4)`: the lower half, where tones are heard, as it is; the upper half by pairs."""
        low, high = mel.chunk(2, dim=-1)
        return torch.cat([low, reduce(high, "b f (m 2) -> b f m", "mean")], dim=-1)

    def forward(self, mel: Tensor, frames: Tensor) -> Tensor:
        """Log-mel `(b f m)` at 50 Hz with lengths `(b)` → log-probabilities `(b f v)`; those of padding mean nothing."""
        mask = frame_mask(frames, mel.shape[1])
        mel = self.coarsen(lift_floor(mel, mask))
        mel = mel - masked_mean(mel, mask)
        x, steps = self.stem(mel / (masked_mean(mel.square(), mask) + 0.1).sqrt(), mask)
        for block in self.blocks:
            x = block(x, steps)
        return self.out(x, mel.shape[1])


@dataclass(frozen=True)
class Augmentation:
    """How far speech is changed before a judge hears it in training, so that it serves voices and rooms it never met."""

    tract: float = 0.15
    """Frequencies are stretched by up to this share, as a shorter or longer vocal tract would."""
    speed: float = 0.15
    """Time is stretched by up to this share."""
    noise: float = 0.5
    """Share of utterances that get a floor of noise, from 5 nats under the peak up to 1.5."""
    bands: int = 2
    """Stretches of mel bins that are replaced by the mean, each up to a sixth of the bins."""
    gaps: int = 2
    """Stretches of frames that are replaced by the mean, each up to a tenth of the utterance, for every utterance."""


AUGMENT = Augmentation()


def stretch(mel: Tensor, frames: Tensor, tract: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
    """Each utterance with its own vocal tract and its own pace.

    Args:
        mel: (b f m), log-mel.
        frames: (b), lengths.
        tract: (b), factors; above 1 the tract is shorter and every frequency higher.
        speed: (b), factors; above 1 the speech is quicker.

    Returns:
        (b f' m) and the new lengths (b), f' the longest of them.
    """
    new = (frames / speed).round().long().clamp_min(1)
    bins = torch.arange(mel.shape[-1]) / tract[:, None]
    times = torch.arange(int(new.max())) * (frames / new)[:, None]
    times = torch.minimum(times, rearrange(frames - 1, "b -> b 1").float())
    grid = torch.stack(
        [
            rearrange(2 * bins / (mel.shape[-1] - 1) - 1, "b m -> b 1 m").expand(-1, times.shape[1], -1),
            rearrange(2 * times / max(mel.shape[1] - 1, 1) - 1, "b f -> b f 1").expand(-1, -1, bins.shape[1]),
        ],
        dim=-1,
    )
    warped = F.grid_sample(
        rearrange(mel, "b f m -> b 1 f m"), grid.to(mel), padding_mode="border", align_corners=True
    )
    return rearrange(warped, "b 1 f m -> b f m"), new


def add_noise(mel: Tensor, mask: Tensor, share: float) -> Tensor:
    """A steady noise of random level and tilt under a random share of the utterances `(b f m)`, mask `(b f)`."""
    b, _, m = mel.shape
    peak = reduce(mel.masked_fill(~rearrange(mask, "b f -> b f 1"), -torch.inf), "b f m -> b 1 1", "max")
    level = peak - 1.5 - 3.5 * torch.rand(b, 1, 1) - 1e3 * (torch.rand(b, 1, 1) > share)
    tilt = torch.linspace(1, -1, m) * 1.5 * torch.rand(b, 1, 1)
    jitter = 0.5 * torch.randn_like(mel)
    return torch.logaddexp(2 * mel, 2 * (level + tilt + jitter)) / 2


def random_stretches(lengths: Tensor, size: int, count: int, share: float) -> Tensor:
    """True on `count` random stretches of each row: `(b)` lengths → `(b size)`, each up to `share` of the length."""
    spans = torch.rand(len(lengths), count, 1) * share * lengths[:, None, None]
    starts = torch.rand(len(lengths), count, 1) * (lengths[:, None, None] - spans)
    where = torch.arange(size)
    return ((where >= starts) & (where < starts + spans)).any(1)


def augment(mel: Tensor, frames: Tensor, how: Augmentation) -> tuple[Tensor, Tensor]:
    """Another voice, pace and room, with parts missing: `(b f m)`, lengths `(b)` → `(b f' m)`, lengths `(b)`."""
    b, _, m = mel.shape
    tract, speed = (1 + share * (2 * torch.rand(b) - 1) for share in (how.tract, how.speed))
    mel, frames = stretch(mel, frames, tract, speed)
    mask = frame_mask(frames, mel.shape[1])
    mel = add_noise(mel, mask, how.noise)
    gaps = random_stretches(frames, mel.shape[1], how.gaps, 0.1)
    bands = random_stretches(torch.full((b,), m), m, how.bands, 1 / 6)
    missing = rearrange(gaps, "b f -> b f 1") | rearrange(bands, "b m -> b 1 m")
    return torch.where(missing, masked_mean(mel, mask), mel), frames


def judge_loss(
    model: nn.Module, batch: dict[str, Tensor], how: Augmentation | None = None
) -> tuple[Tensor, dict[str, float]]:
    """CTC (Graves et al. 2006) in nats a symbol, on speech changed by `how`.

    Args:
        model: either judge.
        batch: mel (b f m), frames (b), text (b n) ids, symbols (b) of each text.
        how: the changes; drawn from torch's global generator.
    """
    how = how or AUGMENT
    mel, frames = augment(batch["mel"], batch["frames"], how)
    log_probs = model(mel, frames)
    total = F.ctc_loss(
        rearrange(log_probs, "b f v -> f b v"), batch["text"], frames, batch["symbols"], BLANK, "sum", True
    )
    loss = total / batch["symbols"].sum()
    return loss, {"ctc": float(loss.detach())}


def transcribe(log_probs: Tensor, frames: Tensor, alphabet: Alphabet) -> list[str]:
    """The text of the likeliest path: `(b f v)` with lengths `(b)` → b strings."""
    best = log_probs.argmax(-1)
    return [alphabet.decode(torch.unique_consecutive(row[:n]).tolist()) for row, n in zip(best, frames, strict=True)]
