"""The wire without a socket: against another implementation, and against peers that misbehave."""

import struct

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
import pytest
from hypothesis import given, settings, strategies as st

from qbroker.http2 import MESSAGE_BYTES_MAX, ClientConnection, Code, ProtocolError, Status

PATH = "/qbroker.v1.Producer/Publish"
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0,
    1,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
)
END_STREAM, END_HEADERS, PADDED, PRIORITY = 1, 4, 8, 32
ANSWER = [(":status", "200"), ("content-type", "application/grpc")]


def frame(type_: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes((type_, flags))
        + struct.pack(">I", stream)
        + payload
    )


def prefixed(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def headers(*more: tuple[str, str], answer: list[tuple[str, str]] = ANSWER) -> bytes:
    return hpack.Encoder().encode([*answer, *more])


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """What was sent, without the preface."""
    data = data.removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


@pytest.fixture
def calling() -> ClientConnection:
    """A connection that has been greeted and on which a call goes on."""
    connection = ClientConnection("broker:7450")
    connection.start(PATH)
    connection.receive(frame(SETTINGS))
    connection.take()
    return connection


# -- against another implementation --------------------------------------------------------------


class Peer:
    """A server made of h2: sends each message back, then ends the call."""

    def __init__(self, window: int, frame_bytes: int, count: int) -> None:
        self.connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self.connection.initiate_connection()
        names = h2.settings.SettingCodes
        self.connection.update_settings(
            {names.INITIAL_WINDOW_SIZE: window, names.MAX_FRAME_SIZE: frame_bytes}
        )
        self.headers: dict[str, str] = {}
        self.messages: list[bytes] = []
        self._count = count
        self._stream = 0
        self._buffer = b""
        self._unsent = b""

    def receive(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self._stream = event.stream_id
                self.headers = {str(name): str(value) for name, value in event.headers}
                self.connection.send_headers(event.stream_id, ANSWER)
            elif isinstance(event, h2.events.DataReceived):
                self.connection.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id
                )
                self._buffer += event.data
                self._cut()
        self._send()

    def _cut(self) -> None:
        while len(self._buffer) >= 5:
            end = 5 + int.from_bytes(self._buffer[1:5], "big")
            if len(self._buffer) < end:
                return
            self.messages.append(self._buffer[5:end])
            self._unsent += self._buffer[:end]
            self._buffer = self._buffer[end:]

    def _send(self) -> None:
        connection = self.connection
        if not self._stream:
            return
        while self._unsent:
            size = min(
                connection.local_flow_control_window(self._stream),
                connection.max_outbound_frame_size,
                len(self._unsent),
            )
            if size == 0:
                return
            connection.send_data(self._stream, self._unsent[:size])
            self._unsent = self._unsent[size:]
        if len(self.messages) == self._count:
            self._count = -1
            connection.send_headers(
                self._stream, [("grpc-status", "5"), ("grpc-message", "no%20such")], end_stream=True
            )


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 60_000), max_size=8),
    window=st.integers(1, 100_000),
    frame_bytes=st.integers(16_384, 40_000),
    cut=st.integers(1, 30_000),
)
def test_what_one_side_says_the_other_hears_in_any_windows_frames_and_pieces(
    sizes: list[int], window: int, frame_bytes: int, cut: int
) -> None:
    # A window of a few bytes would need a frame for each of them.
    window = max(window, sum(sizes) // 200)
    said = [bytes((number,)) * size for number, size in enumerate(sizes)]
    client = ClientConnection("broker:7450")
    server = Peer(window, frame_bytes, len(said))
    # The other implementation does not recover from a window that shrinks below what is under way.
    client.receive(server.connection.data_to_send())
    server.receive(client.take())
    client.start(PATH, timeout_ms=1_500)
    heard: list[bytes] = []

    for message in said:
        client.send(message)
    while True:
        there = client.take()
        for place in range(0, len(there), cut):
            server.receive(there[place : place + cut])
        back = server.connection.data_to_send()
        for place in range(0, len(back), cut):
            heard += client.receive(back[place : place + cut])
        if not there and not back:
            break

    assert server.messages == said == heard
    assert client.status == Status(Code.NOT_FOUND, "no such")
    assert server.headers[":path"] == PATH
    assert server.headers["grpc-timeout"] == "1500m"


def test_a_large_message_has_the_window_opened_again(calling: ClientConnection) -> None:
    message = bytes(10 * 1024 * 1024)
    body = prefixed(message)
    calling.receive(frame(HEADERS, END_HEADERS, 1, headers()))
    heard: list[bytes] = []
    opened = {0: 0, 1: 0}

    for place in range(0, len(body), 200_000):
        heard += calling.receive(frame(DATA, 0, 1, body[place : place + 200_000]))
        for type_, _, stream, payload in frames(calling.take()):
            assert type_ == WINDOW_UPDATE
            opened[stream] += int.from_bytes(payload, "big")

    assert heard == [message]
    assert min(opened.values()) > len(body) // 2


# -- the parts of an answer ----------------------------------------------------------------------


def test_calls_follow_each_other_on_a_connection(calling: ClientConnection) -> None:
    calling.send(b"one", is_last=True)
    calling.receive(frame(HEADERS, END_HEADERS, 1, headers()))
    assert calling.receive(frame(DATA, 0, 1, prefixed(b"uno"))) == [b"uno"]
    calling.receive(frame(HEADERS, END_HEADERS | END_STREAM, 1, headers(("grpc-status", "0"))))
    ended = calling.status
    assert ended == Status(Code.OK, "")
    calling.take()

    calling.start(PATH)
    calling.send(b"two", is_last=True)

    assert calling.status is None
    assert [(type_, flags, stream) for type_, flags, stream, _ in frames(calling.take())] == [
        (HEADERS, END_HEADERS, 3),
        (DATA, END_STREAM, 3),
    ]
    # What still comes for the first is passed over.
    assert calling.receive(frame(DATA, 0, 1, prefixed(b"late"))) == []
    assert calling.receive(frame(DATA, 0, 3, prefixed(b"dos"))) == [b"dos"]


def test_a_call_that_ends_before_all_was_said_is_reset(calling: ClientConnection) -> None:
    calling.send(b"more follows")
    calling.take()

    calling.receive(frame(HEADERS, END_HEADERS | END_STREAM, 1, headers(("grpc-status", "8"))))

    assert calling.status == Status(Code.RESOURCE_EXHAUSTED, "")
    assert [type_ for type_, *_ in frames(calling.take())] == [RST_STREAM]
    calling.send(b"nobody hears this")
    assert calling.take() == b""


def test_padding_priority_and_continued_headers_are_understood(calling: ClientConnection) -> None:
    block = headers()
    calling.receive(frame(HEADERS, PADDED | PRIORITY, 1, b"\3" + bytes(5) + block[:4] + bytes(3)))
    calling.receive(frame(CONTINUATION, END_HEADERS, 1, block[4:]))

    assert calling.is_answered
    assert calling.receive(frame(DATA, PADDED, 1, b"\2" + prefixed(b"x") + bytes(2))) == [b"x"]


def test_a_ping_is_answered_in_its_words(calling: ClientConnection) -> None:
    calling.receive(frame(PING, 0, 0, b"whoisit?"))

    assert calling.has_words
    assert frames(calling.take()) == [(PING, 1, 0, b"whoisit?")]
    calling.ping()
    assert frames(calling.take()) == [(PING, 0, 0, bytes(8))]
    calling.receive(frame(PING, 1, 0, bytes(8)))
    assert calling.take() == b""


def test_frames_of_unknown_types_are_passed_over(calling: ClientConnection) -> None:
    assert calling.receive(frame(99, 0, 7, b"from the future")) == []


def test_a_smaller_window_holds_back_what_was_not_sent(calling: ClientConnection) -> None:
    calling.receive(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 10)))
    calling.take()

    calling.send(b"0123456789")

    was_held_up = calling.is_held_up
    assert frames(calling.take()) == [(DATA, 0, 1, prefixed(b"0123456789")[:10])]
    calling.receive(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 100)))
    assert (was_held_up, calling.is_held_up) == (True, False)
    assert frames(calling.take()) == [(DATA, 0, 1, b"56789")]


