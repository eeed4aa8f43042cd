"""Recognisers that hear what was said: one filters speech, another scores it.

Two hear the mel. They agree on what goes in and out (log-mel in, CTC log-probabilities of characters out,
both at 50 Hz; one network serves every language of the alphabet) and on nothing between, so that an error of
the filter is not an error of the score:

- `AttentiveJudge` (A) looks at the mel spectrum as at a picture, in two small convolutions over time and
  frequency, and then mixes time by self-attention and short convolutions, as a conformer does;
- `ConvolutionalJudge` (B) reads a coarser spectrum, evened out in mean and spread, as a row of numbers, and
  mixes time by depthwise convolutions with squeeze-and-excitation; it has no attention, and apart from the
  squeeze it hears no further than two thirds of a second around.

CTC needs 50 outputs a second, because Vietnamese after NFD has up to 25 symbols a second and two that are
equal must be told apart by a blank. A third of its symbols are tones, and a tone is a movement of the voice:
`Melody` reads pitch from the mel's own harmonics, so that no judge has to find it out. The blocks work at 25
Hz and say two outputs a step. Every normalisation counts an utterance's own frames alone, and what follows
them is zero before every convolution: the answer does not depend on the batch.

`EncodedJudge` (C) can score in B's place: it reads no mel but what an encoder makes of the sound that has
heard many people, such as Whisper's, and is itself only what turns that into letters.

Axes: b batch, f frames (50 Hz), t steps of two frames, m mel bins, e features of an encoder, d width, h
heads, n symbols of the text, v alphabet, s states of CTC.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional

from slmlab.language.text import Alphabet
from slmlab.models.augmentation import Augmentation, augment, random_stretches
from slmlab.models.blocks import (
    FLOOR,
    AttentiveBlock,
    TimeConvolution,
    ctc_loss,
    even,
    frame_mask,
    masked_mean,
    peak,
)
from slmlab.sound.mel import mel_peaks


@dataclass(frozen=True)
class AttentiveConfig:
    """The shape of judge A."""

    alphabet: Alphabet
    """Letters that it writes; id 0 is the blank."""
    mels: int = 80
    """Mel bins of the input; a multiple of 4."""
    sketch: int = 12
    """Channels of the first convolution over time and frequency; the second has twice as many."""
    width: int = 144
    """Channels of every block."""
    blocks: int = 4
    """Blocks of attention, convolution and feed-forward."""
    heads: int = 4
    """Attention heads; they divide the width."""
    kernel: int = 7
    """Steps of 40 ms that one depthwise convolution sees; odd."""
    expansion: int = 3
    """Width of the feed-forward layers over the width of the block."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How speech is changed in training."""


@dataclass(frozen=True)
class ConvolutionalConfig:
    """The shape of judge B."""

    alphabet: Alphabet
    """Letters that it writes; id 0 is the blank."""
    mels: int = 80
    """Mel bins of the input; a multiple of 4."""
    width: int = 192
    """Channels of every block."""
    kernels: tuple[int, ...] = (5, 5, 5, 7, 7, 9)
    """One block each: the steps of 40 ms that its depthwise convolution sees; odd."""
    expansion: int = 2
    """Width of the pointwise layers over the width of the block."""
    squeeze: int = 8
    """Width of the block over the width of its squeeze-and-excitation."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How speech is changed in training."""


@dataclass(frozen=True)
class EncodedConfig:
    """The shape of judge C."""

    alphabet: Alphabet
    """Letters that it writes; id 0 is the blank."""
    encoder: str = ""
    """sha256 of the weights of the encoder that it reads, as found in training."""
    languages: tuple[str, ...] = ()
    """What was spoken there."""
    features: int = 512
    """Features of that encoder."""
    width: int = 192
    """Channels of every block."""
    blocks: int = 2
    """Blocks of attention, convolution and feed-forward."""
    heads: int = 4
    """Attention heads; they divide the width."""
    kernel: int = 7
    """Frames that one depthwise convolution sees; odd."""
    expansion: int = 2
    """Width of the feed-forward layers over the width of the block."""
    deaf: float = 0.1
    """Share of the features, drawn for each utterance, that go missing in training."""
    gaps: int = 2
    """Stretches of frames that go missing in training, each up to a twelfth of the utterance."""


