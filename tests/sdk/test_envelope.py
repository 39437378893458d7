"""A call and a result as bytes, and what the broker tells of a task that left none."""

import pytest

from qbroker import envelope, states
from qbroker.exceptions import BackendStoreError, ChordError, TaskRevokedError, WorkerLostError
from qbroker.serialization import json_encode
from qbroker_proto.v1.message_pb2 import Result

JSON = frozenset({"application/json"})


def told(state: str, end_reason: int, detail: str) -> envelope.Stored:
    return envelope.decode_result(
        state, b"", is_final=True, end_reason=end_reason, detail=detail, accepted=JSON
    )


@pytest.mark.parametrize(
    ("end_reason", "kind"),
    [
        (envelope.END_WORKER_LOST, WorkerLostError),
        (envelope.END_EXPIRED, TaskRevokedError),
        (envelope.END_REVOKED, TaskRevokedError),
    ],
)
def test_what_the_broker_ended_has_the_exception_of_its_reason(
    end_reason: int, kind: type[Exception]
) -> None:
    stored = told(states.FAILURE, end_reason, "because")

    assert type(stored.result) is kind
    assert "because" in str(stored.result)


@pytest.mark.parametrize("end_reason", [0, 1])
def test_a_failure_whose_result_the_broker_could_not_keep_says_why(end_reason: int) -> None:
    stored = told(states.FAILURE, end_reason, "The worker's answer was refused: too large.")

    assert stored.state == states.FAILURE
    assert isinstance(stored.result, BackendStoreError)
    assert "too large" in str(stored.result)


def test_a_task_that_ended_without_a_result_has_none() -> None:
    stored = told(states.PENDING, 1, "")

    assert stored.result is None
    assert stored.is_final


def test_what_did_not_run_because_of_another_ends_as_that_one_or_in_a_chord_error() -> None:
    kept = Result(
        state="FAILURE",
        content_type="application/json",
        body=json_encode(envelope.encode_exception(KeyError("far"))),
    ).SerializeToString()

    def end(detail: str, result: bytes) -> envelope.Stored:
        return envelope.decode_result(
            states.FAILURE,
            result,
            is_final=True,
            end_reason=envelope.END_DEPENDENCY,
            detail=detail,
            accepted=JSON,
        )

    own, chord, bare = (
        end("", kept),
        end("Dependency x raised", kept),
        end("Dependency x raised", b""),
    )

    assert isinstance(own.result, KeyError)
    assert isinstance(chord.result, ChordError)
    assert str(chord.result) == "Dependency x raised"
    assert isinstance(chord.result.__cause__, KeyError)
    assert isinstance(bare.result, ChordError)
    assert {own.state, chord.state, bare.state} == {states.FAILURE}


@pytest.mark.parametrize(
    ("child_id", "members"), [("plain", None), ("a:b,c%", None), ("g", []), ("g:1", ["a,b", "c:d"])]
)
def test_children_keep_their_ids(child_id: str, members: list[str] | None) -> None:
    assert envelope.decode_child(envelope.encode_child(child_id, members)) == (child_id, members)
