"""Temperature-driven self-correction, TDSC: where no real speech exists (Geng et al. 2026, §5).

Each round the model says every text many times at several temperatures; a judge keeps what is understood,
does not loop and is as long as it should be. The model learns to say what was kept (SFT), then to prefer the
best of a text to one that fell through by its words alone (DPO), and the highest temperature rises.

A round's folder holds every candidate with its scores and fate (`candidates/`, a file for every 50 texts),
its pairs, both trainings, `model` and, written last, its figures (`round.json`). A kill costs one file of
candidates or half a minute of training.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from slmlab import metrics
from slmlab.corpus import pairs as table
from slmlab.corpus.pairs import Pair
from slmlab.errors import LabError
from slmlab.models.lm import SpeechLM
from slmlab.preference.jury import Jury, expected_lengths, measure, seed_of
from slmlab.preference.tune import (
    PreferenceConfig,
    claim,
    fine_tune,
    fingerprint,
    in_chunks,
    once,
    rows_of,
    tune,
)
from slmlab.speech.sampling import SamplingConfig, speak
from slmlab.training import checkpoints
from slmlab.training.checkpoints import Card
from slmlab.training.loop import TrainConfig

CHUNK = 50  # texts whose candidates are made together; sorted by length, they fill batches better
DONE, CANDIDATES = "round.json", "candidates"
PASSED = ("winner", "accepted")
FREE = SamplingConfig(top_k=200, window=0, shortest=0.2, longest=3.0)
VARIANTS: dict[str, dict[str, Any]] = {
    "sft": {"rounds": 0},
    "tdsc": {},
    "tdsc.no-dpo": {"dpo": None},
    "tdsc.one-temperature": {"temperatures": (1.0,), "hottest": None},
    "tdsc.no-length-filter": {"shortest": 0.0, "longest": math.inf},
    "tdsc.fixed-temperature": {"hotter": 0.0},
    "tdsc.no-repetition-filter": {"max_repetition": math.inf},
    "tdsc.hot": {"hottest": 1.3},
    "tdsc.open": {"temperatures": (1.0,), "hottest": None, "sampling": replace(FREE, top_k=0, top_p=1.0)},
    "self-training": {"temperatures": (1.0,), "hottest": None, "dpo": None},
    "rejection": {"temperatures": (1.0,), "hottest": None, "dpo": None, "rounds": 1, "learn_from": "winner"},
}
"""TDSC, the ablations of Table 8, its other schedule, a variant of ours (tries drawn from the model as it is,
at T = 1.0 from all tokens, so that the judge alone selects), and the baselines, as settings. The paper does
not define the last: self-training is SFT on all that is accepted, round after round, at T = 1.0; rejection
sampling is one round of SFT on the best of each text; SFT is the model as it came. Nor does it say at what
T_max stays when it is fixed: here where its schedule begins, at 0.8.
"""


@dataclass(frozen=True)
class TDSCConfig:
    """Settings of TDSC."""

    sft: TrainConfig
    """How a round learns what was accepted."""
    dpo: PreferenceConfig | None
    """How it learns from pairs; None leaves this out."""
    rounds: int = 5
    """How often."""
    prompts: int = 200
    """Texts a round."""
    candidates: int = 12
    """Candidates a text, the same number at each temperature."""
    temperatures: tuple[float, ...] = (0.7, 1.0)
    """Those that stay."""
    hottest: float | None = 0.8
    """T_max, one more temperature, in the first round (the paper's other schedule: 1.3); None: no such."""
    hotter: float = 0.1
    """What T_max gains a round."""
    sampling: SamplingConfig = FREE
    """How candidates are drawn, but for the temperature; nothing here may forestall the filters."""
    max_wer: float = 0.4
    """Accepted below this word error rate."""
    max_repetition: float = 0.1
    """Accepted below this repetition rate."""
    shortest: float = 0.5
    """Accepted from this share of the length expected for the text."""
    longest: float = 2.0
    """Accepted up to this share."""
    learn_from: str = "accepted"
    """What SFT hears: all that is `accepted`, or each text's `winner`."""
    batch: int = 3000
    """Most tokens of an SFT batch."""
    seed: int = 0
    """Decides which texts a round has, and every sample."""

    def __post_init__(self) -> None:
        slots, known = len(self.schedule(0)), self.learn_from in ("accepted", "winner")
        enough = self.rounds >= 0 and self.prompts >= 1 and self.candidates >= 1
        if not enough or not slots or self.candidates % slots or not known:
            raise LabError(
                f"TDSC refuses rounds={self.rounds}, prompts={self.prompts}, candidates={self.candidates} at "
                f"{slots} temperatures, learn_from={self.learn_from!r}: expected no rounds below 0, a "
                "text or more, a multiple of the temperatures, and accepted or winner."
            )

    def schedule(self, number: int) -> tuple[float, ...]:
        """The temperatures of a round."""
        hottest = () if self.hottest is None else (round(self.hottest + self.hotter * number, 6),)
        return (*self.temperatures, *hottest)


@dataclass(frozen=True)
class Candidate:
    """One try at a text: a row of `tries`.

    `place` tells which text of the round, `seed` from where it can be drawn again. `wer` and `repetition` are
    rates, the latter 0 for what is too short to repeat; `length` is over that expected for the text. `fate`
    is `winner`, `accepted`, `loser`, or why it was thrown away: `words`, `repetition`, `length`.
    """

    round: int
    place: int
    text: str
    temperature: float
    seed: int
    tokens: tuple[int, ...]
    heard: str
    wer: float
    repetition: float
    length: float
    fate: str = ""


def decide(candidates: Sequence[Candidate], config: TDSCConfig) -> list[Candidate]:
    """The candidates of one text with their fates.

    The winner is the accepted one of lowest word error rate, the loser the one of highest among those thrown
    away for their words alone; of equals chance decides, through their seeds. No winner, no loser.
    """
    fates = [
        "length" if not config.shortest <= c.length <= config.longest
        else "repetition" if not c.repetition < config.max_repetition
        else "words" if not c.wer < config.max_wer
        else "accepted"
        for c in candidates
    ]  # fmt: skip
    ranked = sorted(range(len(candidates)), key=lambda i: (candidates[i].wer, candidates[i].seed))
    accepted = [i for i in ranked if fates[i] == "accepted"]
    wrong = [i for i in ranked if fates[i] == "words"]
    if accepted:
        fates[accepted[0]] = "winner"
        for i in wrong[-1:]:
            fates[i] = "loser"
    return [replace(c, fate=fate) for c, fate in zip(candidates, fates, strict=True)]


def align(model: SpeechLM, texts: Sequence[str], config: TDSCConfig, folder: Path, jury: Jury) -> SpeechLM:
    """The model after all rounds, on texts of the jury's language alone; the given one stays as it is.

    The jury hears every candidate, and watches on dev. `rounds` and `tries` read what is left in the folder,
    where a killed run goes on inside its round. LabError: fewer texts than a round has, or a folder of
    another run.
    """
    if len(texts) < config.prompts:
        raise LabError(f"a round of TDSC has {config.prompts} texts, found {len(texts)}: give more texts.")
    claim(folder, [config, jury.language, [*texts], fingerprint(model)])
    for number in range(config.rounds):
        place = folder / f"round-{number}"
        once(place / DONE, functools.partial(_round, model, number, texts, config, place, jury))
        model = checkpoints.load(place / "model", SpeechLM)[0].to(model.pace.device)
    return model


def _round(
    model: SpeechLM, number: int, texts: Sequence[str], config: TDSCConfig, folder: Path, jury: Jury
) -> list[dict[str, float]]:
    """Let a model try and learn from its tries: its figures; the tuned one is `model` in the folder."""
    order = np.random.default_rng((config.seed, number)).permutation(len(texts))[: config.prompts]

    def make(chunk: range) -> list[dict[str, Any]]:
        return _candidates(model, number, {place: texts[order[place]] for place in chunk}, config, jury)

    rows = in_chunks(folder / CANDIDATES, len(order), CHUNK, make)
    candidates = [Candidate(**row | {"tokens": tuple(row["tokens"])}) for row in rows]
    tuned = _learn(model, candidates, config, folder, jury)
    checkpoints.save(folder / "model", tuned, Card(tuned.config))
    figures = {
        "round": number,
        "hottest": max(config.schedule(number)),
        "pass_rate": sum(c.fate in PASSED for c in candidates) / len(candidates),
        "pairs": sum(c.fate == "loser" for c in candidates),
    }
    return [figures | measure(tuned, model, jury)]


def _candidates(
    model: SpeechLM, number: int, texts: Mapping[int, str], config: TDSCConfig, jury: Jury
) -> list[dict[str, Any]]:
    """All candidates of some texts of a round by their places, drawn, heard and decided on."""
    schedule = config.schedule(number)
    tries = range(config.candidates // len(schedule))
    expected = dict(zip(texts, expected_lengths(model, jury.language, [*texts.values()]), strict=True))
    drawn: dict[int, list[Candidate]] = {place: [] for place in texts}
    for slot, temperature in enumerate(schedule):
        places = [place for place in texts for _ in tries]
        seeds = [seed_of(config.seed, number, place, slot, j) for place in texts for j in tries]
        sampling = replace(config.sampling, temperature=temperature)
        codes = speak(model, jury.language, [texts[place] for place in places], sampling, seeds)
        for place, seed, tokens, hearing in zip(places, seeds, codes, jury.judge(codes), strict=True):
            repetition = metrics.repetition_rate(tokens)
            candidate = Candidate(
                round=number,
                place=place,
                text=texts[place],
                temperature=temperature,
                seed=seed,
                tokens=tuple(tokens),
                heard=hearing.text,
                wer=metrics.wer(texts[place], hearing.text, jury.language),
                repetition=0.0 if math.isnan(repetition) else repetition,
                length=len(tokens) / expected[place],
            )
            drawn[place].append(candidate)
    return [asdict(c) for candidates in drawn.values() for c in decide(candidates, config)]


def _learn(
    model: SpeechLM, candidates: Sequence[Candidate], config: TDSCConfig, folder: Path, jury: Jury
) -> SpeechLM:
    """SFT on the accepted, then DPO on winners and losers; where there are none, that is left out."""
    good = [c for c in candidates if c.fate in (PASSED if config.learn_from == "accepted" else PASSED[:1])]
    if not good:
        tqdm.write(f"{folder.name}: the judge rejected all {len(candidates)} candidates; nothing is learned")
        return model
    texts, codes = [c.text for c in good], [c.tokens for c in good]
    model = fine_tune(model, jury.language, texts, codes, config.sft, config.batch, folder / "sft")
    winners = {c.place: c.tokens for c in candidates if c.fate == "winner"}
    losers = [c for c in candidates if c.fate == "loser" and c.tokens]
    pairs = [Pair(f"{c.place}", jury.language, c.text, winners[c.place], c.tokens, "judge") for c in losers]
    if config.dpo and pairs:
        table.write(pairs, folder / "pairs.parquet")
        return tune(model, pairs, config.dpo, folder / "dpo", jury)
    if config.dpo:
        tqdm.write(f"{folder.name}: no text has both a winner and a loser; there is no DPO in this round")
    return model


def rounds(folder: Path) -> pd.DataFrame:
    """Pass rate, pairs and dev figures of the rounds that are done (Figure 6)."""
    return _rows(folder, DONE).set_index("round")


def tries(folder: Path) -> pd.DataFrame:
    """All candidates of all rounds, so far."""
    return _rows(folder, f"{CANDIDATES}/*.jsonl")


def _rows(folder: Path, pattern: str) -> pd.DataFrame:
    """Rows that rounds left in files, in their order."""
    files = sorted(folder.glob(f"round-*/{pattern}"))
    if not files:
        raise LabError(
            f"{folder} has no round of TDSC with a {pattern} yet: let it run on, or give another folder."
        )
    table = pd.DataFrame([row for file in files for row in rows_of(file)])
    return table.sort_values("round", kind="stable", ignore_index=True)


def by_temperature(candidates: pd.DataFrame) -> pd.DataFrame:
    """Table 9: a row a temperature, with WER, H_p (at equal token counts), repetition, pass rate and share of
    what was accepted.
    """
    groups = candidates.assign(passed=candidates["fate"].isin(PASSED)).groupby("temperature")
    passed, tokens = groups["passed"].sum(), groups["tokens"].agg(list)
    return pd.DataFrame(
        {
            "wer": {t: metrics.corpus_wer([*rows["text"]], [*rows["heard"]]) for t, rows in groups},
            "entropy": dict(zip(tokens.index, metrics.matched_entropies([*tokens]), strict=True)),
            "repetition": groups["repetition"].mean(),
            "pass_rate": groups["passed"].mean(),
            "share": passed / max(1, passed.sum()),
        }
    ).rename_axis("temperature")
