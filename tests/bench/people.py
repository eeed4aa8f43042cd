"""The chain of `human` on people's recordings: what outside instruments and its own judges make of it.

Scored are sittings that no network heard. Weights of Whisper and of the natural synthesiser lie in the
folders (or at the hub ids) that WHISPER and KOKORO name in the environment; without KOKORO there is no
peer. A sentence's Whisper CER counts at most 1: now and then Whisper is caught in a loop.
"""

import os
import statistics
import time
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from slmlab import metrics
from slmlab.corpus.cutting import DOUBTFUL, cut
from slmlab.corpus.engines import engine_of, speak
from slmlab.corpus.kokoro import Kokoro
from slmlab.corpus.prosody import of_kind
from slmlab.corpus.voices import Voice, voice_pool
from slmlab.metrics import instruments
from slmlab.sound import SAMPLE_RATE, features
from slmlab.speech import score
from slmlab.speech.chain import Chain, open_chain

Row = tuple[str, float, str, float, str, str]
Sounds = Sequence[Tensor]
READERS = {"sw": "joshua", "habari": "habari", "yo": "yoruba"}
"""Held-out corpora, and who reads them."""
TONES = "\u0300\u0301\u0304"  # grave, acute, macron: how Yoruba writes tones


def rows(folder: Path, n: int) -> list[Row]:
    """The bars of people's speech, on the first n recordings of each reader in `folder`."""
    chain = open_chain("human", encoder=instruments.Encoder(os.environ.get("WHISPER", "")))
    opened = instruments.open_instruments(("whisper", "dnsmos", "sim"), os.environ.get("WHISPER", ""))
    recorded = {name: _recorded(folder, name, n) for name in READERS}
    texts, waves = recorded["sw"]
    n = len(waves)
    own = torch.stack([chain.timbre(wave) for wave in waves])
    sounds = {
        "recordings": waves,
        "resynth": chain.to_sounds([chain.encode(wave) for wave in waves], own, range(n)),
        "speak": _said(chain, "sw", texts),
    }
    if place := os.environ.get("KOKORO"):
        sounds["kokoro"], kokoro_rtf = _by_kokoro(place, texts)
    heard = {name: _heard(opened, texts, said) for name, said in sounds.items()}
    how = f"{n} recordings of joshua's test sittings; those themselves: {heard['recordings'][0]:.3f}"
    quality = f"the same; recordings {heard['recordings'][1]:.2f}"
    found: list[Row] = []
    for name, words, mos in (("resynth", 0.06, 2.8), ("speak", 0.12, 2.7)):
        added = heard[name][0] - heard["recordings"][0]
        found.append((f"human.{name}.whisper", added, "CER, less the recordings'", words, "lower", how))
        found.append((f"human.{name}.mos", heard[name][1], "DNSMOS OVRL", mos, "higher", quality))
    rates, scorer = _judged(chain, texts, sounds["speak"]), f"judge {chain.scorer.upper()}"
    rtf = _rtf(lambda text: _said(chain, "sw", [text])[0], texts[:8])
    found += [
        ("human.speak.cer", 100 * rates["cer"], "%", 12, "lower", f"{scorer}, {n} test sentences from text"),
        ("human.speak.wer", 100 * rates["wer"], "%", 30, "lower", "the same"),
        ("human.speak.rtf", rtf, "s a second", 0.1, "lower", "median of 8 sentences, one by one"),
        *_judge(chain, recorded),
        *_melody(waves, sounds["resynth"]),
        _cloning(chain, opened, recorded),
        _yoruba(chain, *recorded["yo"]),
        _cutting(chain, *_recorded(folder, "habari", 1000)),
    ]
    if place:
        peers = {"Kokoro": (*heard["kokoro"], kokoro_rtf), "ours": (*heard["speak"], rtf)}
        figures = "{}: Whisper {:.3f}, DNSMOS {:.2f}, RTF {:.3f}"
        beside = "; ".join(figures.format(name, *peer) for name, peer in peers.items())
        found.append(_unheard(chain, opened, place, texts))
        found.append(("peer.piper-like", kokoro_rtf / rtf, "times faster", 5, "higher", beside))
    return found


