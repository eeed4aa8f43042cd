"""Exercises of notebook 06: keeping an angle, a distance of spectra, and the phase of a gliding tone."""

import numpy as np
import torch

from slmlab.models import vocoder
from slmlab.study import griffin_lim
from tasks.exercise import exercise

SPECTRUM = torch.tensor([1 + 1j, -2j, -0.5 + 0j, 3 - 4j])
LENGTHS = torch.tensor([2.0, 1.0, 3.0, 0.5])
RECORDED = torch.tensor([[1.0, 2.0], [4.0, 0.5]])
SPOKEN = torch.tensor([[1.5, 1.0], [4.0, 2.0]])


@exercise(
    difficulty=1,
    minutes=5,
    cases=[(SPECTRUM, LENGTHS)],
    mistakes={
        "The old lengths are still there: divide the spectrum by its own lengths first.": lambda s, m: s * m,
        "That keeps the lengths and changes nothing: put the wanted ones in their place.": lambda s, m: s,
        "Your angles are mirrored: no conjugate.": lambda s, m: m * s.conj() / s.abs(),
        "These are the lengths alone: the angles are gone.": lambda s, m: m,
        "An angle alone is no complex number: torch.polar(length, angle) makes one.": lambda s, m: s.angle(),
    },
    package=[griffin_lim.griffin_lim],
)
def keep_angle(spectrum, magnitude):
    """A complex number over its own length is pure angle: a point on the unit circle."""
    return magnitude * spectrum / spectrum.abs()


def _proportion(spoken, recorded):
    return (spoken - recorded).norm() / recorded.norm()


def _logarithms(spoken, recorded):
    return (spoken.log() - recorded.log()).abs().mean()


@exercise(
    difficulty=2,
    minutes=10,
    cases=[(SPOKEN, RECORDED), (RECORDED, SPOKEN), (RECORDED, RECORDED)],
    mistakes={
        "Divide by the norm of the recorded sound, not of the spoken one: too much must cost as well.": (
            lambda y, x: _proportion(x, y) + _logarithms(y, x)
        ),
        "The part in logarithms is missing: quiet sounds count there as loud ones do.": _proportion,
        "The part in proportion is missing: the norm of the difference over the recorded one.": _logarithms,
        "You take the second part without logarithms.": lambda y, x: _proportion(y, x) + (y - x).abs().mean(),
        "The two parts are added, not averaged: that is half of the distance.": (
            lambda y, x: (_proportion(y, x) + _logarithms(y, x)) / 2
        ),
        "Those are the two parts: return their sum, one number.": (
            lambda y, x: torch.stack([_proportion(y, x), _logarithms(y, x)])
        ),
        "The norm of the difference is not yet in proportion: divide it by the norm of the recorded.": (
            lambda y, x: (y - x).norm() + _logarithms(y, x)
        ),
        "Logarithms are natural ones here, not to base 10.": (
            lambda y, x: _proportion(y, x) + _logarithms(y, x) / np.log(10)
        ),
        "Differences of logarithms go up and down and cancel: take their absolute values.": (
            lambda y, x: _proportion(y, x) + (y.log() - x.log()).mean()
        ),
    },
    package=[vocoder.spectral_distance],
)
def part(spoken, recorded):
    """The two parts mind different things: the first the loud, the second everything alike."""
    proportion = (spoken - recorded).norm() / recorded.norm()
    return proportion + (spoken.log() - recorded.log()).abs().mean()


@exercise(
    difficulty=3,
    minutes=15,
    cases=[(np.full(8, 1000.0),), (np.linspace(1000.0, 3000.0, 12),)],
    mistakes={
        "f0 · t turns the whole past whenever pitch moves: add up what each sample adds (cumsum).": (
            lambda f0: f0 * np.arange(1, len(f0) + 1) / 16000 % 1
        ),
        "f0 · t turns the whole past whenever pitch moves: add up what each sample adds.": (
            lambda f0: f0 * np.arange(len(f0)) / 16000 % 1
        ),
        "That is what each sample adds: add up all of them so far (cumsum).": lambda f0: f0 / 16000 % 1,
        "Each sample is 1/16000 of a second: divide by the sample rate.": lambda f0: f0.cumsum() % 1,
        "This grows beyond 1: each period a swing begins again (% 1).": lambda f0: (f0 / 16000).cumsum(),
        "That is in radians: periods are asked for, so leave 2π away.": (
            lambda f0: (2 * np.pi * f0 / 16000).cumsum() % (2 * np.pi)
        ),
        "Right but for where it begins: the first sample has already swung by f0 / 16000.": (
            lambda f0: ((f0 / 16000).cumsum() - f0[0] / 16000) % 1
        ),
    },
    package=[vocoder.pulse_train],
)
def swing(f0):
    """Frequency is how fast phase grows, so phase is the sum of all frequencies so far."""
    return (f0 / 16000).cumsum() % 1
