"""Logging as workers and commands set it up: Celery's formats, colours only on a terminal."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from qbroker import signals
from qbroker.request import current_request
from qbroker.utils.log import mlevel, task_logger

__all__ = [
    "LOG_FORMAT",
    "TASK_LOG_FORMAT",
    "ColorFormatter",
    "JsonFormatter",
    "LoggingProxy",
    "TaskFormatter",
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
        }
        if (running := _running()) is not None:
            found["task_name"], found["task_id"] = running
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found, ensure_ascii=False)


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


class LoggingProxy:
    """Stands for a stream; what is written to it becomes log records, a line each."""

    closed = False
    encoding = "utf-8"

    def __init__(self, logger: logging.Logger, level: int | str = logging.WARNING) -> None:
        self._logger = logger
        self._level = mlevel(level)
        self._is_logging = False

    def write(self, text: str) -> int:
        """Log what is not blank; a handler that writes here while it logs is not heard."""
        if not self._is_logging:
            self._is_logging = True
            try:
                for line in text.splitlines():
                    if line.strip():
                        self._logger.log(self._level, "%s", line.rstrip())
            finally:
                self._is_logging = False
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing waits."""

    def isatty(self) -> bool:
        return False


def redirect_stdouts(level: int | str = logging.WARNING, name: str = "celery.redirected") -> None:
    """Make `print` in tasks a log record."""
    proxy = LoggingProxy(logging.getLogger(name), level)
    sys.stdout = sys.stderr = proxy  # as much of a stream as print needs
