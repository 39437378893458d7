"""A few pages over HTTP, for probes and for what scrapes metrics; asked for with GET, answered and closed.

It is no web server: one request a connection, within seconds and kilobytes, and nothing of it is read but its first line.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

logger = logging.getLogger(__name__)

REQUEST_S = 5.0
"""How long a request and its answer may take together."""

CONNECTIONS_MAX = 100
"""Most connections at once; one more closes the oldest, so slow peers can neither lock probes out nor use up files."""

_HEAD_BYTES_MAX = 16 * 1024
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}
_TEXT = "text/plain; charset=utf-8"


class Page(NamedTuple):
    """What is answered."""

    status: int
    body: bytes
    content_type: str = _TEXT


Pages = Mapping[str, Callable[[], Page]]
"""What makes each page, by its path. Called on the event loop: it must be quick."""


def verdict(trouble: str) -> Page:
    """A probe's page: all is well, or what is not."""
    return Page(503, f"{trouble}\n".encode()) if trouble else Page(200, b"ok\n")


@asynccontextmanager
async def serving(listen: str, pages: Pages, *, request_s: float = REQUEST_S) -> AsyncIterator[int]:
    """Serve at HOST:PORT until the block ends; gives the port. OSError when nobody can listen there."""
    host, _, port = listen.rpartition(":")
    # In the order of their arrival.
    peers: dict[asyncio.StreamWriter, None] = {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(peers) >= CONNECTIONS_MAX:
            oldest = next(iter(peers))
            del peers[oldest]
            oldest.transport.abort()
        peers[writer] = None
        # `drain` returns when the kernel has the whole answer, so `close` has nothing to wait for.
        writer.transport.set_write_buffer_limits(high=0)
        try:
            async with asyncio.timeout(request_s):
                page = _find(await _head(reader), pages)
                writer.write(_written(page))
                await writer.drain()
        except TimeoutError:
            # Closing would wait for a peer that reads nothing.
            writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # nobody waits for an answer any more
        except Exception:
            logger.exception("A page could not be made.")
        finally:
            peers.pop(writer, None)
            writer.close()

    server = await asyncio.start_server(
        answer, host.strip("[]") or None, int(port), limit=_HEAD_BYTES_MAX
    )
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _head(reader: asyncio.StreamReader) -> str:
    head = await reader.readuntil(b"\r\n\r\n")
    return head.split(b"\r\n", 1)[0].decode("latin-1")


def _find(line: str, pages: Pages) -> Page:
    words = line.split(" ")
    if len(words) != 3:
        return Page(400, b"this is not an HTTP request\n")
    if words[0] not in ("GET", "HEAD"):
        return Page(405, b"GET it\n")
    make = pages.get(words[1].partition("?")[0])
    if make is None:
        return Page(404, f"there are: {' '.join(pages)}\n".encode())
    page = make()
    return page._replace(body=b"") if words[0] == "HEAD" else page


def _written(page: Page) -> bytes:
    head = (
        f"HTTP/1.1 {page.status} {_REASONS[page.status]}\r\n"
        f"Content-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + page.body
