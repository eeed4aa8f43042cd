"""Sentences of a language, from its grammar or its texts, and the split that each belongs to.

`data/languages/<code>/` has a grammar (`grammar.toml`: words and templates; the README beside the folders
explains them) or texts (`*.txt`, a sentence a line). Slots of a template are filled at random; agreeing words
follow their noun. Every sentence falls into exactly one split, by a hash of its spelling. Of a grammar a
tenth of the content words is held out: the language model's sentences have none of them, to tell reading from
reciting.
"""

import random
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from slmlab.errors import LabError
from slmlab.files import fraction
from slmlab.language import languages
from slmlab.language.languages import GRAMMAR, Language
from slmlab.language.text import alphabet_of, for_scoring

SEEN_SPLITS = {"lm": 60, "parts": 15, "judge_a": 8, "judge_b": 8, "dev": 3, "test": 6}
"""Of a hundred sentences of a grammar without a held-out word, or of a text."""
HELD_OUT_SPLITS = {"judge_a": 20, "judge_b": 20, "unseen": 60}
"""Of a hundred sentences with one."""
SPLITS = tuple(dict.fromkeys([*SEEN_SPLITS, *HELD_OUT_SPLITS]))

HELD_OUT_SHARE = 0.10
MIN_WORDS, MAX_WORDS = 3, 14


@dataclass(frozen=True)
class Slot:
    """A place in a template that a list of words or phrases fills: `{food}`, `{x=food}` or `{colour@x}`."""

    source: str
    """Name of the list."""
    name: str
    """What the rest of the template calls the filler; the list's name unless another is given."""
    agrees_with: str | None
    """A named filler, or a column of the agreement table; the word picked takes that form."""


@dataclass(frozen=True)
class Concord:
    """A place in a template that depends on a filler's class alone: `{x.my}`."""

    name: str
    """The filler."""
    row: str
    """Which row of the agreement table."""


@dataclass(frozen=True)
class Entry:
    """One filler: a word of the lexicon, or a phrase or whole sentence of the grammar."""

    parts: tuple[str | Slot | Concord, ...]
    """What it is made of, in order."""
    agreement: str | None
    """Its class, a column of the agreement table; None takes the class of the first slot."""
    is_word: bool
    """Whether it comes from the lexicon."""


@dataclass(frozen=True)
class Grammar:
    """Words and templates of one language, as read from its file."""

    language: str
    """Code of the language."""
    lists: dict[str, tuple[Entry, ...]]
    """Fillers by name of list; `sentence` is the root."""
    columns: dict[str, int]
    """Agreement classes and their places in a row."""
    rows: dict[str, tuple[str, ...]]
    """Agreement table: a word or concord to its forms, column by column."""
    focus: frozenset[str]
    """Names and number words, single tokens as `for_scoring` spells them."""

    @cached_property
    def content_words(self) -> frozenset[str]:
        """Every word of the lexicon; a leading hyphen marks a stem that takes prefixes."""
        return frozenset(str(e.parts[0]) for entries in self.lists.values() for e in entries if e.is_word)

    @cached_property
    def held_out_words(self) -> frozenset[str]:
        """The tenth of the content words that only the judges and the `unseen` split know."""
        return frozenset(_choose_held_out(self))

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

    def variety(self, source: str = "sentence") -> int:
        """In how many ways the list can be filled: an upper bound on the number of its distinct phrases."""
        total = 0
        for entry in self.lists[source]:
            ways = 1
            for part in entry.parts:
                ways *= self.variety(part.source) if isinstance(part, Slot) else 1
            total += ways
        return total

    def sample(self, rng: random.Random) -> str | None:
        """One random sentence; None when it repeats a content word or is too short or too long."""
        words: list[str] = []
        text, _ = self._fill(self.lists["sentence"], rng, words)
        tokens = re.sub(r"\s+([.,?!])", r"\1", text).split()
        if len(set(words)) < len(words) or not MIN_WORDS <= len(tokens) <= MAX_WORDS:
            return None
        return languages.find(self.language).capitalised(" ".join(tokens))

    def _fill(
        self, entries: tuple[Entry, ...], rng: random.Random, words: list[str]
    ) -> tuple[str, str | None]:
        """Text of a random filler and its agreement class; appends the content words it used."""
        entry = entries[int(rng.random() * len(entries))]
        if entry.is_word:
            word = str(entry.parts[0])
            words.append(word)
            return word, entry.agreement
        fillers: dict[str, str | None] = {}
        pieces: list[str | Concord] = []
        agreement = entry.agreement
        for part in entry.parts:
            if not isinstance(part, Slot):
                pieces.append(part)
                continue
            text, its_class = self._fill(self.lists[part.source], rng, words)
            fillers[part.name] = its_class
            agreement = agreement or its_class
            pieces.append(Concord(part.agrees_with, text) if part.agrees_with else text.removeprefix("-"))
        return "".join(p if isinstance(p, str) else self._form(p, fillers) for p in pieces), agreement

    def _form(self, concord: Concord, fillers: dict[str, str | None]) -> str:
        column = fillers.get(concord.name, concord.name)
        try:
            form = self.rows[concord.row][self.columns[str(column)]]
        except (KeyError, IndexError):
            form = "-"
        if form == "-":
            raise LabError(
                f"{self.language}/{GRAMMAR}: '{concord.row}' has no form in agreement class '{column}'; "
                "add it to [agreement], or do not join the two."
            )
        return form


