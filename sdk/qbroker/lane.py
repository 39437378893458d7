"""Streams to the broker that are opened when they are needed, and again when they break.

A thread that has something to say sends it itself, with all that piled up while earlier requests were
unanswered. Replies are read by a thread of the stream's own, or by a caller who waits for one: while
one caller alone comes and goes, the stream's thread stands back, so that nobody has to wake anybody.

A stream that breaks is opened again after a jittered pause, and what was not confirmed is sent again,
in order; the broker knows messages by their id, so nothing doubles. Who waits is never left hanging:
after the deadline there is an OperationalError with the URL.
"""

import contextlib
import logging
import queue
import socket
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from qbroker.exceptions import OperationalError
from qbroker.http2 import MIB, Code
from qbroker.link import CONNECT_S, CallEnded, Link, Place, connect
from qbroker_proto.v1.control_pb2 import Event, SendEventsReply, SendEventsRequest
from qbroker_proto.v1.producer_pb2 import (
    REFUSAL_CODE_DAMAGED,
    Existing,
    PublishReply,
    PublishRequest,
    Refusal,
)
from qbroker_proto.v1.results_pb2 import TaskState, WatchReply, WatchRequest

_log = logging.getLogger(__name__)

BATCH_COUNT_MAX = 1_000
"""How many messages one request carries."""
BATCH_BYTES_MAX = 2 * MIB
"""How many bytes of messages one request carries; a single larger message goes alone."""
REQUESTS_IN_FLIGHT_MAX = 2
"""How many requests a stream may have unanswered. What is published meanwhile leaves together: with more, each
of many threads would cost the broker a commit of its own."""

_PAUSE_FIRST_S = 0.05
_PAUSE_MAX_S = 0.5
_ALONE_COUNT = 8
"""After so many replies in a row that left nobody waiting, who waits next may read his reply himself."""
_STAND_BACK_S = 0.05
"""How long the reading thread stands back at a time; it reads again when nobody came meanwhile."""
_FINAL_CODES = frozenset(
    {Code.UNIMPLEMENTED, Code.INVALID_ARGUMENT, Code.UNAUTHENTICATED, Code.PERMISSION_DENIED}
)
"""Trying again does not help with these."""

Verdict = Refusal | Existing
"""Why a message was not stored, with its place as `index`."""


