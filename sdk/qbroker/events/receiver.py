"""Hears events as they happen, and hands each to its handler."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from qbroker import _state, clock
from qbroker.ids import uuid7
from qbroker.serialization import Value

if TYPE_CHECKING:
    from qbroker.client import EventStream

__all__ = ["EventReceiver"]

Handler = Callable[[dict[str, Value]], Value]


class EventReceiver:
    """Who listens: `handlers` are by type, and the one of "*" is for types that have none.

    `connection` may be None: events come on a connection of the app. What speaks of queues in Celery's signature is taken and
    changes nothing, because nothing is stored for who listens.
    """

    app: Value = None

    def __init__(
        self,
        channel: Value = None,
        handlers: Mapping[str, Handler] | None = None,
        routing_key: str = "#",
        node_id: str | None = None,
        app: Value = None,
        queue_prefix: str | None = None,
        accept: Iterable[str] | None = None,
        **_: Value,
    ) -> None:
        self.app = app or self.app or _state.get_current_app()
        self.connection = channel
        self.handlers = {} if handlers is None else handlers
        self.routing_key = routing_key
        self.node_id = node_id or uuid7()
        self.should_stop = False
        """Set it to end what captures, at the next event or the next second."""
        self._stream: EventStream | None = None

    def capture(
        self,
        limit: int | None = None,
        timeout: float | None = None,
        wakeup: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
    ) -> None:
        """Handle events until `limit` have come, or none in `timeout` seconds, which raises TimeoutError."""
        for _ in self.itercapture(limit, timeout, wakeup):
            pass

    def itercapture(
        self,
        limit: int | None = None,
        timeout: float | None = None,
        wakeup: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
    ) -> Iterator[dict[str, Value]]:
        """Do the same, and give each event once it was handled."""
        stream = self._stream = self.app.client().events(self.routing_key)
        if wakeup:
            self.wakeup_workers()
        count = 0
        silence = _Silence(stream, timeout)
        try:
            for type_, body, number in stream:
                silence.broken()
                event = self.event_from_message(json.loads(body) | {"clock": number})[1]
                self.process(type_, event)
                yield event
                count += 1
                if self.should_stop or count == limit:
                    return
        finally:
            silence.end()
            stream.close()
        if silence.is_over and not self.should_stop:
            raise TimeoutError(f"no event within {timeout} s")

    def close(self) -> None:
        """End what captures, from any thread."""
        self.should_stop = True
        if self._stream is not None:
            self._stream.close()

    def process(self, type: str, event: dict[str, Value]) -> None:  # noqa: A002 - Celery's name
        """Hand the event to its handler."""
        handler = self.handlers.get(type) or self.handlers.get("*")
        if handler is not None:
            handler(event)

    def wakeup_workers(self, channel: Value = None) -> None:
        """Have all workers send a heartbeat, so that it is known who there is."""
        self.app.control.broadcast("heartbeat")

    def event_from_message(
        self,
        body: dict[str, Value],
        localize: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        now: Callable[[], float] = clock.wall,
    ) -> tuple[str, dict[str, Value]]:
        """The event's type, and the event with the time it was heard. Timestamps are Unix time: no zone changes them."""
        body["local_received"] = now()
        return body["type"], body


class _Silence:
    """Ends a stream that has been silent for too long."""

    def __init__(self, stream: "EventStream", timeout_s: float | None) -> None:
        self._stream = stream
        self._timeout_s = timeout_s
        self._timer: threading.Timer | None = None
        self.is_over = False
        self._start()

    def _start(self) -> None:
        if self._timeout_s is not None:
            self._timer = threading.Timer(self._timeout_s, self._give_up)
            self._timer.daemon = True
            self._timer.start()

    def _give_up(self) -> None:
        self.is_over = True
        self._stream.close()

    def broken(self) -> None:
        """Something was heard."""
        self.end()
        self._start()

    def end(self) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()
