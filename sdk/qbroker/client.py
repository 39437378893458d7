"""The only place that speaks gRPC: one connection a process, with a stream to publish on and one to watch.

A thread that publishes puts its messages in an inbox and waits for its ticket; gRPC's own sending thread
takes everything that piled up meanwhile as one request; one thread reads the replies and hands the
tickets out. (Measured beside this: callers who read the replies themselves, and an asyncio loop in a
thread. Both cost more crossings between threads and served sixteen threads half as well.)

A stream that breaks is opened again after a jittered pause, and what was not confirmed is sent again,
in order; the broker knows messages by their id, so nothing doubles. Who waits is never left hanging:
after the deadline there is an OperationalError with the URL.

**Fork.** gRPC's core was not made to be forked under running threads. Of what was tried on grpcio 1.85
with four threads publishing, closing everything before the fork still lost children, with and without
GRPC_ENABLE_FORK_SUPPORT, and so did leaving it open with the default poller, which aborts in
`ev_epoll1_linux.cc`. What held, 2,000 forks in a row: GRPC_POLL_STRATEGY=poll, which has no state of the whole
process (set while the core starts, unless the user chose); a fork that waits until what is under way
is answered, because in the middle of a request 2 of 2,500 children crashed; and a child that makes everything anew and
never touches its parent's connection, because closing it would wait for threads that do not exist.
"""

import asyncio
import atexit
import logging
import os
import queue
import random
import re
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar, cast

from qbroker import clock
from qbroker.exceptions import Conflict, NotFound, OperationalError, RequestRefused
from qbroker.serialization import Value
from qbroker.url import parse_url
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
    SendEventsReply,
    SendEventsRequest,
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
from qbroker_proto.v1.producer_pb2 import Existing, PublishReply, PublishRequest, Refusal
from qbroker_proto.v1.results_pb2 import (
    ForgetReply,
    ForgetRequest,
    KeepReply,
    KeepRequest,
    TaskState,
    TellReply,
    TellRequest,
    WatchReply,
    WatchRequest,
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

# Read once, when the core starts: poll is the poller that survives forks (see above), and at the default
# verbosity the core writes a line to stderr for each fork.
_CORE_KNOBS = {"GRPC_POLL_STRATEGY": "poll", "GRPC_VERBOSITY": "ERROR"}
_set_by_us = {name: value for name, value in _CORE_KNOBS.items() if name not in os.environ}  # noqa: TID251 - gRPC takes these from nowhere else
os.environ.update(_set_by_us)  # noqa: TID251 - the same
import grpc  # noqa: E402 - after its environment is set

grpc.insecure_channel("127.0.0.1:1").close()  # starts the core
for _name in _set_by_us:
    del os.environ[_name]  # noqa: TID251 - programs started from here get what the user set

__all__ = [
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

MIB = 1024 * 1024
BATCH_COUNT_MAX = 1_000
"""How many messages one request carries."""
BATCH_BYTES_MAX = 2 * MIB
"""How many bytes of messages one request carries; a single larger message goes alone."""
TICKETS_IN_FLIGHT_MAX = 16
"""How many batches of one bulk publish wait for their confirm at once."""
REQUESTS_IN_FLIGHT_MAX = 2
"""How many requests a stream may have unanswered. What is published meanwhile leaves together: with more, each
of many threads would cost the broker a commit of its own."""

_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 16 * MIB),
    # A workflow travels whole.
    ("grpc.max_send_message_length", 64 * MIB),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A connection attempt that nobody answers is given up after this, not after 20 s.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Without it gRPC waits a minute for the answer to its ping, whatever the time-out above says.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.enable_retries", 0),
    # A forked child must not find its parent's sockets.
    ("grpc.use_local_subchannel_pool", 1),
)
_FORK_PATIENCE_S = 0.2
"""How long a fork waits for requests under way to be answered."""
_EXIT_PATIENCE_S = 1.0
"""How long each of a connection's threads has to end when the program does."""
_PAUSE_FIRST_S = 0.05
_PAUSE_MAX_S = 0.5
_FINAL_CODES = frozenset(
    {
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)
"""Trying again does not help with these."""
_REFUSED = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.INVALID_ARGUMENT: RequestRefused,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RequestRefused,
}
"""The broker was reached, and said no."""
BULK_TIMEOUT_S = 600.0
"""How long an order may take that goes through as many messages as there are."""

