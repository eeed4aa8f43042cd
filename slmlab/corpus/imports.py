"""People's recordings become a corpus.

A broken row or file does not stop an import: it is skipped and listed with the reason in `corpus.json`. The
recordings stay where they are; the manifest points to them and keeps under what terms they may be used.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from slmlab.corpus import manifest
from slmlab.corpus.build import MANIFEST, Corpus, Sound, recorded_wave, save, sound_of
from slmlab.corpus.collections import Clip, read
from slmlab.errors import LabError
from slmlab.files import fraction, sha256_of
from slmlab.language import languages
from slmlab.language.sentences import share_of
from slmlab.language.text import Alphabet, alphabet_of, for_scoring
from slmlab.sound import audio

SPLITS = {"lm": 85, "dev": 5, "test": 10}
"""Of a hundred sentences, when an import chooses the splits itself."""


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
    """One of `collections.FORMS`."""
    splits: tuple[str, ...] = ("lm",)
    """Only sentences that fall into these of SPLITS."""
    thirds: tuple[int, ...] = (0, 1, 2)
    """Only speakers that fall into these thirds, so that networks can have speakers of their own."""

    def __post_init__(self) -> None:
        if self.name in ("", ".", "..") or set(self.name) & set("/\\\0"):
            raise LabError(f"{self.name!r} is no name of a corpus: give one that is no path.")

    def clips(self) -> list[Clip]:
        """The recordings in the folder that are wanted, and all faults; LabError says what it lacks."""
        every = ((clip, int(3 * fraction(clip.speaker))) for clip in read(self.folder, self.form))
        return [
            clip
            for clip, third in every
            if clip.fault or (third in self.thirds and _split(clip, self.language) in self.splits)
        ]

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
        found = manifest.read(Path(self.folder) / MANIFEST)["language"].unique()
        if len(found) != 1:
            raise LabError(f"{self.folder} holds several languages, {', '.join(found)}: import each alone.")
        return str(found[0])

    def content(self) -> str:
        """A digest of the manifest, by which a change is noticed."""
        return sha256_of(Path(self.folder) / MANIFEST)


def take(share: Share, folder: Path) -> Corpus:
    """Make a corpus of a share of another one; what its manifest says, consent included, travels with it."""
    corpus = Corpus.load(share.folder)
    places = np.flatnonzero(corpus.rows["split"].isin(share.splits))
    if not len(places):
        raise LabError(f"{share.folder} has no utterance of split {' or '.join(share.splits)} to learn from.")
    chosen = corpus.rows.iloc[places].astype(object)
    rows = chosen.where(chosen.notna(), None).to_dict("records")
    sounds = [sound_of(corpus.wave(int(i))) for i in places]
    return save(folder, rows, sounds, share.keep_wave, {"share": asdict(share)})


def bring_in(clips: list[Clip], spec: ImportSpec, folder: str | Path) -> Corpus:
    """Make a corpus of recordings; what cannot be used is skipped and listed in its `corpus.json`, and so are
    `remarks` on what was used.

    LabError: no recording can be used, or the language or consent is missing.
    """
    languages.find(spec.language)
    if not spec.consent.strip() and not any(clip.consent for clip in clips):
        raise LabError(
            f"Import '{spec.name}': say under what terms these recordings may be used (consent): they do "
            "not say it themselves."
        )
    alphabet = alphabet_of([spec.language])
    rows: list[dict[str, Any]] = []
    sounds: list[Sound] = []
    notes: dict[str, list[dict[str, str]]] = {"skipped": [], "remarks": []}
    for i, clip in enumerate(tqdm(clips, desc=spec.name, unit="file", disable=None)):
        try:
            sound, remark = _sound(clip, spec, alphabet)
            sounds.append(sound)
            rows.append(_row(spec, i, clip))
            if remark:
                notes["remarks"].append({"file": str(clip.path), "reason": remark})
        except LabError as error:
            notes["skipped"].append({"file": str(clip.path), "reason": str(error)})
    if not rows:
        first = f"; the first: {notes['skipped'][0]['reason']}" if notes["skipped"] else ""
        raise LabError(f"Import '{spec.name}': no recording can be used{first}")
    return save(Path(folder), rows, sounds, spec.keep_wave, {"spec": asdict(spec), **notes})


def _sound(clip: Clip, spec: ImportSpec, alphabet: Alphabet) -> tuple[Sound, str]:
    """A recording with its features, and what is odd about it; LabError says why it cannot be used."""
    if clip.fault:
        raise LabError(clip.fault)
    if not clip.text:
        raise LabError(f"{clip.path} has no transcript: write what is said in it.")
    if not (clip.consent or spec.consent.strip()):
        raise LabError(f"{clip.path}: nobody says under what terms it may be used (consent).")
    alphabet.encode_spoken(clip.text, spec.language)
    wave, info = audio.read(clip.path, spec.max_seconds)
    if info.generated:
        raise LabError(f"{clip.path} is generated speech by its own mark: no recording of a person.")
    words = languages.find(spec.language).in_words(clip.text)
    read = f"{clip.path} is taken to say its numbers as: {words}" * any(map(str.isdecimal, clip.text))
    return sound_of(recorded_wave(wave)), " ".join(filter(None, (info.remark, read)))


def _row(spec: ImportSpec, i: int, clip: Clip) -> dict[str, Any]:
    return {
        "id": f"{spec.name}-{i:06d}",
        "language": spec.language,
        "split": spec.split or _split(clip, spec.language),
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


def _split(clip: Clip, language: str) -> str:
    """What the collection says, or by the hash of what is scored: whoever reads it, and with whatever stops
    and capitals it is written, a sentence stays on one side.
    """
    return clip.split or share_of(for_scoring(clip.text, language), SPLITS)
