"""`qctl dead`: messages that were given up, kept whole for somebody to look at."""

from collections.abc import Sequence

import click

from qbroker.cli import options
from qbroker.cli.tables import counted, echo_json
from qbroker.cli.target import Absent, Target, named
from qbroker.cli.tasks import AFTER, IDS, JSON, LIMIT, YES, pages, show_page, show_task
from qbroker.client import Client

TASK = click.option(
    "--task", "task_name", default="", callback=options.word, help="Those of this task."
)
QUEUE = click.option("--queue", default="", callback=options.word, help="Those of this queue.")
ALL = click.option("--all", "all_of_them", is_flag=True, help="All of them.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Only say how many there are.")


@click.group(name="dead")
def dead() -> None:
    """Look at dead letters, give them another try, or forget them."""


@dead.command(name="ls", epilog="Example:  qctl dead ls --queue mail --json")
@TASK
@QUEUE
@LIMIT
@AFTER
@JSON
@click.pass_obj
def ls(
    target: Target, task_name: str, queue: str, limit: int, after: str, *, as_json: bool
) -> None:
    """List dead letters, the oldest first."""
    with target.reached() as broker:
        found, following = pages(broker, limit, after, "dead", task=task_name, queue=queue)
    show_page(found, following, "Dead letters", as_json=as_json)


dead.add_command(show_task)


@dead.command(name="requeue", epilog="Example:  qctl dead requeue --task mail.send --dry-run")
@IDS
@TASK
@QUEUE
@ALL
@DRY_RUN
@YES
@JSON
@click.pass_obj
def requeue(
    target: Target,
    ids: Sequence[str],
    task_name: str,
    queue: str,
    *,
    all_of_them: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Put dead letters back into their queues, as if nobody had tried them; "-" reads ids from standard input."""
    which = _Which(named(ids), task_name, queue, all_of_them=all_of_them)
    with target.reached() as broker:
        count = which.count(broker)
        if not dry_run:
            if not yes:
                click.confirm(
                    f"Try {counted(count, 'dead letter')} again?", abort=True, err=as_json
                )
            count = broker.requeue_dead(
                which.ids, task=task_name, queue=queue, all_of_them=all_of_them
            )
    _tell("requeued_count", "Requeued", "Would requeue", count, dry_run=dry_run, as_json=as_json)


@dead.command(name="rm", epilog="Example:  qctl dead rm --queue mail --yes")
@IDS
@TASK
@QUEUE
@ALL
@DRY_RUN
@YES
@JSON
@click.pass_obj
def rm(
    target: Target,
    ids: Sequence[str],
    task_name: str,
    queue: str,
    *,
    all_of_them: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Forget dead letters; "-" reads ids from standard input."""
    which = _Which(named(ids), task_name, queue, all_of_them=all_of_them)
    with target.reached() as broker:
        count = which.count(broker)
        if not dry_run:
            if not yes:
                click.confirm(f"Forget {counted(count, 'dead letter')}?", abort=True, err=as_json)
            count = broker.remove_dead(
                which.ids, task=task_name, queue=queue, all_of_them=all_of_them
            )
    _tell("removed_count", "Forgot", "Would forget", count, dry_run=dry_run, as_json=as_json)


class _Which:
    """The dead letters that are meant."""

    def __init__(self, ids: Sequence[str], task: str, queue: str, *, all_of_them: bool) -> None:
        if not (ids or task or queue or all_of_them):
            raise click.UsageError("say which: ids, --task, --queue or --all")
        self.ids = ids
        self._task = task
        self._queue = queue
        self._all_of_them = all_of_them

    def count(self, broker: Client) -> int:
        """How many there are; none ends the command."""
        count = broker.requeue_dead(
            self.ids,
            task=self._task,
            queue=self._queue,
            all_of_them=self._all_of_them,
            dry_run=True,
        )
        if not count:
            raise Absent("there are no such dead letters; see: qctl dead ls")
        return count


def _tell(name: str, did: str, would: str, count: int, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        echo_json({name: 0 if dry_run else count, "count": count})
    else:
        click.echo(f"{would if dry_run else did} {counted(count, 'dead letter')}.")
