"""From a call to a message: the call's options win over the task's attributes, and those over the settings."""

import datetime as dt
import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Protocol
from zoneinfo import ZoneInfo

from qbroker import clock, envelope
from qbroker.app.config import Settings
from qbroker.ids import uuid7
from qbroker.request import current_request
from qbroker.serialization import Value, find as find_serializer
from qbroker_proto.v1.message_pb2 import ACK_POLICY_EARLY, ACK_POLICY_LATE, Message

__all__ = ["OPTIONS_LATER", "Call", "Defaults", "prepare"]

OPTIONS_LATER = frozenset(
    [
        "add_to_parent_chord",
        "chain",
        "chord",
        "compression",
        "connection",
        "delivery_mode",
        "exchange",
        "exchange_type",
        "group_id",
        "group_index",
        "immediate",
        "link",
        "link_error",
        "mandatory",
        "producer",
        "queue_arguments",
        "replaced_task_nesting",
        "retries",
        "retry",
        "retry_policy",
        "router",
        "routing_key",
        "stamped_headers",
    ]
)
"""Options of Celery's that have no effect yet, and so are refused."""

_NEVER_MS = 1 << 53


class Defaults(Protocol):
    """What a call takes from its task, or from settings where no task is known."""

    priority: int | None
    queue: str | None
    expires: Value
    acks_late: bool | None
    ignore_result: bool | None
    store_errors_even_if_ignored: bool | None
    max_deliveries: int | None
    serializer: str | None
    time_limit: float | None
    soft_time_limit: float | None
    trail: bool


class Origin:
    """Who publishes: `gen<pid>@<host>`, also after a fork."""

    def __init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Find out anew."""
        self.text = f"gen{os.getpid()}@{socket.gethostname()}"


_origin = Origin()
os.register_at_fork(after_in_child=_origin.refresh)


class Call:
    """A message that is ready to go."""

    __slots__ = ("args", "ignores_result", "kwargs", "message", "task", "task_id")

    def __init__(self, task: str, task_id: str, message: bytes, *, ignores_result: bool) -> None:
        self.task = task
        self.task_id = task_id
        self.message = message
        self.ignores_result = ignores_result


def prepare(
    conf: Settings,
    name: str,
    args: Sequence[Value] | None = None,
    kwargs: Mapping[str, Value] | None = None,
    *,
    task_type: Defaults | None = None,
    keeps_results: bool = True,
    task_id: str | None = None,
    queue: Value = None,
    priority: int | None = None,
    countdown: float | None = None,
    eta: dt.datetime | str | None = None,
    expires: float | dt.datetime | str | None = None,
    ignore_result: bool | None = None,
    headers: Mapping[str, Value] | None = None,
    shadow: str | None = None,
    argsrepr: str | None = None,
    kwargsrepr: str | None = None,
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
    serializer: str | None = None,
    root_id: str | None = None,
    parent_id: str | None = None,
    reply_to: str | None = None,
    correlation_id: str | None = None,
    **unsupported: Value,
) -> Call:
    """The message of a call. Times without a zone are in the app's."""
    if unsupported:
        _refuse(name, unsupported)
    if args is not None and not isinstance(args, list | tuple):
        if isinstance(args, str | bytes | Mapping):
            raise TypeError(f"task args must be a list or tuple, not {args!r}")
        args = tuple(args)
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"task kwargs must be a mapping, not {kwargs!r}")
    given = task_type if task_type is not None else _FromSettings(conf)
    if task_id is None:
        task_id = uuid7()
    if (serializer or given.serializer) != "json":
        find_serializer(serializer or given.serializer or "json")
    ignores = given.ignore_result if ignore_result is None else ignore_result
    fields: dict[str, Value] = {}
    # What most calls leave at its default stays off the wire, and costs a test each.
    if priority is None:
        priority = given.priority
    if priority is not None:
        if not 0 <= priority <= 9:
            raise ValueError(f"priority {priority!r} of task {name!r} is not between 0 and 9")
        fields["priority"] = priority
    if countdown is not None:
        fields["eta_ms"] = clock.wall_ms() + int(countdown * 1000)
    elif eta is not None:
        fields["eta_ms"] = _unix_ms(eta, conf)
    if expires is None:
        expires = given.expires
    if expires is not None:
        fields["expires_ms"] = (
            clock.wall_ms() + int(expires * 1000)
            if isinstance(expires, int | float)
            else _unix_ms(expires, conf)
        )
    if not keeps_results or ignores:
        fields["ignore_result"] = True
    if given.store_errors_even_if_ignored and keeps_results:
        fields["store_errors_even_if_ignored"] = True
    if given.max_deliveries:
        fields["max_deliveries"] = given.max_deliveries
    hard = time_limit if time_limit is not None else given.time_limit
    soft = soft_time_limit if soft_time_limit is not None else given.soft_time_limit
    if hard is not None or soft is not None:
        if hard is not None and soft is not None and soft > hard:
            raise ValueError("soft_time_limit must be less than or equal to time_limit")
        fields["time_limit"] = hard or 0.0
        fields["soft_time_limit"] = soft or 0.0
    if headers:
        fields["headers"] = json.dumps(dict(headers))
    if shadow:
        fields["shadow"] = shadow
    if argsrepr:
        fields["argsrepr"] = argsrepr
    if kwargsrepr:
        fields["kwargsrepr"] = kwargsrepr
    if reply_to:
        fields["reply_to"] = reply_to
    if correlation_id and correlation_id != task_id:
        fields["correlation_id"] = correlation_id
    request = current_request.get()
    if request is not None and not request.called_directly:
        parent_id = parent_id or request.id
        root_id = root_id or request.root_id
    if parent_id:
        fields["parent_id"] = parent_id
    if root_id and root_id != task_id:
        fields["root_id"] = root_id
    message = Message(
        id=task_id,
        task=name,
        queue=_queue_name(queue) if queue is not None else given.queue or conf.task_default_queue,
        ack_policy=ACK_POLICY_LATE if given.acks_late else ACK_POLICY_EARLY,
        result_ttl_ms=_ttl_ms(conf.result_expires),
        content_type="application/json",
        content_encoding="utf-8",
        body=envelope.encode_body(args or (), kwargs or {}),
        origin=_origin.text,
        **fields,
    ).SerializeToString()
    envelope.check_size(message, name, conf.task_message_bytes_max)
    return Call(name, task_id, message, ignores_result=bool(ignores))


