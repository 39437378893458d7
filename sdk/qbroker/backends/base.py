"""Celery's path to the classes of backends, for programs that ask what `app.backend` is."""

from qbroker import states
from qbroker.result import Backend, DisabledBackend

__all__ = [
    "Backend",
    "BaseBackend",
    "BaseKeyValueStoreBackend",
    "DisabledBackend",
    "KeyValueStoreBackend",
    "states",
]

BaseBackend = Backend


class BaseKeyValueStoreBackend(Backend):
    """What Celery's backends are that poll a store of keys. No backend of qbroker's is one: it is told by the broker."""


KeyValueStoreBackend = BaseKeyValueStoreBackend
