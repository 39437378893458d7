"""Which queues a message goes to."""

import re
from collections.abc import Mapping

import pytest
from hypothesis import given, strategies as st

from qbroker_server.core import keys
from qbroker_server.core.routes import Binding, Exchange, ExchangeType, Route, Table, encode
from qbroker_server.core.routing import Declare
from tests.support.scene import Scene

WORDS = st.sampled_from(["a", "b", "", "*", "#"])
KEYS = st.lists(WORDS, max_size=5).map(".".join)


def table_of(*things: Exchange | Binding) -> tuple[Scene, Table]:
    scene = Scene()
    scene.do(
        Declare(
            tuple(one for one in things if isinstance(one, Exchange)),
            (),
            tuple(one for one in things if isinstance(one, Binding)),
        )
    )
    return scene, Table()


def queues(
    things: list[Exchange | Binding],
    exchange: str,
    key: str = "",
    headers: Mapping[str, object] = {},
) -> tuple[str, ...]:
    scene, table = table_of(*things)
    with scene.engine.read() as txn:
        return table.queues(txn, Route(exchange, key, headers))


def fits(pattern: str, key: str) -> bool:
    """Whether the key's words fit, as a regular expression sees it; written without a look at the code."""
    # Each word is followed by a dot, so that none at all is "".
    subject = "".join(f"{word}." for word in key.split(".")) if key else ""
    parts = []
    for word in pattern.split(".") if pattern else []:
        if word == "#":
            parts.append(r"(?:[^.]*\.)*")
        elif word == "*":
            parts.append(r"[^.]*\.")
        else:
            parts.append(re.escape(word) + r"\.")
    return re.fullmatch("".join(parts), subject) is not None


@given(patterns=st.lists(KEYS, min_size=1, max_size=6, unique=True), key=KEYS)
def test_topics_fit_as_an_independent_matcher_says(patterns: list[str], key: str) -> None:
    things: list[Exchange | Binding] = [Exchange("t", ExchangeType.TOPIC)]
    things += [Binding("t", f"q{n}", pattern) for n, pattern in enumerate(patterns)]

    expected = tuple(f"q{n}" for n, pattern in enumerate(patterns) if fits(pattern, key))

    assert queues(things, "t", key) == tuple(sorted(expected))


@pytest.mark.parametrize(
    ("pattern", "key", "is_fit"),
    [
        ("*.orange.*", "quick.orange.rabbit", True),
        ("*.*.rabbit", "quick.orange.rabbit", True),
        ("lazy.#", "lazy.pink.rabbit", True),
        ("lazy.#", "lazy", True),
        ("*.orange.*", "orange", False),
        ("*.orange.*", "quick.orange.male.rabbit", False),
        ("#", "", True),
        ("*", "", False),
        ("#.#.a", "a", True),
        ("a.*.#", "a", False),
    ],
)
def test_topics_fit_as_amqp_says(pattern: str, key: str, is_fit: bool) -> None:
    things: list[Exchange | Binding] = [
        Exchange("t", ExchangeType.TOPIC),
        Binding("t", "q", pattern),
    ]

    assert queues(things, "t", key) == (("q",) if is_fit else ())


def test_a_pattern_of_many_hashes_takes_no_longer_than_its_length() -> None:
    things: list[Exchange | Binding] = [
        Exchange("t", ExchangeType.TOPIC),
        Binding("t", "q", ".".join(["#"] * 60 + ["z"])),
    ]

    assert queues(things, "t", ".".join(["a"] * 60)) == ()


def test_direct_and_fanout_and_the_exchange_without_a_name() -> None:
    things: list[Exchange | Binding] = [
        Exchange("d"),
        Exchange("f", ExchangeType.FANOUT),
        Binding("d", "one", "k"),
        Binding("d", "two", "k"),
        Binding("d", "other", "j"),
        Binding("f", "one", "ignored"),
        Binding("f", "two"),
    ]

    assert queues(things, "d", "k") == ("one", "two")
    assert queues(things, "d", "none") == ()
    assert queues(things, "f", "whatever") == ("one", "two")
    assert queues(things, "", "any queue") == ("any queue",)
    assert queues(things, "") == ()
    assert queues(things, "absent", "k") == ()


