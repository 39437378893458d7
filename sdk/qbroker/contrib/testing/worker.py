"""`start_worker`: a worker on threads of the test's process, which so sees the test's memory."""

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from qbroker import inprocess
from qbroker.app import App
from qbroker.result import allow_join_result
from qbroker.serialization import Value
from qbroker.signals import Signal
from qbroker.url import parse_url
from qbroker.utils.nodenames import anon_nodename

__all__ = [
    "TestWorkController",
    "setup_app_for_worker",
    "start_worker",
    "test_worker_started",
    "test_worker_starting",
    "test_worker_stopped",
]

test_worker_starting = Signal(name="test_worker_starting")
"""Sent before the worker starts; sender is the app."""
test_worker_started = Signal(name="test_worker_started")
"""worker, consumer; it takes tasks."""
test_worker_stopped = Signal(name="test_worker_stopped")
"""worker; it has stopped."""

for _signal in (test_worker_starting, test_worker_started, test_worker_stopped):
    # pytest collects what is named test_ and can be called; signals cannot, and stay out.
    assert not callable(_signal)


class TestWorkController:
    """The running worker that a test is given."""

    __test__ = False

    def __init__(
        self,
        app: App,
        *,
        concurrency: int = 1,
        hostname: str | None = None,
        queues: Value = None,
        shutdown_timeout: float = 10.0,
    ) -> None:
        self.app = app
        self.concurrency = concurrency
        self.hostname = hostname or _free_name()
        self.queues = _names(queues) or (app.conf.task_default_queue,)
        self._shutdown_timeout_s = shutdown_timeout
        self._worker: inprocess.Worker | None = None

    def start(self) -> None:
        """Take tasks; answers when they come."""
        if self._worker is not None:
            raise RuntimeError(f"the worker {self.hostname} is started already; stop it first")
        host, port = parse_url(inprocess.reached(self.app.conf.broker_url))
        self._worker = inprocess.new_worker(
            self.app,
            f"{host}:{port}",
            queues=self.queues,
            slots=self.concurrency,
            name=self.hostname,
        )
        try:
            self._worker.start()
        except BaseException:
            # A start that fails may leave a thread that goes on trying.
            self.stop()
            raise
        _names_taken.add(self.hostname)
        test_worker_started.send(self.app, worker=self, consumer=self)

    def ensure_started(self) -> None:
        """Nothing: `start` has answered when tasks come."""

    def stop(self) -> None:
        """Finish what runs; RuntimeError when that takes longer than it may."""
        worker, self._worker = self._worker, None
        _names_taken.discard(self.hostname)
        if worker is not None and not worker.stop(self._shutdown_timeout_s):
            raise RuntimeError(
                f"the worker {self.hostname} did not end within {self._shutdown_timeout_s:g} s; give start_worker a "
                "longer shutdown_timeout if tasks take longer"
            )

    def reload(self) -> None:
        """Tell the broker of tasks that were registered since."""
        self.stop()
        self.start()


_names_taken: set[str] = set()
"""Names of the workers that run in this process."""


def _free_name() -> str:
    """The name that Celery's test worker has, `anon_nodename()`; where there is one already, another."""
    name = anon_nodename()
    for number in itertools.count(2):
        if name not in _names_taken:
            break
        name = anon_nodename(prefix=f"gen{number}-")
    return name


def _names(queues: Value) -> tuple[str, ...]:
    """Names of queues, as Celery's worker takes them: 'a,b', a list of names or of Queues."""
    if not queues:
        return ()
    if isinstance(queues, str):
        return tuple(part.strip() for part in queues.split(",") if part.strip())
    return tuple(one if isinstance(one, str) else str(one.name) for one in queues)


def setup_app_for_worker(app: App, loglevel: str | int | None, logfile: str | None) -> None:
    """Make the app the current one, with all its tasks."""
    del logfile
    app.finalize()
    app.set_current()
    app.set_default()
    if loglevel:
        level = loglevel if isinstance(loglevel, int) else logging.getLevelName(loglevel.upper())
        logging.getLogger("qbroker").setLevel(level)


_WITHOUT_EFFECT = frozenset(
    [
        "beat", "consumer_cls", "heartbeat_interval", "logfile", "pool_cls", "pool_putlocks",
        "ready_callback", "schedule_filename", "scheduler", "statedb", "task_events",
        "without_gossip", "without_heartbeat", "without_mingle",
    ]
)  # fmt: skip
"""Options of Celery's worker that mean nothing for one inside a test."""


@contextmanager
def start_worker(
    app: App,
    concurrency: int = 1,
    pool: str = "solo",
    loglevel: str | int | None = None,
    logfile: str | None = None,
    perform_ping_check: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
    ping_task_timeout: float = 10.0,
    shutdown_timeout: float = 10.0,
    *,
    queues: Value = None,
    hostname: str | None = None,
    **kwargs: Value,
) -> Iterator[TestWorkController]:
    """Run a worker of the app in this process for as long as the block runs.

    Tasks run on `concurrency` threads, whatever the pool is called: in a test they are to see its memory. The app
    knows `celery.ping` when `qbroker.contrib.testing.tasks` was imported, and is asked for it first.
    """
    unknown = sorted(kwargs.keys() - _WITHOUT_EFFECT)
    if unknown:
        raise TypeError(f"start_worker() has no option {', '.join(unknown)}")
    del pool
    test_worker_starting.send(app)
    # The level is the worker's, and other tests' again after it.
    logger = logging.getLogger("qbroker")
    level = logger.level
    setup_app_for_worker(app, loglevel, logfile)
    if perform_ping_check and "celery.ping" not in app.tasks:
        raise AssertionError(
            "the app has no task 'celery.ping'; import qbroker.contrib.testing.tasks, or say perform_ping_check=False"
        )
    worker = TestWorkController(
        app,
        concurrency=concurrency,
        hostname=hostname,
        queues=queues,
        shutdown_timeout=shutdown_timeout,
    )
    worker.start()
    try:
        if perform_ping_check:
            _ping(app, ping_task_timeout, worker.queues)
        yield worker
    finally:
        worker.stop()
        logger.setLevel(level)
        test_worker_stopped.send(app, worker=worker)


def _ping(app: App, timeout_s: float, queues: tuple[str, ...]) -> None:
    with allow_join_result():
        result = app.tasks["celery.ping"].apply_async(queue=queues[0], ignore_result=False)
        if app.conf.result_backend is None:
            return
        assert result.get(timeout=timeout_s) == "pong", "the worker answers"
