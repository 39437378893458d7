"""Find the app that `-A` names.

`proj:app` is an attribute of a module. `proj` and `proj.celery` are a module whose `app` or `celery` is
the app, or else any App in it; a package without one is asked for its `celery` submodule. A dotted
path may also end in the app itself (`proj.app`). The working directory comes first on `sys.path`.
"""

import difflib
import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

import click

from qbroker.app import App
from qbroker.exceptions import ImproperlyConfigured
from qbroker.serialization import Value

__all__ = ["LoadError", "explained", "find_app", "put_cwd_on_path"]


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
        raise LoadError(f"-A {spec!r}: the module's name before the colon is missing")
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
    except click.ClickException:
        raise
    except Exception as exc:
        raise LoadError(f"-A {spec!r}: {explained(exc)}") from exc


def explained(exc: Exception) -> str:
    """Say in one sentence what went wrong while the app was loaded, and in which line of which file."""
    if isinstance(exc, ImproperlyConfigured):
        return str(exc)
    if isinstance(exc, SyntaxError):
        place = (exc.filename, exc.lineno)
        text = exc.msg
    else:
        frames = traceback.extract_tb(exc.__traceback__)
        last = next((one for one in reversed(frames) if not _is_library(one.filename)), None)
        place = (last.filename, last.lineno) if last is not None else (None, None)
        text = str(exc)
    where = f" ({_short(place[0])}, line {place[1]})" if place[0] else ""
    return f"the app cannot be loaded: {type(exc).__name__}{f': {text}' if text else ''}{where}"


def _is_library(filename: str) -> bool:
    parts = Path(filename).parts
    return (
        filename.startswith("<")
        or "site-packages" in parts
        or "qbroker" in parts
        or "importlib" in parts
    )


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _attribute(module: ModuleType, path: str, spec: str) -> Value:
    found: Value = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = [name for name, value in vars(module).items() if isinstance(value, App)]
            names += ["app", "celery"] if hasattr(module, "__path__") else []
            close = difflib.get_close_matches(part, names or vars(module), n=1, cutoff=0.5)
            advice = f"; did you mean {close[0]!r}?" if close else ""
            raise LoadError(
                f"-A {spec!r}: {module.__name__} has no attribute {path!r}{advice}"
            ) from None
    return found


def _as_app(found: Value, spec: str) -> App:
    if isinstance(found, ModuleType):
        return _app_in(found, spec)
    if not isinstance(found, App):
        raise LoadError(f"-A {spec!r}: must be an App, not {type(found).__name__}: {found!r}")
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
        f"-A {spec!r}: {module.__name__} has no App; it needs `app = App({module.__name__!r})`, or "
        "name the attribute: -A module:attribute"
    )
