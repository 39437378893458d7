"""Values travel as kombu's JSON, and what cannot is named."""

import datetime as dt
import uuid
from decimal import Decimal

import pytest
from hypothesis import given, strategies as st

from qbroker import serialization
from qbroker.exceptions import ContentDisallowed, DecodeError, EncodeError, SerializerNotInstalled
from qbroker.serialization import Value, json_decode, json_encode

JSON = frozenset({"application/json"})

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
marked = (
    st.datetimes(timezones=st.just(dt.UTC))
    | st.dates()
    | st.times()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.binary()
)


@given(st.lists(plain | marked))
def test_what_is_written_is_read_back_alike(value: list[Value]) -> None:
    assert json_decode(json_encode(value)) == value


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (
            dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
            b'{"__type__":"datetime","__value__":"2026-01-02T03:04:05+00:00"}',
        ),
        (dt.date(2026, 1, 2), b'{"__type__":"date","__value__":"2026-01-02"}'),
        (dt.time(3, 4), b'{"__type__":"time","__value__":"03:04:00"}'),
        (Decimal("1.10"), b'{"__type__":"decimal","__value__":"1.10"}'),
        (uuid.UUID(int=1), b'{"__type__":"uuid","__value__":{"hex":"%032x"}}' % 1),
        (b"text", b'{"__type__":"bytes","__value__":"text"}'),
        (b"\xff", b'{"__type__":"base64","__value__":"/w=="}'),
    ],
)
def test_types_beyond_json_are_written_as_kombu_does(value: Value, written: bytes) -> None:
    assert json_encode(value) == written


def test_a_value_that_cannot_be_written_is_named_by_its_type() -> None:
    with pytest.raises(EncodeError, match="Object of type object is not JSON serializable"):
        json_encode([object()])


def test_a_value_that_holds_itself_cannot_be_written() -> None:
    loop: list[Value] = []
    loop.append(loop)

    with pytest.raises(EncodeError):
        json_encode(loop)


def test_content_that_is_not_accepted_is_not_read() -> None:
    with pytest.raises(ContentDisallowed, match="application/x-python-serialize"):
        serialization.decode(b"", "application/x-python-serialize", JSON)


def test_malformed_content_is_a_decode_error() -> None:
    with pytest.raises(DecodeError, match="malformed"):
        serialization.decode(b"[1,", "application/json", JSON)


def test_a_marked_type_nobody_knows_is_refused() -> None:
    with pytest.raises(DecodeError, match="unsupported __type__ 'rocket'"):
        serialization.decode(b'{"__type__":"rocket","__value__":1}', "application/json", JSON)


def test_an_object_may_say_how_it_is_written() -> None:
    class Point:
        def __json__(self) -> Value:
            return [1, 2]

    assert json_encode(Point()) == b"[1,2]"


def test_an_unknown_serializer_is_named() -> None:
    with pytest.raises(SerializerNotInstalled, match="'morse'"):
        serialization.find("morse")
