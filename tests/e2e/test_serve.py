"""What `qbroker serve` says when it cannot start, and what it found when it can."""

import signal
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e


def test_a_directory_in_use_is_refused_with_one_sentence(farm: "Farm") -> None:
    first = farm.broker()

    second = farm.start("serve", "--data-dir", "data", "--listen", "127.0.0.1:0")
    code = second.end(0)

    assert code != 0
    assert len(second.lines) == 1
    assert f"process {first.pid}" in second.lines[0]


def test_a_taken_port_is_refused_with_one_sentence(farm: "Farm") -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"

        process = farm.start("serve", "--data-dir", "data", "--listen", listen)
        code = process.end(0)

    assert code != 0
    assert [line for line in process.lines if listen in line] == process.lines[-1:]


def test_a_restarted_broker_says_what_it_recovered(farm: "Farm") -> None:
    broker = farm.broker()
    program = farm.python(
        """
from proj import add
for n in range(3):
    add.delay(n, n)
add.apply_async((1, 1), countdown=3600)
print("DONE")
"""
    )
    program.wait_for("DONE")
    broker.end(signal.SIGKILL)

    again = farm.start("serve", "--data-dir", "data", "--listen", "127.0.0.1:0")

    again.wait_for(r"recovered 1 queues: 3 messages ready, 1 scheduled, 0 with workers")


def test_a_client_of_no_broker_is_told_within_its_deadline(farm: "Farm") -> None:
    farm.broker_url = "qbroker://127.0.0.1:9"
    program = farm.python(
        """
import time
from proj import add
from qbroker.exceptions import OperationalError
started = time.monotonic()
try:
    add.delay(1, 1)
except OperationalError as error:
    print("REFUSED", time.monotonic() - started < 15, error)
"""
    )

    assert "qbroker://127.0.0.1:9" in program.wait_for(r"REFUSED True (.*)", timeout=30).group(1)
