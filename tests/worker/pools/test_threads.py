"""What is the threads pool's own; what pools have in common is in test_conformance.py."""

import threading
from pathlib import Path

from qbroker_worker.pools.threadguard import Revoked, ThreadGuard
from qbroker_worker.pools.threads import ThreadsPool
from qbroker_worker.values import REVOKED, Ran
from tests.worker.toys import Recorder, delivery, gate, has_begun, lost_result, release, run


async def test_what_a_given_up_task_returns_later_is_not_reported_again(tmp_path: Path) -> None:
    reports = Recorder()
    pool = ThreadsPool(run, slots=1, lost_result=lost_result)
    await pool.start(reports)
    door = gate(tmp_path / "door")
    job, later = delivery("wait", str(door)), delivery("echo", "later")
    pool.submit([job])
    await has_begun(door)

    pool.kill()
    await release(door)
    pool.submit([later])
    await reports.until_done(2)

    assert [done.delivery for done in reports.done] == [job, later]
    await pool.stop()


async def test_a_task_that_is_struck_while_it_leaves_the_guard_has_left_it() -> None:
    class Struck(ThreadGuard):
        """Each task's first leaving is cut off, as by a hard limit that comes as it ends."""

        is_struck = False

        def leave(self) -> None:
            self.is_struck = not self.is_struck
            if self.is_struck:
                raise Revoked
            super().leave()

    guard, reports = Struck(), Recorder()
    left: list[object] = []

    def run_and_begin(message: bytes, attempt: int, redelivered: bool) -> Ran:
        left.append(guard.of(threading.get_ident()))
        guard.begin(1_000.0, None)
        return run.run(message, attempt, redelivered)

    pool = ThreadsPool(
        run._replace(run=run_and_begin), slots=1, lost_result=lost_result, guard=guard
    )
    await pool.start(reports)
    jobs = [delivery("echo", "first"), delivery("echo", "second")]

    pool.submit(jobs)
    await reports.until_done(2)

    assert left == [None, None]
    assert {reports.outcome(job) for job in jobs} == {REVOKED}
    await pool.stop()
