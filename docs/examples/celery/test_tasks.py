"""Testing: a task with its world replaced, eagerly, and on a worker of the test's own."""

from unittest.mock import MagicMock, patch

import pytest
from proj import tasks
from proj.tasks import StockError, add, send_order

from qbroker import Celery
from qbroker.contrib.testing.worker import TestWorkController, start_worker
from qbroker.exceptions import Retry


@patch("proj.tasks.order")
def test_success(order: MagicMock) -> None:
    """What the task calls is replaced."""
    order.return_value = 3

    assert send_order("chair", 3) == 3
    order.assert_called_with("chair", 3)


@patch("proj.tasks.order")
@patch("proj.tasks.send_order.retry")
def test_failure(send_order_retry: MagicMock, order: MagicMock) -> None:
    """And so is its own `retry`."""
    send_order_retry.side_effect = Retry()
    order.side_effect = StockError()

    with pytest.raises(Retry):
        send_order("chair", 30)


def test_retries_eagerly() -> None:
    """`apply` tries again at once, and gives up as a worker would."""
    result = send_order.apply(("chair", 30))

    assert (result.state, type(result.result)) == ("FAILURE", StockError)


@pytest.fixture(scope="session")
def celery_config() -> dict[str, str]:
    """A broker that lives as long as the tests."""
    return {"broker_url": "memory://", "result_backend": "cache+memory://"}


def test_create_task(celery_app: Celery, celery_worker: TestWorkController) -> None:
    """A worker beside the test."""

    @celery_app.task
    def mul(x: int, y: int) -> int:
        return x * y

    celery_worker.reload()

    assert mul.delay(4, 4).get(timeout=10) == 16


@pytest.mark.celery(task_default_queue="own")
def test_settings_of_a_test(celery_app: Celery) -> None:
    """A marker has settings."""
    assert celery_app.conf.task_default_queue == "own"


def test_the_projects_own_app() -> None:
    """The app of the project, with a worker on a thread."""
    tasks.app.conf.update(broker_url="memory://proj", result_backend="cache+memory://proj")

    with start_worker(tasks.app, perform_ping_check=False):
        assert add.delay(4, 5).get(timeout=10) == 9
