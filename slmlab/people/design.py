"""What is put before listeners: clips under opaque names and equally loud, pairs of them, and the rules.

A listening test is made once from a folder of systems (one subfolder of sounds each) or from a file of pairs,
and is then fixed: the question, the words of the scales and the rules are stored before the first vote.
"""

import itertools
import reprlib
import secrets
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyloudnorm
from pydantic import Field, Json, TypeAdapter, ValidationError
from scipy import signal

from slmlab.corpus import tables
from slmlab.errors import LabError
from slmlab.files import sha256_of
from slmlab.language.texts import read_text
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

LEFT, RIGHT, TIE, BOTH_BAD, SKIP = "A", "B", "tie", "both_bad", "skip"
SCORES = ("1", "2", "3", "4", "5")
ANSWERS = {
    "pair": (LEFT, RIGHT, TIE, BOTH_BAD, SKIP),
    "nmos": (*SCORES, SKIP),
    "smos": (*SCORES, SKIP),
}
"""What may be answered in each task."""
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Token = Annotated[int, Field(ge=0, lt=2**31)]
"""Whole numbers that the columns of a table can hold."""
TAGS = ("words wrong", "melody", "speed", "noise", "another voice", "cut off")


@dataclass(frozen=True)
class Rules:
    """When a listener's votes do not count: stated before anybody votes, applied by `ranking.exclusions`."""

    gold_share: float = 0.8
    """At least this share of the gold trials must be right."""
    gold_least: Count = 6
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
    """One sound of the test: who made it, which sentence it says (the original file's name without its
    ending), and the words if they are known.

    `clips/<name>.wav` tells nothing of who speaks: it is the original, `source`, with a gain for equal
    loudness. The seed that the system drew from and the speech tokens are of the sidecar `<sentence>.json`;
    -1 and none if it is not there.
    """

    name: str
    system: str
    sentence: str
    text: str = ""
    source: str = ""
    sha256: str = ""
    gain_db: float = 0.0
    seconds: float = 0.0
    seed: Whole = -1
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class ClipPair:
    """Two clips to be compared, by name, under an id of their own; in a gold pair one is the answer."""

    id: str
    first: str
    second: str
    answer: str = ""


@dataclass(frozen=True)
class ListeningTest:
    """All that listeners are asked, fixed before the first vote."""

    title: str
    """Shown on the page."""
    clips: tuple[Clip, ...]
    """Every sound, of the systems, references and distorted ones."""
    pairs: tuple[ClipPair, ...]
    """What is compared."""
    gold: tuple[ClipPair, ...]
    """Pairs whose right answer is known."""
    references: Mapping[str, str] = field(default_factory=dict)
    """Sentence → the clip of its voice that SMOS compares with."""
    question: str = "Which sounds more natural?"
    """Asked of each pair."""
    nmos: str = "How natural does this sound?"
    """Asked of each clip."""
    smos: str = "How alike are the two voices?"
    """Asked of a clip after its reference."""
    words: tuple[str, str, str, str, str] = ("Bad", "Poor", "Fair", "Good", "Excellent")
    """Of the scores 1 to 5 (ITU-T P.800)."""
    instructions: str = (
        "Use headphones in a quiet place. Hear every clip to its end, then answer. There is no right answer, "
        "except where a clip is plainly broken. You may stop at any time: the page goes on where you left it."
    )
    """Read before the first trial."""
    tags: tuple[str, ...] = TAGS
    """Reasons that may be ticked."""
    n_main: Count = 40
    """Trials that count, per session."""
    n_gold: Count = 12
    """Gold trials among them."""
    n_repeats: Count = 6
    """Trials shown again with sides swapped."""
    n_practice: Count = 2
    """Trials before the first that counts."""
    overlap: Count = 3
    """Listeners wanted for each pair."""
    seed: Count = 0
    """Of every listener's order; each adds their own number."""
    rules: Rules = field(default_factory=Rules)
    """When votes do not count."""

    def __post_init__(self) -> None:
        pairs = (*self.pairs, *self.gold)
        names = {*self.references.values(), *(name for pair in pairs for name in (pair.first, pair.second))}
        names |= {pair.answer for pair in self.gold}
        if unknown := names - self.by_name.keys():
            raise LabError(f"the listening test asks for clips that it lacks, such as {min(unknown)[:80]!r}")

    @cached_property
    def by_name(self) -> dict[str, Clip]:
        """Clips by name."""
        return {clip.name: clip for clip in self.clips}

    @property
    def questions(self) -> dict[str, str]:
        """What is asked in each task."""
        return {"pair": self.question, "nmos": self.nmos, "smos": self.smos}

    @property
    def systems(self) -> tuple[str, ...]:
        """Those compared, in order of name."""
        return tuple(sorted({c.system for c in self.clips} - {REFERENCES, DISTORTED}))


