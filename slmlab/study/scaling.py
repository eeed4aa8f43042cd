"""The scaling study: a language model learns one mixture with one seed; what it says is measured.

A cell is an arm, a point and a seed. In three arms the point is α: `authentic` (the stand-in for recordings
stays, synthetic speech is added), `lively` (the same sentences, voices and melodies, clean and rightly
transcribed) and `equal-hours` (hours in all stay). In the data-budget arms it is minutes of authentic speech,
`alone` or `helped` by synthetic speech, from the backbone or from `scratch`. `entropy` lets the model of the
authentic arm at that α say sentences many times, warmer, cooler and with noise in its tokens. `synthetic` is
minutes of synthetic speech and nothing else: where the alignment of a language without recordings begins.

Backbone, steps, sentences, voices and judge are the same in all cells.

Axis legend: n utterances, t speech tokens, f mel frames, s samples, c timbre numbers, d draws.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from slmlab import files, metrics
from slmlab.corpus.build import Corpus, CorpusSpec, build
from slmlab.corpus.mixing import Rows, mix
from slmlab.corpus.utterances import Utterances, another, text_symbols
from slmlab.errors import LabError
from slmlab.files import digest
from slmlab.language.languages import find
from slmlab.language.text import words_of
from slmlab.metrics.statistics import draws_of
from slmlab.models.lm import SpeechLM, lm_loss
from slmlab.sound import SAMPLE_RATE, audio, features
from slmlab.speech import score
from slmlab.speech.chain import Chain
from slmlab.speech.sampling import SamplingConfig, generate
from slmlab.study import ground
from slmlab.study.rows import (
    RESULTS,
    Folders,
    Kind,
    copy_sound,
    read_rows,
    small,
    small_draws,
    write_rows,
)
from slmlab.training import checkpoints, recipes, shelf
from slmlab.training.cache import DONE, Stage, read_done
from slmlab.training.checkpoints import Card
from slmlab.training.loop import read_log, train
from slmlab.training.presets import preset
from slmlab.training.recipes import encode, lm_batches

FORMAT = 2
"""Counts up when the same settings begin to give other rows."""
REAL = {"authentic": "authentic", "lively": "lively", "equal-hours": "authentic"}
"""Which real speech an arm over α mixes with synthetic speech."""
BUDGET = ("alone", "helped", "alone-scratch", "helped-scratch")
ENTROPY, ENTROPY_AT = "entropy", 0.5
ARMS = (*REAL, *BUDGET, ENTROPY)
SYNTHETIC = "synthetic"
PARTS = ("tokenizer", "decoder", "vocoder", "speaker", "judge_b", "lm.backbone")
"""Checkpoints that a cell's rows depend on."""
PRESETS = ("smoke", "tiny")
WINDOW = 25  # tokens, a second: over windows of one length H_p of long and short utterances compare
DRAWS = 1000  # of sentences, for corpus entropies: the same in every cell
COUNTED = 0.6  # share of the recordings' tokens that every corpus entropy counts
BATCH = 32  # utterances decoded side by side


@dataclass(frozen=True)
class Study:
    """The numbers of a study at one preset, in one language."""

    preset: str
    """Whose corpora, recordings and batches."""
    checkpoints: str
    """Folder of the trained parts and of the backbone."""
    language: str
    """What is spoken."""
    steps: int = 120
    """Budget of every fine-tuning."""
    alphas: tuple[float, ...] = (0.03, 0.09, 0.25, 0.5, 0.67, 0.8, 0.9, 1.0)
    """Points of the arms over α; 1 is the synthetic part of the point before, alone."""
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

    @property
    def has_recordings(self) -> bool:
        """Whether models of its language have recordings to learn from."""
        return preset(self.preset).has_recordings(self.language)


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
    def table(self) -> str:
        """Each arm has tables of its own."""
        return self.arm

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
class Results:
    """All published rows of the scaling study."""

    rows: pd.DataFrame
    """One sentence of one cell a row: `arm`, `point`, `seed`, `split`, `sentence`, … and its metrics."""
    cells: pd.DataFrame
    """One cell a row: its mixture, corpus entropies with draws, and what it cost."""
    recordings: pd.DataFrame
    """The recordings of the same sentences, measured alike."""
    mixture: pd.DataFrame
    """`kind`, `codes`: training speech as tokens, equally long of each kind."""
    premises: dict[str, float]
    """Figures of the premises by name."""


