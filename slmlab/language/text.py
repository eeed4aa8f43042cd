"""Text as the models read it: characters after Unicode NFD, no phonemes.

A Vietnamese tone mark is a symbol of its own here, not part of one of 134 letters. An alphabet's ids are what
the language model and the recognisers see. How a language is spelt, its folder says (see `languages`); the
functions here take its code, and without one serve any language whose words stand between spaces.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from slmlab.errors import LabError
from slmlab.language import languages
from slmlab.language.languages import named_character

FULL_STOPS = ".。।။።։۔។།᠃"
"""What ends a statement, of all scripts: a language has those that are among its punctuation."""


def normalise(text: str, language: str = "") -> str:
    """The spelling that alphabets read: NFD, lower case, plain quotes and dashes, single spaces.

    >>> [unicodedata.name(c) for c in normalise("  Ế ")]
    ['LATIN SMALL LETTER E', 'COMBINING CIRCUMFLEX ACCENT', 'COMBINING ACUTE ACCENT']
    """
    return languages.find(language).normalise(text)


def ended(text: str, language: str = "") -> str:
    """A text with an end: where it breaks off at a word or a comma, the language's full stop is added.

    Without one, networks that learnt whole sentences go on speaking. A language has none if its punctuation
    or its texts have none.

    >>> ended("Mama anapika"), ended("Mama anapika,"), ended("Mama anapika?")
    ('Mama anapika.', 'Mama anapika.', 'Mama anapika?')
    """
    known = languages.find(language)
    normal, stop = known.normalise(text), next((c for c in known.punctuation if c in FULL_STOPS), "")
    pauses = {"-", " ", *(c for c in known.punctuation if "COMMA" in unicodedata.name(c, ""))}
    has_end = normal[-1:] in {*known.punctuation} - pauses
    if has_end or not stop or not any(map(str.isalpha, normal)):
        return text
    lines = [line.strip() for _, _, line in known.lines()]
    if lines and not any(line.endswith(stop) for line in lines):
        return text
    while known.normalise(text)[-1:] in pauses:
        text = text[:-1]
    return text.rstrip() + stop


def for_scoring(text: str, language: str = "") -> str:
    """The spelling in which error rates are taken: letters and digits of every script, and apostrophes.

    >>> for_scoring("Chị Hà ơi, mấy giờ rồi?")
    'chị hà ơi mấy giờ rồi'
    """
    return languages.find(language).for_scoring(text)


def words_of(text: str, language: str = "") -> list[str]:
    """The words that error rates count, cut as the language says.

    >>> words_of("Mama anapika, baba anaimba!")
    ['mama', 'anapika', 'baba', 'anaimba']
    """
    return languages.find(language).cut(text)


@dataclass(frozen=True)
class Alphabet:
    """The characters a network knows, and the whole number that stands for each."""

    symbols: tuple[str, ...]
    """In the order of their ids, which begin at 1: id 0 is padding, and the blank of CTC."""

    def __len__(self) -> int:
        """How many ids there are, 0 included."""
        return len(self.symbols) + 1

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.symbols, start=1)}

    def encode(self, text: str, language: str = "") -> list[int]:
        """Ids of the normalised text; LabError when it holds no letter, or a character the alphabet lacks."""
        return self._look_up(normalise(text, language), text)

    def encode_spoken(self, text: str, language: str = "") -> list[int]:
        """Ids of what is said aloud: letters, marks, apostrophes and single spaces; the targets of CTC."""
        self.encode(text, language)
        return self._look_up(unicodedata.normalize("NFD", for_scoring(text, language)), text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids, in NFC; zeros are skipped."""
        return unicodedata.normalize("NFC", "".join(self.symbols[i - 1] for i in ids if i))

    def with_language(self, code: str) -> "Alphabet":
        """This alphabet and, behind it, what a language has that is new."""
        added = alphabet_of([code]).symbols
        return Alphabet(tuple(dict.fromkeys((*self.symbols, *added))))

    def _look_up(self, normal: str, original: str) -> list[int]:
        foreign = [c for c in dict.fromkeys(normal) if c not in self._ids]
        if foreign:
            named = ", ".join(map(named_character, foreign))
            raise LabError(
                f"Text {_short(original)} has characters outside the alphabet: {named}; "
                f"{self._advice(foreign)}."
            )
        if not any(c.isalpha() for c in normal):
            raise LabError(
                f"Text {_short(original)} has nothing to say: found no letter, expected words; write one."
            )
        return [self._ids[c] for c in normal]

    def _advice(self, foreign: list[str]) -> str:
        kinds = {unicodedata.category(c)[0] for c in foreign}
        letters = "".join(c for c in self.symbols if c.isalpha())
        by_kind = {
            "N": "write numbers as words",
            "L": f"this network reads {_short(letters)}: choose the language of the text, or let the network "
            "adopt it (`slmlab train lm.CODE`)",
            "M": "spell without these marks" if "L" not in kinds else "",
            "S": "write symbols as words",
            "P": "leave out this punctuation or write it as a word",
            "C": "remove the invisible control characters",
        }
        return " and ".join(advice for kind, advice in by_kind.items() if kind in kinds and advice)


def alphabet_of(codes: Sequence[str]) -> Alphabet:
    """The alphabet of some languages: space, apostrophe, hyphen, punctuation, letters, then marks."""
    every = [languages.find(code) for code in codes]
    breaks = dict.fromkeys(" '-" + "".join(language.punctuation for language in every))
    letters = languages._sorted(c for language in every for c in language.symbols)
    return Alphabet((*breaks, *(c for c in letters if c not in breaks)))


def _short(text: str, limit: int = 60) -> str:
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return f"'{shown}'"
