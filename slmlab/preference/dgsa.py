"""Dynamic gain-stability alignment, DGSA: where some real speech exists (Geng et al. 2026, §4).

The frozen SFT model says every text of a recording twice: with a style prefix (lively, may slip) and without
(safe, flat). The recording is preferred to both, and α, the share of synthetic speech the model was trained
on, says how much each preference weighs:

    T_stab = (recording > lively)    λ_s = 1 − λ_e      lively but wrong loses
    T_expr = (recording > plain)     λ_e = max(0, (α − α*) / (1 − α*))      right but flat loses

What the paper leaves open, decided here: timbre bypasses the language model, so a pair keeps its speaker's
identity through the style, taken from *another* utterance of the same speaker. A pair is scored in the mode
that made its loser. At α ≤ α* the formulas leave λ_s = 1; the paper's prose, that DGSA is SFT there, is
`below="sft"`. Beside the paper's loss stands an SFT term on the recordings where `tune.sft` asks for it, as
the presets do (`slmlab.preference.methods.SCALES`): two variants tell what each half does alone.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from slmlab import metrics
from slmlab.corpus import pairs as table
from slmlab.corpus.pairs import Pair
from slmlab.errors import LabError
from slmlab.models.lm import STYLE_TOKENS, SpeechLM
from slmlab.preference.jury import Jury, kept, seed_of, speak
from slmlab.preference.tune import PreferenceConfig, fingerprint, own, tune
from slmlab.speech.sampling import SamplingConfig

CHUNK = 64  # recordings whose samples are kept together: what a kill may cost
FREE = SamplingConfig(temperature=1.0, top_k=200, window=0)
VARIANTS: dict[str, dict[str, Any]] = {
    "dgsa": {},
    "dgsa-sft-below": {"below": "sft"},
    "dgsa-scored-plain": {"score_in_mode": False},
    "dpo": {"stability": 0.0, "expressivity": 1.0},
    "dgsa.no-expressivity": {"expressivity": 0.0},
    "dgsa.no-stability": {"stability": 0.0},
    "dgsa.random-speaker": {"same_speaker": False},
    "dgsa.fixed-weights": {"stability": 0.5, "expressivity": 0.5},
    "dgsa.no-sft-term": {"tune": {"sft": 0.0}},
    "dgsa.no-preference": {"tune": {"beta": 0.0}},
}
"""DGSA, its other readings (nothing but SFT at α ≤ α*; all scored without style), standard DPO (the
expressivity set alone, weight 1), the ablations of Table 7, and two of ours (the preferences without the SFT
term beside them, and that term alone), as settings; `tune` holds settings of `DGSAConfig.tune`.
"""


def variant(method: str, config: "DGSAConfig") -> "DGSAConfig":
    """The settings of a variant: those of `VARIANTS` in place of DGSA's own."""
    change = VARIANTS[method]
    tuned = {"tune": replace(config.tune, **change["tune"])} if "tune" in change else {}
    return replace(config, **change | tuned)


@dataclass(frozen=True)
class Recording:
    """Real speech of a text."""

    text: str
    """Its transcript, right or wrong."""
    tokens: tuple[int, ...]
    """What the tokenizer makes of it."""
    voice: str
    """Who speaks."""


@dataclass(frozen=True)
class DGSAConfig:
    """Settings of DGSA."""

    tune: PreferenceConfig
    """How the pairs are learned from."""
    alpha: float = 0.8
    """Share of synthetic speech, by hours, in the training of the model to be aligned."""
    alpha_star: float = 0.5
    """The share beyond which expressivity erodes: the paper's."""
    below: str = "stability"
    """At α ≤ α*: the `stability` set alone, as the formulas say, or `sft`, nothing at all."""
    stability: float | None = None
    """λ_s in place of the schedule's; 0 drops the set."""
    expressivity: float | None = None
    """λ_e in place of the schedule's; 0 drops the set."""
    same_speaker: bool = True
    """Styles come from the recording's own speaker; otherwise from any other."""
    score_in_mode: bool = True
    """T_stab is scored with the style that made its loser; otherwise everything is scored without style."""
    max_wer: float = 0.4
    """A recording is taken if the judge hears fewer errors than this in it."""
    sampling: SamplingConfig = FREE
    """How the losers are said."""
    seed: int = 0
    """Decides styles and samples."""

    def __post_init__(self) -> None:
        if not (0 <= self.alpha <= 1 and 0 <= self.alpha_star < 1) or self.below not in ("stability", "sft"):
            raise LabError(
                f"DGSA refuses alpha={self.alpha}, alpha_star={self.alpha_star}, below={self.below!r}: "
                "expected shares from 0 to 1, alpha_star below 1, and stability or sft."
            )

    def weights(self) -> tuple[float, float]:
        """λ_s and λ_e."""
        if self.alpha <= self.alpha_star and self.below == "sft":
            return 0.0, 0.0
        lively = max(0.0, (self.alpha - self.alpha_star) / (1 - self.alpha_star))
        stability = 1 - lively if self.stability is None else self.stability
        return stability, lively if self.expressivity is None else self.expressivity


