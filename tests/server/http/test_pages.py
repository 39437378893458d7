"""The broker's pages, over real sockets."""

import asyncio
from pathlib import Path

import pytest

from qbroker_server.http.pages import CONNECTIONS_MAX, Page, serving, verdict
from tests.support.fetching import connected, fetch, say
from tests.support.served import until


def broken() -> Page:
    raise ValueError("no page")


def count_of_files() -> int:
    """Open files of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


PAGES = {"/livez": lambda: verdict(""), "/readyz": lambda: verdict("it rests"), "/broken": broken}


async def test_a_page_is_what_its_maker_says() -> None:
    async with serving("127.0.0.1:0", PAGES) as port:
        found = [await fetch(port, path) for path in ("/livez", "/readyz", "/livez?verbose")]
        head = await fetch(port, "/readyz", "HEAD")

    assert found == [(200, "ok\n"), (503, "it rests\n"), (200, "ok\n")]
    assert head == (503, "")


async def test_what_is_not_there_is_told_with_what_is() -> None:
    async with serving("127.0.0.1:0", PAGES) as port:
        status, body = await fetch(port, "/nosuch")

    assert status == 404
    assert "/livez /readyz" in body


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /livez HTTP/1.1\r\n\r\n", 405),
        (b"hello\r\n\r\n", 400),
        (b"GET /livez", 0),
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n", 0),
    ],
    ids=["post", "words", "half", "long"],
)
async def test_what_is_no_request_for_a_page_does_no_harm(request_: bytes, status: int) -> None:
    async with serving("127.0.0.1:0", PAGES) as port:
        try:
            found, _ = await say(port, request_)
        except ConnectionError:
            found = 0
        after = await fetch(port, "/livez")

    assert (found, after) == (status, (200, "ok\n"))


async def test_a_page_that_cannot_be_made_is_logged_and_the_next_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving("127.0.0.1:0", PAGES) as port:
        found = await fetch(port, "/broken"), await fetch(port, "/livez")

    assert found == ((0, ""), (200, "ok\n"))
    assert "no page" in caplog.text


async def test_more_slow_connections_than_the_bound_do_not_keep_a_probe_out() -> None:
    async with (
        serving("127.0.0.1:0", PAGES) as port,
        connected(port, CONNECTIONS_MAX + 10, b"GET /li") as slow,
    ):
        found = await fetch(port, "/livez")
        async with asyncio.timeout(10):
            oldest = await slow[0].read()

    assert found == (200, "ok\n")
    assert oldest == b""


async def test_a_request_that_never_ends_is_closed_after_the_time_for_a_request() -> None:
    async with (
        serving("127.0.0.1:0", PAGES, request_s=0.05) as port,
        connected(port, 1, b"GET /livez HTTP/1.1\r\nHost: ") as slow,
    ):
        async with asyncio.timeout(10):
            heard = await slow[0].read()

    assert heard == b""


async def test_a_peer_that_does_not_read_its_page_is_cut_off() -> None:
    size = 32 * 1024 * 1024
    pages = {"/large": lambda: Page(200, bytes(size))}
    async with serving("127.0.0.1:0", pages, request_s=0.05) as port:
        files = count_of_files()
        async with connected(port, 1, b"GET /large HTTP/1.1\r\n\r\n", limit=1_024) as deaf:
            heard = await deaf[0].readuntil(b"\r\n\r\n")
            # The client's end stays open, the broker's is closed.
            await until(lambda: count_of_files() == files + 1)
            async with asyncio.timeout(10):
                heard += await deaf[0].read()

    assert len(heard) < size
