"""Preference tuning by name: a method, a preset, a seed, and everything else follows.

A run is a stage: its key holds what was asked for, the method's settings, the checkpoints it begins from and
hears with, and the code, so that a killed run goes on and a finished one is read. In its folder are `model`,
and the pairs, tries and logs of `slmlab.preference`.

The rates and steps of `tiny` were settled on dev (`slmlab settle`, seed 0).
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import pandas as pd
import torch

from slmlab import files
from slmlab.corpus import utterances
from slmlab.corpus.build import MANIFEST
from slmlab.corpus.manifest import RECORDED
from slmlab.corpus.pairs import Encode, Pair, read
from slmlab.errors import LabError
from slmlab.language.sentences import sentences
from slmlab.models.lm import SpeechLM, assemble
from slmlab.preference import dgsa, tdsc
from slmlab.preference.dgsa import DGSAConfig, Recording
from slmlab.preference.jury import CodeJudge, Jury, Limits, measure
from slmlab.preference.tdsc import TDSCConfig
from slmlab.preference.tune import PreferenceConfig, monitor, tune
from slmlab.sound import audio
from slmlab.sound.audio import SOUNDS
from slmlab.speech.chain import Chain
from slmlab.speech.sampling import SamplingConfig, usual
from slmlab.training import checkpoints, recipes, shelf
from slmlab.training.cache import Stage, read_done, run_stages
from slmlab.training.checkpoints import SUFFIX, Card
from slmlab.training.loop import TrainConfig

PEOPLE = "people"
METHODS = (*dgsa.VARIANTS, *tdsc.VARIANTS, PEOPLE)
TEXT_SEED = 77  # texts to be said anew; corpora draw theirs from other seeds
ENOUGH = 0.1
"""Half of the widest interval that a share of votes may have before it is called a guess."""
Z = 1.96  # of a 95 % interval
SHOWN = {
    "wer": ("word errors", "{:.1%}"),
    "entropy": ("H_p in bits", "{:.2f}"),
    "f0_spread": ("F0 spread in semitones", "{:.2f}"),
}
"""Dev figures that a summary has."""


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
    """What a method learns from: texts for TDSC and its like, real speech for DGSA and its like, or votes."""

    texts: Sequence[str] = ()
    recordings: Sequence[Recording] = ()
    pairs: Sequence[Pair] = ()


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
SCALES["human"] = SCALES["tiny"]


@dataclass(frozen=True)
class Run:
    """What is asked of `align`."""

    method: str
    """One of `METHODS`."""
    preset: str
    """Which chain, and how long (`SCALES`)."""
    seed: int = 0
    """Decides everything left to chance."""
    language: str = ""
    """`vi` for DGSA and its like, else `sw`, unless given; it must be for votes, which say none."""
    start: Path | None = None
    """The checkpoint to begin from, such as the study's; without it the chain's own language model."""
    alpha: float | None = None
    """For DGSA and its like: share of synthetic speech that the start was trained on; 0.8 unless given."""
    votes: Path | None = None
    """For `people`: the exported preference table."""
    clips: Path | None = None
    """For `people`: the folder of the systems' sounds, where votes only name them by sha256."""
    recordings: Path | None = None
    """For DGSA and its like: an imported corpus in place of the stand-in speech of the chain."""

    def check(self) -> None:
        """LabError if this cannot be done."""
        method, votes, real, people = self.method, self.votes, self.recordings, self.method == PEOPLE
        only, other = f"{', '.join(dgsa.VARIANTS)} do.", method not in dgsa.VARIANTS
        faults = {
            f"there is no method {method!r} at preset {self.preset!r}: methods are {', '.join(METHODS)}, "
            f"presets {', '.join(SCALES)}.": method not in METHODS or self.preset not in SCALES,
            f"method {method} needs votes: see --votes.": people and not votes,
            f"method {method} takes no votes: see --votes.": votes and not people,
            f"{votes} does not exist: export the votes first.": votes and not votes.is_file(),
            "a table of votes does not say in which language: give it with --language.": people
            and not self.language,
            f"method {method} takes no clips: they are what votes are about.": self.clips and not people,
            f"method {method} takes no recordings: {only}": real and other,
            f"method {method} takes no alpha: {only}": self.alpha is not None and other,
            f"{real} is no corpus: make one of your recordings with `slmlab import`.": real
            and not (real / MANIFEST).exists(),
        }
        if fault := next((fault for fault, wrong in faults.items() if wrong), ""):
            raise LabError(fault)


