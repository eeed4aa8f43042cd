"""A language is a folder of data: any script is read, spoken, taught and counted; mistakes are named."""

import tomllib
import unicodedata
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from slmlab import files
from slmlab.cli import main
from slmlab.corpus.collections import read
from slmlab.corpus.engines import speak
from slmlab.corpus.imports import ImportSpec, Share, bring_in, take
from slmlab.corpus.prosody import LIVELY, plan
from slmlab.corpus.voices import voice_pool
from slmlab.errors import LabError
from slmlab.language import languages
from slmlab.language.languages import parse
from slmlab.language.sentences import count, sentences, split_of
from slmlab.language.text import Alphabet, alphabet_of, for_scoring, normalise, words_of
from slmlab.metrics import cer, wer
from slmlab.models.judges import AttentiveConfig, AttentiveJudge
from slmlab.models.lm import LMConfig, SpeechLM
from slmlab.sound import audio
from slmlab.speech.chain import open_chain
from slmlab.training import shelf
from slmlab.training.cache import run_stages

WORDS = {
    "ka": (
        "დედა მამა ბავშვი ბებია მასწავლებელი ძაღლი კატა",
        "კითხულობს წერს მღერის ჭამს თამაშობს სძინავს მოდის",
    ),
    "hi": (
        "माँ पिता बच्चा दादी शिक्षक कुत्ता बिल्ली",
        "पढ़ती_है लिखता_है गाती_है खाता_है खेलता_है सोती_है आता_है",
    ),
    "am": ("እናት አባት ልጅ አያት መምህር ውሻ ድመት", "ታነባለች ይጽፋል ትዘፍናለች ይበላል ይጫወታል ትተኛለች ይመጣል"),
    "fa": (
        "مادر پدر کودک مادربزرگ معلم سگ گربه",
        "می\u200cخواند می\u200cنویسد آواز_می\u200cخواند غذا_می\u200cخورد "
        "کار_می\u200cکند می\u200cخوابد می\u200cآید",
    ),
    "el": (
        "μητέρα πατέρας παιδί γιαγιά δάσκαλος σκύλος γάτα",
        "διαβάζει γράφει τραγουδάει τρώει παίζει κοιμάται έρχεται",
    ),
}
FILES = {
    "ka": 'name = "Georgian"\nvoice = "ka"\n',
    "hi": 'name = "Hindi"\nvoice = "hi"\npunctuation = "।?,"\n',
    "am": 'name = "Amharic"\nvoice = "am"\npunctuation = "።?፣"\nquestion_marks = "?፧"\n',
    "fa": 'name = "Persian"\nvoice = "fa"\npunctuation = ".،؟"\nquestion_marks = "؟"\n'
    'letters = "ءآأابپتثجچحخدذرزژسشصضطظعغفقکگلمنوهی\u200c"\n',
    "el": 'name = "Greek"\nvoice = "el"\npunctuation = ".,;"\nquestion_marks = ";"\n',
}
ENDS = {"ka": ".?", "hi": "।?", "am": "።?", "fa": ".؟", "el": ".;"}


