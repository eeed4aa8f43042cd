"""Exercises of notebook 07: what speech adds to a judge's own errors, word errors, and aligning in time."""

import difflib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slmlab import metrics
from slmlab.notebook.exercises import Exercise, like

GRID = np.array([[1.0, 5.0, 9.0], [4.0, 2.0, 1.0], [8.0, 3.0, 2.0], [9.0, 7.0, 1.0]])
SLOW = np.array([[1.0, 9.0], [1.0, 9.0], [1.0, 9.0], [9.0, 1.0]])
SENTENCES = (
    ("mama anapika chakula", "mama anapika"),
    ("mama anapika chakula", "mama mama anapika chakula leo"),
    ("baba anasoma", "mama anasoma"),
    ("habari za asubuhi", "za asubuhi"),
    ("mama", "mama na baba na dada"),
    ("na mama na baba", "mama na na na baba mama"),
)


def _edits(text: Sequence[str], heard: Sequence[str]) -> NDArray[np.float64]:
    rows = [list(range(len(heard) + 1))]
    for i, wanted in enumerate(text, start=1):
        row = [i]
        for j, found in enumerate(heard, start=1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (wanted != found)))
        rows.append(row)
    return np.array(rows, dtype=np.float64)


def _fewest(text: Sequence[str], heard: Sequence[str]) -> int:
    return int(_edits(text, heard)[-1, -1])


def _by_heard(text: str, heard: str) -> float:
    return _fewest(text.split(), heard.split()) / len(heard.split())


def _place_by_place(text: str, heard: str) -> float:
    wanted, found = text.split(), heard.split()
    wrong = sum(a != b for a, b in zip(wanted, found, strict=False))
    return (wrong + abs(len(wanted) - len(found))) / len(wanted)


def _by_blocks(text: str, heard: str) -> float:
    wanted, found = text.split(), heard.split()
    steps = difflib.SequenceMatcher(None, wanted, found).get_opcodes()
    return sum(max(b - a, d - c) for kind, a, b, c, d in steps if kind != "equal") / len(wanted)


def _bag(text: str, heard: str) -> float:
    return len(set(text.split()) - set(heard.split())) / len(text.split())


def _cheapest(cost: ArrayLike) -> float:
    prices = np.asarray(cost, dtype=np.float64)
    path = metrics.cheapest_path(prices)
    return float(prices[path[:, 0], path[:, 1]].sum())


def _greedy(cost: ArrayLike) -> float:
    prices = np.asarray(cost, dtype=np.float64)
    i, j, total = 0, 0, prices[0, 0]
    while (i, j) != (len(prices) - 1, prices.shape[1] - 1):
        steps = [(i + a, j + b) for a, b in ((1, 1), (1, 0), (0, 1))]
        inside = [step for step in steps if step[0] < len(prices) and step[1] < prices.shape[1]]
        i, j = min(inside, key=lambda step: prices[step])
        total += prices[i, j]
    return float(total)


def _filled(cost: ArrayLike, ways: Sequence[tuple[int, int]]) -> float:
    prices = np.asarray(cost, dtype=np.float64)
    total: NDArray[np.float64] = np.full(prices.shape, np.inf)
    for i in range(len(prices)):
        for j in range(prices.shape[1]):
            before = [total[i - a, j - b] for a, b in ways if i >= a and j >= b]
            total[i, j] = prices[i, j] + (min(before, default=np.inf) if i or j else 0)
    return float(total[-1, -1])


added = Exercise(
    difficulty=1,
    minutes=3,
    fault=like(
        metrics.calibrated_cer,
        [(0.2, 0.05), (0.05, 0.05), (0.03, 0.05)],
        {
            "Speech may be clearer to a judge than recordings are; what it adds is then 0, not less.": (
                lambda generated, recorded: generated - recorded
            ),
            "Speech may be clearer than recordings: then it adds 0; its size alone would punish that.": (
                lambda generated, recorded: abs(generated - recorded)
            ),
            "A quotient says how many times as many; asked is how many more.": lambda generated, recorded: (
                generated / recorded
            ),
            "Turned round: take the judge's own errors away from those on the generated speech.": (
                lambda generated, recorded: max(0.0, recorded - generated)
            ),
        },
    ),
    solution=(lambda generated, recorded: max(0.0, generated - recorded), metrics.calibrated_cer),
    why="Without this, a bad judge makes every system look bad.",
)

word_errors = Exercise(
    difficulty=2,
    minutes=12,
    fault=like(
        metrics.wer,
        SENTENCES,
        {
            "You divide by the words heard: then it pays to say more. Take those of the text.": _by_heard,
            "One word more shifts all that follow, and each counts as wrong: align first, as above.": (
                _place_by_place
            ),
            "You only count what is missing: words that nobody wrote are errors too.": _bag,
            "These are characters: cut both texts into words first.": metrics.cer,
            "That is the whole table: divide its last cell, [-1, -1], by the words of the text.": (
                lambda text, heard: _edits(text.split(), heard.split())
            ),
            "That is the whole table, divided: the answer is in its last cell alone, [-1, -1].": (
                lambda text, heard: _edits(text.split(), heard.split()) / len(text.split())
            ),
            "More errors than words are possible, where words are heard that nobody wrote: no limit of 1.": (
                lambda text, heard: min(1.0, metrics.wer(text, heard))
            ),
            "That finds blocks that agree, not the fewest edits: fill the table, as above.": _by_blocks,
            "Divide by the words of the text, not by its letters.": lambda text, heard: (
                _fewest(text.split(), heard.split()) / len(text)
            ),
            "Those are the edits: divide by the words of the text.": lambda text, heard: _fewest(
                text.split(), heard.split()
            ),
        },
    ),
    solution=(
        lambda text, heard: _edits(text.split(), heard.split())[-1, -1] / len(text.split()),
        metrics.corpus_wer,
    ),
    why="The package leaves the counting to a library, jiwer; how words are spelt for it is its own affair.",
)

cheapest = Exercise(
    difficulty=3,
    minutes=20,
    fault=like(
        _cheapest,
        [(GRID,), (SLOW,), (GRID.T,)],
        {
            "Taking the cheapest next step is not the cheapest way: fill the whole table first.": _greedy,
            "Three ways lead to a cell: you forgot the one from the left, where the first sound waits.": (
                lambda cost: _filled(cost, ((1, 1), (1, 0)))
            ),
            "Three ways lead to a cell: you forgot the one from above.": lambda cost: _filled(
                cost, ((1, 1), (0, 1))
            ),
            "You forgot the diagonal: both sounds may move at once.": lambda cost: _filled(
                cost, ((1, 0), (0, 1))
            ),
            "The price of the last cell counts too.": lambda cost: _cheapest(cost) - np.asarray(cost)[-1, -1],
            "The price of the first cell counts too.": lambda cost: _cheapest(cost) - np.asarray(cost)[0, 0],
        },
    ),
    solution=(
        lambda cost: _filled(cost, ((1, 1), (1, 0), (0, 1))),
        _filled,
        metrics.cheapest_path,
    ),
    why="The same table as for edits; only the prices differ. Melodies are compared along this path.",
)
