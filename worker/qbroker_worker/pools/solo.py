"""Tasks run one at a time on the main thread; the event loop lives on another, so acks go on."""

from qbroker_worker.pools.pool import LostResult
from qbroker_worker.pools.threadguard import ThreadGuard
from qbroker_worker.pools.threads import ThreadsPool
from qbroker_worker.values import Runs


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
