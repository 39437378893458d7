"""The broker inside a test: its clock, its crashes, its asserts."""

import asyncio
import datetime as dt
import threading
import time
from collections.abc import Iterator

import pytest

from qbroker import App
from qbroker.exceptions import ImproperlyConfigured, OperationalError
from qbroker.inprocess import is_callers_thread, reached, stop
from qbroker.serialization import Value
from qbroker.testing import LocalBroker, broker_of
from tests.sdk.conftest import MakeApp


@pytest.fixture
def broker() -> Iterator[LocalBroker]:
    with LocalBroker() as broker:
        yield broker


@pytest.fixture
def app(broker: LocalBroker, make_app: MakeApp) -> App:
    app = make_app("shop", broker=broker.url, backend="qbroker://")

    @app.task(shared=False, name="shop.add")
    def add(x: int, y: int = 0) -> int:
        return x + y

    @app.task(shared=False, name="shop.both")
    def both(x: int) -> None:
        for n in range(2):
            _ = app.send_task("shop.add", (x, n))

    @app.task(bind=True, shared=False, max_retries=3, name="shop.flaky")
    def flaky(self: Value) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=3_600)
        return int(self.request.retries)

    return app


# -- asserts ---------------------------------------------------------------------------------------


def test_what_was_called_is_enqueued_and_what_was_not_is_told(
    app: App, broker: LocalBroker
) -> None:
    _ = app.tasks["shop.add"].apply_async((1, 2), queue="sums", headers={"who": "ann"})
    _ = app.tasks["shop.add"].apply_async((3,), {"y": 4}, countdown=60)

    first = broker.assert_enqueued("shop.add", args=(1, 2), queue="sums", count=1)
    later = broker.assert_enqueued(app.tasks["shop.add"], args=[3], kwargs={"y": 4})
    broker.assert_enqueued("shop.add", count=2)
    broker.assert_not_enqueued("shop.both")
    broker.assert_not_enqueued("shop.add", args=(9, 9))

    assert (first.queue, first.stage, first.headers) == ("sums", "queued", {"who": "ann"})
    assert later.stage == "scheduled"
    assert later.eta is not None
    with pytest.raises(AssertionError, match=r"shop.add with args \(9,\) is not enqueued; there is: shop.add\(1, 2\) in 'sums', queued; shop.add\(3, y=4\)"):  # fmt: skip
        broker.assert_enqueued("shop.add", args=(9,))
    with pytest.raises(AssertionError, match="is not enqueued 3 times, but 2 times"):
        broker.assert_enqueued("shop.add", count=3)
    with pytest.raises(AssertionError, match=r"shop.add\(1, 2\) in 'sums', queued is enqueued"):
        broker.assert_not_enqueued("shop.add", args=(1, 2))
    with pytest.raises(AssertionError, match="the broker is not empty"):
        broker.assert_empty()


def test_a_count_of_none_is_a_count(app: App, broker: LocalBroker) -> None:
    broker.assert_enqueued("shop.add", count=0)
    broker.assert_empty()
    with pytest.raises(AssertionError, match="there is: nothing"):
        broker.assert_enqueued("shop.add")


# -- work ------------------------------------------------------------------------------------------


def test_drain_runs_what_waits_and_what_that_calls(app: App, broker: LocalBroker) -> None:
    result = app.send_task("shop.add", (1, 2), queue="sums")
    _ = app.send_task("shop.both", (5,))

    drained = broker.drain(app)

    assert drained == 2
    assert result.get(timeout=5) == 3
    broker.assert_empty()
    assert broker.drain(app) == 0


def test_drain_runs_tasks_on_the_calling_thread(app: App, broker: LocalBroker) -> None:
    @app.task(shared=False, name="shop.where")
    def where(again: bool) -> int:
        if again:
            _ = where.delay(False)
        threads.append(threading.get_ident())
        return 0

    threads: list[int] = []
    _ = where.delay(True)

    broker.drain(app)

    assert threads == [threading.get_ident()] * 2
    assert not is_callers_thread()


def test_drain_with_concurrency_runs_tasks_on_other_threads(app: App, broker: LocalBroker) -> None:
    meet = threading.Barrier(2)

    @app.task(shared=False, name="shop.meet")
    def met() -> int:
        meet.wait(30)
        return threading.get_ident()

    results = [met.delay(), met.delay()]

    broker.drain(app, concurrency=2)

    threads = {result.get(timeout=30) for result in results}
    assert len(threads) == 2
    assert threading.get_ident() not in threads


async def test_drain_in_a_coroutine_runs_tasks_that_have_an_event_loop_of_their_own(
    app: App, broker: LocalBroker
) -> None:
    @app.task(shared=False, name="shop.turn")
    def turn() -> int:
        return asyncio.run(asyncio.sleep(0, 7))

    result = turn.delay()

    broker.drain(app)

    assert result.get(timeout=30) == 7


