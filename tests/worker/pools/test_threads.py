"""What is the threads pool's own; what pools have in common is in test_conformance.py."""

from pathlib import Path

from qbroker_worker.pools.threads import ThreadsPool
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
