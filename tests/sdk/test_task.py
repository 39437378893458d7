"""Tasks as callers see them: argument checks in Python's own words."""

import pytest

from qbroker import App, Task, signals
from qbroker.app.sending import prepare
from qbroker.exceptions import Retry
from qbroker.serialization import Value
from qbroker_proto.v1.message_pb2 import Message
from tests.sdk.conftest import MakeApp


@pytest.fixture
def app(make_app: MakeApp) -> App:
    return make_app(broker="qbroker://127.0.0.1:1")


def add(x: int, y: int = 1, *, k: int) -> None: ...


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((1,), {}, "add() missing 1 required keyword-only argument: 'k'"),
        ((), {"k": 1}, "add() missing 1 required positional argument: 'x'"),
        ((1,), {"k": 1, "z": 1}, "add() got an unexpected keyword argument 'z'"),
        (
            (1, 2, 3),
            {"k": 1},
            (
                "add() takes from 1 to 2 positional arguments but 3 positional arguments "
                "(and 1 keyword-only argument) were given"
            ),
        ),
    ],
)
def test_wrong_arguments_are_a_type_error_at_the_call(
    app: App, args: tuple[Value, ...], kwargs: dict[str, Value], text: str
) -> None:
    task = app.task(add)

    with pytest.raises(TypeError) as caught:
        _ = task.apply_async(args, kwargs)

    assert str(caught.value) == text


def test_a_bound_task_counts_itself_as_python_does(app: App) -> None:
    @app.task(bind=True)
    def bound(self: Value, x: int, y: int) -> None: ...

    with pytest.raises(TypeError, match=r"bound\(\) missing 1 required positional argument: 'y'"):
        _ = bound.delay(1)  # type: ignore[call-arg] # the error is what is tested


def test_without_typing_arguments_are_checked_where_it_runs(make_app: MakeApp) -> None:
    lenient = make_app(strict_typing=False, task_always_eager=True).task(add)

    result = lenient.apply_async((), {})

    assert isinstance(result.result, TypeError)


def test_a_signature_merges_what_comes_later(app: App) -> None:
    task = app.task(name="add")(lambda *args, **kwargs: (args, kwargs))
    partial = task.signature((2,), {"k": 1}, queue="a")

    clone = partial.clone((1,), {"k": 2}, queue="b")

    assert (clone.args, clone.kwargs, clone.options) == ((1, 2), {"k": 2}, {"queue": "b"})
    assert (partial.args, partial.kwargs, partial.options) == ((2,), {"k": 1}, {"queue": "a"})
    assert clone() == ((1, 2), {"k": 2})
    assert task.si(2).clone((1,)).args == (2,)
    assert repr(clone) == "add(1, 2, k=2)"


def test_options_of_the_decorator_are_attributes(app: App) -> None:
    task = app.task(name="own", max_retries=9, queue="q", acks_late=True)(add)

    assert (task.max_retries, task.queue, task.acks_late) == (9, "q", True)
    assert task.ignore_result is False


def test_soft_limits_beyond_hard_ones_are_refused(app: App) -> None:
    task = app.task(shared=False, name="own")(lambda: None)

    with pytest.raises(ValueError, match="soft_time_limit must be less than or equal"):
        _ = task.apply_async(time_limit=1, soft_time_limit=2)


def test_a_class_with_an_apply_async_of_its_own_may_have_options_of_its_own(
    real_app: App,
) -> None:
    class Once(Task[..., Value]):
        def apply_async(self, *args: Value, **options: Value) -> Value:
            app = self._get_app()
            return super().apply_async(*args, **options) if options["once"] else app.main

    once = real_app.task(name="once", base=Once)(lambda: 1)
    plain = real_app.task(shared=False, name="plain")(lambda: 1)

    sent = once.apply_async((), once=True)

    assert real_app.AsyncResult(sent.id).exists()
    assert once.apply_async((), once=False) == "proj"
    with pytest.raises(TypeError, match="unknown options: once"):
        _ = plain.apply_async((), once=True)


def test_the_empty_request_outside_of_a_run_is_the_tasks_own(app: App) -> None:
    one, other = app.task(name="one")(lambda: 1), app.task(name="other")(lambda: 2)

    one.request.id = "mine"

    assert (one.request.id, other.request.id) == ("mine", None)


