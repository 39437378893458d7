"""Streams: who reads them, what becomes of them when they break, and who is told."""

import os
import queue
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from qbroker import lane as lane_module
from qbroker.client import Client
from qbroker.clock import monotonic
from qbroker.exceptions import OperationalError
from qbroker.http2 import Patience
from qbroker.lane import Answer, Lane, Publisher, Subscription, Teller, Ticket, Watcher
from qbroker.link import Link, Place
from qbroker_proto.v1.control_pb2 import Event
from qbroker_proto.v1.message_pb2 import Message
from qbroker_proto.v1.producer_pb2 import Refusal
from qbroker_proto.v1.results_pb2 import TaskState
from tests.sdk.fake_broker import FakeBroker
from tests.sdk.test_client import message, sockets_to
from tests.sdk.test_http2 import PING, SETTINGS, frame
from tests.sdk.test_link import port_of

PATIENCE_S = 10.0
"""How long a test waits for what must happen."""
TRIES = 1_000
LONG_S = 1_000.0
"""For a timer that must not be what helps."""


@pytest.fixture
def client(broker: FakeBroker) -> Iterator[Client]:
    made = Client(broker.url, timeout_s=PATIENCE_S)
    yield made
    # With a bound, so that a test that fails ends.
    made.close(1)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stands back does so until he is called."""
    monkeypatch.setattr(lane_module, "_STAND_BACK_S", LONG_S)


def publisher_of(client: Client) -> Publisher:
    return client._connected().publisher


def watcher_of(client: Client) -> Watcher:
    return client._connected().watcher


def stood_back(client: Client) -> Publisher:
    """The publisher, once its thread stands back."""
    publisher = publisher_of(client)
    for number in range(TRIES):
        client.publish([message(f"alone-{number}")])
        if publisher._stands_back:
            return publisher
    raise AssertionError("the stream's thread never stands back")


def watcher_stood_back(client: Client) -> Watcher:
    watcher = watcher_of(client)
    for _ in range(TRIES):
        client.read("alone")
        if watcher._stands_back:
            return watcher
    raise AssertionError("the stream's thread never stands back")


class Readers:
    """Notes which threads take in replies; `before` is called first, on that thread."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        kind: type[Lane],
        before: Callable[[], object] = lambda: None,
    ) -> None:
        self.idents: list[int] = []
        real = kind._receive

        def receive(lane: Lane, reply: bytes) -> None:
            self.idents.append(threading.get_ident())
            before()
            real(lane, reply)

        monkeypatch.setattr(kind, "_receive", receive)


