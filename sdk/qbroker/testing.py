"""The real broker inside a test process, a clock that can be set forward, and asserts in the domain's words.

    with LocalBroker() as broker:
        app.conf.broker_url = broker.url
        order.delay(7)
        broker.assert_enqueued("shop.order", args=(7,))
        broker.drain(app)
        broker.advance(hours=1)

It is the broker of production on the memory engine, so what holds here holds there.
"""

import asyncio
import contextlib
import datetime as dt
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from qbroker import clock, inprocess, serialization
from qbroker.app import App
from qbroker.canvas import Signature
from qbroker.client import Client
from qbroker.envelope import STAGES, decode_call, decode_headers
from qbroker.ids import uuid7
from qbroker.serialization import Value

__all__ = ["Enqueued", "LocalBroker", "broker_of"]

WAIT_S = 10.0
"""How long tasks may take that a test waits for, unless it says otherwise."""

_WAITING = (STAGES.index("scheduled"), STAGES.index("queued"))
_OPEN = (*_WAITING, STAGES.index("leased"), STAGES.index("started"))
# A test made them itself.
_READABLE = serialization.content_types(("json", "msgpack", "pickle", "raw", "yaml"))
_NOTHING: Value = object()


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A call that the broker has and that has not ended."""

    id: str
    task: str
    args: tuple[Value, ...]
    kwargs: Mapping[str, Value]
    queue: str
    stage: str
    eta: dt.datetime | None
    headers: Mapping[str, Value]

    def __str__(self) -> str:
        shown = [repr(arg) for arg in self.args]
        shown += [f"{name}={value!r}" for name, value in self.kwargs.items()]
        when = f", due {self.eta.isoformat()}" if self.eta is not None else ""
        return f"{self.task}({', '.join(shown)}) in {self.queue!r}, {self.stage}{when}"


class LocalBroker:
    """A broker in this process. Its URL is `url`; all of its data goes with it."""

    # It is no test case, whatever pytest thinks of names.
    __test__ = False

    def __init__(self) -> None:
        self._url = f"{inprocess.SCHEME}{uuid7()}"
        self._broker = inprocess.new_broker()
        self._known: Client | None = None
        self._ahead_ms = 0
        self._has_begun = False

    @property
    def url(self) -> str:
        """What to give to an app as its broker."""
        return self._url

    @property
    def address(self) -> str:
        """Where it listens, for other processes: qbroker://host:port."""
        return f"qbroker://{self._broker.address}"

    def start(self) -> Self:
        """Listen."""
        self._broker.start()
        self._has_begun = True
        inprocess.adopt(self._url, self._broker)
        return self

    def stop(self) -> None:
        """End, and forget everything."""
        self._set_ahead(0)
        self._has_begun = False
        if self._known is not None:
            self._known.close()
            self._known = None
        inprocess.stop(self._url)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # -- time and trouble

    def advance(
        self,
        seconds: float = 0,
        *,
        minutes: float = 0,
        hours: float = 0,
        days: float = 0,
        timeout: float = WAIT_S,
    ) -> None:
        """Let time pass, for the broker and for this program's calls: what is due on the way comes in its order.

        Where a worker is there, it runs what has come before time goes on.
        """
        span = dt.timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        if span < dt.timedelta():
            raise ValueError(f"time passes forward, and not by {span.total_seconds():g} seconds")
        broker = self._up()
        end_ms = broker.clock.now_ms() + round(span.total_seconds() * 1000)
        while True:
            next_ms = broker.next_ms()
            is_last = next_ms is None or next_ms > end_ms
            self._move_to(end_ms if next_ms is None or is_last else next_ms)
            if self._has_workers() and not broker.waits_until_idle(timeout):
                raise AssertionError(self._still(f"after {timeout:g} s"))
            if is_last:
                return

    def _move_to(self, now_ms: int) -> None:
        # The program's clock goes first: what the broker lets run at that time counts from then.
        self._set_ahead(self._ahead_ms + max(0, now_ms - self._broker.clock.now_ms()))
        self._broker.move_to(now_ms)
        self._set_ahead(self._broker.clock.ahead_ms)

    def _set_ahead(self, ahead_ms: int) -> None:
        clock.ahead.ms += ahead_ms - self._ahead_ms
        self._ahead_ms = ahead_ms

    def _up(self) -> inprocess.Broker:
        """The broker; RuntimeError when it is not there to be asked."""
        if not self._broker.is_up:
            raise RuntimeError(
                f"the LocalBroker {'has crashed; restart() brings it back' if self._has_begun else 'is not there: start it, or enter it with `with`'}"
            )
        return self._broker

    def crash(self) -> None:
        """End at once, as a kill would: nobody is answered any more. `restart` brings back what was committed."""
        self._broker.crash()

    def restart(self) -> None:
        """Begin anew with what was committed, at the same address."""
        if self._broker.is_up:
            self._broker.stop()
        self._broker.start()

    # -- work

    @contextlib.contextmanager
    def worker(
        self, app: App, *, queues: Sequence[str] = (), concurrency: int = 1
    ) -> Iterator[inprocess.Worker]:
        """A worker on threads of this process, for as long as the block runs."""
        worker = self._new_worker(app, queues, concurrency)
        try:
            # A start that fails may leave a thread that goes on trying.
            worker.start()
            yield worker
        finally:
            worker.stop(WAIT_S)

    def _new_worker(
        self, app: App, queues: Sequence[str], concurrency: int, *, on_caller: bool = False
    ) -> inprocess.Worker:
        broker = self._up()
        app.finalize()
        return inprocess.new_worker(
            app,
            broker.address,
            queues=tuple(queues) or self._queues(app),
            slots=concurrency,
            name=f"local-{uuid7()[-6:]}@test",
            on_caller=on_caller,
        )

    def drain(self, app: App, *, timeout: float = WAIT_S, concurrency: int = 1) -> int:
        """Run everything that waits, and what that calls, until nothing waits; answers how many calls waited.

        Tasks run on the calling thread, so they are inside its database transaction. With a higher `concurrency`,
        or where an event loop runs on the calling thread, they run on threads of their own.
        What is scheduled for later stays: `advance` makes it due.
        """
        count = self._up().unfinished()[0]
        if not count:
            return 0
        if concurrency == 1 and not _has_running_loop():
            late = self._drain_here(app, timeout)
        else:
            with self.worker(app, concurrency=concurrency):
                late = self._late_after(timeout)
        if late:
            raise AssertionError(late)
        return count

    def _drain_here(self, app: App, timeout_s: float) -> str:
        """Run tasks on this thread while another one waits for the broker to be idle."""
        worker = self._new_worker(app, (), 1, on_caller=True)
        watched: Future[str] = Future()

        def watch() -> None:
            late = ""
            try:
                late = self._late_after(timeout_s)
                watched.set_result(late)
            except Exception as error:  # noqa: BLE001 - raised where drain was called
                watched.set_exception(error)
            finally:
                worker.end(is_late=bool(late))

        try:
            worker.start()
            # A daemon, because an interrupt leaves it behind.
            threading.Thread(target=watch, name="qbroker-drain", daemon=True).start()
            with inprocess.callers_thread():
                worker.serve()
        finally:
            worker.stop(WAIT_S)
        return watched.result()

    def _late_after(self, timeout_s: float) -> str:
        """What is still to do after that time; empty as soon as there is nothing."""
        is_idle = self._broker.waits_until_idle(timeout_s)
        return "" if is_idle else self._still(f"after {timeout_s:g} s")

    def wait_until_idle(self, timeout: float = WAIT_S) -> None:
        """Wait until workers have nothing left to do; AssertionError says what there is after that time."""
        if not self._up().waits_until_idle(timeout):
            raise AssertionError(self._still(f"after {timeout:g} s"))

    # -- looks

    def enqueued(self, task: Value = None, *, queue: str = "") -> list[Enqueued]:
        """The calls that wait, are scheduled, or are with a worker; all of them, or those of a task or a queue."""
        name = _name_of(task)
        found: list[Enqueued] = []
        after = ""
        while True:
            page = self._client.list_tasks(
                queue=queue, task=name, stages=_OPEN, limit=1_000, after=after
            )
            found += [self._look(info.id) for info in page.tasks]
            if not page.next:
                return found
            after = page.next

    def _look(self, task_id: str) -> Enqueued:
        info = self._client.show_task(task_id)
        args, kwargs = decode_call(info.message, _READABLE)
        is_due_later = info.stage == STAGES.index("scheduled")
        eta = dt.datetime.fromtimestamp(info.eta_ms / 1000, dt.UTC) if is_due_later else None
        return Enqueued(
            info.id,
            info.task,
            tuple(args),
            kwargs,
            info.queue,
            STAGES[info.stage],
            eta,
            decode_headers(info.message),
        )

    def assert_enqueued(
        self,
        task: Value,
        args: Value = _NOTHING,
        kwargs: Value = _NOTHING,
        *,
        queue: str = "",
        count: int | None = None,
    ) -> Enqueued:
        """See that the task was called, with those arguments if any are given, and answer the first such call.

        A signature brings its arguments. With `count` exactly so often. The error tells what is there instead.
        """
        args, kwargs = _wanted(task, args, kwargs)
        fitting = self._fitting(task, args, kwargs, queue)
        if len(fitting) == count or (count is None and fitting):
            return fitting[0] if fitting else _none_of(_name_of(task))
        wanted = _described(_name_of(task), args, kwargs, queue)
        often = "" if count is None else f" {count} times, but {len(fitting)} times"
        raise AssertionError(f"{wanted} is not enqueued{often}; there is: {self._all_of_it()}")

    def assert_not_enqueued(
        self, task: Value, args: Value = _NOTHING, kwargs: Value = _NOTHING, *, queue: str = ""
    ) -> None:
        """See that the task was not called, with those arguments if any are given."""
        args, kwargs = _wanted(task, args, kwargs)
        fitting = self._fitting(task, args, kwargs, queue)
        if fitting:
            raise AssertionError(f"{fitting[0]} is enqueued")

    def assert_empty(self) -> None:
        """See that nothing waits, is scheduled, or runs."""
        if self.enqueued():
            raise AssertionError(f"the broker is not empty; there is: {self._all_of_it()}")

    def _fitting(self, task: Value, args: Value, kwargs: Value, queue: str) -> list[Enqueued]:
        return [
            call
            for call in self.enqueued(task, queue=queue)
            if (args is _NOTHING or call.args == tuple(args))
            and (kwargs is _NOTHING or call.kwargs == kwargs)
        ]

    def _all_of_it(self) -> str:
        return "; ".join(map(str, self.enqueued())) or "nothing"

    def _still(self, when: str) -> str:
        waiting, leased = self._broker.unfinished()
        return (
            f"{when} {waiting} calls still wait and {leased} are with a worker: {self._all_of_it()}"
        )

    @property
    def _client(self) -> Client:
        self._up()
        if self._known is None:
            self._known = Client(self.address, timeout_s=WAIT_S)
        return self._known

    def _has_workers(self) -> bool:
        return any(worker.is_connected for worker in self._client.status().workers)

    def _queues(self, app: App) -> tuple[str, ...]:
        names = [info.name for info in self._client.list_queues()]
        return tuple(dict.fromkeys([app.conf.task_default_queue, *names]))


