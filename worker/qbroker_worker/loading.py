"""Find and import the user's app, in whichever process is to run its tasks."""

import importlib
import json
import logging
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial

from qbroker import _state, signals
from qbroker.app import App, trace
from qbroker.app.amqp import topology_of
from qbroker.app.checking import check
from qbroker.app.loading import LoadError, explained, find_app
from qbroker.app.log import everything_as_json, redirect_stdouts, setup_logging
from qbroker.envelope import OUTCOME_RETRY, OUTCOME_SUCCESS
from qbroker.exceptions import ImproperlyConfigured
from qbroker.limits import RESULT_BYTES_MAX, per_second
from qbroker.serialization import Value
from qbroker.task import Task
from qbroker.worker.control import Panel
from qbroker_proto.v1.message_pb2 import Message
from qbroker_proto.v1.worker_pb2 import Settle
from qbroker_worker.names import file_name, names_children
from qbroker_worker.pools.forkserver import Loaded, Refusal
from qbroker_worker.values import Guard, Notice, Ran, Recycling, Restart, Runs

logger = logging.getLogger(__name__)

START_METHODS = ("fork", "spawn")

CAN_FORK = hasattr(os, "fork")
"""Where not, the start method is "spawn", whatever is asked for."""

NOTICES = ("task_revoked", "worker_ready", "worker_shutdown")

ASIDE = ("heartbeat_sent", "worker_shutting_down")
"""Signals that are sent where the app's remote commands run."""

LOST = "task_lost"
"""No signal, but what a task's process having died is told as: task_failure is sent of it, and its own Request told."""


