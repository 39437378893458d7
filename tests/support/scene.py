"""A broker driven by hand: no thread, no socket, and a clock that stands still."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from qbroker_server.broker import Broker
from qbroker_server.core import check, keys, message, payloads, queue
from qbroker_server.core.command import Command
from qbroker_server.core.dispatch import Delivery
from qbroker_server.core.effects import Cancel, Policy
from qbroker_server.core.errors import CoreError
from qbroker_server.core.lease import (
    LeaseId,
    Outcome,
    Register,
    Report,
    Reported,
    ReturnLeases,
    Settle,
)
from qbroker_server.core.ports import Engine
from qbroker_server.core.publish import New, NewMessage, Publish, Published
from qbroker_server.core.records import QueueRecord, Record
from qbroker_server.core.schedule import Sweep
from qbroker_server.engines.memory import MemoryEngine
from tests.support.almanac import ALMANAC
from tests.support.clock import FakeClock

R = TypeVar("R")

TASK = "proj.add"
QUEUE = "celery"


def new(
    id: str = "m1",  # noqa: A002 — the domain's word
    *,
    task: str = TASK,
    queue: str = QUEUE,
    priority: int = 0,
    eta_ms: int = 0,
    expires_ms: int = 0,
    result_ttl_ms: int = 0,
    deaths_max: int = 0,
    flags: int = 0,
    payload: bytes = b"body",
) -> NewMessage:
    """A message that breaks no rule."""
    return NewMessage(
        id,
        task,
        queue,
        priority,
        eta_ms,
        expires_ms,
        result_ttl_ms,
        deaths_max,
        flags,
        payload,
    )


def lease_of(delivery: Delivery) -> LeaseId:
    """What the worker names the delivery by."""
    return LeaseId(delivery.id, delivery.record.attempt)


def done(
    delivery: Delivery,
    outcome: Outcome = Outcome.SUCCESS,
    result: bytes = b"4",
    *,
    requeue: bool = False,
    follow_ups: tuple[NewMessage, ...] = (),
) -> Settle:
    """The worker's answer for a delivery."""
    return Settle(delivery.id, delivery.record.attempt, outcome, result, requeue, follow_ups)


