"""What a task returned, or will: wait for it, look at it, forget it.

An AsyncResult is an id and a place to ask. It holds nothing the broker does not know, so it can be
made from an id anywhere, pickled, and compared with the id as text.
"""

import contextlib
import datetime as dt
import queue
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from qbroker import _state, clock, envelope, states
from qbroker.envelope import Stored
from qbroker.exceptions import OperationalError, TaskRevokedError, TimeoutError as ResultTimeout
from qbroker.request import current_request, joins_allowed
from qbroker.serialization import Value

if TYPE_CHECKING:
    from qbroker.client import Client
    from qbroker_proto.v1.results_pb2 import TaskState

__all__ = [
    "AsyncResult",
    "Backend",
    "DisabledBackend",
    "EagerResult",
    "Explanation",
    "ResultBase",
    "allow_join_result",
    "assert_will_not_block",
    "denied_join_result",
]

R_co = TypeVar("R_co", covariant=True)

E_WOULDBLOCK = """\
Never call result.get() within a task!
A task that waits for another holds a worker's slot and does nothing with it; when all slots wait, nothing
moves any more. Let the broker call the second task with the first one's result instead, or, where
you are sure, wait inside `with allow_join_result():`.
"""


def assert_will_not_block() -> None:
    """Refuse to wait inside a task."""
    if current_request.get() is not None and not joins_allowed.get():
        raise RuntimeError(E_WOULDBLOCK)


@contextlib.contextmanager
def allow_join_result() -> Iterator[None]:
    """Let a task wait for others inside this block."""
    token = joins_allowed.set(True)
    try:
        yield
    finally:
        joins_allowed.reset(token)


@contextlib.contextmanager
def denied_join_result() -> Iterator[None]:
    """Refuse it again."""
    token = joins_allowed.set(False)
    try:
        yield
    finally:
        joins_allowed.reset(token)


# -- where results are ---------------------------------------------------------------------------


