"""New languages from recordings and texts, and the card that says what they are good for."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from slmlab import cli
from slmlab.corpus import fitness
from slmlab.corpus.collections import read
from slmlab.corpus.imports import ImportSpec, bring_in
from slmlab.language import draft, languages
from slmlab.sound import audio


def tone(seconds: float, level: float = 0.3, hertz: float = 150.0) -> np.ndarray:
    time = np.arange(int(16_000 * seconds)) / 16_000
    return (level * np.sin(2 * np.pi * hertz * time) * (np.sin(9 * time) > -0.5)).astype(np.float32)


@pytest.mark.parametrize(
    ("texts", "letters", "punctuation", "words", "question_marks"),
    [
        (["Ɓàrkà, dóo?", "L'ŋàmi!"], "dikmorlàóŋɓ", ".,?!", "spaces", "?"),
        (["سلام، خوبی؟", "می\u200cروم."], "", ".,?!،؟", "spaces", "?؟"),
        (["ສະບາຍດີຕອນເຊົ້າທຸກຄົນ", "ຂ້ອຍຢາກໄປຕະຫຼາດມື້ນີ້ແລ້ວ"], "", ".,?!", "characters", "?"),
        (["नमस्ते। आप कैसे हैं?"], "", ".,?!।", "spaces", "?"),
    ],
)
def test_a_draft_knows_letters_marks_and_words(
    texts: list[str], letters: str, punctuation: str, words: str, question_marks: str
):
    language, decided = draft.draft("qaa", "Trial", texts, "CC0")
    if letters:
        assert set(language.letters) == set(letters)
    assert set(language.punctuation) == set(punctuation)
    assert (language.words, set(language.question_marks)) == (words, set(question_marks))
    assert any(line.startswith("letters: ") for line in decided)
    known = {*languages._sorted(languages._plain(language.letters)), *language.breaks}
    for text in texts:
        assert set(language.normalise(text)) <= known, "nothing of the texts is refused"
    parsed = languages.parse("qaa", languages.tomllib.loads(draft.as_toml(language)), "x")
    assert asdict(parsed) == asdict(language)


def test_joiners_stay_signs_are_named_and_brackets_go():
    language, decided = draft.draft("qaa", "Trial", ["می\u200cروم [خنده] 50% & 3"], "")
    assert "\u200c" in language.letters
    assert set(language.ignore) == {"[", "]"}
    said = "\n".join(decided)
    assert "ZERO WIDTH NON-JOINER" in said
    assert "'%' (U+0025 PERCENT SIGN) 1 times" in said
    assert "numbers: 1 texts have digits" in said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight recordings of one reader: two equal, one too loud, one with another's text, one with silence."""
    place = tmp_path / "voices"
    for i in range(8):
        wave = tone(2.0 if i != 5 else 0.5, hertz=120 + 10 * i)
        if i == 3:
            wave = np.clip(wave * 9, -1, 1)
        if i == 6:
            wave = np.concatenate([np.zeros(16_000, np.float32), wave])
        if i == 7:
            wave = tone(2.0, hertz=120)
        audio.write(place / f"r{i}.wav", wave, generated=False)
        text = f"ba da {'ga' * (i % 3)} za" if i != 5 else "ba da ga za ba da ga za ba da ga za"
        (place / f"r{i}.txt").write_text(text if i != 4 else "ba ƙo za", encoding="utf-8")
    return place


def test_a_card_names_what_to_listen_to(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(draft, "FOLDER", tmp_path / "languages")
    monkeypatch.setattr(languages, "FOLDER", tmp_path / "languages")
    clips = read(folder)
    draft.found("qaa", "Trial", [clip.text for clip in clips], None, "my own", "")
    corpus = bring_in(clips, ImportSpec("voices", "qaa", "my own"), tmp_path / "corpus")
    table = fitness.card(corpus)
    card = table.drop_duplicates("what").set_index("what")
    assert card.loc["speech", "found"] == "0.2 min, 8 recordings of 2.0 s"
    assert card.loc["speakers", "found"] == "1, minutes: speaker 0.2"
    assert set(card.loc["equal sounds", "look"].split(", ")) == {"r0.wav", "r7.wav"}
    assert card.loc["over 0.5 s silent at an end", "look"] == "r6.wav"
    assert "r5.wav" in card.loc["twice, or half, as fast: is it this text?", "look"]
    rare = table[table["what"] == "rare"].set_index("found")["look"]
    assert rare["'ƙ' (U+0199 LATIN SMALL LETTER K WITH HOOK) 1 times"] == "r4.wav"
    assert card.loc["clipped", "look"] == "r3.wav"
    assert card.loc["loudness, dB", "found"].startswith("-13, from -13 to -1")


def test_the_command_makes_a_language_and_imports_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(draft, "FOLDER", tmp_path / "languages")
    monkeypatch.setattr(languages, "FOLDER", tmp_path / "languages")
    (tmp_path / "more.txt").write_text("ba ga\nda za\n", encoding="utf-8")
    command = [
        "language",
        "new",
        "qaa",
        "--called",
        "Trial",
        "--recordings",
        str(folder),
        "--consent",
        "mine",
    ]
    command += ["--texts", str(tmp_path / "more.txt"), "--out", str(tmp_path / "out")]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "letters: 7, a b d g o z ƙ" in said
    assert "voice: none; it speaks as its recordings do" in said
    assert "is read as plain" in said
    assert f"next: slmlab train qaa --recordings {tmp_path / 'out'}" in said
    found = languages.find("qaa")
    assert (found.name, found.licence) == ("Trial", "mine")
    assert [line for _, _, line in found.lines()] == ["ba ga", "da za"]
    assert cli.main([*command, "--replace"]) == 0
    assert "is there already and stays as it is" in capsys.readouterr().out
    assert cli.main(["language", "new", "Quechua", "--recordings", str(folder)]) == 2
    assert "'Quechua' is no code of a language" in capsys.readouterr().err
