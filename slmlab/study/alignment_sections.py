"""What the alignment study shows, as parts of the report: the paper's Tables 3, 4, 6, 7, 8, 9, Figures 5, 6.

Brackets are 95 % intervals over test sentences, given the seeds; the paper's numbers stand beside ours. Human
scores have no place here: expressivity z stands in for NMOS, SIM for SMOS, and the words say so.

Axis legend: k systems, s seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from slmlab.metrics.statistics import correlation
from slmlab.notebook import plots
from slmlab.preference.methods import PEOPLE
from slmlab.study.alignment import ALPHA, ALPHAS, FOREIGN, Aligned
from slmlab.study.alignment_claims import (
    arm,
    by_text,
    last_round,
    measure,
    of_tdsc,
    over_rounds,
    set_entropies,
)
from slmlab.study.claims import Arm, Measured
from slmlab.study.rows import RESULTS
from slmlab.study.tables import Section, band, shown

NAMES = {
    "sft": "SFT: the start",
    "dpo": "standard DPO (expressivity alone)",
    "rejection": "rejection sampling",
    "self-training": "self-training",
    "dgsa": "DGSA",
    "tdsc": "TDSC",
    "dgsa.no-expressivity": "without the expressivity set",
    "dgsa.random-speaker": "random speaker",
    "dgsa.no-stability": "without the stability set",
    "dgsa.fixed-weights": "fixed λ = 0.5",
    "dgsa.no-sft-term": "the preferences alone, no SFT term",
    "dgsa.no-preference": "the SFT term alone, no preferences",
    "tdsc.no-dpo": "without DPO",
    "tdsc.one-temperature": "only T = 1.0",
    "tdsc.no-length-filter": "without the length filter",
    "tdsc.fixed-temperature": "fixed T_max",
    "tdsc.no-repetition-filter": "without the repetition filter",
    "tdsc.hot": "T_max from 1.3 (the paper's other schedule)",
    "tdsc.open": "only T = 1.0, from all tokens (ours)",
    PEOPLE: "DPO on simulated votes",
}
"""Methods in words, in the order of the tables."""
TABLE_3 = {"sft": "38.9 · 10.36 · 6.5", "dpo": "45.2 · 10.49 · 4.1", "rejection": "40.5 · 10.41 · 5.2"}
TABLE_3 |= {"dgsa": "38.9 · 10.52 · 2.8"}
TABLE_4 = {"sft": "38.5 · 10.08 · 7.6", "rejection": "36.8 · 10.11 · 7.3"}
TABLE_4 |= {"self-training": "35.2 · 10.15 · 6.9", "tdsc": "29.8 · 10.42 · 4.2"}
TABLE_7 = {
    "dgsa": "38.9 · 10.52 · 2.8",
    "dgsa.no-expressivity": "38.2 · 10.38 · ΔNMOS −0.7",
    "dgsa.random-speaker": "42.8 · 10.41 · ΔNMOS −0.5",
    "dgsa.no-stability": "46.5 · 10.55 · ΔNMOS −0.4",
    "dgsa.fixed-weights": "40.2 · 10.45 · ΔNMOS −0.2",
    "dgsa.no-sft-term": "–",
    "dgsa.no-preference": "–",
}
TABLE_8 = {
    "tdsc": "29.8 · 10.42 · 4.2",
    "tdsc.no-dpo": "35.8 · 10.21 · ΔNMOS −0.5",
    "tdsc.one-temperature": "34.1 · 10.05 · ΔNMOS −0.4",
    "tdsc.no-length-filter": "33.5 · 10.35 · ΔNMOS −0.4",
    "tdsc.fixed-temperature": "32.6 · 10.18 · ΔNMOS −0.3",
    "tdsc.no-repetition-filter": "31.2 · 10.28 · ΔNMOS −0.3",
    "tdsc.hot": "–",
    "tdsc.open": "–",
}
TABLE_9 = {
    0: "26.8 · 9.85 · 3.4 · 78.5 · 42",
    1: "32.4 · 10.38 · 4.7 · 61.2 · 35",
    2: "41.6 · 10.82 · 6.2 · 38.4 · 23",
}
"""The paper's WER %, H_p bits and repetition %, which its ablations leave out for what listeners said of them
(Table 9: pass rate % and share of the accepted % besides).
"""
COLUMNS = {
    "WER %": "wer",
    "H_p bits": "h",
    "H_p, no silence": "h_spoken",
    "Repetition %": "repetition",
    "Repetition %, no silence": "repetition_spoken",
    "Expressivity z": "z",
    "SIM": "sim",
}


def sections(results: Aligned, spoken: Sequence[Path]) -> list[Section]:
    """The study from its comparisons to its cost; tables whose rows are missing are left out.

    Args:
        results: what was found.
        spoken: sound files of its systems.
    """
    tables = (
        (
            "Table 3 · vi at α = 80 %",
            "vi",
            TABLE_3,
            "All from one start, on the same recordings or their texts. What learns from recordings has, "
            "beside its preference loss, an SFT term on them, which the paper's loss lacks.",
        ),
        (
            "Table 4 · sw without recordings",
            "sw",
            TABLE_4,
            "All from one start, on texts of one list. Rejection sampling is one round, as it is usually "
            "done: it sees a fifth of the texts and steps of the two that go on.",
        ),
        (
            "Table 7 · DGSA with parts left out",
            "vi",
            TABLE_7,
            "The first line is DGSA itself; the last two tell what its preferences and its SFT term, which "
            "is not the paper's, do alone.",
        ),
        ("Table 8 · TDSC with parts left out", "sw", TABLE_8, "The first line is TDSC itself."),
    )
    found = [table(results, *what) for what in tables]
    found += [by_alpha(results), plane(results), cloning(results)]
    found += [temperatures(results), rounds(results), votes(results)]
    found += [agreement(results) if len(results.rows) else None, sounds(spoken), cost(results)]
    return [part for part in found if part]


def table(results: Aligned, title: str, language: str, paper: Mapping[str, str], text: str) -> Section | None:
    """Methods of one language beside the paper's numbers; None when no method but the first was run."""
    alpha = ALPHA if language == "vi" else 1.0
    lines = []
    for method, theirs in paper.items():
        if (own := arm(results, [(language, method, "", alpha)])) is not None:
            lines.append([NAMES[method], *cells_of(own), str(len(own.seeds)), theirs])
    head = ["System", *COLUMNS, "Seeds", "paper: WER · H_p · rep."]
    words = (
        f"{text} Expressivity z stands in for NMOS, SIM for SMOS. The paper's numbers are of other languages."
    )
    if len({line[-2] for line in lines}) > 1:
        words += " Some systems have more seeds than others: claims compare the seeds that both have."
    return Section(title, words, head, lines) if len(lines) > 1 else None


