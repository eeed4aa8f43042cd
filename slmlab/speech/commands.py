"""What `slmlab speak` and `slmlab measure` do."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from slmlab import files, metrics
from slmlab.errors import LabError
from slmlab.metrics import instruments
from slmlab.sound import SAMPLE_RATE, audio
from slmlab.speech import score
from slmlab.speech.chain import Chain, Speech
from slmlab.speech.sampling import usual

REFERENCE = 0.5, 30.0  # seconds, least and most, of sound that a voice or a manner is taken from
LONGEST_TEXT = 500  # characters said in one go: the language models learnt single sentences
MEASURED = 0.04, 120.0  # seconds: one speech token; aligning two sounds takes the product of their lengths


def speak(
    chain: Chain,
    texts: Sequence[str],
    language: str,
    voice: str,
    style: Path | None = None,
    seed: int = 0,
    temperature: float | None = None,
    consent: str = "",
    tries: int = 1,
) -> list[Speech]:
    """Say texts, each from the same seed.

    Args:
        voice: a shipped voice's name, or a sound file of a voice never heard before; empty: the usual one.
        style: a sound file whose manner is taken.
        temperature: None keeps the usual one.
        consent: whose voice a file holds and who agreed that it speaks here.
        tries: how often each is said; that is kept in which the tokenizer reads the text best.

    Raises:
        LabError: a text, the language, voice or style cannot be used, or a voice is copied without consent.
    """
    check_lengths(texts)
    voice = voice or chain.usual_voice(language)
    if voice not in chain.voices and (Path(voice).suffix or Path(voice).exists()):
        timbre = chain.timbre(_sound(Path(voice), REFERENCE, "to take a voice from"))
        if not consent.strip():
            raise LabError(
                f"{voice} is somebody's voice, which would say what they never said: give --consent, such as "
                "'my own voice'; it is kept in the sound's mark."
            )
    elif consent:
        raise LabError(f"--consent is for a sound file as --voice; {voice!r} came with the checkpoints.")
    else:
        timbre = chain.named_timbre(voice)
    sampling = replace(usual(chain.lm(language)), tries=tries)
    sampling = sampling if temperature is None else replace(sampling, temperature=temperature)
    manner = chain.encode(_sound(style, REFERENCE, "to take a voice from")) if style else []
    n = len(texts)
    return chain.say(texts, language, timbre.expand(n, -1), sampling, [manner] * n, [seed] * n)


def check_lengths(texts: Sequence[str]) -> None:
    """LabError for a text that is too long to be said: asked before a chain is opened, or even trained."""
    for text in texts:
        if len(text) > LONGEST_TEXT:
            raise LabError(
                f"the text {text[:30]!r}… has {len(text)} characters, at most {LONGEST_TEXT} are said in one "
                "go: cut it into sentences."
            )


def write_spoken(
    folder: Path, texts: Sequence[str], utterances: Sequence[Speech], seed: int, consent: str = ""
) -> None:
    """Write a folder of one system, as a listening test takes it.

    It has `001.wav`, marked as generated (and with `consent`), `001.txt`, `001.json` with tokens and seed,
    and so on.
    """
    for i, (text, speech) in enumerate(zip(texts, utterances, strict=True), start=1):
        audio.write(folder / f"{i:03d}.wav", speech.wave.numpy(), consent=consent)
        files.replace_text(folder / f"{i:03d}.txt", text + "\n")
        files.write_json(folder / f"{i:03d}.json", {"tokens": speech.codes, "seed": seed})


def measure(
    chain: Chain,
    sound: Path,
    text: str | None = None,
    reference: Path | None = None,
    language: str = "",
    opened: instruments.Opened | None = None,
) -> dict[str, Any]:
    """Every metric that applies to a sound: a judge reads it, the tokenizer turns it into codes.

    Args:
        sound: a file of 40 ms to two minutes.
        text: what it says; with it come error rates and the speaking rate.
        reference: a recording of the text; with it come SIM and what compares melodies.
        language: that is spoken: its judge listens, if it was adopted, and its cut into words counts.
        opened: instruments to hear the sound too.

    Returns:
        `sound`, `judge` (`b`, or `c` if the chain has an encoder), what it `heard`, the figures of
        `metrics.describe`, of its codes `entropy` (bits, over windows of a second), `repetition` and where
        repeats lie on average, and with a text and a reference `calibrated_cer`: what the recogniser does not
        misread in the recording; then what `instruments.figures` says; None where undefined.
    """

    given = [_sound(path, MEASURED, "to be measured") for path in (sound, reference) if path]
    wave, *recordings = [each.numpy() for each in given]
    recording = recordings[0] if recordings else None
    transcript, *recorded = chain.hear(given, language=language)
    figures = metrics.describe(
        wave,
        text=text,
        reference=recording,
        heard=transcript,
        embed=lambda sound: chain.timbre(torch.as_tensor(sound))[:-1].numpy(),
        language=language,
    )
    codes = chain.encode(given[0])
    figures["entropy"] = metrics.window_entropy(codes, score.ENTROPY_WINDOW)
    figures["repetition"] = metrics.repetition_rate(codes)
    repeats = metrics.where_repeats(codes)
    figures["repeats_at"] = float(repeats.mean()) if len(repeats) else math.nan
    if text is not None and recorded:
        misread = metrics.cer(text, recorded[0], language)
        figures["calibrated_cer"] = metrics.calibrated_cer(figures["cer"], misread)
    figures |= instruments.figures(opened or {}, wave, text, recording, language)
    return {"sound": str(sound), "judge": chain.scorer, "heard": transcript, **files.plain(figures)}


def _sound(path: Path, seconds: tuple[float, float], use: str) -> torch.Tensor:
    """The sound `(s,)` of a file that lasts as many seconds as its use asks for, from least to most."""
    wave, info = audio.read(path, seconds[1])
    if len(wave) < seconds[0] * SAMPLE_RATE:
        short = f"{path} lasts {info.seconds:.3f} s, too short {use}"
        raise LabError(f"{short}: give at least {seconds[0]} s, better 3 s or more.")
    return torch.as_tensor(wave)


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a metric with what it is counted in, one column a sound."""

    def cell(value: Any) -> str:
        return "–" if pd.isna(value) else f"{value:.3f}" if isinstance(value, float) else str(value)

    def title(name: str) -> str:
        return f"{name} ({metrics.UNITS[name]})" if name in metrics.UNITS else name

    return pd.DataFrame(rows, dtype=object).map(cell).rename(columns=title).T.to_string(header=False)
