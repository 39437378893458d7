"""Queues and exchanges as values."""

import pytest

from qbroker.exceptions import ImproperlyConfigured
from qbroker.messaging import Broadcast, Exchange, Queue, binding
from qbroker.serialization import Value


def test_a_queue_knows_its_ways() -> None:
    media = Exchange("media", type="topic")
    queue = Queue("images", media, routing_key="image.#", bindings=[binding(media, "photo.*")])

    assert [(way.exchange.name, way.routing_key) for way in queue.ways()] == [
        ("media", "photo.*"),
        ("media", "image.#"),
    ]
    assert not queue.is_direct
    assert Queue("plain").is_direct
    assert Queue("plain", Exchange("x")).is_direct
    assert Queue("plain").ways() == []


def test_an_exchange_of_an_unknown_type_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="'x-random'; there are direct, topic"):
        Exchange("x", type="x-random")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, {}),
        ({"message_ttl": 1.5, "expires": 60}, {"message_ttl_ms": 1_500, "expires_ms": 60_000}),
        ({"max_length": 10}, {"length_max": 10, "overflow": "drop-head"}),
        ({"queue_arguments": {"x-max-length-bytes": 9, "x-overflow": "reject-publish"}}, {"bytes_max": 9, "overflow": "reject"}),
        ({"queue_arguments": {"x-max-length": 9, "x-dead-letter-exchange": "dlx"}}, {"length_max": 9, "overflow": "dead-letter"}),
        ({"queue_arguments": {"x-message-ttl": 5, "x-queue-type": "quorum", "x-delivery-limit": 3, "x-max-priority": 10}}, {"message_ttl_ms": 5, "max_deliveries": 3}),
    ],
    ids=range(6),
)  # fmt: skip
def test_arguments_of_amqp_become_options_of_the_broker(
    options: dict[str, Value], wanted: dict[str, Value]
) -> None:
    assert Queue("q", **options).options() == wanted


def test_an_overflow_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="'spill'"):
        Queue("q", queue_arguments={"x-overflow": "spill"}).options()


def test_a_queue_is_described_by_a_dict_too() -> None:
    queue = Queue.from_dict("q", exchange="media", exchange_type="topic", binding_key="a.#")

    assert queue == Queue("q", Exchange("media", type="topic"), "a.#")
    assert hash(queue) == hash(Queue("q"))
    assert str(queue) == "q"
    assert repr(queue) == "<Queue 'q' -> 'media' -> 'a.#'>"


def test_each_broadcast_has_a_queue_of_its_own_behind_one_exchange() -> None:
    one, two = Broadcast("news"), Broadcast("news")

    assert one.name != two.name
    assert one.name.startswith("bcast.")
    assert one.exchange == two.exchange == Exchange("news", type="fanout")
    assert (one.alias, one.auto_delete) == ("news", True)
    assert Broadcast("news", queue="fixed").name == "fixed"


def test_an_exchange_is_bound_to_another() -> None:
    inner = Exchange("inner", arguments={"alternate-exchange": "lost"}).bind_to("outer", "k.#")

    assert inner.alternate == "lost"
    assert [(way.exchange.name, way.routing_key) for way in inner.bindings] == [("outer", "k.#")]
    assert not Exchange("")
