"""Exercises of notebook 09: the right answer passes, each likely mistake is told which one it is."""

import numpy as np
import pytest
from tasks import erosion


def slope(real: list[float], synthetic: list[float], alpha: float) -> float:
    p, q = (np.asarray(x, float) / np.sum(x) for x in (real, synthetic))
    mixed = (1 - alpha) * p + alpha * q
    return float(((p - q)[mixed > 0] * np.log2(mixed[mixed > 0])).sum())


def test_slope() -> None:
    assert erosion.slope.check(slope).right
    assert "sign" in erosion.slope.check(lambda *case: -slope(*case)).fault
    assert "nats" in erosion.slope.check(lambda *case: slope(*case) * np.log(2)).fault


@pytest.mark.parametrize(
    ("counts", "word"),
    [
        (([2, 1, 1, 1], [8, 1, 1, 1]), ""),
        (([1, 1, 1, 1], [2, 2, 2, 2]), "same"),
        (([3, 1, 1, 0], [8, 1, 1, 1]), "lacks"),
        (([5, 1, 1, 1], [1, 5, 1, 1]), "peak is at"),
    ],
)
def test_a_peak_at_the_end(counts: tuple[list[int], list[int]], word: str) -> None:
    fault = erosion.end.check(counts).fault
    assert (word in fault) if word else fault == ""


def without_maximum(ps: list[float]) -> list[float]:
    return [min(1.0, p * (len(ps) - sorted(ps).index(p))) for p in ps]


def test_a_family() -> None:
    def adjust(ps: list[float]) -> list[float]:
        order, adjusted, last = np.argsort(ps), [0.0] * len(ps), 0.0
        for rank, i in enumerate(order):
            last = adjusted[i] = max(last, min(1.0, ps[i] * (len(ps) - rank)))
        return adjusted

    assert erosion.family.check(adjust).right
    assert "Bonferroni" in erosion.family.check(lambda ps: [min(1.0, len(ps) * p) for p in ps]).fault
    assert "maximum" in erosion.family.check(without_maximum).fault
