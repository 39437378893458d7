"""What an event is: a dict, of which only the type must be there."""

from collections.abc import Mapping

from qbroker import clock
from qbroker.serialization import Value

__all__ = ["Event", "group_from"]


def Event(  # noqa: N802 - Celery's name
    type: str,  # noqa: A002 - Celery's name
    _fields: Mapping[str, Value] | None = None,
    **fields: Value,
) -> dict[str, Value]:
    """An event of this type, of now unless its fields say otherwise."""
    event = {**(_fields or {}), **fields, "type": type}
    event.setdefault("timestamp", clock.wall())
    return event


def group_from(type: str) -> str:  # noqa: A002 - Celery's name
    """The part before the first dash: "task" of "task-sent"."""
    return type.partition("-")[0]
