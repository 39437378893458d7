"""`app.amqp`: the app's queues, where its calls go, and what the broker must have for that.

`task_queues` says which queues there are beyond those that come into being with their first message. What a queue
needs (its exchange, its bindings, its options) is declared at the broker when the first call for it is made on
a connection, and by each worker that takes from it.
"""

import json
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from qbroker.app.config import Settings
from qbroker.app.routes import Router
from qbroker.exceptions import QueueNotFound
from qbroker.messaging import Exchange, Queue, binding
from qbroker.serialization import Value

if TYPE_CHECKING:
    from qbroker.client import Client
    from qbroker_proto.v1.admin_pb2 import Topology

__all__ = ["AMQP", "Place", "Queues", "topology_of"]

SETTINGS = frozenset(
    [
        "task_create_missing_queues",
        "task_default_exchange",
        "task_default_exchange_type",
        "task_default_queue",
        "task_default_routing_key",
        "task_queues",
        "task_routes",
    ]
)
"""Settings that change what is here."""


class Place(NamedTuple):
    """Where a message goes: to a queue by name, or to an exchange; and the queues to be declared before."""

    queue: str
    exchange: str
    routing_key: str
    declares: tuple[Queue, ...]


class Queues(dict[str, Queue]):
    """Queues by name. One that is not there is made when it is asked for, unless `create_missing` is False."""

    def __init__(
        self,
        queues: Value = None,
        default_exchange: Exchange | None = None,
        create_missing: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        default_routing_key: str | None = None,
        **more: Value,
    ) -> None:
        super().__init__()
        del more
        self.aliases: dict[str, str] = {}
        self.declared: set[str] = set()
        """Those that somebody described; all others are only names."""
        self.default_exchange = default_exchange
        self.default_routing_key = default_routing_key
        self.create_missing = create_missing
        self._consume_from: dict[str, Queue] | None = None
        entries = queues.items() if isinstance(queues, Mapping) else (("", q) for q in queues or ())
        for name, queue in entries:
            if isinstance(queue, Queue | str):
                self.add(queue)
            else:
                self.add(name, **queue)
        self._default_consume_from = dict(self)

    def __getitem__(self, name: str) -> Queue:
        return super().__getitem__(self.aliases.get(name, name))

    def __missing__(self, name: str) -> Queue:
        if not self.create_missing:
            raise KeyError(name)
        queue = Queue(name, Exchange(name), name)
        super().__setitem__(name, queue)
        return queue

    def __setitem__(self, name: str, queue: Queue) -> None:
        if self.default_exchange is not None and not queue.exchange:
            queue.exchange = self.default_exchange
        if not queue.routing_key:
            queue.routing_key = self.default_routing_key or ""
        super().__setitem__(name, queue)
        self.declared.add(name)
        if queue.alias:
            self.aliases[queue.alias] = name

    def add(self, queue: Queue | str, **options: Value) -> Queue:
        """Add a queue, or by its name one with options: exchange, exchange_type, routing_key and more."""
        if isinstance(queue, str):
            options.setdefault("routing_key", options.pop("binding_key", None) or queue)
            queue = Queue.from_dict(queue, **options)
        self[queue.name] = queue
        return queue

    def select(self, include: Iterable[str] | str | None) -> None:
        """Have a worker take from these only."""
        if include:
            found = [self[name] for name in ([include] if isinstance(include, str) else include)]
            self._consume_from = {queue.name: queue for queue in found}

    def select_add(self, queue: Queue | str, **options: Value) -> Queue:
        """Have it take from this one too."""
        added = self.add(queue, **options)
        chosen = self._default_consume_from if self._consume_from is None else self._consume_from
        chosen[added.name] = added
        return added

    def deselect(self, exclude: Iterable[str] | str | None) -> None:
        """Have it take from all but these."""
        names = [exclude] if isinstance(exclude, str) else exclude or ()
        chosen = self._default_consume_from if self._consume_from is None else self._consume_from
        for name in names:
            chosen.pop(self.aliases.get(name, name), None)

    @property
    def consume_from(self) -> dict[str, Queue]:
        """The queues that a worker takes from."""
        return self._default_consume_from if self._consume_from is None else self._consume_from

    def format(self, indent: int = 0, indent_first: bool = True) -> str:  # noqa: FBT001, FBT002 - Celery's signature
        """The queues that a worker takes from, a line each."""
        lines = [
            f".> {queue.name:<16} exchange={queue.exchange}"
            f"({queue.exchange.type if queue.exchange else 'direct'}) key={queue.routing_key}"
            for _, queue in sorted(self.consume_from.items())
        ]
        text = f"\n{' ' * indent}".join(lines)
        return " " * indent + text if indent_first and text else text