def align(
    model: SpeechLM, recordings: Sequence[Recording], config: DGSAConfig, folder: Path, jury: Jury
) -> SpeechLM:
    """The model aligned; its pairs stay in `folder/pairs.parquet`, its log in `folder/dpo`.

    Args:
        model: SFT on the mixture; it stays as it is, the frozen reference.
        recordings: real speech of texts that may be trained on, in the jury's language.
        config: how.
        folder: where the run lives; a killed one goes on there.
        jury: accepts recordings, and watches the model on dev.

    Raises:
        LabError: no pair can be made, or the folder is another run's.
    """
    own(folder, [config, jury.language, [*recordings], fingerprint(model)])
    if not any(config.weights()):
        tqdm.write(f"{folder.name}: at alpha {config.alpha} both sets weigh 0: DGSA is SFT, nothing to do")
        return model
    styles = [_other(recordings, i, config) for i in range(len(recordings))]
    samples: list[dict[str, Any]] = []
    for start in tqdm(range(0, len(recordings), CHUNK), desc="samples", unit="chunk", disable=None):
        rows = range(start, min(start + CHUNK, len(recordings)))
        make = functools.partial(_samples, model, recordings, styles, rows, config, jury)
        samples += kept(folder / "samples" / f"{start:06}.jsonl", make)
    pairs = weigh(list(_pairs(jury.language, samples, config)), *config.weights())
    table.write(pairs, folder / "pairs.parquet")
    return tune(model, pairs, config.tune, folder / "dpo", jury)


def _other(recordings: Sequence[Recording], i: int, config: DGSAConfig) -> list[int]:
    """The style that recording i is said in, from another one of its speaker (or of any other speaker)."""
    fitting = [
        other.tokens
        for j, other in enumerate(recordings)
        if j != i and other.tokens and (other.voice == recordings[i].voice) == config.same_speaker
    ]
    draw = np.random.default_rng((config.seed, i))
    return list(fitting[int(draw.integers(len(fitting)))][:STYLE_TOKENS]) if fitting else []


def _samples(
    model: SpeechLM,
    recordings: Sequence[Recording],
    styles: Sequence[list[int]],
    rows: Sequence[int],
    config: DGSAConfig,
    jury: Jury,
) -> list[dict[str, Any]]:
    """What the model says to the texts of recordings that have a style and that the judge accepts."""
    heard = jury.judge([recordings[i].tokens for i in rows])
    errors = [metrics.wer(recordings[i].text, words.text) for i, words in zip(rows, heard, strict=True)]
    taken = [i for i, wer in zip(rows, errors, strict=True) if wer < config.max_wer and styles[i]]
    if not taken:
        return []
    texts, manners = [recordings[i].text for i in taken], [styles[i] for i in taken]
    seeds = [[seed_of(config.seed, i, mode) for i in taken] for mode in (0, 1)]
    lively = speak(model, jury.language, texts, config.sampling, seeds[0], manners)
    plain = speak(model, jury.language, texts, config.sampling, seeds[1])
    return [
        {"id": i, "text": recordings[i].text, "real": recordings[i].tokens, "style": styles[i]} | sides
        for i, sides in zip(
            taken, ({"lively": a, "plain": b} for a, b in zip(lively, plain, strict=True)), strict=True
        )
    ]


def _pairs(language: str, samples: Sequence[dict[str, Any]], config: DGSAConfig) -> Iterator[Pair]:
    """Both preference sets."""
    for row in samples:
        real, style = tuple(row["real"]), tuple(row["style"]) if config.score_in_mode else ()
        for group, loser, mode in (("stability", row["lively"], style), ("expressivity", row["plain"], ())):
            if loser and tuple(loser) != real:
                name = f"{group}-{row['id']}"
                yield Pair(name, language, row["text"], real, tuple(loser), "real", mode, group)


def weigh(pairs: Sequence[Pair], stability: float, expressivity: float) -> list[Pair]:
    """Pairs with the weights that make a plain mean over them λ_s · L(T_stab) + λ_e · L(T_expr).

    A set of weight 0 is dropped. LabError when nothing is left.
    """
    shares = {"stability": stability, "expressivity": expressivity}
    left = [pair for pair in pairs if shares[pair.group] > 0]
    if not left:
        raise LabError("DGSA has no pair: the judge accepted no recording, or no speaker recorded two texts.")
    sizes = {name: sum(pair.group == name for pair in left) for name in shares}
    return [replace(pair, weight=shares[pair.group] * len(left) / sizes[pair.group]) for pair in left]
