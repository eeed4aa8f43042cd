"""Exercises of notebook 09: mixtures, their entropy, and how sure we are."""

import numpy as np

from slmlab.metrics import statistics
from slmlab.study import theory
from tasks.exercise import exercise


def _slope(real, synthetic, alpha):
    return float(theory.slope(real, synthetic, alpha)[0])


@exercise(
    difficulty=2,
    minutes=8,
    cases=[([8, 4, 2, 2], [1, 1, 1, 9], 0.3), ([1, 1, 0], [0, 1, 3], 0.7)],
    mistakes={
        "The sign is turned: where synthetic speech adds a rare code, entropy rises.": (
            lambda real, synthetic, alpha: -_slope(real, synthetic, alpha)
        ),
        "These are nats: take the logarithm to base 2.": lambda r, s, a: _slope(r, s, a) * np.log(2),
        "That is the entropy itself; its slope is asked for.": lambda r, s, a: theory.entropy(r, s, a)[0],
    },
    reference=_slope,
    package=[theory.slope],
)
def slope(real, synthetic, alpha):
    """At the peak the slope is 0: what more synthetic speech adds and takes is in balance."""
    p, q = np.array(real) / np.sum(real), np.array(synthetic) / np.sum(synthetic)
    return float(np.sum((p - q) * np.log2((1 - alpha) * p + alpha * q)))


def _end_fault(answer):
    real, synthetic = answer
    if np.allclose(*(np.asarray(counts, float) / np.sum(counts) for counts in answer)):
        return "Both kinds are the same speech: then no mixture differs from another."
    if theory.slope(real, synthetic, [0.0])[0] == np.inf:
        return "Synthetic speech has a code that real speech lacks: the first drop of it always adds entropy."
    if (peak := theory.peak(real, synthetic).alpha) > 0:
        return f"Its peak is at α = {peak:.2f}: make synthetic speech favour what real speech favours."
    return ""


@exercise(difficulty=3, minutes=10, fault=_end_fault, package=[theory.peak])
def end():
    """Strictly concave is not enough: the peak may be the end at which nothing synthetic is mixed in."""
    return [2, 1, 1, 1], [8, 1, 1, 1]


@exercise(
    difficulty=2,
    minutes=6,
    cases=[([0.01, 0.04, 0.03],), ([0.2, 0.001],), ([0.02, 0.02, 0.02, 0.02],)],
    mistakes={
        "That is Bonferroni: Holm asks less of all but the smallest.": lambda ps: [
            min(1, len(ps) * p) for p in ps
        ],
        "A larger p may never be adjusted to a smaller one: keep the running maximum.": (
            lambda ps: [min(1.0, p * (len(ps) - sorted(ps).index(p))) for p in ps]
        ),
    },
    reference=statistics.holm,
)
def family(ps):
    """Nine claims at 5 % each would find something in nothing more than every third time."""
    adjusted, last = [0.0] * len(ps), 0.0
    for rank, i in enumerate(np.argsort(ps)):
        last = adjusted[i] = max(last, min(1.0, ps[i] * (len(ps) - rank)))
    return adjusted
