"""The one place that asks the machine for the time."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since some moment; never goes back."""

monotonic: Clock = time.monotonic


monotonic_ns = time.monotonic_ns
"""The same in nanoseconds; all processes of the machine agree on it."""


def now_ms() -> int:
    """Unix time in milliseconds, for people to read."""
    return time.time_ns() // 1_000_000
