"""The worker on threads of another program."""

import contextlib
import threading
from collections.abc import Iterator

import pytest

from qbroker import App, inprocess
from qbroker.exceptions import ImproperlyConfigured
from qbroker.serialization import Value
from qbroker.worker.control import ControlState, Panel, inspect_command
from qbroker_worker.inprocess import InProcessWorker


def test_it_runs_tasks_in_this_process_and_ends_when_told() -> None:
    seen: list[int] = []
    with App("here", broker="memory://worker", backend="cache+memory://") as app:

        @app.task(shared=False)
        def note(x: int) -> int:
            seen.append(x)
            return 2 * x

        app.finalize()
        address = inprocess.reached("memory://worker").removeprefix("qbroker://")
        worker = InProcessWorker(app, address, queues=("celery",), slots=2, name="w@here")
        worker.start()

        assert note.delay(3).get(timeout=10) == 6
        assert seen == [3]
        assert worker.stop(10)
        assert worker.stop(10)
    inprocess.stop("memory://worker")


def test_a_task_sees_the_time_limits_that_settings_set() -> None:
    with App("here", broker="memory://limits", backend="cache+memory://") as app:
        # Low enough for tasks that other tests share with every app.
        app.conf.update(task_time_limit=60, task_soft_time_limit=0.5)

        @app.task(shared=False, bind=True)
        def limits(self: Value) -> Value:
            return [self.request.timelimit, self.time_limit, self.soft_time_limit]

        app.finalize()
        address = inprocess.reached("memory://limits").removeprefix("qbroker://")
        worker = InProcessWorker(app, address, queues=("celery",), slots=1, name="w@here")
        worker.start()

        assert limits.delay().get(timeout=10) == [[60, 0.5], 60, 0.5]
        assert worker.stop(10)
    inprocess.stop("memory://limits")


def test_a_task_that_goes_on_is_told_by_stop() -> None:
    held, go_on = threading.Event(), threading.Event()
    with App("here", broker="memory://held", backend="cache+memory://") as app:

        @app.task(shared=False)
        def hold() -> None:
            held.set()
            go_on.wait(10)

        app.finalize()
        address = inprocess.reached("memory://held").removeprefix("qbroker://")
        worker = InProcessWorker(app, address, queues=("celery",), slots=1, name="w@here")
        worker.start()
        _ = hold.delay()
        assert held.wait(10)

        ended = worker.stop(0.05)
        go_on.set()

        assert not ended
    inprocess.stop("memory://held")


@pytest.fixture
def added_command() -> Iterator[str]:
    @inspect_command()
    def app_name(state: ControlState) -> Value:
        return state.app.main

    yield "app_name"
    del Panel.data["app_name"], Panel.meta["app_name"]


def test_it_answers_remote_commands(added_command: str) -> None:
    with App("here", broker="memory://asked", backend="cache+memory://") as app:

        @app.task(name="note", shared=False)
        def note() -> None: ...

        app.finalize()
        address = inprocess.reached("memory://asked").removeprefix("qbroker://")
        worker = InProcessWorker(app, address, queues=("celery",), slots=1, name="w@here")
        worker.start()

        assert app.control.ping(timeout=5) == [{"w@here": {"ok": "pong"}}]
        asked = app.control.inspect(["w@here"], timeout=5)
        # Tests of other modules have tasks of every app.
        assert "note" in asked.registered()["w@here"]
        assert asked._request(added_command) == {"w@here": "here"}
        assert asked.stats()["w@here"]["pool"]["max-concurrency"] == 1
        app.control.shutdown(destination=["w@here"])
        assert worker.stop(10)
    inprocess.stop("memory://asked")


def test_a_worker_without_a_broker_says_so() -> None:
    with App("here", broker="memory://away") as app:
        worker = InProcessWorker(
            app, "127.0.0.1:1", queues=("q",), slots=1, name="w@here", start_s=0.1
        )

        with pytest.raises(RuntimeError, match="w@here could not register with the broker at 127"):
            worker.start()
        # It has nothing to tell anybody.
        assert worker.stop(10)


def test_a_worker_that_was_not_started_can_be_stopped() -> None:
    with App("away", broker="qbroker://127.0.0.1:1") as app:
        worker = InProcessWorker(app, "127.0.0.1:1", queues=("q",), slots=1, name="w@here")

        assert worker.stop(10)
        assert worker.stop(10)


def test_a_start_that_fails_by_an_exception_can_be_stopped_and_made_again() -> None:
    with App("wrong", broker="qbroker://127.0.0.1:1", timezone="Europe/Berln") as app:
        worker = InProcessWorker(app, "127.0.0.1:1", queues=("q",), slots=1, name="w@here")

        for _ in range(2):
            with pytest.raises(RuntimeError, match="w@here could not register") as caught:
                worker.start()
            assert isinstance(caught.value.__cause__, ImproperlyConfigured)
            assert worker.stop(10)


def test_a_second_start_waits_for_the_first_and_starts_no_second_worker() -> None:
    with App("here", broker="memory://twice", backend="cache+memory://") as app:
        app.finalize()
        address = inprocess.reached("memory://twice").removeprefix("qbroker://")
        worker = InProcessWorker(app, address, queues=("celery",), slots=1, name="twice@here")
        before = threading.active_count()

        worker.start()
        count = threading.active_count()
        worker.start()

        assert threading.active_count() == count > before
        assert worker.stop(10)
        worker.start()
        assert worker.stop(10)
    inprocess.stop("memory://twice")


def test_starts_and_stops_from_several_threads_leave_a_stopped_worker() -> None:
    wrong: list[BaseException] = []
    before = threading.enumerate()
    with App("here", broker="memory://stress", backend="cache+memory://") as app:
        app.finalize()
        address = inprocess.reached("memory://stress").removeprefix("qbroker://")
        worker = InProcessWorker(app, address, queues=("celery",), slots=1, name="stress@here")

        def press(*, starts: bool) -> None:
            for _ in range(5):
                try:
                    # A start that a stop overtakes says that it could not register.
                    with contextlib.suppress(RuntimeError):
                        worker.start() if starts else worker.stop(10)
                except BaseException as error:  # noqa: BLE001 - the test names it
                    wrong.append(error)

        threads = [
            threading.Thread(target=press, kwargs={"starts": starts})
            for starts in (True, False, True, False)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert wrong == []
        assert worker.stop(10)
        added = [one.name for one in threading.enumerate() if one not in before]
        assert "qbroker-inprocess-worker" not in added
    inprocess.stop("memory://stress")