class Scene:
    """A broker and what it has told and given so far."""

    def __init__(self, engine: Engine | None = None, policy: Policy | None = None) -> None:
        self.engine = engine or MemoryEngine()
        self.clock = FakeClock()
        self.policy = policy or Policy()
        self.changed: dict[str, Record] = {}
        """Every message that started or ended, as it was last told."""
        self.cancels: list[Cancel] = []
        """Every lease whose worker was to be told that it is revoked."""
        self._given: dict[str, list[Delivery]] = {}
        self.restart()

    def restart(self) -> None:
        """Begin with a new broker on the same store, as after a crash."""
        self.broker = Broker(self.engine, self.clock, self.policy)
        self.recovered = self.broker.recover()
        self._given.clear()

    @property
    def now_ms(self) -> int:
        return self.clock.now_ms()

    def pass_time(self, delta_ms: int) -> None:
        """Let time pass, and everything happen that is due then."""
        self.clock.advance(delta_ms)
        while self.do(Sweep(almanac=ALMANAC)):
            pass

    # -- commands ------------------------------------------------------------------------------

    def do(self, command: Command[R]) -> R:
        """The command's answer, after its commit and all dispatch; its refusal is raised."""
        answers: list[R | CoreError] = []
        self.broker.submit(command, answers.append)
        self.step()
        (answer,) = answers
        if isinstance(answer, CoreError):
            raise answer
        return answer

    def step(self) -> None:
        """Take steps until there is nothing to do."""
        while True:
            step = self.broker.step()
            for session, deliveries in step.deliveries.items():
                self._given.setdefault(session, []).extend(deliveries)
                self.broker.dispatcher.sent(session, sum(d.size for d in deliveries))
            self.changed.update(step.changed)
            self.cancels += step.cancels
            if not (step.has_more or self.broker.has_work):
                return

    def publish(self, *messages: New) -> Published:
        """Publish them as one batch."""
        return self.do(Publish(messages))

    def register(
        self,
        session: str = "s1",
        *,
        queues: tuple[str, ...] = (QUEUE,),
        tasks: Iterable[str] = (TASK,),
        prefetch_count: int = 100,
        held: tuple[LeaseId, ...] = (),
    ) -> list[LeaseId]:
        """A worker's session begins, or comes back; the leases it has lost."""
        name = f"{session}@host"
        return self.do(Register(session, name, queues, frozenset(tasks), prefetch_count, held))

    def report(
        self,
        session: str = "s1",
        *,
        starts: Sequence[LeaseId] = (),
        settles: Sequence[Settle] = (),
        releases: Sequence[LeaseId] = (),
        prefetch_count: int | None = None,
        is_draining: bool = False,
        unwanted: Sequence[str] | None = None,
    ) -> Reported:
        """A worker says what has happened."""
        tasks = None if unwanted is None else frozenset(unwanted)
        return self.do(
            Report(session, starts, settles, releases, prefetch_count, is_draining, tasks)
        )

    def start(self, delivery: Delivery, session: str = "s1") -> None:
        """The worker starts the task."""
        self.report(session, starts=[lease_of(delivery)])

    def settle(
        self,
        delivery: Delivery,
        outcome: Outcome = Outcome.SUCCESS,
        result: bytes = b"4",
        *,
        session: str = "s1",
        requeue: bool = False,
    ) -> bool:
        """The worker ends the task; whether that counted."""
        answer = done(delivery, outcome, result, requeue=requeue)
        return not self.report(session, settles=[answer]).lost

    def die(self, session: str = "s1") -> None:
        """The worker's stream breaks and its grace passes."""
        self.broker.dispatcher.disconnect(session)
        while self.do(ReturnLeases(session, "The worker did not come back.")):
            pass

    # -- looks ---------------------------------------------------------------------------------

    def take(self, session: str = "s1") -> list[Delivery]:
        """What the session was given since the last look."""
        return self._given.pop(session, [])

    def take_ids(self, session: str = "s1") -> list[str]:
        """The ids of what the session was given since the last look."""
        return [delivery.id for delivery in self.take(session)]

    def take_one(self, session: str = "s1") -> Delivery:
        """The one message the session was given since the last look."""
        (delivery,) = self.take(session)
        return delivery

    def record(self, message_id: str = "m1") -> Record:
        """Where the message is."""
        found = self.find(message_id)
        assert found is not None, f"no record of {message_id!r}"
        return found

    def find(self, message_id: str = "m1") -> Record | None:
        """Where the message is, or None."""
        return self.broker.read(lambda txn: message.peek(txn, message_id))

    def payload(self, message_id: str = "m1") -> bytes:
        """The message's payload, or its result when it has ended."""
        record = self.record(message_id)
        return self.broker.read(lambda txn: payloads.read(txn, message_id, record))

    def status(self, message_id: str = "m1") -> bytes:
        """What was told of a state on the way."""
        record = self.record(message_id)
        return self.broker.read(lambda txn: payloads.read_status(txn, message_id, record))

    def counts(self, name: str = QUEUE) -> QueueRecord:
        """How many messages the queue says it has."""
        return self.broker.read(lambda txn: queue.counts(txn, name))

    def faults(self) -> list[str]:
        """Each way in which the store contradicts itself."""
        return self.broker.read(check.faults)

    def rows(self, family: bytes) -> list[tuple[bytes, bytes]]:
        """Every row of a family of keys."""
        with self.engine.read() as txn:
            return list(txn.scan(family, keys.after(family), 1_000_000))

    def write(self, key: bytes, value: bytes) -> None:
        """Put something into the store behind the broker's back."""
        txn = self.engine.begin(bytes_max=len(value))
        txn.put(key, value)
        txn.commit()

    def damage(self, key: bytes, at: int = -1) -> None:
        """Flip a bit of what is stored at `key`."""
        with self.engine.read() as txn:
            raw = txn.get(key)
        assert raw is not None, f"nothing at {key!r}"
        broken = bytearray(raw)
        broken[at] ^= 0x80
        self.write(key, bytes(broken))
