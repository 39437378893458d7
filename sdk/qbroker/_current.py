"""`current_app` and `current_task`: whatever is current where they are used."""

from typing import cast

from qbroker import _state
from qbroker.app import App
from qbroker.local import Proxy
from qbroker.request import current_request
from qbroker.serialization import Value

__all__ = ["current_app", "current_task"]


def _task() -> Value:
    request = current_request.get()
    return None if request is None else request.task


current_app = cast("App", Proxy(_state.get_current_app, name="current_app"))
current_task: Value = Proxy(_task, name="current_task")
