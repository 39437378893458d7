"""Celery's commands that call tasks and ask after them, for `qctl` and for `qbroker -A proj`.

With an app they go by its settings; without one by the broker's address alone, and nothing of the user's is
imported. What `qctl` has is here for Celery's fingers too: `qbroker -A proj inspect active`.
"""

import code
import copy
import datetime as dt
import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import click

from qbroker import states
from qbroker._version import __version__
from qbroker.app.base import App
from qbroker.app.loading import LoadError, explained, find_app
from qbroker.canvas import chain, chord, chunks, group, signature, xmap, xstarmap
from qbroker.cli import listening, options, remote
from qbroker.cli.main import Preload
from qbroker.cli.remote import AS_JSON, DESTINATION, TIMEOUT, chat
from qbroker.cli.tables import counted, show, visible
from qbroker.cli.target import Absent, Missing, Target, answered
from qbroker.control import TIMEOUT_S
from qbroker.events.snapshot import evcam
from qbroker.exceptions import TimeoutError as ResultTimeout
from qbroker.masking import masked
from qbroker.printable import repr_of, text_of
from qbroker.serialization import Value

__all__ = [
    "call",
    "control",
    "events",
    "inspect",
    "list_",
    "purge",
    "report",
    "result",
    "shell",
    "status",
]


def app_of(given: Target | Preload | None) -> App:
    """The app that is meant: the one -A names, or one that knows nothing but its broker."""
    if isinstance(given, Target):
        return App("qctl", broker=given.url, backend="qbroker://", set_as_current=False)
    spec = given.app if given is not None else None
    broker = given.broker if given is not None else None
    if spec is None:
        return App("qbroker", broker=broker, backend="qbroker://", set_as_current=False)
    app = find_app(spec)
    if broker is not None:
        app.conf.broker_url = broker
    if given is not None and given.result_backend:
        app.conf.result_backend = given.result_backend
    return app


@contextmanager
def _meant() -> Iterator[App]:
    """The app of the running command, closed behind it; whatever is in the way ends the command."""
    with answered(), app_of(click.get_current_context().obj) as app:
        yield app


def _for_apps(command: click.Command) -> click.Command:
    """A verb of `qctl` as a sub-command of `qbroker`, at the broker of the app."""
    made = copy.copy(command)
    callback = cast("Callable[..., Value]", command.callback)

    def run(*args: Value, **kwargs: Value) -> Value:
        context = click.get_current_context()
        app = app_of(context.obj)
        # An app's commands are known once it is imported, so its modules are, too.
        if isinstance(context.obj, Preload) and context.obj.app is not None:
            try:
                app.import_modules()
            except Exception as error:
                raise LoadError(f"-A {context.obj.app!r}: {explained(error)}") from error
        context.obj = Target(app.conf.broker_url)
        return callback(*args, **kwargs)

    made.callback = run
    made.epilog = (command.epilog or "").replace("qctl ", "qbroker -A proj ")
    return made


inspect = _for_apps(remote.inspect)
control = _for_apps(remote.control)
_events = _for_apps(listening.events)


def _shown(camera: str | None, freq: float, maxrate: str | None, **options: Value) -> None:
    """Events as lines, or as a camera sees them."""
    if camera is None:
        cast("Callable[..., None]", _events.callback)(**options)
        return
    with _meant() as app:
        evcam(camera, freq, maxrate, app=app)


events = click.Command(
    "events",
    callback=_shown,
    help=_events.help,
    epilog="Example:  qbroker -A proj events --camera proj.cameras:Counts --freq 5",
    params=[
        *_events.params,
        click.Option(["-c", "--camera"], metavar="MODULE:CLASS", help="Take pictures with this."),
        click.Option(
            ["-F", "--freq", "--frequency"], type=float, default=1.0, help="Seconds between them."
        ),
        click.Option(["-r", "--maxrate"], help="How many at most: 10/m."),
    ],
)


@click.command(epilog="Example:  qbroker -A proj status")
@TIMEOUT
@DESTINATION
@AS_JSON
def status(timeout: float | None, destination: Sequence[str], *, as_json: bool) -> None:
    """Show the workers that are online."""
    with _meant() as app:
        gathered = app.control.gather(
            "ping",
            destination=destination,
            timeout=timeout or TIMEOUT_S,
            callback=None
            if as_json
            else lambda reply: click.echo(visible(chat(reply).partition("\n")[0])),
        )
    if not gathered.replies:
        raise Missing("No nodes replied within time constraint")
    if as_json:
        click.echo(json.dumps({node: a for reply in gathered.replies for node, a in reply.items()}))
    click.echo(f"\n{counted(len(gathered.replies), 'node')} online.")


