"""Waiting for results: pushed, re-raised as what they were, never a hang."""

import pickle
import queue
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from qbroker import (
    App,
    AsyncResult,
    EagerResult,
    GroupResult,
    ResultSet,
    Task,
    allow_join_result,
    envelope,
    exceptions,
    result_from_tuple,
    signals,
)
from qbroker.clock import monotonic
from qbroker.exceptions import (
    Ignore,
    ImproperlyConfigured,
    IncompleteStream,
    LimitExceeded,
    OperationalError,
    Reject,
    RemoteTraceback,
    SecurityError,
    TaskRevokedError,
    TimeoutError as ResultTimeout,
    WorkerLostError,
)
from qbroker.request import Context, current_request
from qbroker.result import denied_join_result
from qbroker.serialization import Value
from qbroker.testing import LocalBroker
from qbroker_proto.v1 import results_pb2 as wire
from qbroker_proto.v1.message_pb2 import Result
from tests.sdk.conftest import Hire, MakeApp
from tests.sdk.fake_broker import FakeBroker, failure
from tests.sdk.real_broker import RealBroker, ToyWorker


class OwnError(Exception):
    """Takes other arguments than it passes on."""

    def __init__(self, code: int, *, text: str) -> None:
        super().__init__(code)
        self.text = text


def test_nobody_knows_an_unknown_id(app: App) -> None:
    result = app.AsyncResult("nobody")

    assert (result.state, result.ready(), result.result) == ("PENDING", False, None)
    with pytest.raises(ResultTimeout, match=r"timed out after 0\.05 s: "):
        result.get(timeout=0.05)


def test_a_result_that_is_late_says_why_as_far_as_the_broker_knows(
    real_app: App, hire: Hire
) -> None:
    client = real_app.client()
    unclaimed = real_app.send_task("shop.total", queue="unclaimed")
    scheduled = real_app.send_task("shop.total", countdown=600)
    paused = real_app.send_task("shop.total", queue="paused")
    client.pause_queue("paused", by="ops", why="upgrade")
    hire("w@h", lambda *_: None, tasks=("other.task",))
    typo = real_app.send_task("shop.tasks.totl")

    told = {
        "nobody": late(real_app.AsyncResult("nobody")),
        "unclaimed": late(unclaimed),
        "scheduled": late(scheduled),
        "paused": late(paused),
        "typo": late(typo),
    }

    assert told["nobody"].startswith("timed out after 0.05 s: the broker does not know it")
    assert told["unclaimed"].endswith("no connected worker consumes from its queue 'unclaimed'")
    assert "it will be due in " in told["scheduled"]
    assert "its queue 'paused' was paused by ops" in told["paused"]
    assert told["typo"] == (
        "timed out after 0.05 s: no connected worker knows the task 'shop.tasks.totl'; "
        "1 consume from its queue 'celery'"
    )


def test_a_result_that_is_late_says_which_worker_runs_the_task(
    real_app: App, real_broker: RealBroker
) -> None:
    real_app.task(name="t")(lambda: None)
    result = real_app.send_task("t")
    ToyWorker(real_app, real_broker.url).take()

    assert "running on toy@here" in late(result)


def late(result: Value, timeout_s: float = 0.05) -> str:
    """Why a result is not there in time."""
    with pytest.raises(ResultTimeout) as caught:
        result.get(timeout=timeout_s)
    return str(caught.value)


async def test_every_way_to_wait_says_why_it_was_in_vain(real_app: App) -> None:
    results = [real_app.send_task("t", task_id=f"t{number}") for number in range(3)]
    group = GroupResult("g", results, app=real_app)
    why = r"timed out after 0\.05 s: .*no connected worker consumes from its queue 'celery'"
    many = r"3 of 3 tasks have not ended; task t\d: "

    with pytest.raises(ResultTimeout, match=why):
        await results[0].aget(timeout=0.05)
    with pytest.raises(ResultTimeout, match=why) as caught:
        await group.aget(timeout=0.05)
    assert re.search(many, str(caught.value))
    for wait in (group.get, group.join, group.join_native, lambda **o: [*group.iter_native(**o)]):
        with pytest.raises(ResultTimeout, match=why) as caught:
            wait(timeout=0.05)
        assert re.search(many, str(caught.value))


