"""A language is data: a folder `data/languages/<code>/` with `language.toml` beside its texts or its grammar.

The file says how the language is written, cut into words and read aloud; `data/languages/README.md` explains
every field. Nothing here knows one language from another.
"""

import itertools
import os
import re
import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from slmlab import places
from slmlab.errors import LabError, import_extra
from slmlab.language.numbers import PLACE, Numbers
from slmlab.language.texts import lines_of, read_text

FOLDER = places.DATA / "languages"
FILE = "language.toml"
GRAMMAR = "grammar.toml"
MEANINGS = "meanings.toml"
CODE = re.compile(r"[a-z]{2,3}(-[A-Z][a-z]{3})?")
"""Two or three letters of ISO 639, with a script of ISO 15924 where a language has several: `sr-Cyrl`."""
FROM_THE_TEXTS = "from the texts"
QUESTIONS = {"rise": 1.0, "level": 0.0, "fall": -1.0}
"""What the voice does at the end of a question, as a factor of how far a lively speaker moves it."""

# What typesetters and telephones write, and what it means to a reader aloud.
_TYPOGRAPHY = (
    dict.fromkeys("’‘ʼ`´", "'")
    | dict.fromkeys("‐‑–—", "-")
    | {"…": ".", ";": ",", ":": ","}
    | dict.fromkeys('"“”„«»¿¡\u00ad\u200b\u200c\u200d\u2060\ufeff', "")
)


def _characters(text: str) -> list[str]:
    """Letters with their marks, one by one; spaces are left out."""
    clusters: list[str] = []
    for c in text.replace(" ", ""):
        if clusters and unicodedata.category(c)[0] == "M":
            clusters[-1] += c
        else:
            clusters.append(c)
    return clusters


def _thai(text: str) -> list[str]:
    """Thai words by PyThaiNLP's dictionary."""
    thai = import_extra("pythainlp.tokenize", "The cutter 'thai'", "pythainlp")
    return [word for word in thai.word_tokenize(text) if word.strip()]


CUTTERS: dict[str, Callable[[str], list[str]]] = {
    "spaces": str.split,
    "characters": _characters,
    "thai": _thai,
}
"""How a text is cut into the words that error rates count, by the name in `language.toml`."""
CHOICES: dict[str, Mapping[str, Any]] = {
    "words": CUTTERS,
    "questions": QUESTIONS,
    "decimal": dict.fromkeys(".,"),
    "respell": dict.fromkeys(("", "numbered pinyin")),
}


def _is_pattern(pattern: str, by: str) -> bool:
    with suppress(re.error, IndexError):
        return re.compile(pattern).sub(by, "") is not None
    return False


TABLES: dict[str, tuple[str, Callable[[str, str], bool]]] = {
    "replace": ("""{"ʻ" = "'"}""", lambda c, by: len(c) == 1),
    "capitals": ("""{"i" = "İ"}""", lambda c, by: len(c) == 1),
    "signs": (
        """{"%" = "{} percent", "&" = "and"}""",
        lambda sign, by: bool(sign) and len(PLACE.findall(by)) < 2,
    ),
    "spellings": ("""{"ck\\b" = "k"}""", _is_pattern),
}
"""Fields that are tables: an example, and whether a key goes with its value."""