def add(folder: Path, code: str) -> list[str]:
    """Make a language's folder; its sentences, every other one a question."""
    subjects, predicates = map(str.split, WORDS[code])
    pairs = [f"{s} {p}".replace("_", " ") for s in subjects for p in predicates]
    lines = [pair + ENDS[code][i % 2] for i, pair in enumerate(pairs)]
    (folder / code).mkdir()
    (folder / code / "language.toml").write_text(FILES[code], encoding="utf-8")
    (folder / code / "texts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return lines


@pytest.fixture
def at_smoke(
    random_chain: Path, languages_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Folders of its own, and small networks that learnt nothing in place of those at hand."""
    monkeypatch.setattr(files, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(files, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(shelf, "checkpoint_folder", lambda name="tiny": random_chain)
    monkeypatch.setattr(shelf, "run_stages", partial(run_stages, workers=1))  # folders hold in this process
    return languages_folder


@pytest.mark.parametrize("code", WORDS)
def test_a_language_of_any_script_is_adopted_trained_spoken_judged_and_measured(
    code: str, at_smoke: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = add(at_smoke, code)
    assert main(["train", code, "--preset", "smoke"]) == 0
    assert f"next: slmlab speak TEXT --language {code} --preset smoke" in capsys.readouterr().out
    out = tmp_path / "a.wav"
    assert main(["speak", lines[0], "--language", code, "--preset", "smoke", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "said, read as " + tomllib.loads(FILES[code])["name"] in said.out
    assert said.err == f"the language model is {tmp_path / 'runs' / 'smoke' / 'adopted' / f'lm.{code}'}\n"
    how = ["--text", lines[0], "--language", code, "--preset", "smoke"]
    assert main(["measure", str(out), *how]) == 0
    assert "wer" in capsys.readouterr().out
    chain = open_chain("smoke")
    assert code in chain.languages
    alphabets = [network.config.alphabet for network in (chain.lm(code), chain.judge("a", code))]
    for line in lines:
        assert alphabets[0].decode(alphabets[0].encode(line, code)) == unicodedata.normalize(
            "NFC", normalise(line, code)
        )
        assert alphabets[1].encode_spoken(line, code)
    wave = torch.from_numpy(speak(lines[0], code, voice_pool("test", 1)[0], LIVELY, 0))
    assert isinstance(chain.hear([wave], "b", code)[0], str)
    with pytest.raises(LabError, match="outside the alphabet"):
        chain.lm("sw").prompt(lines[0], "sw")


def test_what_a_model_has_learnt_stays_when_it_adopts(languages_folder: Path) -> None:
    add(languages_folder, "ka")
    torch.manual_seed(0)
    old = SpeechLM(LMConfig(alphabet_of(["vi", "sw"]), ("vi", "sw"), width=32, layers=1, heads=2, kv_heads=2))
    old.pace.uniform_(0, 3)
    new = old.adopt("ka")
    assert new.config.languages == ("vi", "sw", "ka")
    assert new.config.alphabet.symbols[: len(old.config.alphabet.symbols)] == old.config.alphabet.symbols
    torch.testing.assert_close(new.table()[new.config.first_code :], old.table()[old.config.first_code :])
    ids = [torch.tensor([model.prompt("Mama anapika.", "sw")]) for model in (old, new)]
    assert len(ids[0][0]) == len(ids[1][0])
    before, after = (
        model(rows)[0, -1, model.config.end :] for model, rows in zip((old, new), ids, strict=True)
    )
    torch.testing.assert_close(after, before)
    ka = new.prompt("დედა მოდის.", "ka")
    assert torch.isfinite(new(torch.tensor([ka]))).all()
    assert old.adopt("sw").config == old.config


def test_a_judge_that_adopts_writes_what_it_wrote(languages_folder: Path) -> None:
    add(languages_folder, "el")
    torch.manual_seed(0)
    old = AttentiveJudge(AttentiveConfig(alphabet_of(["sw"]), width=32, blocks=1, heads=2, sketch=4)).eval()
    new = old.adopt("el").eval()
    mel, frames, n = torch.randn(1, 20, 80), torch.tensor([20]), len(old.config.alphabet)
    before, after = old(mel, frames), new(mel, frames)
    torch.testing.assert_close(after[..., :n].log_softmax(-1), before)
    assert after.shape[-1] == len(new.config.alphabet) > n


def test_joiners_and_punctuation_are_the_languages_own(languages_folder: Path) -> None:
    add(languages_folder, "fa")
    add(languages_folder, "el")
    assert normalise("می\u200cخواند", "fa") == "می\u200cخواند"
    assert normalise("می\u200cخواند") == "میخواند"
    assert words_of("مادر می\u200cخواند؟", "fa") == ["مادر", "می\u200cخواند"]
    assert normalise("Έρχεται;", "el") == unicodedata.normalize("NFD", "έρχεται;")
    assert normalise("a; b") == "a, b"
    assert languages.find("el").is_question("Έρχεται;")
    assert not languages.find("sw").is_question("Anakuja;")
    rises = plan("Έρχεται;", "el", LIVELY, 0)[-1].pitch - plan("Έρχεται.", "el", LIVELY, 0)[-1].pitch
    assert rises == pytest.approx(LIVELY.question_rise + LIVELY.final_fall)


def test_words_are_cut_as_the_language_says(languages_folder: Path) -> None:
    (languages_folder / "lo").mkdir()
    (languages_folder / "lo" / "language.toml").write_text('name = "Lao"\nwords = "characters"\n')
    assert words_of("ສະບາຍດີ", "lo") == ["ສ", "ະ", "ບ", "າ", "ຍ", "ດີ"]
    assert words_of("ສະບາຍດີ") == ["ສະບາຍດີ"]
    assert wer("ສະບາຍດີ", "ສະບາຍ", "lo") == pytest.approx(1 / 6)
    assert wer("ສະບາຍດີ", "ສະບາຍ") == 1.0
    assert cer("ສະບາຍ ດີ", "ສະບາຍດີ", "lo") == 0.0
    assert cer("ສະບາຍ ດີ", "ສະບາຍດີ") > 0


def test_texts_are_shared_out_like_sentences_of_a_grammar(languages_folder: Path) -> None:
    lines = add(languages_folder, "ka")
    splits = {split: count("ka", split) for split in ("lm", "parts", "judge_a", "judge_b", "dev", "test")}
    assert sum(splits.values()) == len(lines)
    chosen = sentences("ka", "lm", splits["lm"], seed=1)
    assert set(chosen) <= set(lines)
    assert {split_of("ka", line) for line in chosen} == {"lm"}
    with pytest.raises(LabError, match=rf"asked for 99 sentences, found {splits['lm']}; .*add"):
        sentences("ka", "lm", 99, seed=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "X"\nletter = "abc"\n', "no field letter; the fields are name, letters, punctuation"),
        ('letters = "abc"\n', "the field name is missing"),
        ('name = "X"\nletters = ["a"]\n', "letters must be a text in quotes"),
        ('name = "X"\nreplace = "a"\n', "replace must be a table such as"),
        ('name = "X"\nsigns = {"%" = "{} {}"}\n', "signs must be a table such as"),
        ('name = "X"\nspellings = {"(" = "a"}\n', "spellings must be a table such as"),
        ('name = "X"\nspellings = {"a" = \'\\1\'}\n', "spellings must be a table such as"),
        (
            'name = "X"\nwords = "syllables"\n',
            "words = 'syllables' is unknown; expected one of spaces, characters",
        ),
        ('name = "X"\nrespell = "x"\n', "respell = 'x' is unknown; expected one of numbered pinyin\\."),
        ('name = "X"\nquestions = "up"\n', "questions = 'up' is unknown; expected one of rise, level, fall"),
    ],
)
def test_a_wrong_field_is_named(text: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        parse("xx", tomllib.loads(text), "language.toml")


def test_letters_that_the_alphabet_lacks_are_named_with_all_their_lines(languages_folder: Path) -> None:
    (languages_folder / "fi").mkdir()
    (languages_folder / "fi" / "language.toml").write_text(
        'name = "Finnish"\nletters = "abcdefghijklmnopqrstuvwxyzä"\n', encoding="utf-8"
    )
    (languages_folder / "fi" / "texts.txt").write_text(
        "Äiti tulee 7b.\nIsä 7 syö.\nTyttö syö.\n", encoding="utf-8"
    )
    with pytest.raises(LabError) as error:
        languages.find("fi")
    assert "'7' (U+0037 DIGIT SEVEN) in texts.txt, line 1. Write numbers as words." in str(error.value)
    assert "DIAERESIS" not in str(error.value), "ä has it too"


def test_folders_of_one_code_or_of_no_code_are_refused(languages_folder: Path) -> None:
    (languages_folder / "SW").mkdir()
    (languages_folder / "SW" / "language.toml").write_text('name = "Swahili"\n')
    with pytest.raises(LabError, match="two folders of one code, sw and SW: keep one"):
        languages.codes()
    (languages_folder / "SW").rename(languages_folder / "suomi")
    with pytest.raises(LabError, match="suomi is no language: its name must be a code"):
        languages.codes()
    (languages_folder / "suomi").rename(languages_folder / "sr-Cyrl")
    assert "sr-Cyrl" in languages.codes()
    (languages_folder / "sr-Cyrl" / "language.toml").write_bytes(b"name = \xff")
    with pytest.raises(LabError, match="cannot be read as TOML in UTF-8"):
        languages.find("sr-Cyrl")


def test_a_language_without_voice_and_recordings_says_what_it_needs(
    at_smoke: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (at_smoke / "fi").mkdir()
    (at_smoke / "fi" / "language.toml").write_text('name = "Finnish"\nletters = "aeinst"\n')
    assert main(["train", "fi", "--preset", "smoke"]) == 2
    assert "has neither a voice in language.toml nor recordings: give --recordings" in capsys.readouterr().err
    assert main(["train", "xx", "--preset", "smoke"]) == 2
    assert "or a language of" in capsys.readouterr().err
    (at_smoke / "fi" / "language.toml").write_text('name = "Finnish"\nletters = "aeinst"\nvoice = "fi"\n')
    (at_smoke / "fi" / "texts.txt").write_text("Tesi sani.\n")
    assert main(["train", "fi", "--preset", "smoke"]) == 2
    assert "have no sentence for" in capsys.readouterr().err


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """What the Record tab keeps: sounds, and a table with each one's consent."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    voices = voice_pool("dev", 2)
    rows = []
    for i, text in enumerate(sentences("sw", "lm", 12, seed=5)):
        wave = speak(text, "sw", voices[i % 2], LIVELY, i)
        audio.write(folder / f"{i}.wav", wave, generated=False)
        consent = f"speaker-{i % 2} agreed to research"
        rows.append(
            {"file": f"{i}.wav", "text": text, "speaker": f"speaker-{i % 2}", "language": "sw"}
            | {"consent": consent}
        )
    pd.DataFrame(rows).to_csv(folder / "recordings.tsv", sep="\t", index=False)
    return folder


def test_consent_given_in_the_record_tab_travels_into_training(
    recorded: Path, at_smoke: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus"
    assert main(["import", str(recorded), "--language", "sw", "--out", str(corpus)]) == 0
    assert f"next: slmlab train sw --recordings {corpus}" in capsys.readouterr().out
    assert main(["train", "sw", "--preset", "smoke", "--recordings", str(corpus)]) == 0
    (stage,) = (tmp_path / "cache" / "smoke").glob("corpus.sw-????????????")
    ledger = pd.read_parquet(stage / "corpus" / "manifest.parquet")
    assert set(ledger["consent"]) <= {"speaker-0 agreed to research", "speaker-1 agreed to research"}
    assert set(ledger["split"]) == {"lm"}
    assert main(["train", "speaker", "--preset", "smoke", "--recordings", str(corpus), str(recorded)]) == 2
    assert "recordings is no corpus" in capsys.readouterr().err


def test_every_stage_can_hear_an_imported_corpus(recorded: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    bring_in(read(recorded), ImportSpec("mine", "sw", ""), corpus)
    shares = shelf.shares_of([corpus])
    stages = shelf._stages("smoke", shares)
    plain = shelf._stages("smoke")
    spoken = [name for name in stages if name.startswith("corpus.")]
    assert {name for name in spoken if stages[name].run.args != plain[name].run.args} == {
        *("corpus.parts", "corpus.judge_a", "corpus.judge_b", "corpus.sw"),
    }
    taken = take(Share(str(corpus), keep_wave=True), tmp_path / "share")
    assert len(taken.wave(0)) > 1000
    with pytest.raises(LabError, match="no utterance of split unseen"):
        take(Share(str(corpus), ("unseen",)), tmp_path / "none")


def test_alphabets_grow_at_their_end(languages_folder: Path) -> None:
    add(languages_folder, "ka")
    old = alphabet_of(["sw"])
    new = old.with_language("ka")
    assert new.symbols[: len(old.symbols)] == old.symbols
    assert new.with_language("ka") == new
    assert set(new.symbols) - set(old.symbols) == set("".join(WORDS["ka"])) - {" "}
    assert Alphabet(("a",)).with_language("sw").symbols[0] == "a"
    assert for_scoring("დედა მოდის?", "ka") == "დედა მოდის"
