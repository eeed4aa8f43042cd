"""What a model says, and what a judge makes of it: samples, hearings, and the signs that a reward is hacked.

A judge reads the tokenizer's own mel of speech tokens: no flow, no vocoder, so thousands of candidates can be
heard in a minute. It need not be judge A: anything that turns tokens into hearings will do.

Axis legend: b batch, t speech tokens, f mel frames, j digits of a code, c timbre numbers.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from slmlab import files, metrics
from slmlab.models.fsq import codes_to_digits
from slmlab.models.judges import transcribe
from slmlab.models.lm import SpeechLM, assemble, log_probs
from slmlab.models.tokenizer import SEMITONES_UNIT, Reading
from slmlab.speech.chain import Chain
from slmlab.speech.sampling import SamplingConfig, generate
from slmlab.training.loop import to_device

Codes = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Hearing:
    """What was heard in one utterance."""

    text: str
    """Its words."""
    f0_spread: float = math.nan
    """Standard deviation of its melody in semitones, as read from the tokens; NaN: unvoiced, or not read."""


Judge = Callable[[Codes], list[Hearing]]


class CodeJudge:
    """A recogniser of the chain on the tokenizer's mel of the tokens, all in one voice."""

    def __init__(self, chain: Chain, timbre: Tensor, which: str = "a", batch: int = 64) -> None:
        """`timbre` `(c)` is the voice in which tokens are read, `which` judge reads, `batch` at a time."""
        self.chain, self.timbre, self.batch = chain, timbre, batch
        self.recogniser = chain.judge(which)

    @torch.inference_mode()
    def __call__(self, codes: Codes) -> list[Hearing]:
        """Hearings of utterances, in their order; of one without tokens, silence."""
        heard = [Hearing("")] * len(codes)
        order = sorted((i for i, row in enumerate(codes) if len(row)), key=lambda i: len(codes[i]))
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            for i, hearing in zip(rows, self._hear([codes[i] for i in rows]), strict=True):
                heard[i] = hearing
        return heard

    def _hear(self, codes: Codes) -> list[Hearing]:
        tokenizer = self.chain.tokenizer
        digits = [codes_to_digits(torch.tensor(list(row)), tokenizer.config.dims) for row in codes]
        frames = torch.tensor([2 * len(row) for row in codes])
        reading, mel = tokenizer.decode(
            pad_sequence(digits, batch_first=True), self.timbre.expand(len(codes), -1), frames
        )
        words = transcribe(self.recogniser(mel, frames), frames, self.recogniser.config.alphabet)
        return [Hearing(*pair) for pair in zip(words, _spreads(reading, frames), strict=True)]


def _spreads(reading: Reading, frames: Tensor) -> Iterator[float]:
    """Semitones by which the melody of each utterance spreads; NaN with fewer than five voiced frames."""
    for prosody, n in zip(reading.prosody, frames.tolist(), strict=True):
        melody = SEMITONES_UNIT * prosody[:n, 0][prosody[:n, 1] > 0]
        yield float(melody.std(correction=0)) if len(melody) >= metrics.FEWEST_VOICED else math.nan


def speak(
    model: SpeechLM,
    language: str,
    texts: Sequence[str],
    sampling: SamplingConfig,
    seeds: Sequence[int],
    styles: Codes = (),
) -> list[list[int]]:
    """Speech tokens of texts, each from its own seed, in the manner of `styles` (none: plain)."""
    manners = styles or [()] * len(texts)
    prompts = [model.prompt(text, language, list(style)) for text, style in zip(texts, manners, strict=True)]
    return generate(model, prompts, sampling, seeds)


def expected_lengths(model: SpeechLM, language: str, texts: Sequence[str]) -> list[float]:
    """Tokens, at least 1, that each text is expected to make by the model's own pace."""
    prompts = [torch.tensor([model.prompt(text, language)]) for text in texts]
    return [max(1.0, float(model.expected_tokens(prompt.to(model.pace.device)))) for prompt in prompts]


