"""The alphabet: nothing is lost, nothing foreign slips in, and error rates are taken in one spelling."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmlab.corpus.engines import numbered_pinyin
from slmlab.errors import LabError
from slmlab.language.text import ended, for_scoring, normalise
from slmlab.training.presets import ALPHABET, LANGUAGES

readable = st.lists(st.sampled_from("aăâdđeêioôơuưyñğşıüǚǎ ĐẾỘ.,?!'-"), min_size=1).map("".join)


def spoken(text: str) -> str:
    return ALPHABET.decode(ALPHABET.encode_spoken(text))


def test_a_tone_mark_is_a_symbol_of_its_own():
    ids = ALPHABET.encode("ệ")
    assert [ALPHABET.symbols[i - 1] for i in ids] == [
        "e",
        "\N{COMBINING DOT BELOW}",
        "\N{COMBINING CIRCUMFLEX ACCENT}",
    ]


def test_ids_begin_at_one_and_zero_is_padding():
    assert ALPHABET.encode(f"a{ALPHABET.symbols[0]}b")[1] == 1
    assert len(ALPHABET) == len(ALPHABET.symbols) + 1
    assert ALPHABET.decode([0, *ALPHABET.encode("ba"), 0, 0]) == "ba"


def test_no_symbol_comes_twice():
    assert len(set(ALPHABET.symbols)) == len(ALPHABET.symbols)


@given(readable.filter(lambda text: any(c.isalpha() for c in text)))
def test_decoding_undoes_encoding_up_to_nfc(text: str):
    assert ALPHABET.decode(ALPHABET.encode(text)) == unicodedata.normalize("NFC", normalise(text))


@given(st.text())
def test_normalising_twice_changes_nothing(text: str):
    assert normalise(normalise(text)) == normalise(text)


@given(st.text())
def test_scoring_the_scored_changes_nothing(text: str):
    assert for_scoring(for_scoring(text)) == for_scoring(text)


@pytest.mark.parametrize(
    ("written", "scored"),
    [
        ("Chị Hà ơi, mấy giờ rồi?", "chị hà ơi mấy giờ rồi"),
        (unicodedata.normalize("NFD", "Trường học ở đường Nguyễn Huệ."), "trường học ở đường nguyễn huệ"),
        ("e\u0302\u0323", "ệ"),
        ("e\u0323\u0302", "ệ"),
        ("Ng’ombe—wawili,  «sawa»!", "ng'ombe wawili sawa"),
        ("kura-kura", "kura kura"),
        ("İzmir'de IŞIK", "izmir'de işik"),
        ("ສະບາຍດີ 25", "ສະບາຍດີ 25"),
    ],
)
def test_scoring_keeps_words_and_drops_punctuation(written: str, scored: str):
    assert for_scoring(written) == scored


def test_typographic_marks_become_plain_ones():
    assert normalise("¿“L’été” – déjà…?") == unicodedata.normalize("NFD", "l'été - déjà.?")


@pytest.mark.parametrize(
    ("written", "whole"),
    [
        ("Mama anapika", "Mama anapika."),
        ("Mama anapika  ", "Mama anapika."),
        ("Mama anapika , –", "Mama anapika."),
        ("'Mama anapika'", "'Mama anapika'."),
        ("Ng'ombe wang'", "Ng'ombe wang'."),
        *[(text, text) for text in ("Mama.", "Mama!", "Mama?", "“Mama.”", "Mama…", "Mama. ", "", " , ", "…")],
    ],
)
def test_a_text_has_an_end(written: str, whole: str):
    assert ended(written, "sw") == whole
    assert ended(whole, "sw") == whole


def test_a_full_stop_is_the_language_s_own_if_it_writes_one(languages_folder: Path):
    for code, marks, texts in (
        ("hi", "।,?!", "नमस्ते।\n"),
        ("zh", "，。？！", "你好。\n"),
        ("th", "", "สวัสดี\n"),
        ("xx", ".,?", "mama anapika\nbaba\n"),
    ):
        (languages_folder / code).mkdir()
        (languages_folder / code / "language.toml").write_text(f'name = "{code}"\npunctuation = "{marks}"\n')
        (languages_folder / code / "texts.txt").write_text(texts)
    given = {"hi": "नमस्ते", "zh": "你好，", "th": "สวัสดี", "xx": "mama"}
    whole = {"hi": "नमस्ते।", "zh": "你好。", "th": "สวัสดี", "xx": "mama"}
    assert {code: ended(text, code) for code, text in given.items()} == whole


def test_what_is_spoken_has_no_punctuation():
    assert spoken("Je, ng'ombe wako-wawili?") == "je ng'ombe wako wawili"


@pytest.mark.parametrize(
    ("text", "named", "advice"),
    [
        ("có 3 con", "'3' (U+0033", "write numbers as words"),
        ("ສະບາຍດີ", "'ສ' (U+0EAA", "this network reads 'abcdefghijklmnopqrstuvwxyzđı'"),
        ("50€", "'€' (U+20AC", "numbers as words and write symbols as words"),
        ("abc&def", "'&' (U+0026", "leave out this punctuation"),
        ("a\x07b", "(U+0007", "control characters"),
        ("q\N{COMBINING RING ABOVE}", "(U+030A", "without these marks"),
    ],
)
def test_foreign_characters_are_named_and_something_is_suggested(text: str, named: str, advice: str):
    for encode in (ALPHABET.encode, ALPHABET.encode_spoken):
        with pytest.raises(LabError) as error:
            encode(text)
        assert named in str(error.value)
        assert advice in str(error.value)


@pytest.mark.parametrize("text", ["", "   ", "...", "?!", "''-"])
def test_text_without_a_letter_has_nothing_to_say(text: str):
    with pytest.raises(LabError, match="nothing to say"):
        ALPHABET.encode(text)


def test_a_long_text_is_shortened_in_the_message():
    with pytest.raises(LabError) as error:
        ALPHABET.encode("a" * 5000 + "7")
    assert len(str(error.value)) < 200


def test_languages_keep_their_order_and_alphabet():
    assert LANGUAGES == ("vi", "sw", "es", "it", "id", "tr", "cmn")
    assert ALPHABET.symbols[:9] == (" ", "'", "-", ".", ",", "?", "!", "a", "b")
    assert [f"{ord(c):04x}" for c in ALPHABET.symbols[-6:]] == [
        "0308",
        "0309",
        "030c",
        "031b",
        "0323",
        "0327",
    ]
    assert len(ALPHABET) == 48


@pytest.mark.parametrize(
    ("marked", "numbered"),
    [
        ("Wǒ de nǚ'ér xǐhuan lǜchá.", "wo3 de5 nv3er2 xi3huan5 lv4cha2."),
        ("Zhōngguórén kěrén xióngmāo", "zhong1guo2ren2 ke3ren2 xiong2mao1"),
        ("Xī'ān, yuǎn!", "xi1an1, yuan3!"),
    ],
)
def test_pinyin_tones_become_numbers_after_their_syllables(marked: str, numbered: str):
    assert numbered_pinyin(marked) == numbered
