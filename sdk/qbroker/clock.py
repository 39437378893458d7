"""The one place where the SDK asks the machine for the time; everything else is given it."""

import time
from collections.abc import Callable

monotonic: Callable[[], float] = time.monotonic
"""Seconds, for measuring how long something took."""


class _Ahead:
    """By how many milliseconds the wall clock is ahead of the machine's: a test's broker sets it (testing.py)."""

    ms = 0


ahead = _Ahead()


def wall() -> float:
    """Unix time in seconds."""
    return wall_ms() / 1000


def wall_us() -> int:
    """Unix time in microseconds."""
    return time.time_ns() // 1_000 + ahead.ms * 1_000


def wall_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000 + ahead.ms


def give_way() -> None:
    """Let other threads have a turn now, not when the interpreter's switch interval (5 ms) is over."""
    time.sleep(0)


def pause(seconds: float) -> None:
    """Let that much time pass on this thread."""
    time.sleep(seconds)


def utcoffset() -> int:
    """How many hours local time is behind UTC."""
    return -(time.localtime().tm_gmtoff // 3600)
