"""From a call to a message: the call's options win over the task's attributes, and those over the settings."""

import datetime as dt
import json
import math
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from qbroker import clock, envelope, serialization
from qbroker.app.config import Settings
from qbroker.app.rules import Ruled, rules_of
from qbroker.exceptions import (
    DuplicateTaskError,
    EncodeError,
    HeadersTooLarge,
    ImproperlyConfigured,
    InvalidName,
    MessageRefused,
    UnroutableError,
)
from qbroker.ids import uuid7
from qbroker.limits import Key, Limit, check_time_limits, own_time_limit
from qbroker.request import current_request
from qbroker.serialization import JSON, Value, json_encode
from qbroker_proto import checksum, names
from qbroker_proto.v1.message_pb2 import ACK_POLICY_EARLY, ACK_POLICY_LATE, Message
from qbroker_proto.v1.producer_pb2 import (
    REFUSAL_CODE_ALREADY_EXISTS,
    REFUSAL_CODE_HEADERS_TOO_LARGE,
    REFUSAL_CODE_INVALID_NAME,
    REFUSAL_CODE_UNROUTABLE,
    Existing,
    Refusal,
)

__all__ = [
    "OPTIONS_NEEDLESS",
    "PROPERTIES",
    "Call",
    "Defaults",
    "prepare",
    "prepare_again",
    "settle",
    "template",
]

OPTIONS_NEEDLESS = frozenset(
    [
        "connection",
        "declare",
        "delivery_mode",
        "exchange_type",
        "immediate",
        "mandatory",
        "producer",
        "publisher",
        "queue_arguments",
        "retry",
        "retry_policy",
        "router",
    ]
)
"""Options of Celery's that change nothing here.

There is one connection; every message is durable, confirmed, tried again until the deadline, and refused when
nothing takes it.
"""

PROPERTIES = frozenset(
    [
        "app_id",
        "cluster_id",
        "content_encoding",
        "content_type",
        "expiration",
        "message_id",
        "timestamp",
        "type",
        "user_id",
    ]
)
"""Options of a call that are properties of AMQP's: they travel with it, and the task sees them in `request.properties`.

`expiration` also is what it says: so many seconds after the call it is too late to run it.
"""

_NEVER_MS = 1 << 53
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_ONE_MS = dt.timedelta(milliseconds=1)
_LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999: what a datetime can say."""
DELIVERIES_MAX = (1 << 16) - 1
RETRIES_MAX = (1 << 32) - 1
_EMBED_NONE: Mapping[str, Value] = {}
_OMITTED: Value = object()
"""An option that was not given, where None is a value: it takes back what the task's attribute says."""


