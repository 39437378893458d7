"""The broker's metrics, as they are scraped from a running broker."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from qbroker_proto.v1 import admin_pb2
from qbroker_server.daemon import ListenError
from tests.support.fetching import fetch
from tests.support.served import Served, serving, wire


async def scraped(port: int) -> dict[tuple[str, tuple[str, ...]], float]:
    """Values by name and labels."""
    status, body = await fetch(port, "/metrics")
    assert status == 200
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


async def test_metrics_say_what_is_where_and_what_came_and_went() -> None:
    async with (
        serving(http_listen="127.0.0.1:0") as served,
        served.daemon.pages() as port,
    ):
        worker = served.work()
        await worker.register(queues=["mail"], prefetch_count=1)
        await served.publish(
            wire("1", queue="mail"), wire("2", queue="mail"), wire("3", queue="other")
        )
        (delivery,) = await worker.take()
        before = await scraped(port)
        await worker.settle(delivery)
        await served.publish(wire("4", queue="mail", eta_ms=2**50))
        after = await scraped(port)

    assert before["qbroker_queue_ready", ("mail",)] == 1
    assert before["qbroker_queue_leased", ("mail",)] == 1
    assert before["qbroker_queue_ready", ("other",)] == 1
    assert before["qbroker_queue_consumers", ("mail",)] == 1
    assert before["qbroker_queue_consumers", ("other",)] == 0
    assert before["qbroker_queue_paused", ("mail",)] == 0
    assert before["qbroker_workers_connected", ()] == 1
    assert before["qbroker_workers_lost", ()] == 0
    assert before["qbroker_dead_letters", ()] == 0
    assert before["qbroker_stored_bytes", ()] > 0
    assert before["qbroker_messages_published_total", ("mail",)] == 2
    assert ("qbroker_messages_ended_total", ("mail",)) not in before
    assert after["qbroker_messages_ended_total", ("mail",)] == 1
    assert after["qbroker_queue_scheduled", ("mail",)] == 1
    (labels,) = [labels for name, labels in after if name == "qbroker_info"]
    assert "memory" in labels


async def test_a_queue_that_is_removed_has_no_metrics_any_more() -> None:
    async with serving(http_listen="127.0.0.1:0") as served, served.daemon.pages() as port:
        await served.publish(wire("1", queue="mail"))
        await served.admin.PurgeQueue(admin_pb2.PurgeQueueRequest(queue="mail"))
        await served.admin.RemoveQueue(admin_pb2.RemoveQueueRequest(queue="mail"))
        found = await scraped(port)

    assert not [name for name, labels in found if "mail" in labels]


async def test_a_broker_is_ready_until_it_stops_and_live_to_the_end() -> None:
    async with serving(http_listen="127.0.0.1:0") as served, served.daemon.pages() as port:
        running = await fetch(port, "/livez"), await fetch(port, "/readyz")
        await served.stop()
        stopped = await fetch(port, "/livez"), await fetch(port, "/readyz")

    assert running == ((200, "ok\n"), (200, "ok\n"))
    assert stopped == ((200, "ok\n"), (503, "the broker is shutting down\n"))


async def test_a_store_that_failed_makes_a_broker_unready() -> None:
    async with serving(http_listen="127.0.0.1:0") as served, served.daemon.pages() as port:
        served.daemon._fail(OSError("no disk"))
        found = await fetch(port, "/readyz")
        served.daemon._failure = None

    assert found == (503, "the store failed: no disk\n")


async def test_without_an_address_there_are_no_pages() -> None:
    async with serving() as served, served.daemon.pages() as port:
        assert port == 0


async def test_an_address_that_is_taken_ends_the_broker_with_a_sentence() -> None:
    async def pages(served: Served) -> None:
        async with served.daemon.pages():
            raise AssertionError("there is somebody else")

    async with (
        serving(http_listen="127.0.0.1:0") as first,
        first.daemon.pages() as port,
        serving(http_listen=f"127.0.0.1:{port}") as second,
    ):
        with pytest.raises(ListenError, match=f"Cannot listen on 127.0.0.1:{port}"):
            await pages(second)
        second._is_stopped = True
