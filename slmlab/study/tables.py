"""What both studies show, as parts of the report: tables, pictures with words, sounds; no HTML.

After the paper's Tables 1 to 4, 6 to 9 and Figures 1, 4 to 6; their words are in `data/paper/sections.toml`.
Bands and brackets are 95 % intervals over test sentences, given the seeds; the paper's numbers stand beside
ours. Human scores have no place here: expressivity z stands in for NMOS, SIM for SMOS, and the words say so.

Axis legend: k points of an arm (or systems), s seeds, d draws.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slmlab import files
from slmlab.corpus.groups import TEST_SEED
from slmlab.language import languages
from slmlab.language.sentences import sentences
from slmlab.metrics.statistics import average, correlation
from slmlab.notebook import plots
from slmlab.preference.methods import PEOPLE
from slmlab.study import claims
from slmlab.study.alignment import ALONE, ALPHA, ALPHAS, FOREIGN, SECONDS, Aligned
from slmlab.study.claims import FEWEST_SEEDS, SEEDLESS, Arm, Measured, NoRows, System, by_text
from slmlab.study.rows import RESULTS
from slmlab.study.scaling import BUDGET, ENTROPY, REAL, Results, language_with

MARKS = dict(zip((*REAL, *BUDGET), "os^Dv<>", strict=True))
PAPER = files.DATA / "paper"
WORDS: dict[str, Any] = tomllib.loads((PAPER / "sections.toml").read_text(encoding="utf-8"))
"""By section: title, text, head of a table, alt of a picture, the paper's numbers; and `names` of methods."""
NAMES = WORDS["names"]
COLUMNS = WORDS["columns"]
"""Measures by what they are called, in the order of the tables."""


@dataclass(frozen=True)
class Section:
    """One part of the report."""

    title: str
    """Its heading."""
    text: str = ""
    """A paragraph above the rest; `…` is code."""
    head: Sequence[str] = ()
    """Names of a table's columns."""
    lines: Sequence[Sequence[str]] = ()
    """Its cells."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Where cells lead, seen from the page, by what is read in them."""
    picture: plots.Picture | None = None
    """A figure."""
    sounds: Sequence[tuple[str, Path]] = ()
    """Sound files with what they are, and what is said."""
    shown: bool = False
    """Whether a page shows it at once; else it is folded."""


def section(
    name: str,
    lines: Sequence[Sequence[str]] = (),
    head: Sequence[str] = (),
    figure: Figure | None = None,
    sounds: Sequence[tuple[str, Path]] = (),
    links: Mapping[str, str] | None = None,
    text: str = "text",
    **values: Any,
) -> Section:
    """A part with the words of `sections.toml`, `{values}` filled in; its head goes before the one given.

    What the words call `text`, or what is `absent` where there is nothing to show, stands above the rest.
    """
    words = WORDS[name]
    title, above, alt = (words.get(key, "").format(**values) for key in ("title", text, "alt"))
    picture = plots.Picture(figure, alt) if figure else None
    heads = [cell.format(**values) for cell in words.get("head", ())]
    shown = words.get("shown", False)
    return Section(title, above, [*heads, *head], lines, links or {}, picture, sounds, shown)


def sentence(text: str, language: str) -> str:
    """What is said, with its meaning in English below where the language's folder has it."""
    meaning = languages.meaning(text, language)
    return f"“{text}”" + (f"\n({meaning})" if meaning else "")


def first_sentence(language: str) -> str:
    """The test sentence of which both studies keep the sound, with its meaning, in one line."""
    return sentence(sentences(language, "test", 1, TEST_SEED)[0], language).replace("\n", " ")


def scaling_sections(
    results: Results,
    premises: Sequence[dict[str, Any]],
    sounds: Sequence[Path],
) -> list[Section]:
    """The scaling study from its ground to its cost; parts whose rows are missing are left out."""
    parts = [ground(premises)]
    if arms := claims.arms_of(results):
        parts += [gap(arms), measures(arms, results), *map(numbers, arms)]
    parts += [over_alpha(sounds)] if sounds else []
    parts += [prosody(results)] if ENTROPY in set(results.rows["arm"]) else []
    parts += [minutes(results)] if has_minutes(results) else []
    return [*parts, scaling_cost(results)]


def ground(premises: Sequence[dict[str, Any]]) -> Section:
    """The table of premises."""
    answers = {True: "holds", False: "fails", None: "not measured"}
    lines = []
    for row in premises:
        value = "–" if row["value"] is None else f"{row['value']:.3g}"
        lines.append([row["premise"], value, row["bar"], answers[row["holds"]], row["how"]])
    return section("ground", lines)


