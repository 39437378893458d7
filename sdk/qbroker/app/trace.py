"""Running a task: what happens between a message and what is left of it.

`build_runner` is what a worker's children call with each message; `apply` runs the same machinery in
the caller's process. Handlers and signals come in Celery's order: task_prerun, before_start, the task,
(its result is encoded), on_success or on_failure with its signal, after_return, task_postrun. What
nobody overrides or listens to costs nothing.

Nothing here logs how a task went: the worker does, with `log_line`, whose formats users may replace.
"""

import contextvars
import functools
import inspect
import logging
import os
import threading
import types
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from reprlib import Repr
from types import TracebackType
from typing import NamedTuple, Protocol, TypeVar

from google.protobuf.message import DecodeError as MalformedMessage

from qbroker import clock, envelope, failures, serialization, signals, states
from qbroker.canvas.primitives import apply_or_send
from qbroker.canvas.signature import maybe_signature
from qbroker.compression import find as find_compression
from qbroker.exceptions import (
    BackendStoreError,
    EncodeError,
    Ignore,
    InvalidTaskError,
    LimitExceeded,
    NotRegistered,
    Reject,
    Replaced,
    Retry,
    SecurityError,
    SerializationError,
    SerializerNotInstalled,
    TaskPredicate,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)
from qbroker.inprocess import is_callers_thread
from qbroker.limits import RESULT_BYTES_MAX, own_time_limit
from qbroker.printable import clean, cut, repr_of, text_of
from qbroker.request import Context, current_request, plain_seconds
from qbroker.result import child_of
from qbroker.sealing import Seal
from qbroker.serialization import AUTH, Value
from qbroker.task import Task
from qbroker.utils.imports import symbol_by_name
from qbroker.utils.time import get_exponential_backoff_interval
from qbroker.worker.request import Request
from qbroker_proto import checksum, names
from qbroker_proto.v1.message_pb2 import Failure, Input, Message, Result

__all__ = [
    "LOG_FAILURE",
    "LOG_IGNORED",
    "LOG_INTERNAL_ERROR",
    "LOG_RECEIVED",
    "LOG_REJECTED",
    "LOG_RETRY",
    "LOG_REVOKED",
    "LOG_SOFT_TIME_LIMIT",
    "LOG_SUCCESS",
    "LOG_TIME_LIMIT",
    "Awaited",
    "Ended",
    "ExceptionInfo",
    "Guard",
    "Limits",
    "Ran",
    "Runner",
    "build_runner",
    "call_errbacks",
    "execute",
    "log_line",
    "plan_of",
]

_log = logging.getLogger(__name__)

LOG_RECEIVED = "Task %(name)s[%(id)s] received"
LOG_SUCCESS = "Task %(name)s[%(id)s] succeeded in %(runtime)ss: %(return_value)s"
LOG_FAILURE = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
LOG_INTERNAL_ERROR = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
LOG_IGNORED = "Task %(name)s[%(id)s] %(description)s"
LOG_REJECTED = "Task %(name)s[%(id)s] %(exc)s"
LOG_RETRY = "Task %(name)s[%(id)s] retry: %(exc)s"
LOG_TIME_LIMIT = "Hard time limit (%(limit)ss) exceeded for %(name)s[%(id)s]"
LOG_SOFT_TIME_LIMIT = "Soft time limit (%(limit)ss) exceeded for %(name)s[%(id)s]"
LOG_REVOKED = "Discarding revoked task: %(name)s[%(id)s]"

Encode = Callable[[Context, str, Value, str], bytes]
"""(request, state, value, traceback) → a serialized Result."""


Limits = tuple[float | None, float | None]
"""Two time limits in seconds; None or 0 is none."""

_UNLIMITED: Limits = (None, None)

_HEED_S = 1.0
"""How long a coroutine may take to end that was cancelled at its hard limit."""

T = TypeVar("T")


@dataclass(slots=True)
class ExceptionInfo:
    """What handlers and signals are told about a failure; as text, its traceback."""

    exception: BaseException
    traceback: str
    internal: bool = False

    @property
    def type(self) -> type[BaseException]:
        """The exception's class."""
        return type(self.exception)

    def __str__(self) -> str:
        return self.traceback


@dataclass(slots=True)
class Plan:
    """What running this task takes; found out once."""

    task: Task[..., Value]
    fun: Callable[..., Value]
    frames_skipped: int
    is_async: bool
    request_class: type[Request] | None
    """What a run is, where the task says so itself; None: a Context."""
    before_start: Callable[..., Value] | None
    on_success: Callable[..., Value] | None
    on_retry: Callable[..., Value] | None
    on_failure: Callable[..., Value] | None
    after_return: Callable[..., Value] | None


def plan_of(task: Task[..., Value]) -> Plan:
    """The plan of a task, which keeps it."""
    plan = task.__trace__
    if not isinstance(plan, Plan):
        plan = task.__trace__ = _make_plan(task)
    return plan


def _make_plan(task: Task[..., Value]) -> Plan:
    # `Task.__call__` only puts a request of its own around `run`; here there is one already.
    is_plain_call = type(task).__call__ is Task.__call__
    fun = task.run if is_plain_call else task
    is_async = inspect.iscoroutinefunction(task.run)
    if task.autoretry_for:
        retrying = _retrying(task, fun, is_async=is_async)
        return _make_plan_of(task, retrying, frames_skipped=2, is_async=is_async)
    return _make_plan_of(task, fun, frames_skipped=1, is_async=is_async)


