"""The ledger of claims of both studies: each declared once, each judged by the same function of the rows.

A claim is about numbers of the points k and seeds s of one arm: its values of α, or the systems of the
alignment study that are compared. Every number comes with draws: what it would be with other test sentences,
the same ones everywhere, so that any function of any numbers has an interval. Choices (where H_p peaks) are
made on dev. Holm's correction runs over the claims of a family.

Axis legend: k points of an arm, s seeds, d draws, n sentences (or texts of a round), u utterances.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from einops import einsum, rearrange
from numpy.typing import NDArray

from slmlab import files, metrics
from slmlab.errors import LabError
from slmlab.metrics import Expressivity, expressivity_scores
from slmlab.metrics.statistics import (
    Estimate,
    all_of,
    average,
    correlation,
    draws_of,
    estimated,
    holm,
    ranks_agree,
)
from slmlab.study.alignment import ALONE, ALPHA, ALPHAS, CANDIDATES, FOREIGN, Aligned
from slmlab.study.scaling import DRAWS, ENTROPY, REAL, Results

Floats = NDArray[np.float64]
Function = Callable[..., Any]
"""Numbers (… k s) → (…): of all sentences at once, or of each draw."""
Family = dict[str, dict[str, Any]]
"""Judged claims by id."""
DECLARATIONS = files.DATA / "claims.toml"
PREMISES = files.DATA / "premises.toml"
LEVEL = 0.05
PAIRED = ("f0_spread", "z")
"""Measures that are compared sentence by sentence."""
VOICED = 0.3  # below it, or above metrics.CLEAR, speech is too broken to be called lively
FEWEST_SEEDS = 3
"""With fewer nothing is called reproduced or refuted."""
SEEDLESS = ("S8",)
"""Claims about the training speech alone: no model, no seed."""
CORRELATION = (-1.0, 1.0)
ALPHA_STAR = 0.5


class NoRows(LabError):
    """The rows that a claim or a table needs are not there."""


@dataclass(frozen=True)
class Claim:
    """One declaration."""

    id: str
    """Fixed; its letter is the family."""
    statement: str
    """What is claimed."""
    statistic: str
    """The number it is about."""
    direction: str
    """Where that number should be: `above` or `below` the margin, or `within` ± the margin."""
    paper: str = "–"
    """The paper's own numbers."""
    margin: float = 0.0
    """0, or how much worse still counts as not worse."""
    unchanged: float = 0.0
    """Where a part of the claim says that something stays: ± how much still counts as staying."""
    compares: tuple[str, ...] = ()
    """Of a claim that sets one method against another: both."""
    measures: Mapping[str, str] = field(default_factory=dict)
    """Where each measure's difference should be; WER and repetition in points."""
    note: str = ""
    """`needs listeners`: the paper asked people, this is a stand-in. `structural`: true by construction."""


@cache
def declared() -> tuple[Claim, ...]:
    """All claims, in the order of their file."""
    claims = tomllib.loads(DECLARATIONS.read_text(encoding="utf-8"))
    return tuple(Claim(id=name, **fields) for name, fields in claims.items())


@dataclass(frozen=True)
class Measured:
    """Numbers of the cells of an arm."""

    value: Floats
    """(k s)"""
    draws: Floats
    """(d k s) of sentences drawn again, the same in all cells."""
    seeds: tuple[int, ...] = ()
    """(s) Which they are."""
    n: int = 0
    """Sentences (or texts, utterances) that were drawn from."""
    lacking: bool = False
    """Whether draws lack what all sentences have, as an entropy's lack rare tokens."""

    def times(self, scale: float) -> "Measured":
        """The numbers in another unit."""
        return replace(self, value=scale * self.value, draws=scale * self.draws)