def gap(arms: Sequence[Arm], chosen: float | None = None) -> Section:
    """Figure 1: the plane of stability and expressivity, a path over α for each arm, the chosen α ringed."""
    figure, grid = plots.sheet(1, 1, 5.0)
    ax = grid[0, 0]
    above, below = (-38, 4), (6, -16)
    for arm, colour, aside in zip(arms, plots.COLOURS, (below, above, below), strict=False):
        wer, z = (band(arm.measure(name))[0] for name in ("wer", "z"))
        ax.plot(wer, z, color=colour, marker=MARKS[arm.name], label=arm.name)
        at = arm.points == chosen
        ax.scatter(wer[at], z[at], s=400, facecolors="none", edgecolors=plots.INK, linewidths=2)
        named = np.inf
        for alpha, x, y in zip(arm.points, wer, z, strict=True):
            if abs(x - named) > 4:  # whoever stands close to the one before stays without a name
                label, named = f"{100 * alpha:.0f} %", x
                look = {"fontsize": 11, "color": colour}
                ax.annotate(label, (x, y), textcoords="offset points", xytext=aside, **look)
    ax.margins(0.1, 0.1)
    ax.set(xlabel="WER in % (left is better)", ylabel="z (recordings = 0)")
    ax.legend(title="arm; numbers are α")
    return section("gap", figure=figure)


def measures(arms: Sequence[Arm], results: Results) -> Section:
    """Figure 4: every measure over α, with the entropy of the mixture beside that of the model."""
    figure, grid = plots.sheet(2, 3, 3.4)
    for ax, (name, label) in zip(grid.ravel(), WORDS["measures"]["labels"].items(), strict=True):
        for arm, colour in zip(arms, plots.COLOURS, strict=False):
            _curve(ax, 100 * arm.points, arm.measure(name), colour, arm.name)
        ax.set(xlabel="α in %", ylabel=label)
    alphas = list(np.linspace(0, 1, 21))
    for arm, colour in zip(arms, plots.COLOURS, strict=False):
        theory = claims.mixture_entropies(results.mixture, REAL[arm.name], alphas, 0, 0).value[:, 0]
        grid[0, 1].plot(100 * np.array(alphas), theory, "--", color=colour, linewidth=1.5)
    grid[0, 1].plot([], [], "--", color=plots.INK, linewidth=1.5, label="the speech that it learns from")
    plots.legend(grid[0, 0])
    return section("measures", figure=figure)


def numbers(arm: Arm) -> Section:
    """Table 1 of one arm, the paper's numbers beside ours."""
    table = pd.read_csv(PAPER / "table1.csv", comment="#", index_col="alpha")
    columns = {label: name for label, name in COLUMNS.items() if name != "repetition_spoken"}
    lines = []
    for alpha, *ours in zip(arm.points, *(shown(arm.measure(n)) for n in columns.values()), strict=True):
        percent, paper = round(100 * float(alpha)), "–"
        if percent in table.index:
            paper = "{wer:.1f} · {entropy:.2f} · {repetition:.1f}".format(**table.loc[percent])
        lines.append([f"{percent}", *ours, paper])
    head = ["α %", *columns, "paper: WER · H_p · repetition"]
    return section("numbers", lines, head, arm=arm.name, n=arm.n, seeds=_listed(arm.seeds))


def sounds_of(preset_name: str, study: str) -> list[Path]:
    """Sounds of the first seed: `authentic.` of the scaling study at each α, `aligned-` of each system."""
    return sorted(RESULTS.glob(f"{preset_name}-{study}*.flac"))


def over_alpha(sounds: Sequence[Path]) -> Section:
    """One sentence, said by the model of each α."""
    labelled = sorted((float(path.stem.split(".", 1)[1].rsplit(".", 1)[0]), path) for path in sounds)
    said = first_sentence(language_with(True, sounds[0].name.partition("-")[0])) if sounds else ""
    named = [(f"α = {100 * alpha:.0f} %", path) for alpha, path in labelled]
    return section("over_alpha", sounds=named, said=said)


def prosody(results: Results) -> Section:
    """Table 2, and what raises which entropy."""
    rows = claims.with_scores(results.rows[results.rows["arm"] == ENTROPY], results.recordings)
    noise, clean = claims.noise_effects(rows), rows[rows["noise"] == 0]
    names = ["h_window", "h_window_spoken", "melody_entropy", "f0_spread", "cer"]
    warm, spread = clean.groupby("temperature")[names].mean(), clean[names].std()
    within = clean.groupby(["seed", "sentence", "temperature"])[names].transform("mean")
    deviations = spread.where(spread > 0)
    changes = {
        f"temperature {warm.index[0]:g} → {warm.index[-1]:g}": (warm.iloc[-1] - warm.iloc[0]) / deviations,
        "noise in the tokens": noise[names].mean() / deviations,
        "r with F0 spread, one text and temperature": (clean[names] - within).corr()["f0_spread"][names],
    }
    lines = [
        [what, *(f"{value:+.2f}" if np.isfinite(value) else "–" for value in values)]
        for what, values in changes.items()
    ]
    return section("prosody", lines, pairs=len(claims.pairs(rows)))


