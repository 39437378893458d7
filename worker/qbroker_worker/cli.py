"""`qbroker worker`: options, environment and app in; a worker that runs until it is told to stop."""

import logging
import os
import platform

import click

from qbroker import __version__
from qbroker.utils.log import mlevel
from qbroker_worker.aide import Ends
from qbroker_worker.loading import Project
from qbroker_worker.pools import forkserver

POOLS = {"prefork": "prefork", "processes": "prefork", "threads": "threads", "solo": "solo"}


def _level(_context: click.Context, _param: click.Parameter, value: str) -> int:
    try:
        return mlevel(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


def _names(_context: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (value or "").split(",") if part.strip())


def node_name(template: str) -> str:
    """The worker's name: %h is the host's full name, %n its first part, %d the rest."""
    host = platform.node()
    first, _, rest = host.partition(".")
    name = template if "@" in template else f"{template}@%h"
    return name.replace("%h", host).replace("%n", first).replace("%d", rest).replace("%%", "%")


@click.command(
    epilog="""\b
    Example:
      qbroker worker -A proj -Q mail,images -c 4 -l INFO
    """
)
@click.option("-A", "--app", metavar="APP", help="Where the app is: proj, proj.celery or proj:app.")
@click.option("-b", "--broker", metavar="URL", help="The broker, over what the app says.")
@click.option(
    "-Q",
    "--queues",
    metavar="NAMES",
    callback=_names,
    help="Queues to take from, parted by commas.  [default: the app's default queue]",
)
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(min=1),
    help="Tasks at once.  [default: number of cores]",
)
@click.option(
    "-P", "--pool", type=click.Choice(list(POOLS)), help="Where tasks run.  [default: prefork]"
)
@click.option(
    "-n",
    "--hostname",
    default="celery@%h",
    show_default=True,
    metavar="NAME",
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
    "-I",
    "--include",
    metavar="MODULES",
    callback=_names,
    help="More modules to import, parted by commas.",
)
@click.pass_context
def worker(
    context: click.Context,
    app: str | None,
    broker: str | None,
    queues: tuple[str, ...],
    concurrency: int | None,
    pool: str | None,
    hostname: str,
    loglevel: int,
    include: tuple[str, ...],
    *,
    task_events: bool,
) -> None:
    """Run tasks until told to stop.

    TERM or Ctrl-C: what runs is finished, the rest goes back to the broker. QUIT or a second
    Ctrl-C: what runs is ended.
    """
    app = app or getattr(context.obj, "app", None)
    if app is None:
        raise click.UsageError("Which app? Name it: qbroker worker -A proj")
    project = Project(
        app=app,
        modules=include,
        broker=broker or getattr(context.obj, "broker", None),
        hostname=node_name(hostname),
        loglevel=loglevel,
    )
    server = None
    ends = Ends(project.hostname)
    try:
        if pool is None or POOLS[pool] == "prefork":
            # Before grpc is imported and before there is a second thread: neither survives a fork.
            server = forkserver.fork(ends.beside(project.load))
        # From here on this process may be what the fork server must not be.
        from qbroker_worker import launch  # noqa: PLC0415 - it imports grpc, which must come after the fork

        config = launch.Config(
            name=project.hostname,
            queues=queues,
            concurrency=concurrency,
            pool=POOLS[pool] if pool else None,
            cores=len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1,
            version=__version__,
            loglevel=loglevel,
            sends_task_events=task_events,
        )
        code = launch.launch(config, project, server, ends, show=click.echo)
    except forkserver.Refusal as exc:
        if exc.details:
            click.echo(exc.details, err=True)
        raise click.ClickException(exc.sentence) from exc
    logging.shutdown()
    context.exit(code)
