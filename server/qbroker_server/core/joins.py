"""A join: what waits for several messages, and goes on, once, when the last of them has succeeded.

    j <join>            → record of the join
    g <join> 0 <index>  → the value of its member with that index, once it has one
    w <join> 0 <id>     → b""; a message that stands still until the join is complete
    e <id>              → errbacks: what is published when the message fails
    f <id>              → the failure that an errback is told of

    message ends ──▶ its place in a join ──▶ complete? ──▶ what waits goes on
                                        └──▶ failed?   ──▶ what waits fails, and so on

A link of a chain is a join of one; a group is a join of many, whose value is the list of its members' values. A
join's own value may have a place in another join, so everything nests in everything. A value that has arrived
is not taken twice, so a join counts each member once, whatever is redelivered.

Commands only note what ended (`Effects.ended`); `resolve` carries it on at the end of the step, in the same
transaction. However much waits for a join, a step carries on with a bounded part of it, and the time index
remembers the rest.
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from qbroker_server.core import (
    frame,
    index,
    keys,
    limits,
    message,
    payloads,
    queue,
    results,
    timetable,
    unique,
    workflows,
)
from qbroker_server.core.effects import Effects, Ended
from qbroker_server.core.errors import CorruptRecord
from qbroker_server.core.ports import ReadTxn, Txn
from qbroker_server.core.records import (
    EndReason,
    Flag,
    Record,
    Stage,
    decode,
    encode,
)

VERSION: Final = 1
"""Of a join's record; records.py says how to raise it."""

VALUE: Final = b"V"
"""What a message's value begins with, before its result."""

VALUES: Final = b"L"
"""What the value of a join that is a list begins with, before its members' values, each with its length."""

_CARRIED_PER_STEP_MAX = limits.STEP_ITEMS_MAX
"""Messages that wait and go on, or fail, in one step."""

_EVERY = 2**31

