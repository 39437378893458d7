"""Payloads too large for their record, in rows of their own.

Up to `ROW_BYTES_MAX` one row; larger ones are cut into pieces that fill one page each, so that the
store never has to find many neighbouring free pages.
"""

import struct
from zlib import crc32

from qbroker_server.core import keys, limits
from qbroker_server.core.errors import CorruptRecord
from qbroker_server.core.ports import ReadTxn, Txn
from qbroker_server.core.records import Flag, Record

_SEAL = struct.Struct("<II")
"""Length and checksum of a payload apart; its record, which has a checksum itself, keeps them in its place."""


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
    prefix = _prefix(message_id)
    step = len(payload) if len(payload) <= limits.ROW_BYTES_MAX else limits.CHUNK_BYTES
    for index, at in enumerate(range(0, len(payload), step)):
        txn.put(prefix + keys.U32.pack(index), payload[at : at + step])


def read(txn: ReadTxn, message_id: str, record: Record) -> bytes:
    """The record's payload, wherever it is; CorruptRecord when it is not what was written."""
    if not record.flags & Flag.PAYLOAD_APART:
        return record.payload
    prefix = _prefix(message_id)
    payload = txn.get(prefix + keys.U32.pack(0)) or b""
    if len(payload) == limits.CHUNK_BYTES:
        rows = txn.scan(prefix, keys.after(prefix), limits.STEP_BYTES_MAX // limits.CHUNK_BYTES)
        payload = b"".join([row for _, row in rows])
    if _SEAL.pack(len(payload), crc32(payload)) != record.payload:
        raise CorruptRecord(prefix, "the checksum of its payload differs")
    return payload


def detach(txn: Txn, message_id: str, record: Record) -> None:
    """Remove the record's payload."""
    record.payload = b""
    if record.flags & Flag.PAYLOAD_APART:
        record.flags &= ~Flag.PAYLOAD_APART
        prefix = _prefix(message_id)
        for key, _ in txn.scan(
            prefix, keys.after(prefix), limits.STEP_BYTES_MAX // limits.CHUNK_BYTES
        ):
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