class Defaults(Ruled, Protocol):
    """What a call takes from its task, or from settings where no task is known."""

    priority: int | None
    queue: Value
    exchange: Value
    routing_key: str | None
    expires: Value
    acks_late: bool | None
    acks_on_failure_or_timeout: bool | None
    acks_on_failure: bool | None
    acks_on_timeout: bool | None
    reject_on_worker_lost: bool | None
    track_started: bool | None
    takes_any_option: bool
    ignore_result: bool | None
    store_errors_even_if_ignored: bool | None
    max_deliveries: int | None
    serializer: str | None
    compression: str | None
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

    __slots__ = ("declares", "ignores_result", "message", "result", "task", "task_id")

    def __init__(self, task: str, task_id: str, message: bytes, *, ignores_result: bool) -> None:
        # Queues that must be declared at the broker before it is sent.
        self.declares: Sequence[Value] = ()
        self.task = task
        self.task_id = task_id
        # What the caller was given, where that was before the broker has answered.
        self.result: Value = None
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
    exchange: Value = None,
    routing_key: str | None = None,
    priority: Value = None,
    countdown: float | None = None,
    eta: dt.datetime | str | None = None,
    expires: Value = _OMITTED,
    ignore_result: bool | None = None,
    headers: Mapping[str, Value] | None = None,
    shadow: str | None = None,
    argsrepr: str | None = None,
    kwargsrepr: str | None = None,
    time_limit: Value = _OMITTED,
    soft_time_limit: Value = _OMITTED,
    serializer: str | None = None,
    compression: str | None = None,
    root_id: str | None = None,
    parent_id: str | None = None,
    reply_to: str | None = None,
    correlation_id: str | None = None,
    retries: int = 0,
    embed: Mapping[str, Value] = _EMBED_NONE,
    takes_input: bool = False,
    **rare: Value,
) -> Call:
    """The message of a call. Times without a zone are in the app's.

    With `takes_input` its first argument is not among `args`, for another task returns it.

    Of the options that are not named here, those of `PROPERTIES` are properties of the message.
    Others are the options of `qbroker.app.rules`: unique_key, unique_scope, unique_policy, limits, fairness_key,
    fairness_weight, labels, stamped_headers and the stamps; and acks_late and its kin, max_deliveries, track_started
    and store_errors_even_if_ignored in place of the task's. Raises TypeError and ValueError for what cannot be
    meant, before anything is sent.
    """
    if (kwargs is not None and type(kwargs) is not dict) or type(args) not in (tuple, list):
        envelope.check_shape(name, args, kwargs)
    if args is not None and not isinstance(args, list | tuple):
        if isinstance(args, str | bytes | Mapping):
            raise TypeError(f"task args must be a list or tuple, not {args!r}")
        args = tuple(args)
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"task kwargs must be a mapping, not {kwargs!r}")
    given = task_type if task_type is not None else _FromSettings(conf)
    properties = {}
    if rare and not PROPERTIES.isdisjoint(rare):
        properties = {option: rare.pop(option) for option in PROPERTIES & rare.keys()}
    if rare and not _OWN.isdisjoint(rare):
        given = _overridden(given, name, rare)
    if task_id is None:
        task_id = uuid7()
    elif not isinstance(task_id, str):
        raise TypeError(f"task_id {task_id!r} of task {name!r} is not text")
    ignores = given.ignore_result if ignore_result is None else ignore_result
    fields: dict[str, Value] = {}
    # What most calls leave at its default stays off the wire, and costs a test each.
    if priority is None:
        priority = given.priority
    request = current_request.get()
    if request is not None and not request.called_directly:
        parent_id = parent_id or request.id
        root_id = root_id or request.root_id
        if priority is None and conf.task_inherit_parent_priority:
            priority = request.delivery_info["priority"]
    if priority is not None:
        if not isinstance(priority, int) or not 0 <= priority <= 9:
            raise ValueError(
                f"priority {priority!r} of task {name!r} is not a whole number from 0 to 9"
            )
        fields["priority"] = priority
    if countdown is not None:
        due_ms = _ahead_ms("countdown", countdown, name)
        if countdown:
            fields["eta_ms"] = due_ms
    if eta is not None and not countdown:
        fields["eta_ms"] = _moment_ms("eta", eta, name, conf)
    if expires is _OMITTED:
        expires = given.expires
    if expires is not None:
        fields["expires_ms"] = (
            _ahead_ms("expires", expires, name)
            if isinstance(expires, int | float)
            else _moment_ms("expires", expires, name, conf)
        )
    if retries:
        if not isinstance(retries, int):
            raise TypeError(f"retries {retries!r} of task {name!r} is not a whole number")
        if not 0 < retries <= RETRIES_MAX:
            raise ValueError(
                f"retries {retries!r} of task {name!r} is not a whole number from 0 to {RETRIES_MAX}"
            )
        fields["retries"] = retries
    if not keeps_results or ignores:
        fields["ignore_result"] = True
    if given.store_errors_even_if_ignored and keeps_results:
        fields["store_errors_even_if_ignored"] = True
    if given.max_deliveries:
        if not 1 <= given.max_deliveries <= DELIVERIES_MAX:
            raise ValueError(
                f"max_deliveries {given.max_deliveries!r} of task {name!r} is not from 1 to {DELIVERIES_MAX}"
            )
        fields["max_deliveries"] = given.max_deliveries
    if given.track_started:
        fields["track_started"] = True
    if given.acks_late:
        _add_ack_rules(fields, given)
    hard = own_time_limit(given, "time_limit") if time_limit is _OMITTED else time_limit
    soft = (
        own_time_limit(given, "soft_time_limit") if soft_time_limit is _OMITTED else soft_time_limit
    )
    if hard is not None or soft is not None:
        _check_limit("time_limit", hard, name)
        _check_limit("soft_time_limit", soft, name)
        check_time_limits(soft, hard)
        fields["time_limit"] = hard or 0.0
        fields["soft_time_limit"] = soft or 0.0
    if headers:
        try:
            text = json.dumps(dict(headers))
        except (TypeError, ValueError) as exc:
            whole = {"headers": dict(headers)}
            raise envelope.explained(EncodeError(exc), f"task {name!r}", whole, "json") from exc
        fields["headers"] = _small("headers", text, task_id, name)
    if properties:
        expiration = properties.get("expiration")
        if expiration is not None:
            too_late_ms = _ahead_ms("expiration", expiration, name)
            fields["expires_ms"] = min(too_late_ms, fields.get("expires_ms") or too_late_ms)
        try:
            text = json_encode(properties).decode()
        except EncodeError as exc:
            whole = {"properties": properties}
            raise envelope.explained(exc, f"task {name!r}", whole, "json") from exc
        fields["properties"] = _small("properties", text, task_id, name)
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
    if rare or given.unique_key is not None or given.limits or given.fairness_key or given.labels:
        fields.update(
            rules_of(name, given, args or (), kwargs or {}, rare, takes_input=takes_input)
        )
        if rare:
            _refuse(name, rare, given)
    if parent_id:
        fields["parent_id"] = parent_id
    if root_id and root_id != task_id:
        fields["root_id"] = root_id
    if queue is None:
        queue = given.queue
    if exchange is None:
        exchange = given.exchange
    if routing_key is None:
        routing_key = given.routing_key
    declares: Sequence[Value] = ()
    if (
        exchange is None
        and routing_key is None
        and conf.task_queues is None
        and conf.task_create_missing_queues
        and conf.task_default_exchange_type == "direct"
        and (queue is None or isinstance(queue, str))
    ):
        fields["queue"] = queue or conf.task_default_queue
    else:
        place = conf.place(queue, exchange, routing_key)
        declares = place.declares
        if place.exchange:
            fields["exchange"] = place.exchange
            fields["routing_key"] = place.routing_key
        else:
            fields["queue"] = place.queue
    _check_names(task_id, name, fields)
    serializer = serializer or given.serializer or conf.task_serializer
    compression = compression or given.compression
    try:
        if serializer == "json" and not compression:
            fields["content_type"] = JSON
            fields["content_encoding"] = "utf-8"
            fields["body"] = envelope.encode_body(args or (), kwargs or {}, embed)
        else:
            content = args or (), kwargs or {}, embed
            fields |= envelope.write(content, serializer, compression, conf.compression_level)
    except EncodeError as exc:
        parts = {**envelope.call_parts(args, kwargs, task_type), "embed": embed}
        raise envelope.explained(exc, f"task {name!r}", parts, serializer) from exc
    carrier = Message(
        id=task_id,
        task=name,
        ack_policy=ACK_POLICY_LATE if given.acks_late else ACK_POLICY_EARLY,
        result_ttl_ms=_ttl_ms(conf.result_expires),
        origin=_origin.text,
        **fields,
    )
    if conf.security_encryption_keys and (seal := conf.seal) is not None:
        seal.close(carrier, "call")
    message = checksum.sealed(carrier.SerializeToString())
    envelope.check_size(message, name, conf.task_message_bytes_max)
    call = Call(name, task_id, message, ignores_result=bool(ignores))
    if declares:
        call.declares = declares
    return call


