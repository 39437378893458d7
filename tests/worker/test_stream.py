"""The stream over real sockets: what it carries, and that it comes back."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence

import grpc
import pytest

from qbroker_proto.v1.control_pb2 import ControlRequest
from qbroker_proto.v1.message_pb2 import Message
from qbroker_proto.v1.worker_pb2 import (
    Cancel as WireCancel,
    Delivery as WireDelivery,
    Settle as WireSettle,
    WorkReply,
)
from qbroker_worker.session import News, Session
from qbroker_worker.stream import (
    BACKOFF_MAX_S,
    Identity,
    Refused,
    Stream,
    _heard,
    backoff_s,
    limited,
    time_limits,
)
from qbroker_worker.values import RETRY, SUCCESS, Answer, Ask, Cancel, Delivery, Event
from tests.worker.fake_broker import FakeBroker, serving
from tests.worker.toys import PATIENCE_S

IDENTITY = Identity(
    session_id="session",
    name="celery@here",
    queues=("celery",),
    tasks=("echo",),
    version="0",
    hostname="here",
    pid=1,
    pool="solo",
    concurrency=2,
)


class Worker:
    """Settles what it hears, at once."""

    def __init__(self, port: int) -> None:
        self.session = Session(2)
        self.heard: list[Delivery] = []
        self.cancelled: list[Cancel] = []
        self._news = asyncio.Event()
        self.links: list[bool] = []
        self.order: list[str] = []
        self.asked: list[Ask] = []
        self.wanted: list[bool] = []
        self.limits: list[int] = []
        self.is_settling = True
        self.stream = Stream(
            self.session,
            IDENTITY,
            address=f"127.0.0.1:{port}",
            on_news=self._hear,
            on_link=self._link,
            chance=random.Random(7),
            on_asked=self._take_questions,
            on_wanted=self.wanted.append,
            on_limit=self.limits.append,
        )

    def _link(self, is_linked: bool) -> None:
        self.links.append(is_linked)
        self.order.append("linked" if is_linked else "unlinked")
        self._news.set()

    def _take_questions(self, asks: Sequence[Ask]) -> None:
        self.asked += asks
        self._news.set()

    def _hear(self, news: News) -> None:
        self.order.append("news")
        self.heard += news.fresh
        self.cancelled += [cancel for _, cancel in news.cancelled]
        self._news.set()
        if self.is_settling:
            self.settle()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until what was heard makes it so."""
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                self._news.clear()
                await self._news.wait()

    def settle(self) -> None:
        """Settle all that was heard."""
        for delivery in self.heard:
            self.session.settle(delivery, SUCCESS, delivery.message, requeue=False)
        self.heard.clear()
        self.stream.wake()

    def leave(self) -> None:
        """Say farewell."""
        self.session.leave()
        self.stream.wake()


@contextlib.asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(worker.stream.run())
        yield task
        task.cancel()


async def test_deliveries_come_in_and_settles_go_out() -> None:
    broker = FakeBroker()
    async with serving(broker) as port:
        worker = Worker(port)
        async with running(worker):
            for n in range(10):
                broker.publish(f"id-{n}", b"%d" % n)
            await broker.until(lambda b: len(b.settled) == 10)

    assert broker.settled == {f"id-{n}": (SUCCESS, b"%d" % n) for n in range(10)}
    assert broker.registers[0].name == "celery@here"
    assert list(broker.registers[0].tasks) == ["echo"]


async def test_what_was_revoked_is_heard_and_what_else_a_settle_says_is_said() -> None:
    broker = FakeBroker()
    more = WireSettle(message=b"again", eta_ms=5, detail="not yet").SerializeToString()
    async with serving(broker) as port:
        worker = Worker(port)
        worker.is_settling = False
        async with running(worker):
            broker.publish("held")
            broker.publish("tried")
            await worker.until(lambda: len(worker.heard) == 2)
            attempt = broker.leased["held"].attempt
            broker.revoked.append(
                WireCancel(id="held", attempt=attempt, terminate=True, signal="SIGINT")
            )
            worker.session.settle(worker.heard[1], RETRY, b"", more=more)
            worker.stream.wake()
            await worker.until(lambda: bool(worker.cancelled))
            await broker.until(lambda b: len(b.settles) == 1)

    assert worker.cancelled == [Cancel("held", attempt, True, "SIGINT")]
    (settle,) = broker.settles
    assert (settle.outcome, settle.message, settle.eta_ms, settle.detail) == (
        RETRY,
        b"again",
        5,
        "not yet",
    )