# -- how a call ends -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                headers(("grpc-status", "3"), ("grpc-message", "caf%C3%A9 100%25")),
            ),
            Status(Code.INVALID_ARGUMENT, "café 100%"),
        ),
        (
            frame(HEADERS, END_HEADERS | END_STREAM, 1, headers(("grpc-status", "77"))),
            Status(Code.UNKNOWN, ""),
        ),
        (
            frame(HEADERS, END_HEADERS, 1, headers(answer=[(":status", "404")])),
            Status(
                Code.UNIMPLEMENTED,
                "what listens there does not speak gRPC: it answered with HTTP status 404",
            ),
        ),
        (
            frame(
                HEADERS,
                END_HEADERS,
                1,
                headers(answer=[(":status", "200"), ("content-type", "text/html")]),
            ),
            Status(
                Code.UNKNOWN,
                "what listens there does not speak gRPC: it answered with HTTP status 200",
            ),
        ),
        (
            frame(HEADERS, END_HEADERS, 1, headers()) + frame(DATA, END_STREAM, 1),
            Status(Code.UNKNOWN, "the answer ended without a status"),
        ),
        (
            frame(RST_STREAM, 0, 1, struct.pack(">I", 7)),
            Status(Code.UNAVAILABLE, "stream was reset, code 7"),
        ),
        (
            frame(RST_STREAM, 0, 1, struct.pack(">I", 2)),
            Status(Code.INTERNAL, "stream was reset, code 2"),
        ),
        (
            frame(GOAWAY, 0, 0, struct.pack(">II", 0, 11) + b"too_many_pings"),
            Status(Code.UNAVAILABLE, "too_many_pings"),
        ),
        (
            frame(DATA, 0, 1, struct.pack(">BI", 1, 3) + b"abc"),
            Status(Code.INTERNAL, "a message is compressed, and was not to be"),
        ),
        (
            frame(DATA, 0, 1, struct.pack(">BI", 0, MESSAGE_BYTES_MAX + 1)),
            Status(
                Code.RESOURCE_EXHAUSTED,
                f"a message of {MESSAGE_BYTES_MAX + 1} bytes is larger than {MESSAGE_BYTES_MAX}",
            ),
        ),
    ],
)
def test_every_end_of_a_call_has_a_code_and_words(
    calling: ClientConnection, raw: bytes, status: Status
) -> None:
    calling.receive(raw)

    assert calling.status == status


