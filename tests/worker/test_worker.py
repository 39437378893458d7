"""The parts joined: a worker from registration to farewell, against a small broker."""

import asyncio
import json
import random
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import grpc
import pytest

from qbroker.serialization import Value
from qbroker_proto.v1.message_pb2 import Message
from qbroker_worker.pools.pool import Pool
from qbroker_worker.pools.prefork import PreforkPool
from qbroker_worker.pools.threads import ThreadsPool
from qbroker_worker.rates import Rates
from qbroker_worker.session import Heard, Session
from qbroker_worker.stream import Stream
from qbroker_worker.values import SUCCESS, WORKER_LOST, Delivery
from qbroker_worker.worker import RESTART, Manners, Tell, Worker, tell_nobody
from tests.worker.fake_broker import FakeBroker, serving
from tests.worker.test_stream import IDENTITY
from tests.worker.toys import fork_server, gate, has_begun, lost_result, release, run

_USUAL = Manners()


@pytest.fixture(params=["prefork", "threads"])
def pool(request: pytest.FixtureRequest) -> Pool:
    if request.param == "threads":
        return ThreadsPool(run, slots=2, lost_result=lost_result)
    server = fork_server()
    server.facts()
    return PreforkPool(server, slots=2, lost_result=lost_result)


def worker_of(
    pool: Pool,
    port: int,
    rates: Rates | None = None,
    manners: Manners = _USUAL,
    tell: Tell = tell_nobody,
) -> Worker:
    session = Session(pool.slots)

    def connect(worker: Worker) -> Stream:
        return Stream(
            session,
            IDENTITY,
            address=f"127.0.0.1:{port}",
            on_news=worker.heard,
            on_link=worker.linked,
            chance=random.Random(7),
        )

    return Worker(
        session,
        pool,
        connect,
        name="celery@here",
        address=f"127.0.0.1:{port}",
        rates=rates,
        manners=manners,
        tell=tell,
    )


def publish(
    broker: FakeBroker,
    id_: str,
    verb: str,
    argument: str = "",
    *,
    is_late: bool = False,
    lost_count: int = 0,
) -> None:
    message = json.dumps((verb, argument)).encode()
    broker.publish(id_, message, verb, is_late=is_late, lost_count=lost_count)


async def test_a_worker_runs_what_the_broker_has_and_leaves_when_told(pool: Pool) -> None:
    broker = FakeBroker()
    for n in range(1_000):
        publish(broker, f"id-{n}", "echo", str(n))
    async with serving(broker) as port, asyncio.TaskGroup() as group:
        worker = worker_of(pool, port)
        running = group.create_task(worker.run())
        await broker.until(lambda b: len(b.settled) == 1_000)

        worker.signalled(signal.SIGTERM)
        code = await running

    assert code == 0
    assert broker.settled == {f"id-{n}": (SUCCESS, b"%d" % n) for n in range(1_000)}
    assert broker.has_drained
    assert broker.has_left
    assert not broker.leased


async def test_a_warm_shutdown_finishes_what_runs_and_returns_the_rest(
    pool: Pool, tmp_path: Path
) -> None:
    broker = FakeBroker()
    doors = [gate(tmp_path / f"door-{n}") for n in range(2)]
    async with serving(broker) as port, asyncio.TaskGroup() as group:
        worker = worker_of(pool, port)
        running = group.create_task(worker.run())
        for n in range(300):
            publish(broker, f"warm-{n}", "echo")
        await broker.until(lambda b: len(b.settled) == 300)
        for n, door in enumerate(doors):
            publish(broker, f"long-{n}", "wait", str(door))
        for door in doors:
            await has_begun(door)
        for n in range(20):
            publish(broker, f"rest-{n}", "echo")

        worker.signalled(signal.SIGTERM)
        await broker.until(lambda b: b.has_drained and len(b.leased) == 2)
        for door in doors:
            await release(door)
        code = await running

    assert code == 0
    assert {broker.settled[f"long-{n}"] for n in range(2)} == {(SUCCESS, b"waited")}
    assert len(broker.queued) == 20
    assert not broker.leased