@pytest.mark.parametrize(
    ("arguments", "is_fit"),
    [
        ({"x-match": "all", "a": 1, "b": "x"}, True),
        ({"a": 1, "b": "y"}, False),
        ({"x-match": "any", "a": 1, "b": "y"}, True),
        ({"x-match": "any", "a": 2, "b": "y"}, False),
        ({"a": "1"}, False),
        ({"a": None}, True),
        ({"c": None}, False),
        ({}, True),
        ({"x-match": "any"}, False),
        ({"x-own": 2, "a": 1}, True),
        ({"x-match": "all-with-x", "x-own": 2, "a": 1}, False),
        ({"x-match": "any-with-x", "x-own": 1, "a": 2}, True),
    ],
)
def test_headers_fit_all_or_any(arguments: dict[str, object], is_fit: bool) -> None:
    things: list[Exchange | Binding] = [
        Exchange("h", ExchangeType.HEADERS),
        Binding("h", "q", arguments=arguments),
    ]

    found = queues(things, "h", "", {"a": 1, "b": "x", "x-own": 1})

    assert found == (("q",) if is_fit else ())


def test_messages_go_from_exchange_to_exchange_and_round_in_no_circle() -> None:
    things: list[Exchange | Binding] = [
        Exchange("in", ExchangeType.TOPIC),
        Exchange("out", ExchangeType.FANOUT),
        Binding("in", "out", "a.#", is_to_exchange=True),
        Binding("in", "direct", "a.b"),
        Binding("out", "in", is_to_exchange=True),
        Binding("out", "everybody"),
    ]

    assert queues(things, "in", "a.b") == ("direct", "everybody")
    assert queues(things, "in", "b") == ()


def test_what_no_binding_takes_goes_to_the_alternate_exchange() -> None:
    things: list[Exchange | Binding] = [
        Exchange("in", alternate="lost"),
        Exchange("lost", ExchangeType.FANOUT),
        Binding("in", "known", "k"),
        Binding("lost", "found"),
    ]

    assert queues(things, "in", "k") == ("known",)
    assert queues(things, "in", "other") == ("found",)


def test_a_way_that_is_remembered_is_found_anew_after_a_change() -> None:
    scene, table = table_of(Exchange("d"), Binding("d", "one", "k"))
    with scene.engine.read() as txn:
        assert table.queues(txn, Route("d", "k")) == ("one",)
    scene.do(Declare(bindings=(Binding("d", "two", "k"),)))

    with scene.engine.read() as txn:
        before = table.queues(txn, Route("d", "k"))
        table.forget()
        after = table.queues(txn, Route("d", "k"))

    assert (before, after) == (("one",), ("one", "two"))


def test_headers_are_not_remembered() -> None:
    scene, table = table_of(Exchange("h", "headers"), Binding("h", "q", arguments={"a": 1}))

    with scene.engine.read() as txn:
        assert table.queues(txn, Route("h", "", {"a": 1})) == ("q",)
        assert table.queues(txn, Route("h", "", {"a": 2})) == ()


def test_a_damaged_row_costs_one_binding_and_is_told() -> None:
    scene, table = table_of(Exchange("d"), Binding("d", "one", "k"), Binding("d", "two", "k"))
    scene.damage(Binding("d", "one", "k").key)
    scene.write(keys.EXCHANGE + b"e", bytes((99,)) + encode(Exchange("e"))[1:])

    with scene.engine.read() as txn:
        assert table.queues(txn, Route("d", "k")) == ("two",)
        assert list(table.exchanges(txn)) == ["d"]
    assert len(table.damaged) == 2


def test_built_in_exchanges_are_there() -> None:
    assert queues([Binding("amq.topic", "q", "a.*")], "amq.topic", "a.b") == ("q",)
