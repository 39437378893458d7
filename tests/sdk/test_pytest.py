"""The pytest plug-in: Celery's fixtures, in runs of pytest's own."""

import pytest

pytest_plugins = ["pytester"]

SUITE = """
import pytest


@pytest.fixture(scope="session")
def celery_config():
    return {"task_default_queue": "mine"}


@pytest.fixture(scope="session")
def celery_parameters():
    return {"strict_typing": False}


def test_app(celery_app, local_broker):
    @celery_app.task
    def mul(x, y):
        return x * y

    assert celery_app.conf.task_default_queue == "mine"
    assert not celery_app.strict_typing
    mul.delay(4, 4)
    local_broker.assert_enqueued(mul, args=(4, 4), count=1)


@pytest.mark.celery(task_default_queue="marked")
def test_marker(celery_app, local_broker):
    assert celery_app.conf.task_default_queue == "marked"
    # Nothing of the test before is here.
    local_broker.assert_empty()


def test_worker(celery_app, celery_worker):
    @celery_app.task
    def mul(x, y):
        return x * y

    celery_worker.reload()
    assert mul.delay(4, 4).get(timeout=10) == 16


def test_session(celery_session_app, celery_session_worker):
    @celery_session_app.task
    def mul(x, y):
        return x * y

    celery_session_worker.reload()
    assert mul.delay(4, 4).get(timeout=10) == 16


def test_current(celery_app, depends_on_current_app):
    from qbroker import current_app

    assert current_app._get_current_object() is celery_app


def test_own(local_broker):
    assert local_broker.address.startswith("qbroker://127.0.0.1:")


def test_shared_with_thread_memory(celery_app, celery_worker):
    seen = []

    @celery_app.task
    def note(word):
        seen.append(word)

    celery_worker.reload()
    note.delay("here").get(timeout=10)
    assert seen == ["here"]
"""

TRAPPED = """
import pytest


@pytest.fixture(scope="session")
def use_celery_app_trap():
    return True


def test_trap(celery_app):
    from qbroker import current_app

    with pytest.raises(RuntimeError, match="Test depends on current_app"):
        current_app.conf


def test_disabled_results(celery_app):
    assert celery_app.conf.result_backend is None


@pytest.fixture(scope="session")
def celery_config():
    return {"result_backend": None}
"""

CLASSES = """
import pytest
from qbroker import Task


class Twice(Task):
    name = "twice"

    def run(self, x):
        return 2 * x


@pytest.fixture(scope="session")
def celery_class_tasks():
    return [Twice]


@pytest.fixture(scope="session")
def celery_includes():
    return ["json"]


@pytest.fixture(scope="session")
def celery_worker_parameters():
    return {"queues": "a,celery", "concurrency": 2, "shutdown_timeout": 5}


def test_class(celery_session_app, celery_session_worker):
    assert celery_session_worker.queues == ("a", "celery")
    result = celery_session_app.send_task("twice", (4,), queue="a")
    assert result.get(timeout=10) == 8
"""

OPTIONS = ("-p", "no:asyncio", "-p", "no:hypothesispytest", "-W", "error", "-q")


@pytest.mark.e2e
@pytest.mark.parametrize(("suite", "count"), [(SUITE, 7), (TRAPPED, 2), (CLASSES, 1)])
def test_celerys_fixtures_do_what_celery_says_of_them(
    pytester: pytest.Pytester, suite: str, count: int
) -> None:
    pytester.makepyfile(suite)

    result = pytester.runpytest_subprocess(*OPTIONS)

    result.assert_outcomes(passed=count)


@pytest.mark.e2e
def test_without_a_worker_where_none_is_wanted(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_WORKER", "1")
    pytester.makepyfile("def test_none(celery_worker): assert celery_worker is None")

    pytester.runpytest_subprocess(*OPTIONS).assert_outcomes(passed=1)


@pytest.mark.e2e
def test_a_run_that_uses_none_of_it_starts_nothing_of_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing():
            assert "grpc" not in sys.modules
            assert "qbroker.testing" not in sys.modules
        """
    )

    pytester.runpytest_subprocess(*OPTIONS).assert_outcomes(passed=1)
