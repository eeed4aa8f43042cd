"""What the scaling study shows, as parts of the report: tables, pictures with words, sounds; no HTML.

After the paper's Table 1, Table 2, Figure 1 (stability against expressivity) and Figure 4 (every measure over
α). Bands and brackets are 95 % intervals over sentences, given the seeds.

Axis legend: k points of an arm, s seeds, d draws.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from slmlab.metrics.statistics import average
from slmlab.notebook import plots
from slmlab.study.claims import (
    FEWEST_SEEDS,
    SEEDLESS,
    Arm,
    Measured,
    arms_of,
    mixture_entropies,
    noise_effects,
    pairs,
    with_scores,
)
from slmlab.study.rows import RESULTS
from slmlab.study.scaling import BUDGET, ENTROPY, REAL
from slmlab.study.sweep import Results

MARKS = dict(zip((*REAL, *BUDGET), "os^Dv<>", strict=True))
PAPER = {
    0.03: (75.0, 10.419, 2.96),
    0.09: (68.5, 10.477, 2.83),
    0.25: (52.0, 10.423, 2.48),
    0.5: (47.0, 10.506, 2.16),
}
PAPER |= {0.67: (43.5, 10.479, 2.02), 0.8: (38.9, 10.356, 6.51), 1.0: (36.2, 10.210, 9.83)}
"""WER %, H_p bits and repetition % of the paper's Table 1, where its α is one of ours."""


@dataclass(frozen=True)
class Section:
    """One part of the report."""

    title: str
    """Its heading."""
    text: str = ""
    """A paragraph above the rest."""
    head: Sequence[str] = ()
    """Names of a table's columns."""
    lines: Sequence[Sequence[str]] = ()
    """Its cells."""
    picture: plots.Picture | None = None
    """A figure."""
    sounds: Sequence[tuple[str, Path]] = ()
    """Sound files with what they are."""


def sections(
    results: Results,
    claims: Sequence[dict[str, Any]],
    premises: Sequence[dict[str, Any]],
    sounds: Sequence[Path],
) -> list[Section]:
    """The study from its ground to its ledger; parts whose rows are missing are left out."""
    found = [ground(premises)]
    if arms := arms_of(results):
        found += [gap(arms), measures(arms, results), *map(numbers, arms)]
    found += [over_alpha(sounds)] if sounds else []
    found += [prosody(results)] if ENTROPY in set(results.rows["arm"]) else []
    found += [minutes(results)] if has_minutes(results) else []
    return [*found, ledger(claims), cost(results)]


def ground(premises: Sequence[dict[str, Any]]) -> Section:
    """The table of premises."""
    said = {True: "holds", False: "fails", None: "not measured"}
    lines = [
        [row["premise"], _number(row["value"]), row["bar"], said[row["holds"]], row["how"]]
        for row in premises
    ]
    text = "Before any claim: is what it stands on there?"
    return Section("Does the ground hold?", text, ["Premise", "Found", "Wanted", "", "Measured as"], lines)


def gap(arms: Sequence[Arm], chosen: float | None = None) -> Section:
    """Figure 1: the plane of stability and expressivity, a path over α for each arm, the chosen α ringed."""
    figure, grid = plots.sheet(1, 1, 5.0)
    ax = grid[0, 0]
    above, below = (6, 6), (-34, -17)
    for arm, colour, aside in zip(arms, plots.COLOURS, (below, above, below), strict=False):
        wer, z = (band(m)[0] for m in (arm.wer, arm.mean("z", clear=True)))
        ax.plot(100 * wer, z, color=colour, marker=MARKS[name_of(arm)], label=name_of(arm))
        at = arm.points == chosen
        ax.scatter(100 * wer[at], z[at], s=400, facecolors="none", edgecolors=plots.INK, linewidths=2)
        named = np.inf
        for alpha, x, y in zip(arm.points, 100 * wer, z, strict=True):
            if abs(x - named) > 4:  # whoever stands close to the one before stays without a name
                label, named = f"{100 * alpha:.0f} %", x
                look = {"fontsize": 11, "color": colour}
                ax.annotate(label, (x, y), textcoords="offset points", xytext=aside, **look)
    ax.margins(0.1, 0.1)
    ax.invert_xaxis()
    ax.set(xlabel="WER in %, better to the right", ylabel="expressivity z (authentic dev = 0)")
    ax.legend(title="arm; numbers are α")
    words = "A path over α for each arm, WER on one axis, expressivity on the other."
    text = (
        "Upwards is livelier, to the right is better understood. Expressivity is a stand-in for listeners: "
        "F0 spread and range, loudness and pace, of clearly said sentences only."
    )
    return Section("Stability against expressivity", text, picture=plots.Picture(figure, words))


