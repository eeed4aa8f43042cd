"""What is put before listeners: clips under opaque names and equally loud, pairs of them, and the rules.

A study is made once from a folder of systems (one subfolder of sounds each) or from a file of pairs, and is
then fixed: the question, the words of the scales and the rules of exclusion are stored before the first vote.
"""

import csv
import hashlib
import io
import itertools
import json
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyloudnorm
from scipy import signal

from slmlab.errors import LabError
from slmlab.sound import SAMPLE_RATE, audio
from slmlab.sound.audio import SOUNDS, Wave

REFERENCES = "references"
DISTORTED = "distorted"
REFERENCE_SECONDS = 3.0
MAX_SECONDS = 60.0
TARGET_LUFS = -23.0
QUIETEST_LUFS = -33.0
PEAK = 0.97
GAP = " · "  # between the parts of a pair's id

TASKS = ("pair", "nmos", "smos")
TAGS = ("words wrong", "melody", "speed", "noise", "another voice", "cut off")


@dataclass(frozen=True)
class Rules:
    """When a listener's votes do not count: stated before anybody votes, applied by `ranking.exclusions`."""

    gold_share: float = 0.8
    """At least this share of the gold trials must be right."""
    gold_least: int = 6
    """The share is judged from this many answered gold trials on."""
    side_p: float = 0.001
    """A listener who prefers one side so strongly that chance does it more rarely than this is out."""
    same_score: float = 0.95
    """A rater with one score in more than this share of main trials, whatever the systems, is out; judged
    from twice `gold_least` trials on."""
    unheard_share: float = 0.5
    """A listener who voted without hearing every clip in more than this share of trials is out."""


@dataclass(frozen=True)
class Clip:
    """One sound of the study."""

    name: str
    """Opaque: the file `clips/<name>.wav` tells nothing of who speaks."""
    system: str
    """Who made it."""
    sentence: str
    """Which sentence it says: the original file's name without its ending."""
    text: str
    """The words; empty if not known."""
    source: str
    """The original file, which stays as it was."""
    sha256: str
    """Of the original file."""
    served_sha256: str
    """Of the file played."""
    gain_db: float
    """What was added to the original for equal loudness."""
    seconds: float
    """Length."""
    seed: int = -1
    """What chance the system drew from, from the sidecar `<sentence>.json`; -1 if not known."""
    tokens: tuple[int, ...] = ()
    """Speech tokens of the sound, from the sidecar; empty if not known."""


@dataclass(frozen=True)
class Pair:
    """Two clips to be compared."""

    id: str
    """Unique in the study."""
    first: str
    """Name of a clip."""
    second: str
    """Name of the other."""
    answer: str = ""
    """Name of the clip that is right, in a gold pair; empty otherwise."""


@dataclass(frozen=True)
class Study:
    """All that listeners are asked, fixed before the first vote."""

    title: str
    """Shown on the page."""
    clips: tuple[Clip, ...]
    """Every sound, of the systems, references and distorted ones."""
    pairs: tuple[Pair, ...]
    """What is compared."""
    gold: tuple[Pair, ...]
    """Pairs whose right answer is known."""
    references: Mapping[str, str] = field(default_factory=dict)
    """Sentence → the clip of its voice that SMOS compares with."""
    question: str = "Which sounds more natural?"
    """Asked of each pair."""
    nmos: str = "How natural does this sound?"
    """Asked of each clip."""
    smos: str = "How alike are the two voices?"
    """Asked of a clip after its reference."""
    words: tuple[str, ...] = ("Bad", "Poor", "Fair", "Good", "Excellent")
    """Of the scores 1 to 5 (ITU-T P.800)."""
    instructions: str = (
        "Use headphones in a quiet place. Hear every clip to its end, then answer. There is no right answer, "
        "except where a clip is plainly broken. You may stop at any time: the page goes on where you left it."
    )
    """Read before the first trial."""
    tags: tuple[str, ...] = TAGS
    """Reasons that may be ticked."""
    n_main: int = 40
    """Trials that count, per session."""
    n_gold: int = 12
    """Gold trials among them."""
    n_repeats: int = 6
    """Trials shown again with sides swapped."""
    n_practice: int = 2
    """Trials before the first that counts."""
    overlap: int = 3
    """Listeners wanted for each pair."""
    seed: int = 0
    """Of every listener's order; each adds their own number."""
    rules: Rules = field(default_factory=Rules)
    """When votes do not count."""

    @cached_property
    def by_name(self) -> dict[str, Clip]:
        """Clips by name."""
        return {clip.name: clip for clip in self.clips}

    @property
    def systems(self) -> tuple[str, ...]:
        """Those compared, in order of name."""
        return tuple(sorted({c.system for c in self.clips} - {REFERENCES, DISTORTED}))

    def dumps(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)

    @staticmethod
    def loads(text: str) -> "Study":
        """From `dumps`."""
        found = json.loads(text)
        clips = tuple(Clip(**{**row, "tokens": tuple(row["tokens"])}) for row in found.pop("clips"))
        pairs, gold = (tuple(Pair(**row) for row in found.pop(name)) for name in ("pairs", "gold"))
        rules = Rules(**found.pop("rules"))
        words, tags = (tuple(found.pop(name)) for name in ("words", "tags"))
        return Study(clips=clips, pairs=pairs, gold=gold, rules=rules, words=words, tags=tags, **found)