def _recorded(folder: Path, name: str, n: int) -> tuple[list[str], list[Tensor]]:
    corpus = score.held_out(folder, "test", name)
    n = min(n, len(corpus))
    return list(corpus.rows["spoken"])[:n], [torch.as_tensor(corpus.wave(i)) for i in range(n)]


def _said(chain: Chain, language: str, texts: Sequence[str]) -> list[Tensor]:
    """Texts in the voice of the language's reader."""
    voice = chain.named_timbre(chain.usual_voice(language)).expand(len(texts), -1)
    return [speech.wave for speech in chain.say(texts, language, voice, seeds=range(len(texts)))]


def _by_kokoro(place: str, texts: Sequence[str]) -> tuple[list[Tensor], float]:
    """The peer's sounds of texts, and its real-time factor."""
    voice, kind, engine = voice_pool("synthetic", 1)[0], of_kind("synthetic"), f"kokoro:{place}"
    sounds = [torch.as_tensor(speak(text, "sw", voice, kind, 0, engine)) for text in texts]
    return sounds, _rtf(lambda text: speak(text, "sw", voice, kind, 0, engine), texts[:8])


def _rtf(say: Callable[[str], Sequence[float] | Tensor], texts: Sequence[str]) -> float:
    taken = []
    for text in texts:
        started = time.perf_counter()
        seconds = len(say(text)) / SAMPLE_RATE
        taken.append((time.perf_counter() - started) / seconds)
    return statistics.median(taken)


def _heard(opened: instruments.Opened, texts: Sequence[str], sounds: Sounds) -> tuple[float, float]:
    """Mean Whisper CER and mean DNSMOS."""
    asked = {name: opened[name] for name in ("whisper", "dnsmos")}
    found = [
        instruments.figures(asked, wave.numpy(), text, language="sw")
        for text, wave in zip(texts, sounds, strict=True)
    ]
    words = statistics.mean(min(1.0, row["whisper_cer"]) for row in found)
    return words, statistics.mean(row["dnsmos"] for row in found)


def _judged(chain: Chain, texts: Sequence[str], sounds: Sounds, language: str = "sw") -> dict[str, float]:
    timbres = torch.stack([chain.timbre(wave) for wave in sounds])
    return score.corpus_rates(score.score_sounds(chain, "", language, texts, sounds, timbres))


def _judge(chain: Chain, recorded: dict[str, tuple[list[str], list[Tensor]]]) -> list[Row]:
    """The judge that scores, on people: a reader it never heard, and other sittings of its own."""
    unheard, own = (100 * _judged(chain, *recorded[name])["cer"] for name in ("sw", "habari"))
    return [
        ("human.judge.b", unheard, "%", 15, "lower", "CER on recordings of joshua, whom it never heard"),
        ("human.judge.b.own", own, "%", 10, "lower", "CER on a sitting of habari that it never heard"),
    ]


def _melody(recordings: Sounds, again: Sounds) -> list[Row]:
    """F0 of speech said from a recording's tokens against the recording's."""
    correlations, spreads = [], []
    for recording, copy in zip(recordings, again, strict=True):
        f0, reference = (features.extract(wave)[1].numpy() for wave in (copy, recording))
        frames = np.arange(min(len(f0), len(reference)))
        correlations.append(metrics.f0_correlation(f0, reference, np.stack((frames, frames), axis=1)))
        spreads.append(metrics.f0_spread(f0) / metrics.f0_spread(reference))
    how = "resynthesis against the recording, median of utterances"
    return [
        ("human.f0", statistics.median(correlations), "correlation", 0.85, "higher", how),
        ("human.f0.spread", statistics.median(spreads) - 1, "of the spread more", 0.2, "within", how),
    ]


def _cloning(
    chain: Chain, opened: instruments.Opened, recorded: dict[str, tuple[list[str], list[Tensor]]]
) -> Row:
    """Share of Swahili sentences in a reader's voice that both encoders find nearer to that reader."""
    texts, won, trials = recorded["sw"][0], [0, 0], 0
    for target in READERS:
        (_, given), others = recorded[target], [name for name in READERS if name != target]
        for i in range(min(8, len(given) - 1)):
            said = chain.say([texts[i]], "sw", chain.timbre(given[i])[None], seeds=[i])[0].wave
            foreign = recorded[others[i % 2]][1]
            trials += 1
            for k, nearer in enumerate(_nearer(chain, opened, said, given[i + 1], foreign[i % len(foreign)])):
                won[k] += nearer
    own, other = (f"{each / trials:.0%}" for each in won)
    how = f"{trials} trials, three readers, a recording each; own {own}, resemblyzer {other}"
    return "human.clone.sim", 100 * min(won) / trials, "%, the worse of both", 95, "higher", how


