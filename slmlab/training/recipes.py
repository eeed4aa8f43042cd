"""What is trained on what, in which order: the stages from nothing to speech.

Each stage is a function from the folders of the stages it needs to a folder of its own, so that the runner in
`stages` can keep, share and resume what it made. Who hears what is decided here and in `presets`: the
tokenizer, the decoder, the vocoder and the speaker encoder hear the group `parts`; each judge hears its own;
nobody hears `held_out` before it is scored.

Axes: b batch, f mel frames, t tokens, n text, m mel bins, c timbre numbers, s samples.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from slmlab.corpus.build import Corpus, CorpusSpec, build
from slmlab.corpus.imports import Collection, Share, bring_in, take
from slmlab.corpus.shares import TARGETS, Source, made_speech
from slmlab.corpus.utterances import Batch, Utterances, mels_of, padded, spoken_symbols, text_symbols
from slmlab.errors import LabError
from slmlab.language import languages
from slmlab.models.decoder import FlowDecoder, decoder_loss
from slmlab.models.fsq import codes_to_digits, digits_to_codes
from slmlab.models.judges import AttentiveConfig, AttentiveJudge, ConvolutionalJudge, Judge, judge_loss
from slmlab.models.lm import STYLE_TOKENS, LMConfig, SpeechLM, assemble, lm_loss, prompt_ids
from slmlab.models.speaker import SpeakerConfig, SpeakerEncoder, speaker_loss
from slmlab.models.tokenizer import SpeechTokenizer, TokenizerConfig, tokenizer_loss
from slmlab.models.vocoder import Vocoder, vocoder_loss
from slmlab.sound.mel import HOP
from slmlab.sound.pitch import register
from slmlab.training import checkpoints
from slmlab.training.cache import Stage
from slmlab.training.checkpoints import Card
from slmlab.training.loop import frame_batches, train
from slmlab.training.presets import Part, Preset

EAR_FROM, EAR_FULL = 0.3, 0.5
"""Shares of its training at which the tokenizer begins to hear itself, and does so fully."""


def _clean(data: Utterances) -> Tensor:
    """`(utterances,)`: 1, but 0 for stand-in recordings, whose noise and rooms would be learnt too."""
    return torch.tensor([float(kind != "authentic") for kind in data.column("kind")])


def _texts(texts: Sequence[list[int]]) -> Batch:
    return {"text": padded(list(map(torch.tensor, texts))), "symbols": torch.tensor(list(map(len, texts)))}


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
    folder: Path, part: Part, model: nn.Module, loss: Callable, batches: Callable[[int], Any], **facts: Any
) -> dict[str, float]:
    """Train a network and keep it with its card."""
    train(model, loss, batches, part.train, folder / "training")
    facts = {"seed": part.train.seed, "steps": part.train.steps, **facts}
    checkpoints.save(folder / "model", model, Card(config=model.config, facts=facts))
    return {}


def speak_group(specs: Sequence[Source], folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """Speak every corpus of a group, or bring its recordings in."""
    corpora = [_corpus(spec, folder / spec.name) for spec in specs]
    return {"utterances": sum(map(len, corpora)), "minutes": 60 * sum(corpus.hours for corpus in corpora)}


def _corpus(spec: Source, folder: Path) -> Corpus:
    if isinstance(spec, Collection):
        return bring_in(spec.clips(), spec.spec, folder).corpus
    return take(spec, folder) if isinstance(spec, Share) else build(spec, folder, workers=1)


def train_judge(part: Part, group: str, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """A recogniser on its own voices and sentences: A filters, B scores."""
    torch.manual_seed(part.train.seed)
    attentive = isinstance(part.config, AttentiveConfig)
    model = AttentiveJudge(part.config) if attentive else ConvolutionalJudge(part.config)
    return _fit_judge(part, model, Utterances(inputs[f"corpus.{group}"]), folder)


def adopt_judge(
    part: Part, base: str, language: str, folder: Path, inputs: dict[str, Path]
) -> dict[str, float]:
    """A judge that is there already, taught one more language."""
    kind = AttentiveJudge if isinstance(part.config, AttentiveConfig) else ConvolutionalJudge
    judge = checkpoints.load(base, kind, type(part.config))[0].adopt(language)
    (speech,) = inputs.values()
    return _fit_judge(part, judge, Utterances(speech), folder, language=language)


def _fit_judge(part: Part, judge: Judge, data: Utterances, folder: Path, **facts: Any) -> dict[str, float]:
    texts = spoken_symbols(data, judge.config.alphabet)
    rows = frame_batches(data.frames, part.batch, part.train.seed)

    def batches(step: int) -> Batch:
        chosen = rows(step)
        return mels_of(data, chosen) | _texts([texts[i] for i in chosen])

    return _fit(folder, part, judge, judge_loss, batches, **facts)


def train_speaker(part: Part, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """The speaker encoder, on random crops of every voice of `parts`."""
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

    return _fit(folder, part, model, speaker_loss, batches)


def train_tokenizer(part: Part, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """The speech tokenizer, given the timbre of another utterance of the same voice."""
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

    return _fit(folder, part, model, tokenizer_loss, batches)


def train_decoder(part: Part, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """The flow decoder, from the frozen tokenizer's codes and its blurred mel."""
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

    return _fit(folder, part, model, decoder_loss, batches)


