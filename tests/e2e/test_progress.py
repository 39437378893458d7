"""States on the way, and signals of workers and tasks, with a real broker and every pool."""

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e

TASKS = """
import asyncio
import os
import time

from proj import app, note, wait_for
from qbroker import signals, states
from qbroker.contrib.abortable import AbortableTask
from qbroker.exceptions import Ignore


@app.task(bind=True)
def steps(self, gate):
    for n in range(1, 4):
        self.update_state(state="PROGRESS", meta={"step": n})
        wait_for(f"{gate}{n}")
    return "there"


@app.task(track_started=True)
def tracked(gate):
    wait_for(gate)


@app.task(bind=True)
def says_so_itself(self):
    self.update_state(state=states.FAILURE, meta={"exc_type": "LookupError", "exc_message": ["mine"], "exc_module": "builtins"})
    raise Ignore()


@app.task(bind=True, base=AbortableTask)
def walk(self):
    self.update_state(state="PROGRESS")
    for n in range(2000):
        if self.is_aborted():
            return f"stopped"
        time.sleep(0.01)
    return "walked"


@app.task
async def for_ever():
    note("for ever")
    await asyncio.Event().wait()


def noting(name):
    def told(sender=None, **facts):
        facts.pop("signal", None)
        request = facts.pop("request", None)
        about = request.id if request is not None else ""
        kept = {key: value for key, value in facts.items() if key in ("terminated", "signum", "expired", "exitcode", "state")}
        note(f"{name} {getattr(sender, 'hostname', None) or getattr(sender, 'name', sender)} {about} {kept}")
    getattr(signals, name).connect(told, weak=False)


for name in (
    "celeryd_init", "worker_init", "worker_ready", "worker_shutdown", "worker_process_init", "worker_process_shutdown",
    "task_received", "task_revoked", "task_prerun", "task_postrun",
):
    noting(name)
"""


@pytest.mark.parametrize("pool", ["prefork", "asyncio"])
def test_waiters_are_told_how_far_a_task_is(farm: "Farm", pool: str) -> None:
    (farm.folder / "tasks.py").write_text(TASKS)
    gate = farm.folder / "gate"
    farm.broker()
    farm.worker("-c", "2", "-P", pool, "-I", "tasks")
    program = farm.python(
        f"""
import pathlib
from qbroker.exceptions import OperationalError
from tasks import says_so_itself, steps, tracked, walk

def told(meta):
    print(meta["status"], meta["result"], flush=True)
    if meta["status"] == "PROGRESS":
        print("INFO", result.state, result.info, flush=True)
        pathlib.Path({str(gate)!r} + str(meta["result"]["step"])).touch()

result = steps.delay({str(gate)!r})
print("GOT", result.get(timeout=20, on_message=told))

started = tracked.delay({str(gate)!r} + "-tracked")
def seen(meta):
    print(meta["status"], meta["result"], started.info, flush=True)
    if meta["status"] == "STARTED":
        pathlib.Path({str(gate)!r} + "-tracked").touch()
started.get(timeout=20, on_message=seen)

try:
    says_so_itself.delay().get(timeout=20)
except LookupError as exc:
    print("FAILED", exc)

walking = walk.delay()
def stop(meta):
    if meta["status"] == "PROGRESS":
        walking.abort()
        print("ABORTED", walking.is_aborted())
print("WALK", walking.get(timeout=30, on_message=stop))
"""
    )

    for n in (1, 2, 3):
        program.wait_for(rf"^PROGRESS {{'step': {n}}}")
        program.wait_for(rf"^INFO PROGRESS {{'step': {n}}}")
    program.wait_for("GOT there")
    assert sum(line.startswith("PROGRESS") for line in program.lines) == 3
    where = r"{'pid': \d+, 'hostname': 'celery@[^']+'}"
    program.wait_for(f"STARTED {where} {where}")
    program.wait_for("FAILED mine")
    program.wait_for("ABORTED True")
    program.wait_for("WALK stopped")


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "solo"])
def test_signals_come_with_celerys_senders_and_facts(farm: "Farm", pool: str) -> None:
    (farm.folder / "tasks.py").write_text(TASKS)
    farm.broker()
    worker = farm.worker("-c", "1", "-P", pool, "-I", "tasks", "-n", "mail@%h")
    program = farm.python(
        """
from proj import add
print("SUM", add.apply_async((1, 2), task_id="the-sum").get(timeout=20))
"""
    )
    program.wait_for("SUM 3")

    assert worker.end(signal.SIGTERM) == 0
    notes = farm.notes()
    names = [note.split()[0] for note in notes]
    expected = ["celeryd_init", "worker_init", "worker_ready"]
    expected += ["task_received", "task_prerun", "task_postrun", "worker_shutdown"]
    if pool == "prefork":
        expected += ["worker_process_init", "worker_process_shutdown"]
    # The program has the same module, and no worker's signals.
    assert sorted(names) == sorted(expected)
    assert next(n for n in notes if n.startswith("task_received")).split()[2] == "the-sum"
    assert next(n for n in notes if n.startswith("worker_ready")).split()[1].startswith("mail@")
    assert any(n.startswith("task_postrun proj.add") and "SUCCESS" in n for n in notes)
    assert names.index("worker_init") < names.index("worker_ready") < names.index("worker_shutdown")


@pytest.mark.parametrize("pool", ["prefork", "asyncio"])
def test_revoked_tasks_are_told_of_ended_and_expired_ones_too(farm: "Farm", pool: str) -> None:
    (farm.folder / "tasks.py").write_text(TASKS)
    farm.broker()
    farm.worker("-c", "1", "-P", pool, "-I", "tasks")
    program = farm.python(
        f"""
import time
from tasks import for_ever
running = for_ever.apply_async(task_id="running")
while "for ever" not in open({str(farm.notes_path)!r}).read():
    time.sleep(0.02)
running.revoke(terminate=True)
try:
    running.get(timeout=20)
except Exception as exc:
    print("ENDED", type(exc).__name__, running.state)
while "task_revoked" not in open({str(farm.notes_path)!r}).read():
    time.sleep(0.02)
print("TOLD")
"""
    )

    program.wait_for("ENDED TaskRevokedError REVOKED")
    program.wait_for("TOLD")

    (note,) = [note for note in farm.notes() if note.startswith("task_revoked")]
    assert note == (
        "task_revoked tasks.for_ever running {'terminated': True, 'signum': 'SIGTERM', 'expired': False}"
    )
