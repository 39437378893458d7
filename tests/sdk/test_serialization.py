"""Values travel as kombu's JSON, and what cannot is named."""

import datetime as dt
import uuid
from dataclasses import dataclass
from decimal import Decimal

import pydantic
import pytest
from hypothesis import given, strategies as st

from qbroker import serialization
from qbroker.exceptions import (
    ContentDisallowed,
    DecodeError,
    EncodeError,
    NestingTooDeep,
    SerializerNotInstalled,
)
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


@given(st.timedeltas())
def test_a_timedelta_is_read_back_alike(value: dt.timedelta) -> None:
    assert json_decode(json_encode(value)) == value


def test_dataclasses_and_models_are_written_as_dicts() -> None:
    @dataclass
    class Point:
        x: int
        when: dt.date

    class Model(pydantic.BaseModel):
        name: str
        points: list[int]

    written = json_encode([Point(1, dt.date(2026, 1, 2)), Model(name="n", points=[1])])

    assert json_decode(written) == [
        {"x": 1, "when": dt.date(2026, 1, 2)},
        {"name": "n", "points": [1]},
    ]


def test_a_type_of_ones_own_comes_back_as_itself() -> None:
    class Money:
        def __init__(self, cents: int) -> None:
            self.cents = cents

    serialization.register_type(Money, "money", lambda money: money.cents, Money)

    (found,) = json_decode(json_encode([Money(5)]))

    assert isinstance(found, Money)
    assert found.cents == 5


@pytest.mark.parametrize("name", ["pickle", "msgpack", "yaml"])
@pytest.mark.parametrize(
    "value",
    [
        [[1, -2.5, "ünï", None, True], {"a": {"b": []}}, {}],
        [b"\xff", b"text"],
        [dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), dt.date(2026, 1, 2), dt.timedelta(1)],
        [Decimal("1.10"), uuid.UUID(int=1), dt.time(3, 4)],
    ],
    ids=["plain", "bytes", "times", "numbers"],
)
def test_other_serializers_carry_the_same_values(name: str, value: Value) -> None:
    content_type, _, body = serialization.encode(value, name)

    assert serialization.decode(body, content_type, {content_type}) == value


def test_raw_is_bytes_as_they_are() -> None:
    assert serialization.dumps(b"\x00\xff", "raw") == ("application/data", "binary", b"\x00\xff")
    assert serialization.loads(b"\x00\xff", "application/data", "binary") == b"\x00\xff"
    with pytest.raises(EncodeError, match="'raw' writes bytes and text as they are, not list"):
        serialization.encode([], "raw")


@pytest.mark.parametrize("name", ["pickle", "msgpack", "yaml", "json"])
def test_what_cannot_be_written_is_an_encode_error_and_what_is_malformed_a_decode_error(
    name: str,
) -> None:
    content_type = serialization.find(name).content_type

    with pytest.raises(EncodeError):
        serialization.encode([lambda: None], name)
    with pytest.raises(DecodeError, match="malformed"):
        serialization.decode(b"\xc1{[", content_type, {content_type})


def test_yaml_makes_no_objects() -> None:
    with pytest.raises(DecodeError):
        serialization.decode(
            b"!!python/object/apply:os.getpid []", "application/x-yaml", {"application/x-yaml"}
        )


@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"a":', b"}"), (b'["]",', b"]")])
def test_json_may_be_nested_a_hundred_deep_and_no_deeper(begin: bytes, end: bytes) -> None:
    for depth in (100, 101, 900, 100_000):
        body = begin * depth + b"1" + end * depth
        if depth == 100:
            value = serialization.decode(body, "application/json", JSON)
            assert serialization.json_encode(value) == body
        else:
            with pytest.raises(NestingTooDeep):
                serialization.decode(body, "application/json", JSON)


def test_what_is_nested_too_deep_is_not_written_either() -> None:
    value: Value = []
    for _ in range(100):
        value = [value]

    with pytest.raises(NestingTooDeep, match="nested more than 100 deep"):
        serialization.json_encode(value)
    value.append(value)
    with pytest.raises(NestingTooDeep):
        serialization.json_encode(value)


def test_many_brackets_side_by_side_and_in_texts_are_not_deep() -> None:
    value = [{"a[": ["[[{{", '\\"[[', "]"]}] * 1_000

    assert json_decode(json_encode(value)) == value


def test_json_whose_brackets_do_not_match_is_malformed() -> None:
    for body in (b"[" * 150 + b"}" * 150, b"[" * 150 + b"]" * 149):
        with pytest.raises(DecodeError):
            serialization.decode(body, "application/json", JSON)


def test_kombus_register_takes_functions_of_text_and_unregister_takes_them_away() -> None:
    serialization.register("shout", lambda value: value.upper(), bytes.decode, "x/shout", "utf-8")

    assert serialization.dumps("hey", "shout") == ("x/shout", "utf-8", b"HEY")
    assert serialization.loads(b"HEY", "x/shout", accept=["shout"]) == "HEY"
    with pytest.raises(ContentDisallowed):
        serialization.loads(b"HEY", "x/shout")
    assert serialization.loads(b"HEY", "x/shout", force=True) == "HEY"
    serialization.unregister("shout")
    with pytest.raises(SerializerNotInstalled):
        serialization.find("shout")


def test_accepted_content_is_named_by_serializer_or_by_content_type() -> None:
    assert serialization.content_types(["json", "application/x-yaml", "x/mine"]) == {
        "application/json",
        "application/x-yaml",
        "x/mine",
    }


def test_json_keeps_one_of_two_keys_that_read_alike_and_reads_a_marked_dict_as_its_type() -> None:
    assert json_decode(json_encode({1: "a", "1": "b"})) == {"1": "b"}
    assert json_decode(json_encode({"__type__": "decimal", "__value__": "1.5"})) == Decimal("1.5")
