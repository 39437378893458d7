"""Celery's names for qbroker's modules."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

import qbroker
from qbroker.compat import celery as compat


@pytest.fixture
def installed() -> Iterator[None]:
    compat.install()
    yield
    compat.uninstall()


@pytest.mark.parametrize(
    "name",
    ["", ".app", ".app.base", ".schedules", ".result", ".exceptions", ".signals", ".beat",
     ".contrib.testing.worker", ".utils.log", ".task.http"],
)  # fmt: skip
@pytest.mark.usefixtures("installed")
def test_a_module_by_celerys_name_is_the_very_same(name: str) -> None:
    ours = importlib.import_module(f"qbroker{name}")

    theirs = importlib.import_module(f"celery{name}")

    assert theirs is ours
    assert ours.__name__ == f"qbroker{name}"
    assert ours.__spec__ is not None
    assert ours.__spec__.name == f"qbroker{name}"


@pytest.mark.usefixtures("installed")
def test_a_program_written_for_celery_runs() -> None:
    program: dict[str, object] = {}

    exec(  # noqa: S102 - the program
        "from celery import Celery, chain, shared_task\n"
        "from celery.schedules import crontab\n"
        "from celery.utils.log import get_task_logger\n"
        "from kombu import Exchange, Queue\n"
        "from kombu.exceptions import OperationalError\n"
        "app = Celery('prog', set_as_current=False)\n"
        "from billiard.einfo import ExceptionInfo\n"
        "from billiard.exceptions import SoftTimeLimitExceeded, WorkerLostError\n"
        "queue = Queue('q', Exchange('e'), routing_key='k')\n",
        program,
    )

    assert isinstance(program["app"], qbroker.App)
    assert program["OperationalError"] is qbroker.exceptions.OperationalError


@pytest.mark.usefixtures("installed")
def test_what_there_is_not_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"celery\.concurrency"):
        importlib.import_module("celery.concurrency")
    with pytest.raises(ModuleNotFoundError, match=r"kombu\.transport"):
        importlib.import_module("kombu.transport")


def test_the_real_celery_is_not_replaced_behind_a_programs_back() -> None:
    sys.modules["celery"] = ModuleType("celery")
    try:
        with pytest.raises(RuntimeError, match="'celery' is imported already"):
            compat.install()
    finally:
        del sys.modules["celery"]


def test_installing_twice_is_installing_once_and_can_be_undone() -> None:
    compat.install()
    compat.install()
    importlib.import_module("celery.app")

    compat.uninstall()
    compat.uninstall()

    assert "celery" not in sys.modules
    assert compat._finder not in sys.meta_path
