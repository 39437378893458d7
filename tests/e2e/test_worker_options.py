"""Options of a worker, as its user sees them: logs, files, the background."""

import json
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e

TASKS = """
import sys

from proj import app
from qbroker.utils.log import get_task_logger

logger = get_task_logger(__name__)


@app.task
def talk():
    print("printed")
    print("to errors", file=sys.stderr)
    logger.info("logged")
"""

TALK = "from tasks import talk; talk.delay().get(timeout=20); print('DONE')"


def _talking(farm: "Farm") -> None:
    (farm.folder / "tasks.py").write_text(TASKS)
    farm.broker()


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "solo"])
def test_what_tasks_print_and_log_are_lines_of_celerys_form(farm: "Farm", pool: str) -> None:
    _talking(farm)
    worker = farm.worker("-c", "1", "-P", pool, "-I", "tasks")

    farm.python(TALK).wait_for("DONE")

    process = "ForkPoolWorker-1" if pool == "prefork" else "MainProcess"
    worker.wait_for(rf"^\[[\d:, -]+: WARNING/{process}\] printed$")
    worker.wait_for(rf": WARNING/{process}\] to errors$")
    worker.wait_for(rf": INFO/{process}\] tasks\.talk\[[0-9a-f-]+\]: logged$")
    worker.wait_for(
        r": INFO/MainProcess\] Task tasks\.talk\[[0-9a-f-]+\] succeeded in [\d.]+s: None$"
    )


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_tasks_that_share_a_process_lose_no_printed_line(farm: "Farm", pool: str) -> None:
    _talking(farm)
    (farm.folder / "tasks.py").write_text(
        TASKS
        + """
import threading
together = threading.Barrier(8)

@app.task
def count():
    together.wait(20)
    for number in range(100):
        print(f"number-{number}")
"""
    )
    worker = farm.worker("-c", "8", "-P", pool, "-I", "tasks")

    farm.python(
        "from tasks import count; results = [count.delay() for _ in range(8)]; "
        "[result.get(timeout=20) for result in results]; print('DONE')"
    ).wait_for("DONE")

    worker.end()
    assert sum("number-" in line for line in worker.lines) == 800


def test_the_apps_formats_hold_in_the_worker_and_in_its_children(farm: "Farm") -> None:
    _talking(farm)
    (farm.folder / "tasks.py").write_text(
        TASKS
        + """
app.conf.worker_log_format = "plain %(message)s"
app.conf.worker_task_log_format = "task %(task_name)s %(message)s"
app.conf.worker_redirect_stdouts_level = "ERROR"
"""
    )
    worker = farm.worker("-c", "1", "-I", "tasks")

    farm.python(TALK).wait_for("DONE")

    worker.wait_for("^plain printed$")
    worker.wait_for(r"^task tasks\.talk logged$")
    worker.wait_for(r"^plain Task tasks\.talk\[.* succeeded")


def test_prints_are_left_alone_where_the_app_says_so(farm: "Farm") -> None:
    _talking(farm)
    (farm.folder / "tasks.py").write_text(
        TASKS.replace('print("printed")', 'print("printed", flush=True)')
        + "\napp.conf.worker_redirect_stdouts = False\n"
    )
    worker = farm.worker("-c", "1", "-I", "tasks")

    farm.python(TALK).wait_for("DONE")

    worker.wait_for("^printed$")


def test_who_listens_to_setup_logging_sets_it_up_in_the_children(farm: "Farm") -> None:
    _talking(farm)
    (farm.folder / "tasks.py").write_text(
        TASKS
        + """
import logging
from qbroker.signals import setup_logging

@setup_logging.connect
def own(loglevel, **_):
    logging.basicConfig(level=loglevel, format="own %(message)s", force=True)
"""
    )
    worker = farm.worker("-c", "1", "-I", "tasks")

    farm.python(TALK).wait_for("DONE")

    worker.wait_for("^own printed$")
    worker.wait_for("^own logged$")