_OWN = frozenset(
    [
        "acks_late",
        "acks_on_failure",
        "acks_on_failure_or_timeout",
        "acks_on_timeout",
        "max_deliveries",
        "reject_on_worker_lost",
        "store_errors_even_if_ignored",
        "track_started",
    ]
)
"""Attributes of a task that a call may replace."""


_NAMES = frozenset(
    [
        "correlation_id",
        "exchange",
        "parent_id",
        "queue",
        "reply_to",
        "root_id",
        "routing_key",
        "shadow",
        "stamped_headers",
    ]
)
"""Fields that reach logs, terminals and the store's keys; `qbroker.app.rules` checks its own."""

_TEXTS = ("argsrepr", "kwargsrepr")


def _check_names(task_id: str, name: str, fields: Mapping[str, Value]) -> None:
    """Raise InvalidName, which names the option, for a character that the option's value may not have."""
    if not (task_id.isprintable() and name.isprintable()):
        _check_name("task name", name)
        _check_name("task_id", task_id)
    for option in _NAMES & fields.keys():
        value = fields[option]
        for one in (value,) if isinstance(value, str) else value:
            if not one.isprintable():
                _check_name(option, one)
    for option in _TEXTS:
        # Others see it escaped, so only what cannot be sent at all is refused.
        text = fields.get(option)
        if text is not None and (fault := names.surrogate_fault(option, text)):
            raise InvalidName("", fault)