_BODY = struct.Struct("<IIIBIHHH")
_IS_LIST, _IS_COMPLETE, _IS_FAILED = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a join failed: how which of its members, or of theirs, ended."""

    culprit: str
    state: str
    reason: int
    detail: str
    line: str
    """The error as its type and arguments show it."""
    result: bytes
    is_loud: bool
    """Errbacks of what waits for the join run."""
    until_ms: int = 0
    """How long the failed join is kept, so that its workflow can be tried again."""


@dataclass(slots=True)
class Join:
    """A join and how far it is."""

    size: int
    is_list: bool
    place: tuple[str, int] | None = None
    """The join its value goes to, and which member of it it is."""
    entry_id: str = ""
    """The join that all its members wait for; when that one fails, no errback of what waits for this one runs."""
    workflow_id: str = ""
    arrived_count: int = 0
    """Members that have a value."""
    waiter_count: int = 0
    """Messages that wait for it, or have gone on and not ended: they may need its values again."""
    is_complete: bool = False
    cause: Cause | None = None
    """Why it failed, if it did."""


def encode_join(join: Join) -> bytes:
    """The join as it is stored."""
    place_id, place_index = join.place or ("", 0)
    texts = (place_id.encode(), join.entry_id.encode(), join.workflow_id.encode())
    flags = (_IS_LIST if join.is_list else 0) | (_IS_COMPLETE if join.is_complete else 0)
    cause = b""
    if join.cause is not None:
        flags |= _IS_FAILED
        c = join.cause
        head = json.dumps(
            [c.culprit, c.state, c.reason, c.detail, c.line, c.is_loud, c.until_ms]
        ).encode()
        cause = keys.U32.pack(len(head)) + head + c.result
    body = b"".join(
        (
            _BODY.pack(
                join.size,
                join.arrived_count,
                join.waiter_count,
                flags,
                place_index,
                *map(len, texts),
            ),
            *texts,
            cause,
        )
    )
    return frame.seal(frame.LITTLE, VERSION, body)


def _read_join(key: bytes, raw: bytes) -> Join:
    if len(raw) < frame.BYTES + _BODY.size:
        raise CorruptRecord(key, f"it is only {len(raw)} bytes long")
    size, arrived, waiters, flags, place_index, *lengths = _BODY.unpack_from(raw, frame.BYTES)
    at = frame.BYTES + _BODY.size
    texts: list[str] = []
    for length in lengths:
        texts.append(raw[at : at + length].decode())
        at += length
    cause = None
    if flags & _IS_FAILED:
        head_at = at + keys.U32.size
        result_at = head_at + keys.U32.unpack_from(raw, at)[0]
        *told, is_loud, until_ms = json.loads(raw[head_at:result_at])
        culprit, state, reason, detail, line = told
        cause = Cause(culprit, state, reason, detail, line, raw[result_at:], is_loud, until_ms)
    place_id, entry_id, workflow_id = texts
    return Join(
        size,
        bool(flags & _IS_LIST),
        (place_id, place_index) if place_id else None,
        entry_id,
        workflow_id,
        arrived,
        waiters,
        bool(flags & _IS_COMPLETE),
        cause,
    )


READERS: Final[Mapping[int, Callable[[bytes, bytes], Join]]] = {1: _read_join}
"""By the first version that each reads."""


def decode_join(key: bytes, raw: bytes) -> Join:
    """The join stored at `key`; CorruptRecord when it is not what was written, NewerVersion."""
    return frame.read(frame.LITTLE, key, raw, VERSION, READERS)


def _values(join_id: str) -> bytes:
    return keys.VALUE + join_id.encode() + b"\x00"


def _waiters(join_id: str) -> bytes:
    return keys.WAITER + join_id.encode() + b"\x00"


def peek(txn: ReadTxn, join_id: str) -> Join | None:
    """The join as it was before this step, or None."""
    key = keys.JOIN + join_id.encode()
    raw = txn.get(key)
    return None if raw is None else decode_join(key, raw)


class Joins:
    """The joins that a step touches: read once, written once."""

    __slots__ = ("_known", "carried_count")

    def __init__(self) -> None:
        self._known: dict[str, Join | None] = {}
        self.carried_count = 0
        """Messages that this step has let go on, or fail."""

    def find(self, txn: ReadTxn, join_id: str, effects: Effects) -> Join | None:
        """The join with what this step did to it; change it in place."""
        if join_id in self._known:
            return self._known[join_id]
        try:
            join = peek(txn, join_id)
        except CorruptRecord as error:
            effects.damaged.append(str(error))
            join = None
        self._known[join_id] = join
        return join

    def add(self, join_id: str, join: Join) -> None:
        """A new join."""
        self._known[join_id] = join

    def remove(self, txn: Txn, join_id: str) -> None:
        """The join is needed no more."""
        self._known[join_id] = None
        txn.delete(keys.JOIN + join_id.encode())
        _clear(txn, _values(join_id))

    def flush(self, txn: Txn) -> None:
        """Write what changed."""
        for join_id, join in self._known.items():
            if join is not None:
                txn.put(keys.JOIN + join_id.encode(), encode_join(join))


def _clear(txn: Txn, prefix: bytes) -> None:
    while rows := txn.scan(prefix, keys.after(prefix), limits.STEP_ITEMS_MAX):
        for key, _ in rows:
            txn.delete(key)


def of(effects: Effects) -> Joins:
    """The step's joins."""
    if effects.joins is None:
        effects.joins = Joins()
    assert isinstance(effects.joins, Joins), "nobody else sets them"
    return effects.joins


def wait(txn: Txn, message_id: str, join_id: str, effects: Effects) -> None:
    """Have a message stand still until the join is complete."""
    join = of(effects).find(txn, join_id, effects)
    assert join is not None, "a join is stored before what waits for it"
    join.waiter_count += 1
    txn.put(_waiters(join_id) + message_id.encode(), b"")


def wait_again(txn: Txn, message_id: str, join_id: str, effects: Effects) -> bool:
    """Have a message that had failed, and kept its hold on the join, stand still again; False: the join is complete."""
    join = of(effects).find(txn, join_id, effects)
    if join is None or join.is_complete:
        return False
    txn.put(_waiters(join_id) + message_id.encode(), b"")
    return True


def inputs(txn: ReadTxn, record: Record) -> list[bytes]:
    """The values of the join that the message has waited for, in order; none when it takes none."""
    wait = record.extras.wait if record.extras is not None else None
    if wait is None or not wait.takes_input:
        return []
    prefix = _values(wait.join_id)
    found: list[bytes] = []
    start = prefix
    while rows := txn.scan(start, keys.after(prefix), limits.STEP_ITEMS_MAX):
        found += [raw for _, raw in rows]
        start = rows[-1][0] + b"\x00"
    return found


