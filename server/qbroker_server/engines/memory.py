"""A dict with an order: for tests, and for brokers that may forget."""

import sys
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

_KEY_BYTES_MAX = 511
"""As LMDB's keys have."""


class MemoryEngine:
    """Keeps everything in this process's memory; nothing survives it."""

    name = "memory"
    room_bytes = sys.maxsize

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []
        # A commit may run beside a reader, who must see all of it or nothing.
        self._lock = Lock()

    def begin(self, *, bytes_max: int) -> "MemoryTxn":
        del bytes_max  # Memory needs no room made.
        return MemoryTxn(self._rows, self._keys, self._lock)

    @contextmanager
    def read(self) -> Iterator["MemoryTxn"]:
        with self._lock:
            yield MemoryTxn(self._rows, self._keys, self._lock)

    def meaning(self, error: Exception) -> None:
        del error  # Memory has no errors of its own.

    def stored_bytes(self) -> int:
        return sum(len(key) + len(value) for key, value in self._rows.items())

    def close(self) -> None:
        self._rows.clear()
        self._keys.clear()


class MemoryTxn:
    """The rows, with changes of its own on top that nobody else sees before they are committed."""

    def __init__(self, rows: dict[bytes, bytes], ordered: list[bytes], lock: Lock) -> None:
        self._rows = rows
        self._keys = ordered
        self._lock = lock
        self._changes: dict[bytes, bytes | None] = {}
        """None: deleted."""
        self._changed: list[bytes] = []
        """The keys of the changes, in order."""

    def get(self, key: bytes, /) -> bytes | None:
        if key in self._changes:
            return self._changes[key]
        return self._rows.get(key)

    def put(self, key: bytes, value: bytes, /) -> None:
        if not 0 < len(key) <= _KEY_BYTES_MAX:
            raise ValueError(f"key {key!r} has {len(key)} bytes, not 1 to {_KEY_BYTES_MAX}")
        self._change(key, bytes(value))

    def delete(self, key: bytes, /) -> bool:
        if self.get(key) is None:
            return False
        self._change(key, None)
        return True

    def _change(self, key: bytes, value: bytes | None) -> None:
        if key not in self._changes:
            insort(self._changed, key)
        self._changes[key] = value

    def scan(self, start: bytes, stop: bytes, limit: int, /) -> Sequence[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        ours, theirs = _between(self._changed, start, stop), _between(self._keys, start, stop)
        our_key, their_key = next(ours, None), next(theirs, None)
        while len(found) < limit:
            if our_key is None and their_key is None:
                break
            if our_key is None or (their_key is not None and their_key < our_key):
                assert their_key is not None
                found.append((their_key, self._rows[their_key]))
                their_key = next(theirs, None)
                continue
            if our_key == their_key:
                their_key = next(theirs, None)
            value = self._changes[our_key]
            if value is not None:
                found.append((our_key, value))
            our_key = next(ours, None)
        return found

    def commit(self) -> None:
        with self._lock:
            for key, value in self._changes.items():
                is_new = key not in self._rows
                if value is not None:
                    self._rows[key] = value
                    if is_new:
                        insort(self._keys, key)
                elif not is_new:
                    del self._rows[key]
                    del self._keys[bisect_left(self._keys, key)]
        self.abort()

    def abort(self) -> None:
        self._changes.clear()
        self._changed.clear()


def _between(ordered: list[bytes], start: bytes, stop: bytes) -> Iterator[bytes]:
    for index in range(bisect_left(ordered, start), bisect_left(ordered, stop)):
        yield ordered[index]
