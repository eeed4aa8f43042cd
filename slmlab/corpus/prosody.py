"""How a sentence is performed, and what the microphone makes of it: in these settings the arms of a study
differ.

A performance is a plan: each word with its pitch, rate, loudness and the pause after it, drawn from the text
(questions rise, names and numbers are stressed, statements fall) and in part from chance. It depends on the
sentence, the settings and the seed, never on the voice, so that prosody and speaker can be told apart.
Engines carry a plan out as far as they can. A recording adds gain, noise, a room and a microphone to the
finished sound, and a careless transcriber to the text.

These are stand-ins: `authentic` here means "what crowd recordings look like to a model", not recorded people.
Axis legend: s samples, k frequency bins.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from slmlab.errors import LabError
from slmlab.language import languages
from slmlab.language.languages import QUESTIONS, Language
from slmlab.language.sentences import focus_words
from slmlab.language.text import for_scoring
from slmlab.sound import SAMPLE_RATE
from slmlab.sound.audio import Wave

MELODY, CHANNEL, TRANSCRIPT = range(3)  # streams of random numbers of one utterance


@dataclass(frozen=True)
class Channel:
    """What stands between mouth and model: room, noise, microphone, transcriber. The default adds nothing."""

    noise_snr: tuple[float, float] | None = None
    """Least and greatest ratio of speech to background noise in dB, drawn evenly; None for silence."""
    noise_colour: tuple[float, float] = (0.0, 2.0)
    """The noise's power falls as 1 / frequency to this power: 0 is white, 1 pink, 2 brown."""
    room_share: float = 0.0
    """Share of utterances spoken in a room that can be heard."""
    room_seconds: tuple[float, float] = (0.1, 0.4)
    """Time in which the room's echo falls by 60 dB."""
    room_level: tuple[float, float] = (-18.0, -6.0)
    """Level of the echo against the direct sound, dB."""
    low_cut: tuple[float, float] | None = None
    """Hz below which the microphone fades out; None for a flat one."""
    high_cut: tuple[float, float] = (3800.0, 8000.0)
    """Hz above which it does; used with `low_cut`."""
    gain_spread: float = 0.0
    """Standard deviation of the loudness between utterances, dB."""
    wrong_transcripts: float = 0.0
    """Share of utterances whose transcript misses, adds or mistakes a word."""


STUDIO = Channel()
CROWD = Channel(
    noise_snr=(10.0, 30.0), room_share=0.7, low_cut=(40.0, 200.0), gain_spread=3.0, wrong_transcripts=0.04
)


@dataclass(frozen=True)
class Prosody:
    """How much and in which way speech moves; pitch in semitones (st), loudness in dB."""

    range: float = 1.0
    """Width of the engine's own intonation, lexical tones included; 1 is what the engine's authors chose."""
    rate: float = 1.0
    """Speed; 1 is the engine's usual pace."""
    rate_spread: float = 0.0
    """Standard deviation of the utterance's pace, in octaves (1 is twice as fast)."""
    register_spread: float = 0.0
    """Standard deviation of the utterance's pitch around the voice's, st."""
    question_rise: float = 0.0
    """How far the last word of a question rises, st; the one before goes half the way."""
    final_fall: float = 0.0
    """How far the last word of a statement falls, st; the one before goes half the way."""
    declination: float = 0.0
    """How far pitch sinks from the first word to the last, st."""
    focus_rise: float = 0.0
    """How much higher names and number words are said, st."""
    focus_gain: float = 0.0
    """How much louder, dB."""
    focus_slowing: float = 0.0
    """How much slower, octaves."""
    phrase_words: float = 3.0
    """Mean length of the phrases that share one random step of pitch, pace and loudness, in words."""
    phrase_spread: float = 0.0
    """Standard deviation of a phrase's pitch step, st."""
    phrase_rate_spread: float = 0.0
    """Standard deviation of a phrase's pace, octaves."""
    phrase_gain_spread: float = 0.0
    """Standard deviation of a phrase's loudness, dB."""
    word_spread: float = 0.0
    """Standard deviation of a word's pitch around its phrase's, st."""
    pause_share: float = 0.0
    """Share of the phrase boundaries inside a sentence at which the speaker pauses."""
    pause_seconds: float = 0.15
    """Mean length of such a pause."""
    recording: Channel = STUDIO
    """What the microphone and the transcriber add."""


