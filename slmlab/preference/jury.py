"""What a model says, and what a judge makes of it: samples, hearings, and the signs that a reward is hacked.

A judge reads the tokenizer's own mel of speech tokens: no flow, no vocoder, so thousands of candidates can be
heard in a minute. It need not be judge A: anything that turns tokens into hearings will do.

Axis legend: b batch, t speech tokens, f mel frames, j digits of a code, c timbre numbers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from slmlab import files, metrics
from slmlab.corpus.utterances import in_batches
from slmlab.metrics.statistics import average
from slmlab.models.judges import transcribe
from slmlab.models.lm import SpeechLM, assemble, log_probs
from slmlab.models.tokenizer import SEMITONES_UNIT
from slmlab.speech.chain import Chain
from slmlab.speech.sampling import SamplingConfig, expected_tokens, speak
from slmlab.training.loop import to_device

Codes = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Hearing:
    """What was heard in one utterance: words, and the standard deviation of its melody in semitones.

    Melody is read from the tokens; NaN: unvoiced, or not read.
    """

    text: str
    f0_spread: float = math.nan


Judge = Callable[[Codes], list[Hearing]]


class CodeJudge:
    """A recogniser of the chain on the tokenizer's mel of the tokens, all in one voice."""

    def __init__(
        self, chain: Chain, timbre: Tensor, which: str = "a", language: str = "", batch: int = 64
    ) -> None:
        """Tokens are read in the voice `timbre` `(c)`, by a judge, of a `language` adopted its own."""
        self.chain, self.timbre, self.batch = chain, timbre, batch
        self.recogniser = chain.judge(which, language)

    @torch.inference_mode()
    def __call__(self, codes: Codes) -> list[Hearing]:
        """Hearings of utterances, in their order; of one without tokens, silence."""
        said = [row for row in codes if len(row)]
        heard = iter(
            in_batches([*map(len, said)], self.batch, lambda rows: self._hear([said[i] for i in rows]))
        )
        return [next(heard) if len(row) else Hearing("") for row in codes]

    def _hear(self, codes: Codes) -> list[Hearing]:
        """Hearings of one batch."""
        digits, frames = self.chain.digits(codes)
        reading, mel = self.chain.tokenizer.decode(digits, self.timbre.expand(len(codes), -1), frames)
        texts = transcribe(self.recogniser(mel, frames), frames, self.recogniser.config.alphabet)
        rows = zip(texts, reading.prosody, frames.tolist(), strict=True)
        return [Hearing(text, _spread(prosody[:n])) for text, prosody, n in rows]


def _spread(prosody: Tensor) -> float:
    """Semitones by which a melody `(f 2)` spreads; NaN with fewer than five voiced frames."""
    melody = SEMITONES_UNIT * prosody[:, 0][prosody[:, 1] > 0]
    return float(melody.std(correction=0)) if len(melody) >= metrics.FEWEST_VOICED else math.nan


def expected_lengths(model: SpeechLM, language: str, texts: Sequence[str]) -> list[float]:
    """Tokens, at least 1, that each text is expected to make by the model's own pace."""
    return [max(1.0, n) for n in expected_tokens(model, [model.prompt(text, language) for text in texts])]


@dataclass(frozen=True)
class Jury:
    """Who hears a model: what everything that is judged and watched has in common."""

    language: str
    """What is spoken."""
    judge: Judge
    """Hears it."""
    texts: tuple[str, ...]
    """Dev sentences, at which choices are made; each is said once, always from the same seed."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How it is said."""
    watch: Callable[[str, pd.DataFrame], None] | None = None
    """Called with a tuning's folder and its rows of `tune.monitor` when measured: see `notebook.Live`."""


