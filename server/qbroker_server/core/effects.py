"""What a step did that others must know, and the sums it keeps until it ends.

A command tells its `Effects`; after the commit the broker tells the world. Counters are summed here
and written once a step, so a thousand messages cost one write of their queue's record.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qbroker_server.core import keys
from qbroker_server.core.errors import CorruptRecord, ResourceFull
from qbroker_server.core.limits import MIB, STEP_ITEMS_MAX
from qbroker_server.core.ports import ReadTxn, Txn
from qbroker_server.core.records import (
    QueueOptions,
    QueueRecord,
    Record,
    decode_queue,
    encode_queue,
)
from qbroker_server.core.routes import Table, unbind_queues

_RETRY_AFTER_MS = 5_000
"""A full disk is seldom emptied faster."""

_ROW_BYTES = 1024
"""What a message occupies beside its payload, about, with its rows in indexes."""

_GROWTH = 2
"""How much a payload may occupy, per byte: a page holds one row of a little more than half of it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What applies where a message says nothing. Times in milliseconds."""

    result_ttl_ms: int = 24 * 3600 * 1000
    """How long a result is kept. Default: one day."""
    memory_ms: int = 15 * 60 * 1000
    """How long the id of a message without a result is remembered, so that publishing it again is a no-op. Default: 15 minutes."""
    deaths_max: int = 5
    """At how many worker deaths a late-acknowledged message is given up. Default: 5."""
    reserve_bytes: int = 64 * MIB
    """Room on the disk that publishing leaves to settles, deletes and control. Default: 64 MiB."""


@dataclass(slots=True)
class SessionOpened:
    """A worker's session began, or resumed on a new stream."""

    id: str
    name: str
    queues: Sequence[str]
    tasks: frozenset[str]
    prefetch_count: int
    leased_count: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """A worker is to end what it has on this lease."""

    session: str
    id: str
    attempt: int
    is_terminated: bool
    """End it even if it runs."""
    signal: str


@dataclass(slots=True)
class Ended:
    """A message of a workflow, or one with errbacks, that has ended in this step."""

    id: str
    record: Record
    state: str
    result: bytes
    detail: str
    message: bytes
    """The message itself, where an errback is to be told of it."""
    is_success: bool
    is_loud: bool
    """Its errbacks run."""
    is_buried: bool
    """It is a dead letter: it may come back."""
    cause: object | None
    """Why it failed, when that was another message's end (joins.py)."""


