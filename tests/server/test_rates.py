"""How many messages a second came and went, for somebody who looks."""

import pytest

from qbroker_server.core import queue
from qbroker_server.rates import Rates
from tests.support.clock import FakeClock
from tests.support.scene import QUEUE, Scene, new


def scene_with_rates() -> tuple[Scene, Rates, FakeClock]:
    scene, clock = Scene(), FakeClock()
    rates = Rates(clock)
    scene.broker.listeners.append(rates)
    return scene, rates, clock


def test_what_comes_and_what_ends_is_counted_by_queue() -> None:
    scene, rates, _ = scene_with_rates()
    scene.register()

    scene.publish(*[new(f"m{n}") for n in range(60)])
    scene.settle(scene.take()[0])

    came, went = rates.of(QUEUE)
    assert came == pytest.approx(1.0)
    assert went == pytest.approx(1 / 60)
    assert rates.of("other") == (0.0, 0.0)


def test_older_ones_count_for_less() -> None:
    scene, rates, clock = scene_with_rates()
    scene.publish(*[new(f"m{n}") for n in range(60)])

    clock.advance(600_000)

    assert rates.of(QUEUE)[0] < 0.001


def test_a_queue_that_is_removed_is_forgotten() -> None:
    scene, rates, _ = scene_with_rates()
    scene.publish(new())
    scene.do(queue.Purge(QUEUE))

    scene.do(queue.Remove(QUEUE))

    assert rates.of(QUEUE) == (0.0, 0.0)


def test_a_message_that_is_tried_again_ends_once() -> None:
    scene, rates, _ = scene_with_rates()
    scene.register()
    scene.publish(new())
    given = scene.take_one()

    scene.settle(given, requeue=True)

    assert rates.of(QUEUE)[1] == 0.0
