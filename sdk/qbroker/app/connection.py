"""`app.connection()`, `app.pool` and `app.producer_pool`: what Celery's programs take before they speak to the broker.

There is one connection a process, which the app makes by itself when it is needed. These are handles on it, so that programs which open
and close connections, or take them from a pool, go on to work.
"""

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Generic, NamedTuple, Self, TypeVar

from qbroker.exceptions import NotFound
from qbroker.masking import masked
from qbroker.serialization import Value
from qbroker.url import parse_url

if TYPE_CHECKING:
    from qbroker.client import Client

__all__ = ["Channel", "Connection", "Pool", "Producer", "QueueDeclared"]


class _Handle:
    """What is taken, used in a block and given back, of which nothing comes."""

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


class QueueDeclared(NamedTuple):
    """What there is of a queue, by AMQP's names."""

    queue: str
    message_count: int
    consumer_count: int


class Channel(_Handle):
    """What is asked of queues by AMQP's names: `connection.default_channel`."""

    def __init__(self, client: "Callable[[], Client]") -> None:
        self._client = client

    def queue_declare(
        self,
        queue: str,
        passive: bool = False,  # noqa: FBT001, FBT002 - AMQP's signature
        **_: Value,
    ) -> QueueDeclared:
        """How many messages wait in a queue, and how many workers take from it.

        A queue that is not there is made, but with `passive`: then it is NotFound.
        """
        client = self._client()
        try:
            (info,) = client.list_queues(queue)
        except NotFound:
            if passive:
                raise
            info = client.declare_queue(queue)
        return QueueDeclared(info.name, info.ready_count, info.consumer_count)

    def queue_purge(self, queue: str, **_: Value) -> int:
        """Drop every message that waits in a queue; answers how many there were."""
        return self._client().purge_queue(queue)


class Connection(_Handle):
    """A handle on the app's connection. Opening and closing it does nothing."""

    transport_cls = "qbroker"

    def __init__(self, client: "Callable[[], Client]", url: str) -> None:
        self._client = client
        self._url = url
        is_here = url.startswith("memory://")
        where: tuple[str, int | None] = ("localhost", None) if is_here else parse_url(url)
        self.hostname, self.port = where

    def as_uri(self, include_password: bool = False, **_: Value) -> str:  # noqa: FBT001, FBT002 - kombu's signature
        """Return the broker's URL, its password masked unless `include_password`."""
        return self._url if include_password else masked(self._url)

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

    def channel(self) -> Channel:
        """What queues are asked through."""
        return Channel(self._client)

    @property
    def default_channel(self) -> Channel:
        """The same."""
        return self.channel()

    def __repr__(self) -> str:
        return f"<Connection: {self.as_uri()}>"


class Producer(_Handle):
    """What calls are sent with: `task.apply_async(args, producer=producer)`. They go the same way without it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @property
    def channel(self) -> Channel:
        """What queues are asked through."""
        return self.connection.channel()


H = TypeVar("H")


class Pool(Generic[H]):
    """Handles for the taking, of which there are always enough."""

    limit: int | None = None
    """There is none."""

    def __init__(self, make: Callable[[], H]) -> None:
        self._make = make

    def acquire(self, block: bool = False, timeout: float | None = None) -> H:  # noqa: FBT001, FBT002 - kombu's signature
        """One of them."""
        del block, timeout
        return self._make()

    def release(self, resource: H) -> None:
        """Do nothing: there is nothing to give back."""

    def force_close_all(self) -> None:
        """Do nothing: `app.close()` ends the connection."""
