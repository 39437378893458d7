"""The child's half of time limits: writes its deadlines where the parent sees them, and heeds its signal.

The parent sends SIGUSR1 when the soft deadline has passed. The signal says only that it is worth looking at
the clock: one that comes late, when its task is over, finds no deadline and does nothing.

At the hard deadline the parent kills the child. A child that is past it when its task ends begins nothing
more, so that the kill never hits the next task.
"""

from collections.abc import Callable
from mmap import mmap
from socket import socket
from types import FrameType

from qbroker.exceptions import SoftTimeLimitExceeded
from qbroker.limits import RESULT_BYTES_MAX
from qbroker_worker import clock
from qbroker_worker.pools import frames

LATE_NS = 10_000_000
"""How long a task may have run before its limits begin without the parent being told: it looks by itself for longer."""


class ChildGuard:
    """Keeps the time limits of the one task that the child is in. One that is revoked ends with the child."""

    watches_all = False

    def __init__(
        self, shared: mmap, source: socket, monotonic_ns: Callable[[], int] = clock.monotonic_ns
    ) -> None:
        self._words = memoryview(shared)[: frames.REGIONS[0]].cast("Q")
        self._source = source
        self._now_ns = monotonic_ns
        self._soft_ns = 0
        self._hard_ns = 0
        self.claimed_ns = 0
        """When the present task was taken."""
        self.is_overdue = False
        """The hard limit has passed: the parent is about to kill this process."""

    @property
    def result_bytes_max(self) -> int:
        return self._words[frames.RESULT_BYTES] or RESULT_BYTES_MAX

    def begin(self, soft_s: float | None, hard_s: float | None, *, is_async: bool = False) -> None:
        del is_async  # The signal finds it wherever it is.
        words = self._words
        now_ns = self._now_ns()
        words[frames.LIMITS[0]] = int((soft_s or 0.0) * 1e6)
        words[frames.LIMITS[1]] = int((hard_s or 0.0) * 1e6)
        self._soft_ns = now_ns + int(soft_s * 1e9) if soft_s else 0
        self._hard_ns = now_ns + int(hard_s * 1e9) if hard_s else 0
        words[frames.DEADLINES[0]] = self._soft_ns
        words[frames.DEADLINES[1]] = self._hard_ns
        if now_ns - self.claimed_ns > LATE_NS:
            self._source.sendall(frames.BELL.pack(frames.LIMITED, 0, 0, 0))

    def end(self) -> None:
        self._soft_ns = 0
        words = self._words
        words[frames.DEADLINES[0]] = words[frames.DEADLINES[1]] = 0
        # After the word was cleared: a parent that reads it later sees no deadline.
        if self._hard_ns and self._now_ns() >= self._hard_ns:
            self.is_overdue = True
        self._hard_ns = 0

    def waits(self, cancel: Callable[[], object] | None) -> None:
        """The parent ends it with a signal, wherever it is."""

    def heed(self) -> None:
        """What ends it ends this process."""

    def interrupt(self, signum: int, frame: FrameType | None) -> None:
        """The handler of SIGUSR1."""
        if self._soft_ns and self._now_ns() >= self._soft_ns:
            self._soft_ns = 0
            self._words[frames.DEADLINES[0]] = 0
            raise SoftTimeLimitExceeded
