"""People's recordings become a corpus: LJSpeech folders, Common Voice folders, and plain folders of sound and
text.

A broken file does not stop an import: it is skipped and listed with the reason in `corpus.json`. The
recordings stay where they are; the manifest points to them and keeps under what terms they may be used.
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
from slmlab.corpus.sources import TABLE, recordings
from slmlab.errors import LabError
from slmlab.files import fraction, read_text
from slmlab.language import languages
from slmlab.language.sentences import share_of
from slmlab.language.text import alphabet_of
from slmlab.sound.audio import SOUNDS, is_generated

COLUMNS = ("text", "speaker", "consent", "split")
"""What the table beside recordings says of each file; the last is not always there."""
SPLITS = {"lm": 85, "dev": 5, "test": 10}
"""Of a hundred sentences, when an import chooses the splits itself."""


@dataclass(frozen=True)
class Clip:
    """One recording, its transcript (empty if there is none), and who speaks.

    `consent` and `split` tell how this one may be used and where it belongs, if the collection does.
    """

    path: Path
    text: str
    speaker: str
    consent: str = ""
    split: str = ""


def _lines(path: Path) -> list[str]:
    return [line for line in read_text(path).splitlines() if line.strip()]


def ljspeech(folder: str | Path) -> list[Clip]:
    """The recordings of a folder like LJSpeech: `metadata.csv` of `id|text|text in words`, and
    `wavs/id.wav`.
    """
    folder, table = Path(folder), Path(folder) / "metadata.csv"
    rows = [line.split("|") for line in _lines(table)]
    for i, row in enumerate(rows, start=1):
        if len(row) < 2:
            raise LabError(
                f"{table}, line {i}: found {len(row)} field, expected id|text or id|text|text in words, with "
                "bars between."
            )
    return [Clip(folder / "wavs" / f"{row[0]}.wav", row[-1].strip(), "reader") for row in rows]


def common_voice(folder: str | Path, part: str = "validated") -> list[Clip]:
    """The recordings of a Common Voice folder: `part`.tsv with client_id, path and sentence, and `clips/`."""
    return [
        Clip(Path(folder) / "clips" / row["path"], row["sentence"].strip(), f"cv-{row['client_id'][:12]}")
        for row in _rows(Path(folder) / f"{part}.tsv", ("client_id", "path", "sentence"))
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
    if (folder / TABLE).exists():
        return [
            Clip(folder / row["file"], *(row.get(name, "").strip() for name in COLUMNS))
            for row in _rows(folder / TABLE, ("file", *COLUMNS[:-1]))
        ]
    clips = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SOUNDS):
        transcript, place = path.with_suffix(".txt"), path.parent.relative_to(folder).as_posix()
        text = " ".join(_lines(transcript)) if transcript.is_file() else ""
        clips.append(Clip(path, text.strip(), "speaker" if place == "." else place))
    return clips


def fetched(folder: str | Path) -> list[Clip]:
    """The recordings of a source, every one verified: the folder is where `slmlab fetch` puts it."""
    place = recordings(Path(folder).name)
    if Path(folder).resolve() != place.resolve():
        raise LabError(f"{folder} is not what `slmlab fetch` brought ({place}): read it with --form plain.")
    return plain(place)


FORMS: dict[str, Callable[[str | Path], list[Clip]]] = {
    "ljspeech": ljspeech,
    "common_voice": common_voice,
    "plain": plain,
    "source": fetched,
}
"""Kinds of collection, by the name that people type."""


@dataclass(frozen=True)
class ImportSpec:
    """What is known about a collection of recordings, and which of them become a corpus."""

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
    folder: str = ""
    """Where they lie, for `clips`."""
    form: str = "common_voice"
    """One of FORMS."""
    splits: tuple[str, ...] = ("lm",)
    """Only sentences that fall into these of SPLITS."""
    thirds: tuple[int, ...] = (0, 1, 2)
    """Only speakers that fall into these thirds, so that networks can have speakers of their own."""

    def clips(self) -> list[Clip]:
        """The recordings in the folder that are wanted; LabError says what it lacks."""
        every = FORMS[self.form](self.folder)
        return [c for c in every if _split(c) in self.splits and int(3 * fraction(c.speaker)) in self.thirds]

    def content(self) -> list[tuple[str, int]]:
        """Files and their sizes, by which a change is noticed; none where there is no such folder."""
        folder = Path(self.folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files]


@dataclass(frozen=True)
class Share:
    """Utterances, of some splits, of a corpus that is there already, such as what `slmlab import` made."""

    folder: str
    splits: tuple[str, ...] = ("lm",)
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


def bring_in(clips: list[Clip], spec: ImportSpec, folder: str | Path) -> Corpus:
    """Make a corpus of recordings; what cannot be used is skipped and listed in its `corpus.json`.

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
    skipped: list[dict[str, str]] = []
    for i, clip in enumerate(tqdm(clips, desc=spec.name, unit="file", disable=None)):
        try:
            if not clip.text:
                raise LabError(f"{clip.path} has no transcript: write what is said in it.")
            alphabet.encode_spoken(clip.text, spec.language)
            if is_generated(clip.path):
                raise LabError(f"{clip.path} is generated speech by its own mark: no recording of a person.")
            sounds.append(sound_of(recorded_wave(clip.path, spec.max_seconds)))
            rows.append(_row(spec, i, clip))
        except LabError as error:
            skipped.append({"file": str(clip.path), "reason": str(error)})
    if not rows:
        first = f"; the first: {skipped[0]['reason']}" if skipped else ""
        raise LabError(f"Import '{spec.name}': none of {len(clips)} recordings can be used{first}")
    save(Path(folder), rows, sounds, spec.keep_wave, {"spec": asdict(spec), "skipped": skipped})
    return Corpus.load(folder)


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
    return clip.split or share_of(clip.text, SPLITS)