def from_systems(
    systems: str | Path | Sequence[str | Path], folder: str | Path, title: str = ""
) -> ListeningTest:
    """A test of every pair of systems at every sentence that both of them say.

    `systems` is a folder whose subfolders are the systems, or their folders. Sounds of the same name say the
    same sentence; `<name>.txt` beside one holds its words, `<name>.json` its `tokens` and `seed`. A subfolder
    `references` holds, per sentence, a recording of the voice to be met. `clips/` is made in `folder`, or
    nothing and a LabError: no two systems share a sentence, or something cannot be read.
    """
    folders = _system_folders(systems)
    clips = [
        _clip(path, place.name, path.stem)
        for place in folders
        for path in sorted(place.iterdir())
        if path.suffix.lower() in SOUNDS
    ]
    compared = sorted(
        (clip for clip in clips if clip.system != REFERENCES), key=lambda clip: (clip.sentence, clip.system)
    )
    pairs = [
        ClipPair(f"{sentence}{GAP}{one.system}{GAP}{other.system}", one.name, other.name)
        for sentence, versions in itertools.groupby(compared, key=lambda clip: clip.sentence)
        for one, other in itertools.combinations(versions, 2)
    ]
    if not pairs:
        names = ", ".join(str(place) for place in folders) or str(systems)
        raise LabError(
            f"no sentence is said by two systems in {names}: expected one folder a system, with sounds of "
            f"the same names in each, such as a/001.wav and b/001.wav"
        )
    return _make(clips, pairs, Path(folder), title or Path(folder).name)


def from_pairs(path: str | Path, folder: str | Path) -> ListeningTest:
    """A test of the pairs in a CSV or TSV file.

    Its columns: `first` and `second` (sound files, relative to the file), `first_system`, `second_system`,
    and if wanted `sentence`, `text` and `answer` (`first` or `second`, for gold pairs). What cannot be read
    is a LabError, and nothing is written.
    """
    path, needed = Path(path), ("first", "second", "first_system", "second_system")
    clips: dict[tuple[str, str], Clip] = {}
    pairs, faults = [], []
    known: dict[tuple[str, ...], str] = {}
    rows = tables.with_names(path, needed, "\t" if path.suffix == ".tsv" else ",", quoted=True)
    for i, (row, cells) in enumerate(rows, start=1):
        if fault := row.fault or _fault_of_row(row.place, cells, needed, known):
            faults.append(fault.rstrip("."))
            continue
        sentence = cells.get("sentence") or Path(cells["first"]).stem
        names = {"": ""}
        for side in ("first", "second"):
            key = cells[f"{side}_system"], cells[side]
            if key not in clips:
                clips[key] = _clip(path.parent / cells[side], key[0], sentence, cells.get("text", ""))
            names[side] = clips[key].name
        name = GAP.join((str(i), sentence, cells["first_system"], cells["second_system"]))
        pairs.append(ClipPair(name, names["first"], names["second"], names[cells.get("answer", "")]))
    if faults:
        raise LabError(f"nothing was made: {'; '.join(faults)}.")
    if not pairs:
        raise LabError(f"{path} holds no pairs: expected a header line and one line a pair")
    return _make(list(clips.values()), pairs, Path(folder), path.stem)


