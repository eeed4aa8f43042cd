"""Windows and macOS, as far as Linux can tell: modules that lack, starts without `make`, code pages."""

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from slmlab import places
from slmlab.cli import main
from slmlab.training import loop

MODULES = [
    ".".join(path.relative_to(places.ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(places.PACKAGE.rglob("*.py"))
]

LOAD = f"""
import importlib, os, sys
names = {MODULES}
for name in names:
    importlib.import_module(name)
"""
WITHOUT_POSIX = f"""{LOAD}
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("sched_getaffinity", "register_at_fork", "sync", "getuid", "fork"):
    delattr(os, name)
for name in names:  # what others load was there before: only ours is asked
    sys.modules.pop(name, None)
"""


def ended(program: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=os.environ | settings, capture_output=True, check=False)


def test_every_module_loads_without_what_only_posix_has() -> None:
    assert len(MODULES) > 80
    told = ended(f"{WITHOUT_POSIX}{LOAD}")
    assert told.returncode == 0, told.stderr.decode()


def test_stages_are_made_without_what_only_posix_has(tmp_path: Path) -> None:
    program = f"""{WITHOUT_POSIX}
import shutil
from functools import partial
from pathlib import Path
from slmlab.training.cache import Stage, read_done, run_stages
folder = run_stages([Stage("a", (), print, 1)], Path({str(tmp_path)!r}), workers=1)["a"]
print(read_done(folder)["memory_mib"])
"""
    told = ended(program)
    assert (told.stdout.splitlines()[-1:], told.stderr) == ([b"None"], b"")


@pytest.mark.parametrize(
    ("encoding", "arguments"), [("cp1252", ["doctor"]), ("ascii", ["--help"]), ("cp932", ["speak", "--help"])]
)
def test_the_commands_start_as_a_module_on_any_code_page(encoding: str, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "slmlab", *arguments]
    given = os.environ | {"PYTHONIOENCODING": encoding}
    told = subprocess.run(command, env=given, capture_output=True, check=False)
    assert (told.returncode, b"Traceback" in told.stderr) == (0, False)
    assert b"usage: slmlab" in told.stdout or b"OK" in told.stdout


def test_workers_too_write_what_a_code_page_can_show() -> None:
    program = """
import subprocess, sys
from slmlab import cli
from slmlab.corpus import sources
def say(name):
    subprocess.check_call([sys.executable, "-c", "print('Ti\\u1ebfng')"])
    raise cli.LabError("said")
sources.find = say
cli.main(["fetch", "x"])
"""
    told = ended(program, PYTHONIOENCODING="cp1252")
    assert (told.stdout.split(), told.stderr.split()) == ([b"Ti?ng"], [b"slmlab:", b"said"])


def test_a_mac_is_told_that_its_gpu_is_not_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert main(["doctor"]) == 0
    assert "OK Apple's GPU (MPS) is here and stays unused" in capsys.readouterr().out
    assert loop.pick_device().type != "mps"


def of_unsaid_encoding(code: str) -> Iterator[int]:
    """Lines on which text is read or written in whatever encoding the machine is set to."""
    for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
        called = ast.unparse(call.func).rpartition(".")[2]
        named = {word.arg: ast.unparse(word.value) for word in call.keywords if word.arg}
        values = [ast.unparse(value) for value in call.args] + [named.get("mode", "")]
        is_binary = any(re.fullmatch("'[rwax+]*b[+]*'|os\\.O_.*", value) for value in values)
        opens = called in ("open", "fdopen", "TextIOWrapper") and not ast.unparse(call).startswith("Image.")
        asks = called in ("run", "Popen", "check_output") and "True" in map(
            named.get, ("text", "universal_newlines")
        )
        bare = len(call.args) == {"read_text": 0, "write_text": 1}.get(called)
        if "encoding" not in named and (bare or asks or (opens and not is_binary)):
            yield call.lineno


def test_text_files_are_opened_in_an_encoding_that_is_said() -> None:
    code = "a.read_text()\na.write_text(b)\nopen(c)\nc.open('a')\nrun(d, text=True)"
    assert list(of_unsaid_encoding(code)) == [1, 2, 3, 4, 5]
    assert not list(of_unsaid_encoding("a.read_text('utf-8')\nopen(c, 'rb')\nopen(c, encoding='utf-8')"))
    files = [path for folder in ("slmlab", "tests/bench") for path in (places.ROOT / folder).rglob("*.py")]
    assert len(files) > 90
    unsaid = {str(path): list(of_unsaid_encoding(path.read_text("utf-8"))) for path in files}
    assert {path: lines for path, lines in unsaid.items() if lines} == {}


def test_every_file_of_the_lab_has_a_name_that_windows_allows() -> None:
    folders = ("slmlab", "data", "docs", "notebooks", "tests")
    names = [path.relative_to(places.ROOT) for name in folders for path in (places.ROOT / name).rglob("*")]
    refused = re.compile(
        r'.*[<>:"|?*\\\x00-\x1f].*|.*[. ]|(con|prn|aux|nul|(com|lpt)\d)(\..*)?', re.IGNORECASE
    )
    assert [name for name in names if refused.fullmatch(name.name)] == []
    assert [name for name, n in Counter(str(name).lower() for name in names).items() if n > 1] == []
    assert max(len(str(name)) for name in names) < 200, "of the 260 characters that a path may have"
