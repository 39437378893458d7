"""A page over HTTP, asked for as probes do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager


async def fetch(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and body."""
    return await say(port, f"{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())


async def say(port: int, request: bytes) -> tuple[int, str]:
    """The answer to any bytes; (0, "") when there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(10):
            answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    if not answer:
        return 0, ""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


@asynccontextmanager
async def connected(
    port: int, count: int, beginning: bytes, *, limit: int = 65_536
) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Connections that send the beginning of a request each; each buffers twice `limit` bytes of an answer."""
    readers = []
    async with AsyncExitStack() as stack:
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
            stack.callback(writer.close)
            writer.write(beginning)
            await writer.drain()
            readers.append(reader)
        yield readers
