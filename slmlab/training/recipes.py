"""What is trained on what, in which order: the stages from nothing to speech.

Each stage is a function from the folders of the stages it needs to a folder of its own; `cache` keeps, shares
and resumes them. The tokenizer, the decoder, the vocoder and the speaker encoder hear the group `parts`; each
judge hears its own; nobody hears `held_out` before it is scored.

Axes: b batch, f mel frames, t tokens, n text, m mel bins, c timbre numbers, s samples.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from slmlab.corpus.build import Corpus, CorpusSpec, build
from slmlab.corpus.groups import Supply, made_speech
from slmlab.corpus.imports import ImportSpec, Share, bring_in, take
from slmlab.corpus.prosody import CROWD, record
from slmlab.corpus.utterances import (
    Batch,
    Utterances,
    in_batches,
    mels_of,
    padded,
    spoken_symbols,
    text_symbols,
)
from slmlab.errors import LabError
from slmlab.files import whole
from slmlab.language import languages
from slmlab.metrics.instruments import Encoder
from slmlab.models.decoder import NOISE, FlowDecoder, decoder_loss
from slmlab.models.fsq import codes_to_digits, digits_to_codes
from slmlab.models.judges import (
    AttentiveConfig,
    AttentiveJudge,
    ConvolutionalJudge,
    EncodedJudge,
    judge_loss,
)
from slmlab.models.lm import STYLE_TOKENS, LMConfig, SpeechLM, assemble, lm_loss, prompt_ids
from slmlab.models.speaker import SpeakerEncoder, speaker_loss
from slmlab.models.tokenizer import SpeechTokenizer, tokenizer_loss
from slmlab.models.vocoder import SMOOTHING, Vocoder, vocoder_loss
from slmlab.sound import SAMPLE_RATE
from slmlab.sound.audio import Wave, resample
from slmlab.sound.mel import HOP
from slmlab.sound.pitch import register
from slmlab.training import checkpoints
from slmlab.training.cache import Stage
from slmlab.training.checkpoints import Card
from slmlab.training.loop import frame_batches, train
from slmlab.training.presets import Part, Preset

M = TypeVar("M", bound=nn.Module)
TIMBRE = "timbre.safetensors"  # beside the tokenizer
EAR_FROM, EAR_FULL = 0.3, 0.5
"""Shares of its training at which the tokenizer begins to hear itself, and does so fully."""
VERSIONS = ("clear", "changed")
"""How judge C hears each utterance in its training."""
SPEED = (0.88, 1.14)
"""Least and greatest factor of pace and pitch of what was changed."""
CROP, SEGMENT = 80, 32
"""Mel frames that the speaker encoder and the vocoder hear at a time."""
ENCODED = 6000
"""Mel frames that the tokenizer encodes at a time."""
COMPARED, REFINED = 100, 500
"""Utterances that the decoder says again: to see how much less its mels move, and for the vocoder."""


def _clean(data: Utterances) -> Tensor:
    """`(utterances,)`: 1, but 0 for stand-in recordings, whose noise and rooms would be learnt too."""
    return torch.tensor([float(kind != "authentic") for kind in data.column("kind")])


def _new(kind: type[M], part: Part) -> M:
    """A network that has learnt nothing, the same each time."""
    torch.manual_seed(part.train.seed)
    return kind(part.config)


def _said(texts: Sequence[list[int]], rows: Sequence[int]) -> Batch:
    """What is said in utterances: `text` `(b n)`, of which `symbols` `(b,)` count."""
    said = [torch.tensor(texts[i]) for i in rows]
    return {"text": padded(said), "symbols": torch.tensor([len(text) for text in said])}


def _step_batches(
    part: Part, lengths: Sequence[int], make: Callable[[list[int], np.random.Generator], Any]
) -> Callable[[int], Any]:
    """Step → what `make` does of the utterances that meet in it, with random numbers of that step."""
    rows = frame_batches(lengths, part.batch, part.train.seed)
    return lambda step: make(rows(step), np.random.default_rng((part.train.seed, step)))


def _crops(data: Utterances, rows: Sequence[int], frames: int, draw: np.random.Generator) -> list[slice]:
    """A random crop of each utterance, of at most `frames` mel frames."""
    starts = [int(draw.integers(max(1, data.frames[i] - frames + 1))) for i in rows]
    return [slice(start, start + frames) for start in starts]


@torch.inference_mode()
def timbres(encoder: SpeakerEncoder, data: Utterances) -> Tensor:
    """`(utterances, c)`: embedding and register of each."""
    heard = (mels_of(data, [i]) for i in range(len(data)))
    embeddings = [encoder(one["mel"], one["frames"])[0] for one in heard]
    return torch.stack([torch.cat([row, register(data.f0(i))]) for i, row in enumerate(embeddings)])


@torch.inference_mode()
def encode(tokenizer: SpeechTokenizer, data: Utterances) -> list[Tensor]:
    """Codes `(t,)` of every utterance."""

    def of(rows: list[int]) -> list[Tensor]:
        mels, prosody = mels_of(data, rows), padded([data.prosody(i) for i in rows])
        codes = digits_to_codes(tokenizer.encode(mels["mel"], prosody, mels["frames"]))
        return [row[: data.frames[i] // 2] for i, row in zip(rows, codes, strict=True)]

    return in_batches(data.frames, max(1, ENCODED // max(data.frames)), of)


def _fit(
    folder: Path, part: Part, model: nn.Module, loss: Callable, batches: Callable[[int], Any], **facts: Any
) -> None:
    """Train a network and keep it with its card."""
    train(model, loss, batches, part.train, folder / "training")
    _keep(folder, part, model, **facts)


def _keep(folder: Path, part: Part, model: nn.Module, **facts: Any) -> None:
    facts = {"seed": part.train.seed, "steps": part.train.steps, **facts}
    checkpoints.save(folder / "model", model, Card(config=model.config, facts=facts))


def speak_group(specs: Sequence[Supply], folder: Path, inputs: dict[str, Path]) -> dict[str, float]:
    """Speak every corpus of a group, or bring its recordings in."""
    corpora = [_corpus(spec, folder / spec.name) for spec in specs]
    return {"utterances": sum(map(len, corpora)), "minutes": 60 * sum(corpus.hours for corpus in corpora)}


def _corpus(spec: Supply, folder: Path) -> Corpus:
    if isinstance(spec, ImportSpec):
        return bring_in(spec.clips(), spec, folder)
    return take(spec, folder) if isinstance(spec, Share) else build(spec, folder, workers=1)


def train_judge(part: Part, group: str, folder: Path, inputs: dict[str, Path], base: str = "") -> None:
    """A recogniser on its own voices and sentences: A filters, B scores.

    With a `base`, a folder of checkpoints, the judge there is taught one more language; the group is then
    named `judge.language`.
    """
    kind = AttentiveJudge if isinstance(part.config, AttentiveConfig) else ConvolutionalJudge
    name, _, language = group.partition(".")
    judge = checkpoints.load(Path(base) / name, kind)[0].adopt(language) if base else _new(kind, part)
    data = Utterances(inputs[f"corpus.{group}"])
    texts = spoken_symbols(data, judge.config.alphabet)
    batches = _step_batches(part, data.frames, lambda rows, _: mels_of(data, rows) | _said(texts, rows))
    _fit(folder, part, judge, judge_loss, batches, **({"language": language} if base else {}))


def train_encoded_judge(part: Part, folder: Path, inputs: dict[str, Path], whisper: str) -> None:
    """Judge C, on the speech of B: it reads what the encoder of Whisper's weights at `whisper` makes of it.

    The encoder stays as it is, so each utterance is encoded twice in advance: as it is, and by another
    vocal tract, at another pace, in a room.
    """
    encoder, data = Encoder(whisper), Utterances(inputs["corpus.judge_b"])
    encoded = folder / "encoded"
    for i in tqdm(range(len(data)), desc="encoded", unit="utterance", disable=None):
        _encode_twice(encoder, data.wave(i).numpy(), encoded / f"{i}.safetensors", i)
    texts = spoken_symbols(data, part.config.alphabet)

    def make(rows: list[int], draw: np.random.Generator) -> Batch:
        which = [VERSIONS[draw.integers(len(VERSIONS))] for _ in rows]
        read = [load_file(encoded / f"{i}.safetensors")[name] for i, name in zip(rows, which, strict=True)]
        frames = torch.tensor([len(frames) for frames in read])
        return {"mel": padded(read).float(), "frames": frames} | _said(texts, rows)

    features = load_file(encoded / "0.safetensors")[VERSIONS[0]].shape[1]
    spoken = tuple(sorted(set(data.column("language"))))
    found = {"encoder": encoder.sha256, "features": features, "languages": spoken}
    part = replace(part, config=replace(part.config, **found))
    _fit(folder, part, _new(EncodedJudge, part), judge_loss, _step_batches(part, data.frames, make))
    shutil.rmtree(encoded)


def _encode_twice(encoder: Encoder, wave: Wave, file: Path, seed: int) -> None:
    """A sound `(s,)` as it is and changed, as an encoder gives them, into a file that may be there."""
    if file.exists():
        return
    rate = SAMPLE_RATE * np.random.default_rng(seed).uniform(*SPEED)
    sounds = (wave, record(resample(wave, rate), CROWD, seed))
    with whole(file) as part:
        save_file({name: encoder(s).half() for name, s in zip(VERSIONS, sounds, strict=True)}, part)


def train_speaker(part: Part, folder: Path, inputs: dict[str, Path]) -> None:
    """The speaker encoder, on random crops of every voice of `parts`."""
    data, n = Utterances(inputs["corpus.parts"]), part.batch // CROP

    def batches(step: int) -> Batch:
        draw = np.random.default_rng((part.train.seed, step))
        rows = draw.choice(len(data), n, replace=len(data) < n).tolist()
        mels = [data.mel(i)[crop] for i, crop in zip(rows, _crops(data, rows, CROP, draw), strict=True)]
        frames = torch.tensor([len(mel) for mel in mels])
        return {"mel": padded(mels), "frames": frames, "speaker": torch.tensor(data.voices[rows])}

    _fit(folder, part, _new(SpeakerEncoder, part), speaker_loss, batches)


def train_tokenizer(part: Part, folder: Path, inputs: dict[str, Path]) -> None:
    """The speech tokenizer, given the timbre of another utterance of the same voice."""
    data = Utterances(inputs["corpus.parts"])
    timbre = timbres(load(inputs, "speaker", SpeakerEncoder), data)
    save_file({"timbre": timbre}, folder / TIMBRE)
    texts = spoken_symbols(data, part.config.alphabet)
    prosody = [data.prosody(i) for i in range(len(data))]
    clean = _clean(data)

    def make(rows: list[int], draw: np.random.Generator) -> Batch:
        return (
            mels_of(data, rows)
            | _said(texts, rows)
            | {
                "prosody": padded([prosody[i] for i in rows]),
                "timbre": timbre[[data.other(i, draw) for i in rows]],
                "speaker": torch.tensor(data.voices[rows]),
                "clean": clean[rows],
            }
        )

    heard = _step_batches(part, data.frames, make)

    def batches(step: int) -> Batch:
        ear = torch.tensor((step / part.train.steps - EAR_FROM) / (EAR_FULL - EAR_FROM)).clamp(0, 1)
        return heard(step) | {"ear": ear}

    _fit(folder, part, _new(SpeechTokenizer, part), tokenizer_loss, batches)


def train_decoder(part: Part, folder: Path, inputs: dict[str, Path]) -> None:
    """The flow decoder, from the frozen tokenizer's codes and blurred mel."""
    data, timbre = Utterances(inputs["corpus.parts"]), timbre_of(inputs)
    tokenizer = load(inputs, "tokenizer", SpeechTokenizer)
    digits = [codes_to_digits(codes, tokenizer.config.dims) for codes in encode(tokenizer, data)]
    clean, model = _clean(data), _new(FlowDecoder, part)

    def make(rows: list[int], draw: np.random.Generator) -> Batch:
        batch = mels_of(data, rows) | {
            "digits": padded([digits[i] for i in rows]),
            "timbre": timbre[[data.other(i, draw) for i in rows]],
            "clean": clean[rows],
        }
        with torch.inference_mode():
            _, prior = tokenizer.decode(batch["digits"], batch["timbre"], batch["frames"])
        return batch | {"prior": prior.clone()}

    train(model, decoder_loss, _step_batches(part, data.frames, make), part.train, folder / "training")
    if part.config.sharpen:
        rows = np.random.default_rng(part.train.seed).permutation(len(data))[:COMPARED].tolist()
        model.cpu().eval().fit_spread(_decoded(data, rows, tokenizer, model, timbre), map(data.mel, rows))
    _keep(folder, part, model)