def language_with(recordings: bool, preset_name: str) -> str:
    """The language of a preset that has recordings, or the one that has none.

    Raises:
        LabError: the preset has no such language.
    """
    chain = preset(preset_name)
    for language in chain.languages:
        if chain.has_recordings(language) == recordings:
            return language
    raise LabError(f"Preset {preset_name} has no language {'with' if recordings else 'without'} recordings.")


def check_preset(preset_name: str) -> None:
    """Raise a LabError unless the studies were made for a preset."""
    if preset_name not in PRESETS:
        raise LabError(f"The studies run at {' or '.join(PRESETS)}, not at preset {preset_name!r}.")


def study_of(preset_name: str, folder: Path | None = None) -> Study:
    """The study at a preset, in its language with recordings, with the checkpoints at hand or in a folder.

    Raises:
        LabError: the study was not made for that preset.
    """
    check_preset(preset_name)
    networks = str(folder or shelf.checkpoint_folder(preset_name))
    study = Study(preset_name, networks, language_with(True, preset_name))
    if preset_name == "smoke":
        few: dict[str, Any] = {"steps": 3, "n_test": 8, "n_dev": 8, "n_many": 3}
        study = replace(study, minutes=(0.1, 0.2), authentic_minutes=0.2, helping_minutes=0.8, **few)
    return study


def plan(study: Study, arms: Sequence[str], seeds: Sequence[int], alphas: Sequence[float] = ()) -> list[Cell]:
    """The cells asked for, seed by seed, at all of the study's α or some; budget arms have other points."""
    unknown = [arm for arm in arms if arm not in ARMS] + [a for a in alphas if a not in study.alphas]
    if unknown or not arms or not seeds or min(seeds) < 0:
        raise LabError(
            f"The sweep knows no {', '.join(map(str, unknown)) or 'run without arm and seed'}: arms are "
            f"{', '.join(ARMS)}, α {', '.join(f'{a:g}' for a in study.alphas)}, seeds from 0 up."
        )
    points = {arm: alphas or study.alphas for arm in REAL} | dict.fromkeys(BUDGET, study.minutes)
    points[ENTROPY] = (ENTROPY_AT,)
    cells = (Cell(arm, float(point), seed) for seed in seeds for arm in arms for point in points[arm])
    return list(dict.fromkeys(cells))


def key(study: Study, cell: Cell) -> str:
    """A digest, 12 digits, of all that a cell's rows depend on."""
    chain, numbers = preset(study.preset), files.plain(study)
    settings = {name: numbers[name] for name in numbers.keys() - {"checkpoints", "alphas", "minutes"}}
    corpora = [*chain.corpora[study.language], *chain.corpora["held_out"]]
    corpora += [lively_corpus(study)] if study.has_recordings else []
    speech = [spec.digest() if isinstance(spec, CorpusSpec) else digest(spec) for spec in corpora]
    manners = MANY if cell.arm == ENTROPY else PLAIN
    how = [chain.lm, SamplingConfig(temperature=1.0), manners, study.alphas[-2], speech]
    return digest([FORMAT, settings, how, cell, _parts(study)])[:12]


def stages(study: Study, cells: Sequence[Cell]) -> list[Stage]:
    """All stages that cells need, corpora included; without cells, what all of them share."""
    chain, parts = preset(study.preset), _parts(study)
    recipe = {stage.name: stage for stage in recipes.stages(chain)}
    corpus, held_out = f"corpus.{study.language}", "corpus.held_out"
    needed, learned = [recipe[corpus], recipe[held_out]], [corpus]

    def add(name: str, inputs: Sequence[str], run: Callable[..., Any], *what: Any, how: Any = parts) -> None:
        needed.append(Stage(name, tuple(inputs), partial(run, study, *what), how))

    if study.has_recordings:
        add("study.lively", [corpus], speak_lively, how=lively_corpus(study).digest())
        add("study.premises", [held_out], measure_premises)
        learned.append("study.lively")
    add("study.codes", learned, code_corpora)
    add("study.recordings", [held_out, "study.codes"], measure_recordings)
    for cell in cells:
        training = f"train.{cell.model.name}"
        add(training, ["study.codes"], train_cell, cell.model, how=[parts, chain.lm])
        add(f"say.{cell.name}", [training, "study.recordings", held_out, "study.codes"], say_cell, cell)
    return list({stage.name: stage for stage in needed}.values())  # two cells may share a model


def tables(study: Study, cell: Cell, folders: Folders) -> dict[str, pd.DataFrame]:
    """Sentences of a cell, and its line: mixture, entropies, cost."""
    place, trained = folders[f"say.{cell.name}"], read_done(folders[f"train.{cell.model.name}"])["metrics"]
    if cell.model != cell:
        trained["training_seconds"] = 0.0  # the model is another cell's, and so is its cost
    done = read_done(place)
    line = trained | {"speaking_seconds": done["seconds"]} | small_draws(done["metrics"])
    return {"sentences": _sentences(place), "cells": pd.DataFrame(line, index=[0])}


def share(study: Study, finished: Sequence[Cell], folders: Folders, target: Path) -> None:
    """Publish recordings, premises, equally long training speech of each kind, and sounds over α."""
    write_rows(_sentences(folders["study.recordings"]), target / f"{study.preset}-recordings.parquet")
    coded = pd.read_parquet(folders["study.codes"] / "codes.parquet")
    enough = coded.groupby("kind")["seconds"].cumsum() <= 60 * study.authentic_minutes
    write_rows(coded.loc[enough, ["kind", "codes"]], target / f"{study.preset}-mixture.parquet")
    if (folders["study.premises"] / DONE).exists():
        text = json.dumps(read_done(folders["study.premises"])["metrics"], indent=1) + "\n"
        files.replace_text(target / f"{study.preset}-premises.json", text)
    for cell in finished:
        if cell.arm == "authentic" and cell.seed == 0:
            wave = folders[f"say.{cell.name}"] / f"test-{Manner().temperature:g}-0.wav"
            copy_sound(wave, target / f"{study.preset}-{cell.name}.flac")


CELLS = Kind(Cell, "cells", key, stages, tables, share)


def _sentences(folder: Path) -> pd.DataFrame:
    return small(pd.read_parquet(folder / "rows.parquet").drop(columns=["text", "heard", "sim_strangers"]))


def _parts(study: Study) -> dict[str, str]:
    """Digests of the checkpoints that rows depend on."""
    folder = Path(study.checkpoints)
    return {name: checkpoints.read_header(folder / f"{name}.safetensors")["sha256"] for name in PARTS}


def read_results(preset_name: str, folder: Path = RESULTS) -> Results | None:
    """All published rows, or None without any."""
    premises = folder / f"{preset_name}-premises.json"
    if not premises.exists():
        return None
    names = ("*-sentences", "*-cells", "recordings", "mixture")
    rows, cells, recordings, mixed = (read_rows(preset_name, name, folder) for name in names)
    return Results(rows, cells, recordings, mixed, files.read_json(premises))


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


def speak_lively(study: Study, folder: Path, inputs: Folders) -> dict[str, float]:
    """Stage: speak the clean twin of the authentic corpus."""
    spec = lively_corpus(study)
    return {"minutes": build(spec, folder / spec.name, workers=1).hours * 60}


def measure_premises(study: Study, folder: Path, inputs: Folders) -> dict[str, float]:
    """Stage: what tokens hold, how well both judges hear recordings, and what a style changes."""
    dev, test = (
        score.held_out(inputs["corpus.held_out"], split, study.language) for split in ("dev", "test")
    )
    with one_thread():
        return ground.premises(Chain(Path(study.checkpoints)), study.language, dev, test, study.n_dev)


def code_corpora(study: Study, folder: Path, inputs: Folders) -> dict[str, float]:
    """Stage: all training speech of the study as tokens, in `codes.parquet`, and which codes are silence."""
    chain = Chain(Path(study.checkpoints))
    tables, silence = [], metrics.NOTHING
    with one_thread():
        for source in inputs.values():
            data = Utterances(source)
            codes = encode(chain.tokenizer, data)
            rows = data.rows()[["kind", "language", "voice", "text", "seconds"]]
            tables.append(rows.assign(codes=[row.numpy().astype(np.int16) for row in codes]))
            energies = [corpus.energy(i) for corpus in data.corpora for i in range(len(corpus))]
            silence |= metrics.silence_codes([row.tolist() for row in codes], energies)
    table = pd.concat(tables, ignore_index=True)
    table.to_parquet(folder / "codes.parquet", index=False)
    save_file({"silence": torch.tensor(sorted(silence), dtype=torch.int64)}, folder / "silence.safetensors")
    return {"utterances": len(table), "silence_codes": len(silence)}


