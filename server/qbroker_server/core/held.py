"""What is with a worker unstarted, what waits for its time, and what was revoked: Celery's `reserved`, `scheduled` and `revoked`.

The store knows all three, so no worker has to be asked, and a worker that does not answer has them shown all the same.
"""

from collections.abc import Iterator
from typing import NamedTuple

from qbroker_server.core import keys, lease, limits, message, payloads, timetable
from qbroker_server.core.errors import CorruptRecord
from qbroker_server.core.ports import ReadTxn
from qbroker_server.core.records import EndReason, Flag, Record, Stage

LOOK_MAX = 1_000
"""Rows one look covers; the caller goes on behind the last."""

_KIND_AT = len(keys.TIME) + 8


class Held(NamedTuple):
    """A message, its record and its bytes."""

    id: str
    record: Record
    payload: bytes


def reserved(txn: ReadTxn, session: str) -> Iterator[Held]:
    """What the session has on lease and has not said that it started."""
    after_id = ""
    while leases := lease.held(txn, session, after_id):
        after_id = leases[-1].id
        for one in leases:
            if found := _find(txn, one.id, Stage.LEASED):
                yield found
        if len(leases) < limits.STEP_ITEMS_MAX:
            return


def scheduled(txn: ReadTxn) -> Iterator[Held]:
    """What waits for its time, the next first, up to `LOOK_MAX` messages."""
    seen: set[str] = set()
    for key, _ in txn.scan(keys.TIME, keys.after(keys.TIME), LOOK_MAX):
        message_id = _id_of(key, timetable.DUE)
        # A message that was rescheduled has an old row besides.
        if message_id and message_id not in seen:
            seen.add(message_id)
            if found := _find(txn, message_id, Stage.SCHEDULED):
                yield found


def revoked(txn: ReadTxn, after: bytes = b"") -> tuple[list[str], bytes]:
    """Ids of revoked messages that are not forgotten, and what to go on behind; b"" when that was all."""
    start = after + b"\x00" if after else keys.TIME
    rows = txn.scan(start, keys.after(keys.TIME), LOOK_MAX)
    ids: list[str] = []
    for key, _ in rows:
        message_id = _id_of(key, timetable.FORGET)
        record = _peek(txn, message_id) if message_id else None
        if (
            record is not None
            and record.stage == Stage.DONE
            and record.end_reason == EndReason.REVOKED
        ):
            ids.append(message_id)
    return ids, rows[-1][0] if len(rows) == LOOK_MAX else b""


def is_redelivered(record: Record) -> bool:
    """Whether a worker had it before and died or gave it back started."""
    return bool(record.flags & Flag.REDELIVERED)


def _id_of(key: bytes, kind: bytes) -> str:
    if key[_KIND_AT : _KIND_AT + 1] != kind:
        return ""
    return key[_KIND_AT + 1 :].decode("utf-8", "replace")


def _find(txn: ReadTxn, message_id: str, stage: Stage) -> Held | None:
    record = _peek(txn, message_id)
    if record is None or record.stage != stage:
        return None
    try:
        return Held(message_id, record, payloads.read(txn, message_id, record))
    except CorruptRecord:
        return None


def _peek(txn: ReadTxn, message_id: str) -> Record | None:
    try:
        return message.peek(txn, message_id)
    except CorruptRecord:
        return None
