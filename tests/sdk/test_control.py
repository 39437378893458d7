"""Revoking, purging and asking, at the real broker."""

import signal

import pytest

from qbroker import App
from qbroker.app.control import Revoked
from qbroker.exceptions import Conflict, NotFound, RequestRefused, TaskRevokedError
from qbroker.result import Explanation
from qbroker.serialization import Value
from tests.sdk.real_broker import RealBroker, ToyWorker


def test_a_task_that_waits_is_revoked_without_any_worker(real_app: App) -> None:
    result = real_app.send_task("t")

    result.revoke()

    assert (result.state, result.stage) == ("REVOKED", "done")
    with pytest.raises(TaskRevokedError, match="revoked"):
        result.get(timeout=5)


def test_a_scheduled_task_is_revoked_too(real_app: App) -> None:
    result = real_app.send_task("t", countdown=3600)
    stage = result.stage

    revoked = real_app.control.revoke(result.id)

    assert (stage, revoked) == ("scheduled", Revoked((result.id,), (), ()))
    assert isinstance(result.get(timeout=5, propagate=False), TaskRevokedError)


def test_an_id_may_be_revoked_before_it_is_published(
    real_app: App, real_broker: RealBroker
) -> None:
    ran: list[str] = []
    real_app.task(name="t")(ran.append)
    real_app.control.revoke(["early", "other"])

    result = real_app.send_task("t", ("early",), task_id="early")
    _ = real_app.send_task("t", ("later",), task_id="later")
    worker = ToyWorker(real_app, real_broker.url)
    worker.work()
    worker.leave()

    assert ran == ["later"]
    assert result.state == "REVOKED"


@pytest.mark.parametrize("name", ["TERM", "SIGTERM", signal.SIGTERM])
def test_a_worker_is_told_to_end_a_task_that_runs(
    real_app: App, real_broker: RealBroker, name: Value
) -> None:
    real_app.task(name="t")(lambda: None)
    result = real_app.send_task("t")
    worker = ToyWorker(real_app, real_broker.url)
    delivery = worker.take()

    revoked = real_app.control.terminate(result.id, signal=name)
    worker.settle(delivery, outcome=6)
    worker.leave()

    assert revoked == Revoked((), (result.id,), ())
    assert [(one.id, one.terminate, one.signal) for one in worker.cancels] == [
        (result.id, True, "SIGTERM")
    ]
    assert result.state == "REVOKED"
    assert real_app.control.revoke(result.id) == Revoked((), (), (result.id,))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"customer": 42}, {"a", "b"}),
        ({"customer": ["42", "43"]}, {"a", "b", "c"}),
        ({"customer": 43, "day": "mo"}, {"a", "c"}),
        (["day=mo"], {"a"}),
        ("day=mo", {"a"}),
        ({"customer": 4}, set()),
    ],
)
def test_tasks_are_revoked_by_any_of_their_stamps(
    real_app: App, headers: Value, expected: set[str]
) -> None:
    for task_id, customer, day in (("a", 42, "mo"), ("b", 42, "tu"), ("c", 43, "tu")):
        _ = real_app.send_task("t", task_id=task_id, stamped_headers=["customer"], customer=customer,
                           labels={"day": day})  # fmt: skip

    revoked = real_app.control.revoke_by_stamped_headers(headers)

    assert set(revoked.ended) == expected
    states = {one: real_app.AsyncResult(one).state for one in "abc"}
    assert {one for one, state in states.items() if state == "REVOKED"} == expected


def test_a_result_revokes_by_stamps_as_well(real_app: App) -> None:
    result = real_app.send_task("t", labels={"day": "mo"})

    result.revoke_by_stamped_headers({"day": "mo"})

    assert result.state == "REVOKED"


def test_what_ran_here_says_it_was_revoked(real_app: App) -> None:
    result = real_app.task(name="t")(lambda: 4).apply()
    explanation = result.explain()

    result.revoke()

    assert str(explanation) == "It ran in the process that called it: SUCCESS."
    with pytest.raises(TaskRevokedError):
        result.get()


def test_a_purge_throws_away_what_waits_in_the_apps_queue(real_app: App) -> None:
    results = [real_app.send_task("t") for _ in range(3)]
    kept = real_app.send_task("t", queue="other")

    assert real_app.control.purge() == 3
    assert real_app.control.discard_all() == 0
    assert {result.state for result in results} == {"REVOKED"}
    assert kept.stage == "queued"


def test_a_queue_that_never_was_is_empty(real_app: App) -> None:
    assert real_app.control.purge() == 0


def test_every_id_can_be_asked_for(real_app: App, real_broker: RealBroker) -> None:
    client = real_app.client()
    real_app.task(name="t")(lambda: None)
    queued = real_app.send_task("t")
    later = real_app.send_task("t", countdown=600)
    nobody = real_app.AsyncResult("nobody")

    assert queued.explain() == Explanation(
        "queued", "No connected worker takes from its queue 'celery'."
    )
    client.pause_queue("celery", by="me", why="a test")
    assert "was paused by me" in str(queued.explain())
    assert str(queued.explain()).endswith(": a test.")
    client.resume_queue("celery")
    assert str(later.explain()).startswith("It will be due in ")
    assert (nobody.stage, nobody.state, nobody.explain().stage) == ("unknown", "PENDING", "unknown")
    worker = ToyWorker(real_app, real_broker.url)
    worker.work()
    worker.leave()
    assert (queued.stage, queued.explain().stage) == ("done", "done")


def test_what_the_broker_refuses_is_told_apart(real_app: App) -> None:
    client = real_app.client()
    _ = real_app.send_task("t")

    with pytest.raises(NotFound, match="no queue 'male'"):
        client.list_queues("male")
    with pytest.raises(Conflict, match="holds 1 waiting"):
        client.remove_queue("celery")
    with pytest.raises(RequestRefused, match="nothing to revoke"):
        client.revoke()
