"""`qctl dead`, at the real broker."""

import pytest

from qbroker import App
from qbroker.exceptions import Reject
from tests.sdk.cli.asking import Shell
from tests.sdk.real_broker import RealBroker, ToyWorker


@pytest.fixture(autouse=True)
def letters(real_app: App, real_broker: RealBroker) -> None:
    """Of `bad` a and b are dead, and c of `worse`, which was in `slow`."""

    def reject(why: str) -> None:
        raise Reject(why)

    real_app.task(name="bad")(reject)
    worse = real_app.task(name="worse", acks_late=True, acks_on_failure=False)(lambda: 1 / 0)
    _ = real_app.send_task("bad", ("first",), task_id="a")
    _ = real_app.send_task("bad", ("second",), task_id="b")
    _ = worse.apply_async(task_id="c", queue="slow")
    worker = ToyWorker(real_app, real_broker.url, "celery", "slow")
    worker.work(3)
    worker.leave()


def ids(qctl: Shell, *options: str) -> list[str]:
    return sorted(task["id"] for task in qctl.json("dead", "ls", *options)["tasks"])


def test_ls_finds_them_by_task_and_queue(qctl: Shell) -> None:
    assert ids(qctl) == ["a", "b", "c"]
    assert ids(qctl, "--task", "bad") == ["a", "b"]
    assert ids(qctl, "--queue", "slow") == ["c"]
    assert "dead" in qctl.said("dead", "ls")
    assert qctl.json("status")["dead_count"] == 3


def test_show_tells_why_and_where_it_failed(qctl: Shell) -> None:
    rejected, failed = qctl.said("dead", "show", "a"), qctl.said("dead", "show", "c")

    assert "Reject: first" in rejected
    assert "ZeroDivisionError: division by zero" in failed
    assert "Traceback (most recent call last)" in failed


def test_requeue_gives_them_another_try(
    qctl: Shell, real_app: App, real_broker: RealBroker
) -> None:
    tried = qctl.said("dead", "requeue", "--task", "bad", "--dry-run")
    unwanted = qctl("dead", "requeue", "--task", "bad", stdin="n\n")
    wanted = qctl.said("dead", "requeue", "--task", "bad", stdin="y\n")

    assert tried == "Would requeue 2 dead letters.\n"
    assert unwanted.exit_code == 1
    assert "Try 2 dead letters again?" in wanted
    assert "Requeued 2 dead letters." in wanted
    assert ids(qctl) == ["c"]
    worker = ToyWorker(real_app, real_broker.url)
    assert [ran.task for ran in worker.work(2)] == ["bad", "bad"]
    worker.leave()


def test_rm_forgets_them(qctl: Shell) -> None:
    by_id = qctl.json("dead", "rm", "a", "--yes")
    rest = qctl.json("dead", "rm", "--all", "--yes")

    assert by_id == {"removed_count": 1, "count": 1}
    assert rest == {"removed_count": 2, "count": 2}
    assert ids(qctl) == []


@pytest.mark.parametrize("verb", ["requeue", "rm"])
def test_which_must_be_said_and_be_there(qctl: Shell, verb: str) -> None:
    unsaid, absent = qctl("dead", verb, "--yes"), qctl("dead", verb, "nobody", "--yes")

    assert (unsaid.exit_code, absent.exit_code) == (2, 3)
    assert "qctl dead ls" in absent.output
