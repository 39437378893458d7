"""What the parts of the worker hand to each other: plain values, without behaviour.

Named tuples, because one of each is made for every task.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

SUCCESS = 1
FAILURE = 2
WORKER_LOST = 3
IGNORED = 4
REJECTED = 5
REVOKED = 6
RETRY = 7


class Delivery(NamedTuple):
    """A message leased to this worker. `attempt` fences: a settle counts with the newest only."""

    id: str
    attempt: int
    is_redelivered: bool
    task: str
    queue: str
    is_late: bool
    message: bytes


class Lease(NamedTuple):
    """Names a delivery."""

    id: str
    attempt: int


class Start(NamedTuple):
    """The task was started by this process."""

    id: str
    attempt: int
    pid: int


class Settle(NamedTuple):
    """The work is over, and how it ended."""

    id: str
    attempt: int
    outcome: int
    result: bytes
    requeue: bool
    more: bytes
    """What else it says: a serialized part of a qbroker.v1.Settle, or b""."""


class Cancel(NamedTuple):
    """The broker's word that a delivery was revoked."""

    id: str
    attempt: int
    is_terminated: bool
    """End it even if it runs."""
    signal: str
    """With which signal, where the pool can: "SIGTERM"."""


class Ask(NamedTuple):
    """A remote command for this worker."""

    id: int
    """Names the question on this link."""
    command: str
    arguments: bytes
    """A JSON object, or b"" for none."""
    words: Sequence[str] = ()
    """Arguments as somebody typed them."""


class Answer(NamedTuple):
    """What a command answered, as JSON."""

    id: int
    body: bytes


class Event(NamedTuple):
    """Something happened. `body` is a JSON object with all its fields."""

    type: str
    body: bytes


class Queues(NamedTuple):
    """The queues this worker takes from, from now on."""

    names: tuple[str, ...]


Aside = Answer | Event | Queues
"""What is said beside the session's words: lost with the link, and nobody is the worse for it."""


class Ran(NamedTuple):
    """How a run went. `line` is what the log tells of it; `level` is 0 when nobody would read that."""

    outcome: int
    result: bytes
    requeue: bool
    runtime_s: float
    level: int = 0
    line: str = ""
    more: bytes = b""
    """What else the settle is to say: a serialized part of a qbroker.v1.Settle."""


Run = Callable[[bytes, int, bool], Ran]
"""Runs a serialized message: (message, attempt, whether redelivered). Raises only what ends a process."""


class Finished(NamedTuple):
    """What became of a delivery."""

    delivery: Delivery
    outcome: int
    result: bytes
    requeue: bool
    runtime_s: float
    level: int
    line: str
    more: bytes = b""
