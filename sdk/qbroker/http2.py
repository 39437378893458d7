"""The client's side of gRPC over HTTP/2 as a state machine: messages in, bytes out, and the other way round.

It has no socket, so the SDK's threads and a worker's event loop can drive it alike. It covers what they
need: calls of all four kinds, one at a time on a connection, without TLS and without compression.
`Silence` holds the one rule by which both of them find out that a connection is dead.
Sources: RFC 9113 (HTTP/2), RFC 7541 (HPACK) and gRPC's PROTOCOL-HTTP2.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, IntEnum, auto
from typing import NamedTuple, cast
from urllib.parse import unquote

import hpack

from qbroker_proto import names

MIB = 1024 * 1024

MESSAGE_BYTES_MAX = 16 * MIB
"""The largest message that is taken in."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_DATA, _HEADERS, _, _RST_STREAM, _SETTINGS = range(5)
_PUSH_PROMISE, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = range(5, 10)

_ACK = _END_STREAM = 0x1
_END_HEADERS = 0x4
_PADDED = 0x8
_PRIORITIZED = 0x20

_ENABLE_PUSH, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 2, 4, 5

_WINDOW_FIRST = 65_535
"""What either side may send before the other has said a word: the standard's figure."""
_WINDOW_MAX = 2**31 - 1
_FRAME_BYTES_FIRST = 16_384
"""The largest frame either side may send before the other has said more: the standard's figure."""
_FRAME_BYTES_MAX = 2**24 - 1

_WINDOW = 8 * MIB
"""What the peer may send before it is told that some of it was taken in."""
_FRAME_BYTES = 256 * 1024
"""The largest frame that is taken in; few large ones cost less than many small ones."""
_HEADERS_BYTES_MAX = 256 * 1024

_PART_BYTES_MIN = 1024
"""So many bytes of a frame that has not ended yet count as a sign of life."""

_REFUSED_STREAM = 0x7
_CANCEL = 0x8
_HEAD = struct.Struct(">BHBBL")
"""A frame's head: its length in two parts, its type, its flags, its stream."""
_SETTING = struct.Struct(">HL")
_U32 = struct.Struct(">L")
_PREFIX = struct.Struct(">BL")
"""What stands before each message: whether it is compressed, and its length."""


class Code(IntEnum):
    """How a call ended: gRPC's status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_OF_HTTP = {
    "400": Code.INTERNAL,
    "401": Code.UNAUTHENTICATED,
    "403": Code.PERMISSION_DENIED,
    "404": Code.UNIMPLEMENTED,
    "429": Code.UNAVAILABLE,
    "502": Code.UNAVAILABLE,
    "503": Code.UNAVAILABLE,
    "504": Code.UNAVAILABLE,
}
"""What an answer of something else than gRPC means, a proxy's maybe."""

_OF_RESET = {
    0x7: Code.UNAVAILABLE,
    0x8: Code.CANCELLED,
    0xB: Code.RESOURCE_EXHAUSTED,
    0xC: Code.PERMISSION_DENIED,
}
"""What HTTP/2's codes of a reset stream mean: refused, cancelled, calm down, not safe enough."""


class Status(NamedTuple):
    """How a call ended, and what the peer said of it."""

    code: Code
    details: str


class Patience(NamedTuple):
    """How long a connection bears the silence of its peer, in seconds."""

    silence_s: float = 0.75
    """Silence after which the peer is pinged, while an answer of the peer is due. Default: 0.75."""
    idle_s: float = 30.0
    """Silence after which the peer is pinged, while no answer is due. Default: 30."""
    answer_s: float = 2.0
    """The longest wait for the answer to a ping, or for the peer's first word. Default: 2."""


PATIENCE = Patience()
"""A dead connection is found out within 2.75 s while somebody waits."""


class Look(Enum):
    """What a look at a silent peer comes to."""

    WAIT = auto()
    PING = auto()
    GIVE_UP = auto()


