"""Windows and macOS, as far as Linux can tell: modules that lack, starts without `make`, code pages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slmlab import places

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
from slmlab.training.cache import Stage, locked, read_done, run_stages
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
