"""Sentences of a language, from its grammar or its texts, and the split that each belongs to.

`data/languages/<code>/` has a grammar (`grammar.toml`: words and templates; the README beside the folders
explains them) or texts (`*.txt`, a sentence a line). Places of a template are filled at random; agreeing
words follow their noun. Every sentence falls into exactly one split, by a hash of its spelling. Of a grammar
a tenth of the content words is held out: the language model's sentences have none of them, to tell reading
from reciting.
"""

import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import Any

from slmlab.errors import LabError
from slmlab.files import fraction
from slmlab.language import languages
from slmlab.language.languages import GRAMMAR, Language
from slmlab.language.text import alphabet_of, for_scoring
from slmlab.language.texts import lines_of, read_text

SEEN_SPLITS = {"lm": 60, "parts": 15, "judge_a": 8, "judge_b": 8, "dev": 3, "test": 6}
"""Of a hundred sentences of a grammar without a held-out word, or of a text."""
HELD_OUT_SPLITS = {"judge_a": 20, "judge_b": 20, "unseen": 60}
"""Of a hundred sentences with one."""
SPLITS = tuple(dict.fromkeys([*SEEN_SPLITS, *HELD_OUT_SPLITS]))

HELD_OUT_SHARE = 0.10
MIN_WORDS, MAX_WORDS = 3, 14
N_USUAL = 600
"""Sentences that show how a language is spelt."""
MAX_TRIES = 20_000
"""Sentences drawn in a row without a new one after which there is none."""

PLACE = re.compile(r"\{(?:(\w+)=)?(\w+)(?:@(\w+)|\.(\w+))?\}")
FORM = re.compile(r"\{(\w+)\.([^}]+)\}")
ROMAN = re.compile(r"\b(?=[IVX]{2})X{0,3}(?:IX|IV|V?I{0,3})\b")


@dataclass(frozen=True)
class Entry:
    """One filler: a word of the lexicon, or a template, which is a phrase or a sentence with places.

    `{food}` is filled from the list of that name, `{x=food}` too and called x; `{colour@x}` by a word in the
    form that agrees with x; `{x.my}` is the form that row `my` of the agreement table has for x. The hyphen
    before a word marks a stem that takes prefixes. `agreement` is its class, a column of that table; None
    takes the class of the first filler.
    """

    text: str
    agreement: str | None
    is_word: bool


