"""Somebody who listens on a thread: no tests."""

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qbroker import App
from qbroker.exceptions import OperationalError
from qbroker.serialization import Value

WAIT_S = 10.0


class Heard:
    """What was heard."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[dict[str, Value]] = queue.SimpleQueue()

    def next(self) -> dict[str, Value]:
        """The next event."""
        return self.events.get(timeout=WAIT_S)

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until it is so, which nothing tells of."""
        never = threading.Event()
        for _ in range(1_000):
            if is_so():
                return
            never.wait(0.01)
        raise TimeoutError


@contextmanager
def listening(app: App, routing_key: str = "#") -> Iterator[Heard]:
    """Hear events from now on, until the block ends."""
    heard = Heard()
    receiver = app.events.Receiver(None, {"*": heard.events.put}, routing_key)
    stream = app.client().events(routing_key)

    def listen() -> None:
        for type_, body, clock in stream:
            receiver.process(*receiver.event_from_message(_event(body, clock)))
            assert type_

    def run() -> None:
        try:
            listen()
        except OperationalError:
            return  # the broker stopped

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        stream.close()
        thread.join(WAIT_S)


def _event(body: bytes, clock: int) -> dict[str, Value]:

    event: dict[str, Value] = json.loads(body)
    return event | {"clock": clock}
