"""The hand-over between the loop and the thread that owns the store."""

import asyncio

import pytest

from qbroker_server.broker import Broker, Step
from qbroker_server.core.effects import Policy
from qbroker_server.core.errors import Invalid, StoreFull, StoreLost
from qbroker_server.core.lease import Register
from qbroker_server.core.publish import Publish, Published
from qbroker_server.core.queue import Purge
from qbroker_server.pump import Pump
from tests.support.clock import FakeClock
from tests.support.engines import FlakyEngine
from tests.support.scene import new
from tests.support.served import until


class Rig:
    """A pump on an engine that can be held up."""

    def __init__(self) -> None:
        self.engine = FlakyEngine()
        self.clock = FakeClock()
        self.broker = Broker(self.engine, self.clock, Policy())
        self.failures: list[BaseException] = []
        self.steps: list[Step] = []
        self.broker.listeners.append(self)
        self.pump = Pump(self.broker, FakeClock(), self.failures.append)

    def stepped(self, step: Step) -> None:
        self.steps.append(step)

    async def close(self) -> None:
        self.engine.gate.set()
        await self.pump.drain()
        self.pump.stop()


def batch(name: str, count: int = 10) -> Publish:
    """A command large enough for the store's own thread."""
    return Publish(tuple(new(f"{name}{n}") for n in range(count)))


@pytest.mark.parametrize("count", [1, 100])
async def test_a_command_is_answered_on_the_loop(count: int) -> None:
    rig = Rig()

    assert await rig.pump.ask(batch("m", count)) == Published((), ())
    assert rig.engine.commit_count == 1
    await rig.close()


async def test_a_refusal_is_raised() -> None:
    rig = Rig()

    with pytest.raises(Invalid):
        await rig.pump.ask(Register("", "w", (), frozenset(), 1, ()))
    await rig.close()


async def test_what_arrives_during_a_commit_is_the_next_step() -> None:
    rig = Rig()
    rig.engine.gate.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(rig.pump.ask(batch("a")))
        await until(lambda: rig.engine.is_committing)
        others = [group.create_task(rig.pump.ask(batch(f"b{n}-"))) for n in range(20)]
        await asyncio.sleep(0)
        is_answered = first.done()
        rig.engine.gate.set()

    assert not is_answered
    assert rig.engine.commit_count == 2
    assert all(task.result() == Published((), ()) for task in others)
    await rig.close()


async def test_a_nudge_during_a_commit_is_not_lost() -> None:
    rig = Rig()
    rig.engine.gate.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(rig.pump.ask(batch("a")))
        await until(lambda: rig.engine.is_committing)

        rig.pump.nudge()

        rig.engine.gate.set()
    await rig.pump.drain()
    assert len(rig.steps) == 2
    await rig.close()


async def test_a_commit_that_fails_confirms_nothing_and_is_told_once() -> None:
    rig = Rig()
    rig.engine.failure = OSError(28, "No space left on device")
    answers: list[object] = []

    rig.engine.gate.clear()
    rig.pump.submit(batch("a"), answers.append)
    await until(lambda: rig.engine.is_committing)
    rig.pump.submit(batch("b"), answers.append)
    rig.engine.gate.set()
    await until(lambda: bool(rig.failures))
    rig.pump.submit(batch("c"), answers.append)
    await rig.pump.drain()

    assert [type(answer) for answer in answers] == [StoreLost, StoreLost]
    assert rig.engine.commit_count == 0
    assert [str(error) for error in rig.failures] == ["[Errno 28] No space left on device"]
    await rig.close()


@pytest.mark.parametrize("count", [1, 100])
async def test_draining_does_not_wait_for_answers_that_will_not_come(count: int) -> None:
    rig = Rig()
    rig.engine.failure = OSError("no")

    rig.pump.submit(batch("a", count), lambda _: None)
    async with asyncio.timeout(10):
        await rig.pump.drain()

    assert len(rig.failures) == 1
    await rig.close()


async def test_an_asker_who_went_away_does_not_hurt() -> None:
    rig = Rig()
    rig.engine.gate.clear()
    asking = asyncio.ensure_future(rig.pump.ask(batch("a")))  # noqa: TID251 — to be cancelled alone
    await until(lambda: rig.engine.is_committing)

    asking.cancel()
    rig.engine.gate.set()

    assert await rig.pump.ask(batch("b")) == Published((), ())
    await rig.close()


async def test_what_is_submitted_after_the_stop_does_not_hang_the_loop() -> None:
    rig = Rig()
    await rig.pump.ask(batch("a"))
    await rig.close()

    rig.pump.submit(batch("b"), lambda _: None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert rig.engine.commit_count == 1


async def test_what_was_submitted_just_before_the_stop_does_not_hang_the_loop() -> None:
    rig = Rig()
    rig.pump.submit(batch("b"), lambda _: None)

    rig.pump.stop()
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert rig.engine.commit_count == 0


async def test_what_a_full_disk_holds_up_is_tried_again_without_anybody_asking() -> None:
    rig = Rig()
    await rig.pump.ask(batch("a"))
    rig.engine.failure, rig.engine.rows_max = StoreFull("No space left on device"), 0
    purging = asyncio.ensure_future(rig.pump.ask(Purge("celery")))  # noqa: TID251 — it waits for the disk
    await until(lambda: bool(rig.broker.trouble))
    refused = await rig.pump.ask(batch("b", 1))
    is_held = not purging.done()

    rig.engine.failure = None
    rig.clock.advance(2_000)
    async with asyncio.timeout(30):
        await purging

    assert is_held
    assert len(refused.refusals) == 1
    assert rig.broker.trouble == ""
    assert rig.failures == []
    await rig.close()


async def test_a_pump_whose_disk_is_full_can_be_drained_and_stopped() -> None:
    rig = Rig()
    await rig.pump.ask(batch("a"))
    rig.engine.failure, rig.engine.rows_max = StoreFull("No space left on device"), 0
    rig.pump.submit(Purge("celery"), lambda _: None)
    await until(lambda: bool(rig.broker.trouble))

    async with asyncio.timeout(10):
        await rig.pump.drain()

    await rig.close()
