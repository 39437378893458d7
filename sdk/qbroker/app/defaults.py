"""Every setting: its names, type, default and meaning. A new one is a line here, and has an effect.

Names are Celery's where Celery has the setting; old names are those of its upper-case days.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qbroker.app.log import LOG_FORMAT, TASK_LOG_FORMAT
from qbroker.exceptions import ImproperlyConfigured
from qbroker.serialization import Value
from qbroker.url import DEFAULT_URL

__all__ = ["SETTINGS", "Setting", "find"]


def _text(value: Value) -> Value:
    if isinstance(value, str):
        return value
    raise TypeError("text")


def _flag(value: Value) -> Value:
    if isinstance(value, str):
        meant = {"1": True, "true": True, "yes": True, "on": True}
        meant |= {"0": False, "false": False, "no": False, "off": False, "": False}
        if value.lower() in meant:
            return meant[value.lower()]
    elif isinstance(value, bool | int):
        return bool(value)
    raise TypeError("a boolean")


def _count(value: Value) -> Value:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise TypeError("a whole number") from None


def _seconds(value: Value) -> Value:
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError("seconds or a timedelta") from None


def _names(value: Value) -> Value:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    try:
        return tuple(value)
    except TypeError:
        raise TypeError("a list of names") from None


def _any(value: Value) -> Value:
    return value


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `convert` takes what users write, and raises a TypeError that says what it wants."""

    name: str
    convert: Callable[[Value], Value]
    default: Value
    meaning: str
    old_names: tuple[str, ...] = ()

    def value_of(self, given: Value) -> Value:
        """What the user means."""
        if given is None:
            return None if self.default is None else self.default
        try:
            return self.convert(given)
        except TypeError as exc:
            raise ImproperlyConfigured(
                f"the setting {self.name} is to be {exc}, not {given!r}. {self.meaning}"
            ) from None


