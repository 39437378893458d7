"""Waiting for results: pushed, re-raised as what they were, never a hang."""

import pickle
import threading

import pytest

from qbroker import App, AsyncResult, allow_join_result, exceptions
from qbroker.exceptions import (
    OperationalError,
    RemoteTraceback,
    SecurityError,
    TaskRevokedError,
    TimeoutError as ResultTimeout,
    WorkerLostError,
)
from qbroker.serialization import Value
from qbroker_proto.v1 import results_pb2 as wire
from qbroker_proto.v1.message_pb2 import Result
from tests.sdk.conftest import MakeApp
from tests.sdk.fake_broker import FakeBroker, failure


class OwnError(Exception):
    """Takes other arguments than it passes on."""

    def __init__(self, code: int, *, text: str) -> None:
        super().__init__(code)
        self.text = text


def test_nobody_knows_an_unknown_id(app: App) -> None:
    result = app.AsyncResult("nobody")

    assert (result.state, result.ready(), result.result) == ("PENDING", False, None)
    with pytest.raises(ResultTimeout, match="The operation timed out"):
        result.get(timeout=0.05)


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


def test_waiting_inside_a_task_is_refused_unless_allowed(app: App) -> None:
    @app.task(name="outer")
    def outer() -> Value:
        result = app.send_task("inner", (1,))
        with pytest.raises(RuntimeError, match=r"Never call result\.get\(\) within a task!"):
            result.get()
        with allow_join_result():
            return result.get(timeout=5)

    assert outer.apply().get() == 1


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