async def test_what_is_lost_or_revoked_is_heard_before_the_work_goes_on() -> None:
    broker = FakeBroker()
    async with serving(broker) as port:
        worker = Worker(port)
        async with running(worker):
            await worker.until(lambda: worker.links == [True])

    assert worker.order[:2] == ["news", "linked"]


async def test_a_link_that_breaks_is_replaced_and_nothing_settles_twice_or_never() -> None:
    broker = FakeBroker()
    async with serving(broker) as port:
        worker = Worker(port)
        async with running(worker):
            for n in range(5):
                broker.publish(f"a-{n}")
                await broker.until(lambda b, n=n: f"a-{n}" in b.settled)  # type: ignore[misc] # a lambda's default
                broker.break_links()
            broker.publish("last")
            await broker.until(lambda b: "last" in b.settled)

    assert len(broker.settled) == 6
    assert {register.session_id for register in broker.registers} == {"session"}
    assert worker.links[:3] == [True, False, True]


async def test_what_the_broker_did_not_apply_is_said_again_on_the_next_link() -> None:
    broker = FakeBroker()
    async with serving(broker) as port:
        worker = Worker(port)
        async with running(worker):
            broker.applies = False
            broker.publish("id")
            await broker.until(lambda b: "id" in b.leased)
            broker.break_links()
            broker.applies = True
            await broker.until(lambda b: "id" in b.settled)

    assert [lease.id for lease in broker.registers[-1].held] == ["id"]


async def test_what_is_asked_is_heard_and_what_is_said_aside_goes_out_in_order() -> None:
    broker = FakeBroker()
    broker.remarks = [
        WorkReply(
            events_wanted=True,
            controls=[ControlRequest(id=5, command="ping", arguments=b"{}", words=["x"])],
        )
    ]
    async with serving(broker) as port:
        worker = Worker(port)
        worker.stream.say(Answer(1, b"lost: there is no link"))
        async with running(worker):
            await worker.until(lambda: bool(worker.asked))
            worker.stream.say(Event("task-sent", b"{}"))
            worker.stream.take_from(("celery", "mail"))
            worker.stream.say(Answer(5, b'"pong"'))
            await broker.until(lambda b: len(b.asides) == 2)
            broker.remarks = []
            broker.break_links()
            await broker.until(lambda b: len(b.registers) == 2)

    assert worker.asked == [Ask(5, "ping", b"{}", ("x",))]
    assert worker.wanted[0] is True
    first, second = broker.asides
    assert [(event.type, event.body) for event in first.events] == [("task-sent", b"{}")]
    assert not first.HasField("consume")
    assert list(second.consume.queues) == ["celery", "mail"]
    assert [(reply.id, reply.body) for reply in second.control_replies] == [(5, b'"pong"')]
    assert list(broker.registers[1].queues) == ["celery", "mail"]
    assert worker.stream.queues == ("celery", "mail")


async def test_events_that_come_shortly_behind_go_out_together_and_an_answer_takes_them_along() -> (
    None
):
    broker = FakeBroker()
    async with serving(broker) as port:
        worker = Worker(port)
        async with running(worker):
            await worker.until(lambda: worker.links == [True])
            worker.stream.say(Event("first", b"{}"))
            await broker.until(lambda b: len(b.asides) == 1)
            worker.stream.say(Event("second", b"{}"))
            worker.stream.say(Event("third", b"{}"))
            worker.stream.say(Answer(5, b"1"))
            await broker.until(lambda b: len(b.asides) == 2)
            worker.stream.say(Event("fourth", b"{}"))
            await broker.until(lambda b: len(b.asides) == 3)

    assert [[event.type for event in one.events] for one in broker.asides] == [
        ["first"],
        ["second", "third"],
        ["fourth"],
    ]
    assert [reply.id for reply in broker.asides[1].control_replies] == [5]