def items(value: bytes) -> list[bytes]:
    """The members' values in the value of a join that is a list."""
    assert value.startswith(VALUES), "the caller has looked"
    found: list[bytes] = []
    at = 1
    while at < len(value):
        (length,) = keys.U32.unpack_from(value, at)
        at += keys.U32.size
        found.append(value[at : at + length])
        at += length
    return found


# -- carrying on -----------------------------------------------------------------------------------


def resolve(txn: Txn, now_ms: int, effects: Effects) -> None:
    """Carry on with what ended in this step, and with what that ends."""
    while effects.ended:
        ended = effects.ended.popleft()
        record, extras = ended.record, ended.record.extras
        cause = None if ended.is_success else _cause_of(ended)
        if record.flags & Flag.HAS_ERRBACKS:
            if ended.is_loud:
                _publish_errbacks(txn, ended, now_ms, effects)
            txn.delete(keys.ERRBACKS + ended.id.encode())
        if record.flags & Flag.IS_ERRBACK and not ended.is_buried:
            txn.delete(keys.FAILURE + ended.id.encode())
        if extras is None:
            continue
        if extras.workflow_id:
            workflows.note_end(txn, extras.workflow_id, ended, now_ms, effects)
        if extras.place is not None:
            if cause is None:
                _arrive(txn, extras.place, VALUE + ended.result, now_ms, effects)
            else:
                _fail(txn, extras.place[0], cause, now_ms, effects)
        may_return = ended.is_buried or record.flags & Flag.PAYLOAD_KEPT
        if extras.wait is None:
            continue
        if may_return:
            # It may need the values of the join again, but does not stand before it.
            txn.delete(_waiters(extras.wait.join_id) + ended.id.encode())
        else:
            _release(txn, ended.id, extras.wait.join_id, effects)


_ERROR_OF = {
    EndReason.WORKER_LOST: "WorkerLostError",
    EndReason.MAX_DELIVERIES: "WorkerLostError",
    EndReason.EXPIRED: "TaskRevokedError",
    EndReason.REVOKED: "TaskRevokedError",
    EndReason.DROPPED: "TaskRevokedError",
    EndReason.REPLACED: "TaskRevokedError",
}
"""What whoever waits for a task that ended so is raised."""


def _cause_of(ended: Ended) -> Cause:
    if ended.cause is not None:
        assert isinstance(ended.cause, Cause), "it comes from a join"
        return ended.cause
    state, reason, detail = ended.state, EndReason(ended.record.end_reason), ended.detail
    if not state:
        # It ended without a result for anybody: nothing can go on from it.
        state, reason, detail = "REVOKED", EndReason.REVOKED, f"task {ended.id} was ignored"
    error = _ERROR_OF.get(reason)
    line = f"{error}({detail!r})" if error is not None else detail or state
    return Cause(ended.id, state, reason, detail, line, ended.result, is_loud=True)


def _arrive(txn: Txn, place: tuple[str, int], value: bytes, now_ms: int, effects: Effects) -> None:
    """A member of a join has its value; when it was the last, so has the join, and so on."""
    next_place: tuple[str, int] | None = place
    complete: list[str] = []
    while next_place is not None:
        join_id, index = next_place
        join = of(effects).find(txn, join_id, effects)
        key = _values(join_id) + keys.U32.pack(index)
        if join is None or txn.get(key) is not None:
            break
        txn.put(key, value)
        join.arrived_count += 1
        if join.arrived_count < join.size or join.cause is not None:
            break
        join.is_complete = True
        complete.append(join_id)
        next_place = join.place
        if next_place is not None and join.is_list:
            rows = txn.scan(_values(join_id), keys.after(_values(join_id)), _EVERY)
            parts = [part for _, raw in rows for part in (keys.U32.pack(len(raw)), raw)]
            value = VALUES + b"".join(parts)
    for join_id in complete:
        carry_on(txn, join_id, now_ms, effects)


