"""From log-mel to a wave: pulses and noise, shaped by gains that a small network draws.

A regression cannot learn phase from a mel spectrogram, and adversarial training is too slow for a laptop. So
phase is not learned: F0, read off the mel by a small network, drives a train of band-limited pulses whose
harmonics keep the right phase from frame to frame (the source of Wang et al. 2019, arXiv:1904.12088), and
white noise stands beside it. The main network draws what each is multiplied by in a short-time spectrum,
which the inverse STFT makes a wave (the head of Vocos, Siuzdak 2023, arXiv:2306.00814). The gains are
corrections to the mel's own envelope: untrained, this is already a vocoder of the old kind, and silence stays
silent. Last, the loop is closed: the mel of the sound is measured and brought to the mel that was given.

The loss is an energy distance (Gritsenko et al. 2020, arXiv:2008.01160). A plain distance of spectra is
smallest for something that never varies, so it says hiss with pulses, and that buzzes; the energy distance is
smallest where sounds vary as recordings do.

Axes: b batch, f mel frames (50 Hz), m mel bins, s samples (320 a frame), j short frames (a few in each mel
frame), k frequency bins, g grid of possible F0, h multiples of one, c the three gains, d width.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import einsum, rearrange, reduce, repeat
from torch import Tensor, nn
from torch.nn import functional

from slmlab.models.blocks import ConvNeXt, standardise
from slmlab.sound import SAMPLE_RATE
from slmlab.sound.mel import HOP, N_FFT, frequencies, istft, log_mel, mel_filters, mel_interpolation, stft

SIZES = (256, 512, 1024, 2048)
"""Windows of the loss: the short ones hear pulses and bursts, the long ones harmonics."""
GATE = 4.0  # sharpness of voicing: pulses are either there or not, but come and go softly
SMOOTHING = 5  # mel bins over which a network's mel is trusted; see `Vocoder.forward`
GAP = 100.0  # Hz left free between the highest harmonic and half the sample rate


@dataclass(frozen=True)
class VocoderConfig:
    """The shape of the vocoder."""

    n_mels: int = 80
    """Mel bins of the input, 0 to 8 kHz."""
    width: int = 192
    """Channels of the network that draws the gains."""
    layers: int = 6
    """Its ConvNeXt blocks."""
    kernel: int = 7
    """Mel frames that one depthwise convolution sees; odd."""
    expansion: int = 3
    """Width inside a block over the width between blocks."""
    window: int = 320
    """Samples of the short-time spectrum in which sources are shaped."""
    step: int = 80
    """Samples from one short frame to the next; divides 320."""
    rounds: int = 3
    """How often the sound's own mel is measured and brought to the one that was asked for."""
    pitch_width: int = 64
    """Channels of the network that reads F0."""
    pitch_layers: int = 2
    """Its ConvNeXt blocks."""
    harmonics: int = 8
    """Harmonics by which a possible F0 is known."""
    pitch_bins: int = 96
    """Points of the grid of possible F0, evenly spaced in octaves."""
    lowest: float = 48.0
    """Hz, the first of them."""
    highest: float = 480.0
    """Hz, the last."""


