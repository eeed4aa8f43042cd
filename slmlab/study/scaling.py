"""One cell of the scaling study: a language model fine-tuned on one mixture with one seed, and what it says.

A cell is an arm, a point and a seed. In three arms the point is α: `authentic` (crowd stand-in fixed,
synthetic added), `lively` (the same sentences, voices and melodies, clean and rightly transcribed) and
`equal-hours` (hours in all fixed). In the data-budget arms it is minutes of authentic speech, `alone` or
`helped` by synthetic speech, from the backbone or from `scratch`. `entropy` lets the model of the authentic
arm at that α say sentences many times, warmer, cooler and with noise in its tokens. `synthetic` is minutes of
synthetic speech and nothing else: where the alignment of a language without recordings begins.

Whatever the cell, the backbone, the steps, the sentences, the voices and the judge are the same.

Axis legend: n utterances, t speech tokens, f mel frames, s samples, c timbre numbers, d draws.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from slmlab import metrics
from slmlab.corpus.build import Corpus, CorpusSpec, build
from slmlab.corpus.mixing import Rows, mix
from slmlab.corpus.utterances import Utterances, another, text_symbols
from slmlab.language.text import for_scoring
from slmlab.metrics.statistics import draws_of
from slmlab.models.lm import LMConfig, SpeechLM, lm_loss
from slmlab.sound import SAMPLE_RATE, audio, features
from slmlab.speech import score
from slmlab.speech.chain import Chain
from slmlab.speech.sampling import SamplingConfig, generate
from slmlab.training import checkpoints
from slmlab.training.cache import read_done
from slmlab.training.checkpoints import Card
from slmlab.training.loop import read_log, train
from slmlab.training.presets import preset
from slmlab.training.recipes import encode, lm_batches

LANGUAGE = "vi"
"""The language of the sweep: the one with real speech."""
REAL = {"authentic": "authentic", "lively": "lively", "equal-hours": "authentic"}
"""Which real speech an arm of the sweep mixes with synthetic speech."""
BUDGET = ("alone", "helped", "alone-scratch", "helped-scratch")
ENTROPY = "entropy"
SYNTHETIC = "synthetic"
WINDOW = 25  # tokens, a second: over windows of one length H_p of long and short utterances compare
DRAWS = 1000  # of sentences, for corpus entropies: the same in every cell
COUNTED = 0.6  # share of the recordings' tokens that every corpus entropy counts
BATCH = 32  # utterances decoded side by side


@dataclass(frozen=True)
class Study:
    """The numbers of the study at one preset."""

    preset: str
    """Whose corpora, recordings and batches."""
    checkpoints: str
    """Folder of the trained parts and of the backbone."""
    language: str = LANGUAGE
    """What is spoken."""
    steps: int = 120
    """Budget of every fine-tuning."""
    alphas: tuple[float, ...] = (0.03, 0.09, 0.25, 0.5, 0.67, 0.8, 0.9, 1.0)
    """Points of the sweep; 1 is the synthetic part of the point before, alone."""
    minutes: tuple[float, ...] = (1.0, 2.5, 5.0, 10.0)
    """Points of the data-budget curve."""
    authentic_minutes: float = 10.0
    """Real speech of the authentic and the lively arm, and all speech of `equal-hours`."""
    helping_minutes: float = 40.0
    """Synthetic speech that helps in the data-budget curve."""
    n_test: int = 350
    """Sentences each model says to be tested."""
    n_dev: int = 60
    """Sentences on which choices are made."""
    n_many: int = 100
    """Test sentences of `entropy`, each said many times."""


@dataclass(frozen=True)
class Cell:
    """One run."""

    arm: str
    """See the top of this file."""
    point: float
    """α, or minutes of authentic speech (of synthetic speech in the arm `synthetic`)."""
    seed: int
    """Of the training, the sampling, and which synthetic speech is mixed in; the real speech is the same."""

    @property
    def name(self) -> str:
        """For stages, files and messages."""
        return f"{self.arm}.{self.point:g}.{self.seed}"

    @property
    def model(self) -> "Cell":
        """The cell whose model speaks: another one's for `entropy`."""
        return replace(self, arm="authentic") if self.arm == ENTROPY else self


