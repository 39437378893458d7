"""`qbroker migrate-check PATH`: what of a program that was written for Celery has to change, line by line.

The program is read and never run: what its syntax does not tell, as a setting that is computed, is not found out.
What has to change is a change; what may stay, and only has no effect, is a note.
"""

import ast
import importlib
import importlib.util
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click

from qbroker.app import App
from qbroker.app.defaults import find, suggestion
from qbroker.app.sending import OPTIONS_NEEDLESS, PROPERTIES, prepare

__all__ = ["Finding", "check", "findings", "migrate_check"]

CHANGE: Final = "change"
NOTE: Final = "note"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A sentence about a line. `kind` is "change" where the program does not work as it is, else "note"."""

    path: str
    line: int
    kind: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {'' if self.kind == CHANGE else 'note: '}{self.sentence}"


_KOMBU: Final = {
    "kombu": "qbroker.messaging",
    "kombu.entity": "qbroker.messaging",
    "kombu.common": "qbroker.messaging",
    "kombu.exceptions": "qbroker.exceptions",
    "billiard.exceptions": "qbroker.exceptions",
    "billiard.einfo": "qbroker.compat.billiard",
    "kombu.serialization": "qbroker.serialization",
}
"""Where we have what users import from kombu and billiard."""

_PACKAGES: Final = {
    "billiard": "qbroker's pools use multiprocessing's own processes, so billiard tells nothing about them",
    "celery_once": "is written for Celery; unique_key of a task does the same",
    "celery_singleton": "is written for Celery; unique_key of a task does the same",
    "django_celery_beat": "keeps schedules in Django's database; the broker keeps its own: app.schedules and `qctl schedule`",
    "django_celery_results": "keeps results in Django's database; results are in the broker",
    "djcelery": "is long obsolete; qbroker.contrib.django is found by DJANGO_SETTINGS_MODULE",
    "flower": "speaks to Celery's workers; use `qctl top` and `qctl inspect`",
    "redbeat": "keeps schedules in Redis; the broker keeps them: beat_schedule or app.schedules",
}
"""Packages that people use beside Celery."""

_APP: Final = {
    "Beat": "the broker fires periodic tasks; `qbroker beat --once` registers them",
    "log": "logging is set up by signals: setup_logging, after_setup_logger",
    "steps": "the worker has no bootsteps; use signals",
    "user_options": "commands have no options of the app's",
}
"""Attributes of Celery's app that ours has not."""

_TASK_OPTIONS: Final = {
    "Strategy": "the worker has no strategies of tasks",
    "accept_magic_kwargs": "self.request of a bound task tells all of it",
    "backend": "results are in the broker; there is no backend of a task's own",
    "error_whitelist": "no mail is sent when a task fails; use the signal task_failure",
    "request_stack": "self.request is the run one is in",
    "send_error_emails": "no mail is sent when a task fails; use the signal task_failure",
}
"""Attributes of Celery's tasks that have no effect here."""

_OTHERS_POOLS: Final = frozenset({"args", "kwds", "callback", "error_callback"})
"""What `apply_async` of multiprocessing's pools takes; such a call is not one of a task."""

_CALL_OPTIONS: Final = frozenset(
    {
        *(name for name in inspect.signature(prepare).parameters if name not in ("conf", "name")),
        *OPTIONS_NEEDLESS, *PROPERTIES,
        "fairness_key", "fairness_weight", "labels", "limits", "stamped_headers", "unique_key", "unique_policy", "unique_scope",
        "acks_late", "acks_on_failure", "acks_on_failure_or_timeout", "acks_on_timeout", "chain", "chord",
        "group_id", "group_index", "link", "link_error", "max_deliveries", "reject_on_worker_lost", "app",
        "store_errors_even_if_ignored", "track_started", "add_to_parent", "task_type", "replaced_task_nesting",
    }
)  # fmt: skip

_SETTING: Final = re.compile(r"(CELERY|CELERYD|CELERYBEAT|CELERYMON|CELERYEV|BROKER)_[A-Z0-9_]+")
"""Names in capitals that are settings wherever they stand."""

_GONE: Final = {
    "CELERY_CHORD_PROPAGATES": "a chord always fails with what failed in it",
    "CELERY_SEND_TASK_ERROR_EMAILS": "no mail is sent when a task fails; use the signal task_failure",
}
"""Settings of Celery's early days that Celery has no more."""

_OURS: Final = ("qbroker", "memory://")
_RESULTS: Final = ("qbroker", "rpc", "cache+memory", "memory", "disabled")


def findings(
    source: str, path: str, *, is_settings: bool = False, has_alias: bool = False
) -> list[Finding]:
    """What is to be said about a file, by line.

    With `is_settings` names at its top are settings, also those in small letters; with `has_alias` the program calls
    `qbroker.compat.celery.install()`, so imports of what there is may stay. SyntaxError as `ast` raises it.
    """
    reader = _Reader(path, is_settings=is_settings, has_alias=has_alias)
    reader.visit(ast.parse(source, path))
    return sorted(set(reader.found))


