"""A TCP link between two programs that a test can cut, reset or make swallow everything."""

import asyncio
import contextlib
import socket
import struct
import threading
from typing import Self

_RESET = struct.pack("ii", 1, 0)
"""Linger for no time: closing sends a reset."""


class _Link:
    """One connection, and the one that it is carried to. `near` is the client's end."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near, self.far = near, far
        # To whom nothing is carried any more.
        self._deaf: set[asyncio.StreamWriter] = set()
        self._damaged: asyncio.StreamWriter | None = None
        self._is_forgotten = False

    async def carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65_536):
                if self._is_forgotten:
                    self.suffer("reset")
                    return
                if target in self._deaf:
                    continue
                if target is self._damaged:
                    # The first byte of a frame's length: 64 KiB more.
                    data = bytes((data[0] ^ 1,)) + data[1:]
                    self._damaged = None
                target.write(data)
                await target.drain()
        if target not in self._deaf:
            target.close()

    def suffer(self, fault: str) -> None:
        match fault:
            case "swallow":
                self._deaf = {self.near, self.far}
            case "deafen broker":
                self._deaf = {self.far}
            case "deafen client":
                self._deaf = {self.near}
            case "damage for broker":
                self._damaged = self.far
            case "damage for client":
                self._damaged = self.near
            case "forget":
                self._is_forgotten = True
            case "cut":
                for end in (self.near, self.far):
                    end.close()
            case _:
                for end in (self.near, self.far):
                    sock: socket.socket = end.get_extra_info("socket")
                    with contextlib.suppress(OSError):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    end.transport.abort()


class Proxy:
    """Carries connections to a port. What is done to the links that are there does not touch later ones."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self._target = port
        self._links: list[_Link] = []
        self._past: list[_Link] = []
        self._loop = asyncio.new_event_loop()
        self._is_over = asyncio.Event()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            self._is_up.set()
            await self._is_over.wait()
            for link in (*self._past, *self._links):
                link.suffer("reset")

    async def _connected(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            far, out = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            back.close()
            return
        link = _Link(back, out)
        self._links.append(link)
        with contextlib.suppress(asyncio.CancelledError):  # the test is over
            await asyncio.gather(link.carry(near, out), link.carry(far, back))

    def do(self, fault: str) -> int:
        """Have the links that are there suffer; how many there were.

        "cut" closes them and "reset" resets them. "swallow" carries nothing more, "deafen broker" and
        "deafen client" nothing more in one direction. "forget" resets them when they are next used, as
        a NAT does with an idle flow. "damage for broker" and "damage for client" move the border of a frame.
        """
        done: list[int] = []
        has_happened = threading.Event()

        def act() -> None:
            links, self._links = self._links, []
            for link in links:
                link.suffer(fault)
            self._past += links
            done.append(len(links))
            has_happened.set()

        self._loop.call_soon_threadsafe(act)
        has_happened.wait()
        return done[0]

    def __enter__(self) -> Self:
        self._thread.start()
        self._is_up.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join()
