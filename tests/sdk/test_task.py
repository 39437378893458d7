"""Tasks as callers see them: argument checks in Python's own words."""

import pytest

from qbroker import App, Task
from qbroker.serialization import Value
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
    task = app.task(name="own")(lambda: None)

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
    plain = real_app.task(name="plain")(lambda: 1)

    sent = once.apply_async((), once=True)

    assert real_app.AsyncResult(sent.id).exists()
    assert once.apply_async((), once=False) == "proj"
    with pytest.raises(TypeError, match="unknown options: once"):
        _ = plain.apply_async((), once=True)


def test_a_test_gives_a_request_to_what_it_runs_itself(app: App) -> None:
    @app.task(bind=True)
    def show(self: Task[..., Value]) -> tuple[Value, ...]:
        request = self.request
        return request.id, request.retries, request.called_directly, request.tenant

    show.push_request(id="i", retries=2, called_directly=False, headers={"tenant": 7})
    inside = show.run()
    show.push_request(retries=3)
    nested = show.run()
    popped = show.pop_request()
    show.pop_request()

    assert inside == ("i", 2, False, 7)
    assert nested == ("i", 3, False, 7)
    assert popped.retries == 3
    assert show.request.id is None
    with pytest.raises(IndexError, match="no request was pushed"):
        show.pop_request()


def test_the_empty_request_outside_of_a_run_is_the_tasks_own(app: App) -> None:
    one, other = app.task(name="one")(lambda: 1), app.task(name="other")(lambda: 2)

    one.request.id = "mine"

    assert (one.request.id, other.request.id) == ("mine", None)