def _make_plan_of(
    task: Task[..., Value],
    fun: Callable[..., Value],
    *,
    frames_skipped: int,
    is_async: bool = False,
) -> Plan:
    return Plan(
        task=task,
        fun=fun,
        frames_skipped=frames_skipped,
        is_async=is_async,
        request_class=_request_class(task),
        before_start=_own(task, "before_start"),
        on_success=_own(task, "on_success"),
        on_retry=_own(task, "on_retry"),
        on_failure=_own(task, "on_failure"),
        after_return=_own(task, "after_return"),
    )


def _request_class(task: Task[..., Value]) -> type[Request] | None:
    """The task's own class of requests, or None where it is the usual one. Raises TypeError for what is none."""
    if task.Request == Task.Request:
        return None
    found = symbol_by_name(task.Request)
    if found is Request:
        return None
    if not (isinstance(found, type) and issubclass(found, Request)):
        raise TypeError(
            f"{task.name}.Request is {found!r}, which is not a subclass of qbroker.worker.request.Request"
        )
    return found


def _own(task: Task[..., Value], name: str) -> Callable[..., Value] | None:
    """The task's handler, or None where it is the one of `Task`, which does nothing."""
    handler: Callable[..., Value] = getattr(task, name)
    return None if getattr(handler, "__func__", None) is getattr(Task, name) else handler


def _retrying(
    task: Task[..., Value], fun: Callable[..., Value], *, is_async: bool
) -> Callable[..., Value]:
    """The function, with `autoretry_for` and its kin around it."""
    # What a task raises to say something about itself is no failure.
    spared: tuple[type[BaseException], ...] = (TaskPredicate, *task.dont_autoretry_for)
    retried = tuple(task.autoretry_for)

    def run(*args: Value, **kwargs: Value) -> Value:
        try:
            return fun(*args, **kwargs)
        except spared:
            raise
        except retried as exc:
            where = _try_again(task, exc, retried)
            raise exc.with_traceback(where) from exc.__cause__

    async def run_async(*args: Value, **kwargs: Value) -> Value:
        try:
            return await fun(*args, **kwargs)
        except spared:
            raise
        except retried as exc:
            where = _try_again(task, exc, retried)
            raise exc.with_traceback(where) from exc.__cause__

    return run_async if is_async else run


def _try_again(
    task: Task[..., Value], exc: BaseException, retried: tuple[type[BaseException], ...]
) -> TracebackType | None:
    """Retry a task that raised one of those it is to be retried for; where it raised, if that is its end."""
    where = exc.__traceback__
    request = task.request
    how = dict(task.retry_kwargs)
    if task.retry_backoff:
        how["countdown"] = get_exponential_backoff_interval(
            int(max(1.0, task.retry_backoff)),
            request.retries or 0,
            int(task.retry_backoff_max),
            task.retry_jitter,
        )
    if request.override_max_retries is not None:
        how["max_retries"] = request.override_max_retries
    try:
        raise task.retry(exc=exc, **how)
    except retried as raised:
        if raised is not exc:
            raise
    # Tried too often: it is to be raised as if nobody had caught it.
    return where.tb_next if where is not None else None


@dataclass(slots=True)
class Ended:
    """How a run went: `value` is what was returned or raised, `result` what is to be kept of it."""

    state: str
    value: Value
    runtime_s: float
    traceback: str = ""
    result: bytes = b""


def execute(
    plan: Plan,
    request: Context,
    args: Sequence[Value],
    kwargs: Mapping[str, Value],
    encode: Encode | None,
    *,
    keeps_success: bool = True,
    monotonic: Callable[[], float] = clock.monotonic,
) -> Ended:
    """Run a task. Raises nothing of the task's but what is to end the process.

    `encode` makes what is kept, of failures always and of successes if `keeps_success`; with None
    nothing is.
    """
    return _drive(_steps(plan, request, args, kwargs, encode, keeps_success, monotonic))


class Guard(Protocol):
    """Keeps the time limits of what runs on this thread, and ends what was revoked."""

    @property
    def watches_all(self) -> bool:
        """Whether it is to know of what has no limits, too."""

    def begin(self, soft_s: float | None, hard_s: float | None, *, is_async: bool = False) -> None:
        """From now on: SoftTimeLimitExceeded is raised on this thread after `soft_s` seconds."""

    def end(self) -> None:
        """Nothing more is raised."""

    def waits(self, cancel: Callable[[], object] | None) -> None:
        """What runs here is an asyncio task, which `cancel` ends from any thread; None: it is over."""

    def heed(self) -> None:
        """Raise what ends the task, if something has."""


@dataclass(slots=True)
class _Raised:
    """An exception that a coroutine raised. It is not thrown into the steps: there a GeneratorExit would end the steps."""

    exc: BaseException


@dataclass(slots=True)
class Awaited:
    """What an `async def` task gave, for whoever runs the steps to complete."""

    coroutine: Coroutine[Value, Value, Value]
    soft_s: float | None
    hard_s: float | None
    guard: Guard | None = None
    """Who may end it."""


Steps = Generator[Awaited, Value, T]
"""A run that asks for coroutines to be completed: on a loop of the thread's, or on the one it is driven from."""


def _drive(steps: Steps[T]) -> T:
    """Run the steps to their end, completing what they ask for on an event loop that this thread keeps."""
    try:
        awaited = next(steps)
        while True:
            try:
                value = _complete(awaited)
            except BaseException as exc:  # noqa: BLE001 - whatever a task raises is its result
                awaited = steps.send(_Raised(_outwards(exc, awaited.coroutine)))
            else:
                awaited = steps.send(value)
    except StopIteration as stop:
        ended: T = stop.value
        return ended