@pytest.mark.parametrize("connection_timeout_s", [0.5, 600.0])
async def test_a_silent_broker_does_not_make_a_time_out_longer_or_another_error(
    make_app: MakeApp, connection_timeout_s: float
) -> None:
    # Takes connections in and says nothing, like a broker that was stopped.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app = make_app(
            broker=f"qbroker://127.0.0.1:{silent.getsockname()[1]}", backend="qbroker://"
        )
        app.conf.broker_connection_timeout = connection_timeout_s
        result = app.AsyncResult("x")
        group = GroupResult("g", [result, app.AsyncResult("y")], app=app)
        began_s = monotonic()

        for wait in (result.get, group.get, group.join_native):
            for timeout_s in (0, 0.1):
                with pytest.raises(ResultTimeout, match="no answer"):
                    wait(timeout=timeout_s)
        with pytest.raises(ResultTimeout, match="no answer"):
            await result.aget(timeout=0.1)
        with pytest.raises(ResultTimeout, match="no answer"):
            await group.aget(timeout=0.1)
        with pytest.raises(OperationalError):
            app.control.inspect(timeout=0.1).ping()

    # Far more than it takes, and far less than the time-out of connections.
    assert monotonic() - began_s < 60


def test_a_look_without_time_sees_what_has_ended(real_app: App) -> None:
    real_app.backend.store_result("x", 42, "SUCCESS")

    assert real_app.AsyncResult("x").get(timeout=0) == 42


@pytest.mark.parametrize(
    ("state", "meta"),
    [
        ("STARTED", {"pid": 7}),
        ("RETRY", ValueError("again")),
        ("PROGRESS", {"done": 3}),
        ("RECEIVED", None),
    ],
)
def test_a_state_on_the_way_is_kept_of_an_id_that_is_no_task(
    real_app: App, state: str, meta: Value
) -> None:
    real_app.backend.store_result("p1", meta, state)
    result = real_app.AsyncResult("p1")

    assert (result.state, repr(result.info), result.ready()) == (state, repr(meta), False)
    with pytest.raises(ResultTimeout):
        result.get(timeout=0.05)
    real_app.control.revoke("p1")
    assert result.state == state
    real_app.backend.store_result("p1", 4, "SUCCESS")
    real_app.backend.store_result("p1", meta, state)
    assert result.get(timeout=10) == 4


def test_who_waits_for_a_kept_state_hears_of_its_end(real_app: App) -> None:
    real_app.backend.store_result("p1", None, "PROGRESS")
    seen: list[str] = []

    def end(meta: dict[str, Value]) -> None:
        seen.append(meta["status"])
        if meta["status"] == "PROGRESS":
            real_app.backend.store_result("p1", 4, "SUCCESS")

    assert real_app.AsyncResult("p1").get(timeout=10, on_message=end) == 4
    assert seen == ["PROGRESS", "SUCCESS"]


def test_a_kept_state_can_be_forgotten(real_app: App) -> None:
    real_app.backend.store_result("p1", 3, "PROGRESS")

    real_app.AsyncResult("p1").forget()

    assert real_app.AsyncResult("p1").state == "PENDING"


def test_a_kept_state_has_what_its_request_was_called_with(real_app: App) -> None:
    real_app.conf.result_extended = True
    request = Context(
        id="p1", task="far.task", args=[1], kwargs={"y": 2}, delivery_info={"routing_key": "mail"}
    )

    real_app.backend.store_result("p1", {"done": 3}, "PROGRESS", request=request)

    kept = real_app.AsyncResult("p1")
    assert (kept.state, kept.info) == ("PROGRESS", {"done": 3})
    assert (kept.name, kept.args, kept.kwargs, kept.queue) == ("far.task", [1], {"y": 2}, "mail")


def test_a_kept_state_expires_as_results_do(make_app: MakeApp) -> None:
    with LocalBroker() as broker:
        app = make_app(broker=broker.url, backend="qbroker://", result_expires=3600)
        app.backend.store_result("p1", 3, "PROGRESS")

        broker.advance(minutes=30)
        before = app.AsyncResult("p1").state
        broker.advance(hours=2)

        assert (before, app.AsyncResult("p1").state) == ("PROGRESS", "PENDING")


def test_the_backend_tells_by_id(app: App, broker: FakeBroker) -> None:
    broker.succeed("x", 3)

    assert (app.backend.get_state("x"), app.backend.get_result("x")) == ("SUCCESS", 3)
    assert app.backend.get_status("nobody") == "PENDING"
    assert app.backend.get_traceback("x") is None
    meta = app.backend.get_task_meta("x")
    assert (meta["task_id"], meta["status"], meta["result"]) == ("x", "SUCCESS", 3)


def test_a_result_is_pushed_to_who_waits(app: App, broker: FakeBroker) -> None:
    result = app.AsyncResult("x")
    states: list[str] = []

    def tell(meta: dict[str, Value]) -> None:
        states.append(meta["status"])
        if meta["status"] == "PENDING":
            broker.end("x", state="PROGRESS", is_final=False)
        elif meta["status"] == "PROGRESS":
            broker.succeed("x", 42)

    assert result.get(timeout=5, on_message=tell) == 42
    assert states == ["PENDING", "PROGRESS", "SUCCESS"]
    assert result.successful()


