"""The app: its tasks, its settings, and the way its calls take to the broker."""

import datetime as dt
import importlib
import logging
import os
import platform
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, TracebackType
from typing import (
    TYPE_CHECKING,
    ClassVar,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    cast,
    overload,
)

from qbroker import _state, clock, envelope, serialization, signals, states
from qbroker._version import __version__
from qbroker.app import annotations, sources
from qbroker.app.amqp import AMQP, SETTINGS as ROUTING_SETTINGS
from qbroker.app.builtins import add_tasks
from qbroker.app.composing import WORKFLOW, Composer, Outgoing
from qbroker.app.config import Settings
from qbroker.app.connection import Connection, Pool, Producer
from qbroker.app.control import Control
from qbroker.app.defaults import RESULTS_HERE
from qbroker.app.eager import carried, is_sending, sending
from qbroker.app.events import Events
from qbroker.app.loader import Loader
from qbroker.app.pipeline import Pipeline, current_pipeline
from qbroker.app.programs import Worker
from qbroker.app.sending import (
    PROPERTIES,
    Call,
    Defaults,
    prepare,
    prepare_again,
    settle,
    template,
    zone_of,
)
from qbroker.app.trace import call_errbacks, execute, plan_of
from qbroker.app.workflow import is_composite
from qbroker.canvas import Signature, group, maybe_signature, signature
from qbroker.canvas.primitives import apply_or_send
from qbroker.canvas.signature import as_links, as_list
from qbroker.exceptions import (
    AlwaysEagerIgnored,
    DuplicateTaskNameWarning,
    ImproperlyConfigured,
    InvalidTaskError,
    NotRegistered,
    Replaced,
    Retry,
    UnroutableError,
)
from qbroker.hints import annotations_of
from qbroker.ids import uuid7
from qbroker.local import PromiseProxy, Proxy
from qbroker.request import Context, current_request
from qbroker.result import (
    AsyncResult as Result,
    Backend,
    BrokerBackend,
    DisabledBackend,
    EagerResult,
    GroupResult as Group,
    ResultSet as Results,
    allow_join_result,
)
from qbroker.serialization import AUTH, Value
from qbroker.task import Task as BaseTask, header_of
from qbroker.utils.imports import qualname, symbol_by_name

if TYPE_CHECKING:
    from qbroker.app.periodic import Schedules
    from qbroker.client import Client, Verdict

__all__ = ["App", "Celery", "TaskRegistry", "shared_task"]

_log = logging.getLogger(__name__)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)

P = ParamSpec("P")
R = TypeVar("R")

_CANVAS_OPTIONS = frozenset(["chain", "chord", "group_id", "group_index", "link", "link_error"])
"""Options of a call that make it more than one message, or say where among others it stands."""


def _protocol_headers(name: str, task_id: str, options: Mapping[str, Value]) -> dict[str, Value]:
    """What Celery's protocol 2 has as headers, for receivers of signals to read."""
    stamped = as_list(options.get("stamped_headers"))
    return {
        "lang": "py",
        "task": name,
        "id": task_id,
        "shadow": options.get("shadow"),
        "eta": options.get("eta"),
        "expires": options.get("expires"),
        "group": options.get("group_id"),
        "group_index": options.get("group_index"),
        "retries": options.get("retries", 0),
        "timelimit": [options.get("time_limit"), options.get("soft_time_limit")],
        "root_id": options.get("root_id") or task_id,
        "parent_id": options.get("parent_id"),
        "argsrepr": options.get("argsrepr"),
        "kwargsrepr": options.get("kwargsrepr"),
        "ignore_result": options.get("ignore_result"),
        "replaced_task_nesting": options.get("replaced_task_nesting", 0),
        "stamped_headers": stamped or None,
        "stamps": {stamp: options.get(stamp) for stamp in stamped},
    }


_CONNECTION_SETTINGS = frozenset({"broker_url", "broker_connection_timeout", "result_backend"})


class TaskRegistry(dict[str, BaseTask[..., Value]]):
    """Tasks by name."""

    NotRegistered = NotRegistered

    def __missing__(self, name: str) -> BaseTask[..., Value]:
        raise NotRegistered(name)

    def register(self, task: Value) -> None:
        """Add a task: an instance, or a class of which one is made."""
        if isinstance(task, type):
            task = task()
        if not task.name:
            raise InvalidTaskError(
                f"Task class {type(task).__name__!r} must specify .name attribute"
            )
        self[task.name] = task

    def unregister(self, name: Value) -> None:
        """Remove a task, by its name or itself."""
        known: Value = getattr(name, "name", name)
        if self.pop(known, None) is None:
            raise NotRegistered(name)

    def regular(self) -> dict[str, BaseTask[..., Value]]:
        """Those that are not periodic."""
        return self.filter_types("regular")

    def periodic(self) -> dict[str, BaseTask[..., Value]]:
        """Those whose class says that they are periodic, as Celery's version 3 had them."""
        return self.filter_types("periodic")

    def filter_types(self, type: str) -> dict[str, BaseTask[..., Value]]:  # noqa: A002 - Celery's name
        """Those of a kind, "regular" or "periodic"."""
        return {
            name: task for name, task in self.items() if getattr(task, "type", "regular") == type
        }


class Decorator(Protocol):
    """What `@app.task(…)` is: a function becomes a task with the same arguments."""

    def __call__(self, fun: Callable[P, R], /) -> BaseTask[P, R]: ...


class BoundDecorator(Protocol):
    """What `@app.task(bind=True)` is: the function's first argument is the task."""

    def __call__(self, fun: Callable[Concatenate[Value, P], R], /) -> BaseTask[P, R]: ...