def mixture(study: Study, cell: Cell, table: pd.DataFrame) -> Rows:
    """Which rows of `codes.parquet` a cell learns from, ascending."""
    seconds = table["seconds"].to_numpy()
    real = np.flatnonzero(table["kind"] == REAL.get(cell.arm, "authentic"))
    synthetic = np.flatnonzero(table["kind"] == "synthetic")
    if cell.arm == SYNTHETIC:
        synthetic = np.random.default_rng(cell.seed).permutation(synthetic)
        return np.sort(synthetic[np.cumsum(seconds[synthetic]) <= 60 * cell.point])
    minutes = cell.point if cell.arm in BUDGET else study.authentic_minutes
    real = real[np.cumsum(seconds[real]) <= 60 * minutes]
    both = (table.iloc[real], table.iloc[synthetic])
    if cell.arm in BUDGET:
        if not cell.arm.startswith("helped"):
            return real
        helping = mix(*both, 1.0, cell.seed, study.helping_minutes / 60).synthetic
        return np.concatenate([real, synthetic[helping]])
    if cell.arm == "equal-hours":
        mixed = mix(*both, cell.point, cell.seed, study.authentic_minutes / 60)
    else:
        mixed = mix(*both, min(cell.point, study.alphas[-2]), cell.seed)
    authentic = mixed.authentic if cell.point < 1 else mixed.authentic[:0]
    return np.sort(np.concatenate([real[authentic], synthetic[mixed.synthetic]]))


def train_cell(study: Study, cell: Cell, folder: Path, inputs: Folders) -> dict[str, float]:
    """Stage: fine-tune the backbone (or begin from nothing) on the cell's mixture."""
    table = pd.read_parquet(inputs["study.codes"] / "codes.parquet")
    data = Coded(table.iloc[mixture(study, cell, table)])
    part = preset(study.preset).lm
    with one_thread():
        model = checkpoints.load(Path(study.checkpoints) / "lm.backbone", SpeechLM)[0]
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
    real, synthetic = (float(minutes.get(is_synthetic, 0.0)) for is_synthetic in (False, True))
    figures = {"alpha": synthetic / (real + synthetic), "real_minutes": real, "synthetic_minutes": synthetic}
    return figures | {"loss": last["loss"], "training_seconds": last["seconds"]}


