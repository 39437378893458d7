"""How messages and queues look on disk, behind a version and a checksum (frame.py).

A message has one record from its publication until its result expires, so every question about it
has one lookup. What few messages have (labels, limits, a unique key, a history) is in its `Extras`, which cost
nothing where there are none. The record is rewritten at each turn of its life:

            publish                  dispatch              start               settle
    (none) ────────▶ SCHEDULED ─▶ QUEUED ─────▶ LEASED ──────────▶ STARTED ─────────▶ DONE
                        due          ▲             │ released, lost    │ lost, late     │ expiry
                                     └─────────────┴───────────────────┘                ▼
                                                                                      (none)

A message of a workflow may begin as WAITING, for a join (joins.py), and is scheduled or queued when that is complete.
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum, StrEnum

from qbroker_server.core import frame
from qbroker_server.core.errors import CorruptRecord, NewerVersion

# To change how a record looks on disk (the procedure holds for every VERSION of the core; versions.py lists them):
#
# 1. Raise VERSION by one, then change the struct, the encoder and the reader.
# 2. Keep a copy of the old reader and of its struct (`_read_1`). It returns today's class and fills in what is new.
#    Name both in READERS: {1: _read_1, 2: _read}.
# 3. Add a stored example of the new version to tests/core/stored.json. The examples of older versions stay for ever.
#
# A broker that starts with a raised version first writes it to the store, and older brokers refuse to start there.
VERSION = 1
"""Of a message's record."""
QUEUE_VERSION = 1
"""Of a queue's record."""


class Stage(IntEnum):
    """Where a message is. The numbers are on disk and on the wire."""

    SCHEDULED = 1
    QUEUED = 2
    LEASED = 3
    STARTED = 4
    DONE = 5
    DEAD = 6
    """Given up, and kept for somebody to look at: a dead letter."""
    WAITING = 7
    """For the join it waits for."""


class EndReason(IntEnum):
    """What ended a message. The numbers are on disk and on the wire."""

    NONE = 0
    SETTLED = 1
    WORKER_LOST = 2
    EXPIRED = 3
    REVOKED = 4
    MAX_DELIVERIES = 5
    REJECTED = 6
    DROPPED = 7
    """Its queue was full, and it was the oldest."""
    REPLACED = 8
    """Another message with its unique key took its place."""
    DEPENDENCY = 9
    """A member of the join it waited for failed."""


class Flag:
    """Bits of `Record.flags`."""

    ACK_LATE = 1
    IGNORE_RESULT = 2
    STORE_ERRORS = 4
    REDELIVERED = 8
    PAYLOAD_APART = 16
    """The payload is in rows of its own (payloads.py)."""
    NOTHING_KEPT = 32
    """Ended, and no result is kept: the record only remembers that the id was used."""
    TRACK_STARTED = 64
    """The publisher wants to see STARTED while the task runs."""
    HAS_STATUS = 128
    """A result of a state on the way (RETRY, PROGRESS) is kept beside the record (payloads.py)."""
    REVOKING = 256
    """Revoked while a worker had it: whatever comes back, it is not run again."""
    REQUEUE_ON_TIMEOUT = 512
    REJECT_ON_FAILURE = 1024
    LEFT_TO_RETRY = 2048
    """Scheduled because the task asked for another try."""
    HAS_ERRBACKS = 4096
    """What is published when it fails is in a row of its own (joins.py)."""
    PAYLOAD_KEPT = 8192
    """Ended in failure, and kept whole so that its workflow can be tried again; its result is kept beside the record."""
    IS_ERRBACK = 16384
    """Told of another message's failure, which is in a row of its own (joins.py)."""
    PAYLOAD_SHARED = 32768
    """The payload is in rows that other records name too (payloads.py)."""
    TERMINATING = 65536
    """With REVOKING: its worker is to end it although it runs."""
    LAPSES = 131072
    """It expires by its queue's lifetime, which is shorter than its own (queue.py)."""