Verdict = Refusal | Existing
"""Why a message was not stored, with its place as `index`."""
A_co = TypeVar("A_co", covariant=True)


def reason_of(details: str) -> str:
    """What gRPC says of a failed call, without what it says of itself: `Connection refused`."""
    return _GRPC_WORDS.sub("", details)


_GRPC_WORDS = re.compile(
    r"^failed to connect to all addresses; last error: (UNKNOWN|UNAVAILABLE): "
    r"((ipv4|ipv6|unix):\S+: )?(Failed to connect to remote host: )?"
)


def _said(error: Exception) -> tuple[grpc.StatusCode, str]:
    """The code and the sentence of a failed call. What gRPC raises is the call itself."""
    call = cast("grpc.Call", error)
    return call.code(), reason_of(call.details() or str(call.code()))


class _Lane(ABC):
    """One stream that is opened when it is needed, and again when it breaks.

    What must reach the broker is kept by the subclass, and put into a new inbox for each stream; so what
    a broken stream swallowed needs no thought.
    """

    def __init__(
        self,
        open_stream: Callable[[Iterator[bytes]], Iterator[bytes]],
        url: str,
        timeout_s: float,
        monotonic: Callable[[], float],
        chance: random.Random,
    ) -> None:
        self._open_stream = open_stream
        self._url = url
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._chance = chance
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._closed = threading.Event()
        # Held while the process forks; the sending thread takes it for each request.
        self.gate = threading.Lock()
        # Whether nothing is unanswered.
        self.quiet = threading.Event()
        self.quiet.set()
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        # Holds a token for each request that may be sent now.
        self._permits: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stream: Iterator[bytes] | None = None
        self.trouble = ""

    @abstractmethod
    def _outstanding(self) -> Iterable[object]:
        """What a new stream must carry first."""

    @abstractmethod
    def _pack(self, first: object, inbox: "queue.SimpleQueue[object]") -> tuple[bytes, bool]:
        """A request of `first` and what else waits, and whether its answer is to be waited for."""

    @abstractmethod
    def _receive(self, reply: bytes) -> None:
        """Take in a reply."""

    @abstractmethod
    def _fail(self, error: OperationalError) -> None:
        """Tell everybody who waits that it will not be."""

    def error(self, what: str) -> OperationalError:
        """What to tell who waited in vain."""
        trouble = f": {self.trouble}" if self.trouble else ""
        return OperationalError(f"{what} {self._url}{trouble}")

    def _send(self, item: object) -> None:
        """Put an item in the inbox; the caller holds the lock."""
        self._inbox.put(item)
        if not self._wanted.is_set():
            self._wanted.set()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=f"qbroker {type(self).__name__}", daemon=True
                )
                self._thread.start()

    def close(self, patience_s: float | None = None) -> None:
        """End the stream; who still waits is told. Its thread has ended then, or had `patience_s` to do so."""
        with self._lock:
            self._closed.set()
            self._wanted.set()
            self._inbox.put(None)
            self._permits.put(None)
            stream, thread = self._stream, self._thread
        if stream is not None:
            stream.cancel()  # type: ignore[attr-defined] # a gRPC call is more than an iterator
        if thread is not None and thread is not threading.current_thread():
            thread.join(patience_s)
        # A stream takes a lock of gRPC's when it goes. While the interpreter ends, a thread may have been stopped
        # with that lock, so it goes now.
        self._stream = stream = None
        self._fail(OperationalError(f"the connection to {self._url} was closed"))

    def _requests(
        self, inbox: "queue.SimpleQueue[object]", permits: "queue.SimpleQueue[None]"
    ) -> Iterator[bytes]:
        """What gRPC's sending thread draws from, until the stream it feeds is given up."""
        while True:
            permits.get()
            first = inbox.get()
            with self.gate, self._lock:
                if first is None or inbox is not self._inbox:
                    return
                request, is_answered = self._pack(first, inbox)
            if not is_answered:
                permits.put(None)
            if request:
                yield request

    def _run(self) -> None:
        pause_s = _PAUSE_FIRST_S
        broken_s: float | None = None
        while True:
            self._wanted.wait()
            if self._closed.is_set():
                return
            try:
                with self._lock:
                    if self._closed.is_set():
                        return
                    permits: queue.SimpleQueue[None] = queue.SimpleQueue()
                self._permits = permits
                for _ in range(REQUESTS_IN_FLIGHT_MAX):
                    permits.put(None)
                self._stream = stream = self._open_stream(self._requests(self._inbox, permits))
                if self._closed.is_set():
                    # `close` came between the look above and the stream, and did not find it.
                    stream.cancel()  # type: ignore[attr-defined] # a gRPC call is more than an iterator
                for reply in stream:
                    pause_s, broken_s = _PAUSE_FIRST_S, None
                    self._receive(reply)
                self.trouble, is_final = "the broker ended the stream", False
            except grpc.RpcError as exc:
                code, self.trouble = _said(exc)
                is_final = code in _FINAL_CODES
                # The error is the stream: with its traceback it would hold this frame, and the frame it.
                exc.__traceback__ = None
            if self._closed.is_set():
                return
            broken_s = broken_s if broken_s is not None else self._monotonic()
            if is_final or self._monotonic() - broken_s >= self._timeout_s:
                self._fail(self.error("no answer from"))
            if not self._start_over():
                # Nobody waits, so who comes next has all the time there is.
                pause_s, broken_s = _PAUSE_FIRST_S, None
            self._closed.wait(pause_s * self._chance.uniform(0.5, 1.5))
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    def _start_over(self) -> bool:
        """Make ready for the next stream; whether it is wanted already."""
        with self._lock:
            self.quiet.set()
            self._inbox.put(None)
            self._permits.put(None)
            if self._closed.is_set():
                # Whoever closed it has told everybody, and waits for this thread to see it.
                return False
            self._inbox = queue.SimpleQueue()
            self._wanted.clear()
            for item in self._outstanding():
                self._inbox.put(item)
                self._wanted.set()
            return self._wanted.is_set()


