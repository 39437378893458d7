"""One LMDB environment: the store on disk.

LMDB commits with two flushes (pages, then the meta page) and needs no recovery; a reader sees the
last commit and never waits. Its defaults are kept: durability is the point. One process owns the
directory (see lock.py); this module is alone in importing lmdb.
"""

import ctypes
import errno
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import lmdb

from qbroker_server.core.errors import StoreDamaged, StoreFull
from qbroker_server.core.limits import MIB
from qbroker_server.core.ports import StoreError

logger = logging.getLogger(__name__)

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

_AHEAD_BYTES = 8 * MIB
"""Space that is allocated beside the reserve, so that the disk is asked for more seldom."""

_ASK_BYTES_MIN = MIB // 4
"""The least space that is worth asking the disk for."""

_FULL = frozenset(
    os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
)
"""Errors of a write after which LMDB has stored nothing of the transaction and can go on."""

_CUT_SHORT = os.strerror(errno.EIO)
"""What LMDB says of a write that the disk took only a part of, too."""

_WRITE_BYTES_MAX = MIB
"""More than LMDB writes at once."""

_FALLOC_FL_KEEP_SIZE = 1

_LOCK_BYTES = 8192
"""LMDB's table of 64 readers."""

_libc = ctypes.CDLL(None, use_errno=True)


def _fallocate(descriptor: int, offset: int, size: int) -> int:
    """Allocate space for a file without making it longer; answers the error's number, or 0."""
    if not hasattr(_libc, "fallocate64"):
        return errno.ENOSYS
    while _libc.fallocate64(
        descriptor, _FALLOC_FL_KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(size)
    ):
        if (code := ctypes.get_errno()) != errno.EINTR:
            return code
    return 0


class LmdbEngine:
    """Keeps everything in `directory`; what was committed survives power loss, if the disk honours a flush."""

    name = "lmdb"

    def __init__(
        self, directory: Path, *, map_bytes: int = MAP_BYTES_MIN, reserve_bytes: int = 0
    ) -> None:
        self._directory = directory
        self._reserve_bytes = reserve_bytes
        try:
            _have_lock_file(directory)
        except OSError as error:
            raise _unusable(
                directory, str(error.strerror), "Free some space on its disk"
            ) from error
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
        if self._is_short() and not is_whole(directory):
            self._env.close()
            raise _unusable(directory, "data.mdb is shorter than it was, or damaged")
        self._unlooked_bytes = 0
        self._descriptor = os.open(directory / "data.mdb", os.O_RDWR | os.O_CLOEXEC)
        self._has_fallocate = True
        self._end_bytes = 0
        """Up to here the file's space is allocated, holes and what lies behind its end included."""
        self.room_bytes = 0
        self._look(0)

    def begin(self, *, bytes_max: int) -> "LmdbTxn":
        self._unlooked_bytes += bytes_max
        if self._unlooked_bytes > _LOOK_BYTES or self.room_bytes < _NEAR_BYTES:
            self._look(bytes_max)
        return LmdbTxn(self._env.begin(write=True))

    def _look(self, bytes_max: int) -> None:
        """See what is left of the map, which grows, and of the disk, which does not."""
        self._unlooked_bytes = bytes_max
        file_bytes = (int(self._env.info()["last_pgno"]) + 1) * self._page_bytes
        needed = (bytes_max + _LOOK_BYTES) * _GROWTH + _RESERVE_BYTES
        if self._map_bytes - file_bytes < needed:
            # Nobody reads at this moment: readers live on the thread that waits for this one.
            self._map_bytes = 2 * self._map_bytes + needed
            self._env.set_mapsize(self._map_bytes)
        # Rows fill at most a page, so each free page inside the file is room for one.
        free_inside = max(0, file_bytes - self.stored_bytes())
        self.room_bytes = free_inside + self._room_behind(file_bytes, 2 * bytes_max)

    def _room_behind(self, file_bytes: int, step_bytes: int) -> int:
        """Have the reserve, and what the coming step may take, allocated behind the file's end; how much the file can grow.

        Nothing else can take allocated space, and LMDB's writes into it cannot fail for lack of it.
        """
        disk = os.statvfs(self._directory)
        free_bytes = disk.f_bavail * disk.f_frsize
        reserved_bytes = self._end_bytes - file_bytes
        wanted_bytes = self._reserve_bytes + step_bytes + _AHEAD_BYTES // 2
        if reserved_bytes < wanted_bytes:
            # The superuser's last blocks are not for messages, so do not try for more than is free.
            has_bytes = os.fstat(self._descriptor).st_blocks * 512 + free_bytes
            largest, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
            if largest != resource.RLIM_INFINITY:
                has_bytes = min(has_bytes, largest)
            end_bytes = min(file_bytes + wanted_bytes + _AHEAD_BYTES // 2, has_bytes)
            if not self._has_fallocate:
                return max(0, end_bytes - file_bytes)
            self._allocate(end_bytes)
            reserved_bytes = max(0, self._end_bytes - file_bytes)
            if reserved_bytes < wanted_bytes:
                # Less than was asked for, be it for a quota or a limit: there is no more.
                return reserved_bytes
        return reserved_bytes + free_bytes

    def _allocate(self, end_bytes: int) -> None:
        """Have the file's space allocated up to `end_bytes`, or as far as that is possible; its length stays as it is."""
        ask_bytes = end_bytes - self._end_bytes
        while ask_bytes > 0 and self._end_bytes < end_bytes:
            size = min(ask_bytes, end_bytes - self._end_bytes)
            code = _fallocate(self._descriptor, self._end_bytes, size)
            if not code:
                self._end_bytes += size
            elif code in (errno.EOPNOTSUPP, errno.ENOSYS):
                self._has_fallocate = False
                logger.warning(
                    "The file system of %s cannot set space aside: another program can take the reserve (reserve_bytes).",
                    self._directory,
                )
                return
            else:
                # Large steps first, so that a full disk is found out with a handful of calls.
                ask_bytes = size // 2 if size >= 2 * _ASK_BYTES_MIN else 0

    def _is_at_end(self) -> bool:
        """Whether the file has grown as far as the disk lets it."""
        disk = os.statvfs(self._directory)
        end_bytes = self._end_bytes + disk.f_bavail * disk.f_frsize
        largest, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if largest != resource.RLIM_INFINITY:
            end_bytes = min(end_bytes, largest)
        return os.fstat(self._descriptor).st_size + _WRITE_BYTES_MAX > end_bytes

    def meaning(self, error: Exception) -> StoreFull | StoreDamaged | None:
        if isinstance(error, lmdb.CorruptedError | lmdb.PageNotFoundError):
            return StoreDamaged(f"a page of the broker's store cannot be read: {error}")
        if not isinstance(error, lmdb.Error):
            return None
        why = str(error).rpartition(": ")[2]
        if why in _FULL or (why == _CUT_SHORT and self._is_at_end()):
            return StoreFull(f"the broker's disk takes nothing: {error}")
        return None

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
        os.close(self._descriptor)


def _have_lock_file(directory: Path) -> None:
    """Have LMDB's table of readers on disk: it is written through a map, and where the disk is full that is a SIGBUS."""
    descriptor = os.open(directory / "lock.mdb", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, _LOCK_BYTES)
    finally:
        os.close(descriptor)


def _unusable(directory: Path, why: str, how: str = "Restore data.mdb from a backup") -> StoreError:
    return StoreError(
        f"The store in {directory} cannot be opened: {why}. "
        f"{how}, or choose another directory with --data-dir."
    )


def is_whole(directory: Path) -> bool:
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
