"""What happens when a time comes: a message is due, expires, or is forgotten; an entry fires (periodic.py)."""

from dataclasses import dataclass

from qbroker_server.core import (
    joins,
    message,
    periodic,
    queue,
    results,
    timetable,
    workflows,
)
from qbroker_server.core.effects import Effects
from qbroker_server.core.errors import Conflict, Invalid, NotFound
from qbroker_server.core.ports import Txn
from qbroker_server.core.records import Record, Stage

PERIODIC_PER_STEP_MAX = 500
"""How many entries one step looks at."""

CROWD_MIN = 100
"""So many entries that fire together are on disk, and so fired, before the first of their messages is given out."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Do what is due, up to `limit` rows of the time index; answers whether there may be more."""

    limit: int = 1_000
    almanac: periodic.Almanac | None = None
    """What periodic entries need; None where there are none."""

    @property
    def cost(self) -> tuple[int, int]:
        return self.limit, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> bool:
        rows = timetable.due(txn, now_ms, self.limit)
        periodic_count = 0
        for key, at_ms, kind, message_id in rows:
            if kind == timetable.PERIODIC:
                periodic_count += 1
                if periodic_count > PERIODIC_PER_STEP_MAX:
                    return True
                effects.commits_first = periodic_count >= CROWD_MIN
            txn.delete(key)
            if kind == timetable.IDLE:
                queue.look_at_idle(txn, message_id, now_ms, effects)
                continue
            if kind == timetable.PERIODIC:
                assert self.almanac is not None, "a store with entries is swept with an almanac"
                periodic.look_at(txn, message_id, now_ms, effects, self.almanac)
                continue
            if kind == timetable.JOIN:
                joins.look_at(txn, message_id, now_ms, effects)
                continue
            if kind == timetable.WORKFLOW:
                workflows.look_at(txn, message_id, now_ms, effects)
                continue
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
        # It was rescheduled, revoked or run since: another reminder tells of that.
        return
    # It arrives now: among equals it stands behind what was there before it was due.
    effects.queue_to_change(txn, record.queue).scheduled_count -= 1
    queue.enqueue(txn, message_id, record, effects)


def _expire(
    txn: Txn, message_id: str, record: Record, at_ms: int, now_ms: int, effects: Effects
) -> None:
    if record.expires_ms != at_ms:
        return
    if record.stage == Stage.QUEUED:
        queue.remove(txn, record, effects)
    elif record.stage == Stage.SCHEDULED:
        effects.queue_to_change(txn, record.queue).scheduled_count -= 1
    elif record.stage != Stage.WAITING:
        # A worker has it: it looks at `expires` itself before it starts the task.
        return
    queue.expire(txn, message_id, record, now_ms, effects)


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
    joins.erase(txn, message_id, record, effects)


@dataclass(frozen=True, slots=True)
class Reschedule:
    """Have a waiting message due at another time; Conflict says where it is when it waits no more."""

    id: str
    eta_ms: int

    @property
    def cost(self) -> tuple[int, int]:
        return 1, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> None:
        record = message.find(txn, self.id, effects)
        if record is None:
            raise NotFound(f"there is no message {self.id!r}")
        if not 0 <= self.eta_ms < 2**62:
            raise Invalid(f"eta {self.eta_ms!r} is not a Unix time in milliseconds")
        if record.stage == Stage.QUEUED:
            queue.remove(txn, record, effects)
        elif record.stage == Stage.SCHEDULED:
            effects.queue_to_change(txn, record.queue).scheduled_count -= 1
        elif record.stage == Stage.WAITING:
            raise Conflict(
                f"message {self.id!r} waits for others of its workflow; it can be given another time when they have ended"
            )
        else:
            raise Conflict(
                f"message {self.id!r} does not wait any more: it is {Stage(record.stage).name.lower()}"
            )
        record.eta_ms = self.eta_ms
        record.changed_ms = now_ms
        queue.arrive(txn, self.id, record, now_ms, effects)