async def _drive_natively(steps: Steps[T]) -> T:
    """The same on the running loop. Who cancels it is told of no outcome, but the task's handlers are not either."""
    import asyncio  # noqa: PLC0415 - see _complete

    from qbroker.app.within import within  # noqa: PLC0415 - the same

    try:
        awaited = next(steps)
        while True:
            try:
                value = await within(awaited.coroutine, awaited.soft_s, awaited.hard_s)
            except BaseException as exc:
                ours = asyncio.current_task()
                if (
                    isinstance(exc, asyncio.CancelledError)
                    and ours is not None
                    and ours.cancelling()
                ):
                    steps.close()
                    raise
                awaited = steps.send(_Raised(_outwards(exc, awaited.coroutine)))
            else:
                awaited = steps.send(value)
    except StopIteration as stop:
        ended: T = stop.value
        return ended


def _outwards(exc: BaseException, coroutine: Value) -> BaseException:
    """The exception with the traceback that the coroutine's own frames make."""
    where = exc.__traceback__
    while where is not None and where.tb_frame.f_code is not coroutine.cr_code:
        where = where.tb_next
    return exc if where is None else exc.with_traceback(where)


def _steps(
    plan: Plan,
    request: Context,
    args: Sequence[Value],
    kwargs: Mapping[str, Value],
    encode: Encode | None,
    keeps_success: bool,  # noqa: FBT001 - keywords cost
    monotonic: Callable[[], float],
    guard: Guard | None = None,
    limits: Limits = (None, None),
) -> Steps[Ended]:
    task = plan.task
    task_id = request.id
    request.task = task
    request._outer = current_request.get()  # noqa: SLF001 - one module in two: what a request is inside of
    token = current_request.set(request)
    ended = None
    is_waiting = False
    try:
        if signals.task_prerun:
            signals.task_prerun.send(task, task_id=task_id, task=task, args=args, kwargs=kwargs)
        started = monotonic()
        if plan.request_class is not None and isinstance(request, Request):
            request.time_start = clock.wall_ms() / 1000
            _handle(plan, request, request.on_accepted, os.getpid(), started)
        try:
            if guard is None or (limits == _UNLIMITED and not guard.watches_all):
                if plan.before_start is not None:
                    plan.before_start(task_id, args, kwargs)
                value = plan.fun(*args, **kwargs)
                if plan.is_async:
                    is_waiting = True
                    value = yield Awaited(value, *limits)
                    is_waiting = False
                    if type(value) is _Raised:
                        raise value.exc  # noqa: TRY301 - as if the task had let it out
            else:
                soft_s, hard_s = limits
                try:
                    if plan.is_async:
                        # The loop keeps its limits; who does not heed it is for the guard to end.
                        guard.begin(None, hard_s + _HEED_S if hard_s else None, is_async=True)
                    else:
                        guard.begin(soft_s, hard_s)
                    if plan.before_start is not None:
                        plan.before_start(task_id, args, kwargs)
                    value = plan.fun(*args, **kwargs)
                    if plan.is_async:
                        is_waiting = True
                        value = yield Awaited(value, soft_s, hard_s, guard)
                        is_waiting = False
                        if type(value) is _Raised:
                            raise value.exc
                finally:
                    guard.end()
            if request.pending_retry is not None:
                raise request.pending_retry  # noqa: TRY301 - as if the task had let it out
            runtime_s = monotonic() - started
            result = (
                encode(request, states.SUCCESS, value, "")
                if encode is not None and keeps_success
                else b""
            )
        except Retry as exc:
            ended = _retried(plan, request, args, kwargs, exc, encode, monotonic() - started)
        except Ignore as exc:
            ended = Ended(states.IGNORED, exc, monotonic() - started)
        except Reject as exc:
            ended = Ended(states.REJECTED, exc, monotonic() - started)
            if encode is not None and not exc.requeue:
                # Nothing will ever come of it, so who waits is told.
                ended.result = encode(request, states.FAILURE, exc, "")
        except SystemExit:
            raise
        except BaseException as exc:
            if isinstance(exc, GeneratorExit) and is_waiting:
                raise  # these steps are closed, because nothing will complete the coroutine
            is_callers = request.is_eager or is_callers_thread()
            if isinstance(exc, KeyboardInterrupt) and is_callers:
                raise  # in the caller's process it is Ctrl-C
            if isinstance(request.pending_retry, Retry):
                ended = _retried(
                    plan,
                    request,
                    args,
                    kwargs,
                    request.pending_retry,
                    encode,
                    monotonic() - started,
                )
            else:
                text = failures.traceback_of(exc, plan.frames_skipped)
                ended = Ended(states.FAILURE, exc, monotonic() - started, text)
                if encode is not None:
                    ended.result = encode(request, states.FAILURE, exc, text)
                _tell_failure(plan, request, args, kwargs, exc, text)
        else:
            ended = Ended(states.SUCCESS, value, runtime_s, "", result)
            if signals.task_success:
                signals.task_success.send(task, result=value, runtime=runtime_s)
            if plan.on_success is not None:
                _handle(plan, request, plan.on_success, value, task_id, args, kwargs)
        if plan.after_return is not None and ended.state in states.READY_STATES:
            einfo = ExceptionInfo(ended.value, ended.traceback) if ended.traceback else None
            _handle(
                plan, request, plan.after_return,
                ended.state, ended.value, task_id, args, kwargs, einfo,
            )  # fmt: skip
        if plan.request_class is not None and isinstance(request, Request):
            _tell_request(plan, request, ended, limits[0])
        return ended
    finally:
        if signals.task_postrun:
            signals.task_postrun.send(
                task,
                task_id=task_id,
                task=task,
                args=args,
                kwargs=kwargs,
                retval=ended.value if ended else None,
                state=ended.state if ended else None,
            )
        current_request.reset(token)


