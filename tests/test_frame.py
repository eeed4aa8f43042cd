"""What holds the house up: dependencies with reasons and versions, pip and conda alike, floors, make."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
]
EXTRAS = [
    Requirement(line)
    for name, lines in PROJECT["optional-dependencies"].items()
    if name != "dev"
    for line in lines
]
PINS = {
    canonicalize_name(pin.name): pin
    for pin in map(
        Requirement, re.findall(r"^[^#\n].*$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    )
}
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "slmlab").rglob("*.py")
)


def run(*command: str | Path, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess:
    """The finished command with what it said, started as a person would, outside of any make that runs."""
    outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "VENV", "PRESET", "FRESH", "UV", "PIP_EXTRA"}
    environment = {name: value for name, value in os.environ.items() if name not in outer} | {"PATH": path}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_every_dependency_says_why_it_is_there():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    for requirement in {*REQUIREMENTS, *EXTRAS}:
        found = [line for line in lines if line.strip().startswith(f'"{requirement}"')]
        assert len(found) == [*REQUIREMENTS, *EXTRAS].count(requirement)
        for line in found:
            assert re.search(r'",\s+# \w.{8,}', line), f"{requirement} has no reason beside it"


def test_extras_never_become_requirements():
    core = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert {"onnxruntime", "faster-whisper", "huggingface-hub"} <= {canonicalize_name(r.name) for r in EXTRAS}
    assert core & {canonicalize_name(requirement.name) for requirement in EXTRAS} == set()


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_every_dependency_is_pinned_to_a_version_it_allows(requirement):
    (pin,) = PINS[canonicalize_name(requirement.name)].specifier
    assert pin.operator == "=="
    assert pin.version in requirement.specifier


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_the_pinned_version_is_the_tested_one(requirement):
    installed = metadata.version(requirement.name)
    assert installed in PINS[canonicalize_name(requirement.name)].specifier, (
        "run make test: it installs the pins"
    )


def test_pins_name_no_place_and_no_build():
    for pin in PINS.values():
        assert pin.url is None
        assert "+" not in str(pin.specifier), f"{pin} exists on one machine only"


def test_pinned_versions_run_on_the_first_python_we_promise():
    for found in metadata.distributions():
        if canonicalize_name(found.name) in PINS:
            needed = SpecifierSet(found.metadata.get("Requires-Python", ""))
            assert "3.11.0" in needed, f"{found.name} {found.version} wants Python {needed}"


def test_conda_gets_the_same_python_and_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *from_conda, from_pip = environment["dependencies"]
    assert from_conda == [f"python {PROJECT['requires-python']}", "make", "pip"]
    assert from_pip == {"pip": ["--constraint constraints.txt", "--editable ."]}
    assert environment["name"] == PROJECT["name"]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports_and_says_what_it_is(module):
    assert importlib.import_module(module).__doc__


def test_imports_point_down():
    finished = run(Path(sys.executable).with_name("lint-imports"), "--no-cache")
    assert finished.returncode == 0, finished.stdout


@pytest.mark.parametrize(
    ("settings", "command"),
    [
        ((), "slmlab run --preset tiny "),
        (("PRESET=smoke",), "slmlab run --preset smoke "),
        (("FRESH=1",), "slmlab run --preset tiny --fresh"),
        (("FRESH=0",), "slmlab run --preset tiny "),
    ],
)
def test_make_run_hands_on_what_was_asked(settings, command):
    last = run("make", "--dry-run", "run", *settings).stdout.splitlines()[-1]
    assert last.endswith(command)


def test_make_knows_when_nothing_changed(tmp_path):
    (tmp_path / "bin").mkdir()
    for made in ("bin/pip", ".installed"):
        (tmp_path / made).touch()
    assert "--editable" not in run("make", "--dry-run", "run", f"VENV={tmp_path}").stdout
    os.utime(tmp_path / ".installed", (0, 0))
    assert "--editable ." in run("make", "--dry-run", "run", f"VENV={tmp_path}").stdout


def fake_python(folder: Path, body: str) -> Path:
    """An executable that answers as a Python we cannot use would."""
    program = folder / "python3"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return program


def test_make_refuses_an_old_python_in_one_sentence(tmp_path):
    old = fake_python(tmp_path, 'case "$1" in --version) echo Python 3.9.6;; -c) test -z "$2";; esac')
    finished = run("make", "run", f"VENV={tmp_path / 'venv'}", f"PYTHON={old}")
    assert finished.returncode == 2
    assert (
        f"slmlab needs Python 3.11 to 3.14, but PYTHON={old} is Python 3.9.6: name another" in finished.stderr
    )
    assert not (tmp_path / "venv").exists()


def test_make_says_when_there_is_no_python(tmp_path):
    fake_python(tmp_path, "exit 1")
    for tool in ("make", "sh"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    finished = run("make", "run", f"VENV={tmp_path / 'venv'}", path=str(tmp_path))
    assert finished.returncode == 2
    assert "found none on the PATH: install one" in finished.stderr