def test_a_failure_is_raised_as_its_own_class_with_the_remote_traceback(
    app: App, broker: FakeBroker
) -> None:
    broker.end("x", state="FAILURE", result=failure(LookupError("far")))
    result = app.AsyncResult("x")

    with pytest.raises(LookupError, match="far") as caught:
        result.get(timeout=5)

    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "Traceback: far away" in str(caught.value.__cause__)
    assert result.traceback == "Traceback: far away\n"
    assert isinstance(result.get(propagate=False), LookupError)


def test_an_exception_whose_constructor_differs_is_still_its_class(
    app: App, broker: FakeBroker
) -> None:
    broker.end("x", state="FAILURE", result=failure(OwnError(3, text="t")))

    with pytest.raises(OwnError) as caught:
        app.AsyncResult("x").get(timeout=5)

    assert caught.value.args == (3,)


def body(text: bytes) -> bytes:
    return Result(state="FAILURE", content_type="application/json", body=text).SerializeToString()


def test_an_exception_nobody_here_knows_has_a_stand_in_of_its_name(
    app: App, broker: FakeBroker
) -> None:
    broker.end(
        "x",
        state="FAILURE",
        result=body(b'{"exc_type":"Odd","exc_module":"not.here","exc_message":[1]}'),
    )

    exc = app.AsyncResult("x").get(timeout=5, propagate=False)

    assert (type(exc).__name__, type(exc).__module__, exc.args) == ("Odd", "not.here", (1,))


def test_a_stored_failure_cannot_call_what_is_no_exception(app: App, broker: FakeBroker) -> None:
    broker.end(
        "x",
        state="FAILURE",
        result=body(b'{"exc_type":"system","exc_module":"os","exc_message":["true"]}'),
    )

    with pytest.raises(SecurityError, match=r"got os\.system"):
        app.AsyncResult("x").get(timeout=5)


@pytest.mark.parametrize(
    ("reason", "state", "class_"),
    [
        (wire.END_REASON_WORKER_LOST, "FAILURE", WorkerLostError),
        (wire.END_REASON_EXPIRED, "REVOKED", TaskRevokedError),
        (wire.END_REASON_REVOKED, "REVOKED", TaskRevokedError),
        (wire.END_REASON_MAX_DELIVERIES, "FAILURE", WorkerLostError),
    ],
)
def test_what_the_broker_ended_is_raised_as_celery_would(
    app: App, broker: FakeBroker, reason: int, state: str, class_: type[Exception]
) -> None:
    broker.end("x", state=state, end_reason=reason, detail="because")

    with pytest.raises(class_, match="because"):
        app.AsyncResult("x").get(timeout=5)


@pytest.fixture
def in_worker() -> Iterator[None]:
    """The test is a task that a worker runs."""
    token = current_request.set(Context(id="outer", called_directly=False))
    yield
    current_request.reset(token)


@pytest.mark.usefixtures("in_worker")
def test_waiting_inside_a_task_is_refused_unless_allowed(app: App) -> None:
    @app.task(name="outer")
    def outer() -> Value:
        return app.send_task("inner", (1,)).get(timeout=5)

    for run in (outer, lambda: outer.apply(throw=True)):
        with pytest.raises(RuntimeError, match=r"Never call result\.get\(\) within a task!"):
            run()
    with allow_join_result():
        assert outer() == 1
        with denied_join_result(), pytest.raises(RuntimeError, match="Never call"):
            outer()


@pytest.mark.parametrize("exc", [Ignore(), Reject("no")])
def test_what_was_ignored_or_rejected_returned_nothing(app: App, exc: Exception) -> None:
    @app.task(name="gives_up")
    def gives_up() -> None:
        raise exc

    told: list[Value] = []

    assert gives_up.apply().get(callback=lambda _, value: told.append(value)) is None
    assert told == [None]


def test_a_request_takes_fields_as_dict_pairs_and_by_name() -> None:
    request = Context({"id": "x", "retries": 1}, hostname="w@here")
    request.update([("retries", 2)], timelimit_note="none")

    assert (request.id, request.retries, request.hostname) == ("x", 2, "w@here")
    assert request.get("timelimit_note") == "none"


def test_a_request_knows_both_limits_by_one_name() -> None:
    request = Context()

    request.update({"timelimit": [30, 20]})
    request.update([("id", "x")])

    assert (request.time_limit, request.soft_time_limit) == (30, 20)
    request.update(timelimit=None)
    assert (request.time_limit, request.soft_time_limit) == (None, None)
    request.clear()
    assert (request.id, request.timelimit) == (None, None)