def _retried(
    plan: Plan,
    request: Context,
    args: Sequence[Value],
    kwargs: Mapping[str, Value],
    retry: Retry,
    encode: Encode | None,
    runtime_s: float,
) -> Ended:
    text = failures.traceback_of(retry, plan.frames_skipped)
    ended = Ended(states.RETRY, retry, runtime_s, text)
    if encode is not None:
        ended.result = encode(request, states.RETRY, retry.exc, text)
    if plan.on_retry is not None or signals.task_retry:
        einfo = ExceptionInfo(retry, text)
        if plan.on_retry is not None:
            _handle(plan, request, plan.on_retry, retry.exc, request.id, args, kwargs, einfo)
        signals.task_retry.send(plan.task, request=request, reason=retry, einfo=einfo)
    return ended


def _tell_failure(
    plan: Plan,
    request: Context,
    args: Sequence[Value],
    kwargs: Mapping[str, Value],
    exc: BaseException,
    text: str,
) -> None:
    if plan.on_failure is None and not signals.task_failure:
        return
    einfo = ExceptionInfo(exc, text)
    if plan.on_failure is not None:
        _handle(plan, request, plan.on_failure, exc, request.id, args, kwargs, einfo)
    signals.task_failure.send(
        plan.task,
        task_id=request.id,
        exception=exc,
        args=args,
        kwargs=kwargs,
        traceback=exc.__traceback__,
        einfo=einfo,
    )


def _tell_request(plan: Plan, request: Request, ended: Ended, soft_s: float | None) -> None:
    """Have a request of the task's own class know how its run went."""
    if soft_s and ended.runtime_s >= soft_s:
        _handle(plan, request, request.on_timeout, True, soft_s)  # noqa: FBT003 - Celery's arguments
    failed = ended.state != states.SUCCESS
    value = ExceptionInfo(ended.value, ended.traceback) if failed else ended.value
    _handle(plan, request, request.on_success, (int(failed), value, ended.runtime_s))


def _handle(plan: Plan, request: Context, handler: Callable[..., Value], *arguments: Value) -> None:
    """Call a handler. What it raises is an error of its own; the task's outcome stands."""
    try:
        handler(*arguments)
    except Exception as exc:  # noqa: BLE001 - see above
        _log.exception(
            LOG_INTERNAL_ERROR,
            {
                "name": plan.task.name,
                "id": names.escaped(request.id or ""),
                "description": "raised in a handler",
                "exc": repr_of(exc),
            },
        )
        signals.task_internal_error.send(
            plan.task,
            task_id=request.id,
            args=request.args,
            kwargs=request.kwargs,
            request=request,
            exception=exc,
            traceback=exc.__traceback__,
            einfo=ExceptionInfo(exc, failures.traceback_of(exc), internal=True),
        )


_loops = threading.local()


def _complete(awaited: Awaited) -> Value:
    """Run an `async def` task to its end, on an event loop that this thread keeps."""
    import asyncio  # noqa: PLC0415 - a third of the import time, and most programs have no such task

    coroutine: Value = awaited.coroutine
    if awaited.soft_s or awaited.hard_s:
        from qbroker.app.within import within  # noqa: PLC0415 - it imports asyncio

        coroutine = within(coroutine, awaited.soft_s, awaited.hard_s)
    guard = awaited.guard
    if guard is not None:
        coroutine = _watched(coroutine, guard)
    context = contextvars.copy_context()
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - documented; the other one raises, which tracebacks would show
        # Called on a thread whose loop is running (`apply` in asyncio code): a loop cannot nest.
        return _complete_elsewhere(coroutine, context)
    runner: Value = getattr(_loops, "runner", None)
    if runner is None:
        runner = _loops.runner = asyncio.Runner()
    try:
        return runner.run(coroutine, context=context)
    except asyncio.CancelledError:
        if guard is not None:
            guard.heed()
        raise


async def _watched(coroutine: Coroutine[Value, Value, Value], guard: Guard) -> Value:
    """What the coroutine returns; meanwhile the guard can cancel it."""
    import asyncio  # noqa: PLC0415 - as above

    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None, "a coroutine runs in a task"
    guard.waits(lambda: loop.call_soon_threadsafe(task.cancel))
    try:
        return await coroutine
    finally:
        guard.waits(None)


def _complete_elsewhere(coroutine: Value, context: contextvars.Context) -> Value:
    import asyncio  # noqa: PLC0415 - as above

    ended: list[Callable[[], Value]] = []

    def run() -> None:
        try:
            value = context.run(asyncio.run, coroutine)
        except BaseException as exc:  # noqa: BLE001 - raised again on the thread that asked
            raised = exc
            ended.append(lambda: _raise(raised))
        else:
            ended.append(lambda: value)

    thread = threading.Thread(target=run, name="qbroker-async-task")
    thread.start()
    thread.join()
    return ended[0]()


def _raise(exc: BaseException) -> Value:
    raise exc


