"""TERM: a worker finishes what runs and returns the rest; a broker commits, says goodbye, and ends."""

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_stopped_worker_finishes_what_runs_and_returns_the_rest(farm: "Farm", pool: str) -> None:
    farm.broker()
    concurrency = "1" if pool == "solo" else "2"
    first = farm.worker("-c", concurrency, "-P", pool, "-n", "first@%h")
    gate = farm.folder / "gate"
    program = farm.python(
        f"""
from proj import add, hold, mark
running = [hold.delay(f"running{{n}}", {str(gate)!r}) for n in range({concurrency})]
waiting = [mark.delay(f"waiting{{n}}") for n in range(20)]
print("PUBLISHED")
for result in running + waiting:
    result.get(timeout=60)
print("DONE")
"""
    )
    program.wait_for("PUBLISHED")
    while sum(note.startswith("running") for note in farm.notes()) < int(concurrency):
        with pytest.raises(TimeoutError):
            first.popen_wait(0.02)

    first.popen.send_signal(signal.SIGTERM)
    first.wait_for(r"Warm shutdown")
    gate.touch()
    code = first.popen.wait(20)
    farm.worker("-c", "2", "-n", "second@%h")
    program.wait_for("DONE", timeout=60)

    assert code == 0
    assert sorted(farm.notes()) == sorted(
        [f"running{n}" for n in range(int(concurrency))] + [f"waiting{n}" for n in range(20)]
    )


def test_a_stopped_broker_exits_cleanly_and_its_clients_find_the_next_one(farm: "Farm") -> None:
    broker = farm.broker()
    listen = farm.broker_url.removeprefix("qbroker://")
    farm.worker("-c", "1")
    program = farm.python(
        """
import sys
from proj import add
print("FIRST", add.delay(1, 2).get(timeout=20))
sys.stdout.flush()
waiting = add.delay(3, 4)
open("stop-now", "w").close()
while True:
    try:
        print("SECOND", add.delay(5, 6).get(timeout=30))
        break
    except Exception as error:
        print("RETRY", type(error).__name__)
print("THIRD", waiting.get(timeout=30))
"""
    )
    program.wait_for("FIRST 3")

    code = broker.end(signal.SIGTERM)
    farm.broker(listen)

    assert code == 0
    program.wait_for("SECOND 11", timeout=60)
    program.wait_for("THIRD 7", timeout=60)


def test_ctrl_c_stops_dev_and_both_of_its_programs(farm: "Farm") -> None:
    dev = farm.start("dev", "-A", "proj", "--port", "0")
    dev.wait_for(r"\bready\b", timeout=40)

    code = dev.end(signal.SIGINT, timeout=30)

    assert code == 0