def measures(arms: Sequence[Arm], results: Results) -> Section:
    """Figure 4: every measure over α, with the entropy of the mixture beside that of the model."""
    figure, grid = plots.sheet(2, 3, 3.4)
    wanted = (
        ("WER in %", 100, lambda arm: arm.wer),
        ("H_p in bits (dashed: mixture)", 1, lambda arm: arm.entropy()),
        ("repetition in %", 100, lambda arm: arm.mean("repetition")),
        ("repetition without silence, %", 100, lambda arm: arm.mean("repetition_spoken")),
        ("expressivity z", 1, lambda arm: arm.mean("z", clear=True)),
        ("SIM", 1, lambda arm: arm.mean("sim")),
    )
    for ax, (label, scale, measure) in zip(grid.ravel(), wanted, strict=True):
        for arm, colour in zip(arms, plots.COLOURS, strict=False):
            _curve(ax, 100 * arm.points, measure(arm), scale, colour, name_of(arm))
        ax.set(xlabel="α in %", ylabel=label)
    alphas = list(np.linspace(0, 1, 21))
    for arm, colour in zip(arms, plots.COLOURS, strict=False):
        theory = mixture_entropies(results.mixture, REAL[name_of(arm)], alphas, 0, 0).value[:, 0]
        grid[0, 1].plot(100 * np.array(alphas), theory, "--", color=colour, linewidth=1.5)
    plots.legend(grid[0, 0])
    words = "Six panels over α: WER, entropy of model and mixture, repetition twice, expressivity and SIM."
    text = (
        "Bands are 95 % intervals over sentences, given the seeds; the same budget and backbone everywhere."
    )
    return Section("Every measure over α", text, picture=plots.Picture(figure, words))


def numbers(arm: Arm) -> Section:
    """Table 1 of one arm, the paper's numbers beside ours."""
    columns = (
        ("WER %", 100, arm.wer),
        ("H_p bits", 1, arm.entropy()),
        ("H_p, no silence", 1, arm.entropy("h_spoken")),
        ("Repetition %", 100, arm.mean("repetition")),
        ("Expressivity z", 1, arm.mean("z", clear=True)),
        ("SIM", 1, arm.mean("sim")),
    )
    bands = [[scale * part for part in band(measured)] for _, scale, measured in columns]
    lines = []
    for k, alpha in enumerate(arm.points):
        ours = [_written(*(part[k] for part in found)) for found in bands]
        paper = PAPER.get(round(float(alpha), 2))
        theirs = "{:.1f} · {:.2f} · {:.1f}".format(*paper) if paper else "–"
        lines.append([f"{100 * alpha:.0f}", *ours, theirs])
    head = ["α %", *(name for name, _, _ in columns), "paper: WER · H_p · rep."]
    seeds = ", ".join(map(str, arm.seeds))
    text = f"{arm.n} test sentences, seeds {seeds}; the paper's numbers are of Thai, at another scale."
    return Section(f"The numbers of the arm “{name_of(arm)}”", text, head, lines)


def sounds_of(preset_name: str) -> list[Path]:
    """The sentence of the sweep's first seed at each α, as sound files."""
    return sorted(RESULTS.glob(f"{preset_name}-authentic.*.flac"))