# -- in a worker ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Ran:
    """What the worker settles and logs."""

    outcome: int
    """A number of qbroker.v1.Outcome; see `envelope`."""
    result: bytes
    """A serialized Result, or b"" where nothing is to be kept."""
    requeue: bool
    state: str
    runtime_s: float
    retval_or_exc: Value
    traceback: str
    task: str
    is_expected: bool = False
    """The exception is one of those the task says it `throws`."""
    detail: str = ""
    """How it ended, in a line, for the message's history; "" after success."""
    message: bytes = b""
    """With RETRY and REPLACED: the message that takes the place of the one that ran."""
    eta_ms: int = 0
    """With RETRY: when that is due, in Unix milliseconds; 0: at once."""
    follow_ups: Sequence[bytes] = ()
    """Messages to be published with it."""
    added_members: Sequence[bytes] = ()
    """Messages that join the chord it is in."""


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs one serialized message, and says what came of it: (message, attempt, whether redelivered)."""

    run: Callable[[bytes, int, bool], Ran]
    """On this thread, whatever the task is."""
    run_natively: Callable[[bytes, int, bool], Coroutine[Value, Value, Ran]]
    """On the running event loop; for `async def` tasks."""
    expire: Callable[[bytes, int, bool], Ran]
    """Not at all, for its hard limit has ended its run: the handlers of its failure are run."""
    is_async: Callable[[str], bool]
    """Whether the task of that name is an `async def` one."""
    tell_revoked: Callable[[bytes, str | None], None]
    """Not at all: it was revoked, and maybe ended by a signal. Sends task_revoked."""
    tell_lost: Callable[[bytes, str], None]
    """Not at all: the process that ran it died, as the sentence says. Sends task_failure."""

    def __call__(self, message: bytes, attempt: int, redelivered: bool) -> Ran:  # noqa: FBT001 - as a message comes
        """Run it here."""
        return self.run(message, attempt, redelivered)


class Begun(NamedTuple):
    """What is to be run: who calls, what, with what, and how its result is written, if it is to be."""

    call: Message
    request: Context
    task: Task[..., Value]
    args: list[Value]
    kwargs: dict[str, Value]
    encode: Encode | None


class App(Protocol):
    """What a runner asks of an app."""

    @property
    def tasks(self) -> Mapping[str, Task[..., Value]]:
        """All tasks by name; asking finalizes the app."""

    @property
    def conf(self) -> Value:
        """The settings."""

    @property
    def accepted_content(self) -> frozenset[str]:
        """Content types that may be decoded."""

    @property
    def accepted_results(self) -> frozenset[str]:
        """Content types of results that may be decoded."""

    def resend(
        self,
        request: Context,
        args: Sequence[Value],
        kwargs: Mapping[str, Value],
        options: Mapping[str, Value],
    ) -> tuple[bytes, int]:
        """The message of a retry, and when it is due in Unix milliseconds."""


_HEADS_MAX = 1_000


def _result_writer(conf: Value) -> Callable[[Value], dict[str, Value]] | None:
    """How return values are written, where that is not plain JSON."""
    serializer, compression = conf.result_serializer, conf.result_compression
    serialization.find(serializer)
    if compression:
        find_compression(compression)
    elif serializer == "json":
        return None
    level = conf.compression_level
    return lambda value: envelope.write(value, serializer, compression, level)


_OUTCOMES = {
    states.SUCCESS: envelope.OUTCOME_SUCCESS,
    states.FAILURE: envelope.OUTCOME_FAILURE,
    states.IGNORED: envelope.OUTCOME_IGNORED,
    states.REJECTED: envelope.OUTCOME_REJECTED,
    states.REVOKED: envelope.OUTCOME_REVOKED,
    states.RETRY: envelope.OUTCOME_RETRY,
}

_DETAIL_CHARS_MAX = 500


def _line(exc: BaseException) -> str:
    """An exception in a line."""
    if isinstance(exc, Retry):
        return text_of(exc).partition("\n")[0][:_DETAIL_CHARS_MAX]
    if isinstance(exc, Reject):
        reason = text_of(exc.reason).partition("\n")[0]
        return f"{type(exc).__name__}: {reason}"[:_DETAIL_CHARS_MAX]
    return failures.line_of(exc)


def build_runner(
    app: App,
    *,
    hostname: str,
    guard: Guard | None = None,
    limits: Limits = (None, None),
    wall_ms: Callable[[], int] = clock.wall_ms,
    monotonic: Callable[[], float] = clock.monotonic,
    result_bytes_max: Callable[[], int] = lambda: RESULT_BYTES_MAX,
) -> Runner:
    """What runs messages of this app's tasks; raises nothing but what ends the process.

    `guard` keeps the time limits of what runs on this thread; `limits` are the worker's own, soft and hard,
    for tasks and calls that have none. `result_bytes_max` says how large a result the broker takes now.
    """
    tasks = app.tasks
    accepted = app.accepted_content
    parse = Message.FromString
    json_encode = serialization.json_encode
    write_result = _result_writer(app.conf)
    # What is encrypted in the message is not to lie beside its result in plain sight.
    keeps_calls = app.conf.result_extended and not app.conf.security_encryption_keys
    bytes_max = app.conf.unpacked_bytes_max
    seal: Seal | None = app.conf.seal
    terms = envelope.Terms(app.accepted_results, bytes_max, seal)
    # Where what tasks return is signed, so is what they raise.
    signs = app.conf.result_serializer == AUTH
    heads: dict[tuple[str, str, str], bytes] = {}

    def encode(request: Context, state: str, value: Value, traceback: str) -> bytes:
        bytes_max = result_bytes_max()
        if not isinstance(value, BaseException) or state not in states.EXCEPTION_STATES:
            try:
                result = written(request, state, value, traceback)
            except EncodeError as exc:
                name, serializer = request.task.name, app.conf.result_serializer
                parts = {"the result": value}
                raise envelope.explained(exc, f"task {name!r}", parts, serializer) from exc
            if len(result) > bytes_max:
                raise BackendStoreError(
                    f"the result of task {request.task.name!r} has {len(result)} bytes; the broker's "
                    f"max_message_bytes is {bytes_max}. Return a reference to large data instead, or "
                    "raise the setting"
                )
            return result
        for chars_max in failures.CHARS_TRIED:
            found, text = failures.encode(value, chars_max), cut(traceback, 2 * chars_max)
            result = written(request, state, found, text, is_error=True)
            if len(result) <= bytes_max:
                return result
        return written(request, state, failures.bare(value), "", is_error=True, is_short=True)

    def written(
        request: Context,
        state: str,
        value: Value,
        traceback: str,
        *,
        is_error: bool = False,
        is_short: bool = False,
    ) -> bytes:
        message = request.message
        assert message is not None, "a runner's request comes from a message"
        if is_error and seal is not None:
            # It ends with the exception's text.
            value, traceback = envelope.with_traceback(value, traceback), ""
        fields: dict[str, Value]
        if write_result is None or (is_error and not signs):
            # Exceptions cross as data, which everybody may read, however results are written.
            fields = {"body": json_encode(value)}
        else:
            fields = write_result(value)
        result = Result(
            done_ms=wall_ms(),
            runtime_s=monotonic() - request.started_s,
            **fields,
        )
        if seal is not None:
            if not result.content_type:
                result.content_type, result.content_encoding = serialization.JSON, "utf-8"
            seal.close(result, "result", message.task)
        if traceback:
            result.traceback = traceback
        if message.retries:
            result.retries = message.retries
        if message.parent_id:
            result.parent_id = message.parent_id
        if message.root_id:
            result.root_id = message.root_id
        if "children" in request.__dict__:  # looked at without making the list
            result.children.extend(map(child_of, request.children))
        if message.followers and state == states.SUCCESS:
            result.children.extend(message.followers)
        if keeps_calls and not is_short:
            result.call = envelope.encode_call(request.args, request.kwargs, request.stamps)
        # What all results of a task have in common is written once: protobuf messages in a row are one.
        common = message.task, message.queue, state
        head = heads.get(common)
        if head is None:
            if len(heads) >= _HEADS_MAX:
                heads.clear()
            head = heads[common] = Result(
                state=state,
                content_type="application/json",
                content_encoding="utf-8",
                worker=hostname,
                task=message.task,
                queue=message.queue,
            ).SerializeToString()
        return checksum.sealed(head + result.SerializeToString())

    def fail(request: Context, exc: Exception, state: str) -> Ran:
        """What cannot be run at all."""
        message = request.message
        name = message.task if message is not None else ""
        keeps = message is not None and (_is_heard(message) or message.store_errors_even_if_ignored)
        shown = states.FAILURE if state == states.REJECTED else state
        result = encode(request, shown, exc, "") if keeps else b""
        return Ran(
            _OUTCOMES[state],
            result,
            False,  # noqa: FBT003 - requeue; a positional build is half the cost
            state,
            0.0,
            exc,
            "",
            name,
            detail=_line(exc),
        )

    def begun(
        message: bytes,
        attempt: int,
        redelivered: bool,  # noqa: FBT001 - keywords cost
        *,
        is_over: bool = False,
    ) -> Begun | Ran:
        """What is to be run, or what came of it if it cannot be. One that `is_over` began before it expired."""
        request = Context(
            called_directly=False,
            hostname=hostname,
            attempt=attempt,
            started_s=monotonic(),
            _redelivered=redelivered,
        )
        try:
            call = parse(message)
        except MalformedMessage:
            return fail(request, InvalidTaskError("the message cannot be parsed"), states.FAILURE)
        if call.HasField("task_limits"):
            request.task_limits = call.task_limits.soft, call.task_limits.hard
            call.ClearField("task_limits")  # so that it does not travel with a retry
        request.message = call
        request.id = call.id
        name = call.task
        try:
            args, kwargs, embed = envelope.decode_body(call, accepted, bytes_max, seal)
        except (SerializationError, SerializerNotInstalled, SecurityError, LimitExceeded) as exc:
            # Not run, and kept: it can be run yet by a worker that may read it.
            signals.task_rejected.send(hostname, message=call, exc=exc)
            return fail(request, exc, states.REJECTED)
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with a message is its result
            signals.task_rejected.send(hostname, message=call, exc=exc)
            return fail(request, exc, states.FAILURE)
        try:
            task = tasks[name]
        except NotRegistered as exc:
            signals.task_unknown.send(hostname, message=call, exc=exc, name=name, id=call.id)
            return fail(request, exc, states.FAILURE)
        try:
            own_class = plan_of(task).request_class
            if own_class is not None:
                request = own_class(request.__dict__)
                request.task = task
            if call.expires_ms and not is_over and wall_ms() >= call.expires_ms:
                signals.task_revoked.send(
                    task, request=request, terminated=False, signum=None, expired=True
                )
                return fail(request, TaskRevokedError("expired"), states.REVOKED)
            if call.takes_input:
                args.insert(0, _input_of(call, terms))
            elif call.HasField("failure"):
                args = _errback_args(task, call.failure, args, kwargs, embed, accepted, terms)
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with a message is its result
            return fail(request, exc, states.FAILURE)
        request.update(args=args, kwargs=kwargs, embed=embed, **embed)
        keeps = _is_heard(call) or call.store_errors_even_if_ignored
        return Begun(call, request, task, args, kwargs, encode if keeps else None)

    def limits_of(request: Context, call: Message, task: Task[..., Value]) -> Limits:
        """The call's limits, else the task's, else the worker's."""
        soft_s, hard_s = request.task_limits or (
            own_time_limit(task, "soft_time_limit"),
            own_time_limit(task, "time_limit"),
        )
        return (
            call.soft_time_limit or soft_s or limits[0] or None,
            call.time_limit or hard_s or limits[1] or None,
        )

    def steps(message: bytes, attempt: int, redelivered: bool, guard: Guard | None) -> Steps[Ran]:  # noqa: FBT001 - keywords cost
        found = begun(message, attempt, redelivered)
        if isinstance(found, Ran):
            return found
        call, request, task, args, kwargs, keep = found
        if signals.task_received:
            signals.task_received.send(hostname, request=request)
        limited = limits_of(request, call, task)
        if limited != _UNLIMITED:
            request.soft_time_limit, request.time_limit = limited
        ended = yield from _steps(
            plan_of(task),
            request,
            args,
            kwargs,
            keep,
            _is_heard(call),
            monotonic,
            guard,
            limited,
        )
        return told(found, ended)

    def told(begun: Begun, ended: Ended) -> Ran:
        """What the worker is to know of a run."""
        _, request, task, args, kwargs, _ = begun
        name = task.name
        value = ended.value
        state = ended.state
        ran = Ran(
            _OUTCOMES[state],
            ended.result,
            state == states.REJECTED and value.requeue,
            state,
            ended.runtime_s,
            value,
            ended.traceback,
            name,
            state == states.FAILURE and isinstance(value, tuple(task.throws)),
        )
        if state == states.FAILURE and isinstance(value, TimeLimitExceeded):
            ran.outcome = envelope.OUTCOME_TIMEOUT
        if request.added_members and state != states.RETRY:
            ran.added_members, ran.follow_ups = request.added_members, request.follow_ups
        if state != states.SUCCESS:
            # The broker is told no more than it may know.
            ran.detail = _line(value) if seal is None else type(value).__name__
            if isinstance(value, Replaced):
                ran.outcome = envelope.OUTCOME_REPLACED
                ran.message = value.message
                ran.follow_ups = (*ran.follow_ups, *value.follow_ups)
            elif state == states.FAILURE and begun.call.join_id and seal is None:
                # What waits for it may end in a ChordError, which quotes this as Celery's does.
                ran.detail = repr_of(value)[:_DETAIL_CHARS_MAX]
            if state == states.RETRY:
                try:
                    ran.message, ran.eta_ms = value.again or app.resend(
                        request, args, kwargs, _when(value, task)
                    )
                except Exception as exc:  # noqa: BLE001 - a Retry of the task's own making may say anything
                    return fail(request, exc, states.FAILURE)
        return ran

    def run(message: bytes, attempt: int, redelivered: bool) -> Ran:  # noqa: FBT001 - see Runner
        return _drive(steps(message, attempt, redelivered, guard))

    def run_natively(
        message: bytes,
        attempt: int,
        redelivered: bool,  # noqa: FBT001 - see Runner
    ) -> Coroutine[Value, Value, Ran]:
        return _drive_natively(steps(message, attempt, redelivered, None))

    def expire(message: bytes, attempt: int, redelivered: bool) -> Ran:  # noqa: FBT001 - see Runner
        found = begun(message, attempt, redelivered, is_over=True)
        if isinstance(found, Ran):
            return found
        limited = limits_of(found.request, found.call, found.task)
        found.request.soft_time_limit, found.request.time_limit = limited
        return told(found, _expire(found, limited[1] or 0.0))

    def tell_revoked(message: bytes, signum: str | None) -> None:
        found = begun(message, 0, False, is_over=True)  # noqa: FBT003 - redelivered
        if not isinstance(found, Ran):
            signals.task_revoked.send(
                found.task,
                request=found.request,
                terminated=signum is not None,
                signum=signum,
                expired=False,
            )

    def tell_lost(message: bytes, sentence: str) -> None:
        found = begun(message, 0, False, is_over=True)  # noqa: FBT003 - redelivered
        if not isinstance(found, Ran):
            _tell_lost(found, WorkerLostError(sentence))

    def is_async(name: str) -> bool:
        return name in tasks and plan_of(tasks[name]).is_async

    return Runner(run, run_natively, expire, is_async, tell_revoked, tell_lost)


