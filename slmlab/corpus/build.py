"""From settings to a corpus on disk: processes speak sentences and take the features of the sound.

The result depends on the settings alone, not on how many processes worked or which finished first. A corpus
is a folder with a manifest (`manifest.parquet`), features end to end (`features.safetensors`) and settings
(`corpus.json`); it appears whole or not at all. Synthetic speech need not be stored: the manifest says how to
make it again, and a checksum proves that it is the same.

Axis legend: f mel frames, m mel bins, s samples; F and S are those of all utterances end to end.
"""

import hashlib
import itertools
import json
import multiprocessing
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
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

from slmlab import places
from slmlab.corpus import manifest
from slmlab.corpus.engines import LOUDNESS, engine_of, speak, trim
from slmlab.corpus.prosody import Prosody, of_kind, transcribe
from slmlab.corpus.voices import Voice, voice_pool
from slmlab.errors import LabError
from slmlab.files import digest, from_plain, read_json, write_json, writing
from slmlab.language.sentences import from_file, sentences, stream
from slmlab.sound import SAMPLE_RATE, audio, features
from slmlab.sound.audio import Wave

Row = dict[str, Any]
"""A row of the manifest."""
Sound = dict[str, NDArray[Any]]
"""One utterance: wave (s) int16 at 16 kHz, mel (f m) float16, f0 (f) Hz, 0 where unvoiced, energy (f) dB."""
FORMAT = 1
"""Counts up when the same settings begin to give another corpus."""
CHUNK = 4
"""Utterances that a process takes at a time."""
AHEAD = 256
"""Utterances that several processes speak before the next are chosen."""
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
    """What speaks: `espeak-ng`, `mms:FOLDER` or `kokoro:FOLDER`, as `engine_of` knows it."""
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
        return digest(content)


@dataclass(frozen=True)
class Corpus:
    """A corpus in memory: its manifest, whose row i is utterance i, and its features.

    mel (F m) float16, f0 (F), energy (F), offsets (N+1); wave (S) int16 and wave_offsets (N+1) if kept.
    """

    folder: Path
    rows: pd.DataFrame
    tensors: dict[str, Tensor]

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
                f"{len(rows)}: build the corpus again."
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
            return audio.from_pcm(self._slice("wave", i, "wave_offsets").numpy())
        return _again(self.rows.iloc[i], self.folder)

    def _slice(self, name: str, i: int, offsets: str = "offsets") -> Tensor:
        i = range(len(self))[i]
        start, end = self.tensors[offsets][i : i + 2].tolist()
        return self.tensors[name][start:end]


def build(spec: CorpusSpec, folder: str | Path, workers: int = 2) -> Corpus:
    """Make a corpus, or load it when the folder holds one of the same settings.

    A corpus of other settings is replaced once the new one is whole. `workers` are processes that speak.
    """
    if workers < 1:
        raise LabError(f"Corpus '{spec.name}': {workers} processes cannot work, give 1 or more.")
    folder = Path(folder)
    with suppress(LabError, KeyError, TypeError):  # none yet, another one, or a damaged one
        if read_json(folder / SETTINGS)["digest"] == spec.digest():
            return Corpus.load(folder)
    if (spec.minutes is None) == (spec.n is None):
        raise LabError(f"Corpus '{spec.name}': give either minutes or n, found {spec.minutes} and {spec.n}.")
    wanted, unit = (60 * spec.minutes, "s") if spec.minutes is not None else (spec.n or 0, "utterance")
    if (wanted if unit == "s" else wanted * USUAL_SECONDS) < WORTH_HELP:
        workers = 1
    rows: list[Row] = []
    sounds: list[Sound] = []
    done: float = 0
    with (
        tqdm(total=wanted, desc=spec.name, unit=unit, unit_scale=unit == "s") as bar,
        closing(_spoken(itertools.islice(_rows(spec), spec.n), workers)) as spoken,
    ):
        for row, sound in spoken:
            rows.append(row)
            sounds.append(sound)
            done += len(sound["wave"]) / SAMPLE_RATE if unit == "s" else 1
            bar.update(min(done, wanted) - bar.n)
            if done >= wanted:
                break
    if done < wanted:
        source = spec.lines or f"{spec.language}, split '{spec.split}',"
        raise LabError(f"{source} holds {done:.0f} s of speech, expected {wanted:.0f} s: ask for less.")
    return save(folder, rows, sounds, spec.keep_wave, {"digest": spec.digest(), "spec": asdict(spec)})


def save(
    folder: Path, rows: Sequence[Row], sounds: Sequence[Sound], keep_wave: bool, settings: dict[str, Any]
) -> Corpus:
    """Write a corpus's folder, whole or not at all; replaces a corpus, but no folder of another kind.

    The rows' `seconds` and `sha256` come from the sounds.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / SETTINGS).is_file():
        raise LabError(f"{folder} holds files that are no corpus: choose another folder, or empty it.")
    waves = [sound["wave"] for sound in sounds]
    known = [{"seconds": len(wave) / SAMPLE_RATE, "sha256": checksum(wave)} for wave in waves]
    table = manifest.table([row | of_wave for row, of_wave in zip(rows, known, strict=True)])
    names = ("mel", "f0", "energy", "wave") if keep_wave else ("mel", "f0", "energy")
    tensors = {n: torch.from_numpy(np.concatenate([s[n] for s in sounds])) for n in names}
    tensors["offsets"] = _offsets([s["f0"] for s in sounds])
    if keep_wave:
        tensors["wave_offsets"] = _offsets(waves)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            part = Path(scratch) / folder.name
            part.mkdir()
            save_file(tensors, part / FEATURES)
            manifest.write(table, part / MANIFEST)
            write_json(part / SETTINGS, settings)
            if folder.exists():
                shutil.rmtree(folder)
            part.rename(folder)
    return Corpus.load(folder)


def sound_of(wave: Wave) -> Sound:
    """Samples as they are stored, and the features of these: what is made again tomorrow has the same."""
    samples = audio.to_pcm(wave)
    mel, f0, energy = features.extract(audio.from_pcm(samples))
    tensors = {"mel": mel.half(), "f0": f0.float(), "energy": energy.float()}
    return {"wave": samples} | {name: tensor.numpy() for name, tensor in tensors.items()}


def recorded_wave(wave: Wave) -> Wave:
    """A person's recording (s) at 16 kHz as made speech is: trimmed, at the same level."""
    return audio.with_loudness(trim(wave), LOUDNESS)


