"""Stages are made once, in order of need, side by side; no failure and no kill costs what others made."""

import functools
import importlib
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tqdm.auto import tqdm

from slmlab import places
from slmlab.errors import LabError
from slmlab.training import recipes
from slmlab.training.cache import Stage, read_done, run_stages, stage_folders
from slmlab.training.code import code_of

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["torch", "slmlab.training.cache"])


def add(ledger: Path, number: int, folder: Path, inputs: dict[str, Path]) -> dict[str, int]:
    """Sum of a number and the inputs' sums; every time it is made is a line in a ledger."""
    total = number + sum(read_done(source)["metrics"]["total"] for source in inputs.values())
    with open(ledger, "a") as lines:
        lines.write(f"{folder.name.rpartition('-')[0]}\n")
    return {"total": total}


def refuse(folder: Path, inputs: dict[str, Path]) -> dict[str, int]:
    """A stage that a person's mistake ends."""
    raise LabError("There is no sound in a.wav; record it again.")


def stumble(folder: Path, inputs: dict[str, Path]) -> dict[str, int]:
    """A stage that a mistake of ours ends."""
    return {"total": 1 // 0}


def meet(name: str, other: str, folder: Path, inputs: dict[str, Path]) -> dict[str, str | None]:
    """A stage that ends only while another is running: both wait for the other's sign."""
    (folder.parent / name).touch()
    until = time.monotonic() + 60
    while not (folder.parent / other).exists():
        assert time.monotonic() < until, f"{other} was not started beside {name}"
        time.sleep(0.01)
    return {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "TQDM_POSITION")}


def advance(folder: Path, inputs: dict[str, Path]) -> dict[str, int]:
    """A stage that says how far it is."""
    return {"total": sum(tqdm(range(3)))}


def count_on(pause: float, fatal: int, folder: Path, inputs: dict[str, Path]) -> dict[str, int]:
    """A training in small: it goes on from its folder; at step `fatal` its process is killed, once."""
    steps = folder / "steps"
    while (done := len(steps.read_text()) if steps.exists() else 0) < 20:
        steps.write_text("." * (done + 1))
        (folder / f"by-{os.getpid()}").touch()
        if done + 1 == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(pause)
    return {"steps": done}


def chain(ledger: Path, *numbers: int) -> list[Stage]:
    """Stages a, b, …; each adds its number to the one before."""
    names = "abcdef"[: len(numbers)]
    return [
        Stage(name, tuple(names[:i][-1:]), functools.partial(add, ledger, number), {"number": number})
        for i, (name, number) in enumerate(zip(names, numbers, strict=True))
    ]


