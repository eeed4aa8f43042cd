"""How good is it? What the chain says of held-out sentences, scored by judge B, or by C.

Axes: b batch, t tokens, c timbre numbers, s samples, n utterances.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from slmlab import metrics
from slmlab.corpus.build import Corpus
from slmlab.models.lm import STYLE_TOKENS
from slmlab.progress import bar
from slmlab.sound import SAMPLE_RATE, features
from slmlab.speech.chain import Chain

ENTROPY_WINDOW = 25
"""Tokens, a second of speech, over which the entropy of a single sound is taken."""


@dataclass(frozen=True)
class Row:
    """One sentence as one system said it, and what `judge` (`b` or `c`) `heard`.

    `cer` and `wer` are error rates, `f0_spread` is the standard deviation of F0 in semitones, `repetition`
    Eq. 25 over the speech tokens, `sim` the cosine to the embedding of the voice it was to be said in.
    """

    system: str
    language: str
    text: str
    judge: str
    heard: str
    cer: float
    wer: float
    seconds: float
    f0_spread: float
    repetition: float
    sim: float


def score_sounds(
    chain: Chain, system: str, language: str, texts: Sequence[str], waves: Sequence[Tensor], timbres: Tensor
) -> list[Row]:
    """Rows for waves `(s,)` that say `texts` in the voices `(b c)`."""
    transcripts = chain.hear(waves, language=language)
    return [
        Row(
            system=system,
            language=language,
            text=text,
            judge=chain.scorer,
            heard=words,
            cer=metrics.cer(text, words, language),
            wer=metrics.wer(text, words, language),
            seconds=len(wave) / SAMPLE_RATE,
            f0_spread=metrics.f0_spread(features.extract(wave)[1]),
            repetition=metrics.repetition_rate(chain.encode(wave)),
            sim=metrics.similarity(chain.timbre(wave)[:-1], timbre[:-1]),
        )
        for text, words, wave, timbre in zip(texts, transcripts, bar(waves, "scored"), timbres, strict=True)
    ]


def corpus_rates(rows: Sequence[Row]) -> dict[str, float]:
    """CER and WER over all rows of one language, long sentences weighing more."""
    said = [row.text for row in rows], [row.heard for row in rows], rows[0].language
    return {"cer": metrics.corpus_cer(*said), "wer": metrics.corpus_wer(*said)}


def reference_timbres(chain: Chain, recordings: Corpus, n: int) -> Tensor:
    """`(n c)`: for each of the first n recordings, the timbre of the first other recording of its voice."""
    others = _others(recordings, n, range(len(recordings)))
    return torch.stack([chain.timbre(torch.as_tensor(recordings.wave(j))) for j in bar(others, "voices")])


def other_styles(chain: Chain, recordings: Corpus, n: int) -> list[list[int]]:
    """For each of the first n recordings, the beginning of the last other one of its voice, as codes."""
    others = _others(recordings, n, range(len(recordings))[::-1])
    return [chain.encode(torch.as_tensor(recordings.wave(j)))[:STYLE_TOKENS] for j in others]


def _others(recordings: Corpus, n: int, order: range) -> list[int]:
    """For each of the first n recordings, the first in `order` that is another of its voice, or itself."""
    voices = list(recordings.rows["voice"])
    return [next((j for j in order if j != i and voices[j] == voices[i]), i) for i in range(n)]


def speak_test(
    chain: Chain,
    language: str,
    recordings: Corpus,
    n: int,
    styles: Sequence[Sequence[int]] | None = None,
) -> list[Row]:
    """The rows of what `say_test` makes the chain say."""
    said = say_test(chain, language, recordings, n, styles)
    return score_sounds(chain, "chain" if styles is None else "chain, style", language, *said)


def say_test(
    chain: Chain,
    language: str,
    recordings: Corpus,
    n: int,
    styles: Sequence[Sequence[int]] | None = None,
) -> tuple[list[str], list[Tensor], Tensor]:
    """The whole chain says the first n sentences of a held-out corpus in that corpus's voices.

    Returns:
        Texts, waves `(s,)`, and the voices `(n c)`.
    """
    n = min(n, len(recordings))
    texts = list(recordings.rows["spoken"])[:n]
    timbres = reference_timbres(chain, recordings, n)
    said = chain.say(texts, language, timbres, None, styles, range(n))
    return texts, [speech.wave for speech in said], timbres


def held_out(folder: Path, split: str, language: str) -> Corpus:
    """One corpus of the group `held_out`."""
    return Corpus.load(folder / f"{split}-{language}")
