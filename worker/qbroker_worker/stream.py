"""Carries the session's words to the broker and back, over link after link; alone in knowing the wire."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

from qbroker.http2 import Code, Status
from qbroker.link import words
from qbroker_proto.v1.admin_pb2 import Topology
from qbroker_proto.v1.control_pb2 import Consume, ControlReply, Event as WireEvent
from qbroker_proto.v1.message_pb2 import ACK_POLICY_LATE, Message, TaskLimits
from qbroker_proto.v1.worker_pb2 import (
    Delivery as WireDelivery,
    Lease as WireLease,
    Register,
    Start as WireStart,
    Unwanted,
    WorkReply,
    WorkRequest,
)
from qbroker_worker.link import Link, connect
from qbroker_worker.session import Heard, Hello, News, Request, Session
from qbroker_worker.values import Answer, Aside, Ask, Cancel, Delivery, Event, Lease, Queues

logger = logging.getLogger(__name__)

PATH = "/qbroker.v1.Worker/Work"

BACKOFF_MIN_S = 0.05
BACKOFF_MAX_S = 2.0

ASIDES_MAX = 20_000
"""What may wait to be said aside; what is more is dropped."""

ASIDES_REQUEST_MAX = 1_000

GATHER_S = 0.02
"""How long events gather behind those that were said last: a message of the stream costs as much as many events in it."""

PERMANENT = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.UNAUTHENTICATED,
        Code.PERMISSION_DENIED,
        Code.UNIMPLEMENTED,
        Code.FAILED_PRECONDITION,
    }
)
"""What the broker would say again however often it is asked."""


class Refused(Exception):
    """The broker will not have this worker, and says why."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this worker is; the same on every link."""

    session_id: str
    name: str
    queues: tuple[str, ...]
    tasks: tuple[str, ...]
    version: str
    hostname: str
    pid: int
    pool: str
    concurrency: int
    topology: bytes = b""
    """What its queues need at the broker: a serialized `Topology`."""


