"""What only processes can show: children that die, parents that die, claims that are taken back."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from qbroker_worker.pools import frames
from qbroker_worker.pools.prefork import PreforkPool
from qbroker_worker.values import SUCCESS, WORKER_LOST
from tests.worker.toys import (
    PATIENCE_S,
    Recorder,
    delivery,
    echoes,
    fork_server,
    gate,
    has_begun,
    ids,
    lost_result,
    release,
)


@contextlib.asynccontextmanager
async def pool_of(
    slots: int, reports: Recorder, loader: str = "load", stopped_s: float = 60.0
) -> AsyncIterator[PreforkPool]:
    server = fork_server(loader)
    server.facts()
    pool = PreforkPool(server, slots=slots, lost_result=lost_result, stopped_s=stopped_s)
    await pool.start(reports)
    try:
        yield pool
    finally:
        await pool.stop()


async def _warm(pool: PreforkPool, reports: Recorder) -> None:
    """Let the pool learn that echoes are short."""
    jobs = echoes(300)
    pool.submit(jobs)
    await reports.until_done(len(reports.done) + 300)
    reports.done.clear()
    reports.starts.clear()


async def test_a_child_killed_in_a_task_loses_that_task_only_and_is_replaced(
    tmp_path: Path,
) -> None:
    reports = Recorder()
    async with pool_of(2, reports) as pool:
        door = gate(tmp_path / "door")
        other_door = gate(tmp_path / "other")
        neighbour, victim = delivery("wait", str(door)), delivery("wait", str(other_door))
        pool.submit([neighbour, victim])
        await has_begun(door)
        await has_begun(other_door)

        os.kill(next(pid for job, pid in reports.starts if job is victim), signal.SIGKILL)
        await reports.until_done(1)
        later = delivery("echo", "later")
        pool.submit([later])
        await reports.until_done(2)
        await release(door)
        await reports.until_done(3)

        assert reports.outcome(victim) == WORKER_LOST
        assert (
            reports.result(victim).decode() == f"{victim.id}: Worker exited prematurely: "
            f"signal 9 (SIGKILL) Job: {victim.id}."
        )
        assert reports.outcome(neighbour) == SUCCESS
        assert reports.result(later) == b"later"


async def test_a_child_that_dies_in_the_middle_of_a_batch_keeps_what_it_finished_and_returns_the_rest() -> (
    None
):
    reports = Recorder()
    async with pool_of(1, reports) as pool:
        await _warm(pool, reports)
        before, death, after = echoes(20), delivery("die"), echoes(20)
        # Named alike, so that they travel in one batch.
        death = death._replace(task="echo")

        pool.submit([*before, death, *after])
        await reports.until_done(41)

        assert {reports.outcome(job) for job in before} == {SUCCESS}
        assert reports.outcome(death) == WORKER_LOST
        assert {reports.outcome(job) for job in after} == {SUCCESS}
        assert len({reports.result(job) for job in before}) == 20


async def test_results_that_were_finished_but_not_announced_survive_the_death_of_the_child(
    tmp_path: Path,
) -> None:
    reports = Recorder()
    async with pool_of(1, reports) as pool:
        await _warm(pool, reports)
        pid = next(iter(pool._children.values())).pid
        before = echoes(5)
        door = gate(tmp_path / "door")
        blocker = delivery("wait", str(door))._replace(task="echo")
        after = echoes(5)

        pool.submit([*before, blocker, *after])
        await has_begun(door)
        os.kill(pid, signal.SIGKILL)
        await reports.until_done(11)

        assert {reports.outcome(job) for job in before + after} == {SUCCESS}
        assert reports.outcome(blocker) == WORKER_LOST


async def test_a_surprisingly_long_task_does_not_hold_back_its_neighbours(tmp_path: Path) -> None:
    reports = Recorder()
    async with pool_of(2, reports) as pool:
        await _warm(pool, reports)
        door = gate(tmp_path / "door")
        before, after = echoes(10), echoes(10)
        blocker = delivery("wait", str(door))._replace(task="echo")

        pool.submit([*before, blocker, *after])
        await reports.until_done(20)

        assert {reports.outcome(job) for job in before + after} == {SUCCESS}
        assert [job.id for job, _ in reports.starts].count(blocker.id) == 1
        await release(door)
        await reports.until_done(21)
        assert pool.is_idle


async def test_a_child_that_does_not_begin_gives_back_what_it_was_handed() -> None:
    reports = Recorder()
    async with pool_of(2, reports) as pool:
        await _warm(pool, reports)
        asleep = pool.pids[0]
        os.kill(asleep, signal.SIGSTOP)

        jobs = echoes(200)
        pool.submit(jobs)
        await reports.until_done(200)

        assert {done.delivery.id for done in reports.done} == set(ids(jobs))
        os.kill(asleep, signal.SIGCONT)
        more = echoes(200)
        pool.submit(more)
        await reports.until_done(400)


async def test_a_child_works_on_after_its_tail_was_taken_back(tmp_path: Path) -> None:
    reports = Recorder()
    async with pool_of(1, reports) as pool:
        await _warm(pool, reports)
        door = gate(tmp_path / "door")
        blocker = delivery("wait", str(door))._replace(task="echo")
        tail, later = echoes(10), echoes(300)
        pool.submit([blocker, *tail])
        await reports.until_started(blocker)

        withdrawn = pool.withdraw()
        await release(door)
        await reports.until_done(1)
        pool.submit(later)
        await reports.until_done(301)

        assert sorted(ids(withdrawn) + ids(reports.back)) == sorted(ids(tail))
        assert {reports.outcome(job) for job in later} == {SUCCESS}
        assert pool.is_idle


async def test_children_dying_at_random_neither_lose_nor_double_a_task() -> None:
    reports = Recorder()
    async with pool_of(2, reports) as pool:
        await _warm(pool, reports)
        jobs = echoes(4_000)

        for start in range(0, 4_000, 400):
            pool.submit(jobs[start : start + 400])
            await reports.until_done(start + 50)
            # By the fork server, which knows who of them is dead already.
            for number in list(pool._children)[: 1 + start // 400 % 2]:
                pool._tell_server(frames.KILL, number)
        await reports.until(lambda: len(reports.done) == 4_000)

        assert sorted(ids(done.delivery for done in reports.done)) == sorted(ids(jobs))
        lost = [done for done in reports.done if done.outcome == WORKER_LOST]
        assert len(lost) <= 15
        assert all(
            done.result == json_number(done.delivery.message)
            for done in reports.done
            if done.outcome == SUCCESS
        )


def json_number(message: bytes) -> bytes:
    """The argument of an echo."""
    return message.rpartition(b", ")[2].rstrip(b"]")


async def test_children_do_not_heed_the_signals_of_a_terminal_or_a_service_manager(
    tmp_path: Path,
) -> None:
    reports = Recorder()
    async with pool_of(1, reports) as pool:
        door = gate(tmp_path / "door")
        job = delivery("wait", str(door))
        pool.submit([job])
        await reports.until_started(job)

        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(reports.starts[0][1], number)
            os.kill(pool._server.pid, number)
        await release(door)
        await reports.until_done(1)

        assert reports.outcome(job) == SUCCESS


async def test_the_death_of_the_fork_server_is_a_failure_of_the_pool() -> None:
    reports = Recorder()
    async with pool_of(1, reports) as pool:
        os.kill(pool._server.pid, signal.SIGKILL)
        await reports.until(lambda: bool(reports.failures))

        assert "fork server" in reports.failures[0]


async def test_stopping_leaves_no_process_behind() -> None:
    reports = Recorder()
    async with pool_of(2, reports) as pool:
        await _warm(pool, reports)
        pids = [child.pid for child in pool._children.values()] + [pool._server.pid]

    assert not any(psutil.pid_exists(pid) for pid in pids)


PARENT = """
import asyncio, sys
from qbroker_worker.pools import forkserver
from qbroker_worker.pools import frames
from qbroker_worker.pools.prefork import PreforkPool
from tests.worker import toys
from tests.worker.toys import Recorder, delivery, lost_result

