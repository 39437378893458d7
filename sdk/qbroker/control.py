"""`app.control`: orders and questions about tasks and workers, by Celery's names.

What is the broker's to say it says by itself: revoking is one durable write that needs no worker to be up, and what was
revoked stays revoked. Everything else goes to the workers that are connected. The broker knows them, so a call ends
when all have answered, and `timeout` is only the longest it may take. Replies have Celery's shapes.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, overload

from qbroker import _state, envelope, serialization
from qbroker.envelope import STAGES
from qbroker.exceptions import DuplicateNodenameWarning, MalformedAnswer, NotFound
from qbroker.result import Explanation
from qbroker.serialization import Value

if TYPE_CHECKING:
    from qbroker.client import BroadcastReply, Client, RevokeReply

__all__ = ["Control", "Gathered", "Inspect", "Revoked", "flatten_reply"]

Replies: TypeAlias = list[dict[str, Value]] | None
"""A dict for each worker that answered, with its name and its answer; None when none did."""

TIMEOUT_S = 1.0
"""How long workers may take where nobody says."""

_JSON = frozenset({"application/json"})


@dataclass(frozen=True, slots=True)
class Revoked:
    """What became of the tasks that were revoked, by their ids."""

    ended: tuple[str, ...]
    """Waited, or were unknown: they never run."""
    told: tuple[str, ...]
    """Are with a worker, which was told."""
    late: tuple[str, ...]
    """Had ended before."""


@dataclass(slots=True)
class Gathered:
    """What workers answered, in the order in which they did."""

    replies: list[dict[str, Value]] = field(default_factory=list)
    """A dict for each: node name and answer."""
    missing: list[str] = field(default_factory=list)
    """Node names of those that are connected and did not answer in time."""


def flatten_reply(reply: Iterable[Mapping[str, Value]]) -> dict[str, Value]:
    """One dict of many: [{"a@host": 1}, {"b@host": 2}] becomes {"a@host": 1, "b@host": 2}."""
    nodes: dict[str, Value] = {}
    twice: set[str] = set()
    for item in reply:
        twice |= nodes.keys() & item.keys()
        nodes.update(item)
    if twice:
        warnings.warn(
            DuplicateNodenameWarning(
                f"More than one worker is called {', '.join(sorted(twice))}; only one answer of each "
                "is kept. Give each worker a name of its own with -n."
            ),
            stacklevel=2,
        )
    return nodes


class Inspect:
    """Questions to workers. Each answers {node name: answer}, or None when nobody answered."""

    app: Value = None

    def __init__(
        self,
        destination: str | Sequence[str] | None = None,
        timeout: float | None = TIMEOUT_S,
        callback: Callable[[dict[str, Value]], Value] | None = None,
        connection: Value = None,
        app: Value = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> None:
        self.app = app or self.app or _state.get_current_app()
        self.destination = destination
        self.timeout = timeout
        self.callback = callback
        self.connection = connection
        self.limit = limit
        self.pattern = pattern
        self.matcher = matcher

    def _request(self, command: str, **kwargs: Value) -> Value:
        replies = self.app.control.broadcast(
            command,
            arguments=kwargs,
            destination=self.destination,
            callback=self.callback,
            connection=self.connection,
            limit=self.limit,
            timeout=self.timeout,
            reply=True,
            pattern=self.pattern,
            matcher=self.matcher,
        )
        return self._prepare(replies)

    def _prepare(self, reply: Sequence[Mapping[str, Value]] | None) -> Value:
        if not reply:
            return None
        by_node = flatten_reply(reply)
        # Who asks one worker by its name is answered without it.
        return by_node.get(self.destination) if isinstance(self.destination, str) else by_node

    def ping(self, destination: str | Sequence[str] | None = None) -> Value:
        """{"ok": "pong"} of each."""
        if destination:
            self.destination = destination
        return self._request("ping")

    def active(self, safe: bool | None = None) -> Value:  # noqa: FBT001 - Celery's signature
        """Tasks that run now; with `safe`, their arguments as text."""
        return self._request("active", safe=safe)

    def reserved(self, safe: bool | None = None) -> Value:  # noqa: FBT001 - Celery's signature
        """Tasks the worker has and has not begun."""
        return self._request("reserved")

    def scheduled(self, safe: bool | None = None) -> Value:  # noqa: FBT001 - Celery's signature
        """Tasks that wait for their time, each with the first worker that may run it."""
        return self._request("scheduled")

    def revoked(self) -> Value:
        """Ids of revoked tasks."""
        return self._request("revoked")

    def registered(self, *taskinfoitems: str) -> Value:
        """Names of the tasks each knows, with these attributes: "add [max_retries=3]"."""
        return self._request("registered", taskinfoitems=taskinfoitems)

    registered_tasks = registered

    def stats(self) -> Value:
        """What each has done and is made of."""
        return self._request("stats")

    def active_queues(self) -> Value:
        """The queues each takes from."""
        return self._request("active_queues")

    def query_task(self, *ids: Value) -> Value:
        """{id: ["active" or "reserved", what the task is]} for those ids that are with the worker."""
        if len(ids) == 1 and isinstance(ids[0], list | tuple):
            ids = tuple(ids[0])
        return self._request("query_task", ids=ids)

    def conf(self, with_defaults: bool = False) -> Value:  # noqa: FBT001, FBT002 - Celery's signature
        """Settings of each; those that were set, or all."""
        return self._request("conf", with_defaults=with_defaults)

    def report(self) -> Value:
        """What to paste into a bug report."""
        return self._request("report")

    def clock(self) -> Value:
        """{"clock": the number of the last event}."""
        return self._request("clock")

    def hello(self, from_node: str, revoked: Value = None) -> Value:
        """{"revoked": ids, "clock": …} of each worker but that of the name. The broker knows, and merges nothing."""
        return self._request("hello", from_node=from_node, revoked=revoked)

    def memsample(self) -> Value:
        """The memory each worker's main process has."""
        return self._request("memsample")

    def memdump(self, samples: int = 10) -> Value:
        """What `memsample` has found so far."""
        return self._request("memdump", samples=samples)

    def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> Value:  # noqa: A002 - Celery's signature
        """Answered with an error: the process that is asked runs no tasks."""
        return self._request("objgraph", num=n, max_depth=max_depth, type=type)


