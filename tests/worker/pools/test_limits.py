"""Time limits, pool by pool: what is interrupted, what is ended, who runs the handlers, who is spared."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from qbroker_worker.pools.pool import Pool
from qbroker_worker.pools.prefork import PreforkPool
from qbroker_worker.pools.threadguard import ThreadGuard
from qbroker_worker.pools.threads import ThreadsPool
from qbroker_worker.values import FAILURE, SUCCESS, TIMEOUT
from tests.worker.toys import (
    Recorder,
    delivery,
    echoes,
    fork_server,
    gate,
    guarded,
    has_begun,
    ids,
    lost_result,
    release,
)

LIMIT = 0.05


@pytest.fixture
def reports() -> Recorder:
    return Recorder()


@pytest.fixture(params=["prefork", "threads"])
async def pool(request: pytest.FixtureRequest, reports: Recorder) -> AsyncIterator[Pool]:
    pool: Pool
    if request.param == "prefork":
        server = fork_server()
        server.facts()
        pool = PreforkPool(server, slots=1, lost_result=lost_result)
    else:
        guard = ThreadGuard()
        pool = ThreadsPool(guarded(guard), slots=1, lost_result=lost_result, guard=guard)
    await pool.start(reports)
    yield pool
    await pool.stop()


async def test_at_the_soft_limit_an_exception_is_raised_in_the_task(
    pool: Pool, reports: Recorder
) -> None:
    job, after = delivery("soft", LIMIT), delivery("echo", "after")

    pool.submit([job])
    await reports.until_done(1)
    pool.submit([after])
    await reports.until_done(2)

    assert (reports.outcome(job), reports.result(job)) == (FAILURE, b"interrupted")
    assert reports.result(after) == b"after"
    assert reports.interruptions == [(job, LIMIT)]


async def test_at_the_hard_limit_the_task_is_ended_and_its_handlers_run_elsewhere(
    pool: Pool, reports: Recorder
) -> None:
    job = delivery("hard", LIMIT)._replace(attempt=3, is_redelivered=True)

    pool.submit([job])
    await reports.until_done(1)

    assert reports.outcome(job) == TIMEOUT
    assert reports.result(job) == f"handled {LIMIT} 3 True".encode()
    assert pool.is_idle


async def test_limits_that_begin_when_the_pool_looks_no_more_are_kept(
    pool: Pool, reports: Recorder, tmp_path: Path
) -> None:
    door = gate(tmp_path / "door")
    job = delivery("hard late", str(door))._replace(
        message=json.dumps(("hard late", str(door), LIMIT)).encode()
    )
    pool.submit(echoes(300))
    await reports.until_done(300)
    pool.submit([job])
    await has_begun(door)
    # It counts as long, so that the pool wants less at hand: that is what the last look found.
    await reports.until(lambda: pool.wanted_count == pool.slots)

    await release(door)
    await reports.until_done(301)

    assert reports.outcome(job) == TIMEOUT


async def test_what_was_handed_over_behind_a_task_that_ran_out_of_time_runs_once(
    pool: Pool, reports: Recorder
) -> None:
    pool.submit(echoes(300))
    await reports.until_done(300)
    quick = [delivery("quick", LIMIT) for _ in range(40)]
    job = delivery("hard", LIMIT)

    pool.submit([*quick[:20], job, *quick[20:]])
    await reports.until(lambda: len(reports.done) + len(reports.back) == 341)

    # What waited for long was returned, to be run elsewhere.
    ended = {done.delivery.id: done.outcome for done in reports.done[300:]}
    assert sorted([*ended, *ids(reports.back)]) == sorted(ids([job, *quick]))
    assert ended.pop(job.id) == TIMEOUT
    assert set(ended.values()) == {SUCCESS}


async def test_a_limit_that_is_not_reached_leaves_nothing_behind(
    pool: Pool, reports: Recorder
) -> None:
    jobs = [delivery("quick", 0.01) for _ in range(200)]

    pool.submit(jobs)
    await reports.until_done(200)

    assert {reports.outcome(job) for job in jobs} == {SUCCESS}
    assert not reports.interruptions


async def test_what_ran_out_of_time_is_not_given_back_as_if_it_had_not_begun(
    pool: Pool, reports: Recorder
) -> None:
    job = delivery("hard", LIMIT)
    pool.submit([job])
    await reports.until_started(job)

    withdrawn = pool.withdraw()
    await reports.until_done(1)

    assert not withdrawn
    assert reports.outcome(job) == TIMEOUT


async def test_a_child_that_dies_in_the_handlers_costs_them_and_not_the_report(
    reports: Recorder,
) -> None:
    server = fork_server()
    server.facts()
    pool = PreforkPool(server, slots=1, lost_result=lost_result)
    await pool.start(reports)
    job, after = delivery("die late", LIMIT), delivery("echo", "after")

    pool.submit([job])
    await reports.until_done(1)
    pool.submit([after])
    await reports.until_done(2)
    await pool.stop()

    assert reports.outcome(job) == TIMEOUT
    assert reports.result(job) == f"{job.id}: TimeLimitExceeded({LIMIT},)".encode()
    assert reports.result(after) == b"after"