def has_minutes(results: Results) -> bool:
    """Whether an arm of the data-budget curve was run."""
    return bool(set(BUDGET) & set(results.rows["arm"]))


def minutes(results: Results) -> Section:
    """How many minutes does a language need: WER over authentic minutes, four ways to begin."""
    figure, grid = plots.sheet(1, 1, 4.5)
    ax = grid[0, 0]
    own = results.cells[results.cells["arm"].isin(BUDGET)]
    points, lines = np.unique(own["point"]), []
    for name, colour in zip(BUDGET, plots.COLOURS, strict=False):
        if name in set(results.rows["arm"]):
            arm = Arm.of(results, name)
            _curve(ax, arm.points, arm.measure("wer"), colour, name)
            cells = dict(zip(arm.points, shown(arm.measure("wer"), 1), strict=True))
            lines.append([name, *(cells.get(point, "–") for point in points), _listed(arm.seeds)])
    ax.set(xlabel="minutes of authentic speech", ylabel="WER in %", xscale="log")
    ax.set_xticks(points, [f"{point:g}" for point in points], minor=False)
    ax.set_xticks([], minor=True)
    ax.legend()
    head = [*(f"{point:g} min" for point in points), "Seeds"]
    return section("minutes", lines, head, figure, helping=own["synthetic_minutes"].max())


def verdicts(rows: Sequence[dict[str, Any]]) -> Section:
    """How many claims of each family have which verdict."""
    lines = []
    for letter, about in WORDS["verdicts"]["families"].items():
        own = [row["verdict"] for row in rows if row["family"] == letter]
        names = ("reproduced", "refuted", "inconclusive")
        lines.append([about, f"{len(own)}", *(f"{own.count(name)}" for name in names)])
    return section("verdicts", lines)


def ledger(rows: Iterable[dict[str, Any]]) -> Section:
    """Every claim, its verdict, and the paper's numbers."""
    lines = []
    for row in rows:
        ours, p, count = "–", "–", ""
        if "estimate" in row:
            ours = bracketed(row["estimate"], row["low"], row["high"], ".3g")
            p, seeds = f"{row['p_adjusted']:.3f}", len(row["seeds"])
            if seeds != FEWEST_SEEDS and row["id"] not in SEEDLESS:
                count = f"{seeds} of {FEWEST_SEEDS} seeds" if seeds < FEWEST_SEEDS else f"{seeds} seeds"
        others = [f"{arm}: {told}" for arm, told in row["arms"].items() if arm not in ("authentic", ENTROPY)]
        remarks = "; ".join(filter(None, (count, row["note"])))
        verdict = row["verdict"] + (f" ({remarks})" if remarks else "")
        defined = [value for value in row.get("by_seed", ()) if np.isfinite(value)]
        by_seed = f"{min(defined):.2g} … {max(defined):.2g}" if defined else "–"
        claim = [row["id"], row["statement"], row["statistic"], ours, p, verdict]
        lines.append([*claim, ", ".join(others) or "–", row["paper"], by_seed])
    return section("ledger", lines)


def scaling_cost(results: Results) -> Section:
    """What the runs took."""
    costs = results.cells.groupby("arm").agg(
        runs=("key", "size"), training=("training_seconds", "mean"), speaking=("speaking_seconds", "mean")
    )
    lines = []
    for arm, runs, training, speaking in costs.itertuples():
        hours = runs * (training + speaking) / 3600
        lines.append([arm, str(runs), f"{training / 60:.1f}", f"{speaking / 60:.1f}", f"{hours:.1f}"])
    return section("scaling_cost", lines)


def alignment_sections(results: Aligned, paths: Sequence[Path]) -> list[Section]:
    """The alignment study from its comparisons to its cost; tables whose rows are missing are left out."""
    makers: list[Callable[[Aligned], Section]] = [
        *(partial(methods, table=name) for name in ("table3", "table4", "table7", "table8")),
        *(by_alpha, plane, cloning, temperatures, rounds, votes, agreement),
        *(lambda _: sounds(paths), alignment_cost),
    ]
    parts = []
    for make in makers:
        with suppress(NoRows):
            parts.append(make(results))
    return parts