async def main():
    server = forkserver.fork(getattr(toys, sys.argv[2]))
    server.facts()
    pool, reports = PreforkPool(server, slots=2, lost_result=lost_result), Recorder()
    await pool.start(reports)
    job = delivery("wait", sys.argv[1])
    pool.submit([job])
    await reports.until_started(job)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("loader", ["load", "load_fresh"])
def test_killing_the_parent_leaves_no_orphan(tmp_path: Path, loader: str) -> None:
    door = gate(tmp_path / "door")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(door), loader], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        family = psutil.Process(parent.pid).children(recursive=True)

        parent.kill()

        _, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert len(family) >= 2
    assert alive == []


async def test_a_parent_that_was_slow_to_read_finds_every_result() -> None:
    reports = Recorder()
    async with pool_of(2, reports) as pool:
        jobs = [delivery("large", 100_000) for _ in range(40)]
        pool.submit(jobs)

        for _ in range(20):
            await asyncio.sleep(0)
        await reports.until_done(40)

        assert {len(reports.result(job)) for job in jobs} == {100_000}


async def test_a_child_makes_place_for_a_fresh_one_after_so_many_tasks() -> None:
    reports = Recorder()
    jobs = [delivery("facts") for _ in range(20)]
    async with pool_of(2, reports, "load_short_lived") as pool:
        pool.submit(jobs)
        await reports.until(lambda: len(reports.done) == 20)

    pids = [done.result.split()[2] for done in reports.done]
    assert max(pids.count(pid) for pid in pids) == 3
    assert {done.outcome for done in reports.done} == {SUCCESS}
    assert sorted(ids(done.delivery for done in reports.done)) == sorted(ids(jobs))


