"""What a command line of `qbroker multi` means; workers that it starts and stops are in tests/e2e/test_multi.py."""

import platform

import pytest
from click.testing import CliRunner

from qbroker_worker.multi import Misused, multi, read

HOST = platform.node()


def test_names_come_first_and_options_go_to_all() -> None:
    plan = read(["mail", "images@there", "-A", "proj", "-l", "INFO", "--purge"])

    assert plan.nodes == [f"mail@{HOST}", "images@there"]
    assert plan.common == ["-A", "proj", "-l", "INFO", "--purge"]
    assert plan.own == {}


def test_a_number_is_so_many_workers() -> None:
    assert read(["3", "-A", "proj"]).nodes == [f"celery{n}@{HOST}" for n in (1, 2, 3)]


def test_options_for_some_go_to_those_by_name_or_number() -> None:
    plan = read(
        ["a@x", "b@x", "c@x", "-c", "2", "-c:a", "9", "-Q:2-3", "big", "--pool:c,a=threads"]
    )

    assert plan.common == ["-c", "2"]
    assert plan.own == {
        "a@x": ["-c", "9", "--pool", "threads"],
        "b@x": ["-Q", "big"],
        "c@x": ["-Q", "big", "--pool", "threads"],
    }


def test_the_command_of_a_worker_has_its_name_and_files() -> None:
    plan = read(["a@x.y", "-A", "proj", "--pidfile=/run/%n-%h.pid", "--logfile", "%n.log"])

    command = plan.command("a@x.y")

    assert command[2:6] == ["qbroker", "worker", "--detach", "-n"]
    assert command[6:] == [
        "a@x.y", "--pidfile", "/run/a-x.y.pid", "--logfile", "%n.log", "-A", "proj",
    ]  # fmt: skip


def test_settings_stand_behind_the_options_of_each_worker() -> None:
    plan = read(["a@x", "-A", "proj", "-c:a", "9", "--", "task_acks_late=True", ".pool=solo"])

    assert plan.command("a@x")[-7:] == [
        "-A", "proj", "-c", "9", "--", "task_acks_late=True", ".pool=solo",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-A", "proj"], "Which workers?"),
        (["a", "-n", "b"], "come first"),
        (["a", "-c:b", "2"], "'b' is not one of the workers a@"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_sentence(
    arguments: list[str], sentence: str
) -> None:
    with pytest.raises(Misused, match=sentence):
        read(arguments)


def test_show_and_names_start_nothing() -> None:
    shown = CliRunner().invoke(multi, ["show", "a@x", "-A", "proj"])
    names = CliRunner().invoke(multi, ["names", "2"])

    assert shown.output.rstrip().endswith("-A proj")
    assert names.output.split() == [f"celery1@{HOST}", f"celery2@{HOST}"]
