"""The newest version of each kind of record that was ever written to the store.

    v  → {"messages": 2, ...} as JSON, in a frame of version 1

The broker looks at this one row when it starts, so it need not read the whole store to learn that a newer broker
wrote to it. A store without the row has version 1 of the kinds in `_WITHOUT_ROW`, and no others.
"""

import json
from collections.abc import Mapping
from typing import Final

from qbroker_server.core import frame, joins, keys, periodic, records, routes, workflows
from qbroker_server.core.errors import CorruptRecord, NewerVersion
from qbroker_server.core.ports import ReadTxn, Txn

_ROW_VERSION = 1
"""The row must be readable by every older broker, so this number never rises."""


_WITHOUT_ROW: Final[Mapping[str, int]] = dict.fromkeys(
    ("messages", "queues", "joins", "workflows", "routes", "schedules"), 1
)


def known() -> dict[str, int]:
    """The newest version that this broker reads and writes, by kind of record."""
    return {
        "messages": records.VERSION,
        "queues": records.QUEUE_VERSION,
        "joins": joins.VERSION,
        "workflows": workflows.VERSION,
        "routes": routes.VERSION,
        "schedules": periodic.VERSION,
    }


def check(txn: ReadTxn, ours: Mapping[str, int]) -> bool:
    """Whether `ours` has versions that the store does not name yet, so that `write` must come first.

    NewerVersion: a newer broker wrote to the store.
    """
    stored = _read(txn)
    for kind, version in stored.items():
        if version > ours.get(kind, 0):
            raise NewerVersion(f"the format of {kind} in the store", version, ours.get(kind, 0))
    return any(version > stored.get(kind, 0) for kind, version in ours.items())


def write(txn: Txn, ours: Mapping[str, int]) -> None:
    """Name the versions in the store, before the first record of one of them is written."""
    body = json.dumps(dict(ours), separators=(",", ":"), sort_keys=True).encode()
    txn.put(keys.VERSIONS, frame.seal(frame.BIG, _ROW_VERSION, body))


def _read(txn: ReadTxn) -> Mapping[str, int]:
    raw = txn.get(keys.VERSIONS)
    if raw is None:
        return _WITHOUT_ROW
    try:
        frame.version_of(frame.BIG, keys.VERSIONS, raw, _ROW_VERSION)
    except CorruptRecord:
        # Each record names its own version as well, and none of a newer one is ever put aside.
        return _WITHOUT_ROW
    found: dict[str, int] = json.loads(raw[frame.BYTES :])
    return found