@dataclass(frozen=True)
class Part:
    """One inequality; a claim holds when all of its parts do. The first part is the one that is reported."""

    of: Function
    """The number, of what is measured."""
    measured: tuple[Measured, ...]
    """What it is a function of."""
    direction: str
    """As in a claim."""
    margin: float = 0.0
    """As in a claim."""
    limits: tuple[float, float] = (-np.inf, np.inf)
    """Between which the number lies."""

    @cached_property
    def estimate(self) -> Estimate:
        """The number with its draws."""
        draws = self.of(*(m.draws for m in self.measured))
        moved = self.limits == CORRELATION or any(m.lacking for m in self.measured)
        return estimated(float(self.of(*(m.value for m in self.measured))), draws, moved, self.limits)

    def by_seed(self) -> list[float]:
        """The number of each seed alone."""
        seeds = range(self.measured[0].value.shape[1])
        return [float(self.of(*(m.value[:, [s]] for m in self.measured))) for s in seeds]

    def ps(self) -> tuple[float, float]:
        """One-sided p for the inequality, and against it."""
        e, m = self.estimate, self.margin
        if self.direction == "within":
            return e.p_within(m), min(1.0, 2 * min(e.p_above(m), e.p_below(-m)))
        return (e.p_above(m), e.p_below(m)) if self.direction == "above" else (e.p_below(m), e.p_above(m))


class System(NamedTuple):
    """A unit of the alignment study without language and seed: α tells whether the start had recordings."""

    method: str
    part: str = ""
    alpha: float = ALPHA


class Arm:
    """The rows of one arm as arrays: the same sentences at all points, said by all seeds."""

    def __init__(self, rows: pd.DataFrame, cells: pd.DataFrame, recordings: pd.DataFrame) -> None:
        self.cells = cells.sort_values(["point", "seed"])
        self.points, self.seeds = np.sort(cells["point"].unique()), sorted(map(int, cells["seed"].unique()))
        self.rows = with_scores(rows, recordings).sort_values(["point", "seed", "sentence"])
        self.n = self.rows["sentence"].nunique()

    @classmethod
    def of(cls, results: Results, name: str) -> "Arm":
        """An arm of the scaling study; only seeds that have the same points, as many as any, count."""
        cells, rows = (table[table["arm"] == name] for table in (results.cells, results.rows))
        seeds = _alike(cells)
        rows = rows[rows["seed"].isin(seeds) & (rows["split"] == "test")]
        return cls(rows, cells[cells["seed"].isin(seeds)], results.recordings)

    @classmethod
    def of_systems(cls, results: Aligned, systems: Sequence[System]) -> "Arm":
        """Systems of the alignment study as the points 0, 1, …, with the seeds that all of them have.

        Raises:
            NoRows: there is no such seed, or too few recordings to standardise expressivity on.
        """
        points = pd.DataFrame(list(systems)).assign(point=np.arange(float(len(systems))))
        runs = results.runs.merge(points)
        has = runs.groupby("seed")["point"].nunique()
        seeds = has.index[has == len(systems)]
        if not len(seeds):
            raise NoRows(f"No seed has rows of all of {', '.join(system.method for system in systems)}.")
        runs, rows = (table[table["seed"].isin(seeds)] for table in (runs, results.rows.merge(points)))
        recordings = results.recordings[results.recordings["language"] == runs["language"].iloc[0]]
        try:
            return cls(rows, runs, recordings)
        except LabError as error:
            raise NoRows(str(error)) from error

    @property
    def name(self) -> str:
        """What an arm of the scaling study is called."""
        return str(self.cells["arm"].iloc[0])

    @property
    def language(self) -> str:
        """What systems of the alignment study speak."""
        return str(self.rows["language"].iloc[0])

    def column(self, name: str) -> Floats:
        """(k s n) of the test sentences."""
        shape = {"k": len(self.points), "s": len(self.seeds)}
        return rearrange(self.rows[name].to_numpy(np.float64), "(k s n) -> k s n", **shape)

    @cached_property
    def wer(self) -> Measured:
        """All word errors over all words."""
        return ratio(self.column("word_errors"), self.column("words"), self.seeds)

    def mean(self, name: str, clear: bool = False) -> Measured:
        """Mean of a metric where it is defined; `clear` leaves out speech too broken to be called lively."""
        x = self.column(name)
        return mean_of(x, np.isfinite(x) & (self.column("clear") > 0 if clear else True), self.seeds)

    def change(self, name: str, i: int, j: int) -> Measured:
        """Point i less point j (1 s) of a metric, mean over the sentences that both say clearly enough."""
        x = self.column(name)
        clear = np.isfinite(x) & (self.column("clear") > 0)
        return mean_of(x[[i]] - x[[j]], clear[[i]] & clear[[j]], self.seeds)

    def entropy(self, name: str = "h") -> Measured:
        """Corpus H_p at equal token counts."""
        return drawn(self.cells, name, self.seeds, self.n)

    def measure(self, name: str) -> Measured:
        """A measure by name: `wer` and `repetition` in points, `h` in bits, the others as they are."""
        if name in ("h", "h_spoken"):
            return self.entropy(name)
        if name == "wer":
            return self.wer.times(100)
        if name.startswith("repetition"):
            return self.mean(name).times(100)
        return self.mean(name, clear=name not in ("sim", "sim_strangers"))

    def difference(self, name: str) -> Measured:
        """The first point less the second of a measure; prosody over the sentences that both say clearly."""
        if name in PAIRED:
            return self.change(name, 0, 1)
        x = self.measure(name)
        return replace(x, value=x.value[:1] - x.value[1:], draws=x.draws[:, :1] - x.draws[:, 1:])

    @property
    def peak(self) -> int:
        """The interior point with the highest mean H_p on dev; the first where none is defined."""
        dev = average(self.by_seed("h_dev"), 1)
        return 1 + int(np.where(np.isfinite(dev), dev, -np.inf)[1:-1].argmax())

    def by_seed(self, name: str) -> Floats:
        """(k s) of a column of the cells."""
        return rearrange(self.cells[name].to_numpy(np.float64), "(k s) -> k s", s=len(self.seeds))


