"""`qctl exchange`, `qctl binding`, `qctl route`: how messages find their queues."""

import importlib
import json
from collections.abc import Sequence

import click

from qbroker.cli import options
from qbroker.cli.queues import JSON, YES
from qbroker.cli.tables import echo_json, plain, show
from qbroker.cli.target import Absent, Conflicting, Target
from qbroker.client import Client
from qbroker.exceptions import NotFound
from qbroker.messaging import TYPES
from qbroker.serialization import Value

ARGUMENTS = click.option(
    "--argument",
    "arguments",
    multiple=True,
    metavar="NAME=VALUE",
    help="What a headers exchange looks for, and x-match=any; may be given again.",
)
KEY = click.option(
    "--routing-key", default="", help="The key, or for a topic exchange the pattern."
)
TO_EXCHANGE = click.option("--to-exchange", is_flag=True, help="DESTINATION is an exchange.")


@click.group(name="exchange")
def exchange() -> None:
    """Look at exchanges, make and remove them."""


@exchange.command(name="ls", epilog="Example:  qctl exchange ls --json")
@JSON
@click.pass_obj
def ls_exchanges(target: Target, *, as_json: bool) -> None:
    """List the exchanges, those that are always there included."""
    with target.reached() as broker:
        found = plain(broker.list_topology())
    if as_json:
        echo_json({"exchanges": found["exchanges"]})
        return
    counts: dict[str, int] = {}
    for one in found["bindings"]:
        counts[one["exchange"]] = counts.get(one["exchange"], 0) + 1
    show(
        "Exchanges",
        ("exchange", "type", "bindings", "alternate", ""),
        [
            (
                one["name"],
                one["type"],
                counts.get(one["name"], 0),
                one["alternate"],
                "goes with its last binding" if one["is_auto_delete"] else "",
            )
            for one in found["exchanges"]
        ],
        empty="No exchanges.",
    )


@exchange.command(name="declare", epilog="Example:  qctl exchange declare media --type topic")
@click.argument("name")
@click.option("--type", "kind", type=click.Choice(TYPES), default="direct", show_default=True, help="By which rule it passes messages on.")  # fmt: skip
@click.option("--alternate", default="", help="The exchange that gets what no binding takes.")
@click.option("--auto-delete", is_flag=True, help="Have it go with its last binding.")
@click.pass_obj
def declare_exchange(
    target: Target, /, name: str, kind: str, alternate: str, *, auto_delete: bool
) -> None:
    """Make the exchange NAME. One that is there with other properties stays, and that is said."""
    with target.reached() as broker:
        broker.declare_exchange(name, kind, alternate=alternate, is_auto_delete=auto_delete)
    click.echo(f"Exchange {name!r} is there, of the type {kind}.")


@exchange.command(name="rm", epilog="Example:  qctl exchange rm media --yes")
@click.argument("name")
@YES
@click.pass_obj
def rm_exchange(target: Target, name: str, *, yes: bool) -> None:
    """Remove the exchange NAME, with the bindings from it and to it."""
    with target.reached() as broker:
        topology = broker.list_topology()
        if name not in [one.name for one in topology.exchanges]:
            raise Absent(f"there is no exchange {name!r}")
        count = sum(
            one.exchange == name or (one.is_to_exchange and one.destination == name)
            for one in topology.bindings
        )
        if not yes:
            click.confirm(f"Remove exchange {name!r} and its {count} bindings?", abort=True)
        broker.remove_exchange(name)
    click.echo(f"Exchange {name!r} is gone, and {count} bindings with it.")


@click.group(name="binding")
def binding() -> None:
    """Look at bindings, add and remove them."""


@binding.command(name="ls", epilog="Example:  qctl binding ls --exchange media")
@click.option(
    "--exchange", default="", callback=options.word, help="Only those from this exchange."
)
@JSON
@click.pass_obj
def ls_bindings(target: Target, exchange: str, *, as_json: bool) -> None:
    """List the bindings."""
    with target.reached() as broker:
        found = [
            one
            for one in plain(broker.list_topology())["bindings"]
            if not exchange or one["exchange"] == exchange
        ]
    if as_json:
        echo_json({"bindings": found})
        return
    show(
        "Bindings",
        ("exchange", "routing key", "goes to", "", "arguments"),
        [
            (
                one["exchange"],
                one["routing_key"],
                one["destination"],
                "exchange" if one["is_to_exchange"] else "queue",
                one["arguments"],
            )
            for one in found
        ],
        empty="No bindings: every message goes to its queue by name.",
    )