def align(run: Run) -> Path:
    """Let a method run, or find what it left: the folder of the run, with its `model`."""
    run.check()
    chain = shelf.checkpoint_folder(run.preset)
    language = run.language or ("vi" if run.method in dgsa.VARIANTS else "sw")
    start = run.start or chain / f"lm.{language}"
    run = replace(run, language=language, start=start)
    parts = [f"{part}".removesuffix(SUFFIX) for part in (start, chain / "tokenizer", chain / "judge_a")]
    shas = [checkpoints.read_header(Path(part + SUFFIX))["sha256"] for part in parts]
    table = run.votes or (run.recordings and run.recordings / MANIFEST)
    shas += [files.sha256_of(table)] if table else []
    name = f"align.{run.method}.{language}.{run.seed}"
    stage = Stage(name, (), functools.partial(_run, run), [shas, SCALES[run.preset].used_by(run.method)])
    return run_stages([stage], files.CACHE / run.preset, workers=1)[name]


def _run(run: Run, folder: Path, inputs: dict[str, Path]) -> Mapping[str, float]:
    """The stage: align, save the model, and say what dev thinks of it."""
    chain, scale = Chain(shelf.checkpoint_folder(run.preset)), SCALES[run.preset]
    start = checkpoints.load(run.start or "", SpeechLM)[0]
    if run.method in dgsa.VARIANTS:
        corpus = run.recordings or shelf.make(run.preset, f"corpus.{run.language}")
        material = Material(recordings=_recordings(chain, corpus, run.language))
    elif run.votes:
        material = Material(pairs=_votes(chain, start, run.votes, run.language, run.clips))
        print(_how_sure(len(material.pairs)), flush=True)
    else:
        material = Material(texts=sentences(run.language, "lm", scale.texts, TEXT_SEED))
    jury = jury_of(chain, run.language, scale.watched(run.method))
    model, figures = apply(run, start, material, scale, folder, jury)
    facts = {"method": run.method, "seed": run.seed, "language": run.language, "start": f"{run.start}"}
    checkpoints.save(folder / "model", model, Card(model.config, facts))
    return figures | {"votes": len(material.pairs)}


def apply(
    run: Run, model: SpeechLM, material: Material, scale: Scale, folder: Path, jury: Jury
) -> tuple[SpeechLM, dict[str, float]]:
    """The model after a run's method, and its dev figures; the given one stays, the frozen reference.

    The jury filters, and watches on dev; a killed run goes on in its folder.
    """
    method, seed, real = run.method, run.seed, run.method in dgsa.VARIANTS
    dpo = scale.dgsa if real else scale.dpo
    dpo = replace(dpo, train=replace(dpo.train, seed=seed))
    if real:
        alpha = DGSAConfig.alpha if run.alpha is None else run.alpha
        settings = DGSAConfig(dpo, alpha, same_speaker=scale.same_speaker, max_wer=scale.max_wer, seed=seed)
        tuned = dgsa.align(model, material.recordings, dgsa.variant(method, settings), folder, jury)
    elif method in tdsc.VARIANTS:
        sft = replace(scale.sft, seed=seed)
        rounds = TDSCConfig(sft, dpo, scale.rounds, scale.prompts, max_wer=scale.max_wer, seed=seed)
        tuned = tdsc.align(model, material.texts, replace(rounds, **tdsc.VARIANTS[method]), folder, jury)
    else:
        tuned = tune(model, material.pairs, dpo, folder / "dpo", jury)
    return tuned, measure(tuned, model, jury)


def jury_of(chain: Chain, language: str, n_dev: int, sampling: SamplingConfig | None = None) -> Jury:
    """Judge A, in one of the chain's voices, with as many dev sentences, at which a model is watched."""
    judge = CodeJudge(chain, chain.named_timbre(shelf.VOICE_NAMES[2]), "a", language)
    texts = tuple(sentences(language, "dev", n_dev, TEXT_SEED))
    return Jury(language, judge, texts, sampling or usual(chain.lm(language)))


