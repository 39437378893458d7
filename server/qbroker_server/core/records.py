"""How things look on disk: a version byte first, then a checksum of the rest.

A message has one record from its publication until its result expires, so every question about it
has one lookup. The record is rewritten at each turn of its life:

            publish                  dispatch              start               settle
    (none) ────────▶ SCHEDULED ─▶ QUEUED ─────▶ LEASED ──────────▶ STARTED ─────────▶ DONE
                        due          ▲             │ released, lost    │ lost, late     │ expiry
                                     └─────────────┴───────────────────┘                ▼
                                                                                      (none)
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from zlib import crc32

from qbroker_server.core.errors import CorruptRecord

VERSION = 1


class Stage(IntEnum):
    """Where a message is. The numbers are on disk and on the wire."""

    SCHEDULED = 1
    QUEUED = 2
    LEASED = 3
    STARTED = 4
    DONE = 5


class EndReason(IntEnum):
    """What ended a message. The numbers are on disk and on the wire."""

    NONE = 0
    SETTLED = 1
    WORKER_LOST = 2
    EXPIRED = 3
    REVOKED = 4
    MAX_DELIVERIES = 5
    REJECTED = 6


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


# version, crc | stage, flags, priority, end reason, attempt, deaths, deaths_max, seq,
# published, eta, expires, result ttl, changed | lengths: queue, task, session, lane, state, detail
_HEAD = struct.Struct("<BI")
_BODY = struct.Struct("<BBBBIHHQqqqqqBBBBBH")
_BODY_AT = _HEAD.size
_TEXT_AT = _HEAD.size + _BODY.size
_pack_head = _HEAD.pack
_pack_body = _BODY.pack
_unpack_body = _BODY.unpack_from
_unpack_head = _HEAD.unpack_from


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
    """At how many it is given up; 0: the broker's default."""
    seq: int
    """Its place by arrival. A returned message keeps it, and so its place."""
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
    payload: bytes
    """The message as published; from its end on the result. With PAYLOAD_APART the seal of it (payloads.py)."""


def encode(record: Record) -> bytes:
    """The record as it is stored."""
    r = record
    queue, task, session = r.queue.encode(), r.task.encode(), r.session.encode()
    state, detail = r.state.encode(), r.detail.encode()
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
            ),
            queue,
            task,
            session,
            r.lane,
            state,
            detail,
            r.payload,
        )
    )
    return _pack_head(VERSION, crc32(body)) + body


def decode(key: bytes, raw: bytes) -> Record:
    """The record stored at `key`; CorruptRecord when it is not what was written."""
    try:
        version, checksum = _unpack_head(raw)
        if version != VERSION:
            raise CorruptRecord(key, f"version {version!r} is not {VERSION}")
        if crc32(memoryview(raw)[_BODY_AT:]) != checksum:
            raise CorruptRecord(key, "the checksum differs")
        (
            stage,
            flags,
            priority,
            end_reason,
            attempt,
            deaths,
            deaths_max,
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
        ) = _unpack_body(raw, _BODY_AT)
    except struct.error as error:
        raise CorruptRecord(key, f"it is only {len(raw)} bytes long") from error
    task_at = _TEXT_AT + queue_bytes
    session_at = task_at + task_bytes
    lane_at = session_at + session_bytes
    state_at = lane_at + lane_bytes
    detail_at = state_at + state_bytes
    payload_at = detail_at + detail_bytes
    return Record(
        stage,
        flags,
        priority,
        end_reason,
        attempt,
        deaths,
        deaths_max,
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
        raw[detail_at:payload_at].decode(),
        raw[payload_at:],
    )


_QUEUE = struct.Struct("<qqqQ")


@dataclass(slots=True)
class QueueRecord:
    """How many messages a queue has, by stage, and the number of the last that arrived."""

    ready_count: int = 0
    leased_count: int = 0
    scheduled_count: int = 0
    last_seq: int = 0


def encode_queue(record: QueueRecord) -> bytes:
    """The queue's record as it is stored."""
    body = _QUEUE.pack(
        record.ready_count, record.leased_count, record.scheduled_count, record.last_seq
    )
    return _pack_head(VERSION, crc32(body)) + body


def decode_queue(key: bytes, raw: bytes) -> QueueRecord:
    """The queue's record stored at `key`; CorruptRecord when it is not what was written."""
    if len(raw) < _BODY_AT + _QUEUE.size:
        raise CorruptRecord(key, f"it is only {len(raw)} bytes long")
    version, checksum = _unpack_head(raw)
    if version != VERSION:
        raise CorruptRecord(key, f"version {version!r} is not {VERSION}")
    if crc32(memoryview(raw)[_BODY_AT:]) != checksum:
        raise CorruptRecord(key, "the checksum differs")
    return QueueRecord(*_QUEUE.unpack_from(raw, _BODY_AT))
