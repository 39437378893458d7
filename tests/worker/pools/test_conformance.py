"""What every pool does alike. A new pool joins `POOLS` and passes this unchanged."""

import signal
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from qbroker_worker.pools.aio import AsyncioPool
from qbroker_worker.pools.pool import Pool
from qbroker_worker.pools.prefork import PreforkPool
from qbroker_worker.pools.solo import SoloPool
from qbroker_worker.pools.threadguard import ThreadGuard
from qbroker_worker.pools.threads import ThreadsPool
from qbroker_worker.values import FAILURE, RETRY, REVOKED, SUCCESS, WORKER_LOST, Delivery
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


def _prefork() -> Pool:
    server = fork_server()
    assert server.facts() == b"facts"
    return PreforkPool(server, slots=2, lost_result=lost_result)


def _threads() -> Pool:
    guard = ThreadGuard()
    return ThreadsPool(guarded(guard), slots=2, lost_result=lost_result, guard=guard)


def _asyncio() -> Pool:
    guard = ThreadGuard()
    return AsyncioPool(guarded(guard), slots=2, lost_result=lost_result, guard=guard)


def _solo() -> Pool:
    guard = ThreadGuard()
    return SoloPool(guarded(guard), lost_result=lost_result, guard=guard)


POOLS: dict[str, Callable[[], Pool]] = {
    "prefork": _prefork,
    "threads": _threads,
    "asyncio": _asyncio,
    "solo": _solo,
}


@pytest.fixture
def reports() -> Recorder:
    return Recorder()


@pytest.fixture(params=list(POOLS))
async def pool(request: pytest.FixtureRequest, reports: Recorder) -> AsyncIterator[Pool]:
    pool = POOLS[request.param]()
    serving = threading.Thread(target=pool.serve, daemon=True)
    await pool.start(reports)
    serving.start()
    yield pool
    await pool.stop()
    if pool.is_idle:
        serving.join()


async def test_a_pool_says_how_many_slots_it_has(pool: Pool) -> None:
    assert pool.slots == (1 if pool.name == "solo" else 2)
    assert pool.wanted_count == pool.slots
    assert pool.is_idle


async def test_what_is_submitted_runs_once_and_is_reported_with_its_result(
    pool: Pool, reports: Recorder
) -> None:
    jobs = echoes(500)
    reports.submit = pool.submit

    pool.submit(jobs)
    await reports.until_done(500)

    assert sorted(ids(done.delivery for done in reports.done)) == sorted(ids(jobs))
    assert [reports.result(job) for job in jobs] == [str(n).encode() for n in range(500)]
    assert {done.outcome for done in reports.done} == {SUCCESS}
    assert pool.is_idle


async def test_the_log_line_travels_with_the_result_whatever_characters_it_has(
    pool: Pool, reports: Recorder
) -> None:
    good, bad = delivery("echo", "Grüße"), delivery("fail")

    pool.submit([good, bad])
    await reports.until_done(2)

    lines = {done.delivery.id: done.line for done in reports.done}
    assert lines[good.id] == "echo Grüße"
    assert lines[bad.id].startswith("it failed")
    assert reports.outcome(bad) == FAILURE


async def test_attempt_and_redelivery_reach_the_task(pool: Pool, reports: Recorder) -> None:
    job = delivery("facts")._replace(attempt=7, is_redelivered=True)

    pool.submit([job])
    await reports.until_done(1)

    assert reports.result(job).startswith(b"7 True ")


async def test_results_of_any_size_arrive(pool: Pool, reports: Recorder) -> None:
    jobs = [delivery("large", size) for size in (0, 1, 300_000, 3_000_000, 5, 300_000)]

    for count, job in enumerate(jobs, 1):
        # One by one: what waits behind one that takes long is given back.
        pool.submit([job])
        await reports.until_done(count)

    assert [len(reports.result(job)) for job in jobs] == [0, 1, 300_000, 3_000_000, 5, 300_000]


async def test_messages_of_any_size_arrive(pool: Pool, reports: Recorder) -> None:
    jobs = [delivery("echo", "y" * size) for size in (4_000_000, 3, 200_000)]

    for count, job in enumerate(jobs, 1):
        # One by one: what waits behind one that takes long is given back.
        pool.submit([job])
        await reports.until_done(count)

    assert [len(reports.result(job)) for job in jobs] == [4_000_000, 3, 200_000]


