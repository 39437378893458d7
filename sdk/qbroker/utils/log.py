"""Loggers for tasks, by Celery's names: their lines carry the task's name and id."""

import logging

LOG_LEVELS: dict[str | int, str | int] = {
    **{name: number for name, number in logging.getLevelNamesMapping().items()},  # noqa: C416 - for its type
    **{number: name for name, number in logging.getLevelNamesMapping().items()},
}
"""Levels by name and by number."""

base_logger = logging.getLogger("celery")

TASK_LOGGER_NAME = "celery.task"
"""The parent of all task loggers; Celery's literal, because users' logging settings name it."""

task_logger = logging.getLogger(TASK_LOGGER_NAME)


def get_logger(name: str) -> logging.Logger:
    """The logger of that name."""
    return logging.getLogger(name)


def get_task_logger(name: str) -> logging.Logger:
    """A logger whose records are formatted by `worker_task_log_format`."""
    logger = logging.getLogger(name)
    if logger is not task_logger and logger.parent is logging.root:
        logger.parent = task_logger
    return logger


def get_multiprocessing_logger() -> logging.Logger:
    """The logger of the standard library's multiprocessing, whose processes workers do not use."""
    return logging.getLogger("multiprocessing")


def mlevel(level: int | str) -> int:
    """A level by number or name."""
    if isinstance(level, int):
        return level
    found = logging.getLevelNamesMapping().get(level.upper())
    if found is None:
        raise ValueError(
            f"no log level {level!r}; use one of DEBUG, INFO, WARNING, ERROR, CRITICAL"
        )
    return found
