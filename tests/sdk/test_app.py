"""Apps: lazy tasks, names, settings, and the calls they send."""

import datetime as dt
import threading
import uuid

import pytest

from qbroker import App, Celery, Task, _state, current_app, shared_task, signals
from qbroker.app.base import TaskRegistry
from qbroker.app.pipeline import CALLS_MIN
from qbroker.exceptions import (
    AlwaysEagerIgnored,
    DuplicateTaskNameWarning,
    ImproperlyConfigured,
    InvalidTaskError,
    LimitExceeded,
    MessageRefused,
    NotRegistered,
    OperationalError,
)
from qbroker.local import PromiseProxy
from qbroker.serialization import Value
from qbroker_proto.v1.message_pb2 import ACK_POLICY_LATE, Message
from qbroker_proto.v1.producer_pb2 import REFUSAL_CODE_INVALID, Refusal
from tests.sdk.conftest import MakeApp
from tests.sdk.fake_broker import FakeBroker


def _add(x: int, y: int = 1) -> int:
    return x + y


def test_a_declared_task_is_a_promise_until_it_is_used(make_app: MakeApp) -> None:
    app = make_app()

    add = app.task(_add)

    promise: Value = add
    assert type(promise) is PromiseProxy
    assert not promise.__evaluated__()
    assert repr(add) == f"<@task: {__name__}._add of proj at {id(app):#x}>"
    assert promise.__evaluated__()
    assert isinstance(add, Task)


def test_asking_for_the_tasks_finalizes_the_app(make_app: MakeApp) -> None:
    app = make_app()
    add = app.task(name="add")(_add)

    assert app.tasks["add"] == add
    assert app.finalized


def test_without_autofinalize_a_task_cannot_be_used_before_finalize(make_app: MakeApp) -> None:
    app = make_app(autofinalize=False)
    add = app.task(_add)

    with pytest.raises(RuntimeError, match="Contract breach: app not finalized"):
        add.name  # noqa: B018 - the look is the use
    app.finalize()
    assert add.name.endswith("_add")


def test_the_main_module_is_called_by_the_apps_name(make_app: MakeApp) -> None:
    app = make_app("proj")

    assert app.gen_task_name("add", "__main__") == "proj.add"
    assert app.gen_task_name("add", "proj.tasks") == "proj.tasks.add"


def test_a_shared_task_belongs_to_every_app_and_answers_for_the_current_one(
    make_app: MakeApp,
) -> None:
    task = shared_task(name="shared.add")(_add)
    first, second = make_app("first"), make_app("second")

    assert first.tasks["shared.add"] is not second.tasks["shared.add"]
    assert task.app is second
    first.set_current()
    assert task.app is first


def test_each_thread_has_its_own_current_app_and_others_get_the_default(make_app: MakeApp) -> None:
    app = make_app()
    seen: list[Value] = []

    thread = threading.Thread(target=lambda: seen.append(_state.get_current_app()))
    thread.start()
    thread.join()

    assert current_app.main == app.main
    assert seen[0] is not app


def test_threads_that_race_for_a_task_get_the_same_one(make_app: MakeApp) -> None:
    add = make_app().task(_add)
    barrier = threading.Barrier(8)
    seen: list[int] = []

    def look() -> None:
        barrier.wait()
        seen.append(id(add._get_current_object()))  # type: ignore[attr-defined] # a proxy at run time

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(seen) == 8
    assert len(set(seen)) == 1


def test_a_class_is_registered_by_its_place(make_app: MakeApp) -> None:
    app = make_app()

    class Add(app.Task):  # type: ignore[name-defined, misc] # made at run time
        def run(self, x: int) -> int:
            return x

    task = app.register_task(Add())

    assert task.name == f"{__name__}.Add"
    assert app.tasks[task.name] is task
    assert task.app is app


def test_an_app_shows_its_class_main_name_and_address(make_app: MakeApp) -> None:
    app = make_app("proj")

    assert repr(app) == f"<App proj at {id(app):#x}>"
    assert Celery is App


