"""The speech tokenizer: 25 codes a second that carry words and melody, and leave the voice outside.

Words, because recognition (CTC) reads the codes; melody, because F0, voicing and energy are rebuilt from
them; not the voice, because the mel is rebuilt with the timbre given for free, the input's formants are moved
about at random while the wanted mel is not, and a small adversary that guesses the speaker from the codes is
made to fail. Noise is laid under the input in the same way, so that codes do not learn it by heart.

And the mel must be understood: once the encoder hears well, it listens to its own rebuilt mel, and the mel
learns to say what was said. Distance to the recording alone makes a mean of all that codes may sound like, in
which consonants drown.

Axes: b batch, f mel frames (50 Hz), t tokens (25 Hz, f = 2 t), m mel bins, d width, j code dimensions, p
prosody (melody, voicing, energy), v symbols, c timbre numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from einops import einsum, rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional

from slmlab.language.text import Alphabet
from slmlab.models import fsq
from slmlab.models.augmentation import Augmentation, add_noise
from slmlab.models.blocks import (
    AttentiveBlock,
    ConvNeXt,
    ctc_loss,
    frame_mask,
    masked_loss,
    masked_mean,
    restore,
    standardise,
)

FRAMES_PER_TOKEN = 2
N_PROSODY = 3
SEMITONES_UNIT = 4.0
HEADS, KERNEL, EXPANSION = 4, 7, 3  # of the encoder's blocks
WEIGHTS = {
    "ctc": 3, "early ctc": 2, "melody": 4, "voicing": 0.5, "energy": 0.5, "mel": 3, "voice": 0.1,
}  # fmt: skip
"""Of the parts of the loss."""
NOISE = Augmentation()  # what is laid under the input, but not under the wanted mel


@dataclass(frozen=True)
class TokenizerConfig:
    """Sizes of the tokenizer."""

    alphabet: Alphabet
    """Letters of the text that training reads from the codes; codes themselves know no letters."""
    timbre_width: int
    """Numbers that describe a voice."""
    n_mels: int = 80
    """Mel bins of a frame."""
    width: int = 160
    """Channels of every block."""
    layers: int = 4
    """Attentive blocks of the encoder; the trunk after the codes has three convolutional ones, the mel head
    four more, half of them at 50 Hz.
    """
    dims: int = 8
    """Ternary digits of a code: 3 ** 8 = 6561 codes, as in the paper."""
    n_speakers: int = 60
    """Training voices that the adversary tells apart; no use after training."""


class Reading(NamedTuple):
    """What can be read from codes alone: CTC log-probabilities `(b f v)` and prosody `(b f p)`, at 50 Hz.

    Prosody is melody (units of 4 semitones from the median), logit of voicing, energy (units of 10 dB).
    """

    log_probs: Tensor
    prosody: Tensor


def prosody_features(f0: Tensor, energy: Tensor) -> Tensor:
    """`(f,)` F0 in Hz (0 unvoiced) and energy in dB to `(f p)`, without a speaker's register and loudness."""
    voiced = f0 > 0
    median = f0[voiced].median() if voiced.any() else torch.tensor(1.0)
    melody = 12 * torch.log2(f0.clamp(min=1.0) / median) / SEMITONES_UNIT
    melody = torch.where(voiced, melody.clamp(-4, 4), 0.0)
    level = (energy - energy.quantile(0.9)).clamp(min=-50) / 10
    return torch.stack([melody, voiced.float(), level], dim=-1)


