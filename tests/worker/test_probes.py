"""The worker's pages, over real sockets."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from qbroker_worker.journal import Journal
from qbroker_worker.probes import CONNECTIONS_MAX, OUTCOMES, serving
from qbroker_worker.values import FAILURE, SUCCESS, Delivery, Finished
from tests.support.fetching import connected, fetch, say


class Look:
    """What the pages are told."""

    trouble = ""
    slots = 2
    held_count = 3


def delivery(id_: str, task: str) -> Delivery:
    return Delivery(id_, 1, False, task, "celery", False, b"")


async def test_a_worker_is_live_always_and_ready_while_it_takes_tasks() -> None:
    look = Look()
    async with serving("127.0.0.1:0", look, Journal(name="a@here")) as port:
        well = await fetch(port, "/livez"), await fetch(port, "/readyz")
        look.trouble = "there is no link to the broker at h:1"
        ill = await fetch(port, "/livez"), await fetch(port, "/readyz")
        head = await fetch(port, "/readyz", "HEAD")

    assert well == ((200, "ok\n"), (200, "ok\n"))
    assert ill == ((200, "ok\n"), (503, "there is no link to the broker at h:1\n"))
    assert head == (503, "")


async def test_metrics_count_runs_by_task_and_by_outcome() -> None:
    journal = Journal(name="a@here")
    runs = [(delivery("1", "add"), SUCCESS), (delivery("2", "add"), FAILURE)]
    journal.finished([Finished(one, how, b"", False, 0.25, 0, "") for one, how in runs])
    journal.started(delivery("3", "mul"), 8)
    look = Look()
    async with serving("127.0.0.1:0", look, journal) as port:
        status, body = await fetch(port, "/metrics")

    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }
    assert status == 200
    assert found == {
        ("qbroker_worker_ready",): 1.0,
        ("qbroker_worker_slots",): 2.0,
        ("qbroker_worker_held",): 3.0,
        ("qbroker_worker_running",): 1.0,
        ("qbroker_worker_tasks_total", "add"): 2.0,
        ("qbroker_worker_outcomes_total", "success"): 1.0,
        ("qbroker_worker_outcomes_total", "failure"): 1.0,
        ("qbroker_worker_task_seconds_total",): 0.5,
    }


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /livez HTTP/1.1\r\n\r\n", 405),
        (b"hello\r\n\r\n", 400),
        (b"GET /nosuch HTTP/1.1\r\n\r\n", 404),
        (b"GET /livez", 0),
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n", 0),
    ],
    ids=["post", "words", "nosuch", "half", "long"],
)
async def test_what_is_no_request_for_a_page_does_no_harm(request_: bytes, status: int) -> None:
    async with serving("127.0.0.1:0", Look(), Journal(name="a@here")) as port:
        try:
            found, _ = await say(port, request_)
        except ConnectionError:
            found = 0
        after = await fetch(port, "/livez")

    assert (found, after) == (status, (200, "ok\n"))


async def test_a_page_that_cannot_be_made_is_logged_and_the_next_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal = Journal(name="a@here")
    journal.outcomes[max(OUTCOMES) + 1] = 1
    async with serving("127.0.0.1:0", Look(), journal) as port:
        found = await fetch(port, "/metrics"), await fetch(port, "/livez")

    assert found == ((0, ""), (200, "ok\n"))
    assert "A page could not be made" in caplog.text


async def test_more_slow_connections_than_the_bound_do_not_keep_a_probe_out() -> None:
    async with (
        serving("127.0.0.1:0", Look(), Journal(name="a@here")) as port,
        connected(port, CONNECTIONS_MAX + 10, b"GET /li") as slow,
    ):
        found = await fetch(port, "/livez")
        async with asyncio.timeout(10):
            oldest = await slow[0].read()

    assert found == (200, "ok\n")
    assert oldest == b""


async def test_a_request_that_never_ends_is_closed_after_the_time_for_a_request() -> None:
    async with (
        serving("127.0.0.1:0", Look(), Journal(name="a@here"), request_s=0.05) as port,
        connected(port, 1, b"GET /livez HTTP/1.1\r\nHost: ") as slow,
    ):
        async with asyncio.timeout(10):
            heard = await slow[0].read()

    assert heard == b""
