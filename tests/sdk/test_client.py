"""The connection: confirms, re-sends, deadlines, forks."""

import queue
import random
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from qbroker.client import (
    Answer,
    Client,
    Ticket,
    Verdict,
    batches,
)
from qbroker.exceptions import ImproperlyConfigured, OperationalError
from qbroker.lane import BATCH_BYTES_MAX, BATCH_COUNT_MAX, hand_out
from qbroker.url import parse_url
from qbroker_proto.v1.message_pb2 import Message
from qbroker_proto.v1.producer_pb2 import Existing, Refusal
from qbroker_proto.v1.results_pb2 import TaskState
from tests.sdk.fake_broker import FakeBroker

FORKS = 200


def message(name: str) -> bytes:
    return Message(
        id=name, task="t", queue="q", content_type="application/json", body=b"[[],{},{}]"
    ).SerializeToString()


def test_what_was_not_confirmed_is_sent_again_and_nothing_doubles() -> None:
    broker = FakeBroker().start()
    broker.confirms.clear()
    client = Client(broker.url, timeout_s=20)
    ticket = client.submit([message("a")])
    assert broker.published.wait(5)

    broker.stop()
    broker.confirms.set()
    broker.start(port=broker.port)

    assert client.wait(ticket) == ()
    assert broker.duplicates == 1
    assert list(broker.messages) == ["a"]
    client.close()
    broker.stop()


def test_a_confirm_that_does_not_come_is_an_error_within_the_deadline() -> None:
    broker = FakeBroker().start()
    broker.confirms.clear()
    client = Client(broker.url, timeout_s=0.2)

    with pytest.raises(OperationalError, match=f"no confirm within 0.2 s from {broker.url}"):
        client.publish([message("a")])

    broker.confirms.set()
    client.close()
    broker.stop()


def test_who_calls_long_after_an_idle_connection_broke_has_the_whole_deadline() -> None:
    now_s = [0.0]
    pauses = threading.Semaphore(0)

    class Chance(random.Random):
        """Tells that a broken stream has been cleared away."""

        def uniform(self, a: float, b: float) -> float:
            pauses.release()
            return super().uniform(a, b)

    broker = FakeBroker().start()
    client = Client(broker.url, timeout_s=20, monotonic=lambda: now_s[0], chance=Chance(4))
    client.publish([message("a")])
    broker.stop()
    assert pauses.acquire(timeout=5), "the broken connection was not noticed"
    now_s[0] = 1_000.0

    ticket = client.submit([message("b")])
    # Nobody listens now, which is found out once and once more.
    for _ in range(2):
        assert pauses.acquire(timeout=5)
    broker.start(port=broker.port)

    assert client.wait(ticket) == ()
    assert list(broker.messages) == ["a", "b"]
    client.close()
    broker.stop()


def test_what_piles_up_goes_as_one_request(broker: FakeBroker) -> None:
    client = Client(broker.url, timeout_s=5)
    broker.confirms.clear()
    tickets = [client.submit([message(str(number))]) for number in range(500)]
    broker.confirms.set()

    for ticket in tickets:
        client.wait(ticket)

    assert len(broker.messages) == 500
    assert len(broker.requests) < 500
    assert [request.seq for request in broker.requests] == sorted(
        request.seq for request in broker.requests
    )
    client.close()


def test_threads_share_one_stream(broker: FakeBroker) -> None:
    client = Client(broker.url, timeout_s=10)
    threads = [
        threading.Thread(
            target=lambda: [
                client.publish([message(f"{threading.get_ident()}-{n}")]) for n in range(50)
            ]
        )
        for _ in range(8)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(broker.messages) == 400
    assert broker.streams_opened == 1
    client.close()


def test_batches_respect_count_and_bytes() -> None:
    small, large = b"x", b"x" * BATCH_BYTES_MAX

    assert [len(batch) for batch in batches([small] * (2 * BATCH_COUNT_MAX + 1))] == [
        BATCH_COUNT_MAX,
        BATCH_COUNT_MAX,
        1,
    ]
    assert list(batches([small, large, small])) == [[small], [large], [small]]
    assert list(batches([])) == []


def test_a_closed_client_connects_anew(broker: FakeBroker) -> None:
    client = Client(broker.url, timeout_s=5)
    client.publish([message("a")])
    client.close()

    client.publish([message("b")])

    assert list(broker.messages) == ["a", "b"]
    client.close()


def test_closing_tells_who_waits() -> None:
    broker = FakeBroker().start()
    broker.confirms.clear()
    client = Client(broker.url, timeout_s=5)
    ticket = client.submit([message("a")])

    client.close()

    with pytest.raises(OperationalError, match="closed"):
        client.wait(ticket)
    broker.confirms.set()
    broker.stop()


def test_the_status_is_asked_with_a_deadline(broker: FakeBroker) -> None:
    client = Client(broker.url, timeout_s=5)

    assert client.status().version == "fake"
    client.close()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("qbroker://", ("127.0.0.1", 7450)),
        ("qbroker://host", ("host", 7450)),
        ("qbroker://host:1/vhost", ("host", 1)),
        ("host:1", ("host", 1)),
        ("qbroker://[::1]:2", ("::1", 2)),
    ],
)
def test_urls_name_host_and_port(url: str, place: tuple[str, int]) -> None:
    assert parse_url(url) == place


def test_a_malformed_url_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="malformed"):
        parse_url("qbroker://host:many")


