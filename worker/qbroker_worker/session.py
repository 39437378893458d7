"""What this worker holds of the broker's, and what to tell the broker next; no socket.

    link up:    greet() → Hello            the first thing to say on every new link
    then:       next_request() → Request   until it answers None; again after each change
    heard:      heard(Heard) → News        what is new to run, what must not be run any more
    link down:  hang_up()

A request stays here until the broker says that its contents are on disk, and is said again on the
next link. So a settle reaches the broker however often the link breaks, and the broker ignores the
second copy by its number.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from qbroker_worker.values import Cancel, Delivery, Lease, Settle, Start

REQUEST_ITEMS_MAX = 1_000
REQUEST_BYTES_MAX = 2 * 1024 * 1024


class Hello(NamedTuple):
    """Opens the session on a link, or resumes it there with what the worker still holds."""

    prefetch_count: int
    held: tuple[Lease, ...]


class Request(NamedTuple):
    """One thing said to the broker. `seq` rises by one, from 1."""

    seq: int
    prefetch_count: int | None = None
    starts: tuple[Start, ...] = ()
    settles: tuple[Settle, ...] = ()
    releases: tuple[Lease, ...] = ()
    drain: bool = False
    leave: bool = False
    unwanted: frozenset[str] | None = None


class Heard(NamedTuple):
    """One thing the broker said."""

    is_registered: bool = False
    deliveries: Sequence[Delivery] = ()
    applied_seq: int = 0
    lost: Sequence[Lease] = ()
    cancels: Sequence[Cancel] = ()


class News(NamedTuple):
    """What the broker's words change: `fresh` is to be run, `lost` is somebody else's now, `cancelled` was revoked.

    `begun` is what `begin` was called for, and what the broker has stored the start of.
    """

    fresh: Sequence[Delivery] = ()
    lost: Sequence[Delivery] = ()
    cancelled: Sequence[tuple[Delivery, Cancel]] = ()
    begun: Sequence[Delivery] = ()


@dataclass(slots=True)
class _Wants:
    """What has yet to be said, once."""

    prefetch_count: int | None = None
    drain: bool = False
    leave: bool = False
    unwanted: frozenset[str] | None = None


class Session:
    """The worker's side of the conversation, as a table of what was said and what was heard.

    A delivery is *held* from when it is heard until its settle or release is queued here; the
    lease is *ours* until the broker has applied that, so it is named when the session resumes.
    """

    def __init__(self, prefetch_count: int) -> None:
        self._prefetch_count = prefetch_count
        self._held: dict[str, Delivery] = {}
        self._starts: dict[str, Start] = {}
        self._beginning: dict[str, Delivery] = {}
        """What is to run when its start is stored."""
        self._settles: deque[Settle] = deque()
        self._releases: deque[Lease] = deque()
        self._wants = _Wants()
        self._unwanted: frozenset[str] = frozenset()
        self._seq = 0
        self._unapplied: deque[Request] = deque()
        self._unsaid: deque[Request] = deque()
        self._is_linked = False
        self._is_draining = False
        self._is_leaving = False
        self.has_left = False
        """Nothing will be said any more."""

    # -- the link ------------------------------------------------------------------------------

    def greet(self) -> Hello:
        """Begin on a new link. What was said on the last one and not applied is said again."""
        assert not self._is_linked, "a session has one link"
        self._is_linked = True
        self._unsaid = deque(self._unapplied)
        self._wants.drain = self._is_draining
        self._wants.prefetch_count = None
        self._wants.unwanted = self._unwanted or None
        window = 0 if self._is_draining else self._prefetch_count
        return Hello(window, tuple(self._ours()))

    def _ours(self) -> Iterable[Lease]:
        for delivery in self._held.values():
            yield Lease(delivery.id, delivery.attempt)
        for settle in self._settles:
            yield Lease(settle.id, settle.attempt)
        yield from self._releases
        for request in self._unapplied:
            for settle in request.settles:
                yield Lease(settle.id, settle.attempt)
            yield from request.releases

    def hang_up(self) -> None:
        """The link is gone."""
        self._is_linked = False
        self._unsaid.clear()
        if self._is_leaving and not self._has_words(but_leave=True):
            # Only a farewell is missing, and the broken link says that too.
            self.has_left = True

    def heard(self, heard: Heard) -> News:
        """Take in what the broker said."""
        unapplied = self._unapplied
        begun: list[Delivery] = []
        while unapplied and unapplied[0].seq <= heard.applied_seq:
            request = unapplied.popleft()
            if request.leave:
                self.has_left = True
            if self._beginning:
                begun += self._begun(request)
        lost = [self._held.pop(lease.id) for lease in heard.lost if self._holds(lease)]
        held = self._held
        fresh = heard.deliveries
        if not held.keys().isdisjoint([delivery.id for delivery in fresh]):
            # A newer attempt of what is still held: the older lease ended unheard.
            fresh = [delivery for delivery in fresh if not self._holds_newest(delivery)]
            lost += [held.pop(delivery.id) for delivery in fresh if delivery.id in held]
        for delivery in fresh:
            held[delivery.id] = delivery
        for delivery in lost:
            self._forget_start(delivery)
        cancelled = [
            (held[cancel.id], cancel)
            for cancel in heard.cancels
            if self._holds(Lease(cancel.id, cancel.attempt))
        ]
        if lost and begun:
            begun = [delivery for delivery in begun if held.get(delivery.id) is delivery]
        if self._is_draining and fresh:
            self.release(fresh)
            return News(lost=lost, cancelled=cancelled, begun=begun)
        return News(fresh, lost, cancelled, begun)

    def _begun(self, request: Request) -> Iterable[Delivery]:
        """Those of which this request told the start."""
        for start in request.starts:
            delivery = self._beginning.get(start.id)
            if delivery is not None and delivery.attempt == start.attempt:
                del self._beginning[start.id]
                yield delivery

    def _holds_newest(self, delivery: Delivery) -> bool:
        held = self._held.get(delivery.id)
        return held is not None and held.attempt >= delivery.attempt

    def _holds(self, lease: Lease) -> bool:
        delivery = self._held.get(lease.id)
        return delivery is not None and delivery.attempt == lease.attempt

    # -- the work ------------------------------------------------------------------------------

    @property
    def held_count(self) -> int:
        """Deliveries without an answer yet."""
        return len(self._held)

    def find(self, id_: str) -> Delivery | None:
        """The delivery that is held under this id."""
        return self._held.get(id_)

    def held(self) -> list[Delivery]:
        """They themselves."""
        return list(self._held.values())

    @property
    def prefetch_count(self) -> int:
        """How many deliveries the broker was told may be out at once."""
        return self._prefetch_count

    @property
    def is_flushed(self) -> bool:
        """Whether all that was done is on the broker's disk."""
        return not self._has_words(but_leave=True)

    def _has_words(self, *, but_leave: bool) -> bool:
        said = self._unapplied
        if but_leave and len(said) == 1 and said[0].leave:
            said = deque()
        return bool(said or self._settles or self._releases or self._starts)

    def start(self, delivery: Delivery, pid: int) -> None:
        """The delivery runs now. Left unsaid when its settle leaves in the same request."""
        if self._held.get(delivery.id) is delivery:
            self._starts[delivery.id] = Start(delivery.id, delivery.attempt, pid)

    def begin(self, delivery: Delivery) -> None:
        """Tell of its start before it runs; `heard` says when that is on the broker's disk."""
        if self._held.get(delivery.id) is delivery:
            self._beginning[delivery.id] = delivery
            self._starts[delivery.id] = Start(delivery.id, delivery.attempt, 0)

    def _forget_start(self, delivery: Delivery) -> None:
        self._starts.pop(delivery.id, None)
        if self._beginning:
            self._beginning.pop(delivery.id, None)

    def settle(
        self,
        delivery: Delivery,
        outcome: int,
        result: bytes,
        *,
        requeue: bool = False,
        more: bytes = b"",
    ) -> bool:
        """The delivery has ended; False when its lease was lost meanwhile and nobody would listen."""
        id_ = delivery.id
        held = self._held.pop(id_, None)
        if held is not delivery:
            if held is not None:
                self._held[id_] = held
            return False
        self._forget_start(delivery)
        self._settles.append(Settle(id_, delivery.attempt, outcome, result, requeue, more))
        return True

    def amend(self, deliveries: Iterable[Delivery]) -> None:
        """These stand for those of the same lease from now on."""
        for delivery in deliveries:
            if self._holds(Lease(delivery.id, delivery.attempt)):
                self._held[delivery.id] = delivery

    def release(self, deliveries: Iterable[Delivery]) -> None:
        """Give deliveries back unstarted."""
        for delivery in deliveries:
            if self._held.get(delivery.id) is delivery:
                del self._held[delivery.id]
                self._forget_start(delivery)
                self._releases.append(Lease(delivery.id, delivery.attempt))

    def want(self, count: int, floor: int) -> None:
        """Let `count` deliveries be out at once; said when it differs materially or is `floor`."""
        now = self._prefetch_count
        if 0.8 * now <= count <= 1.25 * now and (count != floor or now == floor):
            return
        self._prefetch_count = count
        if not self._is_draining:
            self._wants.prefetch_count = count

    def refuse(self, tasks: frozenset[str]) -> None:
        """Be given none of these for now, and of all others again."""
        if tasks != self._unwanted:
            self._unwanted = self._wants.unwanted = tasks

    def drain(self) -> None:
        """Take nothing new from here on."""
        if not self._is_draining:
            self._is_draining = True
            self._wants.drain = True
            self._wants.prefetch_count = None

    def leave(self) -> None:
        """Say farewell after all else."""
        if not self._is_leaving:
            self._is_leaving = True
            self._wants.leave = True
            if not self._is_linked and self.is_flushed:
                self.has_left = True

    def next_request(self) -> Request | None:
        """The next thing to say on the link: all that piled up, within a request's limits."""
        if not self._is_linked:
            return None
        if self._unsaid:
            return self._unsaid.popleft()
        settles, settled_all = self._take_settles()
        releases = self._take_releases()
        starts = tuple(self._starts.values())
        self._starts.clear()
        wants = self._wants
        leave = wants.leave and settled_all and not self._releases
        if not (starts or settles or releases or wants.drain or leave) and (
            wants.prefetch_count is None and wants.unwanted is None
        ):
            return None
        self._seq += 1
        request = Request(
            self._seq,
            wants.prefetch_count,
            starts,
            settles,
            releases,
            wants.drain,
            leave,
            wants.unwanted,
        )
        self._wants = _Wants(leave=wants.leave and not leave)
        self._unapplied.append(request)
        return request

    def _take_settles(self) -> tuple[tuple[Settle, ...], bool]:
        waiting = self._settles
        count = bytes_ = 0
        for settle in islice(waiting, REQUEST_ITEMS_MAX):
            bytes_ += len(settle.result) + len(settle.more)
            if count and bytes_ > REQUEST_BYTES_MAX:
                break
            count += 1
        if count == len(waiting):
            taken = tuple(waiting)
            waiting.clear()
            return taken, True
        return tuple(waiting.popleft() for _ in range(count)), False

    def _take_releases(self) -> tuple[Lease, ...]:
        count = min(len(self._releases), REQUEST_ITEMS_MAX)
        return tuple(self._releases.popleft() for _ in range(count))
