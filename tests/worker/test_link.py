"""The worker's socket: what it carries, how it ends, and what it does with a broker that falls silent."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
import pytest

from qbroker.http2 import PATIENCE, Code, Patience, Status
from qbroker.link import words
from qbroker_worker.link import Link, connect
from tests.worker.toys import PATIENCE_S

PATH = "/qbroker.v1.Worker/Work"
ANSWER = [(":status", "200"), ("content-type", "application/grpc")]
DATA, HEADERS, SETTINGS, WINDOW_UPDATE = 0, 1, 4, 8


class Peer:
    """A broker's end of one link, made of h2. What it hears is in `messages`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, window: int
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self.connection.initiate_connection()
        names = h2.settings.SettingCodes
        self.connection.update_settings({names.INITIAL_WINDOW_SIZE: window})
        self.headers: dict[str, str] = {}
        self.messages: list[bytes] = []
        self.pings = 0
        self.is_reset = False
        self.is_gone = False
        self.takes_in = True
        self._held = 0
        self._stream = 0
        self._buffer = b""
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Hear the client out."""
        self.flush()
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(65_536):
                for event in self.connection.receive_data(data):
                    self._hear(event)
                self.flush()
                self._news.set()
        self.is_gone = True
        self._news.set()

    def flush(self) -> None:
        """Say what is to be said."""
        self._writer.write(self.connection.data_to_send())

    def _hear(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._stream = event.stream_id
            self.headers = dict(event.headers)  # type: ignore[arg-type] # they are decoded
            self.connection.send_headers(self._stream, ANSWER)
        elif isinstance(event, h2.events.DataReceived):
            self._held += event.flow_controlled_length or 0
            self._buffer += event.data or b""
            while len(self._buffer) >= 5:
                end = 5 + int.from_bytes(self._buffer[1:5], "big")
                if len(self._buffer) < end:
                    break
                self.messages.append(self._buffer[5:end])
                self._buffer = self._buffer[end:]
            if self.takes_in:
                self.take_in()
        elif isinstance(event, h2.events.PingReceived):
            self.pings += 1
        elif isinstance(event, h2.events.StreamReset):
            self.is_reset = True

    def take_in(self) -> None:
        """Allow the client as much again as it has said."""
        if self._held:
            self.connection.acknowledge_received_data(self._held, self._stream)
            self._held = 0
        self.flush()

    def say(self, message: bytes) -> None:
        """Say a message."""
        data = struct.pack(">BI", 0, len(message)) + message
        size = self.connection.max_outbound_frame_size
        for place in range(0, len(data), size):
            self.connection.send_data(self._stream, data[place : place + size])
        self.flush()

    def end(self, code: Code, details: str) -> None:
        """End the call."""
        self.connection.send_headers(
            self._stream,
            [("grpc-status", str(code.value)), ("grpc-message", details)],
            end_stream=True,
        )
        self.flush()

    def close(self) -> None:
        """End the connection."""
        self._writer.close()

    async def until(self, is_so: Callable[["Peer"], bool]) -> None:
        """Wait until what was heard makes it so."""
        async with asyncio.timeout(PATIENCE_S):
            while not is_so(self):
                self._news.clear()
                await self._news.wait()


async def gone(writer: asyncio.StreamWriter) -> None:
    """End a peer's connection, and wait until nothing is left of it."""
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(serve: Serve, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """The port where this is done for one connection, which is over then."""
    is_over = asyncio.Event()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            await gone(writer)
            is_over.set()

    async with await asyncio.start_server(once, host, 0) as server:
        yield server.sockets[0].getsockname()[1]
        async with asyncio.timeout(PATIENCE_S):
            await is_over.wait()


@contextlib.asynccontextmanager
async def linked(
    window: int = 65_535,
    *,
    patience: Patience = PATIENCE,
    monotonic: Callable[[], float] | None = None,
) -> AsyncIterator[tuple[Link, Peer]]:
    """A link on which the call has begun, and its peer."""
    peers: asyncio.Queue[Peer] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, window)
        peers.put_nowait(peer)
        await peer.run()

    async with serving(serve) as port:
        link = await connect("127.0.0.1", port, PATH, patience=patience, monotonic=monotonic)
        peer = await peers.get()
        await peer.until(lambda peer: bool(peer.headers))
        try:
            yield link, peer
        finally:
            link.close()


@contextlib.asynccontextmanager
async def mute(first: bytes = b"") -> AsyncIterator[int]:
    """The port of a peer that says these bytes, reads nothing and never says more."""
    is_over = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined] # a stream's can be paused
        writer.write(first)
        await is_over.wait()

    async with serving(serve) as port:
        try:
            yield port
        finally:
            is_over.set()


