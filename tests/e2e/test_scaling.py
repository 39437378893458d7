"""Workers that follow the work, and children that make place for fresh ones, with a real broker."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_a_worker_that_scales_runs_what_is_there_at_once(farm: "Farm", pool: str) -> None:
    farm.broker()
    worker = farm.worker("--autoscale", "4,1", "-P", pool)
    gate = farm.folder / "gate"
    program = farm.python(
        f"""
from proj import hold
waiting = [hold.delay(f"held{{n}}", {str(gate)!r}) for n in range(6)]
print("PUBLISHED")
for result in waiting:
    result.get(timeout=60)
print("DONE")
"""
    )

    worker.wait_for("Scaling up to 4")
    while len(farm.notes()) < 4:
        with pytest.raises(TimeoutError):
            worker.popen_wait(0.02)
    held = len(farm.notes())
    gate.touch()

    program.wait_for("DONE")
    assert held == 4
    assert sorted(farm.notes()) == [f"held{n}" for n in range(6)]


def test_children_that_are_replaced_lose_no_task(farm: "Farm") -> None:
    farm.broker()
    farm.worker("-c", "2", "--max-tasks-per-child", "5")

    program = farm.python(
        """
from collections import Counter
from proj import app, pid
with app.pipeline():
    results = [pid.delay() for _ in range(200)]
pids = Counter(result.get(timeout=60) for result in results)
print("MOST", max(pids.values()), "SUM", sum(pids.values()))
"""
    )

    program.wait_for("MOST 5 SUM 200")
