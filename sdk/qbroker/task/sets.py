"""`TaskSet`, which was Celery's group before there were groups."""

from collections.abc import Iterable

from qbroker.canvas import Signature, group, maybe_signature, subtask
from qbroker.serialization import Value

__all__ = ["TaskSet", "group", "subtask"]


class TaskSet(list[Signature[Value]]):
    """Several calls that are made together: `TaskSet(tasks=[add.subtask((4, 4)), …]).apply_async()`."""

    def __init__(
        self,
        tasks: Iterable[Value] = (),
        app: Value = None,
        Publisher: Value = None,  # noqa: N803 - Celery's name
    ) -> None:
        del Publisher
        super().__init__(maybe_signature(one, app) for one in tasks)
        self._app = app

    @property
    def tasks(self) -> list[Signature[Value]]:
        """The calls."""
        return list(self)

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self)

    def apply_async(
        self, connection: Value = None, publisher: Value = None, taskset_id: str | None = None
    ) -> Value:
        """Make them; answers a GroupResult."""
        del connection, publisher
        named: dict[str, Value] = {} if taskset_id is None else {"group_id": taskset_id}
        return group(*self, app=self._app).apply_async(**named)

    def apply(self, taskset_id: str | None = None) -> Value:
        """Run them right here, one after the other."""
        del taskset_id
        return group(*self, app=self._app).apply()
