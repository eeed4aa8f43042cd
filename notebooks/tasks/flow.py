"""Exercises of notebook 05: walking along a flow, what the flow is taught, and guidance."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from slmlab.models import flow_matching
from slmlab.notebook.exercises import Exercise, like

TIMES = torch.tensor([0.0, 0.1, 0.4, 1.0])
START = torch.tensor([1.0, -2.0])
SOURCE, DATA = torch.tensor([[0.0, 1.0], [2.0, -1.0]]), torch.tensor([[4.0, 3.0], [-2.0, 0.0]])
Velocity = Callable[[Tensor, Tensor], Tensor]


def _steepening(x: Tensor, time: Tensor) -> Tensor:
    return 3 * time**2 + 0 * x


def _growing(x: Tensor, time: Tensor) -> Tensor:
    return x + 0 * time


def _walked(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    return flow_matching.solve(velocity, x, times)[-1]


def _walk(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    for start, end in pairwise(times):
        x = x + (end - start) * velocity(x, start)
    return x


def _late(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    for start, end in pairwise(times):
        x = x + (end - start) * velocity(x, end)
    return x


def _whole(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    for time in times[:-1]:
        x = x + velocity(x, time)
    return x


def _whole_to_the_end(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    return _whole(velocity, x, torch.cat([times, times[-1:]]))


def _as_far_as_the_clock(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    for start, end in pairwise(times):
        x = x + end * velocity(x, start)
    return x


def _evenly(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    for start in times[:-1]:
        x = x + velocity(x, start) * (times[-1] - times[0]) / (len(times) - 1)
    return x


def _once(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    return x + (times[-1] - times[0]) * velocity(x, times[0])


def _stuck(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    first = x
    for start, end in pairwise(times):
        x = x + (end - start) * velocity(first, start)
    return x


def _taught(source: Tensor, data: Tensor, time: float) -> tuple[Tensor, Tensor]:
    point, velocity = flow_matching.path(source, data, torch.full((1,), time))
    return point[0], velocity


walk = Exercise(
    difficulty=1,
    minutes=5,
    fault=like(
        _walked,
        [(_steepening, START, TIMES), (_growing, START, TIMES)],
        {
            "You ask for the velocity at the end of each step: ask at its beginning, where you are.": (_late),
            "A whole velocity each time is too far: go as long as the step takes, end - start.": _whole,
            "A whole velocity at every time is too far: go as long as a step takes, end - start.": (
                _whole_to_the_end
            ),
            "A time is no length: the step takes end - start, not end.": _as_far_as_the_clock,
            "These steps are not all of one length: each takes end - start.": _evenly,
            "That is one step over the whole time: ask for the way again at each of the times.": _once,
            "Those are all the places on the way: the last one alone is asked for.": flow_matching.solve,
            "You always ask at the place where you started: ask where you are now.": _stuck,
        },
    ),
    solution=(_walk, flow_matching.solve),
    why="Any velocity will do: the walker knows nothing of speech.",
)

lesson = Exercise(
    difficulty=2,
    minutes=10,
    fault=like(
        _taught,
        [(SOURCE, DATA, 0.0), (SOURCE, DATA, 0.25), (SOURCE, DATA, 1.0)],
        {
            "The clock runs backwards: time 0 is the noise, time 1 the speech.": lambda s, d, t: (
                t * s + (1 - t) * d,
                d - s,
            ),
            "The arrow points back to the noise: the velocity is data - source.": lambda s, d, t: (
                (1 - t) * s + t * d,
                s - d,
            ),
            "That is the point; its velocity is asked for as well: return both.": lambda s, d, t: (
                (1 - t) * s + t * d
            ),
            "That is the velocity; the point is asked for as well: return both.": lambda s, d, t: d - s,
            "Turned round: the point first, then the velocity.": lambda s, d, t: (
                d - s,
                (1 - t) * s + t * d,
            ),
            "That arrow leads from the point to the speech; the velocity is the same all along the line.": (
                lambda s, d, t: ((1 - t) * s + t * d, d - (1 - t) * s - t * d)
            ),
        },
    ),
    solution=(
        lambda source, data, time: ((1 - time) * source + time * data, data - source),
        flow_matching.path,
    ),
    why="The answer does not depend on time: the line is straight. Its average over all lines is learnt.",
)

guide = Exercise(
    difficulty=2,
    minutes=5,
    fault=like(
        flow_matching.guided,
        [(SOURCE, DATA, 0.0), (SOURCE, DATA, 0.5), (SOURCE, DATA, 3.0)],
        {
            "This is the other convention, in which 1 changes nothing: here 0 must.": lambda a, b, w: (
                b + w * (a - b)
            ),
            "You exaggerate what is untold: swap the two answers.": lambda a, b, w: (1 + w) * b - w * a,
            "You add the difference with the wrong sign: away from the untold answer, not towards it.": (
                lambda a, b, w: a + w * (b - a)
            ),
        },
    ),
    solution=(
        lambda told, untold, strength: (1 + strength) * told - strength * untold,
        flow_matching.guided,
    ),
    why="Papers write it in two ways that differ by one: always ask what strength changes nothing.",
)
