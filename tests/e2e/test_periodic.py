"""Entries and real processes: each tick once, whoever is killed and however many declare it."""

import json
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e

KILLS = 8

BEATEN = """
from pathlib import Path

from proj import app
from qbroker.signals import beat_embedded_init

beat_embedded_init.connect(lambda **_: Path("embedded").touch(), weak=False)
# It notes the id it runs by.
app.conf.beat_schedule = {"tick": {"task": "proj.flaky", "schedule": 0.1, "args": ["tick", 0]}}
"""


def test_a_broker_killed_around_ticks_fires_each_once(farm: "Farm") -> None:
    broker = farm.broker()
    listen = farm.broker_url.removeprefix("qbroker://")
    # However long a restart takes on a busy machine: what was missed is made up for.
    catch_up = ("--catch-up", "all", "--catch-up-max", "1000")
    made = farm.qctl(
        "schedule", "add", "tick", "proj.mark", "--every", "100ms", *catch_up, "--json"
    )
    began_ms = json.loads(made.stdout)["changed_ms"]

    for _ in range(KILLS):
        with pytest.raises(TimeoutError):
            broker.popen_wait(0.35)
        broker.end(signal.SIGKILL)
        broker = farm.broker(listen)
    farm.qctl("schedule", "pause", "tick")
    info = json.loads(farm.qctl("schedule", "show", "tick", "--json").stdout)

    # No worker runs them, so every tick's message is there to be counted.
    listed = farm.qctl("task", "ls", "--label", "schedule=tick", "--limit", "1000", "--json")
    ids = [task["id"] for task in json.loads(listed.stdout)["tasks"]]
    ticks = sorted(map(_time_of, ids))
    assert ticks == list(range(began_ms + 100, info["last_ms"] + 1, 100))
    assert info["run_count"] == len(ticks)
    assert info["skipped_count"] == 0


def test_two_programs_that_declare_the_same_entry_have_each_tick_once(farm: "Farm") -> None:
    farm.broker()
    (farm.folder / "beaten.py").write_text(BEATEN)
    first = farm.start("beat", "-A", "beaten:app")
    second = farm.start("beat", "-A", "beaten:app")
    for program in (first, second):
        program.wait_for("The broker fires 1 periodic task")
    worker = farm.start("worker", "-A", "beaten:app", "-l", "INFO", "-B", "-c", "1")
    worker.wait_for(r"\bready\b")

    while len(farm.notes()) < 10 or not (farm.folder / "embedded").exists():
        assert worker.popen.poll() is None
    farm.qctl("schedule", "pause", "tick")
    info = json.loads(farm.qctl("schedule", "show", "tick", "--json").stdout)
    codes = [program.end() for program in (first, second, worker)]

    assert codes == [0, 0, 0]
    assert info["owner"] == "proj"
    ran = farm.notes()
    assert max(Counter(ran).values()) == 1
    ticks = sorted(_time_of(task_id) for task_id in ran)
    assert ticks == list(range(ticks[0], ticks[-1] + 1, 100))


def _time_of(task_id: str) -> int:
    """When the tick was that published the message, by its id."""
    return int(task_id.replace("-", "")[:12], 16)
