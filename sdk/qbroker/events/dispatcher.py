"""Sends events of this process to those who listen. It never waits, and where nobody listens little is sent."""

import os
import platform
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

from qbroker import _state, clock
from qbroker.events.event import Event, group_from
from qbroker.serialization import Value, json_encode

__all__ = ["EventDispatcher"]


class EventDispatcher:
    """Where a process tells what it does: `dispatcher.send("task-custom", uuid=…)`.

    With `groups`, only types of these are sent. What speaks of connections, channels and buffers in Celery's signature is
    taken and changes nothing: events leave on the app's own connection.
    """

    app: Value = None

    def __init__(
        self,
        connection: Value = None,
        hostname: str | None = None,
        enabled: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        channel: Value = None,
        buffer_while_offline: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        app: Value = None,
        serializer: str | None = None,
        groups: Iterable[str] | None = None,
        **_: Value,
    ) -> None:
        self.app = app or self.app or _state.get_current_app()
        self.hostname = hostname or f"gen{os.getpid()}@{platform.node()}"
        self.groups = set(groups or ())
        self.enabled = enabled
        self.on_enabled: set[Callable[[], Value]] = set()
        self.on_disabled: set[Callable[[], Value]] = set()
        self.pid = os.getpid()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def enable(self) -> None:
        """Send from now on."""
        self.enabled = True
        for callback in self.on_enabled:
            callback()

    def disable(self) -> None:
        """Send nothing from now on."""
        if self.enabled:
            self.enabled = False
            for callback in self.on_disabled:
                callback()

    def send(self, type: str, blind: bool = False, **fields: Value) -> None:  # noqa: A002, FBT001, FBT002 - Celery's signature
        """Tell those who listen; the fields must be writable as JSON."""
        if self.enabled and (not self.groups or group_from(type) in self.groups):
            self.publish(type, fields)

    def publish(
        self,
        type: str,  # noqa: A002 - Celery's name
        fields: Mapping[str, Value],
        producer: Value = None,
        **_: Value,
    ) -> None:
        """Do the same, whatever is enabled."""
        event = Event(
            type, hostname=self.hostname, utcoffset=clock.utcoffset(), pid=self.pid, **fields
        )
        self.app.client().tell_event(type, json_encode(event))

    def flush(self, errors: bool = True, groups: bool = True) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """Do nothing: nothing is held back."""

    def close(self) -> None:
        """Do nothing: the connection is the app's."""
