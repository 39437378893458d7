"""Hooks that others may connect to, by Celery's names. A signal nobody listens to costs one truth test.

    @task_prerun.connect(sender=add)
    def before(task_id, **_): ...

A receiver is called with `signal`, `sender` and what the signal's line below names; it must accept
`**kwargs`. It is held weakly: keep a reference, or connect with `weak=False`. An exception in a
receiver is logged and does not reach the sender.
"""

import inspect
import logging
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import TypeVar, overload

from qbroker.local import PromiseProxy
from qbroker.serialization import Value

__all__ = [
    "Signal",
    "after_setup_logger",
    "after_setup_task_logger",
    "after_task_publish",
    "before_task_publish",
    "celeryd_after_setup",
    "celeryd_init",
    "heartbeat_sent",
    "import_modules",
    "setup_logging",
    "task_failure",
    "task_internal_error",
    "task_postrun",
    "task_prerun",
    "task_received",
    "task_rejected",
    "task_retry",
    "task_revoked",
    "task_success",
    "task_unknown",
    "worker_before_create_process",
    "worker_init",
    "worker_process_init",
    "worker_process_shutdown",
    "worker_ready",
    "worker_shutdown",
    "worker_shutting_down",
]

_log = logging.getLogger(__name__)

Receiver = Callable[..., Value]
F = TypeVar("F", bound=Receiver)
_Key = tuple[Hashable, int | None]
_Receivers = tuple[tuple[_Key, Callable[[], Receiver | None]], ...]


class Signal:
    """A place in the program that tells its receivers when it is reached."""

    __slots__ = ("_lock", "_receivers", "name")

    def __init__(self, name: str) -> None:
        self.name = name
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
    ) -> F: ...
    @overload
    def connect(
        self,
        receiver: None = None,
        sender: object = None,
        *,
        weak: bool = True,
        dispatch_uid: Hashable = None,
    ) -> Callable[[F], F]: ...
    def connect(
        self,
        receiver: F | None = None,
        sender: object = None,
        *,
        weak: bool = True,
        dispatch_uid: Hashable = None,
    ) -> F | Callable[[F], F]:
        """Call `receiver` when the signal is sent, by `sender` or, with None, by anyone.

        Usable as a decorator, with and without arguments. The same receiver (or `dispatch_uid`)
        connected twice to one sender is called once.
        """
        if receiver is None:
            return lambda fun: self.connect(fun, sender, weak=weak, dispatch_uid=dispatch_uid)
        if not _accepts_kwargs(receiver):
            raise ValueError(f"Signal receiver must accept keyword arguments: {receiver!r}")
        if type(sender) is PromiseProxy:
            # The task does not exist yet; connecting must not be what makes it.
            connected = receiver
            sender.__then__(
                lambda task: self.connect(connected, task, weak=weak, dispatch_uid=dispatch_uid)
            )
            return receiver
        key = _key(receiver, sender, dispatch_uid)
        reference: Callable[[], Receiver | None]
        if not weak:
            strong: Receiver = receiver
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

    def disconnect(
        self,
        receiver: Receiver | None = None,
        sender: object = None,
        dispatch_uid: Hashable = None,
    ) -> bool:
        """Undo a `connect` with the same arguments; tells whether there was one."""
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
        found = (
            reference()
            for (_, wanted), reference in self._receivers
            if wanted is None or wanted == id(sender)
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
    return who, None if sender is None else id(sender)


def _function_of(receiver: Receiver | None) -> object:
    return getattr(receiver, "__func__", receiver)


def _accepts_kwargs(receiver: Receiver) -> bool:
    try:
        parameters = inspect.signature(receiver).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


before_task_publish = Signal("before_task_publish")
"""body, exchange, routing_key, headers, properties; in the caller, sender is the task's name."""
after_task_publish = Signal("after_task_publish")
"""headers, body, exchange, routing_key; after the broker confirmed."""
task_received = Signal("task_received")
"""request; in the worker's parent."""
task_prerun = Signal("task_prerun")
"""task_id, task, args, kwargs"""
task_postrun = Signal("task_postrun")
"""task_id, task, args, kwargs, retval, state"""
task_success = Signal("task_success")
"""result, runtime"""
task_failure = Signal("task_failure")
"""task_id, exception, args, kwargs, traceback, einfo"""
task_retry = Signal("task_retry")
"""request, reason, einfo; `reason` is the Retry that was raised."""
task_internal_error = Signal("task_internal_error")
"""task_id, args, kwargs, request, exception, traceback, einfo"""
task_revoked = Signal("task_revoked")
"""request, terminated, signum, expired"""
task_rejected = Signal("task_rejected")
"""message, exc; a message that cannot be run. Sender is the worker's name."""
task_unknown = Signal("task_unknown")
"""message, exc, name, id; a message of a task that nobody here knows. Sender is the worker's name."""

celeryd_init = Signal("celeryd_init")
"""instance, conf, options; sender is the worker's name, before anything of it exists."""
celeryd_after_setup = Signal("celeryd_after_setup")
"""instance, conf"""
import_modules = Signal("import_modules")
"""Sent when an app imports its modules; sender is the app."""
worker_init = Signal("worker_init")
"""Before the worker starts."""
worker_before_create_process = Signal("worker_before_create_process")
"""Before a child is made."""
worker_process_init = Signal("worker_process_init")
"""In a new child, before its first task."""
worker_process_shutdown = Signal("worker_process_shutdown")
"""pid, exitcode; in a child that is about to go."""
worker_ready = Signal("worker_ready")
"""The worker takes tasks."""
heartbeat_sent = Signal("heartbeat_sent")
"""The worker lives and is connected: every two seconds, whatever its tasks are at."""
worker_shutting_down = Signal("worker_shutting_down")
"""sig, how, exitcode; as soon as the worker is told to end. Sender is its name."""
worker_shutdown = Signal("worker_shutdown")
"""The worker is about to go."""

setup_logging = Signal("setup_logging")
"""loglevel, logfile, format, colorize; who listens configures logging, and we keep out of it."""
after_setup_logger = Signal("after_setup_logger")
"""logger, loglevel, logfile, format, colorize"""
after_setup_task_logger = Signal("after_setup_task_logger")
"""logger, loglevel, logfile, format, colorize"""
