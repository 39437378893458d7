"""What the SDK asks of a broker, over connections that threads share.

Publishing, watching and telling are streams (lane.py). A question is a call of its own, on a connection
that is kept for the next one (calls.py).

**Fork.** A forked child lets go of its parent's sockets and makes everything anew. Nothing else is shared:
what is under way belongs to the parent's threads.
"""

import asyncio
import atexit
import functools
import inspect
import logging
import os
import queue
import random
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError

from qbroker import clock
from qbroker.calls import Call, Calls
from qbroker.exceptions import (
    Conflict,
    InvalidName,
    MalformedAnswer,
    NotFound,
    OperationalError,
    RequestRefused,
)
from qbroker.http2 import PATIENCE, Code, Patience
from qbroker.lane import (
    BATCH_BYTES_MAX,
    BATCH_COUNT_MAX,
    Answer,
    Publisher,
    Subscription,
    Teller,
    Ticket,
    Verdict,
    Watcher,
)
from qbroker.link import CallEnded, Place
from qbroker.masking import masked
from qbroker.serialization import Value
from qbroker.url import parse_url
from qbroker_proto import names
from qbroker_proto.v1.admin_pb2 import (
    Binding,
    DeadReply,
    DeadRequest,
    DeclareQueueRequest,
    DeclareReply,
    Exchange,
    ExplainReply,
    ExplainRequest,
    ListQueuesReply,
    ListQueuesRequest,
    ListTasksReply,
    ListTasksRequest,
    ListTopologyRequest,
    MoveQueueReply,
    MoveQueueRequest,
    PauseQueueRequest,
    PurgeQueueReply,
    PurgeQueueRequest,
    QueueInfo,
    QueueOptions,
    RemoveBindingReply,
    RemoveExchangeReply,
    RemoveExchangeRequest,
    RemoveQueueReply,
    RemoveQueueRequest,
    RescheduleRequest,
    ResumeQueueRequest,
    RevokeReply,
    RevokeRequest,
    ShowTaskRequest,
    StatusReply,
    StatusRequest,
    TaskInfo,
    TestRouteReply,
    TestRouteRequest,
    Topology,
)
from qbroker_proto.v1.control_pb2 import (
    BroadcastReply,
    BroadcastRequest,
    Event,
    EventsReply,
    EventsRequest,
)
from qbroker_proto.v1.periodic_pb2 import (
    DeclareSchedulesReply,
    DeclareSchedulesRequest,
    ListSchedulesReply,
    ListSchedulesRequest,
    NextTicksReply,
    NextTicksRequest,
    PauseScheduleRequest,
    PutScheduleRequest,
    RemoveScheduleReply,
    RemoveScheduleRequest,
    ResumeScheduleRequest,
    RunScheduleReply,
    RunScheduleRequest,
    Schedule,
    ScheduleInfo,
)
from qbroker_proto.v1.results_pb2 import (
    ForgetReply,
    ForgetRequest,
    KeepReply,
    KeepRequest,
    TaskState,
    TellReply,
    TellRequest,
)
from qbroker_proto.v1.workflow_pb2 import (
    CancelRequest,
    ListReply,
    ListRequest,
    RetryReply,
    RetryRequest,
    ShowReply,
    ShowRequest,
)

__all__ = [
    "Answer",
    "BroadcastReply",
    "Client",
    "EventStream",
    "RevokeReply",
    "ScheduleInfo",
    "Subscription",
    "TaskInfo",
    "Ticket",
    "Verdict",
    "parse_url",
]

_log = logging.getLogger(__name__)

