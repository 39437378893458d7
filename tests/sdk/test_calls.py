"""Questions and their answers: connections that are kept, brokers that are away, and calls that end early."""

import contextlib
import queue
import random
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import hpack
import pytest

from qbroker import calls as calls_module
from qbroker.calls import Call, Calls
from qbroker.client import Client
from qbroker.clock import monotonic
from qbroker.exceptions import MalformedAnswer
from qbroker.http2 import Code
from qbroker.link import CallEnded, Link, Place
from tests.sdk.test_client import sockets_to
from tests.sdk.test_http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    SETTINGS,
    frame,
    frames,
    headers,
    prefixed,
)
from tests.sdk.test_link import ended, port_of

PATIENCE_S = 10.0
"""How long a test waits for what must happen."""

Answer = Callable[[bytes, grpc.ServicerContext], bytes]
Answers = Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    return request


def letters(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    """The request, a byte at a time."""
    for place in range(len(request)):
        yield request[place : place + 1]


class Server:
    """Answers `/t/One` and `/t/Many`, from `start` to `stop`."""

    def __init__(self, one: Answer = echo, many: Answers = letters) -> None:
        self.one = one
        self.many = many
        self.port = 0
        self._server: grpc.Server | None = None

    def start(self) -> None:
        server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "One": grpc.unary_unary_rpc_method_handler(lambda r, c: self.one(r, c)),
            "Many": grpc.unary_stream_rpc_method_handler(lambda r, c: self.many(r, c)),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", handlers),))
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        server.start()
        self._server = server

    def stop(self) -> None:
        assert self._server is not None
        self._server.stop(0).wait()


def place(port: int, chance: random.Random | None = None) -> Place:
    """Where a server is."""
    url = f"qbroker://127.0.0.1:{port}"
    return Place(url, "127.0.0.1", port, PATIENCE_S, monotonic, chance or random.Random(4))


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    started.start()
    yield started
    started.stop()


@pytest.fixture
def calls(server: Server) -> Iterator[Calls]:
    made = Calls(place(server.port))
    yield made
    made.close()


def ask(calls: Calls, request: bytes = b"x", timeout_s: float = PATIENCE_S) -> bytes:
    return calls.ask("/t/One", request, timeout_s, waits=False)


# -- connections ---------------------------------------------------------------------------------


def test_a_connection_is_used_again_by_the_next_call(server: Server, calls: Calls) -> None:
    peers: set[str] = set()

    def note(request: bytes, context: grpc.ServicerContext) -> bytes:
        peers.add(context.peer())
        return request

    server.one = note

    assert [ask(calls, b"%d" % number) for number in range(5)] == [b"0", b"1", b"2", b"3", b"4"]

    assert len(peers) == 1
    assert sockets_to(server.port) == 1


def test_a_kept_connection_that_broke_is_replaced_without_an_error(
    server: Server, calls: Calls
) -> None:
    ask(calls)
    server.stop()
    server.start()

    assert ask(calls, b"again") == b"again"
    assert sockets_to(server.port) == 1


def test_calls_at_the_same_time_have_connections_of_their_own_and_two_are_kept(
    server: Server, calls: Calls
) -> None:
    # Passed only by four who are under way at once.
    all_there = threading.Barrier(4)

    def meet(request: bytes, context: grpc.ServicerContext) -> bytes:
        all_there.wait(PATIENCE_S)
        return request + context.peer().encode()

    server.one = meet
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: ask(calls, b"%d-" % n), range(4)))

    assert [answer[:2] for answer in answers] == [b"0-", b"1-", b"2-", b"3-"]
    assert len({answer[2:] for answer in answers}) == 4
    assert sockets_to(server.port) == 2


def test_closed_calls_leave_no_connection_and_keep_none(server: Server) -> None:
    calls = Calls(place(server.port))
    ask(calls)
    calls.close()
    assert sockets_to(server.port) == 0

    # Who got hold of them before they were closed.
    assert ask(calls, b"late") == b"late"

    assert sockets_to(server.port) == 0