class Lane(ABC):
    """One stream.

    What must reach the broker is kept by the subclass, and put into a new inbox for each stream; so what
    a broken stream swallowed needs no thought.
    """

    path: str
    """The method of the broker."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._inbox: deque[object] = deque()
        # How many requests may be sent before one is answered.
        self._permits = 0
        self._thread: threading.Thread | None = None
        # The stream that is open.
        self._link: Link | None = None
        self._opening: socket.socket | None = None
        """The socket of the newest connection, also while it is made."""
        self._trouble = ""
        self._pause_s = _PAUSE_FIRST_S
        self._broken_s: float | None = None
        # Held by who reads.
        self._reading = threading.Lock()
        self._alone_count = 0
        self._stands_back = False
        self._was_led = False
        # The caller's thread that reads.
        self._leader = 0
        self._called_back = threading.Event()
        self._reply_count = 0

    @abstractmethod
    def _outstanding(self) -> Iterable[object]:
        """What a new stream must carry first."""

    @abstractmethod
    def _pack(self) -> tuple[bytes, bool]:
        """A request of what waits in the inbox, and whether its answer is to be waited for."""

    @abstractmethod
    def _receive(self, reply: bytes) -> None:
        """Take in a reply."""

    @abstractmethod
    def _is_waited_for(self) -> bool:
        """Whether a reply is to come that somebody waits for."""

    def _is_awaited(self) -> bool:
        """Whether the broker owes a word; if so, its silence is found out soon."""
        return self._is_waited_for()

    def _is_alone(self) -> bool:
        """Whether no two wait at once."""
        return not self._is_waited_for()

    @abstractmethod
    def _fail(self, error: OperationalError) -> None:
        """Tell everybody who waits that it will not be."""

    def error(self, what: str) -> OperationalError:
        """What to tell who waited in vain."""
        trouble = f": {self._trouble}" if self._trouble else ""
        return OperationalError(f"{what} {self._place.url}{trouble}")

    def _was_ignored(self, reply_count: int) -> None:
        """A deadline passed. The next try goes over a new stream, unless the broker has answered anything meanwhile.

        `reply_count` is what it was when the wait began. Nothing doubles: what is sent again has its id.
        """
        link = self._link
        if link is not None and reply_count == self._reply_count:
            link.shut(f"no answer within {self._place.timeout_s:g} s")
            self._called_back.set()

    # -- sending

    def _send(self, item: object) -> None:
        """Put an item in the inbox; the caller holds the lock."""
        self._inbox.append(item)
        if self._link is not None:
            self._flush(self._link)
        elif not self._wanted.is_set():
            if self._thread is None:
                name = f"qbroker {type(self).__name__}"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                thread.start()
                self._thread = thread
            self._wanted.set()

    def _fail_if_closed(self) -> None:
        """Tell who came after `close`, which has told the others."""
        if self._closed.is_set():
            self._fail(self._closed_error())

    def _closed_error(self) -> OperationalError:
        return OperationalError(f"the connection to {self._place.url} was closed")

    def _flush(self, link: Link) -> None:
        """Send what may be sent now; the caller holds the lock."""
        try:
            while self._inbox and self._permits:
                request, is_answered = self._pack()
                if request:
                    self._permits -= is_answered
                    link.send(request)
        except CallEnded:
            return  # who reads finds out, and what was taken is sent again
        except BaseException:
            # Raised by a signal's handler: what was taken and not sent is sent by the next stream.
            link.shut("sending was interrupted")
            raise

    def _answered(self) -> None:
        """A request was answered, so another may be sent; the caller holds the lock."""
        self._permits += 1
        if self._inbox and self._link is not None:
            self._flush(self._link)

    # -- reading

    def lead(self, is_done: Callable[[], bool], timeout_s: float | None) -> None:
        """Read replies on the caller's thread until `is_done`, if nobody else does; else return at once."""
        if not self._stands_back or not self._reading.acquire(blocking=False):
            return
        link = self._link
        try:
            self._was_led = True
            self._leader = threading.get_ident()
            monotonic = self._place.monotonic
            until_s = None if timeout_s is None else monotonic() + timeout_s
            while link is not None and not is_done():
                left_s = None if until_s is None else until_s - monotonic()
                if left_s is not None and left_s <= 0:
                    break
                self._take_in(link, left_s)
        except CallEnded:
            pass  # the stream's own thread finds out as well, and sees to it
        except BaseException:
            # Raised by a signal's handler: nobody knows what of the replies was handed out.
            if link is not None:
                link.shut("reading was interrupted")
            raise
        finally:
            self._leader = 0
            self._reading.release()
            # After the release: who begins to wait from now on can read himself.
            if self._is_waited_for() or (link is not None and not link.is_usable):
                self._called_back.set()

    def _take_in(self, link: Link, timeout_s: float | None) -> None:
        for reply in link.receive(timeout_s):
            self._pause_s, self._broken_s, self._trouble = _PAUSE_FIRST_S, None, ""
            self._reply_count += 1
            self._receive(reply)
            self._alone_count = self._alone_count + 1 if self._is_alone() else 0

    def _stand_back(self) -> None:
        """Let callers read while one alone comes and goes."""
        self._called_back.clear()
        self._stands_back = True
        while not self._closed.is_set():
            self._was_led = False
            if self._is_waited_for() and not self._reading.locked():
                break
            if self._called_back.wait(_STAND_BACK_S) or not self._was_led:
                break
        self._stands_back = False
        self._alone_count = 0

    # -- the stream's own thread

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            if self._closed.is_set():
                return
            ended = self._live()
            self._trouble = ended.details
            if self._closed.is_set():
                return
            now_s = self._place.monotonic()
            if self._broken_s is None:
                self._broken_s = now_s
            if ended.code in _FINAL_CODES or now_s - self._broken_s >= self._place.timeout_s:
                self._fail(self.error("no answer from"))
            if not self._start_over():
                # Nobody waits, so who comes next has all the time there is.
                self._pause_s, self._broken_s = _PAUSE_FIRST_S, None
            self._closed.wait(self._pause_s * self._place.chance.uniform(0.5, 1.5))
            self._pause_s = min(2 * self._pause_s, _PAUSE_MAX_S)

    def _live(self) -> CallEnded:
        """Open a stream and read until it ends; how it did."""
        try:
            link = connect(
                self._place.host,
                self._place.port,
                CONNECT_S,
                patience=self._place.patience,
                monotonic=self._place.monotonic,
                is_awaited=self._is_awaited,
                opening=self._opens,
            )
        except CallEnded as exc:
            return exc
        except Exception as exc:  # noqa: BLE001 - as below
            _log.exception("The broker at %s could not be looked for.", self._place.url)
            return CallEnded(Code.UNAVAILABLE, repr(exc))
        try:
            link.start(self.path)
            with self._lock:
                if not self._closed.is_set():
                    self._link = link
                    self._permits = REQUESTS_IN_FLIGHT_MAX
                    self._flush(link)
            while not self._closed.is_set():
                with self._reading:
                    self._take_in(link, None)
                if self._alone_count >= _ALONE_COUNT and not self._is_waited_for():
                    self._stand_back()
            return CallEnded(Code.CANCELLED, "the connection was closed")
        except CallEnded as exc:
            return exc
        except Exception as exc:  # noqa: BLE001 - logged; the thread must go on
            # Whatever it is, the next stream may do better, and who waits must not wait for ever.
            _log.exception("What the broker at %s said could not be taken in.", self._place.url)
            return CallEnded(Code.INTERNAL, repr(exc))
        finally:
            with self._lock:
                self._link = self._opening = None
            link.shut()
            with self._reading:
                link.close()

    def _opens(self, sock: socket.socket) -> None:
        """Keep a socket that is about to connect, so that `close` can end the attempt."""
        with self._lock:
            if self._closed.is_set():
                raise CallEnded(Code.CANCELLED, "the connection was closed")
            self._opening = sock

    def _start_over(self) -> bool:
        """Make ready for the next stream; whether it is wanted already."""
        with self._lock:
            if self._closed.is_set():
                # Whoever closed it has told everybody, and waits for this thread to see it.
                return False
            self._inbox = deque(self._outstanding())
            if self._inbox:
                self._wanted.set()
            else:
                self._wanted.clear()
            return bool(self._inbox)

    def close(self, patience_s: float | None = None) -> None:
        """End the stream; who still waits is told. Its thread has ended then, or had `patience_s` to do so."""
        with self._lock:
            self._closed.set()
            self._wanted.set()
            self._called_back.set()
            link, thread = self._link, self._thread
            if self._opening is not None:
                # A broker that stays silent would hold up the thread that connects. An attempt that failed
                # has closed its socket.
                with contextlib.suppress(OSError):
                    self._opening.shutdown(socket.SHUT_RDWR)
        if link is not None:
            link.shut()
        # Who reads on behalf of the stream's thread cannot wait for it.
        me = threading.get_ident()
        if thread is not None and me not in (thread.ident, self._leader):
            thread.join(patience_s)
        self._fail(self._closed_error())

    def leave(self) -> None:
        """In a forked child: let go of the parent's socket, without a word to the broker."""
        if self._link is not None:
            self._link.close()