TICKETS_IN_FLIGHT_MAX = 16
"""How many batches of one bulk publish wait for their confirm at once."""
_EXIT_PATIENCE_S = 1.0
"""How long each of a connection's threads has to end when the program does."""
_REFUSED = {
    Code.NOT_FOUND: NotFound,
    Code.FAILED_PRECONDITION: Conflict,
    Code.ALREADY_EXISTS: Conflict,
    Code.INVALID_ARGUMENT: RequestRefused,
    Code.RESOURCE_EXHAUSTED: RequestRefused,
}
"""The broker was reached, and said no."""
_GRACE_S = 0.25
"""How much later than workers the broker may answer a broadcast."""
_ONCE = frozenset(
    {
        "Results/Keep",
        "Admin/MoveQueue",
        "Admin/PurgeQueue",
        "Admin/RemoveQueue",
        "Admin/RemoveExchange",
        "Admin/RemoveBinding",
        "Admin/RequeueDead",
        "Admin/RemoveDead",
        "Periodic/RemoveSchedule",
        "Periodic/RunSchedule",
        "Workflows/Retry",
    }
)
"""Orders that must not be given twice: done again, they would do more, or be answered with an error."""
BULK_TIMEOUT_S = 600.0
"""How long an order may take that goes through as many messages as there are."""

A_co = TypeVar("A_co", covariant=True)


