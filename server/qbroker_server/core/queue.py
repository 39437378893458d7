"""A queue: what may be delivered, in order, how many messages it has by stage, and what was declared of it.

    q <queue> 0 <lane> <9 - priority> <seq>  → id

A queue is a set of lanes, each in order of priority, then arrival. Nearly every message stands in
the plain lane. One that is under limits or has a fairness key stands in the lane of its limits and key. One
whose task none of the workers with room knows is parked, when it reaches the head, in the lane of its task's
name. So a lane waits as a whole, and what waits is never scanned past; lanes come and go with
their messages.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from itertools import islice

from qbroker_server.core import keys, message, results, timetable
from qbroker_server.core.effects import Effects
from qbroker_server.core.errors import (
    Conflict,
    CorruptRecord,
    Invalid,
    NotFound,
    ResourceFull,
)
from qbroker_server.core.limits import PRIORITY_MAX, STEP_ITEMS_MAX, TEXT_BYTES_MAX
from qbroker_server.core.names import check_name
from qbroker_server.core.ports import ReadTxn, Txn
from qbroker_server.core.records import (
    EndReason,
    Extras,
    Flag,
    Overflow,
    QueueOptions,
    QueueRecord,
    Record,
    Stage,
    decode_queue,
)

_pack_place = struct.Struct(">BQ").pack

PLAIN = b"\x00"
"""The lane of messages that any worker of the queue may take at any time."""

SHARED = b"\x01"
"""What lanes of limits and fairness keys begin with."""

PARKED = b"\x02"
"""What lanes of messages that wait for a worker who knows their task begin with."""

_LANE_DIGEST_BYTES = 8

_PLACE_BYTES = 9
"""Priority and number, at the end of a ready message's key."""

_HEADS_MAX = 100
"""Lanes whose first message is looked at, where one look must be short."""


def lane_of(record: Record, *, is_parked: bool = False) -> bytes:
    """The lane the message stands in."""
    extras = record.extras
    if extras is None or not (extras.limits or extras.fairness_key):
        if not is_parked:
            return PLAIN
        names = [record.task]
    else:
        task = record.task if is_parked else ""
        names = [task, extras.fairness_key, *sorted([limit.key for limit in extras.limits])]
    digest = blake2b("\x00".join(names).encode(), digest_size=_LANE_DIGEST_BYTES).digest()
    return (PARKED if is_parked else SHARED) + digest


def stem(lane_id: bytes) -> bytes:
    """The lane itself, where `lane_id` names one of its priorities."""
    return PLAIN if lane_id.startswith(PLAIN) else lane_id


def prefix(queue: str, lane: bytes = b"") -> bytes:
    """What the keys of a queue's ready messages, or of one of its lanes, begin with."""
    return keys.READY + queue.encode() + b"\x00" + lane


def ready_key(record: Record) -> bytes:
    """Where a queued message stands."""
    place = _pack_place(PRIORITY_MAX - record.priority, record.seq)
    return keys.READY + record.queue.encode() + b"\x00" + record.lane + place


def enqueue(txn: Txn, message_id: str, record: Record, effects: Effects) -> None:
    """Put the message into its queue behind what waits there with its priority, and save it."""
    counts = effects.queue_to_change(txn, record.queue)
    counts.last_seq += 1
    record.seq = counts.last_seq
    _insert(txn, message_id, record, counts, effects)


def put_back(txn: Txn, message_id: str, record: Record, effects: Effects) -> None:
    """Put the message into its queue where it stood before, and save it.

    A queue's numbers begin anew when its record was damaged or it was made again. So the row may belong to another
    message, which must not lose it.
    """
    record.lane = lane_of(record)
    if txn.get(ready_key(record)) is not None:
        enqueue(txn, message_id, record, effects)
        return
    counts = effects.queue_to_change(txn, record.queue)
    counts.last_seq = max(counts.last_seq, record.seq)
    _insert(txn, message_id, record, counts, effects)


def _insert(
    txn: Txn, message_id: str, record: Record, counts: QueueRecord, effects: Effects
) -> None:
    record.stage = Stage.QUEUED
    record.session = ""
    if record.extras is None:
        record.lane = PLAIN
    else:
        record.lane = lane = lane_of(record)
        if lane != PLAIN:
            effects.lanes[record.queue, lane] = record
    txn.put(ready_key(record), message_id.encode())
    message.save(txn, message_id, record)
    counts.ready_count += 1
    counts.ready_bytes += record.size
    effects.ready.add(record.queue)