# -- publishing ----------------------------------------------------------------------------------


class Ticket:
    """Messages on their way. `verdicts` are by their place in `messages`."""

    __slots__ = ("_lock", "_notify", "bytes_count", "error", "messages", "verdicts")

    def __init__(
        self, messages: Sequence[bytes], notify: Callable[[], object] | None = None
    ) -> None:
        self.messages = messages
        self.bytes_count = sum(map(len, messages))
        self.verdicts: Sequence[Verdict] = ()
        self.error: OperationalError | None = None
        self._notify = notify
        self._lock = threading.Lock()
        self._lock.acquire()

    def settle(self) -> None:
        """Wake who waits."""
        self._lock.release()
        if self._notify is not None:
            self._notify()

    @property
    def is_settled(self) -> bool:
        """Whether the broker has answered."""
        return not self._lock.locked()

    def is_settled_within(self, timeout_s: float) -> bool:
        """Wait; tells whether the broker has answered."""
        return self._lock.acquire(timeout=timeout_s)


class _Publisher(_Lane):
    """Messages out, confirms in. Requests are answered in order, so tickets form a line."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type] # passed through
        self._seq = 0
        self._unconfirmed: dict[Ticket, None] = {}
        self._by_seq: dict[int, list[Ticket]] = {}

    def submit(self, ticket: Ticket) -> None:
        """Send the ticket's messages; it is settled when they are confirmed or refused."""
        with self._lock:
            self._unconfirmed[ticket] = None
            self._send(ticket)

    def abandon(self, ticket: Ticket) -> OperationalError:
        """Forget a ticket nobody waits for any more. Its messages may have arrived all the same."""
        with self._lock:
            self._unconfirmed.pop(ticket, None)
        return self.error(f"no confirm within {self._timeout_s} s from")

    def _outstanding(self) -> Iterable[object]:
        self._by_seq = {}
        return self._unconfirmed

    def _pack(self, first: object, inbox: "queue.SimpleQueue[object]") -> tuple[bytes, bool]:
        tickets: list[Ticket] = []
        messages: list[bytes] = []
        bytes_left = BATCH_BYTES_MAX
        item: object = first
        while True:
            assert isinstance(item, Ticket)
            if item in self._unconfirmed:
                tickets.append(item)
                messages.extend(item.messages)
                bytes_left -= item.bytes_count
            if len(messages) >= BATCH_COUNT_MAX or bytes_left <= 0 or inbox.empty():
                break
            item = inbox.get_nowait()
            if item is None:
                inbox.put(None)
                break
        if not messages:
            return b"", False
        self.quiet.clear()
        self._seq += 1
        self._by_seq[self._seq] = tickets
        return PublishRequest(seq=self._seq, messages=messages).SerializeToString(), True

    def _receive(self, reply: bytes) -> None:
        self._permits.put(None)
        confirm = PublishReply.FromString(reply)
        with self._lock:
            tickets = self._by_seq.pop(confirm.seq, ())
            if not self._by_seq:
                self.quiet.set()
            settled = [ticket for ticket in tickets if ticket in self._unconfirmed]
            for ticket in settled:
                del self._unconfirmed[ticket]
        if confirm.refusals or confirm.existing:
            _hand_out([*confirm.refusals, *confirm.existing], tickets)
        for ticket in settled:
            ticket.settle()

    def _fail(self, error: OperationalError) -> None:
        with self._lock:
            tickets = list(self._unconfirmed)
            self._unconfirmed.clear()
        for ticket in tickets:
            ticket.error = error
            ticket.settle()


