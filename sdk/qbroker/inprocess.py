"""Broker and worker inside this process: what `memory://` means, and what tests stand on.

Both are the real ones. They are found by entry point (group `qbroker.parts`), as commands are, because the SDK
imports neither server nor worker.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Protocol, cast

from qbroker.exceptions import ImproperlyConfigured
from qbroker.masking import masked
from qbroker.serialization import Value

__all__ = [
    "Broker",
    "Worker",
    "adopt",
    "callers_thread",
    "is_callers_thread",
    "known",
    "new_broker",
    "new_worker",
    "reached",
    "stop",
]

PARTS_GROUP = "qbroker.parts"
SCHEME = "memory://"


class _Clock(Protocol):
    ahead_ms: int

    def now_ms(self) -> int: ...


class Broker(Protocol):
    """The broker on a thread of this process."""

    clock: _Clock

    @property
    def address(self) -> str:
        """Where it listens: host:port."""

    @property
    def is_up(self) -> bool:
        """Whether it listens."""

    def start(self) -> None:
        """Listen; after a crash with what was committed."""

    def stop(self) -> None:
        """End in order."""

    def crash(self) -> None:
        """End at once."""

    def next_ms(self) -> int | None:
        """When the next thing is due, in Unix milliseconds."""

    def move_to(self, now_ms: int) -> None:
        """Set the clock forward to that time, and do what is due then."""

    def unfinished(self) -> tuple[int, int]:
        """How many messages wait for a worker, and how many are with one."""

    def waits_until_idle(self, timeout_s: float) -> bool:
        """Wait until there are none; tells whether that came."""


class Worker(Protocol):
    """A worker on threads of this process."""

    name: str

    def start(self) -> None:
        """Register; answers when tasks come."""

    def serve(self) -> None:
        """Run tasks on this thread until the worker ends."""

    def end(self, *, is_late: bool) -> None:
        """Have `serve` return; when it is late, also end the task that runs."""

    def stop(self, timeout_s: float) -> bool:
        """Finish what runs; tells whether that took no longer than it may."""


def _part(name: str) -> Value:
    for point in metadata.entry_points(group=PARTS_GROUP, name=name):
        return point.load()
    raise ImproperlyConfigured(
        f"this installation of qbroker brings no {name} to run inside a program; install the whole package"
    )


def new_broker() -> Broker:
    """A broker that has not started."""
    return cast("Broker", _part("broker")())


def new_worker(
    app: Value,
    address: str,
    *,
    queues: tuple[str, ...],
    slots: int,
    name: str,
    on_caller: bool = False,
) -> Worker:
    """A worker of the app that has not started; `on_caller` runs its tasks on the thread that calls `serve`."""
    make = _part("worker")
    worker = make(app, address, queues=queues, slots=slots, name=name, on_caller=on_caller)
    return cast("Worker", worker)


class _Threads(threading.local):
    is_callers = False


_threads = _Threads()


@contextmanager
def callers_thread() -> Iterator[None]:
    """Tasks run on this thread, and everything that is open on it is the caller's and stays open."""
    before, _threads.is_callers = _threads.is_callers, True
    try:
        yield
    finally:
        _threads.is_callers = before


def is_callers_thread() -> bool:
    """Whether this thread lends itself to tasks, as in `callers_thread`."""
    return _threads.is_callers


_brokers: dict[str, Broker] = {}
_lock = threading.Lock()


def adopt(url: str, broker: Broker) -> None:
    """Have `url` mean that broker."""
    with _lock:
        _brokers[url] = broker


def reached(url: str) -> str:
    """The URL by which a client reaches the broker: `memory://…` is one in this process, started at first use."""
    if not url.startswith(SCHEME):
        return url
    with _lock:
        broker = _brokers.get(url)
        if broker is None:
            broker = _brokers[url] = new_broker()
            broker.start()
    return f"qbroker://{broker.address}"


def known(url: str) -> Broker:
    """The broker that `url` means; ImproperlyConfigured when it is none in this process."""
    reached(url)
    with _lock:
        broker = _brokers.get(url)
    if broker is None:
        raise ImproperlyConfigured(
            f"the broker {masked(url)!r} is not in this process, as memory:// is"
        )
    return broker


def stop(url: str) -> None:
    """End the broker that `url` means, and forget what it holds."""
    with _lock:
        broker = _brokers.pop(url, None)
    if broker is not None:
        broker.stop()