def sentences(language: str, split: str, n: int, seed: int) -> list[str]:
    """n distinct sentences of one split, in random order; equal arguments give equal lists.

    LabError for an unknown language or split, or when its grammar or texts do not hold that many.
    """
    if split not in SPLITS:
        raise LabError(f"Split '{split}' is unknown; expected one of {', '.join(SPLITS)}.")
    rng, known = random.Random(f"{language} {split} {seed}"), languages.find(language)
    chosen: dict[str, str] = {}
    for sentence in _stream(known, rng, 5_000 + 400 * n) if n else ():
        normal = known.normalise(sentence)
        if normal not in chosen and _belongs(known, normal, split):
            chosen[normal] = sentence
            if len(chosen) == n:
                break
    if len(chosen) < n:
        raise LabError(
            f"{language}, split '{split}': asked for {n} sentences, found {len(chosen)}; ask for fewer, or "
            f"add words to {GRAMMAR} or sentences to the texts in {known.folder}."
        )
    return list(chosen.values())


def count(language: str, split: str) -> int:
    """How many different sentences of the language's texts a split has."""
    known = languages.find(language)
    lines = {known.normalise(line) for _, _, line in known.lines()}
    return sum(_belongs(known, line, split) for line in lines)


def split_of(language: str, sentence: str) -> str:
    """The one split of a sentence: by a hash of its normalised form and whether it has a held-out word."""
    known = languages.find(language)
    return next(split for split in SPLITS if _belongs(known, known.normalise(sentence), split))


def held_out_words(language: str) -> frozenset[str]:
    """Content words that no `lm`, `parts`, `dev` or `test` sentence has; stems with a leading hyphen."""
    return load_grammar(language).held_out_words if languages.find(language).has_grammar else frozenset()


def focus_words(language: str) -> frozenset[str]:
    """Names and number words, as `for_scoring` spells them: what a lively speaker stresses."""
    return load_grammar(language).focus if languages.find(language).has_grammar else frozenset()


def from_file(path: Path | str, language: str) -> list[str]:
    """The lines of a UTF-8 text file of the user's, one sentence each, blank lines skipped.

    LabError names the file, and the line and its characters where the language's letters do not read it.
    """
    path = Path(path)
    if not path.is_file():
        raise LabError(f"{path}: no such text file; expected UTF-8 text with one sentence a line.")
    lines = [(i, line.strip()) for i, line in enumerate(languages.read_lines(path), start=1) if line.strip()]
    if not lines:
        raise LabError(f"{path}: the file is empty; expected UTF-8 text with one sentence a line.")
    alphabet = alphabet_of([language])
    for number, line in lines:
        try:
            alphabet.encode_spoken(line, language)
        except LabError as error:
            raise LabError(f"{path}, line {number}: {error}") from None
    return [line for _, line in lines]


def load_grammar(language: str) -> Grammar:
    """The grammar of a language, read once; LabError names what is wrong in its file."""
    return _load_grammar(language, languages.find(language).folder / GRAMMAR)


