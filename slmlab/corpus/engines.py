"""From a sentence, a voice and a seed to clean speech; engines are replaceable; a manifest calls them again.

espeak-ng runs inside the process. It is GPL-3 and stays at arm's length: a shared library behind `Engine`,
from a wheel of its own, that nothing else here knows about. It keeps state between sentences (the phase of
its flutter, its noise, its gain control), so the library is loaded anew for every utterance: 0.5 ms buys that
a sentence sounds the same, to the bit, alone or after a thousand others.

MMS-TTS (VITS, through `transformers`) serves languages that espeak-ng lacks or speaks badly, Thai and Lao
first. Kokoro (`slmlab.corpus.kokoro`) speaks any language that espeak-ng can spell, and sounds like a person.

Axis legend: s samples.
"""

import _ctypes
import ctypes
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from xml.sax.saxutils import escape

import numpy as np
import torch

from slmlab.corpus.kokoro import Kokoro
from slmlab.corpus.prosody import Plan, Prosody, plan, record
from slmlab.corpus.voices import Voice
from slmlab.errors import LabError, import_extra
from slmlab.language import languages
from slmlab.language.text import normalise
from slmlab.sound import SAMPLE_RATE
from slmlab.sound.audio import Wave, resample, with_loudness

LOUDNESS = -23.0
"""Level of clean speech, dB of full scale."""
MAX_SILENCE = 0.15
"""Seconds of silence kept before and after speech."""
SILENCE_LEVEL = 40.0
"""Samples this many dB below the loudest are silence."""


class Engine(Protocol):
    """Whatever can speak."""

    name: str
    """Product and version, as the manifest keeps it."""

    def say(self, words: Plan, language: str, voice: Voice, width: float, seed: int) -> Wave:
        """A planned sentence as a clean 16 kHz wave (s), the same of equal arguments.

        `width` is `Prosody.range`. LabError when the engine does not have the language.
        """
        ...


def speak(
    text: str, language: str, voice: Voice, prosody: Prosody, seed: int, engine: str = "espeak-ng"
) -> Wave:
    """One sentence, performed and recorded as `prosody` says: (s) at 16 kHz.

    Clean speech lies at -23 dB, with at most 0.15 s of silence on either side. The seed decides everything
    that is left to chance; `engine` is a name that `engine_of` knows.
    """
    words = plan(text, language, prosody, seed)
    wave = engine_of(engine).say(words, language, voice, prosody.range, seed)
    return record(with_loudness(trim(wave), LOUDNESS), prosody.recording, seed)


@cache
def engine_of(name: str) -> Engine:
    """This process's engine of a name: `espeak-ng`, `mms:FOLDER`, or `kokoro:` and a folder or hub id.

    `kokoro` alone is the one that KOKORO names in the environment: its weights are always the same.
    """
    kind, _, folder = name.partition(":")
    if kind == "espeak-ng":
        return espeak()
    if kind == "mms" and folder:
        return Mms(folder)
    if kind == "kokoro" and (place := folder or os.environ.get("KOKORO")):
        return Kokoro(place, espeak().phonemes)
    raise LabError(
        f"Speech engine '{name}' is unknown; expected 'espeak-ng', 'mms:FOLDER' or 'kokoro:FOLDER' (or "
        "'kokoro', where KOKORO names the folder in the environment)."
    )


def check() -> str:
    """Name and version of espeak-ng, after it has said a word; LabError if it does not."""
    speak("habari", "sw", Voice("check", pitch=120.0), Prosody(), 0)
    return engine_of("espeak-ng").name


def trim(wave: Wave) -> Wave:
    """A wave (s) without the silence at its ends, but for at most 0.15 s on each side."""
    level = float(np.abs(wave).max(initial=0.0))
    sounding = np.flatnonzero(np.abs(wave) > level * 10 ** (-SILENCE_LEVEL / 20))
    if len(sounding) == 0:
        return wave
    margin = int(MAX_SILENCE * SAMPLE_RATE)
    return wave[max(int(sounding[0]) - margin, 0) : int(sounding[-1]) + 1 + margin]


