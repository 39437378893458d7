"""The broker's pages, over real sockets."""

import pytest

from qbroker_server.http.pages import Page, serving, verdict
from tests.support.fetching import fetch, say


def broken() -> Page:
    raise ValueError("no page")


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
