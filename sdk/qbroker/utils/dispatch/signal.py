"""A place in a program that others may connect to, by Celery's path; `qbroker.signals` are those of the house.

Programs make signals of their own with it.
"""

import functools
import inspect
import itertools
import logging
import threading
import warnings
import weakref
from collections.abc import Callable, Collection, Hashable
from typing import TypeVar, overload

from qbroker import clock
from qbroker.exceptions import CDeprecationWarning
from qbroker.hints import signature_of
from qbroker.local import PromiseProxy
from qbroker.serialization import Value

__all__ = ["Signal"]

_log = logging.getLogger(__name__)

Receiver = Callable[..., Value]
F = TypeVar("F", bound=Receiver)
_Key = tuple[Hashable, Hashable]
_Receivers = tuple[tuple[_Key, Callable[[], Receiver | None]], ...]


class Signal:
    """A place in the program that tells its receivers when it is reached."""

    __slots__ = ("_lock", "_pause", "_receivers", "name", "providing_args")

    def __init__(
        self,
        providing_args: Collection[str] | None = None,
        use_caching: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        name: str | None = None,
        *,
        pause: Callable[[float], None] = clock.pause,
    ) -> None:
        """What it is sent with is for readers alone."""
        del use_caching
        self.name = name or ""
        self.providing_args = set(providing_args or ())
        self._pause = pause
        # A receiver may die, and be dropped, while this very thread connects another.
        self._lock = threading.RLock()
        # Replaced, never changed: a sender walks the tuple it has seen.
        self._receivers: _Receivers = ()

    def __repr__(self) -> str:
        return f"<Signal: {self.name}>"

    def __bool__(self) -> bool:
        """Whether anybody is connected."""
        return bool(self._receivers)

    @overload
    def connect(self, receiver: F, /) -> F: ...
    @overload
    def connect(
        self,
        receiver: F,
        sender: object = None,
        *,
        weak: bool = True,
        dispatch_uid: Hashable = None,
        retry: bool = False,
    ) -> F: ...
    @overload
    def connect(
        self,
        receiver: None = None,
        sender: object = None,
        *,
        weak: bool = True,
        dispatch_uid: Hashable = None,
        retry: bool = False,
    ) -> Callable[[F], F]: ...
    def connect(
        self,
        receiver: F | None = None,
        sender: object = None,
        *,
        weak: bool = True,
        dispatch_uid: Hashable = None,
        retry: bool = False,
    ) -> F | Callable[[F], F]:
        """Call `receiver` when the signal is sent, by `sender` or, with None, by anyone.

        Usable as a decorator, with and without arguments. The same receiver (or `dispatch_uid`)
        connected twice to one sender is called once. With `retry` it is called until it raises nothing, and
        held strongly.
        """
        if receiver is None:
            return lambda fun: self.connect(
                fun, sender, weak=weak, dispatch_uid=dispatch_uid, retry=retry
            )
        if not _accepts_kwargs(receiver):
            raise ValueError(f"Signal receiver must accept keyword arguments: {receiver!r}")
        if type(sender) is PromiseProxy:
            # The task does not exist yet; connecting must not be what makes it.
            connected = receiver
            sender.__then__(
                lambda task: self.connect(
                    connected, task, weak=weak, dispatch_uid=dispatch_uid, retry=retry
                )
            )
            return receiver
        key = _key(receiver, sender, dispatch_uid)
        reference: Callable[[], Receiver | None]
        if retry or not weak:
            strong: Receiver = self._persistent(receiver) if retry else receiver
            reference = lambda: strong  # noqa: E731 - stands where a weakref would
        elif inspect.ismethod(receiver):
            reference = weakref.WeakMethod(receiver, lambda _: self._drop(key))
        else:
            reference = weakref.ref(receiver, lambda _: self._drop(key))
        self._change(
            lambda before: (
                before if any(known == key for known, _ in before) else (*before, (key, reference))
            )
        )
        return receiver

    def _persistent(self, receiver: Receiver) -> Receiver:
        """The receiver, called again until it raises nothing, in Celery's intervals."""

        @functools.wraps(receiver)
        def receive(**named: Value) -> Value:
            pauses_s = itertools.chain(range(2, 30, 2), itertools.repeat(30))
            while True:
                try:
                    return receiver(**named)
                except Exception:  # noqa: BLE001 - whatever it is, it is tried again
                    pause_s = next(pauses_s)
                    _log.exception(
                        "Signal handler %r raised; it is called again in %g s", receiver, pause_s
                    )
                    self._pause(pause_s)

        return receive

    def disconnect(
        self,
        receiver: Receiver | None = None,
        sender: object = None,
        weak: bool | None = None,  # noqa: FBT001 - Celery's signature
        dispatch_uid: Hashable = None,
    ) -> bool:
        """Undo a `connect` with the same arguments; tells whether there was one."""
        if weak is not None:
            warnings.warn(
                "Passing `weak` to disconnect has no effect.", CDeprecationWarning, stacklevel=2
            )
        return self._drop(_key(receiver, sender, dispatch_uid))

    def _drop(self, key: _Key) -> bool:
        return self._change(lambda before: tuple(entry for entry in before if entry[0] != key))

    def _change(self, change: Callable[[_Receivers], _Receivers]) -> bool:
        """Have other receivers; tells whether there are fewer now."""
        with self._lock:
            while True:
                before = self._receivers
                after = change(before)
                # Where a receiver died meanwhile it is done once more, for it is gone from what is there by now.
                if self._receivers is before:
                    self._receivers = after
                    return len(after) < len(before)

    def has_listeners(self, sender: object = None) -> bool:
        """Whether a signal of this sender would reach anybody."""
        return bool(self._live(sender))

    def _live(self, sender: object) -> list[Receiver]:
        whose = _id_of(sender)
        found = (
            reference()
            for (_, wanted), reference in self._receivers
            if wanted is None or wanted == whose
        )
        return [receiver for receiver in found if receiver is not None]

    def send(self, sender: object = None, **named: Value) -> list[tuple[Receiver, Value]]:
        """Call every receiver; answers what each returned, or the exception it raised."""
        if not self._receivers:
            return []
        responses: list[tuple[Receiver, Value]] = []
        for receiver in self._live(sender):
            try:
                responses.append((receiver, receiver(signal=self, sender=sender, **named)))
            except Exception as exc:  # noqa: BLE001 - a receiver's failure is not the sender's
                _log.exception("Signal handler %r raised", receiver)
                responses.append((receiver, exc))
        return responses

    send_robust = send


def _key(receiver: Receiver | None, sender: object, dispatch_uid: Hashable) -> _Key:
    who: Hashable = dispatch_uid
    if who is None:
        # A bound method is made anew at each look; its object and function stay.
        bound_to = getattr(receiver, "__self__", None)
        who = id(receiver) if bound_to is None else (id(bound_to), id(_function_of(receiver)))
    return who, None if sender is None else _id_of(sender)


def _id_of(sender: object) -> Hashable:
    """What tells a sender from others: a name is itself, whoever wrote it down."""
    return sender if isinstance(sender, str | bytes) else id(sender)


def _function_of(receiver: Receiver | None) -> object:
    return getattr(receiver, "__func__", receiver)


def _accepts_kwargs(receiver: Receiver) -> bool:
    try:
        parameters = signature_of(receiver).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
