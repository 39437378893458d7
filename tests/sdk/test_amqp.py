"""app.amqp, and calls that go through exchanges of the real broker."""

import asyncio

import pytest

from qbroker import App
from qbroker.app.amqp import Queues, topology_of
from qbroker.envelope import STAGES
from qbroker.exceptions import Conflict, ContentDisallowed, QueueNotFound, UnroutableError
from qbroker.messaging import Broadcast, Exchange, Queue, binding
from qbroker.result import AsyncResult
from qbroker.serialization import Value
from tests.sdk.conftest import MakeApp
from tests.sdk.real_broker import RealBroker, ToyWorker

MEDIA = Exchange("media", type="topic")


@pytest.fixture
def app(real_broker: RealBroker, make_app: MakeApp) -> App:
    """Images and videos have their queues, and one queue gets both."""
    return make_app(
        broker=real_broker.url,
        task_queues=[
            Queue("celery"),
            Queue("images", MEDIA, "image.#"),
            Queue("videos", MEDIA, "video.*", message_ttl=60),
            Queue("all", MEDIA, "#", bindings=[binding(MEDIA, "everything")]),
        ],
    )


def waiting(app: App) -> dict[str, int]:
    """How many messages wait, by queue."""
    return {one.name: one.ready_count for one in app.client().list_queues() if one.ready_count}


def test_a_message_goes_to_every_queue_whose_binding_takes_it(app: App) -> None:
    _ = app.send_task("crop", exchange="media", routing_key="image.png.crop")
    _ = app.send_task("cut", exchange=MEDIA, routing_key="video.cut")
    _ = app.send_task("other", exchange="media", routing_key="audio.mix")

    assert waiting(app) == {"images": 1, "videos": 1, "all": 3}
    (videos,) = app.client().list_queues("videos")
    assert videos.options.message_ttl_ms == 60_000


def test_a_queue_with_an_exchange_that_is_not_direct_is_reached_through_it(app: App) -> None:
    _ = app.send_task("crop", queue="images")
    _ = app.send_task("crop", queue=Queue("extra", MEDIA, "video.extra"))
    _ = app.send_task("plain")

    assert waiting(app) == {"images": 1, "all": 2, "videos": 1, "extra": 1, "celery": 1}


def test_routes_and_attributes_of_tasks_name_exchanges_too(app: App) -> None:
    app.conf.task_routes = {"image.*": {"exchange": "media", "routing_key": "image.x"}}
    cut = app.task(name="cut", exchange="media", routing_key="video.x")(lambda: None)

    _ = app.send_task("image.crop")
    _ = cut.delay()

    assert waiting(app) == {"images": 1, "videos": 1, "all": 2}


def test_what_nothing_takes_is_an_error_of_its_own(
    real_broker: RealBroker, make_app: MakeApp
) -> None:
    app = make_app(broker=real_broker.url, task_queues=[Queue("images", MEDIA, "image.#")])

    with pytest.raises(
        UnroutableError, match="'media' has no binding for the routing key 'audio'"
    ) as caught:
        _ = app.send_task("x", exchange="media", routing_key="audio", task_id="lost")
    assert caught.value.task_id == "lost"
    with pytest.raises(UnroutableError, match="'absent'"):
        _ = app.send_task("x", exchange="absent", routing_key="audio")
    assert waiting(app) == {}


async def test_asyncio_programs_declare_without_blocking(app: App) -> None:
    result = await app.asend_task("crop", exchange="media", routing_key="image.x")

    assert isinstance(result, AsyncResult)
    assert (await asyncio.to_thread(waiting, app)) == {"images": 1, "all": 1}


def test_pipelines_and_send_many_declare_before_they_send(app: App) -> None:
    with app.pipeline():
        _ = app.send_task("crop", exchange="media", routing_key="image.x")
    app.send_many([("crop", (), {}, {"exchange": "media", "routing_key": "image.x"})] * 2)

    assert waiting(app) == {"images": 3, "all": 3}


