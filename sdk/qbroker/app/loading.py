"""Find the app that `-A` names.

`proj:app` is an attribute of a module. `proj` and `proj.celery` are a module whose `app` or `celery` is
the app, or else any App in it; a package without one is asked for its `celery` submodule. A dotted
path may also end in the app itself (`proj.app`). The working directory comes first on `sys.path`.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import click

from qbroker.app import App
from qbroker.serialization import Value

__all__ = ["LoadError", "find_app", "put_cwd_on_path"]


class LoadError(click.ClickException):
    """`-A` names no app; the message says what was looked for."""


def put_cwd_on_path(workdir: str | None = None) -> None:
    """Let modules of the working directory be imported, before all others."""
    place = str(Path(workdir or ".").resolve())
    if place not in sys.path:
        sys.path.insert(0, place)


def find_app(spec: str) -> App:
    """The app that `spec` names; importing it may run any code of the user's."""
    put_cwd_on_path()
    module_name, colon, attribute = spec.partition(":")
    if colon:
        return _as_app(_attribute(_import(module_name, spec), attribute, spec), spec)
    try:
        module = _import(spec, spec)
    except _Missing:
        # The last part may be an attribute of the module before it.
        parent, _, last = spec.rpartition(".")
        if not parent:
            raise
        return _as_app(_attribute(_import(parent, spec), last, spec), spec)
    return _app_in(module, spec)


class _Missing(LoadError):
    """There is no such module; a module that exists but fails to import is another matter."""


def _import(name: str, spec: str) -> ModuleType:
    if not name:
        raise LoadError(f"-A {spec!r}: no module is named before the colon")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (name == exc.name or name.startswith(f"{exc.name}.")):
            raise _Missing(
                f"-A {spec!r}: there is no module {exc.name!r} (looked in {Path.cwd()} and on "
                "sys.path). Start from the project's folder, or use --workdir."
            ) from exc
        raise LoadError(
            f"-A {spec!r}: {name} needs a module that is missing: {exc.name!r}"
        ) from exc


def _attribute(module: ModuleType, path: str, spec: str) -> Value:
    found: Value = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise LoadError(f"-A {spec!r}: {module.__name__} has no attribute {path!r}") from None
    return found


def _as_app(found: Value, spec: str) -> App:
    if isinstance(found, ModuleType):
        return _app_in(found, spec)
    if not isinstance(found, App):
        raise LoadError(f"-A {spec!r} is no App but {type(found).__name__}: {found!r}")
    return found


def _app_in(module: ModuleType, spec: str) -> App:
    for name in ("app", "celery"):
        found = getattr(module, name, None)
        if isinstance(found, App):
            return found
    if hasattr(module, "__path__"):
        try:
            return _app_in(_import(f"{module.__name__}.celery", spec), spec)
        except _Missing:
            pass
    for found in vars(module).values():
        if isinstance(found, App):
            return found
    raise LoadError(
        f"-A {spec!r}: {module.__name__} holds no App; it needs `app = App({module.__name__!r})`, or "
        "name the attribute: -A module:attribute"
    )
