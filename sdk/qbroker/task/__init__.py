"""Tasks: functions that can be called from elsewhere. Public: `Task`, `Context`.

And the decorators of Celery's versions 2 and 3, which declare tasks of the current app: `from qbroker.task import
task, periodic_task`, or the module itself, `from qbroker import task`.
"""

import datetime as dt
import inspect
import sys
import types
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    ClassVar,
    Generic,
    NoReturn,
    ParamSpec,
    TypeVar,
    cast,
    overload,
)

from qbroker import _state, canvas, envelope, states
from qbroker.canvas import Signature, chord, group, subtask
from qbroker.canvas.signature import checked
from qbroker.exceptions import (
    Ignore,
    ImproperlyConfigured,
    KombuError,
    MaxRetriesExceededError,
    OperationalError,
    Reject,
    Retry,
)
from qbroker.hints import signature_of
from qbroker.limits import Key, Limit
from qbroker.request import Context, RequestStack, current_request
from qbroker.result import AsyncResult, EagerResult
from qbroker.schedules import maybe_schedule
from qbroker.serialization import Value
from qbroker.task.sets import TaskSet

if TYPE_CHECKING:
    from qbroker.ports import Sender

__all__ = [
    "BaseTask",
    "Context",
    "PeriodicTask",
    "Task",
    "TaskSet",
    "chord",
    "group",
    "header_of",
    "periodic_task",
    "subtask",
    "task",
]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class _TimeLimit:
    """A task's own time limit, else what `control.time_limit` or the setting says.

    Read each time and not taken at the binding: a call must carry the task's own limit only, because
    an option of the worker goes before a setting.
    """

    def __init__(self, attribute: str, own: Value = None) -> None:
        self._attribute = attribute
        self._own = own

    def __get__(self, task: Value, kind: type) -> Value:
        if task is None:
            return self._own
        name = self._attribute
        limit = task.__dict__.get(name, self._own)
        request = current_request.get()
        if request is not None and request.is_of(task) and request.task_limits is not None:
            soft_s, hard_s = request.task_limits
            limit = (hard_s if name == "time_limit" else soft_s) or None
        return getattr(task.app.conf, f"task_{name}") if limit is None else limit

    def __set__(self, task: Value, value: Value) -> None:
        task.__dict__[self._attribute] = value


def _time_limit(attribute: str) -> Value:
    return _TimeLimit(attribute)