def arms(results: Aligned, systems: Mapping[Any, Sequence[System]]) -> dict[Any, Arm]:
    """The arms of systems whose rows are there."""
    present = {}
    for name, chosen in systems.items():
        with suppress(NoRows):
            present[name] = Arm.of_systems(results, chosen)
    return present


def _alike(cells: pd.DataFrame) -> list[int]:
    """The seeds with the most points in common: a seed that lacks one of them would stand askew."""
    points = {int(seed): frozenset(group) for seed, group in cells.groupby("seed")["point"]}
    groups = [sorted(seed for seed in points if points[seed] == of) for of in set(points.values())]
    return max(groups, key=lambda seeds: (len(points[seeds[0]]), len(seeds), -seeds[0]))


def ratio(above: Floats, below: Floats, seeds: Sequence[int] = ()) -> Measured:
    """Sums over sentences (k s n) divided: of all, and of each draw; NaN where nothing is counted."""
    n = above.shape[-1]
    times = _counts(n)
    with np.errstate(invalid="ignore"):
        drawn = [einsum(x, times, "k s n, d n -> d k s") for x in (above, below)]
        return Measured(above.sum(-1) / below.sum(-1), drawn[0] / drawn[1], tuple(seeds), n)


@cache
def _counts(n: int) -> Floats:
    """(d n): how often each draw takes each sentence."""
    return np.stack([np.bincount(draw, minlength=n) for draw in draws_of(n, DRAWS)]).astype(np.float64)


def mean_of(x: Floats, counted: NDArray[np.bool_], seeds: Sequence[int]) -> Measured:
    """The mean over those sentences (k s n) that are counted."""
    return ratio(np.where(counted, x, 0), counted.astype(np.float64), seeds)


def drawn(table: pd.DataFrame, name: str, seeds: Sequence[int], n: int = 0) -> Measured:
    """Entropies of a table whose rows are (k s), with their draws of `n` sentences."""
    values = rearrange(table[name].to_numpy(np.float64), "(k s) -> k s", s=len(seeds))
    moved = np.stack([np.asarray(d, dtype=np.float64) for d in table[f"{name}_draws"]], 1)
    draws = values + rearrange(moved, "d (k s) -> d k s", s=len(seeds))
    return Measured(values, draws, tuple(seeds), n, lacking=True)


def summed(
    rows: pd.DataFrame, above: str, below: str, n: int, place: str = "sentence", group: str = ""
) -> Measured:
    """Sums of two columns divided (k s), with draws of the `n` places; k is each value of `group`, or all.

    NaN where there are no rows.
    """
    rows = rows if group else rows.assign(all=0)
    by = [group or "all", "seed", place]
    groups, seeds = (sorted(rows[name].unique()) or [0] for name in by[:2])
    every = pd.MultiIndex.from_product([groups, seeds, range(n)])
    sums = rows.groupby(by)[[above, below]].sum().reindex(every, fill_value=0)
    shape = {"k": len(groups), "s": len(seeds)}
    over, under = (rearrange(sums[c].to_numpy(float), "(k s n) -> k s n", **shape) for c in (above, below))
    return ratio(over, under, seeds)