async def test_a_child_that_has_grown_makes_place_for_a_fresh_one() -> None:
    reports = Recorder()
    async with pool_of(1, reports, "load_lean") as pool:
        pool.submit([delivery("facts") for _ in range(4)])
        await reports.until_done(4)

    pids = [done.result.split()[2] for done in reports.done]
    assert len(set(pids)) == 4


async def test_a_very_large_result_does_not_keep_its_neighbours_from_being_heard() -> None:
    reports = Recorder()
    async with pool_of(2, reports) as pool:
        large = delivery("large", 60_000_000)

        pool.submit([large])
        await reports.until_started(large)
        for number in range(50):
            pool.submit([delivery("echo", number)])
            await reports.until(
                lambda number=number: (  # type: ignore[misc]
                    sum(done.delivery.task == "echo" for done in reports.done) > number
                )
            )
        await reports.until_done(51)

        assert len(reports.result(large)) == 60_000_000


async def test_a_child_that_is_killed_in_the_middle_of_a_large_result_loses_that_task_only() -> (
    None
):
    reports = Recorder()
    async with pool_of(1, reports) as pool:
        large = delivery("large", 200_000_000)

        pool.submit([large])
        await reports.until_started(large)
        while not (child := next(iter(pool._children.values()))).unread:  # noqa: ASYNC110 - nothing is reported before the record is whole
            await asyncio.sleep(0)
        os.kill(child.pid, signal.SIGKILL)
        await reports.until_done(1)
        after = delivery("echo", "after")
        pool.submit([after])
        await reports.until_done(2)

        assert reports.outcome(large) == WORKER_LOST
        assert reports.result(after) == b"after"


async def test_a_child_that_replaces_another_knows_how_large_a_result_may_be() -> None:
    reports = Recorder()
    async with pool_of(1, reports) as pool:
        pool.limit_results(12_345)
        pool.submit([delivery("die")])
        await reports.until_done(1)
        job = delivery("result limit")

        pool.submit([job])
        await reports.until_done(2)

        assert reports.result(job) == b"12345"


async def test_very_large_arguments_reach_the_child() -> None:
    reports = Recorder()
    async with pool_of(1, reports) as pool:
        job = delivery("echo", "y" * 60_000_000)

        pool.submit([job])
        await reports.until_done(1)

        assert len(reports.result(job)) == 60_000_000


async def test_a_child_that_stays_stopped_is_named_in_the_log_and_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reports = Recorder()
    async with pool_of(1, reports, stopped_s=0.05) as pool:
        door = gate(tmp_path / "door")
        job = delivery("wait", str(door))
        pool.submit([job])
        await has_begun(door)
        await reports.until_started(job)

        os.kill(reports.starts[0][1], signal.SIGSTOP)
        await reports.until_done(1)

    assert reports.outcome(job) == WORKER_LOST
    assert f"was stopped by signal 19 (SIGSTOP) in task wait[{job.id}]" in caplog.text
    assert "is killed: it was stopped by a signal for 0.05 s" in caplog.text


async def test_a_child_that_was_stopped_and_continues_ends_its_task(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reports = Recorder()
    async with pool_of(1, reports) as pool:
        door = gate(tmp_path / "door")
        job = delivery("wait", str(door))
        pool.submit([job])
        await has_begun(door)
        await reports.until_started(job)

        os.kill(reports.starts[0][1], signal.SIGSTOP)
        os.kill(reports.starts[0][1], signal.SIGCONT)
        await release(door)
        await reports.until_done(1)

    assert reports.outcome(job) == SUCCESS
    assert "is killed" not in caplog.text


@pytest.mark.parametrize(
    ("code", "told"), [(3, 3), (None, 0), ("why", 1), (-1, 255), (2**40 + 7, 7), (True, 1)]
)
async def test_a_child_that_exits_with_any_code_loses_its_task_only(
    code: object, told: int
) -> None:
    reports = Recorder()
    async with pool_of(1, reports) as pool:
        job, after = delivery("exit", code), delivery("echo", "after")  # type: ignore[arg-type]

        pool.submit([job])
        await reports.until_done(1)
        pool.submit([after])
        await reports.until_done(2)

        assert f"exitcode {told} Job" in reports.result(job).decode()
        assert reports.result(after) == b"after"
