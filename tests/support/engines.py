"""Engines that misbehave on demand."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from threading import Event

from qbroker_server.core.errors import StoreDamaged, StoreFull
from qbroker_server.core.ports import ReadTxn, WriteTxn
from qbroker_server.engines.memory import MemoryEngine


class FlakyEngine:
    """A memory engine that counts its commits, and holds them up or fails them when told to."""

    name = "flaky"
    room_bytes = MemoryEngine.room_bytes

    def __init__(self) -> None:
        self.commit_count = 0
        self.failure: Exception | None = None
        """What the coming commits fail with."""
        self.rows_max = -1
        """Commits that write no more rows than this succeed all the same."""
        self.gate = Event()
        """Commits wait for it. Open at first."""
        self.gate.set()
        self.is_committing = False
        self._engine = MemoryEngine()

    def begin(self, *, bytes_max: int) -> WriteTxn:
        return _FlakyTxn(self, self._engine.begin(bytes_max=bytes_max))

    def read(self) -> AbstractContextManager[ReadTxn]:
        return self._engine.read()

    def meaning(self, error: Exception) -> StoreFull | StoreDamaged | None:
        return error if isinstance(error, StoreFull | StoreDamaged) else None

    def stored_bytes(self) -> int:
        return self._engine.stored_bytes()

    def close(self) -> None:
        self._engine.close()


class _FlakyTxn:
    def __init__(self, engine: FlakyEngine, txn: WriteTxn) -> None:
        self._engine = engine
        self._txn = txn
        self._row_count = 0

    def get(self, key: bytes, /) -> bytes | None:
        return self._txn.get(key)

    def put(self, key: bytes, value: bytes, /) -> object:
        self._row_count += 1
        return self._txn.put(key, value)

    def delete(self, key: bytes, /) -> bool:
        return self._txn.delete(key)

    def scan(self, start: bytes, stop: bytes, limit: int, /) -> Sequence[tuple[bytes, bytes]]:
        return self._txn.scan(start, stop, limit)

    def commit(self) -> None:
        self._engine.is_committing = True
        self._engine.gate.wait()
        self._engine.is_committing = False
        if self._engine.failure is not None and self._row_count > self._engine.rows_max:
            self._txn.abort()
            raise self._engine.failure
        self._engine.commit_count += 1
        self._txn.commit()

    def abort(self) -> None:
        self._txn.abort()
