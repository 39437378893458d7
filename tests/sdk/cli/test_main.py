"""The command: global options, sub-commands from entry points, errors in one sentence."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from qbroker import __version__
from qbroker.cli.main import EntryPointGroup, Preload, main, qbroker


@pytest.fixture
def probe() -> click.Group:
    """The group with a command that shows what it was handed."""
    group = EntryPointGroup("qbroker", params=qbroker.params, callback=qbroker.callback)

    @group.command()
    @click.pass_obj
    def show(preload: Preload) -> None:
        click.echo(repr(preload))

    return group


def test_global_options_are_handed_to_the_command(
    probe: click.Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The command changes the directory; this puts it back.
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(
        probe, ["-A", "proj", "-b", "qbroker://x:1", "--workdir", str(tmp_path), "-q", "show"]
    )

    expected = Preload("proj", "qbroker://x:1", str(tmp_path), quiet=True)
    assert ran.output == f"{expected!r}\n"


def test_help_lists_commands_and_examples_without_importing_them() -> None:
    ran = CliRunner().invoke(qbroker, ["--help"])

    assert ran.exit_code == 0
    assert "qbroker worker -A proj" in ran.output


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(qbroker, ["--version"]).output == f"qbroker {__version__}\n"


def test_an_unknown_command_is_one_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["nonsense"])

    assert caught.value.code == 2
    assert "No such command 'nonsense'" in capsys.readouterr().err