class Leading:
    """Tells that a caller reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_begun = threading.Event()
        real = Lane._take_in

        def take_in(lane: Lane, link: Link, timeout_s: float | None) -> None:
            if threading.current_thread() is not lane._thread:
                self.has_begun.set()
            real(lane, link, timeout_s)

        monkeypatch.setattr(Lane, "_take_in", take_in)


# -- who reads -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
def test_one_who_publishes_alone_reads_his_confirms_himself(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    stood_back(client)
    readers = Readers(monkeypatch, Publisher)

    for number in range(20):
        client.publish([message(str(number))])

    assert readers.idents == [threading.get_ident()] * 20


@pytest.mark.usefixtures("patient")
def test_one_who_reads_states_alone_reads_the_replies_himself(
    broker: FakeBroker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher_stood_back(client)
    readers = Readers(monkeypatch, Watcher)
    broker.succeed("x", 1)

    assert client.read("x").state == "SUCCESS"
    assert set(client.read_many(["x", "y", "z"])) == {"x", "y", "z"}

    assert set(readers.idents) == {threading.get_ident()}


def test_a_streams_thread_reads_again_when_nobody_comes(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "_STAND_BACK_S", 0.001)
    has_come_back = threading.Event()
    publisher = publisher_of(client)
    real = Publisher._stand_back

    def stand_back(lane: Publisher) -> None:
        real(lane)
        has_come_back.set()

    monkeypatch.setattr(Publisher, "_stand_back", stand_back)
    for number in range(20):
        client.publish([message(str(number))])

    assert has_come_back.wait(PATIENCE_S)
    assert client.publish([message("after")]) == []
    assert publisher._unconfirmed == {}


def test_each_of_many_who_publish_gets_the_verdict_on_his_own(
    broker: FakeBroker, client: Client
) -> None:
    def judge(sent: Message) -> Refusal | None:
        return Refusal(reason=sent.id) if sent.id.endswith("7") else None

    broker.judge = judge
    wrong: list[object] = []

    def publish(name: str) -> None:
        for number in range(60):
            verdicts = client.publish([message(f"{name}-{number}")])
            found = [(type(verdict), verdict.index) for verdict in verdicts]
            reasons = [verdict.reason for verdict in verdicts if isinstance(verdict, Refusal)]
            is_refused = number % 10 == 7
            if (found, reasons) != (
                ([(Refusal, 0)], [f"{name}-{number}"]) if is_refused else ([], [])
            ):
                wrong.append((name, number, verdicts))

    # Alone, many, alone and many again: each change of who reads happens.
    for turn in range(2):
        publish(f"{turn}-alone")
        threads = [
            threading.Thread(target=publish, args=(f"{turn}-{place}",)) for place in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert wrong == []
    assert len(broker.messages) == 2 * 17 * 54
    assert broker.streams_opened == 1
    assert broker.duplicates == 0


def test_each_of_many_who_read_gets_the_state_of_his_own(
    broker: FakeBroker, client: Client
) -> None:
    wrong: list[object] = []

    def read(name: str) -> None:
        for number in range(30):
            task_id = f"{name}-{number}"
            broker.end(task_id, state="FAILURE" if number % 3 else "SUCCESS")
            told = client.read(task_id)
            if (told.id, told.state) != (task_id, "FAILURE" if number % 3 else "SUCCESS"):
                wrong.append((task_id, told))

    read("alone")
    threads = [threading.Thread(target=read, args=(str(place),)) for place in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read("again")

    assert wrong == []
    assert watcher_of(client)._subscriptions == {}


@pytest.mark.usefixtures("patient")
def test_who_is_notified_is_so_at_once_while_the_thread_stands_back(client: Client) -> None:
    stood_back(client)
    settled = threading.Event()
    ticket = Ticket([message("notified")], settled.set)

    publisher_of(client).submit(ticket)

    assert settled.wait(PATIENCE_S)
    assert ticket.error is None
    # Many lone publishes later, again.
    stood_back(client)
    settled.clear()
    publisher_of(client).submit(Ticket([message("notified again")], settled.set))
    assert settled.wait(PATIENCE_S)


@pytest.mark.usefixtures("patient")
def test_who_comes_while_another_reads_is_answered_when_that_one_is_done(
    broker: FakeBroker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = stood_back(client)
    leading = Leading(monkeypatch)
    # Each confirm waits for its turn.
    turns = threading.Semaphore(0)
    monkeypatch.setattr(broker.confirms, "wait", lambda: turns.acquire(timeout=PATIENCE_S))
    first = threading.Thread(target=client.publish, args=([message("first")],))
    first.start()
    assert leading.has_begun.wait(PATIENCE_S)
    settled = threading.Event()

    publisher.submit(Ticket([message("second")], settled.set))
    turns.release()
    first.join()
    turns.release()

    assert settled.wait(PATIENCE_S)
    assert broker.streams_opened == 1


@pytest.mark.usefixtures("patient")
def test_a_subscription_made_while_the_thread_stands_back_is_told(
    broker: FakeBroker, client: Client
) -> None:
    watcher_stood_back(client)
    told: queue.SimpleQueue[Answer] = queue.SimpleQueue()

    client.watch("x", told.put)

    first = told.get(timeout=PATIENCE_S)
    assert isinstance(first, TaskState)
    assert first.state == "PENDING"
    broker.succeed("x", 1)
    last = told.get(timeout=PATIENCE_S)
    assert isinstance(last, TaskState)
    assert last.state == "SUCCESS"


def test_a_deadline_counts_once_whoever_reads(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "_STAND_BACK_S", LONG_S)
    client = Client(broker.url, timeout_s=0.4)
    stood_back(client)
    patience_s: list[float] = []
    real = Ticket.is_settled_within

    def is_settled_within(ticket: Ticket, timeout_s: float) -> bool:
        patience_s.append(timeout_s)
        return real(ticket, timeout_s)

    monkeypatch.setattr(Ticket, "is_settled_within", is_settled_within)
    broker.confirms.clear()

    with pytest.raises(OperationalError, match="no confirm within"):
        client.publish([message("unconfirmed")])

    broker.confirms.set()
    client.close()
    # The time was spent reading.
    assert patience_s[0] < 0.4


# -- streams that break --------------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
def test_a_restart_while_the_thread_stands_back_is_survived() -> None:
    broker = FakeBroker().start()
    client = Client(broker.url, timeout_s=PATIENCE_S)
    stood_back(client)
    watcher_stood_back(client)

    broker.stop()
    broker.start(port=broker.port)

    assert client.publish([message("after")]) == []
    assert "after" in broker.messages
    assert client.read("after").state == "PENDING"
    client.close()
    broker.stop()


@pytest.mark.usefixtures("patient")
def test_an_interrupted_reader_loses_nobodys_ticket(
    broker: FakeBroker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = stood_back(client)
    leading = Leading(monkeypatch)
    main = threading.get_ident()
    interrupts = [KeyboardInterrupt()]

    def interrupt() -> None:
        if threading.get_ident() == main and interrupts:
            raise interrupts.pop()

    Readers(monkeypatch, Publisher, interrupt)
    broker.confirms.clear()
    other = Ticket([message("other")])

    def publish_other() -> None:
        assert leading.has_begun.wait(PATIENCE_S)
        publisher.submit(other)
        broker.confirms.set()

    thread = threading.Thread(target=publish_other)
    thread.start()

    with pytest.raises(KeyboardInterrupt):
        client.publish([message("interrupted")])

    thread.join()
    assert client.wait(other) == ()
    assert {"interrupted", "other"} <= set(broker.messages)
    assert broker.streams_opened == 2
    # And it is as good as ever.
    assert client.publish([message("after")]) == []


@pytest.mark.usefixtures("patient")
def test_a_reader_interrupted_while_he_waits_loses_nobodys_ticket(
    broker: FakeBroker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a signal this time, as a time limit of a task's does it."""

    class TimeIsUp(Exception):
        pass

    def raise_it(*_: object) -> None:
        raise TimeIsUp

    publisher = stood_back(client)
    leading = Leading(monkeypatch)
    broker.confirms.clear()
    other = Ticket([message("other")])
    before = signal.signal(signal.SIGUSR1, raise_it)

    def disturb() -> None:
        assert leading.has_begun.wait(PATIENCE_S)
        publisher.submit(other)
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        with pytest.raises(TimeIsUp):
            client.publish([message("interrupted")])
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    broker.confirms.set()

    assert client.wait(other) == ()
    assert {"interrupted", "other"} <= set(broker.messages)


