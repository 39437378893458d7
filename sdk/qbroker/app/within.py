"""Time limits of an `async def` task, kept by the event loop it runs on.

At the soft limit SoftTimeLimitExceeded is raised inside the coroutine, where it waits, so that the task may
catch it as anywhere else. At the hard limit the coroutine is cancelled, which runs its `finally` clauses and
passes by `except Exception`; what it was, TimeLimitExceeded, is raised to who waits for it. A coroutine that
blocks the loop is not interrupted.
"""

import asyncio
from collections.abc import Coroutine, Generator
from typing import TypeVar

from qbroker.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from qbroker.request import plain_seconds
from qbroker.serialization import Value

__all__ = ["within"]

T = TypeVar("T")


async def within(
    coroutine: Coroutine[Value, Value, T], soft_s: float | None, hard_s: float | None
) -> T:
    """What the coroutine returns, within its limits in seconds; None is no limit."""
    if not soft_s and not hard_s:
        return await coroutine
    loop = asyncio.get_running_loop()
    relay = _Relay(coroutine)
    timers = []
    if soft_s:
        timers.append(loop.call_later(soft_s, relay.interrupt))
    if hard_s:
        timers.append(loop.call_later(hard_s, relay.cancel, hard_s))
    try:
        value: T = await relay
        return value
    finally:
        for timer in timers:
            timer.cancel()


class _Relay:
    """Stands between a coroutine and the asyncio task it runs in, and turns that one's cancellation into ours."""

    def __init__(self, coroutine: Coroutine[Value, Value, Value]) -> None:
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        self._task = task
        self._coroutine = coroutine
        self._interruption: SoftTimeLimitExceeded | None = None
        self._limit: TimeLimitExceeded | None = None
        self._is_cancelled = False

    def interrupt(self) -> None:
        """Raise SoftTimeLimitExceeded where the coroutine waits."""
        if self._limit is None:
            self._interruption = SoftTimeLimitExceeded()
            self._task.cancel()

    def cancel(self, hard_s: float) -> None:
        """Cancel the coroutine."""
        self._interruption = None
        self._limit = TimeLimitExceeded(plain_seconds(hard_s))
        self._task.cancel()

    def __await__(self) -> Generator[Value, Value, Value]:
        try:
            return (yield from self._relay())
        except BaseException:
            if self._limit is not None and self._is_cancelled:
                raise self._limit from None
            raise

    def _relay(self) -> Generator[Value, Value, Value]:
        coroutine = self._coroutine
        try:
            waited_for = coroutine.send(None)
            while True:
                try:
                    got = yield waited_for
                except asyncio.CancelledError as exc:
                    waited_for = coroutine.throw(self._turned(exc))
                except BaseException as exc:  # noqa: BLE001 - all of it is the coroutine's
                    waited_for = coroutine.throw(exc)
                else:
                    waited_for = coroutine.send(got)
        except StopIteration as stop:
            if self._is_cancelled and self._limit is not None:
                raise self._limit from None
            return stop.value

    def _turned(self, exc: asyncio.CancelledError) -> BaseException:
        interruption, self._interruption = self._interruption, None
        if interruption is not None:
            self._task.uncancel()
            return interruption
        if self._limit is not None and not self._is_cancelled:
            # Ours and not somebody else's, who would have been heard already.
            self._is_cancelled = True
            self._task.uncancel()
        return exc
