"""What may be declared of exchanges, queues and bindings, and taken away again.

Declaring is idempotent, so every program declares what it needs when it starts; declaring a name with other
properties is a Conflict that says which differ, as in AMQP (PRECONDITION_FAILED). How messages find their way is in
routes.py.
"""

from dataclasses import dataclass, fields, replace

from qbroker_server.core import keys, queue, timetable
from qbroker_server.core.effects import Effects
from qbroker_server.core.errors import Conflict, Invalid, NotFound
from qbroker_server.core.limits import AUTO_DELETE_MS, BINDINGS_MAX
from qbroker_server.core.names import check_name
from qbroker_server.core.ports import Txn
from qbroker_server.core.records import QueueOptions
from qbroker_server.core.routes import BUILT_IN, Binding, Exchange, ExchangeType, encode, unbind

_MATCHES = ("all", "any", "all-with-x", "any-with-x")
_ARGUMENTS_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class QueueDeclaration:
    """A queue that must be there; with options, with these."""

    name: str
    options: QueueOptions | None = None
    is_auto_delete: bool = False
    """It goes, with all that is in it, some time after its last worker."""


@dataclass(frozen=True, slots=True)
class Declare:
    """Have these exchanges, queues and bindings: all of them, or none and Conflict, Invalid or NotFound."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[QueueDeclaration, ...] = ()
    bindings: tuple[Binding, ...] = ()

    @property
    def cost(self) -> tuple[int, int]:
        return len(self.exchanges) + len(self.queues) + len(self.bindings), 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> None:
        table = effects.routes
        for exchange in self.exchanges:
            _check_exchange(exchange, table.exchange(txn, exchange.name))
        for declared in self.queues:
            check_name("queue name", declared.name)
            if declared.options is not None:
                queue.check_options(declared.name, declared.options)
        declared_names = {exchange.name: exchange for exchange in self.exchanges}
        for binding in self.bindings:
            source = declared_names.get(binding.exchange) or table.exchange(txn, binding.exchange)
            _check_binding(binding, source)
            if binding.is_to_exchange and binding.destination not in declared_names:
                _known(table.exchange(txn, binding.destination), binding.destination)
        count = len(table.bindings(txn)) + len(self.bindings)
        if count > BINDINGS_MAX:
            raise Invalid(f"there would be {count} bindings; there may be {BINDINGS_MAX}")
        # From here on nothing is refused.
        effects.unbind_removed(txn)
        for exchange in self.exchanges:
            if exchange.name not in BUILT_IN:
                txn.put(keys.EXCHANGE + exchange.name.encode(), encode(exchange))
        for declared in self.queues:
            _declare_queue(txn, declared, now_ms, effects)
        for binding in self.bindings:
            txn.put(binding.key, encode(binding))
            if not binding.is_to_exchange:
                effects.queue_to_change(txn, binding.destination)
        table.forget()


def _check_exchange(wanted: Exchange, there: Exchange | None) -> None:
    check_name("exchange name", wanted.name)
    if wanted.type not in tuple(ExchangeType):
        raise Invalid(
            f"type {wanted.type!r} of exchange {wanted.name!r} must be one of {', '.join(ExchangeType)}"
        )
    if wanted.alternate:
        check_name("alternate exchange", wanted.alternate)
    if there is not None and there != wanted:
        differences = [
            f"{one.name} is {getattr(there, one.name)!r}, not {getattr(wanted, one.name)!r}"
            for one in fields(Exchange)
            if getattr(there, one.name) != getattr(wanted, one.name)
        ]
        raise Conflict(
            f"exchange {wanted.name!r} exists with other properties: {'; '.join(differences)}. "
            "Declare it as it is, or remove it first ('qctl exchange rm')"
        )


def _check_binding(binding: Binding, source: Exchange | None) -> None:
    if not binding.exchange:
        raise Invalid(
            f"queue {binding.destination!r} cannot be bound to the exchange without a name: that one "
            "passes to every queue by its name already"
        )
    exchange = _known(source, binding.exchange)
    what = "exchange name" if binding.is_to_exchange else "queue name"
    check_name(what, binding.destination)
    check_name("routing key", binding.routing_key, is_optional=True)
    if exchange.type == ExchangeType.HEADERS:
        rule = binding.arguments.get("x-match", "all")
        if rule not in _MATCHES:
            raise Invalid(f"x-match {rule!r} must be one of {', '.join(_MATCHES)}")
    if len(encode(binding)) > _ARGUMENTS_BYTES_MAX:
        raise Invalid(
            f"the arguments of the binding of {binding.destination!r} are too large; with its names they may "
            f"have {_ARGUMENTS_BYTES_MAX} bytes"
        )


def _known(exchange: Exchange | None, name: str) -> Exchange:
    if exchange is None:
        raise NotFound(f"there is no exchange {name!r}; declare it first")
    return exchange


def _declare_queue(txn: Txn, declared: QueueDeclaration, now_ms: int, effects: Effects) -> None:
    record = effects.queue_to_change(txn, declared.name)
    wanted = record.options
    if declared.options is not None:
        wanted = replace(
            declared.options,
            paused_ms=wanted.paused_ms,
            paused_by=wanted.paused_by,
            paused_why=wanted.paused_why,
            idle_ms=wanted.idle_ms if declared.options.expires_ms else 0,
        )
    if declared.is_auto_delete:
        wanted = replace(
            wanted, is_auto_delete=True, expires_ms=wanted.expires_ms or AUTO_DELETE_MS
        )
    if wanted != record.options:
        record.options = wanted
        effects.options[declared.name] = wanted
        if wanted.expires_ms:
            timetable.remind(
                txn, now_ms + wanted.expires_ms, timetable.IDLE, declared.name, effects
            )


@dataclass(frozen=True, slots=True)
class RemoveExchange:
    """Remove an exchange with all bindings from it and to it."""

    exchange: str

    @property
    def cost(self) -> tuple[int, int]:
        return 1, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> None:
        table = effects.routes
        if self.exchange not in table.exchanges(txn):
            if self.exchange in BUILT_IN or not self.exchange:
                raise Invalid(f"exchange {self.exchange!r} is always there and cannot be removed")
            raise NotFound(f"there is no exchange {self.exchange!r}")
        gone = [
            binding
            for binding in table.bindings(txn).values()
            if binding.exchange == self.exchange
            or (binding.is_to_exchange and binding.destination == self.exchange)
        ]
        txn.delete(keys.EXCHANGE + self.exchange.encode())
        unbind(txn, table, gone)


@dataclass(frozen=True, slots=True)
class Unbind:
    """Take a binding away."""

    binding: Binding

    @property
    def cost(self) -> tuple[int, int]:
        return 1, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> None:
        if self.binding.key not in effects.routes.bindings(txn):
            raise NotFound(
                f"there is no binding of {self.binding.destination!r} to exchange {self.binding.exchange!r} "
                f"with the key {self.binding.routing_key!r}"
            )
        unbind(txn, effects.routes, [self.binding])