class AMQP:
    """An app's queues and routes."""

    def __init__(
        self, conf: Callable[[], Settings], tasks: Callable[[], Mapping[str, Value]] = dict
    ) -> None:
        self._conf = conf
        self._tasks = tasks
        self._lock = threading.RLock()
        self._queues: Queues | None = None
        self._router: Router | None = None
        self._declared: weakref.WeakKeyDictionary[Client, set[str]] = weakref.WeakKeyDictionary()

    def forget(self) -> None:
        """Settings were changed: look at them again."""
        self._queues = self._router = None

    @property
    def default_exchange(self) -> Exchange:
        """Where queues are bound that name no exchange."""
        conf = self._conf()
        return Exchange(
            conf.task_default_exchange or conf.task_default_queue, conf.task_default_exchange_type
        )

    @property
    def queues(self) -> Queues:
        """All queues by name."""
        with self._lock:
            if self._queues is None:
                conf = self._conf()
                default_key = conf.task_default_routing_key or conf.task_default_queue
                queues = conf.task_queues
                if not queues:
                    queues = [Queue(conf.task_default_queue, self.default_exchange, default_key)]
                self._queues = Queues(
                    queues,
                    self.default_exchange,
                    conf.task_create_missing_queues,
                    default_key,
                )
                if not conf.task_queues and self.default_exchange.type == "direct":
                    # It is only a name, as any queue that nobody described.
                    self._queues.declared.clear()
            return self._queues

    @property
    def router(self) -> Router:
        """What `task_routes` says."""
        with self._lock:
            if self._router is None:
                self._router = Router(self._conf().task_routes)
            return self._router

    def place(self, queue: Value, exchange: Value, routing_key: str | None) -> Place:
        """Where a call with these options goes. QueueNotFound: the queue is not configured."""
        queues = self.queues
        name = exchange if isinstance(exchange, str) else getattr(exchange, "name", "")
        if name:
            declares = tuple(queues[one] for one in sorted(queues.declared))
            key = routing_key or (queue.routing_key if isinstance(queue, Queue) else "")
            own = Queue("", exchange) if isinstance(exchange, Exchange) else None
            return Place("", name, key, declares if own is None else (*declares, own))
        if isinstance(queue, Queue):
            chosen = queue
            declares = (queue,)
        else:
            wanted = (queue if isinstance(queue, str) else getattr(queue, "name", "")) or (
                routing_key if exchange == "" and routing_key else self._conf().task_default_queue
            )
            try:
                chosen = queues[wanted]
            except KeyError:
                raise QueueNotFound(
                    f"Queue {wanted!r} missing from task_queues, and task_create_missing_queues is False; "
                    f"there are {sorted(queues)}"
                ) from None
            declares = (chosen,) if chosen.name in queues.declared else ()
        if chosen.is_direct:
            return Place(chosen.name, "", "", declares)
        assert chosen.exchange is not None, "a queue without one is direct"
        # Other queues that are bound to the exchange get the message too, even before their workers have started.
        described = [queues[one] for one in sorted(queues.declared)]
        if chosen not in described:
            described.append(chosen)
        key = routing_key or chosen.routing_key
        return Place("", chosen.exchange.name, key, tuple(described))

    def explain(self, name: str, options: Mapping[str, Value]) -> tuple[str, str, str, str]:
        """Where a call of a task with these options goes: queue, exchange and key, and by which rule, in words."""
        task = self._tasks().get(name)
        merged = self.router.route(options, name, (), {}, task)
        by_task = {one: getattr(task, one, None) for one in ("queue", "exchange", "routing_key")}
        if any(options.get(one) for one in by_task):
            rule = "as the call says"
        elif any(by_task.values()):
            rule = "by the task's attributes"
        else:
            rule = self.router.rule(name)
        queue, exchange, key = (merged.get(one) or by_task[one] for one in by_task)
        place = self.place(queue, exchange, key)
        return place.queue, place.exchange, place.routing_key, rule

    def missing(self, client: "Client", queues: Iterable[Queue]) -> list[Queue]:
        """Those that were not declared on this connection yet."""
        with self._lock:
            known = self._declared.setdefault(client, set())
            return [queue for queue in queues if _name_of(queue) not in known]

    def declare(self, client: "Client", queues: Iterable[Queue]) -> None:
        """Have the broker make what these queues need. Conflict: it is there, and otherwise."""
        missing = self.missing(client, queues)
        if not missing:
            return
        client.declare_topology(topology_of(missing))
        with self._lock:
            self._declared[client].update(_name_of(queue) for queue in missing)


def _name_of(queue: Queue) -> str:
    return queue.name or f"exchange {queue.exchange}"


def topology_of(queues: Iterable[Queue], *, for_worker: bool = False) -> "Topology":
    """What the broker must have for these queues.

    A queue that goes with its worker is made by the worker alone: a caller needs only its exchange.
    """
    # Programs that have no such queues do without it.
    from qbroker_proto.v1.admin_pb2 import QueueDeclaration, QueueOptions, Topology  # noqa: PLC0415

    found = Topology()
    exchanges: dict[str, Exchange] = {}
    for queue in queues:
        ways = queue.ways()
        if queue.exchange is not None:
            _gather(exchanges, queue.exchange)
        for way in ways:
            _gather(exchanges, way.exchange)
        if not queue.name or queue.no_declare or (queue.auto_delete and not for_worker):
            continue
        declared = QueueDeclaration(name=queue.name, is_auto_delete=queue.auto_delete)
        options = queue.options()
        if options:
            declared.options.CopyFrom(QueueOptions(**options))  # type: ignore[arg-type] # the broker's names
        found.queues.append(declared)
        for way in ways:
            if way.exchange.name:
                _add_binding(found, way, queue.name, is_to_exchange=False)
    for exchange in exchanges.values():
        if (
            not exchange.no_declare
            and not exchange.passive
            and not exchange.name.startswith("amq.")
        ):
            found.exchanges.add(
                name=exchange.name,
                type=exchange.type,
                is_auto_delete=exchange.auto_delete,
                alternate=exchange.alternate,
            )
        for way in exchange.bindings:
            _add_binding(found, way, exchange.name, is_to_exchange=True)
    return found


def _gather(exchanges: dict[str, Exchange], exchange: Exchange) -> None:
    """The exchange, and those that it is bound to."""
    if exchange.name and exchange.name not in exchanges:
        exchanges[exchange.name] = exchange
        for way in exchange.bindings:
            _gather(exchanges, way.exchange)


def _add_binding(
    found: "Topology", way: binding, destination: str, *, is_to_exchange: bool
) -> None:
    found.bindings.add(
        exchange=way.exchange.name,
        destination=destination,
        routing_key=way.routing_key,
        is_to_exchange=is_to_exchange,
        arguments=json.dumps(way.arguments) if way.arguments else "",
    )