def test_on_init_is_called_when_the_app_is_made() -> None:
    class Own(App):
        def on_init(self) -> None:
            self.was_called = self.conf.task_default_queue

    with Own("own", set_as_current=False) as app:
        assert app.was_called == "celery"


# -- settings


def test_both_spellings_of_a_setting_are_one(make_app: MakeApp) -> None:
    app = make_app(CELERY_RESULT_BACKEND="qbroker://")

    app.conf.update(BROKER_URL="qbroker://elsewhere:1", CELERY_ACKS_LATE="yes")

    assert app.conf.result_backend == app.conf["CELERY_RESULT_BACKEND"] == "qbroker://"
    assert app.conf.broker_url == "qbroker://elsewhere:1"
    assert app.conf.task_acks_late is True


def test_the_broker_is_taken_from_argument_then_configuration_then_environment(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QBROKER_URL", "qbroker://env:1")
    source = {"broker_url": "qbroker://conf:1"}

    assert make_app().conf.broker_url == "qbroker://env:1"
    assert make_app(config_source=source).conf.broker_url == "qbroker://conf:1"
    assert make_app(config_source=source, broker="qbroker://arg:1").conf.broker_url == (
        "qbroker://arg:1"
    )


def test_a_setting_of_the_wrong_type_is_refused_with_its_name(make_app: MakeApp) -> None:
    with pytest.raises(ImproperlyConfigured, match="worker_concurrency must be a whole number"):
        make_app(worker_concurrency="many")


def test_a_broker_of_another_kind_is_refused(make_app: MakeApp) -> None:
    with pytest.raises(ImproperlyConfigured, match="'redis'"):
        make_app(broker="redis://localhost").client()


# -- calls


def sent(broker: FakeBroker, task_id: str) -> Message:
    return broker.messages[task_id]


def test_a_calls_options_win_over_the_task_and_the_task_over_settings(
    app: App, broker: FakeBroker
) -> None:
    app.conf.update(task_default_queue="setting", task_acks_late=True)
    plain = app.task(name="plain")(_add)
    own = app.task(name="own", queue="task", priority=3)(_add)

    from_setting = sent(broker, plain.delay(1).id)
    from_task = sent(broker, own.delay(1).id)
    from_call = sent(broker, own.apply_async((1,), queue="call", priority=9).id)

    assert (from_setting.queue, from_setting.ack_policy) == ("setting", ACK_POLICY_LATE)
    assert (from_task.queue, from_task.priority) == ("task", 3)
    assert (from_call.queue, from_call.priority) == ("call", 9)


def test_times_travel_as_unix_milliseconds(app: App, broker: FakeBroker) -> None:
    add = app.task(name="add")(_add)
    moment = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)

    message = sent(
        broker, add.apply_async((1,), eta=moment, expires=moment.replace(tzinfo=None)).id
    )

    assert message.eta_ms == message.expires_ms == int(moment.timestamp() * 1000)


def test_without_a_backend_no_result_is_asked_for(broker: FakeBroker, make_app: MakeApp) -> None:
    app = make_app(broker=broker.url)
    result = app.task(name="add")(_add).delay(1)

    assert sent(broker, result.id).ignore_result
    with pytest.raises(NotImplementedError, match="No result backend is configured"):
        result.get()


def test_an_option_nobody_knows_is_refused(app: App) -> None:
    add = app.task(name="add")(_add)

    with pytest.raises(TypeError, match="cuontdown"):
        _ = add.apply_async((1,), cuontdown=3)


def test_a_message_that_is_too_large_is_refused_here(app: App, broker: FakeBroker) -> None:
    app.conf.task_message_bytes_max = 1_000

    with pytest.raises(LimitExceeded, match=r"the limit is 1000 .*task_message_bytes_max"):
        _ = app.send_task("big", ("x" * 1_000,))
    assert not broker.messages


