"""Objects that stand for others: `Proxy` asks each time, `PromiseProxy` once and at the last moment.

`@app.task` answers a PromiseProxy, so importing a module of tasks binds none of them; the first use
of one does.
"""

import operator
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from qbroker.serialization import Value

__all__ = ["PromiseProxy", "Proxy", "maybe_evaluate"]

T = TypeVar("T")


class Proxy(Generic[T]):
    """Passes everything on to the object that `find` returns at that moment."""

    __slots__ = ("__dict__", "__find")

    def __init__(
        self, find: Callable[[], T], name: str | None = None, doc: str | None = None
    ) -> None:
        object.__setattr__(self, "_Proxy__find", find)
        if name is not None:
            object.__setattr__(self, "__name__", name)
        if doc is not None:
            object.__setattr__(self, "__doc__", doc)

    def _get_current_object(self) -> T:
        """The object that is stood for."""
        find: Callable[[], T] = object.__getattribute__(self, "_Proxy__find")
        return find()

    @property
    def __class__(self) -> Value:
        return self._get_current_object().__class__

    @__class__.setter
    def __class__(self, value: type) -> None:  # pyright and mypy want the pair
        self._get_current_object().__class__ = value

    @property
    def __wrapped__(self) -> T:
        return self._get_current_object()

    def __getattr__(self, name: str) -> Value:
        return getattr(self._get_current_object(), name)

    def __setattr__(self, name: str, value: Value) -> None:
        setattr(self._get_current_object(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._get_current_object(), name)

    def __dir__(self) -> list[str]:
        return dir(self._get_current_object())

    def __repr__(self) -> str:
        return repr(self._get_current_object())

    def __str__(self) -> str:
        return str(self._get_current_object())

    def __bool__(self) -> bool:
        return bool(self._get_current_object())

    def __call__(self, *args: Value, **kwargs: Value) -> Value:
        target: Value = self._get_current_object()
        return target(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return bool(self._get_current_object() == other)

    def __hash__(self) -> int:
        return hash(self._get_current_object())

    def __len__(self) -> int:
        target: Value = self._get_current_object()
        return len(target)

    def __iter__(self) -> Iterator[Value]:
        target: Value = self._get_current_object()
        return iter(target)

    def __contains__(self, item: Value) -> bool:
        return operator.contains(self._target(), item)

    def __getitem__(self, key: Value) -> Value:
        return self._target()[key]

    def __setitem__(self, key: Value, value: Value) -> None:
        self._target()[key] = value

    def __delitem__(self, key: Value) -> None:
        del self._target()[key]

    def __or__(self, other: Value) -> Value:
        return self._target() | other

    def __reduce__(self) -> str | tuple[Value, ...]:
        return self._target().__reduce__()  # type: ignore[no-any-return] # whatever the target says

    def _target(self) -> Value:
        return self._get_current_object()


class PromiseProxy(Proxy[T]):
    """A proxy whose object is made once, when it is first needed."""

    __slots__ = ("__pending", "__thing")

    def _get_current_object(self) -> T:
        try:
            found: T = object.__getattribute__(self, "_PromiseProxy__thing")
        except AttributeError:
            return self.__evaluate__()
        return found

    def __evaluated__(self) -> bool:
        """Whether the object was made."""
        try:
            object.__getattribute__(self, "_PromiseProxy__thing")
        except AttributeError:
            return False
        return True

    def __maybe_evaluate__(self) -> T:
        """The object, made now if it was not."""
        return self._get_current_object()

    def __evaluate__(self) -> T:
        """Make the object, and do what waited for it."""
        thing = super()._get_current_object()
        object.__setattr__(self, "_PromiseProxy__thing", thing)
        try:
            pending: list[Callable[[T], object]] = object.__getattribute__(
                self, "_PromiseProxy__pending"
            )
        except AttributeError:
            return thing
        while pending:
            pending.pop(0)(thing)
        return thing

    def __then__(self, fun: Callable[[T], object]) -> None:
        """Call `fun` with the object once it is made."""
        if self.__evaluated__():
            fun(self._get_current_object())
            return
        try:
            pending = object.__getattribute__(self, "_PromiseProxy__pending")
        except AttributeError:
            pending = []
            object.__setattr__(self, "_PromiseProxy__pending", pending)
        pending.append(fun)


def maybe_evaluate(thing: Value) -> Value:
    """The object behind a PromiseProxy; anything else as it is."""
    return thing.__maybe_evaluate__() if type(thing) is PromiseProxy else thing
