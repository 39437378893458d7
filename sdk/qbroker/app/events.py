"""`app.events`: the classes of events, bound to an app."""

from collections.abc import Iterator
from contextlib import contextmanager

from qbroker.events.dispatcher import EventDispatcher
from qbroker.events.receiver import EventReceiver
from qbroker.events.state import State
from qbroker.serialization import Value

__all__ = ["Events"]


class Events:
    """`app.events.Receiver`, `.Dispatcher` and `.State`, and a dispatcher for a `with`."""

    def __init__(self, app: Value) -> None:
        self.app = app
        self.Receiver = _bound(EventReceiver, app)
        self.Dispatcher = _bound(EventDispatcher, app)
        self.State = _bound(State, app)

    @contextmanager
    def default_dispatcher(
        self,
        hostname: str | None = None,
        enabled: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        buffer_while_offline: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
    ) -> Iterator[EventDispatcher]:
        """A dispatcher that sends in this process's name, or in another."""
        with self.Dispatcher(None, hostname, enabled) as dispatcher:
            yield dispatcher


def _bound(class_: type[Value], app: Value) -> Value:
    """The class, of whose instances this is the app."""
    return type(class_.__name__, (class_,), {"app": app, "__module__": class_.__module__})
