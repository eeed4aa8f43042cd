"""Exercises of notebooks 11 to 13: weights and styles of DGSA, fates of candidates, and what a comparison
says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from slmlab import metrics
from slmlab.metrics.statistics import Estimate
from slmlab.notebook.exercises import Exercise, like
from slmlab.preference import dgsa, tdsc
from slmlab.preference.dgsa import DGSAConfig
from slmlab.preference.jury import Codes, Judge
from slmlab.preference.methods import SCALES
from slmlab.preference.tdsc import Candidate, TDSCConfig


def figures(said: Mapping[str, Codes], texts: Sequence[str], judge: Judge) -> pd.DataFrame:
    """What systems say to the same texts, in figures: a row a system, judged from the tokens.

    F0 spread is a mean over what is clearly said (`metrics.CLEAR`), as broken speech looks lively; H_p is
    taken at equal token counts.
    """
    rows, bits = {}, metrics.matched_entropies(list(said.values()))
    for (name, codes), entropy in zip(said.items(), bits, strict=True):
        heard = judge(codes)
        spreads = [
            hearing.f0_spread
            for text, hearing in zip(texts, heard, strict=True)
            if metrics.cer(text, hearing.text) <= metrics.CLEAR and not np.isnan(hearing.f0_spread)
        ]
        rows[name] = {
            "wer": metrics.corpus_wer(texts, [hearing.text for hearing in heard]),
            "F0 spread": float(np.mean(spreads)) if spreads else float("nan"),
            "H_p": entropy,
            "repetition": float(np.mean(np.nan_to_num([metrics.repetition_rate(row) for row in codes]))),
        }
    return pd.DataFrame(rows).T.rename_axis("system")


DGSA = DGSAConfig(SCALES["smoke"].dgsa)
TDSC = TDSCConfig(SCALES["smoke"].sft, None)
VOICES = (("anh", "binh", "anh", "chi", "anh"), ("anh", "binh", "binh"))
TRIES = (
    (0.2, 0.0, 1.0),
    (0.5, 0.0, 1.0),
    (0.2, 0.3, 1.0),
    (0.2, 0.0, 2.5),
    (0.4, 0.0, 1.0),
    (0.39, 0.09, 0.5),
    (0.5, 0.3, 1.0),
    (0.5, 0.0, 2.5),
    (0.2, 0.3, 2.5),
)
POINTS = {"start": (38.9, 10.36), "dpo": (45.2, 10.49), "rejection": (40.5, 10.41), "dgsa": (38.9, 10.52)}


def _weights(alpha: float, alpha_star: float) -> tuple[float, float]:
    return replace(DGSA, alpha=alpha, alpha_star=alpha_star).weights()


def _scales(alpha: float, alpha_star: float) -> tuple[float, float]:
    lively = max(0.0, (alpha - alpha_star) / (1 - alpha_star))
    return 1 - lively, lively


weights = Exercise(
    difficulty=1,
    minutes=5,
    fault=like(
        _weights,
        ((0.8, 0.5), (0.5, 0.5), (0.3, 0.5), (0.9, 0.6)),
        {
            "Below α* the formula goes under 0: there the expressivity set counts nothing.": lambda a, s: (
                1 - (a - s) / (1 - s),
                (a - s) / (1 - s),
            ),
            "λ_s comes first: what is lively but wrong must lose.": lambda a, s: _weights(a, s)[::-1],
            "Divide by 1 − α*: at α = 1 all weight is on expressivity.": lambda a, s: (
                1 - max(0.0, a - s),
                max(0.0, a - s),
            ),
        },
    ),
    solution=(_scales, DGSAConfig.weights),
    why="The more of the speech was synthetic, the flatter the model, and the more weight liveliness gets.",
)


def _others(voices: Sequence[str], i: int) -> list[int]:
    return [j for j, voice in enumerate(voices) if voice == voices[i] and j != i]


others = Exercise(
    difficulty=1,
    minutes=5,
    fault=like(
        _others,
        tuple((voices, i) for voices in VOICES for i in range(len(voices))),
        {
            "The utterance itself may not be its own style: the model would copy it.": lambda voices, i: [
                j for j, voice in enumerate(voices) if voice == voices[i]
            ],
            "Those are other speakers: what is lively would then differ in who speaks, too.": (
                lambda voices, i: [j for j, voice in enumerate(voices) if voice != voices[i]]
            ),
        },
    ),
    solution=(_others, dgsa._other),
    why="Pairs that keep who speaks teach how to speak.",
)


def _pair_weights(stability: float, expressivity: float, n: int, m: int) -> tuple[float, float]:
    return stability * (n + m) / n, expressivity * (n + m) / m


pair_weights = Exercise(
    difficulty=2,
    minutes=8,
    fault=like(
        _pair_weights,
        ((0.4, 0.6, 10, 10), (0.4, 0.6, 30, 10), (0.5, 0.5, 7, 3)),
        {
            "Of sets of different sizes the larger one would count for more than its λ.": lambda s, e, n, m: (
                (s, e)
            ),
            "Nearly: a mean over all pairs divides by n_s + n_e, so multiply by it.": lambda s, e, n, m: (
                s / n,
                e / m,
            ),
            "That doubles only right for sets of one size.": lambda s, e, n, m: (2 * s, 2 * e),
        },
    ),
    solution=(_pair_weights, dgsa.weigh),
    why="λ is a promise about the loss, whatever the judge left of each set.",
)


def _fate(wer: float, repetition: float, length: float) -> str:
    tried = Candidate(0, 0, "một hai", 1.0, 0, (1,), "", wer, repetition, length)
    fate = tdsc.decide([tried], TDSC)[0].fate
    return "accepted" if fate in tdsc.PASSED else fate


def _first_fault(wer: float, repetition: float, length: float) -> str:
    if not 0.5 <= length <= 2:
        return "length"
    if repetition >= 0.1:
        return "repetition"
    return "words" if wer >= 0.4 else "accepted"


fate = Exercise(
    difficulty=1,
    minutes=6,
    fault=like(
        _fate,
        TRIES,
        {
            "A word error rate of exactly 40 % is too much: below 40 % is asked for.": lambda w, r, n: (
                "length"
                if not 0.5 <= n <= 2
                else "repetition"
                if not r < 0.1
                else "words"
                if w > 0.4
                else "accepted"
            ),
            "Half of the expected length is still long enough.": lambda w, r, n: (
                "length"
                if not 0.5 < n <= 2
                else "repetition"
                if not r < 0.1
                else "words"
                if not w < 0.4
                else "accepted"
            ),
            "Loops pass your filter.": lambda w, r, n: (
                "length" if not 0.5 <= n <= 2 else "words" if not w < 0.4 else "accepted"
            ),
            "Words are asked last: what babbles or loops is thrown away for that, however wrong its words.": (
                lambda w, r, n: (
                    "words"
                    if not w < 0.4
                    else "length"
                    if not 0.5 <= n <= 2
                    else "repetition"
                    if not r < 0.1
                    else "accepted"
                )
            ),
        },
    ),
    solution=(_first_fault, tdsc.decide),
    why="Length and loops are asked first, so that a loser is wrong in its words alone.",
)


def _pair(wers: Sequence[float]) -> tuple[int, int]:
    tried = [Candidate(0, 0, "một hai", 1.0, i, (1,), "", wer, 0.0, 1.0) for i, wer in enumerate(wers)]
    fates = [c.fate for c in tdsc.decide(tried, TDSC)]
    return (fates.index("winner"), fates.index("loser")) if "loser" in fates else (-1, -1)


def _ends(wers: Sequence[float]) -> tuple[int, int]:
    best, worst = min(wers), max(wers)
    return (wers.index(best), wers.index(worst)) if best < 0.4 <= worst else (-1, -1)


pair = Exercise(
    difficulty=2,
    minutes=8,
    fault=like(
        _pair,
        (([0.3, 0.1, 0.9, 0.5],), ([0.1, 0.3, 0.2],), ([0.9, 0.8],), ([0.0, 0.5],)),
        {
            "The worst that was accepted is no loser: nothing is wrong with it.": lambda wers: (
                int(min(range(len(wers)), key=lambda i: wers[i])),
                int(max(range(len(wers)), key=lambda i: wers[i])),
            ),
            "The loser is the worst, not the one that just failed.": lambda wers: (
                (-1, -1)
                if min(wers) >= 0.4 or max(wers) < 0.4
                else (
                    wers.index(min(wers)),
                    wers.index(min(wer for wer in wers if wer >= 0.4)),
                )
            ),
        },
    ),
    solution=(_ends, tdsc.decide),
    why="A pair needs one that is understood and one that is not, of the same text, length and smoothness.",
)


def _temperatures(number: int) -> list[float]:
    return list(TDSC.schedule(number))


temperatures = Exercise(
    difficulty=1,
    minutes=4,
    fault=like(
        _temperatures,
        ((0,), (3,), (4,)),
        {
            "That is the paper's other schedule; the first one, which fits its figures, begins at 0.8.": (
                lambda k: [0.7, 1.0, 1.3 + 0.1 * k]
            ),
            "Rounds are counted from 0: the first has 0.8.": lambda k: [0.7, 1.0, 0.8 + 0.1 * (k + 1)],
            "The two that stay are missing: 0.7 and 1.0.": lambda k: [0.8 + 0.1 * k],
        },
    ),
    solution=(lambda number: [0.7, 1.0, 0.8 + 0.1 * number], TDSCConfig.schedule),
    why="What the model has learned to say safely it may then say more freely.",
)


def _relative(before: float, after: float) -> float:
    return 100 * (after - before) / before


relative = Exercise(
    difficulty=1,
    minutes=3,
    fault=like(
        _relative,
        ((38.5, 29.8), (40.0, 44.0)),
        {
            "Those are points; a relative change is a share of where it began.": lambda a, b: b - a,
            "Of where it began, not of where it ended.": lambda a, b: 100 * (b - a) / b,
            "A fall is negative.": lambda a, b: 100 * (a - b) / a,
        },
    ),
    solution=(_relative,),
    why="From 38.5 to 29.8 % is 8.7 points and 23 % fewer errors: say which one you mean.",
)


def _front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    def beaten(wer: float, h: float) -> bool:
        return any(x <= wer and y >= h and (x, y) != (wer, h) for x, y in points.values())

    return sorted(name for name, at in points.items() if not beaten(*at))


def _front_fault(answer: object) -> str:
    said = sorted(answer) if isinstance(answer, (list, set, tuple)) else answer
    if said == _front(POINTS):
        return ""
    if isinstance(said, list) and "dpo" in said:
        return "Standard DPO is beaten: DGSA has more entropy and fewer errors."
    if isinstance(said, list) and "start" in said:
        return "The start makes as few errors as DGSA, but has less entropy: it is beaten."
    return "Look for the systems that no other one matches in both measures."


front = Exercise(
    difficulty=2,
    minutes=5,
    fault=_front_fault,
    solution=(lambda: ["dgsa"],),
    why="On two axes there need be no winner; here the paper's own numbers leave one system.",
)


def _not_worse(draws: Sequence[float], margin: float) -> bool:
    return Estimate(0.0, np.asarray(draws, dtype=float)).p_below(margin) < 0.05


GOOD, WIDE = [0.01 * i for i in range(100)], [0.05 * i for i in range(100)]
not_worse = Exercise(
    difficulty=3,
    minutes=10,
    fault=like(
        lambda draws, margin: float(_not_worse(draws, margin)),
        ((GOOD, 2.0), (WIDE, 2.0), (GOOD, 0.5), ([x - 5 for x in WIDE], 2.0)),
        {
            "The mean alone does not do: what could it be with other sentences?": lambda draws, margin: float(
                sum(draws) / len(draws) < margin
            ),
            "No proof of a difference is no proof of none: compare with the margin, not with 0.": (
                lambda draws, margin: float(sum(x <= 0 for x in draws) / len(draws) > 0.05)
            ),
        },
    ),
    solution=(
        lambda draws, margin: (1 + sum(x >= margin for x in draws)) / (1 + len(draws)) < 0.05,
        Estimate.p_below,
        Estimate._share,
    ),
    why="“Not worse” is a claim of its own: the whole interval has to lie on the right side of the margin.",
)
