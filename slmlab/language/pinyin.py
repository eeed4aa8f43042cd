"""Pinyin with its tones as numbers: the only spelling of Mandarin that espeak-ng reads."""

import re

from slmlab.language.text import normalise

# A syllable of pinyin, its tone taken off. No vowel follows a final consonant: xi-nan, not xin-an.
_SYLLABLE = re.compile(
    r"(?:[zcs]h|[bpmfdtnlgkhjqxrzcsyw])?"
    r"(?:(?:[iu]?ang|i?ong|[iu]?an|[ei]ng|van|ve|[eiuv]n|er)(?![aeiouv])|iao|uai|ia|ie|iu|ua|uo|ui|ue|ai|ei|ao|ou|[aoeiuv])"
)

_TONES = {"\u0304": "1", "\u0301": "2", "\u030c": "3", "\u0300": "4"}


def numbered_pinyin(text: str) -> str:
    """Pinyin with its tones as numbers after the syllables, the only spelling of it that espeak-ng reads.

    >>> numbered_pinyin("Wǒ de nǚ'ér xǐhuan lǜchá.")
    "wo3 de5 nv3er2 xi3huan5 lv4cha2."
    """
    return re.sub(
        r"[^\W\d_]+(?:[\u0300-\u030c]|[^\W\d_]|')*", lambda word: _numbered_word(word[0]), normalise(text)
    )


def _numbered_word(word: str) -> str:
    tones: dict[int, str] = {}
    letters = ""
    for c in word.replace("u\u0308", "v"):
        if c in _TONES:
            tones[len(letters) - 1] = _TONES[c]
        else:
            letters += c

    def numbered(syllable: re.Match[str]) -> str:
        tone = next((tones[i] for i in range(*syllable.span()) if i in tones), "5")
        return syllable[0] + tone

    return _SYLLABLE.sub(numbered, letters).replace("'", "")
