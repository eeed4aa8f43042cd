"""Tokens: how varied speech codes are, and whether they loop."""

import math
from collections.abc import Collection, Sequence

import numpy as np
from einops import rearrange, reduce
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from slmlab.errors import LabError

Tokens = Sequence[int] | NDArray[np.int64]
Floats = NDArray[np.float64]
QUIET = 35.0  # dB below the loudest frame, from there on it is a pause
NOTHING: frozenset[int] = frozenset()
NO_TOKENS = np.zeros(0, dtype=np.int64)


def prosodic_entropy(utterances: Sequence[Tokens], exclude: Collection[int] = NOTHING) -> float:
    """H_p = −Σ p(v) log2 p(v) over the tokens of all utterances together, in bits (Eq. 3).

    Codes to `exclude` are not counted, such as those of silence; NaN when no token is left. It grows with the
    number of tokens counted: compare equal counts (`equal_count_entropies`).
    """
    return entropy(_together(utterances, exclude))


def prosodic_entropy_miller_madow(utterances: Sequence[Tokens], exclude: Collection[int] = NOTHING) -> float:
    """H_p with Miller's (1955) correction for codes not yet seen: + (codes seen − 1) / (2 N ln 2) bits."""
    tokens = _together(utterances, exclude)
    if not len(tokens):
        return math.nan
    return entropy(tokens) + (len(np.unique(tokens)) - 1) / (2 * len(tokens) * math.log(2))


def equal_count_entropies(
    utterances: Sequence[Tokens], n_tokens: int, n_draws: int, seed: int, exclude: Collection[int] = NOTHING
) -> Floats:
    """H_p of bootstrap samples that all hold `n_tokens` tokens, so that systems of other lengths compare.

    Utterances are drawn with replacement, whole, until there are enough tokens; the last is cut.

    Returns:
        (n_draws) bits; all NaN when no token is left.
    """
    if n_tokens < 1:
        raise LabError(f"an entropy needs tokens: n_tokens is {n_tokens}, expected 1 or more.")
    rows = [row for row in (_together([utterance], exclude) for utterance in utterances) if len(row)]
    if not rows:
        return np.full(n_draws, np.nan)
    random = np.random.default_rng(seed)
    mean_length = sum(map(len, rows)) / len(rows)
    entropies = np.empty(n_draws)
    for draw in range(n_draws):
        sample: list[NDArray[np.int64]] = []
        while (missing := n_tokens - sum(map(len, sample))) > 0:
            sample += [rows[i] for i in random.integers(len(rows), size=int(missing / mean_length) + 1)]
        entropies[draw] = entropy(np.concatenate(sample)[:n_tokens])
    return entropies


def matched_entropies(systems: Sequence[Sequence[Tokens]]) -> list[float]:
    """H_p in bits of each system, counted over as many tokens as the shortest has; NaN of an empty one."""
    fewest = min(filter(None, (sum(map(len, utterances)) for utterances in systems)), default=1)
    return [float(equal_count_entropies(utterances, fewest, 20, seed=0).mean()) for utterances in systems]


def window_entropy(tokens: Tokens, window: int, exclude: Collection[int] = NOTHING) -> float:
    """H_p of one utterance, as the mean over all windows of `window` tokens: lengths do not confound it.

    Returns:
        bits, at most log2(window); NaN when fewer tokens than a window are left.
    """
    row = _together([tokens], exclude)
    if len(row) < window:
        return math.nan
    return float(np.mean([entropy(part) for part in sliding_window_view(row, window)]))


def entropy(tokens: NDArray[np.int64]) -> float:
    """Bits in how often each code occurs; NaN of no tokens."""
    if not len(tokens):
        return math.nan
    p = np.unique(tokens, return_counts=True)[1] / len(tokens)
    return float(abs((p * np.log2(p)).sum()))


def silence_codes(utterances: Sequence[Tokens], energies: Sequence[ArrayLike]) -> frozenset[int]:
    """The codes that mostly (more than half of the time) stand for pauses: what to `exclude` elsewhere.

    Energies (f) are in dB, two frames a token.
    """
    pauses, rows = [NO_TOKENS], [NO_TOKENS]
    for tokens, energy in zip(utterances, energies, strict=True):
        row, level = np.asarray(tokens, dtype=np.int64), np.asarray(energy, dtype=np.float64)
        if len(level) < 2 * len(row):
            raise LabError(f"{len(row)} tokens need {2 * len(row)} frames of energy, found {len(level)}.")
        loudest = reduce(level[: 2 * len(row)], "(t two) -> t", "max", two=2)
        rows.append(row)
        pauses.append(row[loudest < level.max(initial=-np.inf) - QUIET])
    codes, total = np.unique(np.concatenate(rows), return_counts=True)
    quiet_codes, quiet_total = np.unique(np.concatenate(pauses), return_counts=True)
    share = quiet_total / total[np.searchsorted(codes, quiet_codes)]
    return frozenset(quiet_codes[share > 0.5].tolist())


def repetition_rate(tokens: Tokens, k: int = 4, exclude: Collection[int] = NOTHING) -> float:
    """Share of the N − k positions i with y_i = y_{i+1} = … = y_{i+k} (Eq. 25).

    Positions with codes to `exclude` count neither above nor below the line; NaN when there is no position.
    """
    starts, counted = repeats(tokens, k, exclude)
    return float(starts[counted].mean()) if counted.any() else math.nan


def where_repeats(tokens: Tokens, k: int = 4, exclude: Collection[int] = NOTHING) -> Floats:
    """Where in the utterance the repeats of Eq. 25 begin: 0 is its beginning, 1 its end."""
    starts, counted = repeats(tokens, k, exclude)
    return np.flatnonzero(starts & counted) / max(len(tokens), 1)


def repeats(tokens: Tokens, k: int, exclude: Collection[int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each of the N − k positions: whether it and its k followers are equal, and whether it counts."""
    if k < 1:
        raise LabError(f"a repetition needs at least one follower: k is {k}, expected 1 or more.")
    row = np.asarray(tokens, dtype=np.int64)
    if len(row) <= k:
        return np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)
    firsts = row[: len(row) - k]
    equal = (sliding_window_view(row, k + 1) == rearrange(firsts, "n -> n 1")).all(1)
    return equal, ~np.isin(firsts, list(exclude))


def length_ratio(length: float, expected: float) -> float:
    """Length over the length expected, both in the same unit; LabError unless something is expected."""
    if not expected > 0:
        raise LabError(f"a length ratio needs an expected length above 0, found {expected}.")
    return length / expected


def missed_end(lengths: ArrayLike, limits: ArrayLike) -> float:
    """Share of utterances whose tokens, the end not counted, reach their limit; NaN when there is none."""
    generated, allowed = np.asarray(lengths), np.asarray(limits)
    return float((generated >= allowed).mean()) if generated.size else math.nan


def _together(utterances: Sequence[Tokens], exclude: Collection[int]) -> NDArray[np.int64]:
    """All tokens of all utterances in one row, less the excluded codes."""
    row = np.concatenate([NO_TOKENS, *(np.asarray(tokens, dtype=np.int64) for tokens in utterances)])
    return row[~np.isin(row, list(exclude))] if exclude else row
