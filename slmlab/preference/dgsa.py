"""Dynamic gain-stability alignment, DGSA: where some real speech exists (Geng et al. 2026, §4).

The frozen SFT model says every text of a recording twice: with a style prefix (lively, may slip) and without
(safe, flat). The recording is preferred to both, and α, the share of synthetic speech the model was trained
on, says how much each preference weighs:

    T_stab = (recording > lively)    λ_s = 1 − λ_e      lively but wrong loses
    T_expr = (recording > plain)     λ_e = max(0, (α − α*) / (1 − α*))      right but flat loses

What the paper leaves open, decided here: timbre bypasses the language model, so a pair keeps its speaker's
identity through the style, taken from *another* utterance of the same speaker. A pair is scored in the mode
that made its loser. At α ≤ α* the formulas leave λ_s = 1, and they are followed, though the paper's prose
says that DGSA is SFT there. Beside the paper's loss stands an SFT term on the recordings where `tune.sft`
asks for it, as the presets do (`slmlab.preference.methods.SCALES`): two variants tell what each half does
alone.
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
from slmlab.preference.jury import Jury, seed_of
from slmlab.preference.tune import PreferenceConfig, claim, fingerprint, in_chunks, tune
from slmlab.speech.sampling import SamplingConfig, speak

CHUNK = 64  # recordings whose samples are made together: what a kill may cost
FREE = SamplingConfig(temperature=1.0, top_k=200, window=0)
VARIANTS: dict[str, dict[str, Any]] = {
    "dgsa": {},
    "dpo": {"stability": 0.0, "expressivity": 1.0},
    "dgsa.no-expressivity": {"expressivity": 0.0},
    "dgsa.no-stability": {"stability": 0.0},
    "dgsa.random-speaker": {"same_speaker": False},
    "dgsa.fixed-weights": {"stability": 0.5, "expressivity": 0.5},
    "dgsa.no-sft-term": {"tune": {"sft": 0.0}},
    "dgsa.no-preference": {"tune": {"beta": 0.0}},
}
"""DGSA, standard DPO (the expressivity set alone, weight 1), the ablations of Table 7, and two of ours (the
preferences without the SFT term beside them, and that term alone), as settings; `tune` holds settings of
`DGSAConfig.tune`.
"""


@dataclass(frozen=True)
class Recording:
    """Real speech: its transcript, right or wrong, its speech tokens, and who speaks."""

    text: str
    tokens: tuple[int, ...]
    voice: str


@dataclass(frozen=True)
class DGSAConfig:
    """Settings of DGSA."""

    tune: PreferenceConfig
    """How the pairs are learned from."""
    alpha: float = 0.8
    """Share of synthetic speech, by hours, in the training of the model to be aligned."""
    alpha_star: float = 0.5
    """The share beyond which expressivity erodes: the paper's."""
    stability: float | None = None
    """λ_s in place of the schedule's; 0 drops the set."""
    expressivity: float | None = None
    """λ_e in place of the schedule's; 0 drops the set."""
    same_speaker: bool = True
    """Styles come from the recording's own speaker; otherwise from any other."""
    max_wer: float = 0.4
    """A recording is taken if the judge hears fewer errors than this in it."""
    sampling: SamplingConfig = FREE
    """How the losers are said."""
    seed: int = 0
    """Decides styles and samples."""

    def __post_init__(self) -> None:
        if not (0 <= self.alpha <= 1 and 0 <= self.alpha_star < 1):
            raise LabError(
                f"DGSA refuses alpha={self.alpha}, alpha_star={self.alpha_star}: expected shares from 0 to "
                "1, alpha_star below 1."
            )

    def weights(self) -> tuple[float, float]:
        """λ_s and λ_e."""
        lively = max(0.0, (self.alpha - self.alpha_star) / (1 - self.alpha_star))
        stability = 1 - lively if self.stability is None else self.stability
        return stability, lively if self.expressivity is None else self.expressivity


def variant(method: str, config: DGSAConfig) -> DGSAConfig:
    """The settings of a variant: those of `VARIANTS` in place of DGSA's own."""
    change = dict(VARIANTS[method])
    return replace(config, tune=replace(config.tune, **change.pop("tune", {})), **change)


