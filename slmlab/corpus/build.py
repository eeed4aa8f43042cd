"""From settings to a corpus on disk: sentences chosen, spoken, and their features taken, by several
processes.

The result depends on the settings alone, not on how many processes worked or which finished first. A corpus
is a folder with a ledger (`manifest.parquet`), features end to end (`features.safetensors`) and its settings
(`corpus.json`); it appears whole or not at all. Made speech need not be kept: the ledger says how to make it
again, and a checksum proves that it is the same.

Axis legend: f mel frames, m mel bins, s samples; F and S are those of all utterances end to end.
"""

import hashlib
import itertools
import json
import multiprocessing
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from slmlab.corpus import manifest
from slmlab.corpus.engines import LOUDNESS, engine_of, speak, trim
from slmlab.corpus.prosody import Prosody, Recording, of_kind, transcribe
from slmlab.corpus.voices import Voice, voice_pool
from slmlab.errors import LabError
from slmlab.language.sentences import from_file, sentences
from slmlab.sound import SAMPLE_RATE, audio, features
from slmlab.sound.audio import Wave

FORMAT = 1
"""Counts up when the same settings begin to give another corpus."""
CHUNK = 8
"""Utterances that a process takes at a time."""
AHEAD = 32
"""Chunks that may be spoken or waiting before their turn."""
WORTH_HELP = 240.0
"""Seconds of speech below which starting other processes takes longer than the work."""
USUAL_SECONDS = 2.5
"""Length of a short utterance, for estimates."""
FEATURES, MANIFEST, SETTINGS = "features.safetensors", "manifest.parquet", "corpus.json"


@dataclass(frozen=True)
class CorpusSpec:
    """What a corpus is made of."""

    name: str
    """Its name, and the beginning of its utterances' ids."""
    language: str
    """Code of the language."""
    kind: str = "lively"
    """How it is spoken: `synthetic`, `lively` or `authentic`."""
    pool: str = "parts"
    """Whose voices: a pool's name."""
    n_voices: int = 60
    """How many of the pool's voices; each speaks equally often."""
    split: str = "parts"
    """Which sentences; ignored with `lines`."""
    minutes: float | None = None
    """Speech wanted: sentences are added until it is reached. Either this or `n`."""
    n: int | None = None
    """Utterances wanted."""
    keep_wave: bool = False
    """Store the samples too; without them speech is made again when it is asked for."""
    seed: int = 0
    """Decides everything left to chance."""
    prosody: Prosody | None = None
    """Settings of its own in place of those of `kind`."""
    engine: str = "espeak-ng"
    """What speaks: `espeak-ng`, or `mms:FOLDER`."""
    lines: str | None = None
    """A UTF-8 text file of one sentence a line, to be read in place of the split's sentences."""

    def performance(self) -> Prosody:
        """The prosody in force."""
        return self.prosody or of_kind(self.kind)

    def digest(self) -> str:
        """A hash of everything that the result depends on."""
        content = asdict(self) | {"prosody": asdict(self.performance()), "format": FORMAT}
        if self.lines is not None:
            content["lines"] = hashlib.sha256(Path(self.lines).read_bytes()).hexdigest()
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Utterance:
    """One task: who says what, how."""

    id: str
    """Its name in the ledger."""
    text: str
    """The transcript."""
    spoken: str
    """What is said."""
    language: str
    """Code of the language."""
    voice: Voice
    """Who says it."""
    prosody: Prosody
    """How."""
    seed: int
    """Chance."""
    engine: str
    """With what engine, as `engine_of` knows it."""


@dataclass(frozen=True)
class Sound:
    """One utterance's samples and features."""

    wave: NDArray[np.int16]
    """(s) at 16 kHz."""
    mel: NDArray[np.float16]
    """(f m)"""
    f0: NDArray[np.float32]
    """(f) Hz, 0 where unvoiced."""
    energy: NDArray[np.float32]
    """(f) dB."""
    engine: str
    """Product and version that spoke."""

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.wave) / SAMPLE_RATE

    @property
    def sha256(self) -> str:
        """Checksum of the samples."""
        return checksum(self.wave)


