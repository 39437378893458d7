"""What a running task can ask about itself: `self.request`.

Fields are read from the message when they are first asked for, because most tasks ask for none.
"""

import datetime as dt
import json
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cached_property
from typing import Generic, TypeVar, overload

from qbroker.serialization import Value, json_decode
from qbroker_proto.v1.message_pb2 import Message

T = TypeVar("T")


class _Field(Generic[T]):
    """An attribute that comes from the message, or is the default where there is none.

    Not a data descriptor: what is set on the instance, by the first look or by the user, hides it.
    """

    __slots__ = ("_default", "_name", "_read")

    def __init__(self, read: Callable[[Message], T | None], default: T | None = None) -> None:
        self._read = read
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> "_Field[T]": ...
    @overload
    def __get__(self, instance: "Context", owner: type) -> T | None: ...
    def __get__(self, instance: "Context | None", owner: type) -> "_Field[T] | T | None":
        if instance is None:
            return self
        message = instance.message
        if message is None:
            return self._default
        value = instance.__dict__[self._name] = self._read(message)
        return value


class _Computed(Generic[T]):
    """A property that gives way to what is set on the instance."""

    __slots__ = ("_read",)

    def __init__(self, read: "Callable[[Context], T]") -> None:
        self._read = read

    @overload
    def __get__(self, instance: None, owner: type) -> "_Computed[T]": ...
    @overload
    def __get__(self, instance: "Context", owner: type) -> T: ...
    def __get__(self, instance: "Context | None", owner: type) -> "_Computed[T] | T":
        return self if instance is None else self._read(instance)


def _iso(unix_ms: int) -> str | None:
    if not unix_ms:
        return None
    return dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC).isoformat()


def _headers(message: Message) -> dict[str, Value] | None:
    return json.loads(message.headers) if message.headers else None


def _properties(message: Message) -> dict[str, Value]:
    found = {
        "correlation_id": message.correlation_id or message.id,
        "priority": message.priority,
        "delivery_mode": _PERSISTENT,
    }
    if message.reply_to:
        found["reply_to"] = message.reply_to
    return found | (json_decode(message.properties.encode()) if message.properties else {})


_PERSISTENT = 2
"""AMQP's number for it; every message is."""


def _stamps(message: Message) -> dict[str, Value] | None:
    if not message.stamped_headers:
        return None
    if message.stamps:
        said: dict[str, Value] = json_decode(message.stamps)
        return said
    found: dict[str, list[str]] = {name: [] for name in message.stamped_headers}
    for label in message.labels:
        name, _, value = label.partition("=")
        if name in found:
            found[name].append(value)
    return found


def plain_seconds(seconds: float) -> float:
    """A number of seconds as its user wrote it: 5, not 5.0."""
    return int(seconds) if seconds == int(seconds) else seconds


def _errbacks(message: Message) -> list[Value] | None:
    """What is called when it fails, as signatures are written."""
    found = []
    for raw in message.errbacks:
        errback = Message.FromString(raw)
        # What is written otherwise is for the worker that runs it.
        is_plain = (
            errback.content_type == "application/json"
            and not errback.compression
            and not errback.encryption_key_id
        )
        args, kwargs, embed = json.loads(errback.body) if is_plain else ([], {}, {})
        found.append(
            {
                "task": errback.task,
                "args": args,
                "kwargs": kwargs,
                "options": {"task_id": errback.id, "queue": errback.queue},
                "subtask_type": None,
                "immutable": bool(embed.get("immutable")),
            }
        )
    return found or None


