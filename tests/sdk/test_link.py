"""The socket under the SDK: peers that are not there, fall silent or misbehave, and who is interrupted."""

import errno
import queue
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import hpack
import psutil
import pytest

from qbroker import clock, link as link_module
from qbroker.http2 import ClientConnection, Code
from qbroker.link import CallEnded, Link, connect
from tests.sdk.test_http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PATH,
    PING,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    frames,
    headers,
    prefixed,
)

PATIENCE_S = 10.0
"""How long a test waits for what must happen."""

Found = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int]]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A peer that says what the test has it say; the system takes connections in for it."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(PATIENCE_S)
        yield made


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


class Pair:
    """A link and its peer's end."""

    def __init__(self, listener: socket.socket) -> None:
        self.link = connect("127.0.0.1", port_of(listener), PATIENCE_S)
        self.peer, _ = listener.accept()
        self.peer.settimeout(PATIENCE_S)

    def hear(self, is_enough: Callable[[list[tuple[int, int, int, bytes]]], bool]) -> None:
        """Have the peer read until the frames are enough. What it reads must end with a frame."""
        data = b""
        while not is_enough(frames(data)):
            part = self.peer.recv(65_536)
            assert part, "the link was closed"
            data += part


@pytest.fixture
def pair(listener: socket.socket) -> Iterator[Pair]:
    made = Pair(listener)
    yield made
    made.link.shut()
    made.link.close()
    made.peer.close()


@pytest.fixture
def calling(pair: Pair) -> Pair:
    """A pair that have greeted each other, with a call under way."""
    pair.link.start(PATH)
    pair.peer.sendall(frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, headers()))
    assert pair.link.receive(PATIENCE_S, until_answered=True) == []
    return pair


def ended(do: Callable[[], object]) -> tuple[Code, str]:
    """How it ended."""
    with pytest.raises(CallEnded) as caught:
        do()
    return caught.value.code, caught.value.details


# -- connecting ----------------------------------------------------------------------------------


def test_a_refused_connection_is_said_in_words_and_leaves_no_descriptor() -> None:
    with socket.socket() as taken:
        # Bound, so nobody else gets the port, but not listening.
        taken.bind(("127.0.0.1", 0))
        descriptors = psutil.Process().num_fds()

        assert ended(lambda: connect("127.0.0.1", port_of(taken), PATIENCE_S)) == (
            Code.UNAVAILABLE,
            "Connection refused",
        )

        assert psutil.Process().num_fds() == descriptors


def looks_up(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], list[Found]]) -> None:
    """Have names looked up by this; numbers are read as ever."""
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *, type: int, flags: int) -> object:  # noqa: A002 - its name
        if flags & socket.AI_NUMERICHOST:
            return real(host, port, type=type, flags=flags)
        return answer()

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_an_unknown_host_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> list[Found]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    looks_up(monkeypatch, unknown)

    assert ended(lambda: connect("broker.invalid", 7450, PATIENCE_S)) == (
        Code.UNAVAILABLE,
        "Name or service not known",
    )


def test_a_name_whose_lookup_takes_too_long_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = threading.Event()

    def slow() -> list[Found]:
        found.wait(PATIENCE_S)
        return []

    looks_up(monkeypatch, slow)

    try:
        assert ended(lambda: connect("slow.invalid", 7450, 0.05)) == (
            Code.UNAVAILABLE,
            "looking up slow.invalid takes too long",
        )
        assert not found.is_set()
    finally:
        found.set()


def address_of(sock: socket.socket) -> Found:
    return (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port_of(sock)))


def test_of_a_names_addresses_one_that_answers_is_taken(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        looks_up(monkeypatch, lambda: [address_of(taken), address_of(listener)])

        link = connect("broker.invalid", 1, PATIENCE_S)

    peer, _ = listener.accept()
    peer.close()
    assert ended(link.receive) == (Code.UNAVAILABLE, "the broker closed the connection")
    link.close()


def test_of_a_names_addresses_one_that_says_nothing_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        # Its queue is full, so the system leaves who comes next without an answer.
        waiting = [socket.socket() for _ in range(2)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(silent.getsockname())
        looks_up(monkeypatch, lambda: [address_of(silent), address_of(listener)])

        try:
            link = connect("broker.invalid", 1, 1.0)
        finally:
            for one in waiting:
                one.close()

    link.shut()
    link.close()


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".invalid"])
def test_a_host_that_cannot_be_a_name_is_said_in_words(host: str) -> None:
    code, details = ended(lambda: connect(host, 7450, 1.0))

    assert code is Code.UNAVAILABLE
    assert details