def test_an_interrupt_in_a_task_reaches_who_drains(app: App, broker: LocalBroker) -> None:
    @app.task(shared=False, name="shop.interrupted")
    def interrupted() -> None:
        raise KeyboardInterrupt

    _ = interrupted.delay()

    with pytest.raises(KeyboardInterrupt):
        broker.drain(app)


def test_drain_ends_a_task_that_takes_longer_than_the_timeout(
    app: App, broker: LocalBroker
) -> None:
    never = threading.Event()

    @app.task(shared=False, name="shop.endless")
    def endless() -> None:
        while not never.wait(0.001):
            pass

    _ = endless.delay()

    with pytest.raises(AssertionError, match=r"1 are with a worker: shop.endless\(\)"):
        broker.drain(app, timeout=0.5)


def test_drain_says_what_does_not_end(app: App, broker: LocalBroker) -> None:
    _ = app.send_task("nobody.knows", (1,))

    with pytest.raises(AssertionError, match=r"1 calls still wait and 0 are with a worker: nobody.knows\(1\)"):  # fmt: skip
        broker.drain(app, timeout=0.2)
    with pytest.raises(AssertionError, match="still wait"):
        broker.wait_until_idle(0)


def test_a_call_and_its_result_take_milliseconds(app: App, broker: LocalBroker) -> None:
    add = app.tasks["shop.add"]
    took_s = []
    with broker.worker(app):
        for n in range(20):
            began = time.perf_counter()
            assert add.delay(n, 1).get(timeout=5) == n + 1
            took_s.append(time.perf_counter() - began)

    # The bench says what it is at best; here it is only not a matter of polling.
    assert min(took_s) < 0.02


# -- time ------------------------------------------------------------------------------------------


def test_advance_makes_due_what_is_due_by_then(app: App, broker: LocalBroker) -> None:
    soon = app.tasks["shop.add"].apply_async((1,), countdown=1_800)
    late = app.tasks["shop.add"].apply_async((2,), countdown=7_200)

    broker.advance(hours=1)
    broker.drain(app)

    assert soon.get(timeout=5) == 1
    assert late.state == "PENDING"
    broker.assert_enqueued("shop.add", args=(2,), count=1)


def test_calls_made_after_an_advance_count_from_then(app: App, broker: LocalBroker) -> None:
    broker.advance(days=1)
    _ = app.tasks["shop.add"].apply_async((1,), countdown=60)

    broker.advance(seconds=50)
    still = broker.enqueued()
    broker.advance(seconds=11)
    due = broker.enqueued()

    assert [call.stage for call in still] == ["scheduled"]
    assert [call.stage for call in due] == ["queued"]


def test_a_task_that_asks_for_another_try_in_an_hour_gets_it(app: App, broker: LocalBroker) -> None:
    with broker.worker(app):
        result = app.tasks["shop.flaky"].delay()
        broker.wait_until_idle()
        broker.advance(hours=2, minutes=1)

        assert result.get(timeout=5) == 2


def test_periodic_tasks_run_at_each_tick_of_the_time_that_passes(
    app: App, broker: LocalBroker
) -> None:
    app.add_periodic_task(600, app.tasks["shop.add"].s(1), name="often")
    app.schedules.declare()

    with broker.worker(app):
        broker.advance(hours=1, seconds=1)

    info = app.schedules.get("often")
    assert (info.run_count, info.skipped_count) == (6, 0)
    broker.assert_empty()


def test_time_goes_back_to_normal_with_the_broker(make_app: MakeApp) -> None:
    with LocalBroker() as ahead:
        ahead.advance(days=30)
    with LocalBroker() as broker:
        app = make_app(broker=broker.url)
        _ = app.send_task("t", countdown=60)

        broker.advance(seconds=61)

        assert broker.enqueued()[0].stage == "queued"


# -- trouble ---------------------------------------------------------------------------------------


def test_a_crash_loses_nothing_that_was_confirmed(app: App, broker: LocalBroker) -> None:
    confirmed = app.tasks["shop.add"].delay(1, 2)

    broker.crash()
    broker.restart()
    broker.drain(app)

    assert confirmed.get(timeout=5) == 3


def test_a_call_to_a_crashed_broker_says_so(make_app: MakeApp) -> None:
    with LocalBroker() as broker:
        app = make_app(broker=broker.url, broker_connection_timeout=0.3)
        broker.crash()

        with pytest.raises(OperationalError, match="no confirm within"):
            _ = app.send_task("t")
        broker.restart()
        app.conf.broker_connection_timeout = 10
        _ = app.send_task("t", task_id="after")

        assert "after" in [call.id for call in broker.enqueued()]


