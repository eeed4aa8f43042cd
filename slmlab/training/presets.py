"""The sizes in which the chain exists: what is spoken for whom, how wide each network is, how long it trains.

A preset holds numbers only; what is done with them is in `recipes`. `base` and `paper` are plans: tests build
and count their networks, and the same code trains them (in bfloat16 where there is a GPU), but nobody has
trained them yet, and their steps and rates are scaled from `tiny`, not tuned. `paper` asks for several GPUs
through an engine such as torchrun, which is not part of this package.
"""

import os
from dataclasses import dataclass, replace
from typing import Any

from slmlab.corpus.build import CorpusSpec
from slmlab.corpus.groups import (
    BACKBONE,
    HEARD_BY_ALL,
    N_PARTS_VOICES,
    READ,
    TARGETS,
    Supply,
    corpora,
    read_aloud,
    recordings,
)
from slmlab.corpus.voices import KOKORO
from slmlab.errors import LabError
from slmlab.language.text import alphabet_of
from slmlab.models.augmentation import Augmentation
from slmlab.models.decoder import DecoderConfig
from slmlab.models.judges import AttentiveConfig, ConvolutionalConfig, EncodedConfig
from slmlab.models.lm import LMConfig
from slmlab.models.speaker import SpeakerConfig
from slmlab.models.tokenizer import TokenizerConfig
from slmlab.models.vocoder import VocoderConfig
from slmlab.training.loop import TrainConfig

LANGUAGES = (*TARGETS, *BACKBONE)
"""Tags of the language models, in this order."""
ALPHABET = alphabet_of(LANGUAGES)
"""Letters of all of them: what every network that reads or writes text begins with."""
MOST_SPEAKERS = 20_000
"""More speakers than a collection has; those that nobody is cost a row of a table each."""


@dataclass(frozen=True)
class Part:
    """One network: its shape and its training."""

    config: Any
    """The model's own config dataclass."""
    train: TrainConfig
    """Steps, rates, seed."""
    batch: int
    """Most mel frames (or LM tokens) of a padded batch."""


@dataclass(frozen=True)
class Preset:
    """Everything that decides what comes out, apart from the code."""

    name: str
    """As people call it."""
    corpora: dict[str, tuple[Supply, ...]]
    """What is spoken, by group; every network hears one group (see `recipes`)."""
    judge_a: Part
    """The recogniser that filters."""
    judge_b: Part
    """The recogniser that scores."""
    speaker: Part
    """Speaker encoder: timbre and SIM."""
    tokenizer: Part
    """Speech tokenizer."""
    decoder: Part
    """Flow-matching decoder."""
    vocoder: Part
    """Mel to wave."""
    refine: Part | None
    """The vocoder's further training, on mels of the decoder too; none leaves it with recordings."""
    backbone: Part
    """Language model on lively speech of the other languages."""
    lm: Part
    """Its fine-tuning on a target language."""
    n_test: int
    """Test sentences of a language that are spoken and scored."""
    n_adopted: int = 2000
    """Sentences, at most, that are made speech for each network that adopts a language."""
    judge_c: Part | None = None
    """The recogniser that scores in B's place where Whisper's encoder is at hand; trained by its own name."""

    @property
    def languages(self) -> tuple[str, ...]:
        """Those that have a language model of their own."""
        return tuple(g for g in self.corpora if g not in (*HEARD_BY_ALL, "backbone", "held_out"))

    def has_recordings(self, language: str) -> bool:
        """Whether its model learns from recordings, of people or stand-ins."""
        return any(not isinstance(s, CorpusSpec) or s.kind == "authentic" for s in self.corpora[language])


