"""Ending what runs, in pools whose tasks share a process: who is hit, who is spared, and what the task can do about it."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from qbroker_worker.pools.aio import AsyncioPool
from qbroker_worker.pools.solo import SoloPool
from qbroker_worker.pools.threadguard import ThreadGuard
from qbroker_worker.pools.threads import ThreadsPool
from qbroker_worker.values import REVOKED, SUCCESS
from tests.worker.toys import (
    Recorder,
    delivery,
    gate,
    guarded,
    has_begun,
    ids,
    lost_result,
)

TERM = int(signal.SIGTERM)


@pytest.fixture
def reports() -> Recorder:
    return Recorder()


@pytest.fixture(params=["threads", "asyncio", "solo"])
async def pool(request: pytest.FixtureRequest, reports: Recorder) -> AsyncIterator[ThreadsPool]:
    guard = ThreadGuard()
    runs = guarded(guard)
    pool: ThreadsPool
    match request.param:
        case "threads":
            pool = ThreadsPool(runs, slots=1, lost_result=lost_result, guard=guard)
        case "asyncio":
            pool = AsyncioPool(runs, slots=1, lost_result=lost_result, guard=guard)
        case _:
            pool = SoloPool(runs, lost_result=lost_result, guard=guard)
    serving = threading.Thread(target=pool.serve, daemon=True)
    await pool.start(reports)
    serving.start()
    yield pool
    await pool.stop()
    serving.join()


async def test_tasks_that_end_while_they_are_revoked_are_reported_once_and_hit_no_other(
    pool: ThreadsPool, reports: Recorder
) -> None:
    withdrawn: list[str] = []
    jobs = [delivery("quick", 30.0) for _ in range(600)]

    for start in range(0, len(jobs), 2):
        unwanted, wanted = jobs[start : start + 2]
        pool.submit([unwanted, wanted])
        await asyncio.sleep(0)
        if pool.cancel(unwanted, TERM):
            withdrawn.append(unwanted.id)
        await reports.until_done(start + 2 - len(withdrawn))

    done = [finished.delivery.id for finished in reports.done]
    assert sorted([*done, *withdrawn]) == sorted(ids(jobs))
    assert {reports.outcome(job) for job in jobs[1::2]} == {SUCCESS}
    assert pool.is_idle


async def test_each_of_many_that_spin_is_ended_and_the_thread_goes_on(
    pool: ThreadsPool, reports: Recorder, tmp_path: Path
) -> None:
    doors = [gate(tmp_path / f"door-{n}") for n in range(20)]
    spinning = [delivery("spin", str(door)) for door in doors]
    after = [delivery("echo", n) for n in range(20)]

    for number, (job, door) in enumerate(zip(spinning, doors, strict=True), 1):
        pool.submit([job])
        await has_begun(door)
        pool.cancel(job, TERM)
        pool.submit([after[number - 1]])
        await reports.until_done(2 * number)

    assert {reports.outcome(job) for job in spinning} == {REVOKED}
    assert {reports.outcome(job) for job in after} == {SUCCESS}


def let_go(door: Path) -> None:
    """Have the toy that waits at this gate go on, if it came as far as that."""
    pipe = os.open(door, os.O_RDWR)
    os.write(pipe, b"go")
    os.close(pipe)


async def test_a_task_that_waits_in_a_call_is_ended_when_it_returns_from_it(
    pool: ThreadsPool, reports: Recorder, tmp_path: Path
) -> None:
    door = gate(tmp_path / "door")
    job = delivery("slow", str(door))
    pool.submit([job])
    await has_begun(door)

    pool.cancel(job, TERM)
    let_go(door)
    await reports.until_done(1)

    assert reports.outcome(job) == REVOKED


async def test_a_task_that_catches_its_end_goes_on_until_it_is_revoked_again(
    pool: ThreadsPool, reports: Recorder, tmp_path: Path
) -> None:
    door = gate(tmp_path / "door")
    job = delivery("deaf", str(door))
    pool.submit([job])
    await has_begun(door)
    pool.cancel(job, TERM)
    await has_begun(door)

    pool.cancel(job, TERM)
    await reports.until_done(1)

    assert reports.outcome(job) == REVOKED


async def test_a_task_that_was_revoked_and_does_not_return_ends_with_its_hard_limit(
    pool: ThreadsPool, reports: Recorder, tmp_path: Path
) -> None:
    door = gate(tmp_path / "door")
    job = delivery("slow", str(door))._replace(message=f'["slow", "{door}", 0.3]'.encode())
    pool.submit([job])
    await has_begun(door)

    pool.cancel(job, TERM)
    await reports.until_done(1)

    assert reports.outcome(job) == REVOKED
    let_go(door)


async def test_coroutines_that_are_revoked_at_once_are_all_reported_so(reports: Recorder) -> None:
    guard = ThreadGuard()
    pool = AsyncioPool(guarded(guard), slots=20, lost_result=lost_result, guard=guard)
    await pool.start(reports)
    jobs = [delivery("async for ever") for _ in range(20)]
    pool.submit(jobs)
    await reports.until_started(*jobs)

    for job in jobs:
        pool.cancel(job, TERM)
    await reports.until_done(20)
    await pool.stop()

    assert {reports.outcome(job) for job in jobs} == {REVOKED}


async def test_a_coroutine_that_is_revoked_as_it_is_taken_leaves_its_slot_free(
    reports: Recorder,
) -> None:
    guard = ThreadGuard()
    pool = AsyncioPool(guarded(guard), slots=1, lost_result=lost_result, guard=guard)
    await pool.start(reports)
    jobs = [delivery("async echo", n) for n in range(300)]
    withdrawn = 0

    for number, job in enumerate(jobs, 1):
        pool.submit([job])
        await asyncio.sleep(0)
        withdrawn += pool.cancel(job, TERM)
        await reports.until_done(number - withdrawn)
    await pool.stop()

    assert pool.is_idle