class Stream:
    """One link to the broker at a time, for as long as the session has something to say."""

    def __init__(
        self,
        session: Session,
        identity: Identity,
        *,
        address: str,
        on_news: Callable[[News], None],
        on_link: Callable[[bool], None],
        chance: random.Random,
        on_asked: Callable[[Sequence[Ask]], None] = lambda _: None,
        on_wanted: Callable[[bool], None] = lambda _: None,
        on_limit: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._session = session
        self._identity = identity
        self._address = address
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._on_news = on_news
        self._on_link = on_link
        self._on_asked = on_asked
        self._on_wanted = on_wanted
        self._on_limit = on_limit
        self._asides: deque[Aside] = deque()
        self._asides_due = False
        self._asides_timer: asyncio.TimerHandle | None = None
        """Set from when asides were said, for as long as events gather."""
        self._is_linked = False
        self._was_linked = False
        self._chance = chance
        self._wake = asyncio.Event()
        self._failures = 0

    def wake(self) -> None:
        """The session may have something to say."""
        self._wake.set()

    @property
    def queues(self) -> tuple[str, ...]:
        """What this worker takes from."""
        return self._identity.queues

    def take_from(self, queues: tuple[str, ...]) -> None:
        """Take from these queues, on this link and all that follow."""
        self._identity = replace(self._identity, queues=queues)
        self.say(Queues(queues))

    def know(self, tasks: tuple[str, ...]) -> None:
        """Have the broker send these tasks, on this link and all that follow."""
        if tasks != self._identity.tasks:
            self._identity = replace(self._identity, tasks=tasks)
            self.say(Queues(self._identity.queues, tasks))

    def say(self, aside: Aside) -> None:
        """Say this on the link that is up; without one, nobody would hear it."""
        if not self._is_linked or len(self._asides) >= ASIDES_MAX:
            return
        self._asides.append(aside)
        if self._asides_timer is None or type(aside) is not Event:
            self._asides_are_due()

    def _asides_are_due(self) -> None:
        if self._asides:
            self._asides_due = True
            self._wake.set()

    async def _say_asides(self, link: Link) -> None:
        self._asides_due = False
        while self._asides:
            await link.write(_aside(self._asides).SerializeToString())
        if self._asides_timer is None:
            loop = asyncio.get_running_loop()
            self._asides_timer = loop.call_later(GATHER_S, self._gathered)

    def _gathered(self) -> None:
        self._asides_timer = None
        self._asides_are_due()

    async def run(self) -> None:
        """Keep a link until the session has left. Raises Refused when the broker says so for good."""
        session = self._session
        while True:
            code, details = await self._link()
            if session.has_left:
                return
            if code in PERMANENT:
                raise Refused(f"The broker at {self._address} refuses this worker: {details}")
            if self._failures == 0:
                trouble = (
                    "The link to the broker at %s broke (%s). Reconnecting…"
                    if self._was_linked
                    else "The broker at %s cannot be reached (%s). Trying again until it can…"
                )
                logger.warning(trouble, self._address, details or code.name)
            self._failures += 1
            await asyncio.sleep(backoff_s(self._failures, self._chance))

    async def _link(self) -> Status:
        """Live through one link, and say how it ended."""
        session = self._session
        try:
            link = await connect(self._host, self._port, PATH)
        except OSError as exc:
            self._on_link(False)  # noqa: FBT003 - a plain callback
            return Status(Code.UNAVAILABLE, words(exc))
        hello = session.greet()
        try:
            async with asyncio.TaskGroup() as group:
                speaking = group.create_task(self._speak(link, hello))
                goodbye = await self._listen(link)
                speaking.cancel()
            return Status(Code.UNAVAILABLE, goodbye) if goodbye else link.status
        finally:
            link.close()
            self._is_linked = False
            self._asides.clear()
            if self._asides_timer is not None:
                self._asides_timer.cancel()
                self._asides_timer = None
            session.hang_up()
            self._on_link(False)  # noqa: FBT003 - a plain callback

    async def _speak(self, link: Link, hello: Hello) -> None:
        """Say what there is to say. What piles up during a write leaves as one request."""
        next_request, wake = self._session.next_request, self._wake
        await link.write(_hello(hello, self._identity).SerializeToString())
        while True:
            wake.clear()
            if self._asides_due:
                await self._say_asides(link)
            while (request := next_request()) is not None:
                if request.leave:
                    # After its farewell the session is not listened to.
                    await self._say_asides(link)
                await link.write(_request(request).SerializeToString())
            if self._session.has_left:
                return
            await wake.wait()

    async def _listen(self, link: Link) -> str:
        """Hear the broker out; its goodbye, or "" when the link broke."""
        session = self._session
        begun: dict[str, list[bytes]] = {}
        while (raw := await link.read()) is not None:
            reply = WorkReply.FromString(raw)
            if any(map(_is_damaged, reply.deliveries)):
                # The session comes back without the leases, so they return to their queues.
                return "a delivery was damaged on the way"
            heard = _heard(reply, begun)
            news = session.heard(heard)
            if heard.is_registered:
                self._failures = 0
                self._is_linked = self._was_linked = True
                if reply.registered.result_bytes_max:
                    # Before anything runs whose result may be too large.
                    self._on_limit(reply.registered.result_bytes_max)
            # First, because with the link the work goes on, and not with what is lost or revoked.
            self._on_news(news)
            if heard.is_registered:
                self._on_link(True)  # noqa: FBT003 - a plain callback
            if reply.HasField("events_wanted"):
                self._on_wanted(reply.events_wanted)
            if reply.controls:
                self._on_asked(
                    [Ask(c.id, c.command, c.arguments, tuple(c.words)) for c in reply.controls]
                )
            if session.has_left:
                return ""
            if reply.goodbye:
                return reply.goodbye
        return ""


def backoff_s(failures: int, chance: random.Random) -> float:
    """How long to wait after so many failures in a row: doubling, with half of it left to chance."""
    ceiling = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0 ** min(failures - 1, 16))
    return ceiling * chance.uniform(0.5, 1.0)


