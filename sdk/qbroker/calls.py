"""Calls of the broker that are not streams of messages: a question and its answer, or its answers."""

import random
import threading
import weakref
from collections.abc import Iterator

from qbroker import clock
from qbroker.http2 import Code
from qbroker.link import CONNECT_S, CallEnded, Link, connect

_IDLE_MAX = 2
"""Connections that are kept for the next call."""
_PAUSE_FIRST_S = 0.02
_PAUSE_MAX_S = 0.5


class Calls:
    """Makes calls, each on a connection that it has for itself meanwhile."""

    def __init__(self, host: str, port: int, chance: random.Random) -> None:
        self._host = host
        self._port = port
        self._chance = chance
        self._lock = threading.Lock()
        self._idle: list[Link] = []
        self._made: weakref.WeakSet[Link] = weakref.WeakSet()
        self._closed = threading.Event()

    def ask(self, path: str, request: bytes, timeout_s: float, *, waits: bool) -> bytes:
        """The answer to a request. `waits` has it wait for a broker that is away.

        Raises CallEnded, with DEADLINE_EXCEEDED when the time is over.
        """
        deadline_s = clock.monotonic() + timeout_s
        while True:
            link = self._begin(path, deadline_s, waits=waits)
            try:
                return self._ask(link, request, deadline_s)
            except CallEnded as exc:
                # Who closes without a word is no broker, but what stands in front of one that is away.
                is_away = exc.code is Code.UNAVAILABLE and not link.is_greeted
                if not (waits and is_away) or deadline_s - clock.monotonic() <= _PAUSE_MAX_S:
                    raise
            self._closed.wait(_PAUSE_MAX_S * self._chance.uniform(0.5, 1.0))

    def _ask(self, link: Link, request: bytes, deadline_s: float) -> bytes:
        answer: bytes | None = None
        try:
            link.send(request, is_last=True)
            while True:
                for message in link.receive(_left_s(deadline_s)):
                    answer = message
        except CallEnded as exc:
            if exc.code is not Code.OK or answer is None:
                link.shut()
                raise
            return answer
        except BaseException:
            link.shut()
            raise
        finally:
            self._keep(link)

    def listen(self, path: str, request: bytes, timeout_s: float, *, is_bounded: bool) -> "Call":
        """Begin a call that has any number of answers; `timeout_s` bounds it whole, or its beginning only."""
        deadline_s = clock.monotonic() + timeout_s
        link = self._begin(path, deadline_s, waits=True, is_bounded=is_bounded)
        try:
            link.send(request, is_last=True)
            first = link.receive(_left_s(deadline_s), until_answered=True)
            while not (first or link.is_answered):
                first = link.receive(_left_s(deadline_s), until_answered=True)
            if not first:
                # Where it ended without an answer, this says how.
                first = link.receive(0)
        except CallEnded as exc:
            if exc.code is Code.OK:
                # There was nothing to answer.
                return Call(link, [], None)
            link.shut()
            link.close()
            raise
        except BaseException:
            link.shut()
            link.close()
            raise
        return Call(link, first, deadline_s if is_bounded else None)

    def close(self) -> None:
        """Let go of what is kept."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._closed.set()
            made = list(self._made)
        for link in made:
            link.shut()
        for link in idle:
            link.close()

    def leave(self) -> None:
        """In a forked child: let go of the parent's sockets, without a word to the broker."""
        for link in self._made:
            link.close()

    def _begin(self, path: str, deadline_s: float, *, waits: bool, is_bounded: bool = True) -> Link:
        """A connection on which a call was started."""
        pause_s = _PAUSE_FIRST_S
        while True:
            left_s = deadline_s - clock.monotonic()
            timeout_s = max(left_s, 0.001) if is_bounded else None
            try:
                link = self._kept(path, timeout_s)
                if link is None:
                    link = connect(self._host, self._port, max(min(CONNECT_S, left_s), 0.001))
                    with self._lock:
                        self._made.add(link)
                    link.start(path, timeout_s)
            except CallEnded:
                # A pause may be half as long again.
                if not waits or deadline_s - clock.monotonic() <= 1.5 * pause_s:
                    raise
            else:
                return link
            if self._closed.wait(pause_s * self._chance.uniform(0.5, 1.5)):
                raise CallEnded(Code.UNAVAILABLE, "the connection was closed")
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    def _kept(self, path: str, timeout_s: float | None) -> Link | None:
        """One that was kept and is still good."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                link = self._idle.pop()
            try:
                link.start(path, timeout_s)
                # What was said meanwhile, a farewell maybe.
                link.receive(0)
                if link.is_usable:
                    return link
            except CallEnded:
                pass  # it broke
            link.shut()
            link.close()

    def _keep(self, link: Link) -> None:
        with self._lock:
            if link.is_usable and not self._closed.is_set() and len(self._idle) < _IDLE_MAX:
                self._idle.append(link)
                return
        link.shut()
        link.close()


class Call:
    """A call under way. Iterated, it gives its answers; CallEnded when it did not end well."""

    def __init__(self, link: Link, first: list[bytes], deadline_s: float | None) -> None:
        self._link = link
        self._first = first
        self._deadline_s = deadline_s
        self._is_iterated = False

    def __iter__(self) -> Iterator[bytes]:
        link = self._link
        self._is_iterated = True
        try:
            yield from self._first
            while True:
                yield from link.receive(
                    None if self._deadline_s is None else _left_s(self._deadline_s)
                )
        except CallEnded as exc:
            if exc.code is not Code.OK:
                raise
        finally:
            link.shut()
            link.close()

    def cancel(self) -> None:
        """End it, also from another thread."""
        self._link.shut()
        if not self._is_iterated:
            # Nobody reads, who would.
            self._link.close()


def _left_s(deadline_s: float) -> float:
    left_s = deadline_s - clock.monotonic()
    if left_s <= 0:
        raise CallEnded(Code.DEADLINE_EXCEEDED, "the broker did not answer in time")
    return left_s