class App:
    """A set of tasks, and the broker they are called through.

        app = App("proj", broker="qbroker://127.0.0.1:7450", backend="qbroker://")

        @app.task
        def add(x, y): ...

    Other keywords are settings. Without a backend no results are kept. The broker is, in this order: the
    argument, the configuration, the environment's QBROKER_URL or CELERY_BROKER_URL, the default.
    """

    task_cls: type[BaseTask[..., Value]] | str = BaseTask
    builtin_fixups: ClassVar[Sequence[str]] = ("qbroker.fixups.django:fixup",)
    """What fits each app to the framework it is in: functions of the app, by name."""

    def __init__(
        self,
        main: str | None = None,
        *,
        backend: str | None = None,
        broker: str | None = None,
        include: Iterable[str] | str | None = None,
        set_as_current: bool = True,
        changes: Mapping[str, Value] | None = None,
        config_source: Value = None,
        task_cls: type[BaseTask[..., Value]] | str | None = None,
        tasks: Mapping[str, BaseTask[..., Value]] | None = None,
        autofinalize: bool = True,
        namespace: str | None = None,
        strict_typing: bool = True,
        **settings: Value,
    ) -> None:
        self.main = main
        self.autofinalize = autofinalize
        self.strict_typing = strict_typing
        self.namespace = namespace
        self.finalized = False
        self.set_as_current = set_as_current
        self.has_own_task_cls = task_cls is not None or type(self).task_cls is not App.task_cls
        if task_cls is not None:
            self.task_cls = task_cls
        self._lock = threading.RLock()
        self._tasks = tasks if isinstance(tasks, TaskRegistry) else TaskRegistry(tasks or {})
        self._warned_names: set[str] = set()
        self._pending: list[PromiseProxy[BaseTask[..., Value]]] = []
        self._task_class: type[BaseTask[..., Value]] | None = None
        self._backend: Backend | None = None
        self._clients: dict[str, Client] = {}
        self._accepted: frozenset[str] | None = None
        self._accepted_results: frozenset[str] | None = None
        self._annotations: tuple[Value, ...] | None = None
        self._loader: Loader | None = None
        self._config_source: tuple[Value, str | None, bool] | None = None
        self._periodic: dict[str, dict[str, Value]] = {}
        self._later_defaults: list[Callable[[], Mapping[str, Value]]] = []
        self.configured = False
        self.on_configure = signals.Signal(name="app.on_configure")
        self.on_after_configure = signals.Signal(name="app.on_after_configure")
        self.on_after_finalize = signals.Signal(name="app.on_after_finalize")
        self.on_after_fork = signals.Signal(name="app.on_after_fork")
        self.amqp = AMQP(lambda: self.conf, lambda: self.tasks)
        self.conf = Settings(
            on_change=self._on_setting, load=self._load_config, place=self.amqp.place
        )
        self._composer = Composer(self)
        env_url = os.environ.get("QBROKER_URL") or os.environ.get("CELERY_BROKER_URL")  # noqa: TID251 - the SDK's edge: where it reads the environment
        if env_url:
            self.conf.add_defaults({"broker_url": env_url})
        self._own_settings: dict[str, Value] = {**(changes or {}), **settings}
        self.conf.update(self._own_settings)
        given = {"broker_url": broker, "result_backend": backend, "include": include}
        own = {name: value for name, value in given.items() if value is not None}
        self._own_settings |= own
        self.conf.set_apart(own)
        if config_source is not None:
            self.config_from_object(config_source, namespace=namespace)
        if set_as_current:
            self.set_current()
        _state.register_app(self)
        self.fixups: list[Value] = [
            made for name in self.builtin_fixups if (made := symbol_by_name(name)(self))
        ]
        self.on_init()

    def on_init(self) -> None:
        """Called at the end of construction, for subclasses."""

    def set_current(self) -> None:
        """Make this the thread's current app."""
        _state.set_current_app(self)

    def set_default(self) -> None:
        """Make this the app of all threads that have no current one."""
        _state.set_default_app(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, and be no longer the current app."""
        with self._lock:
            clients = list(self._clients.values())
            self._clients.clear()
            self._backend = None
        for client in clients:
            client.close()
        _state.unregister_app(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.main or '__main__'} at {id(self):#x}>"

    # -- settings

    def config_from_object(
        self,
        obj: Value,
        silent: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        force: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        namespace: str | None = None,
    ) -> Settings | bool | None:
        """Take settings from a mapping, an object's attributes, or a module or what is in it, by name.

        It is imported when a setting is first needed, or at once with `force`, which answers the settings. With
        `silent` one that is missing is no error, and False is answered. What the constructor was given wins, and so
        does what was set before the settings are needed.
        """
        self.namespace = namespace or self.namespace
        self._config_source = (obj, self.namespace, silent)
        if self.configured:
            self._reload_config()
        elif force:
            found = self._read_source()
            if found is None:
                self._config_source = None
                return False
            self.conf.finalize()
            return self.conf
        return None

    def config_from_envvar(
        self,
        variable_name: str,
        silent: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        force: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
    ) -> Settings | bool | None:
        """Do the same with the object that a variable of the environment names."""
        name = os.environ.get(variable_name)  # noqa: TID251 - the SDK's edge: it was asked to read this one
        if not name:
            if silent:
                return False
            raise ImproperlyConfigured(
                f"the environment variable {variable_name!r} is not set; it must name the module of the settings, "
                "as in 'proj.celeryconfig'"
            )
        return self.config_from_object(name, silent=silent, force=force)

    def config_from_cmdline(self, argv: Iterable[str], namespace: str = "celery") -> None:
        """Take settings from arguments: `task.always_eager=1`, `.concurrency=2`, `x=(int)3`."""
        # Set apart: the app may have its settings in the old spelling.
        self.conf.set_apart(dict(sources.parse_argument(text, namespace) for text in argv))

    def add_defaults(self, fun: Value) -> None:
        """Give settings other defaults: a mapping, or a function that makes one when it is needed."""
        make = fun if callable(fun) else lambda: fun
        if self.configured:
            self.conf.add_defaults(make())
        else:
            self._later_defaults.append(make)

    def _load_config(self) -> None:
        with self._lock:
            if self.configured:
                return
            self.on_configure.send(self)
            found = self._read_source()
            for make in self._later_defaults:
                self.conf.add_defaults(make())
            namespace = self._config_source[1] if self._config_source is not None else None
            self.conf.configure(found, namespace)
            self.configured = True
        self._show_periodic()
        self.on_after_configure.send(self, source=self.conf)

    def _reload_config(self) -> None:
        with self._lock:
            found = self._read_source()
            if found is not None:
                self.conf.configure(found, self.namespace)
                self.conf.update(self._own_settings)

    def _read_source(self) -> Mapping[str, Value] | None:
        if self._config_source is None:
            # As Celery's loader does: `--config` of its programs ends there.
            name = os.environ.get("CELERY_CONFIG_MODULE")  # noqa: TID251 - the SDK's edge
            return sources.read(name, silent=False) if name else None
        obj, _, silent = self._config_source
        return sources.read(obj, silent=silent, namespace=self.namespace)

    def _on_setting(self, name: str) -> None:
        if name in _CONNECTION_SETTINGS:
            with self._lock:
                clients = list(self._clients.values())
                self._clients.clear()
                self._backend = None
            for client in clients:
                client.close()
        elif name in ("accept_content", "result_accept_content", "result_serializer"):
            self._accepted = self._accepted_results = None
        elif name == "task_annotations":
            self._annotations = None
        elif name in ROUTING_SETTINGS:
            self.amqp.forget()

    @property
    def accepted_content(self) -> frozenset[str]:
        """Content types that may be decoded."""
        accepted = self._accepted
        if accepted is None:
            accepted = self._accepted = serialization.content_types(self.conf.accept_content)
        return accepted

    @property
    def accepted_results(self) -> frozenset[str]:
        """Content types of results that may be decoded."""
        accepted = self._accepted_results
        if accepted is None:
            chosen = self.conf.result_accept_content
            own = self.accepted_content if chosen is None else serialization.content_types(chosen)
            # Failures are JSON, whatever returned values are; but where results are signed, so are failures.
            signs = self.conf.result_serializer == AUTH
            accepted = self._accepted_results = own if signs else own | {serialization.JSON}
        return accepted

    @property
    def timezone(self) -> dt.tzinfo:
        """The zone of times without one."""
        return zone_of(self.conf)

    @timezone.setter
    def timezone(self, zone: dt.tzinfo | str) -> None:
        self.conf.timezone = zone

    def uses_utc_timezone(self) -> bool:
        """Whether that is UTC."""
        return self.timezone == dt.UTC

    def now(self) -> dt.datetime:
        """The current time, in the app's zone."""
        return (_EPOCH + clock.wall_us() * _MICROSECOND).astimezone(self.timezone)

    def select_queues(self, queues: Iterable[str] | str | None = None) -> None:
        """Have workers of this app take from these of its queues only."""
        self.amqp.queues.select(queues)

    def either(self, default_key: str, *defaults: Value) -> Value:
        """The first of `defaults` that is not None, else the setting."""
        found = next((value for value in defaults if value is not None), None)
        return self.conf.get(default_key) if found is None else found

    @property
    def annotations(self) -> tuple[Value, ...]:
        """What `task_annotations` says, as objects with `annotate` and `annotate_any`."""
        if self._annotations is None:
            self._annotations = annotations.prepare(self.conf.task_annotations)
        return self._annotations

    # -- tasks

    @property
    def tasks(self) -> TaskRegistry:
        """All tasks by name; asking finalizes the app."""
        if not self.finalized:
            self.finalize(auto=True)
        return self._tasks

    def finalize(self, auto: bool = False) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """Make all tasks that were declared, shared ones included."""
        self.conf.finalize()
        with self._lock:
            if self.finalized:
                return
            if auto and not self.autofinalize:
                raise RuntimeError("Contract breach: app not finalized")
            self.finalized = True
            # Its own tasks come first, so that no other app's takes a name they have.
            while self._pending:
                self._pending.pop(0).__maybe_evaluate__()
            add_tasks(self)
            _state.announce_app_finalized(self)
            for task in self._tasks.values():
                if not task.__bound__:
                    task.bind(self)
        self.on_after_finalize.send(self)

    @property
    def Task(self) -> type[BaseTask[..., Value]]:  # noqa: N802 - Celery's name
        """The base class of this app's tasks: `class Debug(app.Task)`."""
        with self._lock:
            if self._task_class is None:
                base = symbol_by_name(self.task_cls)
                self._task_class = type("Task", (base,), {"_app": self, "__module__": __name__})
            return self._task_class

    def gen_task_name(self, name: str, module: str) -> str:
        """The name of a task that was given none."""
        if module == "__main__" and self.main:
            module = self.main
        return f"{module}.{name}" if module else name

    @overload
    def task(self, fun: Callable[P, R], /) -> BaseTask[P, R]: ...
    @overload
    def task(self, *, bind: Literal[True], **options: Value) -> BoundDecorator: ...
    @overload
    def task(self, *, bind: Literal[False] = False, **options: Value) -> Decorator: ...
    def task(self, *args: Value, **options: Value) -> Value:
        """Make a function a task: `@app.task`, or with options `@app.task(bind=True, name=…)`.

        The task is made when it is first used or the app is finalized (`lazy=False`: now). Options are
        attributes of the task; `base` is its class, and with `shared=False` other apps do not get it.
        """
        if len(args) == 1:
            if not callable(args[0]):
                raise TypeError("argument 1 to @task() must be a callable")
            return self._declare(args[0], **options)
        if args:
            raise TypeError(f"@task() takes exactly 1 argument ({len(args)} given)")
        return lambda fun: self._declare(fun, **options)

    def _declare(
        self,
        fun: Callable[..., Value],
        *,
        shared: bool = True,
        lazy: bool = True,
        filter: Callable[[Value], Value] | None = None,  # noqa: A002 - Celery's name
        **options: Value,
    ) -> Value:
        if shared:
            _state.connect_on_app_finalize(lambda app: app.share(fun, **options))
        declared: Value
        if lazy and not self.finalized:
            declared = PromiseProxy(lambda: self.task_from_fun(fun, **options), doc=fun.__doc__)
            self._pending.append(declared)
        else:
            declared = self.task_from_fun(fun, **options)
        return filter(declared) if filter is not None else declared

    def task_from_fun(
        self,
        fun: Callable[..., Value],
        *,
        name: str | None = None,
        base: type[BaseTask[..., Value]] | None = None,
        bind: bool = False,
        pydantic: bool = False,
        pydantic_strict: bool = False,
        pydantic_context: Mapping[str, Value] | None = None,
        pydantic_dump_kwargs: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> BaseTask[..., Value]:
        """The task of a function: made now, or the one that has its name.

        With `pydantic` its arguments become the models they are annotated with (qbroker.app.models).
        """
        if not self.finalized and not self.autofinalize:
            raise RuntimeError("Contract breach: app not finalized")
        name = name or self.gen_task_name(fun.__name__, fun.__module__)
        with self._lock:
            known = self._tasks.get(name)
            if known is not None:
                made_of = getattr(known, "__wrapped__", None)
                if made_of is not None and made_of is not fun:
                    self._warn_of_duplicate(
                        name,
                        made_of,
                        fun,
                        "The new callable was not registered; calls under this name reach the "
                        "callable registered first.",
                    )
                return known
            header = header_of(fun)
            body, models = fun, None
            if pydantic:
                from qbroker.app.models import Models, validating  # noqa: PLC0415 - few apps have such tasks

                models = Models(
                    fun,
                    app=self,
                    name=name,
                    is_bound=bind,
                    strict=pydantic_strict,
                    context=pydantic_context,
                    dump_kwargs=pydantic_dump_kwargs,
                )
                body = validating(fun, models)
            attributes = {
                "_app": self,
                "name": name,
                "typing": self.strict_typing,
                "run": body if bind else staticmethod(body),
                "__header__": header if bind else staticmethod(header),
                "__wrapped__": staticmethod(fun),
                "__models__": models,
                "__doc__": fun.__doc__,
                "__module__": fun.__module__,
                "__annotations__": annotations_of(fun),
                "__name__": fun.__name__,
                "__qualname__": fun.__qualname__,
                **options,
            }
            for option in ("unique_key", "fairness_key"):
                if callable(options.get(option)):
                    # A function of the arguments, not a method of the task.
                    attributes[option] = staticmethod(options[option])
            class_: type[BaseTask[..., Value]] = type(
                fun.__name__, (base or self.Task,), attributes
            )
            task = class_()
            self._tasks[name] = task
            task.bind(self)
            return task

    def _warn_of_duplicate(self, name: str, existing: Value, new: Value, outcome: str) -> None:
        """Warn once for each name, as Celery does, at the line of the program that led here."""
        if name in self._warned_names:
            return
        self._warned_names.add(name)
        text = (
            f"Task name {name!r} is already registered to a different callable.\n\n"
            f"Existing: {qualname(existing)}\nNew:      {qualname(new)}\n\n{outcome}\n\n"
            "Every task must have a unique name. Pass an explicit name= to the task decorator, or "
            "rename one of the callables."
        )
        warnings.warn(DuplicateTaskNameWarning(text), stacklevel=_callers_level())

    def share(
        self, fun: Callable[..., Value], *, name: str | None = None, **options: Value
    ) -> None:
        """Take over a task that was declared for all apps, unless there is one of its name."""
        name = name or self.gen_task_name(fun.__name__, fun.__module__)
        with self._lock:
            if name not in self._tasks:
                self.task_from_fun(fun, name=name, **options)

    def register_task(self, task: Value, **options: Value) -> BaseTask[..., Value]:
        """Add a class-based task; a class or an instance."""
        made: BaseTask[..., Value] = task() if isinstance(task, type) else task
        if not made.name:
            class_ = type(made)
            made.name = self.gen_task_name(class_.__name__, class_.__module__)
        for option, value in options.items():
            setattr(made, option, value)
        if made.typing is None:
            made.typing = self.strict_typing
        with self._lock:
            known = self._tasks.get(made.name)
            self._tasks[made.name] = made
        if known is not None and type(known) is not type(made):
            self._warn_of_duplicate(
                made.name,
                getattr(known, "__wrapped__", type(known)),
                type(made),
                "The new callable replaced the existing one; calls under this name now reach the "
                "new callable.",
            )
        made.bind(self)
        return made

    def autodiscover_tasks(
        self,
        packages: Iterable[str] | Callable[[], Iterable[str]] | None = None,
        related_name: str | None = "tasks",
        force: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
    ) -> None:
        """Import the module `related_name` of each package, when a worker imports its modules, or now with `force`.

        A package that is not there is an error; one without such a module is passed over. Without packages, those of
        Django's installed apps count.
        """
        if force:
            self._discover(packages, related_name)
        else:
            signals.import_modules.connect(
                lambda **_: self._discover(packages, related_name), sender=self, weak=False
            )

    def setup_security(
        self,
        allowed_serializers: Iterable[str] | None = None,
        key: str | None = None,
        key_password: bytes | str | None = None,
        cert: str | None = None,
        store: str | None = None,
        digest: str | None = None,
        serializer: str = "json",
    ) -> None:
        """Have messages signed, and read only those that somebody trusted signed; see `qbroker.security`.

        The files of the private key and its certificate, and the folder of the certificates that are trusted, are
        given here or by the settings `security_key`, `security_certificate` and `security_cert_store`.
        """
        from qbroker.security import setup_security  # noqa: PLC0415 - it needs cryptography

        setup_security(
            allowed_serializers, key, key_password, cert, store, digest, serializer, app=self
        )

    def _discover(
        self,
        packages: Iterable[str] | Callable[[], Iterable[str]] | None,
        related_name: str | None,
    ) -> None:
        if packages is None:
            packages = [name for fixup in self.fixups for name in fixup.autodiscover_tasks()]
        for package in (packages() if callable(packages) else packages) or ():
            sources.import_related(package, related_name)

    def import_modules(self) -> list[ModuleType]:
        """Import what `imports` and `include` name; their tasks are then known."""
        for _, answer in signals.import_modules.send(self):
            if isinstance(answer, Exception):
                raise answer
        return [
            importlib.import_module(module)
            for module in dict.fromkeys((*self.conf.imports, *self.conf.include))
        ]

    @property
    def loader(self) -> Loader:
        """What imports tasks, by Celery's names."""
        if self._loader is None:
            self._loader = Loader(self, self.import_modules)
        return self._loader

    @property
    def oid(self) -> str:
        """What tells this app of this process from all others."""
        return _oid(self)

    @property
    def thread_oid(self) -> str:
        """What tells this app of this thread from all others."""
        return _oid(self, threading.get_ident())

    @property
    def current_task(self) -> BaseTask[..., Value] | None:
        """The task this thread is inside of."""
        request = current_request.get()
        return None if request is None else cast("BaseTask[..., Value]", request.task)

    @property
    def current_worker_task(self) -> BaseTask[..., Value] | None:
        """The task that a worker runs on this thread, whatever task it has called like a function."""
        request = current_request.get()
        while request is not None and request.called_directly:
            request = request.outer
        return None if request is None else cast("BaseTask[..., Value]", request.task)

    # -- the broker

    def client(self, url: str | None = None) -> "Client":
        """The connection, made at first use."""
        url = url or self.conf.broker_url
        client = self._clients.get(url)
        if client is None:
            from qbroker import inprocess  # noqa: PLC0415 - the same
            from qbroker.client import Client  # noqa: PLC0415 - gRPC is not loaded before it is needed

            with self._lock:
                client = self._clients.get(url)
                if client is None:
                    client = self._clients[url] = Client(
                        inprocess.reached(url), timeout_s=self.conf.broker_connection_timeout
                    )
        return client

    @property
    def backend(self) -> Backend:
        """Where results are."""
        backend = self._backend
        if backend is None:
            backend = self._backend = self._make_backend(self.conf.result_backend)
        return backend

    def _make_backend(self, url: Value) -> Backend:
        if not url or url in ("disabled", "disabled://"):
            return DisabledBackend()
        kept_s = lambda: self.conf.result_expires  # noqa: E731 - one of several
        if url in RESULTS_HERE or url.startswith("cache+memory://"):
            return BrokerBackend(self.client, self._terms, kept_s, self._write, self._is_fed)
        return BrokerBackend(
            lambda: self.client(url), self._terms, kept_s, self._write, self._is_fed
        )

    def _terms(self) -> envelope.Terms:
        conf = self.conf
        return envelope.Terms(
            self.accepted_results,
            conf.unpacked_bytes_max,
            conf.seal,
            AUTH if conf.result_serializer == AUTH else "json",
            # What is encrypted in a message must not lie beside its result in plain sight.
            keeps_calls=conf.result_extended and not conf.security_encryption_keys,
        )

    def _write(self, value: Value) -> dict[str, Value]:
        """The fields of a Result that say what a task returned, where no worker writes them."""
        conf = self.conf
        return envelope.write(
            value, conf.result_serializer, conf.result_compression, conf.compression_level
        )

    def _is_fed(self) -> bool:
        """Whether calls leave results at the backend."""
        return not self.conf.task_always_eager or self.conf.task_store_eager_result

    def AsyncResult(  # noqa: N802 - Celery's name
        self,
        id: str,  # noqa: A002 - Celery's name
        task_name: str | None = None,
        backend: Backend | None = None,
        parent: Value = None,
    ) -> Result[Value]:
        """The result of any call, by its id."""
        return Result(id, backend, task_name, self, parent)

    def GroupResult(  # noqa: N802 - Celery's name
        self,
        id: str | None = None,  # noqa: A002 - Celery's name
        results: Iterable[Value] | None = None,
        parent: Value = None,
        **kwargs: Value,
    ) -> Group:
        """The results of several calls, under an id."""
        return Group(id, results, parent, app=self)

    def ResultSet(self, results: Iterable[Value], **kwargs: Value) -> Results:  # noqa: N802 - Celery's name
        """Several results."""
        return Results(results, app=self)

    @property
    def control(self) -> Control:
        """Revoking, purging, asking and changing workers."""
        return Control(
            self.client,
            lambda: tuple(self.amqp.queues.consume_from),
            lambda: self.accepted_content,
        )

    @property
    def events(self) -> Events:
        """What there is to hear, tell and know of events."""
        return Events(self)

    def connection(self, url: str | None = None, **_: Value) -> Connection:
        """A handle on the connection, for programs that open one."""
        return Connection(lambda: self.client(url), url or self.conf.broker_url)

    connection_for_read = connection_for_write = connection

    @property
    def pool(self) -> Pool[Connection]:
        """What programs take a connection from; it is the app's one connection."""
        return Pool(self.connection)

    @property
    def producer_pool(self) -> Pool[Producer]:
        """What programs take a producer from, to hand it to calls."""
        return Pool(lambda: Producer(self.connection()))

    def producer_or_acquire(self, producer: Value = None) -> Value:
        """The producer that is given, or one of the pool, for a `with`."""
        return nullcontext(producer) if producer is not None else self.producer_pool.acquire()

    default_producer = producer_or_acquire

    def connection_or_acquire(self, connection: Value = None, **_: Value) -> Value:
        """The connection that is given, or a handle on the app's."""
        return connection or self.connection()

    # -- calls

    def send_task(
        self,
        name: str,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        *,
        task_type: Defaults | None = None,
        add_to_parent: bool = True,
        **options: Value,
    ) -> Result[Value]:
        """Call a task by its name, without having it; options as for `apply_async`.

        Answers when the broker has the message on disk (in a pipeline: at once). Raises
        OperationalError when it does not answer, MessageRefused when it refuses, and DuplicateTaskError when a
        task with the same unique key is there.
        """
        if task_type is None and self.conf.task_always_eager:
            warnings.warn(
                AlwaysEagerIgnored("task_always_eager has no effect on send_task"), stacklevel=2
            )
        if not _CANVAS_OPTIONS.isdisjoint(options):
            sig = self._linked(name, args, kwargs, task_type, options)
            return cast(
                "Result[Value]", self.send_canvas(sig, None, None, {}, add_to_parent=add_to_parent)
            )
        call, told = self.prepare(name, args, kwargs, task_type, options)
        pipeline = current_pipeline.get()
        client = self.client()
        if pipeline is not None and pipeline.client is client:
            call.result = result = self._sent(call, task_type, add_to_parent=add_to_parent)
            pipeline.add(call)
        else:
            self._settle((call,), client.publish((call.message,)))
            result = self._sent(call, task_type, add_to_parent=add_to_parent)
        if told is not None:
            signals.after_task_publish.send(name, **told)
        return result

    def _settle(self, calls: Sequence[Call], verdicts: "Sequence[Verdict]") -> None:
        if verdicts:
            refusal = settle(calls, verdicts)
            if isinstance(refusal, UnroutableError):
                self.amqp.declare_again()
            if refusal is not None:
                raise refusal

    async def asend_task(
        self,
        name: str,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        *,
        task_type: Defaults | None = None,
        add_to_parent: bool = True,
        **options: Value,
    ) -> Result[Value]:
        """Do the same without blocking the event loop."""
        if not _CANVAS_OPTIONS.isdisjoint(options):
            sig = self._linked(name, args, kwargs, task_type, options)
            return cast(
                "Result[Value]",
                await self.asend_canvas(sig, None, None, {}, add_to_parent=add_to_parent),
            )
        call, told = self.prepare(name, args, kwargs, task_type, options, declares=False)
        client = self.client()
        if call.declares and self.amqp.missing(client, call.declares):
            import asyncio  # noqa: PLC0415 - a third of the import time; who awaits has it loaded

            await asyncio.to_thread(self.amqp.declare, client, call.declares)
        self._settle((call,), await client.apublish((call.message,)))
        if told is not None:
            signals.after_task_publish.send(name, **told)
        return self._sent(call, task_type, add_to_parent=add_to_parent)

    def send_many(self, calls: Iterable[Value]) -> list[Result[Value]]:
        """Call many tasks and confirm them together.

        Each is a signature, or a tuple of a task or its name, then args, kwargs and options as far as needed.
        They leave in pieces while later ones are still being written, so what stands before a call that cannot
        be made is sent. Raises MessageRefused for the first that was refused; the others are stored.
        """
        prepared: list[tuple[Call | Outgoing, dict[str, Value] | None, Defaults | None]] = []
        with self.pipeline() as pipeline:
            for item in calls:
                if isinstance(item, Signature) and _is_canvas(item):
                    outgoing = self._composer.outgoing(item, None, None, {})
                    prepared.append((outgoing, None, None))
                    for call in outgoing.calls:
                        pipeline.add(call)
                    continue
                name, args, kwargs, options, task_type = self._parts(item)
                call, told = self.prepare(name, args, kwargs, task_type, options)
                prepared.append((call, told, task_type))
                pipeline.add(call)
        results: list[Result[Value]] = []
        for sent, told, task_type in prepared:
            if isinstance(sent, Outgoing):
                results.append(self._sent_canvas(sent, add_to_parent=True))
                continue
            if told is not None:
                signals.after_task_publish.send(sent.task, **told)
            results.append(self._sent(sent, task_type, add_to_parent=True))
        return results

    # -- calls of more than one task

    def _linked(
        self,
        name: str,
        args: Sequence[Value] | None,
        kwargs: Mapping[str, Value] | None,
        task_type: Defaults | None,
        options: Mapping[str, Value],
    ) -> Signature[Value]:
        """The signature of a call with callbacks, errbacks or a group."""
        given = {
            key: value
            for key, value in options.items()
            if value is not None or key not in _CANVAS_OPTIONS
        }
        # Given through an attribute, because the constructor takes its name from a task.
        sig: Signature[Value] = Signature(name, args, kwargs, given, app=self)
        sig._type = task_type  # noqa: SLF001 - see above
        return sig

    def send_canvas(
        self,
        sig: Signature[Value],
        args: Sequence[Value] | None,
        kwargs: Mapping[str, Value] | None,
        options: Mapping[str, Value],
        *,
        add_to_parent: bool = True,
    ) -> Value:
        """Send a chain, group or chord, or a task with what follows it: all of it is stored, or nothing.

        Only a group that is larger than a message may be, and that nothing follows, is sent in several pieces.
        """
        outgoing = self._composer.outgoing(sig, args, kwargs, options)
        pipeline = current_pipeline.get()
        if not outgoing.calls:
            return outgoing.result
        client = self.client()
        if pipeline is not None and pipeline.client is client:
            for call in outgoing.calls:
                pipeline.add(call)
        else:
            verdicts = client.publish([call.message for call in outgoing.calls])
            self._settle(outgoing.calls, verdicts)
        return self._sent_canvas(outgoing, add_to_parent=add_to_parent)

    async def asend_canvas(
        self,
        sig: Signature[Value],
        args: Sequence[Value] | None,
        kwargs: Mapping[str, Value] | None,
        options: Mapping[str, Value],
        *,
        add_to_parent: bool = True,
    ) -> Value:
        """Do the same without blocking the event loop."""
        outgoing = self._composer.outgoing(sig, args, kwargs, options)
        if not outgoing.calls:
            return outgoing.result
        verdicts = await self.client().apublish([call.message for call in outgoing.calls])
        self._settle(outgoing.calls, verdicts)
        return self._sent_canvas(outgoing, add_to_parent=add_to_parent)

    def _sent_canvas(self, outgoing: Outgoing, *, add_to_parent: bool) -> Value:
        for name, told in outgoing.told:
            signals.after_task_publish.send(name, **told)
        result = outgoing.result
        if isinstance(result, Result) and len(outgoing.calls) == 1:
            only = outgoing.calls[0]
            if only.task != WORKFLOW:
                result.id = only.task_id
                result.ignored = only.ignores_result
                only.result = result
        request = current_request.get()
        if request is not None and add_to_parent and not request.called_directly:
            task = request.task
            if task is None or task.trail:
                request.children.append(result)
        return result

    def replaced(
        self, request: Context, sig: Signature[Value], args: Sequence[Value] = ()
    ) -> Replaced:
        """What a task raises to have a canvas take its place."""
        return self._composer.replaced(request, sig, args)

    def tell_errbacks(self, sig: Signature[Value], exc: BaseException) -> None:
        """Call the errbacks of a chord's body right here, because its header failed."""
        tasks = sig.tasks if isinstance(sig, group) else [sig]
        for task in tasks:
            errbacks = as_links(task.options, "link_error")
            if hasattr(task, "steps"):
                steps = task.steps()
                errbacks += as_links(steps[0].options, "link_error") if steps else []
            request = Context(
                id=task.options.get("task_id") or uuid7(),
                args=task.args,
                kwargs=task.kwargs,
                task=task.task,
                is_eager=True,
                called_directly=False,
            )
            call_errbacks(errbacks, request, exc, None, self)

    def _parts(self, item: Value) -> tuple[str, Value, Value, dict[str, Value], Defaults | None]:
        if isinstance(item, Signature):
            return item.task, item.args, item.kwargs, item.options, self._tasks.get(item.task)
        given: list[Value] = [*item, None, None, None]
        task, args, kwargs, options = given[:4]
        if type(task) is PromiseProxy:
            task = task._get_current_object()  # noqa: SLF001 - each look through the proxy costs more than this
        if isinstance(task, str):
            return task, args, kwargs, options or {}, self._tasks.get(task)
        if task.typing:
            task.check_arguments(args or (), kwargs or {})
        return task.name, args, kwargs, options or {}, task

    def pipeline(self) -> Pipeline:
        """A block whose calls are sent in batches and confirmed together at its end."""
        return Pipeline(self.client())

    def prepare(
        self,
        name: str,
        args: Sequence[Value] | None,
        kwargs: Mapping[str, Value] | None,
        task_type: Defaults | None,
        options: dict[str, Value],
        *,
        declares: bool = True,
    ) -> tuple[Call, dict[str, Value] | None]:
        """The message of a call, and what after_task_publish is to be told of it, if anybody listens."""
        conf = self.conf
        if task_type is None:
            task_type = self._tasks.get(name)
        if conf.task_routes:
            options = self.amqp.router.route(options, name, args, kwargs, task_type)
        models: Value = None if task_type is None else getattr(task_type, "__models__", None)
        if task_type is not None and models is not None and _is_plain(task_type, options):
            args, kwargs = models.sent(args, kwargs, is_fed=bool(options.get("takes_input")))
            models.refuse_rest(args, kwargs)
        keeps_results = conf.result_backend is not None
        told: dict[str, Value] | None = None
        if signals.before_task_publish or signals.after_task_publish:
            options, told = self._announce(name, args, kwargs, task_type, options)
        call = prepare(
            conf, name, args, kwargs, task_type=task_type, keeps_results=keeps_results, **options
        )
        if call.declares and declares:
            self.amqp.declare(self.client(), call.declares)
        return call, told

    def _announce(
        self,
        name: str,
        args: Sequence[Value] | None,
        kwargs: Mapping[str, Value] | None,
        task_type: Defaults | None,
        options: dict[str, Value],
    ) -> tuple[dict[str, Value], dict[str, Value]]:
        """Send before_task_publish; headers that receivers add travel with the message."""
        task_id = options.get("task_id") or uuid7()
        queue = (
            options.get("queue")
            or getattr(task_type, "queue", None)
            or self.conf.task_default_queue
        )
        queue = getattr(queue, "name", queue)
        own = _protocol_headers(name, task_id, options)
        headers = {**(options.get("headers") or {}), **own}
        told: dict[str, Value] = {
            "exchange": options.get("exchange") or "",
            "routing_key": options.get("routing_key") or queue,
            "headers": headers,
            "body": (args or (), kwargs or {}, {}),
        }
        signals.before_task_publish.send(
            name,
            **told,
            properties={
                "correlation_id": task_id,
                "priority": options.get("priority"),
                **{option: options[option] for option in PROPERTIES & options.keys()},
            },
            declare=[],
            retry_policy=None,
        )
        custom = {key: value for key, value in headers.items() if key not in own}
        return {**options, "task_id": task_id, "headers": custom}, told

    def resend(
        self,
        request: Context,
        args: Sequence[Value],
        kwargs: Mapping[str, Value],
        options: Mapping[str, Value],
    ) -> tuple[bytes, int]:
        """The message of a retry of the task that `request` runs, and when it is due in Unix milliseconds."""
        message = request.message
        assert message is not None, "only what came as a message is sent again"
        is_same = args is request.args and kwargs is request.kwargs
        keeps_body = is_same and (message.takes_input or message.HasField("failure"))
        if keeps_body:
            args, kwargs, _ = envelope.decode_body(
                message, self.accepted_content, self.conf.unpacked_bytes_max, self.conf.seal
            )
        models: Value = getattr(request.task, "__models__", None)
        if models is not None and not is_same and message.content_type != envelope.PICKLE:
            args, kwargs = models.sent(args, kwargs)
            models.refuse_rest(args, kwargs)
        return prepare_again(
            self.conf, message, args, kwargs, request.embed, options, keeps_body=keeps_body
        )

    def _sent(
        self, call: Call, task_type: Defaults | None, *, add_to_parent: bool
    ) -> Result[Value]:
        if self.conf.task_send_sent_event:
            with self.events.default_dispatcher() as dispatcher:
                fields = envelope.sent_fields(call.message, self.accepted_content)
                dispatcher.send("task-sent", **fields)
        result: Result[Value] = Result(call.task_id, None, call.task, self)
        if call.ignores_result:
            result.ignored = True
        request = current_request.get()
        if (
            request is not None
            and add_to_parent
            and not request.called_directly
            and (task_type is None or task_type.trail)
        ):
            request.children.append(result)
        return result

    def apply_task(
        self,
        task: BaseTask[P, R],
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        *,
        task_id: str | None = None,
        throw: bool | None = None,
        headers: Mapping[str, Value] | None = None,
        retries: int = 0,
        link: Value = None,
        link_error: Value = None,
        is_sent: bool = False,
        **options: Value,
    ) -> EagerResult[R]:
        """Run a task right here, as `Task.apply` does, and its callbacks or errbacks.

        With `is_sent` it stands for a message: its arguments, and those of what follows it, go through the serializer.
        """
        is_sent = is_sent or is_sending()
        throw = self.conf.task_eager_propagates if throw is None else throw
        task_id = task_id or uuid7()
        ignores = bool(options.get("ignore_result", task.ignore_result))
        keep = None
        if task.store_eager_result and (not ignores or task.store_errors_even_if_ignored):
            keep = self._keep_eager
        outer = current_request.get()
        args, kwargs = args or (), kwargs or {}
        callbacks = as_links({"link": link}, "link")
        errbacks = as_links({"link_error": link_error}, "link_error")
        stamped = as_list(options.get("stamped_headers"))
        queue = options.get("routing_key") or options.get("queue") or task.queue
        if queue is None and is_sent:
            queue = self.conf.task_default_queue
        came_by = {
            "exchange": options.get("exchange") or "",
            "routing_key": getattr(queue, "name", queue),
            "priority": options.get("priority", task.priority),
            "redelivered": False,
            "is_eager": True,
        }
        while True:
            if is_sent:
                args, kwargs = self._carried(task, args, kwargs, options.get("serializer"))
            request = Context(
                id=task_id,
                args=args,
                kwargs=kwargs,
                retries=retries,
                is_eager=True,
                called_directly=False,
                time_limit=task.time_limit,
                soft_time_limit=task.soft_time_limit,
                headers=dict(headers) if headers else None,
                root_id=(outer.root_id if outer is not None and outer.id else None) or task_id,
                parent_id=outer.id if outer is not None else None,
                correlation_id=task_id,
                delivery_info=came_by,
                group=options.get("group_id"),
                group_index=options.get("group_index"),
                errbacks=errbacks or None,
                callbacks=callbacks or None,
                hostname=platform.node(),
                ignore_result=ignores,
                stamped_headers=stamped or None,
                stamps={name: as_list(options.get(name)) for name in stamped} or None,
            )
            with sending(is_on=False):
                ended = execute(
                    plan_of(task), request, args, kwargs, keep, keeps_success=not ignores
                )
            if not isinstance(ended.value, Retry) or ended.value.sig is None:
                break
            # Nobody waits here: a retry follows at once.
            args, kwargs = ended.value.sig.args, ended.value.sig.kwargs
            headers = ended.value.sig.options.get("headers", headers)
            retries += 1
        with sending(is_on=is_sent):
            if ended.state == states.SUCCESS:
                for callback in callbacks:
                    apply_or_send(maybe_signature(callback, self), (ended.value,), None, {})
            elif ended.state == states.FAILURE and errbacks:
                call_errbacks(errbacks, request, ended.value, ended.traceback or None, self)
        if throw and ended.state in states.PROPAGATE_STATES:
            raise ended.value
        return EagerResult(
            task_id, ended.value, ended.state, traceback=ended.traceback or None, name=task.name
        )

    def _carried(
        self,
        task: Value,
        args: Sequence[Value],
        kwargs: Mapping[str, Value],
        serializer: str | None,
    ) -> tuple[Sequence[Value], Mapping[str, Value]]:
        name = serializer or task.serializer or self.conf.task_serializer
        if task.__models__ is not None and name != "pickle":
            args, kwargs = task.__models__.sent(args, kwargs)
            task.__models__.refuse_rest(args, kwargs)
        return carried(task, args, kwargs, name)

    def apply_canvas(
        self,
        sig: Signature[Value],
        args: Sequence[Value] | None,
        kwargs: Mapping[str, Value] | None,
        options: Mapping[str, Value],
    ) -> Value:
        """Run a canvas right here in place of sending it."""
        with allow_join_result(), sending():
            return sig.apply(args, kwargs, **options)

    def _keep_eager(self, request: Context, state: str, value: Value, traceback: str) -> bytes:
        """Keep how a task ended that ran right here; one that is tried again has not."""
        if state in states.READY_STATES:
            self.backend.store_result(
                request.id or "", value, state, traceback or None, request=request
            )
        return b""

    # -- periodic tasks

    def add_periodic_task(
        self,
        schedule: Value,
        sig: Value,
        args: Sequence[Value] = (),
        kwargs: Mapping[str, Value] | None = None,
        name: str | None = None,
        **opts: Value,
    ) -> str:
        """Have a task run again and again: a line of `beat_schedule`, under its name, which is answered.

        Options are those of the call, and those of the entry: overlap, catch_up, jitter and so on.
        """
        if isinstance(sig, Signature):
            sig = sig.clone(args, kwargs)
        else:
            sig = self.signature(sig.name, tuple(args), dict(kwargs or {}))
        from qbroker.app.periodic import OPTIONS  # noqa: PLC0415 - most programs have no periodic tasks

        own = {option: opts.pop(option) for option in OPTIONS & opts.keys()}
        key = name or repr(sig)
        if name is None and key in self._periodic:
            _log.warning(
                "Periodic task key='%s' shadowed a previous unnamed periodic task. "
                "Pass a name kwarg to add_periodic_task to silence this warning.",
                key,
            )
        self._periodic[key] = {
            "schedule": schedule,
            "task": sig.task,
            "args": sig.args,
            "kwargs": sig.kwargs,
            "options": {**sig.options, **opts},
            **own,
        }
        if self.configured:
            self._show_periodic()
        return key

    def _show_periodic(self) -> None:
        """Have what was added stand in the setting too, where programs look for it."""
        if self._periodic:
            self.conf.beat_schedule = {**(self.conf.beat_schedule or {}), **self._periodic}

    def periodic_entries(self) -> dict[str, dict[str, Value]]:
        """What the app declares, by name: `beat_schedule`, and what was added; asking finalizes the app."""
        if not self.finalized:
            self.finalize(auto=True)
        return {**(self.conf.beat_schedule or {}), **self._periodic}

    @property
    def schedules(self) -> "Schedules":
        """The broker's periodic entries, to be looked at and changed."""
        from qbroker.app.periodic import Schedules  # noqa: PLC0415 - most programs have no periodic tasks

        return Schedules(self, self._template)

    def _template(self, name: str, args: Value, kwargs: Value, options: dict[str, Value]) -> bytes:
        call, _ = self.prepare(name, args, kwargs, self.tasks.get(name), options)
        return template(call)

    # -- signatures

    def signature(self, *args: Value, **kwargs: Value) -> Signature[Value]:
        """A call as a value, of this app."""
        return signature(*args, app=self, **kwargs)

    def maybe_signature(self, found: Value) -> Value:
        """A dict that describes a signature as one; anything else as it is."""
        return maybe_signature(found, self)

    # -- commands

    def spec(self) -> str:
        """What to write after `-A` for this app: the module that holds it, and its name there."""
        for name, module in list(sys.modules.items()):
            for attribute, value in list(getattr(module, "__dict__", {}).items()):
                if value is self:
                    if name == "__main__":
                        name = _main_module_name(module)
                    return f"{name}:{attribute}"
        raise ImproperlyConfigured(
            f"{self!r} is not an attribute of a module, so a worker's processes cannot import it"
        )

    def start(self, argv: Sequence[str] | None = None) -> None:
        """Run the `qbroker` command with this app; `argv` without the program's name."""
        from qbroker.cli.main import main  # noqa: PLC0415 - programs that only call tasks need no command line

        arguments = list(sys.argv[1:] if argv is None else argv)
        main(["-A", self.spec(), *arguments])

    def worker_main(self, argv: Sequence[str] | None = None) -> None:
        """Run a worker of this app: `app.worker_main(["worker", "-l", "INFO"])`."""
        arguments = list(sys.argv[1:] if argv is None else argv)
        if "worker" not in arguments:
            raise ValueError(
                "The worker sub-command must be specified in argv.\n"
                "Use app.start() to programmatically start other commands."
            )
        self.start(arguments)

    def Worker(self, **options: Value) -> Worker:  # noqa: N802 - Celery's name
        """A worker of this app, to be started: `app.Worker(concurrency=4, loglevel="INFO").start()`."""
        return Worker(self.worker_main, **options)

    WorkController = Worker

    def bugreport(self) -> str:
        """What to paste into a bug report; secrets are masked."""
        shown = self.conf.table()
        results = shown.get("result_backend") or "disabled"
        return (
            f"software -> qbroker:{__version__} py:{platform.python_version()}\n"
            f"platform -> system:{platform.system()} arch:{platform.machine()}\n"
            f"            kernel version:{platform.release()} imp:{platform.python_implementation()}\n"
            f"app      -> main:{self.main} tasks:{len(self._tasks)}\n"
            f"settings -> transport:qbroker results:{results}\n\n"
            f"{self.conf.humanize()}\n"
        )


def _callers_level() -> int:
    """The `stacklevel` for the function that asks: the first frame outside the SDK."""
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 - documented, and `warnings` does the same
    while (
        frame.f_back is not None
        and frame.f_globals.get("__name__", "").partition(".")[0] == "qbroker"
    ):
        frame = frame.f_back
        level += 1
    return level


def _is_plain(task_type: Defaults, options: Mapping[str, Value]) -> bool:
    """Whether a call's arguments are written as data, not as objects."""
    return (options.get("serializer") or task_type.serializer) != "pickle"


def _oid(app: App, thread: int = 0) -> str:
    """The same as long as the process, the app and the thread are, also in a child after a fork not the parent's."""
    return str(
        uuid.uuid5(uuid.NAMESPACE_OID, f"{uuid.getnode():x}-{os.getpid():x}-{thread:x}-{id(app):x}")
    )


def _is_canvas(sig: Signature[Value]) -> bool:
    return is_composite(sig) or not _CANVAS_OPTIONS.isdisjoint(sig.options)


Celery = App
"""Celery's name for it, so that migrating is another import."""


def _main_module_name(module: Value) -> str:
    spec = getattr(module, "__spec__", None)
    if spec is not None:
        name = str(spec.name)
        return name.removesuffix(".__main__")
    return Path(module.__file__).stem


@overload
def shared_task(fun: Callable[P, R], /) -> BaseTask[P, R]: ...
@overload
def shared_task(*, bind: Literal[True], **options: Value) -> BoundDecorator: ...
@overload
def shared_task(*, bind: Literal[False] = False, **options: Value) -> Decorator: ...
def shared_task(*args: Value, **options: Value) -> Value:
    """Make a function a task of every app; what it answers is the current app's."""

    def declare(fun: Callable[..., Value]) -> Value:
        _state.connect_on_app_finalize(lambda app: app.share(fun, **options))
        for app in _state.all_apps():
            if app.finalized:
                app.share(fun, **options)

        def find() -> Value:
            app = _state.get_current_app()
            name = options.get("name") or app.gen_task_name(fun.__name__, fun.__module__)
            return app.tasks[name]

        return Proxy(find, name=fun.__name__, doc=fun.__doc__)

    if len(args) == 1 and callable(args[0]):
        return declare(args[0])
    return declare


def _make_default_app() -> App:
    """The app of programs that make none; its settings are in the module `celeryconfig`, if there is one."""
    name = os.environ.get("CELERY_CONFIG_MODULE")  # noqa: TID251 - the SDK's edge: where Celery's programs say it
    app = App("default", set_as_current=False)
    app.config_from_object(name or "celeryconfig", silent=name is None)
    return app


def _tell_forked() -> None:
    # Without the lock of `_state`: a thread that held it did not come along.
    for app in list(_state._apps):  # noqa: SLF001 - see above
        app.on_after_fork.send(app)


_state.set_default_app_factory(_make_default_app)
os.register_at_fork(after_in_child=_tell_forked)