@dataclass(frozen=True)
class Sound:
    """A sound file on its way into a study."""

    path: Path
    """The file."""
    system: str
    """Who made it."""
    sentence: str
    """Which sentence it says."""
    text: str = ""
    """The words."""


def from_systems(
    systems: str | Path | Sequence[str | Path], folder: str | Path, title: str = "", seed: int = 0
) -> Study:
    """A study of every pair of systems at every sentence that both of them say.

    Args:
        systems: a folder whose subfolders are the systems, or their folders. Sounds of the same name say the
            same sentence; `<name>.txt` beside one holds its words, `<name>.json` its `tokens` and `seed`.
            A subfolder `references` holds, per sentence, a recording of the voice to be met.
        folder: where the study goes: `clips/` is made in it.
        title: shown on the page; the folder's name if empty.
        seed: of the listeners' orders.

    Raises:
        LabError: fewer than two systems share a sentence, or a sound or what lies beside it cannot be read;
            nothing is left in the folder then.
    """
    folders = _system_folders(systems)
    sounds = [
        Sound(path, place.name, path.stem)
        for place in folders
        for path in sorted(place.iterdir())
        if path.suffix.lower() in SOUNDS
    ]
    by_sentence: dict[str, list[Sound]] = {}
    for sound in sounds:
        if sound.system != REFERENCES:
            by_sentence.setdefault(sound.sentence, []).append(sound)
    wanted = [
        (f"{sentence}{GAP}{one.system}{GAP}{other.system}", one, other, "")
        for sentence, said in sorted(by_sentence.items())
        for one, other in itertools.combinations(sorted(said, key=lambda s: s.system), 2)
    ]
    if not wanted:
        names = ", ".join(str(place) for place in folders) or str(systems)
        raise LabError(
            f"no sentence is said by two systems in {names}: expected one folder a system, with sounds of "
            f"the same names in each, such as a/001.wav and b/001.wav"
        )
    return _make(sounds, wanted, Path(folder), title, seed)


def from_pairs(path: str | Path, folder: str | Path, title: str = "", seed: int = 0) -> Study:
    """A study of the pairs in a CSV or TSV file.

    Its columns: `first` and `second` (sound files, relative to the file), `first_system`, `second_system`,
    and if wanted `sentence`, `text` and `answer` (`first` or `second`, for gold pairs).

    Raises:
        LabError: the file is no table in UTF-8, a line lacks something, or a sound or what lies beside it
            cannot be read; nothing is left in the folder then.
    """
    path = Path(path)
    lines = io.StringIO(_text(path), newline="")
    table = csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")
    try:
        rows = [(table.line_num, row) for row in table]
    except csv.Error as error:
        raise LabError(
            f"{path}, line {table.reader.line_num} cannot be read ({error}): expected one line a pair"
        ) from None
    sounds: dict[tuple[str, str], Sound] = {}
    wanted = []
    for i, row in rows:
        needed = ("first", "second", "first_system", "second_system")
        if missing := [name for name in needed if not row.get(name)]:
            raise LabError(
                f"{path}, line {i} lacks {', '.join(missing)}: expected columns {', '.join(needed)}"
            )
        answer = row.get("answer") or ""
        if answer not in ("", "first", "second"):
            raise LabError(f"{path}, line {i}: answer is '{answer}', expected first, second or nothing")
        sentence = row.get("sentence") or Path(row["first"]).stem
        two = [
            Sound(path.parent / row[side], row[f"{side}_system"], sentence, row.get("text") or "")
            for side in ("first", "second")
        ]
        one, other = (sounds.setdefault((s.system, str(s.path)), s) for s in two)
        wanted.append((f"{i - 1}{GAP}{sentence}{GAP}{one.system}{GAP}{other.system}", one, other, answer))
    if not wanted:
        raise LabError(f"{path} holds no pairs: expected a header line and one line a pair")
    return _make(list(sounds.values()), wanted, Path(folder), title or path.stem, seed)


