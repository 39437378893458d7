"""The socket under the SDK: peers that are not there, fall silent or misbehave, and who is interrupted."""

import contextlib
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

from qbroker.http2 import ClientConnection, Code, Patience
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


class Greeting:
    """Takes in one connection at a listener on a thread of its own, and says a first word there."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._peers: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._greet, daemon=True)
        self._thread.start()

    def _greet(self) -> None:
        peer, _ = self._listener.accept()
        peer.sendall(frame(SETTINGS))
        self._peers.put(peer)

    def peer(self) -> socket.socket:
        """The peer's end."""
        return self._peers.get(timeout=PATIENCE_S)


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class Pair:
    """A link and its peer's end."""

    def __init__(self, listener: socket.socket) -> None:
        greeting = Greeting(listener)
        self.link = connect("127.0.0.1", port_of(listener), PATIENCE_S)
        self.peer = greeting.peer()
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


@contextlib.contextmanager
def silent(
    patience: Patience, monotonic: Callable[[], float] = lambda: 0.0, **options: Callable[[], bool]
) -> Iterator[tuple[Link, socket.socket]]:
    """A link with that patience on which a call was started, and its peer's end, which says nothing yet."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.settimeout(PATIENCE_S)
    link = Link(near, "nobody", patience=patience, monotonic=monotonic, **options)
    with near, far:
        link.start(PATH)
        yield link, far


NO_PATIENCE = Patience(silence_s=0, idle_s=0, answer_s=0)


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
        greeting = Greeting(listener)

        link = connect("broker.invalid", 1, PATIENCE_S)

    # A link that is closed with unread bytes would be reset.
    peer = greeting.peer()
    peer.shutdown(socket.SHUT_WR)
    assert ended(link.receive) == (Code.UNAVAILABLE, "the broker closed the connection")
    link.close()
    peer.close()


def test_an_address_that_takes_the_connection_in_and_says_nothing_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        looks_up(monkeypatch, lambda: [address_of(mute), address_of(listener)])
        greeting = Greeting(listener)

        link = connect("broker.invalid", 1, 1.0)

    assert link.is_usable
    greeting.peer().close()
    link.close()


def test_a_connection_without_a_first_word_is_none(listener: socket.socket) -> None:
    def dial() -> None:
        connect("127.0.0.1", port_of(listener), PATIENCE_S, patience=NO_PATIENCE)

    assert ended(dial) == (Code.UNAVAILABLE, "no word for 0 s")


def test_the_first_word_must_come_within_the_time_to_connect(listener: socket.socket) -> None:
    assert ended(lambda: connect("127.0.0.1", port_of(listener), 0.05))[1].startswith(
        "no word within 0.0"
    )


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
        greeting = Greeting(listener)

        try:
            link = connect("broker.invalid", 1, 1.0)
        finally:
            for one in waiting:
                one.close()

    greeting.peer().close()
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
        greeting = Greeting(listener)
        link = connect("::1", port, PATIENCE_S)
        with greeting.peer() as peer:
            link.start(PATH)
            link.send(b"", is_last=True)
            said: list[tuple[int, int, int, bytes]] = []
            data = b""
            while DATA not in [type_ for type_, _, _, _ in said]:
                data += peer.recv(65_536)
                said = frames(data)
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


def test_time_is_kept_also_where_the_peer_says_much_that_is_no_message() -> None:
    clock = Clock()

    def talk() -> bool:
        # Called at each turn: a second passes, and there is more to read.
        clock.now_s += 1
        far.sendall(frame(PING, 0, 0, bytes(8)))
        return False

    with silent(Patience(), clock, is_awaited=talk) as (link, far):
        far.sendall(frame(SETTINGS))

        assert link.receive(10) == []

    assert clock.now_s <= 1_012


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


def test_a_peer_that_never_says_a_word_is_given_up() -> None:
    with silent(NO_PATIENCE) as (link, _):
        link.send(b"question")

        assert ended(link.receive) == (Code.UNAVAILABLE, "no word for 0 s")
        assert not link.is_usable
        assert ended(lambda: link.send(b"more")) == (Code.UNAVAILABLE, "no word for 0 s")


def test_a_peer_that_falls_silent_is_pinged_and_given_up() -> None:
    with silent(NO_PATIENCE) as (link, peer):
        peer.sendall(frame(SETTINGS))

        assert ended(link.receive) == (Code.UNAVAILABLE, "no word for 0 s")

        assert (PING, 0, 0, bytes(8)) in frames(peer.recv(65_536))


def test_a_dead_link_is_found_out_within_three_seconds_of_waiting() -> None:
    clock = Clock()
    with silent(Patience(), clock) as (link, peer):
        peer.sendall(frame(SETTINGS))
        link.receive(0)
        clock.now_s += 3_600
        began_s = clock.now_s
        link.send(b"question")

        link.receive(0)
        clock.now_s += 2

        assert ended(lambda: link.receive(0)) == (Code.UNAVAILABLE, "no word for 2 s")
    assert clock.now_s - began_s <= 3


def test_a_peer_that_answers_when_asked_is_kept() -> None:
    clock = Clock()
    with silent(Patience(), clock) as (link, peer):
        peer.sendall(frame(SETTINGS))
        link.receive(0)
        for _ in range(5):
            clock.now_s += 0.75
            link.receive(0)
            clock.now_s += 1.9
            peer.sendall(frame(PING, 1, 0, bytes(8)))

            assert link.receive(0) == []

        assert link.is_usable


def test_a_peer_that_only_pings_is_given_up_for_it_may_hear_nothing() -> None:
    clock = Clock()
    with silent(Patience(), clock) as (link, peer):
        peer.sendall(frame(SETTINGS))
        link.receive(0)
        clock.now_s += 1
        link.receive(0)
        clock.now_s += 2
        peer.sendall(frame(PING, 0, 0, b"it pings"))
        link.receive(0)

        assert ended(lambda: link.receive(0)) == (Code.UNAVAILABLE, "no word for 2 s")


def test_a_link_whose_frames_have_lost_their_borders_is_given_up() -> None:
    clock = Clock()
    with silent(Patience(), clock) as (link, peer):
        peer.sendall(frame(SETTINGS))
        link.receive(0)
        # A damaged length: what follows is taken for the inside of this frame.
        peer.sendall(struct.pack(">BHBBL", 3, 0, DATA, 0, 1))
        clock.now_s += 1
        link.receive(0)
        link.receive(0)
        clock.now_s += 2
        peer.sendall(frame(PING, 1, 0, bytes(8)))
        link.receive(0)

        assert ended(lambda: link.receive(0)) == (Code.UNAVAILABLE, "no word for 2 s")


def test_a_large_frame_that_comes_slowly_is_waited_for() -> None:
    clock = Clock()
    with silent(Patience(), clock) as (link, peer):
        peer.sendall(frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, headers()))
        link.receive(0)
        whole = frame(DATA, 0, 1, prefixed(bytes(20_000)))
        heard: list[bytes] = []
        for start in range(0, len(whole), 2_000):
            clock.now_s += 1.9
            peer.sendall(whole[start : start + 2_000])
            heard = link.receive(0) or link.receive(0)

    assert heard == [bytes(20_000)]


def test_while_nobody_waits_an_idle_link_is_let_be() -> None:
    clock = Clock()
    with silent(Patience(), clock, is_awaited=lambda: False) as (link, peer):
        peer.sendall(frame(SETTINGS))
        link.receive(0)
        clock.now_s += 29

        link.receive(0)

        assert PING not in [type_ for type_, _, _, _ in frames(peer.recv(65_536))]


def allow_everything(link: Link, peer: socket.socket) -> None:
    """Have the system's buffers alone hold up what the link sends."""
    peer.sendall(
        frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31 - 1))
        + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**30))
        + frame(HEADERS, END_HEADERS, 1, headers())
        + frame(DATA, 0, 1, prefixed(b"go on"))
    )
    assert link.receive(0) == [b"go on"]