def test_what_a_message_has_beside_the_fields_are_its_callers_headers() -> None:
    assert Context({"id": "x", "customer": 7}).headers == {"customer": 7}
    assert Context({"id": "x", "headers": {"a": 1}, "customer": 7}).headers == {"a": 1}
    assert Context({"id": "x"}).headers is None


def test_a_requests_options_have_the_stamps_that_it_declares() -> None:
    request = Context(stamped_headers=["team"], stamps={"team": ["red"], "retries": 99}, retries=2)

    options = request.as_execution_options()

    assert (options["stamped_headers"], options["team"]) == (["team"], ["red"])
    assert options["retries"] == 2


def test_a_task_that_no_worker_runs_may_wait(app: App) -> None:
    @app.task(name="inner", shared=False)
    def inner(x: int) -> int:
        return x + 1

    @app.task(name="outer", shared=False)
    def outer() -> list[int]:
        called: int = app.send_task("inner", (1,)).get(timeout=5)
        return [called, inner.apply((called,)).get()]

    assert outer() == [1, 2]
    assert outer.apply().get() == [1, 2]


def test_what_a_task_calls_is_its_child(app: App, broker: FakeBroker) -> None:
    @app.task(name="outer", bind=True)
    def outer(self: Value) -> list[Value]:
        called = app.send_task("inner", (1,))
        return [called.id, [child.id for child in self.request.children]]

    ran = outer.apply(task_id="outer-id")

    child, children = ran.get()
    assert children == [child]
    assert broker.messages[child].parent_id == "outer-id"
    assert broker.messages[child].root_id == "outer-id"


def test_forgetting_drops_the_result(app: App, broker: FakeBroker) -> None:
    result = app.send_task("echo", (1,))
    assert result.get(timeout=5) == 1

    result.forget()

    assert result.state == "PENDING"


def test_a_wait_survives_a_broker_that_comes_back(make_app: MakeApp) -> None:
    first = FakeBroker().start()
    app = make_app(broker=first.url, backend="qbroker://")
    got: list[Value] = []
    saw_pending = threading.Event()
    waiter = threading.Thread(
        target=lambda: got.append(
            app.AsyncResult("x").get(timeout=20, on_message=lambda _: saw_pending.set())
        )
    )
    waiter.start()
    assert saw_pending.wait(5)

    first.stop()
    second = FakeBroker()
    second.succeed("x", "after")
    second.start(port=first.port)
    waiter.join(20)

    assert got == ["after"]
    assert second.watched == ["x"]
    app.close()
    second.stop()


def test_a_wait_for_a_broker_that_stays_away_ends_with_its_url(make_app: MakeApp) -> None:
    broker = FakeBroker().start()
    app = make_app(broker=broker.url, backend="qbroker://", broker_connection_timeout=0.3)
    result = app.AsyncResult("x")
    assert result.state == "PENDING"
    broker.stop()

    with pytest.raises(OperationalError, match=broker.url):
        result.get()


def test_many_may_wait_for_one_task(app: App, broker: FakeBroker) -> None:
    got: list[Value] = []
    barrier = threading.Barrier(4)

    def wait() -> None:
        barrier.wait()
        got.append(app.AsyncResult("x").get(timeout=5))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    barrier.wait()
    broker.succeed("x", 1)
    for thread in threads:
        thread.join()

    assert got == [1, 1, 1]


def test_a_result_is_its_id(app: App) -> None:
    result = app.AsyncResult("x")

    assert result == "x"
    assert result == AsyncResult("x")
    assert {result} == {AsyncResult("x")}
    assert str(result) == "x"
    assert repr(result) == "<AsyncResult: x>"
    assert pickle.loads(pickle.dumps(result)) == result  # noqa: S301 - our own bytes


def test_an_ignored_result_is_none_at_once(app: App) -> None:
    assert app.send_task("echo", (1,), ignore_result=True).get() is None


def test_timeout_errors_have_celerys_hierarchy() -> None:
    assert issubclass(ResultTimeout, exceptions.TaskError)
    assert AsyncResult.TimeoutError is ResultTimeout


# -- what came after what --------------------------------------------------------------------------


def test_what_went_wrong_first_is_raised(app: App, broker: FakeBroker) -> None:
    broker.succeed("a", 1)
    broker.end("b", state="FAILURE", result=failure(LookupError("first")))
    broker.end("c", state="FAILURE", result=failure(ValueError("then")))
    members = app.GroupResult("g", [app.AsyncResult("a"), app.AsyncResult("b")])
    last = app.AsyncResult("c", parent=members)

    with pytest.raises(LookupError, match="first"):
        last.get(timeout=5)
    with pytest.raises(ValueError, match="then"):
        last.get(timeout=5, follow_parents=False)
    assert isinstance(last.get(propagate=False), ValueError)