def _refuse(name: str, unsupported: Mapping[str, Value]) -> None:
    later = sorted(option for option in unsupported if option in OPTIONS_LATER)
    if later:
        raise NotImplementedError(
            f"the call of {name!r} has options that qbroker does not support yet: {', '.join(later)}"
        )
    raise TypeError(f"the call of {name!r} has unknown options: {', '.join(sorted(unsupported))}")


def _queue_name(queue: Value) -> str:
    # A Queue object of kombu's has a name.
    return queue if isinstance(queue, str) else str(queue.name)


def _ttl_ms(seconds: float | None) -> int:
    return _NEVER_MS if not seconds else int(seconds * 1000)


def zone_of(conf: Settings) -> dt.tzinfo:
    """The zone that `timezone` names."""
    zone = conf.timezone
    if zone is None:
        return dt.UTC
    return ZoneInfo(zone) if isinstance(zone, str) else zone


def _unix_ms(moment: dt.datetime | str, conf: Settings) -> int:
    if isinstance(moment, str):
        moment = dt.datetime.fromisoformat(moment)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone_of(conf))
    return int(moment.timestamp() * 1000)


class _FromSettings:
    """Stands for a task this process does not know."""

    def __init__(self, conf: Settings) -> None:
        self.queue: str | None = None
        self.expires: Value = None
        self.time_limit: float | None = None
        self.soft_time_limit: float | None = None
        self.trail = True
        self.priority: int | None = conf.task_default_priority
        self.acks_late: bool | None = conf.task_acks_late
        self.ignore_result: bool | None = conf.task_ignore_result
        self.store_errors_even_if_ignored: bool | None = conf.task_store_errors_even_if_ignored
        self.max_deliveries: int | None = conf.task_max_deliveries
        self.serializer: str | None = conf.task_serializer
