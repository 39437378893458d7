"""What a task returned, or will: wait for it, look at it, forget it.

An AsyncResult is an id and a place to ask. It holds nothing the broker does not know, so it can be
made from an id anywhere, pickled, and compared with the id as text. A GroupResult is several of them. What is
waited for or looked at together is asked for together: one request, whose answers come as they come.

The result of what follows something else knows that as its `parent`; so the result of a chain is that of its last
task, and from there one gets to the first.
"""

import contextlib
import datetime as dt
import logging
import queue
import threading
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from qbroker import _state, clock, envelope, states
from qbroker.envelope import Stored
from qbroker.exceptions import (
    Conflict,
    EncodeError,
    ImproperlyConfigured,
    IncompleteStream,
    OperationalError,
    TaskRevokedError,
    TimeoutError as ResultTimeout,
)
from qbroker.request import current_request, joins_allowed
from qbroker.serialization import Value
from qbroker.utils.graph import DependencyGraph

if TYPE_CHECKING:
    from qbroker.client import Client
    from qbroker_proto.v1.results_pb2 import TaskState

__all__ = [
    "AsyncResult",
    "Backend",
    "BaseAsyncResult",
    "DisabledBackend",
    "EagerResult",
    "Explanation",
    "GroupResult",
    "ResultBase",
    "ResultSet",
    "TaskSetResult",
    "allow_join_result",
    "assert_will_not_block",
    "child_of",
    "denied_join_result",
    "result_from_tuple",
]

_log = logging.getLogger(__name__)

R_co = TypeVar("R_co", covariant=True)

E_WOULDBLOCK = """\
Never call result.get() within a task!
A task that waits for another holds a worker's slot and does nothing with it; when all slots wait, nothing
moves any more. Let the broker call the second task with the first one's result instead, or, where
you are sure, wait inside `with allow_join_result():`.
"""


def assert_will_not_block() -> None:
    """Refuse to wait inside a task that a worker runs."""
    allowed = joins_allowed.get()
    if allowed is None:
        allowed = not _is_in_worker()
    if not allowed:
        raise RuntimeError(E_WOULDBLOCK)


def _is_in_worker() -> bool:
    """Whether a worker's slot is held here; one that runs eagerly or like a function holds none itself."""
    request = current_request.get()
    while request is not None:
        if not request.is_eager and not request.called_directly:
            return True
        request = request.outer
    return False


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
    def read_many(self, task_ids: Iterable[str]) -> dict[str, Stored]:
        """What is known of many now."""

    @abstractmethod
    def wait_many(
        self,
        task_ids: Iterable[str],
        timeout_s: float | None,
        on_interval: Callable[[], object] | None = None,
        interval_s: float = 0.5,
    ) -> Iterator[tuple[str, Stored]]:
        """What is known at the end of each, as they end; raises the SDK's TimeoutError so, too."""

    @abstractmethod
    async def await_many(
        self, task_ids: Iterable[str], timeout_s: float | None
    ) -> dict[str, Stored]:
        """Do the same without blocking the event loop, for all of them."""

    @abstractmethod
    def tell(self, task_id: str, callback: Callable[[Stored], object]) -> None:
        """Call `callback` with what is known at the end, on a thread for such calls."""

    @abstractmethod
    def store_result(
        self,
        task_id: str,
        result: Value,
        state: str,
        traceback: str | None = None,
        request: Value = None,
    ) -> None:
        """Say which state a task is in, and what goes with it; those that wait are told.

        Of an id that no worker runs, the state is kept, as of a task that ran eagerly. How a task has ended
        stays.
        """

    @abstractmethod
    def forget(self, task_id: str) -> None:
        """Drop what is kept."""

    @abstractmethod
    def forget_many(self, task_ids: Sequence[str]) -> None:
        """Drop what is kept of many."""

    @abstractmethod
    def save_group(self, group_id: str, result: "GroupResult") -> None:
        """Keep which results are a group's."""

    @abstractmethod
    def restore_group(self, group_id: str) -> "GroupResult | None":
        """The group that was kept under the id, or None."""

    @abstractmethod
    def delete_group(self, group_id: str) -> None:
        """Keep it no more."""

    # What programs ask for by id that were written for Celery.

    def get_state(self, task_id: str) -> str:
        """Which state the task is in; PENDING also when nobody knows the id."""
        return self.read(task_id).state

    get_status = get_state

    def get_result(self, task_id: str) -> Value:
        """What was returned or raised; while the task runs, its state's meta."""
        return self.read(task_id).result

    def get_traceback(self, task_id: str) -> str | None:
        """Where the task failed, as text."""
        return self.read(task_id).traceback

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Value]:  # noqa: FBT001, FBT002 - Celery's signature
        """All that is known, as Celery's backends say it."""
        return _meta(task_id, self.read(task_id))

    def mark_as_started(self, task_id: str, **meta: Value) -> None:
        """Say that the task runs."""
        self.store_result(task_id, meta, states.STARTED)

    def mark_as_done(
        self,
        task_id: str,
        result: Value,
        request: Value = None,
        store_result: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        state: str = states.SUCCESS,
    ) -> None:
        """Keep what a task returned that no worker ran."""
        if store_result:
            self.store_result(task_id, result, state, request=request)

    def mark_as_failure(
        self,
        task_id: str,
        exc: BaseException,
        traceback: str | None = None,
        request: Value = None,
        store_result: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        call_errbacks: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        state: str = states.FAILURE,
    ) -> None:
        """Keep what such a task raised. Errbacks are called where a task fails, not where that is told."""
        del call_errbacks
        if store_result:
            self.store_result(task_id, exc, state, traceback, request)

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: Value = None,
        store_result: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        state: str = states.REVOKED,
    ) -> None:
        """Say that nobody will do it."""
        if store_result:
            self.store_result(task_id, TaskRevokedError(reason), state, request=request)

    def mark_as_retry(
        self,
        task_id: str,
        exc: BaseException,
        traceback: str | None = None,
        request: Value = None,
        store_result: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        state: str = states.RETRY,
    ) -> None:
        """Say why it is tried again."""
        if store_result:
            self.store_result(task_id, exc, state, traceback, request)

    def ensure_chords_allowed(self) -> None:  # noqa: B027 - nothing stands against them
        """Raise where chords cannot be: nowhere, for the broker joins them, results or not."""


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

    def read_many(self, task_ids: Iterable[str]) -> dict[str, Stored]:
        raise self._refuse()

    def wait_many(
        self,
        task_ids: Iterable[str],
        timeout_s: float | None,
        on_interval: Callable[[], object] | None = None,
        interval_s: float = 0.5,
    ) -> Iterator[tuple[str, Stored]]:
        raise self._refuse()

    async def await_many(
        self, task_ids: Iterable[str], timeout_s: float | None
    ) -> dict[str, Stored]:
        raise self._refuse()

    def tell(self, task_id: str, callback: Callable[[Stored], object]) -> None:
        raise self._refuse()

    def store_result(
        self,
        task_id: str,
        result: Value,
        state: str,
        traceback: str | None = None,
        request: Value = None,
    ) -> None:
        """Nobody asks for it."""

    def forget(self, task_id: str) -> None:
        raise self._refuse()

    def forget_many(self, task_ids: Sequence[str]) -> None:
        raise self._refuse()

    def save_group(self, group_id: str, result: "GroupResult") -> None:
        raise self._refuse()

    def restore_group(self, group_id: str) -> "GroupResult | None":
        raise self._refuse()

    def delete_group(self, group_id: str) -> None:
        raise self._refuse()