def test_a_lineage_is_data_and_comes_back(app: App) -> None:
    members = app.GroupResult("g", [app.AsyncResult("a"), app.AsyncResult("b")])
    last = app.AsyncResult("c", parent=members)

    data = last.as_tuple()
    again = result_from_tuple(data, app)

    assert data == (("c", (("g", None), [(("a", None), None), (("b", None), None)])), None)
    assert again == last
    assert again.parent == members
    assert again.as_tuple() == data
    assert last.as_list() == ["c", "a", "b"]
    assert result_from_tuple(last) is last


def test_children_are_collected_to_the_leaves(app: App, broker: FakeBroker) -> None:
    broker.end("root", state="SUCCESS", result=_parent_of("g:a,b", "c"))
    for name in "abc":
        broker.succeed(name, name.upper())
    result = app.AsyncResult("root")

    assert [str(child) for child in result.children or ()] == ["g", "c"]
    assert [value for _, value in result.collect()] == [None, ["A", "B"], "C", "A", "B"]
    assert result.get_leaf() == "B"
    assert [str(node) for node in result.graph] == ["root", "g", "c", "a", "b"]


def _parent_of(*children: str) -> bytes:
    return Result(state="SUCCESS", children=children).SerializeToString()


def test_a_tree_that_still_grows_is_incomplete(app: App) -> None:
    result = app.AsyncResult("nobody")

    with pytest.raises(IncompleteStream):
        list(result.iterdeps())
    assert list(result.iterdeps(intermediate=True)) == [(None, result)]
    assert not result.exists()


def test_a_callback_is_called_when_the_task_has_ended(app: App, broker: FakeBroker) -> None:
    heard: queue.SimpleQueue[Value] = queue.SimpleQueue()
    result = app.AsyncResult("x")

    assert result.then(heard.put) is result
    broker.succeed("x", 5)

    told = heard.get(timeout=5)
    assert told is result
    assert told.get() == 5
    result.on_ready.then(heard.put)
    assert heard.get(timeout=5) is result
    assert result.on_ready.ready


# -- several results -------------------------------------------------------------------------------


def some(app: App, broker: FakeBroker, *values: Value) -> GroupResult:
    """Results of tasks that have ended with these values."""
    for place, value in enumerate(values):
        broker.succeed(f"t{place}", value)
    return app.GroupResult("g", [app.AsyncResult(f"t{place}") for place in range(len(values))])


def test_a_group_is_joined_in_order_over_one_request(app: App, broker: FakeBroker) -> None:
    result = some(app, broker, *range(20))

    assert result.get(timeout=5) == list(range(20))
    assert result.join(timeout=5) == list(range(20))
    assert sorted(broker.watched) == sorted(one.id for one in result)


def test_members_come_as_they_end(app: App, broker: FakeBroker) -> None:
    result = app.GroupResult("g", [app.AsyncResult("a"), app.AsyncResult("b")])
    broker.succeed("b", 2)
    coming = result.iter_native(timeout=5)

    first, meta = next(coming)
    broker.succeed("a", 1)

    assert (first, meta["result"]) == ("b", 2)
    assert [task_id for task_id, _ in coming] == ["a"]
    assert result.get() == [1, 2]


def test_a_failure_is_raised_before_the_others_have_ended(app: App, broker: FakeBroker) -> None:
    result = app.GroupResult("g", [app.AsyncResult("a"), app.AsyncResult("b")])
    broker.end("b", state="FAILURE", result=failure(LookupError("far")))

    with pytest.raises(LookupError, match="far"):
        result.get(timeout=5)
    assert result.failed()
    assert not result.ready()

    broker.succeed("a", 1)
    one, error = result.get(timeout=5, propagate=False)
    assert one == 1
    assert isinstance(error, LookupError)


def test_how_members_are_is_asked_together(app: App, broker: FakeBroker) -> None:
    result = some(app, broker, 1, 2)
    result.add(app.AsyncResult("late"))

    assert (result.completed_count(), result.ready(), result.waiting()) == (2, False, True)
    assert not result.successful()
    broker.succeed("late", 3)
    assert (result.completed_count(), result.ready(), result.successful()) == (3, True, True)
    result.maybe_throw()


def test_a_wait_for_many_has_an_end(app: App, broker: FakeBroker) -> None:
    result = some(app, broker, 1)
    result.add(app.AsyncResult("never"))
    beats: list[int] = []

    with pytest.raises(ResultTimeout):
        result.get(timeout=0.2, interval=0.05, on_interval=lambda: beats.append(1))
    assert beats
    with pytest.raises(ImproperlyConfigured):
        result.join(on_message=lambda _: None)


