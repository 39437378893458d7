"""Time limits of tasks that run on threads of this process.

A thread cannot be ended from outside. What can be done is to have the interpreter raise an exception in it
the next time it runs Python code: a task that waits in a system call or an extension gets it when that
returns. Who watches the clock is the pool.
"""

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass

from qbroker.exceptions import SoftTimeLimitExceeded
from qbroker_worker import clock


@dataclass(slots=True, eq=False)
class Limited:
    """A run with limits. `soft_at` and `hard_at` are moments of the monotonic clock; 0 is no limit."""

    thread: int
    soft_at: float
    hard_at: float
    soft_s: float
    hard_s: float
    is_interrupted: bool = False
    """An exception is on its way to the thread, or has come."""

    def next_at(self) -> float:
        """The next moment to look at it; 0: there is none."""
        if self.soft_at and not self.is_interrupted:
            return self.soft_at
        return self.hard_at


class ThreadGuard:
    """Keeps the time limits of what runs on each thread."""

    def __init__(self, monotonic: Callable[[], float] = clock.monotonic) -> None:
        self._now = monotonic
        self._limited: dict[int, Limited] = {}
        self._lock = threading.Lock()

    def begin(self, soft_s: float | None, hard_s: float | None) -> None:
        now, thread = self._now(), threading.get_ident()
        self._limited[thread] = Limited(
            thread,
            now + soft_s if soft_s else 0.0,
            now + hard_s if hard_s else 0.0,
            soft_s or 0.0,
            hard_s or 0.0,
        )

    def end(self) -> None:
        thread = threading.get_ident()
        with self._lock:
            limited = self._limited.pop(thread, None)
            if limited is not None and limited.is_interrupted:
                # It may not have come yet, and is not to hit what runs here next.
                _raise_in(thread, None)

    def of(self, thread: int) -> Limited | None:
        """What runs on the thread, if it has limits."""
        return self._limited.get(thread)

    def interrupt(self, limited: Limited) -> bool:
        """Raise SoftTimeLimitExceeded in it; False when it has ended."""
        return self._interrupt(limited, SoftTimeLimitExceeded)

    def give_up(self, limited: Limited) -> bool:
        """Raise SystemExit in it, which ends it without its handlers; False when it has ended."""
        return self._interrupt(limited, SystemExit)

    def _interrupt(self, limited: Limited, exc: type[BaseException]) -> bool:
        with self._lock:
            if self._limited.get(limited.thread) is not limited:
                return False
            limited.is_interrupted = True
            _raise_in(limited.thread, exc)
            return True


def _raise_in(thread: int, exc: type[BaseException] | None) -> None:
    """Have the interpreter raise an exception in a thread; None takes one back that has not come yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if exc is None else ctypes.py_object(exc)
    )
