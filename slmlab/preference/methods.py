"""Preference tuning by name: a method, a preset, a seed, and everything else follows.

A run is a stage: its key holds the method's settings, the checkpoints it begins from and hears with, and the
code, so that a killed run goes on, a finished one is read, and nothing is mistaken for anything else. What is
left in its folder: `model`, and the pairs, ledgers and logs of `slmlab.preference`.

The rates and steps of `tiny` were settled on dev (`slmlab settle`, seed 0).
"""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from slmlab import files
from slmlab.corpus import utterances
from slmlab.corpus.build import MANIFEST
from slmlab.corpus.manifest import RECORDED
from slmlab.corpus.pairs import Pair, read
from slmlab.errors import LabError
from slmlab.language.sentences import sentences
from slmlab.models.lm import LMConfig, SpeechLM
from slmlab.preference import dgsa, tdsc
from slmlab.preference.dgsa import DGSAConfig, Recording
from slmlab.preference.jury import CodeJudge, Jury, Limits, measure
from slmlab.preference.tdsc import TDSCConfig
from slmlab.preference.tune import PreferenceConfig, tune
from slmlab.sound import audio
from slmlab.sound.audio import SOUNDS
from slmlab.speech.chain import Chain
from slmlab.speech.sampling import SamplingConfig
from slmlab.training import checkpoints, recipes, shelf
from slmlab.training.cache import Stage, run_stages
from slmlab.training.checkpoints import SUFFIX, Card
from slmlab.training.loop import TrainConfig

PEOPLE = "people"
METHODS = (*dgsa.VARIANTS, *tdsc.VARIANTS, PEOPLE)
TEXT_SEED = 77  # texts to be said anew; corpora draw theirs from other seeds


@dataclass(frozen=True)
class Scale:
    """What alignment costs at a preset."""

    texts: int
    """Sentences that rounds of TDSC draw theirs from."""
    dev: int
    """Dev sentences at which a model is watched."""
    real_dev: int
    """The same where recordings teach, whose gains are smaller."""
    prompts: int
    """Texts of a round."""
    rounds: int
    """Rounds of TDSC."""
    sft: TrainConfig
    """Learning what was accepted."""
    dpo: PreferenceConfig
    """Learning from pairs."""
    dgsa: PreferenceConfig
    """The same for DGSA and its like, whose pairs come from recordings."""
    max_wer: float = 0.4
    """A recording, or a candidate, is accepted if the judge hears fewer errors than this in it."""
    same_speaker: bool = True
    """Whether DGSA takes styles from the recording's own speaker; at smoke most speak once."""

    def watched(self, method: str) -> int:
        """Dev sentences at which a method is watched."""
        return self.real_dev if method in dgsa.VARIANTS else self.dev

    def used_by(self, method: str) -> list[Any]:
        """The settings that a method's result depends on; the start itself, `sft`, on none."""
        if method == "sft":
            return []
        if method in dgsa.VARIANTS:
            return [self.real_dev, self.max_wer, self.dgsa, self.same_speaker]
        return [self.dev, self.max_wer, self.texts, self.prompts, self.rounds, self.sft, self.dpo]


@dataclass(frozen=True)
class Material:
    """What a method learns from; each takes its own part."""

    texts: Sequence[str] = ()
    """TDSC and its like: texts to be said anew."""
    recordings: Sequence[Recording] = ()
    """DGSA and its like: real speech."""
    pairs: Sequence[Pair] = ()
    """Votes."""