# (version, crc) | stage, flags, priority, end reason, attempt, deaths, deaths_max, retries, size, seq,
# published, eta, expires, result ttl, changed | lengths: queue, task, session, lane, state, detail, extras
_BODY = struct.Struct("<BIBBIHHIIQqqqqqBBBBBHH")
_BODY_AT = frame.BYTES
_TEXT_AT = _BODY_AT + _BODY.size
_pack_body = _BODY.pack
_ENDED = (Stage.DONE, Stage.DEAD)
_unpack_body = _BODY.unpack_from
# Each message of a workflow has extras, and they are read at each of its steps: `json.loads` looks for what
# cannot be there, and `json.dumps` makes an encoder each time.
_to_json = json.JSONEncoder(separators=(",", ":")).encode
_quoted = json.encoder.encode_basestring_ascii
_from_json = json.JSONDecoder().raw_decode


class UniqueScope(IntEnum):
    """Until when a unique key is taken. The numbers are on disk and on the wire."""

    FINISH = 0
    START = 1
    TIME = 2


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit over all workers, shared by the messages that name its key."""

    key: str
    rate: float
    """So many starts in `per_ms`, evenly; 0: no rate limit."""
    per_ms: int
    concurrency: int
    """So many with workers at a time; 0: no concurrency limit."""


HISTORY_MAX = 20
"""Attempts of a message that are remembered; older ones go."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What a message of a workflow waits for."""

    join_id: str
    takes_input: bool
    """It is given the values of the join's members."""
    fails_as_chord: bool
    """It ends in an error that names the failed member, not in that member's own."""
    delay_ms: int
    """How long after the join is complete it is due."""
    lifetime_ms: int
    """How long after that it expires; 0: it does not."""


@dataclass(slots=True)
class Extras:
    """What few messages have."""

    unique_key: str = ""
    unique_scope: int = UniqueScope.FINISH
    unique_until_ms: int = 0
    """When a key taken for a time is free again."""
    limits: tuple[Limit, ...] = ()
    fairness_key: str = ""
    fairness_weight: int = 1
    labels: tuple[str, ...] = ()
    """Each "name=value"."""
    root_id: str = ""
    """The message at the root of its workflow, when that is another one."""
    workflow_id: str = ""
    """What it was published with."""
    place: tuple[str, int] | None = None
    """The join its value goes to, and which member of it it is."""
    wait: Wait | None = None
    """What it waits for, or has waited for."""
    history: list[list[object]] = field(default_factory=list)
    """[attempt, how it ended, when (ms), by which session, a line about it], oldest first."""
    expires_ms: int = 0
    """With LAPSES: when it would expire by what its publisher said."""
    _raw: bytes = field(default=b"", init=False, repr=False, compare=False)
    """As it was stored, while it is the same."""

    def remember(self, attempt: int, how: str, at_ms: int, session: str, line: str) -> None:
        """Add an attempt to the history."""
        self.history.append([attempt, how, at_ms, session, line[:500]])
        del self.history[:-HISTORY_MAX]
        self._raw = b""

    def encode(self) -> bytes:
        """As it is stored."""
        if self._raw:
            return self._raw
        wait = self.wait
        if not (
            wait
            or self.limits
            or self.unique_key
            or self.fairness_key
            or self.history
            or self.expires_ms
        ):
            # What comes in crowds, members of a workflow and ticks: the same text, and four times as fast.
            parts: list[str] = []
            if self.labels:
                parts.append(f'"s":[{",".join(map(_quoted, self.labels))}]')
            if self.root_id:
                parts.append(f'"r":{_quoted(self.root_id)}')
            if self.workflow_id:
                parts.append(f'"g":{_quoted(self.workflow_id)}')
            if self.place is not None:
                parts.append(f'"p":[{_quoted(self.place[0])},{self.place[1]}]')
            return f"{{{','.join(parts)}}}".encode()
        values = {
            "u": [self.unique_key, self.unique_scope, self.unique_until_ms]
            if self.unique_key
            else None,
            "l": [[one.key, one.rate, one.per_ms, one.concurrency] for one in self.limits],
            "f": [self.fairness_key, self.fairness_weight] if self.fairness_key else None,
            "s": self.labels,
            "r": self.root_id,
            "g": self.workflow_id,
            "p": self.place,
            "w": [
                wait.join_id,
                wait.takes_input,
                wait.fails_as_chord,
                wait.delay_ms,
                wait.lifetime_ms,
            ]
            if wait is not None
            else None,
            "h": self.history,
            "x": self.expires_ms,
        }
        kept = {name: value for name, value in values.items() if value}
        return _to_json(kept).encode()

    @classmethod
    def decode(cls, raw: bytes) -> "Extras":
        """As it was stored."""
        values = _from_json(raw.decode())[0]
        unique_key, unique_scope, unique_until_ms = values.get("u", ("", 0, 0))
        fairness_key, fairness_weight = values.get("f", ("", 1))
        extras = cls(
            unique_key,
            unique_scope,
            unique_until_ms,
            tuple([Limit(*one) for one in values["l"]]) if "l" in values else (),
            fairness_key,
            fairness_weight,
            tuple(values["s"]) if "s" in values else (),
            values.get("r", ""),
            values.get("g", ""),
            (values["p"][0], values["p"][1]) if "p" in values else None,
            Wait(*values["w"]) if "w" in values else None,
            values.get("h", []),
            values.get("x", 0),
        )
        extras._raw = raw
        return extras