class Espeak:
    """espeak-ng from the wheel `espeakng-loader`, in this process, one thread at a time."""

    USUAL_SPEED, LEAST_SPEED, GREATEST_SPEED = 175, 80, 449  # words a minute
    SAMPLE_RATE = 22_050
    VOLUME = 60  # of 200; above about 70 espeak's gain control begins to limit
    MEDIAN_OVER_LOWEST = 1.2  # register of a sentence against the `pitch` of a voice file

    def __init__(self) -> None:
        loader = import_extra("espeakng_loader", "The speech engine espeak-ng", "espeakng-loader")
        self._library = str(loader.get_library_path())
        self._scratch = _short_folder()
        self._data = Path(loader.get_data_path())
        if len(os.fsencode(self._data)) >= 120:
            link = Path(self._scratch.name) / "data"
            link.symlink_to(self._data)
            self._data = link
        self._chunks: list[bytes] = []
        self._callback = _CALLBACK(self._receive)  # kept alive as long as the engine
        with self._loaded() as library:
            library.espeak_Info.restype = ctypes.c_char_p
            self.name = "espeak-ng " + library.espeak_Info(None).decode()

    def say(self, words: Plan, language: str, voice: Voice, width: float, seed: int) -> Wave:
        """See `Engine`."""
        commands = _commands(words, language, voice, width).encode()
        flags = 0x1 | 0x10 | 0x1000  # UTF-8, SSML, a pause at the end
        self._chunks.clear()
        with self._loaded() as library:
            library.espeak_ng_SetRandSeed(ctypes.c_long(seed % 2**31))
            self._choose(library, language, voice)
            _expect(library.espeak_Synth(commands, len(commands) + 1, 0, 1, 0, flags, None, None), "speak")
        wave = np.frombuffer(b"".join(self._chunks), np.int16).astype(np.float32) / np.float32(32768)
        if not wave.any():
            text = " ".join(word.text for word in words)
            raise LabError(f"espeak-ng found nothing to say in '{text}' ({language}): write words of it.")
        return resample(wave, self.SAMPLE_RATE * voice.tract)

    def phonemes(self, text: str, language: str, voice: Voice) -> str:
        """A text in the symbols of the IPA, as the language's own voice would say it; stress is marked."""
        spelt = SPELLINGS[languages.find(language).respell](text)
        rest = ctypes.c_char_p(spelt.encode())  # moves along the text, a clause a call
        clauses: list[str] = []
        with self._loaded() as library:
            self._choose(library, language, voice)
            library.espeak_TextToPhonemes.restype = ctypes.c_char_p
            while rest.value:
                clauses.append(library.espeak_TextToPhonemes(ctypes.byref(rest), 0x1, 0x2).decode())
        return " ".join(clauses)

    def has(self, voice: str) -> bool:
        """Whether there is a voice of that name."""
        return any(path.is_file() for path in (self._data / "lang").rglob(voice))

    def _choose(self, library: ctypes.CDLL, language: str, voice: Voice) -> None:
        """Make the library speak in a voice of a language."""
        file = Path(self._scratch.name) / "voice"
        file.write_text(_voice_file(language, voice, self._data), encoding="latin-1")
        _expect(library.espeak_ng_SetVoiceByFile(str(file).encode()), "load the voice")

    def _receive(self, samples: Any, count: int, _events: Any) -> int:
        """espeak-ng hands over what it has spoken."""
        if count > 0:
            self._chunks.append(ctypes.string_at(samples, count * 2))
        return 0

    @contextmanager
    def _loaded(self) -> Iterator[ctypes.CDLL]:
        """The library in its first state."""
        library = ctypes.CDLL(self._library)
        rate = library.espeak_Initialize(2, 0, str(self._data).encode(), 0x8000)  # synchronous; never exit()
        if rate != self.SAMPLE_RATE:
            raise LabError(
                f"espeak-ng did not start (it answered {rate}, expected {self.SAMPLE_RATE}) with the data in "
                f"{self._data}: install `espeakng-loader` again."
            )
        library.espeak_SetSynthCallback(self._callback)
        try:
            yield library
        finally:
            library.espeak_Terminate()
            _ctypes.dlclose(library._handle)