def frame(make: Callable[..., Section], results: Aligned | None, *arguments: Any) -> pd.DataFrame | str:
    """The table of a section, for a notebook, or one sentence where its rows are missing."""
    if results is None:
        return "The study has no rows here yet: make paper"
    try:
        part = make(results, *arguments)
    except NoRows as error:
        return f"{error} More rows: make paper"
    return pd.DataFrame(part.lines, columns=part.head)


def methods(results: Aligned, table: str, *others: str) -> Section:
    """Methods from one start beside the paper's numbers; further tables follow in the same section.

    Raises:
        NoRows: no method but the first was run; so do the functions below.
    """
    alpha = ALONE if "tdsc" in WORDS[table]["paper"] else ALPHA
    paper = {name: text for each in (table, *others) for name, text in WORDS[each]["paper"].items()}
    arms = claims.arms(results, {method: [System(method, alpha=alpha)] for method in paper})
    if len(arms) < 2:
        raise NoRows(f"There is nothing to compare in {table}.")
    lines = []
    for name, arm in arms.items():
        (ours,) = zip(*(shown(arm.measure(column)) for column in COLUMNS.values()), strict=True)
        lines.append([NAMES[name], *ours, str(len(arm.seeds)), paper[name]])
    head = ["System", *COLUMNS, "Seeds", "paper: WER · H_p · repetition"]
    unlike = len({len(arm.seeds) for arm in arms.values()}) > 1
    remarks = WORDS["methods"]["stand_ins"] + (WORDS["methods"]["unlike_seeds"] if unlike else "")
    return section(table, lines, head, language=spoken(next(iter(arms.values())).language), remarks=remarks)


def by_alpha(results: Aligned) -> Section:
    """D12: what DGSA changes where its start had more synthetic speech."""
    pairs = {alpha: [System("dgsa", alpha=alpha), System("sft", alpha=alpha)] for alpha in ALPHAS}
    lines = []
    for alpha, both in claims.arms(results, pairs).items():
        changes = [shown(both.difference(name))[0] for name in ("h", "wer", "z")]
        lines.append([f"{100 * alpha:.0f} %", *shown(both.entropy())[::-1], *changes, str(len(both.seeds))])
    if len(lines) < 2:
        raise NoRows("DGSA was not run at several α.")
    return section("by_alpha", lines, language=spoken(both.language))


def plane(results: Aligned) -> Section:
    """Figure 5: where each method stands between stability and variety."""
    like_alone = ("sft", "rejection", "dpo", "dgsa")  # both starts: the same place, and so colour, by role
    panels = {}
    for alpha, names in ((ALPHA, like_alone), (ALONE, WORDS["table4"]["paper"])):
        if arms := claims.arms(results, {name: [System(name, alpha=alpha)] for name in names}):
            colours = dict(zip(names, plots.COLOURS, strict=False))
            panels[spoken(next(iter(arms.values())).language)] = arms, colours
    if not panels:
        raise NoRows("No method of Figure 5 was run.")
    figure, grid = plots.sheet(1, len(panels), 4.0)
    for ax, (language, (arms, colours)) in zip(grid[0], panels.items(), strict=True):
        for method, own in arms.items():
            (x, left, right), (y, low, high) = (band(own.measure(name)) for name in ("wer", "h"))
            bars = np.maximum(0, [[y - low, high - y], [x - left, right - x]])  # rounding of equal draws
            ax.errorbar(x, y, *bars, "o", color=colours[method], label=NAMES[method].split(" (")[0])
        ax.set(xlabel="WER in % (left is better)", ylabel="H_p in bits", title=language)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.12), ncols=2, columnspacing=1.0)
    return section("plane", figure=figure, languages=" and of ".join(panels))


def cloning(results: Aligned) -> Section:
    """Table 6: unseen voices, heard in the language spoken or in the other one."""
    systems = {System("sft"): "–", System("dgsa"): "38.9 · 0.84", System("dgsa", FOREIGN): "–"}
    systems |= {System("tdsc", "", ALONE): "29.8 · 0.81", System("tdsc", FOREIGN, ALONE): "–"}
    lines = []
    for system, own in claims.arms(results, {system: [system] for system in systems}).items():
        heard = f"{'the other' if system.part else 'this'} language"
        ours = [shown(own.measure(name))[0] for name in ("wer", "sim", "sim_strangers")]
        who = [spoken(own.language), NAMES[system.method], heard]
        lines.append([*who, *ours, str(own.n), systems[system]])
    if not lines:
        raise NoRows("No system of Table 6 was run.")
    return section("cloning", lines)


