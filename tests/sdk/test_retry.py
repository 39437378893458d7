"""Trying again: what `retry` raises, what the next run sees, and what comes of it at the broker."""

import datetime as dt
import json
import logging

import pytest

from qbroker import App, Task, clock, envelope, signals
from qbroker.app.sending import prepare
from qbroker.app.trace import Ran, build_runner, log_line
from qbroker.exceptions import Ignore, MaxRetriesExceededError, Reject, Retry
from qbroker.serialization import Value
from qbroker_proto.v1.message_pb2 import Message, Result
from tests.sdk.conftest import MakeApp
from tests.sdk.real_broker import RealBroker, ToyWorker

Any_ = Task[..., Value]


@pytest.fixture
def app(make_app: MakeApp) -> App:
    return make_app(backend="qbroker://")


def call(app: App, name: str, *args: Value, **options: Value) -> bytes:
    kwargs = options.pop("kwargs", {})
    return prepare(app.conf, name, args, kwargs, task_type=app.tasks[name], **options).message


def run(app: App, name: str, *args: Value, **options: Value) -> Ran:
    return build_runner(app, hostname="here")(call(app, name, *args, **options), 1, False)


def again(app: App, ran: Ran) -> Ran:
    return build_runner(app, hostname="here")(ran.message, 2, False)


def test_a_retry_is_the_same_message_due_later_with_one_retry_more(app: App) -> None:
    @app.task(name="flaky", bind=True)
    def flaky(self: Any_) -> None:
        raise self.retry(exc=ValueError("not yet"), countdown=1.5)

    message = call(app, "flaky", task_id="an-id", queue="q", priority=3, headers={"h": 1},
                   labels={"a": 1}, expires=900, time_limit=9, shadow="s", root_id="top")  # fmt: skip
    before_ms = clock.wall_ms()
    ran = build_runner(app, hostname="here")(message, 1, False)

    sent, changed = Message.FromString(message), Message.FromString(ran.message)
    assert (ran.outcome, ran.state) == (envelope.OUTCOME_RETRY, "RETRY")
    assert before_ms + 1_500 <= ran.eta_ms <= clock.wall_ms() + 1_500
    assert (changed.retries, changed.eta_ms) == (1, ran.eta_ms)
    assert ran.detail == "Retry in 1.5s: ValueError('not yet')"
    sent.retries, sent.eta_ms = changed.retries, changed.eta_ms
    sent.ClearField("checksum")
    changed.ClearField("checksum")
    assert changed == sent
    assert again(app, ran).retval_or_exc.sig.options["retries"] == 2


def test_what_is_kept_of_a_retry_is_why(app: App) -> None:
    app.task(name="why", bind=True)(lambda self: self.retry(exc=KeyError("k"), countdown=1))
    app.task(name="just", bind=True)(lambda self: self.retry(countdown=1))

    why, just = (Result.FromString(run(app, name).result) for name in ("why", "just"))

    assert (why.state, json.loads(why.body)["exc_type"]) == ("RETRY", "KeyError")
    assert "Retry in 1s: KeyError('k')" in why.traceback
    assert (just.state, just.body) == ("RETRY", b"null")


def test_the_wait_is_the_tasks_own_where_none_is_given(app: App) -> None:
    app.task(name="own", bind=True, default_retry_delay=7)(lambda self: self.retry())
    moment = dt.datetime(2030, 1, 31, 12, tzinfo=dt.UTC)
    app.task(name="eta", bind=True)(lambda self: self.retry(eta=moment))
    app.task(name="at once", bind=True)(lambda self: self.retry(countdown=0))

    own, eta, at_once = (run(app, name) for name in ("own", "eta", "at once"))

    assert own.retval_or_exc.when == 7
    assert eta.eta_ms == 1_896_091_200_000
    assert eta.retval_or_exc.humanize() == "at 2030-01-31 12:00:00+00:00"
    assert (at_once.eta_ms, at_once.state) == (0, "RETRY")


