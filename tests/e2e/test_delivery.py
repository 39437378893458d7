"""Delivery rules between real processes: time, retries, revokes, limits, what waits and what dies."""

import signal
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e


def test_a_task_much_longer_than_the_grace_runs_once(farm: "Farm") -> None:
    """P1: no visibility timeout hands a long task to somebody else."""
    farm.broker()
    for name in ("one", "two"):
        farm.worker("-c", "2", "-n", f"{name}@%h")

    program = farm.python(
        """
from proj import nap
print("SLEPT", nap.delay("long", 5).get(timeout=60))
"""
    )

    program.wait_for("SLEPT", timeout=60)
    assert farm.notes() == ["long"]


def test_tasks_with_an_eta_run_once_and_in_time_over_a_restart(farm: "Farm") -> None:
    """P2: the broker holds them, so no worker gives them to another."""
    broker = farm.broker()
    listen = farm.broker_url.removeprefix("qbroker://")
    program = farm.python(
        """
import time
from proj import app, late_by
now = time.time()
with app.pipeline():
    waits = [3 + n / 250 for n in range(500)]
    results = [late_by.apply_async((n, now + wait), countdown=wait) for n, wait in enumerate(waits)]
print("PUBLISHED")
late = [result.get(timeout=60) for result in results]
print("EARLY", sum(seconds < -0.001 for seconds in late))
"""
    )
    program.wait_for("PUBLISHED")

    broker.end(signal.SIGKILL)
    farm.broker(listen)
    for name in ("one", "two"):
        farm.worker("-c", "2", "-n", f"{name}@%h")

    program.wait_for("EARLY 0", timeout=60)
    runs = farm.notes()
    assert sorted(runs) == sorted(str(n) for n in range(500))


def test_a_retried_task_keeps_its_id_and_counts(farm: "Farm") -> None:
    farm.broker()
    farm.worker("-c", "1")

    program = farm.python(
        """
from proj import flaky
result = flaky.delay("id", 3)
print("TRIED", result.get(timeout=30), result.state)
"""
    )

    program.wait_for(r"TRIED 3 SUCCESS")
    assert len(set(farm.notes())) == 1
    assert len(farm.notes()) == 4


def test_a_revoke_with_no_worker_up_outlives_a_restart(farm: "Farm") -> None:
    """P9."""
    broker = farm.broker()
    listen = farm.broker_url.removeprefix("qbroker://")
    publisher = farm.python(
        """
from proj import mark
unwanted, wanted = mark.delay("unwanted"), mark.delay("wanted")
unwanted.revoke()
print("REVOKED", unwanted.state, unwanted.id, wanted.id)
"""
    )
    ids = publisher.wait_for(r"REVOKED REVOKED (\S+) (\S+)")

    broker.end(signal.SIGKILL)
    farm.broker(listen)
    farm.worker("-c", "1")

    program = farm.python(
        f"""
from proj import app
from qbroker.exceptions import TaskRevokedError
print("WANTED", app.AsyncResult({ids.group(2)!r}).get(timeout=20))
try:
    app.AsyncResult({ids.group(1)!r}).get(timeout=20)
except TaskRevokedError as error:
    print("RAISED", error)
"""
    )
    program.wait_for("WANTED wanted")
    program.wait_for("RAISED")
    assert farm.notes() == ["wanted"]


TERMINATED = """
import asyncio

from proj import app, hold, note
from qbroker.signals import task_revoked


@app.task
async def waits(word):
    note(word)
    await asyncio.Event().wait()


@task_revoked.connect
def told(sender, request, terminated, signum, expired, **_):
    note(f"revoked {sender.name} {request.args} {terminated} {signum} {expired}")
"""


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "solo"])
def test_a_running_task_is_terminated_and_its_neighbour_is_not(farm: "Farm", pool: str) -> None:
    (farm.folder / "terminated.py").write_text(TERMINATED)
    farm.broker()
    farm.worker("-c", "3", "-P", pool, "-I", "terminated")
    gate = farm.folder / "gate"
    program = farm.python(
        f"""
from terminated import hold, waits
from qbroker.exceptions import TaskRevokedError
victims = [hold.delay("victim", "never"), waits.delay("waiting victim")]
neighbour = hold.delay("neighbour", {str(gate)!r})
print("PUBLISHED", *(victim.id for victim in victims))
for victim in victims:
    try:
        victim.get(timeout=30)
    except TaskRevokedError as error:
        print("TERMINATED", victim.state, error)
print("NEIGHBOUR", neighbour.get(timeout=20))
"""
    )
    ids = program.wait_for(r"PUBLISHED (\S+) (\S+)").groups()

    def wait_for_notes(count: int, start: str) -> list[str]:
        while len(found := [note for note in farm.notes() if note.startswith(start)]) < count:
            with pytest.raises(TimeoutError):
                program.popen_wait(0.02)
        return found

    for victim_id, note in zip(ids, ("victim", "waiting victim"), strict=True):
        wait_for_notes(1, note)
        qctl = farm.qctl("revoke", victim_id, "--terminate", "--why", "not wanted", "--yes")
        assert qctl.returncode == 0, qctl.stdout + qctl.stderr
        program.wait_for("TERMINATED REVOKED not wanted")

    assert wait_for_notes(2, "revoked") == [
        "revoked proj.hold ['victim', 'never'] True SIGTERM False",
        "revoked terminated.waits ['waiting victim'] True SIGTERM False",
    ]
    gate.touch()
    program.wait_for("NEIGHBOUR neighbour")


