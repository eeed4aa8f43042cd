"""Does the ground hold? What the chain says, scored by judge B, and what its tokens, styles and timbres
carry.

Every function takes a chain and held-out utterances and returns rows or figures; nothing is trained here but
linear probes.

Axes: b batch, f mel frames, t tokens, c timbre numbers, s samples, n utterances, k numbers that describe an
utterance.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slmlab import metrics
from slmlab.corpus.build import Corpus
from slmlab.models.lm import STYLE_TOKENS
from slmlab.sound import SAMPLE_RATE, features
from slmlab.speech.chain import Chain
from slmlab.speech.sampling import SamplingConfig

Floats = NDArray[np.float64]
ENTROPY_WINDOW = 25
"""Tokens, a second of speech, over which the entropy of a single sound is taken."""


@dataclass(frozen=True)
class Row:
    """One sentence as one system said it."""

    system: str
    """Who spoke."""
    language: str
    """Of the sentence."""
    text: str
    """What was to be said."""
    heard: str
    """What judge B understood."""
    cer: float
    """Character error rate."""
    wer: float
    """Word error rate."""
    seconds: float
    """How long it took to say."""
    f0_spread: float
    """Standard deviation of F0 in semitones."""
    repetition: float
    """Eq. 25 over the speech tokens."""
    sim: float
    """Cosine to the embedding of the voice it was to be said in."""


def judged(
    chain: Chain, system: str, language: str, texts: Sequence[str], waves: Sequence[Tensor], timbres: Tensor
) -> list[Row]:
    """Rows for waves `(s,)` that say `texts` in the voices `(b c)`."""
    heard = chain.hear(waves, "b", language)
    rows = []
    for text, words, wave, timbre in zip(texts, heard, waves, timbres, strict=True):
        _, f0, _ = features.extract(wave)
        rows.append(
            Row(
                system=system,
                language=language,
                text=text,
                heard=words,
                cer=metrics.cer(text, words, language),
                wer=metrics.wer(text, words, language),
                seconds=len(wave) / SAMPLE_RATE,
                f0_spread=metrics.f0_spread(f0),
                repetition=metrics.repetition_rate(chain.encode(wave)),
                sim=metrics.similarity(chain.timbre(wave)[:-1], timbre[:-1]),
            )
        )
    return rows


def corpus_rates(rows: Sequence[Row]) -> dict[str, float]:
    """CER and WER over all rows of one language, long sentences weighing more."""
    texts, heard, language = [row.text for row in rows], [row.heard for row in rows], rows[0].language
    rates = {"cer": metrics.corpus_cer, "wer": metrics.corpus_wer}
    return {name: rate(texts, heard, language) for name, rate in rates.items()}


def reference_timbres(chain: Chain, recordings: Corpus, n: int) -> Tensor:
    """`(n c)`: for each of the first n recordings, the timbre of another recording of its voice."""
    voices = list(recordings.rows["voice"])
    others = [next((j for j, v in enumerate(voices) if v == voices[i] and j != i), i) for i in range(n)]
    return torch.stack([chain.timbre(torch.as_tensor(recordings.wave(j))) for j in others])


def speak_test(
    chain: Chain,
    language: str,
    recordings: Corpus,
    n: int,
    sampling: SamplingConfig | None = None,
    styles: Sequence[Sequence[int]] | None = None,
    batch: int = 32,
) -> list[Row]:
    """The whole chain says the first n sentences of a held-out corpus in that corpus's voices."""
    n = min(n, len(recordings))
    texts = list(recordings.rows["spoken"])[:n]
    timbres = reference_timbres(chain, recordings, n)
    waves: list[Tensor] = []
    for start in range(0, n, batch):
        rows = slice(start, min(n, start + batch))
        style = styles[rows] if styles else None
        said = chain.say(texts[rows], language, timbres[rows], sampling, style, range(n)[rows])
        waves += [speech.wave for speech in said]
    return judged(chain, "chain" if styles is None else "chain, style", language, texts, waves, timbres)


def other_styles(chain: Chain, recordings: Corpus, n: int) -> list[list[int]]:
    """For each of the first n recordings, the beginning of another one of its voice, as codes `(t,)`."""
    voices = list(recordings.rows["voice"])
    others = [
        next((j for j in reversed(range(len(voices))) if voices[j] == voices[i] and j != i), i)
        for i in range(n)
    ]
    return [chain.encode(torch.as_tensor(recordings.wave(j)))[:STYLE_TOKENS] for j in others]


def held_out(folder: Path, split: str, language: str) -> Corpus:
    """One corpus of the group `held_out`."""
    return Corpus.load(folder / f"{split}-{language}")


def as_dicts(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Rows for JSON or Parquet."""
    return [dataclasses.asdict(row) for row in rows]
