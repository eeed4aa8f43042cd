"""What this machine gives us: where things lie, how many cores are ours, processes of our own."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
IS_CHECKOUT = (ROOT / "pyproject.toml").is_file()
DATA = (ROOT if IS_CHECKOUT else PACKAGE) / "data"
"""What comes with the lab; a wheel has it inside."""
HOME = Path(os.environ.get("SLMLAB_HOME") or (ROOT if IS_CHECKOUT else "~/slmlab")).expanduser().absolute()
"""Where what is made goes: into the checkout, or where `SLMLAB_HOME` says."""
OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores for this process: those that it is bound to, or fewer where a container grants less time."""
    return max(1, math.ceil(min([bound_cores(), *_quotas()])))


def bound_cores() -> int:
    """Cores that this process may run on, for however long."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def without_program() -> Iterator[None]:
    """Processes that start meanwhile import what they need, and not the program that starts them: that one
    would begin once more in each of them, and where it came through a pipe there is nothing to import.
    """
    program = vars(sys.modules["__main__"])
    kept: dict[str, Any] = {n: program[n] for n in ("__file__", "__spec__") if n in program}
    program.pop("__file__", None)
    program["__spec__"] = None
    try:
        yield
    finally:
        program.update(kept)


def _quotas() -> list[float]:
    """Cores' worth of time that each control group around this process grants, where it sets a limit."""
    found = []
    for line in OWN_GROUPS.read_text("utf-8").strip().split("\n") if OWN_GROUPS.exists() else []:
        _, controllers, own = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for group in (PurePosixPath(own), *PurePosixPath(own).parents):
            folder = GROUPS / controllers / str(group).lstrip("/")
            try:
                if controllers:  # the first version of control groups
                    quota, period = (
                        (folder / f"cpu.cfs_{of}_us").read_text("utf-8") for of in ("quota", "period")
                    )
                else:
                    quota, period = (folder / "cpu.max").read_text("utf-8").split()
                if (granted := float(quota) / float(period)) > 0:
                    found.append(granted)
            except (OSError, ValueError):  # no limit is written as "max", as -1, or not at all
                continue
    return found