class _Teller:
    """Calls what wants to be told of an end, on a thread of its own, one after the other."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, call: Callable[[], object]) -> None:
        """Have it called."""
        self._calls.put(call)
        with self._lock:
            # In a forked child the parent's thread is not alive.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="qbroker result callbacks", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                self._calls.get()()
            except Exception:  # noqa: BLE001 - a callback is not ours, and others wait behind it
                _log.exception("a callback of a result raised")


_SAVED = "celery-taskset-meta-"
"""What the id begins with under which a group is kept, as in Celery."""
_FOR_EVER_S = 10 * 365 * 86_400
_LAST_LOOK_S = 0.25
"""How much longer than its time-out a wait may take: for a last look at the results, and to ask why they are missing."""


class _Overdue(NamedTuple):
    """What is known when the time for waiting is over."""

    ended: dict[str, Stored]
    error: ResultTimeout | None
    """What to raise, unless all have ended."""


class BrokerBackend(Backend):
    """Results are where the messages are; the broker tells of changes, nobody polls."""

    def __init__(
        self,
        client: "Callable[[], Client]",
        terms: Callable[[], envelope.Terms],
        kept_s: Callable[[], float | None] = lambda: None,
        write: Callable[[Value], dict[str, Value]] = lambda value: envelope.write(value, "json"),
        is_fed: Callable[[], bool] = lambda: True,
        monotonic: Callable[[], float] = clock.monotonic,
    ) -> None:
        self._client = client
        self._kept_s = kept_s
        self._write = write
        self._is_fed = is_fed
        self._terms = terms
        self._monotonic = monotonic
        self._teller = _Teller()

    def _stored(self, answer: "TaskState | OperationalError") -> Stored:
        if isinstance(answer, OperationalError):
            raise answer
        terms = self._terms()
        return envelope.decode_result(
            answer.state,
            answer.result,
            stage=answer.stage,
            is_final=answer.is_final,
            end_reason=answer.end_reason,
            detail=answer.detail,
            accepted=terms.accepted,
            bytes_max=terms.bytes_max,
            seal=terms.seal,
        )

    def _asked(self) -> "Client":
        if not self._is_fed():
            warnings.warn(
                "Tasks run where they are called (task_always_eager) and leave no results to ask for, "
                "unless task_store_eager_result is set.",
                RuntimeWarning,
                stacklevel=4,
            )
        return self._client()

    def read(self, task_id: str) -> Stored:
        return self._stored(self._asked().read(task_id))

    def store_result(
        self,
        task_id: str,
        result: Value,
        state: str,
        traceback: str | None = None,
        request: Value = None,
    ) -> None:
        is_own = request is not None and request.id == task_id
        is_over = state in states.READY_STATES
        # An attempt of a worker; a request that a program has made, or an eager one, has no message.
        attempt = request.attempt if is_own else 0
        if not (is_own and request.is_eager):
            # A run that says this of itself is heard only as long as it is the newest.
            terms = self._terms()
            try:
                encoded = envelope.encode_state(
                    state, result, traceback, clock.wall_ms(), terms, request
                )
            except EncodeError as exc:
                what, parts = f"state {state!r} of {task_id!r}", {"the meta": result}
                raise envelope.explained(exc, what, parts, terms.serializer) from exc
            is_told = self._client().tell(task_id, state, encoded, attempt)
            if is_told or (not is_over and attempt):
                return
        # What has ended, or is in another attempt, has a result of its own.
        with contextlib.suppress(Conflict):
            self._keep(task_id, result, state, traceback, request)

    def _keep(
        self, task_id: str, result: Value, state: str, traceback: str | None, request: Value
    ) -> None:
        """Keep how a task ended that came by no message."""
        terms = self._terms()
        if isinstance(result, BaseException):
            # Exceptions cross as data, which everybody may read, however results are written.
            told = envelope.encode_exception(result)
            if terms.seal is not None:
                told, traceback = envelope.with_traceback(told, traceback or ""), None
            fields = envelope.write(told, terms.serializer)
        else:
            fields = self._write(result)
        children = getattr(request, "children", None) or ()
        encoded = envelope.encode_ended(
            state, fields, traceback, clock.wall_ms(), terms, request, map(child_of, children)
        )
        self._client().keep(task_id, encoded, self._kept_ms(), state)

    def _kept_ms(self) -> int:
        # 0 would be what the broker keeps results for; what is kept for ever here has a date all the same.
        return int((self._kept_s() or _FOR_EVER_S) * 1000)

    def read_many(self, task_ids: Iterable[str]) -> dict[str, Stored]:
        found = self._asked().read_many(task_ids)
        return {task_id: self._stored(state) for task_id, state in found.items()}

    def wait_many(
        self,
        task_ids: Iterable[str],
        timeout_s: float | None,
        on_interval: Callable[[], object] | None = None,
        interval_s: float = 0.5,
    ) -> Iterator[tuple[str, Stored]]:
        answers: queue.SimpleQueue[TaskState | OperationalError] = queue.SimpleQueue()
        client = self._asked()
        left_ids = set(task_ids)
        task_count = len(left_ids)
        subscriptions = client.watch_ends(left_ids, answers.put, is_waited_for=True)
        deadline = None if timeout_s is None else self._monotonic() + timeout_s
        try:
            while left_ids:
                left = None if deadline is None else max(deadline - self._monotonic(), 0)
                if on_interval is not None:
                    left = interval_s if left is None else min(left, interval_s)
                try:
                    answer = client.next_answer(answers, left)
                except queue.Empty:
                    if deadline is not None and self._monotonic() >= deadline:
                        overdue = self._overdue(client, left_ids, timeout_s, task_count)
                        for task_id, stored in overdue.ended.items():
                            left_ids.discard(task_id)
                            yield task_id, stored
                        if overdue.error is not None:
                            raise overdue.error from None
                        return
                    if on_interval is not None:
                        on_interval()
                    continue
                stored = self._stored(answer)
                if stored.is_final and not isinstance(answer, OperationalError):
                    left_ids.discard(answer.id)
                    yield answer.id, stored
        finally:
            if left_ids:
                for subscription in subscriptions:
                    client.unwatch(subscription)

    async def await_many(
        self, task_ids: Iterable[str], timeout_s: float | None
    ) -> dict[str, Stored]:
        import asyncio  # noqa: PLC0415 - as below

        answers: asyncio.Queue[TaskState | OperationalError] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        client = self._asked()
        left_ids = set(task_ids)
        task_count = len(left_ids)
        found: dict[str, Stored] = {}
        subscriptions = client.watch_ends(
            left_ids, lambda answer: loop.call_soon_threadsafe(answers.put_nowait, answer)
        )
        try:
            async with asyncio.timeout(timeout_s):
                while left_ids:
                    answer = await answers.get()
                    stored = self._stored(answer)
                    if stored.is_final and not isinstance(answer, OperationalError):
                        left_ids.discard(answer.id)
                        found[answer.id] = stored
        except TimeoutError:
            overdue = await loop.run_in_executor(
                None, self._overdue, client, left_ids, timeout_s, task_count
            )
            if overdue.error is not None:
                raise overdue.error from None
            found |= overdue.ended
        finally:
            if left_ids:
                for subscription in subscriptions:
                    client.unwatch(subscription)
        return found

    def tell(self, task_id: str, callback: Callable[[Stored], object]) -> None:
        def hear(answer: "TaskState | OperationalError") -> None:
            if isinstance(answer, OperationalError) or answer.is_final:
                self._teller(lambda: callback(self._stored(answer)))

        self._asked().watch_ends((task_id,), hear)

    def wait(
        self,
        task_id: str,
        timeout_s: float | None,
        on_state: Callable[[Stored], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        interval_s: float = 0.5,
    ) -> Stored:
        answers: queue.SimpleQueue[TaskState | OperationalError] = queue.SimpleQueue()
        client = self._asked()
        subscription = client.watch(task_id, answers.put, is_waited_for=True)
        deadline = None if timeout_s is None else self._monotonic() + timeout_s
        told: tuple[Value, ...] = ()
        try:
            while True:
                left = None if deadline is None else max(deadline - self._monotonic(), 0)
                if on_interval is not None:
                    left = interval_s if left is None else min(left, interval_s)
                try:
                    answer = client.next_answer(answers, left)
                except queue.Empty:
                    if deadline is not None and self._monotonic() >= deadline:
                        overdue = self._overdue(client, [task_id], timeout_s, 1)
                        if overdue.error is not None:
                            raise overdue.error from None
                        return overdue.ended[task_id]
                    if on_interval is not None:
                        on_interval()
                    continue
                stored = self._stored(answer)
                # Who reads the state meanwhile, in `on_state` maybe, has the broker say it once more.
                told, before = (stored.state, stored.result, stored.is_final), told
                if on_state is not None and told != before:
                    on_state(stored)
                if stored.is_final:
                    return stored
        finally:
            client.unwatch(subscription)

    def _overdue(
        self, client: "Client", task_ids: Iterable[str], timeout_s: float | None, task_count: int
    ) -> _Overdue:
        """What the tasks have come to by now, however short the time was, and why the others have not ended.

        `task_count` is how many were waited for at first.
        """
        until_s = self._monotonic() + _LAST_LOOK_S
        left_ids = [*task_ids]
        ended: dict[str, Stored] = {}
        try:
            for task_id, answer in client.read_many(left_ids, _LAST_LOOK_S).items():
                if answer.is_final:
                    ended[task_id] = self._stored(answer)
            left_ids = [task_id for task_id in left_ids if task_id not in ended]
            if not left_ids:
                return _Overdue(ended, None)
            left_s = max(until_s - self._monotonic(), 0.001)
            why = client.explain(left_ids[0], left_s).sentence
        except OperationalError as exc:
            why = str(exc)
        why = why[:1].lower() + why[1:].removesuffix(".")
        if task_count > 1:
            why = f"{len(left_ids)} of {task_count} tasks have not ended; task {left_ids[0]}: {why}"
        return _Overdue(ended, ResultTimeout(f"timed out after {timeout_s:g} s: {why}"))

    async def await_(self, task_id: str, timeout_s: float | None) -> Stored:
        import asyncio  # noqa: PLC0415 - a third of the import time; who awaits has it loaded

        answers: asyncio.Queue[TaskState | OperationalError] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        client = self._asked()
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
            overdue = await loop.run_in_executor(
                None, self._overdue, client, [task_id], timeout_s, 1
            )
            if overdue.error is not None:
                raise overdue.error from None
            return overdue.ended[task_id]
        finally:
            client.unwatch(subscription)

    def forget(self, task_id: str) -> None:
        self._client().forget([task_id])

    def forget_many(self, task_ids: Sequence[str]) -> None:
        self._client().forget(task_ids)

    def save_group(self, group_id: str, result: "GroupResult") -> None:
        raw = envelope.encode_kept(result.as_tuple(), self._terms())
        self._client().keep(_SAVED + group_id, raw, self._kept_ms())

    def restore_group(self, group_id: str) -> "GroupResult | None":
        kept = self.read(_SAVED + group_id)
        if not kept.is_kept:
            return None
        found: GroupResult = result_from_tuple(kept.result)
        return found

    def delete_group(self, group_id: str) -> None:
        self._client().forget([_SAVED + group_id])


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

    parent: "Value" = None
    """The result of what this one came after."""

    def as_tuple(self) -> tuple[tuple[str | None, Value], Value]:
        """The result as data: ((id, that of its parent), those of its members)."""
        lineage: list[Value] = [self]
        while lineage[-1].parent is not None:
            lineage.append(lineage[-1].parent)
        found: Value = None
        for node in reversed(lineage):
            members = node.results if isinstance(node, ResultSet) else None
            found = (
                (getattr(node, "id", None), found),
                None if members is None else [member.as_tuple() for member in members],
            )
        whole: tuple[tuple[str | None, Value], Value] = found
        return whole

    def __json__(self) -> Value:
        return self.as_tuple()

    def _parents(self) -> "Iterator[Value]":
        node = self.parent
        while node is not None:
            yield node
            node = node.parent


class _Promise:
    """What is to be called when a result is there: `result.on_ready.then(callback)`."""

    def __init__(self, result: Value) -> None:
        self._result = result

    @property
    def ready(self) -> bool:
        """Whether the result is there."""
        return bool(self._result.ready())

    def then(self, callback: Callable[[Value], object], on_error: Value = None) -> Value:
        """Call `callback` with the result."""
        return self._result.then(callback, on_error)


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

    @backend.setter
    def backend(self, backend: Backend) -> None:
        self._backend = backend

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

    def _get_task_meta(self) -> dict[str, Value]:
        # Packages ask this way, and Celery's guide has its readers look for stamps in it.
        return _meta(self.id, self._read())

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

        Raises the SDK's TimeoutError after `timeout` seconds; 0 looks once. The error says why the task has
        not ended, as `explain` does. With `propagate` False the exception is returned. `on_message` is given the state's meta at every change, `on_interval`
        is called every `interval` seconds, `callback` with id and value at the end.
        """
        if self.ignored:
            return None  # type: ignore[return-value] # nothing is kept, as the caller asked
        if disable_sync_subtasks:
            assert_will_not_block()
        if self._ended is None:
            self._ended = self.backend.wait(
                self.id,
                timeout,
                None if on_message is None else lambda stored: on_message(_meta(self.id, stored)),
                on_interval,
                interval,
            )
        if propagate and follow_parents and self._ended.state in states.PROPAGATE_STATES:
            self._raise_of_parents()
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
        """Raise what the eldest of those raised that this one came after: what went wrong first."""
        parents = list(self._parents())
        _look([leaf for node in parents for leaf in _leaves(node)])
        for node in reversed(parents):
            node.maybe_throw()

    def _outcome(
        self, stored: Stored, callback: Callable[[str, Value], object] | None, *, propagate: bool
    ) -> R_co:
        if not stored.is_readable or (propagate and stored.state in states.PROPAGATE_STATES):
            exc = stored.result
            if not isinstance(exc, BaseException):
                exc = RuntimeError(
                    f"task {self.id} is {stored.state} without an exception: {exc!r}"
                )
            raise exc
        value: Value = stored.result
        if stored.state in (states.IGNORED, states.REJECTED):
            # Where it ran eagerly, what was raised to say so is there.
            value = None
        if callback is not None:
            callback(self.id, value)
        returned: R_co = value
        return returned

    def maybe_throw(
        self,
        propagate: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        callback: Callable[[str, Value], object] | None = None,
    ) -> R_co:
        """Raise what the task raised, if it did; answer what is known of the result."""
        return self._outcome(self._read(), callback, propagate=propagate)

    maybe_reraise = maybe_throw

    def forget(self) -> None:
        """Drop what is kept of the task, and of those it came after."""
        forgotten = [leaf for node in (self, *self._parents()) for leaf in _leaves(node)]
        for leaf in forgotten:
            leaf.clear_cache()
        self.backend.forget_many([leaf.id for leaf in forgotten])

    def clear_cache(self) -> None:
        """Ask anew the next time."""
        self._ended = None

    def then(
        self,
        callback: Callable[[Value], object],
        on_error: Callable[[Value], object] | None = None,
        weak: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
    ) -> "AsyncResult[R_co]":
        """Call `callback` with this result when the task has ended, on a thread for such calls.

        `on_error` is called with the exception instead when nothing more can be heard from the broker.
        """

        def hear(stored: Stored) -> None:
            self._ended = stored
            callback(self)

        if self._ended is not None:
            callback(self)
        else:
            self.backend.tell(self.id, hear)
        return self

    @property
    def on_ready(self) -> _Promise:
        """Has `then`, too."""
        return _Promise(self)

    def throw(self, exc: BaseException, traceback: Value = None) -> None:
        """Raise the exception."""
        raise exc

    def exists(self) -> bool:
        """Whether the broker knows the id."""
        return self._read().stage != envelope.STAGES[0]

    @property
    def supports_native_join(self) -> bool:
        """Results come as they end, without being asked for one by one."""
        return True

    # -- what came of it

    def iterdeps(self, intermediate: bool = False) -> "Iterator[tuple[Value, Value]]":  # noqa: FBT001, FBT002 - Celery's signature
        """This result and those of what it called, and so on, each with the one it came from.

        Raises IncompleteStream at one that has not ended, but with `intermediate`.
        """
        left: deque[tuple[Value, Value]] = deque([(None, self)])
        while left:
            parent, node = left.popleft()
            yield parent, node
            if node.ready():
                left.extend((node, child) for child in node.children or ())
            elif not intermediate:
                raise IncompleteStream

    def collect(
        self,
        intermediate: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        **kwargs: Value,
    ) -> "Iterator[tuple[Value, Value]]":
        """The same results, each with its value."""
        for _, result in self.iterdeps(intermediate):
            yield result, result.get(**kwargs)

    def get_leaf(self) -> Value:
        """The value of the last of them."""
        value = None
        for _, result in self.iterdeps():
            value = result.get()
        return value

    def build_graph(
        self,
        intermediate: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        formatter: Callable[[Value], str] = str,
    ) -> DependencyGraph:
        """What came from what."""
        graph = DependencyGraph(formatter=formatter)
        for parent, node in self.iterdeps(intermediate):
            graph.add_arc(node)
            if parent is not None:
                graph.add_edge(parent, node)
        return graph

    @property
    def graph(self) -> DependencyGraph:
        """What came from what, once all has ended."""
        return self.build_graph()

    def as_list(self) -> list[str]:
        """Its id, and those of what it came after."""
        return [leaf.id for node in (self, *self._parents()) for leaf in _leaves(node)]

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
    def children(self) -> "list[Value] | None":
        """Results of the tasks this one called and of what followed it; None while it has not ended."""
        stored = self._read()
        if not stored.is_kept:
            return None
        return [self._child(text) for text in stored.children]

    def _child(self, text: str) -> Value:
        child_id, members = envelope.decode_child(text)
        if members is None:
            return AsyncResult(child_id, app=self._app)
        return GroupResult(
            child_id, [AsyncResult(member, app=self._app) for member in members], app=self._app
        )

    @property
    def args(self) -> Value:
        """What its task was called with; None unless `result_extended` is set."""
        return self._read().call.get("args")

    @property
    def kwargs(self) -> Value:
        """The same by name."""
        return self._read().call.get("kwargs")

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

    def __str__(self) -> str:
        return str(self.id)

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


