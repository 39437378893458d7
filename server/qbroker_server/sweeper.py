"""Sleeps until the next deadline, then submits what is due."""

import asyncio

from qbroker_server.broker import Broker, Step
from qbroker_server.clock import Clock
from qbroker_server.core import timetable
from qbroker_server.core.schedule import Sweep
from qbroker_server.pump import Pump

_LOOK_S = 1.0
"""How long it sleeps at most: when the machine's clock is set forward, what is due then is not late by more."""


class Sweeper:
    """Keeps one timer, set to the earliest row of the time index."""

    def __init__(self, broker: Broker, pump: Pump, clock: Clock) -> None:
        self._broker = broker
        self._pump = pump
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = 0.0
        self._is_sweeping = False
        broker.listeners.append(self)
        self._set(broker.read(timetable.next_ms))

    def stepped(self, step: Step) -> None:
        """Look again at when the next row is due."""
        if not self._is_sweeping:
            self._set(step.next_ms)

    def stop(self) -> None:
        """Sweep no more."""
        self._is_sweeping = True
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, next_ms: int | None) -> None:
        if self._timer is not None:
            if next_ms is None:
                self._timer.cancel()
                self._timer = None
                return
            wakes_at = self._loop.time() + self._wait_s(next_ms)
            # Moving a timer by less than a clock tick is not worth a step's time.
            if abs(wakes_at - self._wakes_at) < 0.001 or wakes_at > self._wakes_at:
                return
            self._timer.cancel()
        elif next_ms is None:
            return
        wait_s = self._wait_s(next_ms)
        self._wakes_at = self._loop.time() + wait_s
        self._timer = self._loop.call_later(wait_s, self._wake)

    def _wait_s(self, next_ms: int) -> float:
        return min(max(0.0, (next_ms - self._clock.now_ms()) / 1000), _LOOK_S)

    def _wake(self) -> None:
        self._timer = None
        next_ms = self._broker.read(timetable.next_ms)
        if next_ms is None or next_ms > self._clock.now_ms():
            self._set(next_ms)
            return
        self._is_sweeping = True
        self._pump.submit(Sweep(), self._swept)

    def _swept(self, answer: object) -> None:
        if answer is True:
            self._pump.submit(Sweep(), self._swept)
            return
        self._is_sweeping = False
