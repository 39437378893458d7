"""`qctl`: look at a broker and act on it, from a shell.

A verb asks the broker, which answers from its own state: no worker has to be up or awake. People get
tables, programs get `--json`. A verb that destroys says how much, and asks.
"""

import sys
from collections.abc import Sequence

import click

from qbroker import clock
from qbroker._version import __version__
from qbroker.cli.contexts import ctx, load
from qbroker.cli.dead import dead
from qbroker.cli.listening import events
from qbroker.cli.main import EntryPointGroup
from qbroker.cli.queues import DRY_RUN, YES, purge_queue, queue
from qbroker.cli.remote import control, inspect
from qbroker.cli.routes import binding, exchange, route
from qbroker.cli.schedules import schedule
from qbroker.cli.tables import Plain, duration, echo_json, plain, show, visible
from qbroker.cli.target import EX_IOERR, Target
from qbroker.cli.tasks import explain, revoke, task
from qbroker.cli.top import top
from qbroker.cli.workers import show_workers, worker
from qbroker.cli.workflows import workflow
from qbroker.exceptions import ImproperlyConfigured
from qbroker.masking import masked
from qbroker.url import DEFAULT_URL


class Verbs(EntryPointGroup):
    """Verbs that need an app to be made are brought by who makes it."""

    commands_group = "qctl.commands"


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  qctl status                          queues and workers at a glance
  qctl -b qbroker://10.0.0.5:7450 status --json
  qctl explain 01a2...                 why that task does not run
  qctl task ls --queue mail --state queued
  qctl queue pause mail --why 'the relay is down'
  qctl schedule next tidy -n 5         when that entry fires next
  qctl dead requeue --task mail.send   give dead letters another try
  qctl inspect active                  what workers run now
  qctl call proj.add -a '[2, 2]'       call a task
  qctl workflow show 01a2...           a chain, group or chord as a tree

\b
Exit codes: 0 done, 1 error, 2 usage, 3 not found, 5 no broker, 6 conflict, 8 done for some, 69 no worker answered.
""",
)
@click.option(
    "-b",
    "--broker",
    "url",
    metavar="URL",
    envvar="QBROKER_URL",
    show_envvar=True,
    help=f"The broker.  [default: the current one of qctl ctx, else {DEFAULT_URL}]",
)
@click.option("-c", "--context", "name", metavar="NAME", help="The broker that qctl ctx calls so.")
@click.version_option(__version__, prog_name="qctl", message="%(prog)s %(version)s")
@click.pass_context
def qctl(context: click.Context, url: str | None, name: str | None) -> None:
    """Look at a broker and act on it."""
    if name is not None:
        url = load().url(name)
        if url is None:
            raise click.UsageError(f"there is no context {name!r}; see qctl ctx ls")
    context.obj = Target(url or load().url() or DEFAULT_URL)


for _verb in (
    binding, control, ctx, dead, events, exchange, explain, inspect, queue, revoke, route, schedule,
    task, top, worker, workflow,
):  # fmt: skip
    qctl.add_command(_verb)


@qctl.command(epilog="Example:  qctl status --json")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
@click.pass_obj
def status(target: Target, *, as_json: bool) -> None:
    """Show the broker, its queues and its workers."""
    with target.reached() as broker:
        found = plain(broker.status())
    if as_json:
        echo_json(found)
        return
    click.echo(visible(headline(found, masked(target.url), clock.wall_ms())))
    show(
        "Queues",
        ("queue", "ready", "with workers", "consumers", ""),
        [
            (
                q["name"],
                q["ready_count"],
                q["leased_count"],
                q["consumer_count"],
                "paused" if q["is_paused"] else "",
            )
            for q in found["queues"]
        ],
        empty="No queues yet: the first message makes one.",
    )
    show_workers(found["workers"])


@qctl.command(epilog="Example:  qctl purge mail --yes")
@click.argument("queue", metavar="QUEUE")
@YES
@DRY_RUN
@click.option("--json", "as_json", is_flag=True, help="The count, as JSON.")
@click.pass_obj
def purge(target: Target, queue: str, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Throw away every message that waits in QUEUE: `qctl queue purge`, by Celery's name."""
    purge_queue(target, queue, yes=yes, dry_run=dry_run, as_json=as_json)


def headline(found: Plain, url: str, now_ms: int) -> str:
    """The broker in one line."""
    up = duration((now_ms - found["started_ms"]) / 1000)
    stored = found["stored_bytes"] / 1_000_000
    dead_letters = f", {found['dead_count']:,} dead" if found["dead_count"] else ""
    return (
        f"qbroker {found['version']} at {url}: up {up}, engine {found['engine']}, "
        f"{stored:,.1f} MB stored, {found['scheduled_count']:,} scheduled{dead_letters}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and exit; what the system refuses is one sentence on standard error."""
    try:
        qctl.main(args=None if argv is None else list(argv), prog_name="qctl")
    except ImproperlyConfigured as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        # A full disk behind `>`, a folder for settings that cannot be written; click sees to readers that have gone.
        where = f"{error.filename}: " if error.filename is not None else ""
        click.echo(f"Error: {where}{error.strerror or error}", err=True)
        # What is left in the buffer cannot be written either, and would be tried once more at the end.
        sys.stdout = None
        sys.exit(EX_IOERR)