def kept(file: Path, make: Callable[[], Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Rows that were made once: read if the file is there, else made and written, whole or not at all."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(files.plain(row), ensure_ascii=False) for row in make()]
        files.replace_text(file, "".join(line + "\n" for line in lines))
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


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
    """Called whenever a tuning was measured, with its folder and the rows of `tune.monitor`: see `live`."""


def measure(model: SpeechLM, reference: SpeechLM, jury: Jury) -> dict[str, float]:
    """What a model says to the dev texts, in figures.

    Returns:
        `wer`, `cer`; `entropy` (H_p in bits, of half as many tokens as are expected, whatever the length);
        `repetition`; `length` over the length expected; `missed_end`, the share that ran into its limit;
        `f0_spread` in semitones, over utterances that are
        clear (CER at most `metrics.CLEAR`): broken speech looks lively; `drift`, the mean of
        log π − log π_ref over what π said, in nats a token. Of samples at temperature 1 from all tokens this
        would estimate their KL divergence; of what the jury's sampling lets through it is no such estimate
        and can be near 0, or below, though much was learned.
    """
    texts = jury.texts
    codes = speak(model, jury.language, texts, jury.sampling, range(len(texts)))
    heard = jury.judge(codes)
    expected = expected_lengths(reference, jury.language, texts)
    counted = max(1, int(sum(expected) / 2))
    lengths = [len(row) / n for row, n in zip(codes, expected, strict=True)]
    limits = [jury.sampling.most(n) for n in expected]
    spreads = [
        hearing.f0_spread
        for text, hearing in zip(texts, heard, strict=True)
        if metrics.cer(text, hearing.text) <= metrics.CLEAR and not math.isnan(hearing.f0_spread)
    ]
    loops = [rate for rate in map(metrics.repetition_rate, codes) if not math.isnan(rate)]
    words = [hearing.text for hearing in heard]
    return {
        "wer": metrics.corpus_wer(texts, words),
        "cer": metrics.corpus_cer(texts, words),
        "entropy": float(metrics.equal_count_entropies(codes, counted, 20, seed=0).mean()),
        "repetition": float(np.mean(loops)) if loops else math.nan,
        "length": float(np.mean(lengths)),
        "missed_end": metrics.missed_end([len(row) for row in codes], limits),
        "f0_spread": float(np.mean(spreads)) if spreads else math.nan,
        "drift": _drift(model, reference, jury, codes),
    }


@torch.no_grad()
def _drift(model: SpeechLM, reference: SpeechLM, jury: Jury, codes: Codes) -> float:
    """Nats a token by which a model finds its own words likelier than the reference does."""
    symbols = [model.config.alphabet.encode(text, jury.language) for text in jury.texts]
    languages, plain = [jury.language] * len(codes), [()] * len(codes)
    batch = to_device(assemble(model.config, symbols, codes, languages, plain), model.pace.device)
    gone = log_probs(model, batch) - log_probs(reference.to(model.pace.device), batch)
    return float(gone.sum() / len(batch.targets))


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
    change = {name: now[name] - start[name] for name in start if name in now}
    worse = change["wer"] > limits.error
    found = {
        f"the mean length went from {start['length']:.2f} to {now['length']:.2f} of the expected": abs(
            change["length"]
        )
        > limits.length * start["length"],
        f"repetition rose to {now['repetition']:.1%}": change["repetition"] > limits.repetition,
        f"H_p collapsed by {-change['entropy']:.2f} bits": change["entropy"] < -limits.entropy,
        f"H_p and errors rose together, by {change['entropy']:.2f} bits: noise": worse
        and change["entropy"] > limits.entropy,
        f"the word error rate rose to {now['wer']:.1%}": worse,
        f"rejected sides sank by {-now.get('rejected', 0.0):.0f} nats": now.get("rejected", 0.0)
        < -limits.fall,
    }
    return [sentence for sentence, seen in found.items() if seen]


def seed_of(*parts: int) -> int:
    """A seed of 63 bits from numbers: of a run, a round, a text, a candidate."""
    return int(files.digest(parts)[:16], 16) >> 1
