"""`app.Worker(…).start()`: a worker that another program begins, by the arguments of Celery's worker."""

import logging
from collections.abc import Callable, Sequence

from qbroker.serialization import Value

__all__ = ["Worker"]

_RENAMED = {"pool_cls": "pool", "events": "task_events"}
"""Arguments that the command line knows by another name."""


class Worker:
    """A worker of an app, in this process. Its arguments are the options of `qbroker worker`: `concurrency=4`, `beat=True`."""

    def __init__(self, run: Callable[[Sequence[str]], None], **options: Value) -> None:
        self._run = run
        self.options = {_RENAMED.get(name, name): value for name, value in options.items()}

    @property
    def argv(self) -> list[str]:
        """What is typed to have the same worker."""
        argv = ["worker"]
        for name, value in self.options.items():
            option = f"--{name.replace('_', '-')}"
            if value is True:
                argv.append(option)
            elif value is not None and value is not False:
                argv += [option, _word(name, value)]
        return argv

    def start(self) -> None:
        """Work until the process is told to end."""
        self._run(self.argv)


def _word(name: str, value: Value) -> str:
    if name == "loglevel" and isinstance(value, int):
        return logging.getLevelName(value)
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(map(str, value))
    return str(value)