@dataclass(frozen=True)
class Manner:
    """One way in which a model is made to say the sentences."""

    temperature: float = 0.7
    """Of the draw: the middle of what is tried, whatever the showcase is heard at."""
    noise: float = 0.0
    """Share of the tokens replaced by random ones afterwards."""
    samples: int = 1
    """How often each sentence is said."""


PLAIN = (Manner(),)
MANY = (Manner(0.4, 0, 3), Manner(0.7, 0, 4), Manner(1.0, 0, 3), Manner(0.7, 0.15, 4))


@dataclass(frozen=True)
class Coded:
    """Utterances as a language model learns from them: all that `lm_batches` asks of `Utterances`."""

    rows: pd.DataFrame
    """`kind`, `language`, `voice`, `text`, `seconds`, `codes`."""

    def column(self, name: str) -> list[Any]:
        """One column, in order."""
        return list(self.rows[name])

    def codes(self) -> list[Tensor]:
        """Codes (t) of each utterance."""
        return [torch.tensor(codes, dtype=torch.int64) for codes in self.rows["codes"]]

    def other(self, i: int, draw: np.random.Generator) -> int:
        """Another utterance of the same voice, or the same one where the voice has said nothing else."""
        return another(self.rows["voice"].to_numpy(), i, draw)


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums come out the same everywhere, and processes side by side do not fight for cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def lively_corpus(study: Study) -> CorpusSpec:
    """The authentic corpus without its noise, rooms and wrong transcripts."""
    spoken = preset(study.preset).corpora[study.language]
    specs = {spec.kind: spec for spec in spoken if isinstance(spec, CorpusSpec)}
    return replace(specs["authentic"], name=f"lm-{study.language}-lively", kind="lively")