class Control:
    """What an app can have done with tasks, and ask of its workers."""

    def __init__(
        self,
        client: "Callable[[], Client]",
        queues: Callable[[], Iterable[str]],
        accepted: Callable[[], frozenset[str]] = lambda: _JSON,
    ) -> None:
        self._client = client
        self._queues = queues
        self._accepted = accepted

    # -- asking workers

    @property
    def inspect(self) -> Callable[..., Inspect]:
        """Questions: `app.control.inspect(destination=[…], timeout=2).active()`."""
        control = self

        class Bound(Inspect):
            app = _Asker(control)

        Bound.__name__ = Bound.__qualname__ = "Inspect"
        return Bound

    def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Value] | None = None,
        destination: str | Sequence[str] | None = None,
        connection: Value = None,
        reply: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        timeout: float | None = TIMEOUT_S,
        limit: int | None = None,
        callback: Callable[[dict[str, Value]], Value] | None = None,
        channel: Value = None,
        pattern: str | None = None,
        matcher: str | None = None,
        **extra_kwargs: Value,
    ) -> Replies:
        """Send a command to workers: all, those named, or those whose name fits the pattern ("glob" or "pcre").

        With `reply`, answers [{node name: answer}, …], empty when nobody answered; else None at once.
        """
        keywords = {**(arguments or {}), **extra_kwargs}
        gathered = self.gather(
            command,
            keywords,
            destination=destination,
            reply=reply,
            timeout=timeout,
            limit=limit,
            callback=callback,
            pattern=pattern,
            matcher=matcher,
        )
        return gathered.replies if reply else None

    def gather(
        self,
        command: str,
        arguments: Mapping[str, Value] | None = None,
        *,
        words: Sequence[str] = (),
        destination: str | Sequence[str] | None = None,
        reply: bool = True,
        timeout: float | None = TIMEOUT_S,
        limit: int | None = None,
        callback: Callable[[dict[str, Value]], Value] | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> Gathered:
        """Do the same, and tell also who did not answer. `words` are arguments whose names the worker knows."""
        order = _ORDERS.get(command)
        answer: Value = None
        if order is not None:
            answer = order(self, **(arguments or {}))
            if not reply:
                return Gathered()
            # It is done; what is asked is only who there is to have heard of it.
            command, arguments = "ping", None
        elif command == "add_consumer" and arguments and arguments.get("exchange"):
            self._bind(**arguments)
        names = [destination] if isinstance(destination, str) else list(destination or ())
        gathered = Gathered()
        for said in self._client().broadcast(
            command,
            serialization.json_encode(arguments) if arguments else b"",
            words=words,
            destination=names,
            pattern=pattern or "",
            matcher=matcher or "",
            timeout_s=TIMEOUT_S if timeout is None else timeout,
            limit=limit or 0,
            is_silent=not reply,
        ):
            if said.is_missing:
                gathered.missing.append(said.worker)
                continue
            value = self._value_of(command, said) if answer is None else answer
            one = {said.worker: value}
            gathered.replies.append(one)
            if callback is not None:
                callback(one)
        return gathered

    def _bind(
        self,
        queue: str,
        exchange: str,
        exchange_type: str | None = None,
        routing_key: str | None = None,
        **_: Value,
    ) -> None:
        """Have the queue get what its new consumers are to take: how that is routed is the broker's."""
        self._client().bind_queue(queue, exchange, exchange_type or "direct", routing_key or queue)

    def _value_of(self, command: str, said: "BroadcastReply") -> Value:
        has_eta = command in ("scheduled", "dump_schedule")
        try:
            if said.has_messages:
                return list(self._infos(said, has_eta=has_eta))
            value = serialization.json_decode(said.body)
        except Exception as exc:
            # Whatever it is: the bytes are another program's.
            raise MalformedAnswer(
                f"worker {said.worker!r} answered {command!r} with {len(said.body)} bytes that are "
                f"not valid JSON: {said.body[:60]!r}"
            ) from exc
        if command in _STRUCTURED and not isinstance(value, list | dict):
            raise MalformedAnswer(
                f"worker {said.worker!r} answered {command!r} with {said.body[:60]!r}; "
                "it must be a JSON list or object"
            )
        return value

    def _infos(self, said: "BroadcastReply", *, has_eta: bool) -> Iterator[dict[str, Value]]:
        accepted = self._accepted()
        for one in said.messages:
            info = envelope.task_info(
                one.message, accepted, hostname=said.worker, redelivered=one.is_redelivered
            )
            if not has_eta:
                yield info
                continue
            eta, priority = envelope.iso(one.eta_ms), info["delivery_info"]["priority"]
            yield {"eta": eta, "priority": priority, "request": info}

    def ping(
        self,
        destination: str | Sequence[str] | None = None,
        timeout: float = TIMEOUT_S,
        **kwargs: Value,
    ) -> Replies:
        """[{node name: {"ok": "pong"}}, …]."""
        return self.broadcast("ping", None, destination, reply=True, timeout=timeout, **kwargs)

    # -- changing workers

    def _send(
        self, command: str, destination: Value, kwargs: Mapping[str, Value], **arguments: Value
    ) -> Replies:
        return self.broadcast(command, arguments, destination, **kwargs)

    def rate_limit(
        self, task_name: str, rate_limit: Value, destination: Value = None, **kwargs: Value
    ) -> Replies:
        """Change how often tasks of a name may start on each worker: 10, "100/m", or 0 for any."""
        return self._send(
            "rate_limit", destination, kwargs, task_name=task_name, rate_limit=rate_limit
        )

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Value = None,
        **kwargs: Value,
    ) -> Replies:
        """Change how long tasks of a name may run, in seconds."""
        return self._send(
            "time_limit", destination, kwargs, task_name=task_name, hard=hard, soft=soft
        )

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: Mapping[str, Value] | None = None,
        destination: Value = None,
        **kwargs: Value,
    ) -> Replies:
        """Have workers take from another queue too."""
        return self._send(
            "add_consumer",
            destination,
            kwargs,
            **{
                "queue": queue,
                "exchange": exchange,
                "exchange_type": exchange_type,
                "routing_key": routing_key,
                **(options or {}),
            },
        )

    def cancel_consumer(self, queue: str, destination: Value = None, **kwargs: Value) -> Replies:
        """Have workers take from a queue no more."""
        return self._send("cancel_consumer", destination, kwargs, queue=queue)

    def pool_grow(self, n: int = 1, destination: Value = None, **kwargs: Value) -> Replies:
        """Have workers run `n` more tasks at once."""
        return self._send("pool_grow", destination, kwargs, n=n)

    def pool_shrink(self, n: int = 1, destination: Value = None, **kwargs: Value) -> Replies:
        """Have workers run `n` fewer tasks at once."""
        return self._send("pool_shrink", destination, kwargs, n=n)

    def pool_restart(
        self,
        modules: Sequence[str] | None = None,
        reload: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        reloader: Value = None,
        destination: Value = None,
        **kwargs: Value,
    ) -> Replies:
        """Have workers replace the processes that run tasks."""
        return self._send(
            "pool_restart", destination, kwargs, modules=modules, reload=reload, reloader=reloader
        )

    def autoscale(
        self,
        max: int,  # noqa: A002 - Celery's name
        min: int,  # noqa: A002 - Celery's name
        destination: Value = None,
        **kwargs: Value,
    ) -> Replies:
        """Change between how many tasks at once workers scale."""
        return self._send("autoscale", destination, kwargs, max=max, min=min)

    def enable_events(self, destination: Value = None, **kwargs: Value) -> Replies:
        """Have workers tell what becomes of each task."""
        return self._send("enable_events", destination, kwargs)

    def disable_events(self, destination: Value = None, **kwargs: Value) -> Replies:
        """Have them stop."""
        return self._send("disable_events", destination, kwargs)

    def heartbeat(self, destination: Value = None, **kwargs: Value) -> Replies:
        """Have workers send a heartbeat now."""
        return self._send("heartbeat", destination, kwargs)

    def shutdown(self, destination: Value = None, **kwargs: Value) -> Replies:
        """Have workers finish what runs, and end."""
        return self._send("shutdown", destination, kwargs)

    # -- tasks

    @overload
    def revoke(
        self,
        task_id: str | Iterable[str],
        destination: Value = None,
        terminate: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        signal: str = "SIGTERM",
        *,
        reply: Literal[True],
        **kwargs: Value,
    ) -> Replies: ...
    @overload
    def revoke(
        self,
        task_id: str | Iterable[str],
        destination: Value = None,
        terminate: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        signal: str = "SIGTERM",
        *,
        reply: bool = False,
        **kwargs: Value,
    ) -> Revoked: ...
    def revoke(
        self,
        task_id: str | Iterable[str],
        destination: Value = None,
        terminate: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        signal: str = "SIGTERM",
        *,
        reply: bool = False,
        **kwargs: Value,
    ) -> Revoked | Replies:
        """Have tasks not run: one id or many. With `terminate`, end those that run, by the signal.

        An id that is not known yet is remembered: what is published with it later is not run. Answers what became
        of them; with `reply=True` what Celery's workers would say. No worker is singled out: `destination` says only
        whose replies are wanted.
        """
        if reply:
            ids = [task_id] if isinstance(task_id, str) else list(task_id)
            arguments = {"task_id": ids, "terminate": terminate, "signal": signal}
            return self.broadcast("revoke", arguments, destination, **_replying(kwargs))
        return self._revoke(task_id, terminate=terminate, signal=signal)

    def _revoke(
        self, task_id: str | Iterable[str], *, terminate: bool, signal: str | None
    ) -> Revoked:
        ids = [task_id] if isinstance(task_id, str) else [str(one) for one in task_id]
        return _revoked(
            self._client().revoke(ids, terminate=terminate, signal=_name_of(signal or "SIGTERM"))
        )

    @overload
    def terminate(
        self,
        task_id: str | Iterable[str],
        destination: Value = None,
        signal: str = "SIGTERM",
        *,
        reply: Literal[True],
        **kwargs: Value,
    ) -> Replies: ...
    @overload
    def terminate(
        self,
        task_id: str | Iterable[str],
        destination: Value = None,
        signal: str = "SIGTERM",
        *,
        reply: bool = False,
        **kwargs: Value,
    ) -> Revoked: ...
    def terminate(
        self,
        task_id: str | Iterable[str],
        destination: Value = None,
        signal: str = "SIGTERM",
        *,
        reply: bool = False,
        **kwargs: Value,
    ) -> Revoked | Replies:
        """Revoke tasks, and end those that run."""
        if reply:
            return self.revoke(task_id, destination, True, signal, reply=True, **kwargs)  # noqa: FBT003 - terminate
        return self.revoke(task_id, destination, True, signal)  # noqa: FBT003 - terminate

    @overload
    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Value] | Iterable[str],
        destination: Value = None,
        terminate: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        signal: str = "SIGTERM",
        *,
        reply: Literal[True],
        **kwargs: Value,
    ) -> Replies: ...
    @overload
    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Value] | Iterable[str],
        destination: Value = None,
        terminate: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        signal: str = "SIGTERM",
        *,
        reply: bool = False,
        **kwargs: Value,
    ) -> Revoked: ...
    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Value] | Iterable[str],
        destination: Value = None,
        terminate: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        signal: str = "SIGTERM",
        *,
        reply: bool = False,
        **kwargs: Value,
    ) -> Revoked | Replies:
        """Revoke the tasks with any of these stamps or labels: {"customer": 42}, {"day": ["mo", "tu"]}, ["day=mo"].

        It reaches the tasks that are there now. What is published later with such a label is run.
        """
        if reply:
            arguments = {"headers": headers, "terminate": terminate, "signal": signal}
            return self.broadcast(
                "revoke_by_stamped_headers", arguments, destination, **_replying(kwargs)
            )
        return self._revoke_labels(headers, terminate=terminate, signal=signal)

    def _revoke_labels(
        self,
        headers: Mapping[str, Value] | Iterable[str],
        *,
        terminate: bool,
        signal: str | None,
    ) -> Revoked:
        labels: list[str] = []
        if isinstance(headers, Mapping):
            for name, value in headers.items():
                values = value if isinstance(value, list | tuple | set | frozenset) else (value,)
                labels += [f"{name}={one}" for one in values]
        else:
            labels += [headers] if isinstance(headers, str) else headers
        reply = self._client().revoke(
            labels=labels, terminate=terminate, signal=_name_of(signal or "SIGTERM")
        )
        return _revoked(reply)

    def purge(self, connection: Value = None) -> int:
        """Throw away what waits in the queues the app takes from; answers how many messages that were."""
        count = 0
        for name in self._queues():
            with contextlib.suppress(NotFound):
                count += self._client().purge_queue(name)
        return count

    discard_all = purge

    def election(
        self,
        id: str,  # noqa: A002 - Celery's name
        topic: str,
        action: Value = None,
        connection: Value = None,
    ) -> None:
        """Nothing: workers need not agree on who does something, for the broker says."""

    def explain(self, task_id: str) -> Explanation:
        """Where a task is and why, in a sentence."""
        reply = self._client().explain(task_id)
        return Explanation(
            STAGES[reply.stage] if 0 <= reply.stage < len(STAGES) else STAGES[0], reply.sentence
        )


