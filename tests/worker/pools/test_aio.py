"""What is the asyncio pool's own: coroutines on one loop, ended where they wait."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from qbroker_worker.pools.aio import AsyncioPool
from qbroker_worker.values import REVOKED, SUCCESS, WORKER_LOST
from tests.worker.toys import Recorder, delivery, gate, has_begun, ids, lost_result, release, run

SLOTS = 20


@pytest.fixture
def reports() -> Recorder:
    return Recorder()


@pytest.fixture
async def pool(reports: Recorder) -> AsyncIterator[AsyncioPool]:
    pool = AsyncioPool(run, slots=SLOTS, lost_result=lost_result)
    await pool.start(reports)
    yield pool
    await pool.stop()


async def test_coroutines_wait_side_by_side_up_to_the_slots(
    pool: AsyncioPool, reports: Recorder, tmp_path: Path
) -> None:
    doors = [gate(tmp_path / f"door-{n}") for n in range(3)]
    waiters = [delivery("async wait", str(door)) for door in doors]
    echoes = [delivery("async echo", n) for n in range(500)]

    pool.submit(waiters)
    for door in doors:
        await has_begun(door)
    pool.submit(echoes)
    await reports.until_done(500)

    assert sorted(ids(done.delivery for done in reports.done)) == sorted(ids(echoes))
    for door in doors:
        await release(door)
    await reports.until_done(503)
    assert {reports.outcome(waiter) for waiter in waiters} == {SUCCESS}
    assert pool.is_idle


async def test_a_task_that_is_no_coroutine_blocks_none(
    pool: AsyncioPool, reports: Recorder, tmp_path: Path
) -> None:
    door = gate(tmp_path / "door")
    pool.submit([delivery("wait", str(door))])
    await has_begun(door)
    job = delivery("async echo", "meanwhile")

    pool.submit([job])
    await reports.until_done(1)

    assert reports.result(job) == b"meanwhile"
    await release(door)
    await reports.until_done(2)


async def test_a_revoked_coroutine_is_cancelled_where_it_waits(
    pool: AsyncioPool, reports: Recorder, tmp_path: Path
) -> None:
    door = gate(tmp_path / "door")
    runner, after = delivery("async wait for ever", str(door)), delivery("async echo", "after")
    pool.submit([runner])
    await has_begun(door)

    was_cancelled = pool.cancel(runner, int(signal.SIGTERM))
    await reports.until_done(1)
    pool.submit([after])
    await reports.until_done(2)

    assert not was_cancelled
    assert reports.outcome(runner) == REVOKED
    assert reports.result(after) == b"after"


async def test_killing_ends_coroutines_and_reports_them_as_lost(
    pool: AsyncioPool, reports: Recorder, tmp_path: Path
) -> None:
    door = gate(tmp_path / "door")
    runner = delivery("async wait for ever", str(door))
    pool.submit([runner])
    await has_begun(door)

    pool.kill()
    await reports.until_done(1)

    assert reports.outcome(runner) == WORKER_LOST
    assert b"cold shutdown" in reports.result(runner)
    assert pool.is_idle


async def test_a_coroutine_that_exits_is_lost_and_the_loop_goes_on(
    pool: AsyncioPool, reports: Recorder
) -> None:
    leaver, after = delivery("async exit", 3), delivery("async echo", "after")

    pool.submit([leaver])
    await reports.until_done(1)
    pool.submit([after])
    await reports.until_done(2)

    assert reports.outcome(leaver) == WORKER_LOST
    assert reports.result(after) == b"after"
