"""`qctl inspect` and `qctl control`: ask running workers, and change them, by Celery's names.

A group holds a command for each that workers know, so `--help` lists them with their arguments. A name it does not
know may be one that an app has added: it is sent as it was typed, and the workers know what its words mean.
"""

import difflib
import json
import sys
from collections.abc import Mapping, Sequence

import click

from qbroker.cli import options
from qbroker.cli.tables import Cell, counted, moment, show, visible
from qbroker.cli.target import Missing, Misused, Target
from qbroker.control import TIMEOUT_S, Control, Gathered
from qbroker.serialization import Value
from qbroker.worker.control import BUILT_IN, Info, Panel, arguments_of

EXAMPLES = {
    "active": "qctl inspect active",
    "active_queues": "qctl inspect -d celery@web1 active_queues",
    "add_consumer": "qctl control add_consumer mail -d celery@web1",
    "autoscale": "qctl control autoscale 10 3",
    "cancel_consumer": "qctl control cancel_consumer mail",
    "conf": "qctl inspect conf --json",
    "control": "qctl control pool_grow 2 -d celery@web1",
    "inspect": "qctl inspect active -d celery@web1,celery@web2 --json",
    "memdump": "qctl inspect memdump 5",
    "objgraph": "qctl inspect objgraph Request 100 5",
    "pool_grow": "qctl control pool_grow 2",
    "pool_shrink": "qctl control pool_shrink 2",
    "query_task": "qctl inspect query_task 01a2… 01a3…",
    "rate_limit": "qctl control rate_limit proj.mail 100/m",
    "registered": "qctl inspect registered max_retries rate_limit",
    "revoke": "qctl control revoke 01a2…",
    "revoke_by_stamped_headers": "qctl control revoke_by_stamped_headers customer=42",
    "shutdown": "qctl control shutdown -d celery@web1",
    "terminate": "qctl control terminate SIGKILL 01a2…",
    "time_limit": "qctl control time_limit proj.mail 30 60",
}
"""What to copy; where there is nothing to say but the name, the name is the example."""


TIMEOUT = click.option(
    "-t",
    "--timeout",
    type=click.FloatRange(min=0.001, max=600),
    metavar="SECONDS",
    help=f"How long workers may take; answers are shown as they come.  [default: {TIMEOUT_S:g}]",
)
DESTINATION = click.option(
    "-d",
    "--destination",
    metavar="NAMES",
    callback=options.comma_separated,
    help="Comma-separated list of node names; only these workers are asked.",
)
AS_JSON = click.option("-j", "--json", "as_json", is_flag=True, help="All answers, as JSON.")


