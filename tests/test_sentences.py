"""Our own sentences: enough of them, right ones, and none in two splits."""

import random
import re
import tempfile
import time
import tomllib
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmlab.corpus.groups import BACKBONE, TARGETS
from slmlab.errors import LabError
from slmlab.language import languages
from slmlab.language import sentences as source
from slmlab.language.languages import find
from slmlab.language.sentences import (
    HELD_OUT_SPLITS,
    MAX_WORDS,
    MIN_WORDS,
    SEEN_SPLITS,
    SPLITS,
    focus_words,
    from_file,
    load_grammar,
    parse_grammar,
    sentences,
    split_of,
    unlike,
)
from slmlab.language.text import for_scoring, normalise
from slmlab.training.presets import ALPHABET, LANGUAGES

TOY = """
[agreement]
columns = "1 7"
my = "wangu changu"
zuri = "mzuri kizuri"
[focus]
lists = ["name"]
numbers = "mbili"
[lexicon]
name = "Asha/1, Juma/1"
thing = "kitabu/7, kiti/7"
size = "zuri"
[grammar]
sentence = ["{t=owned} {t.my} {size@t} kiko hapa."]
owned = ["{thing}", "mtoto/1"]
"""


NEEDED = {"lm": 5_000, "judge_a": 2_000, "parts": 1_500, "test": 400, "dev": 200, "unseen": 120}
"""Sentences of a target language that the studies need."""


@cache
def sample(language: str) -> list[str]:
    """What 32 000 draws of a target language's grammar give, or 6 000 of another's."""
    rng, grammar = random.Random(7), load_grammar(find(language))
    drawn = (grammar.sample(rng) for _ in range(32_000 if language in TARGETS else 6_000))
    return [sentence for sentence in drawn if sentence]


@cache
def drawn(language: str, split: str) -> list[str]:
    """The first sentences of a split, drawn once."""
    n = NEEDED.get(split, 80) if language in TARGETS or split == "lm" else 80
    return sentences(language, split, n, seed=1)


@pytest.mark.parametrize("language", TARGETS)
def test_the_target_languages_are_rich(language: str):
    assert len(load_grammar(find(language)).content_words) >= 200
    assert len({normalise(s) for s in sample(language)}) >= 20_000


@pytest.mark.parametrize("language", BACKBONE)
def test_the_backbone_languages_suffice(language: str):
    assert len(load_grammar(find(language)).content_words) >= 60
    assert len({normalise(s) for s in sample(language)}) >= 3_000


@pytest.mark.parametrize("language", TARGETS)
@pytest.mark.parametrize("split", NEEDED)
def test_every_split_yields_what_the_studies_need(language: str, split: str):
    assert len({normalise(s) for s in drawn(language, split)}) == NEEDED[split]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_sentence_is_in_two_splits(language: str):
    members = {split: {normalise(s) for s in drawn(language, split)[:80]} for split in SPLITS}
    assert len(set().union(*members.values())) == 80 * len(SPLITS)
    for split, normal in members.items():
        assert {split_of(language, s) for s in normal} == {split}


