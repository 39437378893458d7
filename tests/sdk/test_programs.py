"""Workers that other programs begin."""

import logging
from collections.abc import Sequence

import pytest

from qbroker.app.programs import Worker
from qbroker.exceptions import ImproperlyConfigured
from tests.sdk.conftest import MakeApp


def test_the_arguments_of_a_worker_are_what_is_typed() -> None:
    began: list[Sequence[str]] = []
    worker = Worker(
        began.append,
        concurrency=4,
        pool_cls="threads",
        loglevel=logging.INFO,
        queues=["mail", "slow"],
        include=("proj.tasks",),
        beat=True,
        purge=False,
        hostname=None,
    )

    worker.start()

    (argv,) = began
    assert argv[:7] == ["worker", "--concurrency", "4", "--pool", "threads", "--loglevel", "INFO"]
    assert argv[7:] == ["--queues", "mail,slow", "--include", "proj.tasks", "--beat"]


def test_an_app_that_processes_cannot_import_has_no_worker(make_app: MakeApp) -> None:
    with pytest.raises(ImproperlyConfigured, match="is not an attribute of a module"):
        make_app().Worker(concurrency=1).start()
