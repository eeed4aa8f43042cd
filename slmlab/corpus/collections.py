"""Collections of recordings as people have them: folders with a table, and plain folders of sound and text.

One rule for all: what is there is read, what is not is told as a clip with a fault, and nothing but a missing
table ends the reading. Every file of a folder is a clip, the transcript of one, listed or counted.
"""

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slmlab.corpus import tables
from slmlab.corpus.sources import TABLE, recordings
from slmlab.corpus.tables import Row
from slmlab.errors import LabError
from slmlab.language.texts import BROKEN, lines_of, read_text
from slmlab.sound.audio import SOUNDS

FOREIGN = (".m4a", ".mp4", ".webm", ".aac", ".amr", ".3gp", ".wma", ".mka", ".aif", ".aiff", ".caf", ".au")
"""Endings of sound files that must be converted first."""
COLUMNS = ("file", "text", "speaker")
TABLES = {
    "plain": (TABLE, "", COLUMNS),
    "common_voice": ("validated.tsv", "clips", ("path", "sentence", "client_id")),
    "spontaneous": ("ss-corpus-*.tsv", "audios", ("audio_file", "transcription", "client_id")),
    "ljspeech": ("metadata.csv", "wavs", COLUMNS),
    "table": ("*.[ct]sv", "", COLUMNS),
}
"""The table that a form is known by, where its sounds lie, and its columns of file, words and speaker."""
GUESSED = ("ljspeech", "table")
"""Forms whose columns are guessed."""
FORMS = (*TABLES, "source")
"""Kinds of collection, by the name that people type."""
HEADS = re.compile("id|file|file_?name|(audio|wav)(_file)?|(audio_)?path", re.IGNORECASE)
"""What the first column of a table between bars is called where the table has a line of names."""
CODE = re.compile(r"\S*[\d_]\S*")
LANGUAGE_OR_NUMBER = re.compile(r"[A-Za-z]{2}([-_][A-Za-z]+)?|\d*\.\d+")
OTHER_SPLITS = {"train": "lm", "unassigned": ""}
"""What the lab calls the splits of others; without one, a hash of the sentence decides."""


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


def read(folder: str | Path, form: str = "") -> list[Clip]:
    """The recordings of a folder, of one of FORMS; LabError where its table, or the folder, is not there.

    Without a form its table tells it, which is printed.

    `plain`: every sound with the text of the `.txt` file of the same name; a subfolder is a speaker, files at
    the top belong to one. What the Record tab of a listening test keeps, and what `slmlab fetch` brings, has
    a table instead. `ljspeech`: the first cell names a sound; which others are words and speaker is guessed,
    and printed. `source`: what `slmlab fetch` brought, every one verified.
    """
    folder = Path(folder)
    if not form:
        known = (form for form, (table, *_) in TABLES.items() if any(folder.glob(table)))
        form = next(known, "plain")
        if form == "table" and any(path.suffix.lower() == ".txt" for path in folder.rglob("*")):
            form = "plain"
        print(f"{folder} is read as {form}; if it is another form, say --form")
    if form not in FORMS:
        raise LabError(f"there is no form {form!r}: choose one of {', '.join(FORMS)}.")
    if form == "source":
        clips = _fetched(folder)
    elif form == "plain" and not (folder / TABLE).exists():
        clips = _loose(folder)
    else:
        clips = _from_table(folder, form)
    return [_writable(clip) for clip in clips]


def _writable(clip: Clip) -> Clip:
    """A clip that a table can name: a path that is no text becomes one, and a fault."""
    path, fault = BROKEN.sub("\ufffd", str(clip.path)), BROKEN.sub("\ufffd", clip.fault)
    if path != str(clip.path):
        fault = fault or f"{path} has a name that is not UTF-8: rename it."
    return replace(clip, path=Path(path), fault=fault)


def _fetched(folder: Path) -> list[Clip]:
    """The recordings of a source, where `slmlab fetch` puts them."""
    if folder.resolve() != (place := recordings(folder.name)).resolve():
        raise LabError(f"{folder} is not what `slmlab fetch` brought ({place}): read it with --form plain.")
    how = "holds a number, and how it was read aloud is not known: such recordings are left out."
    return [
        replace(clip, fault=clip.fault or f"{clip.path} {how}" * bool(re.search(r"\d", clip.text)))
        for clip in _from_table(place, "plain")
    ]


