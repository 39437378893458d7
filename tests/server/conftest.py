"""What holds for every test of a served broker."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _nothing_unexpected(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No handler ended with an exception that nobody expected."""
    yield
    surprises = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.levelno >= logging.ERROR
        and record.name.partition(".")[0] in ("asyncio", "grpc")
        and not _is_a_race_of_grpcs(record)
    ]
    assert surprises == []


def _is_a_race_of_grpcs(record: logging.LogRecord) -> bool:
    """Two races of gRPC, which has one queue of events for all event loops of a process.

    It logs them and goes on. With a second loop a poller may find its socket read empty already
    (github.com/grpc/grpc/issues/25364); and an event of a test that has ended is handed to that
    test's loop, which is closed (github.com/oracle/coherence-py-client/issues/188).
    """
    if record.exc_info is None or "PollerCompletionQueue" not in record.getMessage():
        return False
    error = record.exc_info[1]
    is_of_a_closed_loop = isinstance(error, RuntimeError) and "loop is closed" in str(error)
    return isinstance(error, BlockingIOError) or is_of_a_closed_loop
