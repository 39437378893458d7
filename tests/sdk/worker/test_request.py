"""A task's own class of requests: what its runs are, and what they are told."""

import os

import pytest

from qbroker import App, Task, signals
from qbroker.app.trace import Runner, build_runner
from qbroker.exceptions import Ignore, Reject, WorkerLostError
from qbroker.serialization import Value
from qbroker.worker.request import Request
from tests.sdk.conftest import MakeApp
from tests.sdk.test_trace import call

told: list[Value] = []


class Telling(Request):
    """Writes down what it is told."""

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        super().on_accepted(pid, time_accepted)
        told.append(("accepted", self.worker_pid))

    def on_timeout(self, soft: bool, timeout: float) -> None:
        super().on_timeout(soft, timeout)
        told.append(("timeout", soft, timeout))

    def on_retry(self, exc_info: Value) -> None:
        super().on_retry(exc_info)
        told.append(("retry", type(exc_info.exception).__name__))

    def on_failure(
        self, exc_info: Value, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        told.append(("failure", self.task.name, type(exc_info.exception).__name__, return_ok))

    def on_success(self, failed__retval__runtime: Value, **kwargs: Value) -> Value:
        told.append(("success", failed__retval__runtime[0]))
        return super().on_success(failed__retval__runtime, **kwargs)


class Watched(Task[..., Value]):
    """A task of such runs."""

    Request = Telling


@pytest.fixture
def app(make_app: MakeApp) -> App:
    told.clear()
    return make_app(backend="qbroker://")


def runner(app: App) -> Runner:
    times = iter(range(1_000_000))
    return build_runner(app, hostname="celery@here", monotonic=lambda: float(next(times)))


def test_a_run_is_an_object_of_the_tasks_own_class_and_is_told_that_it_began_and_ended(
    app: App,
) -> None:
    seen: list[Value] = []

    @app.task(name="add", base=Watched, bind=True)
    def add(self: Value, x: int, y: int) -> int:
        seen.append(self.request)
        return x + y

    ran = runner(app).run(call(app, "add", 1, 2, task_id="an-id", shadow="plus"), 1, False)

    (request,) = seen
    assert ran.retval_or_exc == 3
    assert told == [("accepted", os.getpid()), ("success", 0)]
    assert isinstance(request, Telling)
    assert (request.id, request.task_id, request.args) == ("an-id", "an-id", [1, 2])
    assert (request.name, request.task_name, request.type) == ("plus", "plus", "add")
    assert (request.task, request.app) == (add, app)
    assert request.time_limits == (None, None)
    assert request.store_errors
    assert request.humaninfo() == str(request) == "plus[an-id]"
    assert repr(request) == "<Telling: plus[an-id] [1, 2] {}>"
    info = request.info()
    assert (info["args"], info["kwargs"], info["worker_pid"]) == ([1, 2], {}, os.getpid())
    assert request.info(safe=True)["args"] == "[1, 2]"


def test_the_class_may_be_named_by_its_path(app: App) -> None:
    app.task(name="fail", Request=f"{__name__}:Telling")(lambda: 1 / 0)

    runner(app).run(call(app, "fail"), 1, False)

    assert told[1:] == [("success", 1), ("failure", "fail", "ZeroDivisionError", True)]


@pytest.mark.parametrize(
    ("exc", "follows"),
    [
        (Ignore(), [("failure", "raise", "Ignore", True)]),
        (Reject("no"), [("failure", "raise", "Reject", True)]),
        (ValueError("no"), [("failure", "raise", "ValueError", True)]),
    ],
)
def test_what_a_run_raised_is_told_as_a_failure(
    app: App, exc: Exception, follows: list[Value]
) -> None:
    @app.task(name="raise", base=Watched)
    def raise_() -> None:
        raise exc

    runner(app).run(call(app, "raise"), 1, False)

    assert told[2:] == follows


def test_a_retry_is_told_as_such_first(app: App) -> None:
    @app.task(name="again", base=Watched, bind=True)
    def again(self: Value) -> None:
        raise self.retry(countdown=1)

    runner(app).run(call(app, "again"), 1, False)

    assert told[2:] == [("retry", "Retry"), ("failure", "again", "Retry", True)]


def test_a_soft_limit_that_was_reached_is_told_once_the_task_has_heeded_it(app: App) -> None:
    class Limits:
        """Keeps none: the task is as if it had been interrupted."""

        watches_all = False

        def begin(
            self, soft_s: float | None, hard_s: float | None, *, is_async: bool = False
        ) -> None: ...

        def end(self) -> None: ...

        def waits(self, cancel: Value) -> None: ...

        def heed(self) -> None: ...

    app.task(name="slow", base=Watched, soft_time_limit=1.0)(lambda: "heeded")
    app.task(name="quick", base=Watched, soft_time_limit=1_000.0, shared=False)(lambda: "done")
    times = iter(range(1_000_000))
    run = build_runner(
        app, hostname="here", guard=Limits(), monotonic=lambda: float(next(times))
    ).run

    run(call(app, "slow"), 1, False)
    run(call(app, "quick"), 1, False)

    assert [one for one in told if one[0] == "timeout"] == [("timeout", True, 1.0)]


def test_a_run_that_its_hard_limit_ended_is_told_of_both_limits_and_the_failure(app: App) -> None:
    app.task(name="slow", base=Watched, soft_time_limit=2.0, time_limit=5.0)(lambda: None)

    runner(app).expire(call(app, "slow"), 1, False)

    assert told == [
        ("timeout", True, 2.0),
        ("timeout", False, 5),
        ("failure", "slow", "TimeLimitExceeded", False),
    ]


def test_a_run_whose_process_died_is_told_as_a_failure_and_so_are_listeners(app: App) -> None:
    app.task(name="dead", base=Watched)(lambda n: n)
    heard: list[Value] = []

    def on_failure(**named: Value) -> None:
        heard.append((named["sender"].name, named["task_id"], named["args"], named["exception"]))

    signals.task_failure.connect(on_failure)
    try:
        runner(app).tell_lost(call(app, "dead", 7, task_id="an-id"), "It fell over.")
    finally:
        signals.task_failure.disconnect(on_failure)

    ((name, id_, args, exc),) = heard
    assert (name, id_, args) == ("dead", "an-id", [7])
    assert isinstance(exc, WorkerLostError)
    assert str(exc) == "It fell over."
    assert told == [("failure", "dead", "WorkerLostError", False)]


def test_what_a_request_raises_does_not_change_how_the_task_went(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Request):
        def on_success(self, failed__retval__runtime: Value, **kwargs: Value) -> Value:
            raise LookupError("of its own")

    app.task(name="fine", Request=Broken)(lambda: "fine")

    ran = runner(app).run(call(app, "fine"), 1, False)

    assert (ran.state, ran.retval_or_exc) == ("SUCCESS", "fine")
    assert "of its own" in caplog.text


def test_what_is_no_class_of_requests_fails_the_call_with_a_sentence(app: App) -> None:
    app.task(name="odd", Request=dict)(lambda: None)
    app.task(name="usual", Request=Request)(lambda: "ran")

    odd = runner(app).run(call(app, "odd"), 1, False)
    usual = runner(app).run(call(app, "usual"), 1, False)

    assert odd.state == "FAILURE"
    assert "odd.Request is <class 'dict'>" in str(odd.retval_or_exc)
    assert usual.retval_or_exc == "ran"