@given(st.sampled_from(LANGUAGES), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_a_split_is_a_matter_of_spelling_alone(language: str, seed: int):
    [sentence] = sentences(language, "lm", 1, seed)
    assert split_of(language, f"  {sentence.upper()} ") == "lm" or language == "tr"
    assert split_of(language, sentence.lower()) == "lm"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_tenth_of_the_content_words_is_held_out(language: str):
    grammar = load_grammar(find(language))
    share = len(grammar.held_out_words) / len(grammar.content_words)
    assert 0.08 <= share <= 0.105


@pytest.mark.parametrize("language", LANGUAGES)
def test_held_out_words_occur_only_where_they_may(language: str):
    grammar = load_grammar(find(language))
    forms = {for_scoring(f): f.startswith("-") for w in grammar.held_out_words for f in grammar.forms(w)}
    for split in SPLITS:
        for sentence in drawn(language, split)[:80]:
            text = f" {for_scoring(sentence)} "
            found = [f for f, is_stem in forms.items() if f"{'' if is_stem else ' '}{f} " in text]
            assert not found or split in HELD_OUT_SPLITS, (split, sentence, found)
            assert found or split != "unseen", sentence


@pytest.mark.parametrize("language", TARGETS)
def test_the_judges_hear_every_held_out_word(language: str):
    grammar = load_grammar(find(language))
    heard = "\n".join(for_scoring(s) for s in drawn(language, "judge_a"))
    unheard = [word for word in grammar.held_out_words if not grammar.pattern([word]).search(heard)]
    assert not unheard


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_other_word_occurs_in_sentences_for_the_language_model(language: str):
    grammar = load_grammar(find(language))
    read = "\n".join(for_scoring(s) for s in drawn(language, "lm"))
    words = grammar.content_words - grammar.held_out_words
    unread = [w for w in words if not any(for_scoring(f) in read for f in grammar.forms(w))]
    assert not unread


def test_equal_seeds_give_equal_sentences_and_others_do_not():
    assert sentences("vi", "lm", 50, seed=1) == sentences("vi", "lm", 50, seed=1)
    assert sentences("vi", "lm", 50, seed=1) != sentences("vi", "lm", 50, seed=2)
    assert sentences("vi", "lm", 20, seed=1) == sentences("vi", "lm", 50, seed=1)[:20]


def test_the_splits_have_not_moved():
    """Checkpoints and results that are shipped rest on these; a change means training everything anew."""
    assert split_of("sw", "Baba yangu anaishi Dodoma.") == "lm"
    assert split_of("sw", "Mama yangu anapika wali.") == "test"
    assert split_of("vi", "Tôi rất thích bơi.") == "parts"
    assert split_of("vi", "Tôi ăn cơm.") == "judge_b"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_is_well_formed(language: str):
    for sentence in sample(language)[:3_000]:
        assert ALPHABET.encode(sentence)
        assert MIN_WORDS <= len(sentence.split()) <= MAX_WORDS
        assert re.fullmatch(r"[¿]?[^\W\d_][^\d{}_@=]*[^\W\d_][.?!]", sentence), sentence
        assert not re.search(r"\s[\s,.?!]", sentence), sentence


@pytest.mark.parametrize("language", TARGETS)
def test_sentences_are_of_everyday_length_and_ask_and_count(language: str):
    some, focus = sample(language)[:3_000], focus_words(language)
    assert 6 <= sum(len(s.split()) for s in some) / len(some) <= 9
    assert 0.1 <= sum(s.endswith("?") for s in some) / len(some) <= 0.4
    stressed = sum(bool(focus & set(for_scoring(s).split())) for s in some)
    assert stressed / len(some) >= 0.3


def test_names_and_numbers_are_in_focus():
    assert {"amina", "wawili", "tano"} <= focus_words("sw")
    assert {"lan", "minh", "hai", "mươi"} <= focus_words("vi")
    assert not {"mama", "na", "mẹ"} & (focus_words("sw") | focus_words("vi"))


def test_ten_thousand_sentences_take_seconds():
    load_grammar(find("sw"))
    start = time.process_time()
    sentences("sw", "lm", 2_000, seed=9)
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize(
    ("subject", "verb"),
    [
        ("mama", "anapika"),
        ("walimu", "wanapika"),
        ("viti", "viko"),
        ("kitabu", "kiko"),
        ("maji", "yako"),
        ("mfuko", "uko"),
    ],
)
def test_swahili_concords_follow_the_noun_class(subject: str, verb: str):
    grammar = load_grammar(find("sw"))
    entries = {e.text: e.agreement for listed in grammar.lists.values() for e in listed if e.is_word}
    column = grammar.columns[entries[subject] or ""]
    concord = grammar.rows["subj"][column] + "napika" if verb.endswith("pika") else grammar.rows["at"][column]
    assert concord == verb


def test_agreement_reaches_possessive_and_adjective():
    grammar = parse_grammar(find("sw"), tomllib.loads(TOY))
    found = {grammar.sample(random.Random(seed)) for seed in range(50)}
    assert found == {
        "Kitabu changu kizuri kiko hapa.",
        "Kiti changu kizuri kiko hapa.",
        "Mtoto wangu mzuri kiko hapa.",
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{size@t}", "{sise@t}", "list 'sise'"),
        ("{t.my}", "{t.mine}", "row 'mine'"),
        ("{t.my}", "{u.my}", "without a slot 'u'"),
        ("{t=owned}", "{t=owned", "stray brace"),
        ('"wangu changu"', '"wangu changu langu"', "3 forms for 2 columns"),
    ],
)
def test_a_mistake_in_a_grammar_is_named(old: str, new: str, message: str):
    with pytest.raises(LabError, match=message):
        parse_grammar(find("sw"), tomllib.loads(TOY.replace(old, new)))


def test_a_form_that_does_not_exist_is_named_when_it_is_needed():
    grammar = parse_grammar(
        find("sw"), tomllib.loads(TOY.replace('zuri = "mzuri kizuri"', 'zuri = "mzuri -"'))
    )
    rng = random.Random(0)
    with pytest.raises(LabError, match="'zuri' has no form in agreement class '7'"):
        _ = [grammar.sample(rng) for _ in range(20)]


