"""A first `language.toml` from what people wrote: every decision is said, so that it can be mended."""

import json
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from slmlab import files
from slmlab.errors import LabError
from slmlab.language.languages import ANY, CODE, FILE, FOLDER, FROM_THE_TEXTS, Language, named_character
from slmlab.language.texts import lines_of, read_text

HEARD = ".,?!;:…"
"""Marks that are punctuation in any language; other scripts' own are known by what Unicode calls them."""
UNHEARD = "\"'#%&*@/\\†‡§¶"
"""What Unicode calls punctuation, and no reader hears."""
UNPARTED = 15
"""Letters between two spaces, a median, above which spaces part no words."""


def draft(code: str, name: str, texts: Sequence[str], licence: str) -> tuple[Language, list[str]]:
    """A language as its texts are written, and what was decided, a sentence each."""
    counts = Counter(unicodedata.normalize("NFC", "\n".join(texts)).lower())
    usual = {c for c in counts if ANY.normalise(f"a{c}a") != f"a{unicodedata.normalize('NFD', c)}a"}
    letters = sorted(c for c in counts if unicodedata.category(c)[0] in "LM")
    joiners = [c for c in counts if c in "\u200c\u200d"]
    marks = [c for c in counts if c not in usual | set(HEARD + UNHEARD) and unicodedata.category(c) == "Po"]
    others = [
        c
        for c in counts
        if unicodedata.category(c)[0] in "PS" and c not in {*usual, *marks, *HEARD, *UNHEARD, "-"}
    ]
    unread = [c for c in counts if c in UNHEARD.replace("'", "").replace('"', "")]
    digits = [text for text in texts if any(map(str.isdecimal, text))]
    runs = [len(run) for text in texts for run in text.split()]
    parted = statistics.median(runs or [0]) < UNPARTED
    decided = [
        f"letters: {len(letters)}, {' '.join(letters)}",
        *_told("joiners that are invisible are kept as letters", joiners, counts),
        f"punctuation: . , ? ! and {' '.join(marks)}" if marks else "punctuation: . , ? !",
        *_told("dropped, since no reader hears them", others, counts),
        *_told("refused until `signs` in language.toml says how they are read", unread, counts),
        "words: what stands between spaces" if parted else "words: each character one, for spaces part none",
    ]
    if digits:
        decided.append(f"numbers: {len(digits)} texts have digits, such as: {digits[0][:60]}")
    language = Language(
        code,
        name,
        letters="".join((*letters, *joiners)) or FROM_THE_TEXTS,
        punctuation=".,?!" + "".join(marks),
        ignore="".join(others),
        words="spaces" if parted else "characters",
        question_marks="?" + "".join(c for c in marks if "QUESTION" in unicodedata.name(c, "")),
        licence=licence,
    )
    return language, decided


def found(
    code: str, name: str, said: Sequence[str], more: Path | None, licence: str, voice: str
) -> tuple[Path, list[str]]:
    """Make the folder of a new language, from texts that were `said` and a file of `more`, if there is one.

    A folder that is there already stays as it is. Returned are the folder and what was decided.
    """
    folder = FOLDER / code
    if folder.exists():
        return folder, [f"{folder} is there already and stays as it is."]
    if not CODE.fullmatch(code):
        raise LabError(f"{code!r} is no code of a language: give two or three small letters of ISO 639.")
    texts = [line for line in lines_of(read_text(more)) if line.strip()] if more else []
    if not any(c.isalpha() for text in (*said, *texts) for c in text):
        raise LabError("no text has a letter: give recordings with transcripts, or --texts.")
    language, decided = draft(code, name or code, [*said, *texts], licence)
    spoken = f"voice: espeak-ng's {voice}" if voice else "voice: none; it speaks as its recordings do"
    files.replace_text(folder / FILE, as_toml(language, voice))
    if texts:
        files.replace_text(folder / "texts.txt", "\n".join(texts) + "\n")
    return folder, [*decided, spoken]


def as_toml(language: Language, voice: str = "") -> str:
    """What `language.toml` says of a drafted language; with a voice of espeak-ng, if it has one."""
    values = {
        field: getattr(language, field)
        for field in ("name", "letters", "punctuation", "ignore", "words", "question_marks", "licence")
    } | {"voice": voice}
    return "".join(
        f"{field} = {json.dumps(value, ensure_ascii=False)}\n" for field, value in values.items() if value
    )


def _told(what: str, characters: Iterable[str], counts: Counter[str]) -> list[str]:
    named = ", ".join(f"{named_character(c)} {counts[c]} times" for c in characters)
    return [f"{what}: {named}"] if named else []
