"""What happens when a time comes: a scheduled message is due, a waiting one expires, an ended one is forgotten."""

from dataclasses import dataclass

from qbroker_server.core import message, payloads, queue, results, timetable
from qbroker_server.core.effects import Effects
from qbroker_server.core.ports import Txn
from qbroker_server.core.records import EndReason, Record, Stage


@dataclass(frozen=True, slots=True)
class Sweep:
    """Do what is due, up to `limit` rows of the time index; answers whether there may be more."""

    limit: int = 1_000

    @property
    def cost(self) -> tuple[int, int]:
        return self.limit, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> bool:
        rows = timetable.due(txn, now_ms, self.limit)
        for key, at_ms, kind, message_id in rows:
            txn.delete(key)
            record = message.find(txn, message_id, effects)
            if record is None:
                continue
            if kind == timetable.DUE:
                _deliver(txn, message_id, record, at_ms, effects)
            elif kind == timetable.EXPIRES:
                _expire(txn, message_id, record, at_ms, now_ms, effects)
            elif kind == timetable.FORGET:
                _forget(txn, message_id, record, at_ms, effects)
        return len(rows) == self.limit


def _deliver(txn: Txn, message_id: str, record: Record, at_ms: int, effects: Effects) -> None:
    if record.stage != Stage.SCHEDULED or record.eta_ms != at_ms:
        return
    # It arrives now: among equals it stands behind what was there before it was due.
    counts = effects.queue(txn, record.queue)
    counts.last_seq += 1
    record.seq = counts.last_seq
    counts.scheduled_count -= 1
    queue.enqueue(txn, message_id, record, effects)


def _expire(
    txn: Txn, message_id: str, record: Record, at_ms: int, now_ms: int, effects: Effects
) -> None:
    if record.expires_ms != at_ms:
        return
    if record.stage == Stage.QUEUED:
        queue.remove(txn, record, effects)
    elif record.stage == Stage.SCHEDULED:
        effects.queue(txn, record.queue).scheduled_count -= 1
    else:
        # A worker has it: it looks at `expires` itself before it starts the task.
        return
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


def _forget(txn: Txn, message_id: str, record: Record, at_ms: int, effects: Effects) -> None:
    if record.stage != Stage.DONE:
        return
    forget_at = results.forget_ms(record, effects.policy)
    if forget_at is None:
        return
    if forget_at > at_ms:
        # Of an earlier life of the id, or the setting has changed since.
        timetable.remind(txn, forget_at, timetable.FORGET, message_id, effects)
        return
    payloads.detach(txn, message_id, record)
    txn.delete(message.key_of(message_id))