class Silence:
    """When a silent peer is pinged, and when its connection is given up.

    A peer lives as long as it says something (see `ClientConnection.has_heard`). It also lives as long as the bytes on their way to it
    become fewer: on a slow line, the answer to a ping comes only after a large message went through.
    """

    def __init__(self, patience: Patience, now_s: float) -> None:
        self.patience = patience
        # The peer's first word is due like the answer to a ping.
        self._is_pinged = True
        self._since_s = now_s
        self._unacked_bytes = 0

    def heard(self, now_s: float) -> None:
        """Note that the peer said something."""
        self._is_pinged = False
        self._since_s = now_s

    def due_s(self, *, is_awaited: bool) -> float:
        """The time of the next look. `is_awaited` says whether an answer of the peer is due."""
        if self._is_pinged:
            return self._since_s + self.patience.answer_s
        return self._since_s + (self.patience.silence_s if is_awaited else self.patience.idle_s)

    def look(self, now_s: float, *, is_awaited: bool, unacked_bytes: Callable[[], int]) -> Look:
        """What to do about the peer now; after PING, the caller sends one."""
        if now_s < self.due_s(is_awaited=is_awaited):
            return Look.WAIT
        unacked, before = unacked_bytes(), self._unacked_bytes
        self._unacked_bytes = unacked
        if not self._is_pinged:
            self._is_pinged = True
            self._since_s = now_s
            return Look.PING
        if 0 < unacked < before:
            self._since_s = now_s
            return Look.WAIT
        return Look.GIVE_UP


class ProtocolError(Exception):
    """The peer said what HTTP/2 or gRPC do not allow; the connection is of no more use."""