class _Json(click.ParamType):  # type: ignore[type-arg,unused-ignore] # older clicks' is not generic
    """JSON of one kind."""

    def __init__(self, kind: type, name: str) -> None:
        self._kind = kind
        self.name = name

    def convert(
        self, value: Value, param: click.Parameter | None, ctx: click.Context | None
    ) -> Value:
        if isinstance(value, self._kind):
            return value
        try:
            found = json.loads(value)
        except ValueError as exc:
            self.fail(f"{value!r} is not valid JSON: {exc}", param, ctx)
        if not isinstance(found, self._kind):
            self.fail(f"{value!r} is not a JSON {self.name}", param, ctx)
        return found


class _Moment(click.ParamType):  # type: ignore[type-arg,unused-ignore] # older clicks' is not generic
    """Seconds from now, or a time as ISO 8601 has it."""

    name = "time"

    def convert(
        self, value: Value, param: click.Parameter | None, ctx: click.Context | None
    ) -> Value:
        try:
            return float(value)
        except ValueError:
            pass
        try:
            return dt.datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither seconds nor an ISO 8601 time", param, ctx)


@click.command(epilog="""Example:  qctl call proj.add -a '[2, 2]' --countdown 10""")
@click.argument("name")
@click.option(
    "-a", "--args", type=_Json(list, "list"), default="[]", help="Arguments, a JSON list."
)
@click.option(
    "-k", "--kwargs", type=_Json(dict, "object"), default="{}", help="By name, a JSON object."
)
@click.option("--eta", type=_Moment(), metavar="TIME", help="Not before this time.")
@click.option("--countdown", type=float, metavar="SECONDS", help="Not before so many seconds.")
@click.option("--expires", type=_Moment(), metavar="TIME", help="Not after so long, or this time.")
@click.option("--serializer", help="How arguments are written.")
@click.option("--queue", help="Its queue.")
@click.option("--exchange", help="Its exchange, where the app has such.")
@click.option("--routing-key", help="Its routing key, where the app has such.")
@click.option("--priority", type=click.IntRange(0, 9), help="0 to 9, higher first.")
def call(name: str, args: Sequence[Value], kwargs: dict[str, Value], **options: Value) -> None:
    """Call the task NAME; prints its id."""
    given = {option: value for option, value in options.items() if value is not None}
    with _meant() as app:
        sent = app.send_task(name, tuple(args), kwargs, **given)
        click.echo(sent.id)
        # The task is stored and will run when such a worker comes; a typing error is found now.
        reply = app.client().explain(sent.id)
        if reply.lacks_worker:
            click.echo(visible(reply.sentence), err=True)


@click.command(epilog="Example:  qctl result 01a2… --timeout 10")
@click.argument("task_id", metavar="ID")
@click.option("-t", "--task", "name", help="Not needed: the broker knows.")
@click.option("--traceback", is_flag=True, help="Where it was raised, instead of the result.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Wait so long for the end.")
@click.option("--json", "as_json", is_flag=True, help="State and result, as JSON.")
def result(
    task_id: str, name: str | None, timeout: float | None, *, traceback: bool, as_json: bool
) -> None:
    """Show what the task ID returned; its state while it has not ended.

    Ends with 1 when the task failed, was revoked or rejected, when its result cannot be read or does not come
    within --timeout; with 3 when the broker does not know the task or kept nothing of it.
    """
    late = ""
    with _meant() as app:
        if timeout is not None:
            try:
                app.AsyncResult(task_id, task_name=name).get(timeout=timeout, propagate=False)
            except ResultTimeout as error:
                late = str(error)
            except Exception:  # noqa: BLE001, S110 - a result that cannot be read is shown as such below
                pass
        found = app.backend.read(task_id)
    is_failed = not found.is_readable or found.state in (*states.PROPAGATE_STATES, states.REJECTED)
    said = _said(found.state, found.result)
    if as_json:
        value = found.result
        shown = repr_of(value) if isinstance(value, BaseException) else value
        told = {"id": task_id, "state": found.state, "result": shown, "traceback": found.traceback}
        click.echo(json.dumps(told, default=repr))
    elif traceback:
        click.echo(found.traceback or "")
    elif not is_failed and not late and found.stage != "unknown":
        is_returned = found.state == states.SUCCESS
        click.echo(visible(text_of(found.result)) if is_returned else said)
    if found.stage == "unknown":
        raise Absent(f"the broker does not know task {task_id!r}")
    if found.stage == "done" and not found.is_kept and not is_failed:
        raise Absent(f"task {task_id!r} has ended, and the broker kept no result of it")
    if is_failed:
        click.echo(said if found.is_readable else f"unreadable: {said}", err=True)
        click.get_current_context().exit(1)
    if late:
        raise click.ClickException(late)


