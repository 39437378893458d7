"""The version and the checksum in front of a stored record."""

import struct
from zlib import crc32

import pytest
from hypothesis import given, strategies as st

from qbroker_server.core import frame
from qbroker_server.core.errors import CorruptRecord, NewerVersion

LAYOUTS = st.sampled_from([frame.LITTLE, frame.BIG])


@given(LAYOUTS, st.integers(1, 255), st.binary(max_size=100))
def test_a_record_has_the_version_that_it_was_sealed_with(
    layout: struct.Struct, version: int, body: bytes
) -> None:
    raw = frame.seal(layout, version, body)

    assert frame.version_of(layout, b"key", raw, 255) == version
    assert raw[frame.BYTES :] == body


@given(LAYOUTS, st.integers(2, 255), st.binary(max_size=100))
def test_a_record_of_a_newer_version_is_told_from_a_damaged_one(
    layout: struct.Struct, version: int, body: bytes
) -> None:
    raw = frame.seal(layout, version, body)

    with pytest.raises(NewerVersion, match=rf"version {version}, .* up to {version - 1}$"):
        frame.version_of(layout, b"key", raw, version - 1)


@given(LAYOUTS, st.integers(1, 9), st.binary(max_size=100), st.data())
def test_a_flipped_bit_is_damage_in_every_version(
    layout: struct.Struct, version: int, body: bytes, data: st.DataObject
) -> None:
    raw = bytearray(frame.seal(layout, version, body))
    at = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[at // 8] ^= 1 << at % 8

    with pytest.raises(CorruptRecord):
        frame.version_of(layout, b"key", bytes(raw), version)


def test_a_flipped_version_byte_of_version_1_is_damage_and_no_newer_version() -> None:
    raw = frame.LITTLE.pack(2, crc32(b"body")) + b"body"

    with pytest.raises(CorruptRecord, match="its version byte is damaged"):
        frame.version_of(frame.LITTLE, b"key", raw, 1)


def test_each_version_has_the_reader_that_was_written_for_it() -> None:
    readers = {1: lambda _, raw: ("one", raw[5:]), 3: lambda _, raw: ("three", raw[5:])}
    stored = [frame.seal(frame.BIG, version, b"x") for version in (1, 2, 3, 4)]

    found = [frame.read(frame.BIG, b"key", raw, 4, readers) for raw in stored]

    assert found == [("one", b"x"), ("one", b"x"), ("three", b"x"), ("three", b"x")]
