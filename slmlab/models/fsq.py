"""Finite scalar quantisation: every number of a short vector is rounded to one of three levels.

No codebook is learnt and none can collapse: `dims` numbers of 3 levels make 3 ** dims codes (Mentzer et al.
2023, the form of CosyVoice 2). Axes: b batch, t speech tokens, j dimensions of a code.
"""

import torch
from einops import rearrange, reduce
from torch import Tensor

LEVELS = 3


def quantise(z: Tensor) -> Tensor:
    """Squash `z` of any shape into (-1, 1) and round it to {-1, 0, 1}.

    The gradient passes straight through the rounding: training has the values of inference, and only the
    backward pass pretends that there was no rounding.
    """
    bounded = torch.tanh(z)
    return bounded + (bounded.round() - bounded).detach()


def digits_to_codes(digits: Tensor) -> Tensor:
    """`(... j)` levels in {-1, 0, 1} to `(...)` integer codes: code = Σ_j (h_j + 1) 3^j."""
    powers = LEVELS ** torch.arange(digits.shape[-1], device=digits.device)
    return reduce((digits.round().long() + 1) * powers, "... j -> ...", "sum")


def codes_to_digits(codes: Tensor, dims: int) -> Tensor:
    """`(...)` integer codes to `(... j)` float levels in {-1, 0, 1}: the inverse of `digits_to_codes`."""
    powers = LEVELS ** torch.arange(dims, device=codes.device)
    return (rearrange(codes, "... -> ... 1") // powers % LEVELS - 1).float()
