"""What the worker asks of a place where tasks run, and what it is told.

All of a pool's methods and all of its reports happen on the event loop's thread.
"""

from collections.abc import Callable, Iterable, Sequence
from logging import ERROR, WARNING
from typing import Protocol

from qbroker.exceptions import TimeLimitExceeded, WorkerLostError
from qbroker_worker.values import (
    REVOKED,
    TIMEOUT,
    WORKER_LOST,
    Delivery,
    Finished,
    Notice,
    Restart,
)

LostResult = Callable[[Delivery, Exception], tuple[bytes, bytes]]
"""Makes of a task whose process can say no more the result, and what else its settle says, from what ended it."""


Restarted = Callable[[bytes, str], None]
"""Hears how a restart went: facts of what is loaded now, or else what went wrong."""


def lost(delivery: Delivery, sentence: str, make_result: LostResult) -> Finished:
    """What became of a delivery whose process died while it ran."""
    line = f"Task {delivery.task}[{delivery.id}] raised unexpected: WorkerLostError({sentence!r})"
    result, more = make_result(delivery, WorkerLostError(sentence))
    return Finished(
        delivery,
        WORKER_LOST,
        result,
        requeue=False,
        runtime_s=0.0,
        level=ERROR,
        line=line,
        more=more,
    )


def revoked(delivery: Delivery) -> Finished:
    """What became of a delivery that was ended because it was revoked."""
    line = f"Task {delivery.task}[{delivery.id}] terminated: it was revoked"
    return Finished(delivery, REVOKED, b"", False, 0.0, WARNING, line)  # noqa: FBT003 - a plain value


def expired(delivery: Delivery, limit_s: float, make_result: LostResult) -> Finished:
    """What became of a delivery that its hard time limit ended, where nobody could run its handlers."""
    limit = int(limit_s) if limit_s == int(limit_s) else limit_s
    line = f"Hard time limit ({limit}s) exceeded for {delivery.task}[{delivery.id}]"
    result, more = make_result(delivery, TimeLimitExceeded(limit))
    return Finished(
        delivery,
        TIMEOUT,
        result,
        requeue=False,
        runtime_s=limit_s,
        level=ERROR,
        line=line,
        more=more,
    )


class Reports(Protocol):
    """Who a pool tells what happens in it."""

    def started(self, delivery: Delivery, pid: int) -> None:
        """The task runs, and will go on for a while."""

    def finished(self, finished: Sequence[Finished]) -> None:
        """These have ended."""

    def returned(self, deliveries: Sequence[Delivery]) -> None:
        """These were not started and are more than the pool wants at hand."""

    def interrupted(self, delivery: Delivery, soft_s: float) -> None:
        """The task has come to its soft time limit."""

    def changed(self) -> None:
        """`wanted_count` may be another, without anything having finished."""

    def failed(self, sentence: str) -> None:
        """The pool cannot go on."""


class Pool(Protocol):
    """A number of slots, each running one task at a time, and what waits for them."""

    name: str
    slots: int

    async def start(self, reports: Reports) -> None:
        """Get ready to run tasks."""

    def serve(self) -> None:
        """Lend the pool the main thread, until it is stopped. Not on the event loop's thread."""

    @property
    def pids(self) -> list[int]:
        """The processes that run tasks."""

    @property
    def wanted_count(self) -> int:
        """How many deliveries the pool wants at hand, those that run included."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits."""

    def submit(self, deliveries: Iterable[Delivery]) -> None:
        """Run these, in this order as far as slots allow."""

    def limit_results(self, bytes_max: int) -> None:
        """Refuse results larger than this where they are made: the broker would not take them."""

    def pause(self) -> None:
        """Start nothing that has not reached its slot yet."""

    def resume(self) -> None:
        """Go on after `pause`."""

    def withdraw(self) -> list[Delivery]:
        """Take back all that has not started; it will not start."""

    def forget(self, deliveries: Iterable[Delivery]) -> None:
        """Do not start these if they have not started yet."""

    def cancel(self, delivery: Delivery, number: int | None) -> bool:
        """Do not start this one; whether it has not, so that it is the caller's to settle.

        With a signal's `number` one that runs is ended, where the pool can, and reported as REVOKED.
        """

    def resize(self, slots: int) -> None:
        """Have so many slots from now on. Those that run a task and are too many go when it has ended."""

    def notify(self, notice: Notice) -> None:
        """Have a process that has the app tell its code of this, when one is free. Until then it is not idle."""

    def restart(self, wanted: Restart, restarted: Restarted) -> None:
        """Import modules, and replace the processes that run tasks, each when its task has ended."""

    def dump(self) -> None:
        """Have processes other than this one write down what their threads are at."""

    def kill(self) -> None:
        """End at once: what runs is reported as lost, what waits as returned."""

    async def stop(self) -> None:
        """Put everything away. Nothing runs any more, or `kill` was called."""
