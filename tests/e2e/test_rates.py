"""`rate_limit` with a real broker: the limited task is held back, and nothing behind it."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e

TASKS = """
import time

from proj import app


@app.task(rate_limit="10/s")
def limited():
    return time.time()


@app.task
def free():
    return time.time()
"""

PROGRAM = """
import time
from proj import app
from tasks import free, limited

with app.pipeline():
    held = [limited.delay() for _ in range(200)]
    others = [free.delay() for _ in range(50)]
began = time.time()
free_at = max(result.get(timeout=20) for result in others)
starts = sorted(result.get(timeout=20) for result in held[:15])
for result in held:
    result.revoke()
print("FREE", free_at < starts[8])
print("EVEN", 1.2 < starts[-1] - starts[0] < 3.0)
"""


def test_two_hundred_limited_tasks_ahead_hold_up_no_other(farm: "Farm") -> None:
    (farm.folder / "tasks.py").write_text(TASKS)
    farm.broker()
    farm.worker("-c", "2", "-I", "tasks")

    program = farm.python(PROGRAM)

    program.wait_for("FREE True")
    program.wait_for("EVEN True")
