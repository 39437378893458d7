"""Queues and exchanges as programs name them: what kombu gives Celery's users.

    Queue("images", Exchange("media", type="topic"), routing_key="image.#")

They are values: nothing is asked of a broker before a message is sent or a worker starts, and then what is missing is
declared. Every queue here is durable, whatever `durable` and `delivery_mode` say.
"""

from collections.abc import Iterable, Mapping

from qbroker.exceptions import ImproperlyConfigured
from qbroker.serialization import Value

__all__ = ["Broadcast", "Exchange", "Queue", "binding"]

TYPES = ("direct", "topic", "fanout", "headers")


class Exchange:
    """A place that passes messages on to queues, by the rule of its type.

    `arguments` may name an `alternate-exchange`, which gets what no binding takes.
    """

    def __init__(
        self,
        name: str = "",
        type: str = "",  # noqa: A002 - kombu's name
        channel: Value = None,
        durable: bool = True,  # noqa: FBT001, FBT002 - kombu's signature
        auto_delete: bool = False,  # noqa: FBT001, FBT002 - kombu's signature
        delivery_mode: Value = None,
        arguments: Mapping[str, Value] | None = None,
        passive: bool = False,  # noqa: FBT001, FBT002 - kombu's signature
        no_declare: bool = False,  # noqa: FBT001, FBT002 - kombu's signature
        **more: Value,
    ) -> None:
        del channel, more
        self.name = name
        self.type = type or "direct"
        if self.type not in TYPES:
            raise ImproperlyConfigured(
                f"exchange {name!r} is of the type {self.type!r}; there are {', '.join(TYPES)}"
            )
        self.durable = durable
        self.auto_delete = auto_delete
        self.delivery_mode = delivery_mode
        self.arguments = dict(arguments or {})
        self.passive = passive
        self.no_declare = no_declare
        self.bindings: list[binding] = []

    @property
    def alternate(self) -> str:
        """The exchange that gets what no binding takes; "": there is none."""
        return str(self.arguments.get("alternate-exchange") or "")

    def bind_to(
        self,
        exchange: "Exchange | str" = "",
        routing_key: str = "",
        arguments: Mapping[str, Value] | None = None,
        **more: Value,
    ) -> "Exchange":
        """Have this exchange get messages from another one; answers this one."""
        del more
        source = exchange if isinstance(exchange, Exchange) else Exchange(exchange)
        self.bindings.append(binding(source, routing_key, arguments))
        return self

    def __bool__(self) -> bool:
        return bool(self.name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Exchange):
            return NotImplemented
        mine = (self.name, self.type, self.auto_delete, self.arguments)
        return mine == (other.name, other.type, other.auto_delete, other.arguments)

    def __hash__(self) -> int:
        return hash((self.name, self.type))

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<Exchange {self.name!r}({self.type})>"


class binding:  # noqa: N801 - kombu's name
    """A way from an exchange to the queue that has it among its `bindings`."""

    def __init__(
        self,
        exchange: Exchange | str | None = None,
        routing_key: str = "",
        arguments: Mapping[str, Value] | None = None,
        unbind_arguments: Mapping[str, Value] | None = None,
    ) -> None:
        del unbind_arguments
        self.exchange = exchange if isinstance(exchange, Exchange) else Exchange(exchange or "")
        self.routing_key = routing_key
        self.arguments = dict(arguments or {})

    def __repr__(self) -> str:
        return f"<binding: {self.exchange.name}->{self.routing_key}>"


_OPTIONS: Mapping[str, tuple[str, str]] = {
    "expires": ("x-expires", "expires_ms"),
    "message_ttl": ("x-message-ttl", "message_ttl_ms"),
    "max_length": ("x-max-length", "length_max"),
    "max_length_bytes": ("x-max-length-bytes", "bytes_max"),
}
"""Arguments of a queue: AMQP's name and the broker's. Times are seconds in Python, milliseconds in both others."""

_OVERFLOWS = {
    "drop-head": "drop-head",
    "reject-publish": "reject",
    "reject-publish-dlx": "reject",
    "dead-letter": "dead-letter",
}


