"""What the app's own code is told of, by a process that has the app."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from qbroker_worker.pools.child import decode_notice, encode_notice
from qbroker_worker.pools.pool import Pool
from qbroker_worker.values import SUCCESS, Notice
from tests.worker.pools.test_conformance import POOLS
from tests.worker.toys import Recorder, delivery, gate, has_begun, release


@pytest.fixture
def reports() -> Recorder:
    return Recorder()


@pytest.fixture(params=["prefork", "threads", "asyncio"])
async def pool(request: pytest.FixtureRequest, reports: Recorder) -> AsyncIterator[Pool]:
    pool = POOLS[request.param]()
    await pool.start(reports)
    yield pool
    await pool.stop()


def test_a_notice_is_the_same_on_the_other_side() -> None:
    notice = Notice("task_lost", 15, b"message\x00", "It was süß.")

    assert decode_notice(encode_notice(notice)) == notice


async def test_a_notice_is_told_once_where_the_app_is_and_reported_as_nothing(
    pool: Pool, reports: Recorder, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    pool.notify(Notice("worker_ready", 7, str(told).encode()))
    assert not pool.is_idle
    job = delivery("echo", "after")

    await reports.until(lambda: pool.is_idle)
    pool.submit([job])
    await reports.until_done(1)

    signal, number, pid = told.read_text().split()
    assert (signal, number) == ("worker_ready", "7")
    assert (int(pid) == os.getpid()) == (pool.name != "prefork")
    assert [done.delivery for done in reports.done] == [job]


async def test_a_notice_waits_for_a_free_slot_and_holds_up_no_task(
    pool: Pool, reports: Recorder, tmp_path: Path
) -> None:
    doors = [gate(tmp_path / f"door-{n}") for n in range(2)]
    blockers = [delivery("wait", str(door)) for door in doors]
    pool.submit(blockers)
    for door in doors:
        await has_begun(door)

    pool.notify(Notice("worker_ready", 1, str(tmp_path / "told").encode()))
    waiting = pool.withdraw()
    for door in doors:
        await release(door)
    await reports.until(lambda: pool.is_idle)

    assert waiting == []
    assert {reports.outcome(one) for one in blockers} == {SUCCESS}
    assert (tmp_path / "told").read_text().startswith("worker_ready 1 ")