@dataclass(frozen=True, slots=True)
class Project:
    """Which app to load, and how its processes log."""

    app: str
    modules: tuple[str, ...]
    broker: str | None
    hostname: str
    loglevel: int
    logfile: str | None = None
    """With letters for its names; None: standard error."""
    is_json: bool = False
    settings: tuple[str, ...] = ()
    """Settings from the command line, as in "task_acks_late=True"; they win over the app's."""
    no_color: bool = False
    time_limit: float | None = None
    soft_time_limit: float | None = None
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    start_method: str | None = None
    """How children are begun, "fork" or "spawn"; None: as the app says."""

    def load(self, *, redirects: bool = True, is_child: bool = False) -> Loaded:
        """Import everything, and log as the app says. Raises Refusal with a sentence when that fails.

        One that `is_child` comes after a process that has loaded the same, and told what it found.
        """
        try:
            return self._load(redirects=redirects, is_child=is_child)
        except Refusal:
            raise
        except Exception as exc:
            if isinstance(exc, LoadError):
                sentence, cause = exc.message, exc.__cause__
            else:
                sentence, cause = f"-A {self.app!r}: {explained(exc)}", exc
            if self.loglevel <= logging.DEBUG:
                raise Refusal(sentence, traceback.format_exc()) from exc
            # These say it all.
            if cause is not None and not isinstance(
                cause, ModuleNotFoundError | ImproperlyConfigured
            ):
                sentence += "; -l DEBUG shows the traceback"
            raise Refusal(sentence) from exc

    def _load(self, *, redirects: bool, is_child: bool) -> Loaded:
        _state.leave_settings_to_parent()
        with everything_as_json(self.loglevel) if self.is_json else nullcontext():
            app = self._import()
        conf = app.conf
        # They may change settings, so before any is used.
        node = Node(self.hostname, app)
        signals.celeryd_init.send(self.hostname, instance=node, conf=conf, options={})
        signals.celeryd_after_setup.send(self.hostname, instance=node, conf=conf)
        self._set_limits(app)
        if not is_child:
            signals.worker_init.send(node)
        log = _log_of(app)
        self.log(log)
        if redirects:
            self.redirect(log)
        return self._loaded(app, log, is_child=is_child)

    def _loaded(self, app: App, log: dict[str, Value], *, is_child: bool = False) -> Loaded:
        conf = app.conf
        limits = conf.task_soft_time_limit, conf.task_time_limit
        start_method = self._start_method(conf.worker_pool_start_method)

        def begin(number: int, guard: Guard) -> Runs:
            if number:
                if self.logfile is not None and names_children(self.logfile):
                    self.log(log, number)
                process = multiprocessing.current_process()
                process.name = f"{start_method.capitalize()}PoolWorker-{number}"
                signals.worker_process_init.send(self.hostname)
            runs = build_runs(app, hostname=self.hostname, guard=guard, limits=limits)
            return runs._replace(reload=lambda wanted: reload(wanted).facts)

        def reload(wanted: Restart) -> Loaded:
            again = self._import_again(app, wanted)
            self._set_limits(again)
            return self._loaded(again, log)

        recycling = Recycling(
            self.max_tasks_per_child or conf.worker_max_tasks_per_child or 0,
            self.max_memory_per_child or conf.worker_max_memory_per_child or 0,
        )
        before_fork = partial(signals.worker_before_create_process.send, Node(self.hostname, app))
        facts = b"" if is_child else facts_of(app).encode()
        return Loaded(
            facts,
            begin,
            recycling,
            start_method=start_method,
            reload=reload,
            before_fork=before_fork,
        )

    def _set_limits(self, app: App) -> None:
        """Have tasks, remote commands and checks see the limits that options set."""
        if self.soft_time_limit:
            app.conf.task_soft_time_limit = self.soft_time_limit
        if self.time_limit:
            app.conf.task_time_limit = self.time_limit

    def _start_method(self, setting: str) -> str:
        """How children are begun: as this says, else the app, else as the system can."""
        method = self.start_method or setting
        if method not in START_METHODS:
            raise Refusal(f"worker_pool_start_method must be 'fork' or 'spawn', got {method!r}.")
        return method if CAN_FORK else "spawn"

    def log(self, log: Mapping[str, Value], child: int = 0) -> None:
        """Set up logging for this process; `log` is what the app says of it."""
        logfile = None if self.logfile is None else file_name(self.logfile, self.hostname, child)
        setup_logging(
            self.loglevel,
            logfile=logfile,
            log_format=log["format"],
            task_log_format=log["task_format"],
            use_color=False if self.no_color else log["color"],
            hijack_root_logger=log["hijacks"],
            is_json=self.is_json,
        )

    def redirect(self, log: Mapping[str, Value]) -> None:
        """Have what is printed in this process be logged, if the app does not say otherwise."""
        if log["redirects"]:
            redirect_stdouts(log["redirect_level"])

    def _import_again(self, app: App, wanted: Restart) -> App:
        """Import modules, and find the app, which one of them may have made anew."""
        names = wanted.modules
        for name in (*app.conf.imports, *app.conf.include) if names is None else names:
            if name not in sys.modules:
                logger.debug("importing module %s", name)
                importlib.import_module(name)
            elif wanted.reloads:
                logger.debug("reloading module %s", name)
                importlib.reload(sys.modules[name])
        return self._import()

    def _import(self) -> App:
        app = find_app(self.app)
        if self.broker:
            app.conf.broker_url = self.broker
        app.config_from_cmdline(self.settings, "worker")
        if self.modules:
            app.conf.include = (*app.conf.include, *self.modules)
        app.import_modules()
        app.finalize()
        app.set_current()
        return app


@dataclass(frozen=True, slots=True)
class Node:
    """What signals of a worker are sent by, as far as processes that have the app know it."""

    hostname: str
    app: App


