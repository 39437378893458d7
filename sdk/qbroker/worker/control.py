"""Remote commands: what there is to ask of workers, and how to add to it.

    @control_command(args=[("n", int)], signature="[N=1]")
    def increase(state, n=1):
        state.app.conf.my_size += n
        return {"ok": "larger"}

A command is a function of `state` and its arguments; what it returns is the worker's answer, and must be writable as
JSON. `@inspect_command` is for those that change nothing. `state` has `app` and `hostname`. Where tasks run in child
processes, commands run in a process of their own, which has imported the app as it was when the worker started.

The commands every worker has are listed here with their arguments, so that a shell knows them without asking.
"""

from collections import UserDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, TypeVar

from qbroker.serialization import Value

__all__ = [
    "ControlState",
    "Info",
    "Panel",
    "arguments_of",
    "control_command",
    "inspect_command",
    "nok",
    "ok",
]

F = TypeVar("F", bound=Callable[..., Value])

Parser = Callable[[str], Value]


class Info(NamedTuple):
    """What is known of a command, in Celery's order."""

    alias: str | None
    type: str
    """"inspect" or "control"."""
    visible: bool
    default_timeout: float
    help: str
    signature: str | None = None
    args: Sequence[tuple[str, Parser | None]] | None = None
    """Names and parsers of the arguments somebody may type, in order."""
    variadic: str | None = None
    """The argument that takes all words that are left."""


@dataclass(slots=True)
class ControlState:
    """What a command is given: whose worker it is in."""

    app: Value
    hostname: str
    consumer: Value = None
    """Always None: a command does not reach into the worker."""
    tset: Callable[[Value], set[Value]] = field(default=set)


def ok(value: Value) -> dict[str, Value]:
    """The answer that all went well."""
    return {"ok": value}


def nok(value: Value) -> dict[str, Value]:
    """The answer that it did not."""
    return {"error": value}


def _flag(word: str) -> bool:
    meant = {"1": True, "true": True, "yes": True, "on": True}
    meant |= {"0": False, "false": False, "no": False, "off": False}
    try:
        return meant[word.lower()]
    except KeyError:
        raise ValueError(f"{word!r} is neither true nor false") from None


def _inspect(
    help_: str, alias: str | None = None, *, timeout_s: float = 1.0, **more: Value
) -> Info:
    return Info(alias, "inspect", True, timeout_s, help_, **more)  # noqa: FBT003 - visible


def _control(help_: str, **more: Value) -> Info:
    return Info(None, "control", True, 1.0, help_, **more)  # noqa: FBT003 - visible


_IDS = "[id1 [id2 [... [idN]]]]"

