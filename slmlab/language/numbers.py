"""Numbers and signs in words: by CLDR's rules of a language, and by the signs that its folder names.

What can be read in two ways, or has no rule, stays as it is: whoever reads letters then refuses it by name.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache

from unicode_rbnf import RbnfEngine
from unicode_rbnf.engine import NoRuleForNumberError

SPACE = "[ \u00a0\u202f]"
NUMBER = rf"\d{{1,3}}(?:{SPACE}\d{{3}})+(?:[.,]\d+)?(?![.,:/]?\d)|\d+(?:[.,:/'’]\d+)*"
"""Digits with all that may stand among them: 12, 1.5, 2,000, 2 000; also 10:30 and 12/5/2020."""
PLACE = re.compile(r"\{([a-z-]*)\}")
YEARS = range(1100, 2100)
"""Four digits in a row that are read as a year is, where a language reads years in their own way."""
MOST_DIGITS, MOST_OF_FRACTION = 15, 6
"""Above it rules end, or rounding begins."""


class Numbers:
    """How one language reads numbers and signs."""

    def __init__(self, code: str, decimal: str, signs: Mapping[str, str], parted: bool) -> None:
        """`decimal` begins a fraction; `signs` are as in `language.toml`; spaces part words, if `parted`."""
        self._code, self._decimal, self._parted = code, decimal, parted
        self._signs = {sign.lower(): said for sign, said in signs.items()}
        beside = self._any(sign for sign, said in signs.items() if PLACE.search(said))
        alone = [sign for sign, said in signs.items() if not PLACE.search(said)]
        starts = {
            c for sign in alone if not re.search(r"\d", sign) for c in sign[0].lower() + sign[0].upper()
        }
        self._hint = re.compile(rf"[\d{re.escape(''.join(sorted(starts)))}]")  # most texts have neither
        whole = self._any(alone)
        self._pattern = re.compile(
            rf"(?P<whole>{whole})(?!\d)|(?:(?P<before>{beside})\.?{SPACE}?)?(?P<minus>(?<!\S)[-−])?"
            rf"(?P<number>{NUMBER})(?:(?:{SPACE}(?!(?:{beside}){SPACE}?\d))?(?P<after>{beside}))?",
            re.IGNORECASE,
        )

    def in_words(self, text: str) -> str:
        """A text with the numbers and signs that can be read in words."""
        return self._pattern.sub(self._said, text) if self._hint.search(text) else text

    def _any(self, signs: Iterable[str]) -> str:
        """A pattern for one of some signs, the longest first, where they are no part of a word."""
        start, end = ("(?<![^\\W\\d_])", "(?![^\\W\\d_])") if self._parted else ("", "")
        escaped = (
            start * sign[0].isalpha() + re.escape(sign) + end * sign[-1].isalpha()
            for sign in sorted(signs, key=len, reverse=True)
        )
        return "|".join(escaped) or "(?!)"

    def _said(self, match: re.Match[str]) -> str:
        text, (start, end) = match.string, match.span()
        before, after = text[start - 1 : start], text[end : end + 1]
        if match["whole"]:
            said = self._signs[match["whole"].lower()]
        elif self._parted and (before.isalpha() or after.isalpha()):
            return match[0]  # part of a name, or an ordinal without a sign
        else:
            said = self._number(match)
        if not said:
            return match[0]
        return " " * (self._parted and before.isalnum()) + said + " " * (self._parted and after.isalnum())

    def _number(self, match: re.Match[str]) -> str:
        """Words of a number with what stands before and after it; nothing where there are none."""
        value = self._value(match["number"])
        if not value or (match["minus"] and "." in value):
            return ""
        signs = [self._signs[match[side].lower()] for side in ("before", "after") if match[side]]
        places = [PLACE.findall(sign)[0] for sign in signs]
        said = _spelt(self._code, ("-" if match["minus"] else "") + value, places[0] if places else "")
        for sign in dict.fromkeys(signs if said else ()):
            said = PLACE.sub(said, sign)
        return said

    def _value(self, number: str) -> str:
        """Plain digits, with a point before a fraction; nothing where the language writes no such number."""
        whole, mark, fraction = number.partition(self._decimal)
        group = "." if self._decimal == "," else ","
        digits = "".join(str(int(c)) for c in whole if c.isdecimal())
        written = re.fullmatch(rf"\d+|\d{{1,3}}([{group} \u00a0\u202f'’])\d{{3}}(?:\1\d{{3}})*", whole)
        if not written or len(digits) > MOST_DIGITS or (len(digits) > 1 and digits[0] == "0"):
            return ""
        if not mark:
            return digits
        is_thousand = len(fraction) == 3 and whole == digits and 0 < int(digits) < 1000  # 2,000 as 2.000
        if not fraction.isdecimal() or len(fraction) > MOST_OF_FRACTION or is_thousand:
            return ""
        return f"{digits}.{''.join(str(int(c)) for c in fraction)}"


@cache
def _rules(code: str) -> RbnfEngine | None:
    """CLDR's rules of a language; None where it has none."""
    for name in (code.replace("-", "_"), code.partition("-")[0]):
        if name in RbnfEngine.get_supported_languages():
            return RbnfEngine.for_language(name)
    return None


def _spelt(code: str, value: str, rules: str) -> str:
    """A number by CLDR's rules `spellout-…`, the usual ones unless named; nothing where it has no words."""
    engine = _rules(code)
    if not rules and re.fullmatch(r"\d{4}", value) and int(value) in YEARS:
        rules = "numbering-year"
    try:
        names = [f"spellout-{rules}"] if rules else None
        said = engine.format_number(value, ruleset_names=names).text if engine else ""
    except (NoRuleForNumberError, ValueError):
        return ""
    return "" if re.search(r"\d", said) else said
