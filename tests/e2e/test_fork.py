"""A process that has used the SDK forks, as gunicorn's master does, and everybody goes on using it."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e


def test_forked_children_and_their_parent_publish_and_read_results(farm: "Farm") -> None:
    farm.broker()
    farm.worker("-c", "2")

    program = farm.python(
        """
import os
import sys
import threading
from proj import add

print("BEFORE", add.delay(1, 1).get(timeout=20))
stop = threading.Event()


def publish():
    while not stop.is_set():
        add.delay(0, 0)


# The fork happens while another thread is in the middle of a call.
thread = threading.Thread(target=publish)
thread.start()
children = []
for number in range(20):
    child = os.fork()
    if not child:
        ok = all(add.delay(number, n).get(timeout=30) == number + n for n in range(5))
        os._exit(0 if ok else 1)
    children.append(child)
    add.delay(number, 0).get(timeout=30)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
stop.set()
thread.join()
print("CODES", set(codes))
print("AFTER", add.delay(2, 2).get(timeout=20))
"""
    )

    program.wait_for(r"BEFORE 2")
    program.wait_for(r"CODES \{0\}", timeout=60)
    program.wait_for(r"AFTER 4")
    assert program.popen.wait(20) == 0


def test_multiprocessing_children_use_the_sdk_of_their_parent(farm: "Farm") -> None:
    farm.broker()
    farm.worker("-c", "2")

    program = farm.python(
        """
import multiprocessing
from proj import add


def work(number):
    return add.delay(number, number).get(timeout=30)


if __name__ == "__main__":
    assert add.delay(1, 1).get(timeout=20) == 2
    with multiprocessing.get_context("fork").Pool(3) as pool:
        print("SUMS", pool.map(work, range(6)))
"""
    )

    assert program.wait_for(r"SUMS (.*)", timeout=60).group(1) == "[0, 2, 4, 6, 8, 10]"
    assert program.popen.wait(20) == 0