def test_a_broken_grammar_file_is_named(languages_folder: Path):
    (languages_folder / "sw" / "grammar.toml").write_text("[lexicon\n", encoding="utf-8")
    with pytest.raises(LabError, match=r"sw/grammar\.toml"):
        load_grammar(find("sw"))
    for text in ("", "lexicon = 3", "[lexicon]\na = 3\n[grammar]\n[focus]"):
        (languages_folder / "sw" / "grammar.toml").write_text(text, encoding="utf-8")
        with pytest.raises(LabError, match=r"sw/grammar\.toml is no grammar \(.*\): see "):
            sentences("sw", "lm", 1, seed=0)


def test_unknown_languages_and_splits_are_named():
    with pytest.raises(
        LabError,
        match=r"Language 'xx' is unknown: .*data/languages has cmn, es, id, it, sw, tr, vi, yo\. To add one",
    ):
        sentences("xx", "lm", 1, seed=0)
    with pytest.raises(LabError, match=r"Split 'train'.*lm, parts"):
        sentences("vi", "train", 1, seed=0)


def test_asking_for_more_than_there_is_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(source, "load_grammar", lambda language: parse_grammar(language, tomllib.loads(TOY)))
    with pytest.raises(LabError, match=r"asked for 20 sentences, found \d"):
        sentences("sw", "lm", 20, seed=0)


def test_shares_of_the_splits_sum_to_a_hundred():
    assert sum(SEEN_SPLITS.values()) == sum(HELD_OUT_SPLITS.values()) == 100


def test_a_text_of_another_language_is_doubted_and_one_of_its_own_is_not():
    finnish = "Minun nimeni on Matti ja olen kotoisin Suomesta."
    assert unlike(finnish, "sw") == (
        "Is it Swahili? 5 of 8 words are not spelt like its words: minun, on, matti"
    )
    for text in ("The cat sits on the mat.", "La mamma cucina.", "Chị Hà ơi, mấy giờ rồi?"):
        assert unlike(text, "sw")
    for text in ("Habari za asubuhi, rafiki yangu?", "Ninapenda kusoma vitabu.", "Hakuna matata", "?"):
        assert not unlike(text, "sw")
    assert not unlike(finnish, "yo"), "it has no sentences of its own to tell by"


@pytest.mark.parametrize("language", TARGETS)
def test_few_sentences_that_nobody_learnt_are_doubted(language: str):
    assert sum(map(bool, (unlike(text, language) for text in sentences(language, "test", 200, 3)))) <= 2


def test_a_file_gives_its_lines(tmp_path: Path):
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeffXin chào!\r\n\r\n  Habari yako?  \n".encode())
    assert from_file(path, "vi") == ["Xin chào!", "Habari yako?"]


def test_all_places_that_cannot_be_read_are_named_at_once(tmp_path: Path):
    path = tmp_path / "mine.txt"
    lines = (
        "Nina 12.",
        "Mama\u2028anapika.",
        "Bei 50%.",
        "Hii (a).",
        "Sura IV yake.",
        "Sh 2,000 tu.",
        "NI XII",
        "Saa 10:30, simu 0712.",
    )
    path.write_text("\n".join(lines))
    with pytest.raises(LabError) as raised:
        from_file(path, "sw")
    assert re.findall(r"line (\d+): ", str(raised.value)) == ["5", "8"]
    assert "'IV' is read as a word: write numbers as words" in str(raised.value)
    path.write_text("Mama\u2028anapika.\rLeo 50%.\n")
    assert from_file(path, "sw") == ["Mama anapika. Leo asilimia hamsini."]


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab1%(IVX.\r\u2028\x85\0 \n"), max_size=30))
def test_every_line_of_any_text_is_read_or_named(text: str):
    in_words = languages.find("sw").in_words
    lines = [" ".join(in_words(line).split()) for line in text.split("\n") if line.strip()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.txt"
        path.write_bytes(text.encode())
        try:
            read, named = from_file(path, "sw"), 0
        except LabError as error:
            read, named = [], len(re.findall(r"line \d+: ", str(error)))
    assert read == lines or 0 < named <= len(lines) or not lines


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"mine\.txt does not exist"),
        (b"", r"mine\.txt: the file is empty"),
        (b" \n\n", r"mine\.txt: the file is empty"),
        (b"sawa\nch\xe0o\n", r"mine\.txt, line 2 is not UTF-8 \(byte 0xe0\): save it as UTF-8"),
        ("sawa\n\ncó 3:1 con\n".encode(), r"mine\.txt, line 3: .*'3' \(U\+0033.*numbers as words"),
        (b"sawa\n...\n", r"mine\.txt, line 2: .*nothing to say"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LabError, match=message):
        from_file(path, "vi")