def lift_floor(mel: Tensor, mask: Tensor) -> Tensor:
    """Log-mel `(b f m)` with what lies deeper than FLOOR under the utterance's peak raised to that level."""
    return torch.maximum(mel, peak(mel, mask) - FLOOR)


class Melody(nn.Module):
    """Pitch against the utterance's mean, read from log-mel by a comb of cosines as in a cepstrum.

    Nothing is learned. Below 1 kHz the bins of the Slaney scale lie evenly, 37 Hz apart, and harmonics are a
    cosine along them. On the corpus's voiced frames the likeliest tooth lies within a semitone of F0 in 94 of
    100 (noisy dev speech).
    """

    comb: Tensor
    """`(bins teeth)`, cosines along the lowest mel bins, one tooth a pitch."""
    octaves: Tensor
    """`(teeth 1)`, each pitch's octaves above the lowest."""
    LOWEST, HIGHEST, PER_OCTAVE = 80.0, 400.0, 24  # Hz, Hz
    SHARPNESS = 6.0  # of the choice between teeth
    VOICED = 1.5  # salience, in nats, at which a frame is as likely voiced as not

    def __init__(self) -> None:
        super().__init__()
        n_teeth = int(math.log2(self.HIGHEST / self.LOWEST) * self.PER_OCTAVE) + 1
        with torch.device("cpu"):  # constants have values also where weights have none (`meta`)
            hertz = mel_peaks()
            hertz = hertz[hertz < 1000]
            teeth = torch.arange(n_teeth) / self.PER_OCTAVE
            comb = torch.cos(2 * math.pi * rearrange(hertz, "m -> m 1") / (self.LOWEST * 2**teeth))
            comb = comb - comb.mean(0)
        self.register_buffer("comb", comb / comb.norm(dim=0), persistent=False)
        self.register_buffer("octaves", rearrange(teeth, "p -> p 1"), persistent=False)

    def forward(self, mel: Tensor, mask: Tensor) -> Tensor:
        """Log-mel `(b f m)`, mask `(b f 1)` to `(b f 2)`: quarter octaves from the mean, and voicing."""
        low = mel[..., : len(self.comb)]
        smooth = functional.avg_pool1d(low, 9, stride=1, padding=4, count_include_pad=False)
        salience = (low - smooth) @ self.comb
        pitch = (self.SHARPNESS * salience).softmax(-1) @ self.octaves
        voiced = torch.sigmoid(2 * (reduce(salience, "b f p -> b f 1", "max") - self.VOICED))
        return torch.cat([4 * voiced * (pitch - masked_mean(pitch, mask * voiced)), voiced], dim=-1)


