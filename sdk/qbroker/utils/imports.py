"""Finding things by the names of modules, by Celery's names."""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from qbroker.serialization import Value

__all__ = [
    "cwd_in_path",
    "gen_task_name",
    "import_from_cwd",
    "instantiate",
    "qualname",
    "symbol_by_name",
]


def qualname(obj: Value) -> str:
    """The full name of a class, or of the class of an instance."""
    cls = obj if hasattr(obj, "__name__") else type(obj)
    return f"{cls.__module__}.{cls.__qualname__}"


def symbol_by_name(
    name: Value,
    aliases: Mapping[str, str] | None = None,
    imp: Callable[[str], ModuleType] | None = None,
    package: str | None = None,
    sep: str = ".",
    default: Value = None,
) -> Value:
    """What a dotted path names: `proj.tasks:Base` or `proj.tasks.Base`; anything but text is itself.

    ImportError or AttributeError when it is not there, unless there is a default.
    """
    if not isinstance(name, str):
        return name
    name = (aliases or {}).get(name) or name
    module, colon, path = name.partition(":")
    if not colon:
        module, _, path = name.rpartition(sep)
    try:
        if not module and package is None:
            raise ModuleNotFoundError(f"{name!r} names no module", name=name)
        found: Value = imp(module) if imp else importlib.import_module(module or package or "")
        for part in path.split(".") if path else ():
            found = getattr(found, part)
    except (ImportError, AttributeError):
        if default is None:
            raise
        return default
    return found


def instantiate(name: Value, *args: Value, **kwargs: Value) -> Value:
    """An instance of the class of that name."""
    return symbol_by_name(name)(*args, **kwargs)


@contextmanager
def cwd_in_path() -> Iterator[None]:
    """Within, modules of the working directory are found, before all others."""
    place = str(Path.cwd())
    if place in sys.path:
        yield
        return
    sys.path.insert(0, place)
    try:
        yield
    finally:
        if place in sys.path:
            sys.path.remove(place)


def import_from_cwd(module: str, imp: Callable[..., ModuleType] | None = None, package: str | None = None) -> ModuleType:  # fmt: skip
    """Import a module that may be in the working directory."""
    with cwd_in_path():
        return (imp or importlib.import_module)(module, package)


def gen_task_name(app: Value, name: str, module_name: str | None) -> str:
    """The name a task has without one of its own."""
    made: str = app.gen_task_name(name, module_name)
    return made
