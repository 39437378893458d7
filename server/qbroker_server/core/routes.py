"""Which queues a message goes to: exchanges, bindings, and the ways through them.

    o <exchange>              → what was declared of an exchange
    a <digest of a binding>   → a binding

An exchange passes a message on along its bindings, to queues and to other exchanges, by the rule of its type
(AMQP 0-9-1, section 3.1.3):

    direct    the binding's key is the message's
    topic     the key's words fit the binding's pattern: `*` is one word, `#` any number of them, none included
    fanout    every binding
    headers   the binding's arguments are among the message's headers: all of them, or any (`x-match`)

What no binding takes goes to the exchange's alternate, if it has one. The exchange without a name passes to the
queue that the key names. Here is how that is stored, and a `Table` of it in memory, which can be made anew from the
store at any time; what may be declared is decided in routing.py.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from hashlib import blake2b

from qbroker_server.core import frame, keys
from qbroker_server.core.errors import CorruptRecord
from qbroker_server.core.limits import STEP_ITEMS_MAX
from qbroker_server.core.ports import ReadTxn, Txn

VERSION = 1
"""Of an exchange and of a binding; records.py says how to raise it."""

_REMEMBERED_MAX = 10_000
"""Ways that are remembered, by exchange and key."""

_DIGEST_BYTES = 16


class ExchangeType(StrEnum):
    """By which rule an exchange passes on."""

    DIRECT = "direct"
    TOPIC = "topic"
    FANOUT = "fanout"
    HEADERS = "headers"


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was declared of an exchange."""

    name: str
    type: str = ExchangeType.DIRECT
    is_auto_delete: bool = False
    """It goes with its last binding."""
    alternate: str = ""
    """Where what no binding takes goes; "": nowhere."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A way from an exchange to a queue or to another exchange."""

    exchange: str
    destination: str
    routing_key: str = ""
    is_to_exchange: bool = False
    arguments: Mapping[str, object] = field(default_factory=dict)
    """For an exchange of type headers: what must be among a message's."""

    @property
    def key(self) -> bytes:
        """Where it is stored; the same binding declared twice is one."""
        return keys.BINDING + blake2b(_json(self), digest_size=_DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Route:
    """Where a message was sent to, if not to a queue by name."""

    exchange: str
    routing_key: str
    headers: Mapping[str, object] = field(default_factory=dict)


BUILT_IN: Mapping[str, Exchange] = {
    exchange.name: exchange for exchange in [Exchange(f"amq.{kind}", kind) for kind in ExchangeType]
}
"""Exchanges that are always there."""


def _json(value: Exchange | Binding) -> bytes:
    return json.dumps(asdict(value), separators=(",", ":"), sort_keys=True).encode()


def encode(value: Exchange | Binding) -> bytes:
    """As it is stored."""
    body = _json(value)
    return frame.seal(frame.BIG, VERSION, body)


def _read(key: bytes, raw: bytes) -> dict[str, object]:
    del key
    found: dict[str, object] = json.loads(raw[frame.BYTES :])
    return found


READERS: Mapping[int, Callable[[bytes, bytes], dict[str, object]]] = {1: _read}
"""By the first version that each reads."""


def decode(key: bytes, raw: bytes) -> dict[str, object]:
    """The fields of the exchange or binding stored at `key`; CorruptRecord, NewerVersion."""
    return frame.read(frame.BIG, key, raw, VERSION, READERS)


def check_row(key: bytes, raw: bytes) -> None:
    """Raise CorruptRecord when the row of an exchange or a binding is not what was written."""
    decode(key, raw)


def _rows(txn: ReadTxn, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    start = prefix
    while rows := txn.scan(start, keys.after(prefix), STEP_ITEMS_MAX):
        yield from rows
        start = rows[-1][0] + b"\x00"


class Table:
    """All exchanges and bindings, in the form that answers fastest. Read from the store when first asked."""

    def __init__(self) -> None:
        self._exchanges: dict[str, Exchange] | None = None
        self._bindings: dict[bytes, Binding] = {}
        self._by_exchange: dict[str, _Bindings] = {}
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}
        self.damaged: list[str] = []
        """What was found damaged and left out, a sentence each."""

    def forget(self) -> None:
        """What is stored was changed: read it again when next asked."""
        self._exchanges = None

    def exchanges(self, txn: ReadTxn) -> Mapping[str, Exchange]:
        """Every exchange that was declared, by name."""
        if self._exchanges is None:
            self._load(txn)
        assert self._exchanges is not None, "it was just read"
        return self._exchanges

    def exchange(self, txn: ReadTxn, name: str) -> Exchange | None:
        """The exchange of that name, declared or built in."""
        return self.exchanges(txn).get(name) or BUILT_IN.get(name)

    def bindings(self, txn: ReadTxn) -> Mapping[bytes, Binding]:
        """Every binding, by where it is stored."""
        self.exchanges(txn)
        return self._bindings

    def _load(self, txn: ReadTxn) -> None:
        self._bindings = {}
        self._by_exchange = {}
        self._known = {}
        self.damaged = []
        found: dict[str, Exchange] = {}
        for key, raw in _rows(txn, keys.EXCHANGE):
            try:
                exchange = Exchange(**decode(key, raw))  # type: ignore[arg-type] # as it was written
            except CorruptRecord as error:
                self.damaged.append(str(error))
                continue
            found[exchange.name] = exchange
        for key, raw in _rows(txn, keys.BINDING):
            try:
                self._bindings[key] = Binding(**decode(key, raw))  # type: ignore[arg-type] # the same
            except CorruptRecord as error:
                self.damaged.append(str(error))
        for binding in self._bindings.values():
            self._by_exchange.setdefault(binding.exchange, _Bindings()).add(binding)
        self._exchanges = found

    def queues(self, txn: ReadTxn, route: Route) -> tuple[str, ...]:
        """The queues that a message so sent goes to, each once, sorted; none: nobody takes it."""
        if not route.exchange:
            return (route.routing_key,) if route.routing_key else ()
        if self._exchanges is None:
            self._load(txn)
        place = (route.exchange, route.routing_key)
        known = self._known.get(place)
        if known is not None:
            return known
        found: set[str] = set()
        by_headers = False
        seen = {route.exchange}
        ahead = [route.exchange]
        while ahead:
            name = ahead.pop()
            exchange = self.exchange(txn, name)
            if exchange is None:
                continue
            by_headers = by_headers or exchange.type == ExchangeType.HEADERS
            bindings = self._by_exchange.get(name)
            taken = () if bindings is None else bindings.of(exchange.type, route)
            further = [exchange.alternate] if exchange.alternate else []
            if taken:
                found.update([one.destination for one in taken if not one.is_to_exchange])
                further = [one.destination for one in taken if one.is_to_exchange]
            for other in further:
                if other not in seen:
                    seen.add(other)
                    ahead.append(other)
        queues = tuple(sorted(found))
        if not by_headers:
            if len(self._known) >= _REMEMBERED_MAX:
                self._known.clear()
            self._known[place] = queues
        return queues


class _Bindings:
    """The bindings of one exchange."""

    def __init__(self) -> None:
        self._all: list[Binding] = []
        self._by_key: dict[str, list[Binding]] = {}
        self._topics: _Node | None = None

    def add(self, binding: Binding) -> None:
        self._all.append(binding)
        self._by_key.setdefault(binding.routing_key, []).append(binding)

    def of(self, kind: str, route: Route) -> Iterable[Binding]:
        """Those that a message takes, by the rule of the exchange's type."""
        match kind:
            case ExchangeType.DIRECT:
                return self._by_key.get(route.routing_key, ())
            case ExchangeType.TOPIC:
                if self._topics is None:
                    self._topics = _Node()
                    for binding in self._all:
                        self._topics.add(binding)
                return self._topics.matches(words_of(route.routing_key))
            case ExchangeType.FANOUT:
                return self._all
            case _:
                return [one for one in self._all if _has_headers(one.arguments, route.headers)]


def words_of(key: str) -> list[str]:
    """A topic's words; the empty key has none."""
    return key.split(".") if key else []


class _Node:
    """A place in the tree of patterns: one word further down at each step."""

    __slots__ = ("here", "next")

    def __init__(self) -> None:
        self.here: list[Binding] = []
        self.next: dict[str, _Node] = {}

    def add(self, binding: Binding) -> None:
        node = self
        for word in words_of(binding.routing_key):
            node = node.next.setdefault(word, _Node())
        node.here.append(binding)

    def matches(self, words: list[str]) -> list[Binding]:
        """The bindings whose patterns the words fit."""
        found: list[Binding] = []
        # Two patterns may lead to one place in many ways (`#.#`); each is looked at once.
        seen: set[tuple[int, int]] = set()
        ahead = [(self, 0)]
        while ahead:
            node, at = ahead.pop()
            if (id(node), at) in seen:
                continue
            seen.add((id(node), at))
            many = node.next.get("#")
            if many is not None:
                ahead += [(many, rest) for rest in range(at, len(words) + 1)]
            if at == len(words):
                found += node.here
                continue
            for word in (words[at], "*"):
                child = node.next.get(word)
                if child is not None:
                    ahead.append((child, at + 1))
        return found


def _has_headers(wanted: Mapping[str, object], headers: Mapping[str, object]) -> bool:
    """Whether a message's headers fit a binding's arguments; one without a value only has to be there."""
    rule = str(wanted.get("x-match", "all"))
    counts_x = rule.endswith("-with-x")
    fits = [
        name in headers and (value is None or headers[name] == value)
        for name, value in wanted.items()
        if name != "x-match" and (counts_x or not name.startswith("x-"))
    ]
    return any(fits) if rule.startswith("any") else all(fits)


def unbind(txn: Txn, table: Table, gone: Iterable[Binding]) -> None:
    """Delete bindings, and exchanges that go with their last one."""
    sources: set[str] = set()
    for binding in gone:
        txn.delete(binding.key)
        sources.add(binding.exchange)
    table.forget()
    for name in sources:
        exchange = table.exchanges(txn).get(name)
        if (
            exchange is not None
            and exchange.is_auto_delete
            and all(binding.exchange != name for binding in table.bindings(txn).values())
        ):
            txn.delete(keys.EXCHANGE + name.encode())
            table.forget()


def unbind_queues(txn: Txn, table: Table, names: Collection[str]) -> None:
    """Delete the bindings of queues that are removed."""
    found = [
        binding
        for binding in table.bindings(txn).values()
        if not binding.is_to_exchange and binding.destination in names
    ]
    if found:
        unbind(txn, table, found)
