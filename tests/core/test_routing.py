"""Declaring exchanges, queues and bindings, and what is published through them."""

from dataclasses import replace

import pytest

from qbroker_server.core import keys, queue
from qbroker_server.core.errors import Conflict, Invalid, NotFound, ResourceFull, Unroutable
from qbroker_server.core.lease import Outcome, Settle
from qbroker_server.core.limits import AUTO_DELETE_MS
from qbroker_server.core.publish import NewMessage, copy_id
from qbroker_server.core.records import EndReason, Extras, QueueOptions, Stage
from qbroker_server.core.routes import Binding, Exchange, Route
from qbroker_server.core.routing import Declare, QueueDeclaration, RemoveExchange, Unbind
from tests.support.scene import Scene, lease_of, new

FANOUT = Exchange("news", "fanout")


def sent(id: str = "m1", exchange: str = "news", key: str = "", **more: object) -> NewMessage:  # noqa: A002 - the domain's word
    """A message that goes through an exchange."""
    return replace(new(id, queue=""), route=Route(exchange, key), **more)  # type: ignore[arg-type] # fields of it


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.do(Declare((FANOUT,), (), tuple(Binding("news", name) for name in ("a", "b", "c"))))
    return scene


def test_a_message_through_an_exchange_is_stored_once_for_each_queue(scene: Scene) -> None:
    published = scene.publish(sent())

    assert published.refusals == ()
    ids = ["m1", copy_id("m1", "b"), copy_id("m1", "c")]
    assert [scene.record(one).queue for one in ids] == ["a", "b", "c"]
    assert {scene.payload(one) for one in ids} == {b"body"}
    assert [scene.counts(name).ready_count for name in "abc"] == [1, 1, 1]
    assert scene.faults() == []


def test_publishing_it_again_stores_nothing(scene: Scene) -> None:
    scene.publish(sent())

    assert scene.publish(sent()).duplicates == (0,)
    assert scene.counts("c").ready_count == 1


def test_each_copy_is_run_and_retried_by_itself_in_its_queue(scene: Scene) -> None:
    scene.publish(sent())
    for name in "abc":
        scene.register(name, queues=(name,))
    delivery = scene.take("b")[0]

    scene.start(delivery, "b")
    again = Settle(
        delivery.id, 1, Outcome.RETRY, b"", message=sent(delivery.id), eta_ms=scene.now_ms + 5
    )
    scene.report("b", settles=[again])
    scene.pass_time(5)

    (retried,) = scene.take("b")
    assert (retried.id, retried.record.queue, retried.record.attempt) == (delivery.id, "b", 2)
    assert scene.faults() == []


def test_only_the_first_copy_has_the_unique_key(scene: Scene) -> None:
    scene.publish(sent(extras=Extras(unique_key="k", labels=("x=1",))))

    found = [scene.record(one).extras for one in ("m1", copy_id("m1", "b"))]

    assert [one.unique_key if one else None for one in found] == ["k", ""]
    assert [one.labels if one else None for one in found] == [("x=1",), ("x=1",)]


def test_what_nothing_takes_is_refused_and_its_neighbours_are_stored(scene: Scene) -> None:
    published = scene.publish(sent("a", "nowhere", "key"), sent("b"), sent("c", "news2"))

    assert [place for place, _ in published.refusals] == [0, 2]
    error = published.refusals[0][1]
    assert isinstance(error, Unroutable)
    assert "exchange 'nowhere' has no binding for the routing key 'key'" in str(error)
    assert scene.find("a") is None
    assert scene.find("b") is not None


def test_one_full_queue_refuses_the_message_for_all(scene: Scene) -> None:
    scene.do(queue.Declare("b", QueueOptions(length_max=1)))
    scene.publish(sent("first"))

    published = scene.publish(sent("second"))

    assert isinstance(published.refusals[0][1], ResourceFull)
    assert [scene.counts(name).ready_count for name in "abc"] == [1, 1, 1]


def test_a_follow_up_that_nothing_takes_becomes_a_dead_letter(scene: Scene) -> None:
    scene.register()
    scene.publish(new())
    delivery = scene.take_one()

    lost, kept = sent("lost", "nowhere", "key"), sent("kept")
    settle = Settle(delivery.id, 1, Outcome.SUCCESS, b"", False, (lost, kept))
    scene.report(settles=[settle])

    record = scene.record("lost")
    assert (record.stage, record.end_reason) == (Stage.DEAD, EndReason.REJECTED)
    assert "nothing takes message 'lost'" in record.detail
    assert scene.record("kept").queue == "a"
    assert scene.faults() == []


def test_routes_survive_a_restart(scene: Scene) -> None:
    scene.restart()

    scene.publish(sent())

    assert scene.counts("c").ready_count == 1


def test_declaring_the_same_again_changes_nothing(scene: Scene) -> None:
    before = scene.rows(keys.EXCHANGE) + scene.rows(keys.BINDING)

    scene.do(Declare((FANOUT,), (QueueDeclaration("a"),), (Binding("news", "a"),)))

    assert scene.rows(keys.EXCHANGE) + scene.rows(keys.BINDING) == before


