"""`with app.pipeline():` gathers calls, sends them in batches, and confirms them at the end."""

from collections import deque
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Self

from qbroker import clock
from qbroker.app.sending import Call, settle
from qbroker.exceptions import MessageRefused

if TYPE_CHECKING:
    from qbroker.client import Client, Ticket

__all__ = ["CALLS_MIN", "Pipeline", "current_pipeline"]

CALLS_MIN = 50
"""So many leave together while the broker has nothing of this pipeline to do."""
_CALLS_MAX = 200
"""So many leave together whatever the broker has to do: it reads some while it commits others."""
_BYTES_MAX = 1024 * 1024
_BATCHES_IN_FLIGHT_MAX = 64


class Pipeline:
    """Calls made inside the block return at once; leaving it raises what became of the worst of them.

    What was called is sent also when the block raises: some of it is on its way by then. The result of a call
    with `unique_policy="return_existing"` has the id of the task that exists when the block is over.
    """

    def __init__(self, client: "Client") -> None:
        self.client = client
        self._calls: list[Call] = []
        self._bytes_count = 0
        self._in_flight: deque[tuple[list[Call], Ticket]] = deque()
        self._refusal: MessageRefused | None = None

    def add(self, call: Call) -> None:
        """Take a call along."""
        self._calls.append(call)
        self._bytes_count += len(call.message)
        count = len(self._calls)
        if (
            count >= _CALLS_MAX
            or self._bytes_count >= _BYTES_MAX
            or (count == CALLS_MIN and not self._in_flight)
        ):
            self.flush()

    def flush(self) -> None:
        """Send what was gathered. Waits only where too much is unconfirmed."""
        if not self._calls:
            return
        calls, self._calls, self._bytes_count = self._calls, [], 0
        self._in_flight.append((calls, self.client.submit([call.message for call in calls])))
        clock.give_way()
        while len(self._in_flight) > _BATCHES_IN_FLIGHT_MAX:
            self._confirm_oldest()

    def confirm(self) -> None:
        """Send what was gathered and wait until all of it is on the broker's disk."""
        self.flush()
        while self._in_flight:
            self._confirm_oldest()
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            raise refusal

    def _confirm_oldest(self) -> None:
        calls, ticket = self._in_flight.popleft()
        verdicts = self.client.wait(ticket)
        if verdicts:
            # The others are stored, and are waited for first.
            refusal = settle(calls, verdicts)
            self._refusal = self._refusal or refusal

    def __enter__(self) -> Self:
        self._token = current_pipeline.set(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        current_pipeline.reset(self._token)
        self.confirm()


current_pipeline: ContextVar[Pipeline | None] = ContextVar("qbroker_pipeline", default=None)
"""The pipeline this thread, or asyncio task, is inside of."""
