"""Text to wave: the trained parts composed for use, without anything of training.

Axes: b batch, t tokens, f mel frames, m mel bins, j code dimensions, c timbre numbers, s samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from slmlab import files
from slmlab.corpus.groups import READ
from slmlab.corpus.utterances import in_batches
from slmlab.errors import LabError
from slmlab.language.text import ended
from slmlab.metrics.error_rates import cer
from slmlab.metrics.instruments import Encoder
from slmlab.models.decoder import NOISE, FlowDecoder
from slmlab.models.fsq import codes_to_digits, digits_to_codes
from slmlab.models.judges import transcribe
from slmlab.models.lm import LMConfig, SpeechLM
from slmlab.models.speaker import SpeakerConfig, SpeakerEncoder
from slmlab.models.tokenizer import SEMITONES_UNIT, SpeechTokenizer, prosody_features
from slmlab.models.vocoder import SMOOTHING, Vocoder
from slmlab.progress import bar
from slmlab.sound import SAMPLE_RATE, features
from slmlab.sound.pitch import register
from slmlab.speech.sampling import SamplingConfig, speak, usual
from slmlab.training import checkpoints, shelf
from slmlab.training.checkpoints import SUFFIX
from slmlab.training.shelf import KINDS, VOICE_NAMES, VOICES

DECODED = 4  # utterances of like lengths that are decoded at a time: more leave a processor's cache


@dataclass(frozen=True)
class Speech:
    """What the chain said: `(s,)` at 16 kHz, the decoder's log-mel `(f m)`, and codes, 25 a second."""

    wave: Tensor
    mel: Tensor
    codes: list[int]


def _terms(network: nn.Module) -> dict[str, int]:
    """Numbers that the parts of a chain must agree on, as far as one of them has them."""
    config: Any = network.config
    if isinstance(config, SpeakerConfig):
        return {"timbre_width": config.width_out + 1}
    names = {"timbre_width": "timbre_width", "dims": "code_dims" if isinstance(config, LMConfig) else "dims"}
    return {term: getattr(config, name) for term, name in names.items() if hasattr(config, name)}