def over_alpha(sounds: Sequence[Path]) -> Section:
    """One sentence, said by the model of each α."""
    labelled = sorted((float(path.stem.split(".", 1)[1].rsplit(".", 1)[0]), path) for path in sounds)
    named = [(f"α = {100 * alpha:.0f} %", path) for alpha, path in labelled]
    return Section("One sentence over α", "Authentic arm, first seed, without style.", sounds=named)


def prosody(results: Results) -> Section:
    """Table 2, and what raises which entropy."""
    rows = with_scores(results.rows[results.rows["arm"] == ENTROPY], results.recordings)
    paired, noise = pairs(rows), noise_effects(rows)
    clean = rows[rows["noise"] == 0]
    warm = clean.groupby("temperature")[
        ["h_window", "h_window_spoken", "melody_entropy", "f0_spread", "cer"]
    ].mean()
    names = ["h_window", "h_window_spoken", "melody_entropy", "f0_spread", "cer"]
    spread = clean[names].std()
    lines = [
        [
            f"temperature {warm.index[0]:g} → {warm.index[-1]:g}",
            *_effects(warm.iloc[-1] - warm.iloc[0], spread),
        ],
        ["noise in the tokens", *_effects(noise[names].mean(), spread)],
    ]
    within = clean.groupby(["seed", "sentence", "temperature"])[names].transform("mean")
    r = (clean[names] - within).corr()["f0_spread"]
    lines.append(["r with F0 spread, one text and temperature", *map(_signed, r[names])])
    head = ["What changes", "H_p", "H_p, no silence", "melody entropy", "F0 spread", "CER"]
    text = (
        f"{len(paired)} pairs of one text with WER matched stand behind E1–E5. Below, in standard "
        "deviations, what temperature and noise do. An entropy of prosody should move with F0 spread and not "
        "without it: melody entropy hears the smoothed pitch alone, which single wrong tokens cannot raise."
    )
    return Section("Is more entropy more prosody?", text, head, lines)


def has_minutes(results: Results) -> bool:
    """Whether an arm of the data-budget curve was run."""
    return bool(set(BUDGET) & set(results.rows["arm"]))


def minutes(results: Results) -> Section:
    """How many minutes does a language need: WER over authentic minutes, four ways to begin."""
    figure, grid = plots.sheet(1, 1, 4.5)
    ax = grid[0, 0]
    own = results.cells[results.cells["arm"].isin(BUDGET)]
    points, helping = np.unique(own["point"]), own["synthetic_minutes"].max()
    lines = []
    for name, colour in zip(BUDGET, plots.COLOURS, strict=False):
        if name in set(results.rows["arm"]):
            arm = Arm(results, name)
            _curve(ax, arm.points, arm.wer, 100, colour, name)
            found = zip(arm.points, *(100 * part for part in band(arm.wer)), strict=True)
            said = {point: f"{value:.1f} [{low:.1f}, {high:.1f}]" for point, value, low, high in found}
            seeds = ", ".join(map(str, arm.seeds))
            lines.append([name, *(said.get(point, "–") for point in points), seeds])
    ax.set(xlabel="minutes of authentic speech", ylabel="WER in %", xscale="log")
    ax.set_xticks(points, [f"{point:g}" for point in points], minor=False)
    ax.set_xticks([], minor=True)
    ax.legend()
    words = "WER over minutes of authentic speech, alone and helped, from the backbone and from scratch."
    text = (
        "WER in % with 95 % intervals over sentences, given the seeds. Alone, or helped by "
        f"{helping:.0f} minutes of synthetic speech; from the backbone of other languages, or from nothing "
        "(scratch); as many steps everywhere. The minutes are the same ones in every seed."
    )
    head = ["Begun and taught", *(f"{point:g} min" for point in points), "Seeds"]
    return Section("How many minutes does a language need?", text, head, lines, plots.Picture(figure, words))


