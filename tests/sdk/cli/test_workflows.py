"""`qctl workflow`, at the real broker."""

from collections.abc import Iterator

import pytest

from qbroker import App
from qbroker.cli.workflows import tree
from qbroker.exceptions import Reject
from qbroker_proto.v1.message_pb2 import Join, Message, Workflow
from tests.sdk.cli.asking import Shell
from tests.sdk.real_broker import RealBroker, ToyWorker


def chord(*tasks: str) -> bytes:
    """The workflow "w": a chord of these with the body `good`, as it is published."""
    members = [
        Message(
            id=f"{place}-{name}",
            task=name,
            queue="celery",
            content_type="application/json",
            body=b"[[], {}, {}]",
            join_id="j",
            join_index=place,
        )
        for place, name in enumerate(tasks)
    ]
    body = Message(
        id="body",
        task="good",
        queue="celery",
        content_type="application/json",
        body=b"[[], {}, {}]",
        waits_for="j",
        fails_as_chord=True,
    )
    workflow = Workflow(
        messages=[message.SerializeToString() for message in (*members, body)],
        joins=[Join(id="j", size=len(members), is_list=True)],
    )
    return Message(id="w", workflow=workflow).SerializeToString()


@pytest.fixture
def worker(real_app: App, real_broker: RealBroker) -> Iterator[ToyWorker]:
    """Of the workflow `good` has ended, `bad` failed, and so the body never ran."""
    mended: list[bool] = []

    def bad() -> None:
        if not mended:
            mended.append(True)
            raise Reject("broken")

    real_app.task(name="bad")(bad)
    real_app.task(name="good")(lambda: 4)
    assert real_app.client().publish([chord("good", "bad")]) == []
    worker = ToyWorker(real_app, real_broker.url)
    worker.work(2)
    yield worker
    worker.leave()


@pytest.mark.usefixtures("worker")
def test_ls_counts_what_ended_and_what_failed(qctl: Shell) -> None:
    (found,) = qctl.json("workflow", "ls")["workflows"]

    assert (found["id"], found["message_count"]) == ("w", 3)
    assert (found["ended_count"], found["failed_count"]) == (3, 2)
    assert "good" in qctl.said("workflow", "ls")


@pytest.mark.usefixtures("worker")
def test_show_draws_the_tree_by_the_id_of_any_task(qctl: Shell) -> None:
    said = qctl.said("workflow", "show", "body").splitlines()

    assert said[0] == "workflow w: 3 tasks, 3 ended, 2 of them failed"
    assert said[1] == "good[0-good] SUCCESS"
    assert said[2].startswith("bad[1-bad] FAILURE: Reject")
    assert said[3].startswith("  └ good[body] FAILURE: Dependency 1-bad raised ")
    assert len(qctl.json("workflow", "show", "w")["tasks"]) == 3


def test_retry_goes_on_from_where_it_failed(qctl: Shell, worker: ToyWorker) -> None:
    said = qctl.said("workflow", "retry", "w")

    worker.work(2)
    (found,) = qctl.json("workflow", "ls")["workflows"]
    assert said == "1 task run again; 1 wait for them.\n"
    assert (found["ended_count"], found["failed_count"]) == (3, 0)


def test_cancel_says_how_many_and_asks(qctl: Shell, real_app: App) -> None:
    assert real_app.client().publish([chord("good", "good")]) == []

    unwanted = qctl("workflow", "cancel", "w", stdin="n\n")
    wanted = qctl.said("workflow", "cancel", "w", "--why", "no need", stdin="y\n")

    assert unwanted.exit_code == 1
    assert "Cancel 3 tasks of workflow w?" in wanted
    assert "Cancelled: 3 tasks will not run, 0 with workers were told, 0 had ended." in wanted
    assert "no need" in qctl.said("workflow", "show", "w")


def test_an_unknown_one_is_not_found(qctl: Shell) -> None:
    result = qctl("workflow", "show", "nobody")

    assert result.exit_code == 3
    assert "there is no workflow 'nobody'" in result.output


def test_a_wide_group_is_counted_not_listed() -> None:
    tasks = [
        {
            "id": f"t{n}",
            "task": "t",
            "state": "PENDING",
            "stage": 7,
            "detail": "",
            "join_id": "j",
            "join_index": n,
            "waits_for": "",
        }
        for n in range(23)
    ]

    lines = list(tree(tasks))

    assert lines[0] == "t[t0] waiting"
    assert lines[-1] == "  … and 3 more"
    assert len(lines) == 21
