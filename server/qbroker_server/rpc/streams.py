"""The open streams, so that a broker that stops can end each with a reason."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Streams:
    """Every long-lived stream and how to close it."""

    def __init__(self) -> None:
        self._closers: set[Callable[[str], None]] = set()
        self._reason = ""
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    @contextmanager
    def open(self, close: Callable[[str], None]) -> Iterator[None]:
        """Have `close` called with the reason when the broker stops before the block ends."""
        self._closers.add(close)
        self._is_empty.clear()
        if self._reason:
            close(self._reason)
        try:
            yield
        finally:
            self._closers.discard(close)
            if not self._closers:
                self._is_empty.set()

    async def close_all(self, reason: str, timeout_s: float) -> None:
        """Tell every stream to end; returns when all have, or after `timeout_s` seconds."""
        self._reason = reason
        for close in tuple(self._closers):
            close(reason)
        try:
            async with asyncio.timeout(timeout_s):
                await self._is_empty.wait()
        except TimeoutError:
            return
