"""What is trained on what, in which order: the stages from nothing to speech.

Each stage is a function from the folders of the stages it needs to a folder of its own, so that the runner in
`stages` can keep, share and resume what it made. Who hears what is decided here and in `presets`: the
tokenizer, the decoder, the vocoder and the speaker encoder hear the group `parts`; each judge hears its own;
nobody hears `held_out` before it is scored.

Axes: b batch, f mel frames, t tokens, n text, m mel bins, c timbre numbers, s samples.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from slmlab.corpus.build import Corpus, CorpusSpec, build
from slmlab.corpus.imports import Collection, bring_in
from slmlab.corpus.shares import TARGETS
from slmlab.corpus.utterances import Batch, Utterances, mels_of, padded, spoken_symbols, text_symbols
from slmlab.language import languages
from slmlab.models.decoder import FlowDecoder, decoder_loss
from slmlab.models.fsq import codes_to_digits, digits_to_codes
from slmlab.models.judges import AttentiveJudge, ConvolutionalJudge, judge_loss
from slmlab.models.lm import STYLE_TOKENS, LMConfig, SpeechLM, assemble, lm_loss
from slmlab.models.speaker import SpeakerConfig, SpeakerEncoder, speaker_loss
from slmlab.models.tokenizer import SpeechTokenizer, TokenizerConfig, tokenizer_loss
from slmlab.models.vocoder import Vocoder, vocoder_loss
from slmlab.sound.mel import HOP
from slmlab.sound.pitch import register
from slmlab.training import checkpoints
from slmlab.training.cache import Stage
from slmlab.training.checkpoints import Card
from slmlab.training.loop import frame_batches, train
from slmlab.training.presets import Part, Preset, preset

EAR_FROM, EAR_FULL = 0.3, 0.5
"""Shares of its training at which the tokenizer begins to hear itself, and does so fully."""


def _clean(data: Utterances) -> Tensor:
    """`(utterances,)`: 1, but 0 for stand-in recordings, whose noise and rooms would be learnt too."""
    return torch.tensor([float(kind != "authentic") for kind in data.column("kind")])


def _texts(texts: Sequence[list[int]]) -> Batch:
    return {
        "text": padded([torch.tensor(t) for t in texts]),
        "symbols": torch.tensor([len(t) for t in texts]),
    }


def timbres(encoder: SpeakerEncoder, data: Utterances) -> Tensor:
    """`(utterances, c)`: embedding and register of each."""
    rows = []
    with torch.inference_mode():
        for i in range(len(data)):
            embedding = encoder(rearrange(data.mel(i), "f m -> 1 f m"), torch.tensor([data.frames[i]]))[0]
            rows.append(torch.cat([embedding, register(data.f0(i))]))
    return torch.stack(rows)


def encode(tokenizer: SpeechTokenizer, data: Utterances, batch: int = 6000) -> list[Tensor]:
    """Codes `(t,)` of every utterance."""
    codes: list[Tensor] = [torch.empty(0)] * len(data)
    order = np.argsort(data.frames)
    per = max(1, batch // max(data.frames))
    with torch.inference_mode():
        for start in range(0, len(order), per):
            rows = [int(i) for i in order[start : start + per]]
            mels = mels_of(data, rows)
            digits = tokenizer.encode(mels["mel"], padded([data.prosody(i) for i in rows]), mels["frames"])
            for i, row in zip(rows, digits_to_codes(digits), strict=True):
                codes[i] = row[: data.frames[i] // 2]
    return codes


def _fit(
    part: Part, model: nn.Module, loss: Callable, batches: Callable[[int], Batch], folder: Path
) -> nn.Module:
    return train(model, loss, batches, part.train, folder / "training")


def _keep(
    folder: Path, model: nn.Module, part: Part, metrics: dict[str, float], **facts: Any
) -> dict[str, float]:
    facts = {"seed": part.train.seed, "steps": part.train.steps, **facts}
    checkpoints.save(folder / "model", model, Card(config=part.config, facts=facts, metrics=metrics))
    return metrics


def speak_group(preset_name: str, group: str, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """Speak every corpus of a group, or bring its recordings in."""
    corpora = [_made(spec, folder / spec.name) for spec in preset(preset_name).corpora[group]]
    return {
        "utterances": sum(len(corpus) for corpus in corpora),
        "minutes": sum(float(corpus.rows["seconds"].sum()) for corpus in corpora) / 60,
    }


def _made(spec: CorpusSpec | Collection, folder: Path) -> Corpus:
    if isinstance(spec, Collection):
        return bring_in(spec.clips(), spec.spec, folder).corpus
    return build(spec, folder, workers=1)


def train_judge(preset_name: str, which: str, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """A recogniser on its own voices and sentences: A filters, B scores."""
    part: Part = getattr(preset(preset_name), which)
    torch.manual_seed(part.train.seed)
    model = AttentiveJudge(part.config) if which == "judge_a" else ConvolutionalJudge(part.config)
    data = Utterances(inputs[f"corpus.{which}"])
    texts = spoken_symbols(data, part.config.alphabet)
    rows = frame_batches(data.frames, part.batch, part.train.seed)

    def batches(step: int) -> Batch:
        chosen = rows(step)
        return mels_of(data, chosen) | _texts([texts[i] for i in chosen])

    _fit(part, model, judge_loss, batches, folder)
    return _keep(folder, model, part, {})


def train_speaker(preset_name: str, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """The speaker encoder, on random crops of every voice of `parts`."""
    part = preset(preset_name).speaker
    torch.manual_seed(part.train.seed)
    model = SpeakerEncoder(part.config)
    data = Utterances(inputs["corpus.parts"])
    crop = 80
    n = part.batch // crop

    def batches(step: int) -> Batch:
        draw = np.random.default_rng((part.train.seed, step))
        chosen = draw.choice(len(data), n, replace=len(data) < n)
        mels = []
        for i in chosen:
            mel = data.mel(int(i))
            start = int(draw.integers(max(1, len(mel) - crop + 1)))
            mels.append(mel[start : start + crop])
        frames = torch.tensor([len(mel) for mel in mels])
        return {"mel": padded(mels), "frames": frames, "speaker": torch.tensor(data.voices[chosen])}

    _fit(part, model, speaker_loss, batches, folder)
    return _keep(folder, model, part, {})


def train_tokenizer(preset_name: str, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """The speech tokenizer, given the timbre of another utterance of the same voice."""
    part = preset(preset_name).tokenizer
    data = Utterances(inputs["corpus.parts"])
    timbre = timbres(_load_speaker(inputs), data)
    save_file({"timbre": timbre}, folder / "timbre.safetensors")
    torch.manual_seed(part.train.seed)
    model = SpeechTokenizer(part.config)
    texts = spoken_symbols(data, part.config.alphabet)
    prosody = [data.prosody(i) for i in range(len(data))]
    clean = _clean(data)
    rows = frame_batches(data.frames, part.batch, part.train.seed)

    def batches(step: int) -> Batch:
        draw = np.random.default_rng((part.train.seed, step))
        chosen = rows(step)
        voice = {
            "prosody": padded([prosody[i] for i in chosen]),
            "timbre": timbre[[data.other(i, draw) for i in chosen]],
            "speaker": torch.tensor(data.voices[chosen]),
            "clean": clean[chosen],
            "ear": torch.tensor((step / part.train.steps - EAR_FROM) / (EAR_FULL - EAR_FROM)).clamp(0, 1),
        }
        return mels_of(data, chosen) | _texts([texts[i] for i in chosen]) | voice

    _fit(part, model, tokenizer_loss, batches, folder)
    return _keep(folder, model, part, {})


def train_decoder(preset_name: str, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """The flow decoder, from the frozen tokenizer's codes and its blurred mel."""
    part = preset(preset_name).decoder
    data = Utterances(inputs["corpus.parts"])
    tokenizer = _load_tokenizer(inputs)
    timbre = load_file(inputs["tokenizer"] / "timbre.safetensors")["timbre"]
    digits = [codes_to_digits(codes, tokenizer.config.dims) for codes in encode(tokenizer, data)]
    clean = _clean(data)
    torch.manual_seed(part.train.seed)
    model = FlowDecoder(part.config)
    rows = frame_batches(data.frames, part.batch, part.train.seed)

    def batches(step: int) -> Batch:
        draw = np.random.default_rng((part.train.seed, step))
        chosen = rows(step)
        batch = mels_of(data, chosen)
        batch["digits"] = padded([digits[i] for i in chosen])
        batch["timbre"] = timbre[[data.other(i, draw) for i in chosen]]
        batch["clean"] = clean[chosen]
        with torch.inference_mode():
            _, prior = tokenizer.decode(batch["digits"], batch["timbre"], batch["frames"])
        return batch | {"prior": prior.clone()}

    _fit(part, model, decoder_loss, batches, folder)
    return _keep(folder, model, part, {})


