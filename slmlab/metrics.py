"""Every number said about speech, one function each: words, tokens, melody, loudness, likeness.

Pure functions of strings, token lists and arrays; none hears a model. A quantity that the sound or the text
does not define (the pitch of a whisper, the entropy of nothing) is NaN, never 0; a mistake of the caller is a
LabError. The equations are numbered as in the paper (Geng et al. 2026).

Axis legend: s samples, f mel frames (50 Hz), m mel bins, p steps of an alignment, t speech tokens,
d width of an embedding. F0 is in Hz and 0 where unvoiced; energy is in dB of full scale.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
from einops import rearrange, reduce
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import median_filter
from scipy.signal import find_peaks

from slmlab import audio, features
from slmlab.errors import LabError
from slmlab.text import for_scoring

Floats = NDArray[np.float64]
Tokens = Sequence[int] | NDArray[np.int64]

NOTHING: frozenset[int] = frozenset()
NO_TOKENS = np.zeros(0, dtype=np.int64)
DB_PER_NEPER = 20 / math.log(10)
CLEAR = 0.2  # the most CER at which an utterance may be called lively: broken speech looks lively
QUIET = 35.0  # dB below the loudest frame, from there on it is a pause
FEWEST_VOICED = 5  # frames: a tenth of a second can have a melody
LARGEST_GRID = 40_000_000  # cells of an alignment: two sounds of two minutes


def wer(text: str, heard: str) -> float:
    """Word error rate of one utterance: edits a word of the text. Above 1 when more was heard than said.

    Case and punctuation do not count. Languages written without spaces must come cut into words.

    Args:
        text: what should have been said.
        heard: what a recogniser heard.

    Raises:
        LabError: the text holds no word.
    """
    return corpus_wer([text], [heard])


def cer(text: str, heard: str) -> float:
    """Character error rate of one utterance, in NFC, spaces counted; otherwise like `wer`."""
    return corpus_cer([text], [heard])


def corpus_wer(texts: Sequence[str], heard: Sequence[str]) -> float:
    """Word error rate of a test set: all edits over all words, so that long sentences weigh more."""
    return float(jiwer.wer(*_scoring_pairs(texts, heard)))


def corpus_cer(texts: Sequence[str], heard: Sequence[str]) -> float:
    """Character error rate of a test set: all edits over all characters."""
    return float(jiwer.cer(*_scoring_pairs(texts, heard)))


def calibrated_cer(generated: float, recorded: float) -> float:
    """What the generated speech adds to the recogniser's own errors: max(0, CER − CER of the recordings).

    From SE-Bridge's open benchmark; its accuracy is 1 − this.
    """
    return max(0.0, generated - recorded)


def prosodic_entropy(utterances: Sequence[Tokens], exclude: Collection[int] = NOTHING) -> float:
    """H_p = −Σ p(v) log2 p(v) over the tokens of all utterances together, in bits (Eq. 3).

    It grows with the number of tokens counted: compare equal counts (`equal_count_entropies`).

    Args:
        utterances: token lists.
        exclude: codes not counted, such as those of silence.

    Returns:
        bits; NaN when no token is left.
    """
    return _entropy(_counts(_together(utterances, exclude)))


def prosodic_entropy_miller_madow(utterances: Sequence[Tokens], exclude: Collection[int] = NOTHING) -> float:
    """H_p with Miller's (1955) correction for codes not yet seen: + (codes seen − 1) / (2 N ln 2) bits."""
    counts = _counts(_together(utterances, exclude))
    if not len(counts):
        return math.nan
    return _entropy(counts) + (len(counts) - 1) / (2 * counts.sum() * math.log(2))