def _fail(txn: Txn, join_id: str, cause: Cause, now_ms: int, effects: Effects) -> None:
    """A member of a join ended otherwise than in success."""
    while True:
        join = of(effects).find(txn, join_id, effects)
        if join is None or join.is_complete or join.cause is not None:
            return
        entry = of(effects).find(txn, join.entry_id, effects) if join.entry_id else None
        is_loud = join.is_list and (entry is None or entry.cause is None)
        until_ms = now_ms + effects.policy.result_ttl_ms
        join.cause = replace(cause, is_loud=is_loud, until_ms=until_ms)
        timetable.remind(txn, until_ms, timetable.JOIN, join_id, effects)
        carry_on(txn, join_id, now_ms, effects)
        if join.place is None:
            return
        join_id = join.place[0]


def carry_on(txn: Txn, join_id: str, now_ms: int, effects: Effects) -> None:
    """Have what waits for a complete or failed join go on, or fail; the rest in a later step."""
    joins = of(effects)
    join = joins.find(txn, join_id, effects)
    if join is None:
        return
    budget = _CARRIED_PER_STEP_MAX - joins.carried_count
    prefix = _waiters(join_id)
    rows = txn.scan(prefix, keys.after(prefix), max(budget, 0))
    for key, _ in rows:
        txn.delete(key)
        joins.carried_count += 1
        message_id = key[len(prefix) :].decode()
        record = message.find(txn, message_id, effects)
        if record is None:
            # It was damaged and put aside: nobody else will let go of the join for it.
            join.waiter_count -= 1
        elif record.stage != Stage.WAITING:
            # It ended in this very step, and lets go of the join itself.
            continue
        elif join.cause is None:
            _go_on(txn, message_id, record, now_ms, effects)
        else:
            _end_with(txn, message_id, record, join, now_ms, effects)
    if len(rows) >= budget:
        timetable.remind(txn, now_ms, timetable.JOIN, join_id, effects)
    elif join.is_complete and not join.waiter_count:
        joins.remove(txn, join_id)


def _go_on(txn: Txn, message_id: str, record: Record, now_ms: int, effects: Effects) -> None:
    wait = record.extras.wait if record.extras is not None else None
    assert wait is not None, "it waits"
    eta_ms = now_ms + wait.delay_ms if wait.delay_ms else record.eta_ms
    if wait.lifetime_ms:
        ends_ms = max(now_ms, eta_ms) + wait.lifetime_ms
        own_ms = queue.own_expires_ms(record)
        queue.set_expires(record, min(ends_ms, own_ms or ends_ms))
    record.eta_ms = eta_ms
    record.changed_ms = now_ms
    queue.arrive(txn, message_id, record, now_ms, effects)


def _end_with(
    txn: Txn, message_id: str, record: Record, join: Join, now_ms: int, effects: Effects
) -> None:
    """A message whose join failed ends, never run."""
    wait, cause = record.extras.wait if record.extras is not None else None, join.cause
    assert wait is not None, "it waits"
    assert cause is not None, "its join failed"
    if wait.fails_as_chord and cause.is_loud:
        detail = f"Dependency {cause.culprit} raised {cause.line}"
        line = f"ChordError({detail!r})"
        reason = EndReason.DEPENDENCY
        cause = replace(
            cause, culprit=message_id, state="FAILURE", reason=reason, detail=detail, line=line
        )
    elif cause.result:
        # The failed member's own error. As a ChordError's, what it says is in the detail.
        is_chord_error = cause.reason == EndReason.DEPENDENCY
        cause = replace(
            cause, reason=EndReason.DEPENDENCY, detail=cause.detail if is_chord_error else ""
        )
    results.end(
        txn,
        message_id,
        record,
        now_ms,
        effects,
        reason=EndReason(cause.reason),
        state=cause.state,
        result=cause.result,
        detail=cause.detail,
        cause=replace(cause, is_loud=True),
        is_loud=join.cause is not None and join.cause.is_loud,
    )


def _release(txn: Txn, message_id: str, join_id: str, effects: Effects) -> None:
    """A message that waits, or has waited, for the join has ended."""
    join = of(effects).find(txn, join_id, effects)
    if join is None:
        return
    txn.delete(_waiters(join_id) + message_id.encode())
    join.waiter_count -= 1
    if join.is_complete and join.waiter_count <= 0:
        of(effects).remove(txn, join_id)


def let_go(txn: Txn, message_id: str, record: Record, effects: Effects) -> None:
    """The message needs the values of the join it has waited for no more."""
    if record.extras is not None and record.extras.wait is not None:
        _release(txn, message_id, record.extras.wait.join_id, effects)