def _said(state: str, value: Value) -> str:
    """A state, and what goes with it: "FAILURE ValueError: no"."""
    if value is None:
        return visible(state)
    if not isinstance(value, BaseException):
        return visible(f"{state} {text_of(value)}")
    text = text_of(value)
    return visible(f"{state} {type(value).__name__}" + (f": {text}" if text else ""))


@click.command(epilog="Example:  qbroker -A proj purge -f -Q mail")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option(
    "-Q",
    "--queues",
    metavar="NAMES",
    callback=options.comma_separated,
    help="Comma-separated list of queues to purge.  [default: all that the app consumes from]",
)
@click.option(
    "-X",
    "--exclude-queues",
    metavar="NAMES",
    callback=options.comma_separated,
    help="Comma-separated list of queues to leave alone.",
)
def purge(queues: tuple[str, ...], exclude_queues: tuple[str, ...], *, force: bool) -> None:
    """Throw away all that waits in the app's queues, or in those that are named."""
    with _meant() as app:
        names = sorted({*(queues or app.amqp.queues.consume_from)} - {*exclude_queues})
        if not force:
            click.confirm(f"Throw away all that waits in {', '.join(names)}?", abort=True)
        known = {info.name for info in app.client().list_queues()}
        count = sum(app.client().purge_queue(name) for name in names if name in known)
    if count:
        click.echo(f"Purged {counted(count)} from {counted(len(names), 'known task queue')}.")
    else:
        click.echo(f"No messages purged from {counted(len(names), 'queue')}.")


@click.command(epilog="Example:  qctl report")
def report() -> None:
    """Show what to paste into a bug report."""
    with _meant() as app:
        click.echo(app.bugreport(), nl=False)
        told = app.client().status()
    click.echo(
        f"broker   -> qbroker:{told.version} engine:{told.engine} queues:{len(told.queues)} "
        f"workers:{len(told.workers)} stored:{told.stored_bytes / 1_000_000:,.1f}MB "
        f"client:{__version__}"
    )


@click.command(epilog="Example:  qbroker -A proj shell")
@click.option(
    "-I", "--ipython", "kind", flag_value="ipython", help="IPython; an error where there is none."
)
@click.option("-P", "--python", "kind", flag_value="python", help="Python's own.")
@click.option("-T", "--without-tasks", is_flag=True, help="Leave the tasks' names out.")
def shell(kind: str | None, *, without_tasks: bool) -> None:
    """Type Python with the app, its tasks and the canvas at hand; IPython where it is installed."""
    with _meant() as app:
        app.set_current()
        names = _at_hand(app, with_tasks=not without_tasks)
        told = f"qbroker {__version__} at {masked(app.conf.broker_url)}; at hand: {', '.join(sorted(names))}"
        start = None if kind == "python" else _ipython()
        if start is not None:
            click.echo(told)
            start(argv=[], user_ns=names)
        elif kind == "ipython":
            raise click.UsageError("IPython is not installed: pip install ipython, or use --python")
        else:
            code.interact(banner=told, local=names, exitmsg="")


def _at_hand(app: App, *, with_tasks: bool) -> dict[str, Value]:
    """The names that can be typed."""
    names: dict[str, Value] = {
        "app": app,
        "celery": app,
        "AsyncResult": app.AsyncResult,
        "chain": chain,
        "chord": chord,
        "chunks": chunks,
        "group": group,
        "signature": signature,
        "xmap": xmap,
        "xstarmap": xstarmap,
    }
    if with_tasks:
        for name, task in app.tasks.items():
            if not name.startswith("celery."):
                names.setdefault(name.rpartition(".")[2], task)
    return names


def _ipython() -> Value:
    """What starts IPython; None where it is not installed."""
    try:
        module = importlib.import_module("IPython")
    except ModuleNotFoundError:
        return None
    return module.start_ipython


@click.group(name="list")
def list_() -> None:
    """List what the broker has, by Celery's names."""


@list_.command(epilog="Example:  qctl list bindings")
def bindings() -> None:
    """List the queues with what they are bound to."""
    with _meant() as app:
        names = sorted(info.name for info in app.client().list_queues())
        bindings = app.client().list_topology().bindings
    # Each queue is reached by its name, without an exchange, too.
    rows = [(name, "", name) for name in names]
    rows += [(one.destination, one.exchange, one.routing_key) for one in bindings]
    show("Bindings", ("queue", "exchange", "routing key"), rows, empty="No queues yet.")