class _Reader(ast.NodeVisitor):
    def __init__(self, path: str, *, is_settings: bool, has_alias: bool) -> None:
        self.found: list[Finding] = []
        self._path = path
        self._is_settings = is_settings
        self._has_alias = has_alias
        self._apps: set[str] = set()
        self._depth = 0

    def _say(self, node: ast.AST, sentence: str, kind: str = CHANGE) -> None:
        self.found.append(Finding(self._path, getattr(node, "lineno", 1), kind, sentence))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._imported(node, alias.name, ())

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level == 0 and node.module:
            self._imported(node, node.module, tuple(alias.name for alias in node.names))
            self._apps |= {
                alias.asname or alias.name
                for alias in node.names
                if alias.name == "current_app" and node.module == "celery"
            }

    def _imported(self, node: ast.AST, module: str, names: tuple[str, ...]) -> None:
        root = module.partition(".")[0]
        if root in _PACKAGES and module not in _KOMBU:
            self._say(node, f"{root} {_PACKAGES[root]}.")
        if root == "celery":
            home: str | None = f"qbroker{module[6:]}"
        elif root == "kombu" or module in _KOMBU:
            home = _KOMBU.get(module)
        else:
            return
        if home is None or not _is_module(home):
            self._say(node, f"qbroker has nothing in the place of the module {module}.")
            return
        kept: list[str] = []
        missing: list[str] = []
        for name in names:
            (kept if name == "*" or _has(home, name) else missing).append(name)
        for name in missing:
            self._say(node, f"qbroker has nothing in the place of {module}.{name}.")
        if self._has_alias or (names and not kept):
            return
        old = f"from {module} import {', '.join(kept)}" if names else f"import {module}"
        new = f"from {home} import {', '.join(kept)}" if names else f"import {home}"
        self._say(node, f"replace `{old}` by `{new}`.")

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._assigned(target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._assigned(node.target, node.value)
        self.generic_visit(node)

    def _assigned(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            if isinstance(value, ast.Call) and _last_name(value.func) in ("Celery", "App"):
                self._apps.add(target.id)
            if _SETTING.fullmatch(target.id) or (self._is_settings and self._depth == 0):
                self._setting(target, target.id, value)
        elif isinstance(target, ast.Attribute) and _last_name(target.value) == "conf":
            self._setting(target, target.attr, value)
        elif (
            isinstance(target, ast.Subscript)
            and _last_name(target.value) == "conf"
            and isinstance(target.slice, ast.Constant)
            and isinstance(target.slice.value, str)
        ):
            self._setting(target, target.slice.value, value)

    def _settings(self, items: Iterable[tuple[ast.AST, str, ast.expr]]) -> None:
        for node, name, value in items:
            self._setting(node, name, value)

    def _setting(self, node: ast.AST, name: str, value: ast.expr) -> None:
        setting = find(name)
        if setting is None:
            if name in _GONE:
                self._say(node, f"{name} has no effect: {_GONE[name]}.", NOTE)
            elif _SETTING.fullmatch(name):
                meant = suggestion(name)
                rest = f"; did you mean {meant}?" if meant else "."
                self._say(node, f"there is no setting {name}{rest}", NOTE)
            return
        if setting.is_ignored:
            self._say(node, f"{name} has no effect: {setting.meaning}.", NOTE)
            return
        text = value.value if isinstance(value, ast.Constant) else None
        if not isinstance(text, str):
            return
        scheme = text.partition(":")[0]
        if setting.name == "broker_url" and not text.startswith(_OURS):
            # What follows may hold a password, and is not shown.
            self._say(
                node,
                f"{name} names a broker of {scheme!r}: run `qbroker serve`, and name that one: qbroker://host:7450.",
            )
        elif setting.name == "result_backend" and text and scheme not in _RESULTS:
            self._say(
                node,
                f"{name} names a backend of {scheme!r}: results are in the broker, so say 'qbroker://'.",
            )
        elif setting.name == "worker_pool" and text not in (
            "prefork",
            "threads",
            "asyncio",
            "solo",
        ):
            self._say(
                node,
                f"{name} is {text!r}, which there is not: use 'asyncio' for async def tasks, or 'threads'.",
            )
        elif setting.name == "beat_scheduler" and scheme.partition(".")[0] in _PACKAGES:
            root = scheme.partition(".")[0]
            self._say(node, f"{name}: {root} {_PACKAGES[root]}.")

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        is_task = any(_last_name(base) == "Task" for base in node.bases)
        for inner in node.body:
            if is_task and isinstance(inner, ast.Assign):
                for target in inner.targets:
                    if isinstance(target, ast.Name) and target.id in _TASK_OPTIONS:
                        self._say(
                            inner,
                            f"the attribute {target.id} of a task has no effect: {_TASK_OPTIONS[target.id]}.",
                            NOTE,
                        )
        self._depth += 1
        for part in (*node.bases, *node.body):
            self.visit(part)
        self._depth -= 1

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and _last_name(decorator.func) in (
                "task",
                "shared_task",
                "periodic_task",
            ):
                for keyword in decorator.keywords:
                    if keyword.arg in _TASK_OPTIONS:
                        self._say(
                            keyword.value,
                            f"the option {keyword.arg} of a task has no effect: {_TASK_OPTIONS[keyword.arg]}.",
                            NOTE,
                        )
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = _last_name(node.func)
        if name in ("Celery", "App"):
            for keyword in node.keywords:
                if keyword.arg is not None:
                    word = {"broker": "broker_url", "backend": "result_backend"}.get(
                        keyword.arg, keyword.arg
                    )
                    self._setting(keyword.value, word, keyword.value)
        elif name == "config_from_object" and node.args:
            self._settings(_items(node.args[0]))
        elif (
            name == "update"
            and isinstance(node.func, ast.Attribute)
            and _last_name(node.func.value) == "conf"
        ):
            for argument in node.args:
                self._settings(_items(argument))
            self._settings(
                (keyword.value, keyword.arg, keyword.value)
                for keyword in node.keywords
                if keyword.arg
            )
        elif name in ("apply_async", "send_task"):
            self._call(node, name)
        self.generic_visit(node)

    def _call(self, node: ast.Call, called: str) -> None:
        words = [keyword for keyword in node.keywords if keyword.arg is not None]
        if called == "apply_async" and {word.arg for word in words} & (_OTHERS_POOLS - {"args"}):
            return
        for word in words:
            assert word.arg is not None
            if word.arg in OPTIONS_NEEDLESS:
                self._say(
                    word.value,
                    f"the option {word.arg} of a call changes nothing: every message is durable, confirmed and tried again.",
                    NOTE,
                )
            elif called == "apply_async" and word.arg not in _CALL_OPTIONS:
                self._say(
                    word.value,
                    f"a call has no option {word.arg}; pass what a task is to read in headers={{...}}.",
                )

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if (
            isinstance(node.value, ast.Name)
            and node.value.id in self._apps
            and node.attr in _APP
            and not hasattr(App, node.attr)
        ):
            self._say(node, f"the app has no {node.attr}: {_APP[node.attr]}.")
        self.generic_visit(node)


def _last_name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _items(node: ast.AST) -> Iterator[tuple[ast.AST, str, ast.expr]]:
    """The names and values of a dict that is written out."""
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key, key.value, value
    elif isinstance(node, ast.Call) and _last_name(node.func) == "dict":
        for keyword in node.keywords:
            if keyword.arg:
                yield keyword.value, keyword.arg, keyword.value


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _has(module: str, name: str) -> bool:
    return hasattr(importlib.import_module(module), name) or _is_module(f"{module}.{name}")


_CONFIGURED = re.compile(r"""config_from_object\(\s*["']([\w.]+)""")
_ALIASED = re.compile(r"qbroker\.compat(\.celery| import celery)")
_NOT_READ: Final = frozenset(
    {".git", ".hg", ".tox", ".venv", "__pycache__", "build", "dist", "node_modules", "venv"}
)


def check(root: Path) -> list[Finding]:
    """What is to be said about a file, or about all Python files of a folder."""
    paths = [root] if root.is_file() else sorted(_python_files(root))
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in paths}
    has_alias = any(_ALIASED.search(text) for text in texts.values())
    named = {name for text in texts.values() for name in _CONFIGURED.findall(text)}
    found: list[Finding] = []
    for path, text in texts.items():
        shown = str(path)
        try:
            found += findings(
                text, shown, is_settings=_holds_settings(path, named), has_alias=has_alias
            )
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 1
            found.append(Finding(shown, line, CHANGE, f"cannot be read as Python: {error}."))
    return found


def _python_files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*.py"):
        if not _NOT_READ & set(path.relative_to(root).parts):
            yield path


def _holds_settings(path: Path, named: Iterable[str]) -> bool:
    """Whether a module is one that an app is configured by: by name, or `celeryconfig`."""
    dotted = ".".join(path.with_suffix("").parts)
    return path.stem == "celeryconfig" or any(
        dotted == name or dotted.endswith(f".{name}") for name in named
    )


@click.command(
    "migrate-check",
    epilog="""\b
    Examples:
      qbroker migrate-check .               what has to change in this project
      qbroker migrate-check proj --json     the same for programs

    Exit code 0: nothing has to change. 1: something has.
    """,
)
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
@click.pass_context
def migrate_check(context: click.Context, path: Path, *, as_json: bool) -> None:
    """Read a program written for Celery, and say line by line what changes."""
    found = check(path)
    changes = sum(finding.kind == CHANGE for finding in found)
    if as_json:
        click.echo(json.dumps([_as_json(finding) for finding in found], indent=2))
    else:
        for finding in found:
            click.echo(str(finding))
        notes = len(found) - changes
        click.echo(
            f"{_counted(changes, 'line')} to change, {_counted(notes, 'note')}."
            if found
            else "Nothing has to change."
        )
    context.exit(1 if changes else 0)


def _as_json(finding: Finding) -> Mapping[str, object]:
    return asdict(finding)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
