"""`qbroker worker`: options, environment and app in; a worker that runs until it is told to stop."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import click

from qbroker import __version__
from qbroker.app.log import json_line
from qbroker.app.sources import checked_arguments
from qbroker.cli import options
from qbroker.exceptions import ImproperlyConfigured
from qbroker.serialization import Value
from qbroker.utils.log import mlevel
from qbroker_worker import machine, spawned
from qbroker_worker.aide import Ends
from qbroker_worker.detach import detach as begin_detached
from qbroker_worker.loading import CAN_FORK, START_METHODS, Project
from qbroker_worker.names import file_name, node_name
from qbroker_worker.pidfile import PidFile, PidFileTaken, PidFileUnwritable
from qbroker_worker.pool_options import unfit
from qbroker_worker.pools import forkserver

_LOGGER = "qbroker_worker"

POOLS = {
    "prefork": "prefork",
    "processes": "prefork",
    "threads": "threads",
    "asyncio": "asyncio",
    "solo": "solo",
}


def _level(_context: click.Context, _param: click.Parameter, value: str) -> int:
    try:
        return mlevel(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


def _concurrency(_context: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    if value == "auto":
        return machine.cores()
    if value.isdecimal() and int(value) > 0:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither a number from 1 on nor auto")


def _octal(_context: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else int(value, 8)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not an octal number such as 022") from None


def _autoscale(
    _context: click.Context, _param: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    if value is None:
        return None
    most, _, least = value.partition(",")
    if most.isdecimal() and (not least or least.isdecimal()):
        # A worker without a slot would never learn that there is work.
        slots_max, slots_min = int(most), max(1, int(least or 1))
        if slots_min <= slots_max:
            return slots_max, slots_min
    raise click.BadParameter(f"{value!r} is not of the form MAX,MIN, as in 10,3")


@dataclass(frozen=True, slots=True)
class _Output:
    """The worker's own lines: text for people or, with `--log-format json`, an object a line."""

    is_json: bool

    def show(self, message: str, text: str = "", **fields: Value) -> None:
        """Write to standard output."""
        if self.is_json:
            click.echo(json_line(logging.INFO, _LOGGER, message, fields))
        else:
            click.echo(text or message)

    def warn(self, sentence: str) -> None:
        """Write to standard error."""
        if self.is_json:
            sentence = json_line(logging.WARNING, _LOGGER, sentence)
        click.echo(sentence, err=True)

    def fail(self, sentence: str, details: str = "") -> int:
        """Write an error, with a traceback in `details` if there is one; returns the exit code."""
        if self.is_json:
            fields = {"exception": details} if details else {}
            click.echo(json_line(logging.ERROR, _LOGGER, sentence, fields), err=True)
            return 1
        if details:
            click.echo(details, err=True)
        raise click.ClickException(sentence)


@contextmanager
def _beat_beside(project: Project) -> Iterator[None]:
    """`qbroker beat` as a process of its own, for as long as the worker runs."""
    level = logging.getLevelName(project.loglevel)
    command = [
        sys.executable,
        "-m",
        "qbroker",
        "beat",
        "-A",
        project.app,
        "-l",
        level,
        "--log-format",
        "json" if project.is_json else "text",
        "--embedded",
    ]
    if project.broker:
        command += ["-b", project.broker]
    if project.settings:
        command += ["--", *project.settings]
    # A killed worker says no goodbye; but its end of the pipe is closed, and the next worker has a beat of its own.
    child = subprocess.Popen(command, process_group=0, stdin=subprocess.PIPE)  # noqa: S603 - our own program, with the user's options
    try:
        yield
    finally:
        child.terminate()
        child.communicate()


