"""A wheel, unpacked anywhere, is the whole lab but for notebooks and tests; what is made goes elsewhere."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from slmlab import files


def test_a_wheel_speaks_from_any_folder(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for folder in ("slmlab", "data"):
        ignored = shutil.ignore_patterns("__pycache__", "recordings")
        shutil.copytree(files.ROOT / folder, copy / folder, ignore=ignored)
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(files.ROOT / name, copy)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path), str(copy)], check=True)
    shutil.rmtree(copy)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("slmlab/data/")}
        archive.extractall(tmp_path / "site")
    ours = {path for path in files.DATA.rglob("*") if path.is_file() and "recordings" not in path.parts}
    missing = {f"slmlab/data/{path.relative_to(files.DATA).as_posix()}" for path in ours} - packed
    assert {name for name in missing if not name.endswith("data/README.md")} == set()
    surroundings = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "SLMLAB_HOME": str(tmp_path / "mine")}
    said = subprocess.run(
        [sys.executable, "-m", "slmlab", "speak", "Mama anapika", "--out", str(tmp_path / "a.wav")],
        cwd="/",
        env=surroundings,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    assert (tmp_path / "a.wav").stat().st_size > 10_000
    assert str(tmp_path / "site" / "slmlab" / "data") in said.stderr, "the networks of the wheel spoke"