def child_of(result: Value) -> str:
    """A result, or a group's with its members, as an entry of `Result.children`."""
    if isinstance(result, GroupResult):
        return envelope.encode_child(str(result.id), [str(one.id) for one in result.results])
    return envelope.encode_child(str(result))


def _meta(task_id: str, stored: Stored) -> dict[str, Value]:
    meta = {
        "task_id": task_id,
        "status": stored.state,
        "result": stored.result,
        "traceback": stored.traceback,
        "children": [(child, None) for child in stored.children],
        "date_done": _when(stored),
    }
    if stored.parent_id:
        meta["parent_id"] = stored.parent_id
    if stored.call:
        stamps = stored.call.get("stamps") or {}
        meta |= {
            **stamps,
            "name": stored.name,
            "args": stored.call["args"],
            "kwargs": stored.call["kwargs"],
            "worker": stored.worker,
            "retries": stored.retries,
            "queue": stored.queue,
        }
        if stamps:
            meta["stamped_headers"] = [*stamps]
    return meta


def _when(stored: Stored) -> dt.datetime | None:
    if stored.done_ms is None:
        return None
    return dt.datetime.fromtimestamp(stored.done_ms / 1000, dt.UTC)


class EagerResult(AsyncResult[R_co]):
    """The result of a task that ran right here; one without an id, of a call that was never made."""

    def __init__(
        self,
        id: Value,  # noqa: A002 - Celery's name
        ret_value: Value,
        state: str,
        traceback: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(id or "none", backend=DisabledBackend(), task_name=name)
        self.id = id
        self._ended = Stored(
            state=state,
            stage="done",
            result=ret_value,
            traceback=traceback,
            is_final=True,
            name=name,
        )

    @property
    def children(self) -> list[Value]:
        """None: what it called it does not remember."""
        return []

    def _raise_of_parents(self) -> None:
        """What went wrong before it was raised then."""

    def forget(self) -> None:
        """Nothing is kept anywhere."""

    def clear_cache(self) -> None:
        """It is all there is."""

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


# -- several results -----------------------------------------------------------------------------


def _value_of(result: Value) -> Value:
    """The value of a result that has ended, which may be an exception; for a set, the list of its values."""
    if isinstance(result, ResultSet):
        return result._values()  # noqa: SLF001 - of its own module
    return None if result.ignored else result.result


def _leaves(result: Value) -> "list[AsyncResult[Value]]":
    """The results of tasks in it, in order."""
    found: list[AsyncResult[Value]] = []
    left = [result]
    while left:
        node = left.pop()
        if isinstance(node, ResultSet):
            left.extend(reversed(node.results))
        else:
            found.append(node)
    return found


def _look(leaves: "Iterable[AsyncResult[Value]]") -> None:
    """Read those that have not ended, in one request."""
    unread = [leaf for leaf in leaves if leaf._ended is None and not leaf.ignored]  # noqa: SLF001 - a result's own
    if not unread:
        return
    found = unread[0].backend.read_many(leaf.id for leaf in unread)
    for leaf in unread:
        stored = found[leaf.id]
        if stored.is_final and stored.state in states.READY_STATES:
            leaf._ended = stored  # noqa: SLF001 - the same


class ResultSet(ResultBase):
    """Several results, in an order."""

    def __init__(
        self,
        results: Iterable[Value],
        app: Value = None,
        ready_barrier: Value = None,
        **kwargs: Value,
    ) -> None:
        self._app = app
        self.results: list[Value] = list(results)

    @property
    def app(self) -> Value:
        """The app that is asked."""
        if self._app is None:
            self._app = self.results[0].app if self.results else _state.get_current_app()
        return self._app

    @app.setter
    def app(self, app: Value) -> None:
        self._app = app

    @property
    def backend(self) -> Backend:
        """Where the results are."""
        found: Backend = self.app.backend
        return found

    @property
    def supports_native_join(self) -> bool:
        """Results come as they end, without being asked for one by one."""
        return True

    # -- members

    def add(self, result: Value) -> None:
        """Add a result, unless it is there."""
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: Value) -> None:
        """Remove a result, or the one of an id; KeyError if it is not there."""
        try:
            self.results.remove(result)
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: Value) -> None:
        """Remove a result, if it is there."""
        with contextlib.suppress(KeyError):
            self.remove(result)

    def update(self, results: Iterable[Value]) -> None:
        """Add those that are not there."""
        for result in results:
            self.add(result)

    def clear(self) -> None:
        """Remove all."""
        self.results.clear()

    def leaves(self) -> "list[AsyncResult[Value]]":
        """The results of all tasks in it, those of groups in it included."""
        return _leaves(self)

    # -- how they are

    def _looked(self) -> list[Value]:
        _look(self.leaves())
        return self.results

    def successful(self) -> bool:
        """Whether all returned."""
        return all(result.successful() for result in self._looked())

    def failed(self) -> bool:
        """Whether any raised."""
        return any(result.failed() for result in self._looked())

    def waiting(self) -> bool:
        """Whether any has not ended."""
        return not self.ready()

    def ready(self) -> bool:
        """Whether all have ended."""
        return all(result.ready() for result in self._looked())

    def completed_count(self) -> int:
        """How many returned."""
        return sum(bool(result.successful()) for result in self._looked())

    def maybe_throw(
        self,
        callback: Callable[[str, Value], object] | None = None,
        propagate: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
    ) -> None:
        """Raise what the first of those raised that did."""
        for result in self._looked():
            result.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    # -- what they are

    def _ends(
        self,
        timeout: float | None,
        on_interval: Callable[[], object] | None,
        interval: float,
    ) -> "Iterator[AsyncResult[Value]]":
        """The results of all tasks, as they end."""
        waiting: dict[str, list[AsyncResult[Value]]] = {}
        for leaf in self.leaves():
            if leaf._ended is not None or leaf.ignored:  # noqa: SLF001 - a result's own
                yield leaf
            else:
                waiting.setdefault(leaf.id, []).append(leaf)
        if not waiting:
            return
        backend = next(iter(waiting.values()))[0].backend
        for task_id, stored in backend.wait_many(waiting, timeout, on_interval, interval):
            for leaf in waiting[task_id]:
                leaf._ended = stored  # noqa: SLF001 - the same
                yield leaf

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        interval: float = 0.5,
        callback: Callable[[str, Value], object] | None = None,
        no_ack: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        on_message: Callable[[dict[str, Value]], object] | None = None,
        disable_sync_subtasks: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        on_interval: Callable[[], object] | None = None,
        **kwargs: Value,
    ) -> Value:
        """Wait for all and answer their values, in order; raises what the first raises that fails.

        Raises the SDK's TimeoutError after `timeout` seconds. With `propagate` False exceptions are
        among the values. With `callback` it is called with id and value of each member as it ends, and nothing is
        answered; the value of a group in the group is the list of its values.
        """
        return self.join_native(
            timeout,
            propagate,
            interval,
            callback,
            no_ack,
            on_message,
            on_interval,
            disable_sync_subtasks,
        )

    def join(
        self,
        timeout: float | None = None,
        propagate: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        interval: float = 0.5,
        callback: Callable[[str, Value], object] | None = None,
        no_ack: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        on_message: Callable[[dict[str, Value]], object] | None = None,
        disable_sync_subtasks: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        on_interval: Callable[[], object] | None = None,
    ) -> list[Value]:
        """Do the same; with `callback` the answer is an empty list."""
        if on_message is not None:
            raise ImproperlyConfigured("Backend does not support on_message callback")
        return (
            self.get(
                timeout,
                propagate,
                interval,
                callback,
                disable_sync_subtasks=disable_sync_subtasks,
                on_interval=on_interval,
            )
            or []
        )

    def join_native(
        self,
        timeout: float | None = None,
        propagate: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        interval: float = 0.5,
        callback: Callable[[str, Value], object] | None = None,
        no_ack: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        on_message: Callable[[dict[str, Value]], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        disable_sync_subtasks: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
    ) -> list[Value] | None:
        """Do the same."""
        if disable_sync_subtasks:
            assert_will_not_block()
        left = {id(member): len(_leaves(member)) for member in self.results}
        member_of = {id(leaf): member for member in self.results for leaf in _leaves(member)}
        for leaf in self._ends(timeout, on_interval, interval):
            if on_message is not None and leaf._ended is not None:  # noqa: SLF001 - a result's own
                on_message(_meta(leaf.id, leaf._ended))  # noqa: SLF001 - the same
            if not leaf.ignored:
                leaf.maybe_throw(propagate=propagate)
            member = member_of[id(leaf)]
            left[id(member)] -= 1
            if callback is not None and not left[id(member)]:
                callback(member.id, _value_of(member))
        return None if callback is not None else self._values()

    def _values(self) -> list[Value]:
        """The values of results that have ended, exceptions among them."""
        return [_value_of(result) for result in self.results]

    def iter_native(
        self,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        on_message: Callable[[dict[str, Value]], object] | None = None,
        on_interval: Callable[[], object] | None = None,
    ) -> Iterator[tuple[str, dict[str, Value]]]:
        """Ids and what is known of each, as they end."""
        for leaf in self._ends(timeout, on_interval, interval):
            meta = _meta(leaf.id, leaf._read())  # noqa: SLF001 - a result's own
            if on_message is not None:
                on_message(meta)
            yield leaf.id, meta

    async def aget(self, timeout: float | None = None, *, propagate: bool = True) -> list[Value]:  # noqa: ASYNC109 - as `get`
        """Do what `get` does without blocking the event loop."""
        waiting = [leaf for leaf in self.leaves() if leaf._ended is None and not leaf.ignored]  # noqa: SLF001 - a result's own
        if waiting:
            found = await waiting[0].backend.await_many([leaf.id for leaf in waiting], timeout)
            for leaf in waiting:
                leaf._ended = found[leaf.id]  # noqa: SLF001 - the same
        if propagate:
            for leaf in self.leaves():
                if not leaf.ignored:
                    leaf.maybe_throw()
        return self._values()

    def __await__(self) -> Generator[Value, None, list[Value]]:
        return self.aget().__await__()

    def then(
        self,
        callback: Callable[[Value], object],
        on_error: Callable[[Value], object] | None = None,
        weak: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
    ) -> Value:
        """Call `callback` with this set when all have ended, on a thread for such calls."""
        left = {id(leaf) for leaf in self.leaves()}
        lock = threading.Lock()

        def hear(leaf: Value) -> None:
            with lock:
                left.discard(id(leaf))
                is_last = not left
            if is_last:
                callback(self)

        leaves = self.leaves()
        if not leaves:
            callback(self)
        for leaf in leaves:
            _ = leaf.then(hear, on_error)
        return self

    @property
    def on_ready(self) -> _Promise:
        """Has `then`, too."""
        return _Promise(self)

    # -- orders

    def forget(self) -> None:
        """Drop what is kept of all tasks."""
        for leaf in self.leaves():
            leaf.clear_cache()
        self.backend.forget_many([leaf.id for leaf in self.leaves()])

    def revoke(
        self,
        connection: Value = None,
        terminate: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        signal: str | None = None,
        wait: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        timeout: float | None = None,
    ) -> None:
        """Have the tasks not run; with `terminate`, end also those that run."""
        ids = [leaf.id for leaf in self.leaves()]
        self.app.control.revoke(ids, terminate=terminate, signal=signal or "SIGTERM")

    def __iter__(self) -> Iterator[Value]:
        return iter(self.results)

    def __getitem__(self, index: int) -> Value:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ResultSet):
            return other.results == self.results
        return NotImplemented

    def __hash__(self) -> int:
        raise TypeError(f"unhashable type: {type(self).__name__!r}: its members change")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(str(result.id) for result in self.results)}]>"