def _parsed(arguments: Sequence[str]) -> str:
    """`NAME=VALUE`s as a JSON object; a value that is JSON is what that says."""
    found: dict[str, Value] = {}
    for text in arguments:
        name, sign, value = text.partition("=")
        if not sign:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--argument")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return json.dumps(found) if found else ""


@binding.command(
    name="add", epilog="Example:  qctl binding add media images --routing-key 'image.#'"
)
@click.argument("exchange")
@click.argument("destination")
@KEY
@TO_EXCHANGE
@ARGUMENTS
@click.pass_obj
def add_binding(
    target: Target,
    /,
    exchange: str,
    destination: str,
    routing_key: str,
    arguments: Sequence[str],
    *,
    to_exchange: bool,
) -> None:
    """Have EXCHANGE pass messages on to DESTINATION, a queue."""
    with target.reached() as broker:
        broker.add_binding(
            exchange, destination, routing_key, _parsed(arguments), is_to_exchange=to_exchange
        )
    click.echo(f"Exchange {exchange!r} passes on to {destination!r}.")


@binding.command(name="rm", epilog="Example:  qctl binding rm media images --routing-key 'image.#'")
@click.argument("exchange")
@click.argument("destination")
@KEY
@TO_EXCHANGE
@ARGUMENTS
@click.pass_obj
def rm_binding(
    target: Target,
    /,
    exchange: str,
    destination: str,
    routing_key: str,
    arguments: Sequence[str],
    *,
    to_exchange: bool,
) -> None:
    """Have EXCHANGE pass nothing more on to DESTINATION by this key."""
    with target.reached() as broker:
        try:
            broker.remove_binding(
                exchange, destination, routing_key, _parsed(arguments), is_to_exchange=to_exchange
            )
        except NotFound as error:
            raise Absent(str(error)) from error
    click.echo(f"Exchange {exchange!r} passes nothing on to {destination!r} by that key.")


@click.group(name="route")
def route() -> None:
    """Find out where messages would go."""


@route.command(name="test", epilog="Example:  qctl route test proj.crop -A proj")
@click.argument("task")
@click.option(
    "-A", "--app", metavar="APP", help="The app whose settings route it: proj or proj:app."
)
@click.option("--queue", default=None, help="As the call would name it.")
@click.option("--exchange", default=None, help="The same.")
@click.option("--routing-key", default=None, help="The same.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="The same; may be given again.")  # fmt: skip
@JSON
@click.pass_obj
def test_route(
    target: Target,
    /,
    task: str,
    app: str | None,
    headers: Sequence[str],
    *,
    as_json: bool,
    **options: str | None,
) -> None:
    """Say which queues a call of TASK would go to, and by which rule. Nothing is sent."""
    given = {name: value for name, value in options.items() if value is not None}
    why = "as the call says" if given else "by its name alone"
    name, exchange, key = (
        given.get("queue") or "celery",
        given.get("exchange") or "",
        given.get("routing_key") or "",
    )
    if app is not None:
        # By its name, because apps stand above the command line.
        loading = importlib.import_module("qbroker.app.loading")
        name, exchange, key, why = loading.find_app(app).amqp.explain(task, given)
    with target.reached() as broker:
        queues = _queues(broker, exchange, key, headers) if exchange else [name]
    found = {"task": task, "rule": why, "exchange": exchange, "routing_key": key, "queues": queues}
    if as_json:
        echo_json(found)
    elif exchange:
        where = ", ".join(queues) or "nowhere: no binding takes it"
        click.echo(
            f"{task} goes through exchange {exchange!r} by the key {key!r}, {why}, to: {where}"
        )
    else:
        click.echo(f"{task} goes to queue {name!r}, {why}.")
    if not queues:
        raise Conflicting("nothing takes it")


def _queues(broker: Client, exchange: str, key: str, headers: Sequence[str]) -> list[str]:
    try:
        return list(broker.test_route(exchange, key, _parsed(headers)))
    except NotFound as error:
        raise Absent(f"{error}; a worker or a call that needs it declares it") from error
