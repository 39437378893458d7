"""`start_worker` and what comes with it."""

import pytest

from qbroker import _state, current_app, inprocess
from qbroker.app import App
from qbroker.contrib.testing import tasks, worker as kit
from qbroker.contrib.testing.app import TestApp, Trap, set_trap, setup_default_app
from qbroker.contrib.testing.manager import Manager, Sentinel
from qbroker.contrib.testing.worker import start_worker
from qbroker.serialization import Value
from qbroker.testing import LocalBroker
from qbroker.utils.nodenames import anon_nodename

URL = "memory://kit"


def test_a_worker_runs_in_the_test_and_tells_of_itself() -> None:
    told: list[str] = []

    def starting(sender: Value, **_: Value) -> None:
        told.append("starting")

    def started(sender: Value, worker: Value, **_: Value) -> None:
        told.append("started")

    def stopped(sender: Value, worker: Value, **_: Value) -> None:
        told.append("stopped")

    kit.test_worker_starting.connect(starting)
    kit.test_worker_started.connect(started)
    kit.test_worker_stopped.connect(stopped)
    app = TestApp("kit", broker=URL)
    with setup_default_app(app):

        @app.task(shared=False)
        def xsum(numbers: list[int]) -> int:
            return sum(numbers)

        with start_worker(app, concurrency=2, loglevel="ERROR", without_gossip=True) as worker:
            assert (worker.app, worker.queues) == (app, ("celery",))
            worker.ensure_started()
            results = [xsum.delay([n, n]) for n in range(5)]
            assert [result.get(timeout=10) for result in results] == [0, 2, 4, 6, 8]
    inprocess.stop(URL)

    assert told == ["starting", "started", "stopped"]


def test_a_worker_that_cannot_be_asked_is_not_started() -> None:
    app = App("kit", broker=URL, set_as_current=False)
    app.finalize()
    app.tasks.pop("celery.ping", None)

    with pytest.raises(AssertionError, match=r"has no task 'celery.ping'"), start_worker(app):
        pass
    with pytest.raises(TypeError, match="no option colour"), start_worker(app, colour="red"):
        pass
    app.close()
    inprocess.stop(URL)


def test_queues_are_named_as_celerys_worker_takes_them() -> None:
    class Queue:
        name = "c"

    assert kit._names("a, b") == ("a", "b")
    assert kit._names(["a", Queue()]) == ("a", "c")
    assert kit._names(None) == ()


def test_ping_answers() -> None:
    assert tasks.ping() == "pong"


def test_what_uses_the_current_app_is_trapped() -> None:
    app = TestApp("kit", broker=URL)
    before = _state.get_current_app()
    with set_trap(app), pytest.raises(RuntimeError, match="Test depends on current_app"):
        _ = current_app.conf
    assert _state.get_current_app() is before
    with pytest.raises(RuntimeError):
        _ = Trap().tasks
    app.close()


def test_a_manager_waits_for_tasks_and_asserts_where_they_are() -> None:
    app = TestApp("kit", broker=URL)
    with setup_default_app(app):

        @app.task(shared=False)
        def one() -> int:
            return 1

        manager = Manager(app, block_timeout=10)
        waiting = one.apply_async(queue="later")
        with start_worker(app):
            result = one.delay()

            assert manager.join(result) == 1
            manager.assert_accepted([result.id], interval=0.01)
            manager.assert_received([result.id], interval=0.01)
            manager.assert_result_tasks_in_progress_or_completed([result], interval=0.01)
            assert dict(manager.query_tasks([result.id, waiting.id])) == {result.id: "done", waiting.id: "queued"}  # fmt: skip
            assert not manager.is_received([waiting.id])
            assert manager.is_accepted([result.id])
            manager.ensure_not_for_a_while(
                lambda: manager.true_or_raise(manager.is_received, [waiting.id]), Sentinel,
                max_retries=2, interval_start=0.01, interval_step=0,
            )  # fmt: skip
            with pytest.raises(AssertionError, match="Should not have happened: it"):
                manager.ensure_not_for_a_while(lambda: 1, Sentinel, desc="it")
            app.control.revoke(waiting.id)
            manager.wait_until_idle()
    inprocess.stop(URL)


def test_a_join_that_lasts_too_long_says_what_is_missing() -> None:
    app = TestApp("kit", broker=URL)
    with setup_default_app(app):
        result = app.send_task("nobody.knows")

        with pytest.raises(AssertionError, match="Missing task results"):
            Manager(app, block_timeout=0.02).join(result, max_retries=2)
        assert Manager(app, no_join=True).join(result) is None
    inprocess.stop(URL)


def test_a_worker_of_a_test_has_the_name_that_celerys_has() -> None:
    with LocalBroker() as broker:
        app = TestApp(broker=broker.url, backend="qbroker://")
        with start_worker(app) as first, start_worker(app, perform_ping_check=False) as second:
            names = first.hostname, second.hostname
            assert names == (anon_nodename(), anon_nodename(prefix="gen2-"))
        with start_worker(app) as again:
            assert again.hostname == names[0]
        app.close()
