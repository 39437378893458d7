"""A run of a task as the worker sees it, for those who want to watch it: `Task.Request`.

    class MyRequest(Request):
        def on_failure(self, exc_info, send_failed_event=True, return_ok=False): ...

    class MyTask(Task):
        Request = MyRequest        # or "my.package:MyRequest"

A run of such a task is an object of this class: it is the task's `self.request`, and its methods are called around
the run. All of that happens in the process that runs the task. What Celery's class does, such as acknowledging and
storing, is done elsewhere, so the methods here do nothing but call one another as Celery's do.
"""

from typing import Protocol

from qbroker.exceptions import Retry
from qbroker.request import Context
from qbroker.serialization import Value

__all__ = ["Request"]


class ExceptionInfo(Protocol):
    """What is told of a failure."""

    exception: BaseException
    traceback: str


class Request(Context):
    """One run of a task. Subclasses extend the methods whose names begin with `on_`."""

    time_start: float | None = None
    """When it began, in Unix seconds; None: it has not."""
    worker_pid: int | None = None
    """The process that runs it."""
    acknowledged = True
    """Always True: what is acknowledged when is the worker's business, and the broker's."""

    @property
    def type(self) -> str | None:
        """The task's name in the message."""
        return self.message.task if self.message is not None else None

    @property
    def name(self) -> Value:
        """The name to show: `shadow`, or else the task's."""
        return self.shadow or self.type

    @property
    def task_id(self) -> str | None:
        """Its id."""
        return self.id

    @property
    def task_name(self) -> Value:
        """Its name."""
        return self.name

    @property
    def app(self) -> Value:
        """The app whose task it is."""
        return self.task.app

    @property
    def time_limits(self) -> tuple[float | None, float | None]:
        """The hard and the soft limit, in seconds."""
        return self.time_limit, self.soft_time_limit

    @property
    def store_errors(self) -> bool:
        """Whether a failure is kept."""
        return not self.ignore_result or bool(self.task.store_errors_even_if_ignored)

    def info(self, safe: bool = False) -> dict[str, Value]:  # noqa: FBT001, FBT002 - Celery's argument
        """What to show of it; `safe`: with arguments as text."""
        args, kwargs = self.args, self.kwargs
        return {
            "id": self.id,
            "name": self.name,
            "args": repr(args) if safe else args,
            "kwargs": repr(kwargs) if safe else kwargs,
            "type": self.type,
            "hostname": self.hostname,
            "time_start": self.time_start,
            "acknowledged": self.acknowledged,
            "delivery_info": self.delivery_info,
            "worker_pid": self.worker_pid,
        }

    def humaninfo(self) -> str:
        """The task and its id."""
        return f"{self.name}[{self.id}]"

    __str__ = humaninfo

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.humaninfo()} {self.args!r} {self.kwargs!r}>"

    # -- what a run comes to ---------------------------------------------------------------------

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """It begins, in the process `pid`, at this moment of the monotonic clock."""
        self.worker_pid = pid

    def on_timeout(self, soft: bool, timeout: float) -> None:  # noqa: FBT001 - Celery's argument
        """Its soft or its hard limit, of so many seconds, was reached. The worker logs it."""

    def on_success(
        self, failed__retval__runtime: tuple[Value, Value, float], **kwargs: Value
    ) -> Value:
        """It has ended: (whether it failed, what it returned or how it failed, seconds)."""
        failed, value, _ = failed__retval__runtime
        return self.on_failure(value, return_ok=True) if failed else None

    def on_retry(self, exc_info: ExceptionInfo) -> Value:
        """It is to be tried again."""

    def on_failure(
        self,
        exc_info: ExceptionInfo,
        send_failed_event: bool = True,  # noqa: FBT001, FBT002 - Celery's argument
        return_ok: bool = False,  # noqa: FBT001, FBT002 - the same
    ) -> Value:
        """It has failed, or is ignored, rejected or to be tried again, as the exception says.

        `return_ok` is False when its own process could say no more: it was killed by its hard limit, or died.
        """
        if isinstance(exc_info.exception, Retry):
            return self.on_retry(exc_info)
        return None
