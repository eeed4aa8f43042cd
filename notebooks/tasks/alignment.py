"""Exercises of notebooks 11 to 13: weights and styles of DGSA, fates of tries, and what a comparison says."""

from dataclasses import replace

import numpy as np

from slmlab.metrics.statistics import Estimate
from slmlab.preference import dgsa, tdsc
from slmlab.preference.dgsa import DGSAConfig
from slmlab.preference.methods import SCALES
from slmlab.preference.tdsc import Candidate, TDSCConfig
from tasks.exercise import exercise

DGSA = DGSAConfig(SCALES["smoke"].dgsa)
TDSC = TDSCConfig(SCALES["smoke"].sft, None)


def _weights(alpha, alpha_star):
    return replace(DGSA, alpha=alpha, alpha_star=alpha_star).weights()


@exercise(
    difficulty=1,
    minutes=5,
    cases=[(0.8, 0.5), (0.5, 0.5), (0.3, 0.5), (0.9, 0.6)],
    mistakes={
        "Below α* the formula goes under 0: there the expressivity set counts nothing.": (
            lambda a, star: ((1 - a) / (1 - star), (a - star) / (1 - star))
        ),
        "λ_s comes first: what is lively but wrong must lose.": lambda a, star: _weights(a, star)[::-1],
        "Divide by 1 − α*: at α = 1 all weight is on expressivity.": (
            lambda a, star: (1 - max(0.0, a - star), max(0.0, a - star))
        ),
    },
    reference=_weights,
    package=[DGSAConfig.weights],
)
def weights(alpha, alpha_star):
    """The more of the speech was synthetic, the flatter the model, and the more weight liveliness gets."""
    lively = max(0.0, (alpha - alpha_star) / (1 - alpha_star))
    return 1 - lively, lively


@exercise(
    difficulty=1,
    minutes=5,
    cases=[(voices, i) for voices in (["anh", "binh", "anh", "chi", "anh"], ["anh", "binh"]) for i in (0, 1)],
    mistakes={
        "The utterance itself may not be its own style: the model would copy it.": (
            lambda voices, i: [j for j, voice in enumerate(voices) if voice == voices[i]]
        ),
        "Those are other speakers: what is lively would then differ in who speaks, too.": (
            lambda voices, i: [j for j, voice in enumerate(voices) if voice != voices[i]]
        ),
    },
    package=[dgsa.style_of],
)
def others(voices, i):
    """Pairs that keep who speaks teach how to speak."""
    return [j for j, voice in enumerate(voices) if voice == voices[i] and j != i]


@exercise(
    difficulty=2,
    minutes=8,
    cases=[(0.4, 0.6, 10, 10), (0.4, 0.6, 30, 10), (0.5, 0.5, 7, 3)],
    mistakes={
        "Of sets of different sizes the larger one would count more than its λ.": lambda s, e, n, m: (s, e),
        "Nearly: a mean over all pairs divides by n + m: multiply by it.": lambda s, e, n, m: (s / n, e / m),
        "That doubling is right for sets of one size only.": lambda s, e, n, m: (2 * s, 2 * e),
    },
    package=[dgsa.weigh],
)
def pair_weights(stability, expressivity, n, m):
    """λ is a promise about the loss, whatever the judge left of each set."""
    return stability * (n + m) / n, expressivity * (n + m) / m


def _decide(*tries):
    """What the package makes of tries at one text, each with its word error rate, repetition and length."""
    tried = [Candidate(0, 0, "một hai", 1.0, i, (1,), "", *figures) for i, figures in enumerate(tries)]
    return [candidate.fate for candidate in tdsc.decide(tried, TDSC)]


def _fate(wer, repetition, length):
    (fate,) = _decide((wer, repetition, length))
    return "accepted" if fate in tdsc.PASSED else fate


def _first_true(**faults):
    return next((name for name, holds in faults.items() if holds), "accepted")


@exercise(
    difficulty=1,
    minutes=6,
    cases=[
        *((0.2, 0.0, 1.0), (0.5, 0.0, 1.0), (0.2, 0.3, 1.0), (0.2, 0.0, 2.5), (0.4, 0.0, 1.0)),
        *((0.39, 0.09, 0.5), (0.5, 0.3, 1.0), (0.5, 0.0, 2.5), (0.2, 0.3, 2.5)),
    ],
    mistakes={
        "A word error rate of exactly 40 % is too much: below 40 % is asked for.": (
            lambda w, r, n: _first_true(length=not 0.5 <= n <= 2, repetition=r >= 0.1, words=w > 0.4)
        ),
        "Half of the expected length is still long enough.": (
            lambda w, r, n: _first_true(length=not 0.5 < n <= 2, repetition=r >= 0.1, words=w >= 0.4)
        ),
        "Loops pass your filter.": (lambda w, r, n: _first_true(length=not 0.5 <= n <= 2, words=w >= 0.4)),
        "Words are asked last: what babbles or loops is thrown away for that, however wrong its words.": (
            lambda w, r, n: _first_true(words=w >= 0.4, length=not 0.5 <= n <= 2, repetition=r >= 0.1)
        ),
    },
    reference=_fate,
    package=[tdsc.decide],
)
def fate(wer, repetition, length):
    """Length and loops are asked first, so that a loser is wrong in its words alone."""
    if not 0.5 <= length <= 2:
        return "length"
    if repetition >= 0.1:
        return "repetition"
    return "words" if wer >= 0.4 else "accepted"


