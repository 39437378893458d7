"""Unique keys, limits, fairness and labels: from the call and from the task, checked before anything is sent."""

import pytest

from qbroker import App, Task, chain
from qbroker.app.sending import prepare
from qbroker.exceptions import DuplicateTaskError, TaskRevokedError
from qbroker.limits import Limit
from qbroker.serialization import Value
from qbroker_proto.v1.message_pb2 import (
    UNIQUE_POLICY_REJECT,
    UNIQUE_POLICY_REPLACE,
    UNIQUE_POLICY_RETURN_EXISTING,
    UNIQUE_SCOPE_FINISH,
    UNIQUE_SCOPE_START,
    UNIQUE_SCOPE_TIME,
    Message,
)
from tests.sdk.conftest import MakeApp
from tests.sdk.real_broker import RealBroker, ToyWorker


@pytest.fixture
def app(make_app: MakeApp) -> App:
    return make_app(broker="qbroker://127.0.0.1:1")


def sync(user: int, *rest: int, region: str = "eu", **more: str) -> None: ...


def message(app: App, *args: Value, kwargs: Value = None, **options: Value) -> Message:
    call = prepare(app.conf, "sync", args, kwargs, task_type=app.tasks.get("sync"), **options)
    return Message.FromString(call.message)


def test_a_plain_call_carries_none_of_it(app: App) -> None:
    app.task(name="sync")(sync)

    fields = {descriptor.name for descriptor, _ in message(app, 1).ListFields()}

    assert not fields & {"unique", "limits", "fairness_key", "fairness_weight", "labels"}


def test_a_tasks_keys_are_made_of_the_calls_arguments(app: App) -> None:
    app.task(
        name="sync",
        unique_key="sync:{user}:{region}:{why}",
        fairness_key=lambda args, kwargs: f"{args[0]}/{kwargs['why']}",
        fairness_weight=3,
        limits=[Limit("user:{user}", rate="10/m", concurrency=2)],
        labels={"user": [1, 2]},
    )(sync)

    found = message(app, 7, kwargs={"why": "x"})

    assert found.unique.key == "sync:7:eu:x"
    assert (found.fairness_key, found.fairness_weight) == ("7/x", 3)
    (limit,) = found.limits
    assert (limit.key, limit.rate, limit.per_ms, limit.concurrency) == ("user:7", 10, 60_000, 2)
    assert list(found.labels) == ["user=1", "user=2"]


def test_what_the_call_gives_wins_and_stands_as_it_is(app: App) -> None:
    app.task(name="sync", unique_key="a:{user}", limits=[Limit("l", "1/s")], fairness_key="f")(sync)

    found = message(
        app, 1, unique_key="{user}", limits=[Limit("{x}", concurrency=1)], fairness_key="g"
    )
    without = message(app, 1, unique_key=None, limits=(), fairness_key=None)

    assert (found.unique.key, found.limits[0].key, found.fairness_key) == ("{user}", "{x}", "g")
    assert not without.HasField("unique")
    assert (len(without.limits), without.fairness_key) == (0, "")