def _fault_of_row(
    place: str, cells: Mapping[str, str], needed: Sequence[str], known: dict[tuple[str, ...], str]
) -> str:
    """What is wrong with a row of pairs, or nothing; rows before it are known by what they compare."""
    if missing := [name for name in needed if not cells[name]]:
        return f"{place} lacks {', '.join(missing)}: expected columns {', '.join(needed)}"
    if (answer := cells.get("answer", "")) not in ("", "first", "second"):
        return f"{place}: answer is '{answer}', expected first, second or nothing"
    if cells["first"] == cells["second"]:
        return f"{place} compares {cells['first']} with itself"
    for side in ("first_system", "second_system"):
        if cells[side] in (REFERENCES, DISTORTED):
            return f"{place}: no system can be called '{cells[side]}', which the lab uses itself"
    pair = tuple(sorted((cells["first"], cells["second"])))
    before = known.setdefault(pair, place)
    return "" if before == place else f"{place} compares what {before} does already"


def distort(wave: Wave, seed: int) -> Wave:
    """What nobody calls natural: a telephone's band in eight steps, under noise as loud as the speech."""
    rng = np.random.default_rng(seed)
    low, high = 300 / (SAMPLE_RATE / 2), 1200 / (SAMPLE_RATE / 2)
    narrow = signal.lfilter(*signal.butter(4, [low, high], "band"), wave)
    coarse = np.round(narrow / max(np.abs(narrow).max(), 1e-9) * 4) / 4
    noise = rng.standard_normal(len(wave)) * np.sqrt(np.mean(coarse**2) + 1e-6)
    return (0.3 * (coarse + noise)).astype(np.float32)


def lufs(wave: Wave) -> float:
    """Loudness (ITU-R BS.1770); the RMS level under 0.4 s, which the standard cannot measure."""
    if len(wave) < 0.4 * SAMPLE_RATE:
        return audio.loudness(wave)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = float(pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(np.asarray(wave, np.float64)))
    return level if np.isfinite(level) else audio.loudness(wave)


def _system_folders(systems: str | Path | Sequence[str | Path]) -> list[Path]:
    """One folder a system; LabError for what a listening test cannot hold. What lies beside the sounds and is
    not used is told.
    """
    if isinstance(systems, str | Path):
        root = Path(systems)
        every = sorted(place for place in root.glob("[!.]*") if place.is_dir())
        folders = every if root.is_dir() else [root]
    else:
        folders = [Path(place) for place in systems]
    faults, names = [], Counter(place.name for place in folders)
    for place in folders:
        if not place.is_dir():
            raise LabError(f"{place} is no folder: give one whose subfolders are the systems, or theirs")
        if names[place.name] > 1:
            raise LabError(f"two systems have one name, {place.name}: rename {place}")
        if place.name == DISTORTED or GAP in place.name:
            faults.append(f"no system can be called '{place.name}', rename {place}")
        stems = Counter(path.stem for path in place.iterdir() if path.suffix.lower() in SOUNDS)
        faults += [f"{place} has {n} sounds called {stem}, keep one" for stem, n in stems.items() if n > 1]
        used = (*SOUNDS, ".txt", ".json")
        if others := sorted(path.name for path in place.iterdir() if path.suffix.lower() not in used):
            print(f"{place}: {len(others)} files are not used, the first {others[0]}")
    if faults:
        raise LabError(f"nothing was made: {'; '.join(faults)}.")
    return folders


