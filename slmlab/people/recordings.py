"""One's own voice: a recording is checked, and stored with its words and with what its speaker agreed to.

A folder of recordings can be imported as it is. Its table `recordings.tsv` has a line of column names and a
line for each recording; UTF-8, a tab between two values, no quotes:

    file       relative to the folder, such as speaker-0a1b2c3d/4e5f60718293.wav
    text       the words read
    speaker    a code; the name stands only in the speaker's `consent.json`
    language   its code, such as sw; empty if nobody told
    consent    what the speaker agreed to, and on which day
"""

import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slmlab.corpus import tables
from slmlab.errors import LabError
from slmlab.files import read_json, replace_text, sha256_of, write_json
from slmlab.language.texts import read_text
from slmlab.people.design import valid
from slmlab.people.store import clean
from slmlab.sound import SAMPLE_RATE, audio

FOLDER = "recordings"
"""In the folder of a listening test."""
TABLE = "recordings.tsv"
COLUMNS = ("file", "text", "speaker", "language", "consent")
CONSENT = (
    "This is my own voice. It may be used to train and test speech systems of this project, "
    "and I can have the recording removed at any time."
)
SHORTEST, LONGEST = 0.5, 20.0
CLIPPED_SHARE = 0.001
QUIET_DB = -45.0
TABLE_IN_USE = threading.Lock()


@dataclass(frozen=True)
class Consent:
    """A speaker's name, what they agreed to, and when: `consent.json` in the folder of their recordings."""

    speaker: str
    statement: str
    agreed_at: str


def keep(
    source: str | Path, text: str, speaker: str, agreed: bool, folder: str | Path, language: str = ""
) -> dict[str, Any]:
    """Check a recording and put it into its speaker's folder; its row of the table, `seconds` and `sha256`.

    A LabError: no consent, no name, no words, or a sound too short, too long, too quiet, clipped or
    generated.
    """
    folder, speaker, text = Path(folder), clean(speaker), " ".join(str(text).split())
    if not agreed:
        raise LabError("tick the consent first: without it nothing is stored")
    if not speaker or not text:
        raise LabError("give a name (any name) and the words you read")
    wave, info = audio.read(source, LONGEST)
    if info.generated:
        raise LabError("this is generated speech by its own mark: record a person's voice")
    check(wave, info.clipped)
    _rows(folder)  # a table that cannot be read is told of before anything is stored
    place = _folder_of(folder, speaker)
    path = place / f"{secrets.token_hex(6)}.wav"
    row = _row(path, text, clean(language), CONSENT, time.strftime("%Y-%m-%d"))
    try:
        audio.write(path, wave, generated=False)
        replace_text(path.with_suffix(".txt"), text + "\n")
        write_table(folder, row)
    except LabError:  # the disk is full, say: nobody's voice stays where no table names it
        for part in (path, path.with_suffix(".txt")):
            part.unlink(missing_ok=True)
        raise
    return row | {"seconds": len(wave) / SAMPLE_RATE, "sha256": sha256_of(path)}


def check(wave: audio.Wave, clipped: float) -> None:
    """LabError, saying what to do, unless a wave (s) is long, loud and clean enough."""
    seconds = len(wave) / SAMPLE_RATE
    if seconds < SHORTEST:
        raise LabError(
            f"this lasts {seconds:.1f} s, at least {SHORTEST} s is needed: read the whole sentence"
        )
    if clipped > CLIPPED_SHARE:
        raise LabError(f"{100 * clipped:.1f} % of this is clipped: move back or turn the microphone down")
    if audio.loudness(wave) < QUIET_DB:
        raise LabError(f"this is almost silent ({audio.loudness(wave):.0f} dB): come nearer or turn it up")
    if float(np.mean(np.abs(wave) > 0.02)) < 0.02:
        raise LabError("hardly anything sounds in this: did the microphone hear you?")


def write_table(folder: Path, *more: dict[str, str]) -> None:
    """Add rows to the table; rows whose file was removed go, and recordings older than the table come in.

    Lines that are no rows stay as they are, to the byte, at its end: `import` lists them. Columns of others
    stay too.
    """
    with TABLE_IN_USE:
        known, foreign = _rows(folder)
        rows = {row["file"]: row for row in (*known, *more) if (folder / row["file"]).is_file()}
        names = [*dict.fromkeys((*COLUMNS, *(name for row in rows.values() for name in row)))]
        lines = ["\t".join(names), *("\t".join(row.get(n, "") for n in names) for row in rows.values())]
        replace_text(folder / TABLE, "".join(line + "\n" for line in (*lines, *foreign)))


def _rows(folder: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Rows of the table, and lines of it that are none; without a table, rows of all sounds that lie beside a
    `consent.json`.
    """
    table = folder / TABLE
    if table.is_file():
        every = list(tables.with_names(table, COLUMNS))
        return [cells for row, cells in every if not row.fault], [row.text for row, _ in every if row.fault]
    rows = []
    for file, agreed in _consents(folder):
        for sound in sorted(file.parent.glob("*.wav")):
            words = sound.with_suffix(".txt")
            text = " ".join(read_text(words).split()) if words.is_file() else ""
            rows.append(_row(sound, text, "", agreed.statement, agreed.agreed_at[:10]))
    return rows, []


def _consents(folder: Path) -> Iterator[tuple[Path, Consent]]:
    """What the speakers agreed to; a file that is broken opens nobody else's folder, and closes none."""
    for file in sorted(folder.glob("*/consent.json")):
        try:
            yield file, valid(Consent, read_json(file), str(file))
        except LabError as error:
            print(f"left aside: {error}")


def _row(sound: Path, text: str, language: str, statement: str, day: str) -> dict[str, str]:
    place = sound.parent.name
    values = (f"{place}/{sound.name}", text, place, language, f"{statement} Agreed on {day}.")
    return dict(zip(COLUMNS, values, strict=True))


def _folder_of(folder: Path, speaker: str) -> Path:
    """The speaker's folder, under a name that tells nothing, with their consent in it."""
    for file, consent in _consents(folder):
        if consent.speaker == speaker:
            return file.parent
    place = folder / f"speaker-{secrets.token_hex(4)}"
    write_json(place / "consent.json", Consent(speaker, CONSENT, time.strftime("%Y-%m-%dT%H:%M:%S%z")))
    return place
