"""A store with something of every kind in it, and ways to damage a page of its file."""

import random
import struct
from collections.abc import Callable
from pathlib import Path

from qbroker_server.core import keys
from qbroker_server.core.lease import Outcome
from qbroker_server.engines.lmdb import LmdbEngine
from tests.support.scene import Scene, new

PAGE_BYTES = 4096
MESSAGE_COUNT = 3_000


def build(directory: Path) -> None:
    """Make a store with 3,000 waiting messages, and some in every other stage."""
    engine = LmdbEngine(directory)
    scene = Scene(engine)
    scene.register(prefetch_count=6)
    scene.publish(*(new(f"early{number}") for number in range(6)))
    deliveries = scene.take()
    scene.report(prefetch_count=0)
    scene.settle(deliveries[0])
    scene.settle(deliveries[1], result=b"r" * 9_000)
    scene.settle(deliveries[2], Outcome.REJECTED)
    scene.start(deliveries[3])
    for start in range(0, MESSAGE_COUNT, 500):
        scene.publish(*(new(f"m{start + number:05}") for number in range(500)))
    scene.publish(
        *(new(f"large{number:03}", payload=b"%03d" % number * 4_000) for number in range(60))
    )
    scene.publish(
        *(new(f"later{number:03}", eta_ms=scene.now_ms + 60_000) for number in range(300))
    )
    scene.publish(
        *(new(f"short{number:03}", expires_ms=scene.now_ms + 60_000) for number in range(50))
    )
    engine.close()


def used_pages(file: Path) -> dict[int, tuple[int, bytes]]:
    """Kind and family of each branch and leaf page in use of a whole store, by number."""
    raw = file.read_bytes()
    metas = [(struct.unpack_from("<Q", raw, at + 144)[0], at) for at in (0, PAGE_BYTES)]
    _, at = max(metas)
    (root,) = struct.unpack_from("<Q", raw, at + 16 + 24 + 48 + 40)
    found: dict[int, tuple[int, bytes]] = {}
    waiting = [root]
    while waiting:
        number = waiting.pop()
        start = number * PAGE_BYTES
        _, _, kind, lower, _ = struct.unpack_from("<QHHHH", raw, start)
        places = struct.unpack_from(f"<{(lower - 16) // 2}H", raw, start + 16)
        low, high, flags, size = struct.unpack_from("<HHHH", raw, start + places[-1])
        key = raw[start + places[-1] + 8 :][:size]
        found[number] = (kind, key[: len(keys.MESSAGE)])
        if kind == 1:
            for place in places:
                low, high, flags, _ = struct.unpack_from("<HHHH", raw, start + place)
                waiting.append(low | high << 16 | flags << 32)
    return found


def zero(page: bytes) -> bytes:
    return bytes(len(page))


def scramble(page: bytes) -> bytes:
    return random.Random(1).randbytes(len(page))


def flip(page: bytes) -> bytes:
    """One bit of the header, of the node pointers and of the rows."""
    damaged = bytearray(page)
    for at in (10, 20, 3_000):
        damaged[at] ^= 64
    return bytes(damaged)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {"zeroed": zero, "random": scramble, "flipped": flip}


def damage(file: Path, number: int, how: Callable[[bytes], bytes]) -> None:
    """Damage one page of the file."""
    with file.open("r+b") as opened:
        opened.seek(number * PAGE_BYTES)
        page = opened.read(PAGE_BYTES)
        opened.seek(number * PAGE_BYTES)
        opened.write(how(page))


def swap(file: Path, first: int, second: int) -> None:
    """Exchange two pages of the file."""
    raw = file.read_bytes()
    pages = [raw[n * PAGE_BYTES : (n + 1) * PAGE_BYTES] for n in (first, second)]
    damage(file, first, lambda _: pages[1])
    damage(file, second, lambda _: pages[0])