def _tell_lost(begun: Begun, exc: WorkerLostError) -> None:
    """Have the app know of a run whose process died."""
    _, request, task, args, kwargs, _ = begun
    request.task = task
    einfo = ExceptionInfo(exc, failures.traceback_of(exc))
    signals.task_failure.send(
        task,
        task_id=request.id,
        exception=exc,
        args=args,
        kwargs=kwargs,
        traceback=exc.__traceback__,
        einfo=einfo,
    )
    if isinstance(request, Request):
        _handle(plan_of(task), request, request.on_failure, einfo)


def _expire(begun: Begun, limit_s: float) -> Ended:
    """The end of a run that its hard limit ended elsewhere: its failure handlers and signals run here."""
    _, request, task, args, kwargs, encode = begun
    plan = plan_of(task)
    exc = TimeLimitExceeded(plain_seconds(limit_s))
    text = failures.traceback_of(exc)
    request.task = task
    token = current_request.set(request)
    try:
        result = encode(request, states.FAILURE, exc, text) if encode is not None else b""
        _tell_failure(plan, request, args, kwargs, exc, text)
        if plan.after_return is not None:
            einfo = ExceptionInfo(exc, text)
            _handle(
                plan, request, plan.after_return,
                states.FAILURE, exc, request.id, args, kwargs, einfo,
            )  # fmt: skip
        if isinstance(request, Request):
            if request.soft_time_limit:
                _handle(plan, request, request.on_timeout, True, request.soft_time_limit)  # noqa: FBT003 - Celery's arguments
            _handle(plan, request, request.on_timeout, False, plain_seconds(limit_s))  # noqa: FBT003 - the same
            _handle(plan, request, request.on_failure, ExceptionInfo(exc, text))
        return Ended(states.FAILURE, exc, limit_s, text, result)
    finally:
        current_request.reset(token)