FORKING = """
import os, sys, threading
from qbroker import App

app = App("proj", broker=sys.argv[1], backend="qbroker://", broker_connection_timeout=10)
is_over = threading.Event()
troubles = []

def publish():
    while not is_over.is_set():
        try:
            app.send_task("echo", (1,))
        except Exception as exc:
            troubles.append(repr(exc))
            return

assert app.send_task("echo", (0,)).get(timeout=10) == 0
threads = [threading.Thread(target=publish) for _ in range(4)]
for thread in threads:
    thread.start()
bad = []
for number in range(int(sys.argv[2])):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if app.send_task("echo", (number,)).get(timeout=10) == number else 3)
    _, status = os.waitpid(pid, 0)
    if status:
        bad.append((number, status))
is_over.set()
for thread in threads:
    thread.join()
assert not bad and not troubles, (bad, troubles)
assert app.send_task("echo", (7,)).get(timeout=10) == 7
app.close()
"""


CLOSING = """
import os, sys
from qbroker import App

app = App("proj", broker=sys.argv[1], backend="qbroker://", broker_connection_timeout=10)
assert app.send_task("echo", (0,)).get(timeout=10) == 0
app.client().close()
pid = os.fork()
if pid == 0:
    os._exit(0 if app.send_task("echo", (1,)).get(timeout=10) == 1 else 3)
_, status = os.waitpid(pid, 0)
assert not status, status
assert app.send_task("echo", (2,)).get(timeout=10) == 2
app.close()
"""


@pytest.mark.parametrize(
    ("program", "argument", "warnings"),
    [
        # Python 3.12 and newer warn of threads at a fork, in the program that forks; docs/calling.md.
        (FORKING, str(FORKS), "ignore:This process:DeprecationWarning"),
        (CLOSING, "", "always"),
    ],
    ids=["hundreds of forks under load", "a fork after close, without a warning"],
)
def test_parent_and_children_go_on_after_forks(program: str, argument: str, warnings: str) -> None:
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fake_broker.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    with server, server.stdin:
        url = f"qbroker://127.0.0.1:{server.stdout.readline().strip()}"

        forking = subprocess.run(
            [sys.executable, "-W", warnings, "-c", program, url, argument],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    assert (forking.returncode, forking.stderr) == (0, "")


def test_each_ticket_gets_the_verdicts_on_its_own_messages() -> None:
    first, second, third = Ticket([b"a"]), Ticket([b"b", b"c"]), Ticket([b"d"])
    verdicts: list[Verdict] = [
        Refusal(index=3, reason="d"),
        Refusal(index=2, reason="c"),
        Existing(index=2, id="x"),
    ]

    hand_out(verdicts, [first, second, third])

    assert first.verdicts == []
    assert [verdict.index for verdict in second.verdicts] == [1, 1]
    assert {type(verdict) for verdict in second.verdicts} == {Refusal, Existing}
    assert third.verdicts == [Refusal(index=0, reason="d")]


def test_an_order_to_a_broker_that_is_away_is_an_error_within_the_deadline() -> None:
    client = Client("qbroker://127.0.0.1:1", timeout_s=0.3)

    with pytest.raises(
        OperationalError,
        match=r"no answer from qbroker://127\.0\.0\.1:1(: Connection refused| in time)$",
    ):
        client.explain("an-id")
    with pytest.raises(
        OperationalError,
        match=r"no answer from qbroker://127\.0\.0\.1:1(: Connection refused| in time)$",
    ):
        client.purge_queue("q")

    client.close()


_LEAVES = """
import atexit
import threading

# Registered first, so called last: what is left when the interpreter begins to stop threads.
atexit.register(lambda: print([t.name for t in threading.enumerate() if t.name.startswith("qbroker")]))

from qbroker.client import Client
from tests.sdk.test_client import message

client = Client({url!r}, timeout_s=5)
client.publish([message("a")])
client.read("a")
"""


def test_a_program_that_ends_without_closing_leaves_no_thread_of_ours_to_be_stopped(
    broker: FakeBroker,
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _LEAVES.format(url=broker.url)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=Path(__file__).parents[2],
    )

    assert ran.stdout == "[]\n", ran.stderr


def sockets_to(port: int) -> int:
    connections = psutil.Process().net_connections("tcp")
    return sum(tuple(one.raddr)[1:] == (port,) for one in connections)


def test_a_closed_connection_leaves_no_socket(broker: FakeBroker) -> None:
    client = Client(broker.url, timeout_s=20)
    client.publish([message("a")])
    client.read("a")
    client.status()
    assert sockets_to(broker.port) == 3

    client.close()

    assert sockets_to(broker.port) == 0


def test_a_state_is_read_also_where_only_the_end_is_waited_for(broker: FakeBroker) -> None:
    client = Client(broker.url, timeout_s=20)
    ends: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    client.watch_ends(["x"], ends.put)

    assert client.read("x").state == "PENDING"

    broker.succeed("x", 1)
    told = [ends.get(timeout=5)]
    while not isinstance(told[-1], TaskState) or not told[-1].is_final:
        told.append(ends.get(timeout=5))
    assert {state.id for state in told if isinstance(state, TaskState)} == {"x"}
    client.close()


def test_more_tasks_than_a_request_holds_are_all_watched(broker: FakeBroker) -> None:
    client = Client(broker.url, timeout_s=20)
    ids = [f"t{number}" for number in range(BATCH_COUNT_MAX + 500)]
    told: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    for task_id in ids:
        broker.succeed(task_id, 1)

    client.watch_ends(ids, told.put)

    found = [told.get(timeout=10) for _ in ids]
    assert {state.id for state in found if isinstance(state, TaskState)} == set(ids)
    client.close()
