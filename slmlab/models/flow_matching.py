"""Optimal-transport conditional flow matching: a straight path from noise to data, and a solver.

Path, target and solver know nothing of speech or networks (Lipman et al. 2023). Shapes are those of the data.
The noise that speech is decoded from is drawn in `slmlab.speech.chain`.
"""

import itertools
import math
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

SIGMA_MIN = 1e-6


def path(source: Tensor, data: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """The point at `time` `(b,)` on the line from `source` to `data` `(b f m)`, and the velocity there.

    y = (1 - (1 - σ) t) x₀ + t x₁ and u = x₁ - (1 - σ) x₀.
    """
    t = rearrange(time, "b -> b 1 1")
    point = (1 - (1 - SIGMA_MIN) * t) * source + t * data
    return point, data - (1 - SIGMA_MIN) * source


def cosine_times(steps: int) -> Tensor:
    """`(steps + 1,)` times t = 1 - cos(π s / 2), from 0 to 1: short steps where the noise is."""
    return 1 - torch.cos(torch.linspace(0, 1, steps + 1) * math.pi / 2)


def solve(velocity: Callable[[Tensor, Tensor], Tensor], source: Tensor, times: Tensor) -> list[Tensor]:
    """Euler steps of dx/dt = velocity(x, t) from `source` over `times` `(k + 1,)`: all `k + 1` states.

    `velocity` takes the state and a time `(b,)`.
    """
    states = [source]
    for start, end in itertools.pairwise(times):
        state = states[-1]
        states.append(state + (end - start) * velocity(state, start.expand(len(state))))
    return states


def towards(end: Tensor, point: Tensor, time: Tensor) -> Tensor:
    """The velocity at `point` `(b f m)` and `time` `(b,)` < 1 that arrives at `end` when the time is 1."""
    return (end - point) / (1 - rearrange(time, "b -> b 1 1"))


def guided(conditional: Tensor, unconditional: Tensor, cfg_strength: float) -> Tensor:
    """Classifier-free guidance: v = (1 + w) v_cond - w v_uncond (Ho and Salimans 2022).

    Of velocities at one point, or of the ends they lead to.
    """
    return (1 + cfg_strength) * conditional - cfg_strength * unconditional
