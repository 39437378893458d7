"""The broker on a thread of another program."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from qbroker_server.core.publish import Publish
from qbroker_server.inprocess import InProcessBroker
from tests.support.scene import new


def publish(broker: InProcessBroker, *delays_ms: int) -> None:
    """Messages that are due after so long, straight to the core."""
    assert broker._broker is not None
    now_ms = broker.clock.now_ms()
    messages = tuple(new(f"m{delay}", eta_ms=now_ms + delay) for delay in delays_ms)
    broker._broker.submit(Publish(messages), lambda _: None)
    broker.move_to(now_ms)


def test_it_starts_in_milliseconds_and_comes_back_where_it_was() -> None:
    broker = InProcessBroker()
    broker.start()
    address = broker.address
    broker.stop()

    began = time.perf_counter()
    broker.start()
    took_s = time.perf_counter() - began

    assert broker.address == address
    assert broker.is_up
    assert took_s < 0.5
    broker.stop()
    broker.stop()
    assert not broker.is_up


@pytest.mark.parametrize("way", ["stop", "crash"])
def test_what_was_committed_is_there_after_its_end(way: str) -> None:
    broker = InProcessBroker()
    broker.start()
    publish(broker, 0, 60_000)

    getattr(broker, way)()
    broker.start()

    assert broker.unfinished() == (1, 0)
    assert broker.next_ms() is not None
    broker.stop()


def test_moving_the_clock_does_what_is_due() -> None:
    broker = InProcessBroker()
    broker.start()
    publish(broker, 3_600_000)
    before = broker.unfinished()

    broker.move_to(broker.clock.now_ms() + 3_600_000)

    assert (before, broker.unfinished()) == ((0, 0), (1, 0))
    assert not broker.waits_until_idle(0)
    broker.stop()


def test_the_clock_is_never_set_back() -> None:
    broker = InProcessBroker()
    broker.start()
    broker.move_to(broker.clock.now_ms() + 5_000)

    broker.move_to(0)

    assert broker.clock.ahead_ms == 5_000
    broker.stop()


def test_an_address_that_is_taken_is_an_error_with_its_cause() -> None:
    broker = InProcessBroker()
    broker.start()
    broker.stop()
    host, port = broker.address.split(":")
    with socket.create_server((host, int(port))), pytest.raises(RuntimeError) as raised:
        broker.start()

    assert "Cannot listen" in str(raised.value.__cause__)


def test_a_broker_that_was_not_started_can_be_stopped() -> None:
    broker = InProcessBroker()

    broker.stop()
    broker.crash()
    broker.start()

    assert broker.is_up
    broker.stop()


def test_a_start_that_takes_too_long_leaves_no_thread() -> None:
    broker = InProcessBroker(start_s=0.0)
    before = set(threading.enumerate())

    with pytest.raises(RuntimeError, match="did not start"):
        broker.start()
    broker.stop()
    broker.stop()

    assert not broker.is_up
    assert not [t for t in set(threading.enumerate()) - before if t.name.startswith("qbroker")]


def test_a_start_that_fails_can_be_made_again() -> None:
    broker = InProcessBroker()
    broker.start()
    broker.stop()
    before = set(threading.enumerate())
    host, port = broker.address.split(":")

    with socket.create_server((host, int(port))):
        with pytest.raises(RuntimeError, match="did not start"):
            broker.start()
        left = [t for t in set(threading.enumerate()) - before if t.name.startswith("qbroker")]
    broker.start()

    assert left == []
    assert broker.is_up
    broker.stop()


def test_starts_and_stops_from_several_threads_leave_a_stopped_broker() -> None:
    broker = InProcessBroker()
    before = set(threading.enumerate())

    with ThreadPoolExecutor(4) as pool:
        calls = [broker.start, broker.stop, broker.start, broker.crash] * 5
        for done in [pool.submit(call) for call in calls]:
            done.result(120)
    broker.stop()

    assert not broker.is_up
    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if thread.name.startswith("qbroker")]