class GroupResult(ResultSet):
    """The results of a group's tasks, in their order, under the group's id."""

    def __init__(
        self,
        id: str | None = None,  # noqa: A002 - Celery's name
        results: Iterable[Value] | None = None,
        parent: Value = None,
        app: Value = None,
        **kwargs: Value,
    ) -> None:
        super().__init__(results or (), app=app)
        self.id = id
        self.parent = parent

    @property
    def children(self) -> list[Value]:
        """The results."""
        return self.results

    def save(self, backend: Backend | None = None) -> None:
        """Keep at the broker which results these are, as long as results are kept: see `restore`."""
        assert self.id is not None, "what is saved is found by its id"
        (backend or self.backend).save_group(self.id, self)

    def delete(self, backend: Backend | None = None) -> None:
        """Keep it no more."""
        assert self.id is not None, "what was saved was found by its id"
        (backend or self.backend).delete_group(self.id)

    @classmethod
    def restore(
        cls,
        id: str,  # noqa: A002 - Celery's name
        backend: Backend | None = None,
        app: Value = None,
    ) -> "GroupResult | None":
        """The group that was saved under the id, anywhere; None where there is none."""
        app = app or _state.get_current_app()
        found = (backend or app.backend).restore_group(id)
        if isinstance(found, GroupResult):
            found.app = app
        restored: GroupResult | None = found
        return restored

    def __reduce__(self) -> tuple[Value, ...]:
        return type(self), (self.id, self.results)

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return bool(
                other.id == self.id
                and other.results == self.results
                and other.parent == self.parent
            )
        if isinstance(other, str):
            return other == self.id
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        ids = ", ".join(str(result.id) for result in self.results)
        return f"<{type(self).__name__}: {self.id} [{ids}]>"


def result_from_tuple(r: Value, app: Value = None) -> Value:
    """The result that `as_tuple` made data of."""
    if isinstance(r, ResultBase):
        return r
    lineage = []
    while r is not None:
        (result_id, parent), members = r if isinstance(r[0], list | tuple) else ((r[0], None), r[1])
        lineage.append((result_id, members))
        r = parent
    result: Value = None
    for result_id, members in reversed(lineage):
        if members is None:
            result = AsyncResult(result_id, app=app, parent=result)
        else:
            nodes = [result_from_tuple(member, app) for member in members]
            result = GroupResult(result_id, nodes, parent=result, app=app)
    return result


BaseAsyncResult = AsyncResult
TaskSetResult = GroupResult
"""Their names in Celery's versions 2 and 3."""
