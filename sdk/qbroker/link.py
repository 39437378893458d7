"""A connection to the broker that threads share: one reads, any may send, any may end it."""

import contextlib
import math
import os
import queue
import random
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import NamedTuple

from qbroker import clock
from qbroker.http2 import PATIENCE, ClientConnection, Code, Look, Patience, ProtocolError, Silence

CONNECT_S = 2.0
"""How long an attempt to connect may take, the broker's first word included."""

_RECEIVE_BYTES = 64 * 1024
_ROOM_S = 0.1
"""How long a sender waits for room in the system's buffer; the reader sends what is left then."""


class Place(NamedTuple):
    """Where streams and calls lead, and how patient they are."""

    url: str
    host: str
    port: int
    timeout_s: float
    monotonic: Callable[[], float]
    chance: random.Random
    patience: Patience = PATIENCE


class CallEnded(Exception):
    """A call ended with this code and these details; UNAVAILABLE where the broker could not be reached.

    With `is_untouched` the broker said that it has not begun the call.
    """

    def __init__(self, code: Code, details: str, *, is_untouched: bool = False) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details
        self.is_untouched = is_untouched


class Link:
    """One connection, on which calls are made one after the other.

    `is_awaited` tells whether somebody waits for a word of the broker. Any thread's call of it must be safe.
    """

    def __init__(
        self,
        sock: socket.socket,
        authority: str,
        *,
        patience: Patience = PATIENCE,
        monotonic: Callable[[], float] = clock.monotonic,
        is_awaited: Callable[[], bool] = lambda: True,
    ) -> None:
        self._sock = sock
        self._connection = ClientConnection(authority)
        self._lock = threading.Lock()
        self._broken: CallEnded | None = None
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._movable = select.poll()
        self._movable.register(sock, select.POLLIN | select.POLLOUT)
        self._writable = select.poll()
        self._writable.register(sock, select.POLLOUT)
        # What the system had no room for.
        self._unsent = memoryview(b"")
        self._monotonic = monotonic
        self._silence = Silence(patience, monotonic())
        self._is_awaited = is_awaited
        self._is_unanswered = False

    @property
    def is_usable(self) -> bool:
        """Whether another call can be made on it."""
        return self._broken is None and self._connection.is_usable

    @property
    def is_broken(self) -> bool:
        """Whether the connection has ended."""
        return self._broken is not None

    @property
    def is_answered(self) -> bool:
        """Whether the broker has begun to answer the call."""
        return self._connection.is_answered

    @property
    def is_unanswered(self) -> bool:
        """Whether nothing was heard from the broker since something was last sent."""
        return self._is_unanswered

    @property
    def is_held_up(self) -> bool:
        """Whether something is to be sent that cannot be sent yet."""
        return self._connection.is_held_up or bool(self._unsent)

    def start(self, path: str, timeout_s: float | None = None) -> None:
        """Begin a call; what it says first goes with it."""
        with self._lock:
            timeout_ms = None if timeout_s is None else max(1, math.ceil(timeout_s * 1000))
            self._connection.start(path, timeout_ms)

    def send(self, message: bytes, *, is_last: bool = False) -> None:
        """Say a message. Raises CallEnded when the connection is broken."""
        with self._lock:
            try:
                self._is_unanswered = True
                self._connection.send(message, is_last=is_last)
                self._flush()
            except CallEnded:
                raise
            except BaseException:
                # Raised by a signal's handler: how much of the message was sent is unknown.
                self._breaks("sending was interrupted")
                raise

    def ping(self) -> None:
        """Have the broker say something. Raises CallEnded when the connection is broken."""
        with self._lock:
            self._is_unanswered = True
            self._connection.ping()
            self._flush()

    def greet(self, timeout_s: float) -> None:
        """Wait for the broker's first word. Raises CallEnded when it does not come in time."""
        with self._lock:
            self._flush()
        self._wait(timeout_s, lambda: self._connection.is_greeted)
        if not self._connection.is_greeted:
            raise self._breaks(f"no word within {timeout_s:.3g} s")

    def is_alive_within(self, timeout_s: float) -> bool:
        """Whether the broker answers a ping in time. Raises CallEnded when the connection is broken."""
        self.ping()
        self._wait(timeout_s, lambda: not self._is_unanswered)
        return not self._is_unanswered

    def drain(self) -> None:
        """Take in what the broker said while nobody listened. Raises CallEnded when it closed the connection."""
        while self._broken is None and self._readable.poll(0):
            self._read()
        if self._broken is not None:
            raise self._broken

    def receive(
        self, timeout_s: float | None = None, *, until_answered: bool = False
    ) -> list[bytes]:
        """Wait for messages; none when the time is over. For one thread at a time.

        `until_answered` waits only until the broker has begun to answer the call.
        Raises CallEnded when the call has, after all of its messages.
        """
        if until_answered:
            return self._wait(timeout_s, lambda: self._connection.is_answered)
        return self._wait(timeout_s, None)

    def _wait(self, timeout_s: float | None, is_enough: Callable[[], bool] | None) -> list[bytes]:
        now_s = self._monotonic()
        until_s = math.inf if timeout_s is None else now_s + timeout_s
        silence = self._silence
        while True:
            if self._broken is not None:
                raise self._broken
            if self._connection.status is not None:
                raise CallEnded(
                    *self._connection.status, is_untouched=self._connection.is_untouched
                )
            is_awaited = self._is_unanswered or self._is_awaited()
            due_s = silence.due_s(is_awaited=is_awaited)
            if not is_awaited:
                # Somebody may begin to wait meanwhile.
                due_s = min(due_s, now_s + silence.patience.silence_s)
            wait_s = max(0.0, min(due_s, until_s) - now_s)
            poll = self._movable if self._unsent else self._readable
            if ready := poll.poll(math.ceil(wait_s * 1000)):
                if ready[0][1] & ~select.POLLOUT:
                    messages = self._read()
                    if messages or (is_enough is not None and is_enough()):
                        return messages
                else:
                    with self._lock:
                        self._flush(room_s=0)
                now_s = self._monotonic()
            else:
                now_s = self._monotonic()
                self._look(now_s)
            if now_s >= until_s:
                return []

    def _read(self) -> list[bytes]:
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
            with self._lock:
                messages = self._connection.receive(data)
                if self._connection.has_words:
                    self._answer(messages)
        except BlockingIOError:
            return []
        except OSError as exc:
            raise self._breaks(words(exc)) from exc
        except ProtocolError as exc:
            raise self._breaks(str(exc)) from exc
        except CallEnded:
            raise
        except BaseException:
            # Raised by a signal's handler: how much of the data was taken in is unknown.
            self._breaks("reading was interrupted")
            raise
        if not data:
            raise self._breaks("the broker closed the connection")
        if self._connection.has_heard:
            self._silence.heard(self._monotonic())
            self._is_unanswered = False
        return messages

    def _answer(self, messages: list[bytes]) -> None:
        """Send what HTTP/2 answers by itself. When that fails, what was heard counts all the same."""
        try:
            self._flush(room_s=0)
        except CallEnded:
            if not messages:
                raise

    def _look(self, now_s: float) -> None:
        """Nothing was heard for a while: see whether that is too long."""
        look = self._silence.look(
            now_s,
            is_awaited=self._is_unanswered or self._is_awaited(),
            unacked_bytes=lambda: len(self._unsent) + unacked_bytes(self._sock),
        )
        if look is Look.GIVE_UP:
            raise self._breaks(f"no word for {self._silence.patience.answer_s:g} s")
        if look is Look.PING:
            with self._lock:
                self._connection.ping()
                self._flush(room_s=0)

    def _flush(self, room_s: float = _ROOM_S) -> None:
        """Send what is to be sent, as far as there is room; the caller holds the lock."""
        if self._broken is not None:
            raise self._broken
        try:
            data = memoryview(self._connection.take())
            if self._unsent:
                # The reader is at it already.
                data, room_s = memoryview(bytes(self._unsent) + data), 0
            while data:
                try:
                    data = data[self._sock.send(data) :]
                except BlockingIOError:
                    if not room_s or not self._writable.poll(room_s * 1000):
                        break
            self._unsent = data
        except OSError as exc:
            raise self._breaks(words(exc)) from exc
        except BaseException:
            # Raised by a signal's handler: how much was sent is unknown.
            self._breaks("sending was interrupted")
            raise

    def _breaks(self, why: str) -> CallEnded:
        self.shut(why)
        assert self._broken is not None
        return self._broken

    def shut(self, why: str = "the connection was closed") -> None:
        """End the connection: who reads or sends is told so. Its reader closes it then."""
        if self._broken is None:
            self._broken = CallEnded(Code.UNAVAILABLE, why)
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is not connected any more

    def close(self) -> None:
        """Free the socket; no thread may be reading or sending any more."""
        self._sock.close()


