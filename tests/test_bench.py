"""What counts as reaching a bar."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench import bars, load
from bench.bars import Row
from bench.peers import TrainingSpeed

from slmlab.errors import LabError


@pytest.mark.parametrize(
    ("value", "bar", "better", "ok"),
    [
        (9, 10, "lower", True),
        (11, 10, "lower", False),
        (3, 3, "higher", True),
        (2, 3, "higher", False),
        (-0.02, 0.03, "within", True),
        (0.04, 0.03, "within", False),
    ],
)
def test_bar(value: float, bar: float, better: str, ok: bool) -> None:
    assert Row("x", value, "", bar, better, "").ok is ok


def test_what_is_asked_for_finds_its_parts() -> None:
    parts = ("speak.", "speak.rtf", "probe", "lm.train", "lm.time_ratio")
    assert bars._parts_of("speak.rtf", parts) == {"speak.rtf"}
    assert bars._parts_of("speak.sw.cer", parts) == {"speak."}
    assert bars._parts_of("speak", parts) == {"speak.", "speak.rtf"}
    assert bars._parts_of("probe.f0", parts) == {"probe"}
    assert bars._parts_of("lm", parts) == {"lm.train", "lm.time_ratio"}
    assert bars._parts_of("lm.train_limit", parts) == {"lm.train"}
    with pytest.raises(LabError, match="'style'"):
        bars._parts_of("style", parts)


def test_rows_measured_are_kept_beside_those_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speed = TrainingSpeed(ratio=1.2, limit=0.5, step=0.1, tokens=30)
    monkeypatch.setattr(bars.files, "RUNS", tmp_path)
    monkeypatch.setattr(bars.peers, "training_speed", lambda config, tokens: speed)
    (tmp_path / "smoke").mkdir()
    (tmp_path / "smoke" / "bench.json").write_text('[{"id": "speak.rtf"}, {"id": "lm.train_ratio"}]')
    path = bars.run("smoke", ["lm.train"])
    rows = {row["id"]: row for row in json.loads(path.read_text())}
    assert list(rows) == ["speak.rtf", "lm.train_ratio", "lm.train_limit"]
    assert (rows["lm.train_ratio"]["value"], rows["lm.train_ratio"]["ok"]) == (1.2, True)
    assert (rows["lm.train_limit"]["value"], rows["lm.train_limit"]["ok"]) == (0.5, False)
    assert "✗ lm.train_limit: 0.5 share (bar ≥ 0.6)" in capsys.readouterr().out


def test_a_command_that_fails_is_said_with_its_last_words() -> None:
    assert bars._seconds_of("--version") > 0
    with pytest.raises(LabError, match=r"`slmlab nothing` ended with code 2: .*invalid choice: 'nothing'"):
        bars._seconds_of("nothing")


def test_a_neighbour_is_busy_until_its_end_and_slows_what_it_is_beside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running: list[subprocess.Popen[bytes]] = []

    def spent(jobs: list[Callable[[], object]], rounds: int) -> list[list[float]]:
        assert rounds == 1
        return [[6.0 if running else 2.0]]

    @contextmanager
    def noted() -> Iterator[None]:
        with neighbour() as process:
            running.append(process)
            yield
            assert running.pop().poll() is None
        assert process.returncode

    neighbour = load.neighbour
    monkeypatch.setattr(load, "neighbour", noted)
    monkeypatch.setattr(load, "alternate", spent)
    assert load.slowdown(print, rounds=2) == (3.0, 2.0)
