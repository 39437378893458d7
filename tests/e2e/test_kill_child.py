"""A child of the worker is killed in the middle of a task: that task's policy decides, its neighbours go on."""

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e


def test_an_early_acknowledged_task_ends_as_lost_and_the_pool_refills(farm: "Farm") -> None:
    farm.broker()
    farm.worker("-c", "1")

    program = farm.python(
        """
from proj import add, die
from qbroker.exceptions import WorkerLostError
try:
    die.delay(9).get(timeout=20)
except WorkerLostError as error:
    print("LOST", error)
print("SUM", add.delay(2, 3).get(timeout=20))
"""
    )

    assert "SIGKILL" in program.wait_for(r"LOST (.*)").group(1)
    assert program.wait_for(r"SUM (.*)").group(1) == "5"


def test_a_late_acknowledged_task_runs_again_until_it_has_killed_too_often(farm: "Farm") -> None:
    farm.broker()
    farm.worker("-c", "1")

    program = farm.python(
        """
from proj import add, die_late
from qbroker.exceptions import WorkerLostError
try:
    die_late.delay("again").get(timeout=30)
except WorkerLostError as error:
    print("LOST", error)
print("SUM", add.delay(2, 3).get(timeout=20))
"""
    )

    program.wait_for(r"LOST (.*)")
    program.wait_for(r"SUM 5")
    assert farm.notes() == ["again"] * 3


def test_what_runs_beside_a_killed_child_is_not_disturbed(farm: "Farm") -> None:
    farm.broker()
    farm.worker("-c", "2")
    gate = farm.folder / "gate"

    program = farm.python(
        f"""
from proj import die, hold
held = hold.delay("beside", {str(gate)!r})
died = die.delay({int(signal.SIGSEGV)})
died.get(timeout=20, propagate=False)
print("STATE", died.state)
open({str(gate)!r}, "w").close()
print("HELD", held.get(timeout=20))
"""
    )

    program.wait_for(r"STATE FAILURE")
    program.wait_for(r"HELD beside")
    assert farm.notes() == ["beside"]
