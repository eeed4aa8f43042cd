"""Entropy of a mixture of two kinds of speech: what the training data alone say about erosion (paper, §3).

p_α = (1 − α) p_real + α p_syn; H(p_α) is strictly concave in α when the two differ, so it has one maximum α*.
The maximum may lie at an end, which the paper's existence argument skips. All of this describes the mixture;
what a model trained on it does is another question.

Axis legend: v codes, k values of α.
"""

from dataclasses import dataclass

import numpy as np
from einops import rearrange
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import bisect

from slmlab.errors import LabError

Floats = NDArray[np.float64]
FLAT = 1e-12  # a slope that rounding alone can make


@dataclass(frozen=True)
class Peak:
    """Where the entropy of a mixture is greatest."""

    alpha: float
    """α*, 0 to 1."""
    bits: float
    """H there."""
    gain: float
    """Bits above the better of both ends: 0 when the peak is an end."""

    @property
    def interior(self) -> bool:
        """Whether some mixture has more entropy than either kind alone."""
        return 0 < self.alpha < 1


def mixtures(real: ArrayLike, synthetic: ArrayLike, alphas: ArrayLike) -> Floats:
    """p_α (Eq. 4): the share of every code in each mixture, (k v).

    Args:
        real: (v) counts or shares of the codes in real speech.
        synthetic: (v) the same of synthetic speech.
        alphas: (k) or one α, each from 0 to 1.
    """
    p, q = _shares(real), _shares(synthetic)
    a = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
    if p.shape != q.shape or a.min() < 0 or a.max() > 1:
        raise LabError(
            f"A mixture needs shares of the same codes and α from 0 to 1, found {len(p)} and {len(q)} codes, "
            f"α from {a.min():g} to {a.max():g}."
        )
    a = rearrange(a, "k -> k 1")
    return (1 - a) * p + a * q


def entropy(real: ArrayLike, synthetic: ArrayLike, alphas: ArrayLike) -> Floats:
    """H(p_α) in bits, (k)."""
    p = mixtures(real, synthetic, alphas)
    return -(p * np.log2(p, out=np.zeros_like(p), where=p > 0)).sum(1)


def slope(real: ArrayLike, synthetic: ArrayLike, alphas: ArrayLike) -> Floats:
    """dH/dα = Σ_v (p_real(v) − p_syn(v)) · log2 p_α(v) in bits, (k) (Eq. 5).

    It is +∞ at α = 0 when some code occurs in synthetic speech only, and −∞ at α = 1 when some occurs in real
    speech only.
    """
    p = mixtures(real, synthetic, alphas)
    change = _shares(real) - _shares(synthetic)
    with np.errstate(divide="ignore"):
        terms = np.where(change == 0, 0.0, change * np.log2(np.where(change == 0, 1.0, p)))
    return terms.sum(1)


def peak(real: ArrayLike, synthetic: ArrayLike) -> Peak:
    """α*: where the slope crosses 0, found by halving; an end where it does not cross."""
    ends = entropy(real, synthetic, [0, 1])
    first, last = slope(real, synthetic, [0, 1])
    if first <= FLAT or last >= -FLAT:
        alpha = float(first > FLAT)
    else:
        alpha = bisect(lambda a: slope(real, synthetic, a)[0], 0, 1, xtol=1e-9)
    bits = float(entropy(real, synthetic, alpha)[0])
    return Peak(alpha, bits, bits - float(ends.max()))


def _shares(counts: ArrayLike) -> Floats:
    """Counts (v) as shares that sum to 1."""
    values = np.asarray(counts, dtype=np.float64)
    if values.ndim != 1 or not values.sum() > 0 or values.min() < 0:
        raise LabError("Codes are counted in one row of numbers from 0 up, not all 0: count some speech.")
    return values / values.sum()
