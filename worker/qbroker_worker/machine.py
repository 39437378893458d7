"""What the machine, or the container on it, offers a worker."""

import math
import os
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""Where a container's share of the processors stands: "<quota> <period>" in microseconds, or "max <period>"."""


def cores(cpu_max: Path = CPU_MAX) -> int:
    """How many processors this process may keep busy; at least one."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
        return max(1, min(count, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return count
