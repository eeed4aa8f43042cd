"""Exercises of notebook 05: walking along a flow, what the flow is taught, and guidance."""

from itertools import pairwise

import torch

from slmlab.models import flow_matching
from tasks.exercise import exercise

TIMES = torch.tensor([0.0, 0.1, 0.4, 1.0])
START = torch.tensor([1.0, -2.0])
SOURCE, DATA = torch.tensor([[0.0, 1.0], [2.0, -1.0]]), torch.tensor([[4.0, 3.0], [-2.0, 0.0]])


def _steepening(x, time):
    return 3 * time**2 + 0 * x


def _growing(x, time):
    return x + 0 * time


def _misstep(step):
    def walk(velocity, x, times):
        first = x
        for start, end in pairwise(times):
            x = x + step(velocity, first, x, start, end)
        return x

    return walk


@exercise(
    difficulty=1,
    minutes=5,
    cases=[(_steepening, START, TIMES), (_growing, START, TIMES)],
    mistakes={
        "You ask for the velocity at the end of each step: ask at its beginning, where you are.": (
            _misstep(lambda velocity, first, x, start, end: (end - start) * velocity(x, end))
        ),
        "A whole velocity each time is too far: go as long as the step takes, end - start.": (
            _misstep(lambda velocity, first, x, start, end: velocity(x, start))
        ),
        "A whole velocity at every time is too far: go as long as a step takes, end - start.": (
            lambda velocity, x, times: [x := x + velocity(x, time) for time in times][-1]
        ),
        "A time is no length: the step takes end - start, not end.": (
            _misstep(lambda velocity, first, x, start, end: end * velocity(x, start))
        ),
        "These steps are not all of one length: each takes end - start.": (
            _misstep(lambda velocity, first, x, start, end: velocity(x, start) / 3)
        ),
        "That is one step over the whole time: ask for the way again at each of the times.": (
            lambda velocity, x, times: x + (times[-1] - times[0]) * velocity(x, times[0])
        ),
        "Those are all the places on the way: the last one alone is asked for.": flow_matching.solve,
        "You always ask at the place where you started: ask where you are now.": (
            _misstep(lambda velocity, first, x, start, end: (end - start) * velocity(first, start))
        ),
    },
    reference=lambda velocity, x, times: flow_matching.solve(velocity, x, times)[-1],
    package=[flow_matching.solve],
)
def walk(velocity, x, times):
    """Any velocity will do: the walker knows nothing of speech."""
    for start, end in pairwise(times):
        x = x + (end - start) * velocity(x, start)
    return x


@exercise(
    difficulty=2,
    minutes=10,
    cases=[(SOURCE, DATA, 0.0), (SOURCE, DATA, 0.25), (SOURCE, DATA, 1.0)],
    mistakes={
        "The clock runs backwards: at time 0 it is noise.": lambda s, d, t: (t * s + (1 - t) * d, d - s),
        "The arrow points back to the noise; turn it.": lambda s, d, t: ((1 - t) * s + t * d, s - d),
        "That is the point; return its velocity, too.": lambda s, d, t: (1 - t) * s + t * d,
        "That is the velocity; the point is asked for as well: return both.": lambda s, d, t: d - s,
        "Turned round: the point first, then the velocity.": lambda s, d, t: (d - s, (1 - t) * s + t * d),
        "That arrow leads from the point to the speech; the velocity is the same all along the line.": (
            lambda s, d, t: ((1 - t) * s + t * d, d - (1 - t) * s - t * d)
        ),
    },
    package=[flow_matching.path],
)
def lesson(source, data, time):
    """The answer does not depend on time: the line is straight. Its average over all lines is learnt."""
    return (1 - time) * source + time * data, data - source


@exercise(
    difficulty=2,
    minutes=5,
    cases=[(SOURCE, DATA, 0.0), (SOURCE, DATA, 0.5), (SOURCE, DATA, 3.0)],
    mistakes={
        "This is the other convention, in which 1 changes nothing: here 0 must.": (
            lambda told, untold, w: untold + w * (told - untold)
        ),
        "You exaggerate the untold answer: swap them.": lambda told, untold, w: (1 + w) * untold - w * told,
        "You add the difference with the wrong sign: away from the untold answer, not towards it.": (
            lambda told, untold, w: told + w * (untold - told)
        ),
    },
    reference=flow_matching.guided,
)
def guide(told, untold, strength):
    """Papers write it in two ways that differ by one: always ask what strength changes nothing."""
    return (1 + strength) * told - strength * untold
