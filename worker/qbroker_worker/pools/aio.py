"""`async def` tasks run on one event loop, as many at a time as there are slots; others on threads beside it.

The loop has a thread of its own, apart from the worker's: a task that blocks it holds up other tasks, but no
lease. A coroutine can be ended where it waits, so a revoked one is cancelled and time limits need no
help; for what runs on the threads beside the loop holds what holds in the threads pool.
"""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from qbroker_worker.pools.pool import LostResult, lost, revoked
from qbroker_worker.pools.threadguard import ThreadGuard
from qbroker_worker.pools.threads import ThreadsPool
from qbroker_worker.values import Delivery, Finished, Runs

THREADS_MAX = 1_000
"""How many tasks that are no `async def` run at once, if there are so many slots."""

STOP_S = 5.0
"""How long the loop may take to end when nothing runs on it."""


class AsyncioPool(ThreadsPool):
    """The threads pool, with an asyncio task in place of each thread."""

    name = "asyncio"

    def __init__(
        self,
        runs: Runs,
        *,
        slots: int,
        lost_result: LostResult,
        guard: ThreadGuard | None = None,
    ) -> None:
        super().__init__(runs, slots=slots, lost_result=lost_result, guard=guard)
        self._is_async = runs.is_async
        self._run_natively = runs.run_natively
        self._free = list(range(slots))
        self._excess = 0
        """How many slots are to go when they are free."""
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._revoked: dict[int, Delivery] = {}
        """What is being ended because it was revoked, by identity."""
        self._begun: set[int] = set()
        """Slots whose tasks have taken their first step, and so say how they end."""
        self._is_calling = False
        self._group: asyncio.TaskGroup | None = None
        self._is_over = asyncio.Event()
        self._executor = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="qbroker-slot")
        self._task_loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="qbroker-asyncio", daemon=True)

    # -- on the worker's thread ----------------------------------------------------------------

    def _start_threads(self) -> None:
        self._thread.start()

    def _announce(self, count: int) -> None:
        # Before the call, so that what comes while it runs calls again.
        if not self._is_calling:
            self._is_calling = True
            self._task_loop.call_soon_threadsafe(self._fill)

    def _end_threads(self) -> None:
        self._task_loop.call_soon_threadsafe(self._is_over.set)

    def resize(self, slots: int) -> None:
        before, self.slots = self.slots, slots
        new = [self._new_slot() for _ in range(slots - before)]
        self._task_loop.call_soon_threadsafe(self._resize, new, max(0, before - slots))

    def _end(self, delivery: Delivery) -> None:
        if self._is_async(delivery.task):
            self._task_loop.call_soon_threadsafe(self._cancel, delivery)
        else:
            super()._end(delivery)

    def kill(self) -> None:
        super().kill()
        self._task_loop.call_soon_threadsafe(self._end_all)

    async def stop(self) -> None:
        await super().stop()
        self._executor.shutdown(wait=False)
        await asyncio.to_thread(self._thread.join, STOP_S)

    # -- on the thread of the tasks' loop ------------------------------------------------------

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._task_loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        async with asyncio.TaskGroup() as self._group:
            self._fill()
            await self._is_over.wait()
            self._end_all()

    def _fill(self) -> None:
        """Begin what waits, as far as there are free slots."""
        self._is_calling = False
        group = self._group
        if group is None:
            return
        while self._free:
            try:
                delivery = self._waiting.popleft()
            except IndexError:
                return
            slot = self._free.pop()
            self._running[slot] = delivery
            task = group.create_task(self._occupy(slot, delivery))
            self._tasks[slot] = task

    def _resize(self, new: list[int], fewer: int) -> None:
        self._free += new
        self._excess += fewer
        self._drop_excess()
        self._fill()

    def _drop_excess(self) -> None:
        """Have slots that are free and too many be none."""
        while self._excess and self._free:
            self._excess -= 1
            self._vacant.append(self._free.pop())

    async def _occupy(self, slot: int, delivery: Delivery) -> None:
        self._begun.add(slot)
        try:
            finished = await self._perform(slot, delivery)
        except asyncio.CancelledError:
            if id(delivery) in self._revoked:
                finished = revoked(delivery)
            else:
                sentence = f"Worker exited prematurely: cold shutdown Job: {delivery.id}."
                finished = lost(delivery, sentence, self._lost_result)
        except BaseException as exc:  # noqa: BLE001 - as in the threads pool
            finished = self._exited(delivery, exc)
        self._revoked.pop(id(delivery), None)
        self._begun.discard(slot)
        del self._tasks[slot]
        self._free.append(slot)
        self._drop_excess()
        if self._hand_back(slot, finished):
            self._fill()

    async def _perform(self, slot: int, delivery: Delivery) -> Finished:
        if id(delivery) in self._revoked:
            return revoked(delivery)
        if self._is_async(delivery.task):
            ran = await self._run_natively(
                delivery.message, delivery.attempt, delivery.is_redelivered
            )
            return Finished(delivery, *ran)
        return await self._task_loop.run_in_executor(
            self._executor, self._perform_beside, slot, delivery
        )

    def _perform_beside(self, slot: int, delivery: Delivery) -> Finished:
        """Run what is not `async def`, on a thread beside the loop."""
        self._idents[slot] = threading.get_ident()
        return self._perform_here(delivery)

    def _cancel(self, delivery: Delivery) -> None:
        """Cancel a coroutine that was revoked, where it waits."""
        for slot, task in self._tasks.items():
            if self._running[slot] is delivery:
                self._revoked[id(delivery)] = delivery
                if slot in self._begun:
                    task.cancel()

    def _end_all(self) -> None:
        for task in self._tasks.values():
            task.cancel()