class SpeechTokenizer(nn.Module):
    """Mel, F0 and energy to codes; codes to words, melody, and with a timbre to mel."""

    adamw_names = ("symbols", "prosody", "mel", "to_code")

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        d = config.width
        self.stem = nn.Linear(3 * FRAMES_PER_TOKEN * (config.n_mels + N_PROSODY), d)
        self.encoder = nn.ModuleList(
            AttentiveBlock(d, HEADS, KERNEL, EXPANSION) for _ in range(config.layers)
        )
        self.encoder_norm = nn.LayerNorm(d)
        self.early_symbols = nn.Linear(d, FRAMES_PER_TOKEN * len(config.alphabet))
        self.to_code = nn.Linear(d, config.dims)
        self.from_code = nn.Linear(config.dims, d)
        self.trunk = nn.ModuleList(ConvNeXt(d) for _ in range(3))
        self.trunk_norm = nn.LayerNorm(d)
        self.symbols = nn.Linear(d, FRAMES_PER_TOKEN * len(config.alphabet))
        self.prosody = nn.Linear(d, FRAMES_PER_TOKEN * N_PROSODY)
        self.timbre = nn.Linear(config.timbre_width, 3 * d)
        self.coarse = nn.ModuleList(ConvNeXt(d) for _ in range(2))
        self.split = nn.Linear(d, FRAMES_PER_TOKEN * d)
        self.fine = nn.ModuleList(ConvNeXt(d) for _ in range(2))
        self.mel = nn.Linear(d, config.n_mels)
        moments = config.dims + config.dims * (config.dims + 1) // 2
        self.adversary = nn.Sequential(nn.Linear(moments, d), nn.GELU(), nn.Linear(d, config.n_speakers))

    def encode(self, mel: Tensor, prosody: Tensor, frames: Tensor) -> Tensor:
        """`(b f m)`, `(b f p)` and frame counts `(b,)` to digits `(b t j)` in {-1, 0, 1}; f must be even."""
        return fsq.quantise(self.to_code(self.listen(mel, prosody, frames)))

    def listen(self, mel: Tensor, prosody: Tensor, frames: Tensor) -> Tensor:
        """What the encoder knows, `(b t d)`, before it must put it into eight digits.

        The mean over an utterance's frames is taken from its mel, so that microphone and long-term voice are
        gone.
        """
        mask = frame_mask(frames, mel.shape[1])
        scaled = standardise(mel)
        heard = torch.cat([(scaled - masked_mean(scaled, mask)) * mask, prosody * mask], dim=-1)
        pairs = rearrange(heard, "b (t k) m -> b t (k m)", k=FRAMES_PER_TOKEN)
        around = functional.pad(pairs, (0, 0, 1, 1))
        h = self.stem(torch.cat([around[:, :-2], pairs, around[:, 2:]], dim=-1))
        tokens = mask[:, ::FRAMES_PER_TOKEN]
        for block in self.encoder:
            h = block(h, tokens)
        return self.encoder_norm(h)

    def understand(self, mel: Tensor, prosody: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """What `listen` gives, `(b t d)`, and the words in it: CTC log-probabilities `(b f v)`."""
        h = self.listen(mel, prosody, frames)
        return h, _per_frame(self.early_symbols(h)).log_softmax(dim=-1)

    def _trunk(self, digits: Tensor, frames: Tensor) -> Tensor:
        mask = token_mask(digits, frames)
        h = self.from_code(digits) * mask
        for block in self.trunk:
            h = block(h, mask)
        return self.trunk_norm(h)

    def _reading(self, h: Tensor) -> Reading:
        return Reading(_per_frame(self.symbols(h)).log_softmax(dim=-1), _per_frame(self.prosody(h)))

    def read(self, digits: Tensor, frames: Tensor) -> Reading:
        """Words and melody of codes `(b t j)`."""
        return self._reading(self._trunk(digits, frames))

    def decode(self, digits: Tensor, timbre: Tensor, frames: Tensor) -> tuple[Reading, Tensor]:
        """What `read` gives, and codes `(b t j)` in the voice `(b c)`: log-mel `(b f m)`, the average of all
        that they may sound like.
        """
        h = self._trunk(digits, frames)
        reading = self._reading(h)
        modulation = rearrange(self.timbre(timbre), "b d -> b 1 d")
        mask = frame_mask(frames, FRAMES_PER_TOKEN * h.shape[1])
        for block in self.coarse:
            h = block(h, mask[:, ::FRAMES_PER_TOKEN], modulation)
        h = _per_frame(self.split(h))
        for block in self.fine:
            h = block(h, mask, modulation)
        return reading, restore(self.mel(h))

    def guess_speaker(self, digits: Tensor, frames: Tensor) -> Tensor:
        """The adversary's `(b, speakers)` logits from means and products of an utterance's digits `(b t j)`.

        Its gradient arrives at the codes with its sign changed (Ganin et al. 2016).
        """
        mask = token_mask(digits, frames)
        digits = (2 * digits.detach() - digits) * mask  # as they are, but with the gradient reversed
        n = reduce(mask, "b t 1 -> b 1", "sum")
        mean = reduce(digits, "b t j -> b j", "sum") / n
        products = einsum(digits, digits, "b t i, b t j -> b i j") / rearrange(n, "b 1 -> b 1 1")
        row, column = torch.triu_indices(self.config.dims, self.config.dims)
        return self.adversary(torch.cat([mean, products[:, row, column]], dim=-1))


def _per_frame(x: Tensor) -> Tensor:
    return rearrange(x, "b t (k v) -> b (t k) v", k=FRAMES_PER_TOKEN)


def token_mask(digits: Tensor, frames: Tensor) -> Tensor:
    """`(b t 1)`: ones at the tokens `(b t j)` that hold a real frame, zeros after."""
    return frame_mask(frames, FRAMES_PER_TOKEN * digits.shape[1])[:, ::FRAMES_PER_TOKEN]


def warp(mel: Tensor, factors: Tensor) -> Tensor:
    """`(b f m)` with frequencies stretched by `(b,)` factors around 1: another vocal tract says the same."""
    bins = torch.arange(mel.shape[-1], device=mel.device)
    place = (rearrange(bins, "m -> 1 m") * rearrange(factors, "b -> b 1")).clamp(max=mel.shape[-1] - 1.001)
    low = place.floor().long()
    share = rearrange(place - low, "b m -> b 1 m")
    left = mel.gather(2, rearrange(low, "b m -> b 1 m").expand_as(mel))
    right = mel.gather(2, rearrange(low + 1, "b m -> b 1 m").expand_as(mel))
    return left * (1 - share) + right * share


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """What is computed meanwhile teaches its inputs, not the model."""
    model.requires_grad_(False)
    try:
        yield
    finally:
        model.requires_grad_(True)


def tokenizer_loss(model: SpeechTokenizer, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Recognition, melody, voicing, energy, mel, its being understood, adversary: summed by `WEIGHTS`.

    Recognition is asked of the codes, and of the encoder before them too (intermediate CTC, Lee and Watanabe
    2021): a gradient that need not pass the rounding; the same loss of the codes takes a quarter fewer steps.

    The rebuilt mel, in the disguise that the recorded one wore, should sound to the encoder like that one,
    and be read as the text (a loss of features, as Johnson et al. 2016 have it for pictures).

    The batch holds `mel` (b f m), `prosody` (b f p), `frames` (b), `text` (b n), `symbols` (b), `timbre` (b
    c) of another utterance of the voice, `speaker` (b); `clean` (b), 1 where the mel is worth rebuilding, 0
    where it is noisy; and `ear` (), how much being understood counts: nothing before the encoder can hear.
    """
    mel, prosody, frames = batch["mel"], batch["prosody"], batch["frames"]
    mask = frame_mask(frames, mel.shape[1])
    factors = torch.empty(len(mel)).uniform_(0.86, 1.16).to(mel.device)

    def disguised(said: Tensor) -> Tensor:
        return add_noise(warp(said, factors), mask, NOISE.noise, NOISE.level)

    def misread(log_probs: Tensor) -> Tensor:
        return ctc_loss(log_probs, frames, batch["text"], batch["symbols"])

    h, early = model.understand(disguised(mel), prosody, frames)
    digits = fsq.quantise(model.to_code(h))
    reading, rebuilt = model.decode(digits, batch["timbre"], frames)
    voiced, voicing = prosody[..., 1:2], reading.prosody[..., 1:2]
    missed = (reading.prosody - prosody).abs()
    shown = mask * rearrange(batch["clean"], "b -> b 1 1")
    parts = {
        "ctc": misread(reading.log_probs),
        "early ctc": misread(early),
        "melody": masked_loss(missed[..., :1], voiced * mask),
        "voicing": functional.binary_cross_entropy_with_logits(voicing, voiced, mask),
        "energy": masked_loss(missed[..., 2:], mask),
        "mel": masked_loss((standardise(rebuilt) - standardise(mel)).abs(), shown),
        "voice": functional.cross_entropy(model.guess_speaker(digits, frames), batch["speaker"]),
    }
    loss: Any = sum(WEIGHTS[name] * part for name, part in parts.items())
    if batch["ear"] > 0:
        with frozen(model):
            again, read = model.understand(disguised(rebuilt), prosody, frames)
        unlike = masked_loss((again - h.detach()).abs(), mask[:, ::FRAMES_PER_TOKEN])
        loss = loss + 2 * batch["ear"] * (unlike + misread(read))
    return loss, {name: value.item() for name, value in parts.items()}
