"""Tasks run one at a time on the main thread; the event loop lives on another, so acks go on."""

from qbroker_worker.pools.pool import LostResult
from qbroker_worker.pools.threadguard import ThreadGuard
from qbroker_worker.pools.threads import ThreadsPool
from qbroker_worker.values import Delivery, Finished, Runs


class SoloPool(ThreadsPool):
    """The threads pool with a single thread: the one that the process was born with."""

    name = "solo"

    def __init__(
        self, runs: Runs, *, lost_result: LostResult, guard: ThreadGuard | None = None
    ) -> None:
        super().__init__(runs, slots=1, lost_result=lost_result, guard=guard)

    def resize(self, slots: int) -> None:
        """It has one slot, and keeps it."""

    def _start_threads(self) -> None:
        """None is needed: see `serve`."""

    def serve(self) -> None:
        self._work(0)


class CallersPool(SoloPool):
    """The solo pool on the thread of a program that calls `serve`, and gets its interrupts."""

    _interrupt: BaseException | None = None

    def serve(self) -> None:
        super().serve()
        if self._interrupt is not None:
            raise self._interrupt

    def leave(self) -> None:
        """Have `serve` return after the task that runs."""
        self._end_threads()

    def end_running(self) -> None:
        """End the task that runs, as soon as it runs Python code."""
        for delivery in self._running:
            if delivery is not None:
                self._end(delivery)

    def _exited(self, delivery: Delivery, exc: BaseException) -> Finished:
        # Ctrl-C, or a test runner's time-out, is for the program. SystemExit is the task's own.
        if not isinstance(exc, Exception | SystemExit):
            self._interrupt = exc
        return super()._exited(delivery, exc)

    def _hand_back(self, slot: int, finished: Finished) -> bool:
        return super()._hand_back(slot, finished) and self._interrupt is None
