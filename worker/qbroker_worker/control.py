"""Remote commands, a function each: what this worker answers when somebody asks, and does when somebody says so.

They run on the event loop of the worker's parent, which runs no user code, so it answers however busy the tasks are.
Commands that the app has added run beside it (aide.py). What a command raises is its answer: {"error": …}.
"""

import contextlib
import logging
import os
import resource
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from qbroker import envelope
from qbroker.limits import check_time_limits, per_second
from qbroker.serialization import Value, json_decode
from qbroker.worker.control import BUILT_IN, Info, arguments_of, nok, ok
from qbroker_worker.aide import Aide
from qbroker_worker.banner import BUILT_IN_PREFIX
from qbroker_worker.journal import READABLE, Journal, plain
from qbroker_worker.loading import Facts
from qbroker_worker.pools.pool import Pool, Restarted
from qbroker_worker.session import Session
from qbroker_worker.values import Answer, Aside, Ask, Delivery, Restart

logger = logging.getLogger(__name__)

TASK_ITEMS = ("exchange", "routing_key", "rate_limit")
"""Attributes that `registered` shows of each task unless others are asked for."""

SAMPLES_MAX = 1_000
TIME_LIMIT_MAX_S = 1e10


class Steering(Protocol):
    """What commands use of the worker."""

    @property
    def bounds(self) -> tuple[int, int] | None:
        """The greatest and least number of slots it scales between; None: it does not."""

    def restart_pool(self, wanted: Restart, restarted: Restarted) -> None:
        """Have the processes that run tasks begin anew."""

    def know(self, tasks: tuple[str, ...], rates: Mapping[str, float]) -> None:
        """The app has these tasks now, some of them with a rate."""

    def signalled(self, number: int) -> None:
        """Do what is done on a signal."""

    def resize(self, slots: int) -> int:
        """Run so many tasks at once; how many it does."""

    def autoscale(self, slots_max: int, slots_min: int) -> None:
        """Scale between so many slots."""

    def set_rate(self, task: str, per_s: float) -> None:
        """Start the task so many times a second; 0 is as often as it comes."""

    def limit(self, task: str, soft_s: float | None, hard_s: float | None) -> None:
        """Have calls of the task that say nothing of it run so long."""


class Link(Protocol):
    """What commands use of the stream."""

    @property
    def queues(self) -> tuple[str, ...]:
        """What this worker takes from."""

    def take_from(self, queues: tuple[str, ...]) -> None:
        """Take from these queues from now on."""

    def say(self, aside: Aside) -> None:
        """Say this on the link that is up."""


@dataclass(slots=True)
class State:
    """What commands look at and act on."""

    name: str
    facts: Facts
    address: str
    """The broker's: host and port."""
    pid: int
    session: Session
    pool: Pool
    link: Link
    journal: Journal
    worker: Steering
    monotonic: Callable[[], float]
    started_s: float
    samples: list[int] = field(default_factory=list)


class Later(NamedTuple):
    """An answer that is not known yet."""

    begin: Callable[[Callable[[Value], None]], None]
    """Called at once, with what takes the answer when there is one."""


Command = Callable[..., Value]

_COMMANDS: dict[str, Command] = {}


def _command(fun: Command) -> Command:
    name = fun.__name__.removeprefix("_")
    _COMMANDS[name] = fun
    if alias := BUILT_IN[name].alias:
        _COMMANDS[alias] = fun
    return fun


class Commands:
    """Answers what is asked of this worker."""

    def __init__(self, state: State, aide: Aide) -> None:
        self._state = state
        self._aide = aide

    def asked(self, asks: Sequence[Ask]) -> None:
        """Answer each, at once where it is the worker's own command."""
        for ask in asks:
            if ask.command in self._state.facts.commands:
                self._aide.ask(ask, lambda body, id_=ask.id: self._say(id_, body))  # type: ignore[misc] # a lambda's default
            else:
                self._reply(ask.id, self._answer(ask))

    def _reply(self, id_: int, answer: Value) -> None:
        if isinstance(answer, Later):
            answer.begin(lambda value: self._reply(id_, value))
        else:
            self._say(id_, plain(answer))

    def _say(self, id_: int, body: bytes) -> None:
        self._state.link.say(Answer(id_, body))

    def _answer(self, ask: Ask) -> Value:
        command = _COMMANDS.get(ask.command)
        if command is None:
            logger.warning("No remote command %r is known", ask.command)
            return nok(repr(KeyError(ask.command)))
        try:
            keywords = keywords_of(ask, _info_of(ask.command))
        except ValueError as exc:
            logger.warning(
                "The remote command %r has arguments that it cannot take: %s", ask.command, exc
            )
            return nok(repr(exc))
        try:
            return command(self._state, **keywords)
        except Exception as exc:
            logger.exception("The remote command %r failed", ask.command)
            return nok(repr(exc))


