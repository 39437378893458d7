"""The one writer: decide, commit, reply."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from qbroker_server.broker import RETRY_S, Broker, InternalError, Step
from qbroker_server.core import keys, limits, message
from qbroker_server.core.effects import Effects, Policy
from qbroker_server.core.errors import CoreError, Invalid, ResourceFull, StoreDamaged, StoreFull
from qbroker_server.core.lease import Register, Report, Reported
from qbroker_server.core.ports import Txn, WriteTxn
from qbroker_server.core.publish import Publish, Published
from qbroker_server.core.records import Stage
from qbroker_server.core.routes import Binding, Exchange, Route
from qbroker_server.core.routing import Declare
from qbroker_server.engines.lmdb import LmdbEngine
from tests.support import damage
from tests.support.engines import FlakyEngine
from tests.support.scene import TASK, Scene, done, new


@dataclass(frozen=True, slots=True)
class Broken:
    """A command with a defect: it writes, then fails."""

    cost = (1, 0)

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> None:
        del now_ms, effects
        txn.put(b"half", b"done")
        raise ZeroDivisionError("a defect")


@dataclass(frozen=True, slots=True)
class Heavy:
    """A command that costs and does nothing."""

    cost: tuple[int, int]

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> str:
        del txn, now_ms, effects
        return "done"


def test_all_that_waits_shares_one_commit() -> None:
    engine = FlakyEngine()
    scene = Scene(engine)
    answers: list[object] = []
    for number in range(100):
        scene.broker.submit(Publish((new(f"m{number}"),)), answers.append)

    scene.broker.step()

    assert engine.commit_count == 1
    assert answers == [Published((), ())] * 100
    assert not scene.broker.has_work


def test_nobody_is_answered_before_the_commit() -> None:
    scene = Scene(FlakyEngine())
    answers: list[object] = []
    scene.broker.submit(Publish((new(),)), answers.append)

    step = scene.broker.decide()
    before = list(answers)
    step.txn.commit()
    between = list(answers)
    scene.broker.reply(step)

    assert (before, between) == ([], [])
    assert len(answers) == 1


def test_a_commit_that_fails_answers_nobody() -> None:
    engine = FlakyEngine()
    scene = Scene(engine)
    answers: list[object] = []
    scene.broker.submit(Publish((new(),)), answers.append)
    engine.failure = OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        scene.broker.step()

    assert answers == []
    assert scene.find() is None


def test_a_refusal_is_an_answer() -> None:
    scene = Scene()

    with pytest.raises(Invalid):
        scene.register("")


def test_a_defect_in_one_command_does_not_cost_its_neighbours() -> None:
    scene = Scene()
    answers: dict[str, object] = {}
    scene.broker.submit(Publish((new("a"),)), lambda value: answers.update(a=value))
    scene.broker.submit(Broken(), lambda value: answers.update(broken=value))
    scene.broker.submit(Publish((new("b"),)), lambda value: answers.update(b=value))

    scene.step()

    assert answers["a"] == answers["b"] == Published((), ())
    assert isinstance(answers["broken"], InternalError)
    assert scene.record("a").stage == scene.record("b").stage == Stage.QUEUED
    assert scene.broker.read(lambda txn: txn.get(b"half")) is None
    assert scene.faults() == []


def test_an_answer_that_cannot_be_given_does_not_cost_its_neighbours() -> None:
    scene = Scene()
    answers: list[object] = []

    def fail(_: object) -> None:
        raise ZeroDivisionError("a defect")

    scene.broker.submit(Publish((new("a"),)), fail)
    scene.broker.submit(Publish((new("b"),)), answers.append)

    scene.step()

    assert len(answers) == 1


@pytest.mark.parametrize(
    ("cost", "count"),
    [
        ((1, 0), limits.STEP_ITEMS_MAX),
        ((1_000, 0), limits.STEP_ITEMS_MAX // 1_000),
        ((1, limits.MIB), limits.STEP_BYTES_MAX // limits.MIB),
        ((limits.STEP_ITEMS_MAX * 9, 0), 1),
        ((1, limits.STEP_BYTES_MAX * 9), 1),
    ],
)
def test_a_step_takes_a_bounded_number_of_commands(cost: tuple[int, int], count: int) -> None:
    scene = Scene()
    answers: list[object] = []
    for _ in range(count + 1):
        scene.broker.submit(Heavy(cost), answers.append)

    scene.broker.step()

    assert len(answers) == count
    assert scene.broker.has_work


def test_listeners_hear_of_a_step_after_its_answers() -> None:
    scene = Scene()
    heard: list[str] = []

    class Listener:
        def stepped(self, step: Step) -> None:
            heard.append(f"stepped with {len(step.answers)}")

    scene.broker.listeners.append(Listener())
    scene.broker.submit(Publish((new(),)), lambda _: heard.append("answered"))

    scene.broker.step()

    assert heard == ["answered", "stepped with 1"]


def test_a_broker_learns_what_the_store_holds() -> None:
    scene = Scene()
    scene.register("s1", queues=("a",), prefetch_count=2)
    scene.publish(*(new(f"a{n}", queue="a") for n in range(5)))
    scene.publish(new("b", queue="b"), new("c", queue="b", eta_ms=scene.now_ms + 1))

    recovered = Broker(scene.engine, scene.clock, Policy()).recover()

    assert (recovered.queue_count, recovered.ready_count) == (2, 4)
    assert (recovered.scheduled_count, recovered.leased_count) == (1, 2)
    assert recovered.sessions == ("s1",)


def test_leases_of_a_broker_that_crashed_are_settled_after_its_restart() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    delivery = scene.take_one()

    scene.restart()

    assert scene.settle(delivery)
    assert scene.record().state == "SUCCESS"


def test_a_listener_that_fails_does_not_keep_the_others_from_hearing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Deaf:
        def stepped(self, step: Step) -> None:
            del step
            raise ZeroDivisionError("a defect")

    class Listener:
        def stepped(self, step: Step) -> None:
            heard.append(step)

    heard: list[Step] = []
    scene = Scene()
    scene.broker.listeners += [Deaf(), Listener()]

    scene.publish(new())

    assert len(heard) == 1
    assert "failed to hear of a step" in caplog.text


def test_a_step_ends_when_its_messages_became_many_copies_and_the_others_wait_for_the_next() -> (
    None
):
    engine = FlakyEngine()
    scene = Scene(engine)
    ways = tuple(Binding("news", f"q{n}") for n in range(limits.STEP_ITEMS_MAX // 2))
    scene.do(Declare((Exchange("news", "fanout"),), (), ways))
    answers: list[object] = []
    for number in range(5):
        sent = replace(new(f"m{number}", queue=""), route=Route("news", ""))
        scene.broker.submit(Publish((sent,)), answers.append)

    scene.broker.step()

    assert answers == [Published((), ())] * 3
    assert scene.broker.has_work
    scene.step()
    assert answers == [Published((), ())] * 5
    assert scene.counts("q7").ready_count == 5


# -- a disk that takes nothing -----------------------------------------------------------------------

FULL = StoreFull("No space left on device")


def refusals(answers: list[object]) -> list[CoreError]:
    """Why messages were refused, of all batches that were answered."""
    found: list[CoreError] = []
    for answer in answers:
        assert isinstance(answer, Published)
        found += [error for _, error in answer.refusals]
    return found


def test_a_step_that_the_disk_refuses_is_taken_again_without_its_publishes() -> None:
    engine = FlakyEngine()
    scene = Scene(engine)
    scene.register()
    scene.publish(new("taken"))
    delivery = scene.take_one()
    answers: list[object] = []
    engine.failure, engine.rows_max = FULL, 12
    scene.broker.submit(Publish(tuple(new(f"m{n}") for n in range(50))), answers.append)

    settled = scene.settle(delivery)

    assert settled
    assert scene.record("taken").stage == Stage.DONE
    assert [type(error) for error in refusals(answers)] == [ResourceFull] * 50
    assert scene.broker.trouble == ""
    assert scene.faults() == []


def test_what_changes_the_store_waits_while_nothing_can_be_stored_and_publishes_are_refused() -> (
    None
):
    engine = FlakyEngine()
    scene = Scene(engine)
    scene.register()
    scene.publish(new("taken"))
    delivery = scene.take_one()
    engine.failure, engine.rows_max = FULL, 0
    settled: list[object] = []
    published: list[object] = []

    scene.broker.submit(Report("s1", (), (done(delivery),), ()), settled.append)
    scene.step()
    scene.broker.submit(Publish((new("m1"), new("taken"))), published.append)
    scene.step()

    assert settled == []
    assert "nothing can be stored" in scene.broker.trouble
    assert [type(error) for error in refusals(published)] == [ResourceFull]
    engine.failure = None
    scene.clock.advance(int(RETRY_S * 1000))
    scene.step()
    assert [type(answer) for answer in settled] == [Reported]
    assert scene.broker.trouble == ""
    assert scene.record("taken").stage == Stage.DONE
    scene.clock.advance(int(RETRY_S * 1000))
    assert scene.publish(new("m1")) == Published((), ())
    assert scene.faults() == []


def test_a_message_that_was_leased_by_a_refused_step_is_leased_once_by_a_later_one() -> None:
    engine = FlakyEngine()
    scene = Scene(engine)
    scene.publish(new("m1", payload=b"x" * 3_000))
    engine.failure, engine.rows_max = FULL, 0

    registering: list[object] = []
    scene.broker.submit(
        Register("s1", "w", ("celery",), frozenset((TASK,)), 1, ()), registering.append
    )
    scene.step()
    before = scene.take_ids()
    engine.failure = None
    scene.clock.advance(int(RETRY_S * 1000))
    scene.step()

    session = scene.broker.dispatcher.sessions["s1"]
    assert (before, scene.take_ids()) == ([], ["m1"])
    assert (session.leased_count, session.unsent_bytes) == (1, 0)
    assert scene.faults() == []


def test_a_step_that_fails_before_its_commit_for_want_of_room_is_taken_again_too() -> None:
    scene = Scene()
    answers: list[object] = []
    broker = Broker(Spilling(), scene.clock, Policy(reserve_bytes=0))
    broker.submit(Publish((new("m1"),)), answers.append)

    broker.step()

    assert [type(error) for error in refusals(answers)] == [ResourceFull]


class Spilling(FlakyEngine):
    """An engine whose transactions are written before their commit, onto a full disk."""

    def meaning(self, error: Exception) -> StoreFull | None:
        return FULL if isinstance(error, OSError) else None

    def begin(self, *, bytes_max: int) -> WriteTxn:
        return _SpillingTxn(super().begin(bytes_max=bytes_max))


class _SpillingTxn:
    def __init__(self, txn: WriteTxn) -> None:
        self.get, self.scan, self.delete = txn.get, txn.scan, txn.delete
        self.commit, self.abort = txn.commit, txn.abort

    def put(self, key: bytes, value: bytes, /) -> object:
        raise OSError(28, "No space left on device")


def test_a_page_found_damaged_at_a_commit_makes_the_broker_only_read() -> None:
    engine = FlakyEngine()
    scene = Scene(engine)
    scene.publish(new("before"))
    engine.failure = StoreDamaged("a page of the broker's store cannot be read: page 7")
    lost: list[object] = []
    scene.broker.submit(Publish((new("lost"),)), lost.append)

    scene.step()
    engine.failure = None
    later: list[object] = []
    scene.broker.submit(Publish((new("later"),)), later.append)
    scene.step()

    assert [type(answer) for answer in (*lost, *later)] == [StoreDamaged, StoreDamaged]
    assert "only read" in scene.broker.trouble
    assert scene.record("before").stage == Stage.QUEUED
    assert scene.broker.read(lambda txn: message.peek(txn, "later")) is None


@pytest.mark.parametrize("how", ["random", "flipped"])
@pytest.mark.parametrize("family", [keys.MESSAGE, keys.READY], ids=["messages", "ready"])
def test_a_page_that_goes_bad_while_the_broker_serves_does_not_end_it(
    family: bytes, how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage.build(tmp_path)
    engine = LmdbEngine(tmp_path)
    scene = Scene(engine)
    scene.register("s2", prefetch_count=0)
    used = damage.used_pages(tmp_path / "data.mdb")
    numbers = sorted(n for n, one in used.items() if one == (2, family))
    damage.damage(tmp_path / "data.mdb", numbers[len(numbers) // 2], damage.DAMAGES[how])
    answers: list[object] = []

    scene.broker.submit(Report("s2", (), (), (), 4_000), answers.append)
    scene.step()
    scene.broker.submit(Publish((new("later"),)), answers.append)
    scene.step()

    assert StoreDamaged in [type(answer) for answer in answers]
    assert scene.broker.damage is not None
    assert "qbroker salvage" in caplog.text
    assert scene.record("early0").stage == Stage.DONE
    engine.close()