def test_that_no_socket_can_be_made_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    def exhausted(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", exhausted)

    assert ended(lambda: connect("127.0.0.1", port_of(listener), PATIENCE_S)) == (
        Code.UNAVAILABLE,
        "Too many open files",
    )


def test_an_ipv6_address_stands_in_brackets() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with listener:
        port = port_of(listener)
        link = connect("::1", port, PATIENCE_S)
        peer, _ = listener.accept()
        with peer:
            link.start(PATH)
            link.send(b"", is_last=True)
            said = frames(peer.recv(65_536))
        link.shut()
        link.close()

    [block] = [payload for type_, _, _, payload in said if type_ == HEADERS]
    told = {bytes(name): bytes(value) for name, value in hpack.Decoder().decode(block, raw=True)}
    assert told[b":authority"] == f"[::1]:{port}".encode()


# -- talking -------------------------------------------------------------------------------------


def test_messages_go_both_ways_and_the_end_comes_after_them(calling: Pair) -> None:
    calling.link.send(b"question", is_last=True)
    calling.hear(lambda said: (DATA, END_STREAM, 1, prefixed(b"question")) in said)
    calling.peer.sendall(
        frame(DATA, 0, 1, prefixed(b"one") + prefixed(b"two"))
        + frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            hpack.Encoder().encode([("grpc-status", "5"), ("grpc-message", "no%20such")]),
        )
    )

    assert calling.link.receive(PATIENCE_S) == [b"one", b"two"]
    assert ended(calling.link.receive) == (Code.NOT_FOUND, "no such")
    assert calling.link.is_usable


def test_nothing_heard_in_time_is_no_message(calling: Pair) -> None:
    assert calling.link.receive(0.01) == []
    assert calling.link.is_usable


def test_time_is_kept_also_where_the_peer_says_much_that_is_no_message(
    calling: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [clock.monotonic()]
    monkeypatch.setattr(clock, "monotonic", lambda: now_s[0])
    read = calling.link._read
    count = 0

    def read_and_have_more() -> list[bytes]:
        nonlocal count
        count += 1
        assert count < 100, "it reads on and on"
        now_s[0] += 1
        calling.peer.sendall(frame(PING, 0, 0, bytes(8)))
        return read()

    monkeypatch.setattr(calling.link, "_read", read_and_have_more)
    calling.peer.sendall(frame(PING, 0, 0, bytes(8)))

    assert calling.link.receive(10) == []


def test_what_was_answered_counts_also_where_the_peer_hears_nothing_any_more(pair: Pair) -> None:
    pair.link.start(PATH)
    pair.link.send(b"question", is_last=True)
    pair.peer.sendall(
        frame(SETTINGS)
        + frame(HEADERS, END_HEADERS, 1, headers())
        + frame(DATA, 0, 1, prefixed(b"answer"))
    )
    # What it has not read makes the system reset the connection, so no settings can be confirmed.
    pair.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair.peer.close()

    assert pair.link.receive(PATIENCE_S) == [b"answer"]


# -- silence -------------------------------------------------------------------------------------


def test_a_peer_that_never_says_a_word_is_given_up(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "PATIENCE_S", 0.05)
    pair.link.start(PATH)
    pair.link.send(b"question")

    assert ended(pair.link.receive) == (Code.UNAVAILABLE, "no word for 0.05 s")
    assert not pair.link.is_usable
    assert ended(lambda: pair.link.send(b"more")) == (Code.UNAVAILABLE, "no word for 0.05 s")


def test_a_peer_that_falls_silent_is_asked_for_a_word_and_given_up(
    calling: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "SILENCE_S", 0.05)
    monkeypatch.setattr(link_module, "PATIENCE_S", 0.06)

    assert ended(calling.link.receive) == (Code.UNAVAILABLE, "no word for 0.06 s")

    calling.hear(lambda said: (PING, 0, 0, bytes(8)) in said)


def test_a_peer_that_answers_when_asked_is_kept(
    calling: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "SILENCE_S", 0.05)
    calling.link.receive(0.1)
    calling.hear(lambda said: (PING, 0, 0, bytes(8)) in said)
    monkeypatch.setattr(link_module, "SILENCE_S", 30)
    # It would be missed at once now, had its answer not counted.
    calling.peer.sendall(frame(PING, 1, 0, bytes(8)))
    calling.link.receive(0.05)
    monkeypatch.setattr(link_module, "PATIENCE_S", 0)

    calling.peer.sendall(frame(DATA, 0, 1, prefixed(b"still here")))

    assert calling.link.receive(PATIENCE_S) == [b"still here"]
    assert calling.link.receive(0.01) == []


def test_a_peer_that_takes_nothing_in_is_given_up(
    calling: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All that HTTP/2 allows, so that the system's buffers are what is full.
    calling.peer.sendall(
        frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31 - 1))
        + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**30))
    )
    while calling.link._connection._window < 2**30:
        calling.link.receive(0.01)
    monkeypatch.setattr(link_module, "PATIENCE_S", 0.05)

    message = bytes(64 * 1024 * 1024)

    assert ended(lambda: calling.link.send(message)) == (
        Code.UNAVAILABLE,
        "the broker takes nothing in",
    )
    assert not calling.link.is_usable