def test_options_that_are_given_replace_those_it_had(app: App) -> None:
    @app.task(shared=False, name="move", bind=True, time_limit=9, soft_time_limit=5)
    def move(self: Any_) -> None:
        self.retry(queue="slow", priority=0, expires=60, soft_time_limit=2, countdown=1,
                   headers={"new": 1}, ignore_result=True)  # fmt: skip

    changed = Message.FromString(run(app, "move", priority=8, headers={"h": 1}).message)

    assert (changed.queue, changed.priority, changed.ignore_result) == ("slow", 0, True)
    assert (changed.time_limit, changed.soft_time_limit) == (9, 2)
    assert json.loads(changed.headers) == {"new": 1}
    assert changed.expires_ms > 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ([1, 2], {"c": 3})),
        ({"args": (7,)}, ([7], {"c": 3})),
        ({"args": (7, 8, 9)}, ([7, 8, 9], {})),
        ({"kwargs": {"c": 4}}, ([1, 2], {"c": 4})),
        ({"kwargs": {"a": 5}}, ([5, 2], {})),
        ({"args": (), "kwargs": {"c": 0}}, ([], {"c": 0})),
    ],
)
def test_arguments_that_are_not_given_stay(
    app: App, given: dict[str, Value], expected: tuple[list[int], dict[str, int]]
) -> None:
    @app.task(name="args", bind=True)
    def args(self: Any_, a: int = 0, b: int = 0, c: int = 0) -> None:
        self.retry(countdown=1, **given)

    ran = run(app, "args", 1, 2, kwargs={"c": 3})

    assert envelope.decode_call(ran.message, frozenset({"application/json"})) == expected


def test_what_came_with_the_arguments_stays_with_them(app: App) -> None:
    app.task(name="flaky", bind=True)(lambda self, x: self.retry(args=(2,), countdown=1))
    message = Message.FromString(call(app, "flaky", 1))
    message.body = b'[[1], {}, {"callbacks": ["c"]}]'

    ran = build_runner(app, hostname="here")(message.SerializeToString(), 1, False)

    assert json.loads(Message.FromString(ran.message).body) == [[2], {}, {"callbacks": ["c"]}]


def test_one_try_too_many_raises_the_reason_or_says_so(app: App) -> None:
    @app.task(name="with", bind=True, max_retries=1)
    def with_reason(self: Any_) -> None:
        self.retry(exc=ValueError("why"))

    @app.task(name="without", bind=True, max_retries=1)
    def without(self: Any_, x: int) -> None:
        self.retry()

    failed, exceeded = (
        run(app, "with", retries=1),
        run(app, "without", 5, retries=1, task_id="an-id"),
    )

    assert (failed.state, repr(failed.retval_or_exc)) == ("FAILURE", "ValueError('why')")
    assert failed.detail == "ValueError: why"
    exc = exceeded.retval_or_exc
    assert isinstance(exc, MaxRetriesExceededError)
    assert str(exc) == "Can't retry without[an-id] args:[5] kwargs:{}"
    assert (exc.task_args, exc.task_kwargs) == ([5], {})


@pytest.mark.parametrize(("retries", "state"), [(3, "FAILURE"), (2, "RETRY")])
def test_a_task_may_be_tried_three_times_more(app: App, retries: int, state: str) -> None:
    app.task(name="flaky", bind=True)(lambda self: self.retry())

    assert run(app, "flaky", retries=retries).state == state


def test_without_a_limit_it_is_tried_for_ever(app: App) -> None:
    app.task(name="flaky", bind=True, max_retries=None)(lambda self: self.retry())

    assert run(app, "flaky", retries=10**6).state == "RETRY"


def test_called_like_a_function_it_raises_the_reason(app: App) -> None:
    @app.task(name="flaky", bind=True)
    def flaky(self: Any_, exc: Exception | None = None) -> None:
        try:
            ["second"].index("first")
        except ValueError as first:
            self.retry(exc=exc or first)

    with pytest.raises(ValueError, match="'first' is not in list"):
        flaky()
    with pytest.raises(LookupError, match="second") as caught:
        flaky(LookupError("second"))
    with pytest.raises(Retry, match="Task can be retried"):
        app.task(name="plain", bind=True)(lambda self: self.retry())()

    assert isinstance(caught.value.__cause__, ValueError)


def test_a_retry_that_is_not_raised_stands_all_the_same(app: App) -> None:
    @app.task(name="quiet", bind=True)
    def quiet(self: Any_, then_fails: bool) -> str:
        found = self.retry(throw=False, countdown=1)
        assert isinstance(found, Retry)
        if then_fails:
            raise ValueError("after it")
        return "returned"

    assert run(app, "quiet", False).state == "RETRY"
    assert run(app, "quiet", True).state == "RETRY"