@dataclass(frozen=True)
class Grammar:
    """Words and templates of one language, as read from its file.

    `lists` has fillers by name; `sentence` is the root. The agreement table has the forms of a word or
    concord in `rows`, and the place of each class in a row in `columns`. `focus` are names and number words,
    single tokens as `for_scoring` spells them.
    """

    language: Language
    lists: dict[str, tuple[Entry, ...]]
    columns: dict[str, int]
    rows: dict[str, tuple[str, ...]]
    focus: frozenset[str]

    @cached_property
    def content_words(self) -> frozenset[str]:
        """Every word of the lexicon."""
        return frozenset(e.text for entries in self.lists.values() for e in entries if e.is_word)

    @cached_property
    def held_out_words(self) -> frozenset[str]:
        """The tenth of the content words that only the judges and `unseen` know: the first by their hashes.

        Each has in all its forms a token that no other word or template has, or reading it would be reciting
        in part; no list gives up more than a fifth of its words, so that every template can still be filled.
        """
        templates = {e.text for listed in self.lists.values() for e in listed if not e.is_word}
        spelt = [for_scoring(text) for template in templates for text in re.split(r"\{[^}]*\}", template)]
        texts = {w: [for_scoring(form) for form in self.forms(w)] for w in self.content_words}
        members = [{e.text for e in listed if e.is_word} for listed in self.lists.values()]
        chosen: list[str] = []
        for word in sorted(texts, key=lambda w: fraction(f"{self.language.code} held out: {w}")):
            if len(chosen) >= round(HELD_OUT_SHARE * len(texts)):
                break
            elsewhere = [*spelt, *(text for other, forms in texts.items() if other != word for text in forms)]
            tokens = {token for text in elsewhere for token in text.split()}
            is_new = all(set(form.split()) - tokens for form in texts[word])
            within = self.pattern([word])
            roomy = all(len(m) // 5 > len(m.intersection(chosen)) for m in members if word in m)
            if roomy and is_new and not any(within.search(text) for text in elsewhere):
                chosen.append(word)
        return frozenset(chosen)

    @cached_property
    def held_out_pattern(self) -> re.Pattern[str]:
        """Finds a held-out word, in any of its forms, in a text spelt by `for_scoring`."""
        return self.pattern(self.held_out_words)

    def forms(self, word: str) -> tuple[str, ...]:
        """Every spelling in which a content word can appear."""
        return tuple(dict.fromkeys(f for f in self.rows.get(word, (word,)) if f != "-"))

    def pattern(self, words: Iterable[str]) -> re.Pattern[str]:
        """A pattern for any form of the words as whole tokens; of a stem, as the end of a token."""
        spellings = {
            r"\S*" * f.startswith("-") + re.escape(for_scoring(f)) for w in words for f in self.forms(w)
        }
        return re.compile(rf"(?<!\S)(?:{'|'.join(sorted(spellings))})(?!\S)" if spellings else r"(?!)")

    def sample(self, rng: random.Random) -> str | None:
        """One random sentence; None when it repeats a content word or is too short or too long."""
        words: list[str] = []
        text, _ = self._fill("sentence", rng, words)
        tokens = re.sub(r"\s+([.,?!])", r"\1", text).split()
        if len(set(words)) < len(words) or not MIN_WORDS <= len(tokens) <= MAX_WORDS:
            return None
        return self.language.capitalised(" ".join(tokens))

    def _fill(self, source: str, rng: random.Random, words: list[str]) -> tuple[str, str | None]:
        """Text of a random filler of a list and its agreement class; appends the content words it used."""
        entries = self.lists[source]
        entry = entries[int(rng.random() * len(entries))]
        if entry.is_word:
            words.append(entry.text)
            return entry.text, entry.agreement
        classes: dict[str, str | None] = {}
        agreement = entry.agreement

        def filled(place: re.Match[str]) -> str:
            nonlocal agreement
            name, source, agrees_with, row = place.groups()
            if row:
                return place[0]
            text, of_text = self._fill(source, rng, words)
            classes[name or source], agreement = of_text, agreement or of_text
            return f"{{{agrees_with}.{text}}}" if agrees_with else text.removeprefix("-")

        text = PLACE.sub(filled, entry.text)
        return FORM.sub(lambda form: self._form(form[2], classes.get(form[1], form[1])), text), agreement

    def _form(self, row: str, column: str | None) -> str:
        try:
            form = self.rows[row][self.columns[str(column)]]
        except (KeyError, IndexError):
            form = "-"
        if form == "-":
            raise LabError(
                f"{self.language.code}/{GRAMMAR}: '{row}' has no form in agreement class '{column}'; add it "
                "to [agreement], or do not join the two."
            )
        return form


def stream(language: str, split: str, seed: int) -> Iterator[str]:
    """All distinct sentences of one split, in random order; equal arguments give equal orders."""
    if split not in SPLITS:
        raise LabError(f"Split '{split}' is unknown; expected one of {', '.join(SPLITS)}.")
    rng, known = random.Random(f"{language} {split} {seed}"), languages.find(language)
    chosen: set[str] = set()
    tries = 0
    for sentence in _drawn(known, rng):
        normal = known.normalise(sentence)
        if normal and normal not in chosen and _belongs(known, normal, split):
            chosen.add(normal)
            tries = 0
            yield sentence
        elif (tries := tries + 1) == MAX_TRIES:
            return


def sentences(language: str, split: str, n: int, seed: int) -> list[str]:
    """n distinct sentences of one split, in random order; equal arguments give equal lists.

    LabError for an unknown language or split, or when its grammar or texts do not hold that many.
    """
    chosen = list(islice(stream(language, split, seed), n))
    if len(chosen) < n:
        raise LabError(
            f"{language}, split '{split}': asked for {n} sentences, found {len(chosen)}; ask for fewer, or "
            f"add words to {GRAMMAR} or sentences to the texts in {languages.find(language).folder}."
        )
    return chosen


def count(language: str, split: str) -> int:
    """How many different sentences of the language's texts a split has."""
    known = languages.find(language)
    lines = {known.normalise(line) for _, _, line in known.lines()}
    return sum(_belongs(known, line, split) for line in lines)


def split_of(language: str, sentence: str) -> str:
    """The one split of a sentence: by a hash of its normalised form and whether it has a held-out word."""
    known = languages.find(language)
    return next(split for split in SPLITS if _belongs(known, known.normalise(sentence), split))


def share_of(text: str, shares: Mapping[str, int]) -> str:
    """Which of some shares, in parts of a hundred, a text falls into: by its hash, always the same."""
    point, ends = 100 * fraction(text), accumulate(shares.values())
    return next(name for name, end in zip(shares, ends, strict=True) if point < end)


def unlike(text: str, language: str) -> str:
    """A doubt whether a text is of a language, or nothing.

    It is raised where a third of the words or more have neighbouring letters, or a first or last one, that no
    word of the language's own sentences has: so it is of one in thirty sentences of Swahili, and of most
    others. Languages without sentences of their own, or without spaces, are not doubted.
    """
    known, usual = languages.find(language), _neighbours(language)
    words = for_scoring(text, language).split()
    odd = [word for word in words if not usual.issuperset(pairwise(f" {word} "))]
    if not usual or known.words != "spaces" or 3 * len(odd) < len(words) or not odd:
        return ""
    few = ", ".join(odd[:3])
    return f"Is it {known.name}? {len(odd)} of {len(words)} words are not spelt like its words: {few}"


@cache
def _neighbours(language: str) -> frozenset[tuple[str, str]]:
    """Letters that are neighbours in words of a language's sentences, or first or last (beside a space)."""
    texts = list(islice(stream(language, "lm", 0), N_USUAL))
    words = {word for text in texts for word in for_scoring(text, language).split()}
    return frozenset(pair for word in words for pair in pairwise(f" {word} ") if len(texts) == N_USUAL)


def focus_words(language: str) -> frozenset[str]:
    """Names and number words, as `for_scoring` spells them: what a lively speaker stresses."""
    known = languages.find(language)
    return load_grammar(known).focus if known.has_grammar else frozenset()


def from_file(path: Path | str, language: str) -> list[str]:
    """The lines of a text file of the user's, one sentence each, numbers in words, blank lines skipped.

    LabError names the file and every line that the language's letters do not read, with its characters and
    what to write.
    """
    path, alphabet, faults = Path(path), alphabet_of([language]), []
    known = languages.find(language)
    lines = {i: known.in_words(line) for i, line in enumerate(lines_of(read_text(path)), start=1)}
    lines = {i: " ".join(line.split()) for i, line in lines.items() if line.strip()}
    if not lines:
        raise LabError(f"{path}: the file is empty; expected UTF-8 text with one sentence a line.")
    for number, line in lines.items():
        try:
            alphabet.encode_spoken(line, language)
            check_roman(line)
        except LabError as error:
            faults.append(f"line {number}: {error}")
    if faults:
        raise LabError(f"{path}, {'; '.join(fault.rstrip('.') for fault in faults)}.")
    return list(lines.values())


def check_roman(text: str) -> None:
    """LabError for a number in Roman letters, unless all is in capitals: it would be read as a word."""
    if (roman := ROMAN.search(text)) and not text.isupper():
        raise LabError(f"'{roman[0]}' is read as a word: write numbers as words.")


@cache
def load_grammar(language: Language) -> Grammar:
    """The grammar of a language, read once; LabError names what is wrong in its file."""
    path = language.folder / GRAMMAR
    tables = languages.read_toml(path)
    try:
        return parse_grammar(language, tables)
    except LabError as error:
        raise LabError(f"{path}: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        told = f"{path} is no grammar ({error!r}): see {languages.FOLDER / 'README.md'}."
        raise LabError(told) from None


def parse_grammar(language: Language, tables: Mapping[str, Any]) -> Grammar:
    """A grammar from the tables of its file."""
    agreement = {name: tuple(row.split()) for name, row in tables.get("agreement", {}).items()}
    columns = {name: i for i, name in enumerate(agreement.pop("columns", ()))}
    rows = {
        row.replace("_", " "): tuple(f.replace("_", " ") for f in forms) for row, forms in agreement.items()
    }
    lists = {
        name: tuple(_entry(word, True) for word in re.split(r"\s*,\s*", text.strip().rstrip(",")))
        for name, text in tables["lexicon"].items()
    }
    lists |= {name: tuple(_entry(text, False) for text in texts) for name, texts in tables["grammar"].items()}
    focus = tables["focus"]
    spoken = [entry.text for name in focus["lists"] for entry in lists[name]] + focus["numbers"].split()
    stressed = frozenset(token for text in spoken for token in for_scoring(text).split())
    grammar = Grammar(language, lists, columns, rows, stressed)
    for row, forms in rows.items():
        if len(forms) > len(columns):
            raise LabError(
                f"[agreement] '{row}' has {len(forms)} forms for {len(columns)} columns; remove some."
            )
    for name, entries in lists.items():
        for entry in entries:
            if fault := _fault(entry.text, grammar):
                raise LabError(f"'{name}' {fault}.")
    return grammar


def _entry(text: str, is_word: bool) -> Entry:
    spelling, _, agreement = text.partition("/")
    return Entry(spelling, agreement or None, is_word)


def _fault(template: str, grammar: Grammar) -> str:
    """What is wrong with a template, or nothing."""
    if re.search("[{}]", PLACE.sub("", template)):
        return f"has a stray brace in '{template}'; write {{list}}, {{x=list}}, {{word@x}} or {{x.row}}"
    places = [place.groups() for place in PLACE.finditer(template)]
    fillers = {name or source for name, source, _, row in places if not row}
    for _, source, _, row in places:
        if not row and source not in grammar.lists:
            return f"uses the list '{source}', which does not exist; add or rename it"
        if row and source not in fillers | set(grammar.columns):
            return f"uses '{{{source}.{row}}}' without a slot '{source}'; add one"
        if row and row not in grammar.rows:
            return f"uses the agreement row '{row}', which does not exist; add it"
    return ""


def _drawn(language: Language, rng: random.Random) -> Iterator[str]:
    """Sentences in random order: of a grammar without end, and again and again; each line of the texts."""
    if not language.has_grammar:
        lines = [language.in_words(line.strip()) for _, _, line in language.lines()]
        yield from rng.sample(lines, len(lines))
        return
    grammar = load_grammar(language)
    while True:
        yield grammar.sample(rng) or ""


def _belongs(language: Language, normal: str, split: str) -> bool:
    name = f"{language.code}: {normal}"
    if_seen, if_held_out = (share_of(name, shares) == split for shares in (SEEN_SPLITS, HELD_OUT_SPLITS))
    if if_seen == if_held_out or not language.has_grammar:
        return if_seen
    held_out = load_grammar(language).held_out_pattern.search(language.for_scoring(normal))
    return if_held_out == bool(held_out)
