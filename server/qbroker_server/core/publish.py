"""How a message comes in: checked, stored once by its id, and put where it waits."""

from dataclasses import dataclass, replace

from qbroker_server.core import (
    dead,
    index,
    keys,
    limits,
    payloads,
    queue,
    results,
    timetable,
    unique,
)
from qbroker_server.core.effects import Effects
from qbroker_server.core.errors import CoreError, Invalid, KeyTaken, ResourceFull
from qbroker_server.core.message import save
from qbroker_server.core.ports import Txn
from qbroker_server.core.records import EndReason, Extras, Overflow, Record, Stage, UniqueScope
from qbroker_server.core.unique import UniquePolicy

_RETRY_AFTER_MS = 5_000
"""A full disk is seldom emptied faster."""


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message as a producer publishes it. Times are Unix milliseconds, 0 for none."""

    id: str
    task: str
    queue: str
    priority: int
    eta_ms: int
    expires_ms: int
    result_ttl_ms: int
    deaths_max: int
    flags: int
    payload: bytes
    """What a worker will be given; nobody looks inside before."""
    retries: int = 0
    extras: Extras | None = None
    unique_policy: int = UniquePolicy.REJECT


def check(new: NewMessage) -> None:
    """Raise Invalid, with a sentence, when the message breaks a rule of its form."""
    queue.check_name("message id", new.id)
    queue.check_name("task name", new.task)
    queue.check_name("queue name", new.queue)
    if not 0 <= new.priority <= limits.PRIORITY_MAX:
        raise Invalid(
            f"priority {new.priority!r} of message {new.id!r} is not 0 to {limits.PRIORITY_MAX}"
        )
    if not 0 <= new.deaths_max < 2**16:
        raise Invalid(f"max_deliveries {new.deaths_max!r} of message {new.id!r} is not 0 to 65535")
    if not (0 <= new.eta_ms < 2**62 and 0 <= new.expires_ms < 2**62):
        raise Invalid(
            f"eta {new.eta_ms!r} or expires {new.expires_ms!r} of message {new.id!r} is not a Unix time in milliseconds"
        )
    if new.extras is not None:
        _check_extras(new.id, new.extras)


def _check_extras(message_id: str, extras: Extras) -> None:
    if extras.unique_key:
        queue.check_name("unique key", extras.unique_key)
    if extras.root_id:
        queue.check_name("root id", extras.root_id)
    if extras.fairness_key:
        queue.check_name("fairness key", extras.fairness_key)
    if len(extras.labels) > limits.LABELS_MAX:
        raise Invalid(
            f"message {message_id!r} has {len(extras.labels)} labels; it may have {limits.LABELS_MAX}"
        )
    for label in extras.labels:
        if "=" not in label or "\x00" in label or len(label.encode()) > limits.LABEL_BYTES_MAX:
            raise Invalid(
                f"label {label[:60]!r} is not 'name=value' of up to {limits.LABEL_BYTES_MAX} bytes without NUL"
            )
    if len(extras.limits) > limits.LIMITS_MAX:
        raise Invalid(
            f"message {message_id!r} is under {len(extras.limits)} limits; it may be under {limits.LIMITS_MAX}"
        )
    for limit in extras.limits:
        queue.check_name("limit key", limit.key)
        if not 0 <= limit.rate < 1e9 or (limit.rate and not 0 < limit.per_ms < 2**40):
            raise Invalid(
                f"limit {limit.key!r} of {limit.rate!r} in {limit.per_ms!r} ms is not a rate"
            )


def full(effects: Effects) -> ResourceFull:
    """What is said when the disk has no room for more messages."""
    return ResourceFull(
        f"the broker's disk is nearly full: {effects.room_bytes} bytes are left, and publishing leaves "
        f"{effects.policy.reserve_bytes} (reserve_bytes) so that running tasks can end. "
        "Free some space, or let workers empty the queues",
        retry_after_ms=_RETRY_AFTER_MS,
    )


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a batch: all of it is stored, but for these."""

    refusals: tuple[tuple[int, CoreError], ...]
    duplicates: tuple[int, ...]
    """Places of the messages whose id was known already."""
    existing: tuple[tuple[int, str], ...] = ()
    """Places of the messages whose unique key is taken, the refused ones too, and by which message."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Store each message whose id is new, to be delivered at once or when it is due."""

    messages: tuple[NewMessage, ...]

    @property
    def cost(self) -> tuple[int, int]:
        return len(self.messages), sum([len(new.payload) for new in self.messages])

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> Published:
        refusals: list[tuple[int, CoreError]] = []
        duplicates: list[int] = []
        existing: list[tuple[int, str]] = []
        is_full = effects.room_bytes < effects.policy.reserve_bytes
        for place, new in enumerate(self.messages):
            try:
                check(new)
            except Invalid as error:
                refusals.append((place, error))
                continue
            if txn.get(keys.MESSAGE + new.id.encode()) is not None:
                duplicates.append(place)
                continue
            if is_full:
                refusals.append((place, full(effects)))
                continue
            try:
                admit(txn, new, now_ms, effects)
            except KeyTaken as error:
                existing.append((place, error.holder))
                if new.unique_policy != UniquePolicy.RETURN_EXISTING:
                    refusals.append((place, error))
            except ResourceFull as error:
                refusals.append((place, error))
        return Published(tuple(refusals), tuple(duplicates), tuple(existing))


