"""Beginning anew, pool by pool: what is imported, which processes are there then, and that nothing is lost."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from qbroker_worker.pools.pool import Pool
from qbroker_worker.values import SUCCESS, Restart
from tests.worker.pools.test_conformance import POOLS
from tests.worker.toys import PATIENCE_S, Recorder, delivery, echoes, gate, has_begun, ids, release


@pytest.fixture
def reports() -> Recorder:
    return Recorder()


@pytest.fixture(params=["prefork", "threads"])
async def pool(request: pytest.FixtureRequest, reports: Recorder) -> AsyncIterator[Pool]:
    pool = POOLS[request.param]()
    await pool.start(reports)
    yield pool
    await pool.stop()


async def restarted(pool: Pool, wanted: Restart) -> tuple[bytes, str]:
    """How it went."""
    news: asyncio.Future[tuple[bytes, str]] = asyncio.get_running_loop().create_future()
    pool.restart(wanted, lambda facts, trouble: news.set_result((facts, trouble)))
    async with asyncio.timeout(PATIENCE_S):
        return await news


async def test_the_facts_of_what_was_imported_are_told(pool: Pool, reports: Recorder) -> None:
    assert await restarted(pool, Restart(("a", "b"), reloads=True)) == (b'[["a", "b"], true]', "")
    assert await restarted(pool, Restart()) == (b"[null, false]", "")


async def test_children_are_others_afterwards_and_what_ran_or_waited_is_done_once(
    reports: Recorder, tmp_path: Path
) -> None:
    pool = POOLS["prefork"]()
    await pool.start(reports)
    pool.submit(echoes(300))
    await reports.until_done(300)
    before = set(pool.pids)
    door = gate(tmp_path / "door")
    blocker, behind = delivery("wait", str(door)), echoes(50)
    pool.submit([blocker, *behind])
    await has_begun(door)

    await restarted(pool, Restart())
    after = [delivery("facts") for _ in range(4)]
    pool.submit(after)
    await reports.until(lambda: len(reports.done) + len(reports.back) == 354)
    running = set(pool.pids)
    await release(door)
    await reports.until(lambda: pool.is_idle)

    ran = {int(done.result.split()[2]) for done in reports.done if done.delivery in after}
    assert ran.isdisjoint(before)
    assert len(before & running) == 1, "only the one that was in a task is still there"
    outcomes = {done.outcome for done in reports.done}
    done = ids(one.delivery for one in reports.done[300:])
    assert sorted(done + ids(reports.back)) == sorted(ids([blocker, *behind, *after]))
    assert outcomes == {SUCCESS}
    await pool.stop()


async def test_what_cannot_be_imported_is_told_and_everything_stays_as_it_is(
    pool: Pool, reports: Recorder
) -> None:
    pids = pool.pids

    facts, trouble = await restarted(pool, Restart(("broken",)))
    job = delivery("echo", "after")
    pool.submit([job])
    await reports.until_done(1)

    assert (facts, trouble) == (b"", "ImportError('it is broken')")
    assert pids == [] or pool.pids == pids
    assert reports.result(job) == b"after"
