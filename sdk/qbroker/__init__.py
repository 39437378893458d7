"""qbroker: call functions on other machines, through one broker that remembers.

The public names, sorted. gRPC is loaded when the first call is made, not before.
"""

from qbroker import exceptions, signals, states
from qbroker._current import current_app, current_task
from qbroker._version import __version__
from qbroker.app import App, Celery, shared_task
from qbroker.canvas import Signature, maybe_signature, signature, subtask
from qbroker.ids import uuid
from qbroker.result import AsyncResult, EagerResult, allow_join_result
from qbroker.task import Task

__all__ = [
    "App",
    "AsyncResult",
    "Celery",
    "EagerResult",
    "Signature",
    "Task",
    "__version__",
    "allow_join_result",
    "current_app",
    "current_task",
    "exceptions",
    "maybe_signature",
    "shared_task",
    "signals",
    "signature",
    "states",
    "subtask",
    "uuid",
]
