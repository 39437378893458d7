"""Carries steps between the streams' event loop and the thread that owns the store.

Both are Python, so they share one interpreter lock; letting both run at once makes them fight for it, at
a cost of hundreds of microseconds a message. So they take turns: the loop waits while the
store's thread decides, and runs while it commits, which needs no lock. What arrives during a commit is the
next step.

A step of one small command is taken on the loop itself, as long as commits are quick: waking another
thread and being woken by it costs as much as the rest of such a step. Either way there is one writer at a
time, and whoever begins a transaction ends it.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from qbroker_server.broker import RETRY_S, Broker, Step
from qbroker_server.clock import Clock
from qbroker_server.core.command import Command
from qbroker_server.core.errors import CoreError

logger = logging.getLogger(__name__)

R = TypeVar("R")

_LIGHT_ITEMS_MAX = 2
"""A step of one command up to this size is light."""

_QUICK_COMMIT_S = 0.002
"""A commit that takes longer must not hold up the loop."""


class Pump:
    """Runs a broker's steps: decided and committed on a thread of their own, answered on the loop."""

    def __init__(
        self, broker: Broker, clock: Clock, on_fatal: Callable[[BaseException], None]
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._is_stepping = False
        self._is_scheduled = False
        self._is_wanted = False
        self._is_failed = False
        self._commit_s = 0.0
        self._retry: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        # Two bare locks as hand-over signals: released by one thread, acquired by the other.
        self._go = threading.Lock()
        self._decided = threading.Lock()
        self._go.acquire()
        self._decided.acquire()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._work, name="qbroker-writer", daemon=True)
        self._thread.start()

    def submit(self, command: Command[R], reply: Callable[[R | CoreError], None]) -> None:
        """Have `command` applied by the next step; `reply` is called on the loop after its commit."""
        self._broker.submit(command, reply)
        self.nudge()

    async def ask(self, command: Command[R]) -> R:
        """The answer to `command`, after its commit; its refusal is raised."""
        future: asyncio.Future[R] = self._loop.create_future()

        def reply(value: R | CoreError) -> None:
            if future.done():
                return
            if isinstance(value, CoreError):
                future.set_exception(value)
            else:
                future.set_result(value)

        self.submit(command, reply)
        return await future

    def nudge(self) -> None:
        """Take a step soon, or after the one under way."""
        if self._is_stepping:
            self._is_wanted = True
            return
        if self._is_scheduled or self._is_failed or self._is_stopping:
            return
        self._is_scheduled = True
        self._idle.clear()
        # Not at once: what else this turn of the loop brings in shares the commit.
        self._loop.call_soon(self._begin)

    async def drain(self) -> None:
        """Wait until everything submitted has been answered, or nothing will be any more."""
        await self._idle.wait()

    def stop(self) -> None:
        """End the thread; the pump must be drained."""
        self._is_stopping = True
        if self._retry is not None:
            self._retry.cancel()
        self._go.release()
        self._thread.join()

    def _begin(self) -> None:
        self._is_scheduled = False
        if self._is_stopping:
            return
        self._is_stepping = True
        self._is_wanted = False
        if self._commit_s < _QUICK_COMMIT_S and self._broker.is_light(_LIGHT_ITEMS_MAX):
            self._step_here()
            return
        self._go.release()
        self._decided.acquire()

    def _step_here(self) -> None:
        step: Step | None = None
        error: BaseException | None = None
        try:
            step = self._broker.decide()
            self._commit(step)
        except BaseException as caught:  # noqa: BLE001 — the process ends in order
            error = caught
        self._end(step, error)

    def _commit(self, step: Step) -> None:
        began = self._clock.monotonic()
        step.txn.commit()
        self._commit_s = self._clock.monotonic() - began

    def _work(self) -> None:
        while True:
            self._go.acquire()
            if self._is_stopping:
                return
            step: Step | None = None
            error: BaseException | None = None
            try:
                step = self._broker.decide()
            except BaseException as caught:  # noqa: BLE001 — handed to the loop, which ends the process
                error = caught
            self._decided.release()
            if step is not None:
                try:
                    self._commit(step)
                except BaseException as caught:  # noqa: BLE001 — the same
                    error = caught
            self._loop.call_soon_threadsafe(self._end, step, error)

    def _end(self, step: Step | None, error: BaseException | None) -> None:
        self._is_stepping = False
        if (
            step is not None
            and isinstance(error, Exception)
            and self._broker.take_back(step, error)
        ):
            self._is_wanted = True
            self._go_on(has_more=False)
            return
        if step is None or error is not None:
            # A commit that failed may or may not be on disk: nothing is confirmed, nothing is tried again.
            self._is_failed = True
            self._idle.set()
            self._broker.abandon(step)
            self._on_fatal(error or RuntimeError("the step was lost"))
            return
        self._broker.reply(step)
        self._go_on(has_more=step.has_more)

    def _go_on(self, *, has_more: bool) -> None:
        if self._broker.has_work or has_more or self._is_wanted:
            self.nudge()
            return
        self._idle.set()
        if self._broker.trouble and self._retry is None:
            # What waits for the disk must not wait for somebody else's command as well.
            self._retry = self._loop.call_later(RETRY_S, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self.nudge()