def equal_count_entropies(
    utterances: Sequence[Tokens],
    n_tokens: int,
    n_draws: int,
    seed: int,
    exclude: Collection[int] = NOTHING,
) -> Floats:
    """H_p of bootstrap samples that all hold `n_tokens` tokens, so that systems of other lengths compare.

    Utterances are drawn with replacement, whole, until there are enough tokens; the last is cut.

    Args:
        utterances: token lists.
        n_tokens: tokens in every sample; the same for all systems that are compared.
        n_draws: samples.
        seed: of the draws.
        exclude: codes not counted.

    Returns:
        (n_draws) bits; all NaN when no token is left.
    """
    if n_tokens < 1:
        raise LabError(f"an entropy needs tokens: n_tokens is {n_tokens}, expected 1 or more.")
    kept = [utterance for utterance in (_together([u], exclude) for u in utterances) if len(utterance)]
    if not kept:
        return np.full(n_draws, np.nan)
    random = np.random.default_rng(seed)
    mean_length = sum(map(len, kept)) / len(kept)
    entropies = np.empty(n_draws)
    for draw in range(n_draws):
        sample: list[NDArray[np.int64]] = []
        found = 0
        while found < n_tokens:
            at_once = int((n_tokens - found) / mean_length) + 1
            sample += [kept[i] for i in random.integers(len(kept), size=at_once)]
            found = sum(map(len, sample))
        entropies[draw] = _entropy(_counts(np.concatenate(sample)[:n_tokens]))
    return entropies


def matched_entropies(systems: Sequence[Sequence[Tokens]]) -> list[float]:
    """H_p in bits of each system, all counted over as many tokens as the least of them has: comparable.

    NaN of one that said nothing.
    """
    fewest = min(filter(None, (sum(map(len, said)) for said in systems)), default=1)
    return [float(equal_count_entropies(said, fewest, 20, seed=0).mean()) for said in systems]


def window_entropy(tokens: Tokens, window: int, exclude: Collection[int] = NOTHING) -> float:
    """H_p of one utterance, as the mean over all windows of `window` tokens: lengths do not confound it.

    Returns:
        bits, at most log2(window); NaN when fewer tokens than a window are left.
    """
    kept = _together([tokens], exclude)
    if len(kept) < window:
        return math.nan
    return float(np.mean([_entropy(_counts(part)) for part in sliding_window_view(kept, window)]))


def silence_codes(
    utterances: Sequence[Tokens], energies: Sequence[ArrayLike], quiet: float = QUIET
) -> frozenset[int]:
    """The codes that mostly (more than half of the time) stand for pauses: what to `exclude` elsewhere.

    Args:
        utterances: token lists (t).
        energies: energy (f) of each utterance, f ≥ 2 t: two frames a token.
        quiet: dB below its utterance's loudest frame from which a token is a pause.
    """
    pauses, seen = [NO_TOKENS], [NO_TOKENS]
    for tokens, energy in zip(utterances, energies, strict=True):
        codes, level = np.asarray(tokens, dtype=np.int64), np.asarray(energy, dtype=np.float64)
        if len(level) < 2 * len(codes):
            raise LabError(f"{len(codes)} tokens need {2 * len(codes)} frames of energy, found {len(level)}.")
        loudest = reduce(level[: 2 * len(codes)], "(t two) -> t", "max", two=2)
        seen.append(codes)
        pauses.append(codes[loudest < level.max(initial=-np.inf) - quiet])
    codes, total = np.unique(np.concatenate(seen), return_counts=True)
    quiet_codes, quiet_total = np.unique(np.concatenate(pauses), return_counts=True)
    share = quiet_total / total[np.searchsorted(codes, quiet_codes)]
    return frozenset(quiet_codes[share > 0.5].tolist())


def repetition_rate(tokens: Tokens, k: int = 4, exclude: Collection[int] = NOTHING) -> float:
    """Share of the N − k positions i with y_i = y_{i+1} = … = y_{i+k} (Eq. 25).

    Args:
        tokens: (N)
        k: how many followers must be equal.
        exclude: positions with these codes count neither above nor below the line.

    Returns:
        0 to 1; NaN when there is no position (N ≤ k, or all excluded).
    """
    starts = _repeats(tokens, k)
    counted = ~np.isin(np.asarray(tokens)[: len(starts)], list(exclude))
    return float(starts[counted].mean()) if counted.any() else math.nan


def where_repeats(tokens: Tokens, k: int = 4, exclude: Collection[int] = NOTHING) -> Floats:
    """Where in the utterance the repeats of Eq. 25 begin: 0 is its beginning, 1 its end."""
    starts = _repeats(tokens, k)
    starts &= ~np.isin(np.asarray(tokens)[: len(starts)], list(exclude))
    return np.flatnonzero(starts) / max(len(tokens), 1)


