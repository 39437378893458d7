"""The command: global options, sub-commands from entry points, errors in one sentence."""

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from qbroker import __version__
from qbroker.cli.main import Preload, main, qbroker


@pytest.fixture
def probe() -> click.Group:
    """The group with a command that shows what it was handed."""
    group = type(qbroker)("qbroker", params=qbroker.params, callback=qbroker.callback)

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


@pytest.mark.parametrize("is_behind", [False, True])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-A", "proj"], Preload(app="proj")),
        (["--app", "proj"], Preload(app="proj")),
        (["-b", "qbroker://x:1"], Preload(broker="qbroker://x:1")),
        (["--result-backend", "qbroker://y:1"], Preload(result_backend="qbroker://y:1")),
        (["-C"], Preload(no_color=True)),
        (["--quiet"], Preload(quiet=True)),
        (["--loader", "app"], Preload()),
        (["--config", "conf"], Preload()),
        (["--skip-checks"], Preload()),
    ],
)
def test_a_global_option_of_celery_may_stand_before_or_behind_the_command(
    probe: click.Group,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    expected: Preload,
    is_behind: bool,
) -> None:
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "")
    monkeypatch.setenv("CELERY_SKIP_CHECKS", "")

    ran = CliRunner().invoke(probe, ["show", *options] if is_behind else [*options, "show"])

    assert ran.stdout == f"{expected!r}\n"
    environment = os.environ  # noqa: TID251 - where apps and Django read these two
    assert environment["CELERY_CONFIG_MODULE"] == ("conf" if "--config" in options else "")
    assert environment["CELERY_SKIP_CHECKS"] == ("true" if "--skip-checks" in options else "")
    assert ("--loader app has no effect" in ran.stderr) is ("--loader" in options)


def test_options_before_and_behind_a_command_are_merged(
    probe: click.Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    ran = CliRunner().invoke(
        probe, ["-A", "one", "-q", "show", "-A", "two", "--workdir", str(tmp_path)]
    )

    assert ran.output == f"{Preload('two', workdir=str(tmp_path), quiet=True)!r}\n"


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
