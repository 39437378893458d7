"""The time index: what to look at when.

    t <time, ms> <kind> <id>  → b""

A row is a reminder, not a fact: whoever reads it looks at the record, which says whether the time
still means something. So a message that is settled, revoked or rescheduled leaves its old rows behind,
and they cost one look when their time comes.
"""

from typing import Final

from qbroker_server.core import keys
from qbroker_server.core.effects import Effects
from qbroker_server.core.ports import ReadTxn, Txn

DUE: Final = b"d"
"""A scheduled message may be delivered from now on."""
EXPIRES: Final = b"e"
"""A message nobody has started is revoked now."""
FORGET: Final = b"f"
"""What is kept of an ended message is forgotten now."""
JOIN: Final = b"j"
"""A join, named in place of a message, has more to carry on with, or is forgotten."""
WORKFLOW: Final = b"w"
"""A workflow, named in place of a message, is forgotten."""
IDLE: Final = b"q"
"""A queue, named in place of a message, is removed if it has been idle since the last look."""
PERIODIC: Final = b"p"
"""A periodic entry, named in place of a message, may fire (periodic.py)."""

_KIND_AT = len(keys.TIME) + 8


def remind(txn: Txn, at_ms: int, kind: bytes, message_id: str, effects: Effects) -> None:
    """Have the message looked at when the clock says `at_ms`."""
    if effects.next_ms is None or at_ms < effects.next_ms:
        effects.next_ms = at_ms
    txn.put(keys.TIME + keys.U64.pack(max(at_ms, 0)) + kind + message_id.encode(), b"")


def due(txn: ReadTxn, now_ms: int, limit: int) -> list[tuple[bytes, int, bytes, str]]:
    """Up to `limit` rows whose time has come: (key, time, kind, message id)."""
    rows = txn.scan(keys.TIME, keys.TIME + keys.U64.pack(now_ms + 1), limit)
    return [
        (
            key,
            keys.U64.unpack_from(key, len(keys.TIME))[0],
            key[_KIND_AT : _KIND_AT + 1],
            key[_KIND_AT + 1 :].decode("utf-8", "replace"),
        )
        for key, _ in rows
    ]


def next_ms(txn: ReadTxn) -> int | None:
    """When the next row's time comes."""
    rows = txn.scan(keys.TIME, keys.after(keys.TIME), 1)
    return keys.U64.unpack_from(rows[0][0], len(keys.TIME))[0] if rows else None