# -- the wire ------------------------------------------------------------------------------------


def limited(delivery: Delivery, limits: bytes) -> Delivery:
    """The delivery, of a task that has these limits now."""
    # Protobuf messages in a row are one, in which what comes later holds.
    return delivery._replace(message=delivery.message + limits)


def time_limits(soft_s: float | None, hard_s: float | None) -> bytes:
    """A part of a message that says what its task's limits are now."""
    limits = TaskLimits(soft=soft_s or 0, hard=hard_s or 0)
    return Message(task_limits=limits).SerializeToString()


def _hello(hello: Hello, who: Identity) -> WorkRequest:
    return WorkRequest(
        register=Register(
            session_id=who.session_id,
            name=who.name,
            queues=who.queues,
            tasks=who.tasks,
            prefetch_count=hello.prefetch_count,
            version=who.version,
            hostname=who.hostname,
            pid=who.pid,
            pool=who.pool,
            concurrency=who.concurrency,
            held=[WireLease(id=id_, attempt=attempt) for id_, attempt in hello.held],
            topology=Topology.FromString(who.topology) if who.topology else None,
        )
    )


def _request(request: Request) -> WorkRequest:
    wire = WorkRequest(
        seq=request.seq,
        starts=[WireStart(id=i, attempt=a, pid=p) for i, a, p in request.starts],
        releases=[WireLease(id=i, attempt=a) for i, a in request.releases],
        drain=request.drain,
        leave=request.leave,
    )
    if request.prefetch_count is not None:
        wire.prefetch_count = request.prefetch_count
    if request.unwanted is not None:
        wire.unwanted.CopyFrom(Unwanted(tasks=sorted(request.unwanted)))
    add = wire.settles.add
    for id_, attempt, outcome, result, requeue, more in request.settles:
        settle = add(id=id_, attempt=attempt, outcome=outcome, result=result, requeue=requeue)
        if more:
            settle.MergeFromString(more)
    return wire


def _aside(asides: deque[Aside]) -> WorkRequest:
    """The next request of what is said aside. The queues come alone, so that an answer follows what it tells of."""
    wire = WorkRequest()
    for _ in range(min(len(asides), ASIDES_REQUEST_MAX)):
        match asides[0]:
            case Answer(id_, body):
                wire.control_replies.append(ControlReply(id=id_, body=body))
            case Event(type_, body):
                wire.events.append(WireEvent(type=type_, body=body))
            case Queues(names, tasks):
                if wire.HasField("consume") or wire.control_replies or wire.events:
                    break
                wire.consume.CopyFrom(Consume(queues=names, tasks=tasks))
        asides.popleft()
    return wire


def _is_damaged(delivery: WireDelivery) -> bool:
    return delivery.HasField("checksum") and delivery.checksum != crc32(delivery.message)


def _heard(reply: WorkReply, begun: dict[str, list[bytes]]) -> Heard:
    """What a reply says. `begun` holds the beginnings of deliveries whose end is still to come on this link."""
    whole = []
    for d in reply.deliveries:
        message = d.message
        if d.has_more:
            begun.setdefault(d.id, []).append(message)
            continue
        if begun and d.id in begun:
            message = b"".join((*begun.pop(d.id), message))
        is_late = d.ack_policy == ACK_POLICY_LATE
        whole.append(Delivery(d.id, d.attempt, d.redelivered, d.task, d.queue, is_late, message))
    return Heard(
        reply.HasField("registered"),
        whole,
        reply.applied_seq,
        [Lease(lease.id, lease.attempt) for lease in reply.lost],
        [Cancel(c.id, c.attempt, c.terminate, c.signal) for c in reply.cancels],
    )