espeak = cache(Espeak)
"""This process's espeak-ng, which also spells."""

_CALLBACK: Callable[[Any], Any] = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Mms:
    """An MMS-TTS model (VITS) from a local folder, spoken by `transformers`.

    It has one speaker, and a melody and pauses of its own: of the settings it follows pace and seed.
    `Voice.tract` is brought in by resampling, which moves its register too, so that one model still lends
    several voices.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise LabError(f"{folder} holds no MMS-TTS model: download one, such as facebook/mms-tts-lao.")
        transformers = import_extra("transformers", "An MMS-TTS model")
        try:
            self._tokenizer = transformers.VitsTokenizer.from_pretrained(folder)
            self._model = transformers.VitsModel.from_pretrained(folder).eval()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LabError(f"{folder} is no whole MMS-TTS model ({error}): download it again.") from error
        self.name = f"mms {folder.name}"

    def say(self, words: Plan, language: str, voice: Voice, width: float, seed: int) -> Wave:
        """See `Engine`; the model decides the language, and its melody is its own."""
        text = " ".join(word.text for word in words)
        inputs = self._tokenizer(text, return_tensors="pt")
        if inputs["input_ids"].shape[-1] < 2:
            raise LabError(
                f"{self.name} can read no character of '{text}': choose the model of this language."
            )
        self._model.speaking_rate = voice.rate * words[0].rate / voice.tract
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(seed)
            wave = self._model(**inputs).waveform[0].numpy()
        return resample(wave, self._model.config.sampling_rate * voice.tract)


# A syllable of pinyin, its tone taken off. No vowel follows a final consonant: xi-nan, not xin-an.
_SYLLABLE = re.compile(
    r"(?:[zcs]h|[bpmfdtnlgkhjqxrzcsyw])?"
    r"(?:(?:[iu]?ang|i?ong|[iu]?an|[ei]ng|van|ve|[eiuv]n|er)(?![aeiouv])|iao|uai|ia|ie|iu|ua|uo|ui|ue|ai|ei|ao|ou|[aoeiuv])"
)

_TONES = {"\u0304": "1", "\u0301": "2", "\u030c": "3", "\u0300": "4"}


def numbered_pinyin(text: str) -> str:
    """Pinyin with its tones as numbers after the syllables, the only spelling of it that espeak-ng reads.

    >>> numbered_pinyin("Wǒ de nǚ'ér xǐhuan lǜchá.")
    "wo3 de5 nv3er2 xi3huan5 lv4cha2."
    """
    return re.sub(
        r"[^\W\d_]+(?:[\u0300-\u030c]|[^\W\d_]|')*", lambda word: _numbered_word(word[0]), normalise(text)
    )


def _numbered_word(word: str) -> str:
    tones: dict[int, str] = {}
    letters = ""
    for c in word.replace("u\u0308", "v"):
        if c in _TONES:
            tones[len(letters) - 1] = _TONES[c]
        else:
            letters += c

    def numbered(syllable: re.Match[str]) -> str:
        tone = next((tones[i] for i in range(*syllable.span()) if i in tones), "5")
        return syllable[0] + tone

    return _SYLLABLE.sub(numbered, letters).replace("'", "")


SPELLINGS: dict[str, Callable[[str], str]] = {"": str, "numbered pinyin": numbered_pinyin}
"""How a text is spelt for espeak-ng, by the name in `language.toml`."""


def _commands(words: Plan, language: str, voice: Voice, width: float) -> str:
    """A plan as espeak-ng reads it: before each word, commands in its own units; pauses as SSML breaks.

    Pitch 50 is the voice's and 50 units are an octave; range 50 is usual; speed is in words a minute. Not
    SSML's `prosody`: of many such elements in a sentence espeak-ng 1.52 loses words (in 5 % of ours more than
    half of the sound), and at the end of `speak` it goes back to the language's own voice, too early.
    """
    width_units = min(round(50 * width), 99)
    respell = SPELLINGS[languages.find(language).respell]
    pieces: list[str] = []
    for word in words:
        pitch = min(max(round(50 + 50 * word.pitch / 12), 0), 99)
        speed = round(Espeak.USUAL_SPEED * voice.rate * word.rate / voice.tract)
        speed = min(max(speed, Espeak.LEAST_SPEED), Espeak.GREATEST_SPEED)
        volume = min(round(Espeak.VOLUME * 10 ** (word.gain / 20)), 200)
        pieces.append(
            f"\x01{pitch}P\x01{width_units}R\x01{speed}S\x01{volume}A {escape(respell(word.text))} "
        )
        if word.pause:
            pieces.append(f'<break time="{round(1000 * word.pause)}ms"/>')
    return "".join(pieces)


def _voice_file(language: str, voice: Voice, data: Path) -> str:
    """The text of an espeak-ng voice file: the language's own lines, then this voice's."""
    own_lines, low, high = _language_file(language, data)
    lowest = voice.pitch / voice.tract / Espeak.MEDIAN_OVER_LOWEST
    f1, f2, f3 = (round(100 * f) for f in voice.formants)
    tilt = 10 ** (voice.brightness / 20)
    lines = [
        *own_lines,
        f"pitch {round(lowest)} {round(lowest * high / low)}",
        f"formant 1 {f1} 100 100",
        f"formant 2 {f2} 100 100",
        f"formant 3 {f3} {round(90 * tilt**0.5)} 100",
        f"formant 4 {f3} {round(85 * tilt**0.5)} 100",
        f"tone 600 170 1200 {round(135 * tilt**0.5)} 2000 {round(110 * tilt**0.75)} 3000 {round(110 * tilt)}",
        f"roughness {voice.roughness}",
        f"consonants {round(90 * tilt**0.5)} 100",
    ]
    if voice.breath > 0:
        amount = [round(voice.breath * a) for a in (0, 6, 8, 8, 6, 5, 4, 4)]
        lines.append("breath " + " ".join(str(a) for a in amount))
    return "\n".join(lines) + "\n"


@cache
def _language_file(language: str, data: Path) -> tuple[tuple[str, ...], int, int]:
    """The lines of espeak-ng's file of a language that say how it is spoken, and its pitch range in Hz."""
    voice = languages.find(language).voice
    if not voice:
        raise LabError(
            f"Language {language!r} has no espeak-ng voice in its {languages.FILE}: name one there, or give "
            "recordings."
        )
    paths = sorted(path for path in (data / "lang").rglob(voice) if path.is_file())
    if not paths:
        raise LabError(f"espeak-ng has no voice {voice!r} for {language!r}: correct it in {languages.FILE}.")
    low, high, lines = 82, 118, []
    for line in paths[0].read_text(encoding="latin-1").split("\n"):
        key, *values = line.split("//")[0].split() or [""]
        if key == "pitch":
            low, high = int(values[0]), int(values[1])
        elif key and key not in ("name", "maintainer", "status", "gender"):
            lines.append(" ".join([key, *values]))
    return tuple(lines), low, high


def _short_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that goes with this process, in a short place: espeak-ng cuts paths of more than 160 bytes."""
    for place in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if len(os.fsencode(place)) < 100 and os.access(place, os.W_OK):
            return tempfile.TemporaryDirectory(prefix="slmlab-voice-", dir=place)
    raise LabError(
        f"espeak-ng takes no path as long as {tempfile.gettempdir()}: set TMPDIR to a shorter one."
    )


def _expect(status: int, what: str) -> None:
    if status != 0:
        raise LabError(f"espeak-ng could not {what} (status {status:#x}): install `espeakng-loader` again.")