async def test_short_tasks_make_the_pool_want_more_at_hand(pool: Pool, reports: Recorder) -> None:
    reports.submit = pool.submit
    pool.submit(echoes(200))
    await reports.until_done(200)

    assert pool.wanted_count > 100


async def test_one_long_task_keeps_the_wanted_count_at_the_slots(
    pool: Pool, reports: Recorder, tmp_path: Path
) -> None:
    door = gate(tmp_path / "door")
    job = delivery("wait", str(door))

    pool.submit([job])
    await reports.until_started(job)
    await release(door)
    await reports.until_done(1)

    assert pool.wanted_count == pool.slots


async def test_an_early_acknowledged_task_that_goes_on_is_reported_as_started(
    pool: Pool, reports: Recorder, tmp_path: Path
) -> None:
    door = gate(tmp_path / "door")
    job = delivery("wait", str(door))

    pool.submit([job])
    await reports.until_started(job)

    assert not pool.is_idle
    await release(door)
    await reports.until_done(1)
    assert len(reports.starts) == 1


async def test_what_has_not_started_can_be_withdrawn_and_does_not_run(
    pool: Pool, reports: Recorder, tmp_path: Path
) -> None:
    doors = [gate(tmp_path / f"door-{n}") for n in range(pool.slots)]
    blockers = [delivery("wait", str(door)) for door in doors]
    waiting = echoes(10)
    pool.submit(blockers)
    await reports.until_started(*blockers)

    pool.submit(waiting)
    withdrawn = pool.withdraw() + reports.back

    assert sorted(ids(withdrawn)) == sorted(ids(waiting))
    for door in doors:
        await release(door)
    await reports.until_done(len(blockers))
    assert pool.is_idle
    assert {done.delivery.id for done in reports.done} == set(ids(blockers))


def are_done(reports: Recorder, wanted_count: int, left_count: int) -> bool:
    """Whether so many are done, or all that the pool has not returned."""
    return len(reports.done) >= min(wanted_count, left_count - len(reports.back))


async def test_withdrawing_while_tasks_fly_neither_loses_nor_doubles_any(
    pool: Pool, reports: Recorder
) -> None:
    jobs = echoes(3_000)
    withdrawn: list[Delivery] = []

    for start in range(0, 3_000, 100):
        pool.submit(jobs[start : start + 100])
        wanted_count = len(reports.done) + 20
        left_count = start + 100 - len(withdrawn)
        await reports.until(partial(are_done, reports, wanted_count, left_count))
        withdrawn += pool.withdraw()
    await reports.until(lambda: pool.is_idle)

    back = ids(withdrawn) + ids(reports.back)
    assert sorted(back + ids(done.delivery for done in reports.done)) == sorted(ids(jobs))


async def test_what_waits_behind_long_tasks_is_returned_beyond_what_is_wanted(
    pool: Pool, reports: Recorder, tmp_path: Path
) -> None:
    reports.submit = pool.submit
    pool.submit(echoes(200))
    await reports.until_done(200)
    reports.submit = None
    doors = [gate(tmp_path / f"door-{n}") for n in range(pool.slots)]
    blockers = [delivery("wait", str(door)) for door in doors]

    pool.submit([*blockers, *echoes(pool.wanted_count + 50)])
    await reports.until(lambda: len(reports.back) >= 50)

    assert all(done.delivery not in reports.back for done in reports.done)
    pool.withdraw()
    for door in doors:
        await release(door)
    await reports.until(lambda: pool.is_idle)


async def test_a_paused_pool_starts_nothing_until_it_is_resumed(
    pool: Pool, reports: Recorder
) -> None:
    jobs = echoes(5)
    pool.pause()
    pool.submit(jobs)
    assert not pool.is_idle
    assert not reports.done

    pool.resume()

    await reports.until_done(5)
    assert pool.is_idle


async def test_what_is_forgotten_does_not_start(pool: Pool, reports: Recorder) -> None:
    jobs = echoes(6)
    pool.pause()
    pool.submit(jobs)

    pool.forget(jobs[::2])
    pool.resume()
    await reports.until_done(3)

    assert pool.is_idle
    assert sorted(ids(done.delivery for done in reports.done)) == sorted(ids(jobs[1::2]))