async def acquainted(link: Link, peer: Peer) -> None:
    """Once this has been awaited, each knows all that the other said when the link was made."""
    for number in range(1, 3):
        await link.write(b"hello")
        await peer.until(lambda peer: len(peer.messages) == number)  # noqa: B023 - awaited here
        peer.say(b"hello")
        assert await soon(link.read()) == b"hello"
    peer.messages.clear()


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


OFTEN = Patience(silence_s=0.01, idle_s=0.01, answer_s=0.01)
"""Has a link look at its peer again and again; what it finds then depends on a clock that stands still."""


async def soon(waited: Awaitable[bytes | None]) -> bytes | None:
    async with asyncio.timeout(PATIENCE_S):
        return await waited


# -- talking -------------------------------------------------------------------------------------


async def test_messages_go_both_ways_in_order() -> None:
    async with linked() as (link, peer):
        said = [b"%d" % number * 100 for number in range(50)]
        for message in said:
            await link.write(message)
        await peer.until(lambda peer: len(peer.messages) == 50)
        for message in said:
            peer.say(message)
        heard = [await soon(link.read()) for _ in said]

    assert peer.messages == said == heard
    assert peer.headers[":path"] == PATH
    assert "grpc-timeout" not in peer.headers


async def test_who_reads_waits_for_the_message() -> None:
    async with linked() as (link, peer), asyncio.TaskGroup() as group:
        reading = group.create_task(link.read())
        await link.write(b"go on")
        await peer.until(lambda peer: bool(peer.messages))
        assert not reading.done()

        peer.say(b"at last")

        assert await soon(reading) == b"at last"


async def test_the_end_comes_after_the_messages_with_its_code_and_words() -> None:
    async with linked() as (link, peer):
        assert link.status == Status(Code.UNKNOWN, "the call goes on")
        peer.say(b"one")
        peer.say(b"two")
        peer.end(Code.PERMISSION_DENIED, "not%20you")

        assert [await soon(link.read()) for _ in range(4)] == [b"one", b"two", None, None]
        assert link.status == Status(Code.PERMISSION_DENIED, "not you")
        # Nobody hears it, and nobody is held up by it.
        await link.write(b"late")
        await peer.until(lambda peer: peer.is_gone)
    assert peer.messages == []


async def test_a_peer_that_closes_ends_the_call() -> None:
    async with linked() as (link, peer):
        await acquainted(link, peer)

        peer.close()

        assert await soon(link.read()) is None
        assert link.status == Status(Code.UNAVAILABLE, "the broker closed the connection")


async def test_a_peer_that_resets_the_connection_ends_the_call_with_the_systems_words() -> None:
    async with linked() as (link, peer):
        sock = peer._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer._writer.transport.abort()

        assert await soon(link.read()) is None
        assert link.status == Status(Code.UNAVAILABLE, "Connection reset by peer")