def _train(steps: int, lr: float, every: int) -> TrainConfig:
    return TrainConfig(steps, lr=lr, muon_lr=0.0, warmup=max(1, steps // 10), validate_every=every)


SCALES = {
    "smoke": Scale(
        texts=8,
        dev=4,
        real_dev=4,
        prompts=4,
        rounds=2,
        sft=_train(2, 2e-4, 0),
        dpo=PreferenceConfig(_train(2, 2e-5, 0), batch=2000),
        dgsa=PreferenceConfig(_train(2, 2e-5, 0), batch=2000, choose="melody"),
        max_wer=9.0,
        same_speaker=False,
    ),
    "tiny": Scale(
        texts=1000,
        dev=60,
        real_dev=200,
        prompts=200,
        rounds=5,
        sft=_train(60, 6e-4, 0),
        dpo=PreferenceConfig(_train(30, 2e-5, 15), sft=1.0),
        dgsa=PreferenceConfig(_train(24, 4e-5, 4), sft=10.0, choose="melody", limits=Limits(error=0.015)),
    ),
}


def align(
    method: str,
    preset_name: str,
    seed: int,
    start: Path | None = None,
    votes: Path | None = None,
    clips: Path | None = None,
    language: str = "",
    alpha: float | None = None,
    recordings: Path | None = None,
) -> Path:
    """Run a method, or find what it left: the folder of its run.

    Args:
        method: one of `METHODS`.
        preset_name: which chain, and how long (`SCALES`).
        seed: decides everything left to chance.
        start: the checkpoint to begin from, such as the study's; without it the chain's own language model.
        votes: for `people`: the exported preference table.
        clips: for `people`: the folder of the systems' sounds, where votes only name them by sha256.
        language: `vi` for DGSA and its like, else `sw`, unless given; votes do not say theirs, so that it has
            to be given.
        alpha: for DGSA and its like: share of synthetic speech that the start was trained on; 0.8 unless
            given.
        recordings: for DGSA and its like: an imported corpus in place of the stand-in speech of the chain.
    """
    if method not in METHODS or preset_name not in SCALES:
        raise LabError(
            f"there is no method {method!r} at preset {preset_name!r}: methods are {', '.join(METHODS)}, "
            f"presets {', '.join(SCALES)}."
        )
    if (votes is None) == (method == PEOPLE):
        raise LabError(f"method {method} {'needs' if method == PEOPLE else 'takes no'} votes: see --votes.")
    if votes and not votes.is_file():
        raise LabError(f"{votes} does not exist: export the votes first.")
    if method == PEOPLE and not language:
        raise LabError("a table of votes does not say in which language: give it with --language.")
    if clips and method != PEOPLE:
        raise LabError(f"method {method} takes no clips: they are what votes are about.")
    for what, value in (("recordings", recordings), ("alpha", alpha)):
        if value is not None and method not in dgsa.VARIANTS:
            raise LabError(f"method {method} takes no {what}: {', '.join(dgsa.VARIANTS)} do.")
    if recordings and not (recordings / MANIFEST).exists():
        raise LabError(f"{recordings} is no corpus: make one of your recordings with `slmlab import`.")
    chain = Chain(shelf.checkpoint_folder(preset_name))
    language = language or ("vi" if method in dgsa.VARIANTS else "sw")
    begin = start or chain.folder / f"lm.{language}"
    read_from = [begin, chain.folder / "tokenizer", chain.folder / "judge_a"]
    sources = [Path(f"{path}".removesuffix(SUFFIX) + SUFFIX) for path in read_from]
    headers = [checkpoints.read_header(file) for file in sources]
    config: list[Any] = [[header["sha256"] for header in headers], SCALES[preset_name].used_by(method)]
    given = [votes] if votes else [recordings / MANIFEST] if recordings else []
    config += [hashlib.sha256(file.read_bytes()).hexdigest() for file in given]
    places = (str(begin), str(votes or ""), str(clips or ""), str(recordings or ""))
    arguments = (method, preset_name, seed, *places, language, DGSAConfig.alpha if alpha is None else alpha)
    name = f"align.{method}.{language}.{seed}"
    stage = Stage(name, (), functools.partial(_run, *arguments), config)
    return run_stages([stage], files.CACHE / preset_name, workers=1)[name]


def _run(
    method: str,
    preset_name: str,
    seed: int,
    start: str,
    votes: str,
    clips: str,
    recordings: str,
    language: str,
    alpha: float,
    folder: Path,
    inputs: dict[str, Path],
) -> Mapping[str, float]:
    """The stage: align, keep the model, say what dev thinks of it."""
    scale = SCALES[preset_name]
    chain = Chain(shelf.checkpoint_folder(preset_name))
    model = checkpoints.load(start, SpeechLM, LMConfig)[0]
    jury = jury_of(chain, language, scale.watched(method))
    material = Material(sentences(language, "lm", scale.texts, TEXT_SEED))
    if method in dgsa.VARIANTS:
        said = Path(recordings) if recordings else shelf.corpus_folder(preset_name, language)
        material = Material(recordings=_recordings(chain, said, language))
    elif method == PEOPLE:
        encode = _encoder(chain, Path(clips)) if clips else None
        cast = read(votes, language, encode)
        material = Material(pairs=[pair for pair in cast if pair.group != "test"])
        if not material.pairs:
            raise LabError(f"all {len(cast)} votes in {votes} are kept for testing: collect more.")
    tuned = apply(method, model, material, scale, seed, folder, jury, alpha)
    facts = {"method": method, "seed": seed, "language": language, "start": start}
    checkpoints.save(folder / "model", tuned, Card(tuned.config, facts))
    return measure(tuned, model, jury)


def jury_of(chain: Chain, language: str, n_dev: int, sampling: SamplingConfig | None = None) -> Jury:
    """Judge A, in one of the chain's voices, with as many dev sentences, at which a model is watched."""
    judge = CodeJudge(chain, chain.named_timbre(shelf.VOICE_NAMES[2]))
    dev = tuple(sentences(language, "dev", n_dev, TEXT_SEED))
    return Jury(language, judge, dev, sampling or SamplingConfig())


def apply(
    method: str,
    model: SpeechLM,
    material: Material,
    scale: Scale,
    seed: int,
    folder: Path,
    jury: Jury,
    alpha: float = 0.8,
) -> SpeechLM:
    """A model after a method; the given one stays as it is.

    Args:
        method: one of `METHODS`.
        model: where it begins, the frozen reference.
        material: what it learns from.
        scale: how long and how fast.
        seed: decides everything left to chance.
        folder: where the run lives; a killed one goes on there.
        jury: filters, and watches on dev.
        alpha: share of synthetic speech that the model was trained on, for DGSA.
    """
    usual = scale.dgsa if method in dgsa.VARIANTS else scale.dpo
    dpo = replace(usual, train=replace(usual.train, seed=seed))
    if method in dgsa.VARIANTS:
        settings = DGSAConfig(
            dpo, alpha=alpha, seed=seed, max_wer=scale.max_wer, same_speaker=scale.same_speaker
        )
        return dgsa.align(model, material.recordings, dgsa.variant(method, settings), folder, jury)
    if method in tdsc.VARIANTS:
        sft = replace(scale.sft, seed=seed)
        rounds = TDSCConfig(sft, dpo, scale.rounds, scale.prompts, seed=seed, max_wer=scale.max_wer)
        return tdsc.align(model, material.texts, replace(rounds, **tdsc.VARIANTS[method]), folder, jury)
    return tune(model, material.pairs, dpo, folder / "dpo", jury)


def _recordings(chain: Chain, folder: Path, language: str) -> list[Recording]:
    """People's recordings, or the stand-in for them, of a language in a folder, as tokens.

    Those of dev and test sentences are left out.
    """
    data = utterances.Utterances(folder)
    codes = recipes.encode(chain.tokenizer, data)
    rows = data.rows().assign(codes=[row.tolist() for row in codes])
    found = authentic(rows[(rows["language"] == language) & (rows["split"] == "lm")])
    if not found:
        raise LabError(f"there is no authentic speech of {language!r} in {folder}: DGSA needs some.")
    return found


def authentic(rows: pd.DataFrame) -> list[Recording]:
    """The authentic ones of utterances with `kind`, `text`, `voice` and `codes`."""
    real = rows[rows["kind"].isin(["authentic", RECORDED])]
    return [
        Recording(text, tuple(map(int, codes)), voice)
        for text, codes, voice in zip(real["text"], real["codes"], real["voice"], strict=True)
    ]


def _encoder(chain: Chain, clips: Path) -> Callable[[str], Sequence[int]]:
    """What gives the speech tokens of the sound with a sha256 among the clips."""
    files = (file for file in sorted(clips.rglob("*")) if file.suffix.lower() in SOUNDS)
    known = {hashlib.sha256(file.read_bytes()).hexdigest(): file for file in files}

    @functools.cache
    def encode(digest: str) -> Sequence[int]:
        if digest not in known:
            raise LabError(
                f"none of {len(known)} sounds in {clips} has the sha256 {digest}: a vote's sound is gone, or "
                "this is not the folder that the study was made from."
            )
        return chain.encode(torch.as_tensor(audio.read(known[digest], max_seconds=30)[0]))

    return encode
