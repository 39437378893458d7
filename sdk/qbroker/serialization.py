"""Values as bytes and back: a registry of serializers, of which JSON is the one to start with.

A serializer has a name for people (`json`) and a content type for the wire (`application/json`).
JSON carries what Python's does, and, as `{"__type__": …, "__value__": …}`, what kombu's does:
datetime, date, time, Decimal, UUID, bytes. So messages of both are alike; timedelta is ours. An object with a
`__json__` method is written as what that returns, a dataclass as its fields and a pydantic model as what it dumps:
both are read back as dicts. A type that is to come back as itself joins by `register_type`.

msgpack and yaml carry the same types. pickle carries nearly everything, and reading it runs what its writer
chose; so nobody reads any of the three before `accept_content` names it.
"""

import base64
import datetime as dt
import json
import re
import uuid
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from typing import Any, TypeAlias, TypeVar

from qbroker.exceptions import (
    ContentDisallowed,
    DecodeError,
    EncodeError,
    NestingTooDeep,
    SecurityError,
    SerializerNotInstalled,
)
from qbroker.printable import repr_of

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
    encoder: Callable[[Value], bytes | str],
    decoder: Callable[[bytes], Value],
    content_type: str,
    content_encoding: str = "utf-8",
) -> None:
    """Add a serializer, or put another in its place, as kombu's `serialization.register` does."""

    def encode(value: Value) -> bytes:
        written = encoder(value)
        return written.encode() if isinstance(written, str) else written

    _add(Serializer(name, content_type, content_encoding, encode, decoder))


def _add(serializer: Serializer) -> None:
    _by_name[serializer.name] = serializer
    _by_content_type[serializer.content_type] = serializer


def unregister(name: str) -> None:
    """Take a serializer away."""
    serializer = find(name)
    _by_name.pop(serializer.name, None)
    _by_content_type.pop(serializer.content_type, None)


def find(name_or_content_type: str) -> Serializer:
    """The serializer of that name or content type."""
    found = _by_name.get(name_or_content_type) or _by_content_type.get(name_or_content_type)
    if found is None:
        if name_or_content_type == AUTH:
            raise SerializerNotInstalled(
                "The serializer 'auth' signs, and is there after app.setup_security() alone."
            )
        raise SerializerNotInstalled(
            f"No serializer is called {name_or_content_type!r}; there are {sorted(_by_name)}. "
            "Register it with qbroker.serialization.register()."
        )
    return found


def names() -> list[str]:
    """Return the names of all serializers."""
    return sorted(_by_name)


def content_types(accept: Iterable[str]) -> frozenset[str]:
    """What `accept_content` allows, as content types; a type that no serializer has is taken as it stands."""
    return frozenset(name if "/" in name else find(name).content_type for name in accept)


def package_of(missing: ModuleNotFoundError) -> str:
    """The command that installs a missing module; packages of some have another name."""
    module = missing.name or ""
    return f"pip install {_PACKAGES.get(module, module)}"


_PACKAGES = {"yaml": "pyyaml"}


def encode(value: Value, name: str) -> tuple[str, str, bytes]:
    """The value as bytes, with their content type and encoding; EncodeError when it cannot be written."""
    serializer = find(name)
    try:
        return serializer.content_type, serializer.content_encoding, serializer.encode(value)
    except (EncodeError, SecurityError):
        raise
    except ModuleNotFoundError as exc:
        raise SerializerNotInstalled(
            f"the serializer {name!r} needs a package that is not installed: {package_of(exc)}"
        ) from exc
    except Exception as exc:
        raise EncodeError(exc) from exc