@cache
def _load_grammar(language: str, path: Path) -> Grammar:
    try:
        return parse_grammar(language, path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise LabError(f"{path}: cannot be read as TOML ({error}); restore the file.") from error
    except LabError as error:
        raise LabError(f"{path}: {error}") from None


def parse_grammar(language: str, toml: str) -> Grammar:
    """A grammar from the text of its file."""
    tables = tomllib.loads(toml)
    agreement = {name: tuple(row.split()) for name, row in tables.get("agreement", {}).items()}
    columns = {name: i for i, name in enumerate(agreement.pop("columns", ()))}
    rows = {
        row.replace("_", " "): tuple(f.replace("_", " ") for f in forms) for row, forms in agreement.items()
    }
    lists = {name: tuple(_words(text)) for name, text in tables["lexicon"].items()}
    lists |= {name: tuple(_phrase(text) for text in texts) for name, texts in tables["grammar"].items()}
    focus = tables["focus"]
    spoken = [str(e.parts[0]) for name in focus["lists"] for e in lists[name]] + focus["numbers"].split()
    grammar = Grammar(
        language, lists, columns, rows, frozenset(t for s in spoken for t in for_scoring(s).split())
    )
    _check(grammar)
    return grammar


def _words(text: str) -> Iterator[Entry]:
    for word in re.split(r"\s*,\s*", text.strip().rstrip(",")):
        spelling, _, agreement = word.partition("/")
        yield Entry((spelling,), agreement or None, is_word=True)


_PLACE = re.compile(r"\{(?:(\w+)=)?(\w+)(?:@(\w+)|\.(\w+))?\}")


def _phrase(text: str) -> Entry:
    template, _, agreement = text.partition("/")
    parts: list[str | Slot | Concord] = []
    end = 0
    for place in _PLACE.finditer(template):
        name, source, agrees_with, row = place.groups()
        if place.start() > end:
            parts.append(template[end : place.start()])
        parts.append(Concord(source, row) if row else Slot(source, name or source, agrees_with))
        end = place.end()
    parts.append(template[end:])
    if any(c in part for part in parts if isinstance(part, str) for c in "{}"):
        raise LabError(
            f"template '{text}' has a stray brace; write {{list}}, {{x=list}}, {{word@x}} or {{x.row}}."
        )
    return Entry(tuple(parts), agreement or None, is_word=False)


def _check(grammar: Grammar) -> None:
    """LabError when a template names a list, filler or row that is not there, or a row has too many forms."""
    for row, forms in grammar.rows.items():
        if len(forms) > len(grammar.columns):
            raise LabError(
                f"[agreement] '{row}' has {len(forms)} forms for {len(grammar.columns)} columns; remove some."
            )
    for name, entries in grammar.lists.items():
        for entry in entries:
            fillers = {part.name for part in entry.parts if isinstance(part, Slot)}
            for part in entry.parts:
                if isinstance(part, Slot) and part.source not in grammar.lists:
                    raise LabError(
                        f"'{name}' uses the list '{part.source}', which does not exist; add or rename it."
                    )
                if isinstance(part, Concord) and part.name not in fillers | set(grammar.columns):
                    raise LabError(
                        f"'{name}' uses '{{{part.name}.{part.row}}}' without a slot '{part.name}'; add one."
                    )
                if isinstance(part, Concord) and part.row not in grammar.rows:
                    raise LabError(
                        f"'{name}' uses the agreement row '{part.row}', which does not exist; add it."
                    )


def _stream(language: Language, rng: random.Random, tries: int) -> Iterator[str]:
    """Sentences in random order: so many tries of a grammar, or the lines of the texts."""
    if not language.has_grammar:
        lines = [line.strip() for _, _, line in language.lines()]
        yield from rng.sample(lines, len(lines))
        return
    grammar = load_grammar(language.code)
    for _ in range(tries):
        sentence = grammar.sample(rng)
        if sentence is not None:
            yield sentence


def _belongs(language: Language, normal: str, split: str) -> bool:
    point = 100 * fraction(f"{language.code}: {normal}")
    if_seen, if_held_out = _within(point, SEEN_SPLITS, split), _within(point, HELD_OUT_SPLITS, split)
    if if_seen == if_held_out or not language.has_grammar:
        return if_seen
    pattern = load_grammar(language.code).held_out_pattern
    return if_held_out == bool(pattern.search(language.for_scoring(normal)))


def _within(point: float, shares: dict[str, int], split: str) -> bool:
    """Whether a point in [0, 100) falls into the stretch of a split when the shares are laid end to end."""
    start = 0
    for name, share in shares.items():
        if name == split:
            return start <= point < start + share
        start += share
    return False


def _choose_held_out(grammar: Grammar) -> list[str]:
    """A tenth of the content words in the order of their hashes.

    Each has in all its forms a token that no other word or template has, or reading it would be reciting in
    part; and no list gives up more than a fifth of its words, so that every template can still be filled.
    """
    entries = [entry for listed in grammar.lists.values() for entry in listed]
    literals = {part for e in entries if not e.is_word for part in e.parts if isinstance(part, str)}
    texts = {w: [for_scoring(form) for form in grammar.forms(w)] for w in grammar.content_words}
    members = [{str(e.parts[0]) for e in listed if e.is_word} for listed in grammar.lists.values()]
    spelt = [for_scoring(text) for text in literals]
    chosen: list[str] = []
    for word in sorted(texts, key=lambda w: fraction(f"{grammar.language} held out: {w}")):
        if len(chosen) >= round(HELD_OUT_SHARE * len(texts)):
            break
        elsewhere = [*spelt, *(text for other, forms in texts.items() if other != word for text in forms)]
        tokens = {token for text in elsewhere for token in text.split()}
        is_new = all(set(form.split()) - tokens for form in texts[word])
        within = grammar.pattern([word])
        roomy = all(len(m) // 5 > len(m.intersection(chosen)) for m in members if word in m)
        if roomy and is_new and not any(within.search(text) for text in elsewhere):
            chosen.append(word)
    return chosen