def test_a_callback_of_a_group_in_a_group_is_called_once_with_the_list(
    app: App, broker: FakeBroker
) -> None:
    first, *others = some(app, broker, 1, 2, 3).results
    inner = app.GroupResult("inner", others)
    outer = app.GroupResult("outer", [first, inner])
    heard: list[Value] = []

    outer.get(timeout=5, callback=lambda task_id, value: heard.append((task_id, value)))

    assert sorted(heard, key=str) == sorted([(first.id, 1), (inner.id, [2, 3])], key=str)


def test_each_value_can_go_to_a_callback(app: App, broker: FakeBroker) -> None:
    heard: dict[str, Value] = {}

    assert some(app, broker, 1, 2).get(timeout=5, callback=heard.__setitem__) is None
    assert some(app, broker, 1, 2).join(timeout=5, callback=heard.__setitem__) == []
    assert heard == {"t0": 1, "t1": 2}


def test_members_are_a_list_without_doubles(app: App) -> None:
    one, two = app.AsyncResult("1"), app.AsyncResult("2")
    found = ResultSet([one], app=app)

    found.add(one)
    found.update([one, two])
    assert (len(found), list(found), found[1]) == (2, [one, two], two)
    found.discard("nobody")
    found.remove("1")
    with pytest.raises(KeyError):
        found.remove(one)
    found.clear()
    assert found == ResultSet([])
    with pytest.raises(TypeError, match="unhashable"):
        hash(found)


def test_a_group_is_its_id(app: App) -> None:
    result = app.GroupResult("g", [app.AsyncResult("a")])

    assert result == "g"
    assert result == GroupResult("g", [AsyncResult("a")])
    assert {result} == {GroupResult("g", [AsyncResult("a")])}
    assert (str(result), repr(result)) == ("g", "<GroupResult: g [a]>")
    assert repr(ResultSet([AsyncResult("a")])) == "<ResultSet: [a]>"
    assert pickle.loads(pickle.dumps(result)) == result  # noqa: S301 - our own bytes
    assert GroupResult("g", [])
    assert result.children == result.results


def test_a_group_of_groups_has_lists_in_its_list(app: App, broker: FakeBroker) -> None:
    inner = some(app, broker, 1, 2)
    broker.succeed("last", 3)

    assert app.GroupResult("o", [inner, app.AsyncResult("last")]).get(timeout=5) == [[1, 2], 3]


@pytest.mark.usefixtures("in_worker")
def test_waiting_for_many_inside_a_task_is_refused(app: App) -> None:
    @app.task(name="waits")
    def waits() -> Value:
        return app.GroupResult("g", [app.AsyncResult("a")]).get()

    with pytest.raises(RuntimeError, match=r"Never call result\.get"):
        waits()


def test_a_callback_of_a_group_is_called_when_all_have_ended(app: App, broker: FakeBroker) -> None:
    heard: queue.SimpleQueue[Value] = queue.SimpleQueue()
    result = app.GroupResult("g", [app.AsyncResult("a"), app.AsyncResult("b")])

    result.then(heard.put)
    broker.succeed("a", 1)
    broker.succeed("b", 2)

    assert heard.get(timeout=5).get() == [1, 2]


def test_a_group_is_forgotten_whole(app: App, broker: FakeBroker) -> None:
    result = some(app, broker, 1, 2)
    assert result.get(timeout=5) == [1, 2]

    result.forget()

    assert [one.state for one in result] == ["PENDING", "PENDING"]


async def test_a_group_can_be_awaited(app: App, broker: FakeBroker) -> None:
    assert await some(app, broker, 1, 2) == [1, 2]


def test_what_ran_here_needs_no_waiting() -> None:
    results: list[EagerResult[int]] = [
        EagerResult("a", 1, "SUCCESS"),
        EagerResult("b", 2, "SUCCESS"),
    ]
    heard: list[Value] = []

    _ = results[0].then(heard.append)

    assert GroupResult("g", results).get() == [1, 2]
    assert results[0].children == []
    assert heard == [results[0]]


def test_a_saved_group_is_found_by_its_id(real_app: App) -> None:
    result = real_app.GroupResult("g", [real_app.AsyncResult("a"), real_app.AsyncResult("b")])
    longer = real_app.GroupResult("g", [*result, real_app.AsyncResult("c")])

    result.save()
    first = GroupResult.restore("g", app=real_app)
    longer.save()
    second = GroupResult.restore("g", app=real_app)
    longer.delete()

    assert first == result
    assert second == longer
    assert GroupResult.restore("g", app=real_app) is None
    assert GroupResult.restore("nobody", app=real_app) is None


