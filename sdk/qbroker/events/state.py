"""What is known of workers and tasks from the events that were heard: kept in memory, within bounds.

Events of one task may be heard out of order. Which came first is told by the states: what happens before the state
a task is in adds what it knows and does not take the task back.
"""

import logging
import threading
import weakref
from bisect import bisect
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeAlias, TypeVar

from qbroker import clock, states
from qbroker.serialization import Value

if TYPE_CHECKING:
    from weakref import WeakSet

__all__ = ["State", "Task", "Worker", "heartbeat_expires"]

logger = logging.getLogger(__name__)
warn = logger.warning

HEARTBEAT_EXPIRE_WINDOW = 200
"""A worker is gone when it has been silent for so many percent of the time between its heartbeats."""

HEARTBEAT_DRIFT_MAX = 16
"""Seconds between a worker's clock and this one's from which a warning is logged."""

HEARTBEATS_MAX = 4

TASK_EVENT_TO_STATE = {
    "sent": states.PENDING,
    "received": states.RECEIVED,
    "started": states.STARTED,
    "failed": states.FAILURE,
    "retried": states.RETRY,
    "succeeded": states.SUCCESS,
    "revoked": states.REVOKED,
    "rejected": states.REJECTED,
}

K = TypeVar("K")
V = TypeVar("V")


def heartbeat_expires(
    timestamp: Value, freq: Value = 60, expire_window: float = HEARTBEAT_EXPIRE_WINDOW
) -> float:
    """Until when a worker counts as alive that sent a heartbeat then."""
    return float(timestamp) + float(freq) * expire_window / 100


