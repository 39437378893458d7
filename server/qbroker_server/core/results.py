"""How a message ends, and how long what is left of it is kept.

The record that said where the message was says from now on how it ended; its payload becomes the
result. When nothing is to be kept a bare record stays for a while all the same, so that a
publisher who never saw the confirm and sends the message again does not have it run twice.
"""

from dataclasses import dataclass

from qbroker_server.core import index, limits, message, payloads, timetable, unique
from qbroker_server.core.effects import Effects, Ended, Policy
from qbroker_server.core.errors import Conflict, CorruptRecord, Invalid
from qbroker_server.core.names import check_name
from qbroker_server.core.ports import Txn
from qbroker_server.core.records import EndReason, Flag, Record, Stage

_ENDS = frozenset({"SUCCESS", "FAILURE", "REVOKED", "IGNORED", "REJECTED"})
"""States in which nothing more is expected; all others are on the way."""

_OWN_FAILURES = frozenset(
    {
        EndReason.NONE,
        EndReason.SETTLED,
        EndReason.WORKER_LOST,
        EndReason.MAX_DELIVERIES,
        EndReason.REJECTED,
    }
)
"""What a task fails of by itself; others were kept from running."""


def forget_ms(record: Record, policy: Policy) -> int | None:
    """When what is kept of an ended message is forgotten; None: never."""
    # A key that is taken for a time is taken by this record.
    least_ms = record.extras.unique_until_ms if record.extras else 0
    if record.flags & Flag.NOTHING_KEPT:
        return max(least_ms, record.changed_ms + policy.memory_ms)
    if record.result_ttl_ms < 0:
        return None
    return max(least_ms, record.changed_ms + (record.result_ttl_ms or policy.result_ttl_ms))


def end(
    txn: Txn,
    message_id: str,
    record: Record,
    now_ms: int,
    effects: Effects,
    *,
    reason: EndReason,
    state: str,
    result: bytes = b"",
    detail: str = "",
    line: str = "",
    cause: object | None = None,
    is_loud: bool | None = None,
) -> None:
    """Make `record`, which stands in no queue and is leased to nobody now, the record of an ended message.

    `line` says how it ended where `detail` is not kept. `cause` and `is_loud` are for joins.py.
    """
    record.end_reason = reason
    note_end(
        txn,
        message_id,
        record,
        effects,
        state=state,
        result=result,
        detail=detail or line,
        cause=cause,
        is_loud=is_loud,
    )
    _let_go(txn, message_id, record)
    payload_bytes = len(record.payload)
    is_kept = state not in ("", "SUCCESS") if record.flags & Flag.IGNORE_RESULT else state != ""
    if record.flags & Flag.IGNORE_RESULT and not record.flags & Flag.STORE_ERRORS:
        is_kept = False
    if state not in ("", "SUCCESS") and record.extras is not None and record.extras.workflow_id:
        # It can be tried again with its workflow, so it stays whole.
        record.flags |= Flag.PAYLOAD_KEPT
        if is_kept and result:
            payloads.put_status(txn, message_id, record, result)
    elif is_kept:
        payloads.attach(txn, message_id, record, result)
    else:
        payloads.detach(txn, message_id, record)
    if not is_kept:
        record.flags |= Flag.NOTHING_KEPT
    record.stage = Stage.DONE
    record.state = state
    record.detail = detail[: 2**16 - 1] if is_kept else ""
    record.changed_ms = now_ms
    record.lane = b""
    message.save_shrunk(txn, message_id, record, payload_bytes - len(record.payload))
    forget_at = forget_ms(record, effects.policy)
    if forget_at is not None:
        timetable.remind(txn, forget_at, timetable.FORGET, message_id, effects)
    effects.changed[message_id] = record
    effects.went[record.queue] = effects.went.get(record.queue, 0) + 1


def note_end(
    txn: Txn,
    message_id: str,
    record: Record,
    effects: Effects,
    *,
    state: str,
    result: bytes,
    detail: str,
    cause: object | None = None,
    is_loud: bool | None = None,
    is_buried: bool = False,
) -> None:
    """Tell of the end of a message that others may wait for, before its payload is gone."""
    extras = record.extras
    has_errbacks = record.flags & (Flag.HAS_ERRBACKS | Flag.IS_ERRBACK)
    if not has_errbacks and (
        extras is None or not (extras.place or extras.wait or extras.workflow_id)
    ):
        return
    if is_loud is None:
        is_loud = state == "FAILURE" and record.end_reason in _OWN_FAILURES
    raw = b""
    if is_loud and record.flags & Flag.HAS_ERRBACKS:
        try:
            raw = payloads.read(txn, message_id, record)
        except CorruptRecord as error:
            effects.damaged.append(str(error))
    effects.ended.append(
        Ended(
            message_id,
            record,
            state,
            result,
            detail,
            raw,
            is_success=state == "SUCCESS",
            is_loud=is_loud,
            is_buried=is_buried,
            cause=cause,
        )
    )


