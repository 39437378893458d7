"""The sweeper: what is due is done when it is due, by a clock that stands still."""

import asyncio

import uvloop

from qbroker_server.broker import Broker, Step
from qbroker_server.core.effects import Policy
from qbroker_server.core.publish import Publish
from qbroker_server.pump import Pump
from qbroker_server.sweeper import Sweeper
from tests.support.almanac import ALMANAC
from tests.support.clock import FakeClock
from tests.support.engines import FlakyEngine
from tests.support.scene import new


class Rig:
    """A broker that is swept, and what became due."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.broker = Broker(FlakyEngine(), self.clock, Policy(result_ttl_ms=1_000_000))
        self.pump = Pump(self.broker, self.clock, lambda _: None)
        self.changed: set[str] = set()
        self.has_changed = asyncio.Event()
        self.broker.listeners.append(self)

    def stepped(self, step: Step) -> None:
        if step.changed:
            self.changed |= step.changed.keys()
            self.has_changed.set()

    async def wait_for(self, *ids: str) -> None:
        """Wait until these have ended."""
        async with asyncio.timeout(10):
            while not self.changed >= set(ids):
                self.has_changed.clear()
                await self.has_changed.wait()

    async def publish(self, *delays_ms: int) -> None:
        """Publish messages that expire after so long; their ids are the delays."""
        now_ms = self.clock.now_ms()
        await self.pump.ask(
            Publish(tuple(new(str(delay), expires_ms=now_ms + delay) for delay in delays_ms))
        )

    async def close(self, sweeper: Sweeper) -> None:
        sweeper.stop()
        await self.pump.drain()
        self.pump.stop()


async def test_what_is_due_at_the_start_is_done_at_once() -> None:
    rig = Rig()
    await rig.publish(5_000, 6_000, 10**9)
    rig.clock.advance(6_000)

    sweeper = Sweeper(rig.broker, rig.pump, rig.clock, ALMANAC)

    await rig.wait_for("5000", "6000")
    assert str(10**9) not in rig.changed
    await rig.close(sweeper)


async def test_what_becomes_due_later_is_done_then() -> None:
    rig = Rig()
    sweeper = Sweeper(rig.broker, rig.pump, rig.clock, ALMANAC)
    await rig.publish(20)
    rig.clock.advance(20)

    await rig.wait_for("20")

    await rig.close(sweeper)


async def test_something_due_sooner_wakes_it_sooner() -> None:
    rig = Rig()
    sweeper = Sweeper(rig.broker, rig.pump, rig.clock, ALMANAC)
    await rig.publish(10**9)
    timer = sweeper._timer
    await rig.publish(1)

    assert timer is not None
    assert timer.cancelled()
    rig.clock.advance(1)
    await rig.wait_for("1")
    await rig.close(sweeper)


async def test_a_clock_set_forward_is_noticed() -> None:
    rig = Rig()
    sweeper = Sweeper(rig.broker, rig.pump, rig.clock, ALMANAC)
    await rig.publish(3_600_000)

    rig.clock.advance(3_600_000)

    await rig.wait_for("3600000")
    await rig.close(sweeper)


async def test_more_than_a_sweep_takes_is_done_in_turns() -> None:
    rig = Rig()
    await rig.publish(*range(1, 2_501))
    rig.clock.advance(2_500)

    sweeper = Sweeper(rig.broker, rig.pump, rig.clock, ALMANAC)

    await rig.wait_for(*map(str, range(1, 2_501)))
    await rig.close(sweeper)


async def test_a_stopped_sweeper_does_nothing() -> None:
    rig = Rig()
    sweeper = Sweeper(rig.broker, rig.pump, rig.clock, ALMANAC)
    await rig.publish(10**9)

    sweeper.stop()

    assert sweeper._timer is not None
    assert sweeper._timer.cancelled()
    await rig.close(sweeper)


def test_what_is_due_at_once_is_swept_on_the_brokers_own_loop() -> None:
    async def run() -> None:
        rig = Rig()
        sweeper = Sweeper(rig.broker, rig.pump, rig.clock, ALMANAC)
        rig.broker.submit(Publish((new("m1", expires_ms=rig.clock.now_ms() + 10),)), lambda _: None)
        step = rig.broker.step()
        rig.clock.advance(20)

        # Both before the loop turns: the second finds a timer that was set to no time at all.
        sweeper.stepped(step)
        sweeper.stepped(step)

        await rig.wait_for("m1")
        await rig.close(sweeper)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def test_a_sweep_that_is_answered_after_the_stop_begins_no_other() -> None:
    rig = Rig()
    await rig.publish(0)
    sweeper = Sweeper(rig.broker, rig.pump, rig.clock, ALMANAC)
    await rig.publish(5_000)
    rig.clock.advance(5_000)
    sweeper._wake()

    sweeper.stop()
    await rig.pump.drain()

    assert "5000" in rig.changed
    assert sweeper._timer is None or sweeper._timer.cancelled()
    assert sweeper._is_sweeping
    rig.pump.stop()