def _hand_out(verdicts: Iterable[Verdict], tickets: Iterable[Ticket]) -> None:
    """Give each ticket the verdicts on its own messages, counted from its own first."""
    by_place = sorted(verdicts, key=lambda verdict: verdict.index, reverse=True)
    offset = 0
    for ticket in tickets:
        end = offset + len(ticket.messages)
        mine: list[Verdict] = []
        while by_place and by_place[-1].index < end:
            verdict = by_place.pop()
            verdict.index -= offset
            mine.append(verdict)
        ticket.verdicts = mine
        offset = end


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


# -- results -------------------------------------------------------------------------------------

Answer = TaskState | OperationalError


class Subscription:
    """A task somebody wants to hear of. `tell` is called on the reading thread."""

    __slots__ = ("id", "is_end_only", "is_once", "tell")

    def __init__(
        self,
        task_id: str,
        tell: Callable[[Answer], object],
        *,
        is_once: bool,
        is_end_only: bool = False,
    ) -> None:
        self.id = task_id
        self.tell = tell
        self.is_once = is_once
        self.is_end_only = is_end_only


class _Watcher(_Lane):
    """Ids out, states in."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type] # passed through
        self._subscriptions: dict[str, list[Subscription]] = {}

    def subscribe(self, subscription: Subscription) -> None:
        """Tell of the task now, and, unless once, of all that follows."""
        with self._lock:
            self._subscriptions.setdefault(subscription.id, []).append(subscription)
            self._send(subscription)

    def subscribe_all(self, subscriptions: Sequence[Subscription]) -> None:
        """Do the same for many, in as few requests as they fit."""
        with self._lock:
            for subscription in subscriptions:
                self._subscriptions.setdefault(subscription.id, []).append(subscription)
                self._send(subscription)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Tell of it no more."""
        with self._lock:
            waiting = self._subscriptions.get(subscription.id)
            if waiting is None or subscription not in waiting:
                return
            waiting.remove(subscription)
            if not waiting:
                del self._subscriptions[subscription.id]
                self._inbox.put(subscription.id)

    def _outstanding(self) -> Iterable[object]:
        return [waiting[0] for waiting in self._subscriptions.values()]

    def _pack(self, first: object, inbox: "queue.SimpleQueue[object]") -> tuple[bytes, bool]:
        request = WatchRequest()
        item: object = first
        for count in range(1, BATCH_COUNT_MAX + 1):
            if isinstance(item, str):
                if item not in self._subscriptions:
                    request.unwatch.append(item)
            elif isinstance(item, Subscription):
                waiting = self._subscriptions.get(item.id, ())
                if all(subscription.is_end_only for subscription in waiting):
                    request.ends.append(item.id)
                elif all(subscription.is_once for subscription in waiting):
                    request.read.append(item.id)
                else:
                    request.watch.append(item.id)
            if inbox.empty() or count == BATCH_COUNT_MAX:
                # What is taken must be sent: the rest stays for the next request.
                break
            item = inbox.get_nowait()
            if item is None:
                inbox.put(None)
                break
        if request.watch or request.read or request.ends:
            self.quiet.clear()
        # States come when they come, for several requests at once.
        return request.SerializeToString(), False

    def _receive(self, reply: bytes) -> None:
        self.quiet.set()
        for state in WatchReply.FromString(reply).states:
            with self._lock:
                waiting = self._subscriptions.get(state.id, [])
                told = list(waiting)
                staying = (
                    []
                    if state.is_final
                    else [subscription for subscription in waiting if not subscription.is_once]
                )
                if staying:
                    self._subscriptions[state.id] = staying
                else:
                    self._subscriptions.pop(state.id, None)
            for subscription in told:
                subscription.tell(state)

    def _fail(self, error: OperationalError) -> None:
        with self._lock:
            told = [one for waiting in self._subscriptions.values() for one in waiting]
            self._subscriptions.clear()
        for subscription in told:
            subscription.tell(error)