def train_vocoder(part: Part, refine: Part | None, folder: Path, inputs: dict[str, Path]) -> None:
    """The vocoder, on random segments of every voice of `parts`; then also on what the decoder makes of them.

    A decoder's mel is smoother than a recording's, and in use the vocoder is asked for its envelope alone:
    `refine` lets it learn that, on a decoded and a recorded mel by turns.
    """
    model, data = _new(Vocoder, part), Utterances(inputs["corpus.parts"])

    def batches(part: Part, rows: Sequence[int], decoded: Sequence[Tensor]) -> Callable[[int], Batch]:
        def make(step: int) -> Batch:
            draw = np.random.default_rng((part.train.seed, step))
            places = draw.choice(len(rows), part.batch // SEGMENT).tolist()
            drawn = [rows[place] for place in places]
            mels = [decoded[p] if decoded and n % 2 else data.mel(rows[p]) for n, p in enumerate(places)]
            crops = _crops(data, drawn, SEGMENT, draw)
            return {
                "mel": torch.stack([mel[crop] for mel, crop in zip(mels, crops, strict=True)]),
                "wave": torch.stack(
                    [data.wave(i)[HOP * c.start : HOP * c.stop] for i, c in zip(drawn, crops, strict=True)]
                ),
                "f0": torch.stack([data.f0(i)[crop] for i, crop in zip(drawn, crops, strict=True)]),
            }

        return make

    rows = np.flatnonzero(np.array(data.frames) >= SEGMENT).tolist()
    train(model, vocoder_loss, batches(part, rows, []), part.train, folder / "training")
    if refine:
        rows = np.random.default_rng(refine.train.seed).permutation(rows)[:REFINED].tolist()
        loss, decoder = partial(vocoder_loss, smoothing=SMOOTHING), load(inputs, "decoder", FlowDecoder)
        tokenizer = load(inputs, "tokenizer", SpeechTokenizer)
        decoded = _decoded(data, rows, tokenizer, decoder, timbre_of(inputs))
        train(model, loss, batches(refine, rows, decoded), refine.train, folder / "refining")
    _keep(folder, part, model, **({"refined": refine.train.steps} if refine else {}))


@torch.inference_mode()
def _decoded(
    data: Utterances, rows: Sequence[int], tokenizer: SpeechTokenizer, decoder: FlowDecoder, timbre: Tensor
) -> list[Tensor]:
    """Log-mels `(f m)` of utterances as the decoder says their codes, with noise as in use.

    Each is said in the voice, of `timbre` `(utterances, c)`, of another utterance of the speaker.
    """
    mels, draw = [], np.random.default_rng(0)
    for i in rows:
        heard = mels_of(data, [i])
        digits = tokenizer.encode(heard["mel"], data.prosody(i)[None], heard["frames"])
        voice = timbre[[data.other(i, draw)]]
        _, prior = tokenizer.decode(digits, voice, heard["frames"])
        noise = NOISE * torch.randn_like(prior)
        mels.append(decoder.decode(digits, prior, voice, heard["frames"], noise=noise)[-1][0].clone())
    return mels


def load(inputs: Mapping[str, Path], name: str, kind: type[M]) -> M:
    """The network that the stage `name` made."""
    return checkpoints.load(inputs[name] / "model", kind)[0]


def timbre_of(inputs: Mapping[str, Path]) -> Tensor:
    """`(utterances, c)` of the group `parts`, as the tokenizer was given it."""
    return load_file(inputs["tokenizer"] / TIMBRE)["timbre"]


def lm_batches(config: LMConfig, data: Utterances, codes: list[Tensor], part: Part) -> Callable[[int], Any]:
    """Batches of text and codes; half of the utterances begin with a style, 40 tokens of the same voice
    elsewhere. Of a voice that says nothing else there is none: its own tokens would give the answer away.
    Of the config's share of them the text is left out.
    """
    texts = text_symbols(data, config.alphabet)
    languages = data.column("language")
    lengths = [len(t) + len(c) + STYLE_TOKENS + 4 for t, c in zip(texts, codes, strict=True)]

    def style(i: int, draw: np.random.Generator) -> list[int]:
        elsewhere = data.other(i, draw)
        if elsewhere == i:
            return []
        other = codes[elsewhere]
        start = int(draw.integers(max(1, len(other) - STYLE_TOKENS + 1)))
        return other[start : start + STYLE_TOKENS].tolist()

    def make(rows: list[int], draw: np.random.Generator) -> Any:
        styles = [style(i, draw) if draw.random() < 0.5 else [] for i in rows]
        said = [[] if config.drop and draw.random() < config.drop else texts[i] for i in rows]
        heads = zip(said, (languages[i] for i in rows), styles, strict=True)
        prompts = [prompt_ids(config, *head) for head in heads]
        return assemble(config, prompts, [codes[i].tolist() for i in rows])

    return _step_batches(part, lengths, make)


def train_lm(part: Part, group: str, folder: Path, inputs: dict[str, Path], base: str = "") -> None:
    """The backbone on `backbone`, or its fine-tuning on a target language.

    With a `base`, a folder of checkpoints, the backbone there is taught one more language, the group.
    """
    torch.manual_seed(part.train.seed)
    facts = {}
    if base:
        tokenizer, card = checkpoints.load(Path(base) / "tokenizer", SpeechTokenizer)
        model = checkpoints.load(Path(base) / "lm.backbone", SpeechLM)[0].adopt(group)
        facts = {"language": group, "tokenizer": card.sha256}
    else:
        tokenizer = load(inputs, "tokenizer", SpeechTokenizer)
        began = "lm.backbone" in inputs
        model = load(inputs, "lm.backbone", SpeechLM) if began else SpeechLM(part.config)
    model.config = replace(model.config, drop=part.config.drop)
    data = Utterances(inputs[f"corpus.{group}"])
    codes, languages = encode(tokenizer, data), data.column("language")
    model.fit_pace(text_symbols(data, model.config.alphabet), [len(row) for row in codes], languages)
    batches = lm_batches(model.config, data, codes, part)
    _fit(folder, part, model, lm_loss, batches, languages=sorted(set(languages)), **facts)


def _corpus_stage(group: str, specs: Sequence[Supply]) -> Stage:
    content = [
        languages.find(spec.language).content() if isinstance(spec, CorpusSpec) else spec.content()
        for spec in specs
    ]
    return Stage(f"corpus.{group}", (), partial(speak_group, tuple(specs)), content)


def stages(chain: Preset) -> list[Stage]:
    """The whole chain as stages, longest way first."""
    parts, first = "corpus.parts", ("corpus.parts", "speaker", "tokenizer")
    made = [
        *(_corpus_stage(group, specs) for group, specs in chain.corpora.items()),
        Stage("speaker", (parts,), partial(train_speaker, chain.speaker)),
        Stage("tokenizer", (parts, "speaker"), partial(train_tokenizer, chain.tokenizer)),
        Stage("lm.backbone", ("corpus.backbone", "tokenizer"), partial(train_lm, chain.backbone, "backbone")),
    ]
    for language in chain.languages:
        needs = (f"corpus.{language}", "tokenizer", "lm.backbone")
        made.append(Stage(f"lm.{language}", needs, partial(train_lm, chain.lm, language)))
    made += [
        Stage("decoder", (parts, "tokenizer"), partial(train_decoder, chain.decoder)),
        Stage(
            "vocoder",
            (parts, "tokenizer", "decoder") if chain.refine else (parts,),
            partial(train_vocoder, chain.vocoder, chain.refine),
        ),
        Stage("judge_a", ("corpus.judge_a",), partial(train_judge, chain.judge_a, "judge_a")),
        Stage("judge_b", ("corpus.judge_b",), partial(train_judge, chain.judge_b, "judge_b")),
    ]
    return sorted(made, key=lambda stage: stage.name not in first)


def listening(chain: Preset, whisper: str) -> Stage:
    """The stage of judge C, who hears by Whisper's encoder; its weights are a folder or a hub id."""
    if not chain.judge_c:
        raise LabError(f"preset {chain.name!r} has no judge C, who hears people: choose human.")
    run, at = partial(train_encoded_judge, chain.judge_c), {"whisper": whisper}
    return Stage("judge_c", ("corpus.judge_b",), run, Encoder(whisper).sha256, at)


def adoption(chain: Preset, base: Path, language: str, shares: Sequence[Share]) -> list[Stage]:
    """Stages that teach the chain whose checkpoints are in `base` one more language: an LM and both judges.

    They hear `shares`, recordings, and what a synthesiser says of the language's texts.
    """
    made = []
    for network in ("lm", "judge_a", "judge_b"):
        speech: list[Supply] = [*made_speech(network, language, chain.n_adopted), *shares]
        if not speech:
            raise LabError(
                f"The texts of {language!r} have no sentence for {network}: each network learns from its own "
                "part of them. Give a hundred sentences or more, or recordings."
            )
        name = f"{network}.{language}"
        group, sources = (language, ("tokenizer", "lm.backbone")) if network == "lm" else (name, (network,))
        learn = train_lm if network == "lm" else train_judge
        run = partial(learn, getattr(chain, network), group)
        shas = [checkpoints.read_header(base / f"{source}.safetensors")["sha256"] for source in sources]
        at = {"base": str(base)}
        made += [_corpus_stage(group, speech), Stage(name, (f"corpus.{group}",), run, shas, at)]
    return made
