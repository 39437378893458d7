"""Tasks: functions that can be called from elsewhere. Public: `Task`, `Context`."""

import types
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Generic, ParamSpec, TypeVar, cast, overload

from qbroker import _state
from qbroker.canvas import Signature
from qbroker.request import Context, current_request
from qbroker.result import AsyncResult, EagerResult
from qbroker.serialization import Value

if TYPE_CHECKING:
    from qbroker.ports import Sender

__all__ = ["Context", "Task", "header_of"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_NOT_INSIDE = Context()


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
    max_deliveries: int | None = None
    """How many deaths of workers a late-acknowledged task survives. Setting: task_max_deliveries."""
    serializer: str | None = None
    """Setting: task_serializer."""
    priority: int | None = None
    """0 to 9, higher first. Setting: task_default_priority."""
    queue: str | None = None
    """Setting: task_default_queue."""
    expires: Value = None
    """Seconds, or a datetime, after which the task is not worth running."""
    time_limit: float | None = None
    """Seconds after which the process that runs it is killed."""
    soft_time_limit: float | None = None
    """Seconds after which SoftTimeLimitExceeded is raised in it."""
    trail: bool = True
    """Remember which tasks it calls: `result.children`."""
    throws: Sequence[type[BaseException]] = ()
    """Exceptions that are expected of it: logged as information, without a traceback."""
    resultrepr_maxsize: int = 1024
    """How many characters of its result the log shows."""

    from_config: ClassVar[tuple[tuple[str, str], ...]] = (
        ("serializer", "task_serializer"),
        ("priority", "task_default_priority"),
        ("acks_late", "task_acks_late"),
        ("ignore_result", "task_ignore_result"),
        ("store_errors_even_if_ignored", "task_store_errors_even_if_ignored"),
        ("max_deliveries", "task_max_deliveries"),
    )
    """Which setting fills an attribute that is None."""

    __trace__: Value = None
    __header__: Value = None
    __bound__ = False
    _app: "Sender | None" = None

    @property
    def app(self) -> Value:
        """The app it belongs to, else the current one."""
        return self._app if self._app is not None else _state.get_current_app()

    def bind(self, app: "Sender") -> None:
        """Make it a task of this app, and take its settings."""
        self._app = app
        conf = app.conf
        for attribute, setting in self.from_config:
            if getattr(self, attribute) is None:
                setattr(self, attribute, getattr(conf, setting))
        self.__bound__ = True
        self.on_bound(app)

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
        """The run this is asked in; outside of one, an empty request."""
        request = current_request.get()
        while request is not None:
            if request.is_of(self):
                return request
            request = request.outer
        return _NOT_INSIDE

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
        those of `qbroker.app.sending.Options`.
        """
        app = self.app
        if self.typing:
            self.check_arguments(args or (), kwargs or {})
        if app.conf.task_always_eager:
            return cast(
                "AsyncResult[Value]",
                app.apply_task(self, args, kwargs, task_id=task_id, **options),
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
        if app.conf.task_always_eager:
            return cast(
                "AsyncResult[Value]",
                app.apply_task(self, args, kwargs, task_id=task_id, **options),
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

    def check_arguments(self, args: Sequence[Value], kwargs: Mapping[str, Value]) -> None:
        """Raise the TypeError that the call would end in."""
        header = self.__header__
        if header is None:
            header = self.__header__ = header_of(self.run)
        header(*args, **kwargs)

    def AsyncResult(self, task_id: str, **kwargs: Value) -> AsyncResult[R]:  # noqa: N802 - Celery's name
        """The result of an earlier call of this task."""
        result: AsyncResult[R] = self.app.AsyncResult(task_id, task_name=self.name, **kwargs)
        return result

    # -- calls as values

    @overload
    def s(
        self: "Task[P, Coroutine[Value, Value, T]]", *args: P.args, **kwargs: P.kwargs
    ) -> Signature[T]: ...
    @overload
    def s(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]: ...
    def s(self, *args: P.args, **kwargs: P.kwargs) -> Signature[Value]:
        """The call with these arguments, as a value."""
        return self.signature(args, kwargs)

    @overload
    def si(
        self: "Task[P, Coroutine[Value, Value, T]]", *args: P.args, **kwargs: P.kwargs
    ) -> Signature[T]: ...
    @overload
    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]: ...
    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[Value]:
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

    # -- handlers, for subclasses

    def before_start(self, task_id: str, args: Value, kwargs: Value) -> Value:
        """Called before the body."""

    def on_success(self, retval: Value, task_id: str, args: Value, kwargs: Value) -> Value:
        """Called after it returned."""

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
