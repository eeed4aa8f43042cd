"""How sure are we? Bootstrap over sentences, paired; families of tests; and what "no worse" means in numbers.

A statistic is a function of which sentences are counted. Every draw takes sentences with replacement, the
same ones for all systems and all seeds: systems are compared sentence by sentence, and a sentence that is
hard is hard in every seed. Seeds are not drawn, only averaged over by the statistic: with three of them an
interval says how it would be with other sentences, given these seeds, and nothing about other seeds.

Axis legend: d draws, n sentences, k tests of a family.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

from slmlab.errors import LabError

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
DRAWS = 2000
LEVEL = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Estimate:
    """A statistic of all sentences, and what it might have been with others."""

    value: float
    """Of the sentences as they are."""
    draws: Floats
    """(d) of sentences drawn again."""

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The range that holds the middle `level` of the draws."""
        low, high = np.quantile(self.draws, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def p_above(self, bound: float = 0.0) -> float:
        """One-sided p of "the truth is above the bound"; never 0, as there might have been one more draw."""
        return self._share(self.draws <= bound)

    def p_below(self, bound: float = 0.0) -> float:
        """One-sided p of "the truth is below the bound"."""
        return self._share(self.draws >= bound)

    def p_within(self, margin: float) -> float:
        """p of "the truth is within ± margin": the larger of both one-sided ones (TOST, Schuirmann 1987).

        It is below 0.05 just when the 90 % interval lies inside the margin.
        """
        return max(self.p_above(-margin), self.p_below(margin))

    def detectable(self) -> float:
        """How far from 0 the truth must be to be found 4 times of 5: (z_level + z_power) · SE."""
        return float((norm.ppf((1 + LEVEL) / 2) + norm.ppf(POWER)) * self.draws.std())

    def _share(self, against: NDArray[np.bool_]) -> float:
        return float((1 + against.sum()) / (1 + len(against)))


def draws_of(n: int, draws: int = DRAWS, seed: int = 0) -> Places:
    """Which sentences each draw takes, (d n)."""
    if n < 2 or draws < 1:
        raise LabError(f"a bootstrap needs 2 or more sentences and a draw, found {n} and {draws}.")
    return np.random.default_rng(seed).integers(n, size=(draws, n))


def estimated(
    value: float, draws: ArrayLike, moved: bool = False, limits: tuple[float, float] = (-np.inf, np.inf)
) -> Estimate:
    """An estimate from a statistic and its draws (d); draws in which it was not defined are left out.

    Args:
        value: of the sentences as they are.
        draws: of sentences drawn again.
        moved: whether draws are moved so that their mean is `value`: for a statistic that draws get wrong by
            nature, as they lack the rare tokens of an entropy and weaken a correlation. A mean does not need
            it, and where a mean is nearly always 0 even a small move would look like a difference.
        limits: between which the statistic lies.

    Raises:
        LabError: there is no value, or none in any draw.
    """
    finite = np.asarray(draws, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not (np.isfinite(value) and len(finite)):
        raise LabError(f"a statistic is {value} over all sentences, finite in {len(finite)} draws: no test.")
    return Estimate(float(value), np.clip(finite - finite.mean() + value, *limits) if moved else finite)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values of one family, adjusted so that the chance of any false discovery keeps its level (Holm 1979).

    Returns:
        (k): the i-th smallest times k − i + 1, at least as large as those before it, at most 1.
    """
    values = np.asarray(ps, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(stepped))
    return [float(p) for p in adjusted]


def all_of(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """A claim of several parts: one-sided p for it, and against it, from those of its parts.

    For it every part must hold (intersection-union: the largest p); against it one part is enough
    (Bonferroni: the smallest p times their number).
    """
    for_it, against_it = zip(*pairs, strict=True)
    return max(for_it), min(1.0, len(pairs) * min(against_it))


def correlation(x: ArrayLike, y: ArrayLike) -> Any:
    """Pearson's correlation along the last axis; NaN where a side does not vary or has one value."""
    both = np.stack(np.broadcast_arrays(x, y), -2).astype(np.float64)
    if both.shape[-1] < 2:
        return np.full(both.shape[:-2], np.nan)[()]
    centred = both - both.mean(-1, keepdims=True)
    covariance = centred @ centred.swapaxes(-1, -2) * (1 / (both.shape[-1] - 1))
    deviations = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        r = covariance[..., 0, 1] / deviations[..., 0] / deviations[..., 1]
    return np.where(varies(both).all(-1), np.clip(r, -1, 1), np.nan)[()]


def varies(x: ArrayLike) -> Any:
    """Whether values along the last axis differ by more than rounding: equal ones seldom deviate by 0."""
    values = np.asarray(x, dtype=np.float64)
    if values.shape[-1] < 2:
        return np.zeros(values.shape[:-1], dtype=bool)[()]
    return np.ptp(values, axis=-1) > 1e-12 * np.abs(values).max(-1)


def average(x: ArrayLike, axis: int | tuple[int, ...] | None = None) -> Any:
    """Mean of what is defined; NaN, without a warning, where nothing is."""
    values = np.asarray(x, dtype=np.float64)
    defined = np.isfinite(values)
    count = defined.sum(axis)
    return np.where(defined, values, 0).sum(axis) / np.where(count > 0, count, np.nan)


def ranks_agree(x: ArrayLike, y: ArrayLike) -> Any:
    """Spearman's rank correlation along the last axis; NaN where one side does not vary."""
    return correlation(*(rankdata(np.asarray(side), axis=-1) for side in (x, y)))