@pytest.mark.parametrize(
    ("scope", "policy", "wire"),
    [
        (None, None, (UNIQUE_SCOPE_FINISH, 0, UNIQUE_POLICY_REJECT)),
        ("finish", "replace", (UNIQUE_SCOPE_FINISH, 0, UNIQUE_POLICY_REPLACE)),
        ("start", "reject", (UNIQUE_SCOPE_START, 0, UNIQUE_POLICY_REJECT)),
        (1.5, "return_existing", (UNIQUE_SCOPE_TIME, 1_500, UNIQUE_POLICY_RETURN_EXISTING)),
    ],
)
def test_a_key_is_taken_for_its_scope(
    app: App, scope: Value, policy: Value, wire: tuple[int, int, int]
) -> None:
    unique = message(app, unique_key="k", unique_scope=scope, unique_policy=policy).unique

    assert (unique.scope, unique.ttl_ms, unique.policy) == wire


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"unique_key": ""}, ValueError, "0 bytes; it must have 1 to 255"),
        ({"unique_key": "é" * 200}, ValueError, "400 bytes; it must have 1 to 255"),
        ({"unique_key": "a\0"}, ValueError, r"contains U\+0000"),
        ({"unique_key": 42}, TypeError, "unique_key 42 of task 'sync' is not text"),
        ({"unique_key": "k", "unique_scope": "end"}, ValueError, "'end' .*must be 'start', 'finish' or a number"),
        ({"unique_key": "k", "unique_scope": 0}, ValueError, "unique_scope 0 "),
        ({"unique_key": "k", "unique_scope": True}, ValueError, "unique_scope True "),
        ({"unique_key": "k", "unique_policy": "queue"}, ValueError, "'queue' .*'reject', 'return_existing', 'replace'"),
        ({"unique_scope": "start"}, TypeError, "without unique_key"),
        ({"limits": ["100/m"]}, TypeError, r"'100/m' among the limits .*limits=\[Limit\("),
        ({"limits": [Limit("k", 1)] * 9}, ValueError, "under 9 limits; it may be under 8"),
        ({"fairness_key": "k", "fairness_weight": 0}, ValueError, "fairness_weight 0 .*from 1 to"),
        ({"fairness_weight": 2}, TypeError, "without fairness_key"),
        ({"labels": "a=b"}, TypeError, "neither a mapping nor a list"),
        ({"labels": ["a"]}, ValueError, "label 'a' .*'name=value'"),
        ({"labels": {"": 1}}, ValueError, "label '=1' .*'name=value'"),
        ({"labels": {"a": "b" * 200}}, ValueError, "202 bytes; it must have 1 to 200"),
        ({"labels": {"a": range(33)}}, ValueError, "range"),
        ({"labels": {"a": list(range(33))}}, ValueError, "33 labels; it may have 32"),
        ({"stamped_headers": ["x"]}, TypeError, "the call has no x="),
        ({"colour": 1}, TypeError, "unknown options: colour"),
        ({"labels": {"a": 1}, "colour": 1}, TypeError, "unknown options: colour"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_the_value_and_the_form(
    app: App, options: dict[str, Value], error: type[Exception], text: str
) -> None:
    if "range" in text:
        # One value, though it could be walked through: it is shown as it is.
        assert list(message(app, **options).labels) == ["a=range(0, 33)"]
        return

    with pytest.raises(error, match=text):
        message(app, **options)


@pytest.mark.parametrize("key", ["sync:{usr}", "sync:{5}", "sync:{user.name}", "sync:{"])
def test_a_key_of_arguments_that_are_not_there_names_those_that_are(app: App, key: str) -> None:
    app.task(name="sync", unique_key=key)(sync)

    with pytest.raises(ValueError, match=r"of its arguments \(user, rest, region, more\)"):
        message(app, 1)


@pytest.mark.parametrize(
    "key", ["sync:{user}", "sync:{0}", "sync:{user.name}", lambda args, _: f"sync:{args[0] % 7}"]
)
@pytest.mark.parametrize("option", ["unique_key", "fairness_key", "limits"])
def test_a_key_of_what_another_task_returns_is_refused_with_what_can_be_done(
    app: App, option: str, key: Value
) -> None:
    task: Task[..., None] = app.task(name="sync")(sync)
    setattr(task, option, [Limit(key, "1/s")] if option == "limits" else key)
    first = app.task(name="first")(lambda: 7)

    with pytest.raises(ValueError, match=rf"returns, .* sig\.set\({option}="):
        chain(first.s(), task.s("more")).apply_async()


def test_keys_are_made_of_what_is_known_where_another_task_returns_the_rest(
    real_app: App, real_broker: RealBroker
) -> None:
    def follow(value: int, user: int) -> None: ...

    task = real_app.task(
        name="follow", unique_key="follow:{user}", limits=[Limit("u:{user}", concurrency=1)]
    )(follow)
    first = real_app.task(name="first")(lambda: 7)
    chain(first.s(), task.s(42)).apply_async()

    with pytest.raises(DuplicateTaskError, match="follow:42"):
        _ = task.delay(1, 42)
    other = chain(first.s(), task.s(42).set(unique_key="other")).apply_async()
    assert other.id


def test_stamps_are_labels_and_known_to_the_request(real_app: App, real_broker: RealBroker) -> None:
    @real_app.task(name="look", bind=True)
    def look(self: Value) -> list[Value]:
        return [self.request.stamped_headers, self.request.stamps]

    result = look.apply_async(
        stamped_headers=["customer", "day"], customer=42, day=["mo", "tu"], labels={"x": 1}
    )
    worker = ToyWorker(real_app, real_broker.url)
    worker.work()
    worker.leave()

    assert result.get(timeout=5) == [
        ["customer", "day"],
        {"customer": 42, "day": ["mo", "tu"]},
    ]


def test_a_second_call_with_the_key_is_refused_with_who_has_it(real_app: App) -> None:
    task = real_app.task(name="sync", unique_key="sync:{user}")(sync)
    first = task.delay(1)

    with pytest.raises(DuplicateTaskError, match="'sync:1'") as caught:
        _ = task.delay(1)

    assert caught.value.holder == first.id
    assert caught.value.task_id != first.id
    assert task.delay(2).id


async def test_a_second_call_may_answer_the_first_ones_result(real_app: App) -> None:
    task = real_app.task(name="sync", unique_key="k", unique_policy="return_existing")(sync)
    first = task.delay(1)

    second = task.delay(1)
    third = await task.adelay(1)
    with real_app.pipeline():
        fourth = task.delay(1)
    (fifth,) = real_app.send_many([task.s(1)])

    assert [one.id for one in (second, third, fourth, fifth)] == [first.id] * 4


def test_a_second_call_may_take_the_firsts_place(real_app: App) -> None:
    task = real_app.task(name="sync", unique_key="k", unique_policy="replace")(sync)
    first = task.delay(1)

    second = task.delay(1)

    assert second.id != first.id
    with pytest.raises(TaskRevokedError, match=second.id):
        first.get(timeout=5)


def test_among_many_the_first_that_was_refused_is_raised(real_app: App) -> None:
    task = real_app.task(name="sync", unique_key="{user}")(sync)
    first = task.delay(2)

    with pytest.raises(DuplicateTaskError) as caught:
        real_app.send_many([(task, (1,)), (task, (2,)), (task, (3,))])

    assert caught.value.holder == first.id
    assert len({first.explain().stage, "queued"}) == 1


def test_a_limit_holds_a_call_back_and_says_so(real_app: App, real_broker: RealBroker) -> None:
    real_app.task(name="t")(lambda: 1)
    limits = [Limit("cust:42", concurrency=1)]
    first, second = (real_app.send_task("t", limits=limits) for _ in range(2))
    worker = ToyWorker(real_app, real_broker.url)
    delivery = worker.take()

    held = str(second.explain())
    worker.settle(delivery, outcome=1)
    worker.work()
    worker.leave()

    assert delivery.id == first.id
    assert held.startswith("The limit 'cust:42' lets 1 run at a time, and they do.")
    assert second.get(timeout=5) == 1
