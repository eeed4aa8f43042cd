"""What the networks on frames share: the scale of a mel, masks, means, blocks, the loss of recognition.

Axes: b batch, f frames, m mel bins, d width, h heads, n symbols of a text, v alphabet. Everything is `(b f
d)`; only depthwise convolutions and attention look along f.
"""

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional

MEL_MEAN, MEL_STD = -5.0, 2.2
"""Of log-mel speech, roughly; fixed, so that every model speaks of the same scale."""
FLOOR = 7.0
"""Nats (61 dB) under the utterance's peak: silence deeper than this means nothing."""


def standardise(mel: Tensor) -> Tensor:
    """Log-mel to numbers around zero with a spread around one."""
    return (mel - MEL_MEAN) / MEL_STD


def restore(scaled: Tensor) -> Tensor:
    """The inverse of `standardise`."""
    return scaled * MEL_STD + MEL_MEAN


def frame_mask(frames: Tensor, length: int) -> Tensor:
    """`(b,)` numbers of real frames to a `(b f 1)` mask of ones and zeros."""
    steps = torch.arange(length, device=frames.device)
    return (rearrange(steps, "f -> 1 f 1") < rearrange(frames, "b -> b 1 1")).float()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of `(b f d)` over the frames where the mask `(b f 1)` is 1: `(b 1 d)`."""
    return reduce(x * mask, "b f d -> b 1 d", "sum") / reduce(mask, "b f 1 -> b 1 1", "sum").clamp_min(1)


def masked_loss(errors: Tensor, mask: Tensor) -> Tensor:
    """Mean of `(b f d)` over all the frames of a batch where the mask `(b f 1)` is 1: a scalar, 0 of none."""
    return (errors * mask).mean(dim=-1).sum() / mask.sum().clamp(min=1)


def peak(mel: Tensor, mask: Tensor) -> Tensor:
    """The loudest bin of each utterance's real frames: `(b f m)`, mask `(b f 1)` to `(b 1 1)`."""
    return reduce(mel.masked_fill(mask == 0, -torch.inf), "b f m -> b 1 1", "max")


def even(x: Tensor) -> Tensor:
    """`(b f d)` with a frame of zeros more where f is odd: whole steps of two frames."""
    return functional.pad(x, (0, 0, 0, x.shape[1] % 2))


class TimeConvolution(nn.Module):
    """Depthwise convolution along f of `(b f d)`, odd kernel, zeros around.

    It is computed as products with small banded matrices, BLOCK frames each: forwards and backwards this
    takes less than half the time of the depthwise kernel that torch has for processors.
    """

    BLOCK = 16

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, width, kernel).uniform_(-1, 1) * kernel**-0.5)
        self.bias = nn.Parameter(torch.zeros(width))

    def bands(self) -> Tensor:
        """The kernels as matrices `(d, BLOCK + kernel - 1, BLOCK)`: column i has the kernel from row i on."""
        (_, _, kernel), size = self.weight.shape, self.BLOCK
        rows = functional.pad(self.weight[0], (0, size)).repeat(1, size)[:, : size * (size + kernel - 1)]
        return rearrange(rows, "d (column row) -> d row column", column=size)

    def forward(self, x: Tensor) -> Tensor:
        """`(b f d)` → `(b f d)`."""
        (b, f, _), kernel, size = x.shape, self.weight.shape[2], self.BLOCK
        x = functional.pad(rearrange(x, "b f d -> d b f"), (kernel // 2, kernel // 2 + -f % size))
        x = rearrange(x.unfold(2, size + kernel - 1, size), "d b blocks row -> d (b blocks) row").contiguous()
        y = rearrange(x @ self.bands(), "d (b blocks) column -> b (blocks column) d", b=b)
        return y[:, :f] + self.bias


class ConvNeXt(nn.Module):
    """Depthwise convolution, normalisation, two linear layers, residual (Liu et al. 2022, along time)."""

    def __init__(self, width: int, kernel: int = 7, expansion: int = 3) -> None:
        super().__init__()
        self.depthwise = TimeConvolution(width, kernel)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)
        nn.init.normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor, mask: Tensor, modulation: Tensor | None = None) -> Tensor:
        """`(b f d)` → `(b f d)`; what the mask `(b f 1)` hides never reaches real frames.

        `modulation` `(b 1 3d)` is a scale, a shift and a gate drawn from a condition (time, timbre).
        """
        h = self.norm(self.depthwise(x * mask))
        if modulation is None:
            return x + self.down(functional.gelu(self.up(h)))
        scale, shift, gate = modulation.chunk(3, dim=-1)
        return x + (1 + gate) * self.down(functional.gelu(self.up(h * (1 + scale) + shift)))


class AttentiveBlock(nn.Module):
    """Attention over the utterance, a short gated convolution, a feed-forward layer: each adds to its input.

    Much as in a conformer (Gulati et al. 2020); without positions, for the convolutions tell what is near.
    """

    def __init__(self, width: int, heads: int, kernel: int, expansion: int) -> None:
        super().__init__()
        d, wide = width, width * expansion
        self.heads = heads
        self.norm_attention, self.norm_gate, self.norm_feed = (nn.LayerNorm(d) for _ in range(3))
        self.qkv, self.attended = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.gate, self.conv = nn.Linear(d, 2 * d, bias=False), TimeConvolution(d, kernel)
        self.norm_conv, self.convolved = nn.LayerNorm(d), nn.Linear(d, d, bias=False)
        self.up, self.down = nn.Linear(d, wide), nn.Linear(wide, d, bias=False)

    def attend(self, x: Tensor, mask: Tensor) -> Tensor:
        """Every step `(b t d)` looks at the real steps of its utterance, mask `(b t 1)`."""
        q, k, v = rearrange(self.qkv(x), "b t (three h d) -> three b h t d", three=3, h=self.heads)
        seen = rearrange(mask, "b t 1 -> b 1 1 t") > 0
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.attended(rearrange(y, "b h t d -> b t (h d)"))

    def convolve(self, x: Tensor, mask: Tensor) -> Tensor:
        """Every step `(b t d)` looks at its neighbours, through a gate."""
        y = self.conv(functional.glu(self.gate(x), dim=-1) * mask)
        return self.convolved(functional.silu(self.norm_conv(y)))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`(b t d)`, mask `(b t 1)` to `(b t d)`."""
        x = x + self.attend(self.norm_attention(x), mask)
        x = x + self.convolve(self.norm_gate(x), mask)
        return x + self.down(functional.silu(self.up(self.norm_feed(x))))


def ctc_loss(log_probs: Tensor, frames: Tensor, text: Tensor, symbols: Tensor) -> Tensor:
    """Connectionist temporal classification (Graves et al. 2006), nats a symbol; what cannot fit is 0.

    `log_probs` are `(b f v)`, blank 0, of `frames` `(b,)`; `text` `(b n)` are ids, of which `symbols` `(b,)`.
    """
    along = rearrange(log_probs, "b f v -> f b v").float()
    total = functional.ctc_loss(along, text, frames, symbols, reduction="sum", zero_infinity=True)
    return total / symbols.sum()