def arrive(txn: Txn, message_id: str, record: Record, now_ms: int, effects: Effects) -> None:
    """Have a message that stands nowhere wait in its queue: for its time, or for a worker.

    Every way into a queue ends here (publish, errback, replacement, retry, the body of a chord, a requeued dead letter,
    a message that was moved or given another time), so that each message is under the queue's options. One that has
    expired ends instead. A message that a worker returns does not arrive: see `put_back`.
    """
    counts = effects.queue_to_change(txn, record.queue)
    options = counts.options
    if options.idle_ms:
        counts.options = options = replace(options, idle_ms=0)
    if options.message_ttl_ms or record.flags & Flag.LAPSES:
        _limit_lifetime(record, options, now_ms)
    if record.expires_ms:
        if record.expires_ms <= now_ms:
            expire(txn, message_id, record, now_ms, effects)
            return
        timetable.remind(txn, record.expires_ms, timetable.EXPIRES, message_id, effects)
    if record.eta_ms <= now_ms:
        enqueue(txn, message_id, record, effects)
        return
    record.stage = Stage.SCHEDULED
    record.session = ""
    record.lane = b""
    counts.scheduled_count += 1
    timetable.remind(txn, record.eta_ms, timetable.DUE, message_id, effects)
    message.save(txn, message_id, record)


def expire(txn: Txn, message_id: str, record: Record, now_ms: int, effects: Effects) -> None:
    """End a message that stands nowhere, because its time has passed."""
    results.end(
        txn,
        message_id,
        record,
        now_ms,
        effects,
        reason=EndReason.EXPIRED,
        state="REVOKED",
        detail="expired",
    )


def own_expires_ms(record: Record) -> int:
    """When the message expires by what its publisher said, whatever its queue says; 0: never."""
    if not record.flags & Flag.LAPSES:
        return record.expires_ms
    return record.extras.expires_ms if record.extras is not None else 0


def set_expires(record: Record, expires_ms: int) -> None:
    """Have the message expire then by what its publisher said; its queue has its say when it arrives there."""
    record.expires_ms = expires_ms
    record.flags &= ~Flag.LAPSES


def _limit_lifetime(record: Record, options: QueueOptions, now_ms: int) -> None:
    own_ms = own_expires_ms(record)
    set_expires(record, own_ms)
    if not options.message_ttl_ms:
        return
    # From when it may be delivered, as far as the queue is concerned.
    lapses_ms = max(now_ms, record.eta_ms) + options.message_ttl_ms
    if own_ms and own_ms <= lapses_ms:
        return
    record.expires_ms = lapses_ms
    record.flags |= Flag.LAPSES
    if own_ms:
        record.extras = replace(record.extras or Extras(), expires_ms=own_ms)
    elif record.extras is not None and record.extras.expires_ms:
        record.extras = replace(record.extras, expires_ms=0)


def remove(txn: Txn, record: Record, effects: Effects) -> None:
    """Take a queued message out of its queue; the caller decides what becomes of it."""
    txn.delete(ready_key(record))
    counts = effects.queue_to_change(txn, record.queue)
    counts.ready_count -= 1
    counts.ready_bytes -= record.size


def lanes(txn: ReadTxn, queue: str) -> Iterator[tuple[bytes, str]]:
    """The queue's lanes that hold messages, the plain one not counted: (lane, id of the first message)."""
    every = prefix(queue)
    start, stop = prefix(queue, SHARED), keys.after(every)
    while rows := txn.scan(start, stop, 1):
        key, raw_id = rows[0]
        lane_id = key[len(every) :][: 1 + _LANE_DIGEST_BYTES]
        yield lane_id, raw_id.decode("utf-8", "replace")
        # The greatest place a lane can have: everything after it belongs to another lane.
        start = prefix(queue, lane_id) + b"\xff" * 10


def names(txn: ReadTxn) -> list[str]:
    """The queues there are."""
    found: list[str] = []
    start = keys.QUEUE
    while rows := txn.scan(start, keys.after(keys.QUEUE), STEP_ITEMS_MAX):
        found += [key[len(keys.QUEUE) :].decode() for key, _ in rows]
        start = rows[-1][0] + b"\x00"
    return found


def counts(txn: ReadTxn, queue: str) -> QueueRecord:
    """How many messages the queue has, by stage; none when its record is damaged."""
    key = keys.QUEUE + queue.encode()
    raw = txn.get(key)
    try:
        return decode_queue(key, raw) if raw else QueueRecord()
    except CorruptRecord:
        return QueueRecord()


@dataclass(frozen=True, slots=True)
class Purge:
    """Revoke up to a step's worth of the queue's waiting messages; answers how many."""

    queue: str

    @property
    def cost(self) -> tuple[int, int]:
        return STEP_ITEMS_MAX, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> int:
        return _purge(txn, self.queue, now_ms, effects, "purged")