def _name_of(signal: Value) -> str:
    """A signal by its name, also where it came as Celery lets it: 'TERM', or signal.SIGTERM."""
    name = str(getattr(signal, "name", signal))
    return name if name.startswith("SIG") else f"SIG{name}"


def _replying(kwargs: Mapping[str, Value]) -> dict[str, Value]:
    """What `broadcast` takes of the keywords of an order, some of which are ours alone."""
    known = ("timeout", "limit", "callback", "pattern", "matcher")
    return {"reply": True} | {name: kwargs[name] for name in known if name in kwargs}


def _revoked(reply: "RevokeReply") -> Revoked:
    return Revoked(tuple(reply.ended), tuple(reply.told), tuple(reply.late))


# -- orders the broker carries out, in the words of Celery's workers -------------------------------


def _order_revoke(
    control: Control,
    task_id: str | Iterable[str] = (),
    terminate: bool = False,  # noqa: FBT001, FBT002 - Celery's argument
    signal: str | None = None,
    **_: Value,
) -> Value:
    ids = [task_id] if isinstance(task_id, str) else list(task_id)
    revoked = control._revoke(ids, terminate=terminate, signal=signal)  # noqa: SLF001 - one module
    if not terminate:
        return {"ok": f"tasks {set(ids)} flagged as revoked"}
    if not revoked.told:
        return {"ok": "terminate: tasks unknown"}
    return {"ok": f"terminate: {', '.join(revoked.told)}"}


