"""`autodiscover_tasks` without an app: import a module of each of some packages."""

from collections.abc import Iterable
from types import ModuleType

from qbroker.app.sources import import_related as find_related_module

__all__ = ["autodiscover_tasks", "find_related_module"]


def autodiscover_tasks(
    packages: Iterable[str] | None, related_name: str | None = "tasks"
) -> list[ModuleType | None]:
    """The module of that name of each package, imported; None where there is none."""
    return [find_related_module(package, related_name) for package in packages or ()]
