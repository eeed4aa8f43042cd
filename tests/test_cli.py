"""The commands as a person types them: a mistake is one sentence and exit code 2, and nothing is lost."""

import functools
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from slmlab import files, places
from slmlab.cli import main
from slmlab.corpus.build import Corpus
from slmlab.corpus.collections import Clip
from slmlab.corpus.imports import ImportSpec, bring_in
from slmlab.models.lm import SpeechLM
from slmlab.people.design import from_systems
from slmlab.sound import audio
from slmlab.speech import chain as chain_module
from slmlab.speech import commands
from slmlab.speech.chain import Chain
from slmlab.study import report
from slmlab.training import checkpoints, shelf
from slmlab.training.cache import Stage, run_stages


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command that must fail says: one line."""
    code = main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("slmlab: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


def tone(seconds: float, rate: int = 16_000, channels: int = 1) -> np.ndarray:
    """A buzz `(s c)` whose loudness moves a little."""
    t = np.arange(int(seconds * rate)) / rate
    wave = 0.3 * np.sign(np.sin(2 * np.pi * 150 * t)) * (1 + 0.5 * np.sin(2 * np.pi * 3 * t))
    return np.stack([wave] * channels, 1)


def write_tone(path: Path, rate: int = 16_000, channels: int = 1, subtype: str = "PCM_16") -> None:
    soundfile.write(path, tone(1.0, rate, channels), rate, subtype=subtype)


def write_tenth(path: Path) -> None:
    soundfile.write(path, tone(0.1), 16_000)


def write_ten_minutes(path: Path) -> None:
    soundfile.write(path, np.tile(tone(1.0, 8_000), (600, 1)), 8_000)


def write_silence(path: Path) -> None:
    soundfile.write(path, np.zeros(16_000), 16_000)


def write_cut(path: Path) -> None:
    write_tone(path)
    path.write_bytes(path.read_bytes()[:10_000])


def write_text(path: Path) -> None:
    path.write_text("this is not a sound")


SOUND = {
    "stereo": functools.partial(write_tone, channels=2),
    "8 kHz": functools.partial(write_tone, rate=8_000),
    "24 bit": functools.partial(write_tone, subtype="PCM_24"),
    "float": functools.partial(write_tone, subtype="FLOAT"),
}
NO_SOUND: dict[str, tuple[Callable[[Path], object], str]] = {
    "silent": (write_silence, "is silent"),
    "10 min": (write_ten_minutes, "lasts 600.0 s"),
    "truncated": (write_cut, "is cut off"),
    "not audio": (write_text, "could not be decoded as sound"),
    "empty": (Path.touch, "is empty"),
    "gone": (lambda path: None, "does not exist"),
    "a folder": (Path.mkdir, "is a folder"),
}


def test_unknown_preset_stage_and_language(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'huge'" in refused(capsys, "corpus", "--preset", "huge")
    assert "'lm.xx'" in refused(capsys, "train", "lm.xx")
    assert "tokenizer is taught no language" in refused(capsys, "train", "tokenizer.it")
    assert "'xx'" in refused(capsys, "speak", "abc", "--language", "xx")


def test_an_error_is_one_line_whatever_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    for end in ("\n", "\r", "\u2028", "\x85"):
        assert len(refused(capsys, "speak", "abc", "--language", f"x{end}x").splitlines()) == 1


def test_a_chain_is_shipped_whole_or_not_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert "slmlab train all --ship" in refused(capsys, "train", "lm.sw", "--ship")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("speak", "mama", "--seed", "-1"), "'-1' is not possible: give a whole number from 0 to 4294967295"),
        (("speak", "mama", "--seed", "99999999999"), "from 0 to 4294967295"),
        (("sweep", "--seeds", "0,1.5"), "'1.5' is not possible: give a whole number"),
        (("sweep", "--alphas", "half"), "'half' is not possible: give a number"),
        (("sweep", "--alphas", "0.5,inf"), "'inf' is not possible: give a number"),
        (("sweep", "--workers", "-3"), "'-3' is not possible: give a whole number from 0 to 1024"),
        (("app", "study", "--port", "99999"), "'99999' is not possible: give a whole number from 1 to 65535"),
        (("align", "dgsa", "--alpha", "1.5"), "'1.5' is not possible: give a number from 0 to 1"),
        (("settle", "dgsa", "--steps", "many"), "'many' is not possible"),
    ],
)
def test_numbers_that_are_none(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert words in capsys.readouterr().err


def test_a_package_that_is_not_installed_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers")

    monkeypatch.setattr(shelf, "corpora", lacking)
    assert "transformers is not installed: `make test` installs it" in refused(capsys, "corpus")


def test_a_report_makes_the_run_that_it_lacks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(files, "RUNS", tmp_path)
    monkeypatch.setattr(report, "run", lambda preset, folder: asked.append(preset))
    assert "there is no run" in refused(capsys, "report"), "this one left nothing"
    assert asked == ["tiny"]


@pytest.mark.parametrize(
    "asked", ["sweep", "align core", "align full", "bench", "train all --ship", "train judge_c --ship"]
)
def test_what_has_its_place_in_a_checkout_says_so_without_one(
    asked: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "IS_CHECKOUT", False)
    assert "in a clone of the lab's repository" in refused(capsys, *asked.split())


def test_a_run_without_a_checkout_executes_no_notebook(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(places, "IS_CHECKOUT", False)
    monkeypatch.setattr(report, "run", lambda *_: None)
    monkeypatch.setattr(report, "write", lambda folder: folder / "report.html")
    assert main(["run", "--preset", "smoke", "--out", str(tmp_path)]) == 0
    assert "then 0 notebooks" in capsys.readouterr().out


def test_a_report_writes_the_ledger_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(report, "ledger_page", "# The ledger of {}\n".format)
    assert main(["report", "--preset", "smoke", "--ledger", str(tmp_path / "ledger.md")]) == 0
    assert (tmp_path / "ledger.md").read_text() == "# The ledger of smoke\n"
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.md"], "and makes no run"
    assert main(["report", "--preset", "smoke", "--claims"]) == 0
    assert "# The ledger of smoke" in capsys.readouterr().out


def test_a_report_whose_figures_were_cut_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(files, "RUNS", tmp_path)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "report.json").write_text('{"preset": "ti')
    (tmp_path / "tiny" / "rows.json").write_text("[]")
    assert "report.json is damaged" in refused(capsys, "report")


def test_checkpoints_that_are_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "nothing" in refused(capsys, "speak", "mama", "--checkpoints", tmp_path / "nothing")


def test_as_many_texts_as_sounds(capsys: pytest.CaptureFixture[str]) -> None:
    assert "2 sounds but 1" in refused(capsys, "measure", "a.wav", "b.wav", "--text", "moja")


def test_speak_then_measure_in_a_new_process(random_chain: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.wav"
    lab = [sys.executable, "-m", "slmlab"]
    mine = ["--checkpoints", str(random_chain)]
    text = "Mama anapika chakula."
    subprocess.run([*lab, "speak", text, "--language", "sw", "--out", str(out), *mine], check=True)
    wave, info = audio.read(out)
    assert info.sample_rate == 16000
    assert audio.read(out)[1].generated
    assert 0.5 < len(wave) / 16000 < 10
    asked = [*lab, "measure", str(out), "--text", text, "--json", *mine]
    rows = json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
    assert rows[0]["sound"] == str(out)
    assert rows[0]["seconds"] == pytest.approx(len(wave) / 16000)
    assert rows[0]["cer"] >= 0


def test_the_lines_of_a_file_become_a_system_of_a_listening_test(
    random_chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, out, one = tmp_path / "lines.txt", tmp_path / "a", tmp_path / "one.wav"
    lines.write_text("mama anapika\n\nbaba anasoma kitabu\n", encoding="utf-8")
    mine = ["--checkpoints", str(random_chain), "--seed", "3"]
    assert main(["speak", "--file", str(lines), "--out", str(out), *mine]) == 0
    assert main(["speak", "mama anapika", "--out", str(one), *mine]) == 0
    made = {f"00{i}.{x}" for i in "12" for x in ("wav", "txt", "json")}
    assert {path.name for path in out.iterdir()} == made
    np.testing.assert_allclose(audio.read(out / "001.wav")[0], audio.read(one)[0], atol=1e-3)
    assert (out / "002.txt").read_text(encoding="utf-8") == "baba anasoma kitabu\n"
    assert capsys.readouterr().err == 2 * f"the language model is {random_chain / 'lm.sw'}\n"
    again = refused(capsys, "speak", "--file", lines, "--out", out, *mine)
    assert f"{out} holds sounds already, which would join these" in again
    assert "give a folder" in refused(capsys, "speak", "--file", lines, "--out", one, *mine)
    shutil.copytree(out, tmp_path / "b")
    study = from_systems([out, tmp_path / "b"], tmp_path / "clips")
    clip = next(clip for clip in study.clips if (clip.system, clip.sentence) == ("a", "002"))
    assert clip.text == "baba anasoma kitabu"
    assert (clip.seed, list(clip.tokens)) == (3, json.loads((out / "002.json").read_text())["tokens"])


def test_a_tuned_language_model_speaks_in_place_of_the_chain_s(
    random_chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(*options: object) -> bytes:
        out, mine = tmp_path / "a.wav", ("--checkpoints", random_chain)
        assert main(["speak", "mama", "--out", str(out), *map(str, (*mine, *options))]) == 0
        return out.read_bytes()

    assert say("--lm", random_chain / "lm.sw") == say() != say("--lm", random_chain / "lm.vi")
    network = checkpoints.load(random_chain / "lm.vi", SpeechLM)[0]
    checkpoints.save(tmp_path / "tuned", network, checkpoints.Card(network.config, {"language": "vi"}))
    assert f"the language model is {random_chain / 'lm.vi'}\n" in capsys.readouterr().err
    error = refused(capsys, "speak", "mama", "--lm", tmp_path / "tuned", "--checkpoints", random_chain)
    assert "tuned was taught vi, not sw: choose another" in error
    facts = {"languages": ["es", "vi"]}
    checkpoints.save(tmp_path / "tuned", network, checkpoints.Card(network.config, facts))
    error = refused(capsys, "speak", "mama", "--lm", tmp_path / "tuned", "--checkpoints", random_chain)
    assert "tuned was taught es, vi, not sw: choose another" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("",), ("nothing to say", "write one")),
        ((" … ?!",), ("nothing to say",)),
        (("mama", "--file", "lines.txt"), ("a text or a --file", "not both")),
        (("мама",), ("'м' (U+043C CYRILLIC SMALL LETTER EM)", "choose the language of the text")),
        (("mama €",), ("EURO SIGN", "write symbols as words")),
        (("mama\x07",), ("control characters",)),
        (("mama", "--voice", "nobody"), ("no voice 'nobody'", "mid")),
        (("mama", "--language", "xx"), ("'xx'", "sw")),
        (("mama", "--language", "es"), ("no language model for 'es'", "sw, vi")),
        (("mama", "--temperature", "0"), ("temperature=0.0",)),
        (("mama " * 101,), ("505 characters, at most 500", "cut it into sentences")),
    ],
)
def test_mistakes_in_speaking(
    capsys: pytest.CaptureFixture[str],
    random_chain: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    out = tmp_path / "a.wav"
    error = refused(capsys, "speak", *arguments, "--out", out, "--checkpoints", random_chain)
    assert all(word in error for word in words), error
    assert not out.exists()


def test_a_text_that_is_too_long_is_refused_before_a_chain_is_opened(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    assert "at most 500" in refused(capsys, "speak", "mama " * 101, "--checkpoints", nowhere)


def test_a_sound_of_another_form_is_not_promised(
    capsys: pytest.CaptureFixture[str], random_chain: Path, tmp_path: Path
) -> None:
    error = refused(capsys, "speak", "mama", "--out", tmp_path / "a.mp3", "--checkpoints", random_chain)
    assert "ends in .wav" in error
    assert not list(tmp_path.iterdir())


def test_a_named_voice_is_not_looked_for_among_the_files(
    random_chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mid").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["speak", "mama", "--voice", "mid", "--checkpoints", str(random_chain)]) == 0
    assert (tmp_path / "out.wav").exists()


@pytest.mark.parametrize("kind", SOUND)
def test_sounds_of_every_form_give_a_voice_and_a_manner_and_are_measured(
    kind: str, random_chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out, mine = tmp_path / "given.wav", tmp_path / "a.wav", ("--checkpoints", str(random_chain))
    SOUND[kind](given)
    said = ["speak", "mama", "--voice", str(given), "--style", str(given), "--out", str(out), *mine]
    assert "somebody's voice" in refused(capsys, *said)
    assert main([*said, "--consent", "my own voice"]) == 0
    assert soundfile.SoundFile(out).comment == f"{audio.GENERATED}; a voice copied with consent: my own voice"
    assert audio.read(out)[1].generated
    capsys.readouterr()
    named = refused(capsys, "speak", "mama", "--voice", "mid", "--consent", "mine", *mine)
    assert "'mid' came with the checkpoints" in named
    capsys.readouterr()
    assert main(["measure", str(given), "--reference", str(given), "--json", *mine]) == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert row["seconds"] == pytest.approx(1.0, abs=0.001)
    assert row["similarity"] == pytest.approx(1.0, abs=1e-5)
    assert 0 <= row["entropy"] <= np.log2(25)  # of 25 codes
    assert 0 <= row["repetition"] <= 1


@pytest.mark.parametrize("kind", NO_SOUND)
def test_what_gives_no_voice_no_manner_and_no_measure(
    kind: str, random_chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out, mine = tmp_path / "given.wav", tmp_path / "a.wav", ("--checkpoints", random_chain)
    make, why = NO_SOUND[kind]
    make(given)
    for asked in (
        ("speak", "mama", "--voice", given, "--out", out),
        ("speak", "mama", "--style", given, "--out", out),
        ("measure", given),
    ):
        error = refused(capsys, *asked, *mine)
        assert f"{given} {why}" in error
    assert not out.exists()


def test_a_tenth_of_a_second_is_measured_but_gives_no_voice(
    random_chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, mine = tmp_path / "given.wav", ("--checkpoints", str(random_chain))
    write_tenth(given)
    for option in ("--voice", "--style"):
        error = refused(capsys, "speak", "mama", option, given, "--out", tmp_path / "a.wav", *mine)
        assert "lasts 0.100 s, too short to take a" in error
    assert main(["measure", str(given), "--text", "mama", "--reference", str(given), *mine]) == 0
    said = capsys.readouterr().out
    assert "0.100" in said
    own = r"calibrated_cer \(cer less the recording's\) +0\.000"
    assert re.search(own, said), "a recording adds nothing to its own errors"


def test_what_is_shorter_than_a_frame_is_named(
    random_chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "click.wav", tone(0.005), 16_000)
    error = refused(capsys, "measure", tmp_path / "click.wav", "--checkpoints", random_chain)
    assert "click.wav lasts 0.005 s, too short to be measured: give at least 0.04 s" in error


def test_a_sound_that_cannot_be_measured_costs_no_other(
    random_chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / name for name in ("a.wav", "click.wav", "b.wav", "gone.wav")]
    for path, seconds in zip(paths[:3], (0.2, 0.005, 0.3), strict=True):
        soundfile.write(path, tone(seconds), 16_000)
    mine = ["--json", "--checkpoints", str(random_chain)]
    assert main(["measure", *map(str, paths), *mine]) == 2
    said = capsys.readouterr()
    assert [row["sound"] for row in json.loads(said.out)] == [str(paths[0]), str(paths[2])]
    assert said.err.startswith("slmlab: 2 of 4 sounds were not measured: ")
    assert "click.wav lasts 0.005 s" in said.err
    assert "gone.wav" in said.err
    measure = commands.measure

    def interrupted(chain: Chain, sound: Path, *rest: Any) -> dict[str, Any]:
        if sound == paths[2]:
            raise KeyboardInterrupt
        return measure(chain, sound, *rest)

    monkeypatch.setattr(commands, "measure", interrupted)
    assert main(["measure", str(paths[0]), str(paths[2]), *mine]) == 130
    said = capsys.readouterr()
    assert [row["sound"] for row in json.loads(said.out)] == [str(paths[0])]
    assert "what was measured until then is printed" in said.err


@pytest.fixture
def chain(random_chain: Path, tmp_path: Path) -> Path:
    """A copy of the random networks, to be broken."""
    return shutil.copytree(random_chain, tmp_path / "chain")


@pytest.mark.parametrize("part", ["tokenizer", "decoder", "vocoder", "lm.sw"])
@pytest.mark.parametrize("left", [0.0, 0.5, 0.999])
def test_half_written_checkpoints(
    chain: Path, part: str, left: float, capsys: pytest.CaptureFixture[str]
) -> None:
    file = chain / f"{part}.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(left * len(content))])
    error = refused(capsys, "speak", "mama", "--out", chain / "a.wav", "--checkpoints", chain)
    assert f"{file} is damaged or half-written" in error
    assert "train again" in error


def test_corrupt_checkpoints(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = chain / "decoder.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    error = refused(capsys, "speak", "mama", "--out", chain / "a.wav", "--checkpoints", chain)
    assert f"{file} is damaged (its digest" in error


def test_half_written_voices(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (chain / "voices.json").write_text('{"mid": [0.1, ')
    error = refused(capsys, "speak", "mama", "--out", chain / "a.wav", "--checkpoints", chain)
    assert "voices.json is damaged" in error
    for content in ("[1]", '{"mid": "x"}', '{"mid": [1, 2]}', '{"mid": [[1], [2, 3]]}', "null"):
        (chain / "voices.json").write_text(content)
        assert "voices.json holds no voices" in refused(capsys, "speak", "mama", "--checkpoints", chain)


def test_a_checkpoint_of_another_config(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from slmlab.models.decoder import DecoderConfig, FlowDecoder

    other = DecoderConfig(timbre_width=65, width=32, layers=1)
    checkpoints.save(chain / "decoder", FlowDecoder(other), checkpoints.Card(config=other))
    error = refused(capsys, "speak", "mama", "--out", chain / "a.wav", "--checkpoints", chain)
    assert f"decoder was not made for the tokenizer of {chain} (timbre_width: found 65, expected 9)" in error


def test_a_checkpoint_of_another_network(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(chain / "vocoder.safetensors", chain / "decoder.safetensors")
    error = refused(capsys, "speak", "mama", "--out", chain / "a.wav", "--checkpoints", chain)
    assert "holds a Vocoder, not the expected FlowDecoder" in error


@contextmanager
def full_disk(free: int) -> Iterator[None]:
    """No file may grow beyond `free` bytes, which is refused as a write to a full disk is."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_what_was_there(
    random_chain: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.wav"
    out.write_bytes(b"said before")
    with full_disk(2_000):
        error = refused(capfd, "speak", "mama", "--out", out, "--checkpoints", random_chain)
    assert f"{out} could not be written" in error
    assert "Free some space" in error
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
    assert out.read_bytes() == b"said before"