def _pair(wers):
    fates = _decide(*((wer, 0.0, 1.0) for wer in wers))
    return (fates.index("winner"), fates.index("loser")) if "loser" in fates else (-1, -1)


def _just_failed(wers):
    winner, loser = pair.solution(wers)
    return winner, loser if loser < 0 else wers.index(min(wer for wer in wers if wer >= 0.4))


@exercise(
    difficulty=2,
    minutes=8,
    cases=[([0.3, 0.1, 0.9, 0.5],), ([0.1, 0.3, 0.2],), ([0.9, 0.8],), ([0.0, 0.5],)],
    mistakes={
        "The worst that was accepted is no loser: nothing is wrong with it.": (
            lambda wers: (int(np.argmin(wers)), int(np.argmax(wers)))
        ),
        "The loser is the worst, not the one that just failed.": _just_failed,
    },
    reference=_pair,
    package=[tdsc.decide],
)
def pair(wers):
    """A pair needs one that is understood and one that is not, of the same text, length and smoothness."""
    best, worst = min(wers), max(wers)
    return (wers.index(best), wers.index(worst)) if best < 0.4 <= worst else (-1, -1)


@exercise(
    difficulty=1,
    minutes=4,
    cases=[(0,), (3,), (4,)],
    mistakes={
        "That is the paper's other schedule; the first one, which fits its figures, begins at 0.8.": (
            lambda number: [0.7, 1.0, 1.3 + 0.1 * number]
        ),
        "Rounds are counted from 0: the first has 0.8.": lambda number: [0.7, 1.0, 0.9 + 0.1 * number],
        "The two that stay are missing: 0.7 and 1.0.": lambda number: [0.8 + 0.1 * number],
    },
    reference=lambda number: list(TDSC.schedule(number)),
    package=[TDSCConfig.schedule],
)
def temperatures(number):
    """What the model has learned to say safely it may then say more freely."""
    return [0.7, 1.0, 0.8 + 0.1 * number]


@exercise(
    difficulty=1,
    minutes=3,
    cases=[(38.5, 29.8), (40.0, 44.0)],
    mistakes={
        "Those are points; a relative change is a share of where it began.": lambda a, b: b - a,
        "Of where it began, not of where it ended.": lambda a, b: 100 * (b - a) / b,
        "A fall is negative.": lambda a, b: 100 * (a - b) / a,
    },
)
def relative(before, after):
    """From 38.5 to 29.8 % is 8.7 points and 23 % fewer errors: say which one you mean."""
    return 100 * (after - before) / before


def _front_fault(answer):
    if sorted(answer) == ["dgsa"]:
        return ""
    if "dpo" in answer:
        return "Standard DPO is beaten: DGSA has more entropy and fewer errors."
    if "start" in answer:
        return "The start makes as few errors as DGSA, but has less entropy: it is beaten."
    return "Look for the systems that no other one matches in both measures."


@exercise(difficulty=2, minutes=5, fault=_front_fault)
def front():
    """On two axes there need be no winner; here the paper's own numbers leave one system."""
    return ["dgsa"]


GOOD, WIDE = [0.01 * i for i in range(100)], [0.05 * i for i in range(100)]


@exercise(
    difficulty=3,
    minutes=10,
    cases=[(GOOD, 2.0), (WIDE, 2.0), (GOOD, 0.5), ([x - 5 for x in WIDE], 2.0)],
    mistakes={
        "The mean alone does not do: what could it be with other sentences?": (
            lambda draws, margin: sum(draws) / len(draws) < margin
        ),
        "No proof of a difference is no proof of none: compare with the margin, not with 0.": (
            lambda draws, margin: sum(x <= 0 for x in draws) / len(draws) > 0.05
        ),
    },
    reference=lambda draws, margin: Estimate(0.0, np.asarray(draws)).p_below(margin) < 0.05,
    package=[Estimate.p_below],
)
def not_worse(draws, margin):
    """“Not worse” is a claim of its own: the whole interval has to lie on the right side of the margin."""
    return (1 + sum(x >= margin for x in draws)) / (1 + len(draws)) < 0.05
