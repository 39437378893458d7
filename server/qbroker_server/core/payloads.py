"""Payloads too large for their record, in rows of their own, and payloads that several records share.

A payload is cut into rows that fill one page each, so that each free page of the store can hold one of them.
Stores of older releases hold single rows of up to 16 KiB as well.

The copies of a message that several queues take have one payload among them, under its digest, with the number of
records that name it. Who is the last to let go of it removes it. Nobody else need know: a record is given a payload,
read and let go of here, wherever that is.
"""

import struct
from hashlib import blake2b
from zlib import crc32

from qbroker_server.core import keys, limits
from qbroker_server.core.errors import CorruptRecord
from qbroker_server.core.ports import ReadTxn, Txn
from qbroker_server.core.records import Flag, Record

_SEAL = struct.Struct("<II")
"""Length and checksum of a payload apart; its record, which has a checksum itself, keeps them in its place."""


_DIGEST_BYTES = 16
_SHARED_SEAL = struct.Struct(f"<II{_DIGEST_BYTES}s")
"""The same, and the digest that it is under."""


SHARED_KEY_BYTES = len(keys.SHARED) + _DIGEST_BYTES


def _prefix(message_id: str) -> bytes:
    return keys.PAYLOAD + message_id.encode() + b"\x00"


def attach(txn: Txn, message_id: str, record: Record, payload: bytes) -> None:
    """Give the record its payload; what was apart before is gone or overwritten."""
    detach(txn, message_id, record)
    if len(payload) <= limits.INLINE_BYTES_MAX:
        record.payload = payload
        return
    record.flags |= Flag.PAYLOAD_APART
    record.payload = _SEAL.pack(len(payload), crc32(payload))
    _put(txn, _prefix(message_id), payload)


def _put(txn: Txn, prefix: bytes, payload: bytes) -> None:
    step = limits.CHUNK_BYTES
    for index, at in enumerate(range(0, len(payload), step)):
        txn.put(prefix + keys.U32.pack(index), payload[at : at + step])


def share(txn: Txn, payload: bytes, count: int) -> bytes:
    """Store a payload once for so many records; answers the seal that each is to have in its place, with PAYLOAD_SHARED."""
    digest = blake2b(payload, digest_size=_DIGEST_BYTES).digest()
    key = keys.SHARED + digest
    # Somebody may have it already, of an earlier publication of the same message.
    raw = txn.get(key)
    known = 0 if raw is None else keys.U32.unpack(raw)[0]
    txn.put(key, keys.U32.pack(known + count))
    _put(txn, key + b"\x00", payload)
    return _SHARED_SEAL.pack(len(payload), crc32(payload), digest)


def shared_key(record: Record) -> bytes:
    """Where the number of those is that share the record's payload."""
    return keys.SHARED + record.payload[_SEAL.size :]


def read(txn: ReadTxn, message_id: str, record: Record) -> bytes:
    """The record's payload, wherever it is; CorruptRecord when it is not what was written."""
    if record.flags & Flag.PAYLOAD_SHARED:
        prefix = shared_key(record) + b"\x00"
    elif record.flags & Flag.PAYLOAD_APART:
        prefix = _prefix(message_id)
    else:
        return record.payload
    payload = txn.get(prefix + keys.U32.pack(0)) or b""
    if len(payload) == limits.CHUNK_BYTES:
        rows = txn.scan(prefix, keys.after(prefix), limits.STEP_BYTES_MAX // limits.CHUNK_BYTES)
        payload = b"".join([row for _, row in rows])
    if _SEAL.pack(len(payload), crc32(payload)) != record.payload[: _SEAL.size]:
        raise CorruptRecord(prefix, "the checksum of its payload differs")
    return payload


def detach(txn: Txn, message_id: str, record: Record) -> None:
    """Remove the record's payload."""
    if record.flags & Flag.PAYLOAD_SHARED:
        record.flags &= ~Flag.PAYLOAD_SHARED
        key = shared_key(record)
        raw = txn.get(key)
        count = 0 if raw is None else keys.U32.unpack(raw)[0]
        if count > 1:
            txn.put(key, keys.U32.pack(count - 1))
        else:
            txn.delete(key)
            _remove(txn, key + b"\x00")
    elif record.flags & Flag.PAYLOAD_APART:
        record.flags &= ~Flag.PAYLOAD_APART
        _remove(txn, _prefix(message_id))
    record.payload = b""


def _remove(txn: Txn, prefix: bytes) -> None:
    for key, _ in txn.scan(prefix, keys.after(prefix), limits.STEP_BYTES_MAX // limits.CHUNK_BYTES):
        txn.delete(key)


def put_status(txn: Txn, message_id: str, record: Record, result: bytes) -> None:
    """Keep a result of a state on the way, in place of the last."""
    record.flags |= Flag.HAS_STATUS
    txn.put(keys.STATUS + message_id.encode(), result)


def read_status(txn: ReadTxn, message_id: str, record: Record) -> bytes:
    """The result of the state the message is in, if one is kept."""
    if not record.flags & Flag.HAS_STATUS:
        return b""
    return txn.get(keys.STATUS + message_id.encode()) or b""


def drop_status(txn: Txn, message_id: str, record: Record) -> None:
    """Forget the result of a state on the way."""
    if record.flags & Flag.HAS_STATUS:
        record.flags &= ~Flag.HAS_STATUS
        txn.delete(keys.STATUS + message_id.encode())
