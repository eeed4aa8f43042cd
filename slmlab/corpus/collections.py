"""Collections of recordings as people have them: folders with a table, and plain folders of sound and text.

One rule for all: what is there is read, what is not is told as a clip with a fault, and nothing but a missing
table ends the reading. Every file of a folder is a clip, the transcript of one, listed or counted.
"""

import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slmlab.corpus import tables
from slmlab.corpus.sources import TABLE, recordings
from slmlab.errors import LabError
from slmlab.language.texts import read_text
from slmlab.sound.audio import SOUNDS

FOREIGN = (".m4a", ".mp4", ".webm", ".aac", ".amr", ".3gp", ".wma", ".mka", ".aif", ".aiff", ".caf", ".au")
"""Endings of sound files that must be converted first."""
HEADS = (
    "id",
    "file",
    "filename",
    "file_name",
    "audio",
    "audio_file",
    "audio_path",
    "path",
    "wav",
    "wav_file",
)
"""What the first column of a table between bars is called where the table has a line of names."""
CODE = re.compile(r"\S*[\d_]\S*")
LANGUAGE = re.compile(r"[A-Za-z]{2}([-_][A-Za-z]+)?")
NUMBER = re.compile(r"\d*\.\d+")


@dataclass(frozen=True)
class Clip:
    """One recording, its transcript (empty if there is none), and who speaks.

    `consent` and `split` tell how this one may be used and where it belongs, if the collection does. A
    `fault` says why a row or a file is no recording that can be used.
    """

    path: Path
    text: str
    speaker: str
    consent: str = ""
    split: str = ""
    fault: str = ""


def ljspeech(folder: str | Path) -> list[Clip]:
    """The recordings of a folder like LJSpeech or its relatives: `metadata.csv`, with bars between cells, and
    `wavs/`. The first cell names a sound; which others are words and speaker is guessed, and printed.
    """
    table = _table(Path(folder), "metadata.csv")
    rows = list(tables.read(table, "|"))
    if rows and rows[0].cells and rows[0].cells[0].lower() in HEADS:
        rows = rows[1:]
    good = [row.cells for row in rows if not row.fault]
    width = max(Counter(map(len, good)).items(), key=lambda item: item[::-1], default=(2, 0))[0]
    if width < 2:
        raise LabError(
            f"{rows[0].place}: found 1 cell, expected id|text or id|text|text in words, with bars between."
        )
    words, speaker = _guess([cells for cells in good if len(cells) == width])
    said = " or, where it is empty, ".join(str(i + 1) for i in words)
    read = f"speakers in column {speaker + 1}" if speaker else "one reader"
    print(f"{table}: words are taken from column {said} of {width}; {read}")
    clips = []
    for row in rows:
        fault = row.fault
        if not fault and len(row.cells) != width:
            fault = f"{row.place} has {len(row.cells)} cells, most have {width}: mend it."
        cells = row.cells if not fault else ("",) * width
        if not fault and not (cells[0] and cells[speaker]):
            fault = f"{row.place} names no {'sound' if cells[speaker] else 'speaker'}."
        text = next((cells[i] for i in words if cells[i]), "")
        path = _sound(Path(folder), cells[0]) if cells[0] else table
        clips.append(Clip(path, _line(text), cells[speaker] if speaker else "reader", fault=fault))
    return _checked(clips, [row.place for row in rows], Path(folder))


def _guess(rows: Sequence[Sequence[str]]) -> tuple[list[int], int]:
    """Columns that hold words, the best first, and the one that holds speakers, 0 for none.

    Words are longest, and what is a code has none: of columns at least half as long as the longest, the last.
    """
    columns = [[cell for cell in column if cell] for column in zip(*rows or [("", "")], strict=True)]
    lengths = [
        sum(len(cell) for cell in column if not CODE.fullmatch(cell)) / max(len(column), 1)
        for column in columns
    ]
    longest = max(lengths[1:])
    words = [i for i in range(len(columns) - 1, 0, -1) if columns[i] and lengths[i] >= longest / 2]
    others = [i for i in range(1, len(columns)) if columns[i] and i not in words]
    speakers = [
        i for i in others if not all(LANGUAGE.fullmatch(c) or NUMBER.fullmatch(c) for c in columns[i])
    ]
    return words or [len(columns) - 1], next(iter(speakers), 0)


