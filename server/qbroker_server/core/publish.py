"""How a message comes in: checked, stored once by its id, and put where it waits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

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
from qbroker_server.core.errors import CoreError, Invalid, KeyTaken, ResourceFull, Unroutable
from qbroker_server.core.message import save
from qbroker_server.core.ports import ReadTxn, Txn
from qbroker_server.core.records import EndReason, Extras, Overflow, Record, Stage, UniqueScope
from qbroker_server.core.routes import Route
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
    route: Route | None = None
    """Where it was sent to, if not to `queue`."""


def check(new: NewMessage) -> None:
    """Raise Invalid, with a sentence, when the message breaks a rule of its form."""
    queue.check_name("message id", new.id)
    queue.check_name("task name", new.task)
    if new.route is None:
        queue.check_name("queue name", new.queue)
    elif len(new.route.routing_key.encode()) > limits.NAME_BYTES_MAX:
        raise Invalid(
            f"routing key {new.route.routing_key[:60]!r} of message {new.id!r} is too long; it may have "
            f"{limits.NAME_BYTES_MAX} bytes"
        )
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


def _full(effects: Effects) -> ResourceFull:
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
                refusals.append((place, _full(effects)))
                continue
            try:
                admit(txn, new, now_ms, effects)
            except KeyTaken as error:
                existing.append((place, error.holder))
                if new.unique_policy != UniquePolicy.RETURN_EXISTING:
                    refusals.append((place, error))
            except (ResourceFull, Unroutable) as error:
                refusals.append((place, error))
        return Published(tuple(refusals), tuple(duplicates), tuple(existing))


def admit(txn: Txn, new: NewMessage, now_ms: int, effects: Effects) -> None:
    """Store a checked message whose id is new, once for each queue that it goes to.

    KeyTaken, ResourceFull, Unroutable: something stands against it, or against one of its copies.
    """
    if new.route is None:
        _admit(txn, (new,), now_ms, effects)
        return
    copies = copies_of(txn, new, effects)
    if not copies:
        raise Unroutable(_nobody_takes(new))
    _admit(txn, copies, now_ms, effects)


def _nobody_takes(new: NewMessage) -> str:
    route = new.route
    assert route is not None, "it was sent to a queue by name"
    return (
        f"nothing takes message {new.id!r}: exchange {route.exchange!r} has no binding for the routing key "
        f"{route.routing_key!r}, or is not there. Declare the queue, or bind it ('qctl binding add')"
    )


def copies_of(txn: ReadTxn, new: NewMessage, effects: Effects) -> tuple[NewMessage, ...]:
    """A message for each queue that `new` goes to; the first one has its id, unique key and place in a workflow."""
    assert new.route is not None, "it was sent to a queue by name"
    queues = effects.routes.queues(txn, new.route)
    if len(queues) <= 1:
        return (replace(new, queue=queues[0], route=None),) if queues else ()
    extras = new.extras
    if extras is not None and extras.unique_key:
        extras = replace(extras, unique_key="")
    first = replace(new, queue=queues[0], route=None)
    rest = [
        replace(new, id=copy_id(new.id, name), queue=name, extras=extras, route=None)
        for name in queues[1 : limits.COPIES_MAX]
    ]
    return (first, *rest)


def copy_id(message_id: str, queue_name: str) -> str:
    """The id of the copy for a queue: the same whenever the message is published again."""
    digest = blake2b(f"{message_id}\x00{queue_name}".encode(), digest_size=8).hexdigest()
    return f"{message_id[:_COPY_STEM_CHARS]}~{digest}"


_COPY_STEM_CHARS = 50
"""No character has more than four bytes, so a copy's id is never too long."""


def _admit(txn: Txn, copies: Sequence[NewMessage], now_ms: int, effects: Effects) -> None:
    leaving: list[tuple[str, Record, EndReason, str]] = []
    for new in copies:
        options = effects.queue(txn, new.queue).options
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
    for new in copies:
        _store(txn, new, now_ms, effects)


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
    """Store a checked message whose id is new, whatever stands against it.

    One that nothing takes becomes a dead letter: nobody is there to be told.
    """
    if new.route is None:
        _store(txn, new, now_ms, effects)
        return
    copies = copies_of(txn, new, effects)
    for one in copies:
        _store(txn, one, now_ms, effects)
    if not copies:
        lost = replace(new, queue=new.route.routing_key or new.route.exchange, route=None)
        _store(txn, lost, now_ms, effects, fault=_nobody_takes(new))


def _store(txn: Txn, new: NewMessage, now_ms: int, effects: Effects, *, fault: str = "") -> None:
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
    if fault:
        dead.bury(
            txn,
            new.id,
            record,
            now_ms,
            effects,
            reason=EndReason.REJECTED,
            state="FAILURE",
            detail=fault,
        )
    elif new.eta_ms > now_ms:
        record.stage = Stage.SCHEDULED
        timetable.remind(txn, new.eta_ms, timetable.DUE, new.id, effects)
        save(txn, new.id, record)
        counts.scheduled_count += 1
    else:
        queue.enqueue(txn, new.id, record, effects)