def temperatures(results: Aligned) -> Section:
    """Table 9: the last round's candidates by temperature."""
    last = claims.candidates_of(results, last=True)
    rates, h = claims.by_temperature(results), shown(claims.set_entropies(results)[1])
    shares = last.groupby("temperature")["passed"].sum() / max(1, last["passed"].sum())
    ours = zip(shares.items(), *(shown(rate.times(100)) for rate in rates), strict=True)
    lines = []
    for k, ((heat, share), misread, repeated, taken) in enumerate(ours):
        paper = WORDS["temperatures"]["paper"].get(str(k), "–")
        lines.append([f"{heat:g}", misread, h[k], repeated, taken, f"{100 * share:.0f}", paper])
    good = by_text(last, "passed_errors", "passed_words").times(100)
    lines.append(["accepted", *shown(good), h[-1], "–", "100", "100", "–"])
    return section("temperatures", lines, round=int(last["round"].max()) + 1)


def rounds(results: Aligned) -> Section:
    """Figure 6: TDSC round by round."""
    whole, tried = claims.over_rounds(results), claims.candidates_of(results)
    figure, grid = plots.sheet(1, 3, 3.4)
    panels = (
        ("WER in %", whole.points, whole.measure("wer")),
        ("H_p in bits", whole.points, whole.entropy()),
        ("pass rate in %", whole.points[:-1], by_text(tried, "passed", "tried", "round").times(100)),
    )
    for ax, (label, x, measured) in zip(grid[0], panels, strict=True):
        _curve(ax, x, measured, plots.COLOURS[0])
        ax.set(xlabel="rounds learned from", ylabel=label)
    return section("rounds", figure=figure)


def votes(results: Aligned) -> Section:
    """Whether the model moved towards what simulated listeners preferred."""
    both = Arm.of_systems(results, [System(PEOPLE), System("sft")])
    lines = []
    for label, name in {"F0 spread, semitones": "f0_spread", "WER %": "wer", "H_p bits": "h"}.items():
        lines.append([label, *shown(both.measure(name))[::-1], *shown(both.difference(name))])
    return section("votes", lines)


def agreement(results: Aligned) -> Section:
    """Does the filter, which reads tokens, hear what the sound will be?"""
    rows = results.rows
    if not len(rows):
        raise NoRows("No system has said the test sentences.")
    wrong = [rows[name].sum() / rows["words"].sum() for name in ("filter_errors", "word_errors")]
    r = correlation(rows["filter_errors"] / rows["words"], rows["word_errors"] / rows["words"])
    together = f"{r:.2f}" if np.isfinite(r) else "–"
    return section("agreement", [[f"{len(rows)}", *(f"{100 * value:.1f}" for value in wrong), together]])


def sounds(paths: Sequence[Path]) -> Section:
    """One sentence of each language as the systems of the first seed say it."""
    who = [path.stem.split("-", 3)[2:] for path in paths]
    said = {spoken(language): first_sentence(language) for language, _ in who}
    labels = [f"{spoken(language)}, {NAMES[method]}" for language, method in who]
    sentences_said = " ".join(f"{name}: {text}" for name, text in said.items())
    return section("sounds", sounds=list(zip(labels, paths, strict=True)), said=sentences_said)


def alignment_cost(results: Aligned) -> Section:
    """What the units took."""
    unit = ["language", "method", "part", "alpha"]  # some have more seeds than others
    sums = results.runs.groupby(unit)[SECONDS].mean().groupby(unit[:2]).sum() / 60
    lines = [
        [spoken(language), NAMES[method], *(f"{x:.1f}" for x in row)]
        for (language, method), row in zip(sums.index, sums.to_numpy(), strict=True)
    ]
    hours = (results.runs[SECONDS].to_numpy().sum() + sum(results.seconds.values())) / 3600
    return section("alignment_cost", lines, hours=hours)


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


def shown(measured: Measured, digits: int = 2) -> list[str]:
    """Mean over seeds of each point (k) with its interval, or a dash where it is not defined."""
    bands = zip(*band(measured), strict=True)
    return [bracketed(*ends, f".{digits}f") if np.isfinite(ends[0]) else "–" for ends in bands]


def bracketed(value: float, low: float, high: float, form: str) -> str:
    """A number and its interval, written in a format such as `.2f`."""
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _curve(ax: Axes, x: Any, measured: Measured, colour: str, label: str = "") -> None:
    value, low, high = band(measured)
    ax.plot(x, value, color=colour, marker=MARKS.get(label, "o"), label=label)
    ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def spoken(language: str) -> str:
    """What people call a language."""
    return languages.find(language).name


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
