"""What the parts of the worker hand to each other: plain values, without behaviour.

Named tuples, because one of each is made for every task.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import NamedTuple, Protocol

SUCCESS = 1
FAILURE = 2
WORKER_LOST = 3
IGNORED = 4
REJECTED = 5
REVOKED = 6
RETRY = 7
TIMEOUT = 8
REPLACED = 9


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
    tasks: tuple[str, ...] = ()
    """The tasks it knows from now on; none: those it knew."""


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


class Runs(NamedTuple):
    """What a process runs messages with."""

    run: Run
    expire: Run
    """For a message whose run its hard time limit has ended: runs what is to be run after a failure."""
    run_natively: Callable[[bytes, int, bool], Coroutine[None, None, Ran]]
    """On the running event loop, for tasks that are `async def`."""
    is_async: Callable[[str], bool]
    """Whether the task of that name is one of those."""
    notify: Callable[["Notice"], None]
    """Tell the app's own code of something. Raises nothing."""
    reload: Callable[["Restart"], bytes] = lambda _: b""
    """Import modules, again where that is wanted; facts for the parent. Raises what importing raises."""


class Notice(NamedTuple):
    """Something that the app's own code is to be told of: a signal by its name, and what goes with it."""

    signal: str
    number: int = 0
    """With "task_revoked": the system's signal that ended the task; 0: none did."""
    message: bytes = b""
    """With "task_revoked" and "task_lost": the task's."""
    why: str = ""
    """With "task_lost": how its process ended, in a sentence."""


class Restart(NamedTuple):
    """How the processes that run tasks are to begin anew."""

    modules: tuple[str, ...] | None = None
    """What they are to have imported; None: what the app imports as it says."""
    reloads: bool = False
    """Import again what is imported already."""


class Recycling(NamedTuple):
    """When a child makes place for a fresh one; 0 is never."""

    tasks_max: int = 0
    """After so many tasks."""
    memory_kib_max: int = 0
    """After the task in which it grew beyond this."""


class Guard(Protocol):
    """Keeps the time limits of tasks, on the threads they run on, and ends what was revoked."""

    watches_all: bool
    """What has no limits is to be begun and ended here as well."""

    @property
    def result_bytes_max(self) -> int:
        """The largest result that the broker takes."""

    def begin(self, soft_s: float | None, hard_s: float | None, *, is_async: bool = False) -> None:
        """What begins on this thread has so many seconds; None is no limit."""

    def end(self) -> None:
        """It is over."""

    def waits(self, cancel: Callable[[], object] | None) -> None:
        """What runs here is an asyncio task, which `cancel` ends from any thread; None: it is over."""

    def heed(self) -> None:
        """Raise what ends the task, if something has."""


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
