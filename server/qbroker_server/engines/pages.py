"""Reads a store's file page by page, without LMDB: LMDB aborts its process at some damaged pages.

The file is LMDB's format 1 on a 64-bit machine: two meta pages, of which the one with the greater transaction number
counts, then branch, leaf and overflow pages. The meta page names the roots of two trees, the rows and the free pages.

Nothing here trusts a page. A tree is walked from its root with the bounds that the branch pages give. Where a branch
page is damaged, the leaf pages below it are found by looking at all pages: a page that is neither in a tree nor free is
one of them. Without the list of free pages, such a page may also be an old one; `Image.may_be_old` says so.
"""

import os
import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from qbroker_server.core.ports import StoreError

_HEADER = struct.Struct("<QHHHH")
"""Number, pad, flags, end of the node pointers, start of the nodes."""
_META = struct.Struct("<II16x")
_TREE = struct.Struct("<IHHQQQQQ")
"""Page size (in the first tree), flags, depth, branch pages, leaf pages, overflow pages, rows, root."""
_TAIL = struct.Struct("<QQ")
"""Last page, transaction."""
_NODE = struct.Struct("<HHHH")
"""Size of the value or number of the child, in two halves; flags; size of the key."""
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")

_MAGIC = 0xBEEFC0DE
_FORMAT = 1
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 1, 2, 4, 8
_IS_APART = 1
"""The value is in overflow pages; the node has the number of the first."""
_NO_PAGE = 2**64 - 1
_PAGE_SIZES = (4096, 8192, 16384, 32768, 65536, 2048, 1024, 512)
_DEPTH_MAX = 32

_Bounds = tuple[bytes, bytes | None]
"""The least key, and the first that is too great; None: there is no such key."""