class RemoteGroup(click.Group):
    """A command for each remote one of the kind, which is the group's name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(name for name, info in Panel.meta.items() if self._shows(info))

    def _shows(self, info: Info) -> bool:
        return info.type == self.name and info.visible

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        kind = self.name or ""
        info = Panel.meta.get(cmd_name)
        if info is None:
            # Of an app's, which is not imported here.
            return _command(
                kind, cmd_name, Info(None, kind, visible=True, default_timeout=1.0, help="")
            )
        if info.type != kind:
            raise click.UsageError(
                f"{cmd_name!r} is not a command of {kind}; try: qctl {info.type} {cmd_name}"
            )
        return _command(kind, cmd_name, info)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Celery's lists show the arguments too.
        click.Command.format_options(self, ctx, formatter)
        rows = [
            (f"{name} {Panel.meta[name].signature or ''}".strip(), Panel.meta[name].help)
            for name in self.list_commands(ctx)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _group(kind: str, told: str) -> click.Group:
    @click.group(
        name=kind,
        cls=RemoteGroup,
        help=told,
        epilog=f"Example:  {EXAMPLES[kind]}",
        subcommand_metavar="COMMAND [ARGS]...",
    )
    @TIMEOUT
    @DESTINATION
    @AS_JSON
    @click.option(
        "--list",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_list,
        help="List the commands and end.",
    )
    @click.pass_context
    def group(
        context: click.Context, timeout: float | None, destination: Sequence[str], *, as_json: bool
    ) -> None:
        context.meta["qbroker.remote"] = (timeout, destination, as_json)

    return group


def _list(context: click.Context, _: click.Parameter, value: Value) -> None:
    if value:
        click.echo(context.get_help())
        context.exit()


def _command(kind: str, name: str, info: Info) -> click.Command:
    example = EXAMPLES.get(name, f"qctl {kind} {name}")

    @click.command(
        name=name,
        help=info.help or "A command of the workers' app.",
        epilog=f"Example:  {example}",
        options_metavar="[OPTIONS]",
    )
    @click.argument("words", nargs=-1, metavar=info.signature or "[ARGS]...")
    @TIMEOUT
    @DESTINATION
    @AS_JSON
    @click.pass_context
    def command(
        context: click.Context,
        words: Sequence[str],
        timeout: float | None,
        destination: Sequence[str],
        *,
        as_json: bool,
    ) -> None:
        outer_timeout, outer_destination, outer_json = context.meta["qbroker.remote"]
        send(
            context.obj,
            kind,
            name,
            words,
            timeout=timeout or outer_timeout or max(TIMEOUT_S, info.default_timeout),
            destination=destination or outer_destination,
            as_json=as_json or outer_json,
        )

    return command


def send(
    target: Target,
    kind: str,
    name: str,
    words: Sequence[str],
    *,
    timeout: float,
    destination: Sequence[str],
    as_json: bool,
) -> None:
    """Ask, and show the answers; the command ends with 69 without an answer, with 1 if one is an error."""
    arguments: dict[str, Value] = {}
    if name in BUILT_IN:
        try:
            arguments, words = arguments_of(name, BUILT_IN[name], words), ()
        except ValueError as exc:
            raise click.UsageError(str(exc)) from exc
    as_table = name in _TABLES and not as_json and sys.stdout.isatty()
    with target.reached() as client:
        control = Control(lambda: client, lambda: ("celery",))
        gathered = control.gather(
            name,
            arguments,
            words=words,
            destination=destination,
            timeout=timeout,
            callback=None
            if as_json or as_table
            else lambda reply: click.echo(visible(chat(reply))),
        )
    _check(kind, name, gathered, timeout)
    if as_json:
        found = {node: answer for reply in gathered.replies for node, answer in reply.items()}
        click.echo(json.dumps(found, default=repr))
        _exit_if_refused(gathered)
        return
    if as_table:
        try:
            _TABLES[name](gathered.replies)
        except (KeyError, TypeError, AttributeError, ValueError) as exc:
            raise click.ClickException(
                f"a worker's answer to {name!r} has another shape than Celery's ({exc!r}); "
                "see it with --json"
            ) from exc
    if kind == "inspect":
        click.echo(f"\n{counted(len(gathered.replies), 'node')} online.")
    _exit_if_refused(gathered)


def _check(kind: str, name: str, gathered: Gathered, timeout: float) -> None:
    for node in gathered.missing:
        click.echo(visible(f"!   {node}: connected, but no answer within {timeout:g} s"), err=True)
    if not gathered.replies:
        raise Missing("No nodes replied within time constraint")
    if name not in Panel.meta and all(_is_unknown(name, reply) for reply in gathered.replies):
        known = ", ".join(one for one, info in Panel.meta.items() if info.type == kind)
        close = difflib.get_close_matches(name, Panel.meta, n=1)
        advice = f"did you mean {close[0]!r}? " if close else ""
        raise Misused(f"no worker knows the command {name!r}; {advice}Each knows: {known}")


def _exit_if_refused(gathered: Gathered) -> None:
    """End the command with 1 if a worker answered with an error."""
    if any(_is_error(answer) for reply in gathered.replies for answer in reply.values()):
        click.get_current_context().exit(1)


def _is_error(answer: Value) -> bool:
    return isinstance(answer, dict) and "error" in answer and "ok" not in answer


def _is_unknown(name: str, reply: Mapping[str, Value]) -> bool:
    return all(answer == {"error": repr(KeyError(name))} for answer in reply.values())


# -- how answers look ----------------------------------------------------------------------------


def chat(reply: Mapping[str, Value]) -> str:
    """One worker's answer, as Celery shows it."""
    ((node, answer),) = reply.items()
    how, body = "OK", answer
    if isinstance(answer, dict) and ("ok" in answer or "error" in answer):
        how = "ERROR" if _is_error(answer) else "OK"
        body = answer.get("ok", answer.get("error"))
    text = _pretty(body)
    indent = "        " if body is not answer else "    "
    lines = "\n".join(f"{indent}{line}" for line in text.splitlines())
    return f"->  {node}: {how}" + (f"\n{lines}" if lines else "")


def _pretty(body: Value) -> str:
    if isinstance(body, list):
        return "\n".join(f"* {item}" for item in body) or "- empty -"
    if isinstance(body, str):
        return body
    return json.dumps(body, sort_keys=True, indent=4, default=repr)


Replies = Sequence[Mapping[str, Value]]


def _each(replies: Replies) -> list[tuple[str, Value]]:
    return [(node, item) for reply in replies for node, items in reply.items() for item in items]


def _show_tasks(title: str, empty: str, replies: Replies) -> None:
    rows: list[tuple[Cell, ...]] = [
        (
            node,
            info["id"],
            info["name"],
            info["delivery_info"]["routing_key"],
            str(info["args"]),
            str(info["worker_pid"] or ""),
            moment(round((info["time_start"] or 0) * 1000)),
        )
        for node, info in _each(replies)
    ]
    show(title, ("worker", "id", "task", "queue", "args", "pid", "since"), rows, empty=empty)


def _show_active(replies: Replies) -> None:
    _show_tasks("Running", "Nothing runs.", replies)


def _show_reserved(replies: Replies) -> None:
    _show_tasks("Reserved", "Nothing waits in a worker.", replies)


def _show_scheduled(replies: Replies) -> None:
    rows: list[tuple[Cell, ...]] = [
        (
            node,
            one["eta"],
            one["request"]["id"],
            one["request"]["name"],
            str(one["request"]["args"]),
        )
        for node, one in _each(replies)
    ]
    columns = ("worker", "due", "id", "task", "args")
    show("Scheduled", columns, rows, empty="Nothing waits for its time.")


def _show_queues(replies: Replies) -> None:
    rows: list[tuple[Cell, ...]] = [
        (node, one["name"], one["exchange"]["type"], one["routing_key"])
        for node, one in _each(replies)
    ]
    show("Queues", ("worker", "queue", "exchange", "routing key"), rows, empty="None.")


_TABLES = {
    "active": _show_active,
    "active_queues": _show_queues,
    "reserved": _show_reserved,
    "scheduled": _show_scheduled,
}
"""What is a table on a terminal."""


inspect = _group("inspect", "Ask running workers.")
control = _group("control", "Change running workers.")