def distort(wave: Wave, seed: int) -> Wave:
    """What nobody calls natural: a telephone's band in eight steps, under noise as loud as the speech."""
    rng = np.random.default_rng(seed)
    low, high = 300 / (SAMPLE_RATE / 2), 1200 / (SAMPLE_RATE / 2)
    narrow = signal.lfilter(*signal.butter(4, [low, high], "band"), wave)
    coarse = np.round(narrow / max(np.abs(narrow).max(), 1e-9) * 4) / 4
    noise = rng.standard_normal(len(wave)) * np.sqrt(np.mean(coarse**2) + 1e-6)
    return (0.3 * (coarse + noise)).astype(np.float32)


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder to build in, whose content moves into `folder` at the end; if the block fails, nothing stays.

    Raises:
        LabError: `folder` holds something of one of these names already.
    """
    fresh = not folder.exists()
    part = folder / f".making-{secrets.token_hex(4)}"  # inside: the same disk, and surely writable
    part.mkdir(parents=True)
    try:
        yield part
        made = sorted(part.iterdir())
        if taken := [one.name for one in made if (folder / one.name).exists()]:
            raise LabError(f"{folder} holds {', '.join(taken)} of another study: choose another folder")
        for one in made:
            one.rename(folder / one.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if fresh and not any(folder.iterdir()):
            folder.rmdir()


def lufs(wave: Wave) -> float:
    """Loudness (ITU-R BS.1770); the RMS level under 0.4 s, which the standard cannot measure."""
    if len(wave) < 0.4 * SAMPLE_RATE:
        return audio.loudness(wave)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = float(pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(np.asarray(wave, np.float64)))
    return level if np.isfinite(level) else audio.loudness(wave)


def _system_folders(systems: str | Path | Sequence[str | Path]) -> list[Path]:
    if isinstance(systems, str | Path):
        root = Path(systems)
        if not root.is_dir():
            raise LabError(f"{root} is no folder: give one whose subfolders are the systems")
        return sorted(place for place in root.iterdir() if place.is_dir() and not place.name.startswith("."))
    folders = [Path(place) for place in systems]
    for place in folders:
        if not place.is_dir():
            raise LabError(f"{place} is no folder: give the folder of one system's sounds")
    if len({place.name for place in folders}) < len(folders):
        raise LabError(f"two systems have one name ({', '.join(p.name for p in folders)}): rename a folder")
    return folders


def _make(
    sounds: list[Sound],
    wanted: list[tuple[str, Sound, Sound, str]],
    folder: Path,
    title: str,
    seed: int,
) -> Study:
    """Read, equalise and copy every sound; draw the gold pairs."""
    waves = [_read(sound) for sound in sounds]
    in_use = {id(sound) for _, one, other, _ in wanted for sound in (one, other)}
    base = [i for i, s in enumerate(sounds) if s.system == REFERENCES] or [
        i for i, s in enumerate(sounds) if id(s) in in_use
    ]
    given = [row for row in wanted if row[3]]
    n_gold = 0 if given else min(len(base), Study.n_gold + Study.n_practice)
    picked = np.random.default_rng([seed, 1]).permutation(base)[:n_gold]
    broken = [replace(sounds[i], system=DISTORTED) for i in picked]
    waves += [distort(waves[i], int(i)) for i in picked]
    with whole(folder) as part:
        clips = _worded(_equalise(sounds + broken, waves, part / "clips"))
    clip = {id(sound): made for sound, made in zip(sounds + broken, clips, strict=True)}

    def pair(row: tuple[str, Sound, Sound, str]) -> Pair:
        first, second = (clip[id(sound)].name for sound in row[1:3])
        return Pair(row[0], first, second, answer={"first": first, "second": second}.get(row[3], ""))

    gold = [pair(row) for row in given] or [
        Pair(f"gold{GAP}{n}", clip[id(sounds[i])].name, clip[id(bad)].name, clip[id(sounds[i])].name)
        for n, (i, bad) in enumerate(zip(picked, broken, strict=True))
    ]
    pairs = tuple(pair(row) for row in wanted if not row[3])
    references = {c.sentence: c.name for c in clips if c.system == REFERENCES}
    return Study(
        title or folder.name,
        tuple(clips),
        pairs,
        tuple(gold),
        references,
        n_main=min(40, len(pairs)),
        seed=seed,
    )


def _read(sound: Sound) -> Wave:
    wave, _ = audio.read(sound.path, MAX_SECONDS)
    return wave[: int(REFERENCE_SECONDS * SAMPLE_RATE)] if sound.system == REFERENCES else wave


def _equalise(sounds: Sequence[Sound], waves: Sequence[Wave], clips: Path) -> list[Clip]:
    """Write every wave at one loudness, the highest that none has to be clipped for."""
    levels = np.array([lufs(wave) for wave in waves])
    room = np.array([20 * np.log10(PEAK / max(float(np.abs(wave).max()), 1e-9)) for wave in waves])
    target = max(min(TARGET_LUFS, float((levels + room).min())), QUIETEST_LUFS)
    gains = np.minimum(target - levels, room)
    made = []
    for sound, wave, gain in zip(sounds, waves, gains, strict=True):
        name = secrets.token_hex(12)
        # No mark of generated speech in what is played: a file's comment would tell who speaks.
        audio.write(clips / f"{name}.wav", wave * np.float32(10 ** (gain / 20)), generated=False)
        made.append(_clip(sound, name, clips, float(gain), len(wave) / SAMPLE_RATE))
    return made


def _worded(clips: Sequence[Clip]) -> list[Clip]:
    """Clips without words take those of their sentence: a gold pair must not be told by missing words."""
    texts = {clip.sentence: clip.text for clip in clips if clip.text}
    return [replace(clip, text=clip.text or texts.get(clip.sentence, "")) for clip in clips]


def _clip(sound: Sound, name: str, clips: Path, gain: float, seconds: float) -> Clip:
    beside = sound.path.with_suffix(".txt")
    text = sound.text or (_text(beside).strip() if beside.is_file() else "")
    known = _sidecar(sound.path.with_suffix(".json")) if sound.system != DISTORTED else {}
    return Clip(
        name=name,
        system=sound.system,
        sentence=sound.sentence,
        text=text or str(known.get("text", "")),
        source=str(sound.path),
        sha256=sha256_of(sound.path),
        served_sha256=sha256_of(clips / f"{name}.wav"),
        gain_db=round(gain, 3),
        seconds=round(seconds, 3),
        seed=known.get("seed", -1),
        tokens=tuple(known.get("tokens", ())),
    )


def _sidecar(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    text = _text(path)
    try:
        found = json.loads(text)
    except ValueError as error:
        raise LabError(f"{path} is not JSON ({error}): expected an object with tokens, seed, text") from None
    if not isinstance(found, dict):
        raise LabError(f"{path} holds a {type(found).__name__}: expected an object with tokens, seed, text")
    seed, tokens = found.get("seed", -1), found.get("tokens", [])
    if not _is_whole(seed):
        raise LabError(f"{path}: the seed is {str(seed)[:40]!r}, expected a whole number")
    if not isinstance(tokens, list) or not all(map(_is_whole, tokens)):
        raise LabError(f"{path}: the tokens are {str(tokens)[:40]!r}, expected a list of whole numbers")
    return found


def _is_whole(value: Any) -> bool:
    """Whether JSON gave a whole number that a table's column can hold."""
    return type(value) is int and abs(value) < 2**63


def _text(path: Path) -> str:
    """What a file in UTF-8 says; LabError naming the line where it is something else."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LabError(f"{path} cannot be read ({error.strerror}): give another file") from None
    except UnicodeDecodeError as error:
        line, byte = error.object[: error.start].count(b"\n") + 1, error.object[error.start]
        raise LabError(f"{path}, line {line} is not UTF-8 (byte {byte:#04x}): save it as UTF-8") from None


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