@dataclass(frozen=True)
class Prompts:
    """Sentences of a held-out split with the voice for each; a model says them and is measured."""

    chain: Chain
    """Decodes and judges."""
    recordings: Corpus
    """The split: its first sentences are said again."""
    timbres: Tensor
    """(n c) The voices of as many sentences."""
    speakers: Sequence[str]
    """(n) Whose voices those are."""
    silence: frozenset[int]
    """Codes that are silence."""

    def say(
        self, lm: SpeechLM, manner: Manner, seed: int, styles: Sequence[Sequence[int]] = ()
    ) -> tuple[list[dict[str, Any]], list[list[int]], Tensor]:
        """A model says the sentences, each in the style of codes (t) if any: another seed, another reading.

        Returns:
            A row of metrics for each sentence, its codes (t), and the wave (s) of the first.
        """
        sentences = self.recordings.rows.iloc[: len(self.timbres)]
        seeds = [1000 * seed + i for i in range(len(sentences))]
        columns = (sentences["spoken"], sentences["language"], styles or [()] * len(seeds))
        prompts = [lm.prompt(*sentence) for sentence in zip(*columns, strict=True)]
        codes = generate(lm, prompts, SamplingConfig(temperature=manner.temperature), seeds)
        share, n_codes = manner.noise, lm.config.n_codes
        codes = [noisy(row, share, n_codes, i) or [0] for row, i in zip(codes, seeds, strict=True)]
        waves: list[Tensor] = []
        for start in range(0, len(codes), BATCH):
            part = slice(start, start + BATCH)
            waves += self.chain.to_sounds(codes[part], self.timbres[part], seeds[part])
        at = {"temperature": manner.temperature, "noise": manner.noise}
        rows = [at | self.measure(i, *sound) for i, sound in enumerate(zip(waves, codes, strict=True))]
        return rows, codes, waves[0]

    @torch.inference_mode()
    def measure(self, i: int, wave: Tensor, codes: list[int]) -> dict[str, Any]:
        """Every metric of one utterance that should say sentence `i` in voice `i`; errors are counts."""
        text, language = self.recordings.rows.iloc[i][["spoken", "language"]]
        heard = self.chain.hear([wave])[0]
        mel, f0, energy = features.extract(wave)
        path = metrics.align(mel, self.recordings.mel(i))
        errors, words = count_words(text, heard, language)
        recorded_f0, letters = self.recordings.f0(i), len(find(language).counted_letters(text))
        embedding = self.chain.speaker(mel[None], torch.tensor([len(mel)]))[0]
        sims = [metrics.similarity(embedding, timbre[:-1]) for timbre in self.timbres]
        strangers = [sim for sim, who in zip(sims, self.speakers, strict=True) if who != self.speakers[i]]
        return {
            "sentence": i,
            "text": text,
            "heard": heard,
            "word_errors": errors,
            "words": words,
            "letter_errors": round(metrics.cer(text, heard, language) * letters),
            "letters": letters,
            "seconds": len(wave) / SAMPLE_RATE,
            "repetition": metrics.repetition_rate(codes),
            "repetition_spoken": metrics.repetition_rate(codes, exclude=self.silence),
            "h_window": metrics.window_entropy(codes, WINDOW),
            "h_window_spoken": metrics.window_entropy(codes, WINDOW, self.silence),
            "melody_entropy": metrics.melody_entropy(f0),
            "f0_std": metrics.f0_std(f0),
            "f0_range": metrics.f0_range(f0),
            **metrics.expressivity(f0, energy)._asdict(),
            "voiced": metrics.voiced_share(f0, energy),
            "f0_correlation": metrics.f0_correlation(f0, recorded_f0, path),
            "f0_rmse": metrics.f0_rmse(f0, recorded_f0, path),
            "sim": sims[i],
            "sim_strangers": float(np.mean(strangers)) if strangers else float("nan"),
        }


def prompts_of(study: Study, chain: Chain, split: str, timbres: Tensor, inputs: Folders) -> Prompts:
    """The first sentences of `dev` or `test`, each in one of the voices (n c) of that split's speakers."""
    recordings = score.held_out(inputs["corpus.held_out"], split, study.language)
    speakers = list(recordings.rows["voice"])[: len(timbres)]
    return Prompts(chain, recordings, timbres, speakers, _silence(inputs))


def count_words(text: str, heard: str, language: str) -> tuple[int, int]:
    """Wrong words of an utterance, and words of its text."""
    words = len(words_of(text, language))
    return round(metrics.wer(text, heard, language) * words), words


def noisy(codes: list[int], share: float, n_codes: int, seed: int) -> list[int]:
    """Codes of which some, each with the chance `share`, are replaced by any code at all."""
    draw = np.random.default_rng(seed)
    other = draw.integers(n_codes, size=len(codes))
    return np.where(draw.random(len(codes)) < share, other, np.array(codes, dtype=np.int64)).tolist()


def measure_recordings(study: Study, folder: Path, inputs: Folders) -> dict[str, float]:
    """Stage: the recordings themselves, measured as speech of a cell is, and the voices to speak in."""
    chain = Chain(Path(study.checkpoints))
    rows: list[dict[str, Any]] = []
    codes: list[list[int]] = []
    with one_thread():
        for split, n in (("dev", study.n_dev), ("test", study.n_test)):
            recordings = score.held_out(inputs["corpus.held_out"], split, study.language)
            timbres = score.reference_timbres(chain, recordings, min(n, len(recordings)))
            save_file({"timbres": timbres}, folder / f"{split}.safetensors")
            prompts = prompts_of(study, chain, split, timbres, inputs)
            waves = [torch.as_tensor(recordings.wave(i)) for i in range(len(timbres))]
            codes = [chain.encode(wave) for wave in waves]
            rows += [
                {"split": split} | prompts.measure(i, *sound)
                for i, sound in enumerate(zip(waves, codes, strict=True))
            ]
    pd.DataFrame(rows).to_parquet(folder / "rows.parquet", index=False)
    silence = _silence(inputs)
    spoken = sum(code not in silence for row in codes for code in row)
    return {"tokens": sum(map(len, codes)), "tokens_without_silence": spoken}