def with_scores(rows: pd.DataFrame, recordings: pd.DataFrame) -> pd.DataFrame:
    """Rows with `cer`, `clear` and expressivity `z`, standardised on the dev recordings."""
    cer = rows["letter_errors"] / rows["letters"]
    clear = (cer <= metrics.CLEAR) & (rows["voiced"] >= VOICED)
    dev = recordings[recordings["split"] == "dev"]
    z = expressivity_scores(*(table[[*Expressivity._fields]].to_numpy(np.float64) for table in (rows, dev)))
    return rows.assign(cer=cer, clear=clear, z=z)


def half_fall(points: Floats, curve: Floats) -> float:
    """The α at which a curve (k) has lost half of what it loses from its best to its last point.

    Read from straight lines between the points at which it is defined; the last α when it never falls.
    """
    if not np.isfinite(curve[-1]):
        return float("nan")
    points, curve = (x[np.isfinite(curve)] for x in (points, curve))
    best = int(curve.argmax())
    middle = (curve[best] + curve[-1]) / 2
    falls = best + np.flatnonzero((curve[best:-1] > middle) & (middle >= curve[best + 1 :]))
    if not len(falls):
        return float(points[-1])
    i = falls[0]
    step = (curve[i] - middle) / (curve[i] - curve[i + 1])
    return float(points[i] + step * (points[i + 1] - points[i]))


def mixture_entropies(
    mixture: pd.DataFrame, real: str, alphas: Sequence[float], half: int, n_draws: int = DRAWS
) -> Measured:
    """H(p_α) in bits of half of the training speech, (k 1): every α from equally many tokens.

    `mixture` has `kind` and `codes`: `real` is mixed with `synthetic`. Half 0 has the utterances at even
    places, half 1 those at odd ones; draws are of utterances.
    """
    kinds = [list(mixture.loc[mixture["kind"] == kind, "codes"])[half::2] for kind in (real, "synthetic")]
    n_tokens = min(sum(map(len, codes)) for codes in kinds)

    def bits(orders: Sequence[NDArray[np.int64]]) -> list[float]:
        a, b = (np.concatenate([c[i] for i in order]) for c, order in zip(kinds, orders, strict=True))
        a, b = (np.resize(row, n_tokens).astype(np.int64) for row in (a, b))
        shares = [round((1 - alpha) * n_tokens) for alpha in alphas]
        return [_bits(np.concatenate([a[:n], b[: n_tokens - n]])) for n in shares]

    random = np.random.default_rng(0)
    value = np.mean([bits([random.permutation(len(codes)) for codes in kinds]) for _ in range(20)], 0)
    drawn = [draws_of(len(codes), n_draws, seed) for seed, codes in enumerate(kinds)] if n_draws else []
    draws = np.array([bits(orders) for orders in zip(*drawn, strict=True)]).reshape(-1, len(alphas))
    values, n = rearrange(value, "k -> k 1"), min(map(len, kinds))
    return Measured(values, rearrange(draws, "d k -> d k 1"), n=n, lacking=True)


def _bits(codes: NDArray[np.int64]) -> float:
    """Entropy of a row of codes."""
    p = np.bincount(codes) / len(codes)
    return float(-(p * np.log2(p, out=np.zeros_like(p), where=p > 0)).sum())


def point_change(i: int, j: int) -> Function:
    """Point i less point j, mean over seeds."""
    return lambda x: average(x[..., i, :], -1) - average(x[..., j, :], -1)


def mean(x: Floats) -> Any:
    """The mean over points and seeds."""
    return average(x, (-2, -1))


def flat(x: Floats) -> Floats:
    """All runs in a row, seeds of a point together."""
    return rearrange(x, "... k s -> ... (k s)")


def _better_first(measured: Measured, ends: tuple[int, int]) -> list[int]:
    """Two points, the one with the larger mean first: the one that a peak has to beat."""
    return sorted(ends, key=lambda i: -average(measured.value[i]))


