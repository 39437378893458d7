"""What operators see: pages of messages by any filter, and why one is where it is."""

from dataclasses import replace

import pytest

from qbroker_server.core import view
from qbroker_server.core.errors import Invalid
from qbroker_server.core.lease import Outcome
from qbroker_server.core.queue import Pause, Resume
from qbroker_server.core.records import Extras, Flag, Limit, Stage
from qbroker_server.core.revoke import Revoke
from qbroker_server.core.view import Filter
from tests.support.scene import QUEUE, Scene, new


def page(scene: Scene, wanted: Filter, limit: int = 100) -> list[str]:
    """The ids of all pages."""
    ids: list[str] = []
    after = ""
    while True:
        with scene.engine.read() as txn:
            found, after = view.page(txn, wanted, after, limit)
        ids += [message_id for message_id, _ in found]
        assert len(found) <= limit
        if not after:
            return ids


def explain(scene: Scene, message_id: str = "m1") -> str:
    dispatcher, now_ms = scene.broker.dispatcher, scene.now_ms
    return scene.broker.read(lambda txn: view.explain(txn, message_id, dispatcher, now_ms))[1]


@pytest.fixture
def scene() -> Scene:
    """One message in each place."""
    scene = Scene()
    scene.publish(new("later", eta_ms=2**50))
    scene.register(prefetch_count=4)
    scene.publish(new("dead"), new("done"), new("leased"), new("started"))
    given = {delivery.id: delivery for delivery in scene.take()}
    scene.report(prefetch_count=2)
    scene.settle(given["dead"], Outcome.REJECTED, b"")
    scene.settle(given["done"])
    scene.start(given["started"])
    scene.publish(
        new("waiting"),
        replace(new("other", queue="other", task="proj.mul"), extras=Extras(labels=("a=b",))),
    )
    return scene


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (Filter(), ["dead", "done", "later", "leased", "other", "started", "waiting"]),
        (Filter(queue="other"), ["other"]),
        (Filter(task="proj.mul"), ["other"]),
        (Filter(label="a=b"), ["other"]),
        (Filter(stages=frozenset({Stage.QUEUED})), ["other", "waiting"]),
        (Filter(queue=QUEUE, stages=frozenset({Stage.QUEUED})), ["waiting"]),
        (Filter(stages=frozenset({Stage.LEASED, Stage.STARTED})), ["leased", "started"]),
        (Filter(stages=frozenset({Stage.STARTED})), ["started"]),
        (Filter(stages=frozenset({Stage.SCHEDULED})), ["later"]),
        (Filter(stages=frozenset({Stage.DEAD})), ["dead"]),
        (Filter(stages=frozenset({Stage.DONE})), ["done"]),
        (Filter(published_ms_min=2**60), []),
    ],
)
@pytest.mark.parametrize("limit", [1, 100])
def test_each_filter_finds_what_it_names(
    scene: Scene, wanted: Filter, ids: list[str], limit: int
) -> None:
    assert sorted(page(scene, wanted, limit)) == ids


def test_an_age_is_a_filter() -> None:
    scene = Scene()
    scene.publish(new("old"))
    scene.pass_time(1_000)
    scene.publish(new("young"))

    assert page(scene, Filter(published_ms_max=scene.now_ms - 500)) == ["old"]
    assert page(scene, Filter(published_ms_min=scene.now_ms - 500)) == ["young"]


@pytest.mark.parametrize("limit", [0, 1_001])
def test_a_page_of_no_or_too_many_is_refused(limit: int) -> None:
    with pytest.raises(Invalid, match="1 to 1000"):
        page(Scene(), Filter(), limit)


@pytest.mark.parametrize("after", ["not hex", "ffff"])
def test_a_page_goes_on_only_behind_one_of_its_own(after: str) -> None:
    scene = Scene()

    with pytest.raises(Invalid, match="after"):
        scene.broker.read(lambda txn: view.page(txn, Filter(), after, 10))


def test_one_page_looks_at_a_bounded_number_of_rows() -> None:
    scene = Scene()
    scene.publish(*[new(f"m{n:05}") for n in range(3_000)])

    found, after = scene.broker.read(lambda txn: view.page(txn, Filter(task="none"), "", 10))

    assert found == []
    assert after != ""
    assert page(scene, Filter(task="none")) == []


def test_each_place_is_explained(scene: Scene) -> None:
    assert "does not know it" in explain(scene, "unknown")
    assert "due in" in explain(scene, "later")
    assert "has been with s1@host" in explain(scene, "leased")
    assert "has been running on s1@host" in explain(scene, "started")
    assert "dead letter" in explain(scene, "dead")
    assert "ended 0 ms ago: SUCCESS" in explain(scene, "done")
    assert "0 messages are ahead of it" in explain(scene, "waiting")
    assert "No connected worker consumes from its queue 'other'" in explain(scene, "other")


def test_a_paused_queue_says_who_paused_it_and_why() -> None:
    scene = Scene()
    scene.register()
    scene.do(Pause(QUEUE, "ops@host", "database upgrade"))
    scene.publish(new())

    paused = explain(scene)
    was_paused = scene.do(Resume(QUEUE))

    assert "paused by ops@host" in paused
    assert "database upgrade" in paused
    assert was_paused
    assert scene.take_ids() == ["m1"]


def test_an_unknown_task_is_explained() -> None:
    scene = Scene()
    scene.register(tasks=["other"])
    scene.publish(new())

    assert explain(scene) == (
        "No connected worker knows the task 'proj.add'; 1 consume from its queue 'celery'."
    )
    assert scene.broker.read(lambda txn: scene.broker.dispatcher.unknown_count(txn, QUEUE)) == 1


def test_a_task_whose_workers_hold_it_back_is_explained() -> None:
    scene = Scene()
    scene.register()
    scene.report(unwanted=["proj.add"])
    scene.publish(new(task="proj.add"))

    assert explain(scene) == (
        "The 1 workers that know the task 'proj.add' have enough of it: their rate_limit lets it start later."
    )


def test_a_limit_says_when_it_lets_the_next_start() -> None:
    scene = Scene()
    scene.register()
    limit = Limit("mail", 10, 60_000, 0)
    scene.publish(*[replace(new(f"m{n}"), extras=Extras(limits=(limit,))) for n in range(2)])

    assert "'mail' (10 in 1 min 0 s) lets the next start in 6.0 s" in explain(scene, "m1")


def test_a_revoked_message_at_its_worker_says_so() -> None:
    scene = Scene()
    scene.register()
    scene.publish(new())
    scene.do(Revoke(["m1"]))

    assert "has been revoked" in explain(scene)
    assert scene.record().flags & Flag.REVOKING


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (-5, "0 ms"),
        (999, "999 ms"),
        (12_345, "12.3 s"),
        (310_000, "5 min 10 s"),
        (11_100_000, "3 h 5 min"),
        (187_200_000, "2 d 4 h"),
    ],
)
def test_spans_are_said_as_people_say_them(ms: int, words: str) -> None:
    assert view.duration(ms) == words