def _sound(folder: Path, name: str) -> Path:
    """The file that a cell names, from `wavs/` or from the folder, with its ending or without."""
    name = name.replace("\\", "/")
    endings = ("", *SOUNDS) if name.lower().endswith((*SOUNDS, *FOREIGN)) else (*SOUNDS, "")
    places = [folder / start / (name + ending) for start in ("wavs", "", "wav") for ending in endings]
    return next((place for place in places if _is_file(place)), places[0])


def common_voice(folder: str | Path, part: str = "validated") -> list[Clip]:
    """The recordings of a Common Voice folder: `part`.tsv with client_id, path and sentence, and `clips/`."""
    return _from_table(Path(folder), f"{part}.tsv", "clips", ("path", "sentence", "client_id"), "cv-")


def spontaneous(folder: str | Path) -> list[Clip]:
    """The recordings of Common Voice's Spontaneous Speech: `ss-corpus-CODE.tsv` and `audios/`."""
    columns = ("audio_file", "transcription", "client_id")
    return _from_table(Path(folder), "ss-corpus-*.tsv", "audios", columns, "cv-")


def plain(folder: str | Path) -> list[Clip]:
    """Every sound under a folder, with the text of the `.txt` file of the same name.

    A subfolder is a speaker; files at the top belong to one. What the Record tab of a listening test keeps
    has a table instead (`recordings.tsv`), with each recording's consent; what `slmlab fetch` brings has its
    split too.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LabError(f"{folder} is no folder: give the one that holds the sound files.")
    if (folder / TABLE).exists():
        return _from_table(folder, TABLE, "", ("file", "text", "speaker"))
    every = sorted(path for path in folder.rglob("*") if _is_file(path))
    texts = {path.with_suffix(""): path for path in every if path.suffix.lower() == ".txt"}
    clips = [_plain_clip(path, texts, folder) for path in every if _is_sound(path)]
    _check_form(folder, clips, every, any(path.with_suffix("") in texts for path in every if _is_sound(path)))
    heard = {clip.path.with_suffix("") for clip in clips}
    rest = [path for path in every if not _is_sound(path) and texts.get(path.with_suffix("")) != path]
    rest += [path for stem, path in texts.items() if stem not in heard]
    if rest:
        kinds = Counter(path.suffix.lower() or path.name for path in rest)
        named = ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()))
        fault = f"{len(rest)} files are neither sounds nor transcripts of one, the first {rest[0]}: {named}."
        clips.append(Clip(folder, "", "", fault=fault))
    return clips


def _plain_clip(path: Path, texts: dict[Path, Path], folder: Path) -> Clip:
    """A sound with what is said in it."""
    place, text, fault = path.parent.relative_to(folder).as_posix(), "", ""
    if path.suffix.lower() in FOREIGN:
        fault = f"{path} cannot be read as it is: {conversion(path)}"
    elif transcript := texts.get(path.with_suffix("")):
        try:
            text = _line(read_text(transcript))
        except LabError as error:
            fault = str(error)
    return Clip(path, text, "speaker" if place == "." else place, fault=fault)


def _check_form(folder: Path, clips: Sequence[Clip], every: Sequence[Path], told: bool) -> None:
    """LabError where a folder is of another form than a plain one: no sound has its text beside it."""
    for form, pattern in () if told or not clips else TABLES.items():
        if near := _near(folder, pattern):
            raise LabError(f"{near[0]} says what is read: import {near[0].parent} with --form {form}.")
    if not clips and any(path.suffix == ".parquet" for path in every):
        raise LabError(
            f"{folder} holds Parquet tables, in which sounds stand as bytes: write them out first, as "
            "docs/commands.md shows."
        )


def conversion(path: Path) -> str:
    """The command that makes a WAV file of another sound."""
    wav = path.with_suffix(".wav")
    return f"convert it with `ffmpeg -i {shlex.quote(str(path))} {shlex.quote(str(wav))}`."


def fetched(folder: str | Path) -> list[Clip]:
    """The recordings of a source, every one verified: the folder is where `slmlab fetch` puts it."""
    place = recordings(Path(folder).name)
    if Path(folder).resolve() != place.resolve():
        raise LabError(f"{folder} is not what `slmlab fetch` brought ({place}): read it with --form plain.")
    how = "holds a number, and how it was read aloud is not known: such recordings are left out."
    return [
        replace(clip, fault=clip.fault or f"{clip.path} {how}" * bool(re.search(r"\d", clip.text)))
        for clip in plain(place)
    ]


FORMS: dict[str, Callable[[str | Path], list[Clip]]] = {
    "ljspeech": ljspeech,
    "common_voice": common_voice,
    "spontaneous": spontaneous,
    "plain": plain,
    "source": fetched,
}
"""Kinds of collection, by the name that people type."""
TABLES = {
    "plain": TABLE,
    "common_voice": "validated.tsv",
    "spontaneous": "ss-corpus-*.tsv",
    "ljspeech": "metadata.csv",
}
"""The table that a form is known by."""
OTHER_SPLITS = {"train": "lm", "unassigned": ""}
"""What the lab calls the splits of others; without one, a hash of the sentence decides."""


def _from_table(
    folder: Path, pattern: str, sounds: str, columns: tuple[str, str, str], prefix: str = ""
) -> list[Clip]:
    """The recordings of a table with a line of names; its columns say file, words and speaker."""
    table, (file, words, speaker) = _table(folder, pattern), columns
    clips, places = [], []
    for row, cells in tables.with_names(table, columns):
        fault = row.fault
        if not fault and (empty := [name for name in (file, speaker) if not cells[name]]):
            fault = f"{row.place} has no {' and no '.join(empty)}."
        path = folder / sounds / cells[file] if cells.get(file) else table
        who, text = prefix + _short(cells.get(speaker, "")), _line(cells.get(words, ""))
        split = cells.get("split", "").lower()
        clips.append(Clip(path, text, who, cells.get("consent", ""), OTHER_SPLITS.get(split, split), fault))
        places.append(row.place)
    return _checked(clips, places, folder / sounds)


def _checked(clips: list[Clip], places: Sequence[str], sounds: Path) -> list[Clip]:
    """The clips of a table's rows, and what is wrong with the whole: sounds named twice, or not at all.

    Of equal rows the first counts; where two say different words of one sound, neither does.
    """
    first: dict[Path, int] = {}
    for i, (clip, place) in enumerate(zip(clips, places, strict=True)):
        if clip.fault:
            continue
        if not Path(os.path.normpath(clip.path)).is_relative_to(os.path.normpath(sounds)):
            clips[i] = replace(clip, fault=f"{place} names {clip.path}, which is outside {sounds}.")
            continue
        before = first.setdefault(clip.path, i)
        if before != i:
            clips[i] = replace(clip, fault=f"{place} names {clip.path.name} again, as {places[before]} does.")
            if (clips[before].text, clips[before].speaker) != (clip.text, clip.speaker):
                fault = f"{places[before]} says something else of {clip.path.name} than {place} does."
                clips[before] = replace(clips[before], fault=fault)
    named = {clip.path for clip in clips}
    if unnamed := sorted(path for path in sounds.rglob("*") if _is_sound(path) and path not in named):
        fault = f"{len(unnamed)} sounds stand in no row of the table, the first {unnamed[0]}."
        clips.append(Clip(sounds, "", "", fault=fault))
    return clips


def _table(folder: Path, pattern: str) -> Path:
    """The table of a folder; LabError where it is not there, with the folders near by that have it."""
    if found := sorted(folder.glob(pattern)):
        return found[0]
    near = " or ".join(str(path.parent) for path in _near(folder, pattern))
    raise LabError(f"{folder / pattern} does not exist: give {near or 'another folder, or another --form'}.")


def _near(folder: Path, pattern: str) -> list[Path]:
    """Tables in a folder, up to two floors below it, or beside it."""
    places = [(folder, ""), (folder, "*/"), (folder, "*/*/"), (folder.resolve().parent, "")]
    found = (sorted(place.glob(start + pattern)) for place, start in places)
    return next((paths for paths in found if paths), [])


def _short(speaker: str) -> str:
    """Who speaks; of a long hash its beginning."""
    return speaker[:12] if re.fullmatch(r"[0-9a-f]{32,}", speaker) else speaker


def _line(text: str) -> str:
    """A text in one line: whatever breaks a line inside it is a space."""
    return " ".join(text.split())


def _is_sound(path: Path) -> bool:
    return path.suffix.lower() in (*SOUNDS, *FOREIGN)


def _is_file(path: Path) -> bool:
    """Whether there is a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except OSError:
        return False