class Queue:
    """A place where messages wait, and the ways by which they come there."""

    def __init__(
        self,
        name: str = "",
        exchange: Exchange | str | None = None,
        routing_key: str = "",
        channel: Value = None,
        bindings: Iterable[binding] | None = None,
        on_declared: Value = None,
        *,
        alias: str | None = None,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        no_ack: bool = False,
        no_declare: bool = False,
        queue_arguments: Mapping[str, Value] | None = None,
        binding_arguments: Mapping[str, Value] | None = None,
        consumer_arguments: Mapping[str, Value] | None = None,
        expires: float | None = None,
        message_ttl: float | None = None,
        max_length: int | None = None,
        max_length_bytes: int | None = None,
        max_priority: int | None = None,
        **more: Value,
    ) -> None:
        del channel, on_declared
        self.name = name
        if isinstance(exchange, str):
            exchange = Exchange(exchange, type=more.pop("exchange_type", ""))
        self.exchange: Exchange | None = exchange
        self.routing_key = routing_key
        self.bindings = list(bindings or ())
        self.alias = alias
        self.durable = durable
        self.exclusive = exclusive
        self.auto_delete = auto_delete or exclusive
        self.no_ack = no_ack
        self.no_declare = no_declare
        self.queue_arguments = None if queue_arguments is None else dict(queue_arguments)
        self.binding_arguments = dict(binding_arguments or {})
        self.consumer_arguments = dict(consumer_arguments or {})
        self.expires = expires
        self.message_ttl = message_ttl
        self.max_length = max_length
        self.max_length_bytes = max_length_bytes
        self.max_priority = max_priority

    @classmethod
    def from_dict(cls, queue: str, **options: Value) -> "Queue":
        """A queue from the words of `task_queues` as a dict: exchange, exchange_type, binding_key or routing_key and more."""
        key = options.pop("binding_key", None) or options.pop("routing_key", None) or ""
        options.pop("routing_key", None)
        exchange = options.pop("exchange", None)
        kind = options.pop("exchange_type", "") or ""
        if isinstance(exchange, str):
            exchange = Exchange(
                exchange,
                type=kind,
                auto_delete=options.pop("exchange_auto_delete", False),
                arguments=options.pop("exchange_arguments", None),
            )
        return cls(queue, exchange, key, **options)

    @property
    def is_direct(self) -> bool:
        """Whether a message for it goes by its name alone, as one for a direct exchange does."""
        return self.exchange is None or not self.exchange.name or self.exchange.type == "direct"

    def options(self) -> dict[str, int | str]:
        """What the broker is to declare it with, in the broker's words; empty: as it is."""
        arguments = self.queue_arguments or {}
        found: dict[str, int | str] = {}
        for name, (argument, option) in _OPTIONS.items():
            own = getattr(self, name)
            is_span = option.endswith("_ms")
            value = arguments.get(argument) if own is None else own * 1000 if is_span else own
            if value is not None:
                found[option] = int(value)
        overflow = arguments.get("x-overflow")
        if overflow is not None and overflow not in _OVERFLOWS:
            raise ImproperlyConfigured(
                f"x-overflow {overflow!r} of queue {self.name!r} must be one of {', '.join(_OVERFLOWS)}"
            )
        if overflow is not None or "length_max" in found or "bytes_max" in found:
            # A bounded queue of AMQP's drops its oldest, unless it is told otherwise.
            found["overflow"] = _OVERFLOWS[overflow or "drop-head"]
            if found["overflow"] == "drop-head" and "x-dead-letter-exchange" in arguments:
                found["overflow"] = "dead-letter"
        if "x-delivery-limit" in arguments:
            found["max_deliveries"] = int(arguments["x-delivery-limit"])
        return found

    def ways(self) -> list[binding]:
        """Every binding that it has, but that of its own name."""
        found = list(self.bindings)
        if self.exchange is not None and self.exchange.name:
            found.append(binding(self.exchange, self.routing_key, self.binding_arguments))
        return found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Queue):
            return NotImplemented
        mine = (self.name, self.exchange, self.routing_key, self.queue_arguments, self.auto_delete)
        return mine == (
            other.name,
            other.exchange,
            other.routing_key,
            other.queue_arguments,
            other.auto_delete,
        )

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        source = self.exchange.name if self.exchange is not None else ""
        return f"<Queue {self.name!r} -> {source!r} -> {self.routing_key!r}>"


class Broadcast(Queue):
    """A queue of this process's own, which gets everything that is sent to the exchange `name`.

    Every worker whose app has it in `task_queues` runs every message. The queue goes a while after its worker.
    """

    def __init__(
        self,
        name: str | None = None,
        queue: str | None = None,
        unique: bool = False,  # noqa: FBT001, FBT002 - kombu's signature
        auto_delete: bool = True,  # noqa: FBT001, FBT002 - kombu's signature
        exchange: Exchange | None = None,
        alias: str | None = None,
        **more: Value,
    ) -> None:
        # Which process it is shows first when it is known: a fork is another worker.
        own = f"{queue or 'bcast'}.{_token()}" if unique or queue is None else queue
        super().__init__(
            own,
            Exchange(name or "", type="fanout") if exchange is None else exchange,
            alias=alias or name,
            auto_delete=auto_delete,
            **more,
        )


def _token() -> str:
    import uuid  # noqa: PLC0415 - few programs broadcast

    return str(uuid.uuid1())