class Chain:
    """All parts of one preset; each is loaded from the folder of checkpoints when it is first asked for."""

    def __init__(
        self,
        folder: Path,
        lm: Path | None = None,
        adopted: Path | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        """`folder` holds tokenizer, decoder, vocoder, speaker, lm.<language>, judges, voices.json.

        `lm` speaks in place of those, such as a tuned one; `adopted` is a folder of further lm.<language>,
        judge_<a or b>.<language> and judge_c, which were taught later. With an `encoder` judge C, who reads
        it, scores in B's place.
        """
        self.folder, self.own_lm, self.encoder = folder, lm, encoder
        self._folders = [adopted, folder] if adopted else [folder]
        tokenizer, card = checkpoints.load(folder / "tokenizer", KINDS["tokenizer"])
        self._tokenizer_sha256 = card.sha256
        self._networks: dict[str, nn.Module] = {"tokenizer": tokenizer}
        voices = folder / VOICES
        try:
            named = files.read_json(voices) if voices.exists() else {}
            self.voices = {name: torch.tensor(numbers).float() for name, numbers in named.items()}
            width = self.tokenizer.config.timbre_width
            if any(voice.shape != (width,) for voice in self.voices.values()):
                raise ValueError(f"a voice has not {width} numbers")
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise LabError(f"{voices} holds no voices ({error}): take it from where the chain is.") from None

    def _network(self, name: str) -> Any:
        if name not in self._networks:
            kind, _, language = name.partition(".")
            place = self.place(name)
            network, card = checkpoints.load(place, KINDS[kind])
            taught = [card.facts["language"]] if "language" in card.facts else card.facts.get("languages")
            if language and taught and language not in taught:
                raise LabError(f"{place} was taught {', '.join(taught)}, not {language}: choose another")
            if "tokenizer" in card.facts and card.facts["tokenizer"] != self._tokenizer_sha256:
                raise LabError(
                    f"{place} was taught with another tokenizer than {self.folder} has: teach it again."
                )
            shared, found = _terms(self.tokenizer), _terms(network)
            if unlike := checkpoints.differences(found, {term: shared[term] for term in found}):
                raise LabError(
                    f"{place} was not made for the tokenizer of {self.folder} ({unlike}): use parts of one "
                    "chain, or train it again."
                )
            self._networks[name] = network
        return self._networks[name]

    def place(self, name: str) -> Path:
        """Where a network is loaded from; a language model that was given comes first."""
        given = self.own_lm if name.startswith("lm.") else None
        return given or self._place(name) or self.folder / name

    def _place(self, name: str) -> Path | None:
        """Where a network lies: among those adopted, or in the chain's own folder; None: nowhere."""
        places = [folder / name for folder in self._folders]
        return next((place for place in places if place.with_name(name + SUFFIX).exists()), None)

    @property
    def tokenizer(self) -> SpeechTokenizer:
        """Sound to codes, and back to a blurred mel."""
        return self._network("tokenizer")

    @property
    def decoder(self) -> FlowDecoder:
        """Codes to mel."""
        return self._network("decoder")

    @property
    def vocoder(self) -> Vocoder:
        """Mel to wave."""
        return self._network("vocoder")

    @property
    def speaker(self) -> SpeakerEncoder:
        """Sound to voice."""
        return self._network("speaker")

    @property
    def languages(self) -> list[str]:
        """Languages that a checkpoint exists for."""
        files = [file for folder in self._folders for file in folder.glob(f"lm.*{SUFFIX}")]
        names = {file.name.split(".")[1] for file in files}
        return sorted(names - {"backbone"})

    def lm(self, language: str) -> SpeechLM:
        """The language model of a language."""
        if language not in self.languages:
            known = ", ".join(self.languages) or "none"
            raise LabError(
                f"there is no language model for {language!r} in {self.folder}: languages here are {known}"
            )
        return self._network(f"lm.{language}")

    def judge(self, which: str, language: str = "") -> Any:
        """Judge `a`, who filters, `b` or `c`, who score: of a language that was adopted, the judge taught it.

        LabError: judge C has no encoder to hear by, or not the one of its training, or not this language.
        """
        if which == "c" and not self.encoder:
            raise LabError("judge C hears by Whisper's encoder: open the chain with one.")
        own = f"judge_{which}.{language}"
        judge = self._network(own if self._place(own) else f"judge_{which}")
        if which == "c" and self.encoder:
            taught, given = judge.config.encoder, self.encoder.sha256
            if taught != given:
                raise LabError(
                    f"{self.place('judge_c')} was taught with another encoder (sha256 {taught[:8]}…, this "
                    f"one is {given[:8]}…): give its weights."
                )
            if language not in ("", *judge.config.languages):
                known = ", ".join(judge.config.languages)
                raise LabError(f"judge C has heard {known}, and not {language!r}: let judge b score it.")
        return judge

    def usual_voice(self, language: str) -> str:
        """Who speaks where nobody is named: the reader whose recordings taught the language, or `mid`."""
        readers = (name for name in self.voices if READ.get(name) == language)
        return next(readers, VOICE_NAMES[2])

    def named_timbre(self, name: str) -> Tensor:
        """`(c,)` of a voice that came with the checkpoints."""
        if name not in self.voices:
            raise LabError(
                f"there is no voice {name!r}: give a sound file, or one of {', '.join(sorted(self.voices))}"
            )
        return self.voices[name]

    @torch.inference_mode()
    def timbre(self, wave: Tensor) -> Tensor:
        """`(c,)` of a recording `(s,)`: the speaker embedding and the register."""
        mel, f0, _ = features.extract(wave)
        embedding = self.speaker(rearrange(mel, "f m -> 1 f m"), torch.tensor([len(mel)]))[0]
        return torch.cat([embedding, register(f0)])

    @torch.inference_mode()
    def encode(self, wave: Tensor) -> list[int]:
        """Speech tokens of a recording `(s,)`."""
        mel, f0, energy = features.extract(wave)
        n = len(mel) // 2 * 2
        if n == 0:
            seconds = len(wave) / SAMPLE_RATE
            raise LabError(f"the sound lasts {seconds:.2f} s, shorter than one token: give at least 0.1 s")
        prosody = prosody_features(f0[:n], energy[:n])
        digits = self.tokenizer.encode(mel[None, :n], prosody[None], torch.tensor([n]))
        codes: list[int] = digits_to_codes(digits)[0].tolist()
        return codes

    @torch.inference_mode()
    def to_mels(self, codes: Sequence[Sequence[int]], timbres: Tensor, seeds: Sequence[int]) -> list[Tensor]:
        """Codes in the voices `(b c)` to log-mels `(f m)`; the noise of each comes from its own seed.

        Noise is drawn at `NOISE` times its size in training, as Matcha-TTS does (Mehta et al. 2024): at full
        size, or with guidance, the small decoder's details are its own and judges misread words.
        """

        def decode(rows: list[int]) -> list[Tensor]:
            return self._decode([codes[i] for i in rows], timbres[rows], [seeds[i] for i in rows])

        return in_batches([len(row) for row in codes], DECODED, decode)

    def _decode(self, codes: Sequence[Sequence[int]], timbres: Tensor, seeds: Sequence[int]) -> list[Tensor]:
        """`to_mels` of utterances that are decoded as one batch."""
        digits, frames = self.digits(codes)
        _, prior = self.tokenizer.decode(digits, timbres, frames)
        noise = torch.zeros_like(prior)
        for row, n, seed in zip(noise, frames.tolist(), seeds, strict=True):
            row[:n] = NOISE * torch.randn(n, prior.shape[-1], generator=torch.Generator().manual_seed(seed))
        mels = self.decoder.decode(digits, prior, timbres, frames, noise=noise)[-1]
        return [mel[:n] for mel, n in zip(mels, frames.tolist(), strict=True)]

    @torch.inference_mode()
    def to_wave(self, mel: Tensor, codes: Sequence[int] = (), timbre: Tensor | None = None) -> Tensor:
        """A mel of the decoder `(f m)` to `(s,)`.

        With the codes that it was made from and its timbre `(c,)`, pitch and voicing are what the codes say.
        Without, the vocoder reads them off the mel; but a decoder blurs harmonics, and much of what was
        voiced comes out as a whisper.
        """
        mels = rearrange(mel, "f m -> 1 f m")
        if timbre is None or not codes:
            return self.vocoder(mels, smoothing=SMOOTHING)[0].clamp(-1, 1)
        melody = self.melody(codes, timbre)
        return self.vocoder.synthesise(mels, *melody, smoothing=SMOOTHING)[0, 0].clamp(-1, 1)

    def to_sounds(
        self, codes: Sequence[Sequence[int]], timbres: Tensor, seeds: Sequence[int]
    ) -> list[Tensor]:
        """Codes in the voices `(b c)` to sounds `(s,)`."""
        mels = bar(self.to_mels(codes, timbres, seeds), "to waves")
        return [*map(self.to_wave, mels, codes, timbres)]

    def digits(self, codes: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Digits `(b t j)` of codes, right-padded, and how many mel frames `(b,)` each row makes."""
        rows = [codes_to_digits(torch.tensor(list(row)), self.tokenizer.config.dims) for row in codes]
        return pad_sequence(rows, batch_first=True), torch.tensor([2 * len(row) for row in rows])

    @torch.inference_mode()
    def melody(self, codes: Sequence[int], timbre: Tensor) -> tuple[Tensor, Tensor]:
        """F0 in Hz and logits of voicing, each `(1 f)`: what codes say, in the register of a voice `(c,)`.

        They are read of each utterance alone: the last bits of a batch would shift the phase of its pulses.
        """
        said = self.tokenizer.read(*self.digits([codes])).prosody
        octaves = timbre[-1] + said[..., 0] * SEMITONES_UNIT / 12
        limits = self.vocoder.config
        return (150 * octaves.exp2()).clamp(limits.lowest, limits.highest), said[..., 1]

    def say(
        self,
        texts: Sequence[str],
        language: str,
        timbres: Tensor,
        sampling: SamplingConfig | None = None,
        styles: Sequence[Sequence[int]] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[Speech]:
        """Speak texts, each in its voice `(b c)` and manner: up to 40 style tokens, or none for plain.

        A text that does not end as sentences do is given a full stop.
        """
        lm, seeds = self.lm(language), seeds or range(len(texts))
        whole = [ended(text, language) for text in texts]
        codes = self._clearest(lm, language, whole, sampling or usual(lm), seeds, styles or ())
        mels = self.to_mels([row or [0] for row in codes], timbres, seeds)
        each = zip(bar(mels, "to waves"), codes, timbres, strict=True)
        return [Speech(self.to_wave(mel, row, timbre), mel, row) for mel, row, timbre in each]

    @torch.inference_mode()
    def _clearest(
        self,
        lm: SpeechLM,
        language: str,
        texts: Sequence[str],
        sampling: SamplingConfig,
        seeds: Sequence[int],
        styles: Sequence[Sequence[int]],
    ) -> list[list[int]]:
        """Codes of texts: of each one's tries that in which the tokenizer, who is no judge, reads it best.

        The first try is what would be said without others.
        """
        drawn = [(i, k) for i in range(len(texts)) for k in range(sampling.tries)]
        tries = speak(
            lm,
            language,
            [texts[i] for i, _ in drawn],
            sampling,
            [seeds[i] + (k << 40) for i, k in drawn],
            [styles[i] for i, _ in drawn] if styles else (),
        )
        if sampling.tries == 1:
            return tries
        digits, frames = self.digits([row or [0] for row in tries])
        log_probs = self.tokenizer.read(digits, frames).log_probs
        read = transcribe(log_probs, frames, self.tokenizer.config.alphabet)
        missed = [cer(texts[i], heard, language) for (i, _), heard in zip(drawn, read, strict=True)]
        each = range(0, len(tries), sampling.tries)
        return [tries[min(range(i, i + sampling.tries), key=missed.__getitem__)] for i in each]

    @property
    def scorer(self) -> str:
        """Who scores: judge `b`, or `c` where there is an encoder to hear by."""
        return "c" if self.encoder else "b"

    def hear(self, waves: Sequence[Tensor], which: str = "", language: str = "") -> list[str]:
        """What a judge (the `scorer`, or `a`, `b`) understands of sounds `(s,)`; who adopted the language, if
        it is given.
        """
        which = which or self.scorer
        each = bar(waves, f"heard by judge {which.upper()}")
        return [self.read_mel(self._heard(wave, which), which, language) for wave in each]

    def _heard(self, wave: Tensor, which: str) -> Tensor:
        """What a judge hears of a sound `(s,)`: a log-mel `(f m)`, or features of the encoder `(f e)`."""
        return self.encoder(wave.numpy()) if which == "c" and self.encoder else features.log_mel(wave)[0]

    @torch.inference_mode()
    def read_mel(self, mel: Tensor, which: str, language: str = "") -> str:
        """What a judge understands of a log-mel `(f m)`; `c`, of what its encoder makes of it."""
        judge, n = self.judge(which, language), torch.tensor([len(mel)])
        return transcribe(judge(rearrange(mel, "f m -> 1 f m"), n), n, judge.config.alphabet)[0]


def open_chain(
    preset_name: str, folder: Path | None = None, lm: Path | None = None, encoder: Encoder | None = None
) -> Chain:
    """The chain of a preset with all the languages it was taught: made here, shipped, or trained now.

    `folder`, of checkpoints, and `lm` stand in place of those at hand; with an `encoder` judge C scores.
    """
    found = folder or shelf.checkpoint_folder(preset_name)
    return Chain(found, lm, shelf.adopted_folder(preset_name), encoder)