class Peer:
    """Takes connections in one after the other and does with each what the test says; notes the requests."""

    def __init__(self, listener: socket.socket, *deeds: str) -> None:
        self.requests: list[bytes] = []
        self._listener = listener
        self._deeds = deeds
        self.may_leave = threading.Event()
        self.has_left = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # Nothing more is taken in when the test ends.
        with contextlib.suppress(OSError):
            for deed in self._deeds:
                peer, _ = self._listener.accept()
                with peer:
                    peer.settimeout(PATIENCE_S)
                    peer.sendall(frame(SETTINGS))
                    self._serve(peer, deed)
                self.has_left.set()

    def _serve(self, peer: socket.socket, deed: str) -> None:
        self._request(peer)
        if deed == "close":
            return
        if deed == "say goodbye":
            # The last stream that was begun is none.
            peer.sendall(frame(GOAWAY, 0, 0, bytes(8)))
            return
        trailers = hpack.Encoder().encode([("grpc-status", "0")])
        peer.sendall(
            frame(HEADERS, END_HEADERS, 1, headers())
            + frame(DATA, 0, 1, prefixed(b"answer"))
            + frame(HEADERS, END_HEADERS | END_STREAM, 1, trailers)
        )
        if deed == "answer, ping and leave":
            self.may_leave.wait(PATIENCE_S)
            peer.sendall(frame(PING, 0, 0, bytes(8)))

    def _request(self, peer: socket.socket) -> None:
        data = b""
        while part := peer.recv(65_536):
            data += part
            said = [payload for type_, _, _, payload in frames(data) if type_ == DATA]
            if said:
                self.requests.append(said[0][5:])
                return


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(PATIENCE_S)
        yield made


def calls_to(listener: socket.socket) -> Calls:
    return Calls(place(port_of(listener)))


def test_a_kept_connection_whose_end_stands_behind_a_late_ping_is_replaced(
    listener: socket.socket,
) -> None:
    peer = Peer(listener, "answer, ping and leave", "answer")
    calls = calls_to(listener)
    assert ask(calls, b"first") == b"answer"
    peer.may_leave.set()
    assert peer.has_left.wait(PATIENCE_S)

    assert calls.ask("/t/One", b"second", PATIENCE_S, waits=False, is_idempotent=False) == b"answer"

    assert peer.requests == [b"first", b"second"]
    calls.close()


def test_what_may_have_arrived_is_asked_again_if_it_is_idempotent(listener: socket.socket) -> None:
    peer = Peer(listener, "close", "answer")
    calls = calls_to(listener)

    assert ask(calls, b"again") == b"answer"

    assert peer.requests == [b"again", b"again"]
    calls.close()


def test_what_may_have_arrived_is_not_given_twice_if_it_is_not_idempotent(
    listener: socket.socket,
) -> None:
    peer = Peer(listener, "close", "answer")
    calls = calls_to(listener)

    assert ended(
        lambda: calls.ask("/t/One", b"once", PATIENCE_S, waits=True, is_idempotent=False)
    ) == (Code.UNAVAILABLE, "the broker closed the connection")

    assert peer.requests == [b"once"]
    calls.close()


def test_what_the_broker_says_it_has_not_begun_is_asked_again_in_any_case(
    listener: socket.socket,
) -> None:
    peer = Peer(listener, "say goodbye", "answer")
    calls = calls_to(listener)

    assert calls.ask("/t/One", b"order", PATIENCE_S, waits=False, is_idempotent=False) == b"answer"

    assert peer.requests == [b"order", b"order"]
    calls.close()


# -- what ends a call ----------------------------------------------------------------------------


def test_a_call_that_is_not_answered_ends_with_its_deadline(server: Server, calls: Calls) -> None:
    may_answer = threading.Event()

    def wait(request: bytes, context: grpc.ServicerContext) -> bytes:
        may_answer.wait(PATIENCE_S)
        return request

    server.one = wait

    code, _ = ended(lambda: ask(calls, timeout_s=0.1))

    assert code is Code.DEADLINE_EXCEEDED
    assert not may_answer.is_set()
    assert sockets_to(server.port) == 0
    may_answer.set()


def test_the_broker_is_told_the_deadline(server: Server, calls: Calls) -> None:
    left: list[float | None] = []

    def note(request: bytes, context: grpc.ServicerContext) -> bytes:
        left.append(context.time_remaining())
        return request

    server.one = note

    ask(calls, timeout_s=1_000)

    [left_s] = left
    assert left_s is not None
    assert 0 < left_s <= 1_000


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (grpc.StatusCode.NOT_FOUND, Code.NOT_FOUND),
        (grpc.StatusCode.FAILED_PRECONDITION, Code.FAILED_PRECONDITION),
        (grpc.StatusCode.UNAUTHENTICATED, Code.UNAUTHENTICATED),
    ],
)
def test_a_refusal_has_the_brokers_code_and_words(
    server: Server, calls: Calls, theirs: grpc.StatusCode, ours: Code
) -> None:
    def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(theirs, "no “queue” 100 % like that")

    server.one = refuse

    assert ended(lambda: ask(calls)) == (ours, "no “queue” 100 % like that")


def test_a_method_that_the_broker_does_not_know_is_unimplemented(calls: Calls) -> None:
    code, _ = ended(lambda: calls.ask("/t/None", b"x", PATIENCE_S, waits=False))

    assert code is Code.UNIMPLEMENTED


