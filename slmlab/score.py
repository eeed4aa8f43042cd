"""Does the ground hold? What the chain says, scored by judge B, and what its tokens, styles and timbres
carry.

Every function takes a chain and held-out utterances and returns rows or figures; nothing is trained here but
linear probes.

Axes: b batch, f mel frames, t tokens, c timbre numbers, s samples, n utterances, k numbers that describe an
utterance.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from slmlab import audio, features, metrics
from slmlab.audio import SAMPLE_RATE
from slmlab.corpus.build import Corpus
from slmlab.errors import LabError
from slmlab.models.fsq import codes_to_digits
from slmlab.models.recogniser import transcribe
from slmlab.models.vocoder import griffin_lim, spectral_distance
from slmlab.sampling import SamplingConfig
from slmlab.statistics import average, correlation, varies
from slmlab.voice import STYLE_TOKENS, Chain

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
    heard = chain.hear(waves, "b")
    rows = []
    for text, words, wave, timbre in zip(texts, heard, waves, timbres, strict=True):
        _, f0, _ = features.extract(wave)
        rows.append(
            Row(
                system=system,
                language=language,
                text=text,
                heard=words,
                cer=metrics.cer(text, words),
                wer=metrics.wer(text, words),
                seconds=len(wave) / SAMPLE_RATE,
                f0_spread=metrics.f0_spread(f0),
                repetition=metrics.repetition_rate(chain.encode(wave)),
                sim=metrics.similarity(chain.timbre(wave)[:-1], timbre[:-1]),
            )
        )
    return rows


def corpus_rates(rows: Sequence[Row]) -> dict[str, float]:
    """CER and WER over all rows, long sentences weighing more."""
    texts, heard = [row.text for row in rows], [row.heard for row in rows]
    return {"cer": metrics.corpus_cer(texts, heard), "wer": metrics.corpus_wer(texts, heard)}


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


def resynthesise(chain: Chain, language: str, recordings: Corpus, n: int) -> tuple[list[Row], list[Row]]:
    """Rows of recordings, and of the same through tokenizer, decoder and vocoder in their own timbre."""
    n = min(n, len(recordings))
    texts = list(recordings.rows["spoken"])[:n]
    waves = [torch.as_tensor(recordings.wave(i)) for i in range(n)]
    timbres = torch.stack([chain.timbre(wave) for wave in waves])
    again = [chain.to_sounds([chain.encode(waves[i])], timbres[i : i + 1], [i])[0] for i in range(n)]
    return (
        judged(chain, "recording", language, texts, waves, timbres),
        judged(chain, "resynthesis", language, texts, again, timbres),
    )


def vocoders(chain: Chain, recordings: Corpus, n: int) -> dict[str, float]:
    """The vocoder and Griffin-Lim from recordings' mels: distance to the sound, and judge B's CER."""
    n = min(n, len(recordings))
    texts = list(recordings.rows["spoken"])[:n]
    makers: dict[str, Callable[[Tensor], Tensor]] = {"vocoder": chain.vocoder, "griffin_lim": griffin_lim}
    distances: dict[str, list[float]] = {name: [] for name in makers}
    heard: dict[str, list[str]] = {name: [] for name in makers}
    for i in range(n):
        recorded = torch.as_tensor(recordings.wave(i))
        mel = features.log_mel(recorded)
        for name, maker in makers.items():
            with torch.inference_mode():
                wave = maker(mel)[:, : len(recorded)]
            whole = rearrange(recorded[: wave.shape[1]], "s -> 1 s")
            distances[name].append(float(spectral_distance(wave, whole)))
            heard[name] += chain.hear([wave[0]])
    return {f"{name}.distance": float(np.mean(found)) for name, found in distances.items()} | {
        f"{name}.cer": metrics.corpus_cer(texts, said) for name, said in heard.items()
    }


def describe_code_use(digits: Tensor) -> Floats:
    """`(t j)` digits to `(k,)`: how often each digit has each level, and how the digits vary together."""
    counts = torch.stack([(digits == level).float().mean(0) for level in (-1, 0, 1)])
    covariance = torch.cov(digits.T)
    upper = torch.triu_indices(*covariance.shape)
    return (
        torch.cat([rearrange(counts, "level j -> (level j)"), covariance[upper[0], upper[1]]])
        .numpy()
        .astype(float)
    )


def describe_mel(mel: Tensor) -> Floats:
    """`(f m)` to `(k,)`: mean and covariance of the mel bins."""
    covariance = torch.cov(mel.T)
    upper = torch.triu_indices(*covariance.shape)
    return torch.cat([mel.mean(0), covariance[upper[0], upper[1]]]).numpy().astype(float)


def probe_accuracy(x: Floats, labels: NDArray[np.int64], folds: int = 5, ridge: float = 10.0) -> float:
    """Cross-validated accuracy of a ridge classifier on `(n k)`, standardised on its training part."""
    targets = np.eye(labels.max() + 1)[labels]
    order = np.random.default_rng(0).permutation(len(x))
    right = 0
    for fold in range(folds):
        test, train = order[fold::folds], np.setdiff1d(order, order[fold::folds])
        mean, std = x[train].mean(0), x[train].std(0) + 1e-6
        a, b = (x[train] - mean) / std, (x[test] - mean) / std
        kernel = a @ a.T
        weights = np.linalg.solve(kernel + ridge * np.eye(len(a)), targets[train] - targets[train].mean(0))
        right += int((np.argmax(b @ a.T @ weights + targets[train].mean(0), 1) == labels[test]).sum())
    return right / len(x)


def speaker_probe(chain: Chain, recordings: Sequence[Corpus]) -> dict[str, float]:
    """How much of the speaker is in the codes, as a share of what is in the mel; the same probe for both."""
    codes, mels, voices = [], [], []
    for corpus in recordings:
        for i in range(len(corpus)):
            codes.append(describe_code_use(_digits(chain, corpus, i)))
            mels.append(describe_mel(corpus.mel(i)))
            voices.append(corpus.rows["voice"].iloc[i])
    labels = np.unique(voices, return_inverse=True)[1]
    chance = float(np.bincount(labels).max() / len(labels))
    from_codes = probe_accuracy(np.stack(codes), labels)
    from_mel = probe_accuracy(np.stack(mels), labels)
    share = (from_codes - chance) / max(1e-9, from_mel - chance)
    return {
        "share": share,
        "codes": from_codes,
        "mel": from_mel,
        "chance": chance,
        "voices": int(labels.max() + 1),
    }


def _digits(chain: Chain, corpus: Corpus, i: int) -> Tensor:
    codes = chain.encode(torch.as_tensor(corpus.wave(i)))
    return codes_to_digits(torch.tensor(codes), chain.tokenizer.config.dims)


@torch.inference_mode()
def words_probe(chain: Chain, recordings: Sequence[Corpus]) -> float:
    """Character error rate, over all recordings, of the words that the tokenizer reads from its codes."""
    texts, read = [], []
    for corpus in recordings:
        for i in range(len(corpus)):
            digits = rearrange(_digits(chain, corpus, i), "t j -> 1 t j")
            frames = torch.tensor([2 * digits.shape[1]])
            log_probs = chain.tokenizer.read(digits, frames).log_probs
            read += transcribe(log_probs, frames, chain.alphabet)
            texts.append(corpus.rows["spoken"].iloc[i])
    return metrics.corpus_cer(texts, read)


@torch.inference_mode()
def f0_probe(chain: Chain, recordings: Sequence[Corpus]) -> float:
    """Mean over utterances of the correlation between melody read from codes and true melody, voiced
    frames.
    """
    correlations = []
    for corpus in recordings:
        for i in range(len(corpus)):
            digits = rearrange(_digits(chain, corpus, i), "t j -> 1 t j")
            said = chain.tokenizer.read(digits, torch.tensor([2 * digits.shape[1]])).prosody[0, :, 0]
            true = features.semitones(corpus.f0(i))[: len(said)]
            voiced = ~torch.isnan(true)
            if int(voiced.sum()) >= 10 and varies(true[voiced]):
                correlations.append(correlation(said[: len(true)][voiced], true[voiced]))
    if not correlations:
        raise LabError("no held-out recording has ten voiced frames: speak more of them before probing F0")
    return float(average(correlations))


def other_styles(chain: Chain, recordings: Corpus, n: int) -> list[list[int]]:
    """For each of the first n recordings, the beginning of another one of its voice, as codes `(t,)`."""
    voices = list(recordings.rows["voice"])
    others = [
        next((j for j in reversed(range(len(voices))) if voices[j] == voices[i] and j != i), i)
        for i in range(n)
    ]
    return [chain.encode(torch.as_tensor(recordings.wave(j)))[:STYLE_TOKENS] for j in others]


def style_effect(chain: Chain, language: str, recordings: Corpus, n: int) -> dict[str, float]:
    """Style prefix on against off, same timbre and sentences: ratio of mean F0 spread, and change of SIM."""
    n = min(n, len(recordings))
    styles = other_styles(chain, recordings, n)
    off = speak_test(chain, language, recordings, n)
    on = speak_test(chain, language, recordings, n, styles=styles)
    spread = [average([row.f0_spread for row in rows]) for rows in (on, off)]
    sim = [average([row.sim for row in rows]) for rows in (on, off)]
    rates = {f"cer_{name}": corpus_rates(rows)["cer"] for name, rows in (("on", on), ("off", off))}
    return {"spread": float(spread[0] / spread[1]), "sim": float(sim[0] - sim[1]), **rates}


def cloning(chain: Chain, language: str, recordings: Corpus, n: int) -> float:
    """Share of trials in which speech made in an unseen voice is nearer to that voice than to another one."""
    n = min(n, len(recordings))
    voices = list(recordings.rows["voice"])
    timbres = reference_timbres(chain, recordings, n)
    texts = list(recordings.rows["spoken"])[:n]
    said = chain.say(texts, language, timbres)
    draw = np.random.default_rng(0)
    won = 0
    for i, speech in enumerate(said):
        made = chain.timbre(speech.wave)[:-1]
        own = chain.timbre(torch.as_tensor(recordings.wave(i)))[:-1]
        j = int(draw.choice([j for j in range(len(voices)) if voices[j] != voices[i]]))
        other = chain.timbre(torch.as_tensor(recordings.wave(j)))[:-1]
        won += metrics.similarity(made, own) > metrics.similarity(made, other)
    return won / n


def impressions(chain: Chain, wave: audio.Wave, text: str, reference: audio.Wave) -> dict[str, float]:
    """Nine numbers of one sound beside a recording of the same words: what to watch while a sound is broken.

    Args:
        chain: whose judges, tokenizer and speaker encoder listen.
        wave: `(s,)` at 16 kHz.
        text: what it should say.
        reference: `(s,)` at 16 kHz; melodies are compared after DTW on the mel.
    """
    sound, (mel, f0, energy) = torch.as_tensor(wave), features.extract(wave)
    reference_mel, reference_f0, _ = features.extract(reference)
    path, codes = metrics.align(mel, reference_mel), chain.encode(sound)
    voices = [chain.timbre(torch.as_tensor(x))[:-1] for x in (wave, reference)]
    return {
        "CER, judge B": metrics.cer(text, chain.hear([sound], "b")[0]),
        "CER, judge A": metrics.cer(text, chain.hear([sound], "a")[0]),
        "F0 spread, semitones": metrics.f0_spread(f0),
        "F0 correlation": metrics.f0_correlation(f0, reference_f0, path),
        "energy spread, dB": metrics.energy_std(energy),
        "entropy, bits": metrics.window_entropy(codes, ENTROPY_WINDOW),
        "repetition": metrics.repetition_rate(codes),
        "SIM": metrics.similarity(*voices),
        "mel distance, dB": metrics.mel_distance(mel, reference_mel, path),
    }


def held_out(folder: Path, split: str, language: str) -> Corpus:
    """One corpus of the group `held_out`."""
    return Corpus.load(folder / f"{split}-{language}")


def as_dicts(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Rows for JSON or Parquet."""
    return [dataclasses.asdict(row) for row in rows]
