"""Hearing events, at the real broker."""

import threading

import pytest

from qbroker import App
from qbroker.events.receiver import EventReceiver
from qbroker.exceptions import OperationalError
from qbroker.serialization import Value
from tests.sdk.answering import Silence
from tests.sdk.conftest import Hire
from tests.sdk.real_broker import RealBroker

WAIT_S = 10.0


def silent(name: str, arguments: dict[str, Value], words: list[str]) -> Value:
    raise Silence


def captured(receiver: EventReceiver, **options: Value) -> tuple[threading.Thread, list[Value]]:
    """What is captured on a thread, and how that ended if badly."""
    ended: list[Value] = []

    def run() -> None:
        try:
            ended.extend(receiver.itercapture(**options))
        except Exception as exc:  # noqa: BLE001 - it is what the test looks at
            ended.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, ended


def wanted(worker: Value) -> None:
    """Wait until the worker was told that somebody listens."""
    never = threading.Event()
    for _ in range(1_000):
        if worker.is_wanted:
            return
        never.wait(0.01)
    raise TimeoutError


def test_each_event_goes_to_its_handler_and_the_rest_to_the_stars(
    real_app: App, hire: Hire
) -> None:
    worker = hire("a@host", silent)
    started: list[Value] = []
    others: list[Value] = []
    with real_app.connection() as connection:
        receiver = real_app.events.Receiver(
            connection, handlers={"task-started": started.append, "*": others.append}
        )
        thread, events = captured(receiver, limit=3, timeout=WAIT_S)
        wanted(worker)
        for type_ in ("task-received", "task-started", "task-succeeded"):
            worker.tell(type_, uuid="1")
        thread.join(WAIT_S)

    assert [event["type"] for event in started] == ["task-started"]
    assert [event["type"] for event in others] == ["task-received", "task-succeeded"]
    assert [event["clock"] for event in events] == [1, 2, 3]
    assert all(event["local_received"] > event["timestamp"] for event in events)
    assert [one.command for one in worker.asked] == ["heartbeat"]


def test_only_types_that_fit_the_routing_key_are_heard(real_app: App, hire: Hire) -> None:
    worker = hire("a@host", silent)
    receiver = real_app.events.Receiver(routing_key="worker.*")
    thread, events = captured(receiver, limit=1, wakeup=False)
    wanted(worker)
    worker.tell("task-received", uuid="1")
    worker.tell("worker-heartbeat")
    thread.join(WAIT_S)

    assert [event["type"] for event in events] == ["worker-heartbeat"]
    assert worker.asked == []


def test_capture_gives_up_after_a_time_of_silence(real_app: App) -> None:
    with pytest.raises(TimeoutError, match=r"0\.2"):
        real_app.events.Receiver().capture(timeout=0.2)


def test_capture_may_be_ended_from_elsewhere(real_app: App, hire: Hire) -> None:
    worker = hire("a@host", silent)
    receiver = real_app.events.Receiver()
    thread, events = captured(receiver)
    wanted(worker)

    receiver.close()
    thread.join(WAIT_S)

    assert not thread.is_alive()
    assert events == []


def test_it_ends_with_the_event_at_which_it_is_told_to_stop(real_app: App, hire: Hire) -> None:
    worker = hire("a@host", silent)
    receiver = real_app.events.Receiver()

    def stop(_: Value) -> None:
        receiver.should_stop = True

    receiver.handlers = {"*": stop}
    thread, events = captured(receiver)
    wanted(worker)
    worker.tell("task-received", uuid="1")
    thread.join(WAIT_S)

    assert len(events) == 1


def test_a_broker_that_stops_is_an_error_that_names_it(
    real_app: App, real_broker: RealBroker, hire: Hire
) -> None:
    worker = hire("a@host", silent)
    thread, ended = captured(real_app.events.Receiver())
    wanted(worker)

    real_broker.stop_now()
    thread.join(WAIT_S)

    assert isinstance(ended[-1], OperationalError)
    assert real_broker.url in str(ended[-1])
    assert "shutting down" in str(ended[-1])
