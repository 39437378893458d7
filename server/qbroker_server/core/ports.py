"""What the core asks of the world: an ordered map with atomic commit, and a way to be a command."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from qbroker_server.core.effects import Effects

R_co = TypeVar("R_co", covariant=True)


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
        """Make the changes durable; returns when they are. OSError: they may or may not be."""

    def abort(self) -> None:
        """Forget the changes."""


class Engine(Protocol):
    """A store. One writer at a time; readers see the last commit and never wait."""

    name: str
    room_bytes: int
    """How much more can be stored before the disk is full, as of a `begin` not long ago."""

    def begin(self, *, bytes_max: int) -> WriteTxn:
        """Start to write, with room made beforehand for about `bytes_max` bytes of changes."""

    def read(self) -> AbstractContextManager[ReadTxn]:
        """Look at the last commit. Keep it short: pages it can see are not reused meanwhile."""

    def stored_bytes(self) -> int:
        """What the records occupy, in bytes, free pages not counted."""

    def close(self) -> None:
        """Let go of the store. Nothing may use it afterwards."""


class Command(Protocol[R_co]):
    """A frozen value that knows how to apply itself.

    It looks, then refuses (a `CoreError`) or writes; never writes and then refuses, because its
    neighbours share the transaction. It reads no clock and draws no random number.
    """

    @property
    def cost(self) -> tuple[int, int]:
        """How much of a step it takes: (items, payload bytes)."""

    def apply(self, txn: Txn, now_ms: int, effects: "Effects") -> R_co:
        """Do it at `now_ms` (Unix milliseconds); tell `effects` what others must know."""
