"""`qctl task`, `qctl revoke`, `qctl explain`: where tasks are, and what becomes of them."""

import datetime as dt
from collections.abc import Iterable, Sequence

import click

from qbroker import clock, envelope
from qbroker.cli import options
from qbroker.cli.tables import (
    SPAN,
    Cell,
    Plain,
    ago,
    counted,
    echo_json,
    moment,
    plain,
    show,
    show_facts,
    visible,
)
from qbroker.cli.target import EX_PARTIAL, Absent, Conflicting, Target, named
from qbroker.client import Client, TaskInfo
from qbroker.envelope import STAGES
from qbroker.exceptions import CeleryError, KombuError
from qbroker.printable import repr_of, text_of

JSON = click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
YES = click.option("--yes", is_flag=True, help="Do not ask.")
ID = click.argument("task_id", metavar="ID")
IDS = click.argument("ids", metavar="[ID]...", nargs=-1)
LIMIT = click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many.")  # fmt: skip
AFTER = click.option(
    "--after",
    default="",
    callback=options.word,
    help="Go on behind a page: the `next` it ended with.",
)

_JSON_ONLY = frozenset({"application/json"})

STATES: dict[str, tuple[tuple[str, ...], str]] = {
    **{stage: ((stage,), "") for stage in STAGES[1:]},
    "PENDING": (("scheduled", "queued", "leased", "started"), "PENDING"),
    "STARTED": (("started",), ""),
    "RETRY": (("scheduled", "queued", "leased", "started"), "RETRY"),
    "SUCCESS": (("done",), "SUCCESS"),
    "FAILURE": (("done", "dead"), "FAILURE"),
    "REVOKED": (("done", "dead"), "REVOKED"),
    "REJECTED": (("dead",), "REJECTED"),
}
"""What `--state` may be: where tasks are then, and Celery's state where that has to be looked at."""


@click.group(name="task")
def task() -> None:
    """Look at tasks, reschedule them, remove them."""


# -- showing -------------------------------------------------------------------------------------


def task_of(info: TaskInfo) -> Plain:
    """A task as JSON has it."""
    return {**plain(info), "stage": STAGES[info.stage]}


def show_tasks(tasks: Iterable[TaskInfo], title: str, *, empty: str) -> None:
    """Print tasks, a line each."""
    now_ms = clock.wall_ms()
    show(
        title,
        ("id", "task", "queue", "where", "state", "published", "tries", "due", "worker", "labels"),
        [
            (
                info.id,
                info.task,
                info.queue,
                STAGES[info.stage],
                info.state,
                f"{ago(info.published_ms, now_ms)} ago",
                info.attempt,
                moment(info.eta_ms) if STAGES[info.stage] == "scheduled" else "",
                info.worker,
                " ".join(info.labels),
            )
            for info in tasks
        ],
        empty=empty,
    )


def pages(
    broker: Client, limit: int, after: str, state: str = "", **wanted: object
) -> tuple[list[TaskInfo], str]:
    """Up to `limit` tasks, and what to go on behind; the broker may need several looks for them."""
    stages, celery_state = STATES[state] if state else ((), "")
    numbers = [STAGES.index(stage) for stage in stages]
    found: list[TaskInfo] = []
    while True:
        page = broker.list_tasks(
            stages=numbers,
            limit=limit - len(found),
            after=after,
            **wanted,  # type: ignore[arg-type] # the caller's are those of the method
        )
        found += [info for info in page.tasks if celery_state in ("", info.state)]
        after = page.next
        if len(found) >= limit or not after:
            return found, after


@task.command(
    name="ls", epilog="Example:  qctl task ls --queue mail --state queued --older 10m --limit 20"
)
@click.option("--queue", default="", callback=options.word, help="Only in this queue.")
@click.option("--task", "task_name", default="", callback=options.word, help="Only of this task.")
@click.option("--state", type=click.Choice(list(STATES)), help="Only there, or in that state of Celery's.")  # fmt: skip
@click.option(
    "--label", default="", callback=options.word, metavar="NAME=VALUE", help="Only with this label."
)
@click.option("--older", "age_ms_min", type=SPAN, default=0, help="Published at least so long ago.")
@click.option("--younger", "age_ms_max", type=SPAN, default=0, help="Published at most so long ago.")  # fmt: skip
@LIMIT
@AFTER
@JSON
@click.pass_obj
def ls(
    target: Target,
    queue: str,
    task_name: str,
    state: str | None,
    label: str,
    age_ms_min: int,
    age_ms_max: int,
    limit: int,
    after: str,
    *,
    as_json: bool,
) -> None:
    """List tasks, a page at a time."""
    with target.reached() as broker:
        found, following = pages(
            broker,
            limit,
            after,
            state or "",
            queue=queue,
            task=task_name,
            label=label,
            age_ms_min=age_ms_min,
            age_ms_max=age_ms_max,
        )
    show_page(found, following, "Tasks", as_json=as_json)


