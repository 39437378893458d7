"""Dead letters: messages that were given up, kept whole for somebody to look at.

d <time given up, ms> <id>  → b""
"""

from dataclasses import dataclass

from qbroker_server.core import (
    index,
    joins,
    keys,
    message,
    payloads,
    queue,
    results,
    unique,
    workflows,
)
from qbroker_server.core.effects import Effects
from qbroker_server.core.ports import ReadTxn, Txn
from qbroker_server.core.records import EndReason, Flag, Record, Stage


def _key(died_ms: int, message_id: str) -> bytes:
    return keys.DEAD + keys.U64.pack(died_ms) + message_id.encode()


def bury(
    txn: Txn,
    message_id: str,
    record: Record,
    now_ms: int,
    effects: Effects,
    *,
    reason: EndReason,
    state: str,
    detail: str,
    result: bytes = b"",
) -> None:
    """Make a message that waits nowhere and is leased to nobody a dead letter."""
    record.end_reason = reason
    results.note_end(
        txn,
        message_id,
        record,
        effects,
        state=state,
        result=result,
        detail=detail,
        is_buried=True,
    )
    unique.let_go(txn, message_id, record)
    if record.extras is not None:
        index.end(txn, message_id, record.extras)
    payloads.drop_status(txn, message_id, record)
    if result:
        payloads.put_status(txn, message_id, record, result)
    record.stage = Stage.DEAD
    record.state = state
    record.detail = detail[:1000]
    record.changed_ms = now_ms
    record.lane = b""
    message.save(txn, message_id, record)
    txn.put(_key(now_ms, message_id), b"")
    effects.changed[message_id] = record
    effects.went[record.queue] = effects.went.get(record.queue, 0) + 1


def find(txn: ReadTxn, after: tuple[int, str] | None, limit: int) -> list[tuple[int, str]]:
    """Up to `limit` dead letters, oldest first, from behind `after`: (when given up, id)."""
    start = keys.DEAD if after is None else _key(*after) + b"\x00"
    at = len(keys.DEAD)
    return [
        (keys.U64.unpack_from(key, at)[0], key[at + 8 :].decode())
        for key, _ in txn.scan(start, keys.after(keys.DEAD), limit)
    ]


def dig(txn: Txn, message_id: str, record: Record) -> None:
    """A dead letter is none any more."""
    txn.delete(_key(record.changed_ms, message_id))
    payloads.drop_status(txn, message_id, record)


def _dig(txn: Txn, message_id: str, effects: Effects) -> Record | None:
    record = message.find(txn, message_id, effects)
    if record is None or record.stage != Stage.DEAD:
        return None
    dig(txn, message_id, record)
    return record


@dataclass(frozen=True, slots=True)
class Requeue:
    """Put dead letters into their queues again, behind what waits there; answers how many there were.

    A join that failed because of a letter stays failed: only RetryWorkflow opens it again.
    """

    ids: tuple[str, ...]

    @property
    def cost(self) -> tuple[int, int]:
        return len(self.ids), 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> int:
        requeued_count = 0
        for message_id in self.ids:
            record = _dig(txn, message_id, effects)
            if record is None:
                continue
            record.deaths = 0
            record.flags &= ~(Flag.REVOKING | Flag.TERMINATING)
            record.end_reason = EndReason.NONE
            record.state = record.detail = ""
            record.changed_ms = now_ms
            record.eta_ms = 0
            queue.set_expires(record, 0)
            if record.extras is not None:
                index.add(txn, message_id, record.extras)
                workflows.note_revival(txn, record.extras.workflow_id, now_ms, effects)
            queue.arrive(txn, message_id, record, now_ms, effects)
            requeued_count += 1
        return requeued_count


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget dead letters; answers how many there were."""

    ids: tuple[str, ...]

    @property
    def cost(self) -> tuple[int, int]:
        return len(self.ids), 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> int:
        removed_count = 0
        for message_id in self.ids:
            record = _dig(txn, message_id, effects)
            if record is not None:
                joins.erase(txn, message_id, record, effects)
                removed_count += 1
        return removed_count
