"""Several workers in the background, started, restarted and stopped together."""

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e


def test_two_workers_work_until_they_are_stopped(farm: "Farm") -> None:
    farm.broker()
    options = (
        "one",
        "two",
        "-A",
        "proj",
        "-l",
        "INFO",
        "-c",
        "1",
        "-Q:one",
        "left",
        "-Q:two",
        "right",
    )
    program = """
from proj import pid
print("PIDS", *(pid.apply_async(queue=queue).get(timeout=30) for queue in ("left", "right")))
"""
    try:
        assert farm.start("multi", "start", *options).popen_wait(30) == 0
        farm.python(program).wait_for(r"PIDS \d+ \d+")
        first = [int((farm.folder / f"{name}.pid").read_text()) for name in ("one", "two")]

        assert farm.start("multi", "restart", *options).popen_wait(60) == 0
        farm.python(program).wait_for(r"PIDS \d+ \d+")
        second = [int((farm.folder / f"{name}.pid").read_text()) for name in ("one", "two")]
        stop = farm.start("multi", "stopwait", "one", "two")
        stop.wait_for(rf"> two@.*: TERM -> {second[1]}")

        assert stop.popen_wait(30) == 0
        assert not set(first) & set(second)
        for pid in second:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).wait(20)
        assert not list(farm.folder.glob("*.pid"))
        assert "succeeded" in (farm.folder / "one.log").read_text()
    finally:
        for path in farm.folder.glob("*.pid"):
            with suppress(ProcessLookupError):
                os.kill(int(path.read_text()), signal.SIGKILL)