# -- events --------------------------------------------------------------------------------------

_EVENTS_WAITING_MAX = 10_000


class _Teller(_Lane):
    """Events out. Nobody waits for them: what a broken stream swallows is lost, and so is what is too much."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type] # passed through
        # Until the broker says otherwise.
        self._is_wanted = True

    def tell(self, event: Event) -> None:
        """Send an event, if anybody listens."""
        with self._lock:
            if self._thread is not None and not self._is_wanted:
                return
            if self._inbox.qsize() < _EVENTS_WAITING_MAX:
                self._send(event)

    def _outstanding(self) -> Iterable[object]:
        self._is_wanted = True
        return ()

    def _pack(self, first: object, inbox: "queue.SimpleQueue[object]") -> tuple[bytes, bool]:
        events: list[Event] = []
        item: object = first
        while True:
            assert isinstance(item, Event)
            events.append(item)
            if len(events) >= BATCH_COUNT_MAX or inbox.empty():
                break
            item = inbox.get_nowait()
            if item is None:
                inbox.put(None)
                break
        return SendEventsRequest(events=events).SerializeToString(), False

    def _receive(self, reply: bytes) -> None:
        self._is_wanted = SendEventsReply.FromString(reply).is_wanted

    def _fail(self, error: OperationalError) -> None:
        _log.debug("events were lost: %s", error)


class EventStream:
    """Events as they happen, from when this is made. Iterated, it gives (type, JSON of the fields, clock)."""

    def __init__(self, call: "grpc.Call", url: str) -> None:
        self._call = call
        self._url = url
        self._is_closed = False

    def __iter__(self) -> Iterator[tuple[str, bytes, int]]:
        replies = cast("Iterator[bytes]", self._call)
        try:
            for reply in replies:
                for event in EventsReply.FromString(reply).events:
                    yield event.type, event.body, event.clock
        except grpc.RpcError as exc:
            if not self._is_closed:
                _, said = _said(exc)
                raise OperationalError(f"no more events from {self._url}: {said}") from exc

    def close(self) -> None:
        """End it, also from another thread."""
        self._is_closed = True
        self._call.cancel()


# -- the connection ------------------------------------------------------------------------------


class _Connection:
    """A channel and its two streams; belongs to one process."""

    def __init__(
        self, url: str, timeout_s: float, monotonic: Callable[[], float], chance: random.Random
    ) -> None:
        host, port = parse_url(url)
        self.channel = grpc.insecure_channel(f"{host}:{port}", options=_CHANNEL_OPTIONS)
        shared = (url, timeout_s, monotonic, chance)
        self.publisher = _Publisher(
            self.channel.stream_stream("/qbroker.v1.Producer/Publish"), *shared
        )
        self.watcher = _Watcher(self.channel.stream_stream("/qbroker.v1.Results/Watch"), *shared)
        self.teller = _Teller(self.channel.stream_stream("/qbroker.v1.Control/SendEvents"), *shared)

    def close(self, patience_s: float | None = None) -> None:
        self.publisher.close(patience_s)
        self.watcher.close(patience_s)
        self.teller.close(patience_s)
        self.channel.close()


class Client:
    """What the SDK asks of a broker. Safe to share between threads, asyncio tasks and forks."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        monotonic: Callable[[], float] = clock.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        parse_url(url)
        self.url = url
        self.timeout_s = timeout_s
        self._monotonic = monotonic
        self._chance = chance or random.Random()  # noqa: S311 - spreads reconnects; no secret
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        self._gates: list[threading.Lock] = []
        _clients.add(self)

    def _connected(self) -> _Connection:
        connection = self._connection
        if connection is None:
            with self._lock:
                connection = self._connection
                if connection is None:
                    connection = self._connection = _Connection(
                        self.url, self.timeout_s, self._monotonic, self._chance
                    )
        return connection

    def close(self, patience_s: float | None = None) -> None:
        """End the connection; the next use makes another."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(patience_s)

    def before_fork(self) -> None:
        """Send nothing from now on, and wait for what is under way, but not long."""
        connection = self._connection
        if connection is not None:
            for lane in (connection.publisher, connection.watcher, connection.teller):
                if lane.gate.acquire(timeout=_FORK_PATIENCE_S):
                    self._gates.append(lane.gate)
                lane.quiet.wait(_FORK_PATIENCE_S)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        while self._gates:
            self._gates.pop().release()

    def forget_parent(self) -> None:
        """In a forked child: leave the parent's connection alone and make one anew when needed."""
        if self._connection is not None:
            _left_alone.append(self._connection)
        self._connection = None
        self._gates = []
        self._lock = threading.Lock()

    def submit(self, messages: Sequence[bytes]) -> Ticket:
        """Send one batch (see `batches`) without waiting; `wait` takes the ticket."""
        ticket = Ticket(messages)
        self._connected().publisher.submit(ticket)
        return ticket

    def wait(self, ticket: Ticket) -> Sequence[Verdict]:
        """The verdicts on a ticket's messages, once the broker has answered."""
        if not ticket.is_settled_within(self.timeout_s):
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
            return list(self.wait(self.submit(messages)))
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
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        subscription = Subscription(task_id, answers.put, is_once=True)
        watcher = self._connected().watcher
        watcher.subscribe(subscription)
        try:
            answer = answers.get(timeout=self.timeout_s)
        except queue.Empty:
            watcher.unsubscribe(subscription)
            raise watcher.error(f"no answer within {self.timeout_s} s from") from None
        if isinstance(answer, OperationalError):
            raise answer
        return answer

    def read_many(self, task_ids: Iterable[str]) -> dict[str, TaskState]:
        """Where tasks are now."""
        ids = list(dict.fromkeys(task_ids))
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        subscriptions = [Subscription(task_id, answers.put, is_once=True) for task_id in ids]
        watcher = self._connected().watcher
        watcher.subscribe_all(subscriptions)
        found: dict[str, TaskState] = {}
        deadline = self._monotonic() + self.timeout_s
        while len(found) < len(ids):
            try:
                answer = answers.get(timeout=max(deadline - self._monotonic(), 0))
            except queue.Empty:
                for subscription in subscriptions:
                    watcher.unsubscribe(subscription)
                raise watcher.error(f"no answer within {self.timeout_s} s from") from None
            if isinstance(answer, OperationalError):
                raise answer
            found[answer.id] = answer
        return found

    def watch(self, task_id: str, tell: Callable[[Answer], object]) -> Subscription:
        """Hear of a task's state now and of every change until the end; `tell` must not block."""
        subscription = Subscription(task_id, tell, is_once=False)
        self._connected().watcher.subscribe(subscription)
        return subscription

    def watch_ends(
        self, task_ids: Iterable[str], tell: Callable[[Answer], object]
    ) -> list[Subscription]:
        """Hear of the ends of many tasks, over the one stream; of states before that only by the way."""
        subscriptions = [
            Subscription(task_id, tell, is_once=False, is_end_only=True) for task_id in task_ids
        ]
        self._connected().watcher.subscribe_all(subscriptions)
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

    def explain(self, task_id: str) -> ExplainReply:
        """Why a task is where it is."""
        return self._ask("Admin/Explain", ExplainRequest(id=task_id), ExplainReply)

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
        ask: Callable[..., Value] = self._connected().channel.unary_stream(
            "/qbroker.v1.Control/Broadcast"
        )
        call = ask(
            request.SerializeToString(), timeout=timeout_s + self.timeout_s, wait_for_ready=True
        )
        try:
            for reply in call:
                yield BroadcastReply.FromString(reply)
        except grpc.RpcError as exc:
            raise self._error(exc) from exc
        finally:
            call.cancel()

    def events(self, routing_key: str = "#") -> EventStream:
        """Listen to events of these types: "#", "task.*", "worker.heartbeat". Nothing is missed from when this answers."""
        ask: Callable[..., Value] = self._connected().channel.unary_stream(
            "/qbroker.v1.Control/Events"
        )
        try:
            # Waiting for the broker is bounded here; listening is not.
            grpc.channel_ready_future(self._connected().channel).result(self.timeout_s)
            call = ask(EventsRequest(routing_key=routing_key).SerializeToString())
            call.initial_metadata()
        except grpc.FutureTimeoutError as exc:
            raise OperationalError(f"no answer from {self.url} within {self.timeout_s} s") from exc
        except grpc.RpcError as exc:
            raise self._error(exc) from exc
        return EventStream(call, self.url)

    def tell_event(self, type_: str, body: bytes) -> None:
        """Send an event to those who listen; it may be lost, and never takes long."""
        self._connected().teller.tell(Event(type=type_, body=body))

    def _error(self, exc: grpc.RpcError) -> Exception:
        code, said = _said(exc)
        refused = _REFUSED.get(code)
        if refused is not None:
            return refused(said)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return OperationalError(f"no answer from {self.url} in time")
        return OperationalError(f"no answer from {self.url}: {said}")

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
        return self._ask("Periodic/ListSchedules", request, ListSchedulesReply).schedules[0]

    def put_schedule(self, *, is_new: bool = False, **fields: Value) -> ScheduleInfo:
        """Make an entry or change it; the fields are those of `Schedule`."""
        request = PutScheduleRequest(schedule=Schedule(**fields), is_new=is_new)
        return self._ask("Periodic/PutSchedule", request, ScheduleInfo)

    def declare_schedules(
        self, owner: str, entries: Iterable[Mapping[str, Value]], *, dry_run: bool = False
    ) -> DeclareSchedulesReply:
        """Have exactly these entries of the owner."""
        request = DeclareSchedulesRequest(
            owner=owner, schedules=[Schedule(**fields) for fields in entries], dry_run=dry_run
        )
        return self._ask("Periodic/DeclareSchedules", request, DeclareSchedulesReply)

    def remove_schedule(self, name: str) -> None:
        """Forget an entry."""
        request = RemoveScheduleRequest(name=name)
        self._ask("Periodic/RemoveSchedule", request, RemoveScheduleReply)

    def pause_schedule(self, name: str, *, by: str, why: str) -> ScheduleInfo:
        """Fire nothing of it until it is resumed."""
        request = PauseScheduleRequest(name=name, by=by, why=why)
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
    ) -> A_co:
        call: Callable[..., bytes] = self._connected().channel.unary_unary(f"/qbroker.v1.{method}")
        try:
            answer = call(
                request.SerializeToString(),
                timeout=timeout_s or self.timeout_s,
                wait_for_ready=timeout_s is None,
            )
        except grpc.RpcError as exc:
            raise self._error(exc) from exc
        return reply.FromString(answer)


class _Serializable(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name


class _Parsed(Protocol[A_co]):
    @classmethod
    def FromString(cls, s: bytes, /) -> A_co: ...  # noqa: N802 - protobuf's name


def _wake(loop: asyncio.AbstractEventLoop, wake: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(wake)
    except RuntimeError:
        _log.debug("an event loop was closed while something was awaited in it")


# -- fork ----------------------------------------------------------------------------------------

_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()
_left_alone: list[_Connection] = []


def _before_fork() -> None:
    for client in list(_clients):
        client.before_fork()


def _after_fork_in_parent() -> None:
    for client in list(_clients):
        client.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client.forget_parent()


def _close_all() -> None:
    """End what a program left open, before the interpreter ends.

    It stops threads wherever they are, and one that held a lock of gRPC's then kept one exit in a hundred waiting for ever.
    """
    for client in list(_clients):
        client.close(_EXIT_PATIENCE_S)


atexit.register(_close_all)
os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
