"""Values as bytes and back: a registry of serializers, of which JSON is the one to start with.

A serializer has a name for people (`json`) and a content type for the wire (`application/json`).
JSON carries what Python's does, and, as `{"__type__": …, "__value__": …}`, what kombu's does:
datetime, date, time, Decimal, UUID, bytes. So messages of both are alike. An object with a `__json__`
method is written as what that returns; a dataclass of the user's own joins by `register_type`.
"""

import base64
import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias, TypeVar

from qbroker.exceptions import (
    ContentDisallowed,
    DecodeError,
    EncodeError,
    SerializerNotInstalled,
)

T = TypeVar("T")

Value: TypeAlias = Any
"""What users hand over and get back: whatever the serializer can write."""


@dataclass(frozen=True, slots=True)
class Serializer:
    """How values become bytes, and what that is called."""

    name: str
    content_type: str
    content_encoding: str
    encode: Callable[[Value], bytes]
    decode: Callable[[bytes], Value]


_by_name: dict[str, Serializer] = {}
_by_content_type: dict[str, Serializer] = {}


def register(
    name: str,
    encode: Callable[[Value], bytes],
    decode: Callable[[bytes], Value],
    content_type: str,
    content_encoding: str = "utf-8",
) -> None:
    """Add a serializer, or put another in its place."""
    serializer = Serializer(name, content_type, content_encoding, encode, decode)
    _by_name[name] = serializer
    _by_content_type[content_type] = serializer


def find(name_or_content_type: str) -> Serializer:
    """The serializer of that name or content type."""
    found = _by_name.get(name_or_content_type) or _by_content_type.get(name_or_content_type)
    if found is None:
        raise SerializerNotInstalled(
            f"No serializer is called {name_or_content_type!r}; there are {sorted(_by_name)}. "
            "Register it with qbroker.serialization.register()."
        )
    return found


def content_types(accept: Iterable[str]) -> frozenset[str]:
    """What `accept_content` allows, as content types."""
    return frozenset(find(name).content_type for name in accept)


def decode(body: bytes, content_type: str, accepted: frozenset[str]) -> Value:
    """The value in `body`, if its content type is among those accepted."""
    if content_type not in accepted:
        raise ContentDisallowed(
            f"Refusing to deserialize untrusted content of type {content_type!r}; allowed are "
            f"{sorted(accepted)} (the setting accept_content)."
        )
    try:
        return find(content_type).decode(body)
    except SerializerNotInstalled:
        raise
    except Exception as exc:
        raise DecodeError(f"{len(body)} bytes of {content_type!r} are malformed: {exc}") from exc


# -- JSON ----------------------------------------------------------------------------------------

_type_encoders: dict[type, tuple[str | None, Callable[[Value], Value]]] = {}
_type_decoders: dict[str, Callable[[Value], Value]] = {}


def register_type(
    type_: type[T],
    marker: str | None,
    encode: Callable[[T], Value],
    decode: Callable[[Value], T] | None = None,
) -> None:
    """Teach JSON a type. With `marker` None it is written bare and read back as what JSON makes of it."""
    _type_encoders[type_] = (marker, encode)
    if marker is not None:
        assert decode is not None, f"a marked type needs a decoder: {marker!r}"
        _type_decoders[marker] = decode


def _json_default(value: Value) -> Value:
    own = getattr(value, "__json__", None)
    if own is not None:
        return own()
    if isinstance(value, bytes):
        try:
            return {"__type__": "bytes", "__value__": value.decode()}
        except UnicodeDecodeError:
            return {"__type__": "base64", "__value__": base64.b64encode(value).decode()}
    for type_, (marker, encode_type) in _type_encoders.items():
        if isinstance(value, type_):
            written = encode_type(value)
            return written if marker is None else {"__type__": marker, "__value__": written}
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _object_hook(found: dict[str, Value]) -> Value:
    if len(found) == 2 and "__type__" in found and "__value__" in found:
        decode_type = _type_decoders.get(found["__type__"])
        if decode_type is None:
            raise ValueError(f"unsupported __type__ {found['__type__']!r}")
        return decode_type(found["__value__"])
    return found


_iterencode: Callable[[Value, int], Iterable[str]]
_make_encoder: Value = getattr(json.encoder, "c_make_encoder", None)
if _make_encoder is not None:
    # What JSONEncoder.encode builds anew for each call. Without the check for cycles: those end in a
    # RecursionError, which is an EncodeError all the same.
    _iterencode = _make_encoder(
        None,
        _json_default,
        json.encoder.encode_basestring_ascii,
        None,
        ":",
        ",",
        False,  # noqa: FBT003 - sort_keys; the C function takes no keywords
        False,  # noqa: FBT003 - skipkeys
        True,  # noqa: FBT003 - allow_nan
    )
else:
    _plain_encoder = json.JSONEncoder(default=_json_default, separators=(",", ":"))
    _iterencode = lambda value, _: _plain_encoder.iterencode(value)  # noqa: E731 - stands for the C function

_plain_decoder = json.JSONDecoder()
_typed_decoder = json.JSONDecoder(object_hook=_object_hook)


def json_encode(value: Value) -> bytes:
    """The value as compact JSON."""
    try:
        return "".join(_iterencode(value, 0)).encode("ascii")
    except (TypeError, ValueError, RecursionError) as exc:
        raise EncodeError(exc) from exc


def json_decode(body: bytes) -> Value:
    """The value that was written."""
    # Most messages carry none of our marked types, and the hook costs a call for each object.
    return (_typed_decoder if b"__type__" in body else _plain_decoder).decode(body.decode())


register("json", json_encode, json_decode, "application/json")

# Before date, because a datetime is a date.
register_type(dt.datetime, "datetime", dt.datetime.isoformat, dt.datetime.fromisoformat)
register_type(
    dt.date,
    "date",
    dt.date.isoformat,
    lambda text: dt.datetime.fromisoformat(text).date(),
)
register_type(dt.time, "time", dt.time.isoformat, dt.time.fromisoformat)
register_type(Decimal, "decimal", str, Decimal)
register_type(uuid.UUID, "uuid", lambda value: {"hex": value.hex}, lambda found: uuid.UUID(**found))
_type_decoders["bytes"] = str.encode
_type_decoders["base64"] = base64.b64decode
