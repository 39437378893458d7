"""Ends tasks that run on threads of this process: at their time limits, or because they were revoked.

A thread cannot be ended from outside. What can be done is to have the interpreter raise an exception in it
the next time it runs Python code: a task that waits in a system call or an extension gets it when that
returns. Who watches the clock is the pool.

A thread is struck only between `begin` and `end`, and what has not come by then is taken back. `end` may itself be
struck before it has said so; that is why the pool calls it again, outside of everything that the task runs in.

CPython 3.12 and 3.13 compile the jump back of some loops (`while condition:`) without the handlers around it. 3.13 raises there
what a thread or a signal brings, so a `try` in the frame of such a loop may miss it (python/cpython#130279); the caller's
`try` never does. So no loop of ours may lie in a frame whose handlers must see an end: call it.
"""

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass

from qbroker.exceptions import SoftTimeLimitExceeded
from qbroker.limits import RESULT_BYTES_MAX
from qbroker_worker import clock

LATE_S = 0.01
"""How long a task may have run before its limits begin without the pool being told: it looks by itself for longer."""


class Revoked(SystemExit):
    """Raised in the thread of a task that was revoked; passes by `except Exception`."""


@dataclass(slots=True, eq=False)
class Limited:
    """What runs on a thread. `soft_at` and `hard_at` are moments of the monotonic clock; 0 is no limit."""

    thread: int
    soft_at: float
    hard_at: float
    soft_s: float
    hard_s: float
    job: object = None
    """Whose it is, to the pool."""
    is_async: bool = False
    """It is an asyncio task, and ended as such."""
    is_interrupted: bool = False
    """The soft limit was reached, or the thread is struck for something else."""
    cancel: Callable[[], object] | None = None
    """Cancels the asyncio task from any thread; None: it is not there yet, or over."""

    def next_at(self) -> float:
        """The next moment to look at it; 0: there is none."""
        if self.soft_at and not self.is_interrupted:
            return self.soft_at
        return self.hard_at


class ThreadGuard:
    """Keeps the time limits of what runs on each thread, and ends what was revoked."""

    watches_all = True
    """What has no limits may be revoked."""

    def __init__(self, monotonic: Callable[[], float] = clock.monotonic) -> None:
        self._now = monotonic
        self.result_bytes_max = RESULT_BYTES_MAX
        """The largest result that the broker takes."""
        self._limited: dict[int, Limited] = {}
        self._jobs: dict[int, object] = {}
        """What each thread is at, or was at last."""
        self._taken: dict[int, float] = {}
        """Since when."""
        self._tell: Callable[[], None] | None = None
        self._revoked: dict[int, object] = {}
        """Jobs that are to be ended, by their identity."""
        self._lock = threading.Lock()

    def listen(self, tell: Callable[[], None]) -> None:
        """Have `tell` called, on the thread of a task, when its limits begin long after it was taken."""
        self._tell = tell

    def take(self, job: object) -> None:
        """This thread is at the job from now on."""
        thread = threading.get_ident()
        self._jobs[thread], self._taken[thread] = job, self._now()

    def leave(self) -> None:
        """This thread is at none any more, and nothing strikes it."""
        self.end()
        self._jobs.pop(threading.get_ident(), None)

    def begin(self, soft_s: float | None, hard_s: float | None, *, is_async: bool = False) -> None:
        now, thread = self._now(), threading.get_ident()
        job = self._jobs.get(thread)
        limited = Limited(
            thread,
            now + soft_s if soft_s else 0.0,
            now + hard_s if hard_s else 0.0,
            soft_s or 0.0,
            hard_s or 0.0,
            job,
            is_async,
        )
        with self._lock:
            if id(job) in self._revoked:
                raise Revoked
            self._limited[thread] = limited
        if (
            (soft_s or hard_s)
            and self._tell is not None
            and now - self._taken.get(thread, now) > LATE_S
        ):
            self._tell()

    def end(self) -> None:
        thread = threading.get_ident()
        with self._lock:
            limited = self._limited.pop(thread, None)
            if limited is not None and limited.is_interrupted:
                # It may not have come yet, and is not to hit what runs here next.
                _raise_in(thread, None)

    def waits(self, cancel: Callable[[], object] | None) -> None:
        limited = self._limited.get(threading.get_ident())
        if limited is None:
            return
        with self._lock:
            limited.cancel = cancel
            if cancel is not None and id(limited.job) in self._revoked:
                cancel()

    def heed(self) -> None:
        if id(self._jobs.get(threading.get_ident())) in self._revoked:
            raise Revoked

    # -- on any thread -------------------------------------------------------------------------

    def revoke(self, job: object) -> None:
        """End the job, which runs or is about to."""
        with self._lock:
            self._revoked[id(job)] = job
            for limited in self._limited.values():
                if limited.job is not job:
                    continue
                if not limited.is_async:
                    limited.is_interrupted = True
                    _raise_in(limited.thread, Revoked)
                elif limited.cancel is not None:
                    limited.cancel()

    def is_revoked(self, job: object) -> bool:
        """Whether the job is being ended."""
        return id(job) in self._revoked

    def forget(self, job: object) -> None:
        """The job is over."""
        self._revoked.pop(id(job), None)

    def of(self, thread: int) -> Limited | None:
        """What runs on the thread, if it has limits."""
        return self._limited.get(thread)

    def interrupt(self, limited: Limited) -> bool:
        """Raise SoftTimeLimitExceeded in it; False when it has ended, or was revoked."""
        # A thread has one exception on its way, and the later one would take the place of Revoked.
        return not self.is_revoked(limited.job) and self._interrupt(limited, SoftTimeLimitExceeded)

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
