"""Calls of the broker that are not streams of messages: a question and its answer, or its answers."""

import threading
import weakref
from collections.abc import Callable, Iterator

from qbroker.http2 import Code
from qbroker.link import CONNECT_S, CallEnded, Link, Place, connect

_IDLE_MAX = 2
"""Connections that are kept for the next call."""
_DUBIOUS = frozenset({Code.DEADLINE_EXCEEDED, Code.UNKNOWN, Code.INTERNAL, Code.DATA_LOSS})
"""After an end like these, the next call had better go over another connection."""
_PAUSE_FIRST_S = 0.02
_PAUSE_MAX_S = 0.5


class Calls:
    """Makes calls, each on a connection that it has for itself meanwhile.

    What may have reached the broker is sent again only where the caller says that this does no harm.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._idle: list[Link] = []
        self._made: weakref.WeakSet[Link] = weakref.WeakSet()
        self._closed = threading.Event()

    def ask(
        self,
        path: str,
        request: bytes,
        timeout_s: float,
        *,
        waits: bool,
        is_idempotent: bool = True,
    ) -> bytes:
        """The answer to a request. `waits` has it wait for a broker that is away.

        Raises CallEnded, with DEADLINE_EXCEEDED when the time is over. `timeout_s` bounds all attempts together.
        """
        deadline_s = self._place.monotonic() + timeout_s
        while True:
            link = self._begin(path, deadline_s, waits=waits, is_checked=not is_idempotent)
            is_sent = False
            try:
                link.send(request, is_last=True)
                is_sent = True
                return self._answer(link, deadline_s)
            except CallEnded as exc:
                may_be_repeated = exc.is_untouched or (
                    link.is_broken and (is_idempotent or not is_sent)
                )
                if link.is_broken or link.is_unanswered:
                    # Those that are kept have been silent for as long.
                    self._drop_idle()
                if exc.code in _DUBIOUS:
                    link.shut()
                if not may_be_repeated or self._place.monotonic() >= deadline_s:
                    raise
            except BaseException:
                link.shut()
                raise
            finally:
                self._keep(link)
            if self._closed.wait(_PAUSE_FIRST_S * self._place.chance.uniform(0.5, 1.5)):
                raise CallEnded(Code.UNAVAILABLE, "the connection was closed")

    def _answer(self, link: Link, deadline_s: float) -> bytes:
        answer: bytes | None = None
        try:
            while True:
                for message in link.receive(self._left_s(deadline_s)):
                    answer = message
        except CallEnded as exc:
            if exc.code is not Code.OK or answer is None:
                raise
            return answer

    def listen(
        self,
        path: str,
        request: bytes,
        timeout_s: float,
        *,
        is_bounded: bool,
        is_idempotent: bool = True,
        is_quiet: bool = False,
    ) -> "Call":
        """Begin a call that has any number of answers; `timeout_s` bounds it whole, or its beginning only.

        With `is_quiet`, a bounded call whose time is over ends like one without further answers, provided
        that the broker gave a sign of life.
        """
        deadline_s = self._place.monotonic() + timeout_s
        while True:
            link = self._begin(
                path, deadline_s, waits=True, is_bounded=is_bounded, is_checked=not is_idempotent
            )
            is_sent = False
            try:
                link.send(request, is_last=True)
                is_sent = True
                # Its answer tells a broker that has nothing to say from one that is gone.
                link.ping()
                first = link.receive(self._left_s(deadline_s), until_answered=True)
                while not (first or link.is_answered):
                    first = link.receive(self._left_s(deadline_s), until_answered=True)
                if not first:
                    # Where it ended without an answer, this says how.
                    first = link.receive(0)
            except CallEnded as exc:
                if exc.code is Code.OK:
                    # There was nothing to answer.
                    return Call(link, [], None)
                may_be_repeated = exc.is_untouched or (
                    link.is_broken and (is_idempotent or not is_sent)
                )
                is_over = is_quiet and exc.code is Code.DEADLINE_EXCEEDED and not link.is_unanswered
                if link.is_broken or link.is_unanswered:
                    self._drop_idle()
                link.shut()
                link.close()
                if is_over:
                    return Call(link, [], None, is_over=True)
                if not may_be_repeated or self._place.monotonic() >= deadline_s:
                    raise
            except BaseException:
                link.shut()
                link.close()
                raise
            else:
                time_left = self._time_left(deadline_s) if is_bounded else None
                return Call(link, first, time_left, is_quiet=is_quiet)
            if self._closed.wait(_PAUSE_FIRST_S * self._place.chance.uniform(0.5, 1.5)):
                raise CallEnded(Code.UNAVAILABLE, "the connection was closed")

    def close(self) -> None:
        """Let go of what is kept."""
        with self._lock:
            self._closed.set()
            made = list(self._made)
        for link in made:
            link.shut()
        self._drop_idle()

    def leave(self) -> None:
        """In a forked child: let go of the parent's sockets, without a word to the broker."""
        for link in self._made:
            link.close()

    def _begin(
        self,
        path: str,
        deadline_s: float,
        *,
        waits: bool,
        is_checked: bool,
        is_bounded: bool = True,
    ) -> Link:
        """A connection on which a call was started. `is_checked` has a kept one answer a ping first."""
        pause_s = _PAUSE_FIRST_S
        monotonic = self._place.monotonic
        while True:
            link = self._kept(deadline_s, is_checked=is_checked)
            try:
                if link is None:
                    link = self._connect(deadline_s)
                link.start(path, max(deadline_s - monotonic(), 0.001) if is_bounded else None)
            except CallEnded:
                # A pause may be half as long again.
                if not waits or deadline_s - monotonic() <= 1.5 * pause_s:
                    raise
            else:
                return link
            if self._closed.wait(pause_s * self._place.chance.uniform(0.5, 1.5)):
                raise CallEnded(Code.UNAVAILABLE, "the connection was closed")
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    def _connect(self, deadline_s: float) -> Link:
        place = self._place
        left_s = deadline_s - place.monotonic()
        link = connect(
            place.host,
            place.port,
            max(min(CONNECT_S, left_s), 0.001),
            patience=place.patience,
            monotonic=place.monotonic,
        )
        with self._lock:
            self._made.add(link)
        return link

    def _kept(self, deadline_s: float, *, is_checked: bool) -> Link | None:
        """A connection that was kept and still works, as far as can be known without asking."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                link = self._idle.pop()
            try:
                # A ping of the broker maybe, a farewell, the end.
                link.drain()
                left_s = min(deadline_s - self._place.monotonic(), self._place.patience.answer_s)
                if link.is_usable and (not is_checked or link.is_alive_within(max(left_s, 0))):
                    return link
            except CallEnded:
                pass  # it broke
            except BaseException:
                link.shut()
                link.close()
                raise
            link.shut()
            link.close()

    def _keep(self, link: Link) -> None:
        with self._lock:
            if link.is_usable and not self._closed.is_set() and len(self._idle) < _IDLE_MAX:
                self._idle.append(link)
                return
        link.shut()
        link.close()

    def _drop_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for link in idle:
            link.shut()
            link.close()

    def _left_s(self, deadline_s: float) -> float:
        left_s = deadline_s - self._place.monotonic()
        if left_s <= 0:
            raise CallEnded(Code.DEADLINE_EXCEEDED, "the broker did not answer in time")
        return left_s

    def _time_left(self, deadline_s: float) -> Callable[[], float]:
        return lambda: self._left_s(deadline_s)


class Call:
    """A call under way. Iterated, it gives its answers; CallEnded when it did not end well."""

    def __init__(
        self,
        link: Link,
        first: list[bytes],
        time_left: Callable[[], float] | None,
        *,
        is_quiet: bool = False,
        is_over: bool = False,
    ) -> None:
        self._link = link
        self._first = first
        self._time_left = time_left
        self._is_quiet = is_quiet
        self._is_over = is_over
        self._is_iterated = False

    def __iter__(self) -> Iterator[bytes]:
        link = self._link
        self._is_iterated = True
        if self._is_over:
            return
        try:
            yield from self._first
            while True:
                yield from link.receive(None if self._time_left is None else self._time_left())
        except CallEnded as exc:
            is_late = exc.code is Code.DEADLINE_EXCEEDED
            is_over = self._is_quiet and is_late and not link.is_unanswered
            if exc.code is not Code.OK and not is_over:
                raise
        finally:
            link.shut()
            link.close()

    def cancel(self) -> None:
        """End it, also from another thread."""
        self._link.shut()
        if not self._is_iterated:
            # Closed here, for no reader will do it.
            self._link.close()
