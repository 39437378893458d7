"""Unique keys: at most one message with a key at a time.

u <key>  → id

The row names the message; whether it still has the key is what that message's record says. So a key
cannot stay taken by a message that has ended, whatever happened.
"""

from enum import IntEnum

from qbroker_server.core import keys, message
from qbroker_server.core.effects import Effects
from qbroker_server.core.ports import Txn
from qbroker_server.core.records import Record, Stage, UniqueScope


class UniquePolicy(IntEnum):
    """What becomes of a second message with the key. The numbers are on the wire."""

    REJECT = 0
    RETURN_EXISTING = 1
    REPLACE = 2


def holder(txn: Txn, key: str, now_ms: int, effects: Effects) -> tuple[str, Record] | None:
    """Who has the key now."""
    raw = txn.get(keys.UNIQUE + key.encode())
    if raw is None:
        return None
    record = message.find(txn, raw.decode(), effects)
    if record is None or record.extras is None or record.extras.unique_key != key:
        return None
    scope = record.extras.unique_scope
    if scope == UniqueScope.TIME:
        has_it = now_ms < record.extras.unique_until_ms
    elif scope == UniqueScope.START:
        has_it = record.stage in (Stage.WAITING, Stage.SCHEDULED, Stage.QUEUED, Stage.LEASED)
    else:
        has_it = record.stage not in (Stage.DONE, Stage.DEAD)
    return (raw.decode(), record) if has_it else None


def take(txn: Txn, key: str, message_id: str) -> None:
    """Give the key to the message."""
    txn.put(keys.UNIQUE + key.encode(), message_id.encode())


def let_go(txn: Txn, message_id: str, record: Record) -> None:
    """The message ended: remove the row, unless its time is not over."""
    extras = record.extras
    if extras is not None and extras.unique_scope != UniqueScope.TIME:
        forget(txn, message_id, record)


def forget(txn: Txn, message_id: str, record: Record) -> None:
    """The message's record goes: remove the row, unless another message has the key by now."""
    if record.extras is None or not record.extras.unique_key:
        return
    key = keys.UNIQUE + record.extras.unique_key.encode()
    if txn.get(key) == message_id.encode():
        txn.delete(key)
