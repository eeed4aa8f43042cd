"""A long reading and its text become utterances: a judge says where each letter is heard.

The letters of the whole text are laid along the judge's CTC log-probabilities by the best path (Viterbi;
Kürzinger et al. 2020, arXiv:2007.09127). Where a text and what is said differ, the path is forced, and
confidence falls.

Axes: f frames (50 Hz), m mel bins, v alphabet, n letters of the text, s samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slmlab import files
from slmlab.corpus.sources import TABLE
from slmlab.errors import LabError
from slmlab.language.text import Alphabet
from slmlab.sound import SAMPLE_RATE, audio, features
from slmlab.sound.mel import FRAME_RATE

Judge = Callable[[Tensor, Tensor], Tensor]
"""Log-mels `(b f m)` and their lengths `(b,)` to log-probabilities `(b f v)`; symbol 0 is the blank."""
HEARD, AROUND = 1500, 200
"""Frames that a judge hears at once, and more on either side, of which nothing is kept."""
WINDOW = 4000
"""States of CTC, two a letter, among which the path is sought, about its best: some minutes of speech."""
BEFORE, AFTER = 5, 8
"""Frames that an utterance begins before its first letter is heard, and ends after its last."""
DOUBTFUL = 0.75
"""Confidence below which a person should listen: the text is another, or lacks something."""
LONGEST = 3600.0
"""Seconds of a recording that is cut."""


@dataclass(frozen=True)
class Cut:
    """One utterance of a long recording."""

    text: str
    start: float
    """Where it begins, s."""
    end: float
    """Where it ends, s."""
    confidence: float
    """From 0 to 1: how likely the text is beside what the judge hears freely, a geometric mean of frames."""


@torch.inference_mode()
def heard(judge: Judge, log_mel: Tensor) -> NDArray[np.float32]:
    """A judge's log-probabilities (f v) of a log-mel (f m) of any length."""
    pieces = []
    for start in range(0, len(log_mel), HEARD):
        first = max(0, start - AROUND)
        piece = log_mel[first : start + HEARD + AROUND]
        answer = judge(piece[None], torch.tensor([len(piece)]))[0]
        pieces.append(answer[start - first :][:HEARD])
    return torch.cat(pieces).numpy()


def best_path(log_probs: NDArray[np.float32], letters: NDArray[np.int64]) -> NDArray[np.int64]:
    """The state (f) in which the best path through all letters (n) is at each frame: 2 i + 1 says letter i.

    LabError when the frames end before the letters do.
    """
    states = np.zeros(2 * len(letters) + 1, np.int64)
    states[1::2] = letters
    width = min(len(states), WINDOW)
    passes = np.zeros(len(states), bool)  # a state may follow the letter before it, without a blank between
    passes[1], passes[3::2] = True, letters[1:] != letters[:-1]
    moves = np.zeros((len(log_probs), width), np.int8)
    starts = np.zeros(len(log_probs), np.int64)
    score, start = np.full(width + 2, -np.inf), 0  # two that are never reached stand before the window
    score[1] = 0.0  # as if a blank had come before everything
    for frame, row in enumerate(log_probs):
        ahead = int(score[2:].argmax()) - width // 2
        shift = max(0, min(ahead, len(states) - width - start))
        start += shift
        score[2:] = np.append(score[2 + shift :], np.full(shift, -np.inf))
        passed = np.where(passes[start : start + width], score[:-2], -np.inf)
        before = np.stack([score[2:], score[1:-1], passed])
        moves[frame], starts[frame] = before.argmax(0), start
        score[2:] = before.max(0) + row[states[start : start + width]]
        score[1] = -np.inf
    if start + width < len(states) or not np.isfinite(score[-2:]).any():
        raise LabError(
            f"The text goes on where the recording ends ({len(letters)} letters, "
            f"{len(log_probs) / FRAME_RATE:.0f} s): give the text of this recording alone."
        )
    state = len(states) - 1 - int(score[-2] > score[-1])
    path = np.zeros(len(log_probs), np.int64)
    for frame in reversed(range(len(log_probs))):
        path[frame] = state
        state -= int(moves[frame, state - starts[frame]])
    return path


def cut(wave: Tensor, texts: Sequence[str], judge: Judge, alphabet: Alphabet, language: str) -> list[Cut]:
    """The utterances of a recording (s), one a text, in order.

    LabError when the recording is too short for the texts, or a text has letters unknown to the judge.
    """
    log_probs = heard(judge, features.log_mel(wave)[0])
    (_, space, _), spelt = alphabet.encode("a a"), [alphabet.encode_spoken(text, language) for text in texts]
    letters = np.array([letter for each in spelt for letter in (*each, space)][:-1])
    path = best_path(log_probs, letters)
    chosen = np.where(path % 2 == 1, letters[np.minimum(path // 2, len(letters) - 1)], 0)
    lost = log_probs[np.arange(len(path)), chosen] - log_probs.max(1)
    begins = np.cumsum([0, *(len(each) + 1 for each in spelt)])  # place of each text's first letter
    first = np.searchsorted(path, 2 * begins[:-1] + 1)
    last = np.searchsorted(path, 2 * begins[1:] - 3, side="right") - 1
    middles = [0, *((end + begin) // 2 for end, begin in zip(last, first[1:], strict=False)), len(path)]
    return [
        Cut(
            text,
            max(first[i] - BEFORE, start) / FRAME_RATE,
            min(last[i] + 1 + AFTER, end) / FRAME_RATE,
            float(np.exp(lost[first[i] : last[i] + 1].mean())),
        )
        for i, (text, (start, end)) in enumerate(zip(texts, pairwise(middles), strict=True))
    ]


def save(folder: Path, wave: Tensor, cuts: Sequence[Cut], generated: bool, speaker: str = "reader") -> int:
    """Write each utterance of a recording (s) as a file, and a table of them that `slmlab import` reads.

    The doubtful ones, whose number is returned, stand in a table of their own, `doubtful.tsv`: whoever has
    heard them moves the good rows, mended, to the other. LabError when the folder holds something.
    """
    files.need_empty(folder)
    head = ("file", "text", "speaker", "start", "end", "confidence")
    tables: dict[str, list[tuple[str, ...]]] = {TABLE: [head], "doubtful.tsv": [head]}
    for i, each in enumerate(cuts, start=1):
        name = f"{i:04d}.wav"
        piece = wave[round(each.start * SAMPLE_RATE) : round(each.end * SAMPLE_RATE)]
        audio.write(folder / name, piece, generated)
        numbers = (f"{number:.2f}" for number in (each.start, each.end, each.confidence))
        where = TABLE if each.confidence >= DOUBTFUL else "doubtful.tsv"
        tables[where].append((name, " ".join(each.text.split()), speaker, *numbers))
    for table, rows in tables.items():
        files.replace_text(folder / table, "".join("\t".join(row) + "\n" for row in rows))
    return len(tables["doubtful.tsv"]) - 1
