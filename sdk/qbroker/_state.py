"""Which app is the current one, and which there are. Several may live in a process, one a thread is current.

Apps are kept as plain objects: this module stands below the one that knows what an app is.
"""

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qbroker.serialization import Value

__all__ = [
    "connect_on_app_finalize",
    "get_current_app",
    "register_app",
    "set_current_app",
    "set_default_app",
]


class _Current(threading.local):
    """Each thread's own."""

    app: Value = None


_current = _Current()
_lock = threading.RLock()
_apps: "weakref.WeakSet[Value]" = weakref.WeakSet()
_on_app_finalizers: list[Callable[[Value], object]] = []
_defaults: dict[str, Value] = {}

logs_settings = True
"""Whether an app logs mistyped settings itself. Off in a worker's processes: their parent logs them once."""


def leave_settings_to_parent() -> None:
    """Have this process log nothing about settings, because the worker's parent does."""
    global logs_settings  # noqa: PLW0603 - it is the process's
    logs_settings = False


def register_app(app: Value) -> None:
    """Count an app among those that exist."""
    with _lock:
        _apps.add(app)


def unregister_app(app: Value) -> None:
    """Count it no more, nor as current or default."""
    with _lock:
        _apps.discard(app)
        if _defaults.get("app") is app:
            del _defaults["app"]
    if _current.app is app:
        _current.app = None


def all_apps() -> list[Value]:
    """The apps that exist."""
    with _lock:
        return list(_apps)


def set_current_app(app: Value) -> None:
    """Make an app this thread's current one."""
    _current.app = app


def set_default_app(app: Value) -> None:
    """Make an app the one of all threads that have none of their own."""
    with _lock:
        _defaults["app"] = app


def has_default_app() -> bool:
    """Whether there is such an app already."""
    with _lock:
        return "app" in _defaults


def set_default_app_factory(make: Callable[[], Value]) -> None:
    """Say what makes the default app when somebody needs it and nobody made one."""
    _defaults["make"] = make


def get_current_app() -> Value:
    """This thread's app, else the default one, made now if need be."""
    if _current.app is not None:
        return _current.app
    with _lock:
        if "app" not in _defaults:
            _defaults["app"] = _defaults["make"]()
        return _defaults["app"]


@contextmanager
def kept() -> Iterator[None]:
    """Put back, after the block, which app is current, which is the default, and what is shared by all."""
    current = _current.app
    with _lock:
        default, finalizers = _defaults.get("app"), list(_on_app_finalizers)
    try:
        yield
    finally:
        _current.app = current
        with _lock:
            _on_app_finalizers[:] = finalizers
            if default is not None:
                _defaults["app"] = default
            else:
                _defaults.pop("app", None)


def connect_on_app_finalize(callback: Callable[[Value], object]) -> Callable[[Value], object]:
    """Call `callback` with every app that is finalized from now on."""
    with _lock:
        _on_app_finalizers.append(callback)
    return callback


def announce_app_finalized(app: Value) -> None:
    """Call those callbacks."""
    with _lock:
        callbacks = list(_on_app_finalizers)
    for callback in callbacks:
        callback(app)
