"""How a message comes in: checked, stored once by its id, and put where it waits."""

from dataclasses import dataclass

from qbroker_server.core import keys, limits, payloads, queue, results, timetable
from qbroker_server.core.effects import Effects
from qbroker_server.core.errors import CoreError, Invalid, ResourceFull
from qbroker_server.core.message import save
from qbroker_server.core.ports import Txn
from qbroker_server.core.records import EndReason, Record, Stage

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


def _check_name(what: str, name: str) -> None:
    if 0 < len(name) <= limits.NAME_BYTES_MAX // 4 and "\x00" not in name:
        # No character has more than four bytes.
        return
    size = len(name.encode())
    if not 0 < size <= limits.NAME_BYTES_MAX:
        raise Invalid(
            f"{what} {name[:60]!r} has {size} bytes; it must have 1 to {limits.NAME_BYTES_MAX}"
        )
    if "\x00" in name:
        raise Invalid(f"{what} {name[:60]!r} contains a NUL character; leave it out")


def check(new: NewMessage) -> None:
    """Raise Invalid, with a sentence, when the message breaks a rule of its form."""
    _check_name("message id", new.id)
    _check_name("task name", new.task)
    _check_name("queue name", new.queue)
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
        is_full = effects.room_bytes < effects.policy.reserve_bytes
        for index, new in enumerate(self.messages):
            try:
                check(new)
            except Invalid as error:
                refusals.append((index, error))
                continue
            if txn.get(keys.MESSAGE + new.id.encode()) is not None:
                duplicates.append(index)
                continue
            if is_full:
                refusals.append((index, _full(effects)))
                continue
            store(txn, new, now_ms, effects)
        return Published(tuple(refusals), tuple(duplicates))


def store(txn: Txn, new: NewMessage, now_ms: int, effects: Effects) -> None:
    """Store a checked message whose id is new."""
    counts = effects.queue(txn, new.queue)
    counts.last_seq += 1
    is_inline = len(new.payload) <= limits.INLINE_BYTES_MAX
    record = Record(
        stage=Stage.QUEUED,
        flags=new.flags,
        priority=new.priority,
        end_reason=EndReason.NONE,
        attempt=0,
        deaths=0,
        deaths_max=new.deaths_max,
        seq=counts.last_seq,
        published_ms=now_ms,
        eta_ms=new.eta_ms,
        expires_ms=new.expires_ms,
        result_ttl_ms=new.result_ttl_ms,
        changed_ms=now_ms,
        queue=new.queue,
        task=new.task,
        session="",
        lane=b"",
        state="",
        detail="",
        payload=new.payload if is_inline else b"",
    )
    if not is_inline:
        payloads.attach(txn, new.id, record, new.payload)
    if new.expires_ms:
        if new.expires_ms <= now_ms:
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
        timetable.remind(txn, new.expires_ms, timetable.EXPIRES, new.id, effects)
    if new.eta_ms > now_ms:
        record.stage = Stage.SCHEDULED
        timetable.remind(txn, new.eta_ms, timetable.DUE, new.id, effects)
        save(txn, new.id, record)
        counts.scheduled_count += 1
    else:
        queue.enqueue(txn, new.id, record, effects)