def _unheard(chain: Chain, opened: instruments.Opened, place: str, texts: Sequence[str]) -> Row:
    """The same of the natural synthesiser's voices, which no network of the chain has heard."""
    kind, engine = of_kind("synthetic"), f"kokoro:{place}"
    names = cast(Kokoro, engine_of(engine)).voices[:5]
    given = [
        [torch.as_tensor(speak(text, "sw", Voice(name, pitch=150.0), kind, 0, engine)) for text in texts[:2]]
        for name in names
    ]
    won = [0, 0]
    for i, (target, other) in enumerate(zip(given, [*given[1:], given[0]], strict=True)):
        said = chain.say([texts[2]], "sw", chain.timbre(target[0])[None], seeds=[i])[0].wave
        for k, nearer in enumerate(_nearer(chain, opened, said, target[1], other[1])):
            won[k] += nearer
    own, resembled = (f"{each / len(names):.0%}" for each in won)
    how = f"{len(names)} synthetic voices that no network heard; own {own}, resemblyzer {resembled}"
    return "human.clone.unheard", 100 * min(won) / len(names), "%, the worse of both", 95, "higher", how


def _nearer(
    chain: Chain, opened: instruments.Opened, said: Tensor, target: Tensor, other: Tensor
) -> tuple[bool, bool]:
    """Whether a sound is nearer to its target than to another voice: by our encoder, by resemblyzer."""
    ours = [metrics.similarity(chain.timbre(said)[:-1], chain.timbre(wave)[:-1]) for wave in (target, other)]
    theirs = [opened["sim"](said.numpy(), wave.numpy()) for wave in (target, other)]
    return ours[0] > ours[1], theirs[0] > theirs[1]


def _yoruba(chain: Chain, texts: Sequence[str], recordings: Sounds) -> Row:
    """Yoruba from text by judge B, letters without their tones; only reported."""
    said, spoken = (chain.hear(sounds, "b", "yo") for sounds in (_said(chain, "yo", texts), recordings))
    bare = [_without_tones(text) for text in texts]
    ours, theirs = (
        100 * metrics.corpus_cer(bare, [_without_tones(text) for text in heard], "yo")
        for heard in (said, spoken)
    )
    how = f"{len(texts)} test sentences from text; recordings {theirs:.1f}; reported, there is no bar"
    return "human.yo.cer", ours, "%", 100, "lower", how


def _cutting(chain: Chain, texts: Sequence[str], recordings: Sounds) -> Row:
    """Ten minutes of a reader joined as they are, and cut again by their text alone."""
    from silero_vad import get_speech_timestamps, load_silero_vad

    ends = np.cumsum([len(wave) for wave in recordings]) / SAMPLE_RATE
    n = int((ends <= 600).sum())
    vad, truth = load_silero_vad(onnx=True), []
    for wave, end in zip(recordings[:n], ends, strict=False):
        spoken = get_speech_timestamps(wave, vad, speech_pad_ms=0)
        start = end - len(wave) / SAMPLE_RATE
        truth.append([start + spoken[0]["start"] / SAMPLE_RATE, start + spoken[-1]["end"] / SAMPLE_RATE])
    judge = chain.judge("b", "sw")
    cuts = cut(torch.cat(list(recordings[:n])), texts[:n], judge, judge.config.alphabet, "sw")
    near = (np.abs(np.array([(each.start, each.end) for each in cuts]) - truth) <= 0.2).all(1)
    doubtful = np.array([each.confidence < DOUBTFUL for each in cuts])
    how = f"{n} utterances of habari's test sitting, judge B; ends by Silero; {doubtful.sum()} doubtful"
    return "align.long", 100 * near.mean(), "%, both ends within 0.2 s", 95, "higher", how


def _without_tones(text: str) -> str:
    letters = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(c for c in letters if c not in TONES))