class Backend(ABC):
    """Where results are kept."""

    @abstractmethod
    def read(self, task_id: str) -> Stored:
        """What is known now."""

    @abstractmethod
    def wait(
        self,
        task_id: str,
        timeout_s: float | None,
        on_state: Callable[[Stored], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        interval_s: float = 0.5,
    ) -> Stored:
        """What is known at the end; raises the SDK's TimeoutError when it does not come in time."""

    @abstractmethod
    async def await_(self, task_id: str, timeout_s: float | None) -> Stored:
        """Do the same without blocking the event loop."""

    @abstractmethod
    def forget(self, task_id: str) -> None:
        """Drop what is kept."""


class DisabledBackend(Backend):
    """Stands where no backend is configured."""

    def _refuse(self) -> NotImplementedError:
        return NotImplementedError(
            "No result backend is configured.\n"
            "Results are kept when the app says so: App(…, backend='qbroker://'), or the setting "
            "result_backend."
        )

    def read(self, task_id: str) -> Stored:
        raise self._refuse()

    def wait(
        self,
        task_id: str,
        timeout_s: float | None,
        on_state: Callable[[Stored], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        interval_s: float = 0.5,
    ) -> Stored:
        raise self._refuse()

    async def await_(self, task_id: str, timeout_s: float | None) -> Stored:
        raise self._refuse()

    def forget(self, task_id: str) -> None:
        raise self._refuse()


class BrokerBackend(Backend):
    """Results are where the messages are; the broker tells of changes, nobody polls."""

    def __init__(
        self,
        client: "Callable[[], Client]",
        reading: Callable[[], tuple[frozenset[str], int]],
        monotonic: Callable[[], float] = clock.monotonic,
    ) -> None:
        self._client = client
        # What may be read: which content types, and how many bytes once unpacked.
        self._reading = reading
        self._monotonic = monotonic

    def _stored(self, answer: "TaskState | OperationalError") -> Stored:
        if isinstance(answer, OperationalError):
            raise answer
        accepted, bytes_max = self._reading()
        return envelope.decode_result(
            answer.state,
            answer.result,
            stage=answer.stage,
            is_final=answer.is_final,
            end_reason=answer.end_reason,
            detail=answer.detail,
            accepted=accepted,
            bytes_max=bytes_max,
        )

    def read(self, task_id: str) -> Stored:
        return self._stored(self._client().read(task_id))

    def wait(
        self,
        task_id: str,
        timeout_s: float | None,
        on_state: Callable[[Stored], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        interval_s: float = 0.5,
    ) -> Stored:
        answers: queue.SimpleQueue[TaskState | OperationalError] = queue.SimpleQueue()
        client = self._client()
        subscription = client.watch(task_id, answers.put)
        deadline = None if timeout_s is None else self._monotonic() + timeout_s
        try:
            while True:
                left = None if deadline is None else max(deadline - self._monotonic(), 0)
                if on_interval is not None:
                    left = interval_s if left is None else min(left, interval_s)
                try:
                    answer = answers.get(timeout=left)
                except queue.Empty:
                    if deadline is not None and self._monotonic() >= deadline:
                        raise ResultTimeout("The operation timed out.") from None
                    if on_interval is not None:
                        on_interval()
                    continue
                stored = self._stored(answer)
                if on_state is not None:
                    on_state(stored)
                if stored.is_final:
                    return stored
        finally:
            client.unwatch(subscription)

    async def await_(self, task_id: str, timeout_s: float | None) -> Stored:
        import asyncio  # noqa: PLC0415 - a third of the import time; who awaits has it loaded

        answers: asyncio.Queue[TaskState | OperationalError] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        client = self._client()
        subscription = client.watch(
            task_id, lambda answer: loop.call_soon_threadsafe(answers.put_nowait, answer)
        )
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    stored = self._stored(await answers.get())
                    if stored.is_final:
                        return stored
        except TimeoutError:
            raise ResultTimeout("The operation timed out.") from None
        finally:
            client.unwatch(subscription)

    def forget(self, task_id: str) -> None:
        self._client().forget([task_id])


# -- results -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a task is, and in a sentence why; as text, the sentence."""

    stage: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


class ResultBase:
    """What all results are."""

    parent: "ResultBase | None" = None


class AsyncResult(ResultBase, Generic[R_co]):
    """The result of one call of a task, wherever it runs."""

    TimeoutError = ResultTimeout

    def __init__(
        self,
        id: str,  # noqa: A002 - Celery's name
        backend: Backend | None = None,
        task_name: str | None = None,
        app: Value = None,
        parent: ResultBase | None = None,
    ) -> None:
        if not id:
            raise ValueError(f"AsyncResult requires a valid id, not {id!r}")
        self.id = id
        self._app = app
        self._backend = backend
        self._task_name = task_name
        self.parent = parent
        self.ignored = False
        self._ended: Stored | None = None

    @property
    def app(self) -> Value:
        """The app that is asked."""
        return self._app if self._app is not None else _state.get_current_app()

    @property
    def backend(self) -> Backend:
        """Where the result is."""
        if self._backend is None:
            found: Backend = self.app.backend
            self._backend = found
        return self._backend

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self.id

    def _read(self) -> Stored:
        if self._ended is not None:
            return self._ended
        stored = self.backend.read(self.id)
        if stored.is_final and stored.state in states.READY_STATES:
            self._ended = stored
        return stored

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        interval: float = 0.5,
        no_ack: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        follow_parents: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        callback: Callable[[str, Value], object] | None = None,
        on_message: Callable[[dict[str, Value]], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        disable_sync_subtasks: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
    ) -> R_co:
        """Wait for the task and answer what it returned, or raise what it raised.

        Raises the SDK's TimeoutError after `timeout` seconds; 0 looks once. With `propagate` False the
        exception is returned. `on_message` is given the state's meta at every change, `on_interval`
        is called every `interval` seconds, `callback` with id and value at the end.
        """
        if self.ignored:
            return None  # type: ignore[return-value] # nothing is kept, as the caller asked
        if disable_sync_subtasks:
            assert_will_not_block()
        if self._ended is None:
            if propagate and follow_parents:
                self._raise_of_parents()
            self._ended = self.backend.wait(
                self.id,
                timeout,
                None if on_message is None else lambda stored: on_message(self._meta(stored)),
                on_interval,
                interval,
            )
        return self._outcome(self._ended, callback, propagate=propagate)

    wait = get

    async def aget(self, timeout: float | None = None, *, propagate: bool = True) -> R_co:  # noqa: ASYNC109 - as `get`
        """Do the same without blocking the event loop."""
        if self.ignored:
            return None  # type: ignore[return-value] # nothing is kept, as the caller asked
        if self._ended is None:
            self._ended = await self.backend.await_(self.id, timeout)
        return self._outcome(self._ended, None, propagate=propagate)

    def __await__(self) -> Generator[Value, None, R_co]:
        return self.aget().__await__()

    def _raise_of_parents(self) -> None:
        node = self.parent
        while node is not None:
            if isinstance(node, AsyncResult):
                node.get(disable_sync_subtasks=False, follow_parents=False)
            node = node.parent

    def _outcome(
        self, stored: Stored, callback: Callable[[str, Value], object] | None, *, propagate: bool
    ) -> R_co:
        if propagate and stored.state in states.PROPAGATE_STATES:
            exc = stored.result
            if not isinstance(exc, BaseException):
                exc = RuntimeError(
                    f"task {self.id} is {stored.state} without an exception: {exc!r}"
                )
            raise exc
        if callback is not None:
            callback(self.id, stored.result)
        value: R_co = stored.result
        return value

    def maybe_throw(
        self,
        propagate: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        callback: Callable[[str, Value], object] | None = None,
    ) -> R_co:
        """Raise what the task raised, if it did; answer what is known of the result."""
        return self._outcome(self._read(), callback, propagate=propagate)

    maybe_reraise = maybe_throw

    def forget(self) -> None:
        """Drop what is kept of the task."""
        self._ended = None
        self.backend.forget(self.id)

    def revoke(
        self,
        connection: Value = None,
        terminate: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        signal: str | None = None,
        wait: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        timeout: float | None = None,
    ) -> None:
        """Have the task not run; with `terminate`, end it also when it runs, by `signal` (SIGTERM).

        The broker writes it down and answers; so nothing is left to `wait` for, and no worker has to be up.
        """
        self.app.control.revoke(self.id, terminate=terminate, signal=signal or "SIGTERM")

    def revoke_by_stamped_headers(
        self,
        headers: Value,
        connection: Value = None,
        terminate: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        signal: str | None = None,
        wait: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        timeout: float | None = None,
    ) -> None:
        """Have all tasks not run that have any of these stamps, this one or not."""
        self.app.control.revoke_by_stamped_headers(
            headers, terminate=terminate, signal=signal or "SIGTERM"
        )

    def explain(self) -> Explanation:
        """Where the task is and why, in a sentence: paused, limited, due at …, N ahead of it."""
        found: Explanation = self.app.control.explain(self.id)
        return found

    @property
    def stage(self) -> str:
        """Where the broker has it: unknown, scheduled, queued, leased, started, done or dead."""
        return self._read().stage

    @property
    def state(self) -> str:
        """PENDING, STARTED, SUCCESS, FAILURE, …; PENDING also when nobody knows the id."""
        return self._read().state

    status = state

    @property
    def result(self) -> Value:
        """What was returned or raised; while the task runs, its state's meta."""
        return self._read().result

    info = result

    @property
    def traceback(self) -> str | None:
        """Where the task failed, as text."""
        return self._read().traceback

    @property
    def children(self) -> "list[AsyncResult[Value]] | None":
        """Results of the tasks this one called; None while it has not ended."""
        stored = self._read()
        if not stored.is_kept:
            return None
        return [type(self)(child, app=self._app) for child in stored.children]

    def ready(self) -> bool:
        """Whether it has ended."""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        """Whether it returned."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Whether it raised."""
        return self.state == states.FAILURE

    @property
    def name(self) -> str | None:
        """The task's name."""
        return self._read().name or self._task_name

    @property
    def worker(self) -> str | None:
        """The name of the worker that ran it."""
        return self._read().worker

    @property
    def retries(self) -> int | None:
        """How often it was tried again."""
        return self._read().retries

    @property
    def queue(self) -> str | None:
        """Where it waited."""
        return self._read().queue

    @property
    def date_done(self) -> dt.datetime | None:
        """When it ended, in UTC."""
        return _when(self._read())

    def _meta(self, stored: Stored) -> dict[str, Value]:
        return {
            "task_id": self.id,
            "status": stored.state,
            "result": stored.result,
            "traceback": stored.traceback,
            "children": [(child, None) for child in stored.children],
            "date_done": _when(stored),
        }

    def as_tuple(self) -> tuple[tuple[str, Value], None]:
        """The result as data."""
        parent = self.parent
        return (self.id, parent.as_tuple() if isinstance(parent, AsyncResult) else None), None

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return bool(other.id == self.id)
        if isinstance(other, str):
            return other == self.id
        return NotImplemented

    def __copy__(self) -> "AsyncResult[R_co]":
        return type(self)(self.id, self._backend, self._task_name, self._app, self.parent)

    def __reduce__(self) -> tuple[Value, ...]:
        return type(self), (self.id, None, self._task_name, None, self.parent)


def _when(stored: Stored) -> dt.datetime | None:
    if stored.done_ms is None:
        return None
    return dt.datetime.fromtimestamp(stored.done_ms / 1000, dt.UTC)


class EagerResult(AsyncResult[R_co]):
    """The result of a task that ran right here."""

    def __init__(
        self,
        id: str,  # noqa: A002 - Celery's name
        ret_value: Value,
        state: str,
        traceback: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(id, backend=DisabledBackend(), task_name=name)
        self._ended = Stored(
            state=state,
            stage="done",
            result=ret_value,
            traceback=traceback,
            is_final=True,
            name=name,
        )

    def forget(self) -> None:
        """Nothing is kept anywhere."""

    def revoke(self, *args: Value, **kwargs: Value) -> None:
        """Say that it was revoked. It has run all the same."""
        self._ended = Stored(
            state=states.REVOKED,
            stage="done",
            result=TaskRevokedError("revoked"),
            is_final=True,
            name=self._task_name,
        )

    def explain(self) -> Explanation:
        """It has ended, here."""
        return Explanation("done", f"It ran in the process that called it: {self.state}.")

    def __reduce__(self) -> tuple[Value, ...]:
        ended = self._ended
        assert ended is not None, "an eager result has always ended"
        return type(self), (self.id, ended.result, ended.state, ended.traceback, ended.name)

    def __repr__(self) -> str:
        return f"<EagerResult: {self.id}>"