def show_page(found: Sequence[TaskInfo], following: str, title: str, *, as_json: bool) -> None:
    """Print a page, and how to go on."""
    if as_json:
        echo_json({"tasks": [task_of(info) for info in found], "next": following})
        return
    show_tasks(found, title, empty=f"No {title.lower()} like that.")
    if following:
        click.echo(visible(f"There may be more: --after {following}"))


@task.command(name="show", epilog="Example:  qctl task show 01a2... --args")
@ID
@click.option("--args", "with_args", is_flag=True, help="Its arguments too; they may be private.")
@JSON
@click.pass_obj
def show_task(target: Target, task_id: str, *, with_args: bool, as_json: bool) -> None:
    """Show everything the broker knows of the task ID."""
    with target.reached() as broker:
        info = broker.show_task(task_id)
    found = task_of(info)
    if with_args:
        found |= _arguments(info)
    found["result"], found["traceback"] = _result(info)
    if as_json:
        echo_json(found)
        return
    _show(found)


def _arguments(info: TaskInfo) -> Plain:
    if not info.message:
        return {"args": None, "kwargs": None}
    try:
        args, kwargs = envelope.decode_call(info.message, _JSON_ONLY)
    except (KombuError, CeleryError) as exc:
        return {"args": str(exc), "kwargs": None}
    return {"args": repr(args), "kwargs": repr(kwargs)}


def _result(info: TaskInfo) -> tuple[str, str]:
    """What is kept of how it ended, and where it failed."""
    if not info.result:
        return "", ""
    stored = envelope.decode_result(
        info.state,
        info.result,
        stage=info.stage,
        is_final=True,
        end_reason=info.end_reason,
        detail=info.detail,
        accepted=_JSON_ONLY,
    )
    shown = repr_of(stored.result) if stored.is_readable else text_of(stored.result)
    return shown, stored.traceback or ""


def _show(found: Plain) -> None:
    now_ms = clock.wall_ms()
    facts: dict[str, Cell] = {
        "task": found["task"],
        "queue": found["queue"],
        "where": found["stage"] + (", to be tried again" if found["is_waiting_to_retry"] else ""),
        "  for": ago(found["changed_ms"], now_ms),
        "state": found["state"],
        "published": moment(found["published_ms"]),
        "due": moment(found["eta_ms"]),
        "expires": moment(found["expires_ms"]),
        "priority": found["priority"],
        "deliveries": found["attempt"],
        "retries": found["retries"],
        "deaths of workers": found["deaths"],
        "worker": found["worker"],
        "detail": found["detail"],
        "labels": " ".join(found["labels"]),
        "root": found["root_id"],
        "unique key": found["unique_key"],
        "bytes": found["message_bytes"],
        "args": found.get("args") or "",
        "kwargs": found.get("kwargs") or "",
        "result": found["result"],
    }
    show_facts(f"Task {found['id']}", facts)
    if found["history"]:
        show(
            "History",
            ("delivery", "how it ended", "when", "worker", ""),
            [
                (one["attempt"], one["how"], moment(one["at_ms"]), one["worker"], one["line"])
                for one in found["history"]
            ],
            empty="",
        )
    if found["traceback"]:
        click.echo(visible(found["traceback"]))


@click.command(name="explain", epilog="Example:  qctl explain 01a2...")
@ID
@JSON
@click.pass_obj
@click.pass_context
def explain(context: click.Context, target: Target, task_id: str, *, as_json: bool) -> None:
    """Say where the task ID is, and why it does not run."""
    with target.reached() as broker:
        reply = broker.explain(task_id)
    stage = STAGES[reply.stage]
    if as_json:
        echo_json({"id": task_id, "stage": stage, "sentence": reply.sentence})
    else:
        click.echo(visible(reply.sentence))
    if stage == "unknown":
        context.exit(Absent.exit_code)


# -- changing ------------------------------------------------------------------------------------


