"""Does the ground hold? What tokens, styles and timbres carry, and what the quality filter takes.

Axis legend: n utterances, k numbers that describe an utterance, t speech tokens, j digits of a code, f mel
frames, m mel bins, s samples.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from slmlab import files, metrics
from slmlab.corpus import manifest, mixing, utterances
from slmlab.corpus.build import Corpus
from slmlab.errors import LabError
from slmlab.language.text import for_scoring
from slmlab.metrics.statistics import average, correlation, varies
from slmlab.models.fsq import codes_to_digits
from slmlab.models.judges import transcribe
from slmlab.models.tokenizer import Reading
from slmlab.models.vocoder import spectral_distance
from slmlab.progress import bar
from slmlab.sound import audio, features
from slmlab.sound.pitch import semitones
from slmlab.speech.chain import Chain
from slmlab.speech.score import (
    ENTROPY_WINDOW,
    Row,
    corpus_rates,
    other_styles,
    score_sounds,
    speak_test,
)
from slmlab.study.griffin_lim import griffin_lim
from slmlab.training import shelf

Floats = NDArray[np.float64]


def filter_corpora(preset_name: str, languages: Iterable[str]) -> pd.DataFrame:
    """Let judge A hear what the models of languages learn from: how much of it the paper's filter takes.

    The manifests with judge A's scores are kept as `runs/<preset>/corpora/<corpus>.parquet`.

    Returns:
        By corpus and engine: `n`, `kept`, `acceptance`, the shares lost to each rule, and the `minutes` that
        can be taken equally from every engine.
    """
    chain = Chain(shelf.checkpoint_folder(preset_name))
    trusted = utterances.Utterances(shelf.make(preset_name, "corpus.held_out")).rows()
    target = files.RUNS / preset_name / "corpora"
    target.mkdir(parents=True, exist_ok=True)
    tables = []
    for group in languages:
        data = utterances.Utterances(shelf.make(preset_name, f"corpus.{group}"))
        rows = data.rows()
        rows["heard"] = [
            chain.read_mel(data.mel(i), "a") for i in bar(range(len(data)), f"{group} heard by judge A")
        ]
        pairs = list(zip(rows["text"], rows["heard"], strict=True))
        rows["wer"], rows["cer"] = ([rate(*pair) for pair in pairs] for rate in (metrics.wer, metrics.cer))
        rows["duration_ratio"] = mixing.duration_ratios(rows, trusted)
        for kind, spoken in rows.groupby("kind"):
            kept, engines = mixing.quality_filter(spoken)
            taken = spoken[mixing.balanced(spoken, kept, seed=0)].groupby("engine")["seconds"].sum()
            minutes = taken.reindex(engines["engine"], fill_value=0.0).to_numpy() / 60
            tables.append(engines.assign(corpus=f"{group}, {kind}", minutes=minutes))
        manifest.write(rows, target / f"{group}.parquet")
    return pd.concat(tables, ignore_index=True).set_index("corpus")


def resynthesise(chain: Chain, language: str, recordings: Corpus, n: int) -> tuple[list[Row], list[Row]]:
    """Rows of recordings, and of the same through tokenizer, decoder and vocoder in their own timbre."""
    n = min(n, len(recordings))
    texts = list(recordings.rows["spoken"])[:n]
    waves = [torch.as_tensor(recordings.wave(i)) for i in range(n)]
    timbres = torch.stack([chain.timbre(wave) for wave in waves])
    again = [chain.to_sounds([chain.encode(waves[i])], timbres[i : i + 1], [i])[0] for i in range(n)]
    return (
        score_sounds(chain, "recording", language, texts, waves, timbres),
        score_sounds(chain, "resynthesis", language, texts, again, timbres),
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
    rates = {f"{name}.cer": metrics.corpus_cer(texts, words) for name, words in heard.items()}
    return {f"{name}.distance": float(np.mean(values)) for name, values in distances.items()} | rates


def describe_code_use(digits: Tensor) -> Floats:
    """`(t j)` digits to `(k,)`: how often each digit has each level, and how the digits vary together."""
    counts = torch.stack([(digits == level).float().mean(0) for level in (-1, 0, 1)])
    return _with_covariance(rearrange(counts, "level j -> (level j)"), digits)


def describe_mel(mel: Tensor) -> Floats:
    """`(f m)` to `(k,)`: mean and covariance of the mel bins."""
    return _with_covariance(mel.mean(0), mel)


def _with_covariance(numbers: Tensor, x: Tensor) -> Floats:
    """Numbers `(k,)` and, behind them, the upper half of the covariance of `x` `(n k)`."""
    covariance = torch.cov(x.T)
    upper = torch.triu_indices(*covariance.shape)
    return torch.cat([numbers, covariance[upper[0], upper[1]]]).numpy().astype(float)


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
    for corpus, i in _utterances(recordings):
        codes.append(describe_code_use(_digits(chain, corpus, i)))
        mels.append(describe_mel(corpus.mel(i)))
        voices.append(corpus.rows["voice"].iloc[i])
    labels = np.unique(voices, return_inverse=True)[1]
    chance = float(np.bincount(labels).max() / len(labels))
    from_codes = probe_accuracy(np.stack(codes), labels)
    from_mel = probe_accuracy(np.stack(mels), labels)
    share = (from_codes - chance) / max(1e-9, from_mel - chance)
    figures = {"share": share, "codes": from_codes, "mel": from_mel, "chance": chance}
    return figures | {"voices": int(labels.max() + 1)}


def _utterances(recordings: Sequence[Corpus]) -> Iterator[tuple[Corpus, int]]:
    yield from bar([(corpus, i) for corpus in recordings for i in range(len(corpus))], "recordings")


def _digits(chain: Chain, corpus: Corpus, i: int) -> Tensor:
    codes = chain.encode(torch.as_tensor(corpus.wave(i)))
    return codes_to_digits(torch.tensor(codes), chain.tokenizer.config.dims)


@torch.inference_mode()
def _read(chain: Chain, corpus: Corpus, i: int) -> tuple[Reading, Tensor]:
    """What the tokenizer reads from an utterance's codes, and how many frames they have, `(1,)`."""
    digits = rearrange(_digits(chain, corpus, i), "t j -> 1 t j")
    frames = torch.tensor([2 * digits.shape[1]])
    return chain.tokenizer.read(digits, frames), frames


