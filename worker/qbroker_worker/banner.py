"""The banner that a worker shows when it starts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from qbroker.masking import masked
from qbroker.serialization import Value

BUILT_IN_PREFIX = "celery."

TEMPLATE = """
 {name} v{version} (qbroker)

 [config]
 .> app:         {app}
 .> broker:      {broker}
 .> results:     {results}
 .> concurrency: {concurrency} ({pool})

 [queues]
{queues}
"""


class Show(Protocol):
    """Writes a line of the worker's own output, before logging is set up."""

    def __call__(self, message: str, text: str = "", **fields: Value) -> None:
        """Write `text`, or `message` where it is empty; as JSON: `message` with the fields."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """The facts a worker shows when it starts. Passwords in URLs are masked."""

    name: str
    version: str
    app: str
    broker: str
    results: str
    concurrency: int
    pool: str
    queues: Sequence[str]
    tasks: Sequence[str]
    """Tasks to list; those of qbroker itself are left out."""

    @property
    def fields(self) -> dict[str, Value]:
        """Everything, for a line of JSON."""
        return {
            **asdict(self),
            "broker": masked(self.broker),
            "results": masked(self.results) or "disabled://",
            "tasks": self._own_tasks,
        }

    @property
    def text(self) -> str:
        """Everything, for people."""
        queues = "\n".join(f" .> {queue}" for queue in self.queues)
        text = TEMPLATE.format(**(self.fields | {"queues": queues}))
        if self._own_tasks:
            text += "\n [tasks]\n" + "\n".join(f"  . {task}" for task in self._own_tasks) + "\n"
        return text

    @property
    def _own_tasks(self) -> list[str]:
        return [task for task in self.tasks if not task.startswith(BUILT_IN_PREFIX)]
