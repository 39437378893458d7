"""What the broker can be asked to do."""

from typing import Protocol, TypeVar

from qbroker_server.core.effects import Effects
from qbroker_server.core.ports import Txn

R_co = TypeVar("R_co", covariant=True)


class Command(Protocol[R_co]):
    """A frozen value that knows how to apply itself.

    It looks, then refuses (a `CoreError`) or writes; never writes and then refuses, because its
    neighbours share the transaction. It reads no clock and draws no random number.
    """

    @property
    def cost(self) -> tuple[int, int]:
        """How much of a step it takes: (items, payload bytes)."""

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> R_co:
        """Do it at `now_ms` (Unix milliseconds); tell `effects` what others must know."""