class Bounded(OrderedDict[K, V]):
    """A dict that forgets its oldest entry when it has too many."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.limit = limit

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        if self.limit is not None and len(self) > self.limit:
            self.popitem(last=False)

    def __reduce__(self) -> tuple[Value, ...]:
        return type(self), (self.limit,), None, None, iter(list(self.items()))


_drifting: set[str] = set()


def _warn_of_drift(hostname: str, drift: int) -> None:
    """Warn once of each worker."""
    if hostname not in _drifting and len(_drifting) < 1_000:
        _drifting.add(hostname)
        warn(
            "Substantial drift from %s may mean clocks are out of sync. Current drift is %s seconds.",
            hostname,
            drift,
        )


class Worker:
    """A worker that was heard of. Other fields of its events are attributes, too."""

    heartbeat_max = HEARTBEATS_MAX
    expire_window = HEARTBEAT_EXPIRE_WINDOW
    _fields = (
        "hostname", "pid", "freq", "heartbeats", "clock", "active", "processed", "loadavg",
        "sw_ident", "sw_ver", "sw_sys",
    )  # fmt: skip

    def __init__(
        self,
        hostname: str | None = None,
        pid: int | None = None,
        freq: float = 60,
        heartbeats: list[float] | None = None,
        clock: int = 0,
        active: int | None = None,
        processed: int | None = None,
        loadavg: Value = None,
        sw_ident: str | None = None,
        sw_ver: str | None = None,
        sw_sys: str | None = None,
    ) -> None:
        self.hostname = hostname
        self.pid = pid
        self.freq = freq
        self.heartbeats = [] if heartbeats is None else heartbeats
        self.clock = clock or 0
        self.active = active
        self.processed = processed
        self.loadavg = loadavg
        self.sw_ident = sw_ident
        self.sw_ver = sw_ver
        self.sw_sys = sw_sys

    def event(
        self,
        type_: str | None,
        timestamp: float | None = None,
        local_received: float | None = None,
        fields: Mapping[str, Value] | None = None,
        max_drift: float = HEARTBEAT_DRIFT_MAX,
    ) -> None:
        """Take in an event of this worker."""
        self.update(fields or {})
        if type_ == "offline":
            self.heartbeats.clear()
            return
        if not local_received or not timestamp:
            return
        drift = abs(int(local_received) - int(timestamp))
        if drift > max_drift:
            _warn_of_drift(str(self.hostname), drift)
        beats = self.heartbeats
        if len(beats) >= self.heartbeat_max:
            beats.pop(0)
        beats.insert(bisect(beats, local_received), local_received)

    def update(self, f: Mapping[str, Value], **kw: Value) -> None:
        """Set attributes."""
        for name, value in {**f, **kw}.items():
            setattr(self, name, value)

    @property
    def status_string(self) -> str:
        """ONLINE or OFFLINE."""
        return "ONLINE" if self.alive else "OFFLINE"

    @property
    def heartbeat_expires(self) -> float:
        """Until when it counts as alive."""
        return heartbeat_expires(self.heartbeats[-1], self.freq, self.expire_window)

    @property
    def alive(self) -> bool:
        """Whether it was heard of lately."""
        return bool(self.heartbeats) and clock.wall() < self.heartbeat_expires

    @property
    def id(self) -> str:
        """Its name and process."""
        return f"{self.hostname}.{self.pid}"

    def __eq__(self, other: object) -> bool:
        return self.hostname == other.hostname if isinstance(other, Worker) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.hostname)

    def __repr__(self) -> str:
        return f"<Worker: {self.hostname} ({self.status_string} clock:{self.clock})"

    def __reduce__(self) -> tuple[Value, ...]:
        return type(self), tuple(getattr(self, name) for name in self._fields)


class Task:
    """A task that was heard of: what its events said, as attributes. `sent`, `received`, … are the times of those."""

    uuid: str | None
    name: str | None = None
    state: str = states.PENDING
    clock: int = 0
    received: Value = None
    sent: Value = None
    started: Value = None
    succeeded: Value = None
    failed: Value = None
    retried: Value = None
    revoked: Value = None
    rejected: Value = None
    args: Value = None
    kwargs: Value = None
    eta: Value = None
    expires: Value = None
    retries: Value = None
    worker: Value = None
    result: Value = None
    exception: Value = None
    timestamp: Value = None
    runtime: Value = None
    traceback: Value = None
    exchange: Value = None
    routing_key: Value = None
    root_id: Value = None
    parent_id: Value = None
    client: Value = None

    _fields = (
        "uuid", "name", "state", "received", "sent", "started", "rejected", "succeeded", "failed",
        "retried", "revoked", "args", "kwargs", "eta", "expires", "retries", "worker", "result",
        "exception", "timestamp", "runtime", "traceback", "exchange", "routing_key", "clock",
        "client", "root", "root_id", "parent", "parent_id", "children",
    )  # fmt: skip
    _info_fields = (
        "args", "kwargs", "retries", "result", "eta", "runtime", "expires", "exception",
        "exchange", "routing_key", "root_id", "parent_id",
    )  # fmt: skip
    merge_rules: ClassVar[Mapping[str, tuple[str, ...]]] = {
        states.RECEIVED: (
            "name", "args", "kwargs", "parent_id", "root_id", "retries", "eta", "expires",
        ),
    }  # fmt: skip
    """What is taken of an event that is heard late, by the state it tells of."""

    def __init__(
        self,
        uuid: str | None = None,
        cluster_state: "State | None" = None,
        children: Iterable[str] | None = None,
        **kwargs: Value,
    ) -> None:
        self.uuid = uuid
        self.cluster_state = cluster_state
        known = cluster_state.tasks if cluster_state is not None else {}
        self.children: WeakSet[Task] = weakref.WeakSet(
            known[child] for child in children or () if child in known
        )
        self.__dict__.update(kwargs)

    def event(
        self,
        type_: str,
        timestamp: float | None = None,
        local_received: float | None = None,
        fields: Mapping[str, Value] | None = None,
    ) -> None:
        """Take in an event of this task."""
        taken = dict(fields or {})
        state = TASK_EVENT_TO_STATE.get(type_)
        if state is None:
            state = type_.upper()  # of the task's own
        else:
            setattr(self, type_, timestamp)
        is_late = (
            states.RETRY not in (state, self.state)
            and states.precedence(state) > states.precedence(self.state)
        )  # fmt: skip
        if is_late:
            kept = self.merge_rules.get(state)
            if kept is not None:
                taken = {name: value for name, value in taken.items() if name in kept}
        else:
            taken.update(state=state, timestamp=timestamp)
        self.__dict__.update(taken)

    def info(
        self, fields: Iterable[str] | None = None, extra: Iterable[str] | None = None
    ) -> dict[str, Value]:
        """What there is to show of it."""
        names = (*(self._info_fields if fields is None else fields), *(extra or ()))
        found = {name: getattr(self, name, None) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def id(self) -> str | None:
        """Its uuid."""
        return self.uuid

    @property
    def origin(self) -> str | None:
        """Who told of it: its worker, or before there is one, the client."""
        found: str | None = self.client if self.worker is None else self.worker.id
        return found

    @property
    def ready(self) -> bool:
        """Whether it has ended."""
        return self.state in states.READY_STATES

    @property
    def parent(self) -> "Task | None":
        """The task that called it, if that is known."""
        return self._known(self.parent_id)

    @property
    def root(self) -> "Task | None":
        """The first task of its workflow, if that is known."""
        return self._known(self.root_id)

    def _known(self, uuid: str | None) -> "Task | None":
        return self.cluster_state.tasks.get(uuid) if uuid and self.cluster_state else None

    def as_dict(self) -> dict[str, Value]:
        """All of it, as values."""
        found = {name: getattr(self, name, None) for name in self._fields}
        related = {
            "children": [child.id for child in self.children],
            "root": self.root_id,
            "parent": self.parent_id,
        }
        return found | related

    def __eq__(self, other: object) -> bool:
        return self.uuid == other.uuid if isinstance(other, Task) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.uuid)

    def __repr__(self) -> str:
        return f"<Task: {self.name}({self.uuid}) {self.state} clock:{self.clock}>"

    def __reduce__(self) -> tuple[Value, ...]:
        return _task_of, (type(self), self.as_dict())


def _task_of(class_: type[Task], fields: dict[str, Value]) -> Task:
    fields = {name: value for name, value in fields.items() if name not in ("root", "parent")}
    return class_(**fields)


class _Moment(NamedTuple):
    """When something was told of a task, in the order of the broker's numbers."""

    clock: int
    timestamp: float
    origin: str
    task: Callable[[], Task | None]

    @property
    def place(self) -> tuple[int, float, str]:
        return self.clock, self.timestamp, self.origin