def test_a_call_that_cannot_be_written_again_is_rejected(app: App) -> None:
    app.task(name="odd", bind=True)(lambda self: self.retry(args=(object(),)))

    ran = run(app, "odd")

    assert (ran.outcome, ran.requeue, ran.message) == (envelope.OUTCOME_REJECTED, False, b"")
    assert isinstance(ran.retval_or_exc, Reject)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"countdown": -1}, "countdown -1"),
        ({"task_id": "other"}, "cannot change: task_id"),
        ({"limits": []}, "cannot change: limits"),
        ({"eta": 5}, "eta 5 .* is not a datetime"),
    ],
)
def test_options_that_cannot_be_meant_fail_the_task(
    app: App, options: dict[str, Value], text: str
) -> None:
    app.task(name="bad", bind=True)(lambda self: self.retry(**options))

    ran = run(app, "bad")

    assert ran.state == "FAILURE"
    with pytest.raises((TypeError, ValueError), match=text):
        raise ran.retval_or_exc


def test_a_retry_of_the_tasks_own_making_is_one_too(app: App) -> None:
    def raise_(exc: Exception) -> None:
        raise exc

    app.task(name="seconds")(lambda: raise_(Retry("later", when=2)))
    app.task(name="open", default_retry_delay=9)(lambda: raise_(Retry("later")))
    app.task(name="never")(lambda: raise_(Retry("later", when="soon")))
    now_ms = clock.wall_ms()

    seconds, open_, never = (run(app, name) for name in ("seconds", "open", "never"))

    assert now_ms + 2_000 <= seconds.eta_ms < now_ms + 8_000
    assert now_ms + 9_000 <= open_.eta_ms < now_ms + 15_000
    assert Message.FromString(seconds.message).retries == 1
    assert (never.state, type(never.retval_or_exc)) == ("FAILURE", ValueError)


def test_handlers_signals_and_the_log_are_told(app: App) -> None:
    seen: list[Value] = []

    class Base(Task[..., Value]):
        def on_retry(
            self, exc: BaseException | None, task_id: str, args: Value, kwargs: Value, einfo: Value
        ) -> None:
            seen.append(("on_retry", repr(exc), "Traceback" in str(einfo)))

        def after_return(
            self, status: str, retval: Value, task_id: str, args: Value, kwargs: Value, einfo: Value
        ) -> None:
            seen.append("after_return")

    def told(request: Value, reason: Retry, **_: Value) -> None:
        seen.append(("task_retry", request.id, str(reason)))

    @app.task(name="flaky", bind=True, base=Base)
    def flaky(self: Any_) -> None:
        raise self.retry(exc=ValueError("x"), countdown=3)

    signals.task_retry.connect(told)
    try:
        ran = run(app, "flaky", task_id="an-id")
    finally:
        signals.task_retry.disconnect(told)

    assert seen == [
        ("on_retry", "ValueError('x')", True),
        ("task_retry", "an-id", "Retry in 3s: ValueError('x')"),
    ]
    assert log_line(ran, "an-id") == (
        logging.INFO,
        "Task flaky[an-id] retry: Retry in 3s: ValueError('x')",
    )


# -- by itself -----------------------------------------------------------------------------------


def test_exceptions_it_is_to_be_tried_again_for_are_retries(app: App) -> None:
    def fail(exc_name: str) -> None:
        raise {"key": KeyError("k"), "index": IndexError("i"), "value": ValueError("v"),
               "ignore": Ignore(), "reject": Reject("r")}[exc_name]  # fmt: skip

    app.task(
        name="auto",
        autoretry_for=(Exception,),
        dont_autoretry_for=(IndexError,),
        retry_kwargs={"countdown": 4, "max_retries": 1},
    )(fail)

    assert run(app, "auto", "key").retval_or_exc.when == 4
    assert run(app, "auto", "index").state == "FAILURE"
    assert run(app, "auto", "ignore").state == "IGNORED"
    assert run(app, "auto", "reject").state == "REJECTED"
    last = run(app, "auto", "value", retries=1)
    assert (last.state, repr(last.retval_or_exc)) == ("FAILURE", "ValueError('v')")
    assert last.traceback.count('File "') == 1  # the task's line, none of ours


async def test_an_async_task_is_tried_again_by_itself_too(app: App) -> None:
    @app.task(name="auto", autoretry_for=(KeyError,))
    async def auto() -> None:
        raise KeyError("k")

    assert run(app, "auto").state == "RETRY"