@click.command(
    epilog="""\b
    Examples:
      qbroker worker -A proj -Q mail,images -c 4 -l INFO
      qbroker worker -A proj -- task_acks_late=True worker.prefetch_multiplier=1
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
@click.option(
    "-Q",
    "--queues",
    metavar="NAMES",
    callback=options.comma_separated,
    help="Comma-separated list of queues to consume from.  [default: the app's task_queues, else its default queue]",
)
@click.option(
    "-X",
    "--exclude-queues",
    metavar="NAMES",
    callback=options.comma_separated,
    help="Comma-separated list of queues not to consume from.",
)
@click.option(
    "-c",
    "--concurrency",
    metavar="COUNT",
    callback=_concurrency,
    help="Tasks at once; auto: as many as there are cores for this container.  [default: auto]",
)
@click.option(
    "--autoscale",
    metavar="MAX[,MIN]",
    callback=_autoscale,
    help="As many tasks at once as there are, between these bounds.",
)
@click.option(
    "--max-tasks-per-child",
    type=click.IntRange(min=1),
    metavar="COUNT",
    help="Replace a child after so many tasks.  [default: the app's worker_max_tasks_per_child]",
)
@click.option(
    "--max-memory-per-child",
    type=click.IntRange(min=1),
    metavar="KIB",
    help="Replace a child that has grown beyond this.  [default: the app's worker_max_memory_per_child]",
)
@click.option(
    "-P", "--pool", type=click.Choice(list(POOLS)), help="Where tasks run.  [default: prefork]"
)
@click.option(
    "--pool-start-method",
    type=click.Choice(START_METHODS),
    help="How the prefork pool's processes begin: copied from one that has the app, or fresh.  [default: the app's worker_pool_start_method]",
)
@click.option(
    "-n",
    "--hostname",
    default="celery@%h",
    show_default=True,
    metavar="NAME",
    callback=options.node_name,
    help="This worker's name; %h, %n and %d are the host's.",
)
@click.option(
    "-l",
    "--loglevel",
    default="WARNING",
    show_default=True,
    callback=_level,
    metavar="LEVEL",
    help="What to log: DEBUG, INFO, WARNING, ERROR or CRITICAL.",
)
@click.option(
    "-E",
    "--task-events",
    is_flag=True,
    help="Tell those who listen what becomes of each task.",
)
@click.option(
    "--http-listen",
    metavar="HOST:PORT",
    help="Where to serve /metrics, /livez and /readyz.  [default: the app's worker_http_listen]",
)
@click.option(
    "-f",
    "--logfile",
    metavar="FILE",
    callback=options.word,
    help="Log to this file; %n, %h, %p are the worker's, %i and %I the child's.  [default: standard error]",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="text: as the app says; json: each line is an object.",
)
@click.option(
    "-I",
    "--include",
    metavar="MODULES",
    callback=options.comma_separated,
    help="Comma-separated list of further modules to import.",
)
@click.option(
    "-B",
    "--beat",
    is_flag=True,
    help="Run `qbroker beat` beside it: hand the app's periodic tasks to the broker.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End tasks that run longer.  [default: the app's task_time_limit]",
)
@click.option(
    "--soft-time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Raise SoftTimeLimitExceeded in tasks that run longer.  [default: the app's task_soft_time_limit]",
)
@click.option(
    "--prefetch-multiplier",
    type=click.IntRange(min=0),
    metavar="COUNT",
    help="Hold at most this many messages, times the concurrency; 0: as many as are useful.  [default: 0]",
)
@click.option("--disable-prefetch", is_flag=True, help="The same as --prefetch-multiplier 1.")
@click.option(
    "--purge",
    "--discard",
    is_flag=True,
    help="Throw away what waits in the worker's queues before it starts.",
)
@click.option(
    "--pidfile",
    metavar="FILE",
    callback=options.word,
    help="Keep the process id there while it runs.",
)
@click.option(
    "-D", "--detach", is_flag=True, help="Go on in the background.  [its log: %n.log, or --logfile]"
)
@click.option("--umask", metavar="OCTAL", callback=_octal, help="With --detach: the umask.")
@click.option(
    "-O",
    "optimization",
    type=click.Choice(["default", "fair"]),
    help="For Celery's sake: it is always fair.",
)
@click.option("-S", "--statedb", metavar="FILE", help="For Celery's sake: the broker keeps it.")
@click.option("--without-gossip", is_flag=True, help="For Celery's sake: there is none.")
@click.option("--without-mingle", is_flag=True, help="For Celery's sake: there is none.")
@click.option("--without-heartbeat", is_flag=True, help="For Celery's sake: the stream shows it.")
@click.option("--heartbeat-interval", type=float, help="For Celery's sake: the stream shows it.")
@click.argument("settings", nargs=-1, metavar="[-- SETTING=VALUE]...")
@click.pass_context
def worker(
    context: click.Context,
    /,
    app: str | None,
    broker: str | None,
    queues: tuple[str, ...],
    concurrency: int | None,
    pool: str | None,
    hostname: str,
    loglevel: int,
    include: tuple[str, ...],
    logfile: str | None,
    log_format: str,
    exclude_queues: tuple[str, ...],
    prefetch_multiplier: int | None,
    settings: tuple[str, ...],
    *,
    disable_prefetch: bool,
    purge: bool,
    pidfile: str | None,
    detach: bool,
    umask: int | None,
    statedb: str | None,
    time_limit: float | None,
    soft_time_limit: float | None,
    autoscale: tuple[int, int] | None,
    max_tasks_per_child: int | None,
    max_memory_per_child: int | None,
    pool_start_method: str | None,
    http_listen: str | None,
    task_events: bool,
    beat: bool,
    **_without_effect: str | bool | float | None,
) -> None:
    """Run tasks until told to stop.

    TERM or Ctrl-C: what runs is finished, the rest goes back to the broker. QUIT or a second
    Ctrl-C: what runs is ended.
    """
    app = app or getattr(context.obj, "app", None)
    if app is None:
        raise click.UsageError("Which app? Name it: qbroker worker -A proj")
    if soft_time_limit and time_limit and soft_time_limit > time_limit:
        raise click.UsageError(
            f"--soft-time-limit {soft_time_limit:g} must be at most --time-limit {time_limit:g}."
        )
    per_pool = {
        "--max-tasks-per-child": max_tasks_per_child,
        "--max-memory-per-child": max_memory_per_child,
        "--pool-start-method": pool_start_method,
        "--autoscale": autoscale,
    }
    pool_options = tuple(option for option, value in per_pool.items() if value is not None)
    if pool is not None and (sentence := unfit(POOLS[pool], pool_options)):
        raise click.UsageError(sentence)
    try:
        settings = checked_arguments(settings, "worker")
    except (ValueError, ImproperlyConfigured) as exc:
        raise click.UsageError(str(exc)) from exc
    if results := getattr(context.obj, "result_backend", None):
        settings = (f"result_backend={results}", *settings)
    name = node_name(hostname)
    if detach:
        logfile = logfile or "%n.log"
    output = _Output(is_json=log_format == "json")
    if statedb is not None:
        output.warn(f"--statedb {statedb} is not needed: the broker keeps revoked ids.")
    preload = context.obj
    project = Project(
        app=app,
        modules=include,
        broker=broker or getattr(context.obj, "broker", None),
        hostname=name,
        loglevel=loglevel,
        logfile=logfile,
        is_json=log_format == "json",
        settings=settings,
        no_color=getattr(preload, "no_color", False),
        time_limit=time_limit,
        soft_time_limit=soft_time_limit,
        max_tasks_per_child=max_tasks_per_child,
        max_memory_per_child=max_memory_per_child,
        start_method=pool_start_method,
    )
    lock = PidFile(Path(file_name(pidfile, name))) if pidfile else None
    if lock is not None:
        try:
            # Before this process detaches: afterwards its caller would not see the error.
            lock.take()
        except (PidFileTaken, PidFileUnwritable) as exc:
            context.exit(output.fail(str(exc)))
    if logfile is not None:
        path = Path(file_name(logfile, name))
        try:
            if detach:
                begin_detached(path, umask)
            else:
                # Before there are processes that write to it.
                path.open("a").close()
        except OSError as exc:
            if lock is not None:
                lock.leave()
            context.exit(
                output.fail(
                    f"The log file {str(path)!r} cannot be written: {exc.strerror or exc}. "
                    "Name a file in a writable directory with --logfile."
                )
            )
    server = None
    ends = Ends(project.hostname)
    try:
        if lock is not None and detach:
            lock.renew()
        if pool is None or POOLS[pool] == "prefork":
            # Before there is a second thread, which would not survive a fork.
            if pool_start_method == "spawn" or not CAN_FORK:
                server = forkserver.spawn(spawned.briefed(project), ends.fd)
            else:
                load = spawned.children(project, project.load)
                server = forkserver.fork(ends.beside(load))
        # From here on this process may be what the fork server must not be.
        from qbroker_worker import launch  # noqa: PLC0415 - it imports asyncio and the wire, of which the fork server needs nothing
        from qbroker_worker.worker import RESTART  # noqa: PLC0415 - the same

        config = launch.Config(
            name=project.hostname,
            queues=queues,
            excluded_queues=exclude_queues,
            prefetch_multiplier=1 if disable_prefetch else prefetch_multiplier,
            purges=purge,
            concurrency=concurrency,
            pool=POOLS[pool] if pool else None,
            cores=machine.cores(),
            autoscale=autoscale,
            pool_options=pool_options,
            is_term_quit=os.environ.get("REMAP_SIGTERM") == "SIGQUIT",
            restarts=sys.stdin is None or not sys.stdin.isatty(),
            version=__version__,
            loglevel=loglevel,
            sends_task_events=task_events,
            http_listen=http_listen,
        )
        with _beat_beside(project) if beat else nullcontext():
            code = launch.launch(config, project, server, ends, show=output.show)
    except forkserver.Refusal as exc:
        context.exit(output.fail(exc.sentence, exc.details))
    finally:
        if lock is not None:
            lock.leave()
    logging.shutdown()
    if code == RESTART:
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - this program, as it was begun
    context.exit(code)