async def test_what_was_lost_twice_begins_when_a_slot_is_free_and_the_broker_has_its_start(
    pool: Pool, tmp_path: Path
) -> None:
    broker = FakeBroker()
    doors = [gate(tmp_path / f"door-{n}") for n in range(2)]
    async with serving(broker) as port, asyncio.TaskGroup() as group:
        worker = worker_of(pool, port)
        running = group.create_task(worker.run())
        for n in range(300):
            publish(broker, f"warm-{n}", "echo")
        await broker.until(lambda b: len(b.settled) == 300)
        for n, door in enumerate(doors):
            publish(broker, f"long-{n}", "wait", str(door))
        for door in doors:
            await has_begun(door)
        broker.started.clear()
        publish(broker, "suspect", "echo", lost_count=2)
        publish(broker, "after", "echo")
        await broker.until(lambda b: "after" in b.leased)
        assert "suspect" not in broker.started

        broker.applies = False
        await release(doors[0])
        await broker.until(lambda b: "suspect" in b.said_started)
        assert not {"suspect", "after"} & broker.settled.keys()
        broker.applies = True
        broker.break_links()
        await broker.until(lambda b: {"suspect", "after"} <= b.settled.keys())
        await release(doors[1])
        worker.signalled(signal.SIGTERM)
        code = await running

    assert code == 0
    assert "suspect" in broker.started
    assert not broker.leased


async def test_what_was_lost_often_is_all_run_one_after_the_other(pool: Pool) -> None:
    broker = FakeBroker()
    for n in range(50):
        publish(broker, f"id-{n}", "echo", str(n), lost_count=n % 4)
    async with serving(broker) as port, asyncio.TaskGroup() as group:
        worker = worker_of(pool, port)
        running = group.create_task(worker.run())
        await broker.until(lambda b: len(b.settled) == 50)
        worker.signalled(signal.SIGTERM)
        code = await running

    assert code == 0
    assert {f"id-{n}" for n in range(50) if n % 4 >= 2} <= set(broker.started)
    assert broker.settled == {f"id-{n}": (SUCCESS, b"%d" % n) for n in range(50)}
    assert broker.released == []


async def test_a_cold_shutdown_reports_what_ran_as_lost(pool: Pool, tmp_path: Path) -> None:
    broker = FakeBroker()
    door = gate(tmp_path / "door")
    async with serving(broker) as port, asyncio.TaskGroup() as group:
        worker = worker_of(pool, port)
        running = group.create_task(worker.run())
        publish(broker, "long", "wait", str(door))
        await has_begun(door)

        worker.signalled(signal.SIGINT)
        worker.signalled(signal.SIGINT)
        code = await running

    assert code == 1
    assert broker.settled["long"][0] == WORKER_LOST
    assert broker.has_left
    if pool.name == "threads":
        await release(door)


async def test_a_worker_goes_on_after_its_link_broke_and_settles_what_it_ran_meanwhile(
    pool: Pool, tmp_path: Path
) -> None:
    broker = FakeBroker()
    door = gate(tmp_path / "door")
    async with serving(broker) as port, asyncio.TaskGroup() as group:
        worker = worker_of(pool, port)
        running = group.create_task(worker.run())
        publish(broker, "long", "wait", str(door))
        await has_begun(door)

        broker.break_links()
        await release(door)
        publish(broker, "after", "echo", "after")
        await broker.until(lambda b: len(b.settled) == 2)
        worker.signalled(signal.SIGTERM)
        code = await running

    assert code == 0
    assert broker.settled == {"long": (SUCCESS, b"waited"), "after": (SUCCESS, b"after")}
    assert len(broker.registers) == 2


async def test_a_soft_shutdown_gives_what_runs_its_time_and_then_ends_it(
    pool: Pool, tmp_path: Path
) -> None:
    broker = FakeBroker()
    doors = [gate(tmp_path / f"door-{n}") for n in range(2)]
    async with serving(broker) as port, asyncio.TaskGroup() as group:
        worker = worker_of(pool, port, manners=Manners(soft_timeout_s=0.5))
        running = group.create_task(worker.run())
        for n, door in enumerate(doors):
            publish(broker, f"long-{n}", "wait", str(door))
        for door in doors:
            await has_begun(door)

        worker.signalled(signal.SIGQUIT)
        await broker.until(lambda b: b.has_drained)
        await release(doors[0])
        code = await running

    assert code == 1
    assert broker.settled["long-0"] == (SUCCESS, b"waited")
    assert broker.settled["long-1"][0] == WORKER_LOST
    if pool.name == "threads":
        await release(doors[1])


