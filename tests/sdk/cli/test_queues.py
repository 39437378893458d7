"""`qctl queue`, at the real broker."""

import pytest

from qbroker import App
from tests.sdk.cli.asking import Shell


@pytest.fixture(autouse=True)
def mail(real_app: App) -> None:
    """Three messages wait in the queue `mail`."""
    for n in range(3):
        _ = real_app.send_task("mail.send", (n,), queue="mail", task_id=f"m{n}")


def test_ls_and_show_tell_what_a_queue_holds(qctl: Shell) -> None:
    (listed,) = qctl.json("queue", "ls")["queues"]
    shown = qctl.json("queue", "show", "mail")

    assert (listed["name"], listed["ready_count"]) == ("mail", 3)
    assert shown["ready_bytes"] > 0
    assert "mail" in qctl.said("queue", "ls")
    assert "max length" not in qctl.said("queue", "show", "mail")


def test_options_that_are_not_given_stay(qctl: Shell) -> None:
    qctl.said("queue", "declare", "mail", "--max-length", "10", "--message-ttl", "1h")
    qctl.said("queue", "declare", "mail", "--overflow", "dead-letter", "--ageing", "30s")

    options = qctl.json("queue", "show", "mail")["options"]

    assert (options["length_max"], options["message_ttl_ms"]) == (10, 3_600_000)
    assert (options["overflow"], options["ageing_ms"]) == ("dead-letter", 30_000)
    assert "1 h 0 min" in qctl.said("queue", "show", "mail")


def test_a_new_queue_must_not_be_there_with_other_options(qctl: Shell) -> None:
    made = qctl("queue", "declare", "fresh", "--new", "--max-bytes", "5")

    refused = qctl("queue", "declare", "fresh", "--new", "--max-bytes", "6")

    assert made.exit_code == 0
    assert refused.exit_code == 6
    assert "bytes_max is 5, not 6" in refused.output


def test_a_paused_queue_says_by_whom_and_why(qctl: Shell) -> None:
    qctl.said("queue", "pause", "mail", "--why", "INC-42", "--by", "ann")

    listed, explained = qctl.said("queue", "ls"), qctl.said("explain", "m0")
    resumed = qctl.said("queue", "resume", "mail")

    assert "paused by ann: INC-42" in listed
    assert "was paused by ann" in explained
    assert resumed == "Queue 'mail' delivers: 3 messages waiting.\n"
    assert not qctl.json("queue", "show", "mail")["paused_ms"]


@pytest.mark.parametrize(
    "verb", [("show",), ("pause",), ("resume",), ("purge", "--yes"), ("peek",), ("rm", "--yes")]
)
def test_a_queue_that_is_not_there_names_those_that_are(qctl: Shell, verb: tuple[str, ...]) -> None:
    result = qctl("queue", verb[0], "male", *verb[1:])

    assert result.exit_code == 3
    assert result.output == "Error: there is no queue 'male'; there are: mail\n"


def test_peek_shows_what_is_next_and_leaves_it_there(qctl: Shell) -> None:
    tasks = qctl.json("queue", "peek", "mail", "--limit", "2")["tasks"]

    assert [task["id"] for task in tasks] == ["m0", "m1"]
    assert "m0" in qctl.said("queue", "peek", "mail")
    assert qctl.json("queue", "show", "mail")["ready_count"] == 3


@pytest.mark.parametrize("verb", [("queue", "purge"), ("purge",)])
def test_purge_says_how_many_and_asks(qctl: Shell, verb: tuple[str, ...]) -> None:
    tried = qctl.said(*verb, "mail", "--dry-run")
    unwanted = qctl(*verb, "mail", stdin="n\n")
    wanted = qctl.said(*verb, "mail", stdin="y\n")

    assert tried == "Would throw away 3 messages.\n"
    assert unwanted.exit_code == 1
    assert "Throw away 3 messages waiting in 'mail'?" in wanted
    assert "Threw away 3 messages." in wanted


def test_move_puts_what_waits_into_another_queue(qctl: Shell) -> None:
    tried = qctl.said("queue", "move", "mail", "slow", "--dry-run")
    moved = qctl.json("queue", "move", "mail", "slow", "--yes")
    into_itself = qctl("queue", "move", "slow", "slow", "--yes")

    assert tried == "Would move 3 messages.\n"
    assert moved == {"moved_count": 3}
    assert qctl.json("queue", "show", "slow")["ready_count"] == 3
    assert into_itself.exit_code == 2


def test_only_an_empty_queue_is_removed(qctl: Shell) -> None:
    refused = qctl("queue", "rm", "mail", "--yes")
    qctl.said("queue", "purge", "mail", "--yes")
    removed = qctl.said("queue", "rm", "mail", stdin="y\n")

    assert (refused.exit_code, "3 waiting" in refused.output) == (6, True)
    assert "Removed 'mail'." in removed
    assert qctl.json("queue", "ls") == {"queues": []}
