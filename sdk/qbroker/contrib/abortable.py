"""Tasks that can be asked to stop and look for it themselves: cleaner than being ended, in any pool.

    @app.task(bind=True, base=AbortableTask)
    def walk(self, steps):
        for step in range(steps):
            if self.is_aborted():
                return "stopped"
            ...

    walk.delay(1_000).abort()

To abort is to give the task the state ABORTED while it runs; looking for it asks the broker.
"""

from typing import TypeVar

from qbroker.result import AsyncResult
from qbroker.serialization import Value
from qbroker.task import Task

__all__ = ["ABORTED", "AbortableAsyncResult", "AbortableTask"]

ABORTED = "ABORTED"

R = TypeVar("R")


class AbortableAsyncResult(AsyncResult[R]):
    """A result whose task can be aborted."""

    def is_aborted(self) -> bool:
        """Whether the task was asked to stop, and has not ended since."""
        return self.state == ABORTED

    def abort(self) -> None:
        """Ask the task to stop. It does when it looks."""
        self.backend.store_result(self.id, None, ABORTED)


class AbortableTask(Task[..., Value]):
    """The base of tasks that can be aborted; their results are AbortableAsyncResult."""

    def AsyncResult(self, task_id: str, **kwargs: Value) -> AbortableAsyncResult[Value]:  # noqa: N802 - Celery's name
        """The result of an earlier call of this task."""
        return AbortableAsyncResult(task_id, task_name=self.name, app=self.app, **kwargs)

    def apply_async(self, *args: Value, **kwargs: Value) -> AbortableAsyncResult[Value]:
        """As `Task.apply_async`, with a result that can abort it."""
        sent = super().apply_async(*args, **kwargs)
        return self.AsyncResult(sent.id, parent=sent.parent)

    def delay(self, *args: Value, **kwargs: Value) -> AbortableAsyncResult[Value]:
        """As `Task.delay`, with a result that can abort it."""
        return self.apply_async(args, kwargs)

    def is_aborted(self, **kwargs: Value) -> bool:
        """Whether this run, or that of `task_id`, was asked to stop."""
        request = self.request
        task_id = kwargs.get("task_id", request.id)
        if request.is_eager or task_id is None:
            return False
        return self.AsyncResult(task_id).is_aborted()
