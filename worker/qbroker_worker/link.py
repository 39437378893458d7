"""A stream to the broker on the event loop: messages out, messages in, and how it ended."""

import asyncio
import socket
from collections import deque
from typing import cast

from qbroker.http2 import ClientConnection, Code, ProtocolError, Status
from qbroker.link import words

SILENCE_S = 2.0
"""After this long without a word from the broker it is asked for one."""
PATIENCE_S = 2.0
"""How long it may take to say that word."""


class Link(asyncio.Protocol):
    """One connection with one call on it. `connect` makes one."""

    def __init__(self, authority: str, path: str) -> None:
        self._connection = ClientConnection(authority)
        self._connection.start(path)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._messages: deque[bytes] = deque()
        self._heard = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._is_paused = False
        self._status: Status | None = None
        # Its first word is waited for as the answer to a ping is.
        self._is_asked = True
        self._heard_s = self._loop.time()
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

    def close(self) -> None:
        """End the call and the connection."""
        self._end(Status(Code.CANCELLED, "the worker ended the call"))

    # -- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._timer = self._loop.call_later(PATIENCE_S, self._look)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._heard_s = self._loop.time()
        self._is_asked = False
        try:
            self._messages += self._connection.receive(data)
        except ProtocolError as exc:
            self._end(Status(Code.UNAVAILABLE, str(exc)))
            return
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

    def _look(self) -> None:
        """Time has passed: see whether the broker is still there."""
        now_s = self._loop.time()
        due_s = self._heard_s + (PATIENCE_S if self._is_asked else SILENCE_S)
        if now_s >= due_s:
            if self._is_asked:
                self._end(Status(Code.UNAVAILABLE, f"no word for {PATIENCE_S:g} s"))
                return
            self._is_asked = True
            self._heard_s = now_s
            self._connection.ping()
            self._flush()
            due_s = now_s + PATIENCE_S
        self._timer = self._loop.call_at(due_s, self._look)

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
                self._loop.call_later(PATIENCE_S, self._transport.abort)
        self._heard.set()
        self._room.set()


async def connect(host: str, port: int, path: str) -> Link:
    """A connection on which that call has begun. Raises OSError, TimeoutError among them."""
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    loop = asyncio.get_running_loop()
    until_s = loop.time() + PATIENCE_S
    async with asyncio.timeout_at(until_s):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    trouble: OSError = TimeoutError()
    for tried_count, (family, _, _, _, address) in enumerate(found):
        # One that swallows everything leaves the others their share of the time.
        share_s = (until_s - loop.time()) / (len(found) - tried_count)
        try:
            async with asyncio.timeout(share_s):
                _, link = await loop.create_connection(
                    lambda: Link(authority, path), str(address[0]), port, family=family
                )
        except OSError as exc:
            trouble = exc
        else:
            return link
    raise trouble
