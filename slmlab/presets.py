"""The sizes in which the chain exists: what is spoken for whom, how wide each network is, how long it trains.

A preset holds numbers only; what is done with them is in `recipes`. Names: `smoke` proves that everything runs,
`tiny` is the laptop's, `base` is for one GPU and a real small language, `paper` has the sizes of the paper's Table 10.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from slmlab.corpus.build import CorpusSpec
from slmlab.errors import LabError
from slmlab.models.decoder import DecoderConfig
from slmlab.models.lm import LMConfig
from slmlab.models.recogniser import AttentiveConfig, ConvolutionalConfig
from slmlab.models.speaker import SpeakerConfig
from slmlab.models.tokenizer import TokenizerConfig
from slmlab.models.vocoder import VocoderConfig
from slmlab.text import BACKBONE_LANGUAGES, LANGUAGES, TARGET_LANGUAGES, TINY
from slmlab.training import TrainConfig

N_PARTS_VOICES = 60


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
    corpora: dict[str, tuple[CorpusSpec, ...]]
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
    backbone: Part
    """Language model on lively speech of the other languages."""
    lm: Part
    """Its fine-tuning on a target language."""
    n_test: int
    """Test sentences of a language that are spoken and scored."""


def _corpora(scale: float, n_test: int) -> dict[str, tuple[CorpusSpec, ...]]:
    """The tiny tier's corpora, with `scale` times its minutes."""

    def spec(
        name: str, language: str, kind: str, pool: str, voices: int, split: str, minutes: float
    ) -> CorpusSpec:
        return CorpusSpec(
            name=f"{name}-{language}-{kind}",
            language=language,
            kind=kind,
            pool=pool,
            n_voices=voices,
            split=split,
            minutes=minutes * scale,
            keep_wave=name == "parts",
        )

    def recordings(split: str, language: str, n: int) -> CorpusSpec:
        pool = "dev" if split == "dev" else "test"
        return CorpusSpec(
            name=f"{split}-{language}",
            language=language,
            kind="authentic",
            pool=pool,
            n_voices=10 if split == "dev" else 20,
            split=split,
            n=n,
            keep_wave=True,
        )

    def judges(name: str) -> tuple[CorpusSpec, ...]:
        return tuple(
            spec(name, language, kind, name, 30, name, minutes)
            for language in TARGET_LANGUAGES
            for kind, minutes in (("lively", 12), ("authentic", 10), ("synthetic", 4))
        )

    parts = [
        spec("parts", language, kind, "parts", N_PARTS_VOICES, "parts", minutes)
        for language in TARGET_LANGUAGES
        for kind, minutes in (("lively", 14), ("authentic", 8), ("synthetic", 4))
    ]
    parts += [
        spec("parts", language, "lively", "parts", N_PARTS_VOICES, "lm", 4) for language in BACKBONE_LANGUAGES
    ]
    return {
        "parts": tuple(parts),
        "judge_a": judges("judge_a"),
        "judge_b": judges("judge_b"),
        "backbone": tuple(
            spec("lm", language, "lively", "backbone", 40, "lm", 16) for language in BACKBONE_LANGUAGES
        ),
        "vi": (
            spec("lm", "vi", "authentic", "authentic", 30, "lm", 15),
            spec("lm", "vi", "synthetic", "synthetic", 2, "lm", 90),
        ),
        "sw": (spec("lm", "sw", "synthetic", "synthetic", 2, "lm", 100),),
        "held_out": tuple(
            recordings(split, language, n)
            for language in TARGET_LANGUAGES
            for split, n in (("dev", max(8, n_test // 3)), ("test", n_test), ("unseen", max(8, n_test // 3)))
        ),
    }


def _train(steps: int, lr: float = 3e-3, muon_lr: float = 0.02, ema: float = 0.0) -> TrainConfig:
    return TrainConfig(steps=steps, lr=lr, muon_lr=muon_lr, warmup=max(1, min(50, steps // 10)), ema=ema)


def tiny() -> Preset:
    """Two cores, no GPU: trained anew in three quarters of an hour."""
    symbols = len(TINY)
    speaker = SpeakerConfig(n_speakers=N_PARTS_VOICES)
    timbre = speaker.width_out + 1
    lm = LMConfig(
        alphabet_size=symbols, languages=LANGUAGES, width=192, layers=4, heads=3, kv_heads=3, ffn=512
    )
    return Preset(
        name="tiny",
        corpora=_corpora(1.0, 350),
        judge_a=Part(AttentiveConfig(alphabet_size=symbols), _train(1100), 1600),
        judge_b=Part(ConvolutionalConfig(alphabet_size=symbols), _train(1100), 1600),
        speaker=Part(speaker, _train(300), 4000),
        tokenizer=Part(
            TokenizerConfig(alphabet_size=symbols, timbre_width=timbre, n_speakers=N_PARTS_VOICES),
            _train(450),
            3200,
        ),
        decoder=Part(DecoderConfig(timbre_width=timbre), _train(400, ema=0.99), 3200),
        vocoder=Part(VocoderConfig(), _train(2000, lr=5e-3, muon_lr=0.0), 160),
        backbone=Part(lm, _train(380), 3000),
        lm=Part(lm, _train(280, lr=2e-3, muon_lr=0.015), 3000),
        n_test=350,
    )


def smoke() -> Preset:
    """The whole chain in minutes: nothing it says can be understood, and no claim is made with it."""
    full = tiny()

    def short(part: Part, steps: int, **sizes: int) -> Part:
        train = dataclasses.replace(part.train, steps=steps, warmup=1)
        return dataclasses.replace(part, config=dataclasses.replace(part.config, **sizes), train=train)

    return dataclasses.replace(
        full,
        name="smoke",
        corpora=_corpora(0.02, 8),
        judge_a=short(full.judge_a, 3),
        judge_b=short(full.judge_b, 3),
        speaker=short(full.speaker, 3),
        tokenizer=short(full.tokenizer, 3),
        decoder=short(full.decoder, 3),
        vocoder=short(full.vocoder, 3),
        backbone=short(full.backbone, 3),
        lm=short(full.lm, 3),
        n_test=8,
    )


PRESETS = {"smoke": smoke, "tiny": tiny}


def preset(name: str) -> Preset:
    """The preset of that name."""
    if name not in PRESETS:
        raise LabError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()