def align(
    model: SpeechLM, recordings: Sequence[Recording], config: DGSAConfig, folder: Path, jury: Jury
) -> SpeechLM:
    """The model aligned by recordings, in the jury's language, of texts that may be trained on.

    The given one, SFT on the mixture, stays as it is, the frozen reference. The jury accepts recordings, and
    watches on dev. Pairs stay in `folder/pairs.parquet`, the log in `folder/dpo`; a killed run goes on there.
    LabError: no pair can be made, or the folder is another run's.
    """
    claim(folder, [config, jury.language, [*recordings], fingerprint(model)])
    if not any(config.weights()):
        tqdm.write(f"{folder.name}: at alpha {config.alpha} both sets weigh 0: DGSA is SFT, nothing to do")
        return model
    make = functools.partial(_samples, model, recordings, config, jury)
    rows = in_chunks(folder / "samples", len(recordings), CHUNK, make)
    pairs = weigh(list(_pairs(jury.language, recordings, rows)), *config.weights())
    if not pairs:
        whose = "its speaker" if config.same_speaker else "another speaker"
        fits = [(row["accepted"], bool(row["style"])) for row in rows]
        accepted, styled, both = sum(a for a, _ in fits), sum(s for _, s in fits), sum(map(all, fits))
        unlike = ", and to none of them did the model say anything else than the recording" if both else ""
        raise LabError(
            f"DGSA has no pair: of {len(rows)} recordings the judge accepted {accepted} (it must hear less "
            f"than {config.max_wer:.0%} word errors), and {styled} have another recording of {whose} to take "
            f"a style from; {both} have both{unlike}. Record every speaker twice or more, and check the "
            "transcripts."
        )
    table.write(pairs, folder / "pairs.parquet")
    return tune(model, pairs, config.tune, folder / "dpo", jury)


def style_of(recordings: Sequence[Recording], i: int, config: DGSAConfig) -> list[int]:
    """The style that recording i is said in, from another one of its speaker (or of any other speaker)."""
    others = [other for j, other in enumerate(recordings) if j != i and other.tokens]
    same, voice = config.same_speaker, recordings[i].voice
    fitting = [other.tokens for other in others if (other.voice == voice) == same]
    draw = np.random.default_rng((config.seed, i))
    return list(fitting[int(draw.integers(len(fitting)))][:STYLE_TOKENS]) if fitting else []


def _samples(
    model: SpeechLM, recordings: Sequence[Recording], config: DGSAConfig, jury: Jury, chunk: Sequence[int]
) -> list[dict[str, Any]]:
    """Which recordings the judge accepts, and what the model says to the texts of those with a style."""
    rows: list[dict[str, Any]] = []
    for i, hearing in zip(chunk, jury.judge([recordings[i].tokens for i in chunk]), strict=True):
        accepted = metrics.wer(recordings[i].text, hearing.text, jury.language) < config.max_wer
        style = style_of(recordings, i, config)
        rows.append({"id": i, "accepted": accepted, "style": style, "lively": [], "plain": []})
    taken = [row for row in rows if row["accepted"] and row["style"]]
    texts = [recordings[row["id"]].text for row in taken]
    for mode, (name, styles) in enumerate({"lively": [row["style"] for row in taken], "plain": []}.items()):
        seeds = [seed_of(config.seed, row["id"], mode) for row in taken]
        codes = speak(model, jury.language, texts, config.sampling, seeds, styles)
        for row, said in zip(taken, codes, strict=True):
            row[name] = said
    return rows


def _pairs(language: str, recordings: Sequence[Recording], rows: Sequence[dict[str, Any]]) -> Iterator[Pair]:
    """Both preference sets."""
    for row in rows:
        real = recordings[row["id"]]
        for group, mode, style in (("stability", "lively", row["style"]), ("expressivity", "plain", ())):
            name, loser = f"{group}-{row['id']}", tuple(row[mode])
            if loser and loser != real.tokens:
                yield Pair(name, language, real.text, real.tokens, loser, "real", tuple(style), group)


def weigh(pairs: Sequence[Pair], stability: float, expressivity: float) -> list[Pair]:
    """Weighted so that their mean is λ_s · L(T_stab) + λ_e · L(T_expr); a set of weight 0 is dropped."""
    shares = {"stability": stability, "expressivity": expressivity}
    left = [pair for pair in pairs if shares[pair.group] > 0]
    sizes = {name: sum(pair.group == name for pair in left) for name in shares}
    return [replace(pair, weight=shares[pair.group] * len(left) / sizes[pair.group]) for pair in left]
