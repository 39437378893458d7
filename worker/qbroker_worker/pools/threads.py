"""Tasks run on threads of this process, which has the app."""

import asyncio
import os
import queue
import threading
from collections import deque
from collections.abc import Iterable

from qbroker_worker.pools.pace import Pace
from qbroker_worker.pools.pool import LostResult, Reports, lost
from qbroker_worker.values import Delivery, Finished, Run

LOOK_S = 0.005
"""How often the loop looks at what the threads are at. Only while it can learn something."""

SILENT_LOOKS = 4
"""After so many looks at the same task a slot counts as busy for long."""


class ThreadsPool:
    """A number of threads that take deliveries from one line."""

    name = "threads"

    def __init__(self, run: Run, *, slots: int, lost_result: LostResult) -> None:
        self.slots = slots
        self._run = run
        self._lost_result = lost_result
        self._pace = Pace()
        # Both ends of the line are taken from by one operation each, so a delivery is either begun
        # or withdrawn. A token stands for one delivery, or for one that was withdrawn.
        self._waiting: deque[Delivery] = deque()
        self._held_back: deque[Delivery] = deque()
        self._tokens: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._open: dict[int, Delivery] = {}
        self._running: list[Delivery | None] = [None] * slots
        self._looked_at: list[Delivery | None] = [None] * slots
        self._silent_looks = [0] * slots
        self._done: deque[tuple[int, Finished]] = deque()
        self._is_waking = False
        self._is_paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._pid = os.getpid()
        self._reports: Reports
        self._loop: asyncio.AbstractEventLoop

    async def start(self, reports: Reports) -> None:
        self._reports = reports
        self._loop = asyncio.get_running_loop()
        self._start_threads()

    def _start_threads(self) -> None:
        for slot in range(self.slots):
            # A daemon, so that a task that never ends cannot keep a killed worker alive.
            threading.Thread(
                target=self._work, args=(slot,), name=f"qbroker-slot-{slot}", daemon=True
            ).start()

    def serve(self) -> None:
        """The main thread has nothing to do here."""

    def _work(self, slot: int) -> None:
        """A slot's thread: run what comes until a token says that it is over."""
        while self._tokens.get():
            try:
                delivery = self._waiting.popleft()
            except IndexError:
                continue
            self._running[slot] = delivery
            try:
                ran = self._run(delivery.message, delivery.attempt, delivery.is_redelivered)
                finished = Finished(delivery, *ran)
            except BaseException as exc:  # noqa: BLE001 - SystemExit in a task ends its process elsewhere; here the process is everybody's
                sentence = f"Worker exited prematurely: {exc!r} Job: {delivery.id}."
                finished = lost(delivery, sentence, self._lost_result)
            self._done.append((slot, finished))
            if not self._is_waking:
                self._is_waking = True
                try:
                    self._loop.call_soon_threadsafe(self._collect)
                except RuntimeError:
                    return  # the loop is closed: the pool was killed, and this task given up

    def _collect(self) -> None:
        # Before looking, so that what is done from here on wakes the loop again.
        self._is_waking = False
        finished: list[Finished] = []
        while self._done:
            slot, done = self._done.popleft()
            if self._running[slot] is done.delivery:
                self._running[slot] = None
                self._silent_looks[slot] = 0
            # Not open any more: it was given up by `kill`.
            if self._open.pop(id(done.delivery), None) is not None:
                finished.append(done)
        if finished:
            for done in finished:
                self._pace.observe(done.delivery.task, done.runtime_s, 1)
            self._reports.finished(finished)
        if self._open:
            self._look_soon()

    # -- the pool's contract -------------------------------------------------------------------

    @property
    def pids(self) -> list[int]:
        return [self._pid]

    @property
    def wanted_count(self) -> int:
        short = sum(looks < SILENT_LOOKS for looks in self._silent_looks)
        return self.slots + short * self._pace.at_hand_count

    @property
    def is_idle(self) -> bool:
        return not self._open

    def submit(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            self._open[id(delivery)] = delivery
            self._held_back.append(delivery)
        if not self._is_paused:
            self._let_go()

    def _let_go(self) -> None:
        while self._held_back:
            self._waiting.append(self._held_back.popleft())
            self._tokens.put(True)  # noqa: FBT003 - a token
        if self._open:
            self._look_soon()

    def pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self._held_back.extend(self._take_waiting())

    def resume(self) -> None:
        self._is_paused = False
        self._let_go()

    def withdraw(self) -> list[Delivery]:
        taken = self._take_waiting()
        taken.extend(self._held_back)
        self._held_back.clear()
        for delivery in taken:
            del self._open[id(delivery)]
        return taken

    def forget(self, deliveries: Iterable[Delivery]) -> None:
        unwanted = {id(delivery) for delivery in deliveries}
        kept = [delivery for delivery in self.withdraw() if id(delivery) not in unwanted]
        self.submit(kept)

    def cancel(self, delivery: Delivery, number: int | None) -> bool:
        del number  # A thread cannot be ended from outside.
        taken = self.withdraw()
        kept = [waiting for waiting in taken if waiting is not delivery]
        self.submit(kept)
        return len(kept) < len(taken)

    def kill(self) -> None:
        # A thread cannot be stopped. Its task is given up; the process ends soon.
        waiting = self.withdraw()
        if waiting:
            self._reports.returned(waiting)
        self._collect()
        given_up = [
            lost(
                delivery,
                f"Worker exited prematurely: cold shutdown Job: {delivery.id}.",
                self._lost_result,
            )
            for delivery in self._open.values()
        ]
        self._open.clear()
        if given_up:
            self._reports.finished(given_up)

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for _ in range(self.slots):
            self._tokens.put(False)  # noqa: FBT003 - the last token

    # -- inside --------------------------------------------------------------------------------

    def _take_waiting(self) -> list[Delivery]:
        """What no thread has begun, oldest first."""
        taken: list[Delivery] = []
        try:
            while True:
                taken.append(self._waiting.pop())
        except IndexError:
            return taken[::-1]

    def _look_soon(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """Report what runs for longer than the short ones; return what waits behind it.

        Goes on only while it can learn something.
        """
        self._timer = None
        wanted = self.wanted_count
        for slot, delivery in enumerate(self._running):
            if delivery is None:
                self._silent_looks[slot] = 0
            elif delivery is self._looked_at[slot]:
                self._silent_looks[slot] += 1
            else:
                self._silent_looks[slot] = 0
                self._reports.started(delivery, self._pid)
            self._looked_at[slot] = delivery
        short = [slot for slot, looks in enumerate(self._silent_looks) if looks < SILENT_LOOKS]
        if short and (self._waiting or any(self._running[slot] for slot in short)):
            self._look_soon()
        if self.wanted_count < wanted:
            self._reports.changed()
            self._return_excess()

    def _return_excess(self) -> None:
        count = min(len(self._open) - self.wanted_count, len(self._waiting))
        if count * 4 > self.wanted_count:
            # A thread may be faster than this; then there are fewer to return.
            beyond = self._take_waiting()
            kept = max(0, len(beyond) - count)
            for delivery in beyond[:kept]:
                self._waiting.append(delivery)
                self._tokens.put(True)  # noqa: FBT003 - a token
            for delivery in beyond[kept:]:
                del self._open[id(delivery)]
            self._reports.returned(beyond[kept:])