@dataclass(frozen=True)
class Corpus:
    """A corpus in memory: its ledger and its features."""

    folder: Path
    """Where it lies."""
    rows: pd.DataFrame
    """The ledger; row i is utterance i."""
    tensors: dict[str, Tensor]
    """mel (F m) float16, f0 (F), energy (F), offsets (N+1); wave (S) int16 and wave_offsets (N+1) if kept."""

    @staticmethod
    def load(folder: str | Path) -> "Corpus":
        """A corpus from its folder; LabError says what is missing or does not fit together."""
        folder = Path(folder)
        rows = manifest.read(folder / MANIFEST)
        try:
            tensors = load_file(folder / FEATURES)
        except (OSError, SafetensorError) as error:
            raise LabError(f"{folder / FEATURES} cannot be read ({error}): build it again.") from error
        if len(tensors["offsets"]) != len(rows) + 1:
            raise LabError(
                f"{folder}: {FEATURES} holds {len(tensors['offsets']) - 1} utterances, {MANIFEST} "
                f"{len(rows)}: "
                "build the corpus again."
            )
        return Corpus(folder, rows, tensors)

    def __len__(self) -> int:
        """Number of utterances."""
        return len(self.rows)

    @property
    def hours(self) -> float:
        """Speech in all, hours."""
        return float(self.rows["seconds"].sum()) / 3600

    def frames(self) -> list[int]:
        """Mel frames of each utterance."""
        return self.tensors["offsets"].diff().tolist()

    def mel(self, i: int) -> Tensor:
        """Log-mel of utterance i: (f m) float32."""
        return self._slice("mel", i).float()

    def f0(self, i: int) -> Tensor:
        """F0 of utterance i: (f) in Hz, 0 where unvoiced."""
        return self._slice("f0", i)

    def energy(self, i: int) -> Tensor:
        """Energy of utterance i: (f) in dB."""
        return self._slice("energy", i)

    def wave(self, i: int) -> Wave:
        """Sound of utterance i: (s) at 16 kHz, stored, read from its recording, or made again and checked."""
        if "wave" in self.tensors:
            samples = self._slice("wave", i, "wave_offsets").numpy()
        else:
            samples = _again(self.rows.iloc[i], self.folder)
        return _floats(samples)

    def _slice(self, name: str, i: int, offsets: str = "offsets") -> Tensor:
        i = range(len(self))[i]
        start, end = self.tensors[offsets][i : i + 2].tolist()
        return self.tensors[name][start:end]


def build(spec: CorpusSpec, folder: str | Path, workers: int = 2) -> Corpus:
    """Make a corpus, or load it when the folder holds one of the same settings.

    Args:
        spec: what is wanted.
        folder: where; a corpus of other settings there is replaced once the new one is whole.
        workers: processes that speak, this one included.
    """
    if workers < 1:
        raise LabError(f"Corpus '{spec.name}': {workers} processes cannot work, give 1 or more.")
    folder = Path(folder)
    if _is_built(spec, folder):
        return Corpus.load(folder)
    if (spec.minutes is None) == (spec.n is None):
        raise LabError(f"Corpus '{spec.name}': give either minutes or n, found {spec.minutes} and {spec.n}.")
    rows: list[dict[str, Any]] = []
    sounds: list[Sound] = []
    wanted, unit = (60 * spec.minutes, "s") if spec.minutes is not None else (float(spec.n or 0), "utterance")
    seconds = wanted if unit == "s" else wanted * USUAL_SECONDS
    utterances = itertools.islice(_utterances(spec), spec.n)
    with tqdm(total=round(wanted), desc=spec.name, unit=unit) as bar, _helpers(workers, seconds) as helpers:
        done = 0.0
        for utterance, sound in _spoken(utterances, helpers, 2 * (workers - 1)):
            rows.append(_row(spec, utterance, sound))
            sounds.append(sound)
            done += sound.seconds if unit == "s" else 1
            bar.update(round(min(done, wanted)) - bar.n)
            if done >= wanted:
                break
    settings = {"digest": spec.digest(), "spec": asdict(spec)}
    save(folder, manifest.table(rows), sounds, spec.keep_wave, settings)
    return Corpus.load(folder)