def keywords_of(ask: Ask, info: Info) -> dict[str, Value]:
    """The arguments of a command: those by name, and what the words mean."""
    found: dict[str, Value] = json_decode(ask.arguments) if ask.arguments else {}
    if ask.words:
        found |= arguments_of(ask.command, info, ask.words)
    return found


def _info_of(name: str) -> Info:
    if name in BUILT_IN:
        return BUILT_IN[name]
    return next(info for info in BUILT_IN.values() if info.alias == name)


# -- what there is -------------------------------------------------------------------------------


@_command
def _ping(state: State, **_: Value) -> Value:
    return ok("pong")


@_command
def _active(state: State, safe: bool | None = False, **_: Value) -> Value:  # noqa: FBT001, FBT002 - Celery's argument
    return [_info_of_running(state, id_, safe=bool(safe)) for id_ in list(state.journal.running)]


def _info_of_running(state: State, id_: str, *, safe: bool = False) -> dict[str, Value]:
    delivery, pid, since_ms = state.journal.running[id_]
    return envelope.task_info(
        delivery.message,
        READABLE,
        hostname=state.name,
        redelivered=delivery.is_redelivered,
        time_start=since_ms / 1000,
        acknowledged=not delivery.is_late,
        worker_pid=pid,
        safe=safe,
    )


def _waiting(state: State, delivery: Delivery) -> dict[str, Value]:
    return envelope.task_info(
        delivery.message, READABLE, hostname=state.name, redelivered=delivery.is_redelivered
    )


@_command
def _query_task(state: State, ids: str | Sequence[str] = (), **_: Value) -> Value:
    found: dict[str, Value] = {}
    for id_ in [ids] if isinstance(ids, str) else ids:
        delivery = state.session.find(id_)
        if id_ in state.journal.running:
            found[id_] = ["active", _info_of_running(state, id_)]
        elif delivery is not None:
            found[id_] = ["reserved", _waiting(state, delivery)]
    return found


@_command
def _registered(
    state: State,
    taskinfoitems: Sequence[str] | None = None,
    builtins: bool = False,  # noqa: FBT001, FBT002 - Celery's argument
    **_: Value,
) -> Value:
    items = [one for one in taskinfoitems or TASK_ITEMS if not one.startswith("_")]
    return [
        _described(name, state.facts.attributes.get(name, {}), items)
        for name in sorted(state.facts.tasks)
        if builtins or not name.startswith(BUILT_IN_PREFIX)
    ]


def _described(name: str, attributes: Mapping[str, str], items: Sequence[str]) -> str:
    known = " ".join(f"{item}={attributes[item]}" for item in items if item in attributes)
    return f"{name} [{known}]" if known else name


@_command
def _conf(state: State, with_defaults: bool = False, **_: Value) -> Value:  # noqa: FBT001, FBT002 - Celery's argument
    return {
        name: value
        for name, value in state.facts.conf.items()
        if with_defaults or name in state.facts.conf_set
    }


@_command
def _report(state: State, **_: Value) -> Value:
    return ok(state.facts.report)


@_command
def _stats(state: State, **_: Value) -> Value:
    host, _colon, port = state.address.rpartition(":")
    pool = state.pool
    return {
        "total": dict(state.journal.totals),
        "pid": state.pid,
        "clock": str(state.journal.ended_count),
        "uptime": round(state.monotonic() - state.started_s),
        "pool": {
            "implementation": f"{type(pool).__module__}:{type(pool).__qualname__}",
            "max-concurrency": pool.slots,
            "processes": pool.pids,
            "max-tasks-per-child": state.facts.conf.get("worker_max_tasks_per_child") or "N/A",
            "put-guarded-by-semaphore": False,
            "timeouts": [
                state.facts.conf.get("task_soft_time_limit") or 0,
                state.facts.conf.get("task_time_limit") or 0,
            ],
            "writes": "N/A",
        },
        "broker": {
            "hostname": host,
            "userid": None,
            "virtual_host": "/",
            "port": int(port),
            "insist": False,
            "ssl": False,
            "transport": "qbroker",
            "connect_timeout": 0,
            "transport_options": {},
            "login_method": None,
            "uri_prefix": None,
            "heartbeat": 5.0,
            "failover_strategy": "round-robin",
            "alternates": [],
        },
        "prefetch_count": state.session.prefetch_count,
        "rusage": _rusage(),
        **_scaling(state),
    }


