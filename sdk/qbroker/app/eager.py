"""The part of sending that eager mode shares: arguments go through the serializer, as to a worker.

`apply_async` with `task_always_eager` stands for a message, so what JSON changes is changed and what cannot be written is an
EncodeError. `apply` is a call in this process, and passes on what it is given. What follows a call, its callbacks and the next
steps of a chain, goes by the way that the call went; a task's own calls do not.
"""

import contextlib
import contextvars
from collections.abc import Iterator, Mapping, Sequence

from qbroker import envelope, serialization
from qbroker.exceptions import EncodeError
from qbroker.serialization import Value

__all__ = ["carried", "is_sending", "sending"]

_is_sending: contextvars.ContextVar[bool] = contextvars.ContextVar("is_sending", default=False)


def is_sending() -> bool:
    """Whether tasks that are run here stand for messages."""
    return _is_sending.get()


@contextlib.contextmanager
def sending(*, is_on: bool = True) -> Iterator[None]:
    """A block in which tasks that are run here stand for messages, or with `is_on` False do not."""
    token = _is_sending.set(is_on)
    try:
        yield
    finally:
        _is_sending.reset(token)


def carried(
    task: Value, args: Sequence[Value], kwargs: Mapping[str, Value], serializer: str
) -> tuple[list[Value], dict[str, Value]]:
    """The arguments of a call as a worker would get them. EncodeError for what cannot be written."""
    try:
        content_type, _, body = serialization.encode((args, kwargs), serializer)
    except EncodeError as exc:
        parts = envelope.call_parts(args, kwargs, task)
        raise envelope.explained(exc, f"task {task.name!r}", parts, serializer) from exc
    found_args, found_kwargs = serialization.decode(body, content_type, (content_type,))
    return list(found_args), dict(found_kwargs)