class PictureStem(nn.Module):
    """Mel to steps by two convolutions over time and frequency: what moves along the bins stays the same."""

    def __init__(self, mels: int, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, stride=(1, 2), padding=1)
        self.second = nn.Conv2d(channels, 2 * channels, 3, stride=(2, 2), padding=1)
        self.inwards = nn.Linear(mels // 4 * 2 * channels + 2 * 2, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, mel: Tensor, melody: Tensor, mask: Tensor) -> Tensor:
        """Log-mel `(b f m)`, melody `(b f 2)`, mask `(b f 1)` to `(b t d)`; each bin less its mean."""
        mel = (mel - masked_mean(mel, mask)) / 2
        mel, melody, mask = (even(x * mask) for x in (mel, melody, mask))
        x = functional.silu(self.first(rearrange(mel, "b f m -> b 1 f m")))
        x = functional.silu(self.second(x * rearrange(mask, "b f 1 -> b 1 f 1")))
        x = rearrange(x, "b c t m -> b t (c m)")
        melody = rearrange(melody, "b (t two) k -> b t (two k)", two=2)
        return self.norm(self.inwards(torch.cat([x, melody], dim=-1)))


class RowStem(nn.Module):
    """Mel to steps by one matrix: two frames with two before and two after, upper mel bins in pairs."""

    def __init__(self, mels: int, width: int) -> None:
        super().__init__()
        self.inwards = nn.Linear(6 * (mels * 3 // 4 + 2), width)
        self.norm = nn.LayerNorm(width)

    @staticmethod
    def coarsen(mel: Tensor) -> Tensor:
        """`(b f m)` to `(b f 3m/4)`: the lower half, where tones are heard, as it is, the upper by pairs."""
        low, high = mel.chunk(2, dim=-1)
        return torch.cat([low, reduce(high, "b f (m 2) -> b f m", "mean")], dim=-1)

    def forward(self, mel: Tensor, melody: Tensor, mask: Tensor) -> Tensor:
        """Log-mel `(b f m)`, melody `(b f 2)`, mask `(b f 1)` to `(b t d)`, without mean and spread."""
        row = self.coarsen(mel) - masked_mean(self.coarsen(mel), mask)
        row = row / (masked_mean(row.square(), mask) + 0.1).sqrt()
        x = functional.pad(even(torch.cat([row, melody], dim=-1) * mask), (0, 0, 2, 2))
        x = rearrange(x, "b (t two) m -> b t (two m)", two=2)
        return self.norm(self.inwards(torch.cat([x[:, :-2], x[:, 1:-1], x[:, 2:]], dim=-1)))


class ConvolutionalBlock(nn.Module):
    """A wide depthwise convolution, its channels weighed by the whole utterance, and two pointwise layers."""

    def __init__(self, config: ConvolutionalConfig, kernel: int) -> None:
        super().__init__()
        d, wide, narrow = config.width, config.width * config.expansion, config.width // config.squeeze
        self.conv, self.norm = TimeConvolution(d, kernel), nn.LayerNorm(d)
        self.squeeze, self.excite = nn.Linear(d, narrow), nn.Linear(narrow, d)
        self.up, self.down = nn.Linear(d, wide), nn.Linear(wide, d, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`(b t d)`, mask `(b t 1)` to `(b t d)`."""
        y = self.norm(self.conv(x * mask))
        y = y * torch.sigmoid(self.excite(functional.silu(self.squeeze(masked_mean(y, mask)))))
        return x + self.down(functional.silu(self.up(y)))


class Judge(nn.Module):
    """What both judges share: melody and mel become steps, blocks mix them, and letters come out."""

    def __init__(
        self, config: AttentiveConfig | ConvolutionalConfig, stem: nn.Module, blocks: Iterable[nn.Module]
    ) -> None:
        super().__init__()
        self.config = config
        self.melody = Melody()
        self.stem, self.blocks = stem, nn.ModuleList(blocks)
        head = nn.Linear(config.width, 2 * len(config.alphabet))
        self.out = nn.ModuleDict({"norm": nn.LayerNorm(config.width), "head": head})

    def forward(self, mel: Tensor, frames: Tensor) -> Tensor:
        """Log-mel `(b f m)`, lengths `(b,)` to log-probabilities `(b f v)`, without meaning after the end."""
        mask = frame_mask(frames, mel.shape[1])
        mel = lift_floor(mel, mask)
        x = self.stem(mel, self.melody(mel, mask), mask)
        for block in self.blocks:
            x = block(x, mask[:, ::2])
        logits = rearrange(self.out["head"](self.out["norm"](x)), "b t (two v) -> b (t two) v", two=2)
        return logits[:, : mel.shape[1]].log_softmax(-1)

    @torch.no_grad()
    def adopt(self, language: str) -> Self:
        """A judge that writes the letters of one more language; all that this one has learnt stays.

        A new letter begins as likely as the mean letter.
        """
        config = replace(self.config, alphabet=self.config.alphabet.with_language(language))
        new = type(self)(config)  # type: ignore[call-arg]  # a judge is made of its config alone
        for name, tensor in new.state_dict().items():
            old = self.state_dict()[name]
            if name.startswith("out.head"):  # two outputs a step, each with every letter
                letters = rearrange(old, "(two v) ... -> two v ...", two=2)
                more = [letters[:, 1:].mean(1, keepdim=True)] * (len(config.alphabet) - letters.shape[1])
                old = rearrange(torch.cat([letters, *more], 1), "two v ... -> (two v) ...")
            tensor.copy_(old)
        return new


class AttentiveJudge(Judge):
    """Judge A: the mel as a picture, then attention and short convolutions."""

    def __init__(self, config: AttentiveConfig) -> None:
        c = config
        blocks = (AttentiveBlock(c.width, c.heads, c.kernel, c.expansion) for _ in range(c.blocks))
        super().__init__(c, PictureStem(c.mels, c.sketch, c.width), blocks)


class ConvolutionalJudge(Judge):
    """Judge B: the mel as a row of numbers, then convolutions alone."""

    def __init__(self, config: ConvolutionalConfig) -> None:
        blocks = (ConvolutionalBlock(config, kernel) for kernel in config.kernels)
        super().__init__(config, RowStem(config.mels, config.width), blocks)


class EncodedJudge(nn.Module):
    """Judge C: features of an encoder, then attention and short convolutions, a letter a frame."""

    def __init__(self, config: EncodedConfig) -> None:
        super().__init__()
        c = self.config = config
        self.norm_in, self.inwards = nn.LayerNorm(c.features), nn.Linear(c.features, c.width)
        self.blocks = nn.ModuleList(
            AttentiveBlock(c.width, c.heads, c.kernel, c.expansion) for _ in range(c.blocks)
        )
        self.norm, self.head = nn.LayerNorm(c.width), nn.Linear(c.width, len(c.alphabet))

    def forward(self, encoded: Tensor, frames: Tensor) -> Tensor:
        """`(b f e)`, lengths `(b,)` to log-probabilities `(b f v)`, without meaning after the end."""
        mask = frame_mask(frames, encoded.shape[1])
        x = self.norm_in(encoded)
        if self.training:
            x = self.lose(x, frames)
        x = self.inwards(x)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x)).log_softmax(-1)

    def lose(self, x: Tensor, frames: Tensor) -> Tensor:
        """`(b f e)` with some features and some stretches of frames at 0, as the config says."""
        deaf = torch.rand(len(x), 1, x.shape[2], device=x.device) < self.config.deaf
        gaps = random_stretches(frames, x.shape[1], self.config.gaps, 1 / 12)
        return x.masked_fill(deaf | rearrange(gaps, "b f -> b f 1"), 0)


def judge_loss(model: Judge | EncodedJudge, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """CTC (Graves et al. 2006) in nats a symbol, on speech changed as the model's config says.

    The batch holds `mel` (b f m), for judge C what its encoder made of it (b f e), `frames` (b,), `text` (b
    n) ids and `symbols` (b,), the length of each text.
    """
    mel, frames = batch["mel"], batch["frames"]
    if isinstance(model, Judge):
        mel, frames = augment(mel, frames, model.config.augmentation)
    loss = ctc_loss(model(mel, frames), frames, batch["text"], batch["symbols"])
    return loss, {"ctc": loss.detach()}


def transcribe(log_probs: Tensor, frames: Tensor, alphabet: Alphabet) -> list[str]:
    """The text of each utterance's likeliest path: `(b f v)` with lengths `(b,)` to b strings.

    Repeats are one symbol, blanks none, and spaces at the ends are dropped.
    """
    paths = [best[:n].unique_consecutive() for best, n in zip(log_probs.argmax(-1), frames, strict=True)]
    return [alphabet.decode(path.tolist()).strip() for path in paths]
