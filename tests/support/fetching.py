"""A page over HTTP, asked for as probes do."""

import asyncio


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
