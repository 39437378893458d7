"""Workers are killed under load: what acknowledges late runs all the same."""

import json
import random
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e

KILLS = 10

PUBLISHER = """
import json
import signal
import threading

from proj import mark_late

stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
results = []
print("publishing")
while not stopped.is_set():
    results.append(mark_late.delay(f"n{len(results)}"))
    stopped.wait(0.001)
for result in results:
    result.get(timeout=60)
print("RESULT " + json.dumps([result.state for result in results]))
"""


def test_workers_killed_ten_times_lose_no_late_acknowledged_task(farm: "Farm") -> None:
    chance = random.Random(11)
    farm.broker()
    workers = [farm.worker("-c", "2", "-n", f"{name}@%h") for name in ("one", "two")]
    publisher = farm.python(PUBLISHER)
    publisher.wait_for("publishing")

    for kill in range(KILLS):
        victim = workers.pop(0)
        with pytest.raises(TimeoutError):
            victim.popen_wait(chance.uniform(0.1, 0.5))
        children = psutil.Process(victim.pid).children(recursive=True)
        victim.end(signal.SIGKILL)
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []
        workers.append(farm.worker("-c", "2", "-n", f"later{kill}@%h"))
    publisher.popen.send_signal(signal.SIGTERM)
    states = json.loads(publisher.wait_for(r"RESULT (.*)", timeout=90).group(1))

    noted = set(farm.notes())
    assert len(states) > KILLS
    assert set(states) == {"SUCCESS"}
    assert [n for n in range(len(states)) if f"n{n}" not in noted] == []


def test_a_killed_workers_beat_ends_with_it(farm: "Farm") -> None:
    farm.broker()
    worker = farm.worker("-B", "-P", "solo")
    (beat,) = [
        child for child in psutil.Process(worker.pid).children() if "beat" in child.cmdline()
    ]

    worker.popen.kill()
    gone, _ = psutil.wait_procs([beat], timeout=20)

    # Another beat comes with the next worker, and what only a beat can fire would be fired twice.
    try:
        assert gone == [beat]
    finally:
        if not gone:
            beat.kill()
