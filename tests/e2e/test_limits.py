"""Time limits with a real broker: what the caller is told, what runs again, in every pool."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e

TASKS = """
import asyncio
import os

from proj import app, note
from qbroker import Task
from qbroker.exceptions import SoftTimeLimitExceeded
from qbroker.signals import task_failure


class Noting(Task):
    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note(f"on_failure {exc} {args} {os.getpid()}")


@app.task(base=Noting)
def endless(word):
    note(f"endless {word} {os.getpid()}")
    while True:
        sum(range(100))


@app.task
def careful():
    try:
        while True:
            sum(range(100))
    except SoftTimeLimitExceeded as exc:
        return repr(exc)


@app.task(base=Noting)
async def waits(word):
    note(f"waits {word}")
    await asyncio.Event().wait()


@app.task(base=Noting, acks_late=True, acks_on_timeout=False, time_limit=0.3)
def again(word):
    note(f"again {word}")
    if sum(line.startswith("again") for line in open(os.environ["PROJ_NOTES"])) > 1:
        return "second"
    while True:
        sum(range(100))


@task_failure.connect
def told(sender, task_id, exception, **_):
    note(f"task_failure {sender.name} {exception}")
"""

PROGRAM = """
from tasks import again, careful, endless, waits

print("SOFT", careful.apply_async(soft_time_limit=0.2).get(timeout=20))
for task in (endless, waits):
    try:
        task.apply_async(("x",), time_limit=0.3).get(timeout=20)
    except Exception as exc:
        print("HARD", type(exc).__name__, exc)
print("AGAIN", again.delay("y").get(timeout=20))
"""


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "solo"])
def test_limits_end_tasks_run_their_handlers_and_tell_the_caller(farm: "Farm", pool: str) -> None:
    (farm.folder / "tasks.py").write_text(TASKS)
    farm.broker()
    worker = farm.worker("-c", "2", "-P", pool, "-I", "tasks")

    program = farm.python(PROGRAM)
    program.wait_for(r"SOFT SoftTimeLimitExceeded\(\)")
    program.wait_for(r"HARD TimeLimitExceeded TimeLimitExceeded\(0\.3,\)")
    worker.wait_for(r"Hard time limit \(0\.3s\) exceeded for tasks\.endless\[")
    program.wait_for(r"HARD TimeLimitExceeded TimeLimitExceeded\(0\.3,\)")
    program.wait_for("AGAIN second")

    notes = farm.notes()
    assert sum(note.startswith("endless") for note in notes) == 1
    assert sum(note.startswith("on_failure TimeLimitExceeded(0.3,)") for note in notes) == 3
    assert "task_failure tasks.waits TimeLimitExceeded(0.3,)" in notes
    assert notes.count("again y") == 2
    if pool == "prefork":
        ran = next(note.split()[-1] for note in notes if note.startswith("endless"))
        handled = next(note.split()[-1] for note in notes if note.startswith("on_failure"))
        assert handled not in (ran, str(worker.pid))


WATCHED = """
import logging
import os
import signal

from proj import app
from qbroker import Task, signals
from qbroker.worker.request import Request

logger = logging.getLogger("my.package")


class MyRequest(Request):
    "A minimal custom request to log failures and hard time limits."

    def on_timeout(self, soft, timeout):
        super(MyRequest, self).on_timeout(soft, timeout)
        if not soft:
            logger.warning("A hard timeout was enforced for task %s", self.task.name)

    def on_failure(self, exc_info, send_failed_event=True, return_ok=False):
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        logger.warning("Failure detected for task %s", self.task.name)


class MyTask(Task):
    Request = MyRequest


@app.task(base=MyTask, time_limit=0.3)
def slow():
    while True:
        sum(range(100))


@app.task(base=MyTask)
def fails():
    raise ValueError("no")


@app.task(base=MyTask)
def dies():
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


@signals.task_failure.connect(sender=dies)
def told(sender, exception, **kwargs):
    logger.warning("Told that %s raised %s", sender.name, exception)
"""


def test_celerys_example_of_a_custom_request_logs_failures_limits_and_deaths(farm: "Farm") -> None:
    (farm.folder / "tasks.py").write_text(WATCHED)
    farm.broker()
    worker = farm.worker("-c", "1", "-I", "tasks")

    farm.python("from tasks import *; fails.delay(); slow.delay(); dies.delay()")

    worker.wait_for(r"Failure detected for task tasks\.fails$")
    worker.wait_for(r"A hard timeout was enforced for task tasks\.slow$")
    worker.wait_for(r"Failure detected for task tasks\.slow$")
    worker.wait_for(r"Told that tasks\.dies raised Worker exited prematurely: signal 9 \(SIGKILL\)")
    worker.wait_for(r"Failure detected for task tasks\.dies$")
    assert worker.end() == 0
