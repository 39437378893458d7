"""Events of real workers, from a client that listens."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from qbroker import App
from qbroker.serialization import Value

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e


@pytest.fixture
def app(farm: "Farm") -> Iterator[App]:
    farm.broker()
    with App("outside", broker=farm.broker_url, backend="qbroker://") as app:
        app.conf.task_send_sent_event = True
        yield app


def until(events: Iterator[Value], uuid: str, last: str) -> list[dict[str, Value]]:
    """The events of a task, up to its last, and to that of its client, which comes another way."""
    found: list[dict[str, Value]] = []
    for event in events:
        if event.get("uuid") == uuid:
            found.append(event)
            if {last, "task-sent"} <= {one["type"] for one in found}:
                return found
    raise AssertionError(found)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_task_is_told_of_from_call_to_end(farm: "Farm", app: App, pool: str) -> None:
    farm.worker("-E", "-P", pool, "-c", "1", "-n", "a@here")
    events = app.events.Receiver().itercapture(timeout=30)
    first = next(events)

    done = app.send_task("proj.add", (2, 2))
    told = until(events, done.id, "task-succeeded")
    failed = app.send_task("proj.add", (2, "x"))
    told_failed = until(events, failed.id, "task-failed")
    tried = app.send_task("proj.flaky", ("x", 1))
    told_tried = until(events, tried.id, "task-succeeded")
    events.close()

    assert (first["type"], first["hostname"]) == ("worker-heartbeat", "a@here")
    assert {event["type"] for event in told} == {
        "task-sent",
        "task-received",
        "task-started",
        "task-succeeded",
    }
    by_type = {event["type"]: event for event in told}
    assert by_type["task-sent"]["hostname"].startswith("gen")
    assert by_type["task-received"]["args"] == "(2, 2)"
    assert by_type["task-received"]["name"] == "proj.add"
    assert by_type["task-succeeded"]["result"] == "4"
    assert by_type["task-succeeded"]["runtime"] >= 0
    assert [event["clock"] for event in told] == sorted(event["clock"] for event in told)
    (failure,) = [event for event in told_failed if event["type"] == "task-failed"]
    assert failure["exception"].startswith("TypeError(")
    assert "Traceback" in failure["traceback"]
    assert [event["type"] for event in told_tried].count("task-retried") == 1


def test_a_worker_tells_when_it_comes_and_goes_and_the_broker_when_it_vanishes(
    farm: "Farm", app: App
) -> None:
    events = app.events.Receiver(routing_key="worker.*").itercapture(timeout=30)
    told: list[tuple[str, str]] = []

    def hear(last: str, name: str) -> None:
        for event in events:
            told.append((event["type"], event["hostname"]))
            if told[-1] == (last, name):
                return

    stayed = farm.worker("-n", "stays@here", "-c", "1")
    # It begins to listen with the first `next`, and there is somebody to hear.
    hear("worker-heartbeat", "stays@here")
    goes = farm.worker("-n", "goes@here", "-c", "1")
    hear("worker-online", "goes@here")
    goes.end()
    hear("worker-offline", "goes@here")
    stayed.popen.kill()
    hear("worker-offline", "stays@here")
    events.close()

    assert told.count(("worker-online", "goes@here")) == 1
    assert told[-1] == ("worker-offline", "stays@here")