def test_an_exchange_that_is_there_with_another_type_is_a_conflict(
    app: App, real_broker: RealBroker, make_app: MakeApp
) -> None:
    _ = app.send_task("x", exchange="media", routing_key="image.x")
    other = make_app(broker=real_broker.url, task_queues=[Queue("q", Exchange("media"), "k")])

    with pytest.raises(Conflict, match="type is 'topic', not 'direct'"):
        _ = other.send_task("x", queue="q")


def test_headers_decide_where_an_exchange_of_that_type_sends(
    real_broker: RealBroker, make_app: MakeApp
) -> None:
    kinds = Exchange("kinds", type="headers")
    pdf = Queue("pdf", kinds, binding_arguments={"kind": "pdf", "x-match": "all"})
    big = Queue("big", kinds, binding_arguments={"size": "big", "kind": "iso", "x-match": "any"})
    app = make_app(broker=real_broker.url, task_queues=[pdf, big])

    _ = app.send_task("x", exchange="kinds", headers={"kind": "pdf"})
    _ = app.send_task("x", exchange="kinds", headers={"kind": "pdf", "size": "big"})

    assert waiting(app) == {"pdf": 2, "big": 1}


def test_exchanges_pass_on_to_exchanges_and_to_their_alternate(
    real_broker: RealBroker, make_app: MakeApp
) -> None:
    lost = Exchange("lost", type="fanout")
    outer = Exchange("outer", type="topic", arguments={"alternate-exchange": "lost"})
    inner = Exchange("inner", type="fanout").bind_to(outer, "in.#")
    app = make_app(
        broker=real_broker.url, task_queues=[Queue("inside", inner), Queue("found", lost)]
    )

    _ = app.send_task("x", exchange="outer", routing_key="in.side")
    _ = app.send_task("x", exchange="outer", routing_key="out.side")

    assert waiting(app) == {"inside": 1, "found": 1}


def test_a_broadcast_reaches_every_workers_queue(
    real_broker: RealBroker, make_app: MakeApp
) -> None:
    workers = [Broadcast("news"), Broadcast("news")]
    app = make_app(broker=real_broker.url, task_queues=[Queue("celery"), Broadcast("news")])
    with pytest.raises(UnroutableError):
        _ = app.send_task("x", queue="news")
    # What each of them declares when it starts.
    app.client().declare_topology(topology_of(workers, for_worker=True))

    _ = app.send_task("x", queue="news")

    assert waiting(app) == {queue.name: 1 for queue in workers}
    (info,) = app.client().list_queues(workers[0].name)
    assert info.options.expires_ms > 0


def test_a_queue_nobody_configured_is_refused_where_the_setting_says_so(
    make_app: MakeApp,
) -> None:
    app = make_app(
        task_create_missing_queues=False, task_queues=[Queue("known")], task_default_queue="known"
    )

    assert app.amqp.place("known", None, None).queue == "known"
    with pytest.raises(QueueNotFound, match="'other' missing from task_queues"):
        app.amqp.place("other", None, None)


def test_the_exchange_without_a_name_sends_to_the_queue_of_the_key(app: App) -> None:
    _ = app.send_task("x", exchange="", routing_key="anything")

    assert waiting(app) == {"anything": 1}


def test_options_that_need_no_saying_here_change_nothing(app: App) -> None:
    _ = app.send_task(
        "x", mandatory=True, delivery_mode=1, retry=True, retry_policy={}, exchange_type="direct"
    )

    assert waiting(app) == {"celery": 1}


@pytest.mark.parametrize(
    "queues",
    [
        {"images": {"exchange": "media", "exchange_type": "topic", "binding_key": "image.#"}},
        {"images": {"exchange": "media", "exchange_type": "topic", "routing_key": "image.#"}},
        (Queue("images", MEDIA, "image.#"),),
    ],
    ids=["binding_key", "routing_key", "Queue"],
)
def test_queues_are_described_by_dicts_or_objects(make_app: MakeApp, queues: Value) -> None:
    app = make_app(CELERY_QUEUES=queues)

    queue = app.amqp.queues["images"]

    assert (queue.exchange, queue.routing_key) == (MEDIA, "image.#")
    assert app.amqp.place("images", None, None)[:3] == ("", "media", "image.#")


