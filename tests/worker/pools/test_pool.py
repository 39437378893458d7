"""What is told of a task whose process died."""

import logging

from qbroker_worker.pools.pool import lost
from qbroker_worker.values import WORKER_LOST
from tests.worker.toys import delivery, lost_result


def test_a_lost_task_is_an_error_in_the_log_in_celerys_words() -> None:
    job = delivery("echo")

    finished = lost(job, "It died.", lost_result)

    assert finished.outcome == WORKER_LOST
    assert finished.level == logging.ERROR
    assert finished.line == f"Task echo[{job.id}] raised unexpected: WorkerLostError('It died.')"
    assert finished.result == f"{job.id}: It died.".encode()