async def test_killing_reports_what_ran_as_lost_and_returns_the_rest(
    pool: Pool, reports: Recorder, tmp_path: Path
) -> None:
    doors = [gate(tmp_path / f"door-{n}") for n in range(pool.slots)]
    blockers = [delivery("wait", str(door)) for door in doors]
    waiting = echoes(10)
    pool.submit(blockers)
    for door in doors:
        await has_begun(door)
    pool.submit(waiting)

    pool.kill()
    await reports.until_done(len(blockers))
    await reports.until(lambda: len(reports.back) == 10)

    assert {reports.outcome(job) for job in blockers} == {WORKER_LOST}
    assert b"Worker exited prematurely: " in reports.result(blockers[0])
    assert sorted(ids(reports.back)) == sorted(ids(waiting))
    assert pool.is_idle
    if pool.name != "prefork":
        for door in doors:
            await release(door)


async def test_a_task_that_exits_its_process_is_lost_and_the_pool_goes_on(
    pool: Pool, reports: Recorder
) -> None:
    leaver, after = delivery("exit", 3), delivery("echo", "after")

    pool.submit([leaver])
    await reports.until_done(1)
    pool.submit([after])
    await reports.until_done(2)

    assert reports.outcome(leaver) == WORKER_LOST
    assert reports.result(after) == b"after"


async def test_what_is_cancelled_before_it_begins_never_runs_and_its_neighbours_do(
    pool: Pool, reports: Recorder, tmp_path: Path
) -> None:
    doors = [gate(tmp_path / f"door-{n}") for n in range(pool.slots)]
    pool.submit([delivery("wait", str(door)) for door in doors])
    for door in doors:
        await has_begun(door)
    waiting = echoes(5)
    pool.submit(waiting)

    was_cancelled = pool.cancel(waiting[2], int(signal.SIGTERM))
    for door in doors:
        await release(door)
    await reports.until_done(pool.slots + 4)

    assert was_cancelled
    done = ids(done.delivery for done in reports.done)
    assert waiting[2].id not in done
    assert {waiting[n].id for n in (0, 1, 3, 4)} <= set(done)
    assert pool.is_idle


async def test_what_runs_goes_on_when_it_is_cancelled_without_a_signal(
    pool: Pool, reports: Recorder, tmp_path: Path
) -> None:
    door = gate(tmp_path / "door")
    runner = delivery("wait", str(door))
    pool.submit([runner])
    await has_begun(door)

    was_cancelled = pool.cancel(runner, None)
    await release(door)
    await reports.until_done(1)

    assert not was_cancelled
    assert reports.outcome(runner) == SUCCESS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_what_runs_is_ended_by_a_signal_and_its_neighbour_goes_on(
    pool: Pool, reports: Recorder, tmp_path: Path, number: signal.Signals
) -> None:
    door, other = gate(tmp_path / "door"), gate(tmp_path / "other")
    runner, neighbour = delivery("spin", str(door)), delivery("wait", str(other))
    after = delivery("echo", "after")
    pool.submit([runner])
    await has_begun(door)
    if pool.slots > 1:
        pool.submit([neighbour])
        await has_begun(other)

    was_cancelled = pool.cancel(runner, int(number))
    await reports.until_done(1)
    pool.submit([after])
    await reports.until_done(2)

    assert not was_cancelled
    assert reports.outcome(runner) == REVOKED
    assert reports.result(after) == b"after"
    if pool.slots > 1:
        await release(other)
        await reports.until_done(3)
        assert reports.outcome(neighbour) == SUCCESS
    assert pool.is_idle


async def test_what_else_a_settle_says_travels_with_the_result(
    pool: Pool, reports: Recorder
) -> None:
    job = delivery("again", "later")

    pool.submit([job])
    await reports.until_done(1)

    (done,) = reports.done
    assert (done.outcome, done.more) == (RETRY, b"later")


async def test_a_pool_says_where_tasks_run_how_large_a_result_may_be(
    pool: Pool, reports: Recorder
) -> None:
    first, second = delivery("result limit"), delivery("result limit")

    pool.submit([first])
    await reports.until_done(1)
    pool.limit_results(12_345)
    pool.submit([second])
    await reports.until_done(2)

    assert reports.result(first) == str(8 * 1024 * 1024).encode()
    assert reports.result(second) == b"12345"