class Context:
    """One run of a task: who asked for it, with what, and how often it was tried."""

    message: Message | None = None
    """What it was made from; None where a task is called like a function."""
    _outer: "Context | None" = None
    _redelivered = False
    _protected = False
    task: Value = None

    id: str | None = None
    args: Value = None
    kwargs: Value = None
    attempt = 0
    started_s = 0.0
    hostname: str | None = None
    called_directly = True
    is_eager = False
    callbacks: Value = None
    chain: Value = None
    """None: what follows a task is the broker's business."""
    logfile: str | None = None
    loglevel: int | None = None
    replaced_task_nesting = 0
    utc = True
    task_limits: "tuple[float, float] | None" = None
    """The task's soft and hard limit where the worker was told that they are others now."""
    override_max_retries: int | None = None
    """The limit that `retry` was last given in this run; `autoretry_for` keeps to it."""
    embed: dict[str, Value] = {}  # noqa: RUF012 - stands for none, and is never changed
    """What came with the arguments: callbacks, errbacks, the rest of a chain."""
    pending_retry: BaseException | None = None
    """The Retry that the task asked for without having it raised."""

    added_members: "tuple[bytes, ...]" = ()
    """Messages that join the chord this run is in (`Task.add_to_chord`)."""
    follow_ups: "tuple[bytes, ...]" = ()
    """Messages that are published when the run ends."""

    retries = _Field(lambda m: m.retries, 0)
    errbacks: Value = _Field(_errbacks)
    chord: Value = _Field(lambda m: m.join_id if m.join_id and m.join_id == m.group_id else None)
    """Whether it is in the header of a chord: the id of what the broker joins, or None."""
    group: Value = _Field(lambda m: m.group_id or None)
    group_index: Value = _Field(lambda m: m.group_index if m.group_id else None)
    ignore_result = _Field(lambda m: m.ignore_result, default=False)
    root_id = _Field(lambda m: m.root_id or m.id)
    parent_id = _Field(lambda m: m.parent_id or None)
    correlation_id = _Field(lambda m: m.correlation_id or m.id)
    origin = _Field(lambda m: m.origin or None)
    shadow = _Field(lambda m: m.shadow or None)
    reply_to = _Field(lambda m: m.reply_to or None)
    eta = _Field(lambda m: _iso(m.eta_ms))
    expires = _Field(lambda m: _iso(m.expires_ms))
    time_limit = _Field(lambda m: m.time_limit or None)
    soft_time_limit = _Field(lambda m: m.soft_time_limit or None)
    headers = _Field(_headers)
    properties: Value = _Field(_properties)
    """The message's properties, by AMQP's names; None where a task is called like a function."""
    stamped_headers = _Field(lambda m: list(m.stamped_headers) or None)
    stamps = _Field(_stamps)
    argsrepr = _Field(lambda m: m.argsrepr or None)
    kwargsrepr = _Field(lambda m: m.kwargsrepr or None)

    def __init__(self, given: Value = (), /, **fields: Value) -> None:
        self.__dict__.update(fields)
        if given or "timelimit" in fields:
            self.update(given, **fields)
            if self.headers is None:
                # What a message of Celery's has beside the fields are its caller's own headers.
                own = {
                    name: value for name, value in dict(given).items() if not hasattr(Context, name)
                }
                self.headers = own or None

    def __getattr__(self, name: str) -> Value:
        # A caller's own header is an attribute too, as in Celery.
        if not name.startswith("_"):
            headers = self.headers
            if headers and name in headers:
                return headers[name]
        raise AttributeError(f"the request has no {name!r}")

    @property
    def outer(self) -> "Context | None":
        """The run around this one, where a task calls another like a function."""
        return self._outer

    def is_of(self, task: object) -> bool:
        """Whether it is a run of this task."""
        return self.task is task

    def enters(self) -> bool:
        """Whether a call of the task is the one a worker makes, and not a task calling itself."""
        if self.called_directly or self._protected:
            return False
        self._protected = True
        return True

    @_Computed
    def redelivered(self) -> bool:
        """Whether some worker had it before and died, or gave it back started."""
        return self._redelivered

    @_Computed
    def timelimit(self) -> Value:
        """The hard and the soft limit, in seconds; None where no message says anything of limits."""
        limits = self.time_limit, self.soft_time_limit
        return None if self.message is None and limits == (None, None) else limits

    @cached_property
    def delivery_info(self) -> dict[str, Value]:
        """How the message came: its exchange, its key or its queue as `routing_key`, its priority, whether it came again."""
        message = self.message
        return {
            "exchange": message.exchange if message else "",
            "routing_key": (message.routing_key or message.queue) if message else None,
            "priority": message.priority if message else None,
            "redelivered": self._redelivered,
            "is_eager": self.is_eager,
        }

    @cached_property
    def children(self) -> list[Value]:
        """Results of the tasks this one called."""
        return []

    def update(self, given: Value = (), /, **fields: Value) -> None:
        """Set fields, of a dict or pairs and by name; `timelimit` stands for both limits."""
        fields = dict(given, **fields)
        if "timelimit" in fields:
            self.time_limit, self.soft_time_limit = fields["timelimit"] or (None, None)
        self.__dict__.update(fields)

    def clear(self) -> None:
        """Have no field set any more."""
        self.__dict__.clear()

    def get(self, key: str, default: Value = None) -> Value:
        """A field, or the default where there is none."""
        return getattr(self, key, default)

    def as_execution_options(self) -> dict[str, Value]:
        """The options another call needs to be like this one."""
        return {
            "task_id": self.id,
            "root_id": self.root_id,
            "parent_id": self.parent_id,
            "shadow": self.shadow,
            "expires": self.expires,
            "soft_time_limit": self.soft_time_limit,
            "time_limit": self.time_limit,
            "headers": self.headers,
            "retries": self.retries,
            "reply_to": self.reply_to,
            "stamped_headers": self.stamped_headers,
            **{name: (self.stamps or {}).get(name) for name in self.stamped_headers or ()},
        }

    def __repr__(self) -> str:
        fields = {
            name: getattr(self, name)
            for name in (*_SHOWN, *(key for key in self.__dict__ if key not in _SHOWN))
            if not name.startswith("_")
        }
        return f"<Context: {fields!r}>"


_SHOWN = ("id", "args", "kwargs", "retries", "hostname", "is_eager", "called_directly", "root_id")


class RequestStack:
    """The runs of one task that this thread, or asyncio task, is inside of."""

    __slots__ = ("_task",)

    def __init__(self, task: object) -> None:
        self._task = task

    def __iter__(self) -> Iterator[Context]:
        request = current_request.get()
        while request is not None:
            if request.is_of(self._task):
                yield request
            request = request.outer

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def top(self) -> Context | None:
        """The innermost one."""
        return next(iter(self), None)

    @property
    def stack(self) -> list[Context]:
        """All of them, the innermost last."""
        return [*self][::-1]

    def push(self, request: Context) -> None:
        """Be inside of a run from now on."""
        request.update(task=self._task, _outer=current_request.get())
        current_request.set(request)

    def pop(self) -> Context | None:
        """Be no more inside of the innermost one, which is answered; None where there is none."""
        gone, within = self.top, current_request.get()
        if gone is None:
            return None
        if within is gone:
            current_request.set(gone.outer)
            return gone
        while within is not None and within.outer is not gone:
            within = within.outer
        assert within is not None
        within.update(_outer=gone.outer)
        return gone


current_request: ContextVar[Context | None] = ContextVar("qbroker_request", default=None)
"""The run this thread, or asyncio task, is inside of. Each knows the one around it."""


joins_allowed: ContextVar[bool | None] = ContextVar("qbroker_joins_allowed", default=None)
"""Whether a task may wait for another, in this thread or asyncio task; None: where no worker runs it."""