def _let_go(txn: Txn, message_id: str, record: Record) -> None:
    """Nothing refers any more to a message that ends."""
    payloads.drop_status(txn, message_id, record)
    if record.extras is not None:
        unique.let_go(txn, message_id, record)
        index.end(txn, message_id, record.extras)


def _is_left(record: Record) -> bool:
    """Whether nothing is kept of a task that ended, and nobody goes by its record any more."""
    extras = record.extras
    is_alone = extras is None or not (
        extras.place or extras.wait or extras.workflow_id or extras.unique_until_ms
    )
    return is_alone and bool(record.flags & Flag.NOTHING_KEPT)


@dataclass(frozen=True, slots=True)
class Forget:
    """Keep nothing of these ended messages; answers how many there were. Others are left alone."""

    ids: tuple[str, ...]

    @property
    def cost(self) -> tuple[int, int]:
        return len(self.ids), 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> int:
        forgotten_count = 0
        for message_id in self.ids:
            record = message.find(txn, message_id, effects)
            if record is None or record.stage != Stage.DONE or record.flags & Flag.NOTHING_KEPT:
                continue
            result_bytes = len(record.payload)
            if record.flags & Flag.PAYLOAD_KEPT:
                payloads.drop_status(txn, message_id, record)
            else:
                payloads.detach(txn, message_id, record)
            record.flags |= Flag.NOTHING_KEPT
            record.state = record.detail = ""
            record.changed_ms = now_ms
            message.save_shrunk(txn, message_id, record, result_bytes - len(record.payload))
            forget_at = forget_ms(record, effects.policy)
            assert forget_at is not None, "a record without a result is not kept for ever"
            timetable.remind(txn, forget_at, timetable.FORGET, message_id, effects)
            forgotten_count += 1
        return forgotten_count


def is_on_the_way(record: Record) -> bool:
    """Whether the record keeps a state, of something that is no message here, that is no end."""
    is_kept = record.stage == Stage.DONE and not record.flags & Flag.NOTHING_KEPT
    return is_kept and not record.task and bool(record.state) and record.state not in _ENDS


def _check_state(state: str) -> None:
    if not 0 < len(state.encode()) <= limits.NAME_BYTES_MAX:
        raise Invalid(f"state {state[:60]!r} must have 1 to {limits.NAME_BYTES_MAX} bytes")


@dataclass(frozen=True, slots=True)
class Tell:
    """A message that has not ended is in this state now; answers whether it was there to be told of.

    What is told is kept until the next such word or the end, in place of the last.
    """

    id: str
    attempt: int
    """Of the run that says so; 0: anybody does."""
    state: str
    result: bytes

    @property
    def cost(self) -> tuple[int, int]:
        return 1, len(self.result)

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> bool:
        _check_state(self.state)
        if len(self.result) > limits.STATE_BYTES_MAX:
            raise Invalid(
                f"what goes with state {self.state!r} has {len(self.result)} bytes; up to "
                f"{limits.STATE_BYTES_MAX} may. Store large data elsewhere and tell where"
            )
        record = message.find(txn, self.id, effects)
        if (
            record is None
            or record.stage in (Stage.DONE, Stage.DEAD)
            or (self.attempt and record.attempt != self.attempt)
        ):
            return False
        record.state = self.state
        payloads.put_status(txn, self.id, record, self.result)
        message.save(txn, self.id, record)
        effects.changed[self.id] = record
        return True


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep a result that no task made, in place of what was kept under the id.

    A task that ended with nothing kept, as one that raised Ignore, leaves its id to whoever finishes its work.
    """

    id: str
    result: bytes
    ttl_ms: int
    """How long it is kept; 0: as long as results are."""
    state: str = "SUCCESS"
    """How what it is the result of has ended."""

    @property
    def cost(self) -> tuple[int, int]:
        return 1, len(self.result)

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> None:
        _check_state(self.state)
        check_name("task id", self.id)
        record = message.find(txn, self.id, effects)
        if record is not None and record.task and not _is_left(record):
            raise Conflict(f"{self.id!r} is the id of a task; keep the result under another")
        if (
            record is not None
            and self.state not in _ENDS
            and not (record.flags & Flag.NOTHING_KEPT or is_on_the_way(record))
        ):
            raise Conflict(f"{self.id!r} has ended as {record.state}; that stays")
        effects.take_room(*self.cost)
        if record is not None:
            payloads.detach(txn, self.id, record)
        record = message.unknown(now_ms)
        record.result_ttl_ms = self.ttl_ms
        end(
            txn,
            self.id,
            record,
            now_ms,
            effects,
            reason=EndReason.SETTLED,
            state=self.state,
            result=self.result,
        )