def test_what_the_broker_refuses_is_raised_with_its_reason(app: App, broker: FakeBroker) -> None:
    broker.judge = lambda message: (
        Refusal(code=REFUSAL_CODE_INVALID, reason="no such luck") if message.task == "bad" else None
    )

    with pytest.raises(MessageRefused, match="no such luck") as caught:
        app.send_many([("good",), ("bad", (), {}, {"task_id": "the-bad-one"}), ("good",)])

    assert caught.value.task_id == "the-bad-one"
    assert len(broker.messages) == 2


def test_send_many_goes_in_few_requests_and_keeps_the_order(app: App, broker: FakeBroker) -> None:
    add = app.task(name="add")(_add)

    results = app.send_many([add.s(1), (add, (2,)), *(("add", (n,)) for n in range(3, 2_501))])

    assert [result.get(timeout=5) for result in results[:3]] == [1, 2, 3]
    assert len(results) == len(broker.messages) == 2_500
    # However quick the broker is, so many leave together at least.
    assert len(broker.requests) <= 2_500 // CALLS_MIN


def test_a_pipeline_confirms_at_its_end(app: App, broker: FakeBroker) -> None:
    add = app.task(name="add")(_add)

    with app.pipeline():
        results = [add.delay(n) for n in range(10)]
        before = len(broker.messages)

    assert before == 0
    assert {result.id for result in results} == set(broker.messages)
    assert len(broker.requests) == 1


def test_a_receiver_of_before_task_publish_may_add_headers(app: App, broker: FakeBroker) -> None:
    def trace(headers: dict[str, Value], **_: Value) -> None:
        headers["traceparent"] = "00-1"

    after: list[Value] = []

    def note(sender: Value, headers: dict[str, Value], **_: Value) -> None:
        after.append((sender, headers["id"]))

    signals.before_task_publish.connect(trace)
    signals.after_task_publish.connect(note)
    try:
        result = app.send_task("add", (1,))
    finally:
        signals.before_task_publish.disconnect(trace)
        signals.after_task_publish.disconnect(note)

    assert sent(broker, result.id).headers == '{"traceparent": "00-1"}'
    assert after == [("add", result.id)]


def test_a_broker_that_is_not_there_is_an_error_with_its_url(make_app: MakeApp) -> None:
    absent = FakeBroker().start()
    absent.stop()
    app = make_app(broker=absent.url, backend="qbroker://", broker_connection_timeout=0.3)

    with pytest.raises(OperationalError, match=absent.url):
        _ = app.send_task("add", (1,))
    with pytest.raises(OperationalError, match=absent.url):
        app.AsyncResult("x").state  # noqa: B018 - the look asks the broker


def test_an_unknown_task_is_not_registered(make_app: MakeApp) -> None:
    with pytest.raises(NotRegistered, match="nothing"):
        make_app().tasks["nothing"]


def test_always_eager_runs_tasks_where_they_are_called(make_app: MakeApp) -> None:
    app = make_app(task_always_eager=True, broker="qbroker://127.0.0.1:1")

    assert app.task(_add).delay(2, 3).get() == 5


def test_worker_main_wants_the_sub_command(make_app: MakeApp) -> None:
    with pytest.raises(ValueError, match="worker sub-command must be specified"):
        make_app().worker_main(["-l", "INFO"])


async def test_asyncio_programs_call_and_wait_without_blocking(
    app: App, broker: FakeBroker
) -> None:
    add = app.task(name="add")(_add)

    result = await add.adelay(4)

    assert await result == 4
    assert await (await add.aapply_async((5,))).aget(timeout=3) == 5
    assert broker.streams_opened == 1


def test_a_call_by_name_goes_to_the_broker_and_says_so_where_calls_are_eager(app: App) -> None:
    app.conf.update(task_always_eager=True, task_store_eager_result=True)

    with pytest.warns(AlwaysEagerIgnored, match="has no effect on send_task"):
        result = app.send_task("add", (4,))

    assert result.get(timeout=5) == 4


