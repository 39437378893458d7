"""What a task asks of the app it belongs to; so a task needs no app to be understood or tested."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from qbroker.result import AsyncResult as Result
from qbroker.serialization import Value


class Sender(Protocol):
    """Something that calls can be given to: the app."""

    main: str | None

    @property
    def conf(self) -> Value:
        """The settings."""

    @property
    def events(self) -> Value:
        """What there is to tell of events."""

    def send_task(
        self,
        name: str,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> Result[Value]:
        """Publish a call and answer its result, once the broker has confirmed."""

    async def asend_task(
        self,
        name: str,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> Result[Value]:
        """Do the same without blocking the event loop."""

    def resend(
        self,
        request: Value,
        args: Sequence[Value],
        kwargs: Mapping[str, Value],
        options: Mapping[str, Value],
    ) -> tuple[bytes, int]:
        """The message of a retry of the task that `request` runs, and when it is due in Unix milliseconds."""

    def AsyncResult(self, id: str, task_name: str | None = None) -> Result[Value]:  # noqa: A002, N802 - Celery's names
        """The result of any task."""