def length_ratio(length: float, expected: float) -> float:
    """Length over the length expected, both in the same unit; LabError unless something is expected."""
    if not expected > 0:
        raise LabError(f"a length ratio needs an expected length above 0, found {expected}.")
    return length / expected


def missed_end(lengths: ArrayLike, limits: ArrayLike) -> float:
    """Share of utterances that ran into their limit, having never chosen to end; NaN when there is none.

    Args:
        lengths: tokens generated, one number an utterance, the token of the end not counted.
        limits: the most tokens each was allowed.
    """
    generated, allowed = np.asarray(lengths), np.asarray(limits)
    return float((generated >= allowed).mean()) if generated.size else math.nan


def f0_median(f0: ArrayLike) -> float:
    """Median F0 of the voiced frames in Hz: the speaker's register. NaN below 5 voiced frames."""
    voiced = _voiced(f0)
    return float(np.median(voiced)) if len(voiced) else math.nan


def f0_std(f0: ArrayLike) -> float:
    """Standard deviation of F0 over the voiced frames, in Hz (Table 2). NaN below 5 voiced frames."""
    voiced = _voiced(f0)
    return float(voiced.std()) if len(voiced) else math.nan


def f0_range(f0: ArrayLike) -> float:
    """95th less 5th percentile of F0 over the voiced frames, in Hz (Table 2). NaN below 5 voiced frames."""
    voiced = _voiced(f0)
    return float(np.subtract(*np.percentile(voiced, [95, 5]))) if len(voiced) else math.nan


def f0_spread(f0: ArrayLike) -> float:
    """Standard deviation of F0 in semitones: alike for low and high voices. NaN below 5 voiced frames."""
    voiced = _voiced(f0)
    return float(12 * np.log2(voiced).std()) if len(voiced) else math.nan


def f0_correlation(f0: ArrayLike, reference: ArrayLike, path: NDArray[np.int64]) -> float:
    """Pearson correlation of F0 with a reference's over aligned frames voiced in both (Table 2).

    Args:
        f0: (f)
        reference: F0 of the reference, of any length.
        path: (p 2), which frame goes with which; `align` makes it by DTW on the mel.

    Returns:
        −1 to 1; NaN when fewer than 5 steps are voiced in both or one melody does not move.
    """
    ours, theirs = _both_voiced(f0, reference, path)
    if len(ours) < FEWEST_VOICED or ours.std() < 1e-9 or theirs.std() < 1e-9:
        return math.nan
    return float(np.corrcoef(ours, theirs)[0, 1])


def f0_rmse(f0: ArrayLike, reference: ArrayLike, path: NDArray[np.int64]) -> float:
    """Root mean square difference of F0 from a reference's, in Hz (Table 2); else as `f0_correlation`."""
    ours, theirs = _both_voiced(f0, reference, path)
    return float(np.sqrt(((ours - theirs) ** 2).mean())) if len(ours) >= FEWEST_VOICED else math.nan


def melody_entropy(f0: ArrayLike, smoothing: int = 9) -> float:
    """Bits of the melody in steps of a semitone, after a running median: an entropy that hears prosody only.

    H_p counts every token that differs, for whatever reason. This one hears pitch alone, and no slip that is
    shorter than half of `smoothing` voiced frames (0.09 s) can move it.

    Returns:
        bits, 0 for a monotone; NaN below 5 voiced frames.
    """
    voiced = _voiced(f0)
    if not len(voiced):
        return math.nan
    smooth = median_filter(12 * np.log2(voiced / np.median(voiced)), smoothing, mode="nearest")
    return _entropy(_counts(np.round(smooth).astype(np.int64)))


def voiced_share(f0: ArrayLike, energy: ArrayLike) -> float:
    """Share of the speech frames that are voiced; below about 0.3 the pitch is not to be trusted."""
    return float((np.asarray(f0)[speech_frames(energy)] > 0).mean())


def speech_frames(energy: ArrayLike, quiet: float = QUIET) -> NDArray[np.bool_]:
    """Which frames (f) are less than `quiet` dB below the loudest: all but the pauses."""
    level = np.asarray(energy, dtype=np.float64)
    if level.size == 0:
        raise LabError("energy has no frames: a sound of 20 ms or more is needed.")
    return level > level.max() - quiet


