"""Small functions on functions and sequences, by Celery's names, for programs that import them from here."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from qbroker.hints import signature_of
from qbroker.serialization import Value

__all__ = [
    "LRUCache",
    "chunks",
    "dictfilter",
    "first",
    "firstmethod",
    "fun_accepts_kwargs",
    "is_list",
    "lazy",
    "mattrgetter",
    "maybe",
    "maybe_evaluate",
    "maybe_list",
    "memoize",
    "mlazy",
    "noop",
    "padlist",
    "uniq",
]

T = TypeVar("T")


def noop(*args: Value, **kwargs: Value) -> None:
    """Do nothing, whatever is given."""


def is_list(obj: Value, scalars: tuple[type, ...] = (Mapping, str), iters: tuple[type, ...] = (Iterable,)) -> bool:  # fmt: skip
    """Whether it can be iterated over, and is neither text nor a mapping."""
    return isinstance(obj, iters) and not isinstance(obj, scalars or ())


def maybe_list(obj: Value, scalars: tuple[type, ...] = (Mapping, str)) -> Value:
    """A list of this one thing, unless it is a list; None stays."""
    return obj if obj is None or is_list(obj, scalars) else [obj]


def maybe(typ: Callable[[Value], Value], val: Value) -> Value:
    """The value as that type; None stays."""
    return None if val is None else typ(val)


def first(predicate: Callable[[T], Value] | None, it: Iterable[T]) -> T | None:
    """The first for which the predicate is true; without one, the first that is not None."""
    wanted = predicate if predicate is not None else (lambda value: value is not None)
    return next((value for value in it if wanted(value)), None)


def firstmethod(method: str, on_call: Callable[..., Value] | None = None) -> Callable[..., Value]:
    """A function that calls this method of each of a list, and answers with the first answer that is not None."""

    def call(it: Iterable[Value], *args: Value, **kwargs: Value) -> Value:
        for obj in it:
            bound = getattr(obj, method)
            answer = (
                on_call(bound, *args, **kwargs) if on_call is not None else bound(*args, **kwargs)
            )
            if answer is not None:
                return answer
        return None

    return call


def chunks(it: Iterator[T], n: int) -> Iterator[list[T]]:
    """What comes, in lists of `n`; the last may be shorter."""
    for item in it:
        yield [item, *islice(it, n - 1)]


def padlist(container: Sequence[Value], size: int, default: Value = None) -> list[Value]:
    """The first `size` of them, filled up with the default."""
    found = list(container)[:size]
    return found + [default] * (size - len(found))


def uniq(it: Iterable[T]) -> Iterator[T]:
    """Each once, in the order in which they first come."""
    return iter(dict.fromkeys(it))


def dictfilter(d: Mapping[str, Value] | None = None, **kw: Value) -> dict[str, Value]:
    """What is there, without what is None."""
    return {name: value for name, value in {**(d or {}), **kw}.items() if value is not None}


def memoize(
    maxsize: int | None = None, keyfun: Callable[..., Value] | None = None, Cache: Value = None  # noqa: N803 - Celery's name
) -> Callable[[Callable[..., T]], Callable[..., T]]:  # fmt: skip
    """A decorator that remembers the last `maxsize` answers, by `keyfun` of the arguments; `clear()` forgets."""
    del Cache

    def decorate(fun: Callable[..., T]) -> Callable[..., T]:
        if keyfun is None:
            cached = functools.lru_cache(maxsize)(fun)
            made: Value = functools.wraps(fun)(lambda *args, **kwargs: cached(*args, **kwargs))
            made.clear = cached.cache_clear
            made.original_func = fun
            kept: Callable[..., T] = made
            return kept
        known: dict[Value, T] = {}

        @functools.wraps(fun)
        def by_key(*args: Value, **kwargs: Value) -> T:
            key = keyfun(args, kwargs)
            if key not in known:
                if maxsize and len(known) >= maxsize:
                    del known[next(iter(known))]
                known[key] = fun(*args, **kwargs)
            return known[key]

        answered: Value = by_key
        answered.clear = known.clear
        answered.original_func = fun
        return by_key

    return decorate


def fun_accepts_kwargs(fun: Callable[..., Value]) -> bool:
    """Whether a function takes any keyword."""
    return any(
        parameter.kind is parameter.VAR_KEYWORD
        for parameter in signature_of(fun).parameters.values()
    )


class lazy:  # noqa: N801 - Celery's name
    """A call that is made when it is asked for, by `()` or `evaluate()`; as text, its value."""

    def __init__(self, fun: Callable[..., Value], *args: Value, **kwargs: Value) -> None:
        self._call = functools.partial(fun, *args, **kwargs)

    def evaluate(self) -> Value:
        """Make the call."""
        return self._call()

    def __call__(self) -> Value:
        return self.evaluate()

    def __str__(self) -> str:
        return str(self())

    def __repr__(self) -> str:
        return repr(self())

    def __eq__(self, other: object) -> bool:
        return bool(self() == other)

    def __ne__(self, other: object) -> bool:
        return bool(self() != other)

    __hash__ = None  # type: ignore[assignment] # its value may change


class mlazy(lazy):  # noqa: N801 - Celery's name
    """The same, made once."""

    evaluated = False
    _value: Value = None

    def evaluate(self) -> Value:
        """The value, from the first call."""
        if not self.evaluated:
            self._value = super().evaluate()
            self.evaluated = True
        return self._value


def maybe_evaluate(value: Value) -> Value:
    """What a lazy call answers; anything else as it is."""
    return value.evaluate() if isinstance(value, lazy) else value


def mattrgetter(*attrs: str) -> Callable[[Value], dict[str, Value]]:
    """A function that answers these attributes of an object, None for each it has not."""
    return lambda obj: {attr: getattr(obj, attr, None) for attr in attrs}


class LRUCache(OrderedDict[Value, Value]):
    """A dict that forgets what was used longest ago, beyond `limit` entries."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.limit = limit

    def __getitem__(self, key: Value) -> Value:
        value = super().__getitem__(key)
        self.move_to_end(key)
        return value

    def __setitem__(self, key: Value, value: Value) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if self.limit and len(self) > self.limit:
            self.popitem(last=False)
