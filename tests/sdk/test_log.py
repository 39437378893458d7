"""Log lines have Celery's form; task loggers know the task."""

import contextlib
import io
import json
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TextIO, cast

import pytest

from qbroker import App
from qbroker.app.log import LoggingProxy, redirect_stdouts, setup_logging
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


class Chatty(logging.Handler):
    """A handler that prints while it logs, and does not return before all threads are in it."""

    def __init__(self, thread_count: int = 1) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._all_are_here = threading.Barrier(thread_count)

    def handle(self, record: logging.LogRecord) -> bool:
        # Without the lock that a handler holds, under which the barrier would never be passed.
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            self._all_are_here.wait(10)
        self.texts.append(record.getMessage())
        print("from the handler")  # noqa: T201 - what is tested


@pytest.fixture
def chatty() -> Iterator[Chatty]:
    """Where printed lines go in these tests."""
    logger, handler = logging.getLogger("redirected-here"), Chatty()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@contextlib.contextmanager
def redirected() -> Iterator[None]:
    """The process's streams as a worker has them. No fixture: pytest puts its own in place for the test."""
    before = sys.stdout, sys.stderr
    redirect_stdouts("WARNING", "redirected-here")
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def test_threads_that_print_at_once_lose_no_line() -> None:
    logger, handler = logging.getLogger("crowd"), Chatty(thread_count=4)
    logger.addHandler(handler)
    proxies = [LoggingProxy(logger), LoggingProxy(logger)]
    threads = [
        threading.Thread(target=print, args=(number,), kwargs={"file": proxies[number % 2]})
        for number in range(4)
    ]

    with contextlib.redirect_stdout(io.StringIO()):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert sorted(handler.texts) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_handler_that_prints_is_heard_on_standard_error_and_not_logged_again(
    chatty: Chatty, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with redirected():
        print("from a task", file=getattr(sys, name))

    assert chatty.texts == ["from a task"]
    assert capfd.readouterr().err == "from the handler\n"


def test_a_text_that_prints_while_it_is_made_is_logged_as_well(chatty: Chatty) -> None:
    class Loud:
        def __str__(self) -> str:
            print("inside")  # noqa: T201 - what is tested
            return "outside"

    with redirected():
        print(Loud())  # noqa: T201 - what is tested

    assert chatty.texts == ["inside", "outside"]


def test_a_stream_that_a_task_puts_in_place_takes_what_it_prints(chatty: Chatty) -> None:
    own = io.StringIO()

    with redirected():
        with contextlib.redirect_stdout(own):
            print("mine")  # noqa: T201 - what is tested
        print("the log's")  # noqa: T201 - what is tested

    assert own.getvalue() == "mine\n"
    assert chatty.texts == ["the log's"]


def proxy_for(stream: TextIO, handler: Chatty) -> LoggingProxy:
    """What a task prints to instead of `stream`."""
    del handler  # it listens to the logger below
    return LoggingProxy(logging.getLogger("redirected-here"), stream=stream)


def test_a_program_that_a_task_starts_writes_to_the_process_own_descriptor(
    chatty: Chatty, tmp_path: Path
) -> None:
    with (tmp_path / "out").open("w+") as out:
        proxy = proxy_for(out, chatty)

        subprocess.run(["/bin/echo", "hello"], stdout=cast("IO[str]", proxy), check=True)

        assert (tmp_path / "out").read_text() == "hello\n"
        assert proxy.fileno() == out.fileno()


def test_what_is_printed_to_is_a_text_stream(chatty: Chatty, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="latin-1", errors="replace") as out:
        proxy = proxy_for(out, chatty)

        assert isinstance(proxy, io.TextIOBase)
        assert (proxy.encoding, proxy.errors, proxy.mode) == ("latin-1", "replace", "w")
        assert proxy.name == str(tmp_path / "out")
        assert proxy.newlines is None
        assert (proxy.writable(), proxy.readable(), proxy.seekable()) == (True, False, False)
        assert not proxy.isatty()
        assert not proxy.closed
        with pytest.raises(TypeError, match="must be str, not int"):
            proxy.write(5)  # type: ignore[arg-type]  # the mistake


def test_the_streams_of_a_worker_have_the_process_names() -> None:
    with redirected():
        names = sys.stdout.name, sys.stderr.name
        numbers = sys.stdout.fileno(), sys.stderr.fileno()

    assert names == ("<stdout>", "<stderr>")
    assert numbers == (1, 2)


def test_bytes_become_records_and_a_character_may_come_in_parts(chatty: Chatty) -> None:
    proxy = proxy_for(sys.stdout, chatty)
    whole = "grün".encode()

    proxy.buffer.write(whole[:3])
    proxy.buffer.write(whole[3:] + b"\n\xff\n")
    shutil.copyfileobj(io.BytesIO(b"copied\n"), proxy.buffer)
    proxy.writelines(["a\n", "b\n"])

    assert "".join(chatty.texts) == "grün\\xffcopiedab"


def test_a_stream_made_anew_around_the_bytes_is_logged(chatty: Chatty) -> None:
    proxy = proxy_for(sys.stdout, chatty)

    with io.TextIOWrapper(proxy.detach(), encoding="utf-8") as wrapped:
        print("wrapped", file=wrapped)
    print("and after", file=proxy)
    proxy.buffer.write(b"and bytes\n")

    assert chatty.texts == ["wrapped", "and after", "and bytes"]


def test_another_encoding_is_taken_for_the_bytes(chatty: Chatty) -> None:
    proxy = proxy_for(sys.stdout, chatty)

    proxy.reconfigure(encoding="latin-1", errors="replace", line_buffering=False)
    proxy.buffer.write("grün\n".encode("latin-1"))

    assert chatty.texts == ["grün"]
    assert (proxy.encoding, proxy.errors) == ("latin-1", "replace")
    with pytest.raises(LookupError):
        proxy.reconfigure(encoding="no such")


def test_a_line_that_no_file_can_hold_is_logged_with_escapes(chatty: Chatty) -> None:
    proxy = proxy_for(sys.stdout, chatty)

    print("a\udcffb", file=proxy)

    assert chatty.texts == ["a\\udcffb"]


def test_a_stream_that_a_task_has_closed_drops_what_is_printed(chatty: Chatty) -> None:
    proxy = proxy_for(sys.stdout, chatty)
    proxy.close()

    assert proxy.write("late\n") == 0
    assert chatty.texts == []


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