def train_vocoder(preset_name: str, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """The vocoder, on random segments of every voice of `parts`."""
    part = preset(preset_name).vocoder
    torch.manual_seed(part.train.seed)
    model = Vocoder(part.config)
    data = Utterances(inputs["corpus.parts"])
    segment = 32
    long_enough = np.flatnonzero(np.array(data.frames) >= segment)

    def batches(step: int) -> Batch:
        draw = np.random.default_rng((part.train.seed, step))
        mels, waves, f0s = [], [], []
        for i in draw.choice(long_enough, part.batch // segment):
            start = int(draw.integers(data.frames[i] - segment + 1))
            mels.append(data.mel(i)[start : start + segment])
            f0s.append(data.f0(i)[start : start + segment])
            waves.append(data.wave(i)[HOP * start : HOP * (start + segment)])
        return {"mel": torch.stack(mels), "wave": torch.stack(waves), "f0": torch.stack(f0s)}

    _fit(part, model, vocoder_loss, batches, folder)
    return _keep(folder, model, part, {})


def _load_speaker(inputs: dict[str, Path]) -> SpeakerEncoder:
    return checkpoints.load(inputs["speaker"] / "model", SpeakerEncoder, SpeakerConfig)[0]


def _load_tokenizer(inputs: dict[str, Path]) -> SpeechTokenizer:
    return checkpoints.load(inputs["tokenizer"] / "model", SpeechTokenizer, TokenizerConfig)[0]


def lm_batches(config: LMConfig, data: Utterances, codes: list[Tensor], part: Part) -> Callable[[int], Any]:
    """Batches of text and codes; half of the utterances begin with a style, 40 tokens of the same voice
    elsewhere. Of a voice that says nothing else there is none: its own tokens would give the answer away.
    """
    texts = text_symbols(data, config.alphabet)
    languages = data.column("language")
    lengths = [len(t) + len(c) + STYLE_TOKENS + 4 for t, c in zip(texts, codes, strict=True)]
    rows = frame_batches(lengths, part.batch, part.train.seed)

    def style(i: int, draw: np.random.Generator) -> list[int]:
        elsewhere = data.other(i, draw)
        if elsewhere == i:
            return []
        other = codes[elsewhere]
        start = int(draw.integers(max(1, len(other) - STYLE_TOKENS + 1)))
        return other[start : start + STYLE_TOKENS].tolist()

    def batches(step: int) -> Any:
        draw = np.random.default_rng((part.train.seed, step))
        chosen = rows(step)
        styles = [style(i, draw) if draw.random() < 0.5 else [] for i in chosen]
        return assemble(
            config,
            [texts[i] for i in chosen],
            [codes[i].tolist() for i in chosen],
            [languages[i] for i in chosen],
            styles,
        )

    return batches


def train_lm(preset_name: str, group: str, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """The backbone on `backbone`, or its fine-tuning on a target language."""
    chain = preset(preset_name)
    part = chain.backbone if group == "backbone" else chain.lm
    data = Utterances(inputs[f"corpus.{group}"])
    codes = encode(_load_tokenizer(inputs), data)
    torch.manual_seed(part.train.seed)
    if group == "backbone":
        model = SpeechLM(part.config)
    else:
        model = checkpoints.load(inputs["lm.backbone"] / "model", SpeechLM, LMConfig)[0]
    texts = text_symbols(data, model.config.alphabet)
    model.fit_pace(texts, [len(row) for row in codes], data.column("language"))
    _fit(part, model, lm_loss, lm_batches(part.config, data, codes, part), folder)
    return _keep(folder, model, part, {}, languages=sorted(set(data.column("language"))))


def stages(chain: Preset) -> list[Stage]:
    """The whole chain as stages, longest way first."""
    name = chain.name

    def corpus(group: str) -> Stage:
        specs = chain.corpora[group]
        sources = [
            spec.content() if isinstance(spec, Collection) else languages.find(spec.language).content()
            for spec in specs
        ]
        run = functools.partial(speak_group, name, group)
        return Stage(f"corpus.{group}", (), run, [specs, sources])

    parts = ("corpus.parts",)
    lms = ("backbone", *TARGETS)
    runs: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
        "speaker": (train_speaker, parts),
        "tokenizer": (train_tokenizer, (*parts, "speaker")),
        "judge_a": (train_judge, ("corpus.judge_a",)),
        "decoder": (train_decoder, (*parts, "tokenizer")),
        "judge_b": (train_judge, ("corpus.judge_b",)),
        "vocoder": (train_vocoder, parts),
    }
    made = {}
    for stage, (run, inputs) in runs.items():
        own = (name, stage) if run is train_judge else (name,)
        made[stage] = Stage(stage, inputs, functools.partial(run, *own), getattr(chain, stage))
    for group in lms:
        needs = (f"corpus.{group}", "tokenizer", *(() if group == "backbone" else ("lm.backbone",)))
        part = chain.backbone if group == "backbone" else chain.lm
        stage = f"lm.{group}"
        made[stage] = Stage(stage, needs, functools.partial(train_lm, name, group), part)
    corpora = {f"corpus.{group}": corpus(group) for group in chain.corpora}
    longest = (*parts, "speaker", "tokenizer", *corpora, *(f"lm.{group}" for group in lms), *made)
    known = corpora | made
    return [known[stage] for stage in dict.fromkeys(longest)]