def energy_std(energy: ArrayLike) -> float:
    """Standard deviation of the energy over the speech frames, in dB (Table 2)."""
    return float(np.asarray(energy, dtype=np.float64)[speech_frames(energy)].std())


def speaking_rate(text: str, energy: ArrayLike) -> float:
    """Letters and digits (NFC) said in a second of speech, pauses left out."""
    n_characters = len(for_scoring(text).replace(" ", ""))
    return n_characters / (speech_frames(energy).sum() / features.FRAME_RATE)


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

    Args:
        mel: log-mel (f m).
        reference: log-mel (f m), of any length.

    Returns:
        (p 2) pairs of frames, from (0, 0) to the last of both.
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


@dataclass(frozen=True)
class Expressivity:
    """What makes one utterance lively, each on its own scale."""

    f0_spread: float
    """Semitones."""
    f0_range: float
    """5th to 95th percentile, in semitones."""
    energy_std: float
    """dB, over speech frames."""
    rate_variation: float
    """See `rate_variation`."""


def expressivity(f0: ArrayLike, energy: ArrayLike) -> Expressivity:
    """The four ingredients of liveliness of one utterance; each NaN where it is not defined."""
    voiced = _voiced(f0)
    pitch_range = 12 * np.log2(np.divide(*np.percentile(voiced, [95, 5]))) if len(voiced) else math.nan
    return Expressivity(f0_spread(f0), float(pitch_range), energy_std(energy), rate_variation(energy))


def expressivity_scores(
    utterances: Sequence[Expressivity],
    authentic: Sequence[Expressivity],
) -> Floats:
    """z: the mean of the four ingredients, each standardised on authentic dev speech.

    Only utterances whose CER is at most `CLEAR` and whose voicing is confident should come here: broken
    speech looks lively.

    Args:
        utterances: to be scored.
        authentic: the speech whose mean is 0 and whose standard deviation is 1.

    Returns:
        (n) one score an utterance, from the ingredients that are defined; NaN when none is.
    """
    if len(authentic) < 2:
        raise LabError(f"standardising needs 2 or more authentic utterances, found {len(authentic)}.")
    scale = _table(authentic)
    if np.isnan(scale).sum(0).max() > len(scale) - 2:
        raise LabError(
            "an ingredient of expressivity is undefined in the authentic speech: use longer speech."
        )
    z = (_table(utterances) - np.nanmean(scale, 0)) / np.nanstd(scale, 0).clip(min=1e-9)
    defined = ~np.isnan(z)
    sums = np.where(defined, z, 0).sum(1)
    return np.where(defined.any(1), sums / defined.sum(1).clip(min=1), np.nan)


UNITS = {
    "seconds": "s",
    "loudness": "dB of full scale",
    "clipped": "share",
    "speech_share": "share",
    "voiced_share": "share",
    "f0_median": "Hz",
    "f0_std": "Hz",
    "f0_range": "Hz",
    "f0_spread": "semitones",
    "energy_std": "dB",
    "rate_variation": "0 is a metronome",
    "speaking_rate": "letters/s",
    "cer": "wrong letters over letters",
    "wer": "wrong words over words",
    "length_ratio": "1 is as long",
    "f0_correlation": "-1 to 1",
    "f0_rmse": "Hz",
    "mel_distance": "dB",
    "similarity": "-1 to 1",
    "entropy": "bits",
    "repetition": "share",
    "repeats_at": "0 begins, 1 ends",
    "calibrated_cer": "cer less the recording's",
}
"""What the figures of a sound are counted in."""


def describe(
    wave: audio.Wave,
    text: str | None = None,
    reference: audio.Wave | None = None,
    heard: str | None = None,
    embed: Callable[[audio.Wave], ArrayLike] | None = None,
) -> dict[str, float]:
    """Every metric that applies to one sound, of whatever system.

    Args:
        wave: (s) at 16 kHz.
        text: what it should say.
        reference: (s) at 16 kHz, a recording of the same words; melodies are compared after DTW on the mel.
        heard: what a recogniser heard in it.
        embed: gives the speaker embedding (d) of a wave.

    Returns:
        name → value, NaN where undefined; always the same names for the same arguments given.
    """
    audio.check(wave, "the sound")
    mel, f0, energy = features.extract(wave)
    found = _describe_alone(wave, f0.numpy(), energy.numpy())
    if text is not None:
        found["speaking_rate"] = speaking_rate(text, energy)
        if heard is not None:
            found |= {"cer": cer(text, heard), "wer": wer(text, heard)}
    if reference is not None:
        audio.check(reference, "the reference")
        reference_mel, reference_f0, _ = features.extract(reference)
        path = align(mel, reference_mel)
        found |= {
            "length_ratio": length_ratio(len(wave), len(reference)),
            "f0_correlation": f0_correlation(f0, reference_f0, path),
            "f0_rmse": f0_rmse(f0, reference_f0, path),
            "mel_distance": mel_distance(mel, reference_mel, path),
        }
        if embed is not None:
            found["similarity"] = similarity(embed(wave), embed(reference))
    return found


