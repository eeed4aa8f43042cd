"""How many of this machine's cores are ours."""

import math
import os
from pathlib import Path, PurePosixPath

OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def usable() -> int:
    """Cores for this process: those that it is bound to, or fewer where a container grants less time."""
    return max(1, math.ceil(min([bound(), *_quotas()])))


def bound() -> int:
    """Cores that this process may run on, for however long."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas() -> list[float]:
    """Cores' worth of time that each control group around this process grants, where it sets a limit."""
    found = []
    for line in OWN_GROUPS.read_text().strip().split("\n") if OWN_GROUPS.exists() else []:
        _, controllers, own = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for group in (PurePosixPath(own), *PurePosixPath(own).parents):
            folder = GROUPS / controllers / str(group).lstrip("/")
            try:
                if controllers:  # the first version of control groups
                    quota, period = ((folder / f"cpu.cfs_{of}_us").read_text() for of in ("quota", "period"))
                else:
                    quota, period = (folder / "cpu.max").read_text().split()
                if (granted := float(quota) / float(period)) > 0:
                    found.append(granted)
            except (OSError, ValueError):  # no limit is written as "max", as -1, or not at all
                continue
    return found