def _loose(folder: Path) -> list[Clip]:
    """Sounds that lie in a folder without a table, and a fault where other files do."""
    if not folder.is_dir():
        raise LabError(f"{folder} is no folder: give the one that holds the sound files.")
    every = sorted(path for path in folder.rglob("*") if path.is_file())
    texts = {path.with_suffix(""): path for path in every if path.suffix.lower() == ".txt"}
    sounds = {path: texts.get(path.with_suffix("")) for path in every if _is_sound(path)}
    if sounds and not any(sounds.values()):
        for form, (name, *_) in TABLES.items():
            if near := _near(folder, name):
                raise LabError(f"{near[0]} says what is read: import {near[0].parent} with --form {form}.")
    if not sounds and any(path.suffix == ".parquet" for path in every):
        raise LabError(
            f"{folder} holds Parquet tables, in which sounds stand as bytes: write them out first, as "
            "docs/commands.md shows."
        )
    clips = [_loose_clip(path, transcript, folder) for path, transcript in sounds.items()]
    if rest := [path for path in every if path not in {*sounds, *sounds.values()}]:
        kinds = sorted(Counter(path.suffix.lower() or path.name for path in rest).items())
        fault = f"{len(rest)} files are neither sounds nor transcripts of one, the first {rest[0]}: "
        clips.append(Clip(folder, "", "", fault=f"{fault}{', '.join(f'{kind} {n}' for kind, n in kinds)}."))
    return clips


def _loose_clip(path: Path, transcript: Path | None, folder: Path) -> Clip:
    """A sound with what is said in it."""
    place, text, fault = path.parent.relative_to(folder).as_posix(), "", ""
    if path.suffix.lower() in FOREIGN:
        converted = f"`ffmpeg -i {shlex.quote(str(path))} {shlex.quote(str(path.with_suffix('.wav')))}`"
        fault = f"{path} cannot be read as it is: convert it with {converted}."
    elif transcript:
        try:
            text = _line(read_text(transcript))
        except LabError as error:
            fault = str(error)
    return Clip(path, text, "speaker" if place == "." else place, fault=fault)


def _from_table(folder: Path, form: str) -> list[Clip]:
    """The recordings of a table, and what is wrong with the whole: sounds named twice, or not at all.

    Of equal rows the first counts; where two say different words of one sound, neither does.
    """
    name, sounds, columns = TABLES[form]
    table, (file, words, speaker) = _table(folder, name), columns
    rows = _guessed(table, folder, form) if form in GUESSED else tables.with_names(table, columns)
    clips, first = list[Clip](), dict[Path, tuple[int, str]]()
    for row, cells in rows:
        fault, path = row.fault, _sound(folder, sounds, cells[file]) if cells.get(file) else table
        if not fault and (empty := [column for column in (file, speaker) if not cells[column]]):
            fault = f"{row.place} has no {' and no '.join(empty)}."
        who, split = cells.get(speaker, ""), cells.get("split", "").lower()
        if columns != COLUMNS:  # of Common Voice, in which who speaks is a long hash
            who = "cv-" + (who[:12] if re.fullmatch(r"[0-9a-f]{32,}", who) else who)
        if not fault and not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder)):
            fault = f"{row.place} names {path}, which is outside {folder}."
        text, split = _line(cells.get(words, "")), OTHER_SPLITS.get(split, split)
        if not fault and path in first:
            before, place = first[path]
            fault = f"{row.place} names {path.name} again, as {place} does."
            if (clips[before].text, clips[before].speaker) != (text, who):
                told = f"{place} says something else of {path.name} than {row.place} does."
                clips[before] = replace(clips[before], fault=told)
        elif not fault:
            first[path] = len(clips), row.place
        clips.append(Clip(path, text, who, cells.get("consent", ""), split, fault))
    named = {clip.path for clip in clips}
    if unnamed := sorted(path for path in folder.rglob("*") if _is_sound(path) and path not in named):
        fault = f"{len(unnamed)} sounds stand in no row of the table, the first {unnamed[0]}."
        clips.append(Clip(folder, "", "", fault=fault))
    return clips


