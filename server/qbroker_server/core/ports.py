"""What the core asks of the world: an ordered map with atomic commit."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from qbroker_server.core.errors import StoreDamaged, StoreFull


class StoreError(Exception):
    """The store cannot be opened; the text is a sentence that says why."""


class ReadTxn(Protocol):
    """A view of the store at one moment."""

    def get(self, key: bytes, /) -> bytes | None:
        """The value at `key`, or None."""

    def scan(self, start: bytes, stop: bytes, limit: int, /) -> Sequence[tuple[bytes, bytes]]:
        """Up to `limit` rows with `start` <= key < `stop`, in key order."""


class Txn(ReadTxn, Protocol):
    """A view that can be changed; the changes become true together, at commit, or not at all."""

    def put(self, key: bytes, value: bytes, /) -> object:
        """Set `key` (1 to 511 bytes) to `value`."""

    def delete(self, key: bytes, /) -> bool:
        """Remove `key`; whether it was there."""


class WriteTxn(Txn, Protocol):
    """A `Txn` with its two ways to end. Begun, used and ended on one thread."""

    def commit(self) -> None:
        """Make the changes durable; returns when they are. When it raises, they may or may not be."""

    def abort(self) -> None:
        """Forget the changes."""


class Engine(Protocol):
    """A store. One writer at a time; readers see the last commit and never wait."""

    name: str
    room_bytes: int
    """How much more can be stored in space that the store has for itself, as of a `begin` not long ago."""

    def begin(self, *, bytes_max: int) -> WriteTxn:
        """Start to write, with room made beforehand for about `bytes_max` bytes of changes."""

    def read(self) -> AbstractContextManager[ReadTxn]:
        """Look at the last commit. Keep it short: pages it can see are not reused meanwhile."""

    def meaning(self, error: Exception) -> StoreFull | StoreDamaged | None:
        """What an error of a transaction means for its commands; None for one that the store does not know.

        StoreFull: nothing was stored, and a later transaction may succeed.
        """

    def stored_bytes(self) -> int:
        """What the records occupy, in bytes, free pages not counted."""

    def close(self) -> None:
        """Let go of the store. Nothing may use it afterwards."""
