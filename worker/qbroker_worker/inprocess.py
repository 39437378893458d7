"""A worker on threads of another program: for its tests, for notebooks.

It is the worker of the threads pool, whose tasks see the program's memory. The SDK finds it by entry point.
"""

import asyncio
import contextlib
import os
import platform
import random
import signal
import threading
import uuid
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from qbroker._version import __version__
from qbroker_worker import aide
from qbroker_worker.clock import monotonic
from qbroker_worker.control import Commands, State
from qbroker_worker.journal import Journal
from qbroker_worker.loading import Facts, build_runs, facts_of
from qbroker_worker.pools.solo import CallersPool
from qbroker_worker.pools.threadguard import ThreadGuard
from qbroker_worker.pools.threads import ThreadsPool
from qbroker_worker.results import lost_result
from qbroker_worker.session import Session
from qbroker_worker.stream import Identity, Stream
from qbroker_worker.worker import Manners, Worker

if TYPE_CHECKING:
    from qbroker.app import App

START_S = 10.0
"""How long registering with the broker may take."""


class _Told(Worker):
    """A worker that says when it is ready."""

    tell_linked: Callable[[], None]

    def linked(self, is_linked: bool) -> None:  # noqa: FBT001 - a plain callback
        super().linked(is_linked)
        if is_linked:
            self.tell_linked()


class _Life:
    """One start of the worker: its thread, and what other threads tell it. Ends at any moment, however often."""

    def __init__(self, live: Callable[["_Life"], Coroutine[object, object, None]]) -> None:
        self._live = live
        self._lock = threading.Lock()
        self._is_over = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: Worker | None = None
        self.settled = threading.Event()
        """It has registered, or it has ended."""
        self.is_linked = False
        self.failure: BaseException | None = None
        self.callers: CallersPool | None = None
        """The pool of a worker whose tasks run on the thread of the program."""
        self.thread = threading.Thread(
            target=self._run, name="qbroker-inprocess-worker", daemon=True
        )

    def linked(self) -> None:
        """Say that tasks come."""
        self.is_linked = True
        self.settled.set()

    def enter(self, worker: Worker) -> bool:
        """Take the worker that `end` must tell; False if it is not wanted any more."""
        with self._lock:
            self._loop, self._worker = asyncio.get_running_loop(), worker
            return not self._is_over

    def end(self) -> None:
        """Have the worker shut down, or not begin."""
        with self._lock:
            self._is_over = True
            loop, worker = self._loop, self._worker
        if loop is not None and worker is not None:
            # A worker that was told to shut down by a remote command is gone already.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(worker.signalled, signal.SIGTERM)

    def end_running(self) -> None:
        """End the task that runs on the thread of the program."""
        with self._lock:
            loop, callers = self._loop, self.callers
        if loop is not None and callers is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has ended
                loop.call_soon_threadsafe(callers.end_running)

    def _run(self) -> None:
        try:
            asyncio.run(self._live(self))
        except Exception as error:  # noqa: BLE001 - `start` raises it
            self.failure = error
        finally:
            self.settled.set()
            if self.callers is not None:
                self.callers.leave()


class InProcessWorker:
    """Takes from the queues of a broker from `start` to `stop`."""

    def __init__(
        self,
        app: "App",
        address: str,
        *,
        queues: tuple[str, ...],
        slots: int,
        name: str,
        start_s: float = START_S,
        on_caller: bool = False,
    ) -> None:
        self._start_s = start_s
        self._app = app
        self._address = address
        self._queues = queues
        self._slots = slots
        self._on_caller = on_caller
        self.name = name
        self._lock = threading.Lock()
        self._life: _Life | None = None

    def start(self) -> None:
        """Register; returns when tasks come. Raises RuntimeError if that fails or takes too long.

        A worker that runs already is waited for and not started again. After an error `stop` ends the thread.
        """
        with self._lock:
            life = self._life
            if life is None or not life.thread.is_alive():
                life = self._life = _Life(self._live)
                life.thread.start()
        if not life.settled.wait(self._start_s) or not life.is_linked:
            raise RuntimeError(
                f"the worker {self.name} could not register with the broker at {self._address}"
            ) from life.failure

    def serve(self) -> None:
        """Run tasks on this thread until the worker ends; for a worker that was made with `on_caller`."""
        assert self._life is not None
        assert self._life.callers is not None
        self._life.callers.serve()

    def end(self, *, is_late: bool) -> None:
        """Have `serve` return; if it is late, also end the task that runs."""
        assert self._life is not None
        if is_late:
            self._life.end_running()
        self._life.end()

    def stop(self, timeout_s: float) -> bool:
        """Finish what runs, give back the rest; tells whether that took no longer than it may.

        May be called at any moment, from any thread, and again.
        """
        with self._lock:
            life = self._life
        if life is None:
            return True
        life.end()
        life.thread.join(timeout_s)
        return not life.thread.is_alive()

    async def _live(self, life: _Life) -> None:
        guard = ThreadGuard()
        conf = self._app.conf
        limits = conf.task_soft_time_limit, conf.task_time_limit
        runs = build_runs(self._app, hostname=self.name, guard=guard, limits=limits)
        lost = lost_result(self.name)
        pool: ThreadsPool
        if self._on_caller:
            pool = life.callers = CallersPool(runs, lost_result=lost, guard=guard)
        else:
            pool = ThreadsPool(runs, slots=self._slots, lost_result=lost, guard=guard)
        # By way of bytes, as elsewhere: what commands show is what JSON can say.
        facts = Facts.decode(facts_of(self._app).encode())
        identity = Identity(
            session_id=str(uuid.UUID(bytes=os.urandom(16), version=4)),
            name=self.name,
            queues=self._queues,
            tasks=facts.tasks,
            version=__version__,
            hostname=platform.node(),
            pid=os.getpid(),
            pool=pool.name,
            concurrency=pool.slots,
        )
        session = Session(pool.slots)
        journal = Journal(
            name=self.name,
            pid=identity.pid,
            version=__version__,
            sends_task_events=facts.send_task_events,
            silent_tasks=frozenset(facts.silent_tasks),
            load=os.getloadavg,
        )
        added = aide.on_thread(self.name, self._app)

        def connect(joined: Worker) -> Stream:
            stream = Stream(
                session,
                identity,
                address=self._address,
                on_news=joined.heard,
                on_link=joined.linked,
                chance=random.Random(),  # noqa: S311 - spreads reconnects; no secret
                on_asked=lambda asks: commands.asked(asks),
                on_wanted=journal.want,
                on_limit=pool.limit_results,
            )
            state = State(
                name=self.name,
                facts=facts,
                address=self._address,
                pid=identity.pid,
                session=session,
                pool=pool,
                link=stream,
                journal=journal,
                worker=joined,
                monotonic=monotonic,
                started_s=monotonic(),
            )
            commands = Commands(state, added)
            return stream

        worker = _Told(
            session,
            pool,
            connect,
            name=self.name,
            address=self._address,
            # The program is somebody else's, and goes on.
            manners=Manners(restarts=False, heard=frozenset(facts.heard)),
            journal=journal,
            tell=added.tell,
        )
        worker.tell_linked = life.linked
        try:
            if life.enter(worker):
                await worker.run()
        finally:
            added.close()
