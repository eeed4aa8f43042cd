"""Text as the models read it: characters after Unicode NFD, no phonemes.

A Vietnamese tone mark is a symbol of its own here, not part of one of 134 letters; ids are what the language
model and the recognisers see, and `for_scoring` is the one spelling in which error rates are taken.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from slmlab.errors import LabError

LANGUAGE_NAMES = {
    "vi": "Vietnamese",
    "sw": "Swahili",
    "es": "Spanish",
    "it": "Italian",
    "id": "Indonesian",
    "tr": "Turkish",
    "cmn": "Mandarin Chinese in pinyin",
}
LANGUAGES = tuple(LANGUAGE_NAMES)
TARGET_LANGUAGES = LANGUAGES[:2]
BACKBONE_LANGUAGES = LANGUAGES[2:]

MARKS = {
    "\u0300": "grave",
    "\u0301": "acute",
    "\u0302": "circumflex",
    "\u0303": "tilde",
    "\u0304": "macron",
    "\u0306": "breve",
    "\u0308": "diaeresis",
    "\u0309": "hook above",
    "\u030c": "caron",
    "\u031b": "horn",
    "\u0323": "dot below",
    "\u0327": "cedilla",
}
PUNCTUATION = ".,?!"

# What typesetters and telephones write, and what it means to a reader aloud.
_TYPOGRAPHY = str.maketrans(
    {
        "’": "'",
        "‘": "'",
        "ʼ": "'",
        "`": "'",
        "´": "'",
        "‐": "-",
        "‑": "-",
        "–": "-",
        "—": "-",
        "…": ".",
        ";": ",",
        ":": ",",
    }
    | dict.fromkeys('"“”„«»¿¡\u00ad\u200b\u200c\u200d\u2060\ufeff', "")
)


def normalise(text: str) -> str:
    """The spelling that the alphabet reads: NFD, lower case, plain quotes and dashes, single spaces.

    >>> [unicodedata.name(c) for c in normalise("  Ế ")]
    ['LATIN SMALL LETTER E', 'COMBINING CIRCUMFLEX ACCENT', 'COMBINING ACUTE ACCENT']
    """
    plain = unicodedata.normalize("NFC", text).translate(_TYPOGRAPHY)
    lower = unicodedata.normalize("NFD", plain).lower().replace("i\u0307", "i")  # Turkish İ
    return " ".join(unicodedata.normalize("NFD", lower).split())


def for_scoring(text: str) -> str:
    """The spelling in which error rates are taken: NFC, lower case, no punctuation but apostrophes.

    Letters and digits of every script stay, so that texts of any language can be compared.

    >>> for_scoring("Chị Hà ơi, mấy giờ rồi?")
    'chị hà ơi mấy giờ rồi'
    """
    kept = (c if unicodedata.category(c)[0] in "LMN" or c == "'" else " " for c in normalise(text))
    return unicodedata.normalize("NFC", " ".join("".join(kept).split()))


@dataclass(frozen=True)
class Alphabet:
    """The characters a model knows, and the whole number that stands for each."""

    symbols: tuple[str, ...]
    """In the order of their ids, which begin at 1: id 0 is padding, and the blank of CTC."""

    def __len__(self) -> int:
        """How many ids there are, 0 included."""
        return len(self.symbols) + 1

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.symbols, start=1)}

    def encode(self, text: str) -> list[int]:
        """Ids of the normalised text; LabError when it holds no letter, or a character the alphabet lacks."""
        return self._look_up(normalise(text), text)

    def encode_spoken(self, text: str) -> list[int]:
        """Ids of what is said aloud: letters, marks, apostrophes and single spaces; the targets of CTC."""
        self.encode(text)
        return self._look_up(unicodedata.normalize("NFD", for_scoring(text)), text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids, in NFC; zeros are skipped."""
        return unicodedata.normalize("NFC", "".join(self.symbols[i - 1] for i in ids if i))

    def _look_up(self, normal: str, original: str) -> list[int]:
        foreign = [c for c in dict.fromkeys(normal) if c not in self._ids]
        if foreign:
            named = ", ".join(f"'{c}' (U+{ord(c):04X} {unicodedata.name(c, 'unnamed')})" for c in foreign)
            raise LabError(
                f"Text {_short(original)} has characters outside the alphabet: {named}; {_advice(foreign)}."
            )
        if not any(c.isalpha() for c in normal):
            raise LabError(
                f"Text {_short(original)} has nothing to say: found no letter, expected words; write one."
            )
        return [self._ids[c] for c in normal]


def _advice(foreign: list[str]) -> str:
    kinds = {unicodedata.category(c)[0] for c in foreign}
    by_kind = {
        "N": "write numbers as words",
        "L": "write the words in the Latin letters of " + ", ".join(LANGUAGE_NAMES.values()),
        "M": "spell without these marks" if "L" not in kinds else "",
        "S": "write symbols as words",
        "P": "leave out this punctuation or write it as a word",
        "C": "remove the invisible control characters",
    }
    return " and ".join(advice for kind, advice in by_kind.items() if kind in kinds and advice)


def _short(text: str, limit: int = 60) -> str:
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return f"'{shown}'"


TINY = Alphabet((" ", "'", "-", *PUNCTUATION, *"abcdefghijklmnopqrstuvwxyz", "đ", "ı", *MARKS))


def as_string(tokens: Sequence[int]) -> str:
    """Speech tokens as a tokeniser with one symbol a token, such as TRL's, reads them.

    >>> as_string([12, 0])
    '<|s_12|><|s_0|>'
    """
    return "".join(f"<|s_{token}|>" for token in tokens)
