"""The broker on a thread of another program."""

import socket
import time

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