def _none_of(name: str) -> Enqueued:
    return Enqueued("", name, (), {}, "", STAGES[0], None, {})


def _has_running_loop() -> bool:
    """Whether an event loop runs on this thread, which a task with one of its own cannot share."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _name_of(task: Value) -> str:
    """A task's name, from the task or the name; "" for any."""
    return "" if task is None else task if isinstance(task, str) else str(task.name)


def _wanted(task: Value, args: Value, kwargs: Value) -> tuple[Value, Value]:
    """The arguments that are asked for: those that are given, else a signature's own."""
    if isinstance(task, Signature):
        args = task.args if args is _NOTHING else args
        kwargs = task.kwargs if kwargs is _NOTHING else kwargs
    if args is not _NOTHING and not isinstance(args, list | tuple):
        raise TypeError(f"args are a list or a tuple of a call's arguments, not {args!r}")
    return args, kwargs


def _described(name: str, args: Value, kwargs: Value, queue: str) -> str:
    words = [name]
    if args is not _NOTHING:
        words.append(f"with args {tuple(args)!r}")
    if kwargs is not _NOTHING:
        words.append(f"with kwargs {kwargs!r}")
    if queue:
        words.append(f"in {queue!r}")
    return " ".join(words)


def broker_of(app: App) -> inprocess.Broker:
    """The broker in this process that the app speaks to, by `memory://…`."""
    return inprocess.known(app.conf.broker_url)
