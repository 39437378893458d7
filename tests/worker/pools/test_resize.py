"""Pools that are given more slots, or fewer, while they run."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from qbroker_worker.pools.pool import Pool
from qbroker_worker.pools.solo import SoloPool
from tests.worker.pools.test_conformance import POOLS
from tests.worker.toys import (
    Recorder,
    delivery,
    echoes,
    gate,
    has_begun,
    ids,
    lost_result,
    release,
    run,
)


@pytest.fixture
def reports() -> Recorder:
    return Recorder()


@pytest.fixture(params=["prefork", "threads", "asyncio"])
async def pool(request: pytest.FixtureRequest, reports: Recorder) -> AsyncIterator[Pool]:
    pool = POOLS[request.param]()
    await pool.start(reports)
    yield pool
    await pool.stop()


async def test_more_slots_run_more_at_once(pool: Pool, reports: Recorder, tmp_path: Path) -> None:
    doors = [gate(tmp_path / f"door-{n}") for n in range(4)]
    blockers = [delivery("wait", str(door)) for door in doors]
    pool.submit(blockers[:2])
    for door in doors[:2]:
        await has_begun(door)

    pool.resize(4)
    pool.submit(blockers[2:])
    for door in doors[2:]:
        await has_begun(door)

    assert pool.slots == 4
    assert pool.wanted_count >= 4
    for door in doors:
        await release(door)
    await reports.until_done(4)
    assert pool.is_idle


async def test_fewer_slots_finish_what_they_run_and_then_run_less(
    pool: Pool, reports: Recorder, tmp_path: Path
) -> None:
    doors = [gate(tmp_path / f"door-{n}") for n in range(4)]
    blockers = [delivery("wait", str(door)) for door in doors]
    pool.submit(blockers[:2])
    for door in doors[:2]:
        await has_begun(door)

    pool.resize(1)
    for door in doors[:2]:
        await release(door)
    await reports.until_done(2)
    pool.submit(blockers[2:])
    await reports.until_started(blockers[2])
    waiting = pool.withdraw() + reports.back

    assert pool.slots == 1
    assert ids(waiting) == [blockers[3].id]
    await release(doors[2])
    await reports.until_done(3)


async def test_going_down_and_up_again_loses_nothing(pool: Pool, reports: Recorder) -> None:
    jobs = echoes(400)
    reports.submit = pool.submit

    for at, slots in enumerate((1, 4, 2, 3)):
        pool.resize(slots)
        pool.submit(jobs[at * 100 : at * 100 + 100])
    await reports.until_done(400)

    assert sorted(ids(done.delivery for done in reports.done)) == sorted(ids(jobs))
    assert pool.is_idle


def test_solo_keeps_its_one_slot() -> None:
    pool = SoloPool(run, lost_result=lost_result)

    pool.resize(3)

    assert pool.slots == 1