BUILT_IN: dict[str, Info] = {
    "active": _inspect("Tasks that run now.", "dump_active"),
    "active_queues": _inspect("Queues the worker takes from."),
    "clock": _inspect("The number of the last event."),
    "conf": _inspect(
        "The app's settings, secrets masked.",
        "dump_conf",
        signature="[include_defaults=False]",
        args=(("with_defaults", _flag),),
    ),
    "memdump": _inspect(
        "What memsample has found so far.", signature="[n_samples=10]", args=(("samples", int),)
    ),
    "memsample": _inspect("The memory the worker's main process has now."),
    "objgraph": _inspect(
        "Draw what keeps objects of a type alive.",
        timeout_s=60.0,
        signature="[object_type=Request] [num=200 [max_depth=10]]",
        args=(("type", str), ("num", int), ("max_depth", int)),
    ),
    "ping": _inspect("Is it there?", timeout_s=0.2),
    "query_task": _inspect("Where tasks are, by their ids.", variadic="ids", signature=_IDS),
    "registered": _inspect(
        "Tasks the worker knows.",
        "dump_tasks",
        variadic="taskinfoitems",
        signature="[attr1 [attr2 [... [attrN]]]]",
    ),
    "report": _inspect("What to paste into a bug report."),
    "reserved": _inspect("Tasks the worker has and has not begun.", "dump_reserved"),
    "revoked": _inspect("Ids of revoked tasks.", "dump_revoked"),
    "scheduled": _inspect("Tasks that wait for their time.", "dump_schedule"),
    "stats": _inspect("What the worker has done and what it is made of."),
    "add_consumer": _control(
        "Take from another queue too.",
        signature="<queue> [exchange [type [routing_key]]]",
        args=(("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)),
    ),
    "autoscale": _control(
        "Change between how many tasks at once the worker scales.",
        signature="[max [min]]",
        args=(("max", int), ("min", int)),
    ),
    "cancel_consumer": _control(
        "Take from a queue no more.", signature="<queue>", args=(("queue", str),)
    ),
    "disable_events": _control("Tell no more what becomes of each task."),
    "enable_events": _control("Tell what becomes of each task."),
    "heartbeat": _control("Send a heartbeat now."),
    "pool_grow": _control("Run more tasks at once.", signature="[N=1]", args=(("n", int),)),
    "pool_restart": _control("Replace the processes that run tasks."),
    "pool_shrink": _control("Run fewer tasks at once.", signature="[N=1]", args=(("n", int),)),
    "rate_limit": _control(
        "Change how often tasks of a name may start on the worker.",
        signature="<task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>",
        args=(("task_name", str), ("rate_limit", str)),
    ),
    "revoke": _control("Have tasks not run, by their ids.", variadic="task_id", signature=_IDS),
    "revoke_by_stamped_headers": _control(
        "Have tasks not run, by their stamps or labels.",
        variadic="headers",
        signature="[key1=value1 [key2=value2 [... [keyN=valueN]]]]",
    ),
    "shutdown": _control("Finish what runs, and end."),
    "terminate": _control(
        "Revoke tasks and end those that run.",
        variadic="task_id",
        args=(("signal", str),),
        signature=f"<signal> {_IDS}",
    ),
    "time_limit": _control(
        "Change how long tasks of a name may run on the worker.",
        signature="<task_name> <soft_secs> [hard_secs]",
        args=(("task_name", str), ("soft", float), ("hard", float)),
    ),
}


class Panel(UserDict[str, Value]):
    """All commands of this process: `data` are the functions that were added, `meta` tells of all."""

    data: ClassVar[dict[str, Callable[..., Value]]] = {}  # type: ignore[misc] # Celery's: one for the process
    meta: ClassVar[dict[str, Info]] = dict(BUILT_IN)

    @classmethod
    def register(cls, *args: Value, **kwargs: Value) -> Value:
        """Add a function: as a decorator, with or without arguments."""
        return cls._register(**kwargs)(*args) if args else cls._register(**kwargs)

    @classmethod
    def _register(
        cls,
        name: str | None = None,
        alias: str | None = None,
        type: str = "control",  # noqa: A002 - Celery's name
        *,
        visible: bool = True,
        default_timeout: float = 1.0,
        help: str | None = None,  # noqa: A002 - Celery's name
        signature: str | None = None,
        args: Sequence[tuple[str, Parser]] | None = None,
        variadic: str | None = None,
    ) -> Callable[[F], F]:
        def add(fun: F) -> F:
            called = name or fun.__name__
            told = help or (fun.__doc__ or "").strip().partition("\n")[0]
            cls.data[called] = fun
            cls.meta[called] = Info(
                alias, type, visible, default_timeout, told, signature, args, variadic
            )
            if alias:
                cls.data[alias] = fun
            return fun

        return add


def control_command(**options: Value) -> Callable[[F], F]:
    """Add a command that changes something."""
    decorate: Callable[[F], F] = Panel.register(type="control", **options)
    return decorate


def inspect_command(**options: Value) -> Callable[[F], F]:
    """Add a command that only looks."""
    decorate: Callable[[F], F] = Panel.register(type="inspect", **options)
    return decorate


def arguments_of(name: str, info: Info, words: Sequence[str]) -> dict[str, Value]:
    """The keyword arguments that somebody means by what was typed. ValueError says what they should be."""
    found: dict[str, Value] = {}
    places = info.args or ()
    required = (info.signature or "").partition("[")[0].count("<")
    if len(words) < required:
        raise ValueError(f"{name!r} takes: {info.signature}")
    for (argument, parse), word in zip(places, words, strict=False):
        try:
            found[argument] = parse(word) if parse is not None else word
        except ValueError as exc:
            raise ValueError(f"{name}: {argument}: {exc}") from None
    rest = list(words[len(places) :])
    if info.variadic:
        found[info.variadic] = rest
    elif rest:
        raise ValueError(f"{name!r} takes: {info.signature or 'nothing'}")
    return found
