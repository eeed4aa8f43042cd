"""People's recordings become a corpus: LJSpeech folders, Common Voice folders, and plain folders of sound and
text.

A broken file does not stop an import: it is skipped and listed with the reason, in the result and in
`corpus.json`. The recordings stay where they are; the manifest points to them and keeps under what terms they
may be used.
"""

import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from slmlab.corpus import manifest
from slmlab.corpus.build import MANIFEST, Corpus, Sound, recorded_wave, save, sound_of
from slmlab.errors import LabError
from slmlab.files import fraction
from slmlab.language import languages
from slmlab.language.text import alphabet_of
from slmlab.sound.audio import SOUNDS, is_generated

RECORDED = "recordings.tsv"
"""The table that the Record tab keeps beside its recordings, and `slmlab fetch` too."""
COLUMNS = ("text", "speaker", "consent", "split")
"""What it says of each file; the last is not always there."""
SPLITS = {"lm": 0.85, "dev": 0.05, "test": 0.10}
"""Shares of the sentences when an import chooses the splits itself."""


@dataclass(frozen=True)
class ImportSpec:
    """What is known about a collection of recordings."""

    name: str
    """Its name, and the beginning of its utterances' ids."""
    language: str
    """Code of the language spoken."""
    consent: str
    """Under what terms the recordings may be used, where they do not say it themselves: a licence, or who
    agreed to what and when.
    """
    split: str | None = None
    """The one split of all rows; None leaves it to the collection, or to a hash of each sentence."""
    keep_wave: bool = False
    """Store the samples too; without them the recordings must stay where they are."""
    max_seconds: float = 30.0
    """Longer recordings are skipped."""


@dataclass(frozen=True)
class Clip:
    """One recording and what is said in it."""

    path: Path
    """The sound file."""
    text: str
    """Its transcript; empty if there is none."""
    speaker: str
    """Who speaks."""
    consent: str = ""
    """Under what terms this one may be used, where the collection says so."""
    split: str = ""
    """The split that the collection puts it into, where it does."""


@dataclass(frozen=True)
class Imported:
    """The corpus made, and what did not come along."""

    corpus: Corpus
    """What could be used."""
    skipped: tuple[tuple[str, str], ...]
    """File and reason."""


def ljspeech(folder: str | Path) -> list[Clip]:
    """The recordings of a folder like LJSpeech: `metadata.csv` of `id|text|text in words`, and
    `wavs/id.wav`.
    """
    folder = Path(folder)
    found = []
    for i, line in enumerate(_lines(folder / "metadata.csv"), start=1):
        fields = line.split("|")
        if len(fields) < 2:
            raise LabError(
                f"{folder / 'metadata.csv'}, line {i}: found {len(fields)} field, expected id|text or "
                "id|text|text in words, with bars between."
            )
        found.append(Clip(folder / "wavs" / f"{fields[0]}.wav", fields[-1].strip(), "reader"))
    return found


def common_voice(folder: str | Path, part: str = "validated") -> list[Clip]:
    """The recordings of a Common Voice folder: `part`.tsv with client_id, path and sentence, and `clips/`."""
    folder = Path(folder)
    path = folder / f"{part}.tsv"
    rows = _rows(path, ("client_id", "path", "sentence"))
    return [
        Clip(folder / "clips" / row["path"], (row["sentence"] or "").strip(), f"cv-{row['client_id'][:12]}")
        for row in rows
    ]


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a table with tabs between; LabError where a column is missing."""
    rows = list(csv.DictReader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE))
    if missing := [name for name in columns if rows and name not in rows[0]]:
        raise LabError(f"{path} lacks the columns {', '.join(missing)}: is it the right table?")
    return [{name: value or "" for name, value in row.items() if name} for row in rows]


def plain(folder: str | Path) -> list[Clip]:
    """Every WAV, FLAC, MP3 and OGG file under a folder, with the text of the `.txt` file of the same name.

    A subfolder is a speaker; files at the top belong to one. What the Record tab of a listening test keeps
    has a table instead (`recordings.tsv`), with each recording's consent; what `slmlab fetch` brings has its
    split too.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LabError(f"{folder} is no folder: give the one that holds the sound files.")
    if (folder / RECORDED).exists():
        return [
            Clip(folder / row["file"], *(row.get(name, "").strip() for name in COLUMNS))
            for row in _rows(folder / RECORDED, ("file", *COLUMNS[:-1]))
        ]
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SOUNDS):
        transcript = path.with_suffix(".txt")
        text = " ".join(_lines(transcript)) if transcript.is_file() else ""
        place = path.parent.relative_to(folder).as_posix()
        found.append(Clip(path, text.strip(), "speaker" if place == "." else place))
    return found


FORMS: dict[str, Callable[[str | Path], list[Clip]]] = {
    "ljspeech": ljspeech,
    "common_voice": common_voice,
    "plain": plain,
}
"""Kinds of collection, by the name that people type."""


