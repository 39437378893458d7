"""Log lines have Celery's form; task loggers know the task."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from qbroker import App
from qbroker.app.log import LoggingProxy, setup_logging
from qbroker.utils.log import get_task_logger, task_logger
from tests.sdk.conftest import MakeApp


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Logging is the process's own: put it back."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, task_logger.handlers[:], task_logger.propagate
    yield
    root.handlers[:], root.level, task_logger.handlers[:], task_logger.propagate = before


@pytest.fixture
def app(make_app: MakeApp) -> App:
    return make_app()


class Terminal(io.StringIO):
    """A stream that shows colours."""

    def isatty(self) -> bool:
        return True


def test_a_line_has_time_level_process_and_message() -> None:
    stream = io.StringIO()
    setup_logging("INFO", stream=stream)

    logging.getLogger("some.where").info("hello")

    assert stream.getvalue().endswith(": INFO/MainProcess] hello\n")


def test_a_task_logger_names_the_task_that_runs(app: App) -> None:
    stream = io.StringIO()
    setup_logging("INFO", stream=stream)
    logger = get_task_logger("proj.tasks")
    _ = app.task(name="add")(lambda: logger.info("inside")).apply(task_id="an-id")

    logger.info("outside")

    inside, outside = stream.getvalue().splitlines()
    assert inside.endswith("INFO/MainProcess] add[an-id]: inside")
    assert outside.endswith("INFO/MainProcess] ???[???]: outside")


def test_colours_are_for_terminals_only() -> None:
    terminal, file = Terminal(), io.StringIO()

    setup_logging("INFO", stream=terminal)
    logging.getLogger("x").error("red")
    setup_logging("INFO", stream=file)
    logging.getLogger("x").error("plain")

    assert "\x1b[1;31m" in terminal.getvalue()
    assert "\x1b" not in file.getvalue()


def test_what_is_printed_becomes_a_record_a_line(caplog: pytest.LogCaptureFixture) -> None:
    proxy = LoggingProxy(logging.getLogger("out"), "WARNING")

    print("one\n\ntwo", file=proxy)
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("WARNING", "one"),
        ("WARNING", "two"),
    ]


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="no log level 'LOUD'"):
        setup_logging("LOUD")


def test_json_lines_are_objects_that_name_the_task(app: App) -> None:
    stream = io.StringIO()
    setup_logging("INFO", stream=stream, is_json=True)
    logger = get_task_logger("proj.tasks")
    _ = app.task(name="add")(lambda: logger.info("in\nside")).apply(task_id="an-id")

    try:
        int("grün")
    except ValueError:
        logging.getLogger("outside").exception("failed")

    inside, outside = map(json.loads, stream.getvalue().splitlines())
    assert (inside["level"], inside["message"]) == ("INFO", "in\nside")
    assert (inside["task_name"], inside["task_id"]) == ("add", "an-id")
    assert (outside["logger"], "task_id" in outside) == ("outside", False)
    assert outside["exception"].endswith("'grün'")
    assert outside["time"].endswith("+00:00")
