"""qbroker: call functions on other machines, through one broker that remembers.

The public names, sorted. Each is loaded when it is first asked for: the pytest plug-in and the commands live below this
package, and who needs no app does not wait for one. gRPC is loaded when the first call is made, not before.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from qbroker._version import __version__

if TYPE_CHECKING:
    from qbroker import exceptions, signals, states
    from qbroker._current import current_app, current_task
    from qbroker.app import App, Celery, shared_task
    from qbroker.canvas.primitives import chain, chord, chunks, group, xmap, xstarmap
    from qbroker.canvas.signature import Signature, maybe_signature, signature, subtask
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

_HOMES = {
    "App": "qbroker.app",
    "AsyncResult": "qbroker.result",
    "Celery": "qbroker.app",
    "EagerResult": "qbroker.result",
    "GroupResult": "qbroker.result",
    "ResultSet": "qbroker.result",
    "Signature": "qbroker.canvas",
    "Task": "qbroker.task",
    "allow_join_result": "qbroker.result",
    "chain": "qbroker.canvas",
    "chord": "qbroker.canvas",
    "chunks": "qbroker.canvas",
    "current_app": "qbroker._current",
    "current_task": "qbroker._current",
    "group": "qbroker.canvas",
    "maybe_signature": "qbroker.canvas",
    "result_from_tuple": "qbroker.result",
    "shared_task": "qbroker.app",
    "signature": "qbroker.canvas",
    "subtask": "qbroker.canvas",
    "uuid": "qbroker.ids",
    "xmap": "qbroker.canvas",
    "xstarmap": "qbroker.canvas",
}
"""Where each is that is no module itself."""


if not TYPE_CHECKING:
    # Hidden from type checkers, which would take any name for one that is there.

    def __getattr__(name: str) -> object:
        if name in _HOMES:
            found = globals()[name] = getattr(import_module(_HOMES[name]), name)
            return found
        module = f"{__name__}.{name}"
        if not name.startswith("_") and find_spec(module) is not None:
            return import_module(module)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
