"""Messages by label, while they have not ended, and by root and workflow, until they are forgotten.

i l <label>    0 <id>  → b""
i r <root>     0 <id>  → b""
i w <workflow> 0 <id>  → b""
"""

from qbroker_server.core import keys, limits
from qbroker_server.core.ports import ReadTxn, Txn
from qbroker_server.core.records import Extras

LABEL = b"l"
ROOT = b"r"
WORKFLOW = b"w"


def labels(message_id: str, extras: Extras) -> list[bytes]:
    """Where the message is found while it has not ended."""
    end = b"\x00" + message_id.encode()
    return [keys.INDEX + LABEL + label.encode() + end for label in extras.labels]


def origins(message_id: str, extras: Extras) -> list[bytes]:
    """Where the message is found until it is forgotten."""
    end = b"\x00" + message_id.encode()
    found: list[bytes] = []
    if extras.root_id:
        found.append(keys.INDEX + ROOT + extras.root_id.encode() + end)
    if extras.workflow_id:
        found.append(keys.INDEX + WORKFLOW + extras.workflow_id.encode() + end)
    return found


def add(txn: Txn, message_id: str, extras: Extras) -> None:
    """Have the message found by what it is labelled with and where it comes from."""
    if extras.labels:
        for row in labels(message_id, extras):
            txn.put(row, b"")
    for row in origins(message_id, extras):
        txn.put(row, b"")


def end(txn: Txn, message_id: str, extras: Extras) -> None:
    """Have a message that ends found by its labels no more."""
    for row in labels(message_id, extras):
        txn.delete(row)


def forget(txn: Txn, message_id: str, extras: Extras) -> None:
    """Have a message that is forgotten found no more."""
    for row in origins(message_id, extras):
        txn.delete(row)


def find(txn: ReadTxn, kind: bytes, value: str, after_id: str = "") -> list[str]:
    """Up to a step's worth of ids with the value, in order, from behind `after_id`."""
    prefix = keys.INDEX + kind + value.encode() + b"\x00"
    start = prefix + (after_id.encode() + b"\x00" if after_id else b"")
    found = txn.scan(start, keys.after(prefix), limits.STEP_ITEMS_MAX)
    return [key[len(prefix) :].decode() for key, _ in found]
