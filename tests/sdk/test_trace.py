"""Running a task: outcomes, what is kept, the order of handlers and signals."""

import asyncio
import json
import logging
from collections.abc import Callable

import pytest

from qbroker import App, Task, envelope, signals
from qbroker.app.sending import prepare
from qbroker.app.trace import Ran, Runner, build_runner, log_line
from qbroker.exceptions import (
    BackendStoreError,
    Ignore,
    ImproperlyConfigured,
    Reject,
    SerializerNotInstalled,
    TaskRevokedError,
    TimeLimitExceeded,
)
from qbroker.serialization import Value, find as find_serializer
from qbroker_proto.v1.message_pb2 import Message, Result, TaskLimits
from tests.sdk.conftest import MakeApp


@pytest.fixture
def app(make_app: MakeApp) -> App:
    return make_app(backend="qbroker://")


def runner(app: App, now_ms: int = 1_000) -> Runner:
    times = iter(range(1_000_000))
    return build_runner(
        app, hostname="celery@here", wall_ms=lambda: now_ms, monotonic=lambda: float(next(times))
    )


def call(app: App, name: str, *args: Value, **options: Value) -> bytes:
    return prepare(app.conf, name, args, {}, task_type=app.tasks.get(name), **options).message


def run(app: App, name: str, *args: Value, **options: Value) -> Ran:
    return runner(app)(call(app, name, *args, **options), 1, False)


def test_a_task_that_returns_succeeds_and_its_result_is_kept(app: App) -> None:
    app.task(name="add")(lambda x, y: x + y)

    ran = run(app, "add", 1, 2, task_id="an-id", parent_id="up", root_id="top")

    result = Result.FromString(ran.result)
    assert (ran.outcome, ran.state, ran.retval_or_exc) == (envelope.OUTCOME_SUCCESS, "SUCCESS", 3)
    assert (result.state, result.body, result.worker) == ("SUCCESS", b"3", "celery@here")
    assert (result.parent_id, result.root_id, result.done_ms) == ("up", "top", 1_000)


def test_a_task_that_raises_fails_with_its_exception_and_where(app: App) -> None:
    @app.task(name="fail")
    def fail() -> None:
        raise LookupError("no", object)

    ran = run(app, "fail")

    result = Result.FromString(ran.result)
    assert ran.outcome == envelope.OUTCOME_FAILURE
    assert json.loads(result.body) == {
        "exc_type": "LookupError",
        "exc_module": "builtins",
        "exc_message": ["no", "<class 'object'>"],
        "exc_text": "('no', <class 'object'>)",
        "exc_inexact": True,
    }
    assert result.traceback == ran.traceback
    assert ran.traceback.count('File "') == 1  # the task's line, none of ours


def test_ignored_results_are_not_kept_but_failures_are_where_asked(app: App) -> None:
    app.task(name="ok", ignore_result=True, store_errors_even_if_ignored=True)(lambda: 1)
    app.task(name="bad", ignore_result=True, store_errors_even_if_ignored=True)(lambda: 1 / 0)
    app.task(name="quiet", ignore_result=True)(lambda: 1 / 0)

    assert run(app, "ok").result == b""
    assert Result.FromString(run(app, "bad").result).state == "FAILURE"
    assert run(app, "quiet").result == b""


def test_ignore_and_reject_say_what_becomes_of_the_message(app: App) -> None:
    def raise_(exc: Exception) -> None:
        raise exc

    app.task(name="ignore")(lambda: raise_(Ignore()))
    app.task(name="requeue")(lambda: raise_(Reject("later", requeue=True)))
    app.task(name="drop")(lambda: raise_(Reject("never")))

    ignored, requeued, dropped = (run(app, name) for name in ("ignore", "requeue", "drop"))

    assert (ignored.outcome, ignored.result) == (envelope.OUTCOME_IGNORED, b"")
    assert (requeued.outcome, requeued.requeue) == (envelope.OUTCOME_REJECTED, True)
    assert (dropped.outcome, dropped.requeue) == (envelope.OUTCOME_REJECTED, False)
    assert Result.FromString(dropped.result).state == "FAILURE"


