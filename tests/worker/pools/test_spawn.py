"""Children that are fresh interpreters do what forked ones do, once they are there."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil

from qbroker_worker.pools import spawn
from qbroker_worker.pools.prefork import PreforkPool
from qbroker_worker.values import FAILURE, SUCCESS, TIMEOUT, WORKER_LOST, Notice
from tests.worker.toys import (
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
    slots: int, reports: Recorder, loader: str = "load_fresh"
) -> AsyncIterator[PreforkPool]:
    server = fork_server(loader)
    server.facts()
    pool = PreforkPool(server, slots=slots, lost_result=lost_result)
    await pool.start(reports)
    try:
        yield pool
    finally:
        await pool.stop()


def test_a_fresh_interpreter_has_the_options_of_this_one() -> None:
    assert os.access(spawn.interpreter()[0], os.X_OK)


def test_a_process_is_told_its_role_who_began_it_and_what_it_was_given(tmp_path: Path) -> None:
    told = tmp_path / "told"
    near, far = os.pipe()
    program = "import os, sys; os.write(int(sys.argv[-1]), b'!'); open(sys.argv[1], 'w').write(' '.join(sys.argv[2:]))"
    command = (*spawn.interpreter(), "-c", program, str(told))

    pid = spawn.start(command, "child", ("7",), (far,))
    _, status = os.waitpid(pid, 0)

    assert os.read(near, 1) == b"!"
    assert status == 0
    assert told.read_text() == f"child {os.getpid()} 7 {far}"
    assert not os.get_inheritable(far)
    os.close(near)
    os.close(far)


async def test_what_is_submitted_runs_once_each_in_children_that_were_not_forked() -> None:
    reports = Recorder()
    async with pool_of(2, reports) as pool:
        jobs = echoes(300)
        pool.submit(jobs)
        await reports.until_done(300)

        assert sorted(ids(done.delivery for done in reports.done)) == sorted(ids(jobs))
        assert {done.outcome for done in reports.done} == {SUCCESS}
        assert all("toys.live" in " ".join(psutil.Process(pid).cmdline()) for pid in pool.pids)


async def test_a_child_that_dies_is_replaced_and_its_neighbour_works_on(tmp_path: Path) -> None:
    reports = Recorder()
    async with pool_of(2, reports) as pool:
        door = gate(tmp_path / "door")
        neighbour, victim = delivery("wait", str(door)), delivery("die")
        pool.submit([neighbour])
        await has_begun(door)

        pool.submit([victim])
        await reports.until_done(1)
        later = delivery("echo", "later")
        pool.submit([later])
        await reports.until_done(2)
        await release(door)
        await reports.until_done(3)

        assert reports.outcome(victim) == WORKER_LOST
        assert reports.result(later) == b"later"
        assert reports.outcome(neighbour) == SUCCESS


async def test_time_limits_hold_and_handlers_run_in_the_next_child() -> None:
    reports = Recorder()
    async with pool_of(1, reports) as pool:
        soft, hard = delivery("soft", 0.05), delivery("hard", 0.05)
        pool.submit([soft])
        await reports.until_done(1)
        pool.submit([hard])
        await reports.until_done(2)

        assert (reports.outcome(soft), reports.result(soft)) == (FAILURE, b"interrupted")
        assert (reports.outcome(hard), reports.result(hard)) == (TIMEOUT, b"handled 0.05 1 False")


async def test_what_waits_for_a_child_to_be_there_can_be_taken_back() -> None:
    reports = Recorder()
    async with pool_of(1, reports) as pool:
        job = delivery("echo", "early")
        pool.submit([job])

        assert pool.withdraw() == [job]
        assert pool.is_idle


def test_signals_that_come_before_a_process_can_heed_them_do_not_end_it() -> None:
    program = (
        "import os; from qbroker_worker.pools import forkserver;forkserver.belong_to(os.getppid())"
    )
    pid = spawn.start((*spawn.interpreter(), "-c", program), "child", (), ())

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(pid, number)
    _, status = os.waitpid(pid, 0)

    assert status == 0


async def test_where_no_child_can_begin_nobody_waits_for_one_to_be_told() -> None:
    reports = Recorder()
    async with pool_of(1, reports, "load_stillborn") as pool:
        pool.notify(Notice("worker_shutdown"))
        assert not pool.is_idle

        await reports.until(lambda: pool.is_idle)