def admit(txn: Txn, new: NewMessage, now_ms: int, effects: Effects) -> None:
    """Store a checked message whose id is new; KeyTaken, ResourceFull: something stands against it."""
    options = effects.queue(txn, new.queue).options
    leaving: list[tuple[str, Record, EndReason, str]] = []
    if new.extras is not None and new.extras.unique_key:
        holder = unique.holder(txn, new.extras.unique_key, now_ms, effects)
        if holder is not None:
            if new.unique_policy != UniquePolicy.REPLACE:
                raise KeyTaken(new.extras.unique_key, holder[0])
            if holder[1].stage in (Stage.SCHEDULED, Stage.QUEUED):
                leaving.append((*holder, EndReason.REPLACED, f"replaced by {new.id}"))
    if options.length_max or options.bytes_max:
        verdict = queue.make_room(txn, new.queue, len(new.payload), now_ms, effects)
        if isinstance(verdict, ResourceFull):
            raise verdict
        if verdict is not None and all(verdict[0] != other[0] for other in leaving):
            leaving.append((*verdict, EndReason.DROPPED, f"queue {new.queue!r} was full"))
    for message_id, record, reason, detail in leaving:
        _evict(txn, message_id, record, now_ms, effects, reason=reason, detail=detail)
    store(txn, new, now_ms, effects)


def _evict(
    txn: Txn,
    message_id: str,
    record: Record,
    now_ms: int,
    effects: Effects,
    *,
    reason: EndReason,
    detail: str,
) -> None:
    """A waiting message makes way for a new one."""
    counts = effects.queue(txn, record.queue)
    if record.stage == Stage.QUEUED:
        queue.remove(txn, record, effects)
    else:
        counts.scheduled_count -= 1
    is_kept = reason == EndReason.DROPPED and counts.options.overflow == Overflow.DEAD_LETTER
    finish = dead.bury if is_kept else results.end
    finish(txn, message_id, record, now_ms, effects, reason=reason, state="REVOKED", detail=detail)


def store(txn: Txn, new: NewMessage, now_ms: int, effects: Effects) -> None:
    """Store a checked message whose id is new."""
    counts = effects.queue(txn, new.queue)
    counts.last_seq += 1
    effects.came[new.queue] = effects.came.get(new.queue, 0) + 1
    if counts.options.idle_ms:
        counts.options = replace(counts.options, idle_ms=0)
    ttl_ms = counts.options.message_ttl_ms
    expires_ms = new.expires_ms
    if ttl_ms:
        # From when it may be delivered, as far as the queue is concerned.
        lapses_ms = max(now_ms, new.eta_ms) + ttl_ms
        expires_ms = min(expires_ms, lapses_ms) if expires_ms else lapses_ms
    is_inline = len(new.payload) <= limits.INLINE_BYTES_MAX
    record = Record(
        stage=Stage.QUEUED,
        flags=new.flags,
        priority=new.priority,
        end_reason=EndReason.NONE,
        attempt=0,
        deaths=0,
        deaths_max=new.deaths_max,
        retries=new.retries,
        size=len(new.payload),
        seq=counts.last_seq,
        published_ms=now_ms,
        eta_ms=new.eta_ms,
        expires_ms=expires_ms,
        result_ttl_ms=new.result_ttl_ms,
        changed_ms=now_ms,
        queue=new.queue,
        task=new.task,
        session="",
        lane=b"",
        state="",
        detail="",
        extras=new.extras,
        payload=new.payload if is_inline else b"",
    )
    if not is_inline:
        payloads.attach(txn, new.id, record, new.payload)
    if new.extras is not None:
        if new.extras.unique_key:
            if new.extras.unique_scope == UniqueScope.TIME:
                new.extras.unique_until_ms += now_ms
            unique.take(txn, new.extras.unique_key, new.id)
        index.add(txn, new.id, new.extras)
    if expires_ms:
        if expires_ms <= now_ms:
            results.end(
                txn,
                new.id,
                record,
                now_ms,
                effects,
                reason=EndReason.EXPIRED,
                state="REVOKED",
                detail="expired",
            )
            return
        timetable.remind(txn, expires_ms, timetable.EXPIRES, new.id, effects)
    if new.eta_ms > now_ms:
        record.stage = Stage.SCHEDULED
        timetable.remind(txn, new.eta_ms, timetable.DUE, new.id, effects)
        save(txn, new.id, record)
        counts.scheduled_count += 1
    else:
        queue.enqueue(txn, new.id, record, effects)
