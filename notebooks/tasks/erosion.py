"""Exercises of notebook 09: mixtures, their entropy, and how sure we are."""

from typing import Any

import numpy as np

from slmlab.metrics import statistics
from slmlab.notebook.exercises import Exercise, like
from slmlab.study import theory

PAIRS = (([8, 4, 2, 2], [1, 1, 1, 9], 0.3), ([1, 1, 0], [0, 1, 3], 0.7))
FAMILIES = (([0.01, 0.04, 0.03],), ([0.2, 0.001],), ([0.02, 0.02, 0.02, 0.02],))


def _slope(real: Any, synthetic: Any, alpha: float) -> float:
    return float(theory.slope(real, synthetic, alpha)[0])


def _from_shares(real: Any, synthetic: Any, alpha: float) -> float:
    p, q = np.array(real) / np.sum(real), np.array(synthetic) / np.sum(synthetic)
    return float(np.sum((p - q) * np.log2((1 - alpha) * p + alpha * q)))


slope = Exercise(
    difficulty=2,
    minutes=8,
    fault=like(
        _slope,
        PAIRS,
        {
            "The sign is turned: where synthetic speech adds a rare code, entropy rises.": lambda r, s, a: (
                -_slope(r, s, a)
            ),
            "These are nats: take the logarithm to base 2.": lambda r, s, a: _slope(r, s, a) * np.log(2),
            "That is the entropy itself; its slope is asked for.": lambda r, s, a: float(
                theory.entropy(r, s, a)[0]
            ),
        },
    ),
    solution=(_from_shares, theory.slope),
    why="At the peak the slope is 0: what more synthetic speech adds and takes is in balance.",
)


def _end_fault(answer: Any) -> str:
    real, synthetic = answer
    if np.allclose(*(np.asarray(p, float) / np.sum(p) for p in (real, synthetic))):
        return "Both kinds are the same speech: then no mixture differs from another."
    found = theory.peak(real, synthetic)
    if theory.slope(real, synthetic, [0.0])[0] == np.inf:
        return "Synthetic speech has a code that real speech lacks: the first drop of it always adds entropy."
    if found.alpha > 0:
        return f"Its peak is at α = {found.alpha:.2f}: make synthetic speech favour what real speech favours."
    return ""


end = Exercise(
    difficulty=3,
    minutes=10,
    fault=_end_fault,
    solution=(lambda: ([2, 1, 1, 1], [8, 1, 1, 1]), theory.peak),
    why="Strictly concave is not enough: the peak may be the end at which nothing synthetic is mixed in.",
)


def _holm(ps: list[float]) -> list[float]:
    adjusted, last = [0.0] * len(ps), 0.0
    for rank, i in enumerate(np.argsort(ps)):
        last = adjusted[i] = max(last, min(1.0, ps[i] * (len(ps) - rank)))
    return adjusted


def _bonferroni(ps: list[float]) -> list[float]:
    return [min(1.0, len(ps) * p) for p in ps]


def _without_maximum(ps: list[float]) -> list[float]:
    return [min(1.0, p * (len(ps) - sorted(ps).index(p))) for p in ps]


family = Exercise(
    difficulty=2,
    minutes=6,
    fault=like(
        statistics.holm,
        FAMILIES,
        {
            "That is Bonferroni's: Holm asks less of all but the smallest.": _bonferroni,
            "A larger p may never be adjusted to a smaller one: keep the running maximum.": _without_maximum,
        },
    ),
    solution=(_holm, statistics.holm),
    why="Nine claims at 5 % each would find something in nothing more than every third time.",
)