def train_vocoder(part: Part, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """The vocoder, on random segments of every voice of `parts`."""
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

    return _fit(folder, part, model, vocoder_loss, batches)


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
        prompts = [prompt_ids(config, texts[i], languages[i], z) for i, z in zip(chosen, styles, strict=True)]
        return assemble(config, prompts, [codes[i].tolist() for i in chosen])

    return batches


def train_lm(part: Part, group: str, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """The backbone on `backbone`, or its fine-tuning on a target language."""
    torch.manual_seed(part.train.seed)
    if group == "backbone":
        model = SpeechLM(part.config)
    else:
        model = checkpoints.load(inputs["lm.backbone"] / "model", SpeechLM, LMConfig)[0]
    return _fit_lm(part, model, _load_tokenizer(inputs), Utterances(inputs[f"corpus.{group}"]), folder, {})


def adopt_lm(part: Part, base: str, language: str, folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """A backbone that is there already, taught one more language; `base` is its folder."""
    tokenizer, card = checkpoints.load(Path(base) / "tokenizer", SpeechTokenizer, TokenizerConfig)
    model = checkpoints.load(Path(base) / "lm.backbone", SpeechLM, LMConfig)[0].adopt(language)
    facts = {"language": language, "tokenizer": card.sha256}
    return _fit_lm(part, model, tokenizer, Utterances(inputs[f"corpus.{language}"]), folder, facts)


def _fit_lm(
    part: Part,
    model: SpeechLM,
    tokenizer: SpeechTokenizer,
    data: Utterances,
    folder: Path,
    facts: Mapping[str, str],
) -> dict[str, float]:
    codes = encode(tokenizer, data)
    texts = text_symbols(data, model.config.alphabet)
    model.fit_pace(texts, [len(row) for row in codes], data.column("language"))
    batches = lm_batches(model.config, data, codes, part)
    spoken = sorted(set(data.column("language")))
    return _fit(folder, part, model, lm_loss, batches, languages=spoken, **facts)


def _corpus_stage(name: str, specs: Sequence[Source]) -> Stage:
    content = [
        languages.find(spec.language).content() if isinstance(spec, CorpusSpec) else spec.content()
        for spec in specs
    ]
    return Stage(f"corpus.{name}", (), functools.partial(speak_group, tuple(specs)), content)


def stages(chain: Preset) -> list[Stage]:
    """The whole chain as stages, longest way first."""
    parts = ("corpus.parts",)
    runs: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
        "speaker": (train_speaker, parts),
        "tokenizer": (train_tokenizer, (*parts, "speaker")),
        "decoder": (train_decoder, (*parts, "tokenizer")),
        "vocoder": (train_vocoder, parts),
    }
    made = {
        name: Stage(name, inputs, functools.partial(run, getattr(chain, name)), None)
        for name, (run, inputs) in runs.items()
    }
    for name in ("judge_a", "judge_b"):
        run = functools.partial(train_judge, getattr(chain, name), name)
        made[name] = Stage(name, (f"corpus.{name}",), run, None)
    groups = ("backbone", *TARGETS)
    for group in groups:
        needs = (f"corpus.{group}", "tokenizer", *(() if group == "backbone" else ("lm.backbone",)))
        part = chain.backbone if group == "backbone" else chain.lm
        made[f"lm.{group}"] = Stage(f"lm.{group}", needs, functools.partial(train_lm, part, group), None)
    corpora = {f"corpus.{group}": _corpus_stage(group, specs) for group, specs in chain.corpora.items()}
    longest = (*parts, "speaker", "tokenizer", *corpora, *(f"lm.{group}" for group in groups), *made)
    every = corpora | made
    return [every[name] for name in dict.fromkeys(longest)]


def adoption(chain: Preset, base: Path, language: str, shares: Sequence[Share]) -> list[Stage]:
    """Stages that teach a chain in a folder one more language: a language model and both judges.

    Args:
        chain: whose sizes, rates and steps.
        base: folder of its checkpoints.
        language: any that has a folder under `data/languages`.
        shares: recordings of it, besides what a synthesiser says of its texts.
    """
    made = []
    for network, part in (("lm", chain.lm), ("judge_a", chain.judge_a), ("judge_b", chain.judge_b)):
        group = language if network == "lm" else f"{network}.{language}"
        speech: list[Source] = [*made_speech(network, language, chain.n_adopted), *shares]
        if not speech:
            raise LabError(
                f"The texts of {language!r} have no sentence for {network}: each network learns from its own "
                "part of them. Give a hundred sentences or more, or recordings."
            )
        made.append(_corpus_stage(group, speech))
        place = base if network == "lm" else base / network
        run = functools.partial(adopt_lm if network == "lm" else adopt_judge, part, str(place), language)
        sources = ("tokenizer", "lm.backbone") if network == "lm" else (network,)
        config = [checkpoints.read_header(base / f"{name}.safetensors")["sha256"] for name in sources]
        made.append(Stage(f"{network}.{language}", (f"corpus.{group}",), run, config))
    return made