def fill(folder: Path, inputs: dict[str, Path]) -> dict[str, int]:
    """A stage that writes a corpus's settings, too long for the disk."""
    files.replace_text(folder / "corpus.json", "…" * 10_000)
    return {}


def falter(folder: Path, inputs: dict[str, Path]) -> dict[str, int]:
    """A stage whose process is killed the first time, after half of the work."""
    if not (folder / "half").exists():
        (folder / "half").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"found": 1}


def plan(
    monkeypatch: pytest.MonkeyPatch, cache: Path, run: Callable[..., dict[str, int]], workers: int
) -> None:
    """Let the commands know one stage only."""
    stage = Stage("corpus.toy", (), run, None)
    monkeypatch.setattr(files, "CACHE", cache)
    monkeypatch.setattr(shelf, "_stages", lambda preset, shares=(): {stage.name: stage})
    monkeypatch.setattr(shelf, "run_stages", functools.partial(run_stages, workers=workers))


def test_a_killed_process_is_named_and_the_same_command_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan(monkeypatch, tmp_path, falter, workers=2)
    error = refused(capsys, "corpus", "--preset", "smoke")
    assert "corpus.toy: its process ended with code -9 (-9 is a kill" in error
    plan(monkeypatch, tmp_path, falter, workers=1)
    assert main(["corpus", "--preset", "smoke"]) == 0