async def test_a_peer_that_speaks_something_else_ends_the_call() -> None:
    async with mute(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        with pytest.raises(ConnectionError, match="what listens there does not speak HTTP/2"):
            await connect("127.0.0.1", port, PATH)


async def test_closing_ends_the_call_for_who_reads_and_for_the_peer() -> None:
    async with linked() as (link, peer), asyncio.TaskGroup() as group:
        reading = group.create_task(link.read())
        await link.write(b"last words")

        link.close()

        assert await soon(reading) is None
        assert link.status == Status(Code.CANCELLED, "the worker ended the call")
        await peer.until(lambda peer: peer.is_gone)
        # Once more does no harm.
        link.close()
    # What was said before went out first.
    assert peer.messages == [b"last words"]


# -- room ----------------------------------------------------------------------------------------


async def test_who_writes_waits_for_room() -> None:
    async with linked(window=100) as (link, peer), asyncio.TaskGroup() as group:
        await acquainted(link, peer)
        peer.takes_in = False

        writing = group.create_task(link.write(bytes(150)))
        await peer.until(lambda peer: len(peer._buffer) > 0)
        assert not writing.done()
        peer.takes_in = True
        peer.take_in()

        async with asyncio.timeout(PATIENCE_S):
            await writing
        await peer.until(lambda peer: bool(peer.messages))
    assert peer.messages == [bytes(150)]


async def test_who_waits_for_room_does_so_no_longer_when_the_call_ends() -> None:
    async with linked(window=100) as (link, peer), asyncio.TaskGroup() as group:
        await acquainted(link, peer)
        peer.takes_in = False
        writing = group.create_task(link.write(bytes(150)))
        await peer.until(lambda peer: len(peer._buffer) > 0)
        assert not writing.done()

        peer.end(Code.UNAVAILABLE, "restarting")

        async with asyncio.timeout(PATIENCE_S):
            await writing
        assert await soon(link.read()) is None
        assert link.status == Status(Code.UNAVAILABLE, "restarting")


def frame(type_: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">HBBBL", 0, len(payload), type_, flags, stream) + payload


OPEN = (
    frame(SETTINGS, 0, 0, struct.pack(">HL", 4, 2**31 - 1))
    + frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", 2**30))
    + frame(HEADERS, 4, 1, hpack.Encoder().encode(ANSWER))
    + frame(DATA, 0, 1, struct.pack(">BL", 0, 4) + b"open")
)
"""All that HTTP/2 allows, and a message: what holds up the client then are the system's buffers."""


async def full(link: Link) -> asyncio.Transport:
    """Say more than the system's buffers hold, once the peer has allowed it."""
    assert await soon(link.read()) == b"open"
    transport = link._transport
    assert transport is not None
    link._connection.send(bytes(64 * 1024 * 1024))
    link._flush()
    assert transport.get_write_buffer_size() > 0
    return transport


async def test_who_writes_waits_for_the_systems_room_as_well() -> None:
    async with mute(OPEN) as port, asyncio.TaskGroup() as group:
        link = await connect("127.0.0.1", port, PATH)
        transport = await full(link)
        writing = group.create_task(link.write(b"more"))
        # Once to begin, once to be sure that it waits.
        for _ in range(2):
            await asyncio.sleep(0)
        assert not writing.done()

        link.close()

        async with asyncio.timeout(PATIENCE_S):
            await writing
        transport.abort()


# -- silence -------------------------------------------------------------------------------------


async def test_a_peer_that_never_says_a_word_is_given_up() -> None:
    async with mute() as port:
        with pytest.raises(ConnectionError, match="no word for 0 s"):
            await connect("127.0.0.1", port, PATH, patience=Patience(answer_s=0))


async def test_a_peer_that_falls_silent_is_pinged_and_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    async with linked(patience=OFTEN, monotonic=clock) as (link, peer):
        await acquainted(link, peer)
        # It hears, and does not answer.
        monkeypatch.setattr(peer, "flush", lambda: None)
        clock.now_s += 1
        await peer.until(lambda peer: peer.pings > 0)
        clock.now_s += 1

        assert await soon(link.read()) is None
        assert link.status == Status(Code.UNAVAILABLE, "no word for 0.01 s")


async def test_a_peer_that_answers_when_asked_is_kept() -> None:
    clock = Clock()
    async with linked(patience=OFTEN, monotonic=clock) as (link, peer):
        await acquainted(link, peer)
        for number in range(1, 4):
            clock.now_s += 1
            await peer.until(lambda peer: peer.pings == number)  # noqa: B023 - awaited here
            # After the answer to the ping.
            peer.say(b"still here")

            assert await soon(link.read()) == b"still here"


async def test_a_link_that_was_given_up_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where something is still to be said: a broker that was stopped in its tracks takes it in never."""
    clock = Clock()
    async with mute(OPEN) as port:
        link = await connect("127.0.0.1", port, PATH, patience=OFTEN, monotonic=clock)
        transport = await full(link)
        sock = transport.get_extra_info("socket")
        lost = asyncio.Event()
        monkeypatch.setattr(link, "connection_lost", lambda _: lost.set())

        async def hurry() -> None:
            while link.status.code is Code.UNKNOWN:
                clock.now_s += 1
                await asyncio.sleep(OFTEN.answer_s)

        async with asyncio.timeout(PATIENCE_S):
            await hurry()
            await lost.wait()
        assert link.status.details == "no word for 0.01 s"
        assert sock.fileno() == -1


# -- connecting ----------------------------------------------------------------------------------


async def test_a_refused_connection_is_an_error_with_the_systems_words() -> None:
    with socket.socket() as taken:
        # Bound, so nobody else gets the port, but not listening.
        taken.bind(("127.0.0.1", 0))

        with pytest.raises(OSError) as caught:  # noqa: PT011 - its words are looked at
            await connect("127.0.0.1", taken.getsockname()[1], PATH)

    assert words(caught.value) == "Connection refused"


async def test_a_peer_that_does_not_take_the_connection_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        # Its queue is full, so the system leaves who comes next without an answer.
        waiting = [socket.socket() for _ in range(2)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(silent.getsockname())
        try:
            with pytest.raises(TimeoutError) as caught:
                await connect("127.0.0.1", silent.getsockname()[1], PATH, timeout_s=0.1)
        finally:
            for one in waiting:
                one.close()

    assert words(caught.value) == "Connection timed out"


async def test_an_ipv6_address_stands_in_brackets() -> None:
    said = bytearray()
    heard = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(SETTINGS, 0, 0, b""))
        while b"[::1]:" not in said and (data := await reader.read(65_536)):
            said.extend(data)
        heard.set()

    async with contextlib.AsyncExitStack() as stack:
        try:
            port = await stack.enter_async_context(serving(serve, "::1"))
        except OSError:
            pytest.skip("no IPv6 here")
        link = await connect("::1", port, PATH)
        async with asyncio.timeout(PATIENCE_S):
            await heard.wait()
        link.close()

    assert f"[::1]:{port}".encode() in said