def _is_heard(message: Message) -> bool:
    """Whether anybody hears of its end: who asks for the result, what waits for it, its errbacks."""
    return bool(not message.ignore_result or message.join_id or message.errbacks)


def _input_of(message: Message, terms: envelope.Terms) -> Value:
    """The value that a task waited for."""
    values = [_value_of(one, terms) for one in message.inputs]
    return values if message.input_is_list else values[0]


def _value_of(found: Input, terms: envelope.Terms) -> Value:
    if found.is_list:
        return [_value_of(item, terms) for item in found.items]
    result = Result.FromString(found.result)
    if not result.body and terms.seal is None:
        return None
    return envelope.read(result, terms.accepted, terms.bytes_max, terms.seal)


# -- errbacks ------------------------------------------------------------------------------------


def takes_failure(
    task: Task[..., Value], args: Sequence[Value], kwargs: Mapping[str, Value], *, immutable: bool
) -> bool:
    """Whether an errback is called with (request, exception, traceback), not with the failed task's id.

    As in Celery: where it takes more than one argument beside those it has, and is no bound task.
    """
    run: Callable[..., Value] = task.run
    if isinstance(run, types.MethodType):
        return False
    if not immutable and (args or kwargs):
        try:
            spec = inspect.getfullargspec(functools.partial(run, *args, **kwargs))
        except (TypeError, ValueError):
            spec = inspect.getfullargspec(run)
    else:
        spec = inspect.getfullargspec(run)
    return bool(spec.varargs) or len(spec.args) > 1


