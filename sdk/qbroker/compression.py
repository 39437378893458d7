"""Bytes made smaller and back: zstd, gzip, bzip2, lzma, and brotli where it is installed.

A method has names for people (`zstd`) and a content type for the wire (`application/zstd`), kombu's. What is
unpacked is bounded: a few kilobytes can stand for gigabytes, so reading stops at `bytes_max`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from qbroker.exceptions import DecodeError, ImproperlyConfigured, LimitExceeded

__all__ = ["UNPACKED_BYTES_MAX", "compress", "decompress", "encoders", "find", "register"]

UNPACKED_BYTES_MAX = 64 * 1024 * 1024
"""What a compressed body may become at most, where nobody says otherwise."""

Pack = Callable[[bytes, int | None], bytes]
"""(bytes, level or None for the method's own) → fewer bytes."""

Unpack = Callable[[bytes, int], bytes]
"""(bytes, limit) → at most one byte more than the limit."""


@dataclass(frozen=True, slots=True)
class Method:
    """How bytes become fewer, and what that is called on the wire."""

    content_type: str
    pack: Pack
    unpack: Unpack


_by_name: dict[str, Method] = {}


def _add(method: Method, names: Iterable[str]) -> None:
    for name in (*names, method.content_type):
        _by_name[name.lower()] = method


def register(
    encoder: Callable[[bytes], bytes],
    decoder: Callable[[bytes], bytes],
    content_type: str,
    aliases: Iterable[str] = (),
) -> None:
    """Add a method of your own. Its decoder is on its own guard against bytes that become too many."""
    _add(
        Method(content_type, lambda body, _: encoder(body), lambda body, _: decoder(body)), aliases
    )


def encoders() -> list[str]:
    """The content types that can be written."""
    return sorted({method.content_type for method in _by_name.values()})


def find(name_or_content_type: str) -> Method:
    """The method of that name or content type; ImproperlyConfigured when there is none."""
    found = _by_name.get(name_or_content_type.lower())
    if found is None:
        raise ImproperlyConfigured(
            f"no compression is called {name_or_content_type!r}; there are {sorted(_by_name)}. "
            "Register it with qbroker.compression.register()."
        )
    return found


def compress(body: bytes, name: str, level: int | None = None) -> tuple[bytes, str]:
    """The bytes made smaller, and the method's content type."""
    method = find(name)
    try:
        return method.pack(body, level), method.content_type
    except ModuleNotFoundError as exc:
        raise ImproperlyConfigured(
            f"compression {name!r} needs a package that is not installed: pip install {exc.name}"
        ) from exc


def decompress(body: bytes, name: str, bytes_max: int = UNPACKED_BYTES_MAX) -> bytes:
    """The bytes as they were.

    LimitExceeded when they are more than `bytes_max`, DecodeError when nothing was compressed so.
    """
    try:
        method = find(name)
        unpacked = method.unpack(body, bytes_max)
    except Exception as exc:
        raise DecodeError(f"{len(body)} bytes of {name!r} cannot be unpacked: {exc}") from exc
    if len(unpacked) > bytes_max:
        raise LimitExceeded(
            f"{len(body)} bytes of {name!r} unpack to more than {bytes_max} (the setting unpacked_bytes_max)"
        )
    return unpacked


# The modules are imported when they are first needed: most programs need one of them, or none.


def _zstd_pack(body: bytes, level: int | None) -> bytes:
    import zstandard  # noqa: PLC0415 - see above

    return zstandard.ZstdCompressor(level=3 if level is None else level).compress(body)


def _zstd_unpack(body: bytes, bytes_max: int) -> bytes:
    import io  # noqa: PLC0415 - see above

    import zstandard  # noqa: PLC0415 - see above

    size = zstandard.frame_content_size(body)
    if 0 <= size <= bytes_max:
        return zstandard.ZstdDecompressor().decompress(body)
    # It is too much, or whoever wrote it did not know how much it would be.
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)) as reader:
        return reader.read(bytes_max + 1)


def _gzip_pack(body: bytes, level: int | None) -> bytes:
    import zlib  # noqa: PLC0415 - see above

    return zlib.compress(body, -1 if level is None else level)


def _gzip_unpack(body: bytes, bytes_max: int) -> bytes:
    import zlib  # noqa: PLC0415 - see above

    # Both headers are understood, zlib's, which kombu writes, and gzip's.
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    unpacked = unpacker.decompress(body, bytes_max + 1)
    return _whole(unpacked, bytes_max, is_over=unpacker.eof)


def _bzip2_pack(body: bytes, level: int | None) -> bytes:
    import bz2  # noqa: PLC0415 - see above

    return bz2.compress(body, 9 if level is None else level)


def _bzip2_unpack(body: bytes, bytes_max: int) -> bytes:
    import bz2  # noqa: PLC0415 - see above

    unpacker = bz2.BZ2Decompressor()
    unpacked = unpacker.decompress(body, bytes_max + 1)
    return _whole(unpacked, bytes_max, is_over=unpacker.eof)


def _lzma_pack(body: bytes, level: int | None) -> bytes:
    import lzma  # noqa: PLC0415 - see above

    return lzma.compress(body, preset=level)


def _lzma_unpack(body: bytes, bytes_max: int) -> bytes:
    import lzma  # noqa: PLC0415 - see above

    unpacker = lzma.LZMADecompressor()
    unpacked = unpacker.decompress(body, bytes_max + 1)
    return _whole(unpacked, bytes_max, is_over=unpacker.eof)


def _brotli_pack(body: bytes, level: int | None) -> bytes:
    import brotli  # noqa: PLC0415 - see above

    packed: bytes = brotli.compress(body, quality=5 if level is None else level)
    return packed


def _brotli_unpack(body: bytes, bytes_max: int) -> bytes:
    import brotli  # noqa: PLC0415 - see above

    unpacker = brotli.Decompressor()
    unpacked: bytes = unpacker.process(body, output_buffer_limit=bytes_max + 1)
    while not unpacker.can_accept_more_data() and len(unpacked) <= bytes_max:
        unpacked += unpacker.process(b"", output_buffer_limit=bytes_max + 1)
    return _whole(unpacked, bytes_max, is_over=unpacker.is_finished())


def _whole(unpacked: bytes, bytes_max: int, *, is_over: bool) -> bytes:
    if not is_over and len(unpacked) <= bytes_max:
        raise ValueError("it ends too early")
    return unpacked


_add(Method("application/zstd", _zstd_pack, _zstd_unpack), ["zstd", "zstandard"])
_add(Method("application/x-gzip", _gzip_pack, _gzip_unpack), ["gzip", "zlib"])
_add(Method("application/x-bz2", _bzip2_pack, _bzip2_unpack), ["bzip2", "bzip"])
_add(Method("application/x-lzma", _lzma_pack, _lzma_unpack), ["lzma", "xz"])
_add(Method("application/x-brotli", _brotli_pack, _brotli_unpack), ["brotli"])