def test_stages_are_made_once_in_order_of_need(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = chain(tmp_path / "ledger", 1, 10, 100)
    folders = run_stages(stages[::-1], tmp_path / "cache", workers=1)
    assert [read_done(folders[name])["metrics"]["total"] for name in "abc"] == [1, 11, 111]
    assert capsys.readouterr().out.splitlines()[:2] == ["a: started", "a: done in 0 s"]
    assert run_stages(stages, tmp_path / "cache", workers=1) == folders
    assert capsys.readouterr().out == ""
    assert (tmp_path / "ledger").read_text().split() == ["a", "b", "c"]
    assert read_done(folders["a"]).keys() == {"name", "seconds", "memory_mib", "metrics"}
    assert 10 < read_done(folders["a"])["memory_mib"] < 100_000


def test_fresh_makes_everything_anew(tmp_path: Path) -> None:
    stages = chain(tmp_path / "ledger", 1, 10)
    folders = run_stages(stages, tmp_path / "cache", workers=1)
    (folders["a"] / "old").touch()
    run_stages(stages, tmp_path / "cache", workers=1, fresh=True)
    assert (tmp_path / "ledger").read_text().split() == ["a", "b", "a", "b"]
    assert not (folders["a"] / "old").exists()


def test_a_change_reaches_what_comes_after_it_only(tmp_path: Path) -> None:
    run_stages(chain(tmp_path / "ledger", 1, 10, 100), tmp_path / "cache", workers=1)
    run_stages(chain(tmp_path / "ledger", 1, 20, 100), tmp_path / "cache", workers=1)
    assert (tmp_path / "ledger").read_text().split() == ["a", "b", "c", "b", "c"]


def test_code_that_a_stage_reaches_counts_but_comments_docstrings_and_its_neighbours_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy_package").mkdir()
    (tmp_path / "toy_package" / "__init__.py").write_text("")
    (tmp_path / "toy_package" / "outer.py").write_text(
        "from toy_package import inner\nfrom toy_package.inner import K as FACTOR\n\n\n"
        "def g(x):\n    return inner.f(x) * FACTOR\n\n\n"
        "def run(folder, inputs):\n    return {'total': g(1)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    times = itertools.count(1)

    def key(code: str) -> str:
        (tmp_path / "toy_package" / "inner.py").write_text(code)
        os.utime(tmp_path / "toy_package" / "inner.py", ns=(next(times), next(times)))
        importlib.invalidate_caches()
        run = importlib.import_module("toy_package.outer").run
        return stage_folders([Stage("a", (), run, None)], tmp_path)["a"].name

    first = key("K = 3\n\n\ndef f(x):\n    return x + 1\n")
    assert key('"""Why."""\n\nK = 3\n\n\ndef f(x):\n    """Add."""\n    return x  +  1  # one\n') == first
    assert key("K = 3\n\n\ndef f(x):\n    return x + 1\n\n\ndef unused():\n    return 9\n") == first
    assert key("K = 3\n\n\ndef f(x):\n    return x + 2\n") != first
    assert key("K = 4\n\n\ndef f(x):\n    return x + 1\n") != first
    assert key('K = 3\n\n\ndef f(x):\n    return "Add."\n') != first


def test_code_that_a_package_passes_on_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kind_package" / "inside").mkdir(parents=True)
    (tmp_path / "kind_package" / "__init__.py").write_text("")
    (tmp_path / "kind_package" / "inside" / "__init__.py").write_text(
        "from kind_package.inside.words import count\n"
    )
    (tmp_path / "kind_package" / "inside" / "words.py").write_text("def count(x):\n    return len(x)\n")
    (tmp_path / "kind_package" / "outer.py").write_text(
        "from kind_package import inside\n\n\ndef run(folder, inputs):\n    return inside.count('a')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    code = code_of(importlib.import_module("kind_package.outer").run)
    assert any(line.startswith("def count(x)") for line in code)


def test_code_of_a_network_is_not_code_of_another() -> None:
    tokenizer, speaker = (code_of(run) for run in (recipes.train_tokenizer, recipes.train_speaker))
    assert any(line.startswith("class SpeechTokenizer") for line in tokenizer)
    assert not any(line.startswith("class SpeechTokenizer") for line in speaker)
    both = {line for line in tokenizer if line in speaker}
    assert any(line.startswith("class Utterances") for line in both)
    assert any("def train(" in line for line in both)


@pytest.mark.parametrize(("config", "argument"), [({"n": 2}, 1), ({"n": 1}, 2)])
def test_config_and_arguments_count(tmp_path: Path, config: dict[str, int], argument: int) -> None:
    def folder(config: dict[str, int], argument: int) -> Path:
        run = functools.partial(functools.partial(add, tmp_path), argument)
        return stage_folders([Stage("a", (), run, config)], tmp_path)["a"]

    assert folder({"n": 1}, 1) == folder({"n": 1}, 1) != folder(config, argument)


def test_a_plan_that_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    first, second = chain(tmp_path / "ledger", 1, 10)
    with pytest.raises(LabError, match="a not among them"):
        run_stages([second], tmp_path)
    with pytest.raises(LabError, match="two share a name"):
        run_stages([first, first], tmp_path)


def test_a_failure_says_why_and_stops_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = tmp_path / "ledger"
    stages = [Stage("bad", (), refuse, None), *chain(ledger, 1, 10)]
    with pytest.raises(LabError) as caught:
        run_stages(stages, tmp_path / "cache", workers=1)
    assert str(caught.value) == (
        "bad: There is no sound in a.wav; record it again. The others were stopped. What was finished is "
        "kept: the same command goes on from there."
    )
    assert capsys.readouterr().out == "bad: started\n"
    assert not ledger.exists()


def test_a_failure_ends_the_stage_beside_it(tmp_path: Path) -> None:
    long = Stage("long", (), functools.partial(count_on, 0.5, 0), None)
    with pytest.raises(LabError, match="bad: There is no sound"):
        run_stages([long, Stage("bad", (), refuse, None)], tmp_path, workers=2)
    assert not (stage_folders([long], tmp_path)["long"] / "done.json").exists()


def test_asked_to_keep_going_a_failure_stops_only_what_needs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = tmp_path / "ledger"
    stages = [
        Stage("bad", (), refuse, None),
        Stage("worse", (), stumble, None),
        Stage("after", ("bad",), functools.partial(add, ledger, 1), None),
        Stage("last", ("after",), functools.partial(add, ledger, 1), None),
        *chain(ledger, 1, 10),
    ]
    with pytest.raises(LabError) as caught:
        run_stages(stages, tmp_path / "cache", workers=1, keep_going=True)
    said = str(caught.value)
    assert said.startswith("4 of 6 stages are not done")
    assert "bad: There is no sound in a.wav; record it again." in said
    assert "worse: ZeroDivisionError" in said
    assert "after: needs one that failed" in said
    assert "last: needs one that failed" in said
    printed = capsys.readouterr().out.splitlines()
    assert "bad: failed: There is no sound in a.wav; record it again." in printed
    assert any(line.startswith("worse: failed: ZeroDivisionError") for line in printed)
    assert ledger.read_text().split() == ["a", "b"]
    trace = stage_folders(stages, tmp_path / "cache")["worse"] / "error.txt"
    assert "1 // 0" in trace.read_text()


def test_a_mistake_of_ours_on_a_disk_that_takes_nothing_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(LabError, match=r"worse: ZeroDivisionError.*No space left on device: free some"):
        run_stages([Stage("worse", (), stumble, None)], tmp_path, workers=1)


def test_a_damaged_note_of_what_was_made_is_named(tmp_path: Path) -> None:
    folder = run_stages(chain(tmp_path / "ledger", 1), tmp_path, workers=1)["a"]
    (folder / "done.json").write_text('{"name": "a", ')
    with pytest.raises(LabError, match=r"done\.json is damaged"):
        read_done(folder)


def test_a_worker_s_failure_is_told_by_the_runner(tmp_path: Path) -> None:
    stages = [Stage("bad", (), refuse, None), Stage("worse", (), stumble, None)]
    with pytest.raises(LabError, match=r"record it again\.; worse: Zero|\(see .*\.; bad: There is no sound"):
        run_stages(stages, tmp_path, workers=2, keep_going=True)


def test_two_workers_work_at_the_same_time_each_with_a_line_and_a_share_of_the_cores(tmp_path: Path) -> None:
    before = dict(os.environ)
    stages = [Stage(a, (), functools.partial(meet, a, b), None) for a, b in ("xy", "yx")]
    folders = run_stages(stages, tmp_path, workers=2)
    seen = [read_done(folders[name])["metrics"] for name in "xy"]
    assert {row["TQDM_POSITION"] for row in seen} == {"0", "1"}
    assert {row["OMP_NUM_THREADS"] for row in seen} == {str(max(1, places.usable_cores() // 2))}
    assert dict(os.environ) == before


def test_workers_draw_no_bars_where_nobody_sees_a_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_stages([Stage("bar", (), advance, None)], tmp_path, workers=2)
    assert capfd.readouterr() == ("bar: started\nbar: done in 0 s\n", "")


def test_a_killed_worker_is_named_and_its_stage_goes_on_later(tmp_path: Path) -> None:
    stages = [Stage("long", (), functools.partial(count_on, 0.05, 7), None)]
    with pytest.raises(LabError, match=r"long: its process ended with code -9 \(-9 is a kill"):
        run_stages(stages, tmp_path, workers=2)
    folder = run_stages(stages, tmp_path, workers=1)["long"]
    assert read_done(folder)["metrics"] == {"steps": 20}
    assert len(list(folder.glob("by-*"))) == 2
    assert read_done(folder)["seconds"] >= 19 * 0.05  # 6 pauses before the kill, 13 after it


PROGRAM = """
import shutil, sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from slmlab.errors import LabError
from slmlab.training.cache import Stage, run_stages

def own(folder, inputs): ...
@dataclass
class Own: pass

# Longer than a pipe's buffer; `copytree` fails, as a stage may.
runs = {"theirs": partial(shutil.copytree, "." * 2**20), "own": own, "setting": partial(shutil.copy, Own())}
try:
    run_stages([Stage("toy", (), runs[sys.argv[2]])], Path(sys.argv[1]))
except LabError as error:
    sys.exit(f"slmlab: {error}")
"""


@pytest.mark.parametrize("place", ["pipe", "file", "cell"])
@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("theirs", "toy: OSError: [Errno 36] File name too long"),
        (
            "own",
            "The function own stands in the program that is run: put it into a file of its own, and",
        ),
        ("setting", "toy: its process cannot import what it is given (Can't get attribute 'Own'"),
    ],
)
def test_a_program_needs_no_guard_and_no_file_and_what_workers_lack_is_one_sentence(
    place: str, run: str, said: str, tmp_path: Path
) -> None:
    program = tmp_path / "a b#%20é.py"
    program.write_text(PROGRAM, encoding="utf-8")
    start = {
        "pipe": ["-"],
        "file": [str(program)],
        "cell": ["-c", PROGRAM],  # a program without a file, as a kernel is
    }[place]
    asked = [sys.executable, *start, str(tmp_path / "cache"), run]
    text = PROGRAM if place == "pipe" else None
    ended = subprocess.run(asked, input=text, timeout=120, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert said in ended.stderr.splitlines()[-1]
    assert ended.stderr.startswith("slmlab: ")


def waits_for(condition: Callable[[], bool]) -> None:
    """Wait at most a minute."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def alive(process: int) -> bool:
    """Whether a process is running (and no zombie)."""
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see a process end")
def test_a_killed_runner_takes_its_workers_along_and_all_goes_on_later(tmp_path: Path) -> None:
    stages = [Stage("long", (), functools.partial(count_on, 0.2, 0), None)]
    folder = stage_folders(stages, tmp_path)["long"]
    runner: Any = FORK.Process(target=run_stages, args=(stages, tmp_path))
    runner.start()
    waits_for(lambda: any(folder.glob("by-*")))
    runner.kill()
    runner.join()
    worker = int(next(folder.glob("by-*")).name.removeprefix("by-"))
    waits_for(lambda: not alive(worker))
    cut = len((folder / "steps").read_text())
    assert 0 < cut < 20
    assert not (folder / "done.json").exists()
    run_stages(stages, tmp_path, workers=1)
    assert json.loads((folder / "done.json").read_text())["metrics"] == {"steps": 20}


def test_two_runners_make_a_stage_once(tmp_path: Path) -> None:
    stages = [Stage("long", (), functools.partial(count_on, 0.05, 0), None)]
    runners: list[Any] = [FORK.Process(target=run_stages, args=(stages, tmp_path, 1)) for _ in range(2)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert [runner.exitcode for runner in runners] == [0, 0]
    folder = stage_folders(stages, tmp_path)["long"]
    assert read_done(folder)["metrics"] == {"steps": 20}
    assert len(list(folder.glob("by-*"))) == 1