def test_json_lines_go_to_a_file_of_each_process(farm: "Farm") -> None:
    _talking(farm)
    worker = farm.start(
        "worker", "-A", "proj", "-l", "INFO", "-c", "1", "-I", "tasks", "-n", "mail@%h",
        "--log-format", "json", "-f", str(farm.folder / "%n%I.log"),
    )  # fmt: skip

    farm.python(TALK).wait_for("DONE")
    assert worker.end(signal.SIGTERM) == 0

    child = [json.loads(line) for line in (farm.folder / "mail-1.log").read_text().splitlines()]
    parent = [json.loads(line) for line in (farm.folder / "mail.log").read_text().splitlines()]
    assert [line["message"] for line in child] == ["printed", "to errors", "logged"]
    assert {line["process"] for line in child} == {"ForkPoolWorker-1"}
    assert child[0]["task_name"] == "tasks.talk"
    assert any("succeeded in" in line["message"] for line in parent)


def test_a_detached_worker_works_until_its_pid_file_is_used(farm: "Farm") -> None:
    _talking(farm)
    pid_file = farm.folder / "worker.pid"
    command = farm.start(
        "worker", "-A", "proj", "-c", "1", "-l", "INFO", "-I", "tasks", "-n", "mail@%h",
        "--detach", "--pidfile", str(pid_file),
    )  # fmt: skip

    assert command.popen_wait(20) == 0
    farm.python(TALK).wait_for("DONE")
    detached = psutil.Process(int(pid_file.read_text()))
    try:
        second = farm.start("worker", "-A", "proj", "-n", "other@%h", "--pidfile", str(pid_file))
        second.wait_for(f"names process {detached.pid}, which runs")
        detached.terminate()
        detached.wait(20)
    finally:
        if detached.is_running():
            detached.kill()

    assert second.popen_wait(20) == 1
    assert not pid_file.exists()
    log = (farm.folder / "mail.log").read_text()
    assert "ready" in log
    assert "WARNING/ForkPoolWorker-1] printed" in log


def test_what_waits_is_thrown_away_where_that_is_asked(farm: "Farm") -> None:
    farm.broker()
    program = farm.python(
        """
from proj import mark
for n in range(7):
    mark.apply_async((f"mark{n}",), queue="mail" if n % 2 else "other")
print("PUBLISHED")
"""
    )
    program.wait_for("PUBLISHED")

    worker = farm.start(
        "worker", "-A", "proj", "-l", "INFO", "-Q", "mail,other,none", "-X", "other,strange", "--purge",
        "-O", "fair", "--statedb", "state", "--without-gossip", "--without-mingle", "--without-heartbeat",
    )  # fmt: skip

    worker.wait_for("--statedb state is not needed: the broker keeps revoked ids")
    worker.wait_for("Purged 3 messages from queue 'mail'")
    worker.wait_for(r"\bready\b")
    assert worker.end(signal.SIGTERM) == 0
    assert not farm.notes()
    assert not any("other" in line for line in worker.lines)


def test_a_worker_whose_queues_are_all_excluded_says_so(farm: "Farm") -> None:
    farm.broker()

    worker = farm.start("worker", "-A", "proj", "-Q", "mail", "-X", "mail")

    worker.wait_for("No queue is left to take from: -X excludes mail")
    assert worker.popen_wait(20) == 1


SPAWNED = """
import multiprocessing
import os

from proj import app
from qbroker import signals
from qbroker.worker.control import inspect_command

app.conf.worker_pool_start_method = "spawn"


@app.task
def where():
    return [multiprocessing.current_process().name, os.getpid()]


@inspect_command()
def beside(state):
    return {"pid": os.getpid(), "host": state.hostname}


@signals.worker_process_init.connect
def began(sender=None, **kwargs):
    print(f"began for {sender}")
"""


def test_children_of_an_app_that_says_spawn_are_fresh_interpreters(farm: "Farm") -> None:
    (farm.folder / "tasks.py").write_text(SPAWNED)
    farm.broker()
    worker = farm.worker("-c", "1", "-I", "tasks", "-n", "w@here")
    worker.wait_for(r"SpawnPoolWorker-1\] began for w@here$")

    told = farm.python(
        "from tasks import where; print('WHERE', *where.delay().get(timeout=20))"
    ).wait_for(r"WHERE SpawnPoolWorker-1 (\d+)")
    child = psutil.Process(int(told.group(1)))
    answer = json.loads(farm.qctl("inspect", "beside", "--json").stdout)["w@here"]

    assert "qbroker_worker.spawned" in child.cmdline()
    assert answer["host"] == "w@here"
    assert answer["pid"] not in (child.pid, worker.pid)
    family = psutil.Process(worker.pid).children(recursive=True)
    assert worker.end() == 0
    assert psutil.wait_procs(family, timeout=20)[1] == []