def _check_name(option: str, name: str) -> None:
    fault = names.character_fault(option, name)
    if fault:
        raise InvalidName("", fault)


_HEADERS_BYTES_MAX = 64 * 1024


def _small(what: str, text: str, task_id: str, name: str) -> str:
    """The text, which is JSON and so ASCII; HeadersTooLarge when it is."""
    if len(text) > _HEADERS_BYTES_MAX:
        raise HeadersTooLarge(
            task_id,
            f"the {what} of a call of {name!r} have {len(text)} bytes; they may have {_HEADERS_BYTES_MAX}. "
            "Pass data as arguments",
        )
    return text


class _Overridden:
    """A task, but for what the call says itself."""

    def __init__(self, given: Defaults, own: Mapping[str, Value]) -> None:
        self.__dict__.update(own)
        self._given = given

    def __getattr__(self, name: str) -> Value:
        return getattr(self._given, name)


def _overridden(given: Defaults, name: str, rare: dict[str, Value]) -> Defaults:
    own = {option: rare.pop(option) for option in _OWN & rare.keys()}
    for option, value in own.items():
        is_count = option == "max_deliveries"
        if value is not None and (type(value) is not (int if is_count else bool)):
            wanted = "a whole number" if is_count else "True, False or None"
            raise TypeError(f"{option} {value!r} of task {name!r} is not {wanted}")
    found: Value = _Overridden(given, {o: v for o, v in own.items() if v is not None})
    overridden: Defaults = found
    return overridden


def _refuse(name: str, unsupported: Mapping[str, Value], given: Defaults) -> None:
    if given.takes_any_option:
        return
    unsupported = {o: v for o, v in unsupported.items() if o not in OPTIONS_NEEDLESS}
    if not unsupported:
        return
    raise TypeError(f"the call of {name!r} has unknown options: {', '.join(sorted(unsupported))}")


def _check_limit(what: str, seconds: Value, name: str) -> None:
    if seconds is None:
        return
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise TypeError(f"{what} {seconds!r} of task {name!r} is not a number of seconds")
    # A NaN is not between anything.
    if not 0 <= seconds * 1000 <= _LAST_MS:
        raise ValueError(
            f"{what} {seconds!r} of task {name!r} must be a number of seconds, at least 0 (0: no limit)"
        )


def _ttl_ms(seconds: float | None) -> int:
    return _NEVER_MS if not seconds else int(seconds * 1000)


def zone_of(conf: Settings) -> dt.tzinfo:
    """The zone that `timezone` names."""
    zone: dt.tzinfo | str | None = conf.timezone
    if zone is None:
        if conf.enable_utc:
            return dt.UTC
        local = dt.datetime.now(dt.UTC).astimezone().tzinfo
        return local or dt.UTC
    if not isinstance(zone, str):
        return zone
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ImproperlyConfigured(
            f"the setting timezone must be the name of a time zone, such as 'Europe/Berlin', or a tzinfo, not {zone!r}"
        ) from None


def _ahead_ms(what: str, seconds: Value, name: str) -> int:
    """So many seconds from now, in Unix milliseconds, never too early."""
    return clock.wall_ms() + relative_ms(what, seconds, name)


