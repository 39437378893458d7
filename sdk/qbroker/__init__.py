"""qbroker: call functions on other machines, through one broker that remembers.

The public names, sorted. gRPC is loaded when the first call is made, not before.
"""

from qbroker import exceptions, signals, states
from qbroker._current import current_app, current_task
from qbroker._version import __version__
from qbroker.app import App, Celery, shared_task
from qbroker.canvas import (
    Signature,
    chain,
    chord,
    chunks,
    group,
    maybe_signature,
    signature,
    subtask,
    xmap,
    xstarmap,
)
from qbroker.ids import uuid
from qbroker.result import (
    AsyncResult,
    EagerResult,
    GroupResult,
    ResultSet,
    allow_join_result,
    result_from_tuple,
)
from qbroker.task import Task

__all__ = [
    "App",
    "AsyncResult",
    "Celery",
    "EagerResult",
    "GroupResult",
    "ResultSet",
    "Signature",
    "Task",
    "__version__",
    "allow_join_result",
    "chain",
    "chord",
    "chunks",
    "current_app",
    "current_task",
    "exceptions",
    "group",
    "maybe_signature",
    "result_from_tuple",
    "shared_task",
    "signals",
    "signature",
    "states",
    "subtask",
    "uuid",
    "xmap",
    "xstarmap",
]
