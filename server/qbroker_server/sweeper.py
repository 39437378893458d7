"""Sleeps until the next deadline, then submits what is due."""

import asyncio

from qbroker_server.broker import Broker, Step
from qbroker_server.clock import Clock
from qbroker_server.core import timetable
from qbroker_server.core.errors import StoreDamaged
from qbroker_server.core.periodic import Almanac
from qbroker_server.core.schedule import Sweep
from qbroker_server.pump import Pump

_LOOK_S = 1.0
"""How long it sleeps at most: when the machine's clock is set forward, what is due then is not late by more."""


class Sweeper:
    """Keeps one timer, set to the earliest row of the time index."""

    def __init__(self, broker: Broker, pump: Pump, clock: Clock, almanac: Almanac) -> None:
        self._sweep = Sweep(almanac=almanac)
        self._broker = broker
        self._pump = pump
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        # uvloop's handle of a timer without a delay does not say when it is due.
        self._wakes_at = 0.0
        self._is_sweeping = False
        self._is_stopped = False
        broker.listeners.append(self)
        self._wake()

    def stepped(self, step: Step) -> None:
        """Wake earlier when something wants to be looked at earlier."""
        if step.next_ms is not None and not self._is_sweeping:
            self._set(step.next_ms)

    async def sweep(self) -> None:
        """Do what is due by the clock as it is now, all of it."""
        while await self._pump.ask(self._sweep):
            pass

    def stop(self) -> None:
        """Sweep no more, also when a sweep under way has been answered."""
        self._is_stopped = self._is_sweeping = True
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, next_ms: int) -> None:
        wait_s = min(max(0.0, (next_ms - self._clock.now_ms()) / 1000), _LOOK_S)
        wakes_at = self._loop.time() + wait_s
        if self._timer is not None:
            if wakes_at >= self._wakes_at:
                return
            self._timer.cancel()
        self._wakes_at = wakes_at
        self._timer = self._loop.call_later(wait_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        due_ms = self._broker.read(timetable.next_ms)
        times = [ms for ms in (due_ms, self._broker.dispatcher.wake_ms) if ms is not None]
        if not times:
            return
        next_ms = min(times)
        if next_ms > self._clock.now_ms():
            self._set(next_ms)
            return
        # A step that finds nothing due still dispatches what a limit has let go.
        self._is_sweeping = True
        self._pump.submit(self._sweep, self._swept)

    def _swept(self, answer: object) -> None:
        if self._is_stopped or isinstance(answer, StoreDamaged):
            # A damaged store is swept no more: what is due stays due, and would be looked at without end.
            return
        if answer is True:
            self._pump.submit(self._sweep, self._swept)
            return
        self._is_sweeping = False
        self._wake()
