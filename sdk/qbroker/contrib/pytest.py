"""The pytest plug-in: Celery's fixtures, and `local_broker` beside them. Registered by entry point.

Nothing of qbroker's is imported before a test asks for it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from qbroker.app import App
    from qbroker.contrib.testing.worker import TestWorkController
    from qbroker.testing import LocalBroker

NO_WORKER = os.environ.get("NO_WORKER")  # noqa: TID251 - Celery's switch for its plug-in
WORKER_LOGLEVEL = os.environ.get("WORKER_LOGLEVEL", "error")  # noqa: TID251 - the same

Settings = Mapping[str, Any]


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "celery(**settings): settings of the celery_app of one test, or of a class's"
    )


@contextmanager
def _made(
    request: pytest.FixtureRequest, config: Settings, parameters: Settings, *, use_trap: bool
) -> "Iterator[App]":
    """An app with a broker of its own in this process, unless the settings name another."""
    from qbroker.contrib.testing.app import (  # noqa: PLC0415 - most runs need none of it
        TestApp,
        setup_default_app,
    )
    from qbroker.testing import LocalBroker  # noqa: PLC0415 - the same

    mark = request.node.get_closest_marker("celery")
    settings = {**config, **(mark.kwargs if mark else {})}
    url = parameters.get("broker") or settings.get("broker_url", "memory://")
    if url != "memory://":
        yield from _closed(TestApp(config=settings, **parameters), setup_default_app, use_trap)
        return
    with LocalBroker() as broker:
        # One test's messages are not to be found by the next.
        own = {"broker": broker.url, "backend": "qbroker://"}
        if settings.get("result_backend", "") is None:
            del own["backend"]
        app = TestApp(config=settings, **{**parameters, **own})
        app.local_broker = broker  # type: ignore[attr-defined] # for the fixture of that name
        yield from _closed(app, setup_default_app, use_trap)


def _closed(app: "App", setup: Any, use_trap: bool) -> "Iterator[App]":  # noqa: ANN401, FBT001 - a helper of `_made`
    with setup(app, use_trap=use_trap):
        yield app


@pytest.fixture(scope="session")
def use_celery_app_trap() -> bool:
    """Override it to have whatever uses the current app raise."""
    return False


@pytest.fixture(scope="session")
def celery_session_app(
    request: pytest.FixtureRequest,
    celery_config: Settings,
    celery_parameters: Settings,
    celery_enable_logging: bool,  # noqa: FBT001 - a fixture's value
    use_celery_app_trap: bool,  # noqa: FBT001 - the same
) -> "Iterator[App]":
    """An app for the whole run; it is the current one."""
    del celery_enable_logging
    with _made(request, celery_config, celery_parameters, use_trap=use_celery_app_trap) as app:
        if not use_celery_app_trap:
            app.set_default()
            app.set_current()
        yield app


@pytest.fixture(scope="session")
def celery_session_worker(
    celery_session_app: "App",
    celery_includes: Sequence[str],
    celery_class_tasks: Sequence[Any],
    celery_worker_pool: str,
    celery_worker_parameters: Settings,
) -> "Iterator[TestWorkController | None]":
    """A worker for the whole run."""
    for class_task in celery_class_tasks:
        celery_session_app.register_task(class_task)
    with _working(
        celery_session_app, celery_includes, celery_worker_pool, celery_worker_parameters
    ) as worker:
        yield worker


@contextmanager
def _working(
    app: "App", includes: Sequence[str], pool: str, parameters: Settings
) -> "Iterator[TestWorkController | None]":
    from importlib import import_module  # noqa: PLC0415 - most runs need none of it

    from qbroker.contrib.testing.worker import start_worker  # noqa: PLC0415 - the same

    if NO_WORKER:
        yield None
        return
    for module in includes:
        import_module(module)
    options = {"loglevel": WORKER_LOGLEVEL, "pool": pool, **parameters}
    with start_worker(app, **options) as worker:
        yield worker


@pytest.fixture(scope="session")
def celery_enable_logging() -> bool:
    """Override it to enable logging."""
    return False


@pytest.fixture(scope="session")
def celery_includes() -> Sequence[str]:
    """Override it with modules that the worker is to import."""
    return ()


@pytest.fixture(scope="session")
def celery_worker_pool() -> str:
    """Override it with the worker's pool; inside a test all of them are threads."""
    return "solo"


@pytest.fixture(scope="session")
def celery_config() -> Settings:
    """Override it with settings of the test's app."""
    return {}


@pytest.fixture(scope="session")
def celery_parameters() -> Settings:
    """Override it with arguments of the test's App."""
    return {}


@pytest.fixture(scope="session")
def celery_worker_parameters() -> Settings:
    """Override it with arguments of start_worker: queues, concurrency, shutdown_timeout and so on."""
    return {}


@pytest.fixture(scope="session")
def celery_class_tasks() -> Sequence[Any]:
    """Override it with class-based tasks to register with the run's app."""
    return []


@pytest.fixture
def celery_app(
    request: pytest.FixtureRequest,
    celery_config: Settings,
    celery_parameters: Settings,
    celery_enable_logging: bool,  # noqa: FBT001 - a fixture's value
    use_celery_app_trap: bool,  # noqa: FBT001 - the same
) -> "Iterator[App]":
    """An app, with a broker of its own in this process."""
    del celery_enable_logging
    with _made(request, celery_config, celery_parameters, use_trap=use_celery_app_trap) as app:
        yield app


@pytest.fixture
def celery_worker(
    celery_app: "App",
    celery_includes: Sequence[str],
    celery_worker_pool: str,
    celery_worker_parameters: Settings,
) -> "Iterator[TestWorkController | None]":
    """A worker of `celery_app` on a thread of this process."""
    with _working(
        celery_app, celery_includes, celery_worker_pool, celery_worker_parameters
    ) as worker:
        yield worker


@pytest.fixture
def depends_on_current_app(celery_app: "App") -> None:
    """Make `celery_app` the current app."""
    celery_app.set_current()


@pytest.fixture
def local_broker(request: pytest.FixtureRequest) -> "Iterator[LocalBroker]":
    """The broker in this process: that of `celery_app` if the test has one, else one of its own."""
    from qbroker.testing import LocalBroker  # noqa: PLC0415 - most runs need none of it

    if "celery_app" in request.fixturenames:
        yield request.getfixturevalue("celery_app").local_broker
        return
    with LocalBroker() as broker:
        yield broker