def test_tasks_are_registered_and_removed_by_hand(app: App) -> None:
    class Hello(Task[..., Value]):
        name = "hello"

    class Nameless(Task[..., Value]):
        pass

    app.tasks.register(Hello)

    assert isinstance(app.tasks["hello"], Hello)
    assert "hello" in app.tasks.regular()
    assert app.tasks.periodic() == {}
    app.tasks.unregister(app.tasks["hello"])
    with pytest.raises(app.tasks.NotRegistered):
        app.tasks.unregister("hello")
    with pytest.raises(InvalidTaskError, match="'Nameless' must specify"):
        app.tasks.register(Nameless)


def test_an_app_tells_apart_the_task_that_is_run_and_the_one_it_calls(app: App) -> None:
    seen: list[Value] = []

    @app.task(name="inner")
    def inner() -> None:
        seen.extend([app.current_task, app.current_worker_task])

    @app.task(name="outer")
    def outer() -> None:
        inner()

    _ = outer.apply()
    inner()

    assert [getattr(task, "name", None) for task in seen] == ["inner", "outer", "inner", None]
    assert app.current_worker_task is None


def test_a_registered_task_that_replaces_another_is_warned_of(app: App) -> None:
    class First(Task[..., Value]):
        name = "same"

    class Second(Task[..., Value]):
        name = "same"

    app.register_task(First)
    app.register_task(First())
    with pytest.warns(
        DuplicateTaskNameWarning,
        match=r"(?s)Existing: .*First\nNew: .*Second\n.*replaced the existing one",
    ):
        app.register_task(Second)

    assert type(app.tasks["same"]) is Second


def test_an_app_has_an_id_and_each_thread_of_it_another(make_app: MakeApp) -> None:
    app, other = make_app(), make_app()
    elsewhere: list[str] = []
    thread = threading.Thread(target=lambda: elsewhere.extend((app.oid, app.thread_oid)))

    thread.start()
    thread.join()

    assert len({app.oid, other.oid, app.thread_oid, *elsewhere}) == 4
    assert (elsewhere[0], app.oid, app.thread_oid) == (app.oid, app.oid, app.thread_oid)
    assert str(uuid.UUID(app.oid)) == app.oid


def test_a_duplicate_name_is_warned_of_once_at_the_line_of_the_program(make_app: MakeApp) -> None:
    app = make_app(autofinalize=True)
    app.finalize()

    def first() -> None: ...

    def second() -> None: ...

    app.task(name="same", shared=False)(first)
    with pytest.warns(DuplicateTaskNameWarning) as told:
        app.task(name="same", shared=False)(second)
    app.task(name="same", shared=False)(second)  # a second warning would be an error here

    assert [warning.filename for warning in told] == [__file__]
    here = f"{__name__}.test_a_duplicate_name_is_warned_of_once_at_the_line_of_the_program.<locals>"
    assert str(told[0].message) == (
        "Task name 'same' is already registered to a different callable.\n\n"
        f"Existing: {here}.first\nNew:      {here}.second\n\n"
        "The new callable was not registered; calls under this name reach the callable registered "
        "first.\n\nEvery task must have a unique name. Pass an explicit name= to the task decorator, "
        "or rename one of the callables."
    )


def test_a_registry_of_tasks_is_used_as_it_is(make_app: MakeApp) -> None:
    registry = TaskRegistry()

    app = make_app(tasks=registry)

    assert app.tasks is registry


def test_a_second_unnamed_periodic_task_of_the_same_call_is_warned_of(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()
    sig = app.signature("tick")

    app.add_periodic_task(1.0, sig)
    app.add_periodic_task(2.0, sig, name="named")
    assert "shadowed" not in caplog.text
    app.add_periodic_task(3.0, sig)

    assert "shadowed a previous unnamed periodic task" in caplog.text
