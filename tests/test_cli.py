"""The commands as a person types them: one sentence for a mistake, exit code 2, no traceback."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from slmlab import audio, pipeline
from slmlab.cli import main

SHIPPED = pipeline.SHIPPED / "tiny"
needs_checkpoints = pytest.mark.skipif(
    not (SHIPPED / "lm.sw.safetensors").exists(), reason="no checkpoints are shipped yet"
)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(arguments)
    return code, capsys.readouterr().err


def test_unknown_preset_stage_and_language(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, word in (
        (("corpus", "--preset", "huge"), "'huge'"),
        (("train", "lm.xx"), "'lm.xx'"),
        (("speak", "abc", "--language", "xx"), "'xx'"),
    ):
        code, error = said(capsys, *arguments)
        assert code == 2
        assert word in error
        assert error.count("\n") == 1


def test_report_without_a_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pipeline, "RUNS", tmp_path)
    code, error = said(capsys, "report")
    assert code == 2
    assert "slmlab run" in error


def test_checkpoints_that_are_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, error = said(capsys, "speak", "mama", "--checkpoints", str(tmp_path / "nothing"))
    assert code == 2
    assert "nothing" in error


def test_as_many_texts_as_sounds(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = said(capsys, "measure", "a.wav", "b.wav", "--text", "moja")
    assert code == 2
    assert "2 sounds but 1" in error


@needs_checkpoints
def test_speak_then_measure_in_a_new_process(tmp_path: Path) -> None:
    out = tmp_path / "a.wav"
    lab = [sys.executable, "-m", "slmlab.cli"]
    subprocess.run(
        [*lab, "speak", "Mama anapika chakula.", "--language", "sw", "--out", str(out)], check=True
    )
    wave, info = audio.read(out)
    assert info.sample_rate == 16000
    assert audio.is_generated(out)
    assert 0.5 < len(wave) / 16000 < 10
    asked = [*lab, "measure", str(out), "--text", "Mama anapika chakula.", "--json"]
    rows = json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
    assert rows[0]["sound"] == str(out)
    assert 0 <= rows[0]["cer"] <= 1.5


@needs_checkpoints
@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("speak", ""), "no"),
        (("speak", "mama 7"), "7"),
        (("speak", "мама"), "м"),
        (("speak", "mama", "--voice", "nobody"), "nobody"),
        (("speak", "mama", "--voice", "gone.wav"), "gone.wav"),
    ],
)
def test_mistakes_in_speaking(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], word: str
) -> None:
    code, error = said(capsys, *arguments, "--out", str(tmp_path / "a.wav"))
    assert code == 2
    assert word in error
    assert error.count("\n") == 1
    assert not (tmp_path / "a.wav").exists()


@needs_checkpoints
def test_voice_from_silence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    silent = tmp_path / "silent.wav"
    audio.write(silent, np.zeros(16000, np.float32))
    code, error = said(capsys, "speak", "mama", "--voice", str(silent), "--out", str(tmp_path / "a.wav"))
    assert code == 2
    assert "silent.wav" in error
