"""Instruments: networks of other people's that have heard people. Each is a second opinion and can be fooled.

They are an extra, `pip install 'slmlab[instruments]'`; each imports its package when it is opened. Whisper's
weights lie in a folder or at a hub id, the others' in their packages. Whisper's encoder also serves the lab's
own judge C.

Axis legend: s samples at 16 kHz, f frames (50 Hz), e features.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from slmlab import files
from slmlab.errors import LabError
from slmlab.metrics.describe import UNITS
from slmlab.metrics.error_rates import cer
from slmlab.metrics.prosody import similarity
from slmlab.sound import SAMPLE_RATE
from slmlab.sound.audio import Wave
from slmlab.sound.mel import HOP

WHISPER = "Systran/faster-whisper-base"
"""Whisper's weights (MIT, 145 MB) where no others are named."""
WHISPER_FILES = ("config.json", "model.bin", "tokenizer.json", "vocabulary.*", "preprocessor_config.json")
WINDOW = 30 * SAMPLE_RATE
"""Samples that Whisper hears at a time."""

INSTRUMENTS = pd.DataFrame(
    [
        (
            "whisper",
            UNITS["whisper_cer"],
            "Words: how many letters of the text Whisper-base misreads, taking the likeliest words.",
            "Languages it hardly knows: of people's Swahili it misreads 25 % of the letters and 90 % of the "
            "words, so its WER is useless, and its CER means something only beside a recording's. It also "
            "gets caught in loops: in one of ten sentences of espeak-ng (CER 10.8, the others 0.4).",
            "faster-whisper",
        ),
        (
            "dnsmos",
            UNITS["dnsmos"],
            "Sound: the overall quality (P.835 OVRL) that listeners would give it, as DNSMOS guesses.",
            "Nonsense and dullness: a person backwards has 2.4, one without all above 3 kHz 3.0, as before. "
            "OVRL tells people from espeak-ng (3.2 and 2.6), its sister P.808 does not.",
            "speechmos",
        ),
        (
            "sim",
            UNITS["sim"],
            "Voice: cosine of resemblyzer's embeddings of the sound and of its reference.",
            "Its scale: two recordings of a woman have 0.80, one of them backwards 0.71, noise still 0.45; "
            "among eight voices it is wrong in 9 % (EER).",
            "resemblyzer",
        ),
        (
            "vad",
            UNITS["vad"],
            "Speech: the share of the sound, in steps of 32 ms, that Silero takes for speech.",
            "Whatever sounds like a voice: a person backwards has the same 83 %; a buzz and noise have none.",
            "silero-vad",
        ),
    ],
    columns=["instrument", "unit", "measures", "what fools it", "package"],
).set_index("instrument")
"""Each in words; the numbers were measured on recordings of people who speak Swahili."""

Opened = dict[str, Callable[..., Any]]
"""By its name, what an instrument does with a wave."""


def open_instruments(names: Sequence[str], whisper: str = "") -> Opened:
    """Instruments with their networks (`whisper`: its folder or hub id); LabError says what one lacks."""
    openers: dict[str, Callable[[], Callable[..., Any]]] = {
        "whisper": lambda: _whisper(whisper or WHISPER),
        "dnsmos": _dnsmos,
        "sim": _sim,
        "vad": _vad,
    }
    if unknown := [name for name in names if name not in openers]:
        raise LabError(f"there is no instrument {unknown[0]!r}: choose among {', '.join(openers)}.")
    return {name: openers[name]() for name in names}


def figures(
    opened: Opened, wave: Wave, text: str | None = None, reference: Wave | None = None, language: str = ""
) -> dict[str, Any]:
    """What opened instruments say of a sound.

    Returns:
        `whisper_heard`, with a text `whisper_cer`, and with a reference too `whisper_added`: CER less the
        recording's, below 0 where the recording is harder to read; `dnsmos`; with a reference `sim`; `vad`.
    """
    said: dict[str, Any] = {}
    if hear := opened.get("whisper"):
        said["whisper_heard"] = hear(wave, language)
        if text is not None:
            said["whisper_cer"] = cer(text, said["whisper_heard"], language)
            if reference is not None:
                recorded = cer(text, hear(reference, language), language)
                said["whisper_added"] = said["whisper_cer"] - recorded
    said |= {name: opened[name](wave) for name in ("dnsmos", "vad") if name in opened}
    if reference is not None and "sim" in opened:
        said["sim"] = opened["sim"](wave, reference)
    return said