@pytest.mark.parametrize(
    ("message", "exc_type"),
    [
        (Message(id="i", task="nothing", content_type="application/json", body=b"[[],{},{}]"), "NotRegistered"),
        (Message(id="i", task="add", content_type="application/json", body=b"{}"), "InvalidTaskError"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_fails_with_the_reason(
    app: App, message: Message, exc_type: str
) -> None:
    app.task(name="add")(lambda: 1)

    ran = runner(app)(message.SerializeToString(), 1, False)

    assert ran.outcome == envelope.OUTCOME_FAILURE
    assert json.loads(Result.FromString(ran.result).body)["exc_type"] == exc_type


@pytest.mark.parametrize(
    ("message", "exc_type"),
    [
        (Message(id="i", task="add", content_type="application/x-python-serialize", body=b"cos\nsystem\n."), "ContentDisallowed"),
        (Message(id="i", task="add", content_type="application/json", body=b"{"), "DecodeError"),
        (Message(id="i", task="add", content_type="application/json", compression="application/zstd", body=b"x"), "DecodeError"),
        (Message(id="i", task="add", **envelope.write(["x" * 1_000_000], "json", "zstd")), "LimitExceeded"),
    ],
    ids=["pickle", "malformed", "no zstd", "a bomb"],
)  # fmt: skip
def test_what_may_not_or_cannot_be_read_is_rejected_so_that_it_is_kept(
    app: App, message: Message, exc_type: str
) -> None:
    app.conf.unpacked_bytes_max = 100_000
    calls: list[int] = []
    app.task(name="add")(lambda *_: calls.append(1))

    ran = runner(app)(message.SerializeToString(), 1, False)

    assert (ran.outcome, ran.requeue, calls) == (envelope.OUTCOME_REJECTED, False, [])
    result = Result.FromString(ran.result)
    assert (result.state, json.loads(result.body)["exc_type"]) == ("FAILURE", exc_type)
    assert ran.detail.startswith(exc_type)


def test_who_listens_is_told_of_what_cannot_be_read_and_of_unknown_tasks(app: App) -> None:
    told: list[Value] = []

    def receive(signal: signals.Signal, sender: Value, message: Value, **more: Value) -> None:
        told.append((signal.name, sender, message.id, type(more["exc"]).__name__, more.get("name")))

    run = runner(app)
    unreadable = Message(id="i", task="add", content_type="application/json", body=b"{")
    unknown = Message(id="u", task="nothing", content_type="application/json", body=b"[[],{},{}]")
    for signal in (signals.task_rejected, signals.task_unknown):
        signal.connect(receive)
    run(unreadable.SerializeToString(), 1, False)
    run(unknown.SerializeToString(), 1, False)
    for signal in (signals.task_rejected, signals.task_unknown):
        signal.disconnect(receive)

    assert told == [
        ("task_rejected", "celery@here", "i", "DecodeError", None),
        ("task_unknown", "celery@here", "u", "NotRegistered", "nothing"),
    ]


@pytest.mark.parametrize("serializer", ["json", "pickle", "msgpack", "yaml"])
def test_results_are_written_as_the_settings_say_and_failures_as_data(
    app: App, serializer: str
) -> None:
    app.conf.update(
        result_serializer=serializer, result_compression="zstd", accept_content=["json", serializer]
    )
    app.task(name="long")(lambda: ["x"] * 1_000)
    app.task(name="bad")(lambda: 1 / 0)

    result = Result.FromString(run(app, "long").result)
    failure = Result.FromString(run(app, "bad").result)

    assert result.content_type == find_serializer(serializer).content_type
    assert result.compression == "application/zstd"
    assert envelope.read(result, {result.content_type}) == ["x"] * 1_000
    assert (failure.content_type, failure.compression) == ("application/json", "")
    assert json.loads(failure.body)["exc_type"] == "ZeroDivisionError"


def test_a_result_serializer_or_compression_nobody_knows_is_refused_before_any_task_runs(
    app: App,
) -> None:
    app.conf.result_serializer = "morse"
    with pytest.raises(SerializerNotInstalled, match="'morse'"):
        runner(app)
    app.conf.update(result_serializer="json", result_compression="fold")
    with pytest.raises(ImproperlyConfigured, match="'fold'"):
        runner(app)


def test_a_result_that_cannot_be_written_fails_the_task(app: App) -> None:
    app.task(name="odd")(lambda: object())

    ran = run(app, "odd")

    assert ran.state == "FAILURE"
    assert json.loads(Result.FromString(ran.result).body)["exc_type"] == "EncodeError"


def test_an_expired_message_is_revoked_unrun(app: App) -> None:
    calls: list[int] = []
    app.task(name="late")(lambda: calls.append(1))
    message = Message.FromString(call(app, "late"))
    message.expires_ms = 999

    ran = runner(app, now_ms=1_000)(message.SerializeToString(), 1, False)

    assert (ran.outcome, ran.state, calls) == (envelope.OUTCOME_REVOKED, "REVOKED", [])
    assert isinstance(ran.retval_or_exc, TaskRevokedError)


def test_what_ends_the_process_is_passed_on(app: App) -> None:
    def leave() -> None:
        raise SystemExit(3)

    app.task(name="leave")(leave)

    with pytest.raises(SystemExit):
        run(app, "leave")


def test_handlers_and_signals_come_in_celerys_order(app: App) -> None:
    order: list[str] = []

    class Base(Task[..., Value]):
        def before_start(self, task_id: str, args: Value, kwargs: Value) -> None:
            order.append("before_start")

        def on_success(self, retval: Value, task_id: str, args: Value, kwargs: Value) -> None:
            order.append(f"on_success {retval}")

        def on_failure(
            self, exc: BaseException, task_id: str, args: Value, kwargs: Value, einfo: Value
        ) -> None:
            order.append(f"on_failure {exc!r} {'ZeroDivisionError' in str(einfo)}")

        def after_return(
            self, status: str, retval: Value, task_id: str, args: Value, kwargs: Value, einfo: Value
        ) -> None:
            order.append(f"after_return {status}")

    app.task(name="ok", base=Base)(lambda: order.insert(len(order), "run"))
    app.task(name="bad", base=Base)(lambda: 1 / 0)

    def note(signal: signals.Signal, **_: Value) -> None:
        order.append(signal.name)

    told = [signals.task_prerun, signals.task_success, signals.task_failure, signals.task_postrun]
    for signal in told:
        signal.connect(note)
    try:
        run(app, "ok")
        run(app, "bad")
    finally:
        for signal in told:
            signal.disconnect(note)

    assert order == [
        "task_prerun", "before_start", "run", "task_success", "on_success None",
        "after_return SUCCESS", "task_postrun",
        "task_prerun", "before_start", "on_failure ZeroDivisionError('division by zero') True",
        "task_failure", "after_return FAILURE", "task_postrun",
    ]  # fmt: skip


def test_a_handler_that_raises_does_not_change_the_outcome(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    class Base(Task[..., Value]):
        def on_success(self, retval: Value, task_id: str, args: Value, kwargs: Value) -> None:
            raise ValueError("in the handler")

    app.task(name="ok", base=Base)(lambda: 1)

    with caplog.at_level(logging.ERROR):
        ran = run(app, "ok")

    assert ran.state == "SUCCESS"
    assert "in the handler" in caplog.text


def test_a_bound_task_sees_its_request(app: App) -> None:
    @app.task(name="look", bind=True)
    def look(self: Task[..., Value]) -> list[Value]:
        request = self.request
        return [
            request.id, request.retries, request.hostname, request.called_directly, request.root_id,
            request.headers, request.trace, request.delivery_info["redelivered"],
            request.delivery_info["routing_key"], request.get("nothing", "default"),
        ]  # fmt: skip

    message = call(app, "look", task_id="an-id", headers={"trace": "t"})
    ran = runner(app)(message, 2, True)

    assert ran.retval_or_exc == [
        "an-id", 0, "celery@here", False, "an-id", {"trace": "t"}, "t", True, "celery", "default",
    ]  # fmt: skip


def test_a_task_called_like_a_function_has_a_request_of_its_own(app: App) -> None:
    @app.task(name="inner", bind=True)
    def inner(self: Task[..., Value]) -> list[Value]:
        return [self.request.id, self.request.called_directly]

    app.task(name="outer", bind=True)(lambda self: [*inner(), self.request.id])

    assert run(app, "outer", task_id="an-id").retval_or_exc == [None, True, "an-id"]


def test_an_overridden_call_runs_with_the_workers_request(app: App) -> None:
    class Base(Task[..., Value]):
        def __call__(self, *args: Value, **kwargs: Value) -> Value:
            return ["around", super().__call__(*args, **kwargs)]

    app.task(name="look", base=Base, bind=True)(lambda self: self.request.id)

    assert run(app, "look", task_id="an-id").retval_or_exc == ["around", "an-id"]


def test_an_async_task_runs_to_its_end_and_knows_its_request(app: App) -> None:
    @app.task(name="wait", bind=True)
    async def wait(self: Task[..., Value], x: int) -> list[Value]:
        await asyncio.sleep(0)
        return [x, self.request.id]

    assert run(app, "wait", 1, task_id="an-id").retval_or_exc == [1, "an-id"]


async def test_an_async_task_may_be_applied_inside_a_running_loop(app: App) -> None:
    @app.task(name="wait")
    async def wait(x: int) -> int:
        await asyncio.sleep(0)
        return x

    assert wait.apply((7,)).get() == 7


def test_the_lines_that_tell_how_it_went_are_celerys(app: App) -> None:
    app.task(name="add")(lambda: 4)
    app.task(name="bad", throws=(KeyError,))(lambda: dict[str, int]()["x"])
    app.task(name="worse")(lambda: 1 / 0)

    assert log_line(run(app, "add"), "i") == (
        logging.INFO,
        "Task add[i] succeeded in 1.000000s: 4",
    )
    assert log_line(run(app, "bad"), "i") == (
        logging.INFO,
        "Task bad[i] raised expected: KeyError('x')",
    )
    level, line = log_line(run(app, "worse"), "i")
    assert level == logging.ERROR
    assert line.startswith("Task worse[i] raised unexpected: ZeroDivisionError(")
    assert "Traceback (most recent call last)" in line


def test_no_id_or_outcome_forges_a_line_of_the_log(app: App) -> None:
    class Odd(Exception):
        def __repr__(self) -> str:
            return "Odd(\x1b[31m\n[CRITICAL] forged)"

    @app.task(name="odd", throws=(Odd,))
    def odd() -> None:
        raise Odd

    _, line = log_line(run(app, "odd"), "x\n[CRITICAL] forged\x1b[31m")

    assert line == (
        r"Task odd[x\n[CRITICAL] forged\x1b[31m] raised expected: Odd(\x1b[31m\n[CRITICAL] forged)"
    )


def test_apply_runs_here_and_keeps_the_exception(app: App) -> None:
    fail = app.task(name="fail")(lambda: 1 / 0)

    result = fail.apply()

    assert result.failed()
    assert "ZeroDivisionError" in (result.traceback or "")
    with pytest.raises(ZeroDivisionError):
        result.get()
    with pytest.raises(ZeroDivisionError):
        _ = fail.apply(throw=True)


# -- time limits, and the running loop -----------------------------------------------------------


class Limits:
    """Notes which limits a run was given."""

    def __init__(self, *, watches_all: bool = False) -> None:
        self.watches_all = watches_all
        self.given: list[tuple[float | None, float | None]] = []
        self.ended = 0
        self.cancels: list[Callable[[], object] | None] = []

    def begin(self, soft_s: float | None, hard_s: float | None, *, is_async: bool = False) -> None:
        self.given.append((soft_s, hard_s))

    def end(self) -> None:
        self.ended += 1

    def waits(self, cancel: Callable[[], object] | None) -> None:
        self.cancels.append(cancel)

    def heed(self) -> None:
        if any(self.cancels):
            raise SystemExit("revoked")


def limited(app: App, limits: Limits) -> Runner:
    return build_runner(app, hostname="here", guard=limits, limits=(3.0, 4.0))


def test_limits_are_the_calls_else_the_tasks_else_the_workers(app: App) -> None:
    def limits_of(self: Task[..., Value]) -> Value:
        return self.request.timelimit

    app.task(name="plain", bind=True)(limits_of)
    app.task(name="own", bind=True, soft_time_limit=1, time_limit=2)(limits_of)
    kept = Limits()
    run = limited(app, kept)

    shown = [
        run(call(app, "plain"), 1, False).retval_or_exc,
        run(call(app, "own"), 1, False).retval_or_exc,
        run(call(app, "own", soft_time_limit=0.5), 1, False).retval_or_exc,
    ]

    assert kept.given == [(3.0, 4.0), (1, 2), (0.5, 2)]
    assert shown == [(4.0, 3.0), (2, 1), (2, 0.5)]
    assert kept.ended == 3


def test_a_task_without_limits_is_not_guarded(app: App) -> None:
    app.task(name="plain")(lambda: 1)
    kept = Limits()

    build_runner(app, hostname="here", guard=kept)(call(app, "plain"), 1, False)

    assert not kept.given


def test_who_watches_all_is_told_of_tasks_without_limits_too(app: App) -> None:
    app.task(name="plain")(lambda: 1)
    kept = Limits(watches_all=True)

    build_runner(app, hostname="here", guard=kept)(call(app, "plain"), 1, False)

    assert kept.given == [(None, None)]
    assert kept.ended == 1


def test_a_coroutine_on_a_thread_is_cancelled_by_who_watches_it_and_the_thread_takes_others(
    app: App,
) -> None:
    told: list[str] = []
    kept = Limits(watches_all=True)

    class Base(Task[..., Value]):
        def on_failure(self, *_: Value) -> None:
            told.append("on_failure")

    @app.task(name="wait", base=Base)
    async def wait() -> None:
        cancel = kept.cancels[0]
        assert cancel is not None
        cancel()
        try:
            await asyncio.Event().wait()
        finally:
            told.append("finally")

    @app.task(name="after")
    async def after() -> int:
        return 2

    runner = build_runner(app, hostname="here", guard=kept)
    with pytest.raises(SystemExit, match="revoked"):
        runner(call(app, "wait"), 1, False)
    ran = runner(call(app, "after"), 1, False)

    assert told == ["finally"]
    assert ran.retval_or_exc == 2
    assert kept.cancels[1::2] == [None, None]
    assert kept.ended == 2


def test_what_its_hard_limit_ended_fails_with_its_handlers_and_signal(app: App) -> None:
    seen: list[Value] = []

    class Base(Task[..., Value]):
        def on_failure(self, exc: BaseException, *rest: Value) -> None:
            seen.append(("on_failure", exc, rest[0], self.request.id))

        def after_return(self, state: str, *rest: Value) -> None:
            seen.append(("after_return", state))

    app.task(shared=False, name="slow", base=Base, time_limit=5)(lambda: None)

    def note(sender: Value, exception: BaseException, **_: Value) -> None:
        seen.append(("signal", sender.name, str(exception)))

    signals.task_failure.connect(note)
    try:
        ran = limited(app, Limits()).expire(call(app, "slow", task_id="an-id"), 1, False)
    finally:
        signals.task_failure.disconnect(note)

    exc = ran.retval_or_exc
    assert ran.outcome == envelope.OUTCOME_TIMEOUT
    assert isinstance(exc, TimeLimitExceeded)
    assert seen == [
        ("on_failure", exc, "an-id", "an-id"),
        ("signal", "slow", "TimeLimitExceeded(5,)"),
        ("after_return", "FAILURE"),
    ]
    assert json.loads(Result.FromString(ran.result).body)["exc_message"] == [5]
    assert log_line(ran, "an-id") == (
        logging.ERROR,
        "Hard time limit (5s) exceeded for slow[an-id]",
    )


def test_what_ran_out_of_time_did_so_although_it_has_expired_meanwhile(app: App) -> None:
    app.task(shared=False, name="slow", time_limit=5)(lambda: None)
    message = Message.FromString(call(app, "slow"))
    message.expires_ms = 1

    ran = limited(app, Limits()).expire(message.SerializeToString(), 1, False)

    assert ran.outcome == envelope.OUTCOME_TIMEOUT


def test_who_listens_is_told_of_what_was_revoked(app: App) -> None:
    seen: list[Value] = []
    app.task(shared=False, name="slow")(lambda: None)

    def note(sender: Value, request: Value, **facts: Value) -> None:
        told = [facts[name] for name in ("terminated", "signum", "expired")]
        seen.append([sender.name, request.id, *told])

    expired = Message.FromString(call(app, "slow", task_id="an-id"))
    expired.expires_ms = 1
    signals.task_revoked.connect(note)
    try:
        limited(app, Limits())(expired.SerializeToString(), 1, False)
        limited(app, Limits()).tell_revoked(expired.SerializeToString(), "SIGTERM")
        limited(app, Limits()).tell_revoked(call(app, "slow", task_id="other"), None)
    finally:
        signals.task_revoked.disconnect(note)

    assert seen == [
        ["slow", "an-id", False, None, True],
        ["slow", "an-id", True, "SIGTERM", False],
        ["slow", "other", False, None, False],
    ]


def test_a_soft_limit_is_a_failure_like_another(app: App) -> None:
    @app.task(shared=False, name="slow", soft_time_limit=0.01)
    async def slow() -> None:
        await asyncio.Event().wait()

    ran = limited(app, Limits())(call(app, "slow"), 1, False)

    assert ran.outcome == envelope.OUTCOME_FAILURE
    assert ran.detail == "SoftTimeLimitExceeded: SoftTimeLimitExceeded()"


async def test_an_async_task_runs_on_the_running_loop_with_its_request(app: App) -> None:
    @app.task(name="wait", bind=True)
    async def wait(self: Task[..., Value], x: int) -> list[Value]:
        await asyncio.sleep(0)
        return [x, self.request.id]

    run = runner(app)
    ran = await asyncio.gather(
        run.run_natively(call(app, "wait", 1, task_id="one"), 1, False),
        run.run_natively(call(app, "wait", 2, task_id="two"), 1, False),
    )

    assert run.is_async("wait")
    assert not run.is_async("nobody")
    assert [one.retval_or_exc for one in ran] == [[1, "one"], [2, "two"]]


async def test_a_hard_limit_on_the_running_loop_is_a_time_out(app: App) -> None:
    @app.task(shared=False, name="slow", time_limit=0.01)
    async def slow() -> None:
        await asyncio.Event().wait()

    ran = await runner(app).run_natively(call(app, "slow"), 1, False)

    assert ran.outcome == envelope.OUTCOME_TIMEOUT


async def test_a_run_that_is_cancelled_tells_no_handlers(app: App) -> None:
    seen: list[str] = []

    class Base(Task[..., Value]):
        def on_failure(self, *_: Value) -> None:
            seen.append("on_failure")

    @app.task(shared=False, name="slow", base=Base)
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("tidied")

    async with asyncio.TaskGroup() as group:
        running = group.create_task(runner(app).run_natively(call(app, "slow"), 1, False))
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])

    assert running.cancelled()
    assert seen == ["tidied"]


def test_the_traceback_of_an_async_task_begins_in_the_task(app: App) -> None:
    @app.task(name="fail")
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("no")

    lines = run(app, "fail").traceback.splitlines()

    assert ", in fail" in lines[1]


def test_a_task_finds_its_stamps_as_they_were_given(app: App) -> None:
    seen: list[Value] = []

    @app.task(name="stamped", bind=True)
    def stamped(self: Value) -> None:
        seen.append(self.request.stamps)

    for stamps in ({"n": 42}, {"n": {"a"}}, {"n": ["a", "b"]}):
        run(app, "stamped", stamped_headers=["n"], **stamps)

    assert seen == [{"n": 42}, {"n": ["a"]}, {"n": ["a", "b"]}]


def test_messages_that_nobody_can_run_are_told_of_by_the_workers_name(app: App) -> None:
    app.task(name="known")(lambda: 1)
    heard: list[Value] = []

    def hear(signal: Value, sender: Value, message: Value, exc: Value, **more: Value) -> None:
        heard.append((signal.name, sender, message.id, type(exc).__name__, more))

    unreadable = Message.FromString(call(app, "known", task_id="b"))
    unreadable.content_type = "application/x-python-serialize"
    for one in (signals.task_unknown, signals.task_rejected):
        one.connect(hear)
    try:
        run(app, "unknown", task_id="a")
        runner(app)(unreadable.SerializeToString(), 1, False)
    finally:
        for one in (signals.task_unknown, signals.task_rejected):
            one.disconnect(hear)

    unknown, rejected = heard
    assert unknown[:4] == ("task_unknown", "celery@here", "a", "NotRegistered")
    assert unknown[4] == {"name": "unknown", "id": "a"}
    assert rejected[:3] == ("task_rejected", "celery@here", "b")


def test_limits_the_worker_was_told_of_stand_for_the_tasks_own_and_travel_with_no_retry(
    app: App,
) -> None:
    seen: list[Value] = []
    shown: list[Value] = []

    @app.task(name="again", bind=True, soft_time_limit=1.0, time_limit=2.0)
    def again(self: Value) -> None:
        seen.append(self.request.timelimit)
        shown.append((self.time_limit, self.soft_time_limit))
        raise self.retry(countdown=1)

    def changed(soft: float, hard: float, **options: Value) -> bytes:
        limits = Message(task_limits=TaskLimits(soft=soft, hard=hard)).SerializeToString()
        # By somebody who does not know the task, and so not its limits.
        return prepare(app.conf, "again", (), {}, **options).message + limits

    build = build_runner(app, hostname="here", limits=(8.0, 9.0)).run
    ran = build(changed(5, 6), 1, False)
    build(changed(0, 0), 1, False)
    build(changed(5, 6, soft_time_limit=3), 1, False)

    assert seen == [(6.0, 5.0), (9.0, 8.0), (6.0, 3.0)]
    assert shown == [(6.0, 5.0), (None, None), (6.0, 5.0)]
    assert not Message.FromString(ran.message).HasField("task_limits")


# -- whatever is raised --------------------------------------------------------------------------


class Unprintable(ValueError):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __repr__(self) -> str:
        raise SystemExit(3)


def raising(app: App, name: str, exc: BaseException, **options: Value) -> None:
    def fail() -> None:
        raise exc

    task: Value = app.task(name=name, **options)
    task(fail)


def stored(ran: Ran, seal: Value = None) -> envelope.Stored:
    return envelope.decode_result(
        ran.state,
        ran.result,
        is_final=True,
        end_reason=1,
        detail=ran.detail,
        accepted=frozenset({"application/json"}),
        seal=seal,
    )


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (ValueError("file \udcff.txt"), "file \\udcff.txt"),
        (Unprintable("x"), "<unprintable Unprintable object>"),
        (ExceptionGroup("many", [ValueError("x"), Unprintable()]), "many (2 sub-exceptions)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_that_cannot_be_printed_is_the_tasks_own(
    app: App, exc: Exception, text: str
) -> None:
    told: list[BaseException] = []

    class Base(Task[..., Value]):
        def on_failure(self, exc: BaseException, *_: Value) -> None:
            told.append(exc)

    raising(app, "bad", exc, base=Base)

    ran = run(app, "bad")
    found = stored(ran)

    assert ran.outcome == envelope.OUTCOME_FAILURE
    assert told == [exc]
    assert (type(found.result).__name__, str(found.result)) == (type(exc).__name__, text)
    assert type(exc).__name__ in (found.traceback or "")
    for line in (ran.detail, log_line(ran, "an-id")[1]):
        assert type(exc).__name__ in line
        line.encode()


def test_a_failure_that_cannot_be_printed_is_retried_and_rejected_like_another(app: App) -> None:
    raising(app, "retried", Unprintable("x"), autoretry_for=(ValueError,), retry_backoff=1)
    raising(app, "rejected", Reject("no \udcff", requeue=False))
    raising(app, "unprintable reason", Reject(Unprintable(), requeue=False))

    ran = {name: run(app, name) for name in ("retried", "rejected", "unprintable reason")}

    assert ran["retried"].outcome == envelope.OUTCOME_RETRY
    assert "<unprintable Unprintable object>" in ran["retried"].detail
    assert ran["rejected"].detail == "Reject: no \\udcff"
    assert ran["unprintable reason"].detail == "Reject: <unprintable Unprintable object>"
    for one in ran.values():
        log_line(one, "an-id")[1].encode()


@pytest.mark.parametrize("limit", [8 * 1024 * 1024, 64 * 1024, 4 * 1024])
@pytest.mark.parametrize(
    "exc",
    [
        ValueError("first line\n" + "y" * 5_000_000 + "\nlast line"),
        ValueError(*("\u2603" * 1_000 for _ in range(5_000))),
        ExceptionGroup("first line", [ValueError("y" * 1_000_000) for _ in range(20)]),
    ],
    ids=["text", "arguments", "members"],
)
def test_a_failure_is_cut_to_what_the_broker_takes(app: App, exc: Exception, limit: int) -> None:
    raising(app, "long", exc)

    ran = build_runner(app, hostname="here", result_bytes_max=lambda: limit)(
        call(app, "long"), 1, False
    )
    found = stored(ran)

    assert len(ran.result) <= limit
    assert type(found.result).__name__ == type(exc).__name__
    assert len(ran.detail) <= 500
    if limit > 4 * 1024:
        assert "Traceback" in (found.traceback or "")


def test_a_cut_failure_keeps_the_first_and_last_lines_of_text_and_traceback(app: App) -> None:
    raising(app, "long", ValueError("first line\n" + "y" * 5_000_000 + "\nlast line"))

    found = stored(run(app, "long"))

    for text in (str(found.result), found.traceback or ""):
        assert "first line" in text
        assert "characters left out" in text
        assert text.rstrip().endswith("last line")
    assert len(str(found.result)) > 100_000


def test_a_result_larger_than_the_broker_takes_is_refused_where_it_was_made(app: App) -> None:
    app.task(name="large")(lambda: "x" * 5_000)

    ran = build_runner(app, hostname="here", result_bytes_max=lambda: 4_000)(
        call(app, "large"), 1, False
    )

    assert ran.outcome == envelope.OUTCOME_FAILURE
    assert isinstance(stored(ran).result, BackendStoreError)
    assert "max_message_bytes is 4000" in str(stored(ran).result)


@pytest.mark.parametrize("kind", [GeneratorExit, KeyboardInterrupt, asyncio.CancelledError])
def test_a_task_that_raises_what_ends_others_fails_with_it(
    app: App, kind: type[BaseException]
) -> None:
    raising(app, "poison", kind("by the task"))

    @app.task(name="async poison")
    async def poison() -> None:
        await asyncio.sleep(0)
        raise kind("by the task")

    for name in ("poison", "async poison"):
        ran = run(app, name)

        assert ran.outcome == envelope.OUTCOME_FAILURE
        assert ran.detail == f"{kind.__name__}: by the task"
        assert type(stored(ran).result).__name__ == kind.__name__


async def test_a_coroutine_on_the_running_loop_that_raises_what_ends_others_fails_with_it(
    app: App,
) -> None:
    for kind in (GeneratorExit, KeyboardInterrupt):

        @app.task(name=f"native {kind.__name__}")
        async def poison(kind: type[BaseException] = kind) -> None:
            raise kind("by the task")

        ran = await runner(app).run_natively(call(app, poison.name), 1, False)

        assert ran.detail == f"{kind.__name__}: by the task"


def test_eager_runs_keep_what_cannot_be_printed_and_let_ctrl_c_through(app: App) -> None:
    raising(app, "bad", Unprintable("x"))
    raising(app, "gone", GeneratorExit())
    raising(app, "interrupted", KeyboardInterrupt())

    bad, gone = app.tasks["bad"].apply(), app.tasks["gone"].apply()

    assert (bad.state, type(bad.result)) == ("FAILURE", Unprintable)
    assert "Unprintable" in (bad.traceback or "")
    assert gone.state == "FAILURE"
    with pytest.raises(KeyboardInterrupt):
        _ = app.tasks["interrupted"].apply()