def _guessed(table: Path, folder: Path, form: str) -> Iterator[tuple[Row, dict[str, str]]]:
    """Rows of a table, by COLUMNS: which are sound, words and speaker is guessed, and printed.

    Of `ljspeech` the first cell names a sound; of another table, the column that names most of them.
    """
    if form == "ljspeech":
        rows = list(tables.read(table, "|"))
    else:
        first = next(iter(lines_of(read_text(table, broken=True))), "")
        delimiter = max("\t,;|", key=first.count)
        rows = list(tables.read(table, delimiter, quoted=delimiter in ",;"))
        named = (i for row in rows for i, cell in enumerate(row.cells) if _is_there(folder, cell))
        file = max((there := Counter(named)), key=there.__getitem__, default=0)
        order = [file, *(i for i in range(max(len(row.cells) for row in rows)) if i != file)]
        rows = [replace(row, cells=tuple(row.cells[i] for i in order if i < len(row.cells))) for row in rows]
        print(f"{table}: sounds are taken from column {file + 1}, which then counts as the first")
        if there and rows[0].cells and not _is_there(folder, rows[0].cells[0]):
            rows = rows[1:]
    if rows and rows[0].cells and HEADS.fullmatch(rows[0].cells[0]):
        rows = rows[1:]
    good = [row.cells for row in rows if not row.fault]
    width = max(Counter(map(len, good)).items(), key=lambda item: item[::-1], default=(2, 0))[0]
    if width < 2:
        place = rows[0].place if rows else table
        raise LabError(f"{place}: found 1 cell, expected a sound's name and its text, as id|text.")
    words, speaker = _guess([cells for cells in good if len(cells) == width])
    said = " or, where it is empty, ".join(str(i + 1) for i in words)
    who = f"speakers in column {speaker + 1}" if speaker else "one reader"
    print(f"{table}: words are taken from column {said} of {width}; {who}")
    for row, _ in tables.named(rows, [str(i) for i in range(width)]):
        values = (
            ()
            if row.fault
            else (
                row.cells[0],
                next((row.cells[i] for i in words if row.cells[i]), ""),
                row.cells[speaker] if speaker else "reader",
            )
        )
        yield row, dict(zip(COLUMNS, values, strict=False))


def _guess(rows: Sequence[Sequence[str]]) -> tuple[list[int], int]:
    """Columns that hold words, the best first, and the one that holds speakers, 0 for none.

    Words are longest, and what is a code has none: of columns at least half as long as the longest, the last.
    """
    columns = [[cell for cell in column if cell] for column in zip(*rows or [("", "")], strict=True)]
    lengths = [
        sum(len(cell) for cell in column if not CODE.fullmatch(cell)) / max(len(column), 1)
        for column in columns
    ]
    filled = [i for i in range(1, len(columns)) if columns[i]]
    words = [i for i in reversed(filled) if lengths[i] >= max(lengths[1:]) / 2]
    others = [
        i
        for i in filled
        if i not in words
        and not all(map(LANGUAGE_OR_NUMBER.fullmatch, columns[i]))
        and not (
            all(map(str.isdecimal, columns[i])) and len({*columns[i]}) == len(columns[i])
        )  # rows counted
    ]
    return words or [len(columns) - 1], next(iter(others), 0)


def _sound(folder: Path, sounds: str, name: str) -> Path:
    """The file that a cell names, where a form's sounds lie or in the folder, with its ending or without."""
    name = name.replace("\\", "/")
    endings = ("", *SOUNDS) if name.lower().endswith((*SOUNDS, *FOREIGN)) else (*SOUNDS, "")
    places = [folder / start / (name + ending) for start in (sounds, "", "wav") for ending in endings]
    return next((place for place in places if os.path.isfile(place)), places[0])


def _is_there(folder: Path, name: str) -> bool:
    return bool(name) and _sound(folder, "", name).is_file()


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


def _line(text: str) -> str:
    """A text in one line: whatever breaks a line inside it is a space."""
    return " ".join(text.split())


def _is_sound(path: Path) -> bool:
    return path.suffix.lower() in (*SOUNDS, *FOREIGN)