def by_alpha(results: Aligned) -> Section | None:
    """D12: what DGSA changes where its start had more synthetic speech; None with one α alone."""
    lines = []
    for alpha in ALPHAS:
        if (both := arm(results, [("vi", "dgsa", "", alpha), ("vi", "sft", "", alpha)])) is not None:
            h, changes = measure(both, "h"), [_change(both, name) for name in ("h", "wer", "z")]
            measured = [shown(h, place=1), shown(h), *map(shown, changes)]
            lines.append([f"{100 * alpha:.0f} %", *measured, str(len(both.seeds))])
    head = ["α", "H_p bits: start", "DGSA", "Change of H_p", "of WER, points", "of z", "Seeds"]
    text = (
        "The more synthetic speech, the flatter the start and the heavier DGSA's expressivity set, λ_e = 2 α "
        "− 1: at 50 % it has no weight and the stability set alone is learned from."
    )
    return Section("DGSA by α · vi", text, head, lines) if len(lines) > 1 else None


def cells_of(own: Arm) -> list[str]:
    """The measures of an arm of one system, each with its interval."""
    return [shown(measure(own, name)) for name in COLUMNS.values()]


def plane(results: Aligned) -> Section | None:
    """Figure 5: where each method stands between stability and variety."""
    like_sw = ("sft", "rejection", "dpo", "dgsa")  # in both languages the same place, and so colour, by role
    panels = {}
    for language, alpha, names in (("vi", ALPHA, like_sw), ("sw", 1.0, TABLE_4)):
        arms = {name: arm(results, [(language, name, "", alpha)]) for name in names}
        if any(arms.values()):
            panels[language] = arms
    if not panels:
        return None
    figure, grid = plots.sheet(1, len(panels), 4.0)
    for ax, (language, arms) in zip(grid[0], panels.items(), strict=True):
        for (method, own), colour in zip(arms.items(), plots.COLOURS, strict=False):
            if own is not None:
                (x, left, right), (y, low, high) = (band(measure(own, name)) for name in ("wer", "h"))
                bars = np.maximum(0, [[y - low, high - y], [x - left, right - x]])  # rounding of equal draws
                ax.errorbar(x, y, *bars, "o", color=colour, label=method)
        ax.invert_xaxis()
        ax.set(xlabel="WER in %, better to the right", ylabel="H_p in bits", title=language)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.12), ncols=4, columnspacing=1.0)
    words = "Methods of vi and of sw: word error rate against H_p, with 95 % intervals."
    text = "Figure 5. To the right is better understood, upwards more varied: both at once is what is wanted."
    return Section("Stability and variety", text, picture=plots.Picture(figure, words))