def batches(messages: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut messages into pieces that fit a request."""
    start = 0
    bytes_count = 0
    for place, message in enumerate(messages):
        bytes_count += len(message)
        if place > start and (place - start >= BATCH_COUNT_MAX or bytes_count > BATCH_BYTES_MAX):
            yield messages[start:place]
            start, bytes_count = place, len(message)
    if start < len(messages):
        yield messages[start:]


class EventStream:
    """Events as they happen, from when this is made. Iterated, it gives (type, JSON of the fields, clock)."""

    def __init__(self, call: Call, url: str) -> None:
        self._call = call
        self._url = url
        self._is_closed = False

    def __iter__(self) -> Iterator[tuple[str, bytes, int]]:
        try:
            for reply in self._call:
                for event in _parsed(EventsReply, reply, "Control/Events", self._url).events:
                    yield event.type, event.body, event.clock
        except CallEnded as exc:
            if not self._is_closed:
                raise OperationalError(f"no more events from {self._url}: {exc.details}") from exc

    def close(self) -> None:
        """End it, also from another thread."""
        self._is_closed = True
        self._call.cancel()


# -- the connection ------------------------------------------------------------------------------


class _Connection:
    """The streams and the calls; belongs to one process."""

    def __init__(
        self,
        url: str,
        timeout_s: float,
        monotonic: Callable[[], float],
        chance: random.Random,
        patience: Patience,
    ) -> None:
        host, port = parse_url(url)
        place = Place(masked(url), host, port, timeout_s, monotonic, chance, patience)
        self.publisher = Publisher(place)
        self.watcher = Watcher(place)
        self.teller = Teller(place)
        self.calls = Calls(place)

    def close(self, patience_s: float | None = None) -> None:
        self.publisher.close(patience_s)
        self.watcher.close(patience_s)
        self.teller.close(patience_s)
        self.calls.close()

    def leave(self) -> None:
        """In a forked child: let go of the parent's sockets."""
        for one in (self.publisher, self.watcher, self.teller, self.calls):
            one.leave()


_Class = TypeVar("_Class", bound=type)
_Method = Callable[..., Value]


def _naming(class_: _Class) -> _Class:
    """Have the class's methods raise InvalidName for text that UTF-8 cannot encode, and name the argument."""
    for name, member in list(vars(class_).items()):
        if inspect.isfunction(member) and not name.startswith("_"):
            setattr(class_, name, _with_names(member))
    return class_


def _with_names(method: _Method) -> _Method:
    @functools.wraps(method)
    def call(*args: Value, **kwargs: Value) -> Value:
        try:
            return method(*args, **kwargs)
        except UnicodeEncodeError as error:
            bound = inspect.signature(method).bind(*args, **kwargs).arguments
            given = {**bound, **bound.get("fields", {}), **bound.get("options", {})}
            what = next((o for o, value in given.items() if _holds(value, error.object)), "text")
            raise InvalidName("", names.surrogate_fault(what, error.object)) from None

    return call


def _holds(value: Value, text: str) -> bool:
    return value == text or (isinstance(value, list | tuple) and text in value)


@_naming
class Client:
    """What the SDK asks of a broker. Safe to share between threads, asyncio tasks and forks."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        monotonic: Callable[[], float] = clock.monotonic,
        chance: random.Random | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        parse_url(url)
        self._url = url
        self.url = masked(url)
        """The broker's URL as it may be shown."""
        self.timeout_s = timeout_s
        self._monotonic = monotonic
        self._chance = chance or random.Random()  # noqa: S311 - spreads reconnects; no secret
        self._patience = patience
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        _clients.add(self)

    def _connected(self) -> _Connection:
        connection = self._connection
        if connection is None:
            with self._lock:
                connection = self._connection
                if connection is None:
                    connection = self._connection = _Connection(
                        self._url, self.timeout_s, self._monotonic, self._chance, self._patience
                    )
        return connection

    def close(self, patience_s: float | None = None) -> None:
        """End the connection; the next use makes another."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(patience_s)

    def leave(self) -> None:
        """In a forked child: leave the parent's connection to the parent, and make one anew when needed."""
        connection, self._connection = self._connection, None
        self._lock = threading.Lock()
        if connection is not None:
            connection.leave()

    def submit(self, messages: Sequence[bytes]) -> Ticket:
        """Send one batch (see `batches`) without waiting; `wait` takes the ticket."""
        ticket = Ticket(messages)
        self._connected().publisher.submit(ticket)
        return ticket

    def wait(self, ticket: Ticket, since_s: float | None = None) -> Sequence[Verdict]:
        """The verdicts on a ticket's messages, once the broker has answered; the time counts from `since_s`, or now."""
        used_s = 0.0 if since_s is None else self._monotonic() - since_s
        if not ticket.is_settled_within(max(self.timeout_s - used_s, 0)):
            raise self._connected().publisher.abandon(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.verdicts

    def publish(self, messages: Sequence[bytes]) -> list[Verdict]:
        """Send messages and wait until they are on the broker's disk; answers which were not stored, and why.

        One whose unique key is taken has an Existing, which names who has it, and a Refusal besides where its
        policy is to be refused.
        """
        if len(messages) == 1:
            ticket = Ticket(messages)
            began_s = self._monotonic()
            self._connected().publisher.publish(ticket)
            return list(self.wait(ticket, began_s))
        verdicts: list[Verdict] = []
        in_flight: list[tuple[int, Ticket]] = []
        place = 0
        for batch in batches(messages):
            if len(in_flight) >= TICKETS_IN_FLIGHT_MAX:
                verdicts += self._collect(*in_flight.pop(0))
            in_flight.append((place, self.submit(batch)))
            place += len(batch)
        for offset, ticket in in_flight:
            verdicts += self._collect(offset, ticket)
        return verdicts

    def _collect(self, offset: int, ticket: Ticket) -> Sequence[Verdict]:
        verdicts = self.wait(ticket)
        for verdict in verdicts:
            verdict.index += offset
        return verdicts

    async def apublish(self, messages: Sequence[bytes]) -> list[Verdict]:
        """Do the same without blocking the event loop."""
        verdicts: list[Verdict] = []
        place = 0
        for batch in batches(messages):
            settled = asyncio.Event()
            loop = asyncio.get_running_loop()
            ticket = Ticket(batch, lambda: _wake(loop, settled.set))  # noqa: B023 - called for this batch, before the next
            publisher = self._connected().publisher
            publisher.submit(ticket)
            try:
                async with asyncio.timeout(self.timeout_s):
                    await settled.wait()
            except TimeoutError:
                raise publisher.abandon(ticket) from None
            if ticket.error is not None:
                raise ticket.error
            for verdict in ticket.verdicts:
                verdict.index += place
                verdicts.append(verdict)
            place += len(batch)
        return verdicts

    def read(self, task_id: str) -> TaskState:
        """Where a task is now."""
        return self.read_many([task_id])[task_id]

    def read_many(
        self, task_ids: Iterable[str], timeout_s: float | None = None
    ) -> dict[str, TaskState]:
        """Where tasks are now. Raises OperationalError after `timeout_s`, or the client's own time-out."""
        is_short = timeout_s is not None and timeout_s < self.timeout_s
        if timeout_s is None:
            timeout_s = self.timeout_s
        ids = list(dict.fromkeys(task_ids))
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        subscriptions = [Subscription(task_id, answers.put, is_once=True) for task_id in ids]
        watcher = self._connected().watcher
        reply_count = watcher.reply_count
        watcher.subscribe(subscriptions, is_waited_for=True)
        found: dict[str, TaskState] = {}
        deadline = self._monotonic() + timeout_s
        while len(found) < len(ids):
            try:
                left_s = max(deadline - self._monotonic(), 0)
                answer = watcher.next_answer(answers, left_s)
            except queue.Empty:
                # A short look at the end of a wait says little about the stream.
                watcher.give_up(subscriptions, None if is_short else reply_count)
                raise watcher.error(f"no answer within {timeout_s:g} s from") from None
            if isinstance(answer, OperationalError):
                raise answer
            found[answer.id] = answer
        return found

    def watch(
        self, task_id: str, tell: Callable[[Answer], object], *, is_waited_for: bool = False
    ) -> Subscription:
        """Hear of a task's state now and of every change until the end; `tell` must not block.

        Who says that he waits for it calls `next_answer` then.
        """
        subscription = Subscription(task_id, tell, is_once=False)
        self._connected().watcher.subscribe([subscription], is_waited_for=is_waited_for)
        return subscription

    def next_answer(self, answers: "queue.SimpleQueue[Answer]", timeout_s: float | None) -> Answer:
        """What a subscription's `tell` put there. Raises queue.Empty when the time is over."""
        return self._connected().watcher.next_answer(answers, timeout_s)

    def watch_ends(
        self,
        task_ids: Iterable[str],
        tell: Callable[[Answer], object],
        *,
        is_waited_for: bool = False,
    ) -> list[Subscription]:
        """Hear of the ends of many tasks, over the one stream; of states before that only by the way."""
        subscriptions = [
            Subscription(task_id, tell, is_once=False, is_end_only=True) for task_id in task_ids
        ]
        self._connected().watcher.subscribe(subscriptions, is_waited_for=is_waited_for)
        return subscriptions

    def unwatch(self, subscription: Subscription) -> None:
        """Hear of it no more."""
        self._connected().watcher.unsubscribe(subscription)

    def forget(self, task_ids: Sequence[str]) -> int:
        """Drop what is kept of ended tasks; answers of how many there was something."""
        reply = self._ask("Results/Forget", ForgetRequest(ids=task_ids), ForgetReply)
        return reply.forgotten_count

    def tell(self, task_id: str, state: str, result: bytes, attempt: int = 0) -> bool:
        """Say which state a task is in; False when there is no such task that has not ended."""
        request = TellRequest(id=task_id, attempt=attempt, state=state, result=result)
        return self._ask("Results/Tell", request, TellReply).is_told

    def keep(self, kept_id: str, result: bytes, ttl_ms: int, state: str = "") -> None:
        """Keep a result that no message made, in place of what was kept under the id; `ttl_ms` 0: as long as results are.

        `state` is how it ended, "" for success.

        Raises Conflict where the id is a task's that has not ended, or of which something is kept.
        """
        request = KeepRequest(id=kept_id, result=result, ttl_ms=ttl_ms, state=state)
        self._ask("Results/Keep", request, KeepReply)

    # -- questions and orders; refused ones raise NotFound, Conflict or RequestRefused

    def status(self) -> StatusReply:
        """The broker at a glance."""
        return self._ask("Admin/Status", StatusRequest(), StatusReply)

    def list_queues(self, queue: str = "") -> Sequence[QueueInfo]:
        """All queues, or the one that is named."""
        request = ListQueuesRequest(queue=queue)
        return self._ask("Admin/ListQueues", request, ListQueuesReply).queues

    def declare_queue(self, queue: str, *, is_new: bool = False, **options: int | str) -> QueueInfo:
        """Make a queue, or give it other options: those of `QueueOptions`. With `is_new` it must have no others."""
        wanted = QueueOptions(**options)  # type: ignore[arg-type] # the broker's names; it checks the values
        request = DeclareQueueRequest(queue=queue, options=wanted, is_new=is_new)
        return self._ask("Admin/DeclareQueue", request, QueueInfo)

    def pause_queue(self, queue: str, *, by: str, why: str) -> QueueInfo:
        """Deliver nothing of the queue until it is resumed."""
        request = PauseQueueRequest(queue=queue, by=by, why=why)
        return self._ask("Admin/PauseQueue", request, QueueInfo)

    def resume_queue(self, queue: str) -> QueueInfo:
        """Deliver again."""
        return self._ask("Admin/ResumeQueue", ResumeQueueRequest(queue=queue), QueueInfo)

    def purge_queue(self, queue: str) -> int:
        """Drop every message that waits in the queue; answers how many there were."""
        request = PurgeQueueRequest(queue=queue)
        return self._ask("Admin/PurgeQueue", request, PurgeQueueReply, BULK_TIMEOUT_S).purged_count

    def move_queue(self, source: str, target: str) -> int:
        """Put what waits in a queue into another; answers how many messages that were."""
        request = MoveQueueRequest(source=source, target=target)
        return self._ask("Admin/MoveQueue", request, MoveQueueReply, BULK_TIMEOUT_S).moved_count

    def remove_queue(self, queue: str) -> None:
        """Remove an empty queue."""
        self._ask("Admin/RemoveQueue", RemoveQueueRequest(queue=queue), RemoveQueueReply)

    def declare_topology(self, topology: Topology) -> None:
        """Have exchanges, queues and bindings, all of them or none."""
        self._ask("Admin/DeclareTopology", topology, DeclareReply)

    def declare_exchange(
        self, name: str, kind: str, *, alternate: str = "", is_auto_delete: bool = False
    ) -> None:
        """Make an exchange. Conflict: it is there with other properties."""
        made = Exchange(name=name, type=kind, alternate=alternate, is_auto_delete=is_auto_delete)
        self.declare_topology(Topology(exchanges=[made]))

    def add_binding(
        self,
        exchange: str,
        destination: str,
        routing_key: str = "",
        arguments: str = "",
        *,
        is_to_exchange: bool = False,
    ) -> None:
        """Have an exchange pass messages on; `arguments` is a JSON object."""
        made = Binding(
            exchange=exchange,
            destination=destination,
            routing_key=routing_key,
            arguments=arguments,
            is_to_exchange=is_to_exchange,
        )
        self.declare_topology(Topology(bindings=[made]))

    def bind_queue(self, queue: str, exchange: str, kind: str, routing_key: str) -> None:
        """Have a queue, and an exchange that passes to it what is sent with the key."""
        made = Topology()
        made.exchanges.add(name=exchange, type=kind)
        made.queues.add(name=queue)
        made.bindings.add(exchange=exchange, destination=queue, routing_key=routing_key)
        self.declare_topology(made)

    def list_topology(self) -> Topology:
        """All exchanges and bindings."""
        return self._ask("Admin/ListTopology", ListTopologyRequest(), Topology)

    def remove_exchange(self, exchange: str) -> None:
        """Remove an exchange, with the bindings from it and to it."""
        request = RemoveExchangeRequest(exchange=exchange)
        self._ask("Admin/RemoveExchange", request, RemoveExchangeReply)

    def remove_binding(
        self,
        exchange: str,
        destination: str,
        routing_key: str = "",
        arguments: str = "",
        *,
        is_to_exchange: bool = False,
    ) -> None:
        """Take a binding away. NotFound: there is none like it."""
        gone = Binding(
            exchange=exchange,
            destination=destination,
            routing_key=routing_key,
            arguments=arguments,
            is_to_exchange=is_to_exchange,
        )
        self._ask("Admin/RemoveBinding", gone, RemoveBindingReply)

    def test_route(self, exchange: str, routing_key: str, headers: str = "") -> Sequence[str]:
        """Which queues a message so sent would go to; `headers` is a JSON object."""
        request = TestRouteRequest(exchange=exchange, routing_key=routing_key, headers=headers)
        return self._ask("Admin/TestRoute", request, TestRouteReply).queues

    def list_tasks(
        self,
        *,
        queue: str = "",
        task: str = "",
        stages: Sequence[int] = (),
        label: str = "",
        age_ms_min: int = 0,
        age_ms_max: int = 0,
        limit: int = 100,
        after: str = "",
    ) -> ListTasksReply:
        """A page of tasks. It may hold fewer than `limit`; `next` is the `after` of the page that follows."""
        request = ListTasksRequest(
            queue=queue,
            task=task,
            stages=stages,  # type: ignore[arg-type] # numbers of the wire's enum
            label=label,
            age_ms_min=age_ms_min,
            age_ms_max=age_ms_max,
            limit=limit,
            after=after,
        )
        return self._ask("Admin/ListTasks", request, ListTasksReply)

    def show_task(self, task_id: str) -> TaskInfo:
        """Everything the broker knows of a task."""
        return self._ask("Admin/ShowTask", ShowTaskRequest(id=task_id), TaskInfo)

    def explain(self, task_id: str, timeout_s: float | None = None) -> ExplainReply:
        """Why a task is where it is."""
        return self._ask("Admin/Explain", ExplainRequest(id=task_id), ExplainReply, timeout_s)

    def reschedule(self, task_id: str, eta_ms: int) -> TaskInfo:
        """Have a waiting task run at another time."""
        request = RescheduleRequest(id=task_id, eta_ms=eta_ms)
        return self._ask("Admin/Reschedule", request, TaskInfo)

    def revoke(
        self,
        task_ids: Sequence[str] = (),
        *,
        labels: Sequence[str] = (),
        root_id: str = "",
        terminate: bool = False,
        signal: str = "",
        why: str = "",
    ) -> RevokeReply:
        """Have tasks not run: those named, those with any of the labels, those of a workflow."""
        request = RevokeRequest(
            ids=task_ids,
            labels=labels,
            root_id=root_id,
            terminate=terminate,
            signal=signal,
            why=why,
        )
        is_bulk = labels or root_id or len(task_ids) > BATCH_COUNT_MAX
        return self._ask("Admin/Revoke", request, RevokeReply, BULK_TIMEOUT_S if is_bulk else None)

    def requeue_dead(
        self,
        task_ids: Sequence[str] = (),
        *,
        task: str = "",
        queue: str = "",
        all_of_them: bool = False,
        dry_run: bool = False,
    ) -> int:
        """Put dead letters back into their queues; answers how many."""
        request = DeadRequest(
            ids=task_ids, task=task, queue=queue, all=all_of_them, dry_run=dry_run
        )
        return self._ask("Admin/RequeueDead", request, DeadReply, BULK_TIMEOUT_S).count

    def remove_dead(
        self,
        task_ids: Sequence[str] = (),
        *,
        task: str = "",
        queue: str = "",
        all_of_them: bool = False,
        dry_run: bool = False,
    ) -> int:
        """Forget dead letters; answers how many."""
        request = DeadRequest(
            ids=task_ids, task=task, queue=queue, all=all_of_them, dry_run=dry_run
        )
        return self._ask("Admin/RemoveDead", request, DeadReply, BULK_TIMEOUT_S).count

    # -- workers

    def broadcast(
        self,
        command: str,
        arguments: bytes = b"",
        *,
        words: Sequence[str] = (),
        destination: Sequence[str] = (),
        pattern: str = "",
        matcher: str = "",
        timeout_s: float = 1.0,
        limit: int = 0,
        is_silent: bool = False,
    ) -> Iterator[BroadcastReply]:
        """Ask workers; their answers as they come, until all have answered or the time is over."""
        request = BroadcastRequest(
            command=command,
            arguments=arguments,
            words=words,
            destination=destination,
            pattern=pattern,
            matcher=matcher,
            timeout_ms=max(1, round(timeout_s * 1000)),
            limit=limit,
            is_silent=is_silent,
        )
        try:
            call = self._connected().calls.listen(
                "/qbroker.v1.Control/Broadcast",
                request.SerializeToString(),
                self.timeout_s if is_silent else timeout_s + _GRACE_S,
                is_bounded=True,
                is_idempotent=False,
                is_quiet=not is_silent,
            )
            for reply in call:
                yield _parsed(BroadcastReply, reply, "Control/Broadcast", self.url)
        except CallEnded as exc:
            raise self._error(exc) from exc

    def events(self, routing_key: str = "#") -> EventStream:
        """Listen to events of these types: "#", "task.*", "worker.heartbeat". Nothing is missed from when this answers."""
        request = EventsRequest(routing_key=routing_key)
        try:
            # Waiting for the broker is bounded; listening is not.
            call = self._connected().calls.listen(
                "/qbroker.v1.Control/Events",
                request.SerializeToString(),
                self.timeout_s,
                is_bounded=False,
            )
        except CallEnded as exc:
            raise self._error(exc) from exc
        return EventStream(call, self.url)

    def tell_event(self, type_: str, body: bytes) -> None:
        """Send an event to those who listen; it may be lost, and never takes long."""
        self._connected().teller.tell(Event(type=type_, body=body))

    def _error(self, exc: CallEnded) -> Exception:
        refused = _REFUSED.get(exc.code)
        if refused is not None:
            return refused(exc.details)
        if exc.code is Code.DEADLINE_EXCEEDED:
            return OperationalError(f"no answer from {self.url} in time")
        return OperationalError(f"no answer from {self.url}: {exc.details}")

    # -- periodic entries

    def list_schedules(self) -> Iterator[ScheduleInfo]:
        """All of them, by name."""
        after = ""
        while True:
            request = ListSchedulesRequest(after=after)
            page = self._ask("Periodic/ListSchedules", request, ListSchedulesReply)
            yield from page.schedules
            if not page.next:
                return
            after = page.next

    def show_schedule(self, name: str) -> ScheduleInfo:
        """One of them."""
        request = ListSchedulesRequest(name=name)
        found = self._ask("Periodic/ListSchedules", request, ListSchedulesReply).schedules
        if not found:
            raise MalformedAnswer(f"{self.url} did not say what the schedule {name!r} is")
        return found[0]

    def put_schedule(
        self, *, is_new: bool = False, with_waiting: bool = False, **fields: Value
    ) -> ScheduleInfo:
        """Make an entry or change it; the fields are those of `Schedule`."""
        request = PutScheduleRequest(
            schedule=Schedule(**fields), is_new=is_new, with_waiting=with_waiting
        )
        return self._ask("Periodic/PutSchedule", request, ScheduleInfo, is_idempotent=not is_new)

    def declare_schedules(
        self,
        owner: str,
        entries: Iterable[Mapping[str, Value]],
        *,
        dry_run: bool = False,
        with_waiting: bool = False,
    ) -> DeclareSchedulesReply:
        """Have exactly these entries of the owner."""
        request = DeclareSchedulesRequest(
            owner=owner,
            schedules=[Schedule(**fields) for fields in entries],
            dry_run=dry_run,
            with_waiting=with_waiting,
        )
        return self._ask("Periodic/DeclareSchedules", request, DeclareSchedulesReply)

    def remove_schedule(self, name: str, *, with_waiting: bool = False) -> int:
        """Forget an entry; the count of its waiting messages that were revoked with it."""
        request = RemoveScheduleRequest(name=name, with_waiting=with_waiting)
        reply = self._ask("Periodic/RemoveSchedule", request, RemoveScheduleReply)
        return reply.dropped_count

    def pause_schedule(
        self, name: str, *, by: str, why: str, with_waiting: bool = False
    ) -> ScheduleInfo:
        """Fire nothing of it until it is resumed."""
        request = PauseScheduleRequest(name=name, by=by, why=why, with_waiting=with_waiting)
        return self._ask("Periodic/PauseSchedule", request, ScheduleInfo)

    def resume_schedule(self, name: str) -> ScheduleInfo:
        """Fire it again."""
        request = ResumeScheduleRequest(name=name)
        return self._ask("Periodic/ResumeSchedule", request, ScheduleInfo)

    def run_schedule(self, name: str, task_id: str) -> str:
        """Publish its task now, with that id."""
        request = RunScheduleRequest(name=name, id=task_id)
        return self._ask("Periodic/RunSchedule", request, RunScheduleReply).id

    def next_ticks(self, *, name: str = "", timing: str = "", count: int = 1) -> Sequence[int]:
        """When an entry, or a timing, fires next, in Unix milliseconds."""
        request = NextTicksRequest(name=name, timing=timing, count=count)
        return self._ask("Periodic/NextTicks", request, NextTicksReply).ticks_ms

    # -- workflows

    def list_workflows(self, *, limit: int = 100, after: str = "") -> ListReply:
        """A page of workflows; `next` is the `after` of the page that follows."""
        return self._ask("Workflows/List", ListRequest(limit=limit, after=after), ListReply)

    def show_workflow(self, workflow_id: str, *, after: str = "") -> ShowReply:
        """A workflow, by its id or any of its tasks', and a page of its tasks."""
        return self._ask("Workflows/Show", ShowRequest(id=workflow_id, after=after), ShowReply)

    def cancel_workflow(
        self, workflow_id: str, *, terminate: bool = False, signal: str = "", why: str = ""
    ) -> RevokeReply:
        """Revoke every task of a workflow that has not ended."""
        request = CancelRequest(id=workflow_id, terminate=terminate, signal=signal, why=why)
        return self._ask("Workflows/Cancel", request, RevokeReply, BULK_TIMEOUT_S)

    def retry_workflow(self, workflow_id: str) -> RetryReply:
        """Run again what failed of a workflow, and what was never reached because of that."""
        request = RetryRequest(id=workflow_id)
        return self._ask("Workflows/Retry", request, RetryReply, BULK_TIMEOUT_S)

    def _ask(
        self,
        method: str,
        request: "_Serializable",
        reply: "type[_Parsed[A_co]]",
        timeout_s: float | None = None,
        *,
        is_idempotent: bool = True,
    ) -> A_co:
        try:
            answer = self._connected().calls.ask(
                f"/qbroker.v1.{method}",
                request.SerializeToString(),
                self.timeout_s if timeout_s is None else timeout_s,
                waits=timeout_s is None,
                is_idempotent=is_idempotent and method not in _ONCE,
            )
        except CallEnded as exc:
            raise self._error(exc) from exc
        return _parsed(reply, answer, method, self.url)


class _Serializable(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name


class _Parsed(Protocol[A_co]):
    @classmethod
    def FromString(cls, s: bytes, /) -> A_co: ...  # noqa: N802 - protobuf's name


def _parsed(kind: "type[_Parsed[A_co]]", raw: bytes, method: str, url: str) -> A_co:
    try:
        return kind.FromString(raw)
    except DecodeError as exc:
        raise MalformedAnswer(
            f"{url} answered {method} with {len(raw)} bytes that are not a {kind.__name__}; "
            "is another program or a proxy listening there?"
        ) from exc


def _wake(loop: asyncio.AbstractEventLoop, wake: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(wake)
    except RuntimeError:
        _log.debug("an event loop was closed while something was awaited in it")


# -- fork ----------------------------------------------------------------------------------------

_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client.leave()


def _close_all() -> None:
    """End what a program left open, while its threads can still be waited for."""
    for client in list(_clients):
        client.close(_EXIT_PATIENCE_S)


atexit.register(_close_all)
os.register_at_fork(after_in_child=_after_fork_in_child)