def _order_terminate(
    control: Control, signal: str | None = None, task_id: str | Iterable[str] = (), **_: Value
) -> Value:
    return _order_revoke(control, task_id, terminate=True, signal=signal)


def _order_revoke_by_stamped_headers(
    control: Control,
    headers: Mapping[str, Value] | Iterable[str] = (),
    terminate: bool = False,  # noqa: FBT001, FBT002 - Celery's argument
    signal: str | None = None,
    **_: Value,
) -> Value:
    revoked = control._revoke_labels(headers, terminate=terminate, signal=signal)  # noqa: SLF001 - one module
    if not isinstance(headers, Mapping):
        headers = dict(one.partition("=")[::2] for one in headers)
    if not terminate:
        return {"ok": f"headers {headers} flagged as revoked, but not terminated"}
    if not revoked.told:
        return {"ok": f"headers {headers} were not terminated"}
    return {"ok": f"headers {headers} revoked"}


_STRUCTURED = frozenset(
    {
        "active",
        "active_queues",
        "clock",
        "conf",
        "ping",
        "query_task",
        "registered",
        "report",
        "reserved",
        "revoked",
        "scheduled",
        "stats",
    }
)
"""Questions whose answers are lists or objects, whatever commands of the same names an app has added."""

_ORDERS: dict[str, Callable[..., Value]] = {
    "revoke": _order_revoke,
    "revoke_by_stamped_headers": _order_revoke_by_stamped_headers,
    "terminate": _order_terminate,
}


@dataclass(frozen=True, slots=True)
class _Asker:
    """What `Inspect` needs of an app."""

    control: Control
