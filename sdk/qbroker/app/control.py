"""`app.control`: orders and questions about tasks, by Celery's names.

The broker carries them out and answers by itself, in one durable write: no worker has to be up, and what was
revoked stays revoked. So nothing is broadcast, and arguments of Celery's that speak of workers
(`destination`, `reply`, `timeout`, …) are taken and change nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qbroker.envelope import STAGES
from qbroker.exceptions import NotFound
from qbroker.result import Explanation
from qbroker.serialization import Value

if TYPE_CHECKING:
    from qbroker.client import Client, RevokeReply

__all__ = ["Control", "Revoked"]


@dataclass(frozen=True, slots=True)
class Revoked:
    """What became of the tasks that were revoked, by their ids."""

    ended: tuple[str, ...]
    """Waited, or were unknown: they never run."""
    told: tuple[str, ...]
    """Are with a worker, which was told."""
    late: tuple[str, ...]
    """Had ended before."""


class Control:
    """What an app can have done with tasks."""

    def __init__(self, client: "Callable[[], Client]", queue: Callable[[], str]) -> None:
        self._client = client
        self._queue = queue

    def revoke(
        self,
        task_id: str | Iterable[str],
        destination: Value = None,
        terminate: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        signal: str = "SIGTERM",
        **kwargs: Value,
    ) -> Revoked:
        """Have tasks not run: one id or many. With `terminate`, end those that run, by the signal.

        An id that is not known yet is remembered: what is published with it later is not run.
        """
        ids = [task_id] if isinstance(task_id, str) else [str(one) for one in task_id]
        return _revoked(self._client().revoke(ids, terminate=terminate, signal=_name_of(signal)))

    def terminate(
        self,
        task_id: str | Iterable[str],
        destination: Value = None,
        signal: str = "SIGTERM",
        **kwargs: Value,
    ) -> Revoked:
        """Revoke tasks, and end those that run."""
        return self.revoke(task_id, destination, True, signal, **kwargs)  # noqa: FBT003 - terminate

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Value] | Iterable[str],
        destination: Value = None,
        terminate: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        signal: str = "SIGTERM",
        **kwargs: Value,
    ) -> Revoked:
        """Revoke the tasks with any of these stamps or labels: {"customer": 42}, {"day": ["mo", "tu"]}, ["day=mo"].

        It reaches the tasks that are there now. What is published later with such a label is run.
        """
        labels: list[str] = []
        if isinstance(headers, Mapping):
            for name, value in headers.items():
                values = value if isinstance(value, list | tuple | set | frozenset) else (value,)
                labels += [f"{name}={one}" for one in values]
        else:
            labels += [headers] if isinstance(headers, str) else headers
        reply = self._client().revoke(labels=labels, terminate=terminate, signal=_name_of(signal))
        return _revoked(reply)

    def purge(self, connection: Value = None) -> int:
        """Throw away what waits in the app's queue; answers how many messages that were."""
        try:
            return self._client().purge_queue(self._queue())
        except NotFound:
            return 0

    discard_all = purge

    def explain(self, task_id: str) -> Explanation:
        """Where a task is and why, in a sentence."""
        reply = self._client().explain(task_id)
        return Explanation(
            STAGES[reply.stage] if reply.stage < len(STAGES) else STAGES[0], reply.sentence
        )


def _name_of(signal: Value) -> str:
    """A signal by its name, also where it came as Celery lets it: 'TERM', or signal.SIGTERM."""
    name = str(getattr(signal, "name", signal))
    return name if name.startswith("SIG") else f"SIG{name}"


def _revoked(reply: "RevokeReply") -> Revoked:
    return Revoked(tuple(reply.ended), tuple(reply.told), tuple(reply.late))