def erosion_parts(results: Results, name: str) -> dict[str, list[Part]]:
    """What S1 to S9 say of one arm, in inequalities."""
    arm = Arm.of(results, name)
    peak, end, points = arm.peak, len(arm.points) - 1, arm.points
    h, z, sim = arm.entropy(), arm.mean("z", clear=True), arm.mean("sim")
    half = int(np.argmin(np.abs(points - 0.5)))
    grid = [float(alpha) for alpha in np.linspace(0, 1, 21)]
    curve = mixture_entropies(results.mixture, REAL[name], grid, 0, 0).value[:, 0]
    best = grid[1 + int(curve[1:-1].argmax())]
    other = mixture_entropies(results.mixture, REAL[name], [0, best, 1], 1)

    def falls(x: Floats, y: Floats) -> Any:
        x, y = (np.apply_along_axis(partial(half_fall, points), -1, average(side, -1)) for side in (x, y))
        return x - y

    def rises(x: Floats) -> Any:
        return ranks_agree(np.repeat(points, x.shape[-1]), flat(x))

    def follows(x: Floats) -> Any:
        return correlation(flat(x), flat(np.interp(arm.by_seed("alpha")[:, : x.shape[-1]], grid, curve)))

    def often(x: Floats) -> Any:
        return mean(x[..., points >= 0.8, :]) - average(x[..., half, :], -1)

    repetition = [arm.mean(name) for name in ("repetition", "repetition_spoken")]
    flatter = arm.change("z", end, 0)
    pitch = [arm.change(name, end, peak) for name in ("f0_std", "f0_range")]
    return {
        "S1": [Part(rises, (arm.wer,), "below", 0.0, CORRELATION)],
        "S2": [Part(point_change(peak, i), (h,), "above") for i in _better_first(h, (end, 0))],
        "S3": [Part(point_change(end, peak), (h,), "below")],
        "S4": [Part(often, (rate,), "above") for rate in repetition],
        "S5": [Part(mean, (moved,), "below") for moved in pitch],
        "S6": [Part(mean, (flatter,), "below"), Part(point_change(end, 0), (arm.wer,), "below")],
        "S7": [Part(falls, (z, sim), "above")],
        "S8": [Part(point_change(1, i), (other,), "above") for i in _better_first(other, (0, 2))],
        "S9": [Part(follows, (h,), "above", 0.0, CORRELATION)],
    }


def pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """Table 2's pairs: the same text and model, H_p from the top and the bottom quartile, WER matched.

    The i-th highest of a text's samples goes with the i-th lowest, if they differ by at most one word error.

    Returns:
        `seed`, `sentence`, and the difference of each metric, high less low.
    """
    names = ["h_window", "f0_std", "f0_range", "energy_std", "f0_correlation", "f0_rmse", "melody_entropy"]
    usable = rows[(rows["noise"] == 0) & (rows["voiced"] >= VOICED) & rows["h_window"].notna()]
    h = usable.groupby(["seed", "sentence"])["h_window"]
    n, from_below = h.transform("size"), h.transform(lambda text: np.argsort(np.argsort(text.to_numpy())))
    high, low = (
        usable.assign(place=place)[place < n // 4].set_index(["seed", "sentence", "place"])
        for place in (n - 1 - from_below, from_below)
    )
    difference = (high[["word_errors", *names]] - low[["word_errors", *names]]).sort_index()
    return difference.loc[difference["word_errors"].abs() <= 1, names].reset_index()


def entropy_parts(results: Results) -> dict[str, list[Part]]:
    """What E1 to E7 say, in inequalities."""
    rows = with_scores(results.rows[results.rows["arm"] == ENTROPY], results.recordings)
    n, paired = int(rows["sentence"].max()) + 1, pairs(rows)
    found: dict[str, list[Part]] = {}
    for claim in declared():
        for name, side in claim.measures.items() if claim.id[0] == "E" else ():
            used = paired[paired[name].notna()].assign(pairs=1.0)
            found[claim.id] = [Part(mean, (summed(used, name, "pairs", n),), side)]
    clean = rows[(rows["noise"] == 0) & rows["clear"] & rows["h_window"].notna() & rows["f0_spread"].notna()]
    groups = clean.groupby(["seed", "sentence", "temperature"])
    h, f = (clean[name] - groups[name].transform("mean") for name in ("h_window", "f0_spread"))
    moments = clean.assign(hf=h * f, hh=h * h, ff=f * f)
    sides = tuple(summed(moments, "hf", name, n) for name in ("hh", "ff"))
    found["E6"] = [Part(_correlation, sides, "above", 0.0, CORRELATION)]
    noise, unheard = noise_effects(rows), {claim.id: claim.unchanged for claim in declared()}["E7"]
    raised, moved = (summed(noise[noise[x].notna()], x, "pairs", n) for x in ("h_window", "f0_spread"))
    found["E7"] = [Part(mean, (raised,), "above"), Part(mean, (moved,), "below", unheard)]
    return found


def noise_effects(rows: pd.DataFrame) -> pd.DataFrame:
    """What noise in the tokens changes: each noisy sample less the same without."""
    who = ["seed", "sentence", "sample"]
    noisy = rows[rows["noise"] > 0].set_index(who)
    plain = rows[(rows["noise"] == 0) & rows["temperature"].isin(noisy["temperature"])].set_index(who)
    names = ["h_window", "h_window_spoken", "melody_entropy", "f0_spread", "cer"]
    return (noisy[names] - plain[names]).dropna(how="all").assign(pairs=1.0).reset_index()


def _correlation(by_h: Floats, by_f: Floats) -> Any:
    """r from two slopes, cov / var h and cov / var f: the root of their product, signed."""
    return mean(np.sign(by_h) * np.sqrt(np.maximum(0, by_h * by_f)))


def alignment_parts(results: Aligned, claim: Claim) -> list[Part]:
    """What a claim about alignment says, in inequalities.

    Raises:
        NoRows: the rows that it is about are missing.
    """
    if not claim.compares:
        return SPECIAL[claim.id](results, claim)
    alpha = ALONE if claim.id[0] == "T" else ALPHA
    named = (name.partition("+") for name in claim.compares)
    both = Arm.of_systems(results, [System(method, part, alpha) for method, _, part in named])
    parts = []
    for name, direction in claim.measures.items():
        margin = claim.margin if direction == claim.direction else claim.unchanged
        if name in PAIRED:
            parts.append(Part(mean, (both.difference(name),), direction, margin))
        else:
            parts.append(Part(point_change(0, 1), (both.measure(name),), direction, margin))
    return parts


def _grows_with_alpha(results: Aligned, claim: Claim) -> list[Part]:
    systems = [System(method, alpha=alpha) for method in ("sft", "dgsa") for alpha in ALPHAS]
    h, n = Arm.of_systems(results, systems).entropy(), len(ALPHAS)

    def rises(x: Floats) -> Any:
        alphas = np.repeat(np.array(ALPHAS) - ALPHA_STAR, x.shape[-1])
        return ranks_agree(alphas, flat(x[..., n:, :] - x[..., :n, :]))

    return [Part(rises, (h,), "above", 0.0, CORRELATION)]


def over_rounds(results: Aligned, fewest: int = 3) -> Arm:
    """The start, the model after each round of TDSC, and the last, in order.

    Raises:
        NoRows: they are fewer than `fewest`.
    """
    parts = results.runs.loc[results.runs["method"] == "tdsc", "part"]
    between = sorted({part for part in parts if part.isdigit()}, key=int)
    if len(between) + 2 < fewest:
        raise NoRows(f"TDSC has rows of {len(between)} rounds before the last.")
    systems = [System("sft", alpha=ALONE), *(System("tdsc", part, ALONE) for part in (*between, ""))]
    return Arm.of_systems(results, systems)


def _fastest_first(results: Aligned, claim: Claim) -> list[Part]:
    whole = over_rounds(results, 4)
    wer, late = whole.measure("wer"), len(whole.points) - 3

    def slows(x: Floats) -> Any:
        w = average(x, -1)
        return (w[..., 0] - w[..., 2]) / 2 - (w[..., 2] - w[..., -1]) / late

    return [Part(slows, (wer,), "above"), Part(point_change(-1, 0), (wer,), "below")]


def _flat_then_up(results: Aligned, claim: Claim) -> list[Part]:
    h = over_rounds(results, 4).entropy()
    flat = Part(point_change(2, 0), (h,), "within", claim.unchanged)
    return [Part(point_change(-1, 2), (h,), "above"), flat]


def candidates_of(results: Aligned, last: bool = False) -> pd.DataFrame:
    """The sums of TDSC's own candidates, of all rounds or of the last.

    Raises:
        NoRows: there are none.
    """
    table = results.candidates
    own = table[(table["method"] == "tdsc") & (table["part"] == CANDIDATES)] if len(table) else table
    if not len(own):
        raise NoRows("TDSC has no rows of candidates.")
    return own[own["round"] == own["round"].max()] if last else own


def by_text(candidates: pd.DataFrame, above: str, below: str, group: str = "") -> Measured:
    """Sums of two columns of candidates divided, with draws of the texts."""
    return summed(candidates, above, below, int(candidates["place"].max()) + 1, "place", group)


def by_temperature(results: Aligned) -> list[Measured]:
    """WER, repetition and pass rate of the last round's candidates, temperatures ascending (k s)."""
    last = candidates_of(results, last=True)
    shares = (("errors", "words"), ("repetition", "tried"), ("passed", "tried"))
    return [by_text(last, *share, "temperature") for share in shares]


def set_entropies(results: Aligned) -> tuple[list[str], Measured]:
    """Sets of the last round's candidates, temperatures ascending, then `accepted`; their H_p (k s)."""
    table = results.sets[results.sets["method"] == "tdsc"]
    names = [*sorted({name for name in table["set"] if name != "accepted"}, key=float), "accepted"]
    seeds = sorted(table["seed"].unique())
    ordered = table.set_index(["set", "seed"]).loc[[(name, seed) for name in names for seed in seeds]]
    return names, drawn(ordered, "h", seeds)


def _pass_rate(results: Aligned, claim: Claim) -> list[Part]:
    passed = by_text(candidates_of(results), "passed", "tried", "round")
    return [Part(point_change(-1, 0), (passed,), "above")]


def _with_temperature(results: Aligned, claim: Claim) -> list[Part]:
    (wer, loops, passed), h = by_temperature(results), set_entropies(results)[1]
    by_heat = replace(h, value=h.value[:-1], draws=h.draws[:, :-1])

    def rises(x: Floats) -> Any:
        return average(ranks_agree(np.arange(x.shape[-2]), rearrange(x, "... k s -> ... s k")), -1)

    up = [Part(rises, (measured,), "above", 0.0, CORRELATION) for measured in (wer, by_heat, loops)]
    return [*up, Part(rises, (passed,), "below", 0.0, CORRELATION)]


def _accepted(results: Aligned, claim: Claim) -> list[Part]:
    last = candidates_of(results, last=True)
    if not last["passed"].sum():
        raise NoRows("No candidate of TDSC's last round was accepted.")
    names, h = set_entropies(results)
    h = replace(h, n=int(last["place"].max()) + 1)
    one, accepted = names.index("1"), names.index("accepted")
    wer, *_ = by_temperature(results)
    good = by_text(last, "passed_errors", "passed_words")

    def nearer(x: Floats, y: Floats) -> Any:
        lowest, usual = (average(np.abs(y[..., 0, :] - x[..., i, :]), -1) for i in (0, one))
        return lowest - usual

    return [Part(point_change(accepted, one), (h,), "above"), Part(nearer, (wer, good), "below")]


def _cloned(results: Aligned, claim: Claim) -> list[Part]:
    """SIM to the wanted voice less to strangers, of what each language's method says."""
    parts, part = [], FOREIGN if claim.id == "C3" else ""
    for system in (System("dgsa", part), System("tdsc", part, ALONE)):
        own = Arm.of_systems(results, [system])
        nearer = own.column("sim") - own.column("sim_strangers")
        parts.append(Part(mean, (mean_of(nearer, np.isfinite(nearer), own.seeds),), "above"))
    return parts


SPECIAL: dict[str, Callable[[Aligned, Claim], list[Part]]] = {
    **{"D12": _grows_with_alpha, "T6": _pass_rate, "T7": _fastest_first, "T8": _flat_then_up},
    **{"T14": _with_temperature, "T15": _accepted, "C1": _cloned, "C3": _cloned},
}
"""Claims about alignment that set no two methods against each other, as functions of the rows."""


def judge(claim: Claim, parts: Sequence[Part]) -> dict[str, Any]:
    """Estimate, interval, two-sided p and side of one claim; the verdict waits for the family."""
    first = parts[0].estimate
    for_it, against = all_of([part.ps() for part in parts])
    sided = 1 if claim.direction == "within" or claim.margin else 2
    return {
        "estimate": first.value,
        **dict(zip(("low", "high"), first.interval(), strict=True)),
        "by_seed": parts[0].by_seed(),
        "holds": for_it <= against,
        "p": min(1.0, sided * min(for_it, against)),
        "parts": [part.estimate.value for part in parts],
        "seeds": [int(seed) for seed in min((m.seeds for part in parts for m in part.measured), key=len)],
        "n": parts[0].measured[0].n,
    }


def family(tests: Mapping[str, Sequence[Part]]) -> Family:
    """Judge the claims of a family: adjusted p and verdicts.

    A claim whose number is not defined in these rows, such as the prosody of nothing clearly said, or that
    has fewer than three seeds behind it, is inconclusive.
    """
    claims = {claim.id: claim for claim in declared()}
    judged: Family = {}
    undefined: Family = {}
    for name, parts in tests.items():
        try:
            judged[name] = judge(claims[name], parts)
        except LabError:
            undefined[name] = {"verdict": "inconclusive", "by_seed": []}
    adjusted = holm([row["p"] for row in judged.values()])
    for (name, row), p in zip(judged.items(), adjusted, strict=True):
        row["p_adjusted"] = p
        sure = "reproduced" if row.pop("holds") else "refuted"
        enough = len(row["seeds"]) >= FEWEST_SEEDS or name in SEEDLESS
        row["verdict"] = sure if p < LEVEL and enough else "inconclusive"
    return judged | undefined


def ledger(results: Results | None, aligned: Aligned | None = None) -> list[dict[str, Any]]:
    """Every claim with its verdict, ready for JSON; those without rows are `not run`.

    S claims are judged in the authentic arm; `arms` says what they come to in each arm there is.
    """
    families = dict[str, Family]()
    if results:
        families = {arm: family(erosion_parts(results, arm)) for arm in REAL if complete(results, arm)}
        if ENTROPY in set(results.rows["arm"]):
            families[ENTROPY] = family(entropy_parts(results))
    arms = list(families)
    for letter in "DTC" if aligned else "":
        tests = {}
        for claim in declared():
            with suppress(NoRows):
                if aligned and claim.id[0] == letter:
                    tests[claim.id] = alignment_parts(aligned, claim)
        families[letter] = family(tests)
    table = []
    for claim in declared():
        letter = claim.id[0]
        own = families.get({"S": "authentic", "E": ENTROPY}.get(letter, letter), {})
        row = {"verdict": "not run"} | own.get(claim.id, {})
        verdicts = {arm: families[arm][claim.id]["verdict"] for arm in arms if claim.id in families[arm]}
        table.append(asdict(claim) | {"family": letter, "arms": verdicts} | row)
        del table[-1]["compares"], table[-1]["measures"]
    return table


def complete(results: Results, arm: str) -> bool:
    """Whether an arm has enough points for its claims: both ends and something between."""
    cells = results.cells[results.cells["arm"] == arm]
    points = set(cells.loc[cells["seed"].isin(_alike(cells)), "point"]) if len(cells) else set()
    return len(points) >= 3 and max(points) == 1.0


def arms_of(results: Results) -> list[Arm]:
    """The arms of the scaling study that are complete, the main one first."""
    return [Arm.of(results, name) for name in REAL if complete(results, name)]


def premises(results: Results) -> list[dict[str, Any]]:
    """Does the ground hold? One row a premise: its value, the bar, whether it holds, how it is measured."""
    rows: list[dict[str, Any]] = []

    def premise(name: str, value: float | None, bar: str, holds: bool | None, how: str) -> None:
        rows.append({"premise": name, "value": value, "bar": bar, "holds": holds, "how": how})

    for kind in ("authentic", "lively"):
        ends = mixture_entropies(results.mixture, kind, [0, 1], 0)
        more = Part(point_change(0, 1), (ends,), "above")
        how = "equal token counts, bits; the erosion has something to erode"
        sure = more.ps()[0] < LEVEL / 2
        premise(f"H of {kind} tokens above H of synthetic ones", more.estimate.value, "> 0", sure, how)
    for name, declaration in tomllib.loads(PREMISES.read_text(encoding="utf-8")).items():
        value, low, high = results.premises.get(name), declaration["low"], declaration["high"]
        holds = None if value is None else low <= value <= high
        premise(declaration["premise"], value, f"{low:g} to {high:g}", holds, declaration["how"])
    if complete(results, "authentic"):
        arm = Arm.of(results, "authentic")
        least = Part(point_change(-1, -2), (arm.wer,), "below").estimate.detectable()
        premise("differences of WER can be seen", least, "≤ 0.05", least <= 0.05, f"80 % power, n = {arm.n}")
    return rows