def measure(model: SpeechLM, reference: SpeechLM, jury: Jury) -> dict[str, float]:
    """What a model says to the dev texts, in figures.

    They are `wer`, `cer`; `entropy` (H_p in bits, of half as many tokens as are expected, whatever the
    length); `repetition`; `length` over the length expected; `missed_end`, the share that ran into its limit;
    `f0_spread` in semitones, over utterances that are clear (CER at most `metrics.CLEAR`): broken speech
    looks lively; `drift`, the mean of log π − log π_ref over what π said, in nats a token. Of samples at
    temperature 1 from all tokens this would estimate their KL divergence; of what the jury's sampling lets
    through it is no such estimate and can be near 0, or below, though much was learned.
    """
    texts = jury.texts
    codes = speak(model, jury.language, texts, jury.sampling, range(len(texts)))
    hearings = jury.judge(codes)
    heard = [hearing.text for hearing in hearings]
    expected = expected_lengths(reference, jury.language, texts)
    lengths = [len(row) for row in codes]
    clear = [metrics.cer(*pair, jury.language) <= metrics.CLEAR for pair in zip(texts, heard, strict=True)]
    spreads = [hearing.f0_spread for hearing, is_clear in zip(hearings, clear, strict=True) if is_clear]
    entropies = metrics.equal_count_entropies(codes, max(1, int(sum(expected) / 2)), 20, seed=0)
    return {
        "wer": metrics.corpus_wer(texts, heard, jury.language),
        "cer": metrics.corpus_cer(texts, heard, jury.language),
        "entropy": float(entropies.mean()),
        "repetition": float(average([metrics.repetition_rate(row) for row in codes])),
        "length": float(np.mean([n / usual for n, usual in zip(lengths, expected, strict=True)])),
        "missed_end": metrics.missed_end(lengths, [jury.sampling.most(n) for n in expected]),
        "f0_spread": float(average(spreads)),
        "drift": _drift(model, reference, jury, codes),
    }


@torch.no_grad()
def _drift(model: SpeechLM, reference: SpeechLM, jury: Jury, codes: Codes) -> float:
    """Nats a token by which a model finds its own words likelier than the reference does."""
    prompts = [model.prompt(text, jury.language) for text in jury.texts]
    batch = to_device(assemble(model.config, prompts, codes), model.pace.device)
    gain = log_probs(model, batch) - log_probs(reference.to(model.pace.device), batch)
    return float(gain.sum() / len(batch.targets))


@dataclass(frozen=True)
class Limits:
    """How far figures may go from where tuning began before they are called signs of reward hacking."""

    length: float = 0.2
    """Share by which utterances grow or shrink."""
    repetition: float = 0.05
    """Rise of the repetition rate."""
    entropy: float = 0.5
    """Bits that H_p falls, or rises while errors rise too."""
    error: float = 0.02
    """Rise of the word error rate."""
    fall: float = 10.0
    """Nats an utterance by which the rejected sides of held-out pairs sink below the reference."""


def signs(now: Mapping[str, float], start: Mapping[str, float], limits: Limits) -> list[str]:
    """What looks like reward hacking, a sentence each: other lengths, loops, collapse, noise, errors."""
    rise = {name: now[name] - start[name] for name in start if name in now}
    longest, rejected = limits.length * start["length"], now.get("rejected", 0.0)
    worse, noisier = rise["wer"] > limits.error, rise["entropy"] > limits.entropy
    suspicions = [
        (
            abs(rise["length"]) > longest,
            f"the mean length went from {start['length']:.2f} to {now['length']:.2f} of the expected",
        ),
        (rise["repetition"] > limits.repetition, f"repetition rose to {now['repetition']:.1%}"),
        (rise["entropy"] < -limits.entropy, f"H_p collapsed by {-rise['entropy']:.2f} bits"),
        (worse and noisier, f"H_p and errors rose together, by {rise['entropy']:.2f} bits: noise"),
        (worse, f"the word error rate rose to {now['wer']:.1%}"),
        (rejected < -limits.fall, f"rejected sides sank by {-rejected:.0f} nats"),
    ]
    return [sentence for wrong, sentence in suspicions if wrong]


def seed_of(*parts: int) -> int:
    """A seed of 63 bits from numbers: of a run, a round, a text, a candidate."""
    return int(files.digest(parts)[:16], 16) >> 1
