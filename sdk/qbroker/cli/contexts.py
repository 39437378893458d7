"""`qctl ctx`: brokers by names of your own, and which one is meant when none is named.

They stand in one small file, `qbroker/contexts.json` in the folder for settings ($XDG_CONFIG_HOME, else ~/.config).
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click

from qbroker.cli.tables import echo_json, show
from qbroker.cli.target import Absent
from qbroker.exceptions import ImproperlyConfigured
from qbroker.masking import masked
from qbroker.url import parse_url


@dataclass(slots=True)
class Contexts:
    """Brokers' addresses by name."""

    current: str = ""
    brokers: dict[str, str] = field(default_factory=dict)

    def url(self, name: str = "") -> str | None:
        """The address of this one, or of the current one; None when there is none."""
        return self.brokers.get(name or self.current)


def path_of(environment: Mapping[str, str]) -> Path:
    """Where the file is."""
    folder = environment.get("XDG_CONFIG_HOME")
    return (Path(folder) if folder else Path.home() / ".config") / "qbroker" / "contexts.json"


def load(environment: Mapping[str, str] = os.environ) -> Contexts:
    """What the file says; nothing when there is none."""
    try:
        path = path_of(environment)
    except RuntimeError:
        # A user without a name and without $HOME has no folder, and so no contexts.
        return Contexts()
    try:
        return Contexts(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return Contexts()
    except (ValueError, TypeError) as exc:
        raise click.ClickException(f"{path} is damaged: {exc}; mend it or remove it") from exc


def _save(contexts: Contexts) -> None:
    try:
        path = path_of(os.environ)
    except RuntimeError:
        raise click.ClickException(
            "this user has no home folder to keep contexts in; set HOME or XDG_CONFIG_HOME"
        ) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(asdict(contexts), indent=2), "utf-8")
    new.replace(path)


@click.group()
def ctx() -> None:
    """Name brokers, and choose the one that is meant when -b says nothing."""


@ctx.command(epilog="Example:  qctl ctx add prod qbroker://10.0.0.5:7450")
@click.argument("name")
@click.argument("url")
def add(name: str, url: str) -> None:
    """Call the broker at URL by NAME. The first one is the current one."""
    try:
        parse_url(url)
    except ImproperlyConfigured as exc:
        raise click.UsageError(str(exc)) from exc
    contexts = load()
    contexts.brokers[name] = url
    contexts.current = contexts.current or name
    _save(contexts)
    click.echo(
        f"{name} is {masked(url)}" + (", and the current one." if contexts.current == name else ".")
    )


@ctx.command(name="ls", epilog="Example:  qctl ctx ls --json")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def ls(*, as_json: bool) -> None:
    """List the brokers that have names."""
    contexts = load()
    if as_json:
        brokers = {name: masked(url) for name, url in contexts.brokers.items()}
        echo_json({"current": contexts.current, "brokers": brokers})
        return
    rows = [
        (name, masked(url), "current" if name == contexts.current else "")
        for name, url in sorted(contexts.brokers.items())
    ]
    show("Brokers", ("name", "broker", ""), rows, empty="None: add one with qctl ctx add.")


@ctx.command(epilog="Example:  qctl ctx use prod")
@click.argument("name")
def use(name: str) -> None:
    """Mean the broker NAME from now on."""
    contexts = load()
    _check(contexts, name)
    contexts.current = name
    _save(contexts)
    click.echo(f"{name} is the current one: {masked(contexts.brokers[name])}")


@ctx.command(epilog="Example:  qctl ctx rm prod")
@click.argument("name")
def rm(name: str) -> None:
    """Forget the name; nothing happens to the broker."""
    contexts = load()
    _check(contexts, name)
    del contexts.brokers[name]
    if contexts.current == name:
        contexts.current = ""
    _save(contexts)
    click.echo(f"{name} is forgotten.")


def _check(contexts: Contexts, name: str) -> None:
    if name not in contexts.brokers:
        known = ", ".join(sorted(contexts.brokers)) or "none"
        raise Absent(f"there is no context {name!r}; there are: {known}")