def test_a_task_that_kills_its_process_becomes_a_dead_letter_and_can_be_put_back(
    farm: "Farm",
) -> None:
    """P6."""
    farm.broker()
    farm.worker("-c", "1")
    program = farm.python(
        """
from proj import add, die_late
result = die_late.delay("poison")
result.get(timeout=30, propagate=False)
print("DEAD", result.state)
print("SUM", add.delay(2, 3).get(timeout=20))
"""
    )
    program.wait_for("DEAD FAILURE", timeout=60)
    program.wait_for("SUM 5")

    listed = farm.qctl("dead", "ls", "--json")
    requeued = farm.qctl("dead", "requeue", "--all", "--yes")

    assert "proj.die_late" in listed.stdout
    assert requeued.returncode == 0
    while len(farm.notes()) < 6:
        with pytest.raises(TimeoutError):
            program.popen_wait(0.05)


def test_a_limited_task_spans_workers_and_holds_nobody_else_back(farm: "Farm") -> None:
    """P10."""
    farm.broker()
    for name in ("one", "two"):
        farm.worker("-c", "2", "-n", f"{name}@%h")

    program = farm.python(
        """
import json
from proj import limited, mark
slow = [limited.delay(n) for n in range(6)]
free = [mark.delay(f"free{n}") for n in range(20)]
for result in free:
    result.get(timeout=20)
done = sum(result.ready() for result in slow)
print("FREE", done < 6)
starts = sorted(result.get(timeout=30) for result in slow)
gaps = [b - a for a, b in zip(starts, starts[1:])]
print("GAPS", json.dumps(gaps))
"""
    )

    program.wait_for("FREE True", timeout=60)
    gaps = program.wait_for(r"GAPS \[(.*)\]", timeout=60).group(1)
    # Ten a second are a tenth of a second apart; a worker may be late, never early.
    assert sum(float(gap) for gap in gaps.split(",")) > 0.45


def test_no_slot_is_idle_while_the_queue_has_work(farm: "Farm") -> None:
    """P11: short tasks do not wait behind long ones while a slot is free."""
    farm.broker()
    gate = farm.folder / "gate"
    for name in ("one", "two"):
        farm.worker("-c", "2", "-n", f"{name}@%h")

    program = farm.python(
        f"""
from proj import hold, mark
long = [hold.delay(f"long{{n}}", {str(gate)!r}) for n in range(3)]
short = [mark.delay(f"short{{n}}") for n in range(50)]
for result in short:
    result.get(timeout=30)
print("SHORT DONE")
open({str(gate)!r}, "w").close()
for result in long:
    result.get(timeout=30)
print("ALL DONE")
"""
    )

    program.wait_for("SHORT DONE", timeout=60)
    program.wait_for("ALL DONE", timeout=60)


def test_a_task_nobody_knows_waits_for_a_worker_that_does(farm: "Farm") -> None:
    """P14."""
    farm.broker()
    (farm.folder / "old.py").write_text(
        'import os\nfrom qbroker import App\napp = App("old", broker=os.environ["PROJ_BROKER"])\n'
    )
    old = farm.start("worker", "-A", "old", "-l", "INFO", "-n", "old@%h")
    old.wait_for(r"\bready\b")
    program = farm.python(
        """
from proj import mark
result = mark.delay("rolled out")
print("PUBLISHED", result.id)
print("RUN", result.get(timeout=60))
"""
    )
    task_id = program.wait_for(r"PUBLISHED (\S+)").group(1)

    explained = farm.qctl("explain", task_id)
    farm.worker("-c", "1", "-n", "new@%h")

    assert "knows" in explained.stdout
    program.wait_for("RUN rolled out", timeout=60)