def test_a_peer_that_takes_nothing_in_holds_up_no_sender_and_is_given_up() -> None:
    with silent(NO_PATIENCE) as (link, peer):
        allow_everything(link, peer)

        link.send(bytes(4 * 1024 * 1024))

        assert link.is_held_up
        assert ended(link.receive) == (Code.UNAVAILABLE, "no word for 0 s")
        assert not link.is_usable


def test_what_the_system_had_no_room_for_is_sent_by_the_reader() -> None:
    with silent(Patience()) as (link, peer):
        allow_everything(link, peer)
        message = bytes(4 * 1024 * 1024)
        link.send(message)
        link.send(b"after it", is_last=True)
        data = bytearray()

        while not data.endswith(prefixed(b"after it")):
            data += peer.recv(1024 * 1024)
            link.receive(0)

    assert not link.is_held_up
    assert sum(len(payload) for type_, _, _, payload in frames(bytes(data)) if type_ == DATA) == (
        len(prefixed(message)) + len(prefixed(b"after it"))
    )


def test_a_peer_that_takes_a_large_message_in_slowly_is_not_given_up() -> None:
    clock = Clock()
    with silent(Patience(), clock) as (link, peer):
        allow_everything(link, peer)
        link.send(bytes(4 * 1024 * 1024))

        for _ in range(4):
            clock.now_s += 2
            peer.recv(65_536)
            link.receive(0)

        assert link.is_usable


# -- peers that go away or are something else ----------------------------------------------------


def test_a_peer_that_closes_ends_the_call(calling: Pair) -> None:
    calling.peer.shutdown(socket.SHUT_WR)

    assert ended(calling.link.receive) == (Code.UNAVAILABLE, "the broker closed the connection")
    assert not calling.link.is_usable


def test_a_peer_that_resets_the_connection_ends_the_call(calling: Pair) -> None:
    calling.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    calling.peer.close()

    assert ended(calling.link.receive) == (Code.UNAVAILABLE, "Connection reset by peer")


def test_a_peer_that_speaks_something_else_ends_the_call() -> None:
    with silent(Patience()) as (link, peer):
        link.send(b"question")
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        assert ended(link.receive) == (
            Code.UNAVAILABLE,
            "what listens there does not speak HTTP/2",
        )
        assert not link.is_usable


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
