"""Cores that count are those that the process may use, and threads that wait for one another sleep."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from slmlab import places

BOUND = 8
V1 = "5:memory:/a\n4:cpu,cpuacct:/a/b\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with eight cores that this process may run on, and the root of its control groups."""
    monkeypatch.setattr(places, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(places, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(places, "bound_cores", lambda: BOUND)
    return tmp_path


@pytest.mark.parametrize(
    ("own", "limits", "usable"),
    [
        ("0::/\n", {}, BOUND),
        ("0::/\n", {"cpu.max": "max 100000\n"}, BOUND),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, BOUND),
        ("0::/a b/c\n", {"a b/cpu.max": "300000 100000\n", "a b/c/cpu.max": "max 100000\n"}, 3),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "400000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 4),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, BOUND),
        (V1, {"memory/cpu.max": "100000 100000\n"}, BOUND),
    ],
)
def test_a_container_s_share_of_time_counts(
    machine: Path, own: str, limits: dict[str, str], usable: int
) -> None:
    (machine / "own").write_text(own)
    for name, text in limits.items():
        file = machine / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert places.usable_cores() == usable


def test_without_control_groups_all_bound_cores_are_ours(machine: Path) -> None:
    assert places.usable_cores() == BOUND


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are not bound to cores here")
def test_a_process_bound_to_one_core_has_one() -> None:
    code = "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\n"
    code += "from slmlab import places; print(places.usable_cores())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\n"


@pytest.mark.skipif(sys.platform != "linux", reason="another OpenMP tells its settings in other words")
@pytest.mark.parametrize(("given", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE")])
def test_openmp_s_threads_sleep_while_they_wait_unless_told_otherwise(
    given: dict[str, str], policy: str
) -> None:
    outer = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-c", "import slmlab.files"]  # which needs torch
    told = subprocess.run(
        command, env=outer | given | {"OMP_DISPLAY_ENV": "true"}, capture_output=True, text=True, check=True
    ).stderr
    assert set(re.findall(r"OMP_WAIT_POLICY = '(\w+)'", told)) == {policy}