@dataclass(frozen=True)
class Collection:
    """A folder of recordings of which some become a corpus: settings, so that a preset can hold it."""

    spec: ImportSpec
    """What is known about it."""
    folder: str
    """Where it lies."""
    form: str = "common_voice"
    """One of FORMS."""
    splits: tuple[str, ...] = ("lm",)
    """Only sentences that fall into these of SPLITS."""
    thirds: tuple[int, ...] = (0, 1, 2)
    """Only speakers that fall into these thirds, so that networks can have speakers of their own."""

    @property
    def name(self) -> str:
        """Of the corpus."""
        return self.spec.name

    @property
    def language(self) -> str:
        """Of the speech."""
        return self.spec.language

    def clips(self) -> list[Clip]:
        """The recordings that are wanted; LabError says what the folder lacks."""
        every = FORMS[self.form](self.folder)
        return [c for c in every if _split(c) in self.splits and _third(c.speaker) in self.thirds]

    def content(self) -> list[tuple[str, int]]:
        """Files and their sizes, by which a change is noticed; none where there is no such folder."""
        folder = Path(self.folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files]


@dataclass(frozen=True)
class Share:
    """Utterances of a corpus that is there already, such as one that `slmlab import` made."""

    folder: str
    """The corpus."""
    splits: tuple[str, ...] = ("lm",)
    """Utterances of these splits."""
    keep_wave: bool = False
    """Store the samples too."""

    @property
    def name(self) -> str:
        """Of the corpus that it becomes."""
        return Path(self.folder).name

    @property
    def language(self) -> str:
        """Of the speech; LabError where the corpus has several."""
        languages = manifest.read(Path(self.folder) / MANIFEST)["language"].unique()
        if len(languages) != 1:
            raise LabError(
                f"{self.folder} holds several languages, {', '.join(languages)}: import each alone."
            )
        return str(languages[0])

    def content(self) -> str:
        """A digest of the manifest, by which a change is noticed."""
        return hashlib.sha256((Path(self.folder) / MANIFEST).read_bytes()).hexdigest()


def take(share: Share, folder: Path) -> Corpus:
    """Make a corpus of a share of another one; what its manifest says, consent included, travels with it."""
    corpus = Corpus.load(share.folder)
    places = np.flatnonzero(corpus.rows["split"].isin(share.splits))
    if not len(places):
        raise LabError(f"{share.folder} has no utterance of split {' or '.join(share.splits)} to learn from.")
    chosen = corpus.rows.iloc[places].astype(object)
    rows = chosen.where(chosen.notna(), None).to_dict("records")
    sounds = [sound_of(corpus.wave(int(i))) for i in places]
    save(folder, rows, sounds, share.keep_wave, {"share": asdict(share)})
    return Corpus.load(folder)


def bring_in(clips: list[Clip], spec: ImportSpec, folder: str | Path) -> Imported:
    """Make a corpus of recordings; what cannot be used is skipped and listed.

    Args:
        clips: from `ljspeech`, `common_voice` or `plain`.
        spec: what is known about them.
        folder: where the corpus goes.

    Raises:
        LabError: no recording can be used, or the language or consent is missing.
    """
    languages.find(spec.language)
    if not spec.consent.strip() and not (clips and all(clip.consent for clip in clips)):
        raise LabError(
            f"Import '{spec.name}': say under what terms these recordings may be used (consent): they do "
            "not say it themselves."
        )
    alphabet = alphabet_of([spec.language])
    rows: list[dict[str, Any]] = []
    sounds: list[Sound] = []
    skipped: list[tuple[str, str]] = []
    for i, clip in enumerate(tqdm(clips, desc=spec.name, unit="file", disable=None)):
        try:
            alphabet.encode_spoken(_transcript(clip), spec.language)
            if is_generated(clip.path):
                raise LabError(f"{clip.path} is generated speech by its own mark: no recording of a person.")
            sound = sound_of(recorded_wave(clip.path, spec.max_seconds))
        except LabError as error:
            skipped.append((str(clip.path), str(error)))
            continue
        rows.append(_row(spec, i, clip))
        sounds.append(sound)
    if not rows:
        first = f"; the first: {skipped[0][1]}" if skipped else ""
        raise LabError(f"Import '{spec.name}': none of {len(clips)} recordings can be used{first}")
    settings = {"spec": asdict(spec), "skipped": [{"file": f, "reason": r} for f, r in skipped]}
    save(Path(folder), rows, sounds, spec.keep_wave, settings)
    return Imported(Corpus.load(folder), tuple(skipped))


def _transcript(clip: Clip) -> str:
    if not clip.text:
        raise LabError(f"{clip.path} has no transcript: write what is said in it.")
    return clip.text


def _row(spec: ImportSpec, i: int, clip: Clip) -> dict[str, Any]:
    return {
        "id": f"{spec.name}-{i:06d}",
        "language": spec.language,
        "split": spec.split or _split(clip),
        "kind": manifest.RECORDED,
        "source": spec.name,
        "engine": "",
        "voice": clip.speaker,
        "seed": -1,
        "params": "{}",
        "text": clip.text,
        "spoken": clip.text,
        "file": str(clip.path.resolve()),
        "consent": clip.consent or spec.consent,
    }


def _split(clip: Clip) -> str:
    """What the collection says, or by the sentence's hash: whoever reads it, it stays on one side."""
    if clip.split:
        return clip.split
    point = fraction(clip.text)
    for split, share in SPLITS.items():
        point -= share
        if point < 0:
            return split
    return next(iter(SPLITS))


def _third(speaker: str) -> int:
    """0, 1 or 2 by a hash of who speaks."""
    return int(3 * fraction(speaker))


def _lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file that are not blank."""
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError:
        raise LabError(f"{path} does not exist: is {path.parent} the right folder?") from None
    except UnicodeDecodeError as error:
        raise LabError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8."
        ) from None
