"""Entropy of mixtures: worked examples, numerical differentiation, and peaks that lie at an end."""

import numpy as np
import pytest

from slmlab.errors import LabError
from slmlab.study import theory


def test_two_codes_by_hand() -> None:
    # real speech says only the first code, synthetic only the second: a coin of bias α
    assert theory.entropy([1, 0], [0, 1], [0, 0.25, 0.5, 1]) == pytest.approx([0, 0.811278, 1, 0])
    assert theory.slope([1, 0], [0, 1], [0.25]) == pytest.approx([np.log2(0.75) - np.log2(0.25)])
    assert theory.slope([1, 0], [0, 1], [0, 1]).tolist() == [np.inf, -np.inf]
    assert theory.peak([3, 0], [0, 5]) == theory.Peak(pytest.approx(0.5), pytest.approx(1), pytest.approx(1))


def test_counts_and_shares_are_the_same() -> None:
    assert theory.mixtures([2, 2], [0, 4], 0.5).tolist() == [[0.25, 0.75]]
    assert theory.entropy([2, 2], [0, 4], 0.3) == theory.entropy([0.5, 0.5], [0, 1], 0.3)


@pytest.mark.parametrize("seed", range(5))
def test_slope_is_the_numerical_derivative(seed: int) -> None:
    draw = np.random.default_rng(seed)
    real, synthetic = draw.gamma(0.3, size=(2, 200))
    alphas, h = np.linspace(0.05, 0.95, 19), 1e-5
    numerical = (
        theory.entropy(real, synthetic, alphas + h) - theory.entropy(real, synthetic, alphas - h)
    ) / (2 * h)
    assert theory.slope(real, synthetic, alphas) == pytest.approx(numerical, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_concave_with_its_peak_where_a_fine_grid_has_it(seed: int) -> None:
    draw = np.random.default_rng(seed)
    real, synthetic = draw.gamma((1.0, 0.3), size=(100, 2)).T
    grid = np.linspace(0, 1, 10_001)
    bits = theory.entropy(real, synthetic, grid)
    assert (np.diff(bits, 2) < 1e-12).all()
    top = theory.peak(real, synthetic)
    assert top.alpha == pytest.approx(grid[bits.argmax()], abs=1e-4)
    assert top.bits >= bits.max() - 1e-12
    assert top.gain == pytest.approx(top.bits - bits[[0, -1]].max())


def test_a_strictly_concave_entropy_may_still_peak_at_an_end() -> None:
    """Synthetic speech that is only a narrower choice of the same codes: every bit of it lowers entropy."""
    real, synthetic = [0.25, 0.25, 0.25, 0.25], [0.7, 0.1, 0.1, 0.1]
    assert theory.slope(real, synthetic, [0.0])[0] == pytest.approx(0)
    top = theory.peak(real, synthetic)
    assert (top.alpha, top.gain, top.interior) == (0, 0, False)
    assert theory.peak(synthetic, real).alpha == 1
    assert not theory.peak([1, 2], [1, 2]).interior
    assert (np.diff(theory.entropy(real, synthetic, np.linspace(0, 1, 50)), 2) < 0).all()


def test_one_code_of_its_own_is_enough_for_an_interior_peak() -> None:
    real = np.array([0.25, 0.25, 0.25, 0.25, 0.0])
    synthetic = np.array([0.7, 0.1, 0.1, 0.09, 0.01])
    assert 0 < theory.peak(real, synthetic).alpha < 0.1


def test_what_is_no_mixture_is_refused() -> None:
    with pytest.raises(LabError, match="not all 0"):
        theory.entropy([0, 0], [1, 1], 0.5)
    with pytest.raises(LabError, match="α from 0 to 1"):
        theory.entropy([1, 0], [1, 1], 1.5)
