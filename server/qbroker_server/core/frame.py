"""The first five bytes of a stored record: its version, then a checksum.

Version 1 covers only the body with its checksum. From version 2 on the checksum covers the version byte as well,
so a flipped bit in that byte is not mistaken for a newer version. Records of version 1 stay readable.

A record whose version byte is not known is one of three things:

- the checksum fits the body alone: version 1 with a damaged version byte, so `CorruptRecord`;
- the checksum fits version and body: written by a newer broker, so `NewerVersion`, and it must stay where it is;
- the checksum fits neither: `CorruptRecord`.

Every later version must keep these five bytes, because older brokers tell the three cases apart by them.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Final, TypeVar
from zlib import crc32

from qbroker_server.core.errors import CorruptRecord, NewerVersion

T = TypeVar("T")

LITTLE: Final = struct.Struct("<BI")
"""The layout of messages, queues and joins."""

BIG: Final = struct.Struct(">BI")
"""The layout of workflows, routes and schedules."""

BYTES: Final = LITTLE.size
"""Where the body begins, in both layouts."""

_FIRST: Final = 1
"""The only version whose checksum leaves out the version byte."""


def seal(layout: struct.Struct, version: int, body: bytes) -> bytes:
    """The body with its version and checksum in front."""
    start = 0 if version == _FIRST else crc32(bytes((version,)))
    return layout.pack(version, crc32(body, start)) + body


def version_of(layout: struct.Struct, key: bytes, raw: bytes, newest: int) -> int:
    """The version of the sound record `raw`, from 1 to `newest`; CorruptRecord, NewerVersion."""
    if len(raw) < BYTES:
        raise CorruptRecord(key, f"it is only {len(raw)} bytes long")
    version, checksum = layout.unpack_from(raw)
    body = memoryview(raw)[BYTES:]
    if version == _FIRST:
        if crc32(body) != checksum:
            raise CorruptRecord(key, "the checksum differs")
        return _FIRST
    if crc32(body, crc32(raw[:1])) != checksum:
        is_body_sound = crc32(body) == checksum
        raise CorruptRecord(
            key, "its version byte is damaged" if is_body_sound else "the checksum differs"
        )
    if version > newest:
        raise NewerVersion(f"record {key!r}", version, newest)
    if version < _FIRST:
        raise CorruptRecord(key, f"there is no version {version}")
    return int(version)


def read(
    layout: struct.Struct,
    key: bytes,
    raw: bytes,
    newest: int,
    readers: Mapping[int, Callable[[bytes, bytes], T]],
) -> T:
    """What `raw` holds; CorruptRecord, NewerVersion.

    `readers` gives a function of (key, raw) for each version that changed the body. It also reads the versions after
    its own, up to the next one in `readers`.
    """
    version = version_of(layout, key, raw, newest)
    reader = readers.get(version) or readers[max(one for one in readers if one < version)]
    return reader(key, raw)
