"""A connection to the broker that threads share: one reads, any may send, any may end it."""

import math
import os
import queue
import select
import socket
import threading

from qbroker import clock
from qbroker.http2 import ClientConnection, Code, ProtocolError

CONNECT_S = 2.0
"""How long an attempt to connect may take."""
SILENCE_S = 30.0
"""After this long without a word from the broker it is asked for one."""
PATIENCE_S = 10.0
"""How long the broker may take to say that word, or to take in what it is sent."""

_RECEIVE_BYTES = 64 * 1024


class CallEnded(Exception):
    """A call ended with this code and these details; UNAVAILABLE where the broker could not be reached."""

    def __init__(self, code: Code, details: str) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details


class Link:
    """One connection, on which calls are made one after the other."""

    def __init__(self, sock: socket.socket, authority: str) -> None:
        self._sock = sock
        self._connection = ClientConnection(authority)
        self._lock = threading.Lock()
        self._broken: CallEnded | None = None
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._heard_s = clock.monotonic()
        # Its first word is waited for as the answer to a ping is.
        self._is_asked = True

    @property
    def is_usable(self) -> bool:
        """Whether another call can be made on it."""
        return self._broken is None and self._connection.is_usable

    @property
    def is_answered(self) -> bool:
        """Whether the broker has begun to answer the call."""
        return self._connection.is_answered

    @property
    def is_greeted(self) -> bool:
        """Whether the broker has said its first word."""
        return self._connection.is_greeted

    @property
    def is_held_up(self) -> bool:
        """Whether something is to be sent that the broker does not allow yet."""
        return self._connection.is_held_up

    def start(self, path: str, timeout_s: float | None = None) -> None:
        """Begin a call; what it says first goes with it."""
        with self._lock:
            timeout_ms = None if timeout_s is None else max(1, math.ceil(timeout_s * 1000))
            self._connection.start(path, timeout_ms)

    def send(self, message: bytes, *, is_last: bool = False) -> None:
        """Say a message. Raises CallEnded when the connection is broken."""
        with self._lock:
            try:
                self._connection.send(message, is_last=is_last)
                self._flush()
            except CallEnded:
                raise
            except BaseException:
                # Raised by a signal's handler: nobody knows what of the message was sent.
                self._breaks("sending was interrupted")
                raise

    def receive(
        self, timeout_s: float | None = None, *, until_answered: bool = False
    ) -> list[bytes]:
        """Wait for messages; none when the time is over. For one thread at a time.

        `until_answered` waits only until the broker has begun to answer the call.
        Raises CallEnded when the call has, after all of its messages.
        """
        now_s = clock.monotonic()
        until_s = math.inf if timeout_s is None else now_s + timeout_s
        while True:
            if self._broken is not None:
                raise self._broken
            if self._connection.status is not None:
                raise CallEnded(*self._connection.status)
            due_s = self._heard_s + (PATIENCE_S if self._is_asked else SILENCE_S)
            wait_s = max(0.0, min(due_s, until_s) - now_s)
            if self._readable.poll(math.ceil(wait_s * 1000)):
                messages = self._read()
                if messages or (until_answered and self._connection.is_answered):
                    return messages
                due_s = math.inf
            now_s = clock.monotonic()
            if now_s >= due_s:
                self._miss(now_s)
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
            # Raised by a signal's handler: nobody knows what of the data was taken in.
            self._breaks("reading was interrupted")
            raise
        if not data:
            raise self._breaks("the broker closed the connection")
        self._heard_s = clock.monotonic()
        self._is_asked = False
        return messages

    def _answer(self, messages: list[bytes]) -> None:
        """Send what HTTP/2 answers by itself. When that fails, what was heard counts all the same."""
        try:
            self._flush()
        except CallEnded:
            if not messages:
                raise

    def _miss(self, now_s: float) -> None:
        """Nothing was heard for too long."""
        if self._is_asked:
            raise self._breaks(f"no word for {PATIENCE_S:g} s")
        self._heard_s = now_s
        self._is_asked = True
        with self._lock:
            self._connection.ping()
            self._flush()

    def _flush(self) -> None:
        """Send what is to be sent; the caller holds the lock."""
        if self._broken is not None:
            raise self._broken
        data = memoryview(self._connection.take())
        try:
            while data:
                try:
                    data = data[self._sock.send(data) :]
                except BlockingIOError:
                    writable = select.poll()
                    writable.register(self._sock, select.POLLOUT)
                    if not writable.poll(PATIENCE_S * 1000):
                        raise self._breaks("the broker takes nothing in") from None
        except OSError as exc:
            raise self._breaks(words(exc)) from exc

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
        """Free the socket; nobody may be reading or sending any more."""
        self._sock.close()


def connect(host: str, port: int, timeout_s: float) -> Link:
    """A new connection. Raises CallEnded, with UNAVAILABLE, when there is none within the time."""
    deadline_s = clock.monotonic() + timeout_s
    trouble = "no address"
    addresses = _addresses(host, port, timeout_s)
    for tried_count, (family, kind, protocol, address) in enumerate(addresses):
        left_s = deadline_s - clock.monotonic()
        if left_s <= 0:
            break
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as exc:
            trouble = words(exc)
            continue
        try:
            # One that swallows everything leaves the others their share of the time.
            sock.settimeout(left_s / (len(addresses) - tried_count))
            sock.connect(address)
            sock.setblocking(False)  # noqa: FBT003 - the socket module's signature
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return Link(sock, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except OSError as exc:
            sock.close()
            trouble = words(exc)
        except BaseException:
            sock.close()
            raise
    raise CallEnded(Code.UNAVAILABLE, trouble)


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
        raise CallEnded(Code.UNAVAILABLE, f"{host!r} is no name of a host") from answer
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
