"""`app.loader`: what Celery's programs ask to import their tasks. The app itself does the work."""

import datetime as dt
import importlib
from collections.abc import Callable, Iterable
from types import ModuleType

from qbroker.app import sources
from qbroker.serialization import Value

__all__ = ["Loader"]


class Loader:
    """Imports modules of tasks, and knows the app's settings."""

    builtin_modules: frozenset[str] = frozenset()

    def __init__(self, app: Value, import_modules: Callable[[], list[ModuleType]]) -> None:
        self.app = app
        self.task_modules: set[str] = set()
        self._import_modules = import_modules

    @property
    def conf(self) -> Value:
        """The app's settings."""
        return self.app.conf

    @property
    def configured(self) -> bool:
        """Whether they were loaded."""
        return bool(self.app.configured)

    @property
    def default_modules(self) -> tuple[str, ...]:
        """What `imports` and `include` name."""
        conf = self.app.conf
        return tuple(dict.fromkeys((*conf.imports, *conf.include)))

    def now(self, utc: bool = True) -> dt.datetime:  # noqa: FBT001, FBT002 - Celery's signature
        """The current time in UTC, or in the machine's own zone."""
        now = dt.datetime.now(dt.UTC)
        return now if utc else now.astimezone()

    def import_module(self, module: str, package: str | None = None) -> ModuleType:
        """Import a module."""
        return importlib.import_module(module, package)

    def import_from_cwd(self, module: str, package: str | None = None) -> ModuleType:
        """Import a module, also from the working directory."""
        return sources.import_from_cwd(module, package)

    def import_task_module(self, module: str) -> ModuleType:
        """Import a module of tasks, also from the working directory."""
        self.task_modules.add(module)
        return self.import_from_cwd(module)

    def import_default_modules(self) -> list[ModuleType]:
        """Import what the app discovers, and what `imports` and `include` name; answers the latter."""
        return self._import_modules()

    def autodiscover_tasks(
        self, packages: Iterable[str] | None, related_name: str | None = "tasks"
    ) -> None:
        """Import the module of that name of each package, where there is one."""
        found = [sources.import_related(package, related_name) for package in packages or ()]
        self.task_modules.update(module.__name__ for module in found if module is not None)