@pytest.mark.parametrize(
    "raw",
    [
        frame(GOAWAY, 0, 0, struct.pack(">II", 0, 11) + "\x1b]0;owned\x07\n\u202e".encode()),
        frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            headers(("grpc-status", "3"), ("grpc-message", "%1B]0;owned%07%0A%E2%80%AE")),
        ),
    ],
    ids=["goaway", "grpc-message"],
)
def test_what_a_peer_says_cannot_drive_the_terminal_that_shows_it(
    calling: ClientConnection, raw: bytes
) -> None:
    calling.receive(raw)

    assert calling.status is not None
    assert calling.status.details == r"\x1b]0;owned\x07\n\u202e"


def test_a_farewell_lets_the_call_end_and_no_other_begin(calling: ClientConnection) -> None:
    calling.receive(frame(GOAWAY, 0, 0, struct.pack(">II", 1, 0)))

    assert calling.status is None
    assert not calling.is_usable
    assert calling.receive(frame(DATA, 0, 1, prefixed(b"still"))) == [b"still"]


# -- peers that misbehave ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak HTTP/2"),
        (b"-ERR unknown command 'PRI'\r\n", "does not speak HTTP/2"),
        (frame(SETTINGS, 0, 0, b"12345"), "settings are broken off"),
        (frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 3)), "frames cannot have up to 3"),
        (frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31)), "is too large"),
        (frame(SETTINGS) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)), "a window"),
        (frame(SETTINGS) + frame(WINDOW_UPDATE, 0, 0, b"1"), "broken off"),
        (frame(SETTINGS) + frame(PING, 0, 0, b"1"), "a ping has 8 bytes"),
        (frame(SETTINGS) + frame(PUSH_PROMISE, 0, 1, b"1234"), "nothing was to be pushed"),
        (frame(SETTINGS) + frame(CONTINUATION, 0, 1, b"1234"), "never began"),
        (frame(SETTINGS) + frame(HEADERS, 0, 1, b"1") + frame(PING), "headers were broken off"),
        (frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff"), "cannot be read"),
        (frame(SETTINGS) + frame(DATA, PADDED, 1, b"\x09abc"), "nothing but padding"),
        (frame(SETTINGS) + b"\xff\xff\xff" + bytes(6), "too large"),
        (
            frame(SETTINGS)
            + frame(HEADERS, 0, 1, bytes(200_000))
            + frame(CONTINUATION, 0, 1, bytes(200_000)),
            "headers are too long",
        ),
    ],
)
def test_what_the_standard_does_not_allow_ends_the_connection(raw: bytes, words: str) -> None:
    connection = ClientConnection("broker:7450")
    connection.start(PATH)

    with pytest.raises(ProtocolError, match=words):
        connection.receive(raw)


@given(
    garbage=st.lists(
        st.one_of(
            st.binary(max_size=64),
            st.builds(
                frame,
                st.integers(0, 11),
                st.integers(0, 255),
                st.integers(0, 4),
                st.binary(max_size=40),
            ),
        ),
        max_size=12,
    )
)
def test_garbage_is_a_protocol_error_or_nothing(garbage: list[bytes]) -> None:
    connection = ClientConnection("broker:7450")
    connection.start(PATH)
    connection.send(b"something")

    try:
        connection.receive(frame(SETTINGS))
        for part in garbage:
            connection.receive(part)
            connection.send(b"more")
            connection.take()
    except ProtocolError:
        pass
