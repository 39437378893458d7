"""`Manager`: waits and asserts for tests against running workers, by Celery's names."""

import threading
from collections.abc import Callable, Iterable

from qbroker import clock
from qbroker.app import App
from qbroker.exceptions import TimeoutError as WaitTimeout
from qbroker.result import ResultBase
from qbroker.serialization import Value

__all__ = ["Manager", "ManagerMixin", "Sentinel"]


class Sentinel(Exception):
    """Ends a wait."""


class ManagerMixin:
    """What a test asks of results and tasks; needs `self.app`."""

    app: App

    def _init_manager(
        self,
        block_timeout: float = 30 * 60.0,
        no_join: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        stdout: Value = None,
        stderr: Value = None,
    ) -> None:
        del stdout, stderr
        self.block_timeout = block_timeout
        self.no_join = no_join

    def wait_for(
        self,
        fun: Callable[[], Value],
        catch: type[BaseException] | tuple[type[BaseException], ...],
        desc: str = "thing",
        args: tuple[Value, ...] = (),
        kwargs: dict[str, Value] | None = None,
        errback: Value = None,
        max_retries: int = 10,
        interval_start: float = 0.1,
        interval_step: float = 0.5,
        interval_max: float = 5.0,
        emit_warning: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        **options: Value,
    ) -> Value:
        """What `fun` answers, once it no longer raises `catch`."""
        del desc, errback, emit_warning, options
        wait_s = interval_start
        pause = threading.Event()
        for _ in range(max_retries):
            try:
                return fun(*args, **(kwargs or {}))
            except catch:
                pause.wait(wait_s)
                wait_s = min(wait_s + interval_step, interval_max)
        return fun(*args, **(kwargs or {}))

    def ensure_not_for_a_while(
        self,
        fun: Callable[[], Value],
        catch: type[BaseException] | tuple[type[BaseException], ...],
        desc: str = "thing",
        max_retries: int = 20,
        interval_start: float = 0.1,
        interval_step: float = 0.02,
        interval_max: float = 1.0,
        emit_warning: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        **options: Value,
    ) -> None:
        """See that `fun` goes on raising `catch`."""
        try:
            self.wait_for(
                fun,
                catch,
                desc=desc,
                max_retries=max_retries,
                interval_start=interval_start,
                interval_step=interval_step,
                interval_max=interval_max,
                emit_warning=emit_warning,
            )
        except catch:
            return
        raise AssertionError(f"Should not have happened: {desc}")

    def join(
        self,
        r: Value,
        propagate: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        max_retries: int = 10,
        **kwargs: Value,
    ) -> Value:
        """The results of a group, or of one task; AssertionError when they do not come."""
        if self.no_join:
            return None
        timeout_s = kwargs.pop("timeout", self.block_timeout)
        ends_s = clock.monotonic() + timeout_s * max_retries
        while clock.monotonic() < ends_s:
            try:
                if hasattr(r, "join"):
                    return r.join(timeout=timeout_s, propagate=propagate, **kwargs)
                return r.get(timeout=timeout_s, propagate=propagate, **kwargs)
            except WaitTimeout:
                continue
        raise AssertionError("Test failed: Missing task results")

    def query_task_states(self, ids: Iterable[str], timeout: float = 0.5) -> dict[str, set[str]]:
        """Ids by where the tasks are, in the broker's words."""
        del timeout
        found: dict[str, set[str]] = {}
        for task_id in ids:
            found.setdefault(self.app.control.explain(task_id).stage, set()).add(task_id)
        return found

    def query_tasks(self, ids: Iterable[str], timeout: float = 0.5) -> Iterable[tuple[str, str]]:
        """Each id, and where the task is."""
        del timeout
        for task_id in ids:
            yield task_id, self.app.control.explain(task_id).stage

    def assert_received(self, ids: Iterable[str], interval: float = 0.5, **policy: Value) -> None:
        """See that workers have these tasks, or had."""
        self._assert_stages(ids, {"leased", "started", "done"}, interval, **policy)

    def assert_accepted(self, ids: Iterable[str], interval: float = 0.5, **policy: Value) -> None:
        """See that these tasks have been started."""
        self._assert_stages(ids, {"started", "done"}, interval, **policy)

    def is_received(self, ids: Iterable[str], **kwargs: Value) -> bool:
        """Whether workers have these tasks, or had."""
        return self._are_at(ids, {"leased", "started", "done"})

    def is_accepted(self, ids: Iterable[str], **kwargs: Value) -> bool:
        """Whether these tasks have been started."""
        return self._are_at(ids, {"started", "done"})

    def assert_result_tasks_in_progress_or_completed(
        self, async_results: Iterable[ResultBase], interval: float = 0.5, **policy: Value
    ) -> None:
        """See that these results' tasks are under way."""
        ids = [str(getattr(result, "id", "")) for result in async_results]
        self._assert_stages(ids, {"leased", "started", "done"}, interval, **policy)

    def _are_at(self, ids: Iterable[str], stages: set[str]) -> bool:
        return self.query_task_states(ids).keys() <= stages

    def _assert_stages(
        self, ids: Iterable[str], stages: set[str], interval: float, **policy: Value
    ) -> None:
        wanted = list(ids)
        self.wait_for(
            lambda: self.true_or_raise(self._are_at, wanted, stages),
            Sentinel,
            interval_start=interval,
            **policy,
        )

    def true_or_raise(self, fun: Callable[..., Value], *args: Value, **kwargs: Value) -> Value:
        """What `fun` answers; Sentinel when that is nothing."""
        found = fun(*args, **kwargs)
        if not found:
            raise Sentinel
        return found

    def wait_until_idle(self) -> None:
        """Wait until no queue has a waiting message and no worker has one."""

        def is_idle() -> bool:
            queues = self.app.client().list_queues()
            return not any(one.ready_count or one.leased_count for one in queues)

        self.wait_for(lambda: self.true_or_raise(is_idle), Sentinel, max_retries=100)


class Manager(ManagerMixin):
    """A manager of one app."""

    def __init__(self, app: App, **kwargs: Value) -> None:
        self.app = app
        self._init_manager(**kwargs)
