"""Revoking: a message that waits is gone now, one that a worker has is ended through its lease.

It is one durable write, so it needs no worker to be up and outlives every restart. An id that is not
known yet is remembered as revoked: a message that is published with it later is never run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from qbroker_server.core import index, message, queue, results
from qbroker_server.core.effects import Cancel, Effects
from qbroker_server.core.names import check_name
from qbroker_server.core.ports import Txn
from qbroker_server.core.records import EndReason, Flag, Record, Stage


@dataclass(frozen=True, slots=True)
class Revoked:
    """What became of each id."""

    ended: tuple[str, ...]
    """Waited, or were unknown: they are never run."""
    told: tuple[str, ...]
    """Are with a worker, which was told."""
    late: tuple[str, ...]
    """Had ended before."""


@dataclass(frozen=True, slots=True)
class Revoke:
    """Have these messages not run; end them with `signal` if they run and `is_terminated`."""

    ids: Sequence[str]
    is_terminated: bool = False
    signal: str = "SIGTERM"
    why: str = "revoked"

    @property
    def cost(self) -> tuple[int, int]:
        return len(self.ids), 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> Revoked:
        ended: list[str] = []
        told: list[str] = []
        late: list[str] = []
        for message_id in self.ids:
            check_name("message id", message_id)
        for message_id in dict.fromkeys(self.ids):
            record = message.find(txn, message_id, effects)
            if record is None:
                self._end(txn, message_id, message.unknown(now_ms), now_ms, effects)
                ended.append(message_id)
            elif record.stage in (Stage.LEASED, Stage.STARTED):
                record.flags |= Flag.REVOKING | (Flag.TERMINATING if self.is_terminated else 0)
                record.detail = self.why[:500]
                message.save(txn, message_id, record)
                effects.cancels.append(
                    Cancel(
                        record.session,
                        message_id,
                        record.attempt,
                        self.is_terminated,
                        self.signal,
                    )
                )
                told.append(message_id)
            elif record.stage in (Stage.QUEUED, Stage.SCHEDULED, Stage.WAITING):
                if record.stage == Stage.QUEUED:
                    queue.remove(txn, record, effects)
                elif record.stage == Stage.SCHEDULED:
                    effects.queue_to_change(txn, record.queue).scheduled_count -= 1
                self._end(txn, message_id, record, now_ms, effects)
                ended.append(message_id)
            else:
                late.append(message_id)
        return Revoked(tuple(ended), tuple(told), tuple(late))

    def _end(
        self, txn: Txn, message_id: str, record: Record, now_ms: int, effects: Effects
    ) -> None:
        results.end(
            txn,
            message_id,
            record,
            now_ms,
            effects,
            reason=EndReason.REVOKED,
            state="REVOKED",
            detail=self.why[:500],
        )


@dataclass(frozen=True, slots=True)
class RevokeIndexed:
    """Revoke up to a step's worth of the messages with a label, or of one root; the root itself as well."""

    kind: bytes
    value: str
    after_id: str = ""
    is_terminated: bool = False
    signal: str = "SIGTERM"
    why: str = "revoked"

    @property
    def cost(self) -> tuple[int, int]:
        return 1_000, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> tuple[Revoked, str]:
        """What became of them, and the last id, to go on behind it; "" when there are no more."""
        ids = index.find(txn, self.kind, self.value, self.after_id)
        last_id = ids[-1] if ids else ""
        if self.kind == index.ROOT and not self.after_id:
            ids.insert(0, self.value)
        command = Revoke(ids, self.is_terminated, self.signal, self.why)
        return command.apply(txn, now_ms, effects), last_id