# -- publishing ----------------------------------------------------------------------------------


class Ticket:
    """Messages on their way. `verdicts` are by their place in `messages`."""

    __slots__ = (
        "_lock",
        "_notify",
        "bytes_count",
        "error",
        "messages",
        "reply_count",
        "verdicts",
    )

    def __init__(
        self, messages: Sequence[bytes], notify: Callable[[], object] | None = None
    ) -> None:
        self.messages = messages
        self.bytes_count = sum(map(len, messages))
        self.verdicts: Sequence[Verdict] = ()
        self.error: OperationalError | None = None
        self.reply_count = -1
        """How many replies the stream had had when the ticket came."""
        self._notify = notify
        self._lock = threading.Lock()
        self._lock.acquire()

    def settle(self) -> None:
        """Wake who waits."""
        if self._lock.locked():
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


class Publisher(Lane):
    """Messages out, confirms in. Requests are answered in order, so tickets form a line."""

    path = "/qbroker.v1.Producer/Publish"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._seq = 0
        self._unconfirmed: dict[Ticket, None] = {}
        self._by_seq: dict[int, list[Ticket]] = {}

    def submit(self, ticket: Ticket) -> None:
        """Send the ticket's messages; it is settled when they are confirmed or refused."""
        with self._lock:
            self._unconfirmed[ticket] = None
            ticket.reply_count = self._reply_count
            self._send(ticket)
        self._fail_if_closed()
        if self._stands_back:
            self._called_back.set()

    def publish(self, ticket: Ticket) -> None:
        """Do the same and wait for it, but not beyond the deadline."""
        with self._lock:
            self._unconfirmed[ticket] = None
            ticket.reply_count = self._reply_count
            self._send(ticket)
        self._fail_if_closed()
        self.lead(lambda: ticket.is_settled, self._place.timeout_s)

    def abandon(self, ticket: Ticket) -> OperationalError:
        """Forget a ticket nobody waits for any more. Its messages may have arrived all the same."""
        with self._lock:
            self._unconfirmed.pop(ticket, None)
        self._was_ignored(ticket.reply_count)
        return self.error(f"no confirm within {self._place.timeout_s} s from")

    def _outstanding(self) -> Iterable[object]:
        self._by_seq = {}
        return self._unconfirmed

    def _is_waited_for(self) -> bool:
        return bool(self._unconfirmed)

    def _pack(self) -> tuple[bytes, bool]:
        inbox, unconfirmed = self._inbox, self._unconfirmed
        tickets: list[Ticket] = []
        messages: list[bytes] = []
        bytes_left = BATCH_BYTES_MAX
        while inbox and len(messages) < BATCH_COUNT_MAX and bytes_left > 0:
            ticket = inbox.popleft()
            assert isinstance(ticket, Ticket)
            if ticket in unconfirmed:
                tickets.append(ticket)
                messages.extend(ticket.messages)
                bytes_left -= ticket.bytes_count
        if not messages:
            return b"", False
        self._seq += 1
        self._by_seq[self._seq] = tickets
        return PublishRequest(seq=self._seq, messages=messages).SerializeToString(), True

    def _receive(self, reply: bytes) -> None:
        confirm = PublishReply.FromString(reply)
        with self._lock:
            tickets = self._by_seq.pop(confirm.seq, ())
            if confirm.refusals or confirm.existing:
                hand_out([*confirm.refusals, *confirm.existing], tickets)
            for ticket in tickets:
                if ticket in self._unconfirmed:
                    if any(map(_is_damaged, ticket.verdicts)):
                        # Whole: what was stored of it is known by its id.
                        ticket.verdicts = ()
                        self._inbox.append(ticket)
                        continue
                    # In this order: who is interrupted here has the ticket sent again.
                    ticket.settle()
                    self._unconfirmed.pop(ticket, None)
            self._answered()

    def _fail(self, error: OperationalError) -> None:
        with self._lock:
            tickets = list(self._unconfirmed)
            self._unconfirmed.clear()
        for ticket in tickets:
            ticket.error = error
            ticket.settle()


