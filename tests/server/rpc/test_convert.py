"""Messages of the wire as values of the core, and back."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, strategies as st

from qbroker_proto.v1 import message_pb2, results_pb2, worker_pb2
from qbroker_server.core.errors import Invalid
from qbroker_server.core.lease import Outcome
from qbroker_server.core.publish import check
from qbroker_server.core.records import EndReason, Flag, Stage
from qbroker_server.rpc import convert
from tests.support.served import wire


def test_every_number_on_the_wire_is_the_cores() -> None:
    assert {o.name: o.value for o in Outcome} == {
        name.removeprefix("OUTCOME_"): number
        for name, number in worker_pb2.Outcome.items()
        if number
    }
    assert set(convert._STAGES) == set(Stage)
    assert set(convert.REASONS) == set(EndReason)
    assert all(results_pb2.Stage.Name(n).endswith(s.name) for s, n in convert._STAGES.items())
    assert all(
        results_pb2.EndReason.Name(n).endswith(r.name)
        for r, n in convert.REASONS.items()
        if r != EndReason.NONE
    )


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ({}, 0),
        ({"ack_policy": message_pb2.ACK_POLICY_LATE}, Flag.ACK_LATE),
        ({"ignore_result": True}, Flag.IGNORE_RESULT),
        ({"store_errors_even_if_ignored": True}, Flag.STORE_ERRORS),
        ({"track_started": True}, Flag.TRACK_STARTED),
    ],
)
def test_a_messages_policies_become_flags(fields: dict[str, Any], flags: int) -> None:
    assert convert.new_message(wire(**fields), 10_000).flags == flags


def test_the_broker_keeps_the_bytes_it_was_given() -> None:
    raw = wire() + b"\xfa\x3e\x03new"  # a field of a newer version

    assert convert.new_message(raw, 10_000).payload == raw


@given(st.binary(max_size=300))
def test_no_bytes_are_more_than_refused(raw: bytes) -> None:
    with suppress(Invalid):
        new = convert.new_message(raw, 200)
        check(new)

        assert new.payload == raw


@given(st.integers(-(2**31), 2**31 - 1))
def test_an_unknown_outcome_is_a_fault_of_its_settle_alone(outcome: int) -> None:
    wire_settle = worker_pb2.Settle(id="m", attempt=1)
    wire_settle.outcome = outcome  # type: ignore[assignment]  # of any version

    settle = convert.settle(wire_settle, 100)

    assert (settle.fault is None) == (outcome in list(Outcome))


@pytest.mark.parametrize(("size", "is_fault"), [(100, False), (101, True)])
def test_a_result_is_measured(size: int, is_fault: bool) -> None:
    wire_settle = worker_pb2.Settle(id="m", outcome=worker_pb2.OUTCOME_SUCCESS, result=b"x" * size)

    settle = convert.settle(wire_settle, 100)

    assert (settle.fault is not None) == is_fault
    assert len(settle.result) == (0 if is_fault else size)
