"""`app.connection()`: what Celery's programs open before they speak to the broker.

There is one connection a process, which the app makes by itself when it is needed. This is a handle on it, so that programs which open
and close connections go on to work.
"""

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from qbroker.serialization import Value
from qbroker.url import parse_url

if TYPE_CHECKING:
    from qbroker.client import Client

__all__ = ["Connection", "Pool", "Producer"]

T = TypeVar("T")


class Connection:
    """A handle on the app's connection. Opening and closing it does nothing."""

    transport_cls = "qbroker"

    def __init__(self, client: "Callable[[], Client]", url: str) -> None:
        self._client = client
        self._url = url
        self.hostname, self.port = parse_url(url)

    def as_uri(self, include_password: bool = False, **_: Value) -> str:  # noqa: FBT001, FBT002 - kombu's signature
        """The broker's address."""
        return self._url

    def ensure_connection(
        self, errback: Value = None, max_retries: int | None = None, **_: Value
    ) -> Self:
        """Ask the broker for a sign of life. Raises OperationalError when there is none in time."""
        self._client().status()
        return self

    connect = ensure_connection

    @property
    def connected(self) -> bool:
        """Always: it connects by itself."""
        return True

    def clone(self, **_: Value) -> "Connection":
        """Another handle."""
        return Connection(self._client, self._url)

    def release(self) -> None:
        """Do nothing: the connection is the app's."""

    close = release

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Connection: {self._url}>"


class Producer:
    """What calls are given as `producer=`, and need not be: they go through the app's connection, whoever is given."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def release(self) -> None:
        """Do nothing: there is nothing to give back."""

    close = release

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class Pool(Generic[T]):
    """Gives as many handles as anybody wants, at once."""

    limit: int | None = None
    """There is none."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make

    def acquire(self, block: bool = False, timeout: float | None = None) -> T:  # noqa: FBT001, FBT002 - kombu's signature
        """A handle, for a `with`."""
        return self._make()

    def release(self, resource: T) -> None:
        """Do nothing: there is nothing to give back."""

    def force_close_all(self) -> None:
        """Do nothing: `app.close()` ends the connection."""
