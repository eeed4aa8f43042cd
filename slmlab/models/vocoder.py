"""From log-mel to a wave: pulses and noise, shaped by gains that a small network draws; Griffin-Lim too.

A regression cannot learn phase from a mel spectrogram, and adversarial training is too slow for a laptop. So
phase is not learned: F0, read off the mel by a small network, drives a train of band-limited pulses whose
harmonics keep the right phase from frame to frame (the source of Wang et al. 2019, arXiv:1904.12088), and white
noise stands beside it. The main network draws what each is multiplied by in a short-time spectrum, which the
inverse STFT makes a wave (the head of Vocos, Siuzdak 2023, arXiv:2306.00814). The gains are corrections to the
mel's own envelope: untrained, this is already a vocoder of the old kind, and silence stays silent.

Axes: b batch, f mel frames (50 Hz), m mel bins, s samples (320 a frame), j short frames (a few in each mel
frame), k frequency bins, g grid of possible F0, c the three gains, d width.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from einops import einsum, rearrange, reduce, repeat
from torch import Tensor, nn
from torch.nn import functional

from slmlab.models.frames import ConvNeXt, standardise

SAMPLE_RATE = 16_000
N_FFT = 1024
HOP = 320
LOG_FLOOR = 1e-5
SIZES = (
    256,
    512,
    1024,
    2048,
)  # windows of the loss: the short ones hear pulses and bursts, the long ones harmonics
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
    pitch_width: int = 96
    """Channels of the network that reads F0."""
    pitch_layers: int = 3
    """Its ConvNeXt blocks."""
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
    """F0 and voicing from log-mel. F0 is a choice from a grid: a choice can doubt between octaves."""

    grid: Tensor
    """Possible F0, log2 of Hz `(g)`."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.trunk = Trunk(
            config.n_mels, config.pitch_bins + 1, config.pitch_width, config.pitch_layers, config.kernel, 3
        )
        grid = torch.linspace(math.log2(config.lowest), math.log2(config.highest), config.pitch_bins)
        self.register_buffer("grid", grid, persistent=False)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """`(b f m)` → scores of each F0 `(b f g)` and of being voiced `(b f)`, both as logits."""
        out = self.trunk(standardise(mel)).float()
        return out[..., :-1], out[..., -1]

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
    window: Tensor
    """Hann `(window)`."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.pitch = PitchReader(config)
        self.per_frame = HOP // config.step
        self.gains = Trunk(
            config.n_mels + 2,
            self.per_frame * 3 * config.n_mels,
            config.width,
            config.layers,
            config.kernel,
            config.expansion,
        )
        nn.init.normal_(self.gains.head.weight, std=1e-3)
        nn.init.zeros_(self.gains.head.bias)
        filters = mel_filters(config.n_mels)
        rayleigh = math.sqrt(math.pi / 4 * torch.hann_window(N_FFT).square().sum())
        self.register_buffer("envelope", (filters.sum(1) * rayleigh).log(), persistent=False)
        self.register_buffer("to_bins", _band_interpolation(filters, config.window), persistent=False)
        self.register_buffer("window", torch.hann_window(config.window), persistent=False)

    def forward(self, mel: Tensor, f0: Tensor | None = None) -> Tensor:
        """Speak a log-mel spectrogram; in `eval` the same mel gives the same wave, alone or in any batch.

        Args:
            mel: `(b f m)`, natural logarithm of magnitude mel.
            f0: `(b f)` in Hz, to be followed where it is not 0; elsewhere, and without it, F0 is read off the mel.

        Returns:
            `(b s)` with s = 320 f, 16 kHz.
        """
        scores, voicing = self.pitch(mel)
        read = self.pitch.f0(scores)
        return self.synthesise(mel, read if f0 is None else torch.where(f0 > 0, f0, read), voicing)

    def synthesise(self, mel: Tensor, f0: Tensor, voicing: Tensor) -> Tensor:
        """Shape pulses and noise as the mel says.

        Args:
            mel: `(b f m)`.
            f0: `(b f)` in Hz, above 0 everywhere: where there is no voice the gains silence the pulses.
            voicing: `(b f)`, logits.

        Returns:
            `(b s)`
        """
        hints = torch.stack((f0.log2() - 7, torch.tanh(voicing / 4)), -1)
        gains = self.gains(torch.cat((standardise(mel), hints), -1)).float()
        with torch.autocast(mel.device.type, enabled=False):
            pulse_gain, noise_gain = self._spectra(mel, gains)
            pulses, noise = self._sources(f0)
            shaped = self._stft(pulses) * pulse_gain + self._stft(noise) * noise_gain
            return torch.istft(
                shaped, self.config.window, self.config.step, window=self.window, length=pulses.shape[1]
            )

    def _spectra(self, mel: Tensor, gains: Tensor) -> tuple[Tensor, Tensor]:
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

    def _stft(self, wave: Tensor) -> Tensor:
        """`(b s)` → `(b k j)`."""
        return stft(wave, self.config.window, self.config.step)


def vocoder_loss(model: Vocoder, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """How far a spoken segment is from the recorded one, and how wrong its F0.

    The pulses follow the given F0 where there is one: harmonics meet the target's from the first step.

    Args:
        model: the vocoder, in training mode.
        batch: `mel` `(b f m)`, `wave` `(b s)` with s = 320 f, `f0` `(b f)` in Hz, 0 where unvoiced.

    Returns:
        The sum, and its parts: `spectrum`, `mel`, `pitch`, `voicing`.
    """
    mel, wave, f0 = soften(batch["mel"]), batch["wave"], batch["f0"]
    scores, voicing = model.pitch(mel)
    followed = torch.where(f0 > 0, f0, model.pitch.f0(scores.detach()))
    spoken = model.synthesise(mel, followed, voicing.detach())
    with torch.autocast(mel.device.type, enabled=False):
        filters = mel_filters(mel.shape[-1]).to(mel.device)
        parts = {
            "spectrum": spectral_distance(spoken, wave),
            "mel": (log_mel(spoken, filters) - log_mel(wave, filters)).abs().mean(),
            "pitch": pitch_loss(scores, f0, model.pitch.grid),
            "voicing": functional.binary_cross_entropy_with_logits(voicing, (f0 > 0).float()),
        }
    return torch.stack(list(parts.values())).sum(), {name: value.detach() for name, value in parts.items()}


def spectral_distance(spoken: Tensor, recorded: Tensor) -> Tensor:
    """Multi-resolution STFT distance of Yamamoto et al. (2020, arXiv:1910.11480): convergence and log magnitude.

    Args:
        spoken: `(b s)`.
        recorded: `(b s)`.

    Returns:
        A scalar, the mean over the four sizes of `‖X - Y‖ / ‖X‖ + mean |ln X - ln Y|`.
    """
    total = spoken.new_zeros(())
    for size in SIZES:
        x, y = (_magnitude(stft(wave, size, size // 2), 1e-7 * size) for wave in (recorded, spoken))
        total = total + (x - y).norm() / x.norm() + (x.log() - y.log()).abs().mean()
    return total / len(SIZES)


def pitch_loss(scores: Tensor, f0: Tensor, grid: Tensor) -> Tensor:
    """Cross-entropy with a bell one grid step wide around the true F0, over voiced frames.

    Args:
        scores: `(b f g)`, logits.
        f0: `(b f)` in Hz, 0 where unvoiced.
        grid: `(g)`, log2 of Hz.

    Returns:
        A scalar; 0 if no frame is voiced.
    """
    voiced = (f0 > 0).float()
    distance = rearrange(f0.clamp(min=1).log2(), "b f -> b f 1") - grid
    target = (-0.5 * (distance / (grid[1] - grid[0])) ** 2).softmax(-1)
    entropy = -reduce(target * scores.log_softmax(-1), "b f g -> b f", "sum")
    return (entropy * voiced).sum() / voiced.sum().clamp(min=1)


def soften(mel: Tensor) -> Tensor:
    """Make a mel more like a decoder's: half of a batch is blurred, all of it is a little noisy.

    Args:
        mel: `(b f m)`.

    Returns:
        `(b f m)`; random, from torch's global generator.
    """
    share = torch.rand(len(mel), 1, 1, device=mel.device) * (
        torch.rand(len(mel), 1, 1, device=mel.device) < 0.5
    )
    around = functional.pad(rearrange(mel, "b f m -> b 1 f m"), (1, 1, 1, 1), mode="replicate")
    blurred = rearrange(functional.avg_pool2d(around, 3, 1), "b 1 f m -> b f m")
    noise = 0.1 * torch.rand(len(mel), 1, 1, device=mel.device) * torch.randn_like(mel)
    return (mel + share * (blurred - mel) + noise).clamp(min=math.log(LOG_FLOOR))


def pulse_train(f0: Tensor, start: Tensor) -> Tensor:
    """Band-limited pulses: the cosines of all harmonics, as dense in power as white noise of variance 1.

    Their sum has a closed form, Dirichlet's kernel `(sin((2 n + 1) π φ) / sin(π φ) - 1) / 2`; the harmonic that
    is just coming in below half the sample rate is added with the share by which it is in.

    Args:
        f0: `(b f)` in Hz, above 0.
        start: `(b)`, phase before the first sample, in periods.

    Returns:
        `(b s)` with s = 320 f.
    """
    hertz = rearrange(glide(rearrange(f0.double().log2(), "b f -> b f 1"), HOP), "b s 1 -> b s").exp2()
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
    """Straight lines between frames, the last one held: `(b f c)` → `(b steps·f c)`."""
    share = torch.arange(steps, device=x.device, dtype=x.dtype) / steps
    after = torch.cat((x[:, 1:], x[:, -1:]), 1) - x
    return rearrange(
        rearrange(x, "b f c -> b f 1 c") + einsum(after, share, "b f c, i -> b f i c"), "b f i c -> b (f i) c"
    )


def stft(wave: Tensor, size: int, hop: int) -> Tensor:
    """Centred short-time spectrum with a Hann window and zeros around: `(b s)` → complex `(b k j)`."""
    window = torch.hann_window(size, device=wave.device)
    return torch.stft(wave, size, hop, window=window, pad_mode="constant", return_complex=True)


def log_mel(wave: Tensor, filters: Tensor) -> Tensor:
    """The mel spectrogram of `features`, without its module: `(b s)`, `(m k)` → `(b f m)`."""
    magnitude = _magnitude(stft(wave, N_FFT, HOP)[..., : wave.shape[-1] // HOP], 1e-12)
    return einsum(filters, magnitude, "m k, b k f -> b f m").clamp(min=LOG_FLOOR).log()


@cache
@torch.inference_mode(False)  # kept for later calls, which may want gradients
def mel_filters(n_mels: int) -> Tensor:
    """Triangles on Slaney's mel scale, each of area 1, from 0 Hz to half the sample rate: `(m k)`.

    The scale is linear below 1 kHz, 200/3 Hz a mel, and logarithmic above, 27 mels to a factor of 6.4.
    """
    top = 15 + 27 * math.log(SAMPLE_RATE / 2 / 1000) / math.log(6.4)
    mels = torch.linspace(0, top, n_mels + 2, dtype=torch.float64)
    edges = torch.where(mels < 15, mels * 200 / 3, 1000 * torch.exp((mels - 15) * math.log(6.4) / 27))
    hertz = torch.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1, dtype=torch.float64)
    low, middle, high = (rearrange(edges[i : i + n_mels], "m -> m 1") for i in range(3))
    triangles = torch.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)).clamp(min=0)
    return (triangles * 2 / (high - low)).float()


def magnitudes(mel: Tensor, rounds: int = 60) -> Tensor:
    """Undo the mel filters: the non-negative magnitudes whose mel is nearest, `(b f m)` → `(b k f)`.

    From the clipped pseudo-inverse by the multiplicative rule of Lee & Seung (2001), which stays positive.
    """
    filters = mel_filters(mel.shape[-1]).to(mel.device)
    target = rearrange(mel.exp(), "b f m -> b m f")
    found = (torch.linalg.pinv(filters) @ target).clamp(min=0) + 1e-8
    wanted = filters.T @ target
    for _ in range(rounds):
        found = found * wanted / (filters.T @ (filters @ found) + 1e-9)
    return found


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
    window = torch.hann_window(N_FFT, device=mel.device)
    angles = 2 * math.pi * torch.rand(magnitude.shape[1:], generator=torch.Generator().manual_seed(0))
    phase = torch.polar(torch.ones_like(angles), angles).to(mel.device)
    previous = torch.zeros_like(phase)
    for _ in range(iterations):
        wave = torch.istft(magnitude * phase, N_FFT, HOP, window=window, length=mel.shape[1] * HOP)
        spectrum = stft(wave, N_FFT, HOP)
        ahead = spectrum - momentum / (1 + momentum) * previous
        phase, previous = ahead / (ahead.abs() + 1e-12), spectrum
    return torch.istft(magnitude * phase, N_FFT, HOP, window=window, length=mel.shape[1] * HOP)


def _magnitude(spectrum: Tensor, floor: float) -> Tensor:
    """`|X|`, with a gradient where X is 0."""
    return (spectrum.real.square() + spectrum.imag.square() + floor).sqrt()


def _band_interpolation(filters: Tensor, size: int) -> Tensor:
    """Straight lines between centres of mel filters `(m k)`, read at the bins of a shorter STFT: `(k' m)`."""
    bins = torch.arange(filters.shape[1]) * SAMPLE_RATE / N_FFT
    centres = einsum(filters, bins, "m k, k -> m") / filters.sum(1)
    hertz = torch.arange(size // 2 + 1) * SAMPLE_RATE / size
    above = torch.searchsorted(centres, hertz).clamp(1, len(centres) - 1)
    share = ((hertz - centres[above - 1]) / (centres[above] - centres[above - 1])).clamp(0, 1)
    rows = torch.arange(len(hertz))
    matrix = torch.zeros(len(hertz), len(centres))
    matrix[rows, above - 1] = 1 - share
    matrix[rows, above] = share
    return matrix