def checksum(samples: NDArray[np.int16]) -> str:
    """sha256 of 16-bit samples."""
    return hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest()


def _rows(spec: CorpusSpec) -> Iterator[Row]:
    """Rows of the manifest in order, each with all that is needed to speak it; as many as the text has."""
    prosody, voices = spec.performance(), voice_pool(spec.pool, spec.n_voices)
    shared = {
        "language": spec.language,
        "split": "lines" if spec.lines else spec.split,
        "kind": spec.kind,
        "source": manifest.MADE,
        "engine": engine_of(spec.engine).name,
        "file": "",
        "consent": "",
    }
    texts: list[str] = []
    for i, text in enumerate(_texts(spec)):
        if i % len(voices) == 0:
            order = np.random.default_rng(_seed(spec, i, "voices")).permutation(len(voices))
        texts.append(text)
        voice, seed = voices[order[i % len(voices)]], _seed(spec, i, "utterance")
        params = {"engine": spec.engine, "voice": asdict(voice), "prosody": asdict(prosody)}
        yield shared | {
            "id": f"{spec.name}-{i:06d}",
            "voice": voice.id,
            "seed": seed,
            "params": json.dumps(params),
            "text": transcribe(text, texts[-9:-1], prosody.recording, seed),
            "spoken": text,
        }


def _texts(spec: CorpusSpec) -> Iterator[str]:
    """Sentences in order. The first n sentences of a split are also the first n of any larger number."""
    if spec.lines is None and spec.n is None:
        return stream(spec.language, spec.split, spec.seed)
    if spec.lines is None:
        return iter(sentences(spec.language, spec.split, spec.n or 0, spec.seed))
    lines = from_file(spec.lines, spec.language)
    if (spec.n or 0) > len(lines):
        raise LabError(f"{spec.lines} has {len(lines)} sentences, {spec.n} were asked for: ask for fewer.")
    return iter(lines)


def _seed(spec: CorpusSpec, i: int, purpose: str) -> int:
    """A seed of its own for every utterance, split, pool and language."""
    name = f"{spec.seed} {spec.language} {spec.split} {spec.pool} {purpose} {i}"
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") >> 1


def _spoken(rows: Iterator[Row], workers: int) -> Generator[tuple[Row, Sound]]:
    """Rows with their sounds, in order; this process speaks until the others, if any, have started."""
    if workers == 1:
        yield from ((row, _sound(row)) for row in rows)
        return
    context: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload([__name__])  # each starts from a process that has loaded torch
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        with places.without_program():
            started = [pool.submit(torch.get_num_threads) for _ in range(workers)]
        for row in rows:
            yield row, _sound(row)
            if all(answer.done() for answer in started):
                break
        while ahead := list(itertools.islice(rows, AHEAD)):
            with places.without_program():
                sounds = pool.map(_sound, ahead, chunksize=CHUNK)
            yield from zip(ahead, sounds, strict=True)
    except BrokenProcessPool as error:
        raise LabError(
            "A process that spoke ended, perhaps killed for want of memory: free some, or use one worker."
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _sound(row: Row) -> Sound:
    """Speak on one thread: processes share the cores, and sums come out the same everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return sound_of(_wave(row))
    finally:
        torch.set_num_threads(threads)


def _wave(row: Row) -> Wave:
    """The speech (s) that a row of the manifest asks for."""
    params, name = json.loads(row["params"]), f"Utterance {row['id']}"
    voice, prosody = from_plain(Voice, params["voice"], name), from_plain(Prosody, params["prosody"], name)
    try:
        return speak(row["spoken"], row["language"], voice, prosody, int(row["seed"]), params["engine"])
    except LabError as error:
        raise LabError(f"{name}: {error}") from error


def _again(row: Row, folder: Path) -> Wave:
    """The sound (s) of a manifest's row: its recording read again, or its speech made again; checked."""
    name = f"{folder / MANIFEST}, row '{row['id']}'"
    if row["file"] and not Path(row["file"]).is_file():
        raise LabError(f"{name}: its recording {row['file']} is gone; put it back.")
    samples = audio.to_pcm(recorded_wave(audio.read(row["file"])[0]) if row["file"] else _wave(row))
    if checksum(samples) != row["sha256"]:
        raise LabError(
            f"{name}: the sound differs from the one recorded in the manifest "
            f"({row['engine'] or row['file']}); build the corpus again."
        )
    return audio.from_pcm(samples)


def _offsets(items: Sequence[NDArray[Any]]) -> Tensor:
    """Where each of the arrays begins when they lie end to end, and where the last ends."""
    return torch.tensor([0, *np.cumsum([len(item) for item in items])], dtype=torch.int64)