def _scaling(state: State) -> dict[str, Value]:
    if state.worker.bounds is None:
        return {}
    slots_max, slots_min = state.worker.bounds
    qty = state.session.held_count
    return {
        "autoscaler": {
            "max": slots_max,
            "min": slots_min,
            "current": state.pool.slots,
            "qty": qty,
        }
    }


def _rusage() -> dict[str, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    fields = (
        "utime", "stime", "maxrss", "ixrss", "idrss", "isrss", "minflt", "majflt", "nswap",
        "inblock", "oublock", "msgsnd", "msgrcv", "nsignals", "nvcsw", "nivcsw",
    )  # fmt: skip
    return {name: getattr(used, f"ru_{name}") for name in fields}


@_command
def _memsample(state: State, **_: Value) -> Value:
    bytes_ = _resident_bytes()
    if len(state.samples) < SAMPLES_MAX:
        state.samples.append(bytes_)
    return _megabytes(bytes_)


@_command
def _memdump(state: State, samples: int = 10, **_: Value) -> Value:
    """As many of the samples as asked for, evenly chosen, and what there is now."""
    taken, state.samples = state.samples, []
    step = max(1, len(taken) // max(1, samples))
    lines = [f"- rss (sample): {_megabytes(one)}" for one in taken[::step]]
    lines.append(f"- rss (end): {_megabytes(_resident_bytes())}.")
    return "\n".join(lines) + "\n"


def _resident_bytes() -> int:
    with contextlib.suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a kernel's file
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    # Elsewhere: the most it ever had, which is better than nothing.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _megabytes(bytes_: int) -> str:
    return f"{bytes_ / 1_000_000:.2f}MB"


@_command
def _objgraph(
    state: State,
    num: int = 200,
    max_depth: int = 10,
    type: str = "Request",  # noqa: A002 - Celery's argument
    **_: Value,
) -> Value:
    raise ImportError(
        "objgraph is for the process that runs tasks; add an @inspect_command that calls it there"
    )


# -- what is to be otherwise ---------------------------------------------------------------------


@_command
def _add_consumer(state: State, queue: str, **_: Value) -> Value:
    queues = state.link.queues
    queue = state.facts.aliases.get(queue, queue)
    if queue in queues:
        return ok(f"already consuming from {queue!r}")
    state.link.take_from((*queues, queue))
    logger.info("Started consuming from %s", queue)
    return ok(f"add consumer {queue}")


@_command
def _cancel_consumer(state: State, queue: str, **_: Value) -> Value:
    queue = state.facts.aliases.get(queue, queue)
    state.link.take_from(tuple(name for name in state.link.queues if name != queue))
    logger.info("Canceled queue %s", queue)
    return ok(f"no longer consuming from {queue}")


@_command
def _enable_events(state: State, **_: Value) -> Value:
    if state.journal.sends_task_events:
        return ok("task events already enabled")
    state.journal.sends_task_events = True
    return ok("task events enabled")


@_command
def _disable_events(state: State, **_: Value) -> Value:
    if not state.journal.sends_task_events:
        return ok("task events already disabled")
    state.journal.sends_task_events = False
    return ok("task events disabled")


@_command
def _heartbeat(state: State, **_: Value) -> Value:
    state.journal.heartbeat()
    return None


@_command
def _pool_grow(state: State, n: int = 1, **_: Value) -> Value:
    if state.worker.bounds is not None:
        return nok(f"pool_grow {_WITH_AUTOSCALE}")
    return _resized(state, state.pool.slots + n, "pool will grow")


@_command
def _pool_shrink(state: State, n: int = 1, **_: Value) -> Value:
    if state.worker.bounds is not None:
        return nok(f"pool_shrink {_WITH_AUTOSCALE}")
    if n >= state.pool.slots:
        return nok(f"the pool runs {state.pool.slots} tasks at once; it cannot run {n} fewer")
    return _resized(state, state.pool.slots - n, "pool will shrink")


_WITH_AUTOSCALE = "is not supported with autoscale. Adjust autoscale range instead."


def _resized(state: State, slots: int, told: str) -> Value:
    if state.worker.resize(slots) != slots:
        return nok(f"the {state.pool.name} pool cannot be resized")
    return ok(told)


@_command
def _autoscale(
    state: State,
    max: int | None = None,  # noqa: A002 - Celery's argument
    min: int | None = None,  # noqa: A002 - Celery's argument
    **_: Value,
) -> Value:
    now_max, now_min = state.worker.bounds or (state.pool.slots, state.pool.slots)
    slots_max = now_max if max is None else max
    slots_min = now_min if min is None else min
    if max is not None and min is None and slots_min > slots_max:
        slots_min = slots_max
    if not 1 <= slots_min <= slots_max:
        return nok(f"autoscale max={slots_max} min={slots_min}: 1 <= min <= max")
    state.worker.autoscale(slots_max, slots_min)
    return ok(f"autoscale now max={slots_max} min={slots_min}")


@_command
def _pool_restart(
    state: State,
    modules: Sequence[str] | None = None,
    reload: bool = False,  # noqa: FBT001, FBT002 - Celery's argument
    **_: Value,
) -> Value:
    if not state.facts.conf.get("worker_pool_restarts"):
        raise ValueError("Pool restarts not enabled")
    wanted = Restart(None if modules is None else tuple(modules), bool(reload))

    def begin(answer: Callable[[Value], None]) -> None:
        def restarted(facts: bytes, trouble: str) -> None:
            if trouble:
                answer(nok(trouble))
                return
            state.facts = Facts.decode(facts)
            state.worker.know(state.facts.tasks, state.facts.rates)
            answer(ok("reload started"))

        state.worker.restart_pool(wanted, restarted)

    return Later(begin)


@_command
def _rate_limit(state: State, task_name: str, rate_limit: str | float | None, **_: Value) -> Value:
    try:
        per_s = per_second(rate_limit)
    except ValueError as exc:
        return nok(f"Invalid rate limit string: {exc!r}")
    if task_name not in state.facts.tasks:
        logger.error("Rate limit attempt for unknown task %s", task_name)
        return nok("unknown task")
    state.worker.set_rate(task_name, per_s)
    if not per_s:
        logger.info("Rate limits disabled for tasks of type %s", task_name)
        return ok("rate limit disabled successfully")
    logger.info("New rate limit for tasks of type %s: %s.", task_name, rate_limit)
    return ok("new rate limit set successfully")


@_command
def _time_limit(
    state: State,
    task_name: str,
    hard: float | None = None,
    soft: float | None = None,
    **_: Value,
) -> Value:
    if task_name not in state.facts.tasks:
        logger.error("Change time limit attempt for unknown task %s", task_name)
        return nok("unknown task")
    conf = state.facts.conf
    # Without one of its own the task has the setting's.
    now = {
        "time_limit": hard or conf.get("task_time_limit"),
        "soft_time_limit": soft or conf.get("task_soft_time_limit"),
    }
    for name, seconds in (("hard", hard), ("soft", soft)):
        # A NaN is not between anything.
        if seconds is not None and not 0 <= seconds < TIME_LIMIT_MAX_S:
            return nok(f"{name}={seconds!r} must be a number of seconds, at least 0 (0: no limit)")
    try:
        check_time_limits(now["soft_time_limit"], now["time_limit"])
    except ValueError as exc:
        return nok(f"Invalid time limits: {exc}")
    state.worker.limit(task_name, soft, hard)
    # `registered` shows what holds now.
    shown = {
        name: value
        for name, value in state.facts.attributes.get(task_name, {}).items()
        if name not in now
    }
    shown.update({name: str(value) for name, value in now.items() if value})
    attributes = {**state.facts.attributes, task_name: shown}
    state.facts = replace(state.facts, attributes=attributes)
    logger.info("New time limits for tasks of type %s: soft=%s hard=%s", task_name, soft, hard)
    return ok("time limits set successfully")


@_command
def _shutdown(state: State, msg: str = "Got shutdown from remote", **_: Value) -> Value:
    logger.warning("%s", msg)
    state.worker.signalled(signal.SIGTERM)
    return ok("shutting down")


def names() -> Iterator[str]:
    """The commands that are answered here."""
    return iter(_COMMANDS)
