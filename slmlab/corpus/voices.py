"""Voices as numbers, in pools that nobody shares."""

import math
from dataclasses import dataclass

from slmlab.errors import LabError


@dataclass(frozen=True)
class Voice:
    """A speaker, as numbers; no language and no habit of intonation belongs to it."""

    id: str
    """Pool and number, such as `parts-07`."""
    pitch: float
    """Register, about the median F0 in Hz."""
    tract: float = 1.0
    """All resonances, vowels' and consonants', times this: above 1 a shorter vocal tract."""
    formants: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """First, second and third resonance of the vowels, each times this, besides `tract`."""
    brightness: float = 0.0
    """Level of the spectrum at 3 kHz against the engine's usual, dB."""
    breath: float = 0.0
    """Breathiness, from 0 to 1."""
    roughness: int = 2
    """Irregularity of the vocal folds, from 0 to 3."""
    rate: float = 1.0
    """Habitual speed against the engine's usual pace."""


POOLS = {
    "parts": (0, 120),
    "judge_a": (120, 40),
    "judge_b": (160, 40),
    "backbone": (200, 60),
    "authentic": (260, 60),
    "dev": (320, 20),
    "test": (340, 40),
    "synthetic": (380, 2),
}
"""Where each pool begins in the one sequence of voices, and how many it holds; no voice is in two pools."""

KOKORO = ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jm_kumo")
"""Voices of the natural synthesiser that networks may hear: a pool of its own, known by name alone."""

PITCH_RANGE = (85.0, 260.0)

TRACT_RANGE = (0.86, 1.18)


def voice_pool(name: str, n: int) -> list[Voice]:
    """The first n voices of a pool, always the same ones.

    Register and vocal tract, both log-uniform, follow a sequence of low discrepancy (Roberts's R2), so that
    the voices of a pool, and of all pools together, lie far apart; the other traits follow a second one.

    Raises:
        LabError: there is no such pool, or it holds fewer voices.
    """
    if name == "kokoro":
        return [Voice(voice, pitch=150.0) for voice in KOKORO[:n]]
    if name not in POOLS:
        raise LabError(f"Pool of voices '{name}' is unknown; expected one of {', '.join(POOLS)}.")
    start, size = POOLS[name]
    if not 1 <= n <= size:
        raise LabError(f"Pool '{name}' holds {size} voices, {n} were asked for; take 1 to {size}.")
    if name == "synthetic":
        return [Voice("synthetic-00", pitch=118.0), Voice("synthetic-01", pitch=196.0, tract=1.1)][:n]
    return [_voice(f"{name}-{i:02d}", start + i) for i in range(n)]


def _voice(name: str, index: int) -> Voice:
    """Voice `index` of the one sequence."""
    pitch, tract = _spread(index, 2)
    f1, f2, f3, bright, breath, rough, rate = _spread(index, 7)
    return Voice(
        id=name,
        pitch=round(PITCH_RANGE[0] * (PITCH_RANGE[1] / PITCH_RANGE[0]) ** pitch, 1),
        tract=round(TRACT_RANGE[0] * (TRACT_RANGE[1] / TRACT_RANGE[0]) ** tract, 4),
        formants=(round(0.94 + 0.12 * f1, 3), round(0.94 + 0.12 * f2, 3), round(0.92 + 0.16 * f3, 3)),
        brightness=round(-6 + 12 * bright, 1),
        breath=round(max(0.0, 2 * breath - 1), 2),
        roughness=int(4 * rough),
        rate=round(0.92 * (1.1 / 0.92) ** rate, 3),
    )


def _spread(index: int, dimensions: int) -> list[float]:
    """Point `index` of Roberts's R sequence in the unit cube: multiples of powers of the generalised golden
    ratio.
    """
    ratio = 1.0
    for _ in range(60):
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    return [math.fmod(0.5 + (index + 1) * ratio ** -(d + 1), 1.0) for d in range(dimensions)]