def test_declaring_with_other_properties_is_a_conflict_that_names_them(scene: Scene) -> None:
    with pytest.raises(
        Conflict, match=r"'news' exists .* type is 'fanout', not 'topic'; alternate is '', not 'x'"
    ):
        scene.do(Declare((Exchange("fresh"), Exchange("news", "topic", alternate="x"))))

    # All of it or none.
    assert len(scene.rows(keys.EXCHANGE)) == 1


@pytest.mark.parametrize(
    ("declare", "error", "words"),
    [
        (Declare((Exchange(""),)), Invalid, "exchange name"),
        (Declare((Exchange("x\x00"),)), Invalid, "U\\+0000"),
        (Declare((Exchange("x" * 256),)), Invalid, "256 bytes"),
        (Declare((Exchange("x", "round"),)), Invalid, "'round' .* must be one of direct, topic"),
        (Declare((Exchange("amq.topic", "direct"),)), Conflict, "'amq.topic' exists"),
        (Declare(bindings=(Binding("absent", "q"),)), NotFound, "no exchange 'absent'"),
        (Declare(bindings=(Binding("", "q"),)), Invalid, "passes to every queue by its name"),
        (Declare(bindings=(Binding("news", ""),)), Invalid, "queue name"),
        (Declare(bindings=(Binding("news", "absent", is_to_exchange=True),)), NotFound, "'absent'"),
        (Declare(bindings=(Binding("news", "q", "k" * 256),)), Invalid, "256 bytes"),
        (Declare(bindings=(Binding("amq.headers", "q", arguments={"x-match": "some"}),)), Invalid, "x-match 'some'"),
        (Declare(bindings=(Binding("news", "q", arguments={"a": "x" * 5_000}),)), Invalid, "too large"),
        (Declare(queues=(QueueDeclaration("q", QueueOptions(overflow="spill")),)), Invalid, "'spill'"),
        (RemoveExchange("absent"), NotFound, "no exchange 'absent'"),
        (RemoveExchange("amq.topic"), Invalid, "always there"),
        (Unbind(Binding("news", "z")), NotFound, "no binding of 'z'"),
    ],
    ids=range(16),
)  # fmt: skip
def test_what_cannot_be_declared_is_refused_with_a_sentence(
    scene: Scene, declare: Declare, error: type[Exception], words: str
) -> None:
    before = scene.rows(keys.EXCHANGE) + scene.rows(keys.BINDING)

    with pytest.raises(error, match=words):
        scene.do(declare)

    assert scene.rows(keys.EXCHANGE) + scene.rows(keys.BINDING) == before


def test_a_removed_exchange_takes_its_bindings_along(scene: Scene) -> None:
    scene.do(Declare((Exchange("in"),), (), (Binding("in", "news", "k", is_to_exchange=True),)))

    scene.do(RemoveExchange("news"))

    assert scene.rows(keys.BINDING) == []
    assert [one[1] for one in scene.publish(sent()).refusals] != []


def test_an_exchange_of_its_own_accord_goes_with_its_last_binding(scene: Scene) -> None:
    own = Exchange("own", is_auto_delete=True)
    scene.do(Declare((own,), (), (Binding("own", "a"), Binding("own", "b"))))

    scene.do(Unbind(Binding("own", "a")))
    assert keys.EXCHANGE + b"own" in dict(scene.rows(keys.EXCHANGE))
    scene.do(Unbind(Binding("own", "b")))

    assert keys.EXCHANGE + b"own" not in dict(scene.rows(keys.EXCHANGE))
    assert len(scene.rows(keys.BINDING)) == 3


def test_a_removed_queue_is_bound_no_more(scene: Scene) -> None:
    scene.do(queue.Remove("b"))

    scene.publish(sent())

    assert scene.find(copy_id("m1", "b")) is None
    assert scene.find(copy_id("m1", "c")) is not None
    assert len(scene.rows(keys.BINDING)) == 2


def test_a_queue_is_declared_with_options_and_keeps_those_it_has_without(scene: Scene) -> None:
    options = QueueOptions(length_max=5)
    scene.do(Declare(queues=(QueueDeclaration("a", options),)))

    scene.do(Declare(queues=(QueueDeclaration("a"),)))

    assert scene.counts("a").options == options


def test_a_queue_that_goes_with_its_last_worker_takes_what_waits_along(scene: Scene) -> None:
    scene.do(Declare(queues=(QueueDeclaration("b", is_auto_delete=True),)))
    scene.register("worker", queues=("b",), prefetch_count=0)
    scene.publish(sent())
    scene.pass_time(5 * AUTO_DELETE_MS)
    assert scene.counts("b").ready_count == 1

    scene.die("worker")
    for _ in range(3):
        scene.pass_time(AUTO_DELETE_MS)

    assert "b" not in scene.broker.read(queue.names)
    assert scene.record(copy_id("m1", "b")).state == "REVOKED"
    assert len(scene.rows(keys.BINDING)) == 2
    assert scene.faults() == []


def test_a_late_acknowledged_copy_goes_back_to_its_own_queue(scene: Scene) -> None:
    scene.publish(sent())
    scene.register("s1", queues=("c",))
    (delivery,) = scene.take("s1")

    scene.report("s1", releases=[lease_of(delivery)], prefetch_count=0)

    assert scene.counts("c").ready_count == 1
    assert scene.record(delivery.id).queue == "c"
