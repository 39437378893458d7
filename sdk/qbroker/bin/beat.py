"""`qbroker beat`: hand the app's periodic tasks to the broker, which fires them.

So it need not stay up, and two of them harm nobody. What only this program can compute, a schedule or an argument that
is a function of the app's, it fires itself, and for that it stays.
"""

import importlib
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import click

from qbroker import _state
from qbroker.app import App
from qbroker.app.checking import check
from qbroker.app.loading import LoadError, explained, find_app
from qbroker.app.log import json_line, setup_logging
from qbroker.app.periodic import Declared
from qbroker.app.sources import checked_arguments
from qbroker.beat import PersistentScheduler, Scheduler, Service
from qbroker.cli import options
from qbroker.cli.main import Preload
from qbroker.exceptions import ImproperlyConfigured, OperationalError, RequestRefused
from qbroker.utils.log import mlevel

_STANDARD = frozenset(
    [
        "beat",
        "celery.beat:PersistentScheduler",
        "celery.beat.PersistentScheduler",
        "qbroker.beat:PersistentScheduler",
        "qbroker.beat.PersistentScheduler",
    ]
)
"""Names of the scheduler that leaves the work to the broker."""

Show = Callable[[str], object]


@click.command(
    epilog="""\b
    Examples:
      qbroker beat -A proj --once     register what the app declares, and end
      qbroker beat -A proj            register, then stay up for what the broker cannot fire
      qbroker beat -A proj --dry-run  only say what would change
    """
)
@click.option(
    "-A",
    "--app",
    metavar="APP",
    callback=options.word,
    help="Where the app is: proj, proj.celery or proj:app.",
)
@click.option(
    "-b",
    "--broker",
    metavar="URL",
    callback=options.word,
    help="The broker, over what the app says.",
)
@click.option("--once", is_flag=True, help="Register, and end.")
@click.option(
    "--with-waiting",
    is_flag=True,
    help="Also revoke what waits of the entries that this changes or removes.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be added, changed and removed.")
@click.option("-S", "--scheduler", metavar="CLASS", help="A Scheduler of your own, run in the broker's place: pkg:Class.")  # fmt: skip
@click.option("--max-interval", type=float, help="How many seconds that one sleeps at most.")
@click.option("-l", "--loglevel", default="WARNING", show_default=True, metavar="LEVEL", help="What to log: DEBUG, INFO, WARNING, ERROR or CRITICAL.")  # fmt: skip
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="text, or json: each line is an object.")  # fmt: skip
@click.option(
    "--embedded",
    is_flag=True,
    hidden=True,
    help="A worker runs it (-B): it ends when its standard input does.",
)
@click.argument("settings", nargs=-1, metavar="[-- SETTING=VALUE]...")
@click.pass_context
def beat(
    context: click.Context,
    app: str | None,
    broker: str | None,
    scheduler: str | None,
    max_interval: float | None,
    loglevel: str,
    log_format: str,
    settings: tuple[str, ...],
    *,
    once: bool,
    dry_run: bool,
    with_waiting: bool,
    embedded: bool,
) -> None:
    """Register the app's periodic tasks with the broker, which fires them."""
    preload = context.obj if isinstance(context.obj, Preload) else Preload()
    spec = app or preload.app
    if spec is None:
        raise click.UsageError("Which app? Name it: qbroker beat -A proj")
    try:
        settings = checked_arguments(settings, "beat")
    except (ValueError, ImproperlyConfigured) as error:
        raise click.UsageError(str(error)) from error
    if preload.result_backend:
        settings = (f"result_backend={preload.result_backend}", *settings)
    if embedded:
        _state.leave_settings_to_parent()
        threading.Thread(target=_end_with_input, name="qbroker-beat-input", daemon=True).start()
    try:
        setup_logging(mlevel(loglevel), is_json=log_format == "json")
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--loglevel") from error
    show: Show = click.echo
    if log_format == "json":
        logging.captureWarnings(capture=True)
        show = _show_json
    with find_app(spec) as found:
        try:
            if url := broker or preload.broker:
                found.conf.broker_url = url
            found.config_from_cmdline(settings, "beat")
            found.import_modules()
            found.finalize()
            check(found)
        except Exception as error:
            raise LoadError(f"-A {spec!r}: {explained(error)}") from error
        chosen = _class_of(scheduler or found.conf.beat_scheduler)
        if chosen is not None:
            run(Service(found, max_interval, scheduler_cls=chosen), embedded=embedded)
            return
        declared = register(found, show, dry_run=dry_run, with_waiting=with_waiting)
        if not (once or dry_run):
            stay(found, declared, max_interval, embedded=embedded)


def _show_json(line: str) -> None:
    click.echo(json_line(logging.INFO, "qbroker.beat", line))


def _end_with_input() -> None:
    """Stop when whoever started this program is gone, however it went; nothing is ever written there."""
    with open(0, "rb", closefd=False) as stream:
        stream.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _class_of(name: str) -> type[Scheduler] | None:
    """The Scheduler that is named; None for the one that leaves it to the broker."""
    if name in _STANDARD:
        return None
    module, _, attribute = name.partition(":") if ":" in name else name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise LoadError(f"the scheduler {name!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Scheduler)):
        raise LoadError(f"the scheduler {name!r} is not a subclass of qbroker.beat.Scheduler")
    return found


def register(
    app: App, show: Show, *, dry_run: bool = False, with_waiting: bool = False
) -> Declared:
    """Declare what the app declares, and say what became of it."""
    try:
        declared = app.schedules.declare(dry_run=dry_run, with_waiting=with_waiting)
    except (ImproperlyConfigured, OperationalError, RequestRefused) as error:
        raise click.ClickException(str(error)) from error
    for word, names in (
        ("added", declared.added),
        ("changed", declared.changed),
        ("removed", declared.removed),
        ("fired by this program", declared.fired_here),
    ):
        for name in names:
            show(f"{word}: {name}")
    if declared.dropped_count:
        show(f"revoked: {declared.dropped_count} waiting messages of changed and removed entries")
    for name, owner in declared.taken:
        whose = f"the app {owner!r} declared it" if owner else "it was made by hand"
        show(f"left alone: {name}: {whose}")
    known = len(declared.added) + len(declared.changed) + len(declared.unchanged)
    would = "would fire" if dry_run else "fires"
    show(f"The broker {would} {known} periodic {'task' if known == 1 else 'tasks'} of this app.")
    return declared


def stay(
    app: App, declared: Declared, max_interval: float | None = None, *, embedded: bool = False
) -> None:
    """Fire what the broker cannot, until told to stop."""

    class _Rest(PersistentScheduler):
        def setup_schedule(self) -> None:
            entries = app.periodic_entries()
            self.merge_inplace({name: _celerys(entries[name]) for name in declared.fired_here})

    run(Service(app, max_interval, scheduler_cls=_Rest), embedded=embedded)


def _celerys(entry: dict[str, object]) -> dict[str, object]:
    words = ("task", "schedule", "args", "kwargs", "options", "relative")
    return {word: entry[word] for word in words if word in entry}


def run(service: Service, *, embedded: bool = False) -> None:
    """Run the service until TERM or INT."""

    def stop(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        service.stop()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
    service.start(embedded_process=embedded)
    logging.shutdown()