def test_a_full_disk_while_a_stage_works(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan(monkeypatch, tmp_path, fill, workers=1)
    with full_disk(10_000):
        error = refused(capsys, "train", "corpus.toy", "--preset", "smoke")
    assert "corpus.json could not be written" in error
    assert "Free some space" in error
    assert main(["train", "corpus.toy", "--preset", "smoke"]) == 0


def test_ctrl_c_says_what_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt  # a signal itself would be ignored where pytest runs in the background

    monkeypatch.setattr(shelf, "corpora", interrupted)
    assert main(["corpus"]) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    monkeypatch.setattr(chain_module, "open_chain", interrupted)
    assert main(["speak", "mama"]) == 130
    assert capsys.readouterr().err == "slmlab: stopped before its end: run it again\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_of_few_letters_is_told_what_it_can_show(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = [io.BytesIO(), io.BytesIO()]
    for name, stream in zip(("stdout", "stderr"), content, strict=True):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(stream, encoding=encoding, write_through=True))
    monkeypatch.setattr(report, "machine", lambda: "Tiếng Việt")
    assert main(["doctor"]) == 0
    assert main(["speak", "мама ố", "--language", "ố"]) == 2
    assert content[0].getvalue().startswith(b"OK Ti")
    assert content[1].getvalue().startswith(b"slmlab: Language")


