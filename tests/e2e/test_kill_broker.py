"""The broker is killed under load: what was confirmed is not lost, and nothing confirmed runs twice."""

import json
import random
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e

KILLS = 10

PUBLISHER = """
import json
import os
import signal

from proj import app, mark
from qbroker.exceptions import OperationalError

stopped = False


def stop(*_):
    global stopped
    stopped = True


signal.signal(signal.SIGTERM, stop)
confirmed, refused = [], 0
print("publishing")
number = 0
while not stopped:
    number += 1
    try:
        confirmed.append(mark.delay(f"n{number}").id)
    except OperationalError:
        # Nobody promised this one anything.
        refused += 1
        confirmed.append(None)
print(json.dumps({"attempts": number, "refused": refused}))
states = []
for task_id in confirmed:
    if task_id is None:
        states.append(None)
        continue
    result = app.AsyncResult(task_id)
    result.get(timeout=60)
    states.append(result.state)
print("RESULT " + json.dumps(states))
"""


def test_a_broker_killed_ten_times_loses_no_confirmed_task(farm: "Farm") -> None:
    chance = random.Random(7)
    # A worker that waits between its attempts to reconnect must be back within the grace: what it
    # did and could not say yet is its own as long.
    broker = farm.broker(QBROKER_GRACE_MS="10000")
    listen = farm.broker_url.removeprefix("qbroker://")
    farm.worker("-c", "2", "-n", "one@%h")
    farm.worker("-c", "1", "-n", "two@%h")
    publisher = farm.python(PUBLISHER)
    publisher.wait_for("publishing")

    for _ in range(KILLS):
        # Somewhere in the middle of whatever it is doing by then.
        with pytest.raises(TimeoutError):
            broker.popen_wait(chance.uniform(0.2, 0.8))
        broker.end(signal.SIGKILL)
        broker = farm.broker(listen, QBROKER_GRACE_MS="10000")
    publisher.popen.send_signal(signal.SIGTERM)
    publisher.wait_for(r'"attempts"', timeout=60)
    states = json.loads(publisher.wait_for(r"RESULT (.*)", timeout=90).group(1))

    runs = Counter(farm.notes())
    promised = [f"n{number}" for number, state in enumerate(states, 1) if state is not None]
    assert len(promised) > KILLS
    assert Counter(state for state in states if state) == {"SUCCESS": len(promised)}
    assert [word for word in promised if runs[word] == 0] == []
    assert [word for word, count in runs.items() if count > 1] == []
