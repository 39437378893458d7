"""Logging as workers and commands set it up: Celery's formats, colours only on a terminal."""

import codecs
import io
import json
import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

from qbroker import signals
from qbroker.request import current_request
from qbroker.serialization import Value
from qbroker.utils.log import mlevel, task_logger

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "LOG_FORMAT",
    "TASK_LOG_FORMAT",
    "ColorFormatter",
    "JsonFormatter",
    "LoggingProxy",
    "TaskFormatter",
    "everything_as_json",
    "json_line",
    "redirect_stdouts",
    "setup_logging",
]

LOG_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
TASK_LOG_FORMAT = (
    "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"
)

_COLORS = {
    logging.DEBUG: "\x1b[1;34m",
    logging.WARNING: "\x1b[1;33m",
    logging.ERROR: "\x1b[1;31m",
    logging.CRITICAL: "\x1b[1;35m",
}
_RESET = "\x1b[0m"


class ColorFormatter(logging.Formatter):
    """A formatter that shows the level as colour, where `use_color` says so."""

    def __init__(self, fmt: str, *, use_color: bool = False) -> None:
        super().__init__(fmt)
        self.use_color = use_color

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        color = _COLORS.get(record.levelno) if self.use_color else None
        return f"{color}{text}{_RESET}" if color else text


class TaskFormatter(ColorFormatter):
    """Knows `task_name` and `task_id` of the task that is running; `???` outside of one."""

    def format(self, record: logging.LogRecord) -> str:
        name, id_ = _running() or ("???", "???")
        record.__dict__.setdefault("task_id", id_)
        record.__dict__.setdefault("task_name", name)
        return super().format(record)


def _running() -> tuple[str, str] | None:
    """Name and id of the task this is asked in."""
    request = current_request.get()
    if request is None or request.task is None:
        return None
    return request.task.name, request.id or ""


class JsonFormatter(logging.Formatter):
    """A line is a JSON object: time, level, logger, process, message; and in a task its name and id."""

    def format(self, record: logging.LogRecord) -> str:
        found = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.processName,
            "pid": record.process,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if (running := _running()) is not None:
            found["task_name"], found["task_id"] = running
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found, ensure_ascii=False, default=repr)


FIELDS = "qbroker_fields"
"""Attribute of a log record: further members of its JSON object."""


def json_line(
    level: int, logger: str, message: str, fields: Mapping[str, Value] | None = None
) -> str:
    """A line as JsonFormatter writes it, for output that comes before logging is set up."""
    record = logging.LogRecord(logger, level, "", 0, message, None, None)
    record.__dict__[FIELDS] = fields or {}
    return JsonFormatter().format(record)


@contextmanager
def everything_as_json(level: int) -> Iterator[None]:
    """Log what is logged, warned of and printed inside as JSON objects on standard error.

    For the time in which an app is imported: its own logging is set up afterwards.
    """
    root = logging.getLogger()
    before, level_before = root.handlers[:], root.level
    handler = _handler(sys.__stderr__ or sys.stderr, None, JsonFormatter())
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    proxy = LoggingProxy(logging.getLogger("celery.redirected"))
    try:
        with redirect_stdout(proxy), redirect_stderr(proxy):
            yield
    finally:
        root.removeHandler(handler)
        if not root.handlers:
            root.handlers[:] = before
            root.setLevel(level_before)


def setup_logging(
    level: int | str = logging.WARNING,
    *,
    logfile: str | None = None,
    log_format: str = LOG_FORMAT,
    task_log_format: str = TASK_LOG_FORMAT,
    use_color: bool | None = None,
    hijack_root_logger: bool = True,
    is_json: bool = False,
    stream: TextIO | None = None,
) -> None:
    """Send all records to the stream (standard error) or file; who listens to the signal does it instead.

    `use_color` None: where the stream is a terminal. `is_json`: each line is a JSON object. Without `hijack_root_logger`, handlers that the
    root logger has already are left alone.
    """
    number = mlevel(level)
    stream = stream or sys.__stderr__ or sys.stderr
    if use_color is None:
        use_color = logfile is None and stream.isatty()
    told = {"loglevel": number, "logfile": logfile, "format": log_format, "colorize": use_color}
    if signals.setup_logging:
        signals.setup_logging.send(None, **told)
        return
    root = logging.getLogger()
    if hijack_root_logger:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
    if not root.handlers:
        formatter = JsonFormatter() if is_json else ColorFormatter(log_format, use_color=use_color)
        root.addHandler(_handler(stream, logfile, formatter))
        root.setLevel(number)
    signals.after_setup_logger.send(None, logger=root, **told)
    for handler in task_logger.handlers[:]:
        task_logger.removeHandler(handler)
    formatter = JsonFormatter() if is_json else TaskFormatter(task_log_format, use_color=use_color)
    task_logger.addHandler(_handler(stream, logfile, formatter))
    task_logger.setLevel(number)
    task_logger.propagate = False
    signals.after_setup_task_logger.send(
        None, logger=task_logger, **(told | {"format": task_log_format})
    )