class Trunk(nn.Module):
    """ConvNeXt blocks between two linear layers: `(b f inputs)` to `(b f outputs)`."""

    def __init__(
        self, inputs: int, outputs: int, width: int, layers: int, kernel: int, expansion: int
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(ConvNeXt(width, kernel, expansion) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`(b f inputs)` → `(b f outputs)`."""
        everywhere = x.new_ones(1, 1, 1)
        h = self.embed(x)
        for block in self.blocks:
            h = block(h, everywhere)
        return self.head(self.norm(h))


class PitchReader(nn.Module):
    """F0 and voicing from log-mel. F0 is a choice from a grid: a choice can doubt between octaves.

    A few weights shared by all points of the grid look at the mel at the harmonics that a point would have,
    and halfway between them; what they learn from one pitch holds for every other. A trunk then listens to
    the neighbouring frames.
    """

    grid: Tensor
    """Possible F0, log2 of Hz `(g)`."""
    at_harmonics: Tensor
    """Interpolates from mel bins to half, one, one and a half … times each F0: `(g h m)`."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        with torch.device("cpu"):  # constants have values also where weights have none (`meta`)
            grid = torch.linspace(math.log2(config.lowest), math.log2(config.highest), config.pitch_bins)
            multiples = torch.arange(1, 2 * config.harmonics + 1) / 2
            at_harmonics = mel_interpolation(einsum(grid.exp2(), multiples, "g, h -> g h"))
        self.register_buffer("grid", grid, persistent=False)
        self.register_buffer("at_harmonics", at_harmonics, persistent=False)
        points, shape = config.pitch_bins, (config.pitch_width, config.pitch_layers, config.kernel, 3)
        self.match = nn.Sequential(
            nn.Linear(2 * config.harmonics, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 1)
        )
        self.trunk = Trunk(config.n_mels + points, points + 1, *shape)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """`(b f m)` → scores of each F0 `(b f g)` and of being voiced `(b f)`, both as logits."""
        mel = standardise(mel)
        heard = einsum(mel, self.at_harmonics, "b f m, g h m -> b f g h")
        heard = heard - reduce(heard, "b f g h -> b f g 1", "mean")
        scores = rearrange(self.match(heard), "b f g 1 -> b f g")
        out = self.trunk(torch.cat((mel, scores), -1))
        return (scores + out[..., :-1]).float(), out[..., -1].float()

    def f0(self, scores: Tensor) -> Tensor:
        """The best point of the grid and its neighbours, averaged: `(b f g)` → Hz `(b f)`, never 0."""
        places = torch.arange(len(self.grid), device=scores.device)
        far = (places - scores.argmax(-1, keepdim=True)).abs() > 3
        weights = scores.masked_fill(far, -math.inf).softmax(-1)
        return einsum(weights, self.grid, "b f g, g -> b f").exp2()


class Vocoder(nn.Module):
    """Log-mel to wave; see the top of this file."""

    envelope: Tensor
    """Log-mel of white noise of variance 1 `(m)`: what the mel is measured against."""
    to_bins: Tensor
    """Interpolates from mel bins to the bins of the short-time spectrum `(k m)`."""
    to_fine_bins: Tensor
    """The same to the bins of the mel's own spectrum."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.pitch = PitchReader(config)
        self.per_frame = HOP // config.step
        shape = config.width, config.layers, config.kernel, config.expansion
        self.gains = Trunk(config.n_mels + 2, self.per_frame * 3 * config.n_mels, *shape)
        nn.init.normal_(self.gains.head.weight, std=1e-3)
        nn.init.zeros_(self.gains.head.bias)
        with torch.device("cpu"):  # constants have values also where weights have none (`meta`)
            rayleigh = math.sqrt(math.pi / 4 * torch.hann_window(N_FFT).square().sum())
            envelope = (mel_filters().sum(1) * rayleigh).log()
            to_bins, to_fine_bins = (mel_interpolation(frequencies(n)) for n in (config.window, N_FFT))
        self.register_buffer("envelope", envelope, persistent=False)
        self.register_buffer("to_bins", to_bins, persistent=False)
        self.register_buffer("to_fine_bins", to_fine_bins, persistent=False)

    def forward(self, mel: Tensor, smoothing: int = 1) -> Tensor:
        """Speak log-mels `(b f m)`: `(b s)`; in `eval` a mel gives the same wave alone or in any batch.

        `smoothing` is an odd number of mel bins over which the closing of the loop is averaged. 1 keeps every
        detail of a recording's mel. A network's mel has washed-out harmonics, which the loop would turn into
        hoarseness: 5 keeps its envelope alone and leaves harmonics to the pulses.
        """
        scores, voicing = self.pitch(mel)
        return self.synthesise(mel, self.pitch.f0(scores), voicing, smoothing=smoothing)[0]

    def synthesise(
        self, mel: Tensor, f0: Tensor, voicing: Tensor, draws: int = 1, smoothing: int = 1
    ) -> Tensor:
        """Shape pulses and noise as the mel `(b f m)` says: `(draws b s)`, each with its own noise and start.

        `f0` `(b f)` is in Hz, above 0 everywhere; where the logits `voicing` `(b f)` are low the pulses fall
        silent.
        """
        hints = torch.stack((f0.log2() - 7, torch.tanh(voicing / 4)), -1)
        gains = self.gains(torch.cat((standardise(mel), hints), -1)).float()
        with torch.autocast(mel.device.type, enabled=False):
            source_gains = self._source_gains(mel, gains)
            gate = glide((GATE * voicing).sigmoid(), HOP)
            waves = [self._sound(f0, gate, *source_gains) for _ in range(draws)]
            for _ in range(self.config.rounds):
                waves = [self._corrected(wave, mel, smoothing) for wave in waves]
        return torch.stack(waves)

    def _sound(self, f0: Tensor, gate: Tensor, pulse_gain: Tensor, noise_gain: Tensor) -> Tensor:
        """Sources through their gains: `(b s)`."""
        size, step = self.config.window, self.config.step
        pulses, noise = self._sources(f0)
        shaped = stft(gate * pulses, size, step) * pulse_gain + stft(noise, size, step) * noise_gain
        return istft(shaped, noise.shape[1], size, step)

    def _corrected(self, wave: Tensor, mel: Tensor, smoothing: int) -> Tensor:
        """Multiply the spectrum by what its mel lacks; as overlapping frames disagree, a little remains."""
        spectrum = stft(wave)
        lack = (mel - log_mel(spectrum[..., :-1])).clamp(max=3)
        if smoothing > 1:
            beside = functional.pad(lack, (smoothing // 2, smoothing // 2), mode="replicate")
            lack = functional.avg_pool1d(beside, smoothing, 1)
        lack = torch.cat((lack, lack[:, -1:]), 1)
        factor = einsum(lack, self.to_fine_bins, "b f m, k m -> b k f").exp()
        return istft(spectrum * factor, wave.shape[1])

    def _source_gains(self, mel: Tensor, gains: Tensor) -> tuple[Tensor, Tensor]:
        """Corrections `(b f (j c m))` to the envelope → gains of pulses (complex) and of noise, `(b k j)`."""
        envelope = glide(mel.float() - self.envelope, self.per_frame)
        gains = rearrange(gains, "b f (j c m) -> c b (f j) m", c=3, m=mel.shape[-1])
        logs = torch.stack((envelope + gains[0], envelope + gains[1] - 1, gains[2]))
        logs = torch.cat((logs, logs[:, :, -1:]), dim=2)  # the centred STFT has a frame at the very end
        pulse, noise, phase = einsum(logs, self.to_bins, "c b j m, k m -> c b k j")
        return torch.polar(pulse.clamp(max=8).exp(), phase), noise.clamp(max=8).exp()

    def _sources(self, f0: Tensor) -> tuple[Tensor, Tensor]:
        """Pulses and noise `(b s)`: from anywhere in their course in training, always the same in `eval`."""
        b, f = f0.shape
        if self.training:
            return pulse_train(f0, torch.rand(b, device=f0.device)), torch.randn(b, f * HOP, device=f0.device)
        noise = torch.randn(f * HOP, generator=torch.Generator().manual_seed(0)).to(f0.device)
        return pulse_train(f0, torch.zeros(b, device=f0.device)), repeat(noise, "s -> b s", b=b)


def vocoder_loss(
    model: Vocoder, batch: Mapping[str, Tensor], smoothing: int = 1
) -> tuple[Tensor, dict[str, Tensor]]:
    """How far what is spoken for a segment is from what was recorded, and how wrong its F0 is.

    The pulses follow the given F0 where there is one: harmonics meet the target's from the first step. The
    batch holds `mel` `(b f m)`, `wave` `(b s)`, and `f0` `(b f)` in Hz, 0 where unvoiced. With `smoothing`
    above 1 the mel may be a network's, and voicing is what was recorded, as codes know it.
    """
    mel, wave, f0 = batch["mel"], batch["wave"], batch["f0"]
    scores, voicing = model.pitch(mel)
    followed = torch.where(f0 > 0, f0, model.pitch.f0(scores.detach()))
    gate = voicing.detach() if smoothing == 1 else torch.where(f0 > 0, GATE, -GATE)
    first, second = model.synthesise(mel, followed, gate, draws=2, smoothing=smoothing)
    with torch.autocast(mel.device.type, enabled=False):
        parts = {
            "spectrum": energy_distance(first, second, wave),
            "pitch": pitch_loss(scores, f0, model.pitch.grid),
            "voicing": functional.binary_cross_entropy_with_logits(voicing, (f0 > 0).float()),
        }
    return torch.stack(list(parts.values())).sum(), {name: value.detach() for name, value in parts.items()}


def energy_distance(first: Tensor, second: Tensor, recorded: Tensor) -> Tensor:
    """How far two draws of speech `(b s)` are from the recording, less their own distance, halved.

    In expectation it is smallest where draws are distributed as recordings are: noise is let be noise.
    """
    x, y, z = spectra(recorded), spectra(first), spectra(second)
    return (distance(y, x, x) + distance(z, x, x) - distance(y, z, x)) / 2


def spectral_distance(spoken: Tensor, recorded: Tensor) -> Tensor:
    """Multi-resolution STFT distance of Yamamoto et al. (2020, arXiv:1910.11480) between waves `(b s)`.

    It is the mean over the four sizes of `‖X - Y‖ / ‖X‖ + mean |ln X - ln Y|`.
    """
    x = spectra(recorded)
    return distance(spectra(spoken), x, x)


def spectra(wave: Tensor) -> list[Tensor]:
    """Magnitudes `(b k j)` at each of the sizes, never 0."""
    transforms = {size: stft(wave, size, size // 2) for size in SIZES}
    return [(x.real.square() + x.imag.square() + 1e-7 * size).sqrt() for size, x in transforms.items()]


def distance(ones: list[Tensor], others: list[Tensor], scales: list[Tensor]) -> Tensor:
    """Convergence, relative to the norms of `scales`, plus L1 of log magnitudes; the mean over the sizes."""
    parts = [
        (one - other).norm() / scale.norm() + (one.log() - other.log()).abs().mean()
        for one, other, scale in zip(ones, others, scales, strict=True)
    ]
    return torch.stack(parts).mean()


def pitch_loss(scores: Tensor, f0: Tensor, grid: Tensor) -> Tensor:
    """Cross-entropy of `scores` `(b f g)` with a bell one grid step wide around the true F0, where voiced.

    `f0` `(b f)` is in Hz, 0 where unvoiced, `grid` `(g)` in log2 of Hz; 0 if no frame is voiced.
    """
    voiced = (f0 > 0).float()
    distance = rearrange(f0.clamp(min=1).log2(), "b f -> b f 1") - grid
    target = (-0.5 * (distance / (grid[1] - grid[0])) ** 2).softmax(-1)
    entropy = -reduce(target * scores.log_softmax(-1), "b f g -> b f", "sum")
    return (entropy * voiced).sum() / voiced.sum().clamp(min=1)


def pulse_train(f0: Tensor, start: Tensor) -> Tensor:
    """Band-limited pulses: the cosines of all harmonics, as dense in power as white noise of variance 1.

    Their sum has a closed form, Dirichlet's kernel `(sin((2 n + 1) π φ) / sin(π φ) - 1) / 2`; the harmonic
    that is just coming in below half the sample rate is added with the share by which it is in. F0 `(b f)` in
    Hz, above 0, and the phase before the first sample `(b)`, in periods, give `(b s)`.
    """
    hertz = glide(f0.double().log2(), HOP).exp2()
    phase = ((hertz / SAMPLE_RATE).cumsum(1) + rearrange(start, "b -> b 1")).remainder(1).float()
    hertz = hertz.float()
    harmonics = (SAMPLE_RATE / 2 - GAP) / hertz
    whole = harmonics.floor()
    sine = torch.sin(math.pi * phase)
    at_peak = sine.abs() < 1e-4
    kernel = torch.sin((2 * whole + 1) * math.pi * phase) / torch.where(at_peak, 1.0, sine)
    kernel = torch.where(at_peak, 2 * whole + 1, kernel)
    coming = (harmonics - whole) * torch.cos(2 * math.pi * (whole + 1) * phase)
    return ((kernel - 1) / 2 + coming) * (4 * hertz / SAMPLE_RATE).sqrt()


def glide(x: Tensor, steps: int) -> Tensor:
    """Straight lines between frames, the last one held: `(b f ...)` → `(b steps·f ...)`."""
    share = torch.arange(steps, device=x.device, dtype=x.dtype) / steps
    change = torch.cat((x[:, 1:], x[:, -1:]), 1) - x
    lines = rearrange(x, "b f ... -> b f 1 ...") + einsum(change, share, "b f ..., i -> b f i ...")
    return rearrange(lines, "b f i ... -> b (f i) ...")
