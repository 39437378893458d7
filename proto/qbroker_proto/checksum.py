"""A checksum at the end of a serialized `Message` or `Result`, so that a damaged byte is found on every way.

The checksum is the field `checksum` (fixed64, number 2000) as protobuf writes it: its tag, the CRC-32 of all bytes
before it, and how many those are. So parts may be appended, as the broker and the worker do, and the checksum still
covers what was sealed. CRC-32 finds accidents; it is no protection against forgery, which sealed bodies have.
"""

import struct
from zlib import crc32

_TAG = b"\x81\x7d"
"""Field 2000, wire type 1."""

_TRAILER = struct.Struct("<2sII")


def sealed(raw: bytes) -> bytes:
    """The serialized message with its checksum at the end."""
    return raw + _TRAILER.pack(_TAG, crc32(raw), len(raw))


def is_damaged(raw: bytes) -> bool:
    """Whether the message ends in a checksum that is not that of the bytes before; False without one."""
    size = len(raw) - _TRAILER.size
    if size < 0:
        return False
    tag, crc, length = _TRAILER.unpack_from(raw, size)
    # Other clients end their messages in anything: six bytes must fit before it counts as a checksum.
    return bool(tag == _TAG and length == size and crc32(memoryview(raw)[:size]) != crc)


def is_broken(raw: bytes, checksum: int) -> bool:
    """Whether the message, whose parsed field `checksum` is given, is not what was sealed; False without one."""
    if not checksum:
        return False
    length = checksum >> 32
    return length > len(raw) or crc32(memoryview(raw)[:length]) != checksum & 0xFFFF_FFFF
