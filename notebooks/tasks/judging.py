"""Exercises of notebook 07: what speech adds to a judge's own errors, word errors, and aligning in time."""

import difflib

import numpy as np

from slmlab import metrics
from tasks.exercise import exercise

GRID = np.array([[2.0, 5.0, 9.0], [4.0, 2.0, 1.0], [8.0, 3.0, 2.0], [9.0, 7.0, 1.0]])
SLOW = np.array([[1.0, 9.0], [1.0, 9.0], [1.0, 9.0], [9.0, 1.0]])


@exercise(
    difficulty=1,
    minutes=3,
    cases=[(0.2, 0.05), (0.05, 0.05), (0.03, 0.05)],
    mistakes={
        "Speech may be clearer to a judge than recordings are; what it adds is then 0, not less.": (
            lambda generated, recorded: generated - recorded
        ),
        "Speech may be clearer than recordings: then it adds 0; its size alone would punish that.": (
            lambda generated, recorded: abs(generated - recorded)
        ),
        "A quotient says how many times as many; asked is how many more.": lambda speech, own: speech / own,
        "Turned round: take the judge's own errors away from the others.": lambda speech, own: max(
            0, own - speech
        ),
    },
    reference=metrics.calibrated_cer,
)
def added(generated, recorded):
    """Without this, a bad judge makes every system look bad."""
    return max(0.0, generated - recorded)


def edits(wanted, found):
    """The table that notebook 07 builds, which has this name there."""
    cost = np.add.outer(np.arange(len(wanted) + 1), np.arange(len(found) + 1))
    for i, a in enumerate(wanted, start=1):
        for j, b in enumerate(found, start=1):
            cost[i, j] = min(cost[i - 1, j] + 1, cost[i, j - 1] + 1, cost[i - 1, j - 1] + (a != b))
    return cost


def _place_by_place(text, heard):
    wanted, found = text.split(), heard.split()
    wrong = sum(a != b for a, b in zip(wanted, found, strict=False))
    return (wrong + abs(len(wanted) - len(found))) / len(wanted)


def _by_blocks(text, heard):
    wanted, found = text.split(), heard.split()
    steps = difflib.SequenceMatcher(None, wanted, found).get_opcodes()
    return sum(max(b - a, d - c) for kind, a, b, c, d in steps if kind != "equal") / len(wanted)


@exercise(
    difficulty=2,
    minutes=12,
    cases=[
        ("mama anapika chakula", "mama anapika"),
        ("mama anapika chakula", "mama mama anapika chakula leo"),
        ("baba anasoma", "mama anasoma"),
        ("habari za asubuhi", "za asubuhi"),
        ("mama", "mama na baba na dada"),
        ("na mama na baba", "mama na na na baba mama"),
    ],
    mistakes={
        "You divide by the words heard: then it pays to say more. Take those of the text.": (
            lambda text, heard: metrics.wer(text, heard) * len(text.split()) / len(heard.split())
        ),
        "One word more shifts all that follow, and each counts as wrong: align first.": _place_by_place,
        "You only count what is missing: words that nobody wrote are errors too.": (
            lambda text, heard: len(set(text.split()) - set(heard.split())) / len(text.split())
        ),
        "These are characters: cut both texts into words first.": metrics.cer,
        "That is the whole table: divide its last cell, [-1, -1], by the words of the text.": (
            lambda text, heard: edits(text.split(), heard.split())
        ),
        "That is the whole table, divided: the answer is in its last cell alone, [-1, -1].": (
            lambda text, heard: edits(text.split(), heard.split()) / len(text.split())
        ),
        "More errors than words are possible, where words are heard that nobody wrote: no limit of 1.": (
            lambda text, heard: min(1.0, metrics.wer(text, heard))
        ),
        "That finds blocks that agree, not the fewest edits: fill the table, as above.": _by_blocks,
        "Divide by the words of the text, not by its letters.": (
            lambda text, heard: metrics.wer(text, heard) * len(text.split()) / len(text)
        ),
        "Those are the edits: divide by the text's words.": lambda a, b: metrics.wer(a, b) * len(a.split()),
    },
    reference=metrics.wer,
    package=[metrics.corpus_wer],
)
def word_errors(text, heard):
    """The package leaves the counting to a library, jiwer; how words are spelt for it is its own affair."""
    return edits(text.split(), heard.split())[-1, -1] / len(text.split())


def _greedy(cost):
    i, j, total = 0, 0, cost[0, 0]
    while (i, j) != (len(cost) - 1, cost.shape[1] - 1):
        steps = [(i + 1, j + 1), (i + 1, j), (i, j + 1)]
        i, j = min((s for s in steps if s[0] < len(cost) and s[1] < cost.shape[1]), key=cost.__getitem__)
        total += cost[i, j]
    return total


def _filled(cost, ways):
    total = np.full(cost.shape, np.inf)
    for i, j in np.ndindex(cost.shape):
        before = [total[i - a, j - b] for a, b in ways if i >= a and j >= b]
        total[i, j] = cost[i, j] + (min(before, default=np.inf) if i or j else 0)
    return float(total[-1, -1])


def _along_path(cost):
    return cost[tuple(metrics.cheapest_path(cost).T)].sum()


@exercise(
    difficulty=3,
    minutes=20,
    cases=[(GRID,), (SLOW,), (GRID.T,)],
    mistakes={
        "Taking the cheapest next step is not the cheapest way: fill the whole table first.": _greedy,
        "You forgot the way from the left, where the first sound waits.": lambda cost: _filled(
            cost, ((1, 1), (1, 0))
        ),
        "You forgot the way from above, where the second sound waits.": lambda cost: _filled(
            cost, ((1, 1), (0, 1))
        ),
        "You forgot the diagonal: both sounds may move.": lambda cost: _filled(cost, ((1, 0), (0, 1))),
        "The price of the last cell counts too.": lambda cost: _along_path(cost) - cost[-1, -1],
        "The price of the first cell counts too.": lambda cost: _along_path(cost) - cost[0, 0],
    },
    reference=_along_path,
    package=[metrics.cheapest_path],
)
def cheapest(cost):
    """The same table as for edits; only the prices differ. Melodies are compared along this path."""
    return _filled(cost, ((1, 1), (1, 0), (0, 1)))
