"""Asking and changing real workers: two of them on one machine, on different queues, each by its name."""

import http.client
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from qbroker import App
from qbroker.exceptions import TimeLimitExceeded
from qbroker.serialization import Value
from tests.docs import programs

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e

COMMANDS = '''
import os

from qbroker.worker.control import control_command, inspect_command


@inspect_command(args=[("n", int)], signature="[N=1]")
def double(state, n=1):
    """Twice n."""
    return {"ok": n * 2, "app": state.app.main, "host": state.hostname, "pid": os.getpid()}


@control_command(name="set_size")
def change(state, size):
    state.app.conf.my_size = size
    return {"ok": state.app.conf.my_size}
'''


@pytest.fixture
def app(farm: "Farm") -> Iterator[App]:
    with (farm.folder / "proj.py").open("a") as project:
        project.write(COMMANDS)
    farm.broker()
    with App("outside", broker=farm.broker_url, backend="qbroker://") as app:
        yield app


def noted(farm: "Farm", app: App, count: int) -> None:
    """Wait until so many tasks have begun: until their workers say so."""
    while True:
        found = app.control.inspect(timeout=10).active()
        if found and sum(map(len, found.values())) >= count:
            return


def test_two_workers_of_one_machine_are_asked_and_changed_by_their_names(
    farm: "Farm", app: App
) -> None:
    farm.worker("-n", "left@%h", "-Q", "foo,bar,baz", "-c", "2")
    farm.worker("-n", "right@%h", "-Q", "other", "-c", "1", "-P", "threads")
    inspect = app.control.inspect(timeout=10)
    left, right = sorted(inspect.ping())

    queues = inspect.active_queues()
    only = app.control.inspect(right, timeout=10).active_queues()
    added = app.control.add_consumer("more", destination=[right], reply=True, timeout=10)
    result = app.send_task("proj.add", (2, 2), queue="more").get(timeout=30)
    cancelled = app.control.cancel_consumer("more", destination=[right], reply=True, timeout=10)
    after = inspect.active_queues()

    assert (left.partition("@")[0], right.partition("@")[0]) == ("left", "right")
    assert [one["name"] for one in queues[left]] == ["foo", "bar", "baz"]
    assert [one["name"] for one in only] == ["other"]
    assert added == [{right: {"ok": "add consumer more"}}]
    assert result == 4
    assert cancelled == [{right: {"ok": "no longer consuming from more"}}]
    assert [one["name"] for one in after[right]] == ["other"]
    assert [one["name"] for one in after[left]] == ["foo", "bar", "baz"]


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "solo"])
def test_a_busy_worker_answers_at_once(farm: "Farm", app: App, pool: str) -> None:
    slots = 1 if pool == "solo" else 2
    worker = farm.worker("-c", str(slots), "-P", pool, "-n", "busy@here", "-E")
    gate = farm.folder / "gate"
    held = [app.send_task("proj.hold", (str(n), str(gate))) for n in range(slots)]
    late = app.send_task("proj.add", (1, 1), countdown=3600)
    noted(farm, app, slots)
    inspect = app.control.inspect("busy@here", timeout=10)

    active = inspect.active()
    scheduled = inspect.scheduled()
    query = inspect.query_task(held[0].id, "nosuch")
    stats = inspect.stats()
    doubled = app.control.broadcast("double", {"n": 4}, reply=True, timeout=10)
    changed = app.control.broadcast("set_size", {"size": 3}, reply=True, timeout=10)
    registered = inspect.registered("max_deliveries", "acks_late")
    app.control.revoke(late.id)
    revoked = inspect.revoked()
    gate.touch()
    values = [result.get(timeout=30) for result in held]
    told = app.control.shutdown(reply=True, timeout=10)

    assert {info["id"] for info in active} == {result.id for result in held}
    assert {info["name"] for info in active} == {"proj.hold"}
    assert all(info["hostname"] == "busy@here" and info["worker_pid"] for info in active)
    assert [one["request"]["id"] for one in scheduled] == [late.id]
    assert list(query) == [held[0].id]
    assert query[held[0].id][0] == "active"
    assert stats["pool"]["max-concurrency"] == slots
    assert stats["pid"] == worker.pid
    assert doubled is not None
    (double,) = doubled
    assert double["busy@here"]["ok"] == 8
    assert (double["busy@here"]["app"], double["busy@here"]["host"]) == ("proj", "busy@here")
    assert (double["busy@here"]["pid"] == worker.pid) is (pool != "prefork")
    assert changed == [{"busy@here": {"ok": 3}}]
    assert "proj.die_late [max_deliveries=3 acks_late=True]" in registered
    assert revoked == [late.id]
    assert values == [str(n) for n in range(slots)]
    assert told == [{"busy@here": {"ok": "shutting down"}}]
    assert worker.popen_wait(20) == 0


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_what_a_worker_runs_is_changed_while_it_runs(farm: "Farm", app: App, pool: str) -> None:
    farm.worker("-c", "1", "-P", pool, "-n", "a@here")
    control = app.control
    options: dict[str, Value] = {"reply": True, "timeout": 10}
    gate = farm.folder / "gate"

    grown = control.pool_grow(**options)
    held = [app.send_task("proj.hold", (str(n), str(gate))) for n in range(2)]
    noted(farm, app, 2)
    shrunk = control.pool_shrink(**options)
    gate.touch()
    for result in held:
        result.get(timeout=30)
    limited = control.time_limit("proj.nap", hard=0.2, **options)
    late = app.send_task("proj.nap", ("late", 1)).get(timeout=30, propagate=False)
    rated = control.rate_limit("proj.add", "2/s", **options)
    began = time.monotonic()
    for result in [app.send_task("proj.add", (1, n)) for n in range(3)]:
        result.get(timeout=30)
    took_s = time.monotonic() - began

    assert grown == [{"a@here": {"ok": "pool will grow"}}]
    assert shrunk == [{"a@here": {"ok": "pool will shrink"}}]
    assert limited == [{"a@here": {"ok": "time limits set successfully"}}]
    assert isinstance(late, TimeLimitExceeded)
    assert rated == [{"a@here": {"ok": "new rate limit set successfully"}}]
    assert took_s > 0.7