def relative_ms(what: str, seconds: Value, name: str) -> int:
    """So many seconds in milliseconds, never too few."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise TypeError(f"{what} {seconds!r} of task {name!r} is not a number of seconds")
    # A NaN is not between anything.
    if not 0 <= seconds * 1000 <= _LAST_MS - clock.wall_ms():
        raise ValueError(
            f"{what} {seconds!r} of task {name!r} is not a number of seconds from 0 to the year 9999"
        )
    return math.ceil(seconds * 1000)


def _moment_ms(what: str, moment: Value, name: str, conf: Settings) -> int:
    """A moment in Unix milliseconds, never too early."""
    if isinstance(moment, str):
        try:
            moment = dt.datetime.fromisoformat(moment)
        except ValueError:
            raise ValueError(
                f"{what} {moment!r} of task {name!r} is not an ISO 8601 date and time, such as "
                "'2030-01-31T12:00:00+00:00'"
            ) from None
    if not isinstance(moment, dt.datetime):
        also = " or a number of seconds" if what == "expires" else ""
        raise TypeError(f"{what} {moment!r} of task {name!r} is not a datetime{also}")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone_of(conf))
    unix_ms = -((_EPOCH - moment) // _ONE_MS)
    if unix_ms > _LAST_MS:
        raise ValueError(f"{what} {moment!r} of task {name!r} lies beyond the year 9999 in UTC")
    return max(1, int(unix_ms))


def _add_ack_rules(fields: dict[str, Value], given: Defaults) -> None:
    """What becomes of a late-acknowledged task that did not end well."""
    either = given.acks_on_failure_or_timeout
    if not _first(given.acks_on_timeout, either):
        fields["requeue_on_timeout"] = True
    if not _first(given.acks_on_failure, either):
        fields["reject_on_failure"] = True
    if given.reject_on_worker_lost is False and not given.max_deliveries:
        # Said outright, not left open: the first death of a worker is the last.
        fields["max_deliveries"] = 1


def _first(*choices: bool | None) -> bool:
    return next((choice for choice in choices if choice is not None), True)


_FIELDS_OF = {
    "argsrepr": {"argsrepr"},
    "correlation_id": {"correlation_id"},
    "expires": {"expires_ms"},
    "headers": {"headers"},
    "ignore_result": {"ignore_result"},
    "kwargsrepr": {"kwargsrepr"},
    "exchange": {"queue", "exchange", "routing_key"},
    "priority": {"priority"},
    "queue": {"queue", "exchange", "routing_key"},
    "reply_to": {"reply_to"},
    "compression": {"compression"},
    "serializer": {"content_type", "content_encoding", "compression"},
    "shadow": {"shadow"},
    "soft_time_limit": {"soft_time_limit"},
    "time_limit": {"time_limit"},
    **{name: {"properties"} for name in PROPERTIES},
}
"""Which fields of the message an option of a retry changes."""

_TIMES = frozenset({"countdown", "eta"})


def prepare_again(
    conf: Settings,
    message: Message,
    args: Sequence[Value],
    kwargs: Mapping[str, Value],
    embed: Mapping[str, Value],
    options: Mapping[str, Value],
    *,
    keeps_body: bool = False,
) -> tuple[bytes, int]:
    """The message of a retry, and when it is due in Unix milliseconds, 0 for at once.

    It is the message that ran, with one retry more and with what the options change; its id stays. Its arguments are
    those it had (`keeps_body`), to which the broker adds what it waited for, or others, which are all there are.
    """
    envelope.check_shape(message.task, args, kwargs)
    options = {o: v for o, v in options.items() if o not in OPTIONS_NEEDLESS}
    kept = sorted(options.keys() - _FIELDS_OF.keys() - _TIMES)
    if kept:
        raise TypeError(f"a retry of task {message.task!r} cannot change: {', '.join(kept)}")
    given = _FromSettings(conf)
    given.time_limit = message.time_limit or None
    given.soft_time_limit = message.soft_time_limit or None
    call = prepare(
        conf,
        message.task,
        args,
        kwargs,
        task_type=given,
        task_id=message.id,
        # The settings' serializer may refuse arguments that the message's serializer carries.
        **{"serializer": serialization.find(message.content_type).name, **options},
    )
    changed = Message.FromString(call.message)
    wanted = {"eta_ms"}.union(*(_FIELDS_OF[option] for option in options.keys() - _TIMES))
    again = Message()
    again.CopyFrom(message)
    for field in wanted:
        again.ClearField(field)
    for descriptor, _ in changed.ListFields():
        if descriptor.name not in wanted:
            changed.ClearField(descriptor.name)
    again.MergeFrom(changed)
    again.ClearField("inputs")
    if keeps_body:
        again.content_type, again.content_encoding = message.content_type, message.content_encoding
        again.compression = message.compression
    else:
        again.ClearField("takes_input")
        if again.HasField("failure"):
            embed = {**embed, "immutable": True}
        if again.content_type == JSON and not again.compression:
            again.body = envelope.encode_body(args, kwargs, embed)
        else:
            how = again.content_type, again.compression, conf.compression_level
            again.ClearField("compression")
            again.MergeFrom(Message(**envelope.write((args, kwargs, embed), *how)))
        again.ClearField("encryption_key_id")
        if (seal := conf.seal) is not None:
            seal.close(again, "call")
    again.retries = message.retries + 1
    again.ClearField("checksum")
    raw = checksum.sealed(again.SerializeToString())
    envelope.check_size(raw, message.task, conf.task_message_bytes_max)
    return raw, again.eta_ms


def template(call: Call) -> bytes:
    """The message of a call that is made again and again: without what is of one moment only."""
    message = Message.FromString(call.message)
    for field in ("id", "origin", "root_id", "parent_id", "eta_ms", "checksum"):
        message.ClearField(field)
    return checksum.sealed(message.SerializeToString())


_REFUSED: Mapping[int, type[MessageRefused]] = {
    REFUSAL_CODE_HEADERS_TOO_LARGE: HeadersTooLarge,
    REFUSAL_CODE_INVALID_NAME: InvalidName,
    REFUSAL_CODE_UNROUTABLE: UnroutableError,
}


def settle(calls: Sequence[Call], verdicts: Sequence[Refusal | Existing]) -> MessageRefused | None:
    """Give each call that is there already the id it is there by; answers the error of the first that was refused."""
    holders = {verdict.index: verdict.id for verdict in verdicts if isinstance(verdict, Existing)}
    refusals = [verdict for verdict in verdicts if isinstance(verdict, Refusal)]
    for place in holders.keys() - {refusal.index for refusal in refusals}:
        call = calls[place]
        call.task_id = holders[place]
        if call.result is not None:
            call.result.id = holders[place]
    if not refusals:
        return None
    first = min(refusals, key=lambda refusal: refusal.index)
    task_id = calls[first.index].task_id
    reason = names.escaped(first.reason)
    if first.code == REFUSAL_CODE_ALREADY_EXISTS:
        return DuplicateTaskError(task_id, reason, holders.get(first.index, ""))
    kind = _REFUSED.get(first.code)
    if kind is not None:
        return kind(task_id, reason)
    return MessageRefused(task_id, reason, first.retry_after_ms)


class _FromSettings:
    """Stands for a task this process does not know."""

    name = ""
    queue: Value = None
    exchange: Value = None
    routing_key: str | None = None
    expires: Value = None
    trail = True
    unique_key: Key | None = None
    unique_scope: str | float = "finish"
    unique_policy = "reject"
    limits: Sequence[Limit] = ()
    fairness_key: Key | None = None
    fairness_weight = 1
    labels: Mapping[str, Value] | Sequence[str] | None = None

    def __init__(self, conf: Settings) -> None:
        self.time_limit: float | None = None
        self.soft_time_limit: float | None = None
        self.priority: int | None = conf.task_default_priority
        self.acks_late: bool | None = conf.task_acks_late
        self.acks_on_failure_or_timeout: bool | None = conf.task_acks_on_failure_or_timeout
        self.acks_on_failure: bool | None = conf.task_acks_on_failure
        self.acks_on_timeout: bool | None = conf.task_acks_on_timeout
        self.reject_on_worker_lost: bool | None = conf.task_reject_on_worker_lost
        self.track_started: bool | None = conf.task_track_started
        self.takes_any_option = False
        self.ignore_result: bool | None = conf.task_ignore_result
        self.store_errors_even_if_ignored: bool | None = conf.task_store_errors_even_if_ignored
        self.max_deliveries: int | None = conf.task_max_deliveries
        self.serializer: str | None = conf.task_serializer
        self.compression: str | None = conf.task_compression

    def arguments(self, args: Sequence[Value], kwargs: Mapping[str, Value]) -> Mapping[str, Value]:
        """What is known without the task's function."""
        return kwargs