@dataclass(frozen=True, eq=False)
class Language:
    """How a language is written, cut and read aloud; equal to itself alone, so that caches know it."""

    code: str
    """Name of its folder; empty for any language at all."""
    name: str
    """As people call it."""
    letters: str = FROM_THE_TEXTS
    """Lower-case letters, marks included; or `from the texts`."""
    punctuation: str = ".,?!"
    """Marks that a reader hears, besides apostrophe and hyphen."""
    ignore: str = ""
    """Characters that are dropped, besides quotes and invisible ones."""
    replace: dict[str, str] = field(default_factory=dict)
    """Characters that are written otherwise."""
    spellings: dict[str, str] = field(default_factory=dict)
    """Patterns of spellings, after NFD and in lower case, and the one spelling that they stand for."""
    signs: dict[str, str] = field(default_factory=dict)
    """Signs and how they are read: with `{}` for the number that they stand beside."""
    decimal: str = "."
    """What begins a fraction; the other one of `.` and `,` stands between thousands."""
    capitals: dict[str, str] = field(default_factory=dict)
    """Capitals of letters, where they are not the usual ones, such as the Turkish İ of i."""
    words: str = "spaces"
    """Name of a cutter, one of `CUTTERS`."""
    questions: str = "rise"
    """`rise`, `level` or `fall`: what the voice does at their end."""
    question_marks: str = "?"
    """What a question ends with."""
    voice: str = ""
    """Its voice in espeak-ng; empty if there is none."""
    respell: str = ""
    """How a text is spelt for that voice, one of `slmlab.corpus.engines.SPELLINGS`; empty for as it is."""
    licence: str = ""
    """Under what terms its texts may be used."""

    @property
    def folder(self) -> Path:
        """Where its texts lie."""
        return FOLDER / self.code

    @cached_property
    def has_grammar(self) -> bool:
        """Whether its sentences come from a grammar of ours, not from texts."""
        return (self.folder / GRAMMAR).exists()

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Its letters and marks as models read them: after NFD, letters first, in order of code points."""
        if self._own:
            return _sorted(_plain(self._own))
        return _sorted({c for _, _, line in self.lines() for c in self.normalise(line)} - set(self.breaks))

    @property
    def breaks(self) -> str:
        """What stands between words, and the marks that a reader hears."""
        return " '-" + self.punctuation

    @property
    def _own(self) -> str:
        """The letters, if the file has them."""
        return "" if self.letters == FROM_THE_TEXTS else self.letters

    @cached_property
    def _table(self) -> dict[int, str]:
        """Typography that the language does not use as letters or punctuation, then its own rules."""
        usual = {c: by for c, by in _TYPOGRAPHY.items() if c not in self.punctuation + self._own}
        return str.maketrans(usual | dict.fromkeys(self.ignore, "") | self.replace)

    @cached_property
    def _numbers(self) -> Numbers:
        return Numbers(self.code, self.decimal, self.signs, self.words == "spaces")

    def in_words(self, text: str) -> str:
        """A text in NFC with numbers and signs in words, as far as the language has rules for them."""
        return self._numbers.in_words(unicodedata.normalize("NFC", text))

    def normalise(self, text: str) -> str:
        """The spelling that alphabets read: numbers in words, NFD, lower case, plain quotes and dashes, one
        of several spellings, single spaces.
        """
        normal = _plain(self.in_words(text).translate(self._table))
        for pattern, by in self.spellings.items():
            normal = re.sub(pattern, by, normal)
        return " ".join(normal.split())

    def for_scoring(self, text: str) -> str:
        """The spelling in which error rates are taken: NFC, lower case, no punctuation but apostrophes."""
        own = "'" + self._own
        scored = (c if unicodedata.category(c)[0] in "LMN" or c in own else " " for c in self.normalise(text))
        return unicodedata.normalize("NFC", " ".join("".join(scored).split()))

    def cut(self, text: str) -> list[str]:
        """The words of a text that error rates count."""
        return CUTTERS[self.words](self.for_scoring(text))

    def counted_letters(self, text: str) -> str:
        """What character error rates count: with the spaces, where spaces part words."""
        return self.for_scoring(text) if self.words == "spaces" else "".join(self.cut(text))

    def capitalised(self, sentence: str) -> str:
        """A sentence with its first letter as a capital."""
        start = next(i for i, c in enumerate(sentence) if c.isalpha())
        first = self.capitals.get(sentence[start], sentence[start].upper())
        return sentence[:start] + first + sentence[start + 1 :]

    def is_question(self, text: str) -> bool:
        """Whether a text, or its last word, ends as questions do."""
        return text.rstrip("\"'»)").endswith(tuple(self.question_marks))

    def lines(self) -> list[tuple[Path, int, str]]:
        """File, number and text of every line of its text files that is not blank."""
        if not self.code:
            return []
        return [
            (path, number, line)
            for path in sorted(self.folder.glob("*.txt"))
            for number, line in enumerate(lines_of(read_text(path)), start=1)
            if line.strip()
        ]

    def content(self) -> list[str]:
        """All that its folder says, by which a change is noticed."""
        files = [self.folder / FILE, self.folder / GRAMMAR, *sorted(self.folder.glob("*.txt"))]
        return [read_text(path) for path in files if path.exists()]


ANY = Language("", "any language")
"""For texts whose language is not known: letters of every script, words between spaces."""


def codes() -> list[str]:
    """Codes of the languages that have a folder; LabError for one that is no code, or for two of one code."""
    names = sorted((path.parent.name for path in FOLDER.glob(f"*/{FILE}")), key=str.lower)
    for name, after in itertools.pairwise([*names, ""]):
        if name.lower() == after.lower():
            raise LabError(f"{FOLDER} has two folders of one code, {name} and {after}: keep one.")
        if not CODE.fullmatch(name):
            raise LabError(
                f"{FOLDER / name} is no language: its name must be a code of two or three small letters, "
                "with a script if need be, such as sw or sr-Cyrl."
            )
    return names


def find(code: str) -> Language:
    """The language of a code, or any language where it is empty; LabError if its folder is not there."""
    if not code:
        return ANY
    folder = FOLDER / code
    times = [file.stat().st_mtime_ns for file in os.scandir(folder)] if folder.is_dir() else []
    return _find(code, FOLDER, max(times, default=0))


@cache
def _find(code: str, folder: Path, changed: int) -> Language:
    """The language as its files were at the time `changed`."""
    if code not in codes():
        raise LabError(
            f"Language {code!r} is unknown: {folder} has {', '.join(codes())}. To add one, make the folder "
            f"{folder / code} with a {FILE} (see {folder / 'README.md'})."
        )
    path = folder / code / FILE
    language = parse(code, read_toml(path), str(path))
    check_letters(language)
    return language


def meaning(text: str, code: str) -> str:
    """What a sentence of a language says in English; nothing where its folder does not have it."""
    path = FOLDER / code / MEANINGS
    return str(read_toml(path).get(text, "")) if path.exists() else ""


def parse(code: str, values: dict[str, Any], source: str) -> Language:
    """A language from the values of its file; LabError names what is wrong."""
    names = [f.name for f in fields(Language) if f.name != "code"]
    if unknown := [name for name in values if name not in names]:
        raise LabError(
            f"{source}: there is no field {', '.join(unknown)}; the fields are {', '.join(names)}."
        )
    if "name" not in values:
        raise LabError(f"{source}: the field name is missing: say what the language is called.")
    for name, value in values.items():
        if name in TABLES:
            pairs = value.items() if isinstance(value, dict) else [("", 0)]
            example, fits = TABLES[name]
            if not all(isinstance(by, str) and fits(c, by) for c, by in pairs):
                raise LabError(f"{source}: {name} must be a table such as {example}.")
        elif not isinstance(value, str):
            raise LabError(f"{source}: {name} must be a text in quotes.")
        elif value not in (choices := CHOICES.get(name, {value: None})):
            known = ", ".join(filter(None, choices))
            raise LabError(f"{source}: {name} = {value!r} is unknown; expected one of {known}.")
    return Language(code=code, **values)


def check_letters(language: Language) -> None:
    """LabError where texts have characters that letters and punctuation lack: every line of theirs."""
    places: dict[str, list[str]] = {}
    known = {*language.symbols, *language.breaks}
    for path, number, line in language.lines():
        for c in set(language.normalise(line)) - known:
            places.setdefault(c, []).append(f"{path.name}, line {number}")
    if places:
        named = "; ".join(f"{named_character(c)} in {' and '.join(at)}" for c, at in sorted(places.items()))
        numbers = "Write numbers as words. " * any(map(str.isdecimal, places))
        raise LabError(
            f"Texts of {language.folder} have characters that {FILE} does not know: {named}. {numbers}Add "
            "letters and marks to letters or punctuation, or to ignore or replace."
        )


def named_character(c: str) -> str:
    """A character with its code point and name, for messages."""
    return f"'{c}' (U+{ord(c):04X} {unicodedata.name(c, 'unnamed')})"


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a file; LabError where it cannot be read."""
    try:
        return tomllib.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise LabError(f"{path} cannot be read as TOML in UTF-8 ({error}): mend it.") from None


def _plain(text: str) -> str:
    """NFD and lower case, without the dot that Turkish İ leaves."""
    lower = unicodedata.normalize("NFD", text).lower().replace("i\u0307", "i")
    return unicodedata.normalize("NFD", lower)


def _sorted(symbols: Iterable[str]) -> tuple[str, ...]:
    """Letters before marks, each in order of code points."""
    return tuple(sorted(set(symbols), key=lambda c: (unicodedata.category(c)[0] == "M", c)))