class _Index(defaultdict[str, "WeakSet[Task]"]):
    """Tasks by something. Called, it answers them in order of time, as (uuid, task)."""

    def __init__(self, ask: Callable[..., Iterator[tuple[str, Task]]]) -> None:
        super().__init__(weakref.WeakSet)
        self._ask = ask

    def __call__(self, *args: Value, **kwargs: Value) -> Iterator[tuple[str, Task]]:
        return self._ask(*args, **kwargs)


Group = Callable[[str, dict[str, Value]], Value]


# Inside of State these names are its own attributes, which a subclass may replace.
_Task: TypeAlias = Task
_Worker: TypeAlias = Worker


class State:
    """All workers and tasks that were heard of. Give it each event; ask it what there is."""

    Worker: type[_Worker] = Worker
    Task: type[_Task] = Task
    heap_multiplier = 4

    def __init__(
        self,
        callback: "Callable[[State, dict[str, Value]], Value] | None" = None,
        workers: Mapping[str, _Worker] | None = None,
        tasks: Mapping[str, _Task] | None = None,
        taskheap: Iterable[Value] | None = None,
        max_workers_in_memory: int = 5000,
        max_tasks_in_memory: int = 10000,
        on_node_join: Callable[[_Worker], Value] | None = None,
        on_node_leave: Callable[[_Worker], Value] | None = None,
    ) -> None:
        self.event_callback = callback
        self.max_workers_in_memory = max_workers_in_memory
        self.max_tasks_in_memory = max_tasks_in_memory
        self.on_node_join = on_node_join
        self.on_node_leave = on_node_leave
        self.event_count = 0
        self.task_count = 0
        self.handlers: dict[str, Group] = {}
        """Who takes events of other groups than "worker" and "task": (rest of the type, event)."""
        self.workers: Bounded[str, _Worker] = Bounded(max_workers_in_memory)
        self.workers.update(workers or {})
        self.tasks: Bounded[str, _Task] = Bounded(max_tasks_in_memory)
        self.tasks.update(tasks or {})
        self.tasks_by_type = _Index(self._tasks_by_type)
        self.tasks_by_worker = _Index(self._tasks_by_worker)
        self._mutex = threading.Lock()
        self._seen_types: set[str] = set()
        self._tasks_to_resolve: Bounded[str, WeakSet[_Task]] = Bounded(max_tasks_in_memory)
        self._taskheap: list[_Moment] = []
        for task in self.tasks.values():
            self._add_to_indexes(task)
        self.rebuild_taskheap()

    # -- what is heard ---------------------------------------------------------------------------

    def event(self, event: dict[str, Value]) -> Value:
        """Take in an event. Answers ((worker or task, whether it is new), the rest of the type)."""
        with self._mutex:
            return self._event(event)

    def _event(self, event: dict[str, Value]) -> Value:
        self.event_count += 1
        if self.event_callback is not None:
            self.event_callback(self, event)
        group, _, subject = event["type"].partition("-")
        handler = self.handlers.get(group)
        if handler is not None:
            return handler(subject, event), subject
        if group == "worker":
            return self._worker_event(subject, event)
        if group == "task":
            return self._task_event(subject, event)
        return None

    def _worker_event(self, subject: str, event: dict[str, Value]) -> Value:
        try:
            hostname, timestamp = event["hostname"], event["timestamp"]
            local_received = event["local_received"]
        except KeyError:
            return None
        is_offline = subject == "offline"
        worker = self.workers.get(hostname)
        is_new = worker is None and not is_offline
        if worker is None:
            worker = self.Worker(hostname)
            if is_new:
                self.workers[hostname] = worker
        worker.event(subject, timestamp, local_received, event)
        if self.on_node_join is not None and (is_new or subject == "online"):
            self.on_node_join(worker)
        if is_offline and self.on_node_leave is not None:
            self.on_node_leave(worker)
            self.workers.pop(hostname, None)
        return (worker, is_new), subject

    def _task_event(self, subject: str, event: dict[str, Value]) -> Value:
        uuid, hostname, timestamp = event["uuid"], event["hostname"], event["timestamp"]
        local_received, number = event["local_received"], event["clock"]
        task = self.tasks.get(uuid)
        is_new = task is None
        if task is None:
            task = self.tasks[uuid] = self.Task(uuid, cluster_state=self)
        origin: str
        if subject == "sent":
            task.client = origin = hostname
        else:
            worker = self.workers.get(hostname)
            if worker is None:
                worker = self.workers[hostname] = self.Worker(hostname)
            task.worker = worker
            worker.event(None, local_received, timestamp)
            origin = worker.id
        self._remember(_Moment(number, timestamp, origin, weakref.ref(task)))
        if subject == "received":
            self.task_count += 1
        task.event(subject, timestamp, local_received, event)
        if is_new:
            self._add_to_indexes(task, hostname)
        elif task.name:
            self._seen_types.add(task.name)
        self._relate(task)
        return (task, is_new), subject

    def _remember(self, moment: _Moment) -> None:
        heap = self._taskheap
        # Most tasks are told of four times.
        if len(heap) >= self.max_tasks_in_memory * self.heap_multiplier:
            heap.pop(0)
        if not heap or moment.place >= heap[-1].place:
            heap.append(moment)
        else:
            heap.insert(bisect(heap, moment.place, key=lambda one: one.place), moment)

    def _add_to_indexes(self, task: _Task, hostname: str | None = None) -> None:
        if task.name:
            self._seen_types.add(task.name)
            self.tasks_by_type[task.name].add(task)
            if hostname is None and task.worker is not None:
                hostname = task.worker.hostname
            if hostname is not None:
                self.tasks_by_worker[hostname].add(task)

    def _relate(self, task: _Task) -> None:
        """Make it a child of its parent, also where the parent is heard of later."""
        if task.parent_id:
            parent = self.tasks.get(task.parent_id)
            if parent is not None:
                parent.children.add(task)
            else:
                if task.parent_id not in self._tasks_to_resolve:
                    self._tasks_to_resolve[task.parent_id] = weakref.WeakSet()
                self._tasks_to_resolve[task.parent_id].add(task)
        orphans = self._tasks_to_resolve.pop(task.uuid or "", None)
        if orphans:
            task.children.update(orphans)

    def get_or_create_worker(self, hostname: str, **kwargs: Value) -> tuple[_Worker, bool]:
        """The worker of that name, and whether it is new."""
        worker = self.workers.get(hostname)
        if worker is None:
            worker = self.workers[hostname] = self.Worker(hostname, **kwargs)
            return worker, True
        worker.update(kwargs)
        return worker, False

    def get_or_create_task(self, uuid: str) -> tuple[_Task, bool]:
        """The task of that id, and whether it is new."""
        task = self.tasks.get(uuid)
        if task is None:
            task = self.tasks[uuid] = self.Task(uuid, cluster_state=self)
            return task, True
        return task, False

    # -- what there is ---------------------------------------------------------------------------

    def itertasks(self, limit: int | None = None) -> Iterator[tuple[str, _Task]]:
        """Tasks as (uuid, task), in the order in which they were first heard of."""
        return islice(list(self.tasks.items()), limit)

    def tasks_by_time(
        self,
        limit: int | None = None,
        reverse: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
    ) -> Iterator[tuple[str, _Task]]:
        """Tasks as (uuid, task), those that were told of last first."""
        heap = self._taskheap[::-1] if reverse else self._taskheap[:]
        seen: set[str] = set()
        for moment in islice(heap, limit):
            task = moment.task()
            if task is not None and task.uuid is not None and task.uuid not in seen:
                seen.add(task.uuid)
                yield task.uuid, task

    tasks_by_timestamp = tasks_by_time

    def _tasks_by_type(
        self,
        name: str,
        limit: int | None = None,
        reverse: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
    ) -> Iterator[tuple[str, _Task]]:
        found = (one for one in self.tasks_by_time(reverse=reverse) if one[1].name == name)
        return islice(found, limit)

    def _tasks_by_worker(
        self,
        hostname: str,
        limit: int | None = None,
        reverse: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
    ) -> Iterator[tuple[str, _Task]]:
        found = (
            one
            for one in self.tasks_by_time(reverse=reverse)
            if one[1].worker is not None and one[1].worker.hostname == hostname
        )
        return islice(found, limit)

    def task_types(self) -> list[str]:
        """Names of all tasks that were heard of."""
        return sorted(self._seen_types)

    def alive_workers(self) -> Iterator[_Worker]:
        """Workers that were heard of lately."""
        return (worker for worker in list(self.workers.values()) if worker.alive)

    # -- keeping it small ------------------------------------------------------------------------

    def freeze_while(self, fun: Callable[..., V], *args: Value, **kwargs: Value) -> V:
        """What `fun` answers, with no event taken in meanwhile; with `clear_after` all is forgotten then."""
        clear_after = kwargs.pop("clear_after", False)
        with self._mutex:
            try:
                return fun(*args, **kwargs)
            finally:
                if clear_after:
                    self._clear()

    def clear_tasks(self, ready: bool = True) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """Forget tasks that have ended; with ready=False, all."""
        with self._mutex:
            self._clear_tasks(ready=ready)

    def _clear_tasks(self, *, ready: bool) -> None:
        kept = {u: task for u, task in self.tasks.items() if ready and not task.ready}
        self.tasks.clear()
        self.tasks.update(kept)
        self._taskheap.clear()

    def clear(self, ready: bool = True) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """Forget workers and tasks, those that have ended or all."""
        with self._mutex:
            self._clear(ready=ready)

    def _clear(self, *, ready: bool = True) -> None:
        self.workers.clear()
        self._clear_tasks(ready=ready)
        self.event_count = 0
        self.task_count = 0

    def rebuild_taskheap(self) -> None:
        """Make the order of time anew from the tasks there are."""
        moments = [
            _Moment(task.clock, task.timestamp or 0.0, task.origin or "", weakref.ref(task))
            for task in self.tasks.values()
        ]
        self._taskheap[:] = sorted(moments, key=lambda moment: moment.place)

    def __repr__(self) -> str:
        return f"<State: events={self.event_count} tasks={self.task_count}>"

    def __reduce__(self) -> tuple[Value, ...]:
        return type(self), (
            self.event_callback,
            self.workers,
            self.tasks,
            None,
            self.max_workers_in_memory,
            self.max_tasks_in_memory,
            self.on_node_join,
            self.on_node_leave,
        )
