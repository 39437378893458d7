"""The one place that asks the machine for the time."""

import time
from typing import Protocol


class Clock(Protocol):
    """What time it is."""

    def now_ms(self) -> int:
        """Unix time in milliseconds; may step when the machine's clock is set."""

    def monotonic(self) -> float:
        """Seconds from some fixed moment; never steps."""


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.perf_counter()


class MovableClock(SystemClock):
    """The machine's clock, but for what a test has let pass."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms
