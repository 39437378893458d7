"""Bytes made smaller and back, and a few bytes that would become too many."""

import argparse
import bz2
import gzip
import lzma
from pathlib import Path

import brotli
import pytest
import zstandard
from hypothesis import given, strategies as st

from qbroker import compression
from qbroker.exceptions import DecodeError, ImproperlyConfigured, LimitExceeded

NAMES = {
    "zstd": "application/zstd",
    "gzip": "application/x-gzip",
    "zlib": "application/x-gzip",
    "bzip2": "application/x-bz2",
    "lzma": "application/x-lzma",
    "brotli": "application/x-brotli",
}


@pytest.mark.parametrize("name", NAMES)
@given(body=st.binary(max_size=5_000))
def test_what_is_packed_is_unpacked_alike(name: str, body: bytes) -> None:
    packed, content_type = compression.compress(body, name)

    assert content_type == NAMES[name]
    assert compression.decompress(packed, content_type) == body


@pytest.mark.parametrize("name", NAMES)
def test_a_level_is_the_methods_own(name: str) -> None:
    body = Path(argparse.__file__).read_bytes()

    least, _ = compression.compress(body, name, 1)
    most, _ = compression.compress(body, name, 9)

    assert len(most) <= len(least)
    assert compression.decompress(least, name) == compression.decompress(most, name) == body


BOMB = bytes(8 * 1024 * 1024)


@pytest.mark.parametrize("name", NAMES)
def test_a_bomb_is_refused_before_it_fills_the_memory(name: str) -> None:
    packed, content_type = compression.compress(BOMB, name)

    assert len(packed) < 20_000
    with pytest.raises(LimitExceeded, match=r"unpack to more than 100000 .*unpacked_bytes_max"):
        compression.decompress(packed, content_type, 100_000)
    assert compression.decompress(packed, content_type, len(BOMB)) == BOMB


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("gzip", gzip.compress(b"body")),
        ("bzip2", bz2.compress(b"body")),
        ("lzma", lzma.compress(b"body")),
        ("zstd", zstandard.compress(b"body")),
        ("brotli", brotli.compress(b"body")),
    ],
    ids=["gzip", "bzip2", "lzma", "zstd", "brotli"],
)
def test_what_others_have_packed_is_unpacked_and_what_is_damaged_is_refused(
    name: str, packed: bytes
) -> None:
    assert compression.decompress(packed, name) == b"body"
    for damaged in (b"nothing of the kind", packed[: len(packed) // 2]):
        with pytest.raises(DecodeError, match=f"{name!r} cannot be unpacked"):
            compression.decompress(damaged, name)


def test_zstd_of_unknown_length_is_bounded_too() -> None:
    packed = zstandard.ZstdCompressor(write_content_size=False).compress(BOMB)

    assert compression.decompress(packed, "zstd") == BOMB
    with pytest.raises(LimitExceeded):
        compression.decompress(packed, "zstd", 100_000)


def test_an_unknown_method_is_named_and_ones_own_may_be_added() -> None:
    with pytest.raises(ImproperlyConfigured, match="no compression is called 'turning'"):
        compression.compress(b"body", "turning")
    with pytest.raises(DecodeError, match="'turning' cannot be unpacked"):
        compression.decompress(b"body", "turning")

    compression.register(lambda body: body[::-1], lambda body: body[::-1], "x/turned", ["turning"])

    assert compression.compress(b"body", "turning") == (b"ydob", "x/turned")
    assert compression.decompress(b"ydob", "x/turned") == b"body"
    assert "x/turned" in compression.encoders()
