"""The tasks of the current app, by the path of Celery's version 3."""

from typing import Final

from qbroker import _state
from qbroker.local import Proxy
from qbroker.serialization import Value

__all__ = ["tasks"]

tasks: Final[Value] = Proxy(lambda: _state.get_current_app().tasks, name="tasks")
