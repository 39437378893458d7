"""Values that options refuse: an unset variable of a shell must not select everything."""

import click
import pytest
from click.testing import CliRunner, Result

from qbroker.app import commands
from qbroker.bin.beat import beat
from qbroker.cli import options
from qbroker.cli.main import qbroker
from qbroker.cli.qctl import qctl


@click.command()
@click.option("-Q", "names", callback=options.comma_separated)
@click.option("-n", "node", callback=options.node_name, default="celery@%h")
@click.option("-A", "app", callback=options.word, default="")
@click.option("-L", "labels", callback=options.word, multiple=True)
def command(names: tuple[str, ...], node: str, app: str, labels: tuple[str, ...]) -> None:
    click.echo(repr((names, node, app, labels)))


def ran(*words: str) -> Result:
    return CliRunner().invoke(command, words)


def test_names_are_separated_by_commas_and_blanks_around_them_do_not_count() -> None:
    result = ran("-Q", " mail, images ", "-n", "a@%h", "-A", "proj", "-L", "a=1")

    assert result.output == "(('mail', 'images'), 'a@%h', 'proj', ('a=1',))\n"


def test_options_that_are_left_out_may_be_empty() -> None:
    assert ran().output == "((), 'celery@%h', '', ())\n"


@pytest.mark.parametrize("option", ["-Q", "-n", "-A", "-L"])
@pytest.mark.parametrize("value", ["", " ", "\t"])
def test_an_empty_value_is_a_usage_error_that_names_the_cause(option: str, value: str) -> None:
    result = ran(option, value)

    assert result.exit_code == 2
    assert f"{value!r} is empty" in " ".join(result.output.split())
    assert "environment variable" in result.output


@pytest.mark.parametrize(
    ("value", "position"), [(",mail", 1), ("mail,", 2), ("mail,,images", 2), (",", 1)]
)
def test_an_empty_name_in_a_list_is_refused_with_its_position(value: str, position: int) -> None:
    result = ran("-Q", value)

    assert result.exit_code == 2
    assert f"name {position} of {value!r} is empty" in result.output


@pytest.mark.parametrize("name", ["a b@%h", "a\n@%h", "a,b@%h", "a\x1b[31m@%h", " a@%h"])
def test_a_worker_name_with_blanks_commas_or_control_characters_is_refused(name: str) -> None:
    result = ran("-n", name)

    assert result.exit_code == 2
    assert "a worker's name has no blanks, commas or control characters" in result.output


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (qctl, ("inspect", "ping", "-d", "")),
        (qctl, ("dead", "rm", "--yes", "--queue", "")),
        (qctl, ("dead", "requeue", "--yes", "--task", "")),
        (qctl, ("task", "ls", "--queue", "")),
        (qctl, ("task", "ls", "--label", "")),
        (qctl, ("revoke", "--label", "")),
        (qctl, ("revoke", "--root", "")),
        (commands.purge, ("-f", "-Q", "")),
        (commands.purge, ("-f", "-X", "")),
        (beat, ("-A", "")),
        (qbroker, ("-A", "", "report")),
        (qbroker, ("-b", "", "report")),
    ],
)
def test_no_command_takes_an_empty_selection_for_everything(
    program: click.Command, words: tuple[str, ...]
) -> None:
    result = CliRunner().invoke(program, words)

    assert result.exit_code == 2
    assert "'' is empty" in result.output