def refused(value: Value, name: str, depth: int = 0) -> tuple[str, Value] | None:
    """Where in the value the serializer finds what it cannot write, as `['rows'][3]`, and that; None: nowhere."""
    try:
        encode(value, name)
    except (EncodeError, SecurityError):
        pass
    else:
        return None
    items: Iterable[tuple[Value, Value]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    if depth < NESTING_MAX:
        for key, item in items:
            found = refused(item, name, depth + 1)
            if found is not None:
                return f"[{repr_of(key, 64)}]{found[0]}", found[1]
    return "", value


def decode(body: bytes, content_type: str, accepted: Collection[str]) -> Value:
    """The value in `body`, if its content type is among those accepted."""
    if content_type not in accepted:
        raise ContentDisallowed(
            f"Refusing to deserialize untrusted content of type {content_type!r}; allowed are "
            f"{sorted(accepted)} (the setting accept_content)."
        )
    try:
        return find(content_type).decode(body)
    except (SerializerNotInstalled, SecurityError, NestingTooDeep):
        raise
    except RecursionError as exc:
        raise NestingTooDeep(
            f"{len(body)} bytes of {content_type!r} are nested too deep to be read"
        ) from exc
    except ModuleNotFoundError as exc:
        raise DecodeError(
            f"{len(body)} bytes of {content_type!r} need a package that is not installed: {package_of(exc)}"
        ) from exc
    except Exception as exc:
        raise DecodeError(f"{len(body)} bytes of {content_type!r} are malformed: {exc}") from exc


def dumps(data: Value, serializer: str = "json") -> tuple[str, str, bytes]:
    """Content type, encoding and bytes of a value: kombu's `dumps`."""
    return encode(data, serializer)


def loads(
    data: bytes,
    content_type: str,
    content_encoding: str = "utf-8",
    accept: Collection[str] | None = None,
    force: bool = False,  # noqa: FBT001, FBT002 - kombu's signature
) -> Value:
    """The value in bytes of that content type: kombu's `loads`.

    Without `accept`, JSON and raw bytes are read, and others with `force` only, unless
    `enable_insecure_serializers` or `disable_insecure_serializers` said otherwise.
    """
    if force:
        accepted: Collection[str] = (content_type,)
    elif accept is None:
        accepted = _readable
    else:
        accepted = content_types(accept)
    return decode(data, content_type, accepted)


def enable_insecure_serializers(choices: Iterable[str] = ("pickle", "yaml", "msgpack")) -> None:
    """Have `loads` read these where it is not told what to accept: kombu's. What apps accept stays as it is."""
    _readable.update(content_types(choices))


def disable_insecure_serializers(allowed: Iterable[str] | None = ("json",)) -> None:
    """Have `loads` read these alone where it is not told what to accept: kombu's. What apps accept stays as it is."""
    _readable.clear()
    _readable.update(content_types(allowed or ()))


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
    if not isinstance(value, type):
        if hasattr(value, "model_dump"):
            return _dumped_model(value)
        if is_dataclass(value):
            return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _dumped_model(model: Value) -> Value:
    """What a pydantic model dumps. Raises EncodeError where that is less than the model: a masked secret, say."""
    found = model.model_dump(mode="json")
    try:
        lost = lost_fields(model, found)
    except Exception as exc:
        raise EncodeError(
            f"the {type(model).__name__} cannot be read back from what it dumps "
            f"({type(exc).__name__}: {str(exc).partition(chr(10))[0]}); pass a dict instead"
        ) from exc
    if lost:
        raise EncodeError(
            f"the {type(model).__name__} would arrive with other values of {', '.join(map(repr, lost))}; "
            "pass a dict instead"
        )
    return found


def lost_fields(model: Value, dumped: Value, context: Value = None) -> list[str]:
    """The fields of a pydantic model whose values are not those that its dump is read back as."""
    class_ = type(model)
    if not isinstance(dumped, dict) or not hasattr(class_, "model_validate"):
        return []
    known = {
        name: value
        for name, value in dumped.items()
        if name not in getattr(class_, "model_computed_fields", ())
    }
    try:
        again = class_.model_validate(known, context=context, by_alias=True, by_name=True)
    except TypeError:
        # Before pydantic 2.11 a field is read by its alias alone.
        again = class_.model_validate(known, context=context)
    if again == model:
        return []
    mine, theirs = _fields_of(model), _fields_of(again)
    lost = [name for name in mine if name not in theirs or theirs[name] != mine[name]]
    return lost or [class_.__name__]


def _fields_of(model: Value) -> dict[str, Value]:
    return {
        **model.__dict__,
        **(getattr(model, "__pydantic_extra__", None) or {}),
        **(getattr(model, "__pydantic_private__", None) or {}),
    }


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


NESTING_MAX = 100
"""How deep JSON may be nested; the arguments of a call begin two levels down."""

_JSON_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_DEEP = re.compile(rb"[\[{]{%d}" % (NESTING_MAX + 1))
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _check_nesting(body: bytes) -> None:
    # Most bodies have not even so many.
    if body.count(b"[") + body.count(b"{") <= NESTING_MAX:
        return
    found = _JSON_STRING.sub(b"", body).translate(None, _NO_BRACKETS)
    # Each round takes the innermost level away, of all there are side by side.
    for _ in range(NESTING_MAX):
        if _DEEP.search(found):
            break
        inner = found
        found = inner.replace(b"[]", b"").replace(b"{}", b"")
        if not found or len(found) == len(inner):
            # What is not balanced is for the decoder to refuse, which counts levels itself.
            return
    raise NestingTooDeep(f"{len(body)} bytes of JSON are nested more than {NESTING_MAX} deep")


def json_encode(value: Value) -> bytes:
    """The value as compact JSON."""
    try:
        body = "".join(_iterencode(value, 0)).encode("ascii")
    except (TypeError, ValueError) as exc:
        raise EncodeError(exc) from exc
    except RecursionError as exc:
        raise NestingTooDeep(
            f"the value is nested more than {NESTING_MAX} deep, or in itself"
        ) from exc
    _check_nesting(body)
    return body


def json_decode(body: bytes) -> Value:
    """The value that was written."""
    _check_nesting(body)
    # Most messages carry none of our marked types, and the hook costs a call for each object.
    return (_typed_decoder if b"__type__" in body else _plain_decoder).decode(body.decode())


JSON = "application/json"
RAW = "application/data"

_readable = {JSON, RAW}
"""What `loads` reads that is not told what to accept."""

AUTH = "auth"
"""The name of the serializer that signs (qbroker.security)."""

_add(Serializer("json", JSON, "utf-8", json_encode, json_decode))

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
register_type(
    dt.timedelta,
    "timedelta",
    lambda value: [value.days, value.seconds, value.microseconds],
    lambda found: dt.timedelta(*found),
)

# -- the others ----------------------------------------------------------------------------------

# Their modules are imported when they are first needed; JSON is all that most programs speak.


def _pickle_encode(value: Value) -> bytes:
    import pickle  # noqa: PLC0415 - see above

    return pickle.dumps(value)


def _pickle_decode(body: bytes) -> Value:
    import pickle  # noqa: PLC0415 - see above

    return pickle.loads(body)  # noqa: S301 - only where the reader's accept_content names pickle


def _msgpack_encode(value: Value) -> bytes:
    import msgpack  # noqa: PLC0415 - see above

    def default(found: Value) -> Value:
        if isinstance(found, int):
            raise OverflowError(
                f"msgpack carries integers from -2**63 to 2**64 - 1, not one of {found.bit_length()} bits"
            )
        try:
            return _json_default(found)
        except TypeError as exc:
            raise TypeError(str(exc).replace("JSON", "msgpack")) from exc

    written: bytes = msgpack.packb(value, default=default, use_bin_type=True)
    return written


def _msgpack_decode(body: bytes) -> Value:
    import msgpack  # noqa: PLC0415 - see above

    return msgpack.unpackb(body, object_hook=_object_hook, raw=False, strict_map_key=False)


def _yaml_encode(value: Value) -> bytes:
    import yaml  # noqa: PLC0415 - see above

    class Dumper(yaml.SafeDumper):
        """Writes what JSON would write with a mark in the same way."""

        def ignore_aliases(self, data: Value) -> bool:
            return True

    def represent(dumper: yaml.SafeDumper, data: Value) -> yaml.Node:
        return dumper.represent_data(_json_default(data))

    Dumper.add_multi_representer(object, represent)
    written: bytes = yaml.dump(value, Dumper=Dumper, encoding="utf-8", allow_unicode=True)
    return written


def _yaml_decode(body: bytes) -> Value:
    import yaml  # noqa: PLC0415 - see above

    class Loader(yaml.SafeLoader):
        """Reads the marked types too."""

    def construct(loader: yaml.SafeLoader, node: yaml.MappingNode) -> Value:
        found: dict[Value, Value] = loader.construct_mapping(node, deep=True)
        return _object_hook(found)

    Loader.add_constructor("tag:yaml.org,2002:map", construct)
    return yaml.load(body, Loader=Loader)  # noqa: S506 - it is a SafeLoader


def _raw_encode(value: Value) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    raise EncodeError(f"'raw' writes bytes and text as they are, not {type(value).__name__}")


_add(
    Serializer("pickle", "application/x-python-serialize", "binary", _pickle_encode, _pickle_decode)
)
_add(Serializer("msgpack", "application/x-msgpack", "binary", _msgpack_encode, _msgpack_decode))
_add(Serializer("yaml", "application/x-yaml", "utf-8", _yaml_encode, _yaml_decode))
_add(Serializer("raw", RAW, "binary", _raw_encode, bytes))