def connect(
    host: str,
    port: int,
    timeout_s: float,
    *,
    patience: Patience = PATIENCE,
    monotonic: Callable[[], float] = clock.monotonic,
    is_awaited: Callable[[], bool] = lambda: True,
    opening: Callable[[socket.socket], object] = lambda _sock: None,
) -> Link:
    """A new connection on which the broker has said its first word.

    `opening` is told of each socket before it connects; shutting the socket down ends the attempt.

    A connection that is taken in and then stays silent is none: the broker may be stopped, or only a
    proxy be there. Raises CallEnded, with UNAVAILABLE, when there is none within the time.
    """
    deadline_s = monotonic() + timeout_s
    trouble = "no address"
    addresses = _addresses(host, port, timeout_s)
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    for tried_count, (family, kind, protocol, address) in enumerate(addresses):
        left_s = deadline_s - monotonic()
        if left_s <= 0:
            break
        # An address that swallows everything leaves the others their share of the time.
        share_s = left_s / (len(addresses) - tried_count)
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as exc:
            trouble = words(exc)
            continue
        began_s = monotonic()
        try:
            sock.settimeout(share_s)
            opening(sock)
            sock.connect(address)
            sock.setblocking(False)  # noqa: FBT003 - the socket module's signature
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(
                sock, authority, patience=patience, monotonic=monotonic, is_awaited=is_awaited
            )
            link.greet(max(share_s - (monotonic() - began_s), 0))
        except OSError as exc:
            sock.close()
            trouble = words(exc)
        except CallEnded as exc:
            sock.close()
            trouble = exc.details
        except BaseException:
            sock.close()
            raise
        else:
            return link
    raise CallEnded(Code.UNAVAILABLE, trouble)