def _is_damaged(verdict: Verdict) -> bool:
    """Whether the message's bytes were damaged on the way, so that it is sent again."""
    return isinstance(verdict, Refusal) and verdict.code == REFUSAL_CODE_DAMAGED


def hand_out(verdicts: Iterable[Verdict], tickets: Iterable[Ticket]) -> None:
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


# -- results -------------------------------------------------------------------------------------

Answer = TaskState | OperationalError


class Subscription:
    """A task somebody wants to hear of. `tell` is called on the thread that reads, and must not block."""

    __slots__ = ("id", "is_end_only", "is_once", "tell")

    def __init__(
        self,
        task_id: str,
        tell: Callable[[Answer], object],
        *,
        is_once: bool,
        is_end_only: bool = False,
    ) -> None:
        # Fails here for text that UTF-8 cannot encode, and not later on the thread that writes for all.
        task_id.encode()
        self.id = task_id
        self.tell = tell
        self.is_once = is_once
        self.is_end_only = is_end_only


class Watcher(Lane):
    """Ids out, states in."""

    path = "/qbroker.v1.Results/Watch"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._subscriptions: dict[str, list[Subscription]] = {}

    def subscribe(
        self, subscriptions: Sequence[Subscription], *, is_waited_for: bool = False
    ) -> None:
        """Tell of these tasks now, and, unless once, of all that follows; in as few requests as they fit.

        Who says that he waits for it calls `next_answer` then.
        """
        if not subscriptions:
            return
        with self._lock:
            for subscription in subscriptions:
                self._subscriptions.setdefault(subscription.id, []).append(subscription)
            self._inbox.extend(subscriptions[:-1])
            self._send(subscriptions[-1])
        self._fail_if_closed()
        if self._stands_back and not is_waited_for:
            self._called_back.set()

    def unsubscribe(self, subscription: Subscription) -> None:
        """Tell of it no more."""
        with self._lock:
            waiting = self._subscriptions.get(subscription.id)
            if waiting is None or subscription not in waiting:
                return
            waiting.remove(subscription)
            if not waiting:
                del self._subscriptions[subscription.id]
                if self._link is not None:
                    self._send(subscription.id)

    def give_up(
        self, subscriptions: Iterable[Subscription], reply_count: int | None = None
    ) -> None:
        """Tell of them no more, for no answer came in time.

        With `reply_count`, the stream's from before the wait, a stream without a reply since is replaced.
        """
        for subscription in subscriptions:
            self.unsubscribe(subscription)
        if reply_count is not None:
            self._was_ignored(reply_count)

    @property
    def reply_count(self) -> int:
        """How many replies have come."""
        return self._reply_count

    def next_answer(self, answers: "queue.SimpleQueue[Answer]", timeout_s: float | None) -> Answer:
        """What a subscription put there. Raises queue.Empty when the time is over."""
        until_s = None if timeout_s is None else self._place.monotonic() + timeout_s
        self.lead(lambda: not answers.empty(), timeout_s)
        left_s = None if until_s is None else max(until_s - self._place.monotonic(), 0)
        return answers.get(timeout=left_s)

    def _outstanding(self) -> Iterable[object]:
        return [waiting[0] for waiting in self._subscriptions.values()]

    def _is_waited_for(self) -> bool:
        return bool(self._subscriptions)

    def _is_alone(self) -> bool:
        return len(self._subscriptions) <= 1

    def _pack(self) -> tuple[bytes, bool]:
        request = WatchRequest()
        inbox = self._inbox
        for _ in range(min(len(inbox), BATCH_COUNT_MAX)):
            item = inbox.popleft()
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
        # States come when they come, for several requests at once.
        return request.SerializeToString(), False

    def _receive(self, reply: bytes) -> None:
        for state in WatchReply.FromString(reply).states:
            with self._lock:
                told = list(self._subscriptions.get(state.id, ()))
            # In this order: who is interrupted here is told again.
            for subscription in told:
                subscription.tell(state)
            with self._lock:
                staying = [
                    subscription
                    for subscription in self._subscriptions.get(state.id, ())
                    if subscription not in told or not (state.is_final or subscription.is_once)
                ]
                if staying:
                    self._subscriptions[state.id] = staying
                else:
                    self._subscriptions.pop(state.id, None)

    def _fail(self, error: OperationalError) -> None:
        with self._lock:
            told = [one for waiting in self._subscriptions.values() for one in waiting]
            self._subscriptions.clear()
        for subscription in told:
            subscription.tell(error)