def test_an_interrupted_call_leaves_no_connection(
    server: Server, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(calls)

    def interrupted(*_: object, **__: object) -> list[bytes]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Link, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask(calls)
    with pytest.raises(KeyboardInterrupt):
        calls.listen("/t/Many", b"abc", PATIENCE_S, is_bounded=True)
    assert sockets_to(server.port) == 0

    monkeypatch.undo()
    assert ask(calls, b"after") == b"after"


# -- a broker that is away -----------------------------------------------------------------------


class Chance(random.Random):
    """Tells that an attempt failed and another is waited for."""

    def __init__(self, failed: Callable[[], object]) -> None:
        super().__init__(4)
        self._failed = failed

    def uniform(self, a: float, b: float) -> float:
        self._failed()
        return super().uniform(a, b)


@pytest.fixture
def away() -> Server:
    """A server that has a port and does not listen there yet."""
    server = Server()
    server.start()
    server.stop()
    return server


@pytest.mark.parametrize("kind", ["question", "answers"])
def test_a_broker_that_starts_later_is_waited_for(away: Server, kind: str) -> None:
    failed = threading.Event()

    def start() -> None:
        assert failed.wait(PATIENCE_S)
        away.start()

    calls = Calls(place(away.port, Chance(failed.set)))
    starting = threading.Thread(target=start)
    starting.start()

    if kind == "question":
        assert calls.ask("/t/One", b"x", PATIENCE_S, waits=True) == b"x"
    else:
        assert list(calls.listen("/t/Many", b"xyz", PATIENCE_S, is_bounded=True)) == [
            b"x",
            b"y",
            b"z",
        ]

    assert failed.is_set()
    starting.join()
    calls.close()
    away.stop()


def test_who_does_not_wait_hears_at_once_that_the_broker_is_away(away: Server) -> None:
    failures: list[None] = []
    calls = Calls(place(away.port, Chance(lambda: failures.append(None))))

    assert ended(lambda: calls.ask("/t/One", b"x", PATIENCE_S, waits=False)) == (
        Code.UNAVAILABLE,
        "Connection refused",
    )
    assert failures == []
    calls.close()


def test_who_waits_hears_in_the_end_what_was_the_trouble(away: Server) -> None:
    calls = Calls(place(away.port))

    assert ended(lambda: calls.ask("/t/One", b"x", 0.2, waits=True)) == (
        Code.UNAVAILABLE,
        "Connection refused",
    )
    calls.close()


def test_closing_ends_the_waiting_for_a_broker_that_is_away(
    away: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long that only the closing can end it.
    monkeypatch.setattr(calls_module, "_PAUSE_FIRST_S", 1_000.0)
    failed = threading.Event()
    told: queue.SimpleQueue[CallEnded] = queue.SimpleQueue()
    calls = Calls(place(away.port, Chance(failed.set)))

    def wait() -> None:
        try:
            calls.ask("/t/One", b"x", 10_000, waits=True)
        except CallEnded as exc:
            told.put(exc)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert failed.wait(PATIENCE_S)

    calls.close()

    assert told.get(timeout=PATIENCE_S).details == "the connection was closed"
    waiting.join()


def test_a_broker_that_hangs_up_before_its_first_word_is_waited_for(away: Server) -> None:
    """A proxy does so in front of a broker that is away."""
    proxy = socket.create_server(("127.0.0.1", away.port))
    calls = Calls(place(away.port))

    def hang_up() -> None:
        proxy.accept()[0].close()
        proxy.close()
        away.start()

    starting = threading.Thread(target=hang_up)
    starting.start()
    try:
        assert calls.ask("/t/One", b"x", PATIENCE_S, waits=True) == b"x"
    finally:
        starting.join()
        calls.close()
        away.stop()


# -- many answers --------------------------------------------------------------------------------


def test_answers_come_one_by_one_and_the_connection_is_gone_then(
    server: Server, calls: Calls
) -> None:
    assert list(calls.listen("/t/Many", b"abc", PATIENCE_S, is_bounded=True)) == [b"a", b"b", b"c"]
    assert list(calls.listen("/t/Many", b"", PATIENCE_S, is_bounded=True)) == []
    assert sockets_to(server.port) == 0


def test_what_goes_wrong_after_some_answers_is_told_after_them(
    server: Server, calls: Calls
) -> None:
    def break_off(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"first"
        context.abort(grpc.StatusCode.ABORTED, "no more")

    server.many = break_off
    heard: list[bytes] = []

    assert ended(
        lambda: heard.extend(calls.listen("/t/Many", b"", PATIENCE_S, is_bounded=True))
    ) == (Code.ABORTED, "no more")
    assert heard == [b"first"]
    assert sockets_to(server.port) == 0


def test_a_refusal_to_answer_is_told_at_once(server: Server, calls: Calls) -> None:
    def refuse(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such")

    server.many = refuse

    begun: list[Call] = []

    try:
        assert ended(
            lambda: begun.append(calls.listen("/t/Many", b"", PATIENCE_S, is_bounded=True))
        ) == (Code.NOT_FOUND, "no such")
        assert sockets_to(server.port) == 0
    finally:
        for call in begun:
            call._link.close()


class Silence:
    """Answers once, and then not before it is told to."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.left_s: float | None = 0.0

    def answer(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self.left_s = context.time_remaining()
        yield b"first"
        self.may_end.wait(PATIENCE_S)


@pytest.fixture
def silence(server: Server) -> Iterator[Silence]:
    made = Silence()
    server.many = made.answer
    yield made
    made.may_end.set()


def test_listening_is_cancelled_from_another_thread(
    server: Server, calls: Calls, silence: Silence
) -> None:
    call = calls.listen("/t/Many", b"", PATIENCE_S, is_bounded=False)
    # The beginning was bounded, what follows is not.
    assert silence.left_s is not None
    assert silence.left_s > 1_000_000_000
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    told: queue.SimpleQueue[CallEnded] = queue.SimpleQueue()

    def listen() -> None:
        try:
            for answer in call:
                heard.put(answer)
        except CallEnded as exc:
            told.put(exc)

    listening = threading.Thread(target=listen)
    listening.start()
    assert heard.get(timeout=PATIENCE_S) == b"first"

    call.cancel()

    assert told.get(timeout=PATIENCE_S).code is Code.UNAVAILABLE
    listening.join()
    assert call._link._sock.fileno() == -1
    call.cancel()


def test_a_bounded_call_ends_quietly_with_its_deadline_between_answers(
    calls: Calls, silence: Silence
) -> None:
    call = calls.listen("/t/Many", b"", 0.3, is_bounded=True, is_quiet=True)

    assert list(call) == [b"first"]

    assert call._link._sock.fileno() == -1


def test_an_order_that_is_not_answered_in_time_is_an_error(calls: Calls, silence: Silence) -> None:
    call = calls.listen("/t/Many", b"", 0.3, is_bounded=True)

    code, _ = ended(lambda: list(call))

    assert code is Code.DEADLINE_EXCEEDED


def test_who_stops_listening_leaves_no_connection(calls: Calls, silence: Silence) -> None:
    call = calls.listen("/t/Many", b"", PATIENCE_S, is_bounded=False)
    answers = iter(call)
    assert next(answers) == b"first"

    del answers

    assert call._link._sock.fileno() == -1


def test_who_cancels_before_he_listens_leaves_no_connection(calls: Calls, silence: Silence) -> None:
    call = calls.listen("/t/Many", b"", PATIENCE_S, is_bounded=False)

    call.cancel()

    try:
        assert call._link._sock.fileno() == -1
    finally:
        call._link.close()


def test_a_forked_child_lets_go_of_kept_connections_without_a_word(
    server: Server, calls: Calls
) -> None:
    ask(calls)
    [link] = calls._idle
    kept = link._sock
    with kept.dup():
        # What the child has is a copy: the parent's is as good as before.
        childs = Calls(place(server.port))
        copy = Link(kept.dup(), "child")
        childs._made.add(copy)

        childs.leave()

    assert copy._sock.fileno() == -1
    assert port_of(kept) > 0
    assert ask(calls, b"on") == b"on"
    assert calls._idle == [link]


# -- answers that make no sense ------------------------------------------------------------------

ASKING: dict[str, Callable[[Client], object]] = {
    "status": lambda client: client.status(),
    "explain": lambda client: client.explain("x"),
    "list queues": lambda client: client.list_queues(),
    "revoke": lambda client: client.revoke(["x"]),
    "purge": lambda client: client.purge_queue("q"),
    "show a schedule": lambda client: client.show_schedule("w"),
    "forget": lambda client: client.forget(["x"]),
    "show a workflow": lambda client: client.show_workflow("w"),
    "ping": lambda client: list(client.broadcast("ping")),
    "events": lambda client: list(client.events()),
}


@pytest.mark.parametrize("ask", ASKING.values(), ids=ASKING)
def test_an_answer_that_cannot_be_read_names_the_broker(ask: Callable[[Client], object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        peer = Peer(listener, "answer")
        client = Client(f"qbroker://127.0.0.1:{port_of(listener)}", timeout_s=PATIENCE_S)

        with pytest.raises(MalformedAnswer, match=r"^qbroker://127\.0\.0\.1:\d+ answered \w+/\w+ "):
            ask(client)

        client.close()
    assert len(peer.requests) == 1