def test_a_worker_finds_its_broker_again(app: App, broker: LocalBroker) -> None:
    with broker.worker(app):
        broker.crash()
        broker.restart()

        assert app.tasks["shop.add"].delay(2, 3).get(timeout=10) == 5


def test_a_restart_of_a_running_broker_is_orderly(app: App, broker: LocalBroker) -> None:
    _ = app.tasks["shop.add"].delay(1)

    broker.restart()

    broker.assert_enqueued("shop.add", count=1)


# -- memory:// -------------------------------------------------------------------------------------


def test_memory_urls_mean_one_broker_in_this_process_each(make_app: MakeApp) -> None:
    one = make_app(broker="memory://here", backend="cache+memory://")
    other = make_app(broker="memory://there", backend="cache+memory://")
    try:
        _ = one.send_task("t", task_id="m1")

        assert one.AsyncResult("m1").explain().stage == "queued"
        assert other.AsyncResult("m1").explain().stage == "unknown"
        assert broker_of(one).unfinished() == (1, 0)
    finally:
        one.close()
        other.close()
        for url in ("memory://here", "memory://there"):
            stop(url)


def test_only_a_broker_in_this_process_can_be_looked_into(make_app: MakeApp) -> None:
    with pytest.raises(ImproperlyConfigured, match="not in this process"):
        broker_of(make_app())


def test_many_threads_that_come_first_find_one_broker() -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(reached("memory://race"))) for _ in range(8)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop("memory://race")

    assert len(set(found)) == 1


# -- what newcomers do -----------------------------------------------------------------------------


def test_what_runs_in_the_time_that_passes_counts_from_then(app: App, broker: LocalBroker) -> None:
    tries: list[int] = []

    @app.task(bind=True, shared=False, max_retries=3)
    def hourly(self: Value) -> None:
        tries.append(self.request.retries)
        raise self.retry(countdown=3_600)

    with broker.worker(app):
        _ = hourly.delay()
        broker.wait_until_idle()
        broker.advance(hours=1, seconds=1)
        after_one = list(tries)
        broker.advance(hours=1)

    assert after_one == [0, 1]
    assert tries == [0, 1, 2]


def test_the_apps_own_clock_goes_with_it(app: App, broker: LocalBroker) -> None:
    before = app.now()

    broker.advance(days=2)
    _ = app.send_task("shop.add", (1,), eta=app.now() + dt.timedelta(hours=1))

    assert dt.timedelta(days=2) <= app.now() - before < dt.timedelta(days=2, minutes=1)
    broker.assert_enqueued("shop.add")
    assert broker.enqueued()[0].stage == "scheduled"


def test_time_passes_forward_only(broker: LocalBroker) -> None:
    with pytest.raises(ValueError, match="not by -3600 seconds"):
        broker.advance(hours=-1)


@pytest.mark.parametrize(
    "ask",
    [
        lambda broker, app: broker.enqueued(),
        lambda broker, app: broker.advance(seconds=1),
        lambda broker, app: broker.drain(app),
        lambda broker, app: broker.wait_until_idle(),
        lambda broker, app: broker.worker(app).__enter__(),
    ],
    ids=["enqueued", "advance", "drain", "wait", "worker"],
)
def test_a_broker_that_is_not_there_says_so_at_once(ask: Value, make_app: MakeApp) -> None:
    app, broker = make_app("idle"), LocalBroker()

    with pytest.raises(RuntimeError, match="start it, or enter it"):
        ask(broker, app)
    with broker:
        broker.crash()
        with pytest.raises(RuntimeError, match=r"has crashed; restart\(\) brings it back"):
            ask(broker, app)
    with pytest.raises(RuntimeError, match="start it, or enter it"):
        ask(broker, app)


def test_a_signature_brings_its_arguments(app: App, broker: LocalBroker) -> None:
    add = app.tasks["shop.add"]
    _ = add.delay(1, y=2)

    broker.assert_enqueued(add.s(1, y=2), count=1)
    broker.assert_not_enqueued(add.s(1))
    with pytest.raises(AssertionError, match=r"shop\.add with args \(3,\) with kwargs \{\} is not"):
        broker.assert_enqueued(add.s(3))
    with pytest.raises(TypeError, match="args are a list or a tuple of a call's arguments, not 1"):
        broker.assert_enqueued(add, args=1)


def test_calls_of_any_serializer_can_be_looked_at(app: App, broker: LocalBroker) -> None:
    _ = app.tasks["shop.add"].apply_async(({1, 2},), serializer="pickle")

    broker.assert_enqueued("shop.add", args=({1, 2},))