def test_a_body_can_be_tried_with_a_request_of_ones_own(app: App) -> None:
    @app.task(bind=True, name="who")
    def who(self: Value) -> Value:
        return self.request.id, self.request.retries

    who.push_request(id="mine", retries=2)

    assert who.run() == ("mine", 2)
    assert who.request_stack.top is who.request
    assert len(who.request_stack) == 1
    popped = who.pop_request()
    assert popped is not None
    assert popped.id == "mine"
    assert (who.request.id, who.pop_request()) == (None, None)


def test_requests_of_several_tasks_are_popped_in_any_order(app: App) -> None:
    one, two = app.task(name="one")(add), app.task(name="two")(add)
    one.push_request(id="1")
    two.push_request(id="2")

    one.pop_request()

    assert (one.request.id, two.request.id) == (None, "2")
    assert [request.id for request in two.request_stack.stack] == ["2"]
    two.pop_request()
    assert two.request.id is None


def test_a_pushed_request_says_what_it_was_given_of_everything(app: App) -> None:
    task = app.task(name="task")(add)
    task.push_request(delivery_info={"routing_key": "mail"}, timelimit=(10, 5), children=["child"])
    request = task.request
    task.pop_request()

    assert request.delivery_info == {"routing_key": "mail"}
    assert (request.time_limit, request.soft_time_limit) == (10, 5)
    assert request.children == ["child"]


def test_a_tasks_backend_is_its_apps(app: App) -> None:
    assert app.task(name="task")(add).backend is app.backend


def test_what_is_run_right_here_knows_its_stamps(app: App) -> None:
    @app.task(bind=True, name="stamped")
    def stamped(self: Value) -> Value:
        return self.request.stamped_headers, self.request.stamps

    signature = stamped.s()
    signature.stamp(customer="acme")

    assert signature.apply().get() == (["customer"], {"customer": ["acme"]})
    assert stamped.apply().get() == (None, None)


def test_a_task_says_by_which_name_its_calls_are_shown(real_app: App) -> None:
    def shown(task: Value, args: Value, kwargs: Value, options: Value) -> str:
        return f"{task.name} of {args[0]}"

    @real_app.task(name="apply", shadow_name=shown)
    def apply(what: str) -> None: ...

    seen: list[Value] = []

    def publishing(headers: Value, **_: Value) -> None:
        seen.append(headers["shadow"])

    signals.before_task_publish.connect(publishing)
    _ = apply.delay("mail")
    _ = apply.apply_async(("mail",), shadow="letters")
    signals.before_task_publish.disconnect(publishing)

    assert seen == ["apply of mail", "letters"]


def test_a_body_that_is_tried_with_a_request_is_tried_again_as_in_a_worker(real_app: App) -> None:
    @real_app.task(bind=True, name="again", max_retries=3)
    def again(self: Value, x: int) -> None:
        raise self.retry(countdown=60)

    again.push_request(
        id="mine", args=(1,), kwargs={}, retries=1, called_directly=False, delivery_info={}
    )
    try:
        with pytest.raises(Retry):
            again.run(1)
    finally:
        again.pop_request()

    (sent,) = real_app.client().list_tasks(queue="celery").tasks
    assert (sent.id, sent.task) == ("mine", "again")


def test_a_task_without_time_limits_of_its_own_shows_those_of_the_settings() -> None:
    app = App("limits", set_as_current=False, task_time_limit=20, task_soft_time_limit=10)
    plain = app.task(shared=False, name="plain")(lambda: None)
    own = app.task(shared=False, name="own", time_limit=5, soft_time_limit=None)(lambda: None)

    shown = [(one.time_limit, one.soft_time_limit) for one in (plain, own)]
    app.conf.task_time_limit = 30
    own.time_limit = 6

    assert shown == [(20, 10), (5, 10)]
    assert (plain.time_limit, own.time_limit) == (30, 6)


def test_a_call_carries_a_tasks_own_time_limits_and_not_those_of_the_settings() -> None:
    app = App("limits", set_as_current=False, task_time_limit=20, task_soft_time_limit=10)
    plain = app.task(shared=False, name="plain")(lambda: None)
    own = app.task(shared=False, name="own", time_limit=5)(lambda: None)

    calls = [prepare(app.conf, one.name, (), {}, task_type=one) for one in (plain, own)]

    found = [Message.FromString(call.message) for call in calls]
    assert [(one.time_limit, one.soft_time_limit) for one in found] == [(0, 0), (5, 0)]


def test_an_eager_request_has_the_time_limits_of_its_task() -> None:
    app = App("limits", set_as_current=False, task_time_limit=20)

    @app.task(shared=False, name="plain", bind=True, soft_time_limit=5)
    def plain(self: Value) -> Value:
        return self.request.timelimit

    assert plain.apply().get() == (20, 5)