def test_an_interrupt_between_packing_and_sending_loses_nobodys_ticket(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(broker.url, timeout_s=1)
    client.publish([message("first")])
    publisher = publisher_of(client)
    real = Publisher._pack
    broker.confirms.clear()
    # Two requests are under way, so what follows waits for the next.
    under_way = [client.submit([message("a")]), client.submit([message("b")])]
    waiting = client.submit([message("waiting")])
    interrupts = [KeyboardInterrupt()]

    def pack(lane: Publisher) -> tuple[bytes, bool]:
        packed = real(lane)
        if packed[0] and interrupts:
            raise interrupts.pop()
        return packed

    monkeypatch.setattr(Publisher, "_pack", pack)
    # As though one were answered, while a thread that may be interrupted sends.
    with publisher._lock:
        publisher._permits += 1
    try:
        with pytest.raises(KeyboardInterrupt):
            publisher.submit(Ticket([message("interrupted")]))
        broker.confirms.set()

        assert [client.wait(ticket) for ticket in [*under_way, waiting]] == [(), (), ()]
    finally:
        client.close(1)


@pytest.mark.usefixtures("patient")
def test_an_interrupted_reader_loses_nobodys_state(broker: FakeBroker, client: Client) -> None:
    watcher = watcher_stood_back(client)
    told: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    interrupts = [KeyboardInterrupt()]

    def tell(answer: Answer) -> None:
        if interrupts:
            raise interrupts.pop()
        told.put(answer)

    # Another thread's, of which the one that reads here is told.
    watcher.subscribe([Subscription("theirs", tell, is_once=True)], is_waited_for=True)

    with pytest.raises(KeyboardInterrupt):
        watcher.lead(lambda: False, PATIENCE_S)

    # Over a stream that works, as the next one shows.
    assert client.read("mine").id == "mine"
    answer = told.get_nowait()
    assert isinstance(answer, TaskState)
    assert answer.id == "theirs"


def test_a_broker_that_will_never_answer_is_an_error_at_once() -> None:
    stranger = grpc.server(ThreadPoolExecutor(1))
    port = stranger.add_insecure_port("127.0.0.1:0")
    stranger.start()
    client = Client(f"qbroker://127.0.0.1:{port}", timeout_s=LONG_S)

    with pytest.raises(OperationalError, match=f"no answer from qbroker://127.0.0.1:{port}: "):
        client.publish([message("a")])
    with pytest.raises(OperationalError, match=f"no answer from qbroker://127.0.0.1:{port}: "):
        client.read("a")

    client.close()
    stranger.stop(0).wait()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_stream_goes_on_after_a_reply_that_cannot_be_read(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(broker.url, timeout_s=1)
    troubles: list[Exception] = [ValueError("not a reply")]

    def trouble() -> None:
        if troubles:
            raise troubles.pop()

    Readers(monkeypatch, Publisher, trouble)
    try:
        assert client.publish([message("a")]) == []
    finally:
        client.close(1)


def test_a_stream_whose_thread_could_not_be_started_is_tried_again(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(broker.url, timeout_s=1)

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError):
        client.publish([message("a")])
    monkeypatch.undo()

    assert client.publish([message("b")]) == []
    client.close()


# -- the end -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
def test_closing_tells_one_who_reads(
    broker: FakeBroker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    stood_back(client)
    leading = Leading(monkeypatch)
    broker.confirms.clear()
    told: queue.SimpleQueue[Exception] = queue.SimpleQueue()

    def publish() -> None:
        try:
            client.publish([message("late")])
        except OperationalError as exc:
            told.put(exc)

    thread = threading.Thread(target=publish)
    thread.start()
    assert leading.has_begun.wait(PATIENCE_S)

    client.close()

    assert str(told.get(timeout=PATIENCE_S)) == f"the connection to {broker.url} was closed"
    thread.join()
    broker.confirms.set()
    assert sockets_to(broker.port) == 0


def test_closing_ends_a_connect_to_a_silent_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "CONNECT_S", LONG_S)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        patience = Patience(LONG_S, LONG_S, LONG_S)
        client = Client(f"qbroker://127.0.0.1:{port}", timeout_s=PATIENCE_S, patience=patience)
        client.submit([message("m")])
        publisher = publisher_of(client)
        accepted, _ = silent.accept()

        with accepted:
            client.close(PATIENCE_S)

        assert publisher._thread is not None
        assert not publisher._thread.is_alive()


@pytest.mark.usefixtures("patient")
def test_closing_while_the_thread_stands_back_ends_it(broker: FakeBroker, client: Client) -> None:
    threads = [stood_back(client)._thread, watcher_stood_back(client)._thread]

    client.close()

    assert [thread.is_alive() for thread in threads if thread is not None] == [False, False]
    assert sockets_to(broker.port) == 0


def test_who_comes_just_after_the_closing_is_told(client: Client) -> None:
    # He got hold of them before.
    publisher, watcher = publisher_of(client), watcher_of(client)
    client.publish([message("a")])
    client.read("a")
    client.close()
    told: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    ticket = Ticket([message("late")])

    publisher.submit(ticket)
    watcher.subscribe([Subscription("late", told.put, is_once=True)])

    assert ticket.is_settled
    assert isinstance(ticket.error, OperationalError)
    assert isinstance(told.get_nowait(), OperationalError)


@pytest.mark.usefixtures("patient")
def test_one_who_reads_can_close_the_connection(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a signal's handler does it that ends the program while its main thread waits."""
    stood_back(client)
    publisher = publisher_of(client)
    is_over = threading.Event()

    def publish() -> None:
        try:
            client.publish([message("last")])
        except OperationalError:
            is_over.set()

    # The stream's own thread may.
    Readers(monkeypatch, Publisher, publisher.close)
    threading.Thread(target=publish, daemon=True).start()

    assert is_over.wait(1)


# -- events --------------------------------------------------------------------------------------


def place_of(listener: socket.socket) -> Place:
    port = port_of(listener)
    return Place(
        f"qbroker://127.0.0.1:{port}", "127.0.0.1", port, PATIENCE_S, monotonic, random.Random(4)
    )


def test_events_that_the_broker_does_not_take_in_are_dropped_in_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        teller = Teller(place_of(listener))
        teller.tell(Event(type="first"))
        peer, _ = listener.accept()
        with peer:
            # It may be said nothing; and the answer to its ping shows that this was heard.
            peer.sendall(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
            peer.sendall(frame(PING, 0, 0, b"is heard"))
            said = b""
            while b"is heard" not in said:
                said += peer.recv(65_536)

            for _ in range(2 * lane_module._EVENTS_WAITING_MAX):
                teller.tell(Event(type="task-sent"))

            link = teller._link
            assert link is not None
            waiting = len(teller._inbox) + len(link._connection._unsent)
            teller.close()
    assert waiting <= lane_module._EVENTS_WAITING_MAX + 1


# -- forks ---------------------------------------------------------------------------------------

_FORKING = """
import os, sys
from qbroker import lane
from qbroker.client import Client
from tests.sdk.test_client import message, sockets_to
from tests.sdk.test_lane import stood_back, watcher_stood_back

lane._STAND_BACK_S = 1_000
port = int(sys.argv[1])
client = Client(f"qbroker://127.0.0.1:{port}", timeout_s=10)
client.status()
publisher = stood_back(client)
watcher = watcher_stood_back(client)
assert sockets_to(port) == 3, sockets_to(port)

pid = os.fork()
if pid == 0:
    try:
        assert sockets_to(port) == 0, sockets_to(port)
        assert client.publish([message("of the child")]) == []
        assert client.read("of the child").id == "of the child"
        client.close()
        assert sockets_to(port) == 0, sockets_to(port)
    except BaseException as exc:
        sys.stderr.write(f"child: {exc!r}")
        sys.stderr.flush()
    os._exit(0)
os.waitpid(pid, 0)

assert client.publish([message("of the parent")]) == []
assert client.read("of the parent").id == "of the parent"
assert client.status().version == "fake"
assert publisher._link is not None and watcher._link is not None
client.close()
"""


def test_a_forked_child_lets_go_of_the_sockets_and_the_parent_goes_on(broker: FakeBroker) -> None:
    ran = subprocess.run(
        # Python 3.12 and newer warn of threads at a fork, in the program that forks; docs/calling.md.
        [
            *(sys.executable, "-W", "ignore:This process:DeprecationWarning"),
            *("-c", _FORKING, str(broker.port)),
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=Path(__file__).parents[2],
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert {"of the child", "of the parent"} <= set(broker.messages)
    # The parent's was never broken, and the child has had one of its own.
    assert broker.streams_opened == 2
