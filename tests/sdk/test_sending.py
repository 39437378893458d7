"""Options of a call: times, priorities, and what becomes of a late-acknowledged task."""

import datetime as dt
import json
import math

import pytest

from qbroker import App, clock, envelope
from qbroker.app.sending import prepare, prepare_again
from qbroker.app.trace import build_runner
from qbroker.exceptions import EncodeError, ImproperlyConfigured, SerializerNotInstalled
from qbroker.serialization import Value
from qbroker_proto.v1.message_pb2 import ACK_POLICY_LATE, Message
from tests.sdk.conftest import MakeApp

LAST_MS = 253_402_300_799_999
ONE_HOUR_EAST = dt.timezone(dt.timedelta(hours=1))


@pytest.fixture
def app(make_app: MakeApp) -> App:
    return make_app(broker="qbroker://127.0.0.1:1", timezone="Europe/Berlin")


def message(app: App, **options: Value) -> Message:
    call = prepare(app.conf, "t", (), {}, task_type=app.tasks.get("t"), **options)
    return Message.FromString(call.message)


@pytest.mark.parametrize("seconds", [0.001, 0.25, 1, 1.5, 86_400 * 365])
def test_a_countdown_is_from_now_to_the_millisecond(app: App, seconds: float) -> None:
    before_ms = clock.wall_ms()

    eta_ms = message(app, countdown=seconds).eta_ms

    least_ms = before_ms + math.ceil(seconds * 1000)
    assert least_ms <= eta_ms <= least_ms + 1_000


def test_a_countdown_of_nothing_is_at_once(app: App) -> None:
    assert message(app, countdown=0).eta_ms == 0