async def test_tasks_that_are_known_from_now_on_are_said_at_once_and_on_the_next_link() -> None:
    broker = FakeBroker()
    async with serving(broker) as port:
        worker = Worker(port)
        async with running(worker):
            await worker.until(lambda: worker.links == [True])
            worker.stream.know(("echo", "new"))
            worker.stream.know(("echo", "new"))
            await broker.until(lambda b: bool(b.asides))
            broker.break_links()
            await broker.until(lambda b: len(b.registers) == 2)

    assert [list(one.consume.tasks) for one in broker.asides] == [["echo", "new"]]
    assert list(broker.registers[1].tasks) == ["echo", "new"]


def test_what_is_said_last_of_a_tasks_limits_holds() -> None:
    delivery = Delivery("id", 1, False, "t", "q", False, Message(id="id").SerializeToString())

    once = limited(delivery, time_limits(1.5, 60))
    twice = limited(once, time_limits(None, 3))

    first, second = (Message.FromString(one.message) for one in (once, twice))
    assert (first.id, first.task_limits.soft, first.task_limits.hard) == ("id", 1.5, 60)
    assert (second.task_limits.soft, second.task_limits.hard) == (0, 3)


async def test_the_stream_waits_for_a_broker_that_is_not_there_yet(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = FakeBroker()
    async with serving(FakeBroker()) as port:
        pass
    worker = Worker(port)
    async with running(worker):
        await worker.until(lambda: worker.links == [False])
        broker.publish("id")

        async with serving(broker, port):
            await broker.until(lambda b: "id" in b.settled)
            broker.break_links()
            broker.publish("second")
            await broker.until(lambda b: "second" in b.settled)

    # The end of the broker that is there by then may be heard, too.
    at_first, later, *_ = (record.getMessage() for record in caplog.records)
    assert at_first == (
        f"The broker at 127.0.0.1:{port} cannot be reached (Connection refused). Trying again until it can…"
    )
    assert later.startswith(f"The link to the broker at 127.0.0.1:{port} broke (")


async def test_the_stream_ends_after_the_farewell() -> None:
    broker = FakeBroker()
    async with serving(broker) as port:
        worker = Worker(port)
        async with running(worker) as task:
            broker.publish("id")
            await broker.until(lambda b: "id" in b.settled)

            worker.leave()
            await task

    assert broker.has_left
    assert worker.session.has_left


async def test_a_refusal_for_good_is_raised_with_the_brokers_words() -> None:
    broker = FakeBroker()
    broker.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "no such thing as queue ''")
    async with serving(broker) as port:
        with pytest.raises(Refused, match="no such thing as queue"):
            await Worker(port).stream.run()


def test_the_backoff_doubles_up_to_its_limit_and_leaves_half_to_chance() -> None:
    chance = random.Random(7)

    waits = [[backoff_s(failures, chance) for _ in range(50)] for failures in (1, 2, 3, 100)]

    assert all(0.025 <= wait <= 0.05 for wait in waits[0])
    assert all(0.05 <= wait <= 0.1 for wait in waits[1])
    assert all(0.1 <= wait <= 0.2 for wait in waits[2])
    assert all(BACKOFF_MAX_S / 2 <= wait <= BACKOFF_MAX_S for wait in waits[3])
    assert len(set(waits[0])) > 40


def test_a_delivery_in_pieces_is_heard_whole_when_its_last_has_come() -> None:
    begun: dict[str, list[bytes]] = {}
    pieces = [
        WorkReply(deliveries=[WireDelivery(id="large", attempt=1, message=b"one ", has_more=True)]),
        WorkReply(
            deliveries=[
                WireDelivery(id="small", attempt=1, message=b"whole"),
                WireDelivery(id="large", attempt=1, message=b"two ", has_more=True),
            ]
        ),
        WorkReply(deliveries=[WireDelivery(id="large", attempt=1, message=b"three")]),
    ]

    heard = [_heard(piece, begun) for piece in pieces]

    assert [[one.message for one in each.deliveries] for each in heard] == [
        [],
        [b"whole"],
        [b"one two three"],
    ]
    assert begun == {}


async def test_how_large_a_result_may_be_is_told_before_anything_is_delivered() -> None:
    broker = FakeBroker()
    async with serving(broker) as port:
        worker = Worker(port)
        async with running(worker):
            broker.publish("first")
            await broker.until(lambda b: len(b.settled) == 1)

    assert worker.limits == [4_000_000]
