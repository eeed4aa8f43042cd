"""What tokenizer and decoder share: the scale of a mel frame, masks, and the convolutional block on frames.

Axes: b batch, f frames, m mel bins, d width. Everything is `(b f d)`; only the depthwise convolution looks
along f.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

MEL_MEAN, MEL_STD = (
    -5.0,
    2.2,
)  # of log-mel speech, roughly; fixed, so that every model speaks of the same scale


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
        """The kernels as matrices `(d, BLOCK + kernel - 1, BLOCK)`: column i holds the kernel from row i
        on.
        """
        (_, _, kernel), size = self.weight.shape, self.BLOCK
        rows = functional.pad(self.weight[0], (0, size)).repeat(1, size)[:, : size * (size + kernel - 1)]
        return rearrange(rows, "d (column row) -> d row column", column=size)

    def forward(self, x: Tensor) -> Tensor:
        """`(b f d)` → `(b f d)`."""
        (b, f, _), kernel, size = x.shape, self.weight.shape[2], self.BLOCK
        x = functional.pad(rearrange(x, "b f d -> d b f"), (kernel // 2, kernel // 2 + -f % size))
        x = rearrange(x.unfold(2, size + kernel - 1, size), "d b blocks row -> d (b blocks) row")
        y = rearrange(x @ self.bands(), "d (b blocks) column -> b (blocks column) d", b=b)
        return y[:, :f] + self.bias


class ConvNeXt(nn.Module):
    """Depthwise convolution, normalisation, two linear layers, residual (Liu et al. 2022, in one
    dimension).
    """

    def __init__(self, width: int, kernel: int = 7, expansion: int = 3) -> None:
        super().__init__()
        self.depthwise = TimeConvolution(width, kernel)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)
        nn.init.normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor, mask: Tensor, modulation: Tensor | None = None) -> Tensor:
        """Padding never reaches real frames: the convolution sees zeros there.

        Args:
            x: `(b f d)`.
            mask: `(b f 1)`, 1 at real frames.
            modulation: `(b 1 3d)`, a scale, a shift and a gate drawn from a condition (time, timbre).
        """
        h = self.norm(self.depthwise(x * mask))
        if modulation is None:
            return x + self.down(functional.gelu(self.up(h)))
        scale, shift, gate = modulation.chunk(3, dim=-1)
        return x + (1 + gate) * self.down(functional.gelu(self.up(h * (1 + scale) + shift)))