@pytest.mark.parametrize(
    ("moment", "unix_ms"),
    [
        (dt.datetime(2030, 1, 31, 12, tzinfo=dt.UTC), 1_896_091_200_000),
        (dt.datetime(2030, 1, 31, 13, tzinfo=ONE_HOUR_EAST), 1_896_091_200_000),
        # Without a zone: Berlin's, an hour east in winter, two in summer.
        (dt.datetime(2030, 1, 31, 13), 1_896_091_200_000),  # noqa: DTZ001 - naive on purpose
        (dt.datetime(2030, 7, 31, 14), 1_911_729_600_000),  # noqa: DTZ001 - the same
        ("2030-01-31T12:00:00+00:00", 1_896_091_200_000),
        # Never early: what is finer than a millisecond counts as one.
        (dt.datetime(2030, 1, 31, 12, 0, 0, 1, tzinfo=dt.UTC), 1_896_091_200_001),
        (dt.datetime(2030, 1, 31, 12, 0, 0, 7_000, tzinfo=dt.UTC), 1_896_091_200_007),
        (dt.datetime(1950, 1, 1, tzinfo=dt.UTC), 1),
        (dt.datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=dt.UTC), LAST_MS),
    ],
)
def test_an_eta_is_a_moment_to_the_millisecond(app: App, moment: Value, unix_ms: int) -> None:
    assert message(app, eta=moment).eta_ms == unix_ms
    assert message(app, expires=moment).expires_ms == unix_ms


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"countdown": -1}, ValueError, "countdown -1 of task 't' is not a number of seconds from 0"),
        ({"time_limit": -1}, ValueError, "time_limit -1 of task 't' must be a number of seconds"),
        ({"time_limit": float("nan")}, ValueError, "time_limit nan of task 't' must be a number"),
        ({"soft_time_limit": "x"}, TypeError, "soft_time_limit 'x' of task 't' is not a number"),
        ({"soft_time_limit": True}, TypeError, "soft_time_limit True of task 't' is not a number"),
        ({"task_id": 5}, TypeError, "task_id 5 of task 't' is not text"),
        ({"retries": "x"}, TypeError, "retries 'x' of task 't' is not a whole number"),
        ({"retries": -1}, ValueError, "retries -1 of task 't' is not a whole number"),
        ({"countdown": math.nan}, ValueError, "countdown nan of task 't'"),
        ({"countdown": math.inf}, ValueError, "countdown inf of task 't'"),
        ({"countdown": 1e12}, ValueError, "to the year 9999"),
        ({"countdown": True}, TypeError, "countdown True of task 't' is not a number of seconds"),
        ({"countdown": "5"}, TypeError, "countdown '5' of task 't' is not a number of seconds"),
        ({"eta": 5}, TypeError, "eta 5 of task 't' is not a datetime$"),
        ({"eta": dt.date(2030, 1, 1)}, TypeError, r"eta datetime.date\(2030, 1, 1\) of task 't' is not a datetime"),
        ({"eta": "tomorrow"}, ValueError, "eta 'tomorrow' of task 't' is not an ISO 8601 date and time"),
        ({"eta": dt.datetime(9999, 12, 31, 23, tzinfo=dt.timezone(dt.timedelta(hours=-12)))}, ValueError, "beyond the year 9999"),
        ({"expires": -0.5}, ValueError, "expires -0.5 of task 't'"),
        ({"expires": math.nan}, ValueError, "expires nan of task 't'"),
        ({"expires": dt.timedelta(1)}, TypeError, "is not a datetime or a number of seconds"),
        ({"expires": True}, TypeError, "expires True of task 't'"),
        ({"priority": 10}, ValueError, "priority 10 of task 't' is not a whole number from 0 to 9"),
        ({"priority": "5"}, ValueError, "priority '5' of task 't'"),
    ],
)  # fmt: skip
def test_a_time_that_cannot_be_meant_is_refused_with_the_value_and_the_form(
    app: App, options: dict[str, Value], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        message(app, **options)


def test_none_takes_back_what_the_task_says(app: App) -> None:
    app.task(shared=False, name="t", expires=60, time_limit=5, soft_time_limit=4)(lambda: None)

    given = message(app)
    taken_back = message(app, expires=None, time_limit=None, soft_time_limit=None)

    assert (given.expires_ms > 0, given.time_limit, given.soft_time_limit) == (True, 5, 4)
    assert (taken_back.expires_ms, taken_back.time_limit, taken_back.soft_time_limit) == (0, 0, 0)


@pytest.mark.parametrize(
    ("attributes", "wire"),
    [
        ({}, (False, False, 0)),
        ({"acks_on_failure": False}, (True, False, 0)),
        ({"acks_on_timeout": False}, (False, True, 0)),
        ({"acks_on_failure_or_timeout": False}, (True, True, 0)),
        ({"acks_on_failure_or_timeout": False, "acks_on_failure": True}, (False, True, 0)),
        ({"reject_on_worker_lost": True}, (False, False, 0)),
        ({"reject_on_worker_lost": False}, (False, False, 1)),
        ({"reject_on_worker_lost": False, "max_deliveries": 7}, (False, False, 7)),
    ],
)
def test_a_late_acknowledged_task_says_what_a_bad_end_does(
    app: App, attributes: dict[str, Value], wire: tuple[bool, bool, int]
) -> None:
    late: Value = app.task(name="t", acks_late=True, bind=False, **attributes)
    early_one: Value = app.task(name="early", bind=False, **attributes)
    for declare in (late, early_one):
        declare(lambda: None)

    found = message(app)
    call = prepare(app.conf, "early", (), {}, task_type=app.tasks["early"])
    early = Message.FromString(call.message)

    assert found.ack_policy == ACK_POLICY_LATE
    assert (found.reject_on_failure, found.requeue_on_timeout, found.max_deliveries) == wire
    assert (early.reject_on_failure, early.requeue_on_timeout) == (False, False)


def test_settings_stand_where_the_task_says_nothing(make_app: MakeApp) -> None:
    app = make_app(
        broker="qbroker://127.0.0.1:1",
        task_acks_late=True,
        task_acks_on_timeout=False,
        task_track_started=True,
        task_reject_on_worker_lost=False,
    )
    app.task(name="t")(lambda: None)

    known = message(app)
    unknown = Message.FromString(prepare(app.conf, "elsewhere", (), {}).message)

    for found in (known, unknown):
        assert found.track_started
        assert found.requeue_on_timeout
        assert not found.reject_on_failure
        assert found.max_deliveries == 1


def test_a_child_has_its_parents_priority_where_that_is_set(make_app: MakeApp) -> None:
    app = make_app(backend="qbroker://", task_inherit_parent_priority=True)
    seen: list[int] = []
    app.task(name="own", priority=2)(lambda: None)

    @app.task(name="parent")
    def parent() -> None:
        calls: list[tuple[str, dict[str, Value]]]
        calls = [("child", {}), ("child", {"priority": 9}), ("own", {})]
        for name, options in calls:
            call = prepare(app.conf, name, task_type=app.tasks.get(name), **options)
            seen.append(Message.FromString(call.message).priority)

    run = build_runner(app, hostname="here")
    run(prepare(app.conf, "parent", task_type=parent, priority=7).message, 1, False)

    assert seen == [7, 9, 2]


def test_a_call_may_say_what_its_task_says_otherwise(app: App) -> None:
    app.task(name="t", acks_late=False, max_deliveries=9, track_started=True)(lambda: None)

    found = message(
        app, acks_late=True, acks_on_timeout=False, max_deliveries=2, track_started=False
    )
    left = message(app, acks_late=None, max_deliveries=None)

    assert (found.ack_policy, found.requeue_on_timeout) == (ACK_POLICY_LATE, True)
    assert (found.max_deliveries, found.track_started) == (2, False)
    assert (left.ack_policy, left.max_deliveries, left.track_started) == (0, 9, True)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"acks_late": "yes"}, TypeError, "acks_late 'yes' of task 't' is not True, False or None"),
        ({"max_deliveries": True}, TypeError, "max_deliveries True .* is not a whole number"),
        ({"max_deliveries": -1}, ValueError, "max_deliveries -1 .* is not from 1 to 65535"),
        ({"max_deliveries": 70_000}, ValueError, "max_deliveries 70000 "),
    ],
)
def test_what_a_call_says_otherwise_must_be_meant(
    app: App, options: dict[str, Value], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        message(app, **options)


def test_the_calls_serializer_wins_over_the_tasks_and_that_over_the_settings(
    make_app: MakeApp,
) -> None:
    app = make_app(task_serializer="yaml", task_compression="gzip")
    app.task(name="plain")(lambda *_: None)
    app.task(name="own", serializer="msgpack", compression="zstd")(lambda *_: None)

    def how(name: str, **options: Value) -> tuple[str, str]:
        call = prepare(app.conf, name, ("x" * 500,), {}, task_type=app.tasks.get(name), **options)
        sent = Message.FromString(call.message)
        return sent.content_type, sent.compression

    assert how("plain") == how("unknown") == ("application/x-yaml", "application/x-gzip")
    assert how("own") == ("application/x-msgpack", "application/zstd")
    assert how("own", serializer="json", compression="bzip2") == (
        "application/json",
        "application/x-bz2",
    )


def test_a_retry_keeps_the_serializer_and_the_compression(make_app: MakeApp) -> None:
    app = make_app(task_serializer="pickle", task_compression="zstd", accept_content=["pickle"])

    @app.task(name="again", bind=True)
    def again(self: Value, text: str) -> None:
        raise self.retry(args=[text + "y"], countdown=1)

    call = prepare(app.conf, "again", ("x" * 500,), {}, task_type=app.tasks["again"])
    ran = build_runner(app, hostname="here")(call.message, 1, False)

    sent = Message.FromString(ran.message)
    assert (sent.content_type, sent.compression) == (
        "application/x-python-serialize",
        "application/zstd",
    )
    assert envelope.decode_body(sent, app.accepted_content)[0] == ["x" * 500 + "y"]


def test_an_unknown_serializer_or_compression_is_refused_before_anything_is_sent(
    app: App,
) -> None:
    with pytest.raises(SerializerNotInstalled, match="'morse'"):
        message(app, serializer="morse")
    with pytest.raises(ImproperlyConfigured, match="'fold'"):
        message(app, compression="fold")


def test_properties_of_amqp_travel_with_the_call_and_the_task_sees_them(app: App) -> None:
    seen: list[Value] = []
    app.task(name="look", bind=True)(lambda self: seen.append(self.request.properties))
    runner = build_runner(app, hostname="here")
    sent_at = dt.datetime(2030, 1, 31, tzinfo=dt.UTC)
    options: dict[str, Value] = {"app_id": "shop", "user_id": "ann", "type": "order", "timestamp": sent_at, "content_encoding": "utf-8", "message_id": "7", "cluster_id": "c"}  # fmt: skip

    mores: list[dict[str, Value]] = [{}, {"reply_to": "here", "correlation_id": "x", "priority": 3}]
    for more in mores:
        call = prepare(app.conf, "look", task_id="an-id", **options, **more)
        runner(call.message, 1, False)

    common = {**options, "delivery_mode": 2}
    assert seen == [
        {**common, "correlation_id": "an-id", "priority": 0},
        {**common, "correlation_id": "x", "priority": 3, "reply_to": "here"},
    ]


def test_an_expiration_ends_a_call_that_is_not_run_by_then(app: App) -> None:
    before = clock.wall_ms()

    only = Message.FromString(prepare(app.conf, "x", expiration=5).message)
    earlier = Message.FromString(prepare(app.conf, "x", expiration=5, expires=1).message)

    assert 5_000 <= only.expires_ms - before < 6_000
    assert 1_000 <= earlier.expires_ms - before < 2_000


def test_a_retry_keeps_the_properties_and_may_change_them(app: App) -> None:
    message = Message.FromString(prepare(app.conf, "x", app_id="shop").message)

    again, _ = prepare_again(app.conf, message, (), {}, {}, {})
    other, _ = prepare_again(app.conf, message, (), {}, {}, {"app_id": "other"})

    assert json.loads(Message.FromString(again).properties) == {"app_id": "shop"}
    assert json.loads(Message.FromString(other).properties) == {"app_id": "other"}


@pytest.mark.parametrize("options", [{}, {"countdown": 5}, {"priority": 3}])
def test_a_retry_is_written_with_the_serializer_of_its_message(
    app: App, options: dict[str, Value]
) -> None:
    args = [{1, 2}, 3 + 4j]
    message = Message.FromString(prepare(app.conf, "x", args, serializer="pickle").message)

    again, _ = prepare_again(app.conf, message, args, {}, {}, options)

    sent = Message.FromString(again)
    assert sent.content_type == envelope.PICKLE
    assert envelope.decode_body(sent, {envelope.PICKLE}, 10_000, None)[0] == args


def test_an_argument_that_a_retry_cannot_send_is_named_with_the_serializer_of_the_message(
    make_app: MakeApp,
) -> None:
    app = make_app(task_serializer="pickle")
    message = Message.FromString(prepare(app.conf, "x", serializer="json").message)

    with pytest.raises(EncodeError, match=r"^args\[0\] of task 'x' .* which json cannot carry"):
        prepare_again(app.conf, message, ({1},), {}, {}, {})


@pytest.mark.parametrize("compression", ["gzip", "bzip2"])
def test_a_retry_may_change_its_serializer_and_compression(app: App, compression: str) -> None:
    args = [{1, 2}, "x" * 5_000]
    message = Message.FromString(prepare(app.conf, "x", ()).message)
    options = {"serializer": "pickle", "compression": compression}

    again, _ = prepare_again(app.conf, message, args, {}, {}, options)

    sent = Message.FromString(again)
    assert (sent.content_type, bool(sent.compression)) == (envelope.PICKLE, True)
    assert envelope.decode_body(sent, {envelope.PICKLE}, 10_000, None)[0] == args


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml"])
@pytest.mark.parametrize(
    ("args", "kwargs", "place"),
    [
        ((1, object()), {}, r"args\[1\]"),
        ((), {"rows": [1, 2, {"x": (0, object())}]}, r"kwargs\['rows'\]\[2\]\['x'\]\[1\]"),
    ],
)
def test_an_argument_that_cannot_be_written_is_named_with_its_place_task_and_serializer(
    make_app: MakeApp, serializer: str, args: Value, kwargs: Value, place: str
) -> None:
    app = make_app()

    with pytest.raises(
        EncodeError,
        match=f"^{place} of task 'proj.add' is of type 'object', which {serializer} cannot carry",
    ):
        prepare(app.conf, "proj.add", args, kwargs, serializer=serializer)


@pytest.mark.parametrize("is_eager", [False, True])
@pytest.mark.parametrize("is_bound", [False, True])
@pytest.mark.parametrize(
    ("args", "kwargs", "place"),
    [
        ((1, object()), {}, r"argument 'y'"),
        ((1,), {"y": {"rows": [0, object()]}}, r"argument 'y'\['rows'\]\[1\]"),
        ((1, 2, [object()]), {}, r"args\[2\]\[0\]"),
    ],
)
def test_an_argument_of_a_known_task_is_named_by_its_parameter(
    make_app: MakeApp, args: Value, kwargs: Value, place: str, *, is_bound: bool, is_eager: bool
) -> None:
    app = make_app(task_always_eager=is_eager)
    fun: Value = (lambda self, x, y, *rest: x) if is_bound else (lambda x, y, *rest: x)
    decorate: Value = app.task
    add = decorate(name="proj.add", bind=is_bound)(fun)

    with pytest.raises(
        EncodeError,
        match=f"^{place} of task 'proj.add' is of type 'object', which json cannot carry",
    ):
        add.apply_async(args, kwargs)


def test_a_property_that_cannot_be_written_is_named(make_app: MakeApp) -> None:
    with pytest.raises(
        EncodeError, match=r"^properties\['app_id'\] of task 'proj.add' is of type 'object'"
    ):
        prepare(make_app().conf, "proj.add", app_id=object())


def test_a_state_whose_meta_cannot_be_written_is_named(make_app: MakeApp) -> None:
    app = make_app(backend="qbroker://")

    with pytest.raises(
        EncodeError,
        match=r"^the meta\['rows'\]\[0\] of state 'PROGRESS' of 'an-id' is of type 'object'",
    ):
        app.backend.store_result("an-id", {"rows": [object()]}, "PROGRESS")


def test_an_integer_that_msgpack_cannot_carry_is_refused_with_the_range(make_app: MakeApp) -> None:
    with pytest.raises(EncodeError, match=r"args\[0\] .* msgpack carries integers from -2\*\*63"):
        prepare(make_app().conf, "proj.add", (2**70,), {}, serializer="msgpack")


@pytest.mark.parametrize("kwargs", [2, [1], "ab"])
def test_keyword_arguments_that_are_no_mapping_are_refused_with_the_tasks_name(
    make_app: MakeApp, kwargs: Value
) -> None:
    app = make_app()
    add = app.task(name="proj.add")(lambda x: x)
    message = "the keyword arguments of task 'proj.add' must be a mapping, not"

    with pytest.raises(TypeError, match=message):
        _ = add.apply_async((1,), kwargs)
    with pytest.raises(TypeError, match=message):
        _ = app.send_task("proj.add", (1,), kwargs)
    with pytest.raises(TypeError, match=message):
        app.signature("proj.add", (1,), kwargs)
    with pytest.raises(TypeError, match=message):
        _ = add.s(1).apply_async(kwargs=kwargs)


def test_a_header_that_cannot_be_written_is_named(make_app: MakeApp) -> None:
    with pytest.raises(
        EncodeError, match=r"headers\['x'\]\[0\] of task 'proj.add' is of type 'object'"
    ):
        prepare(make_app().conf, "proj.add", headers={"x": [object()]})


def test_a_result_that_cannot_be_written_is_named_with_its_place_and_task(
    make_app: MakeApp,
) -> None:
    app = make_app(backend="qbroker://")
    app.task(name="proj.rows")(lambda: {"rows": [1, object()]})
    message = prepare(app.conf, "proj.rows").message

    ran = build_runner(app, hostname="here")(message, 1, False)

    assert str(ran.retval_or_exc).startswith(
        "the result['rows'][1] of task 'proj.rows' is of type 'object', which json cannot carry"
    )
