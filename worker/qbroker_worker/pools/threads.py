"""Tasks run on threads of this process, which has the app."""

import asyncio
import contextlib
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Iterable

from qbroker.printable import repr_of
from qbroker_worker import clock
from qbroker_worker.pools.pace import Pace
from qbroker_worker.pools.pool import LostResult, Reports, Restarted, expired, lost, revoked
from qbroker_worker.pools.threadguard import Limited, Revoked, ThreadGuard
from qbroker_worker.values import Delivery, Finished, Notice, Restart, Runs

logger = logging.getLogger(__name__)

LOOK_S = 0.005
"""How often the loop looks at what the threads are at. Only while it can learn something."""

SILENT_LOOKS = 4
"""After so many looks at the same task a slot counts as busy for long."""


class ThreadsPool:
    """A number of threads that take deliveries from one line."""

    name = "threads"

    def __init__(
        self,
        runs: Runs,
        *,
        slots: int,
        lost_result: LostResult,
        guard: ThreadGuard | None = None,
    ) -> None:
        self.slots = slots
        self._run = runs.run
        self._expire = runs.expire
        self._notify = runs.notify
        self._reload = runs.reload
        self._notice_count = 0
        self._guard = guard or ThreadGuard()
        self._watched: dict[Limited, asyncio.TimerHandle] = {}
        self._overdue: dict[int, Delivery] = {}
        """What its hard time limit has ended; its failure handlers run."""
        self._given_up: list[Delivery | None] = [None] * slots
        """What a slot is still at although it was reported as timed out."""
        self._idents = [0] * slots
        self._vacant: deque[int] = deque()
        """Slots whose threads have ended."""
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
        self._guard.listen(self._limits_began_late)
        self._start_threads()

    def _start_threads(self) -> None:
        for slot in range(self.slots):
            self._start_thread(slot)

    def _start_thread(self, slot: int) -> None:
        # A daemon, so that a task that never ends cannot keep a killed worker alive.
        threading.Thread(
            target=self._work, args=(slot,), name=f"qbroker-slot-{slot}", daemon=True
        ).start()

    def serve(self) -> None:
        """The main thread has nothing to do here."""

    def _work(self, slot: int) -> None:
        """A slot's thread: run what comes until a token says that it is over."""
        self._idents[slot] = threading.get_ident()
        while self._tokens.get():
            try:
                delivery = self._waiting.popleft()
            except IndexError:
                continue
            self._running[slot] = delivery
            if not self._hand_back(slot, self._perform_here(delivery)):
                return
        self._vacant.append(slot)

    def _perform_here(self, delivery: Delivery) -> Finished:
        """Run it on this thread, and leave nothing on its way to the thread."""
        guard = self._guard
        try:
            try:
                guard.take(delivery)
                ran = self._run(delivery.message, delivery.attempt, delivery.is_redelivered)
                return Finished(delivery, *ran)
            finally:
                try:
                    guard.leave()
                finally:
                    # A task may be struck three times (soft limit, revoke, hard limit): once in it,
                    # once in the guard's own `end`, and once in the `leave` above.
                    guard.leave()
        except Revoked:
            return revoked(delivery)
        except BaseException as exc:  # noqa: BLE001 - SystemExit in a task ends its process elsewhere; here the process is everybody's
            return self._exited(delivery, exc)

    def _exited(self, delivery: Delivery, exc: BaseException) -> Finished:
        """What became of a task that wanted to take the process along."""
        sentence = f"Worker exited prematurely: {repr_of(exc, 1024)} Job: {delivery.id}."
        return lost(delivery, sentence, self._lost_result)

    def _hand_back(self, slot: int, finished: Finished) -> bool:
        """Have the loop report it; False when nobody listens any more."""
        self._done.append((slot, finished))
        if not self._is_waking:
            self._is_waking = True
            try:
                self._loop.call_soon_threadsafe(self._collect)
            except RuntimeError:
                return False  # the loop is closed: the pool was killed, and this task given up
        return True

    def _collect(self) -> None:
        # Before looking, so that what is done from here on wakes the loop again.
        self._is_waking = False
        finished: list[Finished] = []
        while self._done:
            slot, done = self._done.popleft()
            if self._running[slot] is done.delivery:
                self._running[slot] = None
                self._silent_looks[slot] = 0
            if self._given_up[slot] is done.delivery:
                self._given_up[slot] = None
            self._guard.forget(done.delivery)
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
        long = sum(looks >= SILENT_LOOKS for looks in self._silent_looks)
        short = max(0, self.slots - long)
        stuck = sum(delivery is not None for delivery in self._given_up)
        return self.slots - stuck + short * self._pace.at_hand_count

    @property
    def is_idle(self) -> bool:
        return not self._open and not self._overdue and not self._notice_count

    def submit(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            self._open[id(delivery)] = delivery
            self._held_back.append(delivery)
        if not self._is_paused:
            self._let_go()

    def _let_go(self) -> None:
        count = len(self._held_back)
        while self._held_back:
            self._waiting.append(self._held_back.popleft())
        if count:
            self._announce(count)
        if self._open:
            self._look_soon()

    def _announce(self, count: int) -> None:
        """Tell the threads that so many more wait."""
        for _ in range(count):
            self._tokens.put(True)  # noqa: FBT003 - a token

    def limit_results(self, bytes_max: int) -> None:
        self._guard.result_bytes_max = bytes_max

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
        taken = self.withdraw()
        kept = [waiting for waiting in taken if waiting is not delivery]
        self.submit(kept)
        if len(kept) < len(taken):
            return True
        # No process of its own takes the signal; it says only that the task is to end.
        if number is not None and id(delivery) in self._open:
            self._end(delivery)
        return False

    def _end(self, delivery: Delivery) -> None:
        """End what runs because it was revoked, as soon as it runs Python code."""
        self._guard.revoke(delivery)

    def resize(self, slots: int) -> None:
        before, self.slots = self.slots, slots
        for _ in range(before - slots):
            self._tokens.put(False)  # noqa: FBT003 - whichever thread takes it ends
        for _ in range(slots - before):
            self._start_thread(self._new_slot())

    def _new_slot(self) -> int:
        """A slot that nobody works in."""
        try:
            return self._vacant.popleft()
        except IndexError:
            self._running.append(None)
            self._looked_at.append(None)
            self._silent_looks.append(0)
            self._given_up.append(None)
            self._idents.append(0)
            return len(self._running) - 1

    def notify(self, notice: Notice) -> None:
        self._notice_count += 1

        def tell() -> None:
            self._notify(notice)
            with contextlib.suppress(RuntimeError):  # the loop is closed: the pool was killed
                self._loop.call_soon_threadsafe(self._notified)

        threading.Thread(target=tell, name="qbroker-notice", daemon=True).start()

    def _notified(self) -> None:
        self._notice_count -= 1
        self._reports.finished([])

    def restart(self, wanted: Restart, restarted: Restarted) -> None:
        def reload() -> None:
            try:
                facts, trouble = self._reload(wanted), ""
            except Exception as exc:
                logger.exception("Modules cannot be imported")
                facts, trouble = b"", repr(exc)
            with contextlib.suppress(RuntimeError):  # the loop is closed: the pool was killed
                self._loop.call_soon_threadsafe(restarted, facts, trouble)

        threading.Thread(target=reload, name="qbroker-reload", daemon=True).start()

    def dump(self) -> None:
        """There are no other processes."""

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
        given_up += [
            expired(delivery, 0.0, self._lost_result) for delivery in self._overdue.values()
        ]
        self._open.clear()
        self._overdue.clear()
        if given_up:
            self._reports.finished(given_up)

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for watching in self._watched.values():
            watching.cancel()
        self._end_threads()

    def _end_threads(self) -> None:
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
            if delivery is not None:
                self._watch(slot)
        short = [slot for slot, looks in enumerate(self._silent_looks) if looks < SILENT_LOOKS]
        if short and (self._waiting or any(self._running[slot] for slot in short)):
            self._look_soon()
        if self.wanted_count < wanted:
            self._reports.changed()
            self._return_excess()

    # -- time limits ---------------------------------------------------------------------------

    def _limits_began_late(self) -> None:
        """Limits have begun on this thread, when the loop may look no more."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the pool was killed
            self._loop.call_soon_threadsafe(self._watch_all)

    def _watch_all(self) -> None:
        for slot, delivery in enumerate(self._running):
            if delivery is not None:
                self._watch(slot)

    def _watch(self, slot: int) -> None:
        """Be there when the next limit of what the slot runs is reached."""
        limited = self._guard.of(self._idents[slot])
        if limited is not None and limited not in self._watched:
            self._watch_next(slot, limited)

    def _watch_next(self, slot: int, limited: Limited) -> None:
        due_at = limited.next_at()
        if due_at:
            delay_s = max(0.0, due_at - clock.monotonic())
            self._watched[limited] = self._loop.call_later(
                delay_s, self._limit_reached, slot, limited
            )

    def _limit_reached(self, slot: int, limited: Limited) -> None:
        del self._watched[limited]
        delivery = self._running[slot]
        if delivery is None or self._guard.of(limited.thread) is not limited:
            return
        if limited.hard_at and clock.monotonic() >= limited.hard_at:
            self._give_up(slot, delivery, limited)
            return
        if self._guard.interrupt(limited):
            self._reports.interrupted(delivery, limited.soft_s)
        self._watch_next(slot, limited)

    def _give_up(self, slot: int, delivery: Delivery, limited: Limited) -> None:
        """Report a task as timed out, although its thread may go on for as long as it likes."""
        was_revoked = self._guard.is_revoked(delivery)
        if not self._guard.give_up(limited) or self._open.pop(id(delivery), None) is None:
            return
        self._given_up[slot] = delivery
        if was_revoked:
            self._reports.finished([revoked(delivery)])
            self._reports.changed()
            return
        self._overdue[id(delivery)] = delivery

        def handle() -> None:
            try:
                ran = self._expire(delivery.message, delivery.attempt, delivery.is_redelivered)
                finished = Finished(delivery, *ran)
            except BaseException:  # noqa: BLE001 - what handlers do must not cost the report
                finished = expired(delivery, limited.hard_s, self._lost_result)
            with contextlib.suppress(RuntimeError):  # the loop is closed: the pool was killed
                self._loop.call_soon_threadsafe(self._handled, finished)

        # On a thread of its own: the others may all be stuck.
        threading.Thread(target=handle, name="qbroker-handlers", daemon=True).start()
        self._reports.changed()

    def _handled(self, finished: Finished) -> None:
        if self._overdue.pop(id(finished.delivery), None) is not None:
            self._reports.finished([finished])

    def _return_excess(self) -> None:
        count = min(len(self._open) - self.wanted_count, len(self._waiting))
        if count * 4 > self.wanted_count:
            # A thread may be faster than this; then there are fewer to return.
            beyond = self._take_waiting()
            kept = max(0, len(beyond) - count)
            self._waiting.extend(beyond[:kept])
            self._announce(kept)
            for delivery in beyond[kept:]:
                del self._open[id(delivery)]
            self._reports.returned(beyond[kept:])