# -- events --------------------------------------------------------------------------------------

_EVENTS_WAITING_MAX = 10_000


class Teller(Lane):
    """Events out. Nobody waits for them: what a broken stream swallows is lost, and so is what is too much."""

    path = "/qbroker.v1.Control/SendEvents"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        # Until the broker says otherwise.
        self._is_wanted = True

    def tell(self, event: Event) -> None:
        """Send an event, if anybody listens."""
        with self._lock:
            if self._thread is not None and not self._is_wanted:
                return
            is_held_up = self._link is not None and self._link.is_held_up
            if len(self._inbox) < _EVENTS_WAITING_MAX and not is_held_up:
                self._send(event)

    def _outstanding(self) -> Iterable[object]:
        self._is_wanted = True
        return ()

    def _is_waited_for(self) -> bool:
        # So that its thread always reads.
        return True

    def _is_awaited(self) -> bool:
        # Events are not answered; a link that says nothing after one is seen to all the same.
        return False

    def _pack(self) -> tuple[bytes, bool]:
        events: list[Event] = []
        while self._inbox and len(events) < BATCH_COUNT_MAX:
            event = self._inbox.popleft()
            assert isinstance(event, Event)
            events.append(event)
        return SendEventsRequest(events=events).SerializeToString(), False

    def _receive(self, reply: bytes) -> None:
        self._is_wanted = SendEventsReply.FromString(reply).is_wanted

    def _fail(self, error: OperationalError) -> None:
        _log.debug("events were lost: %s", error)
