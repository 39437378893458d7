"""The link between worker and broker is cut, reset and swallowed under load: nothing is lost, and work goes on soon.

P4 of the old troubles: a worker that is alive and takes nothing any more after its link came back.
"""

import json
import random
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.e2e.proxy import Proxy

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e

FAULTS = ["cut"] * 23 + ["reset"] * 22 + ["swallow"] * 5

RESUMED_S = 5.0

PROGRAM = """
import itertools
import json
import signal
import threading
import time

from proj import app, mark, mark_late

stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
results = {}


def load():
    for number in itertools.count():
        if stopped.wait(0.02):
            return
        with app.pipeline():
            for n in range(5):
                results[f"early-{number}-{n}"] = mark.delay(f"early-{number}-{n}")
                results[f"late-{number}-{n}"] = mark_late.delay(f"late-{number}-{n}")


loading = threading.Thread(target=load)
loading.start()
slowest = 0.0
for number in itertools.count():
    if stopped.is_set():
        break
    began = time.monotonic()
    mark.delay(f"probe-{number}").get(timeout=60)
    slowest = max(slowest, time.monotonic() - began)
    print("PROBE", number, flush=True)
    stopped.wait(0.05)
loading.join()
states = {name: result.get(timeout=60) and result.state for name, result in results.items()}
print("RESULT", json.dumps({"slowest": slowest, "states": states}), flush=True)
"""


def test_fifty_lost_links_lose_no_task_and_work_goes_on_within_five_seconds(
    farm: "Farm",
) -> None:
    chance = random.Random(4)
    faults = chance.sample(FAULTS, len(FAULTS))
    farm.broker(QBROKER_GRACE_MS="10000")
    with Proxy(int(farm.broker_url.rpartition(":")[2])) as proxy:
        farm.worker("-c", "2", "-b", f"qbroker://127.0.0.1:{proxy.port}")
        program = farm.python(PROGRAM)
        program.wait_for("PROBE")

        for fault in faults:
            assert proxy.do(fault) >= 1
            # The second from here on was surely published after the fault.
            for _ in range(2):
                program.wait_for("PROBE")
        program.popen.send_signal(signal.SIGTERM)
        found = json.loads(program.wait_for("RESULT (.*)", timeout=90).group(1))

    runs = Counter(note for note in farm.notes() if not note.startswith("probe"))
    assert len(found["states"]) > 100
    assert set(found["states"].values()) == {"SUCCESS"}
    assert runs.keys() == found["states"].keys()
    assert [name for name, count in runs.items() if count > 1] == []
    assert found["slowest"] < RESUMED_S