def speak_lively(study: Study, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """Stage: speak the clean twin of the authentic corpus."""
    spec = lively_corpus(study)
    return {"minutes": build(spec, folder / spec.name, workers=1).hours * 60}


def code_corpora(study: Study, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """Stage: all training speech of the study as tokens, in `codes.parquet`, and which codes are silence."""
    chain = Chain(Path(study.checkpoints))
    parts, quiet = [], metrics.NOTHING
    with one_thread():
        for source in inputs.values():
            data = Utterances(source)
            codes = encode(chain.tokenizer, data)
            rows = data.rows()
            kept = rows[["kind", "language", "voice", "text", "seconds"]]
            parts.append(kept.assign(codes=[row.numpy().astype(np.int16) for row in codes]))
            energies = [corpus.energy(i) for corpus in data.corpora for i in range(len(corpus))]
            quiet |= metrics.silence_codes([row.tolist() for row in codes], energies)
    table = pd.concat(parts, ignore_index=True)
    table.to_parquet(folder / "codes.parquet", index=False)
    save_file({"silence": torch.tensor(sorted(quiet), dtype=torch.int64)}, folder / "silence.safetensors")
    return {"utterances": len(table), "silence_codes": len(quiet)}


def mixture(study: Study, cell: Cell, table: pd.DataFrame) -> Rows:
    """Which rows of `codes.parquet` a cell learns from, ascending."""
    real = np.flatnonzero(table["kind"] == REAL.get(cell.arm, "authentic"))
    made = np.flatnonzero(table["kind"] == "synthetic")
    if cell.arm == SYNTHETIC:
        made = np.random.default_rng(cell.seed).permutation(made)
        return np.sort(made[np.cumsum(table["seconds"].to_numpy()[made]) <= 60 * cell.point])
    minutes = cell.point if cell.arm in BUDGET else study.authentic_minutes
    real = real[np.cumsum(table["seconds"].to_numpy()[real]) <= 60 * minutes]
    a, b = table.iloc[real], table.iloc[made]
    if cell.arm in BUDGET:
        helped = cell.arm.startswith("helped")
        taken = mix(a, b, 1.0, cell.seed, study.helping_minutes / 60).synthetic if helped else made[:0]
        return np.concatenate([real, made[taken]])
    if cell.arm == "equal-hours":
        mixed = mix(a, b, cell.point, cell.seed, study.authentic_minutes / 60)
    else:
        mixed = mix(a, b, min(cell.point, study.alphas[-2]), cell.seed)
    kept = mixed.authentic if cell.point < 1 else mixed.authentic[:0]
    return np.sort(np.concatenate([real[kept], made[mixed.synthetic]]))


def train_cell(study: Study, cell: Cell, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """Stage: fine-tune the backbone (or begin from nothing) on the cell's mixture."""
    table = pd.read_parquet(inputs["study.codes"] / "codes.parquet")
    data = Coded(table.iloc[mixture(study, cell, table)])
    part = preset(study.preset).lm
    with one_thread():
        model = checkpoints.load(Path(study.checkpoints) / "lm.backbone", SpeechLM, LMConfig)[0]
        if cell.arm.endswith("scratch"):
            torch.manual_seed(cell.seed)
            model = SpeechLM(model.config)
        how = replace(part, train=replace(part.train, seed=cell.seed, steps=study.steps))
        codes = data.codes()
        texts = text_symbols(data, model.config.alphabet)
        model.fit_pace(texts, [len(row) for row in codes], data.column("language"))
        batches = lm_batches(model.config, data, codes, how)  # type: ignore[arg-type]  # asks no more of it
        train(model, lm_loss, batches, how.train, folder / "training")
    last = read_log(folder / "training")[-1]
    facts = {"cell": cell.name}
    checkpoints.save(folder / "model", model, Card(config=model.config, facts=facts), small=True)
    shutil.rmtree(folder / "training")
    minutes = data.rows.groupby(data.rows["kind"] == "synthetic")["seconds"].sum() / 60
    real, made = float(minutes.get(False, 0.0)), float(minutes.get(True, 0.0))
    figures = {"alpha": made / (real + made), "real_minutes": real, "synthetic_minutes": made}
    return figures | {"loss": last["loss"], "training_seconds": last["seconds"]}


def hear_recordings(study: Study, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """Stage: the recordings themselves, measured as speech of a cell is, and the voices to speak in."""
    chain = Chain(Path(study.checkpoints))
    silence = _silence(inputs)
    rows: list[dict[str, Any]] = []
    codes: dict[str, list[list[int]]] = {}
    with one_thread():
        for split, n in (("dev", study.n_dev), ("test", study.n_test)):
            recordings = score.held_out(inputs["corpus.held_out"], split, study.language)
            n = min(n, len(recordings))
            timbres = score.reference_timbres(chain, recordings, n)
            save_file({"timbres": timbres}, folder / f"{split}.safetensors")
            waves = [torch.as_tensor(recordings.wave(i)) for i in range(n)]
            codes[split] = [chain.encode(wave) for wave in waves]
            for i in range(n):
                found = _measured(chain, waves[i], codes[split][i], timbres, recordings, i, silence)
                rows.append({"split": split, "sentence": i, **found})
    pd.DataFrame(rows).to_parquet(folder / "rows.parquet", index=False)
    kept = sum(code not in silence for row in codes["test"] for code in row)
    return {"tokens": sum(map(len, codes["test"])), "tokens_without_silence": kept}


def say_cell(study: Study, cell: Cell, folder: Path, inputs: dict[str, Path]) -> dict[str, Any]:
    """Stage: the cell's model says the sentences, without style; rows of metrics, and corpus entropies."""
    chain = Chain(Path(study.checkpoints))
    lm = checkpoints.load(inputs[f"train.{cell.model.name}"] / "model", SpeechLM, LMConfig)[0]
    rows: list[dict[str, Any]] = []
    said: dict[str, list[list[int]]] = {}
    many = cell.arm == ENTROPY
    splits = [("test", study.n_many)] if many else [("dev", study.n_dev), ("test", study.n_test)]
    with one_thread():
        for split, most in splits:
            timbres = load_file(inputs["study.recordings"] / f"{split}.safetensors")["timbres"][:most]
            for manner, sample in _sayings(MANY if many else PLAIN):
                seed = cell.seed * 100 + sample
                found, said[split], wave = say_split(study, chain, lm, split, timbres, manner, seed, inputs)
                rows += [row | {"sample": sample} for row in found]
                audio.write(folder / f"{split}-{manner.temperature:g}-{manner.noise:g}.wav", wave.numpy())
    pd.DataFrame(rows).to_parquet(folder / "rows.parquet", index=False)
    return {} if many else entropies(said, inputs)


def say_split(
    study: Study,
    chain: Chain,
    lm: SpeechLM,
    split: str,
    timbres: Tensor,
    manner: Manner,
    seed: int,
    inputs: dict[str, Path],
    styles: Sequence[Sequence[int]] = (),
    speakers: Corpus | None = None,
) -> tuple[list[dict[str, Any]], list[list[int]], Tensor]:
    """A model says the first sentences of a split and is measured.

    Args:
        study: whose language and parts.
        chain: the parts.
        lm: who speaks.
        split: `dev` or `test`.
        timbres: (n c) the voices of as many sentences.
        manner: temperature and noise.
        seed: another seed, another reading.
        inputs: folders of `corpus.held_out` and `study.codes`.
        styles: codes (t) in whose manner each is said; none is the plain manner.
        speakers: recordings whose voices `timbres` are, if not those of the sentences.

    Returns:
        A row of metrics for each sentence, its codes (t), and the wave (s) of the first.
    """
    recordings = score.held_out(inputs["corpus.held_out"], split, study.language)
    silence = _silence(inputs)
    texts = list(recordings.rows["spoken"])[: len(timbres)]
    codes, waves = _say(chain, lm, study.language, texts, timbres, manner, seed, styles)
    at = {"split": split, "temperature": manner.temperature, "noise": manner.noise}
    rows = [
        at | {"sentence": i} | _measured(chain, wave, row, timbres, recordings, i, silence, speakers)
        for i, (row, wave) in enumerate(zip(codes, waves, strict=True))
    ]
    return rows, codes, waves[0]


def corpus_entropy(
    utterances: Sequence[Sequence[int]], n_tokens: int, exclude: frozenset[int]
) -> tuple[float, NDArray[np.float64]]:
    """H_p of `n_tokens` tokens in bits, and the same (d) for sentences drawn again, alike in every cell.

    The first is the mean over random orders of the sentences, each once. Utterances are taken whole until
    there are enough tokens (from the beginning again if need be); the last is cut.
    """
    kept = [np.array([code for code in row if code not in exclude], dtype=np.int64) for row in utterances]
    if n_tokens < 1 or not sum(map(len, kept)):
        return float("nan"), np.full(DRAWS, np.nan)

    def bits(order: NDArray[np.int64]) -> float:
        return metrics.prosodic_entropy([np.resize(np.concatenate([kept[i] for i in order]), n_tokens)])

    orders = np.random.default_rng(0).permuted(np.tile(np.arange(len(kept)), (50, 1)), axis=1)
    draws = draws_of(len(kept), DRAWS)
    return float(np.mean([bits(order) for order in orders])), np.array([bits(order) for order in draws])


def entropies(said: dict[str, list[list[int]]], inputs: dict[str, Path]) -> dict[str, Any]:
    """Corpus entropies of what was said on test, and on dev if it was, with and without codes of silence."""
    counted, found = _counted(inputs), dict[str, Any]()
    for name, exclude in (("h", metrics.NOTHING), ("h_spoken", _silence(inputs))):
        if "dev" in said:
            n_dev = round(counted[name] * len(said["dev"]) / len(said["test"]))
            found[f"{name}_dev"] = corpus_entropy(said["dev"], n_dev, exclude)[0]
        found[name], draws = corpus_entropy(said["test"], counted[name], exclude)
        found[f"{name}_miller_madow"] = metrics.prosodic_entropy_miller_madow(said["test"], exclude)
        found[f"{name}_draws"] = draws
    return found


def _counted(inputs: dict[str, Path]) -> dict[str, int]:
    """How many tokens corpus entropies count, from the recordings of the test sentences."""
    tokens = read_done(inputs["study.recordings"])["metrics"]
    names = {"h": "tokens", "h_spoken": "tokens_without_silence"}
    return {name: int(COUNTED * tokens[of]) for name, of in names.items()}


def _silence(inputs: dict[str, Path]) -> frozenset[int]:
    return frozenset(load_file(inputs["study.codes"] / "silence.safetensors")["silence"].tolist())


def _sayings(manners: Sequence[Manner]) -> Iterator[tuple[Manner, int]]:
    """Each manner with each of its samples; a noisy manner's samples are those of the clean one."""
    for manner in manners:
        yield from ((manner, sample) for sample in range(manner.samples))


def _say(
    chain: Chain,
    lm: SpeechLM,
    language: str,
    texts: Sequence[str],
    timbres: Tensor,
    manner: Manner,
    seed: int,
    styles: Sequence[Sequence[int]],
) -> tuple[list[list[int]], list[Tensor]]:
    """Codes (t) and waves (s) of texts in the voices (n c)."""
    seeds = [1000 * seed + i for i in range(len(texts))]
    prompts = [
        lm.prompt(text, language, style)
        for text, style in zip(texts, styles or [()] * len(texts), strict=True)
    ]
    codes = generate(lm, prompts, SamplingConfig(temperature=manner.temperature), seeds)
    codes = [
        noisy(row, manner.noise, lm.config.n_codes, i) or [0] for row, i in zip(codes, seeds, strict=True)
    ]
    waves: list[Tensor] = []
    for start in range(0, len(texts), BATCH):
        part = slice(start, start + BATCH)
        waves += chain.to_sounds(codes[part], timbres[part], seeds[part])
    return codes, waves


def noisy(codes: list[int], share: float, n_codes: int, seed: int) -> list[int]:
    """Codes of which some, each with the chance `share`, are replaced by any code at all."""
    draw = np.random.default_rng(seed)
    other = draw.integers(n_codes, size=len(codes))
    return np.where(draw.random(len(codes)) < share, other, np.array(codes, dtype=np.int64)).tolist()


@torch.inference_mode()
def _measured(
    chain: Chain,
    wave: Tensor,
    codes: list[int],
    timbres: Tensor,
    recordings: Corpus,
    i: int,
    silence: frozenset[int],
    speakers: Corpus | None = None,
) -> dict[str, Any]:
    """Every metric of one utterance that should say what recording `i` says, in the i-th of the voices (n c);
    errors are counts.
    """
    text = recordings.rows["spoken"].iloc[i]
    heard = chain.hear([wave])[0]
    mel, f0, energy = features.extract(wave)
    path = metrics.align(mel, recordings.mel(i))
    words, letters = len(for_scoring(text).split()), len(for_scoring(text))
    lively = metrics.expressivity(f0, energy)
    embedding = chain.speaker(mel[None], torch.tensor([len(mel)]))[0]
    return {
        "text": text,
        "heard": heard,
        "word_errors": round(metrics.wer(text, heard) * words),
        "words": words,
        "letter_errors": round(metrics.cer(text, heard) * letters),
        "letters": letters,
        "seconds": len(wave) / SAMPLE_RATE,
        "repetition": metrics.repetition_rate(codes),
        "repetition_spoken": metrics.repetition_rate(codes, exclude=silence),
        "h_window": metrics.window_entropy(codes, WINDOW),
        "h_window_spoken": metrics.window_entropy(codes, WINDOW, silence),
        "melody_entropy": metrics.melody_entropy(f0),
        "f0_std": metrics.f0_std(f0),
        "f0_range": metrics.f0_range(f0),
        "f0_spread": lively.f0_spread,
        "f0_range_semitones": lively.f0_range,
        "energy_std": lively.energy_std,
        "rate_variation": lively.rate_variation,
        "voiced": metrics.voiced_share(f0, energy),
        "f0_correlation": metrics.f0_correlation(f0, recordings.f0(i), path),
        "f0_rmse": metrics.f0_rmse(f0, recordings.f0(i), path),
        "sim": metrics.similarity(embedding, timbres[i, :-1]),
        "sim_strangers": _to_strangers(embedding, timbres, list((speakers or recordings).rows["voice"]), i),
    }


def _to_strangers(embedding: Tensor, timbres: Tensor, voices: Sequence[str], i: int) -> float:
    """Mean SIM to the timbres (n c) of all voices but the i-th; NaN where there is no other."""
    others = [j for j in range(len(timbres)) if voices[j] != voices[i]]
    sims = [metrics.similarity(embedding, timbres[j, :-1]) for j in others]
    return float(np.mean(sims)) if sims else float("nan")