@contextmanager
def _package(name: str) -> Iterator[None]:
    """Where an instrument is imported and its network loaded; it neither warns nor takes threads away."""
    threads = torch.get_num_threads()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except ImportError as error:
        remedy = "run `pip install 'slmlab[instruments]'`"
        raise LabError(
            f"the instrument {name!r} needs {INSTRUMENTS.package[name]} ({error}): {remedy}."
        ) from None
    finally:
        torch.set_num_threads(threads)


class Encoder:
    """Whisper's encoder: what it makes of a sound, for a judge to read."""

    def __init__(self, place: str = "") -> None:
        """From a folder or hub id of weights for faster-whisper; LabError says what is lacking."""
        self._model, folder = _whisper_model(place or WHISPER)
        self.sha256 = files.sha256_of(folder / "model.bin")

    def __call__(self, wave: Wave) -> Tensor:
        """Features `(f e)` of a wave `(s,)`, f = s // 320, heard in windows of 30 s."""
        if len(wave) < HOP:
            raise LabError(
                f"the sound has {len(wave)} samples where one frame needs {HOP}: take a longer one."
            )
        heard = []
        for start in range(0, len(wave) // HOP * HOP, WINDOW):
            window = np.asarray(wave[start : start + WINDOW], dtype=np.float32)
            frames = len(window) // HOP
            mel = self._model.feature_extractor(window)[:, : 2 * frames]
            heard.append(np.array(self._model.encode(mel))[0, :frames])
        return torch.from_numpy(np.concatenate(heard))


def _whisper_model(place: str) -> tuple[Any, Path]:
    """Whisper, opened, and the folder where its weights lie."""
    with _package("whisper"):
        from faster_whisper import WhisperModel
    folder = files.weights(place, WHISPER_FILES)
    if lacking := [name for name in WHISPER_FILES[:3] if not (folder / name).is_file()]:
        raise LabError(f"{folder} lacks {lacking[0]}: give a folder of Whisper's weights for faster-whisper.")
    threads = torch.get_num_threads()
    try:
        return WhisperModel(str(folder), "cpu", compute_type="int8", cpu_threads=threads), folder
    except (RuntimeError, ValueError) as error:
        raise LabError(f"{folder} holds no weights for faster-whisper ({error}): get them again.") from error


def _whisper(place: str) -> Callable[[Wave, str], str]:
    """What Whisper hears in a wave of a language (its code; empty, and Whisper guesses)."""
    model, _ = _whisper_model(place)

    def hear(wave: Wave, language: str) -> str:
        if language not in ("", *model.supported_languages):
            raise LabError(f"Whisper does not know the language {language!r}: leave 'whisper' out.")
        greedy = {"beam_size": 1, "temperature": 0.0, "condition_on_previous_text": False}
        segments, _ = model.transcribe(wave, language=language or None, without_timestamps=True, **greedy)
        return " ".join(segment.text.strip() for segment in segments)

    return hear


def _dnsmos() -> Callable[[Wave], float]:
    with _package("dnsmos"):
        from speechmos import dnsmos
    return lambda wave: float(dnsmos.run(wave.clip(-1, 1), SAMPLE_RATE)["ovrl_mos"])


def _sim() -> Callable[[Wave, Wave], float]:
    with _package("sim"):
        from resemblyzer import VoiceEncoder, preprocess_wav

        encoder = VoiceEncoder("cpu", verbose=False)

    def sim(wave: Wave, reference: Wave) -> float:
        voiced = [preprocess_wav(sound) for sound in (wave, reference)]
        if not all(map(len, voiced)):
            return math.nan  # its own detector of voices left nothing
        return similarity(*(encoder.embed_utterance(sound) for sound in voiced))

    return sim


def _vad() -> Callable[[Wave], float]:
    with _package("vad"):
        from silero_vad import load_silero_vad

        model = load_silero_vad(onnx=True)
    return lambda wave: float((model.audio_forward(torch.as_tensor(wave), SAMPLE_RATE) >= 0.5).float().mean())