# -- peers that go away or are something else ----------------------------------------------------


def test_a_peer_that_closes_ends_the_call(calling: Pair) -> None:
    calling.peer.shutdown(socket.SHUT_WR)

    assert ended(calling.link.receive) == (Code.UNAVAILABLE, "the broker closed the connection")
    assert not calling.link.is_usable


def test_a_peer_that_resets_the_connection_ends_the_call(calling: Pair) -> None:
    calling.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    calling.peer.close()

    assert ended(calling.link.receive) == (Code.UNAVAILABLE, "Connection reset by peer")


def test_a_peer_that_speaks_something_else_ends_the_call(pair: Pair) -> None:
    pair.link.start(PATH)
    pair.link.send(b"question")
    pair.peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    assert ended(pair.link.receive) == (
        Code.UNAVAILABLE,
        "what listens there does not speak HTTP/2",
    )
    assert not pair.link.is_usable


# -- interrupts and other threads ----------------------------------------------------------------


def test_who_is_interrupted_while_reading_breaks_the_link(
    calling: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: ClientConnection, data: bytes) -> list[bytes]:
        raise KeyboardInterrupt

    monkeypatch.setattr(ClientConnection, "receive", interrupted)
    calling.peer.sendall(frame(DATA, 0, 1, prefixed(b"half heard")))

    with pytest.raises(KeyboardInterrupt):
        calling.link.receive(PATIENCE_S)

    assert not calling.link.is_usable
    assert ended(calling.link.receive) == (Code.UNAVAILABLE, "reading was interrupted")


class Interrupting:
    """A socket whose sending is interrupted half way."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.shutdown = sock.shutdown
        self.close = sock.close

    def send(self, data: memoryview) -> int:
        self._sock.send(data[: len(data) // 2])
        raise KeyboardInterrupt


def test_who_is_interrupted_while_sending_breaks_the_link(
    calling: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calling.link, "_sock", Interrupting(calling.link._sock))

    with pytest.raises(KeyboardInterrupt):
        calling.link.send(b"half said")

    assert not calling.link.is_usable
    assert ended(lambda: calling.link.send(b"more")) == (
        Code.UNAVAILABLE,
        "sending was interrupted",
    )


@pytest.mark.parametrize("method", ["send", "take"])
def test_what_was_made_ready_to_be_sent_is_not_lost_unnoticed(
    calling: Pair, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    real = getattr(ClientConnection, method)

    def interrupted(*args: object, **options: object) -> object:
        real(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(ClientConnection, method, interrupted)

    with pytest.raises(KeyboardInterrupt):
        calling.link.send(b"said or not")

    assert not calling.link.is_usable


class Polled:
    """Tells that somebody waits."""

    def __init__(self, readable: "select.poll") -> None:
        self._readable = readable
        self.is_waiting = threading.Event()

    def poll(self, timeout_ms: int) -> list[tuple[int, int]]:
        self.is_waiting.set()
        return self._readable.poll(timeout_ms)


def test_who_shuts_a_link_wakes_its_reader(calling: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    polled = Polled(calling.link._readable)
    monkeypatch.setattr(calling.link, "_readable", polled)
    told: queue.SimpleQueue[CallEnded] = queue.SimpleQueue()

    def read() -> None:
        try:
            calling.link.receive()
        except CallEnded as exc:
            told.put(exc)

    reader = threading.Thread(target=read)
    reader.start()
    assert polled.is_waiting.wait(PATIENCE_S)

    calling.link.shut("enough")

    assert told.get(timeout=PATIENCE_S).details == "enough"
    reader.join()
    # Once more, and after its end, it does no harm.
    calling.link.close()
    calling.link.shut()


def test_who_sends_meanwhile_is_told_that_the_link_was_shut(calling: Pair) -> None:
    link: Link = calling.link
    link.shut()

    assert ended(lambda: link.send(b"late")) == (Code.UNAVAILABLE, "the connection was closed")
