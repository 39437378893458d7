"""`install()` makes `import celery…` mean qbroker, for packages that were written for Celery.

    import qbroker.compat.celery
    qbroker.compat.celery.install()

The modules are the very same: `celery.app.base is qbroker.app.base`, so classes and signals are one. What qbroker does not
have is not found, as an ordinary missing module. Of kombu and billiard there is what Celery's users import from them:
queues and exchanges, serializers, exceptions.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

__all__ = ["install", "uninstall"]

_HOMES: Final = {
    "billiard.exceptions": "qbroker.exceptions",
    "celery": "qbroker",
    "kombu.exceptions": "qbroker.exceptions",
    "kombu.serialization": "qbroker.serialization",
}
"""Where modules of these names, and those below them, are."""

_GATHERED: Final = {
    "billiard": "qbroker.compat.billiard",
    "billiard.einfo": "qbroker.compat.billiard",
    "kombu": "qbroker.messaging",
}
"""Packages that are made anew, with the public names of a module."""


def _home_of(name: str) -> str | None:
    for alias, home in _HOMES.items():
        if name == alias or name.startswith(f"{alias}."):
            return home + name[len(alias) :]
    return None


class _Finder(MetaPathFinder):
    """Finds the modules of Celery's names in qbroker."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname in _GATHERED:
            return ModuleSpec(fullname, _Gatherer(), is_package=True)
        home = _home_of(fullname)
        if home is None or importlib.util.find_spec(home) is None:
            return None
        return ModuleSpec(fullname, _Same(home))


class _Same(Loader):
    """Answers a module that is there by another name."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._own_spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        del spec
        module = importlib.import_module(self._home)
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has written the alias into it. It stays who it is.
        module.__spec__ = self._own_spec


class _Gatherer(Loader):
    """Makes a package of another module's public names."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        del spec
        return None

    def exec_module(self, module: ModuleType) -> None:
        source = importlib.import_module(_GATHERED[module.__name__])
        for name in source.__all__:
            setattr(module, name, getattr(source, name))


_finder: Final = _Finder()


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] in ("billiard", "celery", "kombu")


def install() -> None:
    """Have `celery`, `kombu` and `billiard` be found in qbroker; RuntimeError when the real ones were imported before."""
    if _finder in sys.meta_path:
        return
    there = sorted(name for name in sys.modules if _is_ours(name))
    if there:
        raise RuntimeError(
            f"{there[0]!r} is imported already; call qbroker.compat.celery.install() before anything imports it"
        )
    sys.meta_path.insert(0, _finder)


def uninstall() -> None:
    """Undo `install`; who has imported something keeps it."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
        for name in [name for name in sys.modules if _is_ours(name)]:
            del sys.modules[name]