def ledger(claims: Iterable[dict[str, Any]]) -> Section:
    """Every claim, its verdict, and the paper's numbers."""
    lines = []
    for row in claims:
        run = "estimate" in row
        ours = "{estimate:.3g} [{low:.3g}, {high:.3g}]".format(**row) if run else "–"
        p = f"{row['p_adjusted']:.3f}" if run else "–"
        others = ", ".join(
            f"{arm}: {said}" for arm, said in row["arms"].items() if arm not in ("authentic", ENTROPY)
        )
        seeds = len(row["seeds"]) if run and row["id"] not in SEEDLESS else FEWEST_SEEDS
        few, more = seeds < FEWEST_SEEDS, seeds > FEWEST_SEEDS
        count = f"{seeds} of {FEWEST_SEEDS} seeds" if few else f"{seeds} seeds" if more else ""
        remarks = "; ".join(filter(None, (count, row["note"])))
        verdict = row["verdict"] + (f" ({remarks})" if remarks else "")
        said = (row["id"], row["statement"], row["statistic"], ours, p, verdict, others or "–", row["paper"])
        lines.append([*said, _range(row.get("by_seed", ()))])
    head = ["", "Claim", "Statistic", "Ours [95 %]", "p (Holm)", "Verdict", "Other arms", "The paper's"]
    head += ["By seed"]
    text = (
        "Verdicts are computed from rows by one function. Reproduced or refuted: Holm-adjusted p below 0.05 "
        "within the family, in the claimed or the opposite direction. A refuted claim is a result. Intervals "
        "are over sentences, given the seeds; the last column has the lowest and the highest seed."
    )
    return Section("The ledger of claims", text, head, lines)


def cost(results: Results) -> Section:
    """What the runs took."""
    costs = results.cells.groupby("arm").agg(
        runs=("key", "size"), training=("training_seconds", "mean"), speaking=("speaking_seconds", "mean")
    )
    lines = [
        [
            arm,
            str(runs),
            f"{training / 60:.1f}",
            f"{speaking / 60:.1f}",
            f"{runs * (training + speaking) / 3600:.1f}",
        ]
        for arm, runs, training, speaking in costs.itertuples()
    ]
    head = [
        "Arm",
        "Runs",
        "Minutes of training, each",
        "Minutes of speaking and scoring",
        "Hours of one core in all",
    ]
    return Section("What it cost", "", head, lines)


def name_of(arm: Arm) -> str:
    """What an arm is called."""
    return str(arm.cells["arm"].iloc[0])


def band(measured: Measured) -> tuple[Any, Any, Any]:
    """Mean over seeds of each point (k) with its interval, over those draws in which it is defined.

    Draws are moved to the value where a claim moves them, too: where they lack what all sentences have.
    """
    value, draws = average(measured.value, 1), average(measured.draws, 2)
    unknown = np.isnan(draws).all(0)
    draws = np.where(unknown, 0.0, draws)
    moved = value - np.nanmean(draws, 0) if measured.lacking else np.where(unknown, value, 0.0)
    low, high = np.nanquantile(draws, [0.025, 0.975], axis=0) + moved
    return value, low, high


def shown(measured: Measured, scale: float = 1.0, place: int = 0) -> str:
    """Mean over seeds of a point with its interval, or a dash where it is not defined."""
    return _written(*(scale * part[place] for part in band(measured)))


def _written(value: float, low: float, high: float) -> str:
    return f"{value:.2f} [{low:.2f}, {high:.2f}]" if np.isfinite(value) else "–"


def _curve(ax: Axes, x: Any, measured: Measured, scale: float, colour: str, label: str) -> None:
    value, low, high = (scale * part for part in band(measured))
    ax.plot(x, value, color=colour, marker=MARKS[label], label=label)
    ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def _range(by_seed: Sequence[float]) -> str:
    """The lowest and the highest of the numbers that are defined."""
    known = [value for value in by_seed if np.isfinite(value)]
    return f"{min(known):.2g} … {max(known):.2g}" if known else "–"


def _effects(change: pd.Series, spread: pd.Series) -> list[str]:
    return [_signed(x) for x in change / spread.where(spread > 0)]


def _signed(value: float) -> str:
    return f"{value:+.2f}" if np.isfinite(value) else "–"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