class Task(Generic[P, R]):
    """A function with a name that workers know. There is one instance of each task in a process.

    Attributes that are None here take the value of a setting when the task is bound to its app.
    """

    name: str = ""
    """Set by the decorator: module and function."""
    typing: bool | None = None
    """Check arguments when the task is called; else when it runs. Setting: the app's strict_typing."""
    ignore_result: bool | None = None
    """Keep no result. Setting: task_ignore_result."""
    store_errors_even_if_ignored: bool | None = None
    """Keep failures all the same. Setting: task_store_errors_even_if_ignored."""
    acks_late: bool | None = None
    """Acknowledge after the task has run, not before: run again when a worker dies. Setting: task_acks_late."""
    acks_on_failure_or_timeout: bool | None = None
    """What the next two are where they are None. Setting: task_acks_on_failure_or_timeout."""
    acks_on_failure: bool | None = None
    """With acks_late: acknowledge when it fails; else it becomes a dead letter. Setting: task_acks_on_failure."""
    acks_on_timeout: bool | None = None
    """With acks_late: acknowledge when it is killed by its time limit; else it is run again. Setting: task_acks_on_timeout."""
    reject_on_worker_lost: bool | None = None
    """With acks_late: False makes the first death of a worker the last; else it is run again, up to max_deliveries.
    Setting: task_reject_on_worker_lost."""
    max_deliveries: int | None = None
    """How many deaths of workers a late-acknowledged task survives. Setting: task_max_deliveries."""
    store_eager_result: bool | None = None
    """Keep the result where it runs eagerly, too. Setting: task_store_eager_result."""
    track_started: bool | None = None
    """Show the state STARTED while it runs. Setting: task_track_started."""
    max_retries: int | None = 3
    """How often it may be tried again; None: without end."""
    default_retry_delay: float = 180
    """Seconds until it is tried again where `retry` is not told."""
    autoretry_for: Sequence[type[BaseException]] = ()
    """Exceptions after which it is tried again by itself."""
    dont_autoretry_for: Sequence[type[BaseException]] = ()
    """Those of them after which it is not."""
    retry_kwargs: Mapping[str, Value] = types.MappingProxyType({})
    """What `retry` is given then: max_retries, countdown, queue, …"""
    retry_backoff: float = False
    """Wait longer with each try, doubling: True from 1 second, a number from so many."""
    retry_backoff_max: int = 600
    """The longest such wait in seconds."""
    retry_jitter: bool = True
    """Wait for a random part of it, so that those who failed together do not come back together."""
    unique_key: Key | None = None
    """At most one call with the key at a time: "sync:{user}", or a function of (args, kwargs)."""
    unique_scope: str | float = "finish"
    """How long the key is taken: until "start", until "finish", or for so many seconds."""
    unique_policy: str = "reject"
    """What becomes of a second call: "reject" (DuplicateTaskError), "return_existing" (its result is the first
    one's), "replace" (the first is revoked if it has not started)."""
    rate_limit: str | float | None = None
    """How often each worker starts it: "100/s", "100/m", "100/h", or so many a second. Setting: task_default_rate_limit."""
    limits: Sequence[Limit] = ()
    """Rate and concurrency limits over all workers."""
    fairness_key: Key | None = None
    """Calls of a queue share its workers fairly among these keys, made as unique_key is."""
    fairness_weight: int = 1
    """The key's share, relative to the others'."""
    labels: Mapping[str, Value] | Sequence[str] | None = None
    """What its calls can be found and revoked by: {"customer": 42}."""
    serializer: str | None = None
    """How its arguments are written. Setting: task_serializer."""
    compression: str | None = None
    """How they are made smaller. Setting: task_compression."""
    priority: int | None = None
    """0 to 9, higher first. Setting: task_default_priority."""
    queue: Value = None
    """The name of its queue, or a Queue. Setting: task_default_queue."""
    exchange: Value = None
    """The exchange its messages go through, by name or as an Exchange."""
    routing_key: str | None = None
    """By which key they do."""
    expires: Value = None
    """Seconds, or a datetime, after which the task is not worth running."""
    time_limit: float | None = _time_limit("time_limit")
    """Seconds after which the process that runs it is killed. Setting: task_time_limit."""
    soft_time_limit: float | None = _time_limit("soft_time_limit")
    """Seconds after which SoftTimeLimitExceeded is raised in it. Setting: task_soft_time_limit."""
    send_events: bool = True
    """Tell those who listen what becomes of its calls, where workers do."""
    trail: bool = True
    """Remember which tasks it calls: `result.children`."""
    throws: Sequence[type[BaseException]] = ()
    """Exceptions that are expected of it: logged as information, without a traceback."""
    resultrepr_maxsize: int = 1024
    """How many characters of its result the log shows."""
    Request: Value = "qbroker.worker.request:Request"
    """What a worker makes of each call: a subclass of `qbroker.worker.request.Request`, or its name, is told how it goes."""

    takes_any_option: bool = False
    """Whether options that nobody knows are let pass: a class with an `apply_async` of its own may have some."""

    from_config: ClassVar[tuple[tuple[str, str], ...]] = (
        ("serializer", "task_serializer"),
        ("compression", "task_compression"),
        ("priority", "task_default_priority"),
        ("acks_late", "task_acks_late"),
        ("acks_on_failure_or_timeout", "task_acks_on_failure_or_timeout"),
        ("acks_on_failure", "task_acks_on_failure"),
        ("acks_on_timeout", "task_acks_on_timeout"),
        ("reject_on_worker_lost", "task_reject_on_worker_lost"),
        ("track_started", "task_track_started"),
        ("ignore_result", "task_ignore_result"),
        ("store_eager_result", "task_store_eager_result"),
        ("store_errors_even_if_ignored", "task_store_errors_even_if_ignored"),
        ("max_deliveries", "task_max_deliveries"),
    )
    """Which setting fills an attribute that is None."""

    MaxRetriesExceededError = MaxRetriesExceededError
    OperationalError = OperationalError

    __trace__: Value = None
    __run_signature__: inspect.Signature | None = None
    __header__: Value = None
    __models__: Value = None
    """The models of the parameters, with pydantic=True (`qbroker.app.models`)."""
    __bound__ = False
    _app: "Sender | None" = None
    _outside: Context | None = None

    def __init_subclass__(cls, **more: Value) -> None:
        super().__init_subclass__(**more)
        for attribute in ("time_limit", "soft_time_limit"):
            if attribute in cls.__dict__:
                # A plain value would hide the setting and what `control.time_limit` says.
                setattr(cls, attribute, _TimeLimit(attribute, cls.__dict__[attribute]))
        if "apply_async" in cls.__dict__:
            cls.takes_any_option = True

    @property
    def app(self) -> Value:
        """The app it belongs to, else the current one."""
        return self._app if self._app is not None else _state.get_current_app()

    def _get_app(self) -> Value:
        """The same, as base classes of packages ask for it."""
        return self.app

    def bind(self, app: "Sender") -> None:
        """Make it a task of this app, and take its settings."""
        self._app = app
        conf = app.conf
        for attribute, setting in self.from_config:
            if getattr(self, attribute) is None:
                setattr(self, attribute, getattr(conf, setting))
        self.__bound__ = True
        if conf.task_annotations:
            self.annotate()
        self.on_bound(app)

    def annotate(self) -> None:
        """Take the attributes that `task_annotations` has for it: first those of its name, then those of any."""
        for found in self.app.annotations:
            for wanted in (found.annotate(self), found.annotate_any()):
                for name, value in (wanted or {}).items():
                    if name.startswith("@"):
                        self.add_around(name[1:], value)
                    else:
                        setattr(self, name, value)

    @classmethod
    def add_around(cls, attr: str, around: Callable[[Value], Value]) -> None:
        """Put a wrapper around a method of this class; a second one takes the place of the first."""
        method: Value = cls.__dict__.get(attr)
        is_static = isinstance(method, staticmethod)
        inner = getattr(cls, attr)
        inner = getattr(inner, "__around__", inner)
        wrapped: Value = around(inner)
        wrapped.__around__ = inner
        setattr(cls, attr, staticmethod(wrapped) if is_static else wrapped)

    def on_bound(self, app: Value) -> None:
        """Called when the task is bound to an app."""

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The task's body."""
        raise NotImplementedError(f"the task {self.name!r} must define run()")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the body right here, like a function."""
        request = current_request.get()
        if request is not None and request.is_of(self) and request.enters():
            # A worker runs it, through an overridden __call__: the request is there.
            return self.run(*args, **kwargs)
        own = Context(task=self, args=args, kwargs=kwargs, _outer=request)
        token = current_request.set(own)
        try:
            return self.run(*args, **kwargs)
        finally:
            current_request.reset(token)

    @property
    def request(self) -> Context:
        """The run this is asked in; outside of one, an empty request of the task's own."""
        request = current_request.get()
        while request is not None:
            if request.is_of(self):
                return request
            request = request.outer
        if self._outside is None:
            self._outside = Context()
        return self._outside

    @property
    def request_stack(self) -> RequestStack:
        """The runs of the task that this is asked in."""
        return RequestStack(self)

    def push_request(self, *args: Value, **kwargs: Value) -> None:
        """Have `self.request` be one made of these fields until `pop_request`, as tests of a task's body want it."""
        self.request_stack.push(Context(*args, **kwargs))

    def pop_request(self) -> Context | None:
        """Have it be again what it was before; answers the one that was pushed."""
        return self.request_stack.pop()

    @property
    def backend(self) -> Value:
        """Where the results of its app are."""
        return self.app.backend

    # -- calling

    @overload
    def delay(
        self: "Task[P, Coroutine[Value, Value, T]]", *args: P.args, **kwargs: P.kwargs
    ) -> AsyncResult[T]: ...
    @overload
    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]: ...
    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[Value]:
        """Call the task with these arguments, on a worker; answers when the broker has it on disk."""
        return self.apply_async(args, kwargs)

    @overload
    async def adelay(
        self: "Task[P, Coroutine[Value, Value, T]]", *args: P.args, **kwargs: P.kwargs
    ) -> AsyncResult[T]: ...
    @overload
    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]: ...
    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[Value]:
        """Do the same without blocking the event loop."""
        return await self.aapply_async(args, kwargs)

    @overload
    def apply_async(
        self: "Task[P, Coroutine[Value, Value, T]]",
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        task_id: str | None = None,
        **options: Value,
    ) -> AsyncResult[T]: ...
    @overload
    def apply_async(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        task_id: str | None = None,
        **options: Value,
    ) -> AsyncResult[R]: ...
    def apply_async(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        task_id: str | None = None,
        **options: Value,
    ) -> AsyncResult[Value]:
        """Call the task with options: queue, priority, countdown, eta, expires, ignore_result, headers and more.

        What is given here wins over the task's attributes, and they over the settings. The options are
        those of `qbroker.app.sending.prepare`.
        """
        app = self.app
        if self.typing:
            self.check_arguments(args or (), kwargs or {})
        if "shadow" not in options and (shadow := self.shadow_name(args, kwargs, options)):
            options["shadow"] = shadow
        if (
            self.__models__ is not None
            and (options.get("serializer") or self.serializer) != "pickle"
        ):
            args, kwargs = self.__models__.sent(args, kwargs)
        if app.conf.task_always_eager:
            return cast(
                "AsyncResult[Value]",
                app.apply_task(self, args, kwargs, task_id=task_id, is_sent=True, **options),
            )
        return cast(
            "AsyncResult[Value]",
            app.send_task(self.name, args, kwargs, task_id=task_id, task_type=self, **options),
        )

    @overload
    async def aapply_async(
        self: "Task[P, Coroutine[Value, Value, T]]",
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        task_id: str | None = None,
        **options: Value,
    ) -> AsyncResult[T]: ...
    @overload
    async def aapply_async(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        task_id: str | None = None,
        **options: Value,
    ) -> AsyncResult[R]: ...
    async def aapply_async(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        task_id: str | None = None,
        **options: Value,
    ) -> AsyncResult[Value]:
        """Do the same without blocking the event loop."""
        app = self.app
        if self.typing:
            self.check_arguments(args or (), kwargs or {})
        if "shadow" not in options and (shadow := self.shadow_name(args, kwargs, options)):
            options["shadow"] = shadow
        if (
            self.__models__ is not None
            and (options.get("serializer") or self.serializer) != "pickle"
        ):
            args, kwargs = self.__models__.sent(args, kwargs)
        if app.conf.task_always_eager:
            return cast(
                "AsyncResult[Value]",
                app.apply_task(self, args, kwargs, task_id=task_id, is_sent=True, **options),
            )
        return cast(
            "AsyncResult[Value]",
            await app.asend_task(
                self.name, args, kwargs, task_id=task_id, task_type=self, **options
            ),
        )

    @overload
    def apply(
        self: "Task[P, Coroutine[Value, Value, T]]",
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        task_id: str | None = None,
        **options: Value,
    ) -> EagerResult[T]: ...
    @overload
    def apply(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        task_id: str | None = None,
        **options: Value,
    ) -> EagerResult[R]: ...
    def apply(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        task_id: str | None = None,
        *,
        throw: bool | None = None,
        headers: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> EagerResult[Value]:
        """Run the task right here as a worker would, and wait.

        What it raises is in the result, or raised with `throw` (setting: task_eager_propagates).
        """
        return cast(
            "EagerResult[Value]",
            self.app.apply_task(
                self, args, kwargs, task_id=task_id, throw=throw, headers=headers, **options
            ),
        )

    def shadow_name(
        self,
        args: Sequence[Value] | None,
        kwargs: Mapping[str, Value] | None,
        options: Mapping[str, Value],
    ) -> str | None:
        """What a call is to be called in logs and events, in place of the task's name; None: that."""
        return None

    def check_arguments(self, args: Sequence[Value], kwargs: Mapping[str, Value]) -> None:
        """Raise the TypeError that the call would end in."""
        header = self.__header__
        if header is None:
            header = self.__header__ = header_of(self.run)
        if type(kwargs) is not dict or type(args) not in (tuple, list):
            envelope.check_shape(self.name, args, kwargs)
        header(*args, **kwargs)

    def arguments(self, args: Sequence[Value], kwargs: Mapping[str, Value]) -> Mapping[str, Value]:
        """A call's arguments by the names of the parameters, defaults included."""
        parameters = self.__run_signature__
        if parameters is None:
            parameters = self.__run_signature__ = signature_of(self.run)
        bound = parameters.bind(*args, **kwargs)
        bound.apply_defaults()
        for parameter in parameters.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                return {**bound.arguments, **bound.arguments[parameter.name]}
        return bound.arguments

    # -- trying again

    def retry(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        eta: dt.datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Value,
    ) -> Retry:
        """Have this run tried again later, under the same id: `raise self.retry(exc=exc, countdown=60)`.

        It always raises: Retry; `exc`, or MaxRetriesExceededError without one, after `max_retries`; Reject when
        the call cannot be written. With `throw` False the Retry is returned, and stands whatever the task
        does after it. Where the task was called like a function there is nothing to be tried again, and
        `exc` is raised. Arguments and options that are not given stay as they were.
        """
        request = self.request
        if request.called_directly:
            _raise_with_context(exc or Retry("Task can be retried", None))
        if max_retries is None:
            limit = self.max_retries
        else:
            limit = request.override_max_retries = max_retries
        if not eta and countdown is None:
            countdown = self.default_retry_delay
        args, kwargs = self._arguments_again(request, args, kwargs)
        retries = (request.retries or 0) + 1
        if limit is not None and retries > limit:
            if exc is not None:
                _raise_with_context(exc)
            raise self.MaxRetriesExceededError(
                f"Can't retry {self.name}[{request.id}] args:{args} kwargs:{kwargs}",
                task_args=args,
                task_kwargs=kwargs,
            )
        when: dict[str, Value] = {"eta": eta} if eta else {"countdown": countdown}
        sig = self.signature_from_request(request, args, kwargs, retries=retries, **when, **options)
        retry = Retry(exc=exc, when=eta or countdown, is_eager=request.is_eager, sig=sig)
        if not request.is_eager:
            try:
                if request.message is None:  # a request that a test has pushed
                    _ = sig.apply_async()
                else:
                    retry.again = self.app.resend(request, args, kwargs, {**when, **options})
            except KombuError as why:
                raise Reject(why, requeue=False) from why
            request.pending_retry = retry
        if throw:
            raise retry
        return retry

    def _arguments_again(
        self,
        request: Context,
        args: Sequence[Value] | None,
        kwargs: Mapping[str, Value] | None,
    ) -> tuple[Sequence[Value], Mapping[str, Value]]:
        """What a retry is called with: where a parameter is given anew, in either way, its old value goes."""
        if (args is None) == (kwargs is None):
            return (request.args, request.kwargs) if args is None else (args, kwargs or {})
        names = [
            # One that can only be given by its place is never met by a keyword.
            parameter.name if parameter.kind is parameter.POSITIONAL_OR_KEYWORD else ""
            for parameter in signature_of(self.run).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        if args is not None:
            placed = names[: len(args)]
            return args, {
                name: value for name, value in request.kwargs.items() if name not in placed
            }
        left = dict(kwargs or {})
        merged = [left.pop(name, value) for name, value in zip(names, request.args, strict=False)]
        return [*merged, *request.args[len(names) :]], left

    def signature_from_request(
        self,
        request: Context | None = None,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        queue: Value = None,
        **options: Value,
    ) -> Signature[R]:
        """The call that a run came from, with what is given in place of what it had."""
        request = self.request if request is None else request
        came_by = request.delivery_info or {}
        known = {
            **request.as_execution_options(),
            "ignore_result": request.ignore_result,
            "priority": came_by.get("priority"),
            "queue": queue or came_by.get("routing_key"),
        }
        return self.signature(
            request.args if args is None else args,
            request.kwargs if kwargs is None else kwargs,
            **{name: value for name, value in known.items() if value is not None} | options,
        )

    subtask_from_request = signature_from_request

    def update_state(
        self,
        task_id: str | None = None,
        state: str | None = None,
        meta: Value = None,
        **kwargs: Value,
    ) -> None:
        """Say how far the task is: a state of your own, as "PROGRESS", and what goes with it, `result.info`.

        Those that wait for the result are told (`get(on_message=…)`). It holds until the next such word, or the end.
        """
        request = self.request
        if task_id is None:
            task_id = request.id
        if task_id is None:
            raise ValueError("update_state is for a task that runs, or needs a task_id")
        is_own_eager = request.is_eager and task_id == request.id
        if is_own_eager and (not self.store_eager_result or request.ignore_result):
            return  # no result of it is kept, so no state either
        self.app.backend.store_result(
            task_id, meta, state or states.PENDING, request=request, **kwargs
        )

    def AsyncResult(self, task_id: str, **kwargs: Value) -> AsyncResult[R]:  # noqa: N802 - Celery's name
        """The result of an earlier call of this task."""
        result: AsyncResult[R] = self.app.AsyncResult(task_id, task_name=self.name, **kwargs)
        return result

    def get_publisher(self, connection: Value = None, **_: Value) -> Value:
        """What Celery's programs send many calls with: `task.apply_async(args, publisher=publisher)`."""
        return self.app.producer_or_acquire()

    # -- calls as values

    @overload
    def s(
        self: "Task[P, Coroutine[Value, Value, T]]", *args: P.args, **kwargs: P.kwargs
    ) -> Signature[T]: ...
    @overload
    def s(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]: ...
    # A partial call: the arguments that are missing come when it is made.
    @overload
    def s(self, *args: Value, **kwargs: Value) -> Signature[R]: ...
    def s(self, *args: Value, **kwargs: Value) -> Signature[Value]:
        """The call with these arguments, as a value."""
        return self.signature(args, kwargs)

    @overload
    def si(
        self: "Task[P, Coroutine[Value, Value, T]]", *args: P.args, **kwargs: P.kwargs
    ) -> Signature[T]: ...
    @overload
    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]: ...
    # A partial call: the arguments that are missing come when it is made.
    @overload
    def si(self, *args: Value, **kwargs: Value) -> Signature[R]: ...
    def si(self, *args: Value, **kwargs: Value) -> Signature[Value]:
        """The same, and it takes no further arguments."""
        return self.signature(args, kwargs, immutable=True)

    def signature(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> Signature[R]:
        """A call as a value; arguments may be left out and given when it is made."""
        immutable = bool(options.pop("immutable", False))
        return Signature(
            self.name, args, kwargs, options, type=self, immutable=immutable, app=self._app
        )

    subtask = signature

    def map(self, it: Iterable[Value]) -> canvas.xmap:
        """`[task(x) for x in it]`, in one message."""
        return canvas.xmap(self.signature(), it, app=self._app)

    def starmap(self, it: Iterable[Value]) -> canvas.xstarmap:
        """`[task(*x) for x in it]`, in one message."""
        return canvas.xstarmap(self.signature(), it, app=self._app)

    def chunks(self, it: Iterable[Value], n: int) -> canvas.chunks:
        """The same, in messages of `n` calls."""
        return canvas.chunks(self.signature(), it, n, app=self._app)

    # -- changing what it is part of

    def replace(self, sig: Signature[Value]) -> Value:
        """Have another call, or many, take this task's place: its id, its callbacks, its place in a chord.

        Always raises in a worker: nothing after it is run. What was called with the id of this task's result gets the
        last task's of `sig`, for a group the list of its results.
        """
        checked(sig, "a replacement")
        if "chord" in sig.options:
            raise ImproperlyConfigured("A signature replacing a task must not be part of a chord")
        if sig.get("subtask_type") == "chain" and canvas.is_nothing(sig):
            raise ImproperlyConfigured("Cannot replace with an empty chain")
        if isinstance(sig, canvas.group):
            sig = sig | Signature("celery.accumulate", kwargs={"index": 0}, app=self._app)
        return self.on_replace(sig)

    def on_replace(self, sig: Signature[Value]) -> Value:
        """Replace the task; called by `replace`. One that overrides it ends with `return super().on_replace(sig)`."""
        request = self.request
        if request.is_eager:
            return sig.apply().get(disable_sync_subtasks=False)
        if request.called_directly:
            _ = sig.delay()
            raise Ignore("Replaced by new task")
        raise self.app.replaced(request, sig)

    def add_to_chord(self, sig: Signature[Value], lazy: bool = False) -> Value:  # noqa: FBT001, FBT002 - Celery's signature
        """Add a call to the header of the chord that this task is in; it is sent when this task ends.

        Answers its result, or with `lazy` the signature, which takes part when it is sent with `delay()` by this task.
        """
        request = self.request
        if not request.chord:
            raise ValueError("Current task is not member of any chord")
        checked(sig, "a chord's header")
        sig.set(
            group_id=request.group,
            group_index=request.group_index,
            chord=request.chord,
            root_id=request.root_id,
        )
        sig.freeze()
        return sig if lazy else sig.delay()

    def add_trail(self, result: Value) -> Value:
        """Remember a result among the children of this run's; answers it."""
        if self.trail:
            self.request.children.append(result)
        return result

    # -- events

    def send_event(
        self,
        type_: str,
        retry: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        retry_policy: Value = None,
        **fields: Value,
    ) -> None:
        """Tell those who listen something of your own, from inside of the task: "task-progress"."""
        request = self.request
        with self.app.events.default_dispatcher(hostname=request.hostname) as dispatcher:
            dispatcher.send(type_, uuid=request.id, **fields)

    # -- handlers, for subclasses

    def before_start(self, task_id: str, args: Value, kwargs: Value) -> Value:
        """Called before the body."""

    def on_success(self, retval: Value, task_id: str, args: Value, kwargs: Value) -> Value:
        """Called after it returned."""

    def on_retry(
        self, exc: BaseException | None, task_id: str, args: Value, kwargs: Value, einfo: Value
    ) -> Value:
        """Called after it asked to be tried again; `exc` is why."""

    def on_failure(
        self, exc: BaseException, task_id: str, args: Value, kwargs: Value, einfo: Value
    ) -> Value:
        """Called after it raised."""

    def after_return(
        self, status: str, retval: Value, task_id: str, args: Value, kwargs: Value, einfo: Value
    ) -> Value:
        """Called after either."""

    def __repr__(self) -> str:
        if self._app is None:
            return f"<unbound {type(self).__name__}>"
        return f"<@task: {self.name} of {self._app.main} at {id(self._app):#x}>"

    def __reduce__(self) -> tuple[Value, ...]:
        return _find_task, (self.name,)


BaseTask = Task


class PeriodicTask(Task[P, R]):
    """A task that says itself when it runs, as in Celery's versions 2 and 3: it is an entry of `beat_schedule`."""

    abstract = True
    type = "periodic"
    ignore_result: bool | None = True
    run_every: Value = None
    """Seconds, a timedelta or a schedule as crontab."""
    relative = False
    """Run at round times: a timedelta of hours at full hours."""
    options: Mapping[str, Value] | None = None
    """Options of its calls."""

    def on_bound(self, app: Value) -> None:
        """Enter it in the app's schedule."""
        if self.run_every is None:
            raise NotImplementedError(f"the periodic task {self.name!r} must have run_every")
        every = maybe_schedule(self.run_every, self.relative, app)
        app.add_periodic_task(every, self, name=self.name, **(self.options or {}))


def task(*args: Value, **options: Value) -> Value:
    """Make a function a task of the current app: `app.task`."""
    return _state.get_current_app().task(*args, **options)


def periodic_task(*args: Value, **options: Value) -> Value:
    """Make a function a task that runs every so often: `@periodic_task(run_every=timedelta(minutes=5))`."""
    return task(*args, **{"base": PeriodicTask, **options})


class _Module(types.ModuleType):
    """This module, which is a decorator too: `from qbroker import task`, as from Celery 3."""

    def __call__(self, *args: Value, **options: Value) -> Value:
        return task(*args, **options)


sys.modules[__name__].__class__ = _Module


def _raise_with_context(exc: BaseException) -> NoReturn:
    """Raise it; what is being handled is its cause, and where it came from when it is the same."""
    handled = sys.exception()
    if handled is exc:
        raise
    raise exc from handled


def _find_task(name: str) -> Value:
    return _state.get_current_app().tasks[name]


def _stub() -> None: ...


def header_of(fun: Callable[..., Value]) -> Callable[..., None]:
    """A function that does nothing and takes exactly the arguments `fun` does.

    Calling it is Python's own check, with its own words, at a tenth of what inspect.signature().bind() costs.
    """
    if isinstance(fun, types.MethodType):
        return types.MethodType(header_of(fun.__func__), fun.__self__)
    if not isinstance(fun, types.FunctionType):
        return _anything
    code = fun.__code__
    takes_rest = code.co_flags & (_VARARGS | _VARKEYWORDS)
    count = code.co_argcount + code.co_kwonlyargcount + takes_rest.bit_count()
    header = types.FunctionType(
        _stub.__code__.replace(
            co_argcount=code.co_argcount,
            co_posonlyargcount=code.co_posonlyargcount,
            co_kwonlyargcount=code.co_kwonlyargcount,
            co_varnames=code.co_varnames[:count],
            co_nlocals=count,
            co_flags=_stub.__code__.co_flags | takes_rest,
            co_name=code.co_name,
            co_qualname=code.co_name,
        ),
        {},
        fun.__name__,
        fun.__defaults__,
    )
    header.__kwdefaults__ = fun.__kwdefaults__
    return header


_VARARGS = 0x04
_VARKEYWORDS = 0x08


def _anything(*_args: Value, **_kwargs: Value) -> None: ...