_TABLE = (
    Setting("accept_content", _names, ("json",), "Serializers whose content may be read.", ("CELERY_ACCEPT_CONTENT",)),
    Setting("broker_connection_timeout", _seconds, 5.0, "How many seconds a call waits for the broker's answer, connecting included.", ("BROKER_CONNECTION_TIMEOUT",)),
    Setting("broker_url", _text, DEFAULT_URL, "Where the broker is: qbroker://host:port.", ("BROKER_URL",)),
    Setting("enable_utc", _flag, default=True, meaning="Times without a zone are UTC; else they are in `timezone`.", old_names=("CELERY_ENABLE_UTC",)),
    Setting("imports", _names, (), "Modules a worker imports when it starts.", ("CELERY_IMPORTS",)),
    Setting("include", _names, (), "More such modules; App(include=…) adds to them.", ("CELERY_INCLUDE",)),
    Setting("result_backend", _any, None, "'qbroker://' keeps results in the broker; None keeps none.", ("CELERY_RESULT_BACKEND",)),
    Setting("result_expires", _seconds, 86_400.0, "How many seconds a result is kept after the end.", ("CELERY_TASK_RESULT_EXPIRES",)),
    Setting("task_acks_late", _flag, default=False, meaning="Acknowledge tasks after they ran, not before.", old_names=("CELERY_ACKS_LATE",)),
    Setting("task_acks_on_failure", _flag, None, "Acknowledge late-acknowledged tasks that fail; else they become dead letters. None: as task_acks_on_failure_or_timeout.", ("CELERY_ACKS_ON_FAILURE",)),
    Setting("task_acks_on_failure_or_timeout", _flag, default=True, meaning="Acknowledge late-acknowledged tasks that fail or run out of time.", old_names=("CELERY_ACKS_ON_FAILURE_OR_TIMEOUT",)),
    Setting("task_acks_on_timeout", _flag, None, "Acknowledge late-acknowledged tasks that run out of time; else they are run again. None: as task_acks_on_failure_or_timeout.", ("CELERY_ACKS_ON_TIMEOUT",)),
    Setting("task_allow_error_cb_on_chord_header", _flag, default=False, meaning="Errbacks of a chord are called for each task of its header that fails, too.", old_names=("CELERY_ALLOW_ERROR_CB_ON_CHORD_HEADER",)),
    Setting("task_always_eager", _flag, default=False, meaning="Run tasks where they are called, without a broker.", old_names=("CELERY_ALWAYS_EAGER",)),
    Setting("task_default_priority", _count, None, "The priority of tasks that have none: 0 to 9, higher first."),
    Setting("task_default_queue", _text, "celery", "The queue of tasks that name none.", ("CELERY_DEFAULT_QUEUE",)),
    Setting("task_default_rate_limit", _any, None, "How often a worker starts a task that has no rate_limit: '100/s', '100/m', '100/h', or so many a second; None: no limit.", ("CELERY_DEFAULT_RATE_LIMIT",)),
    Setting("task_eager_propagates", _flag, default=False, meaning="Raise what a task raises that runs where it is called.", old_names=("CELERY_EAGER_PROPAGATES_EXCEPTIONS", "CELERY_EAGER_PROPAGATES")),
    Setting("task_ignore_result", _flag, default=False, meaning="Keep no results.", old_names=("CELERY_IGNORE_RESULT",)),
    Setting("task_inherit_parent_priority", _flag, default=False, meaning="Tasks that a task calls have its priority, unless they have one of their own.", old_names=("CELERY_INHERIT_PARENT_PRIORITY",)),
    Setting("task_max_deliveries", _count, 0, "How many deaths of workers a late-acknowledged task survives; 0: as the broker says."),
    Setting("task_message_bytes_max", _count, 4 * 1024 * 1024, "The largest message that is sent, in bytes."),
    Setting("task_reject_on_worker_lost", _flag, None, "Run late-acknowledged tasks again whose worker died. None and True: up to task_max_deliveries; False: the first death is the last.", ("CELERY_REJECT_ON_WORKER_LOST",)),
    Setting("task_send_sent_event", _flag, default=False, meaning="Tell those who listen of each call that is sent.", old_names=("CELERY_SEND_TASK_SENT_EVENT",)),
    Setting("task_serializer", _text, "json", "How arguments and results are written.", ("CELERY_TASK_SERIALIZER",)),
    Setting("task_soft_time_limit", _seconds, None, "After how many seconds SoftTimeLimitExceeded is raised in a task; None: never.", ("CELERYD_TASK_SOFT_TIME_LIMIT",)),
    Setting("task_store_errors_even_if_ignored", _flag, default=False, meaning="Keep failures of tasks whose results are ignored.", old_names=("CELERY_STORE_ERRORS_EVEN_IF_IGNORED",)),
    Setting("task_time_limit", _seconds, None, "After how many seconds a task is ended; None: never.", ("CELERYD_TASK_TIME_LIMIT",)),
    Setting("task_track_started", _flag, default=False, meaning="Show the state STARTED while a task runs.", old_names=("CELERY_TRACK_STARTED",)),
    Setting("timezone", _any, None, "The zone of times without one and of app.now(); None is UTC.", ("CELERY_TIMEZONE",)),
    Setting("worker_concurrency", _count, None, "How many tasks a worker runs at once; None: as many as there are cores.", ("CELERYD_CONCURRENCY",)),
    Setting("worker_disable_rate_limits", _flag, default=False, meaning="Have no task's rate_limit count.", old_names=("CELERY_DISABLE_RATE_LIMITS",)),
    Setting("worker_enable_soft_shutdown_on_idle", _flag, default=False, meaning="Wait worker_soft_shutdown_timeout seconds even if nothing runs."),
    Setting("worker_hijack_root_logger", _flag, default=True, meaning="Remove the root logger's handlers when a worker starts.", old_names=("CELERYD_HIJACK_ROOT_LOGGER",)),
    Setting("worker_http_listen", _text, None, "Where a worker serves /metrics, /livez and /readyz: HOST:PORT; None: nowhere."),
    Setting("worker_log_color", _any, None, "Colours in the log: True, False, or None for where it is a terminal.", ("CELERYD_LOG_COLOR",)),
    Setting("worker_log_format", _text, LOG_FORMAT, "The form of a line of log.", ("CELERYD_LOG_FORMAT",)),
    Setting("worker_max_memory_per_child", _count, None, "How many KiB a child may have grown to before a fresh one takes its place; None: any.", ("CELERYD_MAX_MEMORY_PER_CHILD",)),
    Setting("worker_max_tasks_per_child", _count, None, "How many tasks a child runs before a fresh one takes its place; None: any.", ("CELERYD_MAX_TASKS_PER_CHILD",)),
    Setting("worker_pool", _text, "prefork", "Where tasks run: prefork, threads, asyncio or solo.", ("CELERYD_POOL",)),
    Setting("worker_prefetch_multiplier", _count, 4, "How many messages a worker holds, times its concurrency.", ("CELERYD_PREFETCH_MULTIPLIER",)),
    Setting("worker_redirect_stdouts", _flag, default=True, meaning="Make what tasks print a record of the log.", old_names=("CELERY_REDIRECT_STDOUTS",)),
    Setting("worker_redirect_stdouts_level", _text, "WARNING", "The level of those records.", ("CELERY_REDIRECT_STDOUTS_LEVEL",)),
    Setting("worker_send_task_events", _flag, default=False, meaning="Tell those who listen what becomes of each task: the worker's -E.", old_names=("CELERY_SEND_EVENTS", "CELERY_SEND_TASK_EVENTS")),
    Setting("worker_soft_shutdown_timeout", _seconds, 0.0, "How many seconds tasks may go on that run when a worker is told to end at once."),
    Setting("worker_task_log_format", _text, TASK_LOG_FORMAT, "The form of a line a task logs.", ("CELERYD_TASK_LOG_FORMAT",)),
)  # fmt: skip

SETTINGS: Mapping[str, Setting] = {setting.name: setting for setting in _TABLE}
_OLD = {old: setting for setting in _TABLE for old in setting.old_names}


def find(name: str) -> Setting | None:
    """The setting of that name: `task_acks_late`, `TASK_ACKS_LATE`, `CELERY_TASK_ACKS_LATE` or its old name."""
    return (
        SETTINGS.get(name)
        or _OLD.get(name)
        or SETTINGS.get(name.lower())
        or (SETTINGS.get(name[7:].lower()) if name.startswith("CELERY_") else None)
    )
