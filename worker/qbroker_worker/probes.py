"""The worker's pages for probes and for what scrapes metrics: /livez, /readyz and /metrics, on a port that is asked for.

They are served by the parent, so they are answered however busy the tasks are. It is no web server: one request
a connection, within seconds and kilobytes, and nothing of it is read but its first line.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from qbroker_worker.journal import Journal
from qbroker_worker.values import (
    FAILURE,
    IGNORED,
    REJECTED,
    RETRY,
    REVOKED,
    SUCCESS,
    TIMEOUT,
    WORKER_LOST,
)

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

OUTCOMES = {
    SUCCESS: "success",
    FAILURE: "failure",
    WORKER_LOST: "worker_lost",
    IGNORED: "ignored",
    REJECTED: "rejected",
    REVOKED: "revoked",
    RETRY: "retry",
    TIMEOUT: "timeout",
}


class Look(Protocol):
    """What the pages tell of."""

    @property
    def trouble(self) -> str:
        """Why the worker takes no tasks; "" when it does."""

    @property
    def slots(self) -> int:
        """How many tasks run at once at most."""

    @property
    def held_count(self) -> int:
        """How many tasks it has, those that run included."""


class Page(NamedTuple):
    """What is answered."""

    status: int
    body: bytes
    content_type: str = _TEXT


class Metrics(Collector):
    """Collects from a worker when it is asked."""

    def __init__(self, look: Look, journal: Journal) -> None:
        self._look = look
        self._journal = journal
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def page(self) -> Page:
        """All of it."""
        return Page(200, generate_latest(self._registry), CONTENT_TYPE_LATEST)

    def collect(self) -> Iterator[Metric]:
        look, journal = self._look, self._journal
        for name, told, value in (
            ("ready", "1 while it takes tasks.", float(not look.trouble)),
            ("slots", "Tasks it runs at once at most.", look.slots),
            ("held", "Tasks it has, those that run included.", look.held_count),
            ("running", "Tasks that have run for more than a moment.", len(journal.running)),
        ):
            yield GaugeMetricFamily(f"qbroker_worker_{name}", told, value=value)
        tasks = CounterMetricFamily(
            "qbroker_worker_tasks", "Runs that ended here, by task.", labels=("task",)
        )
        for task, count in journal.totals.items():
            tasks.add_metric((task,), count)
        yield tasks
        ends = CounterMetricFamily(
            "qbroker_worker_outcomes", "The same, by how they ended.", labels=("outcome",)
        )
        for outcome, count in journal.outcomes.items():
            ends.add_metric((OUTCOMES[outcome],), count)
        yield ends
        yield CounterMetricFamily(
            "qbroker_worker_task_seconds", "How long they took together.", value=journal.runtime_s
        )


@asynccontextmanager
async def serving(
    listen: str, look: Look, journal: Journal, *, request_s: float = REQUEST_S
) -> AsyncIterator[int]:
    """Serve at HOST:PORT until the block ends; gives the port. OSError when nobody can listen there."""
    pages = {
        "/livez": lambda: Page(200, b"ok\n"),
        "/readyz": lambda: verdict(look.trouble),
        "/metrics": Metrics(look, journal).page,
    }
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
                head = await reader.readuntil(b"\r\n\r\n")
                page = _find(head.split(b"\r\n", 1)[0].decode("latin-1"), pages)
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


def verdict(trouble: str) -> Page:
    """A probe's page: all is well, or what is not."""
    return Page(503, f"{trouble}\n".encode()) if trouble else Page(200, b"ok\n")


def _find(line: str, pages: dict[str, Callable[[], Page]]) -> Page:
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
