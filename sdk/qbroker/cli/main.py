"""The `qbroker` command: global options here, sub-commands from the entry point group `qbroker.commands`.

A sub-command is imported when it is asked for, so `qbroker --help` imports neither server nor worker
nor the user's app.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import click

from qbroker._version import __version__
from qbroker.cli import options
from qbroker.exceptions import ImproperlyConfigured

COMMANDS_GROUP = "qbroker.commands"


@dataclass(frozen=True, slots=True)
class Preload:
    """The global options, for sub-commands to merge with their own: `context.obj`."""

    app: str | None = None
    broker: str | None = None
    workdir: str | None = None
    quiet: bool = False
    no_color: bool = False


class EntryPointGroup(click.Group):
    """A group whose commands are installed, by whoever brings them."""

    commands_group = COMMANDS_GROUP

    def _entry_points(self) -> dict[str, metadata.EntryPoint]:
        return {point.name: point for point in metadata.entry_points(group=self.commands_group)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._entry_points()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        point = self._entry_points().get(cmd_name)
        if point is None:
            return None
        try:
            command = point.load()
        except ImportError as exc:
            raise click.ClickException(
                f"the command {cmd_name!r} ({point.value}) cannot be imported: {exc}"
            ) from exc
        assert isinstance(command, click.Command), f"{point.value} is no click command"
        return command


@click.group(
    cls=EntryPointGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  qbroker serve                         run the broker, data in ./qbroker-data
  qbroker worker -A proj -Q mail -c 4   work on the queue `mail` with four processes
  qbroker -A proj worker                the same place for -A as in Celery
  qbroker dev -A proj                   broker and worker in one terminal
  qbroker -A proj inspect active        ask the workers; qctl does the same without an app
""",
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
    "--workdir",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Change to this folder first.",
)
@click.option("-C", "--no-color", is_flag=True, help="No colours, also on a terminal.")
@click.option("-q", "--quiet", is_flag=True, help="Say less.")
@click.version_option(__version__, prog_name="qbroker", message="%(prog)s %(version)s")
@click.pass_context
def qbroker(
    context: click.Context,
    app: str | None,
    broker: str | None,
    workdir: str | None,
    *,
    no_color: bool,
    quiet: bool,
) -> None:
    """Run the broker, its workers, and talk to both."""
    if workdir is not None:
        os.chdir(workdir)
    context.obj = Preload(
        app=app,
        broker=broker,
        workdir=str(Path.cwd()) if workdir is not None else None,
        quiet=quiet,
        no_color=no_color,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and exit; errors are one sentence on standard error."""
    try:
        status = qbroker.main(args=None if argv is None else list(argv), standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("Aborted.", err=True)
        status = 130
    except click.ClickException as exc:
        exc.show()
        status = exc.exit_code
    except ImproperlyConfigured as exc:
        click.echo(f"Error: {exc}", err=True)
        status = 1
    sys.exit(status if isinstance(status, int) else 0)
