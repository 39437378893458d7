"""What workers and clients tell while they work, passed on to those who listen.

Nothing is kept for who is not there. A listener that does not keep up is cut off with a reason, because the others
and the broker must not pay for it. When nobody listens, those who would tell are told so, and say nothing.
"""

import asyncio
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from qbroker_proto.v1 import control_pb2
from qbroker_server.clock import Clock

BEHIND_MAX = 20_000
"""Events that may wait for one listener."""

_REPLY_EVENTS_MAX = 1_000

GATHER_S = 0.02
"""How long events gather behind those a listener was sent last: a message costs as much as many events in it."""


class Listener:
    """Somebody who wants events of some types."""

    def __init__(self, routing_key: str) -> None:
        self._fits = _pattern(routing_key)
        self._waiting: deque[control_pb2.Event] = deque()
        self._sent_at = -GATHER_S
        self._wake = asyncio.Event()
        self.reason = ""
        """Why it is over; "" while it is not."""
        self.is_too_slow = False

    def close(self, reason: str) -> None:
        """End it."""
        self.reason = self.reason or reason
        self._wake.set()

    def hear(self, events: Sequence[control_pb2.Event]) -> None:
        """Keep those that fit until they are sent."""
        if self._fits is not None:
            events = [one for one in events if self._fits.fullmatch(one.type.replace("-", "."))]
        if not events or self.reason:
            return
        self._waiting += events
        if len(self._waiting) > BEHIND_MAX:
            self.is_too_slow = True
            self.close(
                f"this listener is more than {BEHIND_MAX:,} events behind, and was cut off so that "
                "nobody waits for it; listen to fewer types, or do less with each"
            )
            self._waiting.clear()
        self._wake.set()

    async def next(self) -> control_pb2.EventsReply | None:
        """What has come since; None when it is over."""
        while not self._waiting and not self.reason:
            self._wake.clear()
            await self._wake.wait()
        loop = asyncio.get_running_loop()
        rest_s = self._sent_at + GATHER_S - loop.time()
        if rest_s > 0 and len(self._waiting) < _REPLY_EVENTS_MAX and not self.reason:
            await asyncio.sleep(rest_s)
        if not self._waiting:
            return None
        self._sent_at = loop.time()
        count = min(len(self._waiting), _REPLY_EVENTS_MAX)
        return control_pb2.EventsReply(events=[self._waiting.popleft() for _ in range(count)])


class Hub:
    """Where events come in and go out."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._listeners: list[Listener] = []
        self._followers: list[Callable[[bool], None]] = []
        self.count = 0
        """Of the events that were passed on; each has the count as its clock."""

    @property
    def is_wanted(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    @contextmanager
    def follow(self, tell: Callable[[bool], None]) -> Iterator[None]:
        """Have `tell` called whenever `is_wanted` changes before the block ends."""
        self._followers.append(tell)
        try:
            yield
        finally:
            self._followers.remove(tell)

    @contextmanager
    def listen(self, routing_key: str) -> Iterator[Listener]:
        """Hear events until the block ends."""
        listener = Listener(routing_key)
        self._listeners.append(listener)
        if len(self._listeners) == 1:
            self._tell(is_wanted=True)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)
            if not self._listeners:
                self._tell(is_wanted=False)

    def _tell(self, *, is_wanted: bool) -> None:
        for tell in tuple(self._followers):
            tell(is_wanted)

    def publish(self, events: Sequence[control_pb2.Event]) -> None:
        """Pass events on."""
        if not self._listeners:
            return
        count = self.count
        for event in events:
            count += 1
            event.clock = count
        self.count = count
        for listener in tuple(self._listeners):
            listener.hear(events)

    def lost(self, worker: str, pid: int) -> None:
        """Tell that a worker is gone which did not say so itself."""
        fields = {
            "type": "worker-offline",
            "hostname": worker,
            "pid": pid,
            "timestamp": self._clock.now_ms() / 1000,
            "utcoffset": 0,
        }
        self.publish([control_pb2.Event(type="worker-offline", body=json.dumps(fields).encode())])


def _pattern(routing_key: str) -> "re.Pattern[str] | None":
    """What the types must look like, with dots; None: anything. As AMQP's topics: "*" is a word, "#" any number."""
    if routing_key in ("", "#"):
        return None
    words = {"*": r"[^.]+", "#": r".*"}
    return re.compile(
        r"\.".join(words.get(word, re.escape(word)) for word in routing_key.split("."))
    )