def unacked_bytes(sock: socket.socket) -> int:
    """How many sent bytes the peer's system has not acknowledged; 0 where the system does not tell."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import fcntl  # noqa: PLC0415 - needed only for a silent peer; there is none on Windows
        import termios  # noqa: PLC0415 - the same

        raw = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
        return int(struct.unpack("i", raw)[0])
    return 0


_Address = tuple[socket.AddressFamily, socket.SocketKind, int, tuple[object, ...]]


def _addresses(host: str, port: int, timeout_s: float) -> list[_Address]:
    """Where the name leads. A resolver keeps to no time of ours, so a name is looked up by a thread that may be left behind."""
    try:
        return _looked_up(host, port, socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        pass  # it is a name
    answers: queue.SimpleQueue[list[_Address] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(_looked_up(host, port, 0))
        except (OSError, UnicodeError) as exc:
            answers.put(exc)

    threading.Thread(target=ask, name=f"qbroker looks up {host}", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise CallEnded(Code.UNAVAILABLE, f"looking up {host} takes too long") from None
    if isinstance(answer, OSError):
        raise CallEnded(Code.UNAVAILABLE, words(answer)) from answer
    if isinstance(answer, Exception):
        raise CallEnded(Code.UNAVAILABLE, f"{host!r} is not a host name") from answer
    return answer


def _looked_up(host: str, port: int, flags: int) -> list[_Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, kind, protocol, address) for family, kind, protocol, _, address in found]


def words(exc: OSError) -> str:
    """What went wrong, as the system says it: `Connection refused`."""
    if isinstance(exc, socket.gaierror):
        return str(exc.strerror)
    if exc.errno is not None:
        return os.strerror(exc.errno)
    return "Connection timed out" if isinstance(exc, TimeoutError) else str(exc)