def _purge(txn: Txn, name: str, now_ms: int, effects: Effects, detail: str) -> int:
    start = prefix(name)
    purged_count = 0
    for key, raw_id in txn.scan(start, keys.after(start), STEP_ITEMS_MAX):
        purged_count += 1
        message_id = raw_id.decode("utf-8", "replace")
        record = message.find(txn, message_id, effects)
        if record is None or record.stage != Stage.QUEUED:
            # A row whose message was damaged and put aside.
            txn.delete(key)
            effects.queue_to_change(txn, name).ready_count -= 1
            continue
        remove(txn, record, effects)
        results.end(
            txn,
            message_id,
            record,
            now_ms,
            effects,
            reason=EndReason.REVOKED,
            state="REVOKED",
            detail=detail,
        )
    return purged_count


@dataclass(frozen=True, slots=True)
class Declare:
    """Make the queue, or give it other options; answers its options as they are then.

    Conflict when `is_new` and it has other options already.
    """

    queue: str
    options: QueueOptions
    is_new: bool = False

    @property
    def cost(self) -> tuple[int, int]:
        return 1, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> QueueOptions:
        check_name("queue name", self.queue)
        check_options(self.queue, self.options)
        record = effects.queue(txn, self.queue)
        paused = (record.options.paused_ms, record.options.paused_by, record.options.paused_why)
        wanted = replace(
            self.options,
            paused_ms=paused[0],
            paused_by=paused[1],
            paused_why=paused[2],
            idle_ms=record.options.idle_ms if self.options.expires_ms else 0,
            is_auto_delete=record.options.is_auto_delete,
        )
        exists = txn.get(keys.QUEUE + self.queue.encode()) is not None
        if self.is_new and exists and wanted != record.options:
            raise Conflict(
                f"queue {self.queue!r} exists with other options: "
                + "; ".join(_differences(record.options, wanted))
            )
        effects.queue_to_change(txn, self.queue).options = wanted
        effects.options[self.queue] = wanted
        if wanted.expires_ms:
            timetable.remind(txn, now_ms + wanted.expires_ms, timetable.IDLE, self.queue, effects)
        return wanted


def check_options(name: str, options: QueueOptions) -> None:
    """Raise Invalid, with a sentence, when an option cannot be meant."""
    for option in (
        "length_max",
        "bytes_max",
        "message_ttl_ms",
        "deaths_max",
        "expires_ms",
        "ageing_ms",
    ):
        value = getattr(options, option)
        if not 0 <= value < 2**53:
            raise Invalid(f"{option} = {value!r} of queue {name!r} is not a whole number from 0")
    if options.overflow not in tuple(Overflow):
        raise Invalid(
            f"overflow = {options.overflow!r} of queue {name!r} must be one of {', '.join(Overflow)}"
        )


def _differences(now: QueueOptions, wanted: QueueOptions) -> Iterator[str]:
    for option in fields(QueueOptions):
        old, new = getattr(now, option.name), getattr(wanted, option.name)
        if old != new:
            yield f"{option.name} is {old!r}, not {new!r}"


@dataclass(frozen=True, slots=True)
class Pause:
    """Deliver nothing of the queue until it is resumed; what workers have goes on."""

    queue: str
    by: str
    why: str

    @property
    def cost(self) -> tuple[int, int]:
        return 1, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> None:
        check_name("queue name", self.queue)
        check_name("by whom it is paused", self.by, bytes_max=TEXT_BYTES_MAX, is_optional=True)
        check_name("reason of the pause", self.why, bytes_max=TEXT_BYTES_MAX, is_optional=True)
        record = effects.queue_to_change(txn, self.queue)
        record.options = replace(
            record.options, paused_ms=now_ms, paused_by=self.by[:200], paused_why=self.why[:500]
        )
        effects.options[self.queue] = record.options


@dataclass(frozen=True, slots=True)
class Resume:
    """Deliver again; answers whether it was paused."""

    queue: str

    @property
    def cost(self) -> tuple[int, int]:
        return 1, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> bool:
        _known(txn, self.queue, effects)
        record = effects.queue_to_change(txn, self.queue)
        was_paused = bool(record.options.paused_ms)
        record.options = replace(record.options, paused_ms=0, paused_by="", paused_why="")
        effects.options[self.queue] = record.options
        return was_paused