def save(
    folder: Path, rows: pd.DataFrame, sounds: Sequence[Sound], keep_wave: bool, settings: dict[str, Any]
) -> None:
    """Write a corpus's folder, whole or not at all; replaces a corpus, but no folder of another kind."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / SETTINGS).is_file():
        raise LabError(f"{folder} holds files that are no corpus: choose another folder, or empty it.")
    tensors = {
        "mel": torch.from_numpy(np.concatenate([s.mel for s in sounds])),
        "f0": torch.from_numpy(np.concatenate([s.f0 for s in sounds])),
        "energy": torch.from_numpy(np.concatenate([s.energy for s in sounds])),
        "offsets": _offsets([len(s.f0) for s in sounds]),
    }
    if keep_wave:
        tensors["wave"] = torch.from_numpy(np.concatenate([s.wave for s in sounds]))
        tensors["wave_offsets"] = _offsets([len(s.wave) for s in sounds])
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        save_file(tensors, partial / FEATURES)
        manifest.write(rows, partial / MANIFEST)
        (partial / SETTINGS).write_text(json.dumps(settings, indent=1, ensure_ascii=False), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    except (OSError, SafetensorError) as error:
        raise LabError(
            f"{folder} could not be written ({error}): free some space or choose another."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sound_of(wave: Wave, engine: str) -> Sound:
    """Samples as they are stored, and the features of these: what is made again tomorrow has the same."""
    samples = audio.to_pcm(wave)
    mel, f0, energy = features.extract(_floats(samples))
    return Sound(samples, mel.half().numpy(), f0.float().numpy(), energy.float().numpy(), engine)


def recorded_wave(path: str | Path, max_seconds: float | None = None) -> Wave:
    """A person's recording (s) as made speech is: 16 kHz, trimmed, at the same level."""
    wave, _ = audio.read(path, max_seconds)
    return audio.with_loudness(trim(wave), LOUDNESS)


def checksum(samples: NDArray[np.int16]) -> str:
    """sha256 of 16-bit samples."""
    return hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest()


def _is_built(spec: CorpusSpec, folder: Path) -> bool:
    try:
        return bool(json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["digest"] == spec.digest())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _utterances(spec: CorpusSpec) -> Iterator[Utterance]:
    """The corpus's utterances in order, without end where the text has none."""
    prosody, voices = spec.performance(), voice_pool(spec.pool, spec.n_voices)
    texts: list[str] = []
    for i, text in enumerate(_texts(spec)):
        if i % len(voices) == 0:
            turn = _seed(spec, i, "voices")
            order = np.random.default_rng(turn).permutation(len(voices))
        texts.append(text)
        seed = _seed(spec, i, "utterance")
        yield Utterance(
            id=f"{spec.name}-{i:06d}",
            text=transcribe(text, texts[-9:-1], prosody.recording, seed),
            spoken=text,
            language=spec.language,
            voice=voices[order[i % len(voices)]],
            prosody=prosody,
            seed=seed,
            engine=spec.engine,
        )


def _texts(spec: CorpusSpec) -> Iterator[str]:
    """Sentences in order. The first n sentences of a split are also the first n of any larger number."""
    if spec.lines is not None:
        lines = from_file(spec.lines)
        if spec.n is not None and spec.n > len(lines):
            raise LabError(
                f"{spec.lines} has {len(lines)} sentences, {spec.n} were asked for: ask for fewer."
            )
        yield from lines
        if spec.minutes is not None:
            raise LabError(f"{spec.lines} holds less than {spec.minutes:g} minutes of speech: ask for less.")
        return
    given, size = 0, spec.n or round(60 * (spec.minutes or 0) / USUAL_SECONDS) + 1
    while True:
        yield from sentences(spec.language, spec.split, size, spec.seed)[given:]
        given, size = size, size + size // 2 + CHUNK


def _seed(spec: CorpusSpec, i: int, purpose: str) -> int:
    """A seed of its own for every utterance, split, pool and language."""
    name = f"{spec.seed} {spec.language} {spec.split} {spec.pool} {purpose} {i}"
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") >> 1