class Effects:
    """What the commands of one step have done."""

    __slots__ = (
        "_changed_queues",
        "_queues",
        "_unbound",
        "came",
        "cancels",
        "changed",
        "closed",
        "commits_first",
        "consuming",
        "copied_count",
        "damaged",
        "draining",
        "ended",
        "freed",
        "freed_limits",
        "is_consumed",
        "joins",
        "knowing",
        "lanes",
        "next_ms",
        "opened",
        "options",
        "policy",
        "prefetch",
        "ready",
        "removed_queues",
        "room_bytes",
        "routes",
        "unwanted",
        "went",
        "worker_name",
        "workflows",
    )

    def __init__(
        self,
        policy: Policy,
        room_bytes: int,
        is_consumed: Callable[[str], bool] = lambda _: False,
        routes: Table | None = None,
        worker_name: Callable[[str], str] = str,
    ) -> None:
        self.policy = policy
        self.routes = Table() if routes is None else routes
        """Which queues a message goes to."""
        self.commits_first = False
        """What came in is to be on disk before any of it is given out: the next step dispatches."""
        self.is_consumed = is_consumed
        """Whether a connected worker takes from the queue."""
        self.worker_name = worker_name
        """The name of the worker whose session it is; the session's own, where nobody knows."""
        self.room_bytes = room_bytes
        """How much more can be stored before the disk is full; `take_room` counts it down."""
        self.changed: dict[str, Record] = {}
        """Messages that started or ended, as they are now."""
        self.ready: set[str] = set()
        """Queues that got messages to deliver."""
        self.freed: dict[str, int] = {}
        """Leases that ended, by session."""
        self.freed_limits: list[str] = []
        """Keys of the limits that those leases were under."""
        self.lanes: dict[tuple[str, bytes], Record] = {}
        """Lanes beside the plain one that got a message, with one such, by queue and lane."""
        self.options: dict[str, QueueOptions] = {}
        """Queues whose options changed."""
        self.removed_queues: set[str] = set()
        """Queues that were removed; each may have been made again since."""
        self.copied_count = 0
        """Copies that were stored of messages that several queues take; no command's cost tells of them."""
        self.came: dict[str, int] = {}
        """Messages published, by queue."""
        self.went: dict[str, int] = {}
        """Messages that ended, by queue."""
        self.ended: deque[Ended] = deque()
        """What `joins.resolve` has to carry on."""
        self.joins: object | None = None
        """The joins that the step touches (joins.py)."""
        self.workflows: dict[str, object | None] = {}
        """The workflows that the step touches (workflows.py)."""
        self.cancels: list[Cancel] = []
        """Leases that were revoked: their workers must be told."""
        self.opened: list[SessionOpened] = []
        self.closed: list[str] = []
        self.draining: list[str] = []
        self.consuming: dict[str, tuple[str, ...]] = {}
        """Which queues a session takes from, from now on."""
        self.knowing: dict[str, frozenset[str]] = {}
        """Which tasks a session knows, from now on."""
        self.prefetch: dict[str, int] = {}
        self.unwanted: dict[str, frozenset[str]] = {}
        """By session: the tasks of which it wants none for now."""
        self.damaged: list[str] = []
        """What was found damaged and put aside, a sentence each."""
        self.next_ms: int | None = None
        """The earliest time at which something of this step wants to be looked at."""
        self._queues: dict[str, QueueRecord] = {}
        self._changed_queues: set[str] = set()
        self._unbound: set[str] = set()

    def queue(self, txn: ReadTxn, name: str) -> QueueRecord:
        """The queue's record with the sums of this step, to look at; an empty one when there is no queue.

        A command that is refused may read any queue: that creates none. To change it, call `queue_to_change`.
        """
        record = self._queues.get(name)
        if record is None:
            key = keys.QUEUE + name.encode()
            raw = txn.get(key)
            try:
                record = decode_queue(key, raw) if raw else QueueRecord()
            except CorruptRecord as error:
                # It only counts: the messages are all there.
                self.damaged.append(str(error))
                record = QueueRecord(last_seq=_last_seq(txn, name))
                # Its messages must not be numbered anew at each start.
                self._changed_queues.add(name)
            self._queues[name] = record
        return record

    def queue_to_change(self, txn: ReadTxn, name: str) -> QueueRecord:
        """The queue's record with the sums of this step; change it in place, `flush` writes it.

        This creates the queue, so a command calls it only when nothing can refuse it any more.
        """
        self._changed_queues.add(name)
        return self.queue(txn, name)

    def free(self, session: str, record: Record | None = None) -> None:
        """A lease of the session ended, of a message like `record` where that is known."""
        self.freed[session] = self.freed.get(session, 0) + 1
        if record is not None and record.extras is not None:
            self.freed_limits += [limit.key for limit in record.extras.limits]

    def remove_queue(self, txn: Txn, name: str) -> None:
        """Remove the queue's record now: a later command of this step may make the queue again."""
        txn.delete(keys.QUEUE + name.encode())
        self.removed_queues.add(name)
        self._unbound.add(name)
        self._queues.pop(name, None)
        self._changed_queues.discard(name)
        self.options.pop(name, None)

    def unbind_removed(self, txn: Txn) -> None:
        """Delete the bindings of the queues that were removed, before any is added and at the end of the step."""
        if self._unbound:
            unbind_queues(txn, self.routes, self._unbound)
            self._unbound.clear()

    def take_room(self, row_count: int, size: int) -> None:
        """Account for rows that are to be stored, `size` bytes in all; ResourceFull when the reserve would have to pay for them."""
        if self.room_bytes < self.policy.reserve_bytes or self.room_bytes <= 0:
            raise ResourceFull(
                f"the broker's disk is nearly full: {self.room_bytes} bytes are left, and publishing leaves "
                f"{self.policy.reserve_bytes} (reserve_bytes) so that running tasks can end. "
                "Free some space, or let workers empty the queues",
                retry_after_ms=_RETRY_AFTER_MS,
            )
        self.room_bytes -= _ROW_BYTES * row_count + _GROWTH * size

    def flush(self, txn: Txn) -> None:
        """Write the queues' records; the last thing a step does."""
        self.unbind_removed(txn)
        for name, record in self._queues.items():
            if name in self._changed_queues:
                txn.put(keys.QUEUE + name.encode(), encode_queue(record))


def _last_seq(txn: ReadTxn, name: str) -> int:
    """The greatest number of the queue's waiting messages, which the next one must not overwrite."""
    start = every = keys.READY + name.encode() + b"\x00"
    last_seq = 0
    while rows := txn.scan(start, keys.after(every), STEP_ITEMS_MAX):
        numbers = [keys.U64.unpack(key[-keys.U64.size :])[0] for key, _ in rows]
        last_seq = max(last_seq, *numbers)
        start = rows[-1][0] + b"\x00"
    return last_seq
