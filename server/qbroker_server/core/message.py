"""A message's record, by id: the one answer to where it is.

r <id>  → Record (records.py)
x <id>  → a record that was found damaged, byte for byte
"""

from qbroker_server.core import keys, records
from qbroker_server.core.effects import Effects
from qbroker_server.core.errors import CorruptRecord
from qbroker_server.core.limits import SHRUNK_BYTES_MIN
from qbroker_server.core.ports import ReadTxn, Txn
from qbroker_server.core.records import EndReason, Record, Stage, decode, encode


def key_of(message_id: str) -> bytes:
    """Where the message's record is."""
    return keys.MESSAGE + message_id.encode()


def peek(txn: ReadTxn, message_id: str) -> Record | None:
    """The message's record, or None; CorruptRecord when it is damaged."""
    key = key_of(message_id)
    raw = txn.get(key)
    return None if raw is None else decode(key, raw)


def has_ended(txn: ReadTxn, message_id: str) -> bool:
    """Whether the message has ended, or cannot be read; it costs less than to read it."""
    raw = txn.get(key_of(message_id))
    return raw is not None and records.has_ended(raw)


def find(txn: Txn, message_id: str, effects: Effects) -> Record | None:
    """The message's record, or None. A damaged one is put aside: it costs one task, not the queue."""
    key = key_of(message_id)
    raw = txn.get(key)
    if raw is None:
        return None
    try:
        return decode(key, raw)
    except CorruptRecord as error:
        txn.put(keys.DAMAGED + message_id.encode(), raw)
        txn.delete(key)
        effects.damaged.append(str(error))
        return None


def save(txn: Txn, message_id: str, record: Record) -> None:
    """Store the record as it is now."""
    txn.put(keys.MESSAGE + message_id.encode(), encode(record))


def save_shrunk(txn: Txn, message_id: str, record: Record, freed_bytes: int) -> None:
    """Store a record that lost `freed_bytes` of payload, so that the store has them back at once.

    An engine of pages merges them only where rows are deleted: a row that is overwritten by a smaller one leaves
    its page as it is, and no later message is stored there, because ids grow. To delete first costs 2 us more.
    """
    if freed_bytes >= SHRUNK_BYTES_MIN:
        txn.delete(keys.MESSAGE + message_id.encode())
    save(txn, message_id, record)


def unknown(now_ms: int) -> Record:
    """A record under an id that no message was published with."""
    return Record(
        stage=Stage.DONE,
        flags=0,
        priority=0,
        end_reason=EndReason.NONE,
        attempt=0,
        deaths=0,
        deaths_max=0,
        retries=0,
        size=0,
        seq=0,
        published_ms=now_ms,
        eta_ms=0,
        expires_ms=0,
        result_ttl_ms=0,
        changed_ms=now_ms,
        queue="",
        task="",
        session="",
        lane=b"",
        state="",
        detail="",
        extras=None,
        payload=b"",
    )