def words_probe(chain: Chain, recordings: Sequence[Corpus]) -> float:
    """Character error rate, over all recordings, of the words that the tokenizer reads from its codes."""
    texts, transcripts = [], []
    for corpus, i in _utterances(recordings):
        reading, frames = _read(chain, corpus, i)
        transcripts += transcribe(reading.log_probs, frames, chain.tokenizer.config.alphabet)
        texts.append(corpus.rows["spoken"].iloc[i])
    return metrics.corpus_cer(texts, transcripts)


def f0_probe(chain: Chain, recordings: Sequence[Corpus]) -> float:
    """Correlation between melody read from codes and true melody, voiced frames; mean over utterances."""
    correlations = []
    for corpus, i in _utterances(recordings):
        melody = _read(chain, corpus, i)[0].prosody[0, :, 0]
        true = semitones(corpus.f0(i))[: len(melody)]
        voiced = ~torch.isnan(true)
        if int(voiced.sum()) >= 10 and varies(true[voiced]):
            correlations.append(correlation(melody[: len(true)][voiced], true[voiced]))
    if not correlations:
        raise LabError("no held-out recording has ten voiced frames: speak more of them before probing F0")
    return float(average(correlations))


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


def premises(chain: Chain, language: str, dev: Corpus, test: Corpus, n: int) -> dict[str, float]:
    """The figures of `data/premises.toml`, from the first `n` dev recordings and, of voices, from test."""
    recorded, again = resynthesise(chain, language, dev, n)
    texts = [row.text for row in recorded]
    waves = [torch.as_tensor(dev.wave(i)) for i in range(len(texts))]
    transcripts = {which: chain.hear(waves, which) for which in "ab"}
    figures = {f"cer_judge_{which}": metrics.corpus_cer(texts, words) for which, words in transcripts.items()}
    both = [(b, a) for b, a in zip(transcripts["b"], transcripts["a"], strict=True) if for_scoring(b)]
    figures["judges_disagree"] = (
        metrics.corpus_cer([b for b, _ in both], [a for _, a in both]) if both else float("nan")
    )
    figures["cer_resynthesis"] = corpus_rates(again)["cer"]
    figures["f0_in_tokens"] = f0_probe(chain, [dev])
    figures["speaker_in_tokens"] = speaker_probe(chain, [test])["share"]
    if language in chain.languages:
        effect = style_effect(chain, language, dev, n)
        figures |= {"style_spread": effect["spread"], "style_sim": effect["sim"]}
    return figures


def impressions(chain: Chain, wave: audio.Wave, text: str, reference: audio.Wave) -> dict[str, float]:
    """Nine numbers of one sound beside a recording of the same words: what to watch while a sound is broken.

    Both are `(s,)` at 16 kHz; melodies are compared after DTW on the mel.
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
