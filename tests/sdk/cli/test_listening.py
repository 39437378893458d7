"""`qctl events`."""

import json
import threading
from collections.abc import Callable

import pytest
from click.testing import Result

from qbroker.cli.listening import Teller
from qbroker.serialization import Value
from tests.sdk.answering import AnsweringWorker, Silence
from tests.sdk.cli.asking import Shell
from tests.sdk.conftest import Hire

WAIT_S = 10.0


def silent(name: str, arguments: dict[str, Value], words: list[str]) -> Value:
    raise Silence


def heard(
    qctl: Shell, worker: AnsweringWorker, tell: Callable[[], None], *arguments: str
) -> Result:
    """What `qctl events` says of what is told once it listens."""
    ended: list[Result] = []
    listening = threading.Thread(target=lambda: ended.append(qctl("events", *arguments)))
    listening.start()
    is_over = threading.Event()
    while not worker.is_wanted:
        assert not is_over.wait(0.01)
    tell()
    listening.join(WAIT_S)
    return ended[0]


def test_events_are_lines_and_end_with_the_limit(qctl: Shell, hire: Hire) -> None:
    worker = hire("a@host", silent)

    def tell() -> None:
        worker.tell("task-received", uuid="1", name="proj.add", args="(2, 2)")
        worker.tell("task-started", uuid="1")

    ended = heard(qctl, worker, tell, "--limit", "2", "--dump")

    assert ended.exit_code == 0, ended.output
    first, second = ended.output.splitlines()
    assert first.startswith("a@host [1970-01-01 ")
    assert first.endswith("task received: proj.add[1] args=(2, 2)")
    assert second.endswith("task started: proj.add[1]")


def test_events_may_be_chosen_by_type_and_be_json(qctl: Shell, hire: Hire) -> None:
    worker = hire("a@host", silent)

    def tell() -> None:
        worker.tell("worker-heartbeat", active=1)
        worker.tell("task-started", uuid="1")

    ended = heard(qctl, worker, tell, "--type", "task.*", "--limit", "1", "--json")

    event = json.loads(ended.output)
    assert (event["type"], event["uuid"], event["clock"]) == ("task-started", "1", 2)


def test_listening_to_a_broker_that_stops_is_5(qctl: Shell, hire: Hire, real_broker: Value) -> None:
    worker = hire("a@host", silent)

    ended = heard(qctl, worker, lambda: real_broker.stop_now())

    assert ended.exit_code == 5
    assert "shutting down" in ended.output


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ({"type": "worker-online", "freq": 2.0}, "worker online freq=2.0"),
        ({"type": "task-failed", "uuid": "9", "exception": "E()", "traceback": None}, "task failed: [9] exception=E()"),
    ],
)  # fmt: skip
def test_an_event_is_one_line(event: dict[str, Value], line: str) -> None:
    told = Teller().line({"hostname": "a", "timestamp": 0.0, **event})

    assert told.endswith(f"] {line}")


def test_names_are_remembered_within_bounds() -> None:
    teller = Teller()
    event = {"hostname": "a", "timestamp": 0.0, "type": "task-received", "name": "n"}

    for number in range(20_001):
        teller.line(event | {"uuid": str(number)})

    assert len(teller._names) <= 10_000