@dataclass(slots=True)
class Record:
    """A message and where it is. Times are Unix milliseconds, 0 for none."""

    stage: int
    flags: int
    priority: int
    end_reason: int
    attempt: int
    """How often it was delivered; fences late answers."""
    deaths: int
    """How many workers died running it."""
    deaths_max: int
    """At how many it is given up; 0: its queue's or the broker's default."""
    retries: int
    """How often the task itself asked for another try."""
    size: int
    """Of the message, in bytes."""
    seq: int
    """Its place in its queue by arrival; 0 before it was ever queued. `queue.enqueue` gives the next number, a message that
    a worker returns keeps its own (`queue.put_back`)."""
    published_ms: int
    eta_ms: int
    expires_ms: int
    result_ttl_ms: int
    """How long the result is kept; 0: the broker's default."""
    changed_ms: int
    queue: str
    task: str
    session: str
    """Who has it, while leased or started; who ended it, when done."""
    lane: bytes
    """The lane of its queue it stands in, while queued (queue.py)."""
    state: str
    """Celery's word for how it ended, or the task's own while it runs; "" before."""
    detail: str
    """A sentence to go with `end_reason`."""
    extras: Extras | None
    """What few messages have."""
    payload: bytes
    """The message as published; from its end on the result. With PAYLOAD_APART or PAYLOAD_SHARED the seal of it (payloads.py)."""


def encode(record: Record) -> bytes:
    """The record as it is stored."""
    r = record
    queue, task, session = r.queue.encode(), r.task.encode(), r.session.encode()
    state, detail = r.state.encode(), r.detail.encode()
    extras = b"" if r.extras is None else r.extras.encode()
    body = b"".join(
        (
            _pack_body(
                r.stage,
                r.flags,
                r.priority,
                r.end_reason,
                r.attempt,
                r.deaths,
                r.deaths_max,
                r.retries,
                r.size,
                r.seq,
                r.published_ms,
                r.eta_ms,
                r.expires_ms,
                r.result_ttl_ms,
                r.changed_ms,
                len(queue),
                len(task),
                len(session),
                len(r.lane),
                len(state),
                len(detail),
                len(extras),
            ),
            queue,
            task,
            session,
            r.lane,
            state,
            detail,
            extras,
            r.payload,
        )
    )
    return frame.seal(frame.LITTLE, VERSION, body)


def has_ended(raw: bytes) -> bool:
    """Whether a stored record is one of an ended message; also when it is damaged: decoding it tells.

    The stage is the first byte of the body in every version.
    """
    try:
        frame.version_of(frame.LITTLE, b"", raw, VERSION)
    except (CorruptRecord, NewerVersion):
        return True
    return len(raw) <= _BODY_AT or raw[_BODY_AT] in _ENDED