@dataclass(frozen=True)
class PlannedWord:
    """One word of a performance, with its punctuation."""

    text: str
    pitch: float = 0.0  # st above the voice's register
    rate: float = 1.0  # speed against the engine's usual pace
    gain: float = 0.0  # dB
    pause: float = 0.0  # seconds of silence after it, besides what its punctuation brings


Plan = tuple[PlannedWord, ...]
"""A performance, word by word."""

SYNTHETIC = Prosody(range=0.5)
LIVELY = Prosody(
    range=1.2,
    rate=0.98,
    rate_spread=0.12,
    register_spread=1.0,
    question_rise=5.0,
    final_fall=2.5,
    declination=2.0,
    focus_rise=3.0,
    focus_gain=3.0,
    focus_slowing=0.2,
    phrase_spread=2.0,
    phrase_rate_spread=0.16,
    phrase_gain_spread=2.5,
    word_spread=0.7,
    pause_share=0.25,
)
KINDS = {"synthetic": SYNTHETIC, "lively": LIVELY, "authentic": replace(LIVELY, recording=CROWD)}
"""Three arms: flat and clean; performed; performed, recorded by a crowd and transcribed in haste."""


def of_kind(kind: str) -> Prosody:
    """The settings of a named kind; LabError names the kinds there are."""
    if kind not in KINDS:
        raise LabError(f"Kind of speech '{kind}' is unknown; expected one of {', '.join(KINDS)}.")
    return KINDS[kind]


def plan(text: str, language: str, prosody: Prosody, seed: int) -> Plan:
    """How one sentence is performed, word by word; equal arguments give equal plans."""
    if not any(c.isalnum() for c in text):
        raise LabError(f"Text '{text}' has nothing to say: found no letter, expected words; write one.")
    words = text.split()
    rng = np.random.default_rng((seed, MELODY))
    pace = prosody.rate * 2 ** (prosody.rate_spread * _normal(rng))
    register = prosody.register_spread * _normal(rng)
    focus = focus_words(language)
    tune = _tune(words, languages.find(language), prosody)
    phrase = (prosody.phrase_spread, prosody.phrase_rate_spread, prosody.phrase_gain_spread)
    planned: list[PlannedWord] = []
    ends = True
    for i, (word, melody) in enumerate(zip(words, tune, strict=True)):
        if ends:
            step, step_rate, step_gain = (spread * _normal(rng) for spread in phrase)
        stressed = float(for_scoring(word, language) in focus)
        ends = i + 1 < len(words) and (word[-1] in ",;:" or rng.random() < 1 / prosody.phrase_words)
        pauses = ends and rng.random() < prosody.pause_share
        wobble = prosody.word_spread * _normal(rng)
        planned.append(
            PlannedWord(
                text=word,
                pitch=register + melody + step + stressed * prosody.focus_rise + wobble,
                rate=pace * 2 ** (step_rate - stressed * prosody.focus_slowing),
                gain=step_gain + stressed * prosody.focus_gain,
                pause=float(rng.gamma(4.0, prosody.pause_seconds / 4)) if pauses else 0.0,
            )
        )
    return tuple(planned)