def test_recordings_come_in_by_one_command_and_what_is_broken_is_listed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("asha", "juma"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        write_tone(tmp_path / "mine" / name / "a.wav")
    (tmp_path / "mine" / "asha" / "a.txt").write_text("Mama anapika.", encoding="utf-8")
    out = tmp_path / "corpus"
    asked = ("import", tmp_path / "mine", "--language", "sw", "--consent", "my own voice", "--out", out)
    assert main([str(argument) for argument in asked]) == 0
    said = capsys.readouterr().out
    assert re.search(r"skipped: .*juma/a\.wav: .*no transcript", said)
    assert f"imported: 1 recordings, 0.0 min, into {out}" in said
    assert Corpus.load(out).rows[["source", "voice", "text", "consent"]].to_numpy().tolist() == [
        ["mine", "asha", "Mama anapika.", "my own voice"]
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"--form": "kaldi"}, "plain, common_voice, spontaneous, ljspeech, table, source"),
        ({"--language": "xx"}, "'xx' is unknown"),
        ({"--consent": " "}, "consent"),
        ({"--form": "ljspeech"}, "metadata.csv does not exist"),
    ],
)
def test_an_import_says_what_it_lacks(
    change: dict[str, str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_tone(tmp_path / "a.wav")
    options = {"--language": "sw", "--consent": "CC0", "--out": str(tmp_path / "corpus")} | change
    error = refused(capsys, "import", tmp_path, *(part for pair in options.items() for part in pair))
    assert re.search(told, error)
    assert not (tmp_path / "corpus").exists()


def test_a_row_of_the_manifest_whose_file_is_gone(
    random_chain: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_tone(tmp_path / "mama.wav")
    clips = [Clip(tmp_path / "mama.wav", "mama", "asha")]
    for language in ("sw", "vi"):
        spec = ImportSpec("mine", language, consent="CC0")
        bring_in(clips, spec, tmp_path / "held_out" / f"test-{language}")
    (tmp_path / "mama.wav").unlink()
    monkeypatch.setattr(files, "RUNS", tmp_path)
    monkeypatch.setattr(shelf, "checkpoint_folder", lambda preset: random_chain)
    monkeypatch.setattr(shelf, "make", lambda preset, stage: tmp_path / stage.removeprefix("corpus."))
    capsys.readouterr()
    error = refused(capsys, "run", "--preset", "smoke")
    assert "mama.wav is gone" in error
    assert not (tmp_path / "smoke" / "report.json").exists()


def test_no_network_is_asked_for(random_chain: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*_: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    out = tmp_path / "a.wav"
    assert main(["speak", "mama", "--out", str(out), "--checkpoints", str(random_chain)]) == 0
    assert main(["measure", str(out), "--checkpoints", str(random_chain)]) == 0
