"""Prosody: melody, loudness and pace of a sound, alone and against another."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from einops import rearrange
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import median_filter
from scipy.signal import find_peaks

from slmlab.errors import LabError
from slmlab.language.text import for_scoring
from slmlab.metrics.statistics import average, correlation
from slmlab.metrics.tokens import QUIET, Floats, entropy
from slmlab.sound.mel import FRAME_RATE

DB_PER_NEPER = 20 / math.log(10)
CLEAR = 0.2  # the most CER at which an utterance may be called lively: broken speech looks lively
FEWEST_VOICED = 5  # frames: a tenth of a second can have a melody
LARGEST_GRID = 40_000_000  # cells of an alignment: two sounds of two minutes


def over_voiced(f0: ArrayLike, statistic: Callable[[Floats], float]) -> float:
    """A statistic of F0 in Hz over the voiced frames; NaN when there are fewer than 5."""
    hertz = np.asarray(f0, dtype=np.float64)
    voiced = hertz[hertz > 0]
    return float(statistic(voiced)) if len(voiced) >= FEWEST_VOICED else math.nan


def f0_median(f0: ArrayLike) -> float:
    """Median F0 of the voiced frames in Hz: the speaker's register. NaN below 5 voiced frames."""
    return over_voiced(f0, np.median)


def f0_std(f0: ArrayLike) -> float:
    """Standard deviation of F0 over the voiced frames, in Hz (Table 2). NaN below 5 voiced frames."""
    return over_voiced(f0, np.std)


def f0_range(f0: ArrayLike) -> float:
    """95th less 5th percentile of F0 over the voiced frames, in Hz (Table 2). NaN below 5 voiced frames."""
    return over_voiced(f0, lambda hertz: np.subtract(*np.percentile(hertz, [95, 5])))


def f0_spread(f0: ArrayLike) -> float:
    """Standard deviation of F0 in semitones: alike for low and high voices. NaN below 5 voiced frames."""
    return over_voiced(f0, lambda hertz: (12 * np.log2(hertz)).std())


def f0_correlation(f0: ArrayLike, reference: ArrayLike, path: NDArray[np.int64]) -> float:
    """Pearson correlation of F0 with a reference's over aligned frames voiced in both (Table 2).

    `path` (p 2) says which frame goes with which, see `align`. NaN when fewer than 5 steps are voiced in both
    or one melody does not move.
    """
    ours, theirs = _both_voiced(f0, reference, path)
    return correlation(ours, theirs) if len(ours) >= FEWEST_VOICED else math.nan


def f0_rmse(f0: ArrayLike, reference: ArrayLike, path: NDArray[np.int64]) -> float:
    """Root mean square difference of F0 from a reference's, in Hz (Table 2); else as `f0_correlation`."""
    ours, theirs = _both_voiced(f0, reference, path)
    return float(np.sqrt(((ours - theirs) ** 2).mean())) if len(ours) >= FEWEST_VOICED else math.nan


def melody_entropy(f0: ArrayLike, smoothing: int = 9) -> float:
    """Bits of the melody in steps of a semitone, after a running median: an entropy that hears prosody only.

    H_p counts every token that differs, for whatever reason. This one hears pitch alone, and no slip that is
    shorter than half of `smoothing` voiced frames (0.09 s) can move it. NaN below 5 voiced frames.
    """

    def bits(hertz: Floats) -> float:
        smooth = median_filter(12 * np.log2(hertz / np.median(hertz)), smoothing, mode="nearest")
        return entropy(np.round(smooth).astype(np.int64))

    return over_voiced(f0, bits)


def voiced_share(f0: ArrayLike, energy: ArrayLike) -> float:
    """Share of the speech frames that are voiced; below about 0.3 the pitch is not to be trusted."""
    return float((np.asarray(f0)[speech_frames(energy)] > 0).mean())


def speech_frames(energy: ArrayLike) -> NDArray[np.bool_]:
    """Which frames (f) are less than 35 dB below the loudest: all but the pauses."""
    level = np.asarray(energy, dtype=np.float64)
    if level.size == 0:
        raise LabError("energy has no frames: a sound of 20 ms or more is needed.")
    return level > level.max() - QUIET


def energy_std(energy: ArrayLike) -> float:
    """Standard deviation of the energy over the speech frames, in dB (Table 2)."""
    return float(np.asarray(energy, dtype=np.float64)[speech_frames(energy)].std())


def speaking_rate(text: str, energy: ArrayLike, language: str = "") -> float:
    """Letters and digits (NFC) said in a second of speech, pauses left out."""
    n_characters = len(for_scoring(text, language).replace(" ", ""))
    return n_characters / (speech_frames(energy).sum() / FRAME_RATE)


def rate_variation(energy: ArrayLike) -> float:
    """How unevenly syllables follow each other: standard deviation over mean of the gaps between them.

    A syllable is a peak of the energy that stands 3 dB out of its valleys; gaps with a pause in them are left
    out.

    Returns:
        0 for a metronome, about 0.2 for espeak at one rate; NaN with fewer than 4 gaps.
    """
    speech = speech_frames(energy)
    level = np.asarray(energy, dtype=np.float64)
    peaks, _ = find_peaks(np.maximum(level, level.max() - QUIET), prominence=3.0)
    pauses = np.cumsum(~speech)
    gaps = np.diff(peaks)[np.diff(pauses[peaks]) == 0]
    return float(gaps.std() / gaps.mean()) if len(gaps) >= 4 else math.nan


