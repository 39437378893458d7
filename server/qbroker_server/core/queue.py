"""A queue: what may be delivered, in order, and how many messages it has by stage.

    q <queue> 0 <lane> <9 - priority> <seq>  → id

A queue is a set of lanes, each in order of priority, then arrival. Nearly every message stands in
the plain lane. One whose task none of the workers with room knows is moved to the lane of its task's name
when it reaches the head, so it is never scanned past again and holds nothing behind it back; a
worker that knows the task takes from that lane as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

from qbroker_server.core import keys, message, results
from qbroker_server.core.effects import Effects
from qbroker_server.core.errors import CorruptRecord
from qbroker_server.core.limits import PRIORITY_MAX, STEP_ITEMS_MAX
from qbroker_server.core.ports import ReadTxn, Txn
from qbroker_server.core.records import EndReason, QueueRecord, Record, Stage, decode_queue

PLAIN = b"\x00"
"""The lane of messages that any worker of the queue may take."""

_LANE_DIGEST_BYTES = 8


def lane_of(task: str) -> bytes:
    """The lane of messages for workers that know `task`."""
    return b"\x01" + blake2b(task.encode(), digest_size=_LANE_DIGEST_BYTES).digest()


def prefix(queue: str, lane: bytes = b"") -> bytes:
    """What the keys of a queue's ready messages, or of one of its lanes, begin with."""
    return keys.READY + queue.encode() + b"\x00" + lane


def ready_key(record: Record) -> bytes:
    """Where a queued message stands."""
    return b"".join(
        (
            prefix(record.queue, record.lane),
            bytes((PRIORITY_MAX - record.priority,)),
            keys.U64.pack(record.seq),
        )
    )


def enqueue(txn: Txn, message_id: str, record: Record, effects: Effects) -> None:
    """Put the message into its queue at the place its priority and number give it, and save it."""
    record.stage = Stage.QUEUED
    record.lane = PLAIN
    record.session = ""
    txn.put(ready_key(record), message_id.encode())
    message.save(txn, message_id, record)
    effects.queue(txn, record.queue).ready_count += 1
    effects.ready.add(record.queue)


def remove(txn: Txn, record: Record, effects: Effects) -> None:
    """Take a queued message out of its queue; the caller decides what becomes of it."""
    txn.delete(ready_key(record))
    effects.queue(txn, record.queue).ready_count -= 1


def lanes(txn: ReadTxn, queue: str) -> Iterator[bytes]:
    """The queue's lanes that hold messages, the plain one not counted."""
    start = prefix(queue, b"\x01")
    stop = keys.after(start)
    while row := txn.scan(start, stop, 1):
        key = row[0][0]
        lane = key[len(prefix(queue)) :][: 1 + _LANE_DIGEST_BYTES]
        yield lane
        # The greatest place a lane can have: everything after it belongs to another lane.
        start = prefix(queue, lane) + b"\xff" * 10


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
        start = prefix(self.queue)
        purged_count = 0
        for key, raw_id in txn.scan(start, keys.after(start), STEP_ITEMS_MAX):
            purged_count += 1
            message_id = raw_id.decode("utf-8", "replace")
            record = message.find(txn, message_id, effects)
            if record is None or record.stage != Stage.QUEUED:
                # A row whose message was damaged and put aside.
                txn.delete(key)
                effects.queue(txn, self.queue).ready_count -= 1
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
                detail="purged",
            )
        return purged_count
