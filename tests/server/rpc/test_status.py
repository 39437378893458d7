"""Which gRPC status each core error becomes."""

import grpc

from qbroker_proto.v1 import producer_pb2
from qbroker_server.broker import InternalError
from qbroker_server.core import errors
from qbroker_server.core.errors import CoreError, Invalid, ResourceFull
from qbroker_server.rpc import status


def every(kind: type[CoreError]) -> set[type[CoreError]]:
    """The errors below `kind`."""
    below = set(kind.__subclasses__())
    return below.union(*map(every, below))


def test_the_table_is_total() -> None:
    assert InternalError in every(CoreError)
    assert set(status.STATUS) == every(errors.CoreError)


def test_a_refusal_has_the_errors_sentence_and_code() -> None:
    refusal = status.refusal_of(3, Invalid("no such thing"))

    assert refusal == producer_pb2.Refusal(
        index=3, code=producer_pb2.REFUSAL_CODE_INVALID, reason="no such thing"
    )


def test_a_full_store_says_when_to_try_again() -> None:
    refusal = status.refusal_of(0, ResourceFull("full", retry_after_ms=5))

    assert refusal.code == producer_pb2.REFUSAL_CODE_RESOURCE_EXHAUSTED
    assert refusal.retry_after_ms == 5


def test_a_status_is_found_by_the_errors_class() -> None:
    assert status.status_of(Invalid("x")) == grpc.StatusCode.INVALID_ARGUMENT
    assert status.status_of(InternalError("x")) == grpc.StatusCode.INTERNAL


def test_a_long_name_is_not_repeated_whole_to_the_client_who_sent_it() -> None:
    # gRPC writes each of these bytes as three, and ends a call whose trailers are larger than 8 KiB without them.
    details = status.details_of(Invalid(f"there is no queue {'é' * 300_000!r} here"))

    assert details.startswith("there is no queue 'éé")
    assert details.endswith("éé' here")
    assert len(details.encode()) < 2_100
    assert status.refusal_of(0, Invalid("x" * 9_000)).reason == status.details_of(
        Invalid("x" * 9_000)
    )


def test_a_sentence_that_fits_is_told_whole() -> None:
    assert status.details_of(Invalid("é" * 1_000)) == "é" * 1_000
