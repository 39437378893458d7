"""The parent's half of a child, without a child: what is claimed, stolen and recorded."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qbroker_worker.pools import frames, ledger
from qbroker_worker.pools.ledger import Child
from qbroker_worker.values import SUCCESS
from tests.worker.toys import echoes, ids


@contextmanager
def _child() -> Iterator[tuple[Child, int]]:
    """A child's ledger, and the end of the claim pipe that a child would read."""
    near, far = socket.socketpair()
    claims = os.pipe()
    for fd in claims:
        os.set_blocking(fd, False)
    with far, ledger.memory() as memory:
        memory.truncate(frames.SHARED_BYTES)
        child = Child(1, link=near, claims=claims, memory=memory.fileno())
        yield child, claims[0]
        child.close()


def _write(child: Child, number: int, index: int, result: bytes, at: int) -> int:
    """Do as a child does when a task has finished; where the region goes to now."""
    base = frames.REGIONS[number & 1]
    record = frames.RECORD.pack(index, SUCCESS, False, 0.001, 0, len(result), 0, 0) + result
    child.shared[base + at : base + at + len(record)] = record
    end = at + len(record)
    child._words[frames.WORDS[number & 1]] = number << 32 | end
    return end


@pytest.mark.parametrize("claimed", range(6))
def test_what_is_stolen_and_what_was_claimed_are_all_there_is(claimed: int) -> None:
    with _child() as (child, claims):
        jobs = echoes(5)
        child.encode(jobs[:3])
        child.encode(jobs[3:])
        for _ in range(claimed):
            os.read(claims, 1)

        stolen = child.steal()

        assert ids(stolen) == ids(jobs[claimed:])
        assert child.handed == child.claimed() == claimed
        assert child.is_withdrawn == bool(stolen)


def test_what_was_reported_as_started_is_not_stolen() -> None:
    with _child() as (child, claims):
        jobs = echoes(3)
        child.encode(jobs)
        child.reported = 1

        stolen = child.steal()

        assert ids(stolen) == ids(jobs[1:])
        assert os.read(claims, 10) == b"\0"


def test_records_are_taken_once_and_only_below_the_task_that_runs() -> None:
    with _child() as (child, _):
        jobs = echoes(3)
        child.encode(jobs)
        (batch,) = child.batches
        at = _write(child, 1, 0, b"first", 0)
        _write(child, 1, 1, b"second", at)

        below = child.records(batch, None, 1)
        rest = child.records(batch, None, 3)
        again = child.records(batch, None, 3)

        assert [found.result for found in below] == [b"first"]
        assert [found.result for found in rest] == [b"second"]
        assert again == []
        assert child.finished == 2


def test_the_region_of_an_earlier_batch_is_not_taken_for_this_ones() -> None:
    with _child() as (child, _):
        for _ in range(3):
            child.encode(echoes(1))
        _write(child, 1, 0, b"of the first", 0)

        assert child.records(child.batches[2], None, 3) == []