def test_results_of_tasks_that_run_eagerly_are_kept_where_that_is_asked_for(real_app: App) -> None:
    real_app.conf.update(task_always_eager=True, task_store_eager_result=True)
    seen: list[str] = []

    @real_app.task(name="divide")
    def divide(x: int, y: int) -> float:
        return x / y

    @real_app.task(name="calling", bind=True, max_retries=1)
    def calling(self: Task[..., Value]) -> float:
        if not self.request.retries:
            raise self.retry(countdown=60)
        divided: float = self.add_trail(divide.delay(8, 2)).get()
        return divided

    success = signals.task_success.connect(
        lambda **_: seen.append(real_app.AsyncResult("given").state), weak=False
    )
    divided = divide.apply_async((6, 3), task_id="given")
    signals.task_success.disconnect(success)
    failed, called = divide.delay(1, 0), calling.delay()

    # Kept before others hear of it, as by a worker.
    assert seen == ["SUCCESS"]
    kept = real_app.AsyncResult("given")
    assert (kept.get(timeout=5), kept.name, kept.id) == (2.0, "divide", divided.id)
    with pytest.raises(ZeroDivisionError) as raised:
        real_app.AsyncResult(failed.id).get(timeout=5)
    assert "in divide" in str(raised.value.__cause__)
    again = real_app.AsyncResult(called.id)
    assert (again.get(timeout=5), again.retries) == (4.0, 1)
    assert [child.get(timeout=5) for child in again.children or ()] == [4.0]


def test_what_ignores_its_result_keeps_none_eagerly_either_but_failures_where_asked(
    real_app: App,
) -> None:
    real_app.conf.update(task_always_eager=True, task_store_eager_result=True)

    @real_app.task(name="divide", ignore_result=True)
    def divide(x: int, y: int) -> float:
        return x / y

    @real_app.task(name="loud", ignore_result=True, store_errors_even_if_ignored=True)
    def loud(x: int, y: int) -> float:
        return x / y

    @real_app.task(name="quiet", store_eager_result=False)
    def quiet() -> int:
        return 1

    results = [divide.delay(1, 1), divide.delay(1, 0), loud.delay(1, 1), loud.delay(1, 0), quiet.delay()]  # fmt: skip

    states = [real_app.AsyncResult(result.id).state for result in results]
    assert states == ["PENDING", "PENDING", "PENDING", "FAILURE", "PENDING"]


def test_eager_results_are_written_as_the_settings_say(real_app: App) -> None:
    real_app.conf.update(
        task_store_eager_result=True, result_serializer="pickle", result_accept_content=["pickle"]
    )

    @real_app.task(name="made")
    def made() -> set[int]:
        return {1, 2}

    result = made.apply()

    assert real_app.AsyncResult(result.id).get(timeout=5) == {1, 2}


def test_who_asks_for_results_that_eager_tasks_leave_nowhere_is_warned(real_app: App) -> None:
    real_app.conf.task_always_eager = True

    with pytest.warns(RuntimeWarning, match="unless task_store_eager_result"):
        assert real_app.AsyncResult("x").state == "PENDING"
    with pytest.raises(RuntimeWarning, match="unless task_store_eager_result"):
        real_app.AsyncResult("x").get(timeout=5)


def test_a_program_may_say_how_something_ended_that_no_worker_ran(real_app: App) -> None:
    backend = real_app.backend

    backend.mark_as_done("made", {"rows": 3})
    backend.mark_as_failure("lost", KeyError("row"), traceback="where")
    backend.mark_as_done("untold", 1, store_result=False)

    assert real_app.AsyncResult("made").get(timeout=5) == {"rows": 3}
    lost = real_app.AsyncResult("lost")
    assert (lost.state, lost.traceback) == ("FAILURE", "where")
    with pytest.raises(KeyError, match="row"):
        lost.get(timeout=5)
    assert real_app.AsyncResult("untold").state == "PENDING"


def test_how_a_task_has_ended_stays(make_app: MakeApp) -> None:
    with LocalBroker() as broker:
        app = make_app(broker=broker.url, backend="qbroker://")
        result = app.task(name="add")(lambda x, y: x + y).delay(2, 3)
        app.backend.mark_as_started(result.id, rows=1)
        assert (result.state, result.info) == ("STARTED", {"rows": 1})
        broker.drain(app)

        app.backend.mark_as_done(result.id, "another")

        assert app.AsyncResult(result.id).get(timeout=5) == 5
        app.close()


def test_a_call_that_was_never_made_has_an_eager_result_without_an_id() -> None:
    result: EagerResult[None] = EagerResult(None, None, "REJECTED")
    made_id: Value = result.id

    assert (str(result), made_id, result.state) == ("None", None, "REJECTED")


def test_packages_may_ask_as_celerys_own_do(app: App, broker: FakeBroker) -> None:
    result = app.send_task("add", (4,))
    result.get(timeout=5)

    assert result._get_task_meta()["status"] == "SUCCESS"
    result.backend = app.backend
    assert result.backend is app.backend