def cloning(results: Aligned) -> Section | None:
    """Table 6: unseen voices, heard in the language spoken or in the other one."""
    systems = [
        ("vi", "sft", ""),
        ("vi", "dgsa", ""),
        ("vi", "dgsa", FOREIGN),
        ("sw", "tdsc", ""),
        ("sw", "tdsc", FOREIGN),
    ]
    paper = {("vi", "dgsa", ""): "38.9 · 0.84", ("sw", "tdsc", ""): "29.8 · 0.81"}
    lines = []
    for language, method, part in systems:
        own = arm(results, [(language, method, part, ALPHA if language == "vi" else 1.0)])
        if own is not None:
            heard = "the other language" if part else "this language"
            measured = [shown(measure(own, name)) for name in ("wer", "sim", "sim_strangers")]
            theirs = paper.get((language, method, part), "–")
            lines.append([language, NAMES[method], heard, *measured, str(own.n), theirs])
    head = [
        "",
        "System",
        "Voice heard in",
        "WER %",
        "SIM to the voice",
        "SIM to other voices",
        "n",
        "paper: WER · SIM",
    ]
    text = "Voices that nothing was trained on, each from one recording. Timbre bypasses the language model."
    return Section("Table 6 · Zero-shot cloning", text, head, lines) if lines else None


def temperatures(results: Aligned) -> Section | None:
    """Table 9: the last round's candidates by temperature."""
    last = last_round(results) if len(results.candidates) else results.candidates
    if not len(last):
        return None
    pairs = (("errors", "words"), ("repetition", "tried"), ("passed", "tried"))
    wer, loops, passed = (by_text(*pair, "temperature", last) for pair in pairs)
    h = set_entropies(results)[1]
    shares = last.groupby("temperature")["passed"].sum() / max(1, last["passed"].sum())
    lines = [
        [
            f"{heat:g}",
            *(shown(x, scale, k) for x, scale in ((wer, 100), (h, 1), (loops, 100), (passed, 100))),
            f"{100 * share:.0f}",
            TABLE_9.get(k, "–"),
        ]
        for k, (heat, share) in enumerate(shares.items())
    ]
    good = by_text("passed_errors", "passed_words", "language", last)
    lines.append(["accepted", shown(good, 100), shown(h, 1, -1), "–", "100", "100", "–"])
    head = [
        "T",
        "WER %, judge B",
        "H_p bits",
        "Repetition %",
        "Pass %",
        "Share of accepted %",
        "paper (T = 0.7, 1.0, 1.3)",
    ]
    text = f"Round {int(last['round'].max()) + 1}; judge A decided what passes, judge B counts the errors."
    return Section("Table 9 · Candidates by temperature", text, head, lines)


