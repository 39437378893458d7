"""A stream to the broker on the event loop: messages out, messages in, and how it ended."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import cast

from qbroker.http2 import (
    PATIENCE,
    ClientConnection,
    Code,
    Look,
    Patience,
    ProtocolError,
    Silence,
    Status,
)
from qbroker.link import CONNECT_S, unacked_bytes, words


class Link(asyncio.Protocol):
    """One connection with one call on it. `connect` makes one."""

    def __init__(
        self,
        authority: str,
        path: str,
        *,
        patience: Patience = PATIENCE,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        self._connection = ClientConnection(authority)
        self._connection.start(path)
        self._loop = asyncio.get_running_loop()
        self._monotonic = monotonic or self._loop.time
        self._transport: asyncio.Transport | None = None
        self._messages: deque[bytes] = deque()
        self._heard = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._is_paused = False
        self._status: Status | None = None
        self._greeted = asyncio.Event()
        self._silence = Silence(patience, self._monotonic())
        self._timer: asyncio.TimerHandle | None = None

    @property
    def status(self) -> Status:
        """How the call ended; of use once it has."""
        return self._status or Status(Code.UNKNOWN, "the call goes on")

    async def write(self, message: bytes) -> None:
        """Say a message, and wait until the broker has room for the next. Nobody hears it when the call has ended."""
        if self._status is not None:
            return
        self._connection.send(message)
        self._flush()
        await self._room.wait()

    async def read(self) -> bytes | None:
        """The next message; None when there will be none."""
        while not self._messages:
            if self._status is not None:
                return None
            self._heard.clear()
            await self._heard.wait()
        return self._messages.popleft()

    async def greet(self) -> None:
        """Wait for the broker's first word. Raises ConnectionError when the connection ends without it."""
        await self._greeted.wait()
        if not self._connection.is_greeted:
            raise ConnectionError(self.status.details)

    def close(self) -> None:
        """End the call and the connection."""
        self._end(Status(Code.CANCELLED, "the worker ended the call"))

    def abort(self) -> None:
        """End the connection at once, without a word."""
        self._end(Status(Code.UNAVAILABLE, "the connection was given up"))

    # -- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._look_again()
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            self._messages += self._connection.receive(data)
        except ProtocolError as exc:
            self._end(Status(Code.UNAVAILABLE, str(exc)))
            return
        if self._connection.has_heard:
            self._silence.heard(self._monotonic())
            self._greeted.set()
        self._flush()
        if self._connection.status is not None:
            self._end(self._connection.status)
        if self._messages:
            self._heard.set()

    def connection_lost(self, exc: Exception | None) -> None:
        said = words(exc) if isinstance(exc, OSError) else "the broker closed the connection"
        self._end(Status(Code.UNAVAILABLE, said))

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._flush()

    # -- inside

    def _flush(self) -> None:
        if self._transport is None or self._status is not None:
            return
        if self._connection.has_words:
            self._transport.write(self._connection.take())
        if self._is_paused or self._connection.is_held_up:
            self._room.clear()
        else:
            self._room.set()

    def _look_again(self) -> None:
        # A worker always waits for the broker: for its next task.
        left_s = self._silence.due_s(is_awaited=True) - self._monotonic()
        self._timer = self._loop.call_later(max(left_s, 0), self._look)

    def _look(self) -> None:
        """Time has passed: see whether the broker is still there."""
        look = self._silence.look(
            self._monotonic(), is_awaited=True, unacked_bytes=self._unacked_bytes
        )
        if look is Look.GIVE_UP:
            patience_s = self._silence.patience.answer_s
            self._end(Status(Code.UNAVAILABLE, f"no word for {patience_s:g} s"))
            return
        if look is Look.PING:
            self._connection.ping()
            self._flush()
        self._look_again()

    def _unacked_bytes(self) -> int:
        if self._transport is None:
            return 0
        sock = cast("socket.socket", self._transport.get_extra_info("socket"))
        return self._transport.get_write_buffer_size() + unacked_bytes(sock)

    def _end(self, status: Status) -> None:
        if self._status is not None:
            return
        self._status = status
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            if status.code is Code.UNAVAILABLE:
                self._transport.abort()
            else:
                # What was said goes out first, if the broker takes it in.
                self._transport.close()
                self._loop.call_later(self._silence.patience.answer_s, self._transport.abort)
        self._greeted.set()
        self._heard.set()
        self._room.set()


async def connect(
    host: str,
    port: int,
    path: str,
    *,
    patience: Patience = PATIENCE,
    timeout_s: float = CONNECT_S,
    monotonic: Callable[[], float] | None = None,
) -> Link:
    """A connection on which that call has begun and the broker has said its first word.

    Raises OSError, TimeoutError among them.
    """
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    loop = asyncio.get_running_loop()
    until_s = loop.time() + timeout_s
    async with asyncio.timeout_at(until_s):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    trouble: OSError = TimeoutError()
    for tried_count, (family, _, _, _, address) in enumerate(found):
        # An address that swallows everything leaves the others their share of the time.
        share_s = (until_s - loop.time()) / (len(found) - tried_count)
        link: Link | None = None
        try:
            async with asyncio.timeout(share_s):
                _, link = await loop.create_connection(
                    lambda: Link(authority, path, patience=patience, monotonic=monotonic),
                    str(address[0]),
                    port,
                    family=family,
                )
                await link.greet()
        except OSError as exc:
            trouble = exc
            if link is not None:
                link.abort()
        except BaseException:
            if link is not None:
                link.abort()
            raise
        else:
            return link
    raise trouble