def _errback_args(
    task: Task[..., Value],
    failure: Failure,
    args: list[Value],
    kwargs: Mapping[str, Value],
    embed: Mapping[str, Value],
    accepted: frozenset[str],
    terms: envelope.Terms,
) -> list[Value]:
    """What an errback is called with."""
    immutable = bool(embed.get("immutable"))
    if immutable:
        return args
    if not takes_failure(task, args, kwargs, immutable=immutable):
        return [failure.id, *args]
    failed = Message.FromString(failure.message)
    request = Context(called_directly=False, message=failed, id=failure.id)
    failed_args, failed_kwargs, failed_embed = envelope.decode_body(
        failed, accepted, terms.bytes_max, terms.seal
    )
    request.update(
        args=failed_args, kwargs=failed_kwargs, embed=failed_embed, task=failed.task, **failed_embed
    )
    stored = envelope.decode_result(
        failure.state,
        failure.result,
        is_final=True,
        end_reason=failure.end_reason,
        detail=failure.detail,
        accepted=terms.accepted,
        bytes_max=terms.bytes_max,
        seal=terms.seal,
    )
    return [request, stored.result, stored.traceback, *args]


def call_errbacks(
    errbacks: Sequence[Value],
    request: Context,
    exc: BaseException,
    text: str | None,
    app: Value = None,
) -> None:
    """Call errbacks right here, as a worker would. What they raise is an error of their own."""
    for errback in errbacks:
        sig = maybe_signature(errback)
        if sig._app is None:  # noqa: SLF001 - one that was serialized is of the app that calls it
            sig = maybe_signature(sig, app, clone=True)
        is_plain = sig.get("subtask_type") is None and sig._known_task() is not None  # noqa: SLF001 - a signature's own
        try:
            if is_plain and takes_failure(
                sig.type, sig.args, sig.kwargs, immutable=bool(sig.immutable)
            ):
                sig(request, exc, text)
            else:
                apply_or_send(sig, (request.id,), None, {})
        except Exception:  # noqa: BLE001 - see above
            _log.exception("Errback %r raised an exception", sig.task)


def _when(retry: Retry, task: Task[..., Value]) -> Mapping[str, Value]:
    """When a Retry that was raised without `Task.retry` is due, as an option."""
    when = task.default_retry_delay if retry.when is None else retry.when
    return {"countdown" if isinstance(when, int | float) else "eta": when}


# -- what the worker logs ------------------------------------------------------------------------

_repr = Repr()
_repr.maxlevel = 3
_repr.maxstring = _repr.maxother = _repr.maxlong = 1024
_repr.maxlist = _repr.maxtuple = _repr.maxdict = _repr.maxset = _repr.maxfrozenset = 64


def short_repr(value: Value, chars_max: int = 1024) -> str:
    """A representation that stays short whatever the value is."""
    try:
        text = clean(_repr.repr(value))
    except BaseException:  # noqa: BLE001 - also SystemExit: a log line must not end the process
        text = repr_of(value)  # which says that it cannot be printed
    return text if len(text) <= chars_max else f"{text[: chars_max - 3]}..."


def log_line(ran: Ran, task_id: str) -> tuple[int, str]:
    """The level and text of the line that tells how a task went, in Celery's words."""
    fields = {
        "name": names.escaped(ran.task),
        "id": names.escaped(task_id),
        "runtime": f"{ran.runtime_s:.6f}",
        "return_value": "",
        "description": "",
        "exc": "",
    }
    match ran.state:
        case states.SUCCESS:
            fields["return_value"] = names.escaped(short_repr(ran.retval_or_exc))
            return logging.INFO, LOG_SUCCESS % fields
        case states.IGNORED:
            fields["description"] = "ignored"
            return logging.INFO, LOG_IGNORED % fields
        case states.RETRY:
            fields["exc"] = names.escaped(text_of(ran.retval_or_exc, 1024))
            return logging.INFO, LOG_RETRY % fields
        case states.REJECTED:
            fields["exc"] = names.escaped(repr_of(ran.retval_or_exc, 1024))
            return logging.WARNING, LOG_REJECTED % fields
        case states.REVOKED:
            return logging.INFO, LOG_REVOKED % fields
        case _ if ran.outcome == envelope.OUTCOME_TIMEOUT:
            fields["limit"] = text_of(ran.retval_or_exc.args[0])
            return logging.ERROR, LOG_TIME_LIMIT % fields
        case _:
            fields["exc"] = names.escaped(short_repr(ran.retval_or_exc))
            if ran.is_expected:
                fields["description"] = "raised expected"
                return logging.INFO, LOG_FAILURE % fields
            fields["description"] = "raised unexpected"
            line = LOG_FAILURE % fields
            return logging.ERROR, f"{line}\n{ran.traceback}" if ran.traceback else line