def rounds(results: Aligned) -> Section | None:
    """Figure 6: TDSC round by round."""
    whole, tried = over_rounds(results), of_tdsc(results)
    if whole is None or not len(tried):
        return None
    figure, grid = plots.sheet(1, 3, 3.4)
    panels = (
        ("WER in %", whole.points, measure(whole, "wer"), 1),
        ("H_p in bits", whole.points, whole.entropy(), 1),
        ("pass rate in %", whole.points[:-1], by_text("passed", "tried", "round", tried), 100),
    )
    for ax, (label, x, measured, scale) in zip(grid[0], panels, strict=True):
        value, low, high = (scale * part for part in band(measured))
        ax.plot(x, value, "o-", color=plots.COLOURS[0])
        ax.fill_between(x, low, high, color=plots.COLOURS[0], alpha=0.2, linewidth=0)
        ax.set(xlabel="rounds learned from", ylabel=label)
    words = "TDSC by round: word error rate, H_p, and the share of candidates that pass."
    text = "Figure 6. Paper: WER 38.5 → 31.8 → 29.8; H_p flat, then 10.18 → 10.42; pass rate 23 → 62 %."
    return Section("TDSC round by round", text, picture=plots.Picture(figure, words))


def votes(results: Aligned) -> Section | None:
    """Whether the model moved towards what simulated listeners preferred."""
    both = arm(results, [("vi", PEOPLE, "", ALPHA), ("vi", "sft", "", ALPHA)])
    if both is None:
        return None
    measures = {"F0 spread, semitones": "f0_spread", "WER %": "wer", "H_p bits": "h"}
    lines = []
    for label, name in measures.items():
        x = measure(both, name)
        lines.append([label, shown(x, place=1), shown(x), shown(_change(both, name))])
    text = (
        "Simulated listeners, programs and no people, prefer the livelier of two samples; their votes went "
        "through the store, the rules and the export of the listening page, and the model learned from them."
    )
    return Section("From votes to a model", text, ["", "Start", "After the votes", "Change"], lines)


def _change(both: Arm, name: str) -> Measured:
    """The first system less the second; prosody on sentences that are clear in both."""
    if name in ("f0_spread", "z"):
        return both.change(name, 0, 1)
    x = measure(both, name)
    return replace(x, value=x.value[:1] - x.value[1:], draws=x.draws[:, :1] - x.draws[:, 1:])


def agreement(results: Aligned) -> Section:
    """Does the filter, which reads tokens, hear what the sound will be?"""
    rows = results.rows
    wrong = {name: rows[name].sum() / rows["words"].sum() for name in ("filter_errors", "word_errors")}
    r = correlation(rows["filter_errors"] / rows["words"], rows["word_errors"] / rows["words"])
    together = f"{r:.2f}" if np.isfinite(r) else "–"
    line = [f"{len(rows)}", *(f"{100 * value:.1f}" for value in wrong.values()), together]
    head = ["Sentences", "WER %, judge A on tokens", "WER %, judge B on sound", "r by sentence"]
    text = "TDSC's filter hears the tokenizer's own mel, judge A; what is reported here hears sound, judge B."
    return Section("Does the filter hear what the sound will be?", text, head, [line])


def sounds_of(preset_name: str) -> list[Path]:
    """What the systems of the first seed say, as sound files."""
    return sorted(RESULTS.glob(f"{preset_name}-aligned-*.flac"))


def sounds(spoken: Sequence[Path]) -> Section:
    """One sentence of each language as the systems of the first seed say it."""
    named = [(" ".join(path.stem.split("-", 3)[2:]), path) for path in spoken]
    return Section("One sentence, many systems", "The first seed; the first test sentence.", sounds=named)


def cost(results: Aligned) -> Section:
    """What the units took."""
    names = ["training_seconds", "tuning_seconds", "speaking_seconds"]
    unit = ["language", "method", "part", "alpha"]  # some have more seeds than others
    sums = results.runs.groupby(unit)[names].mean().groupby(unit[:2]).sum()
    lines = [
        [language, NAMES[method], *(f"{x / 60:.1f}" for x in row)]
        for (language, method), row in zip(sums.index, sums.to_numpy(), strict=True)
    ]
    hours = (results.runs[names].to_numpy().sum() + sum(results.seconds.values())) / 3600
    text = f"Minutes of one core a seed, two processes side by side; {hours:.1f} hours of one core in all."
    return Section(
        "What alignment cost", text, ["", "Method", "Start", "Tuning", "Speaking and scoring"], lines
    )