@contextmanager
def _helpers(workers: int, seconds: float) -> Iterator[ProcessPoolExecutor | None]:
    """The other processes, if they are wanted and the work is worth their start."""
    if workers == 1 or seconds < WORTH_HELP:
        yield None
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(workers - 1, mp_context=context)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise LabError(
            "A process that spoke ended, perhaps killed for want of memory: free some, or use one worker. A "
            'program that calls the lab must be a file, with what it does under `if __name__ == "__main__":`.'
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _speak_chunk(chunk: list[Utterance]) -> list[Sound]:
    """Speak on one thread: processes share the cores, and sums come out the same everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [sound_of(*_say(u)) for u in chunk]
    finally:
        torch.set_num_threads(threads)


def _say(u: Utterance) -> tuple[Wave, str]:
    engine = engine_of(u.engine)
    try:
        return speak(u.spoken, u.language, u.voice, u.prosody, u.seed, engine), engine.name
    except LabError as error:
        raise LabError(f"Utterance {u.id}: {error}") from error


def _spoken(
    utterances: Iterator[Utterance], helpers: ProcessPoolExecutor | None, in_hand: int
) -> Iterator[tuple[Utterance, Sound]]:
    """Utterances with their sounds, in order.

    Helpers speak ahead, with up to `in_hand` chunks. This process never waits for them: it speaks the next
    chunk, and when it is too far ahead, or there is none left, the one that is due, which comes out the same
    from everybody.
    """
    waiting: deque[tuple[list[Utterance], Future[list[Sound]]]] = deque()
    chunks = iter(lambda: list(itertools.islice(utterances, CHUNK)), [])
    while True:
        while helpers and sum(not f.done() for _, f in waiting) < in_hand and (chunk := next(chunks, [])):
            waiting.append((chunk, helpers.submit(_speak_chunk, chunk)))
        if waiting and waiting[0][1].done():
            due, future = waiting.popleft()
            yield from zip(due, future.result(), strict=True)
        elif len(waiting) < AHEAD and (chunk := next(chunks, [])):
            own: Future[list[Sound]] = Future()
            own.set_result(_speak_chunk(chunk))
            waiting.append((chunk, own))
        elif waiting:
            due, _ = waiting.popleft()
            yield from zip(due, _speak_chunk(due), strict=True)
        else:
            return


def _row(spec: CorpusSpec, u: Utterance, sound: Sound) -> dict[str, Any]:
    params = {"engine": u.engine, "voice": asdict(u.voice), "prosody": asdict(u.prosody)}
    return {
        "id": u.id,
        "language": u.language,
        "split": "lines" if spec.lines else spec.split,
        "kind": spec.kind,
        "source": manifest.MADE,
        "engine": sound.engine,
        "voice": u.voice.id,
        "seed": u.seed,
        "params": json.dumps(params),
        "text": u.text,
        "spoken": u.spoken,
        "seconds": sound.seconds,
        "sha256": sound.sha256,
        "file": "",
        "consent": "",
    }


def _again(row: pd.Series, folder: Path) -> NDArray[np.int16]:
    """The samples of a ledger's row: its recording read again, or its speech made again."""
    if row["file"]:
        if not Path(row["file"]).is_file():
            raise LabError(
                f"{folder / MANIFEST}, row '{row['id']}': its recording {row['file']} is gone; put it back."
            )
        wave = recorded_wave(row["file"])
    else:
        wave, _ = _say(_utterance_of(row))
    samples = audio.to_pcm(wave)
    if checksum(samples) != row["sha256"]:
        raise LabError(
            f"{folder / MANIFEST}, row '{row['id']}': the sound differs from the one recorded in the ledger "
            f"({row['engine'] or row['file']}); build the corpus again."
        )
    return samples


def _utterance_of(row: pd.Series) -> Utterance:
    """The task that a ledger's row came from."""
    params = json.loads(row["params"])
    voice, prosody = params["voice"], params["prosody"]
    recording: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in prosody["recording"].items()
    }
    return Utterance(
        id=row["id"],
        text=row["text"],
        spoken=row["spoken"],
        language=row["language"],
        voice=Voice(**(voice | {"formants": tuple(voice["formants"])})),
        prosody=Prosody(**(prosody | {"recording": Recording(**recording)})),
        seed=int(row["seed"]),
        engine=params["engine"],
    )


def _floats(samples: NDArray[np.int16]) -> Wave:
    return samples.astype(np.float32) / np.float32(32767)


def _offsets(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int64)