def say_cell(study: Study, cell: Cell, folder: Path, inputs: Folders) -> dict[str, Any]:
    """Stage: the cell's model says the sentences, without style; rows of metrics, and corpus entropies."""
    chain = Chain(Path(study.checkpoints))
    lm = checkpoints.load(inputs[f"train.{cell.model.name}"] / "model", SpeechLM)[0]
    rows: list[dict[str, Any]] = []
    codes: dict[str, list[list[int]]] = {}
    many = cell.arm == ENTROPY
    splits = {"test": study.n_many} if many else {"dev": study.n_dev, "test": study.n_test}
    with one_thread():
        for split, n in splits.items():
            timbres = load_file(inputs["study.recordings"] / f"{split}.safetensors")["timbres"][:n]
            prompts = prompts_of(study, chain, split, timbres, inputs)
            for manner in MANY if many else PLAIN:
                for sample in range(manner.samples):  # a noisy manner's samples are those of the clean one
                    own, codes[split], wave = prompts.say(lm, manner, cell.seed * 100 + sample)
                    rows += [{"split": split, "sample": sample} | row for row in own]
                    name = f"{split}-{manner.temperature:g}-{manner.noise:g}.wav"
                    audio.write(folder / name, wave.numpy())
    pd.DataFrame(rows).to_parquet(folder / "rows.parquet", index=False)
    return {} if many else entropies(codes, inputs)


def corpus_entropy(
    utterances: Sequence[Sequence[int]], n_tokens: int, exclude: frozenset[int]
) -> tuple[float, NDArray[np.float64]]:
    """H_p of `n_tokens` tokens in bits, and the same (d) for sentences drawn again, alike in every cell.

    The first is the mean over random orders of the sentences, each once. Utterances are taken whole until
    there are enough tokens (from the beginning again if need be); the last is cut.
    """
    counted = [np.array([code for code in row if code not in exclude], dtype=np.int64) for row in utterances]
    if n_tokens < 1 or not sum(map(len, counted)):
        return float("nan"), np.full(DRAWS, np.nan)

    def bits(order: NDArray[np.int64]) -> float:
        return metrics.prosodic_entropy([np.resize(np.concatenate([counted[i] for i in order]), n_tokens)])

    orders = np.random.default_rng(0).permuted(np.tile(np.arange(len(counted)), (50, 1)), axis=1)
    draws = draws_of(len(counted), DRAWS)
    return float(np.mean([bits(order) for order in orders])), np.array([bits(order) for order in draws])


def entropies(codes: Mapping[str, list[list[int]]], inputs: Folders) -> dict[str, Any]:
    """Corpus entropies of what was said on test, and on dev if it was, with and without codes of silence.

    Each counts as many tokens as a share of the recordings has.
    """
    recorded, figures = read_done(inputs["study.recordings"])["metrics"], dict[str, Any]()
    for name, exclude, tokens in (
        ("h", metrics.NOTHING, recorded["tokens"]),
        ("h_spoken", _silence(inputs), recorded["tokens_without_silence"]),
    ):
        n_tokens = int(COUNTED * tokens)
        if "dev" in codes:
            n_dev = round(n_tokens * len(codes["dev"]) / len(codes["test"]))
            figures[f"{name}_dev"] = corpus_entropy(codes["dev"], n_dev, exclude)[0]
        figures[name], figures[f"{name}_draws"] = corpus_entropy(codes["test"], n_tokens, exclude)
        figures[f"{name}_miller_madow"] = metrics.prosodic_entropy_miller_madow(codes["test"], exclude)
    return figures


def _silence(inputs: Folders) -> frozenset[int]:
    return frozenset(load_file(inputs["study.codes"] / "silence.safetensors")["silence"].tolist())