def _describe_alone(wave: audio.Wave, f0: ArrayLike, energy: ArrayLike) -> dict[str, float]:
    """What a sound says of itself."""
    return {
        "seconds": len(wave) / audio.SAMPLE_RATE,
        "loudness": audio.loudness(wave),
        "clipped": float((np.abs(wave) >= audio.CLIPPED_LEVEL).mean()),
        "speech_share": float(speech_frames(energy).mean()),
        "voiced_share": voiced_share(f0, energy),
        "f0_median": f0_median(f0),
        "f0_std": f0_std(f0),
        "f0_range": f0_range(f0),
        "f0_spread": f0_spread(f0),
        "energy_std": energy_std(energy),
        "rate_variation": rate_variation(energy),
    }


def _scoring_pairs(texts: Sequence[str], heard: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both sides in the spelling for error rates, checked."""
    if len(texts) != len(heard) or not len(texts):
        raise LabError(f"error rates need as many texts as transcripts, found {len(texts)} and {len(heard)}.")
    scored = [for_scoring(text) for text in texts]
    for text, letters in zip(texts, scored, strict=True):
        if not letters:
            raise LabError(
                f"text {text!r} holds no word to compare with what was heard: give the words spoken."
            )
    return scored, [for_scoring(transcript) for transcript in heard]


def _together(utterances: Sequence[Tokens], exclude: Collection[int]) -> NDArray[np.int64]:
    """All tokens of all utterances in one row, less the excluded codes."""
    row = np.concatenate([NO_TOKENS, *(np.asarray(tokens, dtype=np.int64) for tokens in utterances)])
    return row[~np.isin(row, list(exclude))] if exclude else row


def _counts(tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each code that occurs does."""
    return np.unique(tokens, return_counts=True)[1]


def _entropy(counts: NDArray[np.int64]) -> float:
    """Bits; NaN of nothing."""
    if not len(counts):
        return math.nan
    p = counts / counts.sum()
    return float(abs((p * np.log2(p)).sum()))


def _repeats(tokens: Tokens, k: int) -> NDArray[np.bool_]:
    """For each of the N − k positions, whether it and its k followers are equal."""
    if k < 1:
        raise LabError(f"a repetition needs at least one follower: k is {k}, expected 1 or more.")
    row = np.asarray(tokens, dtype=np.int64)
    if len(row) <= k:
        return np.zeros(0, dtype=bool)
    return (sliding_window_view(row, k + 1) == rearrange(row[: len(row) - k], "n -> n 1")).all(1)


def _voiced(f0: ArrayLike) -> Floats:
    """F0 of the voiced frames; none at all when there are fewer than 5."""
    hz = np.asarray(f0, dtype=np.float64)
    voiced = hz[hz > 0]
    return voiced if len(voiced) >= FEWEST_VOICED else voiced[:0]


def _both_voiced(f0: ArrayLike, reference: ArrayLike, path: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """The two melodies along an alignment, where both are voiced."""
    ours = np.asarray(f0, dtype=np.float64)[path[:, 0]]
    theirs = np.asarray(reference, dtype=np.float64)[path[:, 1]]
    both = (ours > 0) & (theirs > 0)
    return ours[both], theirs[both]


def _table(utterances: Sequence[Expressivity]) -> Floats:
    """(n 4)"""
    rows = [(u.f0_spread, u.f0_range, u.energy_std, u.rate_variation) for u in utterances]
    return np.array(rows, dtype=np.float64) if rows else np.zeros((0, 4))
