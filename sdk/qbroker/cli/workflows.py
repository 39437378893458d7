"""`qctl workflow`: what was published together, as a tree with states, ended or gone on with as a whole."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import click

from qbroker import clock
from qbroker.cli.tables import Plain, ago, counted, echo_json, plain, show, visible
from qbroker.cli.target import Target
from qbroker.cli.tasks import AFTER, JSON, LIMIT, YES
from qbroker.client import Client

ID = click.argument("workflow_id", metavar="ID")

SHOWN_MAX = 20
"""Tasks of one group that the tree shows; the rest are counted."""

_STAGES = {
    1: "scheduled",
    2: "queued",
    3: "with a worker",
    4: "running",
    6: "dead letter",
    7: "waiting",
}


@click.group(name="workflow")
def workflow() -> None:
    """Look at chains, groups and chords as wholes; cancel them, or try again what failed."""


@workflow.command(name="ls", epilog="Example:  qctl workflow ls --json")
@LIMIT
@AFTER
@JSON
@click.pass_obj
def ls(target: Target, limit: int, after: str, *, as_json: bool) -> None:
    """List workflows, the oldest first."""
    with target.reached() as broker:
        reply = broker.list_workflows(limit=limit, after=after)
    if as_json:
        echo_json(plain(reply))
        return
    now_ms = clock.wall_ms()
    show(
        "Workflows",
        ("workflow", "first task", "tasks", "ended", "failed", "published"),
        [
            (
                one.id,
                one.task,
                one.message_count,
                one.ended_count,
                one.failed_count,
                f"{ago(one.published_ms, now_ms)} ago",
            )
            for one in reply.workflows
        ],
        empty="No workflows: chains, groups and chords show here when they are published.",
    )
    if reply.next:
        click.echo(visible(f"More: qctl workflow ls --after {reply.next}"))


@workflow.command(name="show", epilog="Example:  qctl workflow show 0198c2f0-…")
@ID
@JSON
@click.pass_obj
def show_workflow(target: Target, workflow_id: str, *, as_json: bool) -> None:
    """Show a workflow as a tree: what runs side by side, what waits for it, and the state of each task.

    ID is the workflow's own, or that of any of its tasks.
    """
    with target.reached() as broker:
        found, tasks = _whole(broker, workflow_id)
    if as_json:
        echo_json({**found, "tasks": tasks})
        return
    click.echo(
        f"workflow {visible(found['id'])}: {counted(found['message_count'], 'task')}, {found['ended_count']:,} ended, "
        f"{found['failed_count']:,} of them failed"
    )
    for line in tree(tasks):
        click.echo(visible(line))


@workflow.command(name="cancel", epilog="Example:  qctl workflow cancel 0198c2f0-… --terminate")
@ID
@click.option("--terminate", is_flag=True, help="End also what runs, where its pool can.")
@click.option("--signal", default="SIGTERM", show_default=True, help="By which signal.")
@click.option("--why", default="", help="The reason that waiting callers are given.")
@YES
@JSON
@click.pass_obj
def cancel(
    target: Target,
    workflow_id: str,
    signal: str,
    why: str,
    *,
    terminate: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Revoke every task of a workflow that has not ended."""
    with target.reached() as broker:
        found, _ = _whole(broker, workflow_id)
        left = found["message_count"] - found["ended_count"]
        if not yes:
            click.confirm(
                f"Cancel {counted(left, 'task')} of workflow {found['id']}?",
                abort=True,
                err=as_json,
            )
        reply = broker.cancel_workflow(workflow_id, terminate=terminate, signal=signal, why=why)
    if as_json:
        echo_json(plain(reply))
        return
    click.echo(
        f"Cancelled: {counted(len(reply.ended), 'task')} will not run, {len(reply.told):,} with workers were told, "
        f"{len(reply.late):,} had ended."
    )


@workflow.command(name="retry", epilog="Example:  qctl workflow retry 0198c2f0-…")
@ID
@JSON
@click.pass_obj
def retry(target: Target, workflow_id: str, *, as_json: bool) -> None:
    """Run again what failed of a workflow, and with it what was never reached; what succeeded stays."""
    with target.reached() as broker:
        reply = broker.retry_workflow(workflow_id)
    if as_json:
        echo_json(plain(reply))
        return
    click.echo(
        f"{counted(reply.retried_count, 'task')} run again; {reply.waiting_count:,} wait for them."
    )


def _whole(broker: Client, workflow_id: str) -> tuple[Plain, list[Plain]]:
    """A workflow and all its tasks."""
    after = ""
    tasks: list[Plain] = []
    while True:
        reply = broker.show_workflow(workflow_id, after=after)
        tasks += [plain(one) for one in reply.tasks]
        after = reply.next
        if not after:
            return plain(reply.workflow), tasks


def tree(tasks: Sequence[Plain]) -> Iterator[str]:
    """The lines that show them: members of a group side by side, what waits for others below those."""
    waiting: defaultdict[str, list[Plain]] = defaultdict(list)
    for task in tasks:
        waiting[task["waits_for"]].append(task)
    # Depth first without recursion: a chain may be longer than the interpreter's stack.
    pending = [("", 0)]
    while pending:
        source, depth = pending.pop()
        by_join: defaultdict[str, list[Plain]] = defaultdict(list)
        for task in waiting.pop(source, ()):
            by_join[task["join_id"]].append(task)
        following: list[tuple[str, int]] = []
        for join_id, members in by_join.items():
            members.sort(key=lambda task: int(task["join_index"]))
            for task in members[:SHOWN_MAX]:
                yield f"{'  ' * depth}{'└ ' if depth else ''}{_line(task)}"
            if len(members) > SHOWN_MAX:
                yield f"{'  ' * depth}  … and {len(members) - SHOWN_MAX:,} more"
            if join_id in waiting:
                following.append((join_id, depth + 1))
        pending += reversed(following)


def _line(task: Plain) -> str:
    state = task["state"]
    if state == "PENDING":
        state = _STAGES.get(task["stage"], "pending")
    detail = f": {task['detail']}" if task["detail"] else ""
    return f"{task['task']}[{task['id']}] {state}{detail}"