@pytest.mark.parametrize(
    ("exchange", "key"), [(None, None), ("ex", None), ("ex", "rk"), (None, "rk")]
)
def test_the_default_queue_is_bound_as_the_settings_say(
    make_app: MakeApp, exchange: str | None, key: str | None
) -> None:
    app = make_app(
        task_default_queue="default", task_default_exchange=exchange, task_default_routing_key=key
    )

    (queue,) = app.amqp.queues.values()

    assert (queue.name, str(queue.exchange), queue.routing_key) == (
        "default",
        exchange or "default",
        key or "default",
    )


def test_a_default_exchange_that_is_no_direct_one_is_gone_through(make_app: MakeApp) -> None:
    app = make_app(task_default_exchange="tasks", task_default_exchange_type="topic")

    place = app.amqp.place(None, None, "video.cut")

    assert place[:3] == ("", "tasks", "video.cut")
    assert [queue.name for queue in place.declares] == ["celery"]


def test_workers_take_from_all_queues_or_from_those_selected(make_app: MakeApp) -> None:
    app = make_app(task_queues=[Queue("a"), Queue("b", alias="bee"), Queue("c")])

    assert list(app.amqp.queues.consume_from) == ["a", "b", "c"]
    app.amqp.queues.deselect("c")
    assert list(app.amqp.queues.consume_from) == ["a", "b"]
    app.select_queues(["bee", "new"])
    assert list(app.amqp.queues.consume_from) == ["b", "new"]
    app.amqp.queues.select_add("more", exchange="media", exchange_type="topic")
    assert list(app.amqp.queues.consume_from) == ["b", "new", "more"]
    assert "exchange=media(topic) key=more" in app.amqp.queues.format()


def test_queues_without_an_app_are_a_dict_that_makes_what_is_missing() -> None:
    queues = Queues([Queue("a")])

    assert queues["b"].name == "b"
    assert queues.declared == {"a"}
    with pytest.raises(KeyError):
        Queues(create_missing=False)["b"]


def test_a_message_that_may_not_be_read_is_kept_and_runs_where_it_may(
    real_broker: RealBroker, make_app: MakeApp
) -> None:
    def named(**settings: Value) -> App:
        app = make_app(broker=real_broker.url, backend="qbroker://", **settings)
        app.task(name="double")(lambda x: x * 2)
        return app

    caller, trusting = named(), named(accept_content=["json", "pickle"])
    result = caller.send_task("double", (4,), serializer="pickle")
    strict = ToyWorker(caller, real_broker.url)
    strict.work()
    strict.leave()

    info = caller.client().show_task(result.id)
    with pytest.raises(ContentDisallowed, match="application/x-python-serialize"):
        result.get(timeout=5)
    assert STAGES[info.stage] == "dead"
    assert info.detail.startswith("ContentDisallowed: Refusing to deserialize")
    assert caller.client().requeue_dead([result.id]) == 1
    worker = ToyWorker(trusting, real_broker.url)
    worker.work()
    worker.leave()
    assert trusting.AsyncResult(result.id).get(timeout=5) == 8


def test_a_result_in_another_serializer_is_refused_by_who_does_not_accept_it(
    real_broker: RealBroker, make_app: MakeApp
) -> None:
    app = make_app(broker=real_broker.url, backend="qbroker://", result_serializer="msgpack", result_compression="zstd")  # fmt: skip
    app.task(name="words")(lambda: ["word"] * 1_000)
    reader = make_app(
        broker=real_broker.url, backend="qbroker://", result_accept_content=["msgpack"]
    )
    result = app.send_task("words")
    worker = ToyWorker(app, real_broker.url)
    worker.work()
    worker.leave()

    assert reader.AsyncResult(result.id).get(timeout=5) == ["word"] * 1_000
    with pytest.raises(ContentDisallowed):
        result.get(timeout=5)