def summary(folder: Path) -> str:
    """A finished run in words: what it did to the dev figures."""
    card = checkpoints.read_header(folder / f"model{SUFFIX}")["facts"]
    after = read_done(folder)["metrics"]
    before = monitor(folder / "dpo").iloc[0] if (folder / "dpo").exists() else {}
    shown = []
    for name, (label, form) in SHOWN.items():
        values = [figures[name] for figures in (before, after) if figures.get(name) is not None]
        shown.append(f"{label} {' → '.join(map(form.format, values))}")
    lines = [f"on dev: {', '.join(shown)}"]
    if card["method"] == PEOPLE:
        lines.append(_how_sure(after["votes"]))
    return "\n".join(lines)


def _how_sure(votes: int) -> str:
    """What so many votes can tell: half of Wilson's 95 % interval where opinions are divided, its widest."""
    half, enough = Z * 0.5 / math.sqrt(votes + Z**2), math.ceil((0.5 * Z / ENOUGH) ** 2 - Z**2)
    told = f"{votes} votes tell the share that prefers one side to ± {100 * half:.0f} points (95 %, at worst)"
    if half <= ENOUGH:
        return told
    return f"warning: {told}: what was learned may be chance. From {enough} votes on it is ± {ENOUGH:.0%}."


def hear(folder: Path, preset_name: str) -> str:
    """The command that speaks with what a finished run made."""
    language = checkpoints.read_header(folder / f"model{SUFFIX}")["facts"]["language"]
    return (
        f'slmlab speak "…" --language {language} --preset {preset_name} --lm {quote(str(folder / "model"))}'
    )


def _votes(chain: Chain, start: SpeechLM, table: Path, language: str, clips: Path | None) -> list[Pair]:
    """The pairs of a table of votes that a model can read, but for those that are kept for testing: all of a
    split, if it has one, whose name does not begin with `train`.
    """

    def usable(pair: Pair) -> None:
        prompt = start.prompt(pair.prompt, pair.language, pair.style)
        assemble(start.config, [prompt, prompt], [pair.chosen_tokens, pair.rejected_tokens])

    pairs = read(table, language, _encoder(chain, clips) if clips else None, usable)
    learned = [pair for pair in pairs if pair.group.strip().lower().startswith("train") or not pair.group]
    if not learned:
        raise LabError(f"all {len(pairs)} votes in {table} are kept for testing: collect more.")
    if len(learned) < len(pairs):
        print(f"{table}: {len(pairs) - len(learned)} votes of other splits than train are kept for testing")
    return learned


def _recordings(chain: Chain, folder: Path, language: str) -> list[Recording]:
    """Authentic speech of a language in a corpus as tokens, without that of dev and test sentences."""
    data = utterances.Utterances(folder)
    codes = recipes.encode(chain.tokenizer, data)
    rows = data.rows().assign(codes=[row.tolist() for row in codes])
    own = rows["language"] == language
    learnt = own & (rows["split"] == "lm")
    recordings = authentic(rows[learnt])
    reasons = {
        f"are not of {language!r}": (~own).sum(),
        "are of sentences that are kept for dev and test": (own & ~learnt).sum(),
        "are synthetic": learnt.sum() - len(recordings),
    }
    out = ", ".join(f"{n} {reason}" for reason, n in reasons.items() if n)
    if not recordings:
        raise LabError(
            f"there is no authentic speech of {language!r} to learn from in {folder}, and DGSA needs some: "
            f"of {len(rows)} utterances {out}."
        )
    if out:
        print(f"{folder}: {len(recordings)} of {len(rows)} utterances can teach; {out}")
    return recordings


def authentic(rows: pd.DataFrame) -> list[Recording]:
    """The authentic ones, or their stand-in, of utterances with `kind`, `text`, `voice` and `codes`."""
    real = rows[rows["kind"].isin(["authentic", RECORDED])]
    columns = zip(real["text"], real["codes"], real["voice"], strict=True)
    return [Recording(text, tuple(map(int, codes)), voice) for text, codes, voice in columns]


def _encoder(chain: Chain, clips: Path) -> Encode:
    """What gives the speech tokens of the sound with a sha256 among the clips."""
    sounds = [file for file in sorted(clips.rglob("*")) if file.suffix.lower() in SOUNDS]
    by_digest = {files.sha256_of(file): file for file in sounds}

    @functools.cache
    def encode(digest: str) -> Sequence[int]:
        if digest not in by_digest:
            raise LabError(
                f"none of {len(by_digest)} sounds in {clips} has the sha256 {digest}: a vote's sound is gone,"
                " or this is not the folder that the study was made from."
            )
        return chain.encode(torch.as_tensor(audio.read(by_digest[digest], max_seconds=30)[0]))

    return encode