class ClientConnection:
    """One connection. After each method, what `take` gives is to be sent.

    Not safe to share between threads: who does holds a lock around it.
    """

    def __init__(self, authority: str) -> None:
        self.status: Status | None = None
        """How the call under way ended; None while it goes on."""
        self.is_usable = True
        """Whether another call may be started after the one under way."""
        self.is_untouched = False
        """Whether the peer said that it has not begun the call under way, so it can be made again."""
        self.has_heard = False
        """Whether what `receive` took in last shows that the peer hears and is understood.

        The peer's own pings do not: they come also where nothing reaches the peer. A few bytes of a frame
        that does not end do not either: where a damaged byte moved the frames' borders, the answers to
        pings are taken for the inside of a frame.
        """
        self._authority = authority
        self._out: list[bytes] = [
            _PREFACE,
            _frame(
                _SETTINGS,
                0,
                0,
                _SETTING.pack(_ENABLE_PUSH, 0)
                + _SETTING.pack(_INITIAL_WINDOW_SIZE, _WINDOW)
                + _SETTING.pack(_MAX_FRAME_SIZE, _FRAME_BYTES),
            ),
            _frame(_WINDOW_UPDATE, 0, 0, _U32.pack(_WINDOW - _WINDOW_FIRST)),
        ]
        self._decoder = hpack.Decoder()
        # The beginning of a frame whose end is still to come.
        self._in = b""
        self._in_counted_bytes = 0
        self._ping_count = 0
        self._is_greeted = False
        self._frame_bytes_max = _FRAME_BYTES_FIRST
        self._window_first = _WINDOW_FIRST
        self._window = _WINDOW_FIRST
        self._taken_in = 0
        # Headers whose end is still to come.
        self._block: bytearray | None = None
        self._block_stream = 0
        self._block_ends_stream = False
        self._stream = -1
        self._clear()

    def _clear(self) -> None:
        self._stream_window = self._window_first
        self._stream_taken_in = 0
        self._unsent: deque[memoryview] = deque()
        self._is_ending = False
        self._has_ended = False
        self._message = bytearray()
        self._headers: dict[str, str] = {}

    @property
    def is_greeted(self) -> bool:
        """Whether the peer has said its first word."""
        return self._is_greeted

    @property
    def is_answered(self) -> bool:
        """Whether the peer has begun to answer the call under way."""
        return bool(self._headers)

    # -- saying

    def start(self, path: str, timeout_ms: int | None = None) -> None:
        """Begin a call, of `/package.Service/Method`; the peer gives it up after `timeout_ms`."""
        if self._stream > 0 and self.status is None:
            raise AssertionError("one call at a time")
        self._stream += 2
        self.status = None
        self.is_untouched = False
        self._clear()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", self._authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "grpc-python-qbroker"),
        ]
        if timeout_ms is not None:
            # At most eight digits: a day and more.
            headers.append(("grpc-timeout", f"{min(timeout_ms, 99_999_999)}m"))
        block = b"".join(b"\0" + _literal(name) + _literal(value) for name, value in headers)
        self._out.append(_frame(_HEADERS, _END_HEADERS, self._stream, block))

    def send(self, message: bytes, *, is_last: bool = False) -> None:
        """Say a message of the call under way; after the last, nothing more is said."""
        if self.status is not None:
            return
        size = len(message) + 5
        self._is_ending = self._is_ending or is_last
        if (
            not self._unsent
            and size <= self._window
            and size <= self._stream_window
            and size <= self._frame_bytes_max
        ):
            self._window -= size
            self._stream_window -= size
            head = _HEAD.pack(size >> 16, size & 0xFFFF, _DATA, int(is_last), self._stream)
            self._out += (head, _PREFIX.pack(0, size - 5), message)
            self._has_ended = is_last
            return
        self._unsent.append(memoryview(_PREFIX.pack(0, size - 5) + message))
        self._send_on()

    def ping(self) -> None:
        """Have the peer say something."""
        self._out.append(_frame(_PING, 0, 0, bytes(8)))

    @property
    def is_held_up(self) -> bool:
        """Whether something is to be sent that the peer does not allow yet."""
        return bool(self._unsent)

    @property
    def has_words(self) -> bool:
        """Whether there is anything to be sent now."""
        return bool(self._out)

    def take(self) -> bytes:
        """The bytes that are to be sent now."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _send_on(self) -> None:
        """Say as much of what waits as the peer allows."""
        while self._unsent:
            size = min(
                len(self._unsent[0]), self._window, self._stream_window, self._frame_bytes_max
            )
            if size <= 0:
                return
            part = self._unsent[0][:size]
            if size == len(self._unsent[0]):
                self._unsent.popleft()
            else:
                self._unsent[0] = self._unsent[0][size:]
            self._window -= size
            self._stream_window -= size
            is_end = self._is_ending and not self._unsent
            self._has_ended = self._has_ended or is_end
            self._out.append(_head(size, _DATA, int(is_end), self._stream))
            self._out.append(cast("bytes", part))

    # -- hearing

    def receive(self, data: bytes) -> list[bytes]:
        """Take in what came; the messages of the call under way that are whole now.

        Raises ProtocolError.
        """
        messages: list[bytes] = []
        if self._in:
            data = self._in + data
        place = 0
        frame_count = 0
        self._ping_count = 0
        while len(data) - place >= _HEAD.size:
            high, low, type_, flags, stream = _HEAD.unpack_from(data, place)
            size = high << 16 | low
            if not self._is_greeted and type_ != _SETTINGS:
                raise ProtocolError("what listens there does not speak HTTP/2")
            if size > _FRAME_BYTES:
                raise ProtocolError(f"a frame of {size} bytes is too large")
            begin = place + _HEAD.size
            if len(data) < begin + size:
                break
            place = begin + size
            frame_count += 1
            self._hear(type_, flags, stream & 0x7FFF_FFFF, data[begin:place], messages)
        self._in = data[place:]
        if frame_count:
            self._in_counted_bytes = 0
        part_bytes = len(self._in) - self._in_counted_bytes
        self.has_heard = frame_count > self._ping_count or part_bytes >= _PART_BYTES_MIN
        if part_bytes >= _PART_BYTES_MIN:
            self._in_counted_bytes = len(self._in)
        return messages

    def _hear(
        self, type_: int, flags: int, stream: int, payload: bytes, messages: list[bytes]
    ) -> None:
        if self._block is not None and (type_ != _CONTINUATION or stream != self._block_stream):
            raise ProtocolError("headers were broken off")
        if type_ == _DATA:
            self._hear_data(flags, stream, payload, messages)
        elif type_ == _HEADERS:
            block = _unpadded(flags, payload)
            self._block = bytearray(block[5:] if flags & _PRIORITIZED else block)
            self._block_stream = stream
            self._block_ends_stream = bool(flags & _END_STREAM)
            self._hear_headers(flags)
        elif type_ == _CONTINUATION:
            if self._block is None:
                raise ProtocolError("headers go on that never began")
            self._block += payload
            self._hear_headers(flags)
        elif type_ == _SETTINGS:
            self._is_greeted = True
            if not flags & _ACK:
                self._hear_settings(payload)
        elif type_ == _WINDOW_UPDATE:
            self._hear_window(stream, _u32(payload, 0))
        elif type_ == _PING:
            if len(payload) != 8:
                raise ProtocolError("a ping has 8 bytes")
            if not flags & _ACK:
                self._ping_count += 1
                self._out.append(_frame(_PING, _ACK, 0, payload))
        elif type_ == _RST_STREAM:
            if stream == self._stream:
                code = _u32(payload, 0)
                self.is_untouched = self.status is None and code == _REFUSED_STREAM
                self._end(_OF_RESET.get(code, Code.INTERNAL), f"stream was reset, code {code}")
        elif type_ == _GOAWAY:
            self.is_usable = False
            if self._stream > _u32(payload, 0) & 0x7FFF_FFFF:
                said = names.escaped(payload[8:].decode("utf-8", "replace"))
                self.is_untouched = self.status is None
                self._end(Code.UNAVAILABLE, said or "the connection is being closed")
        elif type_ == _PUSH_PROMISE:
            raise ProtocolError("nothing was to be pushed")
        # Others are to be passed over, says the standard.

    def _hear_data(self, flags: int, stream: int, payload: bytes, messages: list[bytes]) -> None:
        self._taken_in += len(payload)
        if self._taken_in > _WINDOW // 2:
            self._out.append(_frame(_WINDOW_UPDATE, 0, 0, _U32.pack(self._taken_in)))
            self._taken_in = 0
        if stream != self._stream or self.status is not None:
            return
        self._stream_taken_in += len(payload)
        if self._stream_taken_in > _WINDOW // 2 and not flags & _END_STREAM:
            self._out.append(_frame(_WINDOW_UPDATE, 0, stream, _U32.pack(self._stream_taken_in)))
            self._stream_taken_in = 0
        if flags & _PADDED:
            payload = _unpadded(flags, payload)
        if not self._message and len(payload) == _whole_bytes(payload):
            messages.append(payload[_PREFIX.size :])
        else:
            self._message += payload
            self._cut(messages)
        if flags & _END_STREAM and self.status is None:
            self._end(Code.UNKNOWN, "the answer ended without a status")

    def _cut(self, messages: list[bytes]) -> None:
        buffer = self._message
        place = 0
        while len(buffer) - place >= _PREFIX.size:
            is_compressed, size = _PREFIX.unpack_from(buffer, place)
            if is_compressed:
                self._end(Code.INTERNAL, "a message is compressed, and was not to be")
                return
            if size > MESSAGE_BYTES_MAX:
                self._end(
                    Code.RESOURCE_EXHAUSTED,
                    f"a message of {size} bytes is larger than {MESSAGE_BYTES_MAX}",
                )
                return
            end = place + _PREFIX.size + size
            if len(buffer) < end:
                break
            messages.append(bytes(buffer[place + _PREFIX.size : end]))
            place = end
        del buffer[:place]

    def _hear_headers(self, flags: int) -> None:
        assert self._block is not None
        if len(self._block) > _HEADERS_BYTES_MAX:
            raise ProtocolError("headers are too long")
        if not flags & _END_HEADERS:
            return
        block, self._block = bytes(self._block), None
        try:
            headers = dict(cast("Iterable[tuple[str, str]]", self._decoder.decode(block)))
        except (hpack.HPACKError, UnicodeDecodeError) as exc:
            raise ProtocolError(f"headers cannot be read: {exc}") from exc
        if self._block_stream != self._stream or self.status is not None:
            return
        self._headers |= headers
        if self._block_ends_stream or not self._is_grpc():
            self._end(*_status(self._headers))

    def _is_grpc(self) -> bool:
        return self._headers.get(":status") == "200" and self._headers.get(
            "content-type", ""
        ).startswith("application/grpc")

    def _hear_settings(self, payload: bytes) -> None:
        if len(payload) % _SETTING.size:
            raise ProtocolError("settings are broken off")
        for name, value in _SETTING.iter_unpack(payload):
            if name == _INITIAL_WINDOW_SIZE:
                if value > _WINDOW_MAX:
                    raise ProtocolError(f"a window of {value} bytes is too large")
                self._stream_window += value - self._window_first
                self._window_first = value
            elif name == _MAX_FRAME_SIZE:
                if not _FRAME_BYTES_FIRST <= value <= _FRAME_BYTES_MAX:
                    raise ProtocolError(f"frames cannot have up to {value} bytes")
                self._frame_bytes_max = value
        self._out.append(_frame(_SETTINGS, _ACK, 0, b""))
        self._send_on()

    def _hear_window(self, stream: int, more: int) -> None:
        if stream == 0:
            self._window += more
        elif stream == self._stream:
            self._stream_window += more
        if max(self._window, self._stream_window) > _WINDOW_MAX:
            raise ProtocolError("a window is too large")
        self._send_on()

    def _end(self, code: Code, details: str) -> None:
        if self.status is not None:
            return
        self.status = Status(code, details)
        self._unsent.clear()
        if not self._has_ended:
            # What the peer has not heard to the end, it need not wait for.
            self._out.append(_frame(_RST_STREAM, 0, self._stream, _U32.pack(_CANCEL)))


def _head(size: int, type_: int, flags: int, stream: int) -> bytes:
    return _HEAD.pack(size >> 16, size & 0xFFFF, type_, flags, stream)


def _frame(type_: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _head(len(payload), type_, flags, stream) + payload


def _whole_bytes(payload: bytes) -> int:
    """How long the message is that begins here, if it is one that may be taken as it stands; else -1."""
    if len(payload) < _PREFIX.size or payload[0]:
        return -1
    return _PREFIX.size + int.from_bytes(payload[1 : _PREFIX.size], "big")


def _literal(text: str) -> bytes:
    """A string as HPACK has it, not compressed."""
    raw = text.encode()
    size = len(raw)
    if size < 0x7F:
        return bytes((size,)) + raw
    head = bytearray((0x7F,))
    size -= 0x7F
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + raw


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ProtocolError("a frame is nothing but padding")
    return payload[1 : len(payload) - payload[0]]


def _u32(payload: bytes, place: int) -> int:
    if len(payload) < place + 4:
        raise ProtocolError("a frame is broken off")
    return int.from_bytes(payload[place : place + 4], "big")


def _status(headers: dict[str, str]) -> Status:
    """What the headers at an answer's end say of it."""
    raw = headers.get("grpc-status", "")
    if raw.isdecimal():
        try:
            code = Code(int(raw))
        except ValueError:
            code = Code.UNKNOWN
        return Status(code, names.escaped(unquote(headers.get("grpc-message", ""))))
    http = headers.get(":status", "none")
    return Status(
        _OF_HTTP.get(http, Code.UNKNOWN),
        f"what listens there does not speak gRPC: it answered with HTTP status {names.escaped(http)}",
    )