def _handler(stream: TextIO, logfile: str | None, formatter: logging.Formatter) -> logging.Handler:
    handler: logging.Handler = (
        logging.StreamHandler(stream)
        if logfile is None
        else logging.FileHandler(logfile, encoding="utf-8")
    )
    handler.setFormatter(formatter)
    return handler


class LoggingProxy(io.TextIOBase):
    """A text stream whose lines become log records; `stream` is the stream that it stands for.

    Programs that a task starts with this stream write to the descriptor of `stream`, past the log.
    """

    mode = "w"
    line_buffering = True
    write_through = True

    _thread = threading.local()
    """Whether this thread logs what was printed; one for all proxies, as a handler may print to another of them."""

    def __init__(
        self,
        logger: logging.Logger,
        loglevel: int | str = logging.WARNING,
        *,
        stream: TextIO | None = None,
    ) -> None:
        super().__init__()
        self.logger = logger
        self.loglevel = mlevel(loglevel)
        self._stream = stream
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._errors = getattr(stream, "errors", None) or "strict"
        self._buffer: _LoggedBytes | None = None

    def write(self, text: str | bytes) -> int:
        """Log each line that is not blank; what a handler prints meanwhile goes to standard error.

        A closed proxy drops the text, as Celery's does.
        """
        if isinstance(text, bytes):
            return self.buffer.write(text)
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self.closed:
            return 0
        thread = self._thread
        if getattr(thread, "recurse_protection", False):
            # Logging it too would never end.
            if sys.__stderr__ is not None:
                sys.__stderr__.write(text)
            return len(text)
        thread.recurse_protection = True
        try:
            for line in text.splitlines():
                if line.strip():
                    self.logger.log(self.loglevel, "%s", _encodable(line.rstrip()))
        finally:
            thread.recurse_protection = False
        return len(text)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        """A record has no colours and no cursor, wherever the log goes."""
        return False

    def fileno(self) -> int:
        """The descriptor of the stream that this one stands for."""
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    @property
    def name(self) -> str:
        return getattr(self._stream, "name", None) or "<log>"

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only here, and of every real stream
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[mutable-override, override]  # as above
        return self._errors

    @property
    def buffer(self) -> "_LoggedBytes":
        """The stream for bytes, which become records too."""
        if self._buffer is None or self._buffer.closed:
            self._buffer = _LoggedBytes(self)
        return self._buffer

    def detach(self) -> BinaryIO:
        """The stream for bytes; this one goes on, as others print to it too."""
        return cast("BinaryIO", self.buffer)

    def reconfigure(
        self,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        line_buffering: bool | None = None,
        write_through: bool | None = None,
    ) -> None:
        """Take another encoding for `buffer`; a record has no line ends and is never held back."""
        del newline, line_buffering, write_through
        if encoding is not None:
            codecs.lookup(encoding)
            self._encoding, self._errors = encoding, "strict"
        if errors is not None:
            codecs.lookup_error(errors)
            self._errors = errors
        self._buffer = None


class _LoggedBytes(io.BufferedIOBase):
    """The stream for bytes below a proxy. A character may come in two parts."""

    def __init__(self, text: LoggingProxy) -> None:
        super().__init__()
        self.raw = self
        self.mode = "wb"
        self._text = text
        self._threads = threading.local()

    @property
    def name(self) -> str:
        return self._text.name

    def write(self, data: "ReadableBuffer") -> int:
        """Log each line; bytes that are no text in the proxy's encoding are shown as escapes."""
        if self.closed:
            raise ValueError("write to closed file")
        threads = self._threads
        if not hasattr(threads, "decoder"):
            threads.decoder = codecs.getincrementaldecoder(self._text.encoding)("backslashreplace")
        found = bytes(data)
        self._text.write(threads.decoder.decode(found))
        return len(found)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._text.fileno()


def _encodable(line: str) -> str:
    """The line with escapes for lone surrogates, which no handler could write."""
    return line.encode("utf-8", "backslashreplace").decode("utf-8")


def redirect_stdouts(level: int | str = logging.WARNING, name: str = "celery.redirected") -> None:
    """Make `print` in tasks a log record."""
    logger = logging.getLogger(name)
    sys.stdout = LoggingProxy(logger, level, stream=sys.__stdout__)
    sys.stderr = LoggingProxy(logger, level, stream=sys.__stderr__)