async def test_a_soft_shutdown_in_which_all_ends_by_itself_is_a_clean_one(
    pool: Pool, tmp_path: Path
) -> None:
    broker = FakeBroker()
    door = gate(tmp_path / "door")
    async with serving(broker) as port, asyncio.TaskGroup() as group:
        worker = worker_of(pool, port, manners=Manners(soft_timeout_s=60.0, is_term_quit=True))
        running = group.create_task(worker.run())
        publish(broker, "long", "wait", str(door))
        await has_begun(door)

        worker.signalled(signal.SIGTERM)
        await broker.until(lambda b: b.has_drained)
        await release(door)
        code = await running

    assert code == 0
    assert broker.settled["long"] == (SUCCESS, b"waited")


async def test_another_signal_in_a_soft_shutdown_ends_it(pool: Pool, tmp_path: Path) -> None:
    broker = FakeBroker()
    door = gate(tmp_path / "door")
    async with serving(broker) as port, asyncio.TaskGroup() as group:
        worker = worker_of(pool, port, manners=Manners(soft_timeout_s=60.0))
        running = group.create_task(worker.run())
        publish(broker, "long", "wait", str(door))
        await has_begun(door)

        worker.signalled(signal.SIGQUIT)
        worker.signalled(signal.SIGTERM)
        code = await running

    assert code == 1
    assert broker.settled["long"][0] == WORKER_LOST
    if pool.name == "threads":
        await release(door)


@pytest.mark.parametrize(("restarts", "code"), [(True, RESTART), (False, 0)])
async def test_hup_ends_warmly_and_asks_to_be_begun_anew_where_it_may(
    pool: Pool, restarts: bool, code: int
) -> None:
    broker = FakeBroker()
    async with serving(broker) as port, asyncio.TaskGroup() as group:
        worker = worker_of(pool, port, manners=Manners(restarts=restarts))
        running = group.create_task(worker.run())
        publish(broker, "one", "echo")
        await broker.until(lambda b: len(b.settled) == 1)

        worker.signalled(signal.SIGHUP)

        assert await running == code


async def test_late_tasks_are_ended_and_given_back_when_the_link_breaks_where_that_is_asked(
    tmp_path: Path,
) -> None:
    server = fork_server()
    server.facts()
    pool = PreforkPool(server, slots=3, lost_result=lost_result)
    broker = FakeBroker()
    early, late = gate(tmp_path / "early"), gate(tmp_path / "late")
    async with serving(broker) as port, asyncio.TaskGroup() as group:
        worker = worker_of(pool, port, manners=Manners(cancels_on_loss=True))
        running = group.create_task(worker.run())
        publish(broker, "early", "wait", str(early))
        publish(broker, "late", "wait", str(late), is_late=True)
        for door in (early, late):
            await has_begun(door)

        broker.break_links()
        await broker.until(lambda b: "late" in b.released)
        await has_begun(late)
        for door in (early, late):
            await release(door)
        await broker.until(lambda b: len(b.settled) == 2)
        worker.signalled(signal.SIGTERM)
        await running

    assert broker.released == ["late"]
    assert broker.settled == {"early": (SUCCESS, b"waited"), "late": (SUCCESS, b"waited")}


async def test_no_more_is_held_than_the_multiplier_allows(pool: Pool, tmp_path: Path) -> None:
    broker = FakeBroker()
    async with serving(broker) as port, asyncio.TaskGroup() as group:
        worker = worker_of(pool, port, manners=Manners(prefetch_multiplier=1))
        running = group.create_task(worker.run())
        for n in range(300):
            publish(broker, f"short-{n}", "echo")
        await broker.until(lambda b: len(b.settled) == 300)

        worker.signalled(signal.SIGTERM)
        await running

    assert broker.leased_max == 2