def _forget(txn: Txn, message_id: str, record: Record, effects: Effects) -> None:
    """A message that had ended, or was given up, is forgotten."""
    if record.extras is not None:
        index.forget(txn, message_id, record.extras)
        if record.stage == Stage.DEAD or record.flags & Flag.PAYLOAD_KEPT:
            let_go(txn, message_id, record, effects)
    if record.flags & Flag.IS_ERRBACK:
        txn.delete(keys.FAILURE + message_id.encode())


def erase(txn: Txn, message_id: str, record: Record, effects: Effects) -> None:
    """Keep nothing of a message that has ended, or was a dead letter."""
    unique.forget(txn, message_id, record)
    payloads.detach(txn, message_id, record)
    payloads.drop_status(txn, message_id, record)
    _forget(txn, message_id, record, effects)
    txn.delete(message.key_of(message_id))


def look_at(txn: Txn, join_id: str, now_ms: int, effects: Effects) -> None:
    """The time index names the join: carry on with it, or forget it when it failed long ago."""
    join = of(effects).find(txn, join_id, effects)
    if join is None:
        return
    prefix = _waiters(join_id)
    if txn.scan(prefix, keys.after(prefix), 1):
        if join.is_complete or join.cause is not None:
            carry_on(txn, join_id, now_ms, effects)
    elif (join.is_complete and join.waiter_count <= 0) or (
        join.cause is not None and join.cause.until_ms <= now_ms
    ):
        of(effects).remove(txn, join_id)


# -- errbacks --------------------------------------------------------------------------------------


def save_errbacks(txn: Txn, message_id: str, errbacks: tuple[tuple[str, Record], ...]) -> None:
    """Keep what is to be published when the message fails."""
    parts: list[bytes] = []
    for errback_id, record in errbacks:
        raw = encode(record)
        name = errback_id.encode()
        parts += (bytes((len(name),)), name, keys.U32.pack(len(raw)), raw)
    txn.put(keys.ERRBACKS + message_id.encode(), b"".join(parts))


def read_errbacks(txn: ReadTxn, message_id: str) -> list[tuple[str, Record]]:
    """What is to be published when the message fails."""
    key = keys.ERRBACKS + message_id.encode()
    raw = txn.get(key) or b""
    found: list[tuple[str, Record]] = []
    at = 0
    while at < len(raw):
        size = raw[at]
        errback_id = raw[at + 1 : at + 1 + size].decode()
        at += 1 + size
        (length,) = keys.U32.unpack_from(raw, at)
        at += keys.U32.size
        found.append((errback_id, decode(key, raw[at : at + length])))
        at += length
    return found


@dataclass(frozen=True, slots=True)
class Failure:
    """The end that an errback is told of."""

    id: str
    state: str
    end_reason: int
    detail: str
    message: bytes
    result: bytes


def read_failure(txn: ReadTxn, errback_id: str) -> Failure | None:
    """What the errback is told of; None for a message that is none."""
    raw = txn.get(keys.FAILURE + errback_id.encode())
    if raw is None:
        return None
    head_size, message_size = struct.unpack_from("<II", raw)
    message_id, state, reason, detail = json.loads(raw[8 : 8 + head_size])
    at = 8 + head_size
    result_at = at + message_size
    return Failure(message_id, state, reason, detail, raw[at:result_at], raw[result_at:])


def _publish_errbacks(txn: Txn, ended: Ended, now_ms: int, effects: Effects) -> None:
    try:
        errbacks = read_errbacks(txn, ended.id)
    except CorruptRecord as error:
        effects.damaged.append(str(error))
        return
    head = json.dumps([ended.id, ended.state, ended.record.end_reason, ended.detail]).encode()
    failure = struct.pack("<II", len(head), len(ended.message)) + head
    failure += ended.message + ended.result
    for errback_id, errback in errbacks:
        if txn.get(message.key_of(errback_id)) is not None:
            continue
        txn.put(keys.FAILURE + errback_id.encode(), failure)
        effects.came[errback.queue] = effects.came.get(errback.queue, 0) + 1
        errback.published_ms = errback.changed_ms = now_ms
        payloads.attach(txn, errback_id, errback, errback.payload)
        if errback.extras is not None:
            index.add(txn, errback_id, errback.extras)
        queue.arrive(txn, errback_id, errback, now_ms, effects)