def test_a_paused_queue_delivers_nothing_until_it_is_resumed(farm: "Farm") -> None:
    broker = farm.broker()
    listen = farm.broker_url.removeprefix("qbroker://")
    farm.worker("-c", "1")
    paused = farm.qctl("queue", "pause", "celery", "--why", "upgrade")
    program = farm.python(
        """
from proj import mark
result = mark.delay("after")
print("PUBLISHED", result.id)
print("RUN", result.get(timeout=60))
"""
    )
    task_id = program.wait_for(r"PUBLISHED (\S+)").group(1)

    broker.end(signal.SIGKILL)
    farm.broker(listen)
    explained = farm.qctl("explain", task_id)
    resumed = farm.qctl("queue", "resume", "celery")

    assert paused.returncode == resumed.returncode == 0
    assert "paused" in explained.stdout
    assert "upgrade" in explained.stdout
    program.wait_for("RUN after", timeout=60)


def test_scheduled_tasks_cost_a_worker_nothing(farm: "Farm") -> None:
    """P3, shortened: what is not due is nowhere but in the store."""
    farm.broker()
    worker = farm.worker("-c", "1")
    before = psutil.Process(worker.pid).memory_info().rss

    program = farm.python(
        """
from proj import app, add
with app.pipeline():
    for n in range(20_000):
        add.apply_async((n, n), countdown=3600)
print("PUBLISHED", add.delay(1, 1).get(timeout=60))
"""
    )

    program.wait_for("PUBLISHED 2", timeout=60)
    assert psutil.Process(worker.pid).memory_info().rss - before < 5 * 2**20


PLACES = """
import os

from qbroker.exceptions import Reject
from proj import app, note


@app.task
def echo(word):
    note(word)
    return word


@app.task(bind=True)
def pass_on(self, word):
    raise self.replace(echo.s(word).set(queue="b"))


@app.task(acks_late=True)
def refuse(word, path):
    import os
    if not os.path.exists(path):
        raise Reject(word, requeue=False)
    return echo.run(word)
"""


def test_a_replacement_in_another_queue_leaves_what_waits_there_in_its_place(farm: "Farm") -> None:
    (farm.folder / "places.py").write_text(PLACES)
    farm.broker()
    farm.qctl("queue", "declare", "b")
    farm.qctl("queue", "pause", "b")
    farm.worker("-c", "1", "-I", "places", "-Q", "a,b")
    program = farm.python(
        """
import sys
from places import echo, pass_on
waiting = echo.apply_async(("waiting",), queue="b")
passed_on = pass_on.apply_async(("passed on",), queue="a")
last = echo.apply_async(("last",), queue="a")
last.get(timeout=30)
print("REPLACED")
print("WORDS", waiting.get(timeout=30), "and", passed_on.get(timeout=30))
"""
    )
    program.wait_for("REPLACED", timeout=60)

    farm.qctl("queue", "resume", "b")

    program.wait_for("WORDS waiting and passed on", timeout=60)
    assert farm.notes() == ["last", "waiting", "passed on"]


def test_a_requeued_dead_letter_leaves_what_waits_in_its_remade_queue_in_its_place(
    farm: "Farm",
) -> None:
    (farm.folder / "places.py").write_text(PLACES)
    gate = farm.folder / "gate"
    farm.broker()
    worker = farm.worker("-c", "1", "-I", "places", "-Q", "b")
    program = farm.python(
        f"""
import sys
from places import echo, refuse
dead = refuse.apply_async(("dead", {str(gate)!r}), queue="b")
dead.get(timeout=30, propagate=False)
print("DEAD", dead.state)
"""
    )
    program.wait_for("DEAD FAILURE", timeout=60)
    worker.end()
    removed = farm.qctl("queue", "rm", "b", "--yes")
    farm.qctl("queue", "declare", "b")
    farm.qctl("queue", "pause", "b")
    gate.touch()
    again = farm.python(
        """
from places import echo
waiting = echo.apply_async(("waiting",), queue="b")
print("PUBLISHED")
print("WORD", waiting.get(timeout=30))
"""
    )
    again.wait_for("PUBLISHED")

    requeued = farm.qctl("dead", "requeue", "--all", "--yes")
    farm.qctl("queue", "resume", "b")
    farm.worker("-c", "1", "-I", "places", "-Q", "b")

    assert (removed.returncode, requeued.returncode) == (0, 0), removed.stderr + requeued.stderr
    again.wait_for("WORD waiting", timeout=60)
    while len(farm.notes()) < 2:
        with pytest.raises(TimeoutError):
            again.popen_wait(0.05)
    assert farm.notes() == ["waiting", "dead"]
