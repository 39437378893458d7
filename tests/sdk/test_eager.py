"""Eager mode stands for messages: what goes through the serializer, what is kept, and what this process cannot run."""

from collections.abc import Callable

import pytest

from qbroker import App, chain, chord, group
from qbroker.exceptions import EncodeError, NotRegistered
from qbroker.serialization import Value
from qbroker.testing import LocalBroker
from tests.sdk.conftest import MakeApp


class Bench:
    """Tasks that answer what they get, and what they got."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.got: list[Value] = []

        @app.task(name="eager.echo", shared=False, typing=False)
        def echo(*args: Value, **kwargs: Value) -> Value:
            self.got.append((args, kwargs))
            return args[0] if args else None

        @app.task(name="eager.pair", shared=False)
        def pair() -> Value:
            return 1, 2

        @app.task(name="eager.thing", shared=False)
        def thing() -> Value:
            return object()

        @app.task(name="eager.again", bind=True, shared=False)
        def again(self_: Value, value: Value) -> Value:
            self.got.append(value)
            if not self_.request.retries:
                raise self_.retry(args=((3, 4),), countdown=0)
            return value

        @app.task(name="eager.nested", shared=False)
        def nested() -> Value:
            return echo.apply(((1, 2),)).get()

        @app.task(name="eager.boom", shared=False)
        def boom(value: Value) -> None:
            raise ValueError(value)

        self.echo: Value = echo
        self.pair: Value = pair
        self.thing: Value = thing
        self.again: Value = again
        self.nested: Value = nested
        self.boom: Value = boom


@pytest.fixture
def bench(make_app: MakeApp) -> Bench:
    return Bench(make_app(task_always_eager=True, accept_content=["json", "pickle", "yaml"]))


CALLS: dict[str, Callable[[Bench, Value], Value]] = {
    "delay": lambda b, x: b.echo.delay(x),
    "apply_async": lambda b, x: b.echo.apply_async((x,)),
    "a keyword": lambda b, x: b.echo.apply_async(kwargs={"x": x}),
    "a signature": lambda b, x: b.echo.s(x).delay(),
    "a chain": lambda b, x: chain(b.echo.s(x), b.echo.s())(),
    "a later step": lambda b, x: (b.echo.s(1) | b.echo.s(x)).apply_async(),
    "a group": lambda b, x: group(b.echo.s(x), b.echo.s(1))(),
    "a header": lambda b, x: chord([b.echo.s(x)], b.echo.s())(),
    "a body": lambda b, x: chord([b.echo.s(1)], b.echo.s(x))(),
    "a callback": lambda b, x: b.echo.apply_async((1,), link=b.echo.s(x)),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_tuple_arrives_as_a_worker_gets_it(bench: Bench, call: str) -> None:
    CALLS[call](bench, (1, 2))

    flat = [value for args, kwargs in bench.got for value in (*args, *kwargs.values())]
    assert [1, 2] in flat or [[1, 2]] in flat
    assert (1, 2) not in flat


@pytest.mark.parametrize("call", CALLS)
def test_what_cannot_be_written_is_refused_at_the_call(bench: Bench, call: str) -> None:
    with pytest.raises(EncodeError):
        CALLS[call](bench, object())


async def test_a_call_from_asyncio_goes_through_the_serializer_too(bench: Bench) -> None:
    await bench.echo.aapply_async(((1, 2),))

    assert bench.got == [(([1, 2],), {})]
    with pytest.raises(EncodeError):
        await bench.echo.adelay(object())


def test_apply_passes_on_what_it_is_given(bench: Bench) -> None:
    value = object()

    bench.echo.apply((value,))
    bench.echo.s(value).apply()
    chain(bench.echo.s(value), bench.echo.s()).apply()

    assert all(args == (value,) for args, _ in bench.got)


def test_a_tasks_own_apply_is_no_message(bench: Bench) -> None:
    assert bench.nested.delay().get() == (1, 2)


def test_values_reach_what_follows_through_the_serializer(bench: Bench) -> None:
    (bench.pair.s() | bench.echo.s()).apply_async()
    bench.pair.apply_async(link=bench.echo.s())

    assert [args for args, _ in bench.got] == [([1, 2],)] * 2
    with pytest.raises(EncodeError):
        bench.thing.apply_async(link=bench.echo.s())


def test_a_result_is_answered_as_the_task_returned_it(bench: Bench) -> None:
    assert bench.pair.delay().get() == (1, 2)


def test_a_retry_goes_through_the_serializer(bench: Bench) -> None:
    assert bench.again.delay((1, 2)).get() == [3, 4]
    assert bench.got == [[1, 2], [3, 4]]


def test_the_serializer_is_the_calls_the_tasks_or_the_apps(bench: Bench) -> None:
    value = frozenset([1])

    bench.echo.apply_async((value,), serializer="pickle")
    bench.echo.serializer = "pickle"
    bench.echo.apply_async((value,))

    assert [args[0] for args, _ in bench.got] == [value] * 2
    with pytest.raises(EncodeError):
        bench.echo.apply_async((value,), serializer="json")


def test_arguments_of_the_caller_stay_as_they_are(bench: Bench) -> None:
    @bench.app.task(shared=False)
    def change(values: list[int]) -> None:
        values.append(2)

    own = [1]
    _ = change.delay(own)

    assert own == [1]


# -- what is kept ------------------------------------------------------------------------------------


def test_a_kept_result_says_what_a_workers_says_when_results_are_extended(
    make_app: MakeApp,
) -> None:
    with LocalBroker() as broker:
        app = make_app(
            broker=broker.url, backend="qbroker://", task_always_eager=True,
            task_store_eager_result=True, result_extended=True,
        )  # fmt: skip
        bench = Bench(app)
        stamps: dict[str, Value] = {"stamped_headers": ["customer"], "customer": "42"}

        good = bench.echo.apply_async((1,), {"y": 2}, queue="mail", **stamps)
        bad = bench.boom.apply_async((3,), **stamps)
        pair = group(bench.echo.s(1), bench.echo.s(2))()

        kept = app.AsyncResult(good.id)
        assert (kept.name, kept.args, kept.kwargs, kept.queue) == (
            "eager.echo", [1], {"y": 2}, "mail",
        )  # fmt: skip
        assert kept.date_done is not None
        meta = app.backend.get_task_meta(good.id)
        assert (meta["stamped_headers"], meta["customer"]) == (["customer"], ["42"])
        failed = app.AsyncResult(bad.id)
        assert (failed.state, failed.name, failed.args) == ("FAILURE", "eager.boom", [3])
        assert [app.AsyncResult(one.id).args for one in pair.results] == [[1], [2]]


def test_arguments_are_not_kept_beside_a_result_unless_it_is_asked_for(make_app: MakeApp) -> None:
    with LocalBroker() as broker:
        app = make_app(
            broker=broker.url, backend="qbroker://", task_always_eager=True,
            task_store_eager_result=True,
        )  # fmt: skip
        done = Bench(app).echo.delay(1)

        assert app.AsyncResult(done.id).args is None


@pytest.mark.parametrize("is_stored", [True, False])
def test_states_on_the_way_of_an_eager_task_are_kept_with_its_result(
    make_app: MakeApp,
    is_stored: bool,
) -> None:
    with LocalBroker() as broker:
        app = make_app(
            broker=broker.url, backend="qbroker://", task_store_eager_result=is_stored,
        )  # fmt: skip
        seen: list[Value] = []

        @app.task(bind=True, name="eager.steps")
        def steps(self: Value) -> int:
            self.update_state(state="PROGRESS", meta={"done": 3})
            kept = app.AsyncResult(self.request.id)
            seen.append((kept.state, kept.info))
            return 4

        done = steps.apply()

        assert seen == [("PROGRESS", {"done": 3}) if is_stored else ("PENDING", None)]
        assert app.AsyncResult(done.id).state == ("SUCCESS" if is_stored else "PENDING")


# -- tasks that this process does not know -----------------------------------------------------------

ELSEWHERE: dict[str, tuple[Callable[[Bench, Value], Value], list[Value]]] = {
    "a callback": (lambda b, far: b.echo.apply((1,), link=far), [1]),
    "a callback of several": (lambda b, far: b.echo.apply((1,), link=[b.echo.s(), far]), [1]),
    "an errback": (lambda b, far: b.boom.apply((1,), link_error=far, task_id="lost"), ["lost"]),
    "the last step of a chain": (lambda b, far: (b.echo.s(1) | far).apply(), [1]),
    "the first step of a chain": (lambda b, far: (far | b.echo.s()).apply((1,)), [1]),
    "a step with more behind it": (lambda b, far: (b.echo.s(1) | far | b.echo.s()).apply(), [1]),
    "a task of a group": (lambda b, far: group(b.echo.s(1), far).apply((1,)), [1]),
    "a chord's body": (lambda b, far: chord([b.echo.s(1)], far).apply(), [[1]]),
    "a body that is a chain": (
        lambda b, far: chord([b.echo.s(1)], far | b.echo.s()).apply(),
        [[1]],
    ),
    "a task of a header": (lambda b, far: chord([b.echo.s(2), far], b.echo.s()).apply((1,)), [1]),
}


@pytest.mark.parametrize("is_always", [False, True])
@pytest.mark.parametrize("place", ELSEWHERE)
def test_a_task_that_is_not_known_here_is_sent_to_the_broker(
    make_app: MakeApp, place: str, is_always: bool
) -> None:
    call, expected = ELSEWHERE[place]
    with LocalBroker() as broker:
        app = make_app(broker=broker.url, backend="qbroker://", task_always_eager=is_always)

        call(Bench(app), app.signature("far.task"))

        sent = broker.assert_enqueued("far.task", count=1)
        assert list(sent.args) == (expected if sent.stage == "queued" and sent.args else [])


def test_what_follows_a_task_elsewhere_runs_after_it(make_app: MakeApp) -> None:
    with LocalBroker() as broker:
        here = make_app(broker=broker.url, backend="qbroker://", task_always_eager=True)
        there = make_app(broker=broker.url, backend="qbroker://")
        bench = Bench(here)

        @there.task(name="far.double", shared=False)
        def double(value: int) -> int:
            return 2 * value

        far = Bench(there)
        result = (bench.echo.s(4) | here.signature("far.double") | bench.echo.s()).apply_async()
        broker.drain(there)

        assert there.AsyncResult(result.id).get(timeout=10) == 8
        assert [args for args, _ in bench.got] == [(4,)]
        assert [args for args, _ in far.got] == [(8,)]


def test_a_name_that_is_not_known_is_still_an_error_where_it_is_applied(bench: Bench) -> None:
    with pytest.raises(NotRegistered):
        _ = bench.app.signature("far.task").apply()