@pytest.mark.parametrize(
    ("backoff", "waits"), [(True, [1, 2, 4, 8, 10, 10]), (3, [3, 6, 10, 10, 10, 10])]
)
def test_waits_grow_with_each_try(app: App, backoff: Value, waits: list[int]) -> None:
    app.task(
        name="auto",
        autoretry_for=(ZeroDivisionError,),
        retry_backoff=backoff,
        retry_backoff_max=10,
        retry_jitter=False,
        max_retries=None,
    )(lambda: 1 / 0)

    assert [run(app, "auto", retries=n).retval_or_exc.when for n in range(6)] == waits


def test_a_limit_given_to_retry_holds_for_what_is_retried_by_itself(app: App) -> None:
    @app.task(name="auto", bind=True, autoretry_for=(ValueError,), max_retries=9)
    def auto(self: Any_) -> None:
        self.retry(exc=ValueError("x"), max_retries=1)

    assert run(app, "auto", retries=1).state == "FAILURE"


# -- here ----------------------------------------------------------------------------------------


def test_here_a_retry_follows_at_once(app: App) -> None:
    seen: list[Value] = []

    @app.task(name="flaky", bind=True)
    def flaky(self: Any_, x: int) -> int:
        request: Value = self.request
        seen.append((x, request.retries, request.id))
        if request.retries < 2:
            raise self.retry(args=(x + 1,), exc=ValueError("x"))
        return x

    result = flaky.apply((5,), task_id="an-id")

    assert result.get() == 7
    assert seen == [(5, 0, "an-id"), (6, 1, "an-id"), (7, 2, "an-id")]


def test_here_too_there_is_a_last_try(app: App) -> None:
    tries: list[int] = []

    @app.task(name="auto", autoretry_for=(ZeroDivisionError,), max_retries=2)
    def auto() -> None:
        tries.append(1)
        1 / 0  # noqa: B018 - it raises

    assert auto.apply().failed()
    assert len(tries) == 3
    with pytest.raises(ZeroDivisionError):
        _ = auto.apply(throw=True)


# -- at the broker -------------------------------------------------------------------------------


def test_the_broker_tries_again_under_the_same_id_and_keeps_the_history(
    real_app: App, real_broker: RealBroker
) -> None:
    @real_app.task(name="flaky", bind=True)
    def flaky(self: Any_, x: int) -> list[Value]:
        request: Value = self.request
        if request.retries < 2:
            raise self.retry(exc=ValueError("not yet"), countdown=3_600, args=(x + 1,))
        return [x, request.id, request.retries, request.attempt, request.redelivered]

    result = flaky.apply_async((1,), task_id="an-id")
    worker = ToyWorker(real_app, real_broker.url)
    worker.work()
    on_the_way = result.state, repr(result.result), result.stage
    for _ in range(2):
        real_app.client().reschedule("an-id", 0)
        worker.work()
    worker.leave()

    assert on_the_way == ("RETRY", "ValueError('not yet')", "scheduled")
    assert result.get(timeout=5) == [3, "an-id", 2, 3, False]
    info = real_app.client().show_task("an-id")
    assert [(one.how, one.line) for one in info.history] == [
        ("RETRY", "Retry in 3600s: ValueError('not yet')")
    ] * 2
    assert (info.retries, result.retries) == (2, 2)


def test_a_retry_may_go_to_another_queue(real_app: App, real_broker: RealBroker) -> None:
    @real_app.task(name="move", bind=True)
    def move(self: Any_) -> str | None:
        info = self.request.delivery_info
        if info["routing_key"] == "celery":
            self.retry(queue="slow", priority=4, countdown=0)
        return f"{info['routing_key']} {info['priority']}"

    result = move.delay()
    worker = ToyWorker(real_app, real_broker.url, "celery", "slow")
    worker.work(2)
    worker.leave()

    assert result.get(timeout=5) == "slow 4"


def test_a_retry_that_would_come_too_late_is_expired_by_the_broker(
    real_app: App, real_broker: RealBroker
) -> None:
    real_app.task(name="late", bind=True)(lambda self: self.retry(countdown=60))

    result = real_app.send_task("late", expires=0.2)
    worker = ToyWorker(real_app, real_broker.url)
    worker.work()
    worker.leave()

    assert str(result.get(timeout=5, propagate=False)) == "expired"
    assert result.state == "REVOKED"