def _train(steps: int, lr: float = 3e-3, muon_lr: float = 0.02, ema: float = 0.0) -> TrainConfig:
    return TrainConfig(steps=steps, lr=lr, muon_lr=muon_lr, warmup=max(1, min(50, steps // 10)), ema=ema)


def tiny() -> Preset:
    """Two cores, no GPU."""
    mild = Augmentation(tract=0.1, speed=0.1, noise=0.3, bands=1, gaps=0)
    speaker = SpeakerConfig(n_speakers=N_PARTS_VOICES)
    timbre = speaker.width_out + 1
    lm = LMConfig(ALPHABET, LANGUAGES, width=192, layers=4, heads=3, kv_heads=3, ffn=512)
    return Preset(
        name="tiny",
        corpora=corpora(1.0, 350),
        judge_a=Part(AttentiveConfig(ALPHABET, augmentation=mild), _train(2400), 1600),
        judge_b=Part(ConvolutionalConfig(ALPHABET, augmentation=mild), _train(2400), 1600),
        speaker=Part(speaker, _train(400), 4000),
        tokenizer=Part(
            TokenizerConfig(ALPHABET, timbre_width=timbre, n_speakers=N_PARTS_VOICES),
            _train(2800),
            1600,
        ),
        decoder=Part(DecoderConfig(timbre_width=timbre), _train(1000, ema=0.995), 1600),
        vocoder=Part(VocoderConfig(), _train(1500, lr=5e-3, muon_lr=0.0), 128),
        refine=None,
        backbone=Part(lm, _train(300), 3000),
        lm=Part(lm, _train(300, lr=2e-3, muon_lr=0.015), 3000),
        n_test=350,
    )


def smoke() -> Preset:
    """The whole chain in minutes: nothing it says can be understood, and no claim is made with it."""
    full = tiny()
    short = {
        name: replace(part, train=replace(part.train, steps=3, warmup=1))
        for name, part in vars(full).items()
        if isinstance(part, Part)
    }
    return replace(full, name="smoke", corpora=corpora(0.02, 8), n_test=8, n_adopted=12, **short)


def human() -> Preset:
    """Two cores, no GPU, and recordings of three readers: `slmlab fetch` brings them (see `data/sources`).

    Its language models learn to read first: texts are dropped, for guidance, only when they are fine-tuned.
    Its tokenizer and decoder are wider than `tiny`'s and the decoder trains longer: people vary more than a
    synthesiser's voices do. Where KOKORO names the natural synthesiser in the environment, it is heard too.
    """
    full, spoken, natural = tiny(), tuple(dict.fromkeys(READ.values())), bool(os.environ.get("KOKORO"))
    letters, n_speakers = alphabet_of(spoken), N_PARTS_VOICES + len(READ) + natural * len(KOKORO)
    lm = replace(full.lm.config, alphabet=letters, languages=spoken)
    tokenizer = replace(full.tokenizer.config, alphabet=letters, n_speakers=n_speakers, width=192, layers=5)
    return replace(
        full,
        name="human",
        corpora=read_aloud(natural),
        judge_a=Part(AttentiveConfig(letters), _train(2000), 1600),
        judge_b=Part(ConvolutionalConfig(letters), _train(4000), 1600),
        speaker=replace(full.speaker, config=replace(full.speaker.config, n_speakers=n_speakers)),
        tokenizer=replace(full.tokenizer, config=tokenizer),
        decoder=Part(replace(full.decoder.config, width=256, sharpen=1.0), _train(5000, ema=0.995), 1600),
        refine=Part(None, _train(3000, lr=2e-3, muon_lr=0.0), 192),
        backbone=Part(lm, _train(800), 3000),
        lm=Part(replace(lm, drop=0.15), _train(400, lr=2e-3, muon_lr=0.015), 3000),
        n_test=200,
        judge_c=Part(EncodedConfig(letters), _train(1500, lr=2e-3, muon_lr=0.01), 6000),
    )


def base() -> Preset:
    """One GPU and recordings of real languages; untried (see the top of this file)."""
    speaker = SpeakerConfig(n_speakers=MOST_SPEAKERS, width=384, layers=5, width_out=192)
    timbre = speaker.width_out + 1
    lm = LMConfig(ALPHABET, LANGUAGES, width=768, layers=16, heads=12, kv_heads=12, ffn=2048)
    tokenizer = TokenizerConfig(ALPHABET, timbre, width=512, layers=12, n_speakers=MOST_SPEAKERS)
    return Preset(
        name="base",
        corpora=recordings(350),
        judge_a=Part(AttentiveConfig(ALPHABET, width=384, blocks=12, heads=6), _train(40_000, 1e-3), 40_000),
        judge_b=Part(
            ConvolutionalConfig(ALPHABET, width=512, kernels=(5,) * 6 + (9,) * 6),
            _train(40_000, 1e-3),
            40_000,
        ),
        speaker=Part(speaker, _train(20_000, 1e-3), 40_000),
        tokenizer=Part(tokenizer, _train(40_000, 1e-3), 40_000),
        decoder=Part(DecoderConfig(timbre, width=512, layers=16), _train(60_000, 1e-3, ema=0.999), 40_000),
        vocoder=Part(VocoderConfig(width=512, layers=8), _train(100_000, 1e-3, muon_lr=0.0), 2_048),
        refine=None,
        backbone=Part(lm, _train(40_000, 1e-3, muon_lr=0.01), 32_000),
        lm=Part(lm, _train(20_000, 5e-4, muon_lr=0.005), 32_000),
        n_test=350,
    )


def paper() -> Preset:
    """The paper's sizes (its Table 10) and rates; untried (see the top of this file).

    The LM is a Qwen2.5-0.5B without its table of 151 936 pieces of text: ours reads characters. The decoder
    has the paper's 12 layers and 300 M parameters; at the paper's width of 512 ours would have 24 M.
    """
    full = base()
    lm = replace(full.lm.config, width=896, layers=24, heads=14, kv_heads=2, ffn=4864, max_positions=32_768)
    sft = replace(_train(38_000, 1e-5, muon_lr=0.0), warmup=1_000)
    decoder = replace(full.decoder.config, width=1832, layers=12)
    return replace(
        full,
        name="paper",
        decoder=replace(full.decoder, config=decoder),
        backbone=Part(lm, replace(sft, steps=200_000, lr=3e-4), 16_000),
        lm=Part(lm, sft, 16_000),
    )


PRESETS = {"smoke": smoke, "tiny": tiny, "human": human, "base": base, "paper": paper}


def preset(name: str) -> Preset:
    """The preset of that name."""
    if name not in PRESETS:
        raise LabError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()