@dataclass(frozen=True, slots=True)
class Move:
    """Put up to a step's worth of a queue's waiting messages into another; answers how many.

    They keep their priority and stand behind what is there.
    """

    source: str
    target: str

    @property
    def cost(self) -> tuple[int, int]:
        return STEP_ITEMS_MAX, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> int:
        check_name("queue name", self.target)
        if self.source == self.target:
            raise Invalid(f"queue {self.source!r} cannot be moved into itself")
        _known(txn, self.source, effects)
        start = prefix(self.source)
        moved_count = 0
        rows = txn.scan(start, keys.after(start), STEP_ITEMS_MAX)
        # In queue order, whichever lanes they stood in.
        for key, raw_id in sorted(rows, key=lambda row: row[0][-_PLACE_BYTES:]):
            moved_count += 1
            message_id = raw_id.decode("utf-8", "replace")
            record = message.find(txn, message_id, effects)
            if record is None or record.stage != Stage.QUEUED:
                txn.delete(key)
                effects.queue_to_change(txn, self.source).ready_count -= 1
                continue
            remove(txn, record, effects)
            record.queue = self.target
            record.eta_ms = min(record.eta_ms, now_ms)
            arrive(txn, message_id, record, now_ms, effects)
        return moved_count


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove an empty queue; Conflict, which says what is there, when it is not."""

    queue: str

    @property
    def cost(self) -> tuple[int, int]:
        return 1, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> None:
        record = _known(txn, self.queue, effects)
        if record.ready_count or record.leased_count or record.scheduled_count:
            raise Conflict(
                f"queue {self.queue!r} holds {record.ready_count} waiting messages, "
                f"{record.scheduled_count} scheduled, {record.leased_count} with workers; purge what waits, "
                "revoke what is scheduled, and let the rest end first"
            )
        effects.remove_queue(txn, self.queue)


def _known(txn: ReadTxn, name: str, effects: Effects) -> QueueRecord:
    if txn.get(keys.QUEUE + name.encode()) is None:
        raise NotFound(f"there is no queue {name!r}")
    return effects.queue(txn, name)


def look_at_idle(txn: Txn, name: str, now_ms: int, effects: Effects) -> None:
    """Remove a queue that expires and has been idle since the last look; else look again later."""
    if txn.get(keys.QUEUE + name.encode()) is None:
        return
    record = effects.queue(txn, name)
    options = record.options
    if not options.expires_ms:
        return
    is_idle = not (
        (record.ready_count and not options.is_auto_delete)
        or record.leased_count
        or record.scheduled_count
        or effects.is_consumed(name)
    )
    if is_idle and options.idle_ms:
        count = _purge(txn, name, now_ms, effects, f"queue {name!r} went with its last worker")
        if count < STEP_ITEMS_MAX:
            effects.remove_queue(txn, name)
        else:
            timetable.remind(txn, now_ms, timetable.IDLE, name, effects)
        return
    idle_ms = now_ms if is_idle else 0
    effects.queue_to_change(txn, name).options = replace(options, idle_ms=idle_ms)
    timetable.remind(txn, now_ms + options.expires_ms, timetable.IDLE, name, effects)


def make_room(
    txn: Txn, name: str, size: int, now_ms: int, effects: Effects
) -> ResourceFull | tuple[str, Record] | None:
    """What stands against one message more of `size` bytes: nothing, the refusal, or the message that must go."""
    counts = effects.queue(txn, name)
    options = counts.options
    is_long = options.length_max and counts.ready_count >= options.length_max
    is_large = options.bytes_max and counts.ready_bytes + size > options.bytes_max
    if not is_long and not is_large:
        return None
    if options.overflow != Overflow.REJECT and (oldest := _oldest(txn, name, effects)):
        return oldest
    holds = (
        f"{counts.ready_count} of {options.length_max} messages (max-length)"
        if is_long
        else f"{counts.ready_bytes} of {options.bytes_max} bytes (max-bytes)"
    )
    return ResourceFull(
        f"queue {name!r} is full: it holds {holds}. Raise the limit with 'qctl queue declare', or let workers empty it",
        retry_after_ms=1_000,
    )


def _oldest(txn: Txn, name: str, effects: Effects) -> tuple[str, Record] | None:
    """The first message of the lowest priority."""
    starts = [prefix(name, PLAIN) + bytes((PRIORITY_MAX - p,)) for p in range(PRIORITY_MAX + 1)]
    for start, stop in [
        *((s, keys.after(s)) for s in starts),
        (prefix(name), keys.after(prefix(name))),
    ]:
        for _, raw_id in txn.scan(start, stop, 1):
            message_id = raw_id.decode("utf-8", "replace")
            record = message.find(txn, message_id, effects)
            if record is not None and record.stage == Stage.QUEUED:
                return message_id, record
    return None


def oldest_ms(txn: ReadTxn, name: str) -> int:
    """When the first of its waiting messages was published, of any lane's head; 0 when none waits."""
    heads = [
        raw_id.decode("utf-8", "replace")
        for _, raw_id in txn.scan(prefix(name, PLAIN), prefix(name, SHARED), 1)
    ]
    heads += [message_id for _, message_id in islice(lanes(txn, name), _HEADS_MAX)]
    found = [record.published_ms for head in heads if (record := message.peek(txn, head))]
    return min(found, default=0)