def test_nobody_there_is_none_and_not_an_error(app: App) -> None:
    inspect = app.control.inspect(timeout=10)

    assert inspect.ping() is None
    assert inspect.active() is None
    assert app.control.ping(timeout=10) == []
    assert app.control.broadcast("shutdown") is None
    assert json.dumps(app.control.gather("stats", timeout=10).replies) == "[]"


def test_queues_that_were_added_are_kept_over_a_lost_link(farm: "Farm", app: App) -> None:
    worker = farm.worker("-n", "a@here", "-Q", "foo")
    app.control.add_consumer("bar", reply=True, timeout=10)
    broker = farm._processes[0]
    address = farm.broker_url.removeprefix("qbroker://")

    broker.end()
    worker.wait_for("Reconnecting")
    farm.broker(address)
    worker.wait_for("Connected")
    queues: Value = app.control.inspect("a@here", timeout=10).active_queues()

    assert [one["name"] for one in queues] == ["foo", "bar"]


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_worker_is_ready_only_while_it_takes_tasks(farm: "Farm", app: App, pool: str) -> None:
    port = programs.free_port()
    address = f"127.0.0.1:{port}"
    worker = farm.worker("-n", "a@here", "-c", "1", "-P", pool, "--http-listen", address)
    gate = farm.folder / "gate"

    def ready() -> tuple[int, str]:
        link = http.client.HTTPConnection(address, timeout=10)
        link.request("GET", "/readyz")
        answer = link.getresponse()
        found = answer.status, answer.read().decode().strip()
        link.close()
        return found

    held = app.send_task("proj.hold", ("x", str(gate)))
    noted(farm, app, 1)
    busy = ready()
    app.control.cancel_consumer("celery", reply=True, timeout=10)
    idle = ready()
    app.control.add_consumer("celery", reply=True, timeout=10)
    again = ready()
    farm._processes[0].end()
    worker.wait_for("Reconnecting")
    lost = ready()
    gate.touch()
    second = farm.start("worker", "-A", "proj", "--http-listen", address)
    code = second.popen_wait(20)
    second.end()

    assert busy == again == (200, "ok")
    assert idle == (503, "the worker takes from no queue")
    assert (lost[0], "no link to the broker" in lost[1]) == (503, True)
    assert code == 1
    assert any(f"Cannot serve probes on {address}" in line for line in second.lines)
    assert held.id


RESTARTED = """
import os

import lib
from proj import app

app.conf.worker_pool_restarts = True


@app.task
def version():
    return [lib.VERSION, os.getpid()]
"""

RESTARTING = """
import pathlib

import proj
from tasks import version

before, old = version.delay().get(timeout=20)
pathlib.Path("lib.py").write_text("VERSION = 'two, which is longer'")
pathlib.Path("late.py").write_text("from proj import app\\n@app.task\\ndef late(): return 'late'")
control = proj.app.control
print("REFUSED", control.pool_restart(["nosuch"], reply=True, timeout=20))
print("DONE", control.pool_restart(["lib", "late"], reload=True, reply=True, timeout=20))
after, new = version.delay().get(timeout=20)
print("VERSIONS", before, after, old != new)
print("LATE", proj.app.send_task("late.late").get(timeout=20))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_that_is_restarted_has_the_code_of_now_in_other_processes(
    farm: "Farm", method: str
) -> None:
    (farm.folder / "lib.py").write_text("VERSION = 'one'")
    (farm.folder / "tasks.py").write_text(RESTARTED)
    farm.broker()
    worker = farm.worker("-c", "2", "-I", "tasks", "--pool-start-method", method)

    program = farm.python(RESTARTING)

    program.wait_for(r"REFUSED \[\{.*'error': .*ModuleNotFoundError.*nosuch")
    program.wait_for(r"DONE \[\{'celery@[^']+': \{'ok': 'reload started'\}\}\]")
    program.wait_for("VERSIONS one two, which is longer True")
    program.wait_for("LATE late")
    assert worker.end() == 0
