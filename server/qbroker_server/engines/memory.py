"""A dict with an order: for tests, and for brokers that may forget."""

import sys
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class MemoryEngine:
    """Keeps everything in this process's memory; nothing survives it."""

    name = "memory"
    room_bytes = sys.maxsize

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []

    def begin(self, *, bytes_max: int) -> "MemoryTxn":
        del bytes_max  # Memory needs no room made.
        return MemoryTxn(self._rows, self._keys)

    @contextmanager
    def read(self) -> Iterator["MemoryTxn"]:
        yield MemoryTxn(self._rows, self._keys)

    def stored_bytes(self) -> int:
        return sum(len(key) + len(value) for key, value in self._rows.items())

    def close(self) -> None:
        self._rows.clear()
        self._keys.clear()


class MemoryTxn:
    """Changes the rows in place and remembers how to change them back."""

    def __init__(self, rows: dict[bytes, bytes], ordered: list[bytes]) -> None:
        self._rows = rows
        self._keys = ordered
        self._before: dict[bytes, bytes | None] = {}
        self.get = rows.get

    def put(self, key: bytes, value: bytes, /) -> None:
        if not 0 < len(key) <= 511:  # As LMDB's keys have.
            raise ValueError(f"key {key!r} has {len(key)} bytes, not 1 to 511")
        before = self._rows.get(key)
        self._before.setdefault(key, before)
        if before is None:
            insort(self._keys, key)
        self._rows[key] = bytes(value)

    def delete(self, key: bytes, /) -> bool:
        before = self._rows.pop(key, None)
        if before is None:
            return False
        self._before.setdefault(key, before)
        del self._keys[bisect_left(self._keys, key)]
        return True

    def scan(self, start: bytes, stop: bytes, limit: int, /) -> Sequence[tuple[bytes, bytes]]:
        first = bisect_left(self._keys, start)
        last = bisect_left(self._keys, stop, first, min(first + limit, len(self._keys)))
        rows = self._rows
        return [(key, rows[key]) for key in self._keys[first:last]]

    def commit(self) -> None:
        self._before.clear()

    def abort(self) -> None:
        for key, value in self._before.items():
            if value is None:
                self.delete(key)
            else:
                self.put(key, value)
        self._before.clear()
