"""Settings are checked before a worker or beat starts: each that cannot be used is named with what it must be.

Types are checked when a setting is set, by `defaults`. What is checked here depends on more than the value,
or would make a program fail that never uses the setting.
"""

import datetime as dt
import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from qbroker import compression, serialization
from qbroker.app import annotations, routes
from qbroker.app.defaults import SETTINGS
from qbroker.exceptions import ImproperlyConfigured, SerializerNotInstalled
from qbroker.limits import check_time_limits
from qbroker.masking import masked_setting
from qbroker.messaging import Queue
from qbroker.serialization import Value
from qbroker.utils.log import mlevel

if TYPE_CHECKING:
    from qbroker.app.base import App

__all__ = ["check"]


def check(app: "App") -> None:
    """Raise ImproperlyConfigured with a sentence for each setting that cannot be used."""
    problems = []
    for name in SETTINGS:
        value = app.conf[name]
        wanted = _number(name, value)
        if wanted is None and value is not None and name in _CHECKS:
            try:
                wanted = _CHECKS[name](app, value)
            except Exception as exc:  # noqa: BLE001 - whatever a value, or a function that it names, raises
                wanted = f"usable ({type(exc).__name__}: {exc})"
        if wanted is not None:
            problems.append(
                f"the setting {name} must be {wanted}, not {masked_setting(name, value)!r}"
            )
    # Tasks are bound only by settings that can be used.
    problems = problems or _crossed_limits(app)
    if problems:
        raise ImproperlyConfigured("; ".join(problems))


def _crossed_limits(app: "App") -> list[str]:
    """Sentences about soft time limits above the hard ones, in the settings and in tasks."""
    conf = app.conf
    try:
        check_time_limits(conf.task_soft_time_limit, conf.task_time_limit)
    except ValueError:
        return [
            (
                f"the setting task_soft_time_limit must be at most task_time_limit "
                f"({conf.task_time_limit!r}), not {conf.task_soft_time_limit!r}"
            )
        ]
    problems = []
    for name, task in app.tasks.items():
        try:
            check_time_limits(task.soft_time_limit, task.time_limit)
        except (TypeError, ValueError) as exc:
            problems.append(f"the time limits of task {name!r} cannot be used: {exc}")
    return problems


Check = Callable[["App", Value], str | None]
"""Says what the value must be; None where it may stay as it is."""

_SIGNED = frozenset({"compression_level"})


def _number(name: str, value: Value) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or name in _SIGNED:
        return None
    return "a number from 0" if math.isnan(value) or value < 0 else None


def _one_of(*choices: str) -> Check:
    return lambda _app, value: None if value in choices else f"one of {', '.join(choices)}"


def _zone(app: "App", _value: Value) -> str | None:
    try:
        is_zone = isinstance(app.timezone, dt.tzinfo)
    except ImproperlyConfigured:
        is_zone = False
    return None if is_zone else "the name of a time zone, such as 'Europe/Berlin', or a tzinfo"


def _serializer(_app: "App", value: Value) -> str | None:
    try:
        serialization.find(value)
    except SerializerNotInstalled:
        known = ", ".join(serialization.names())
        return f"the name of a serializer ({known}; qbroker.serialization.register() adds one)"
    return None


def _serializers(app: "App", value: Value) -> str | None:
    for name in value:
        if not isinstance(name, str) or ("/" not in name and _serializer(app, name) is not None):
            known = ", ".join(serialization.names())
            return f"a list of names of serializers ({known}) or of content types"
    return None


def _compression(_app: "App", value: Value) -> str | None:
    try:
        compression.find(value)
    except ImproperlyConfigured:
        return "the name of a compression: zstd, gzip, bzip2, lzma or brotli"
    return None


def _routes(_app: "App", value: Value) -> str | None:
    wanted = "a mapping of task names to queues or options, a list of such pairs, a function, or a list of these"
    if isinstance(value, bool | int | float):
        return wanted
    for router in routes.prepare(value):
        if isinstance(router, routes.MapRoute):
            for route in router.routes():
                if not isinstance(route, str | Mapping | Queue):
                    return wanted
    return None


def _queues(app: "App", value: Value) -> str | None:
    entries = list(value.values()) if isinstance(value, Mapping) else value
    kinds = (Mapping,) if isinstance(value, Mapping) else (Queue, str)
    if isinstance(entries, str) or not all(isinstance(entry, (*kinds, Queue)) for entry in entries):
        return "a list of Queue, or a mapping of names to options"
    _ = app.amqp.queues
    return None


def _annotations(_app: "App", value: Value) -> str | None:
    if all(hasattr(one, "annotate") for one in annotations.prepare(value)):
        return None
    return (
        "a mapping of task names to attributes, an object with annotate(task), or a list of these"
    )


def _schedule(_app: "App", value: Value) -> str | None:
    if isinstance(value, Mapping) and all(
        isinstance(entry, Mapping) or hasattr(entry, "schedule") for entry in value.values()
    ):
        return None
    return "a mapping of names to entries: {'tidy': {'task': 'proj.tidy', 'schedule': 60.0}}"


def _level(_app: "App", value: Value) -> str | None:
    try:
        mlevel(value)
    except ValueError:
        return "one of DEBUG, INFO, WARNING, ERROR, CRITICAL"
    return None


def _log_format(_app: "App", value: Value) -> str | None:
    try:
        logging.Formatter(value)
    except ValueError:
        return "a format of logging, such as '%(levelname)s: %(message)s'"
    return None


def _log_color(_app: "App", value: Value) -> str | None:
    return None if value in (True, False) else "True, False or None"


def _modules(_app: "App", value: Value) -> str | None:
    if all(isinstance(name, str) for name in value):
        return None
    return "a list of names of modules"


def _priority(_app: "App", value: Value) -> str | None:
    return None if 0 <= value <= 9 else "a number from 0 to 9"


def _address(_app: "App", value: Value) -> str | None:
    return None if re.fullmatch(r"[^\s]+:\d{1,5}", value) else "HOST:PORT, such as 127.0.0.1:7460"


_CHECKS: Mapping[str, Check] = {
    "accept_content": _serializers,
    "beat_schedule": _schedule,
    "imports": _modules,
    "include": _modules,
    "result_accept_content": _serializers,
    "result_compression": _compression,
    "result_serializer": _serializer,
    "task_annotations": _annotations,
    "task_compression": _compression,
    "task_default_exchange_type": _one_of("direct", "topic", "fanout", "headers"),
    "task_default_priority": _priority,
    "task_queues": _queues,
    "task_routes": _routes,
    "task_serializer": _serializer,
    "timezone": _zone,
    "worker_http_listen": _address,
    "worker_log_color": _log_color,
    "worker_log_format": _log_format,
    "worker_pool_start_method": _one_of("fork", "spawn"),
    "worker_redirect_stdouts_level": _level,
    "worker_task_log_format": _log_format,
}
