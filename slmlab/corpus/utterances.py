"""Several corpora as one list, with what networks ask of an utterance."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from slmlab.corpus.build import Corpus
from slmlab.language.text import Alphabet
from slmlab.models.tokenizer import prosody_features
from slmlab.progress import bar
from slmlab.sound.mel import HOP

T = TypeVar("T")
Batch = dict[str, Tensor]


class Utterances:
    """Several corpora as one list; mel frames come in even numbers, two a speech token."""

    def __init__(self, folder: Path) -> None:
        """`folder` is a corpus, or holds corpora."""
        found = sorted([*folder.glob("manifest.parquet"), *folder.glob("*/manifest.parquet")])
        self.corpora = [Corpus.load(path.parent) for path in found]
        self.places = [(corpus, i) for corpus in self.corpora for i in range(len(corpus))]
        voices = [corpus.rows["voice"].iloc[i] for corpus, i in self.places]
        self.voices = np.unique(voices, return_inverse=True)[1]
        self.frames = [frames // 2 * 2 for corpus in self.corpora for frames in corpus.frames()]

    def __len__(self) -> int:
        return len(self.places)

    def column(self, name: str) -> list[Any]:
        """One column of the manifests, in order."""
        return [value for corpus in self.corpora for value in corpus.rows[name]]

    def rows(self) -> pd.DataFrame:
        """The manifests, in order."""
        return pd.concat([corpus.rows for corpus in self.corpora], ignore_index=True)

    def mel(self, i: int) -> Tensor:
        """`(f m)` log-mel."""
        corpus, j = self.places[i]
        return corpus.mel(j)[: self.frames[i]]

    def f0(self, i: int) -> Tensor:
        """`(f,)` Hz."""
        corpus, j = self.places[i]
        return corpus.f0(j)[: self.frames[i]]

    def prosody(self, i: int) -> Tensor:
        """`(f p)` as the tokenizer hears it."""
        corpus, j = self.places[i]
        return prosody_features(self.f0(i), corpus.energy(j)[: self.frames[i]])

    def wave(self, i: int) -> Tensor:
        """`(s,)`, as long as the mel."""
        corpus, j = self.places[i]
        return torch.as_tensor(corpus.wave(j))[: HOP * self.frames[i]]

    def other(self, i: int, draw: np.random.Generator) -> int:
        """Another utterance of the same voice, or the same one where the voice has said nothing else."""
        return another(self.voices, i, draw)


def text_symbols(data: Any, alphabet: Alphabet) -> list[list[int]]:
    """Alphabet ids of the transcripts, each spelt as its language is: columns text and language of `data`."""
    pairs = zip(data.column("text"), data.column("language"), strict=True)
    return [alphabet.encode(text, language) for text, language in pairs]


def spoken_symbols(data: Any, alphabet: Alphabet) -> list[list[int]]:
    """Alphabet ids of what is said aloud, the targets of CTC: columns spoken and language of `data`."""
    pairs = zip(data.column("spoken"), data.column("language"), strict=True)
    return [alphabet.encode_spoken(text, language) for text, language in pairs]


def another(voices: NDArray[Any], i: int, draw: np.random.Generator) -> int:
    """Another place of `voices` `(utterances,)` with the voice of place i, or i where there is none."""
    same = np.flatnonzero(voices == voices[i])
    return int(draw.choice(same[same != i])) if len(same) > 1 else i


def in_batches(
    lengths: Sequence[Any],
    size: int,
    compute: Callable[[list[int]], Sequence[T]],
    run: Callable[..., Iterable[Sequence[T]]] = map,
) -> list[T]:
    """A result for each row, in their order, from `compute`, which takes up to `size` rows of like lengths.

    The longest come first; `run` maps `compute` over the batches.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batches = [order[start : start + size] for start in range(0, len(order), size)][::-1]
    done = zip(batches, run(compute, batches), strict=True)
    pairs = (pair for rows, batch in done for pair in zip(rows, batch, strict=True))
    results = dict(bar(pairs, "utterances", len(lengths)))
    return [results[i] for i in range(len(lengths))]


def padded(items: Sequence[Tensor]) -> Tensor:
    """Sequences of one kind as a batch, zeros at the end."""
    return pad_sequence(list(items), batch_first=True)


def mels_of(data: Utterances, rows: Sequence[int]) -> Batch:
    """`mel` `(b f m)` and `frames` `(b,)` of some utterances."""
    return {
        "mel": padded([data.mel(i) for i in rows]),
        "frames": torch.tensor([data.frames[i] for i in rows]),
    }