def record(wave: Wave, channel: Channel, seed: int) -> Wave:
    """A clean wave (s) as it comes out of a channel: room, noise, microphone, gain; same length."""
    if channel == STUDIO:
        return wave
    rng = np.random.default_rng((seed, CHANNEL))
    length = len(wave)
    n = _fast_length(length + SAMPLE_RATE // 2)  # room for the echo
    hertz = np.fft.rfftfreq(n, 1 / SAMPLE_RATE).astype(np.float32)
    spectrum = np.fft.rfft(wave, n)
    if rng.random() < channel.room_share:
        spectrum *= np.fft.rfft(_room(channel, rng), n)
    if channel.noise_snr is not None:
        noise = np.fft.rfft(rng.standard_normal(n, dtype=np.float32))
        noise *= np.exp(-0.5 * rng.uniform(*channel.noise_colour) * np.log(np.maximum(hertz, 50.0)))
        speech_over_noise = _energy(spectrum) / length / (_energy(noise) / n)
        spectrum += noise * math.sqrt(speech_over_noise * 10 ** (-rng.uniform(*channel.noise_snr) / 10))
    if channel.low_cut is not None:
        spectrum *= _microphone(hertz, rng.uniform(*channel.low_cut), rng.uniform(*channel.high_cut))
    received = np.fft.irfft(spectrum, n)[:length].astype(np.float32)
    level = math.sqrt(float(wave @ wave) / max(float(received @ received), 1e-12))
    level *= 10 ** (channel.gain_spread * _normal(rng) / 20)
    return received * np.float32(min(level, 0.97 / max(float(np.abs(received).max()), 1e-9)))


def transcribe(text: str, others: list[str], channel: Channel, seed: int) -> str:
    """What a hurried person writes down: `text`, now and then with a word lost, or taken from `others`."""
    rng = np.random.default_rng((seed, TRANSCRIPT))
    if rng.random() >= channel.wrong_transcripts:
        return text
    words = text.split()
    place = int(rng.integers(len(words)))
    here = words[place].lower()
    strays = [w.lower() for other in others for w in other.split() if w.isalpha() and w.lower() != here]
    stray = strays[int(rng.integers(len(strays)))] if strays else words[-1]
    change = rng.random()
    if change < 1 / 3 and len(words) > 1:
        del words[place]
    elif change < 2 / 3:
        words.insert(place, stray)
    else:
        words[place] = stray + words[place][len(words[place].rstrip(".,?!")) :]
    return " ".join(words)


def _tune(words: list[str], language: Language, prosody: Prosody) -> list[float]:
    """The melody that the text decides: it sinks along the sentence, then rises or falls at the end."""
    last = len(words) - 1
    tune = [prosody.declination * (0.5 - i / max(last, 1)) for i in range(len(words))]
    asks = language.is_question(words[-1])
    end = prosody.question_rise * QUESTIONS[language.questions] if asks else -prosody.final_fall
    tune[-1] += end
    if last:
        tune[-2] += end / 2
    return tune


def _normal(rng: np.random.Generator) -> float:
    """A standard normal number, cut at ±2 so that no word leaves the human range."""
    return float(np.clip(rng.standard_normal(), -2.0, 2.0))


def _room(channel: Channel, rng: np.random.Generator) -> NDArray[np.float32]:
    """An impulse response (s): the direct sound, and after 2 ms noise that decays exponentially."""
    seconds = rng.uniform(*channel.room_seconds)
    level = 10 ** (rng.uniform(*channel.room_level) / 20)
    time = np.arange(int(seconds * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
    echo = rng.standard_normal(len(time), dtype=np.float32) * np.exp(-3 * math.log(10) / seconds * time)
    echo[: SAMPLE_RATE // 500] = 0.0
    echo *= level / math.sqrt(float(echo @ echo))
    echo[0] = 1.0
    return echo.astype(np.float32)


def _microphone(hertz: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Second-order fades below `low` and above `high` Hz, without delay: (k) -> (k)."""
    below, above = np.square(low / np.maximum(hertz, 1.0)), np.square(hertz / high)
    return ((1 + below * below) * (1 + above * above)) ** -0.5


def _energy(spectrum: NDArray[np.complexfloating]) -> float:
    """Sum of squares over the spectrum (k)."""
    return float(np.vdot(spectrum, spectrum).real)


def _fast_length(length: int) -> int:
    """The next length that an FFT likes: a multiple of 2048 without large prime factors."""
    blocks = math.ceil(length / 2048)
    while any(blocks % prime == 0 for prime in (11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)):
        blocks += 1
    return 2048 * blocks
