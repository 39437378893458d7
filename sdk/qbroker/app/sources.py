"""Where settings and tasks are read from: modules, what is in them, and arguments. All importing is here."""

import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from qbroker.app.config import settings_of
from qbroker.app.defaults import find
from qbroker.exceptions import ConfigNotFound
from qbroker.masking import masked, masked_setting
from qbroker.serialization import Value

__all__ = ["checked_arguments", "import_from_cwd", "import_related", "parse_argument", "read"]


@contextmanager
def _cwd_on_path() -> Iterator[None]:
    """The working directory is looked into first, as it is for programs that are run from it."""
    place = str(Path.cwd())
    is_new = place not in sys.path
    if is_new:
        sys.path.insert(0, place)
    try:
        yield
    finally:
        if is_new and place in sys.path:
            sys.path.remove(place)


def import_from_cwd(name: str, package: str | None = None) -> ModuleType:
    """The module of that name, also one of the working directory."""
    with _cwd_on_path():
        return importlib.import_module(name, package)


def read(
    source: Value, *, silent: bool, namespace: str | None = None
) -> Mapping[str, Value] | None:
    """The settings in a mapping, an object, or what `module`, `module:attribute` or `module.attribute` names.

    ConfigNotFound when it is not there; None with `silent`.
    """
    if not isinstance(source, str):
        return settings_of(source, namespace)
    try:
        return settings_of(_named(source), namespace)
    except ConfigNotFound:
        if silent:
            return None
        raise


def _named(name: str) -> Value:
    module_name, colon, path = name.partition(":")
    found: Value
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not (
            module_name == exc.name or module_name.startswith(f"{exc.name}.")
        ):
            # It is there, and something that it imports is not.
            raise
        module_name, _, path = name.rpartition(".")
        if colon or not module_name:
            raise _not_found(name, exc) from exc
        try:
            found = importlib.import_module(module_name)
        except ModuleNotFoundError as missing:
            raise _not_found(name, missing) from missing
    for part in path.split(".") if path else ():
        try:
            found = getattr(found, part)
        except AttributeError as exc:
            raise _not_found(name, exc) from exc
    return found


def _not_found(name: str, exc: Exception) -> ConfigNotFound:
    return ConfigNotFound(
        f"the configuration {name!r} cannot be imported: {exc}. It must be a module, or 'module:attribute'"
    )


def import_related(package: str, related_name: str | None) -> ModuleType | None:
    """Import `package.related_name`, if the package has it; the package itself where no name is given.

    A dotted path that is no module may end in a class of a package (`proj.apps.Config`): then the package counts.
    ModuleNotFoundError when there is no such package, or when the module misses another one.
    """
    try:
        found = importlib.import_module(package)
    except ModuleNotFoundError as exc:
        parent = package.rpartition(".")[0]
        if not parent or exc.name not in (package, parent):
            raise
        found = importlib.import_module(parent)
        package = parent
    if not related_name:
        return found
    name = f"{package}.{related_name}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name != name:
            raise
        return None


_CAST = re.compile(r"\((\w+)\)(.*)", re.DOTALL)

_TYPES: Mapping[str, Value] = {
    "any": str,
    "bool": lambda text: text.lower() in ("1", "true", "yes", "on"),
    "dict": json.loads,
    "float": float,
    "int": int,
    "list": json.loads,
    "str": str,
    "string": str,
    "tuple": lambda text: tuple(json.loads(text)),
}


def checked_arguments(texts: Sequence[str], namespace: str) -> tuple[str, ...]:
    """Return the arguments with full names. ValueError or ImproperlyConfigured says which cannot be used."""
    found = []
    for text in texts:
        name, value = parse_argument(text, namespace)
        setting = find(name)
        if setting is not None:
            setting.value_of(value)
        found.append(f"{name}={text.partition('=')[2]}")
    return tuple(found)


def parse_argument(text: str, namespace: str) -> tuple[str, Value]:
    """A setting from an argument: `task.always_eager=1`, `.pool=solo` (of `namespace`), `x_y=(int)3`."""
    name, is_given, value = text.partition("=")
    if not is_given:
        raise ValueError(
            f"the argument {masked(text)!r} is not name=value, as in 'worker.concurrency=2'"
        )
    name = name.lower().replace(".", "_")
    if name.startswith("_"):
        name = f"{namespace}{name}"
    cast = _CAST.fullmatch(value)
    if cast is not None:
        if cast[1] not in _TYPES:
            shown = f"{name}=({cast[1]}){masked_setting(name, cast[2])}"
            raise ValueError(
                f"the type {cast[1]!r} in {shown!r} must be one of {', '.join(_TYPES)}"
            )
        try:
            return name, _TYPES[cast[1]](cast[2])
        except ValueError as exc:
            raise ValueError(f"{name!r}: {exc}") from exc
    if find(name) is None:
        raise ValueError(
            f"there is no setting {name!r}; with a type, as in '{name}=(int)1', it is taken all the same"
        )
    return name, value
