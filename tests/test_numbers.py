"""Numbers and signs are read by the language's rules, or stay to be refused; one sound has one spelling."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmlab.language import languages
from slmlab.language.text import for_scoring, normalise
from slmlab.metrics import wer

READ = {
    "sw": {
        "miaka 12.": "miaka kumi na mbili.",
        "1.5": "moja nukta tano",
        "0.25": "sifuri nukta mbili tano",
        "50% ya": "asilimia hamsini ya",
        "Sh 2,000": "shilingi elfu mbili",
        "Sh. 2,000/= tu": "shilingi elfu mbili tu",
        "KSh2,000,000": "shilingi milioni mbili",
        "Watu 2 173.": "watu elfu mbili, mia moja na sabini na tatu.",
        "mwaka 2018": "mwaka elfu mbili, kumi na nane",
        "hadi -5": "hadi kasoro tano",
        "10-12": "kumi-kumi na mbili",
        "COVID-19": "covid-kumi na tisa",
        "baba & mama": "baba na mama",
    },
    "vi": {
        "12 tuổi": "mười hai tuổi",
        "1,5 lít": "một phẩy năm lít",
        "50%": "năm mươi phần trăm",
        "20.000đ.": "hai mươi nghìn đồng.",
        "thứ 2, thứ 3": "thứ hai, thứ ba",
    },
    "es": {"el 1.º y la 2ª, 50 %": "el primero y la segunda, cincuenta por ciento"},
    "it": {"3° posto, 12,5 kg": "terzo posto, dodici virgola cinque chili"},
    "id": {"ke-2 Rp 15.000": "kedua lima belas ribu rupiah"},
    "tr": {"%50, 1980'lerde": "yüzde elli, bin dokuz yüz seksen'lerde"},
}


@pytest.mark.parametrize(
    ("code", "text", "words"),
    [(code, text, said) for code, row in READ.items() for text, said in row.items()],
)
def test_numbers_and_signs_are_read(code: str, text: str, words: str) -> None:
    assert normalise(text, code) == unicodedata.normalize("NFD", words)


@pytest.mark.parametrize("code", READ)
@pytest.mark.parametrize(
    "text", ["10:30", "12/5/2020", "1.2.3", "007", "0712", "3D", "A4", "1st", "-1,5.5", "1" * 16, "1.1234567"]
)
def test_what_has_no_rule_stays(code: str, text: str) -> None:
    assert [c for c in languages.find(code).in_words(text) if c.isdigit()] == [c for c in text if c.isdigit()]


@pytest.mark.parametrize(("code", "text"), [("sw", "2.000"), ("vi", "2,000"), ("vi", "1.5"), ("sw", "1,5")])
def test_what_others_write_for_another_number_stays(code: str, text: str) -> None:
    assert languages.find(code).in_words(text) == text


@pytest.mark.parametrize("code", READ)
def test_every_number_has_words_of_its_own_in_the_language_s_letters(code: str) -> None:
    known = languages.find(code)
    said = [known.normalise(str(n)) for n in (*range(2500), *range(10**6, 10**9, 10**6 + 12_345_678))]
    assert len(set(said)) == len(said)
    assert set("".join(said)) <= {*known.symbols, *known.breaks}


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([*READ, "yo", "cmn", ""]),
    st.text(st.sampled_from("12.,05%$&/=:-'đ shkgmº°ke\u0300(\u00a0٣")),
)
def test_reading_never_fails_and_reads_once(code: str, text: str) -> None:
    once = normalise(text, code)
    assert any(map(str.isdigit, once)) or normalise(once, code) == once


def test_a_language_without_rules_keeps_its_digits() -> None:
    assert [normalise("12", code) for code in ("yo", "cmn", "")] == ["12"] * 3


def test_rules_are_those_of_the_code_or_of_its_language(languages_folder) -> None:
    for code, words in {"sr-Cyrl": "дванаест", "sr-Latn": "dvanaest", "th": "สิบสอง", "lo": "ສິບສອງ"}.items():
        (languages_folder / code).mkdir()
        (languages_folder / code / "language.toml").write_text(f'name = "{code}"\n')
        assert normalise("12", code) == words, code
    assert normalise("ราคา ๑๒", "th") == "ราคา สิบสอง"


@pytest.mark.parametrize(
    ("written", "one"),
    [
        ("hoà", "hòa"),
        ("HOẠ", "họa"),
        ("khoẻ", "khỏe"),
        ("thuý, thuỷ", "thúy thủy"),
        ("hòa thúy", "hòa thúy"),
        ("quý quỳ quà quả", "quý quỳ quà quả"),
        ("giá già giò", "giá già giò"),
        ("hoàn ngoài thuốc tuyết huỳnh khuỷu", "hoàn ngoài thuốc tuyết huỳnh khuỷu"),
        ("mùa của lúa thuở huế", "mùa của lúa thuở huế"),
    ],
)
def test_vietnamese_tone_marks_have_one_place(written: str, one: str) -> None:
    assert for_scoring(written, "vi") == for_scoring(unicodedata.normalize("NFD", written), "vi") == one


def test_spellings_of_one_sound_are_no_error() -> None:
    assert wer("Chị Thuý khoẻ, toà nhà hoà bình.", "chị thúy khỏe tòa nhà hòa bình", "vi") == 0
    assert wer("hoà", "hoá", "vi") == 1
