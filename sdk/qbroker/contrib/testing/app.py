"""Apps for tests: `TestApp`, and what keeps one test's app out of the next."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from qbroker import _state
from qbroker.app import App
from qbroker.serialization import Value

__all__ = ["DEFAULT_TEST_CONFIG", "TestApp", "Trap", "UnitLogging", "set_trap", "setup_default_app"]

DEFAULT_TEST_CONFIG: Final[Mapping[str, Value]] = {
    "accept_content": ("json",),
    "broker_url": "memory://",
    "enable_utc": True,
    "result_backend": "cache+memory://",
    "timezone": "UTC",
    "worker_hijack_root_logger": False,
    "worker_log_color": False,
}


class Trap:
    """Stands for an app, and says who uses the current app without having been given it."""

    def __getattr__(self, name: str) -> Value:
        raise RuntimeError(f"Test depends on current_app: it asked for {name!r}")


class UnitLogging:
    """Celery's name for logging that leaves the test's own alone; here no app sets up logging by itself."""


def TestApp(  # noqa: N802 - Celery's name
    name: str | None = None,
    config: Mapping[str, Value] | None = None,
    enable_logging: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
    set_as_current: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
    log: Value = UnitLogging,
    backend: str | None = None,
    broker: str | None = None,
    **kwargs: Value,
) -> App:
    """An app with a broker and results in this process, unless `config`, `broker` or `backend` say otherwise."""
    from qbroker.contrib.testing import tasks  # noqa: F401, PLC0415 - it brings celery.ping

    del enable_logging, log
    settings = {**DEFAULT_TEST_CONFIG, **(config or {})}
    return App(
        name or "celery.tests",
        set_as_current=set_as_current,
        broker=broker,
        backend=backend,
        changes=settings,
        **kwargs,
    )


# It is no test case, whatever pytest thinks of names.
TestApp.__test__ = False  # type: ignore[attr-defined] # a function may have attributes


@contextmanager
def set_trap(app: App) -> Iterator[None]:
    """Have whatever uses the current or the default app raise, in the block."""
    del app
    trap = Trap()
    with _state.kept():
        _state.set_default_app(trap)
        _state.set_current_app(trap)
        yield


@contextmanager
def setup_default_app(app: App, use_trap: bool = False) -> Iterator[None]:  # noqa: FBT001, FBT002 - Celery's signature
    """Close the app after the block, and have nothing of it left."""
    with _state.kept():
        if use_trap:
            with set_trap(app):
                yield
        else:
            yield
    app.close()