def _make(clips: list[Clip], pairs: list[ClipPair], folder: Path, title: str) -> ListeningTest:
    """Read, equalise and copy every sound; ruin some for gold pairs unless gold pairs are given."""
    if (folder / "clips").exists():
        raise LabError(f"{folder} holds clips of another listening test: choose another folder")
    waves, faults = [], []
    for clip in clips:
        try:
            waves.append(audio.read(clip.source, MAX_SECONDS)[0])
        except LabError as error:
            faults.append(str(error).rstrip("."))
    if faults:
        raise LabError(f"nothing was made: {'; '.join(faults)}.")
    cut = int(REFERENCE_SECONDS * SAMPLE_RATE)
    waves = [w[:cut] if clip.system == REFERENCES else w for clip, w in zip(clips, waves, strict=True)]
    gold = [pair for pair in pairs if pair.answer]
    pairs = [pair for pair in pairs if not pair.answer]
    if not gold:
        people = [i for i, clip in enumerate(clips) if clip.system == REFERENCES]
        compared = {name for pair in pairs for name in (pair.first, pair.second)}
        base = people or [i for i, clip in enumerate(clips) if clip.name in compared]
        rng = np.random.default_rng([ListeningTest.seed, 1])
        sample = rng.permutation(base)[: ListeningTest.n_gold + ListeningTest.n_practice]
        for n, i in enumerate(sample):
            clean, ruin = clips[i], replace(clips[i], name=_opaque(), system=DISTORTED, seed=-1, tokens=())
            gold.append(ClipPair(f"gold{GAP}{n}", clean.name, ruin.name, answer=clean.name))
            waves.append(distort(waves[i], int(i)))
            clips = [*clips, ruin]
    clips = _equalise(clips, waves, folder / "clips")
    references = {clip.sentence: clip.name for clip in clips if clip.system == REFERENCES}
    n_main = min(ListeningTest.n_main, len(pairs))
    return ListeningTest(title, tuple(clips), tuple(pairs), tuple(gold), references, n_main=n_main)


def _clip(path: Path, system: str, sentence: str, text: str = "") -> Clip:
    """A sound as its system made it; words, tokens and seed are what lies beside it."""
    words, beside = path.with_suffix(".txt"), path.with_suffix(".json")
    told = valid(Json[Sidecar], read_text(beside), str(beside)) if beside.is_file() else Sidecar()
    text = text or (read_text(words).strip() if words.is_file() else "") or told.text
    return Clip(_opaque(), system, sentence, text, str(path), seed=told.seed, tokens=told.tokens)


def _opaque() -> str:
    return secrets.token_hex(12)


def _equalise(clips: Sequence[Clip], waves: Sequence[Wave], folder: Path) -> list[Clip]:
    """Write every wave at one loudness, the highest that none has to be clipped for.

    Clips without words take those of their sentence: a gold pair must not be told by missing words.
    """
    levels = np.array([lufs(wave) for wave in waves])
    room = np.array([20 * np.log10(PEAK / max(float(np.abs(wave).max()), 1e-9)) for wave in waves])
    target = max(min(TARGET_LUFS, float((levels + room).min())), QUIETEST_LUFS)
    gains = np.minimum(target - levels, room)
    texts = {clip.sentence: clip.text for clip in clips if clip.text}
    copies = []
    for clip, wave, gain in zip(clips, waves, gains, strict=True):
        file = folder / f"{clip.name}.wav"
        # No mark of generated speech in what is played: a file's comment would tell who speaks.
        audio.write(file, wave * np.float32(10 ** (gain / 20)), generated=False)
        copy = replace(
            clip,
            text=clip.text or texts.get(clip.sentence, ""),
            sha256=sha256_of(Path(clip.source)),
            gain_db=round(float(gain), 3),
            seconds=round(len(wave) / SAMPLE_RATE, 3),
        )
        copies.append(copy)
    return copies


@dataclass(frozen=True)
class Sidecar:
    """What a system tells of a sound in a JSON file beside it."""

    text: str = ""
    seed: Whole = Clip.seed
    tokens: tuple[Token, ...] = ()


def valid(kind: Any, value: Any, source: str) -> Any:
    """What a browser or a file claims as a dataclass, or another type; LabError says what is wrong."""
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f", {part}" for part in first["loc"])
        found, why = reprlib.repr(first["input"]), first["msg"].replace("Input should be", "expected")
        raise LabError(f"{source}{where} is {found}: {why}") from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
