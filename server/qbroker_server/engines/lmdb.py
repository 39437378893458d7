"""One LMDB environment: the store on disk.

LMDB commits with two flushes (pages, then the meta page) and needs no recovery; a reader sees the
last commit and never waits. Its defaults are kept: durability is the point. One process owns the
directory (see lock.py); this module is alone in importing lmdb.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import lmdb

from qbroker_server.core.errors import StoreDamaged
from qbroker_server.core.limits import MIB
from qbroker_server.core.ports import StoreError

MAP_BYTES_MIN = 1024 * MIB
"""The map's first size. It costs address space, not memory or disk."""

_GROWTH = 8
"""How much a change may cost in the store, at the very most, per byte of it: keys, indexes, copied pages."""

_RESERVE_BYTES = 64 * MIB
"""Room that is always left, so that deleting, which needs fresh pages as well, works whatever happened."""

_LOOK_BYTES = 4 * MIB
"""How much may be written before the map and the disk are looked at again."""

_NEAR_BYTES = 1024 * MIB
"""With less room than this on the disk, they are looked at each time."""


class LmdbEngine:
    """Keeps everything in `directory`; what was committed survives power loss, if the disk honours a flush."""

    name = "lmdb"

    def __init__(self, directory: Path, *, map_bytes: int = MAP_BYTES_MIN) -> None:
        self._directory = directory
        try:
            self._env = lmdb.open(
                str(directory),
                map_size=max(map_bytes, _map_bytes(directory)),
                max_readers=64,
                max_spare_txns=2,
                # Messages are nobody else's business.
                mode=0o600,
                meminit=False,
            )
        except lmdb.Error as error:
            raise _unusable(directory, str(error)) from error
        # A process that was killed while it read holds its pages until somebody looks.
        self._env.reader_check()
        self._page_bytes = int(self._env.stat()["psize"])
        self._map_bytes = int(self._env.info()["map_size"])
        if self._is_short() and not _is_whole(directory):
            self._env.close()
            raise _unusable(directory, "data.mdb is shorter than it was, or damaged")
        self._unlooked_bytes = 0
        self.room_bytes = 0

    def begin(self, *, bytes_max: int) -> "LmdbTxn":
        self._unlooked_bytes += bytes_max
        if self._unlooked_bytes > _LOOK_BYTES or self.room_bytes < _NEAR_BYTES:
            self._look(bytes_max)
        return LmdbTxn(self._env.begin(write=True))

    def _look(self, bytes_max: int) -> None:
        """See what is left of the map, which grows, and of the disk, which does not."""
        self._unlooked_bytes = 0
        file_bytes = (int(self._env.info()["last_pgno"]) + 1) * self._page_bytes
        needed = (bytes_max + _LOOK_BYTES) * _GROWTH + _RESERVE_BYTES
        if self._map_bytes - file_bytes < needed:
            # Nobody reads at this moment: readers live on the thread that waits for this one.
            self._map_bytes = 2 * self._map_bytes + needed
            self._env.set_mapsize(self._map_bytes)
        disk = os.statvfs(self._directory)
        free_inside = max(0, file_bytes - self.stored_bytes())
        self.room_bytes = free_inside + disk.f_bavail * disk.f_frsize

    @contextmanager
    def read(self) -> Iterator["LmdbTxn"]:
        txn = LmdbTxn(self._env.begin())
        try:
            yield txn
        except lmdb.Error as error:
            raise StoreDamaged(f"a page of the broker's store cannot be read: {error}") from error
        finally:
            txn.abort()
            txn.let_go()

    def _is_short(self) -> bool:
        """Whether the file lacks pages that it was once given; it may, if they were never written."""
        given = (int(self._env.info()["last_pgno"]) + 1) * self._page_bytes
        return (self._directory / "data.mdb").stat().st_size < given

    def stored_bytes(self) -> int:
        stat = self._env.stat()
        pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return int(pages) * self._page_bytes

    def close(self) -> None:
        self._env.close()


def _unusable(directory: Path, why: str) -> StoreError:
    return StoreError(
        f"The store in {directory} cannot be opened: {why}. "
        "Restore data.mdb from a backup, or choose another directory with --data-dir."
    )


def _is_whole(directory: Path) -> bool:
    """Whether each page that is in use is there; looked at by a process that may die of it, as who reads a mapped file behind its end does."""
    code = "import sys; from qbroker_server.engines import lmdb; lmdb.walk(sys.argv[1])"
    walker = subprocess.run(  # noqa: S603 — this very module
        [sys.executable, "-c", code, str(directory)], capture_output=True, check=False
    )
    return walker.returncode == 0


def walk(directory: str) -> None:
    """Touch each page that is in use."""
    with lmdb.open(directory, readonly=True, lock=False) as env, open(os.devnull, "wb") as nowhere:  # noqa: PTH123 — no file
        env.copyfd(nowhere.fileno(), compact=True)


def _map_bytes(directory: Path) -> int:
    """A map that holds what is there, and as much again."""
    data = directory / "data.mdb"
    return 2 * data.stat().st_size if data.exists() else 0


class LmdbTxn:
    """LMDB's own calls under the names the core uses, with nothing in between."""

    __slots__ = ("_txn", "abort", "commit", "delete", "get", "put")

    def __init__(self, txn: lmdb.Transaction) -> None:
        self._txn = txn
        self.get: Callable[[bytes], bytes | None] = cast("Callable[[bytes], bytes | None]", txn.get)
        self.put: Callable[[bytes, bytes], bool] = txn.put
        self.delete: Callable[[bytes], bool] = txn.delete
        self.commit: Callable[[], None] = txn.commit
        self.abort: Callable[[], None] = txn.abort

    def let_go(self) -> None:
        """Drop LMDB's own transaction, which keeps its place in the table of readers for as long as anybody knows it.

        An error that was raised in the block knows this object, and lives until a collection of cycles.
        """
        del self._txn, self.get, self.put, self.delete, self.commit, self.abort

    def scan(self, start: bytes, stop: bytes, limit: int, /) -> Sequence[tuple[bytes, bytes]]:
        rows: list[tuple[bytes, bytes]] = []
        with self._txn.cursor() as cursor:
            if limit > 0 and cursor.set_range(start):
                # Its stubs allow for buffers, which this environment does not ask for.
                for row in cast("Iterator[tuple[bytes, bytes]]", cursor.iternext()):
                    if row[0] >= stop:
                        break
                    rows.append(row)
                    if len(rows) == limit:
                        break
        return rows