def _read(key: bytes, raw: bytes) -> Record:
    try:
        (
            stage,
            flags,
            priority,
            end_reason,
            attempt,
            deaths,
            deaths_max,
            retries,
            size,
            seq,
            published_ms,
            eta_ms,
            expires_ms,
            result_ttl_ms,
            changed_ms,
            queue_bytes,
            task_bytes,
            session_bytes,
            lane_bytes,
            state_bytes,
            detail_bytes,
            extras_bytes,
        ) = _unpack_body(raw, _BODY_AT)
    except struct.error as error:
        raise CorruptRecord(key, f"it is only {len(raw)} bytes long") from error
    task_at = _TEXT_AT + queue_bytes
    session_at = task_at + task_bytes
    lane_at = session_at + session_bytes
    state_at = lane_at + lane_bytes
    detail_at = state_at + state_bytes
    extras_at = detail_at + detail_bytes
    payload_at = extras_at + extras_bytes
    return Record(
        stage,
        flags,
        priority,
        end_reason,
        attempt,
        deaths,
        deaths_max,
        retries,
        size,
        seq,
        published_ms,
        eta_ms,
        expires_ms,
        result_ttl_ms,
        changed_ms,
        raw[_TEXT_AT:task_at].decode(),
        raw[task_at:session_at].decode(),
        raw[session_at:lane_at].decode(),
        raw[lane_at:state_at],
        raw[state_at:detail_at].decode(),
        raw[detail_at:extras_at].decode(),
        Extras.decode(raw[extras_at:payload_at]) if extras_bytes else None,
        raw[payload_at:],
    )


READERS: Mapping[int, Callable[[bytes, bytes], Record]] = {1: _read}
"""Of a message's record, by the first version that each reads."""


def decode(key: bytes, raw: bytes) -> Record:
    """The record stored at `key`; CorruptRecord when it is not what was written, NewerVersion."""
    return frame.read(frame.LITTLE, key, raw, VERSION, READERS)


_QUEUE = struct.Struct("<qqqqQI")


class Overflow(StrEnum):
    """What a full queue does with one message more."""

    REJECT = "reject"
    DROP_HEAD = "drop-head"
    DEAD_LETTER = "dead-letter"


@dataclass(slots=True)
class QueueOptions:
    """What was declared of a queue; 0 and "" mean: not."""

    length_max: int = 0
    """Of waiting messages."""
    bytes_max: int = 0
    """Of waiting messages' payloads."""
    overflow: str = Overflow.REJECT
    message_ttl_ms: int = 0
    """How long a message may wait before it expires."""
    deaths_max: int = 0
    expires_ms: int = 0
    """How long an empty queue without a worker is kept, at least; it may be twice as long."""
    idle_ms: int = 0
    """Since when a queue that expires is known to be idle."""
    ageing_ms: int = 0
    """How long a waiting message must wait to count as one priority higher."""
    paused_ms: int = 0
    """Since when it is paused."""
    paused_by: str = ""
    paused_why: str = ""
    is_auto_delete: bool = False
    """It goes with all that waits in it when it has been without a worker for `expires_ms`."""


@dataclass(slots=True)
class QueueRecord:
    """How many messages a queue has, by stage, the number of the last that arrived, and its options."""

    ready_count: int = 0
    leased_count: int = 0
    scheduled_count: int = 0
    ready_bytes: int = 0
    """Payload of its waiting messages."""
    last_seq: int = 0
    options: QueueOptions = field(default_factory=QueueOptions)


_NO_OPTIONS = QueueOptions()


def encode_queue(record: QueueRecord) -> bytes:
    """The queue's record as it is stored."""
    options = b""
    if record.options != _NO_OPTIONS:
        options = json.dumps(asdict(record.options), separators=(",", ":")).encode()
    counts = _QUEUE.pack(
        record.ready_count,
        record.leased_count,
        record.scheduled_count,
        record.ready_bytes,
        record.last_seq,
        len(options),
    )
    return frame.seal(frame.LITTLE, QUEUE_VERSION, counts + options)


def _read_queue(key: bytes, raw: bytes) -> QueueRecord:
    if len(raw) < _BODY_AT + _QUEUE.size:
        raise CorruptRecord(key, f"it is only {len(raw)} bytes long")
    ready, leased, scheduled, size, seq, options_bytes = _QUEUE.unpack_from(raw, _BODY_AT)
    options = QueueOptions(**json.loads(raw[-options_bytes:])) if options_bytes else QueueOptions()
    return QueueRecord(ready, leased, scheduled, size, seq, options)


QUEUE_READERS: Mapping[int, Callable[[bytes, bytes], QueueRecord]] = {1: _read_queue}


def decode_queue(key: bytes, raw: bytes) -> QueueRecord:
    """The queue's record stored at `key`; CorruptRecord when it is not what was written, NewerVersion."""
    return frame.read(frame.LITTLE, key, raw, QUEUE_VERSION, QUEUE_READERS)