@dataclass(frozen=True, slots=True)
class Facts:
    """What the worker's parent needs to know of the app, which it does not import."""

    app: str
    tasks: tuple[str, ...]
    broker: str
    backend: str
    queue: str
    concurrency: int | None
    pool: str
    heard: tuple[str, ...]
    """Signals that somebody is connected to, of those the worker has to tell the app of."""
    log: dict[str, Value]
    """What it says of logging."""
    prefetch_multiplier: int
    """How many messages a worker holds at most, times its concurrency; 0: it does not say."""
    cancels_on_loss: bool
    soft_shutdown_s: float
    is_soft_when_idle: bool
    queues: tuple[str, ...]
    """Those it takes from, where nothing else is asked for."""
    aliases: dict[str, str]
    """Queues that users name otherwise, as a Broadcast by its exchange."""
    topologies: dict[str, str]
    """What the broker must have for a queue, in hexadecimal: a serialized `Topology`."""
    is_direct: bool
    """It takes from a queue of its own name too."""
    rates: dict[str, float]
    """How many times a second the worker may start a task, of those that have a `rate_limit`."""
    send_task_events: bool = False
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)
    """What `registered` may show of each task: attributes that have a value, as text."""
    silent_tasks: tuple[str, ...] = ()
    """Tasks of which no events are told."""
    conf: dict[str, Value] = field(default_factory=dict)
    """All settings, secrets masked."""
    conf_set: tuple[str, ...] = ()
    """Those that are not the default's."""
    report: str = ""
    notes: tuple[str, ...] = ()
    """Sentences about the app's settings, for the log."""
    commands: tuple[str, ...] = ()
    """Remote commands the app has added."""

    def encode(self) -> bytes:
        """As bytes, for another process."""
        return json.dumps(asdict(self), default=repr).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Facts":
        """The facts that were encoded."""
        found = json.loads(data)
        lists = {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
        return cls(**found | lists)

    def queues_of(self, worker: str, wanted: Sequence[str]) -> tuple[str, ...]:
        """The queues that a worker of that name takes from: those wanted, or else the app's."""
        names = [self.aliases.get(name, name) for name in wanted] or [*self.queues]
        if self.is_direct:
            names.append(f"{worker}.dq2")
        return tuple(names)

    def topology_of(self, queues: Iterable[str]) -> bytes:
        """What the broker must have for these queues: a serialized `Topology`."""
        # Protobuf messages in a row are one, with all that is repeated in them.
        return b"".join(bytes.fromhex(self.topologies.get(name, "")) for name in queues)


def facts_of(app: App) -> Facts:
    """What the app, whose tasks are all known, says of itself. Raises Refusal or ImproperlyConfigured."""
    check(app)
    conf = app.conf
    queues = app.amqp.queues
    rates, bad_rates = ({}, ()) if conf.worker_disable_rate_limits else _rates_of(app)
    return Facts(
        app=app.main or "",
        tasks=tuple(sorted(app.tasks)),
        broker=conf.broker_url,
        backend=conf.result_backend or "",
        queue=conf.task_default_queue,
        concurrency=conf.worker_concurrency,
        pool=conf.worker_pool,
        send_task_events=conf.worker_send_task_events,
        attributes={name: _attributes_of(task) for name, task in app.tasks.items()},
        silent_tasks=tuple(name for name, task in app.tasks.items() if not task.send_events),
        conf=conf.table(with_defaults=True),
        conf_set=tuple(conf.without_defaults()),
        report=app.bugreport(),
        notes=(*conf.notes, *bad_rates, *_notes_on_tasks(app)),
        commands=tuple(Panel.data),
        heard=_heard(app),
        log=_log_of(app),
        # The default is Celery's number and no cap: what is short is read ahead by more, what is long by less.
        prefetch_multiplier=conf.without_defaults().get("worker_prefetch_multiplier", 0),
        cancels_on_loss=conf.worker_cancel_long_running_tasks_on_connection_loss,
        soft_shutdown_s=conf.worker_soft_shutdown_timeout,
        is_soft_when_idle=conf.worker_enable_soft_shutdown_on_idle,
        queues=tuple(queues.consume_from),
        aliases=dict(queues.aliases),
        topologies={
            name: topology_of([queues[name]], for_worker=True).SerializeToString().hex()
            for name in queues.declared
        },
        is_direct=bool(conf.worker_direct),
        rates=rates,
    )


def _heard(app: App) -> tuple[str, ...]:
    """What the app wants to be told of."""
    heard = [name for name in (*NOTICES, *ASIDE) if getattr(signals, name)]
    if signals.task_failure or any(task.Request != Task.Request for task in app.tasks.values()):
        heard.append(LOST)
    return tuple(heard)


def _attributes_of(task: Value) -> dict[str, str]:
    """What is plainly an attribute: public, set, and no method."""
    found = {}
    for name in dir(type(task)):
        value = None if name.startswith("_") else getattr(task, name, None)
        if isinstance(value, str | int | float | tuple | list):
            found[name] = str(value)
    return found


def _log_of(app: App) -> dict[str, Value]:
    conf = app.conf
    return {
        "format": conf.worker_log_format,
        "task_format": conf.worker_task_log_format,
        "color": conf.worker_log_color,
        "hijacks": conf.worker_hijack_root_logger,
        "redirects": conf.worker_redirect_stdouts,
        "redirect_level": conf.worker_redirect_stdouts_level,
    }


def _notes_on_tasks(app: App) -> tuple[str, ...]:
    """A sentence if the app has no tasks but the built-in ones: its messages would wait for ever."""
    if any(not name.startswith("celery.") for name in app.tasks):
        return ()
    sentence = (
        f"The app {app.main!r} has no tasks, so this worker runs none. Import the modules that "
        "define them: name them in App(include=[...]), in --include or in the setting imports, or "
        "call app.autodiscover_tasks(). With Django, the application that has the tasks.py must be "
        "in INSTALLED_APPS."
    )
    return (sentence,)


def _rates_of(app: App) -> tuple[dict[str, float], tuple[str, ...]]:
    """The rates of the tasks that have one, and a sentence about each task whose rate cannot be read."""
    rates: dict[str, float] = {}
    faults: list[str] = []
    default = app.conf.task_default_rate_limit
    for name, task in app.tasks.items():
        is_own = task.rate_limit is not None
        try:
            per_s = per_second(task.rate_limit if is_own else default)
        except ValueError as exc:
            # One bad rate must not keep the worker from running its other tasks.
            source = "rate_limit" if is_own else "task_default_rate_limit"
            faults.append(f"Task {name!r} runs without a rate limit. Correct its {source}: {exc}.")
            continue
        if per_s:
            rates[name] = per_s
    return rates, tuple(faults)


def _more(ran: trace.Ran) -> bytes:
    """What a settle says beside the outcome, and most do not."""
    return Settle(
        message=ran.message,
        eta_ms=ran.eta_ms,
        detail=ran.detail,
        follow_ups=ran.follow_ups,
        added_members=ran.added_members,
    ).SerializeToString()


def build_runs(
    app: App, *, hostname: str, guard: Guard | None = None, limits: trace.Limits = (None, None)
) -> Runs:
    """The SDK's runner, with the log line of each run where somebody would read it."""
    runner = trace.build_runner(
        app,
        hostname=hostname,
        guard=guard,
        limits=limits,
        result_bytes_max=lambda: RESULT_BYTES_MAX if guard is None else guard.result_bytes_max,
    )
    run, run_natively = runner.run, runner.run_natively
    logger = logging.getLogger(trace.__name__)
    quiet_success = not logger.isEnabledFor(logging.INFO)

    def tell(ran: trace.Ran, message: bytes) -> Ran:
        outcome = ran.outcome
        if quiet_success and outcome == OUTCOME_SUCCESS and not ran.added_members:
            return Ran(outcome, ran.result, False, ran.runtime_s)  # noqa: FBT003 - requeue; a positional build is half the cost
        level, line = trace.log_line(ran, Message.FromString(message).id)
        if not logger.isEnabledFor(level):
            level, line = 0, ""
        says_more = outcome == OUTCOME_RETRY or ran.detail or ran.added_members
        more = _more(ran) if says_more else b""
        return Ran(outcome, ran.result, ran.requeue, ran.runtime_s, level, line, more)

    def run_and_tell(message: bytes, attempt: int, redelivered: bool) -> Ran:  # noqa: FBT001 - called once per task, and keywords cost
        return tell(run(message, attempt, redelivered), message)

    def expire_and_tell(message: bytes, attempt: int, redelivered: bool) -> Ran:  # noqa: FBT001 - as above
        return tell(runner.expire(message, attempt, redelivered), message)

    async def run_natively_and_tell(message: bytes, attempt: int, redelivered: bool) -> Ran:  # noqa: FBT001 - as above
        return tell(await run_natively(message, attempt, redelivered), message)

    node = Node(hostname, app)

    def notify(notice: Notice) -> None:
        match notice.signal:
            case "task_revoked":
                number = notice.number
                runner.tell_revoked(notice.message, signal.Signals(number).name if number else None)
            case "task_lost":
                runner.tell_lost(notice.message, notice.why)
            case "worker_process_shutdown":
                signals.worker_process_shutdown.send(hostname, pid=os.getpid(), exitcode=0)
            case name:
                getattr(signals, name).send(node)

    return Runs(run_and_tell, expire_and_tell, run_natively_and_tell, runner.is_async, notify)