def similarity(embedding: ArrayLike, reference: ArrayLike) -> float:
    """SIM: cosine of two speaker embeddings (d); NaN when one is zero."""
    a, b = (np.asarray(vector, dtype=np.float64) for vector in (embedding, reference))
    if a.ndim != 1 or a.shape != b.shape:
        raise LabError(f"two embeddings (d) of one width are compared, found shapes {a.shape} and {b.shape}.")
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / lengths) if lengths > 0 else math.nan


def align(mel: ArrayLike, reference: ArrayLike) -> NDArray[np.int64]:
    """DTW of two sounds: the cheapest way through both, steps (1,1), (1,0) and (0,1) at equal price.

    The cost of a pair of frames is the Euclidean distance of their log-mels, each less its own sound's mean
    over time, so that the colour of a voice or a microphone does not steer it.

    Returns:
        (p 2) pairs of frames of two log-mels (f m), from (0, 0) to the last of both.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (mel, reference))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not len(a) or not len(b):
        raise LabError(f"an alignment needs two log-mels (f m), found shapes {a.shape} and {b.shape}.")
    if len(a) * len(b) > LARGEST_GRID:
        raise LabError(
            f"sounds of {len(a)} and {len(b)} frames are too long to align: cut them into sentences."
        )
    a, b = a - a.mean(0), b - b.mean(0)
    squares = rearrange((a**2).sum(1), "f -> f 1") + (b**2).sum(1) - 2 * a @ b.T
    return cheapest_path(np.sqrt(np.maximum(squares, 0)))


def cheapest_path(cost: Floats) -> NDArray[np.int64]:
    """The DTW path (p 2) through a grid of costs, filled one antidiagonal at a time."""
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)  # one row and one column more: the outside, infinitely dear
    total[0, 0] = 0
    for diagonal in range(n + m - 1):
        i = np.arange(max(0, diagonal - m + 1), min(n, diagonal + 1))
        j = diagonal - i
        before = np.minimum(total[i, j], np.minimum(total[i, j + 1], total[i + 1, j]))
        total[i + 1, j + 1] = cost[i, j] + before
    i, j = n - 1, m - 1
    path = [(i, j)]
    while i or j:
        steps = ((i - 1, j - 1), (i - 1, j), (i, j - 1))
        i, j = min(steps, key=lambda step: total[step[0] + 1, step[1] + 1])
        path.append((i, j))
    return np.array(path[::-1])


def mel_distance(mel: ArrayLike, reference: ArrayLike, path: NDArray[np.int64]) -> float:
    """Mean absolute difference of two log-mels (f m) along an alignment, in dB; loudness counts."""
    difference = np.asarray(mel)[path[:, 0]] - np.asarray(reference)[path[:, 1]]
    return float(np.abs(difference).mean() * DB_PER_NEPER)


class Expressivity(NamedTuple):
    """What makes one utterance lively, each on its own scale."""

    f0_spread: float
    """Semitones."""
    f0_range_semitones: float
    """5th to 95th percentile, in semitones."""
    energy_std: float
    """dB, over speech frames."""
    rate_variation: float
    """See `rate_variation`."""


def expressivity(f0: ArrayLike, energy: ArrayLike) -> Expressivity:
    """The four ingredients of liveliness of one utterance; each NaN where it is not defined."""
    octaves = over_voiced(f0, lambda hertz: np.log2(np.divide(*np.percentile(hertz, [95, 5]))))
    return Expressivity(f0_spread(f0), 12 * octaves, energy_std(energy), rate_variation(energy))


def expressivity_scores(
    utterances: Sequence[Expressivity] | Floats, authentic: Sequence[Expressivity] | Floats
) -> Floats:
    """z: the mean of the four ingredients, each standardised on authentic dev speech.

    Only utterances whose CER is at most `CLEAR` and whose voicing is confident should come here: broken
    speech looks lively.

    Returns:
        (n) one score an utterance, from those of its ingredients (n 4) that are defined; NaN when none is.
    """
    if len(authentic) < 2:
        raise LabError(f"standardising needs 2 or more authentic utterances, found {len(authentic)}.")
    scale, ingredients = (
        np.asarray(x, np.float64, order="C").reshape(-1, 4) for x in (authentic, utterances)
    )
    if np.isnan(scale).sum(0).max() > len(scale) - 2:
        raise LabError(
            "an ingredient of expressivity is undefined in the authentic speech: use longer speech."
        )
    z = (ingredients - np.nanmean(scale, 0)) / np.nanstd(scale, 0).clip(min=1e-9)
    return average(z, 1)


def _both_voiced(f0: ArrayLike, reference: ArrayLike, path: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """The two melodies along an alignment, where both are voiced."""
    ours = np.asarray(f0, dtype=np.float64)[path[:, 0]]
    theirs = np.asarray(reference, dtype=np.float64)[path[:, 1]]
    both = (ours > 0) & (theirs > 0)
    return ours[both], theirs[both]
