"""What the core is told of calendars and of the wire."""

from typing import Any

import pytest

from qbroker_proto.v1 import message_pb2
from qbroker_server.core.errors import Invalid
from qbroker_server.core.records import Flag
from qbroker_server.rpc import convert
from qbroker_server.rpc.almanac import WireAlmanac
from tests.support.served import wire


def test_a_timing_is_read_as_the_protocol_has_it() -> None:
    almanac = WireAlmanac(message_bytes_max=1_000)

    assert almanac.next_ms("every 10", 5_000, 5_000) == 15_000
    assert almanac.last_ms("at 7000", 8_000, 0) == 7_000
    with pytest.raises(Invalid, match="'often' begins with none of"):
        almanac.next_ms("often", 0, 0)


def test_a_template_becomes_a_message_with_what_is_its_own_added() -> None:
    template = wire("", ack_policy=message_pb2.ACK_POLICY_LATE, labels=["team=a"])

    new = WireAlmanac(message_bytes_max=1_000).occurrence(
        template, id="m7", label="schedule=x", eta_ms=5, expires_ms=9, limit_key="schedule:x"
    )

    message = message_pb2.Message.FromString(new.payload)
    assert (new.id, message.id, new.eta_ms, message.expires_ms) == ("m7", "m7", 5, 9)
    assert new.flags & Flag.ACK_LATE
    assert new.extras is not None
    assert new.extras.labels == ("team=a", "schedule=x")
    assert [(limit.key, limit.concurrency) for limit in new.extras.limits] == [("schedule:x", 1)]


def test_a_template_that_is_too_large_is_refused() -> None:
    almanac = WireAlmanac(message_bytes_max=10)

    with pytest.raises(Invalid, match="max_message_bytes is 10"):
        almanac.occurrence(wire(), id="m1", label="", eta_ms=0, expires_ms=0, limit_key="")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"priority": 3, "eta_ms": 5, "expires_ms": 6, "result_ttl_ms": 7, "max_deliveries": 8},
        {"ack_policy": message_pb2.ACK_POLICY_LATE, "ignore_result": True, "retries": 2},
        {"labels": ["a=b"], "fairness_key": "k", "root_id": "r"},
        {"exchange": "e", "routing_key": "k", "headers": '{"a": 1}'},
        {"errbacks": [message_pb2.Message(id="e", task="t", queue="q").SerializeToString()]},
    ],
)
@pytest.mark.parametrize(
    "own",
    [
        {"eta_ms": 0, "expires_ms": 0, "limit_key": ""},
        {"eta_ms": 50, "expires_ms": 60, "limit_key": ""},
        {"eta_ms": 0, "expires_ms": 0, "limit_key": "schedule:tidy"},
    ],
)
def test_an_occurrence_is_what_its_bytes_say(fields: dict[str, Any], own: dict[str, Any]) -> None:
    template = message_pb2.Message(task="t", queue="q", body=b"[]", **fields).SerializeToString()
    almanac = WireAlmanac(message_bytes_max=1_000)

    first = almanac.occurrence(template, id="m1", label="schedule=tidy", **own)
    second = almanac.occurrence(template, id="m2", label="schedule=tidy", **own)

    assert first == convert.new_message(first.payload, 1_000)
    assert second == convert.new_message(second.payload, 1_000)
    assert (first.id, second.id) == ("m1", "m2")
    assert first.extras is not second.extras
