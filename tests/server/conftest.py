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
    """With a second event loop in the process gRPC's poller may find its socket read empty already.

    It logs that and goes on: github.com/grpc/grpc/issues/25364.
    """
    is_empty = record.exc_info is not None and isinstance(record.exc_info[1], BlockingIOError)
    return is_empty and "PollerCompletionQueue" in record.getMessage()