def test_what_is_said_of_an_unknown_id_is_its_result(real_app: App) -> None:
    backend = real_app.backend

    backend.mark_as_done("done", [1, 2])
    backend.mark_as_failure("failed", ValueError("no"), traceback="here")
    backend.mark_as_revoked("revoked", "nobody wants it")

    assert real_app.AsyncResult("done").get(timeout=5) == [1, 2]
    failed = real_app.AsyncResult("failed")
    assert (failed.state, failed.traceback) == ("FAILURE", "here")
    with pytest.raises(ValueError, match="no"):
        failed.get(timeout=5)
    assert isinstance(real_app.AsyncResult("revoked").result, TaskRevokedError)


def test_who_finishes_the_work_of_a_task_that_raised_ignore_says_what_came_of_it(
    real_app: App, real_broker: RealBroker
) -> None:
    @real_app.task(name="begin")
    def begin() -> None:
        raise Ignore

    result = begin.delay()
    worker = ToyWorker(real_app, real_broker.url, "celery")
    worker.work()
    worker.leave()

    real_app.backend.mark_as_done(result.id, "from outside")

    assert result.get(timeout=5) == "from outside"


def test_what_a_worker_made_of_a_task_stays(real_app: App, real_broker: RealBroker) -> None:
    @real_app.task(name="five")
    def five() -> int:
        return 5

    result = five.delay()
    real_app.backend.mark_as_started(result.id, pid=7)
    assert (result.state, result.info) == ("STARTED", {"pid": 7})
    worker = ToyWorker(real_app, real_broker.url, "celery")
    worker.work()
    worker.leave()

    real_app.backend.mark_as_retry(result.id, OSError("again"))
    real_app.backend.mark_as_done(result.id, 6)

    assert result.get(timeout=5) == 5


def test_an_extended_result_tells_what_its_task_was_called_with(
    make_app: MakeApp, real_broker: RealBroker
) -> None:
    app = make_app(broker=real_broker.url, backend="qbroker://", result_extended=True)

    @app.task(name="add")
    def add(x: Value, y: Value) -> None: ...

    plain = add.delay(1, y=2)
    stamped = add.s(3, 4)
    stamped.stamp(stamp="mine")
    marked = stamped.apply_async()
    odd = add.apply_async(({5},), {"y": 6}, serializer="pickle")
    app.conf.accept_content = ["json", "pickle"]
    worker = ToyWorker(app, real_broker.url, "celery")
    worker.work(3)
    worker.leave()

    assert (plain.args, plain.kwargs) == ([1], {"y": 2})
    meta = app.backend.get_task_meta(marked.id)
    assert (meta["name"], meta["worker"], meta["queue"]) == ("add", "toy@here", "celery")
    assert (meta["args"], meta["retries"], meta["stamp"]) == ([3, 4], 0, "mine")
    assert meta["stamped_headers"] == ["stamp"]
    assert marked._get_task_meta() == meta
    assert (odd.args, odd.kwargs) == ("[{5}]", "{'y': 6}")


def test_a_result_keeps_no_arguments_by_default(real_app: App, real_broker: RealBroker) -> None:
    _ = real_app.task(name="t")(lambda x: x)
    result = real_app.send_task("t", (1,))
    worker = ToyWorker(real_app, real_broker.url, "celery")
    worker.work()
    worker.leave()

    assert result.get(timeout=5) == 1
    assert (result.args, result.kwargs) == (None, None)
    assert "args" not in real_app.backend.get_task_meta(result.id)


def test_without_any_time_what_has_ended_is_there(real_app: App) -> None:
    real_app.backend.mark_as_done("a", 1)
    real_app.backend.mark_as_done("b", 2)
    both = [real_app.AsyncResult("a"), real_app.AsyncResult("b")]
    more = [*both, real_app.AsyncResult("c")]

    assert real_app.AsyncResult("a").get(timeout=0) == 1
    assert real_app.ResultSet(both).join(timeout=0) == [1, 2]
    with pytest.raises(ResultTimeout):
        real_app.AsyncResult("c").get(timeout=0)
    with pytest.raises(ResultTimeout):
        real_app.ResultSet(more).join(timeout=0)


def test_a_result_that_may_not_be_read_is_raised_and_its_state_is_known(
    broker: FakeBroker, make_app: MakeApp
) -> None:
    app = make_app(broker=broker.url, backend="qbroker://", unpacked_bytes_max=1_000)
    raw = Result(state="SUCCESS", **envelope.write(["x" * 10_000], "json", "zstd"))
    broker.end("big", state="SUCCESS", result=raw.SerializeToString())

    result = app.AsyncResult("big")

    with pytest.raises(LimitExceeded, match="unpacked_bytes_max"):
        result.get(timeout=5)
    assert (result.state, type(result.result)) == ("SUCCESS", LimitExceeded)
