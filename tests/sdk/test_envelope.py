"""A call and a result as bytes, and what the broker tells of a task that left none."""

import sys
from pathlib import Path

import pytest

from qbroker import envelope, states
from qbroker.exceptions import (
    BackendStoreError,
    ChordError,
    ContentDisallowed,
    LimitExceeded,
    SecurityError,
    TaskRevokedError,
    WorkerLostError,
)
from qbroker.serialization import Value, json_encode
from qbroker_proto.v1.message_pb2 import Message, Result

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


@pytest.mark.parametrize("compression", [None, "zstd", "gzip"])
@pytest.mark.parametrize("serializer", ["json", "pickle", "msgpack", "yaml"])
def test_a_body_says_how_it_is_written(serializer: str, compression: str | None) -> None:
    fields = envelope.write(((1, "x" * 500), {"k": 1}, {}), serializer, compression)
    message = Message(id="i", **fields)

    assert envelope.decode_body(message, {message.content_type}) == ([1, "x" * 500], {"k": 1}, {})
    assert bool(message.compression) is bool(compression)


def test_what_does_not_get_smaller_is_not_compressed() -> None:
    assert "compression" not in envelope.write([1], "json", "zstd")


def test_a_body_that_is_not_accepted_is_not_even_unpacked() -> None:
    message = Message(content_type="x/pickle", compression="no such", body=b"x")

    with pytest.raises(ContentDisallowed):
        envelope.read(message, JSON)


def test_a_bomb_is_refused_by_the_reader() -> None:
    fields = envelope.write(["x" * 1_000_000], "json", "zstd")

    with pytest.raises(LimitExceeded, match="unpacked_bytes_max"):
        envelope.read(Message(**fields), JSON, 10_000)


def failure(module: str) -> bytes:
    """A result that is an exception of a class in `module`."""
    told = {"exc_type": "Broken", "exc_message": ["why"], "exc_module": module}
    return Result(state="FAILURE", **envelope.write(told, "json")).SerializeToString()


def test_an_exception_of_a_module_that_is_not_loaded_is_imported_only_by_who_accepts_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far_away.py").write_text("class Broken(LookupError): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def read(accepted: frozenset[str]) -> Value:
        return envelope.decode_result(
            "FAILURE",
            failure("far_away"),
            is_final=True,
            end_reason=1,
            detail="",
            accepted=accepted,
        ).result

    stranger = read(JSON)
    assert "far_away" not in sys.modules
    assert (type(stranger).__name__, type(stranger).__module__) == ("Broken", "far_away")
    assert not isinstance(stranger, LookupError)
    try:
        assert isinstance(read(JSON | {envelope.PICKLE}), LookupError)
    finally:
        sys.modules.pop("far_away", None)


def test_what_is_named_as_an_exception_and_is_none_is_not_called() -> None:
    told = {"exc_type": "system", "exc_message": ["true"], "exc_module": "os"}

    exc = envelope.decode_exception(told)

    assert isinstance(exc, SecurityError)
    assert "Expected an exception class, got os.system" in str(exc)


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
