"""Exercises of notebook 06: keeping an angle, a distance of spectra, and the phase of a gliding tone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slmlab.models import griffin_lim, vocoder
from slmlab.notebook.exercises import Exercise, like
from slmlab.sound import SAMPLE_RATE

SPECTRUM = torch.tensor([1 + 1j, -2j, -0.5 + 0j, 3 - 4j])
LENGTHS = torch.tensor([2.0, 1.0, 3.0, 0.5])
RECORDED = torch.tensor([[1.0, 2.0], [4.0, 0.5]])
SPOKEN = torch.tensor([[1.5, 1.0], [4.0, 2.0]])
STEADY = np.full(8, 1000.0)
GLIDING = np.linspace(1000.0, 3000.0, 12)


def _parts(find: Callable[[Any], str]) -> Callable[[Any], str]:
    """A fault finder for complex answers: their real and imaginary parts are compared; who mixes tensors with
    arrays is told how not to.
    """

    def seen(answer: Callable[..., Any]) -> Callable[..., Tensor]:
        return lambda *case: torch.view_as_real(torch.as_tensor(answer(*case)).to(torch.complex64))

    def fault(answer: Any) -> str:
        try:
            return find(seen(answer))
        except TypeError as error:
            if not any(name in f"{error}" for name in ("numpy", "ndarray")):
                raise
            return (
                f"{error}: both arguments are torch tensors, and torch does not take numpy's arrays. "
                "Write spectrum.angle() for np.angle(spectrum), or use numpy throughout."
            )

    return fault


def _real(mistake: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *case: torch.view_as_real(mistake(*case).to(torch.complex64))


def _kept(spectrum: Tensor, magnitude: Tensor) -> Tensor:
    return magnitude * spectrum / spectrum.abs()


def _distance(spoken: Tensor, recorded: Tensor) -> Tensor:
    return vocoder._distance([spoken], [recorded], [recorded])


def _swing(f0: NDArray[np.float64]) -> NDArray[np.float64]:
    return (f0 / SAMPLE_RATE).cumsum() % 1


keep_angle = Exercise(
    difficulty=1,
    minutes=5,
    fault=_parts(
        like(
            _real(_kept),
            [(SPECTRUM, LENGTHS)],
            {
                "The old lengths are still in there: divide the spectrum by its own lengths first.": _real(
                    lambda s, m: s * m
                ),
                "That keeps the lengths and changes nothing: put the wanted ones in their place.": _real(
                    lambda s, m: s
                ),
                "Your angles are mirrored: no conjugate.": _real(lambda s, m: m * s.conj() / s.abs()),
                "These are the lengths alone: the angles are gone.": _real(lambda s, m: m + 0j * s),
                "An angle alone is not a complex number: torch.polar(length, angle) makes one.": _real(
                    lambda s, m: s.angle()
                ),
            },
        )
    ),
    solution=(_kept, griffin_lim.griffin_lim),
    why="A complex number over its own length is pure angle: a point on the unit circle.",
)

part = Exercise(
    difficulty=2,
    minutes=10,
    fault=like(
        _distance,
        [(SPOKEN, RECORDED), (RECORDED, SPOKEN), (RECORDED, RECORDED)],
        {
            "In proportion to the recorded sound, not to the spoken one: too much must cost as well.": (
                lambda y, x: (y - x).norm() / y.norm() + (y.log() - x.log()).abs().mean()
            ),
            "The part in logarithms is missing: quiet sounds count there as loud ones do.": lambda y, x: (
                (y - x).norm() / x.norm()
            ),
            "The part in proportion is missing: the norm of the difference over the norm of the recorded.": (
                lambda y, x: (y.log() - x.log()).abs().mean()
            ),
            "You take the second part without logarithms.": lambda y, x: (
                (y - x).norm() / x.norm() + (y - x).abs().mean()
            ),
            "The two parts are added, not averaged: that is half of the distance.": lambda y, x: (
                _distance(y, x) / 2
            ),
            "Those are the two parts: return their sum, one number.": lambda y, x: torch.stack(
                [(y - x).norm() / x.norm(), (y.log() - x.log()).abs().mean()]
            ),
            "The norm of the difference is not yet in proportion: divide it by the norm of the recorded.": (
                lambda y, x: (y - x).norm() + (y.log() - x.log()).abs().mean()
            ),
            "Logarithms are natural ones here, not to base 10.": lambda y, x: (
                (y - x).norm() / x.norm() + (y.log10() - x.log10()).abs().mean()
            ),
            "Differences of logarithms go up and down and cancel: take their absolute values.": lambda y, x: (
                (y - x).norm() / x.norm() + (y.log() - x.log()).mean()
            ),
        },
    ),
    solution=(
        lambda spoken, recorded: (
            (spoken - recorded).norm() / recorded.norm() + (spoken.log() - recorded.log()).abs().mean()
        ),
        vocoder.spectral_distance,
        vocoder._distance,
    ),
    why="The two parts mind different things: the first the loud, the second everything alike.",
)

swing = Exercise(
    difficulty=3,
    minutes=15,
    fault=like(
        _swing,
        [(STEADY,), (GLIDING,)],
        {
            "f0 · t turns the whole past whenever pitch moves: add up what each sample adds (cumsum).": (
                lambda f0: f0 * np.arange(1, len(f0) + 1) / SAMPLE_RATE % 1
            ),
            "f0 · t turns the whole past whenever pitch moves: add up what each sample adds.": (
                lambda f0: f0 * np.arange(len(f0)) / SAMPLE_RATE % 1
            ),
            "That is what each sample adds: add up all of them so far (cumsum).": lambda f0: (
                f0 / SAMPLE_RATE % 1
            ),
            "Each sample is 1/16000 of a second: divide by the sample rate.": lambda f0: f0.cumsum() % 1,
            "This grows beyond 1: after each whole period a swing begins again (% 1).": (
                lambda f0: (f0 / SAMPLE_RATE).cumsum()
            ),
            "That is in radians: periods are asked for, so leave 2π away.": lambda f0: (
                (2 * np.pi * f0 / SAMPLE_RATE).cumsum() % (2 * np.pi)
            ),
            "Right but for where it begins: the first sample has already swung by f0 / 16000.": lambda f0: (
                ((f0 / SAMPLE_RATE).cumsum() - f0[0] / SAMPLE_RATE) % 1
            ),
        },
    ),
    solution=(_swing, vocoder.pulse_train),
    why="Frequency is how fast phase grows, so phase is the sum of all frequencies so far.",
)
