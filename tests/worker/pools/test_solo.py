"""What is the solo pool's own; what pools have in common is in test_conformance.py."""

import asyncio
import threading

from qbroker_worker.pools.solo import SoloPool
from qbroker_worker.values import SUCCESS, Ran
from tests.worker import toys
from tests.worker.toys import Recorder, delivery, lost_result


async def test_tasks_run_on_the_thread_that_serves_the_pool() -> None:
    def run(message: bytes, attempt: int, redelivered: bool) -> Ran:
        return Ran(SUCCESS, threading.current_thread().name.encode(), False, 0.0)

    reports = Recorder()
    pool = SoloPool(toys.run._replace(run=run), lost_result=lost_result)
    await pool.start(reports)
    job = delivery("echo")
    pool.submit([job])
    serving = threading.Thread(target=pool.serve, name="main-stand-in")
    serving.start()

    await reports.until_done(1)
    await pool.stop()
    await asyncio.get_running_loop().run_in_executor(None, serving.join)

    assert reports.result(job) == b"main-stand-in"