async def test_usr1_tells_what_every_thread_is_at_and_changes_nothing(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    broker = FakeBroker()
    async with serving(broker) as port, asyncio.TaskGroup() as group:
        worker = worker_of(pool, port)
        running = group.create_task(worker.run())
        publish(broker, "one", "echo")
        await broker.until(lambda b: len(b.settled) == 1)

        worker.signalled(signal.SIGUSR1)
        publish(broker, "two", "echo")
        await broker.until(lambda b: len(b.settled) == 2)
        worker.signalled(signal.SIGTERM)
        await running

    assert "MainThread (" in caplog.text
    assert "_tell_stacks" in caplog.text


async def test_a_limited_task_is_set_aside_and_the_rest_of_it_refused_while_others_run(
    pool: Pool,
) -> None:
    broker = FakeBroker()
    async with serving(broker) as port, asyncio.TaskGroup() as group:
        worker = worker_of(pool, port, Rates({"echo": 0.001}))
        running = group.create_task(worker.run())
        for n in range(6):
            publish(broker, f"echo-{n}", "echo", str(n))
        await broker.until(lambda b: b.unwanted == ["echo"])
        for n in range(20):
            publish(broker, f"facts-{n}", "facts")
        await broker.until(lambda b: sum(id_.startswith("facts") for id_ in b.settled) == 20)
        await broker.until(lambda b: "echo-0" in b.settled)  # its child may be the slower one
        limited = [id_ for id_ in broker.settled if id_.startswith("echo")]

        worker.set_rate("echo", 0.0)
        await broker.until(lambda b: sum(id_.startswith("echo") for id_ in b.settled) == 6)
        worker.signalled(signal.SIGTERM)
        await running

    assert limited == ["echo-0"]
    assert broker.unwanted == []
    assert not broker.leased


async def test_what_is_set_aside_goes_back_when_the_worker_stops(pool: Pool) -> None:
    broker = FakeBroker()
    async with serving(broker) as port, asyncio.TaskGroup() as group:
        worker = worker_of(pool, port, Rates({"echo": 0.001}))
        running = group.create_task(worker.run())
        for n in range(2):
            publish(broker, f"echo-{n}", "echo", str(n))
        await broker.until(lambda b: bool(b.unwanted and b.settled))

        worker.signalled(signal.SIGTERM)
        await running

    assert list(broker.settled) == ["echo-0"]
    assert [delivery.id for delivery in broker.queued] == ["echo-1"]


async def test_a_worker_the_broker_refuses_says_why_and_fails(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    broker = FakeBroker()
    broker.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "a queue has no name")
    async with serving(broker) as port:
        code = await worker_of(pool, port).run()

    assert code == 1
    assert "a queue has no name" in caplog.text


@pytest.mark.parametrize(
    ("number", "fields"),
    [
        (signal.SIGTERM, {"sig": "SIGTERM", "how": "Warm", "exitcode": 0}),
        (signal.SIGQUIT, {"sig": "SIGQUIT", "how": "Cold", "exitcode": 1}),
    ],
)
async def test_the_app_hears_that_its_worker_lives_and_at_once_that_it_ends(
    number: signal.Signals, fields: dict[str, Value]
) -> None:
    told: list[Value] = []

    def tell(name: str, given: Mapping[str, Value], heard: Callable[[bytes], None]) -> None:
        told.append((name, given))
        heard(b"")

    broker = FakeBroker()
    heard = frozenset({"heartbeat_sent", "worker_shutting_down"})
    async with serving(broker) as port, asyncio.TaskGroup() as group:
        pool = ThreadsPool(run, slots=2, lost_result=lost_result)
        worker = worker_of(pool, port, manners=Manners(heard=heard), tell=tell)
        running = group.create_task(worker.run())
        publish(broker, "id", "echo")
        await broker.until(lambda b: len(b.settled) == 1)

        worker.signalled(number)
        worker.signalled(number)
        await running

    # What is no later phase is not told again; a second TERM is none.
    assert told == [("heartbeat_sent", {}), ("worker_shutting_down", fields)]


class Line(ThreadsPool):
    """A pool that begins nothing."""

    def __init__(self) -> None:
        super().__init__(run, slots=1, lost_result=lost_result)
        self.waiting: list[Delivery] = []

    def submit(self, deliveries: Iterable[Delivery]) -> None:
        self.waiting.extend(deliveries)

    def withdraw(self) -> list[Delivery]:
        taken, self.waiting = self.waiting, []
        return taken


def _limits(delivery: Delivery) -> tuple[float, float]:
    limits = Message.FromString(delivery.message).task_limits
    return limits.soft, limits.hard


async def test_changed_time_limits_hold_for_what_comes_and_for_what_waits_already() -> None:
    line = Line()
    worker = worker_of(line, 1)
    waits, comes, other = (
        Delivery(id_, 1, False, task, "q", False, b"")
        for id_, task in (("waits", "limited"), ("comes", "limited"), ("other", "free"))
    )
    session = worker._session
    session.greet()
    worker.heard(session.heard(Heard(True, [waits, other])))

    worker.limit("limited", 2.5, None)
    worker.heard(session.heard(Heard(True, [comes])))

    limits = {one.id: _limits(one) for one in line.waiting}
    assert limits == {"waits": (2.5, 0), "comes": (2.5, 0), "other": (0, 0)}
    # The session knows them by what they are now, so that their answers count.
    assert all(session.settle(one, SUCCESS, b"") for one in line.waiting)