@task.command(name="reschedule", epilog="Example:  qctl task reschedule 01a2... --in 10m")
@ID
@click.option("--in", "in_ms", type=SPAN, help="So long from now; 0: at once.")
@click.option("--at", metavar="TIME", help="Then: 2030-01-31T12:00:00+00:00; without a zone, in UTC.")  # fmt: skip
@JSON
@click.pass_obj
def reschedule(
    target: Target, task_id: str, in_ms: int | None, at: str | None, *, as_json: bool
) -> None:
    """Have the waiting task ID run at another time."""
    if (in_ms is None) == (at is None):
        raise click.UsageError("say when: either --in or --at")
    eta_ms = clock.wall_ms() + in_ms if in_ms is not None else _unix_ms(at or "")
    with target.reached() as broker:
        info = broker.reschedule(task_id, eta_ms)
    if as_json:
        echo_json(task_of(info))
    elif STAGES[info.stage] == "scheduled":
        click.echo(f"It is due at {moment(info.eta_ms)}.")
    else:
        click.echo("It is due now.")


def _unix_ms(text: str) -> int:
    try:
        moment_ = dt.datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(
            f"--at {text!r} is not a time, such as 2030-01-31T12:00:00+00:00"
        ) from None
    if moment_.tzinfo is None:
        moment_ = moment_.replace(tzinfo=dt.UTC)
    return max(1, round(moment_.timestamp() * 1000))


@task.command(name="rm", epilog="Example:  qctl task rm 01a2... 01a3... --yes")
@IDS
@YES
@JSON
@click.pass_obj
def rm(target: Target, ids: Sequence[str], *, yes: bool, as_json: bool) -> None:
    """Revoke the tasks ID if they wait, and drop what is kept of them; "-" reads ids from standard input."""
    wanted = named(ids)
    if not wanted:
        raise click.UsageError("name the tasks, or - to read their ids from standard input")
    with target.reached() as broker:
        infos = [broker.show_task(one) for one in wanted]
        running = [info.id for info in infos if STAGES[info.stage] in ("leased", "started")]
        if running:
            raise Conflicting(
                f"{', '.join(running)}: with a worker; end it first: "
                f"qctl revoke --terminate {' '.join(running)}",
            )
        if not yes:
            click.confirm(f"Remove {counted(len(wanted), 'task')}?", abort=True, err=as_json)
        dead = [info.id for info in infos if STAGES[info.stage] == "dead"]
        waiting = [
            info.id for info in infos if STAGES[info.stage] in ("waiting", "scheduled", "queued")
        ]
        if dead:
            broker.remove_dead(dead)
        if waiting:
            broker.revoke(waiting, why="removed by qctl")
        others = [one for one in wanted if one not in dead]
        if others:
            broker.forget(others)
    if as_json:
        echo_json({"removed": wanted})
    else:
        click.echo(f"Removed {counted(len(wanted), 'task')}.")


_COUNTED_MAX = 1_000


@click.command(name="revoke", epilog="Example:  qctl revoke --label customer=42 --terminate")
@IDS
@click.option("--label", "labels", multiple=True, callback=options.word, metavar="NAME=VALUE", help="All tasks with this label.")  # fmt: skip
@click.option("--root", "root_id", default="", callback=options.word, metavar="ID", help="A whole workflow, by the id of its first task.")  # fmt: skip
@click.option("--terminate", is_flag=True, help="End those that run, too.")
@click.option("--signal", default="SIGTERM", show_default=True, help="How, where a process can be ended alone.")  # fmt: skip
@click.option("--why", default="revoked by qctl", help="The reason that callers waiting for the result are given.")  # fmt: skip
@YES
@JSON
@click.pass_obj
@click.pass_context
def revoke(
    context: click.Context,
    target: Target,
    ids: Sequence[str],
    labels: Sequence[str],
    root_id: str,
    signal: str,
    why: str,
    *,
    terminate: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Have the tasks ID not run; "-" reads ids from standard input."""
    wanted = named(ids)
    if not (wanted or labels or root_id):
        raise click.UsageError("name the tasks: ids, --label or --root")
    with target.reached() as broker:
        if (labels or root_id) and not yes:
            _ask(broker, labels, root_id, err=as_json)
        reply = broker.revoke(
            wanted, labels=labels, root_id=root_id, terminate=terminate, signal=signal, why=why
        )
    if as_json:
        echo_json(plain(reply))
    else:
        click.echo(
            f"{len(reply.ended):,} will not run; {len(reply.told):,} with workers, which were told; "
            f"{len(reply.late):,} had ended before."
        )
    if reply.late:
        context.exit(EX_PARTIAL if reply.ended or reply.told else Conflicting.exit_code)


def _ask(broker: Client, labels: Sequence[str], root_id: str, *, err: bool) -> None:
    parts = []
    for label in labels:
        found, following = pages(broker, _COUNTED_MAX, "", label=label)
        more = " or more" if following else ""
        parts.append(f"{len(found):,}{more} with the label {label!r}")
    if root_id:
        parts.append(f"all of the workflow of {root_id!r}")
    click.confirm(f"Revoke tasks: {'; '.join(parts)}?", abort=True, err=err)