@dataclass
class Image:
    """What could be read of a store."""

    rows: dict[bytes, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """What could not, a sentence each."""
    page_count: int = 0
    may_be_old: bool = False
    """Some rows come from pages that may have been out of use: keys were found that a later commit may have removed."""
    others: dict[bytes, list[bytes]] = field(default_factory=dict)
    """Further values of a key, from pages that may be old."""


class Rows:
    """A view of rows that are in memory."""

    def __init__(self, rows: dict[bytes, bytes]) -> None:
        self._rows = rows
        self._keys = sorted(rows)

    def get(self, key: bytes, /) -> bytes | None:
        return self._rows.get(key)

    def scan(self, start: bytes, stop: bytes, limit: int, /) -> Sequence[tuple[bytes, bytes]]:
        first = bisect_left(self._keys, start)
        end = min(bisect_left(self._keys, stop), first + limit)
        return [(key, self._rows[key]) for key in self._keys[first:end]]


@dataclass(frozen=True)
class _Meta:
    free_root: int
    free_depth: int
    root: int
    depth: int
    row_count: int
    last_page: int
    transaction: int


class _Bad(Exception):
    """A page is not what it should be; the text says in what way."""


def read(file: Path) -> Image:
    """Everything that can be read of the store in `file`; StoreError when the file itself cannot be read."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror}.") from error
    try:
        return _Reader(descriptor).read()
    finally:
        os.close(descriptor)


class _Reader:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._file_bytes = os.fstat(descriptor).st_size
        self._page_bytes = 0
        self._image = Image()
        self._used: set[int] = set()
        self._free: set[int] = set()
        self._holes: list[_Bounds] = []
        self._last_page = 0

    def read(self) -> Image:
        meta = self._meta()
        image = self._image
        if not self._page_bytes:
            return image
        knows_free = False
        if meta is None:
            self._last_page = self._file_bytes // self._page_bytes
            self._holes.append((b"", None))
        else:
            self._last_page = meta.last_page
            knows_free = self._read_free(meta)
            self._holes.clear()
            for page, key, at in self._leaves(meta.root, meta.depth):
                self._take(page, key, at, is_orphan=False)
            if not image.faults and len(image.rows) != meta.row_count:
                image.faults.append(
                    f"the store has {len(image.rows)} rows, its meta page says {meta.row_count}"
                )
        if self._holes:
            image.may_be_old = not knows_free
            self._read_orphans()
        image.page_count = len(self._used)
        return image

    def _meta(self) -> _Meta | None:
        """The meta page that counts."""
        for size in _PAGE_SIZES:
            found: list[_Meta] = []
            bad: list[str] = []
            for number in (0, 1):
                try:
                    found.append(self._one_meta(number, size))
                except _Bad as error:
                    bad.append(f"the meta page {number} {error}")
            if found:
                self._page_bytes = size
                self._image.faults += bad
                return max(found, key=lambda meta: meta.transaction)
        self._image.faults.append("neither meta page can be read")
        if self._file_bytes >= 2 * _PAGE_SIZES[0]:
            self._page_bytes = _PAGE_SIZES[0]
        return None

    def _one_meta(self, number: int, size: int) -> _Meta:
        raw = self._bytes(number * size, size)
        own, _, flags, _, _ = _HEADER.unpack_from(raw)
        at = _HEADER.size
        magic, version = _META.unpack_from(raw, at)
        at += _META.size
        page_bytes, _, free_depth, _, _, _, _, free_root = _TREE.unpack_from(raw, at)
        at += _TREE.size
        _, _, depth, _, _, _, row_count, root = _TREE.unpack_from(raw, at)
        last_page, transaction = _TAIL.unpack_from(raw, at + _TREE.size)
        roots_fit = all(one == _NO_PAGE or 1 < one <= last_page for one in (free_root, root))
        depths_fit = max(free_depth, depth) <= _DEPTH_MAX
        if (
            own != number
            or flags != _META_PAGE
            or (magic, version, page_bytes) != (_MAGIC, _FORMAT, size)
            or not (roots_fit and depths_fit)
        ):
            raise _Bad("is not one")
        return _Meta(free_root, free_depth, root, depth, row_count, last_page, transaction)

    def _read_free(self, meta: _Meta) -> bool:
        """Learn which pages are free; whether all of them could be."""
        fault_count = len(self._image.faults)
        for page, _, at in self._leaves(meta.free_root, meta.free_depth, has_bounds=False):
            try:
                value = self._value(page, at)
                count = _U64.unpack_from(value)[0]
                numbers = struct.unpack_from(f"<{count}Q", value, _U64.size)
            except (_Bad, struct.error, MemoryError, OverflowError) as error:
                self._image.faults.append(f"a list of free pages cannot be read: {error}")
                continue
            self._free.update(numbers)
        return len(self._image.faults) == fault_count

    def _leaves(
        self, root: int, depth: int, *, has_bounds: bool = True
    ) -> Iterator[tuple[bytes, bytes, int]]:
        """Each node of the tree's leaf pages: its page, its key and where it is in the page."""
        if root == _NO_PAGE:
            return
        stack: list[tuple[int, int, _Bounds]] = [(root, 1, (b"", None))]
        while stack:
            number, level, bounds = stack.pop()
            wanted = _LEAF if level >= depth else _BRANCH
            try:
                page = self._page(number, wanted)
                nodes, bad = self._nodes(page, wanted)
                if has_bounds:
                    bad += self._order_faults(nodes, bounds, wanted)
            except _Bad as error:
                self._image.faults.append(f"page {number} {error}")
                self._holes.append(bounds)
                continue
            self._image.faults += [f"page {number} {why}" for why in bad]
            if bad and wanted == _BRANCH:
                self._holes.append(bounds)
                continue
            self._used.add(number)
            if wanted == _LEAF:
                for key, at in nodes:
                    if not has_bounds or _is_within(key, bounds):
                        yield page, key, at
                continue
            ends = [key for key, _ in nodes[1:]]
            for index in range(len(nodes) - 1, -1, -1):
                least = nodes[index][0] if index else bounds[0]
                end = ends[index] if index < len(ends) else bounds[1]
                low, high, flags, _ = _NODE.unpack_from(page, nodes[index][1])
                stack.append((low | high << 16 | flags << 32, level + 1, (least, end)))

    def _page(self, number: int, wanted: int) -> bytes:
        if not 1 < number <= self._last_page:
            raise _Bad("is not a page of the store")
        if number in self._used:
            raise _Bad("is named twice")
        if number in self._free:
            raise _Bad("is in use and listed as free")
        page = self._bytes(number * self._page_bytes, self._page_bytes)
        own, _, flags, _, _ = _HEADER.unpack_from(page)
        if own != number:
            raise _Bad(f"says that it is page {own}")
        if flags != wanted:
            raise _Bad("is of the wrong kind")
        return page

    def _nodes(self, page: bytes, wanted: int) -> tuple[list[tuple[bytes, int]], list[str]]:
        """The page's nodes, by key and place, and what is wrong with others."""
        _, _, _, lower, upper = _HEADER.unpack_from(page)
        size = self._page_bytes
        if not _HEADER.size < lower <= upper <= size or lower % 2:
            raise _Bad("has a damaged header")
        nodes: list[tuple[bytes, int]] = []
        bad: list[str] = []
        for at in struct.unpack_from(f"<{(lower - _HEADER.size) // 2}H", page, _HEADER.size):
            if not upper <= at <= size - _NODE.size:
                bad.append("has a row outside it")
                continue
            low, high, flags, key_bytes = _NODE.unpack_from(page, at)
            end = at + _NODE.size + key_bytes
            if wanted == _LEAF:
                end += _U64.size if flags & _IS_APART else low | high << 16
                if flags & ~_IS_APART:
                    end = size + 1
            if end > size or key_bytes > 511:
                bad.append("has a row that is too long")
                continue
            key_at = at + _NODE.size
            nodes.append((page[key_at : key_at + key_bytes], at))
        return nodes, bad

    def _order_faults(
        self, nodes: list[tuple[bytes, int]], bounds: _Bounds, wanted: int
    ) -> list[str]:
        found = [key for key, _ in nodes]
        if wanted == _BRANCH:
            # The first key of a branch page is left out: it is the page's own bound.
            found = found[1:]
        if found and not any(_is_within(key, bounds) for key in found):
            raise _Bad("has rows of another place")
        if all(_is_within(key, bounds) for key in found) and all(
            first < second for first, second in pairwise(found)
        ):
            return []
        return ["has rows in the wrong order"]

    def _take(self, page: bytes, key: bytes, at: int, *, is_orphan: bool) -> None:
        try:
            value = self._value(page, at)
        except _Bad as error:
            self._image.faults.append(f"the value of the row {key!r} {error}")
            return
        rows = self._image.rows
        if key not in rows:
            rows[key] = value
        elif is_orphan and rows[key] != value:
            self._image.others.setdefault(key, []).append(value)

    def _value(self, page: bytes, at: int) -> bytes:
        low, high, flags, key_bytes = _NODE.unpack_from(page, at)
        size, value_at = low | high << 16, at + _NODE.size + key_bytes
        if not flags & _IS_APART:
            return page[value_at : value_at + size]
        number = _U64.unpack_from(page, value_at)[0]
        start = number * self._page_bytes
        if not 1 < number <= self._last_page:
            raise _Bad(f"is on page {number}, which is not a page of the store")
        raw = self._bytes(start, _HEADER.size)
        count = _U32.unpack_from(raw, 12)[0]
        own, _, page_flags, _, _ = _HEADER.unpack(raw)
        if (own, page_flags) != (number, _OVERFLOW) or count * self._page_bytes < size + len(raw):
            raise _Bad(f"is on page {number}, which is damaged")
        numbers = range(number, number + count)
        if not self._used.isdisjoint(numbers) or not self._free.isdisjoint(numbers):
            raise _Bad(f"is on page {number}, which is in use twice")
        value = self._bytes(start + len(raw), size)
        self._used.update(numbers)
        return value

    def _read_orphans(self) -> None:
        """Take the rows of pages that no branch page names."""
        for number in range(2, self._last_page + 1):
            if number in self._used or number in self._free:
                continue
            try:
                page = self._page(number, _LEAF)
                nodes, _ = self._nodes(page, _LEAF)
            except _Bad:
                continue
            found = [
                (key, at)
                for key, at in nodes
                if any(_is_within(key, bounds) for bounds in self._holes)
            ]
            if found:
                self._used.add(number)
                for key, at in found:
                    self._take(page, key, at, is_orphan=True)

    def _bytes(self, start: int, size: int) -> bytes:
        if start + size > self._file_bytes:
            raise _Bad("lies behind the end of the file")
        try:
            raw = os.pread(self._descriptor, size, start)
        except OSError as error:
            raise _Bad(f"cannot be read: {error.strerror}") from error
        if len(raw) != size:
            raise _Bad("lies behind the end of the file")
        return raw


def _is_within(key: bytes, bounds: _Bounds) -> bool:
    return bounds[0] <= key and (bounds[1] is None or key < bounds[1])
