"""What an app does where Django is, which DJANGO_SETTINGS_MODULE says.

Before tasks are imported Django is set up and its checks run; `autodiscover_tasks()` without packages looks into the installed
apps; tasks are of `qbroker.contrib.django.task.DjangoTask`; and database connections and caches are closed around
each task, because a worker has no requests after which Django would do it.
"""

import contextlib
import importlib
import os
import warnings

from qbroker import _state, signals
from qbroker.exceptions import FixupWarning
from qbroker.inprocess import is_callers_thread
from qbroker.serialization import Value

__all__ = ["DjangoFixup", "fixup"]

DJANGO_TASK = "qbroker.contrib.django.task:DjangoTask"


def fixup(
    app: Value, env: str = "DJANGO_SETTINGS_MODULE", package: str = "django"
) -> "DjangoFixup | None":
    """Fit the app to Django, if a module of settings is named; a warning when Django is not there."""
    # The edge: Django itself is told by the environment.
    if not os.environ.get(env):  # noqa: TID251
        return None
    try:
        importlib.import_module(package)
    except ImportError:
        warnings.warn(
            f"{env} is set, but {package} is not installed, so the app does without it",
            FixupWarning,
            stacklevel=2,
        )
        return None
    return DjangoFixup(app).install(
        checks=not os.environ.get("CELERY_SKIP_CHECKS")  # noqa: TID251
    )


class DjangoFixup:
    """An app in a Django project. Several apps may be in one, and each looks after its own tasks."""

    def __init__(self, app: Value) -> None:
        self.app = app
        self._checks = True
        self._recycles = 0
        self._reuse_max = 0

    def install(self, *, checks: bool = True) -> "DjangoFixup":
        """Listen to what the app and its workers do."""
        self._checks = checks
        if self.app.set_as_current and not _state.has_default_app():
            # Django answers requests in threads, which have no current app of their own.
            self.app.set_default()
        if not self.app.has_own_task_cls:
            self.app.task_cls = DJANGO_TASK
        signals.import_modules.connect(self.on_import_modules, sender=self.app)
        signals.task_prerun.connect(self.on_task_prerun)
        signals.task_postrun.connect(self.on_task_postrun)
        signals.worker_process_init.connect(self.on_worker_process_init)
        return self

    def autodiscover_tasks(self) -> list[str]:
        """The names of the installed apps."""
        apps: Value = importlib.import_module("django.apps").apps
        return [config.name for config in apps.get_app_configs()]

    def on_import_modules(self, **_: Value) -> None:
        """Set Django up, so that modules of tasks may import models."""
        importlib.import_module("django").setup()
        settings: Value = importlib.import_module("django.conf").settings
        self._reuse_max = getattr(settings, "CELERY_DB_REUSE_MAX", None) or 0
        if self._checks:
            importlib.import_module("django.core.checks").run_checks()
        # Children that are forked later must not share what was opened up to here.
        self._close_database()
        self.close_cache()

    def on_worker_process_init(self, **_: Value) -> None:
        """Let go of the connections that this process was forked with, without a word to their other end."""
        database: Value = importlib.import_module("django.db")
        for connection in database.connections.all(initialized_only=True):
            if connection.connection is not None:
                # They are the parent's too, which goes on with them.
                with contextlib.suppress(AttributeError, OSError, TypeError):
                    os.close(connection.connection.fileno())
        self._close_database()
        self.close_cache()

    def on_task_prerun(self, sender: Value = None, **_: Value) -> None:
        """Have a task begin with a connection of its own."""
        if self._is_ours(sender):
            self.close_database()

    def on_task_postrun(self, sender: Value = None, **_: Value) -> None:
        """Leave no connection open behind a task."""
        if self._is_ours(sender):
            self.close_database()
            self.close_cache()

    def _is_ours(self, task: Value) -> bool:
        # What runs where it is called runs inside the caller's transaction.
        if task.request.is_eager or is_callers_thread():
            return False
        return task.app is self.app

    def close_database(self) -> None:
        """Close this thread's connections; with CELERY_DB_REUSE_MAX only after so many tasks."""
        if self._reuse_max:
            self._recycles += 1
            if self._recycles <= self._reuse_max * 2:
                return
            self._recycles = 0
        self._close_database()

    def _close_database(self) -> None:
        database: Value = importlib.import_module("django.db")
        errors: Value = importlib.import_module("django.core.exceptions")
        for connection in database.connections.all(initialized_only=True):
            try:
                connection.close()
            except database.InterfaceError:
                # It is closed already.
                pass
            except errors.SynchronousOnlyOperation:
                # On an event loop Django has its connections in threads, which end with what they do.
                return
            except database.DatabaseError as error:
                if "closed" not in str(error) and "not connected" not in str(error):
                    raise

    def close_cache(self) -> None:
        """Close the connections of caches."""
        importlib.import_module("django.core.cache").close_caches()
