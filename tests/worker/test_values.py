"""The numbers here are those of the wire."""

import pytest

from qbroker_proto.v1 import worker_pb2
from qbroker_worker import values


@pytest.mark.parametrize(
    "name", ["SUCCESS", "FAILURE", "WORKER_LOST", "IGNORED", "REJECTED", "REVOKED"]
)
def test_an_outcome_has_the_number_it_has_on_the_wire(name: str) -> None:
    assert getattr(values, name) == worker_pb2.Outcome.Value(f"OUTCOME_{name}")
