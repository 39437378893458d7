"""Deliveries that were lost with their workers before, and are begun with care.

A worker tells the broker of a start a moment after it, or not at all when the task ends sooner. So a task that
takes its worker with it at once leaves no trace, and would go from worker to worker. What comes marked as
redelivered for the second time is begun only when a slot is free and the broker has stored that it begins; what came
after it waits behind it. Then its next death is known, and its policy holds.
"""

from collections import deque
from collections.abc import Iterable

from qbroker_worker.values import Delivery

ATTEMPT_MIN = 3
"""The delivery from which on one that is marked is begun so: by then two workers have gone without a word."""


def is_suspect(delivery: Delivery) -> bool:
    """Whether its start is to be stored first."""
    return delivery.is_redelivered and delivery.attempt >= ATTEMPT_MIN


class Suspects:
    """Suspects, and what came after the first of them; in the order they came."""

    def __init__(self) -> None:
        self._waiting: deque[Delivery] = deque()
        self._begun: Delivery | None = None

    @property
    def count(self) -> int:
        """How many are here."""
        return len(self._waiting) + (self._begun is not None)

    @property
    def has_begun(self) -> bool:
        """Whether the broker has been told of a start, and has not yet answered."""
        return self._begun is not None

    def sort(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Those that may go to the pool; the others stay here."""
        self._waiting.extend(deliveries)
        return [] if self._begun is not None else self._unsuspected()

    def next(self) -> Delivery | None:
        """The suspect whose start the broker is to be told of now; None: there is none, or one is on its way."""
        if self._begun is None and self._waiting:
            self._begun = self._waiting.popleft()
            return self._begun
        return None

    def known(self, delivery: Delivery) -> list[Delivery]:
        """The broker has stored this one's start: what may go to the pool now."""
        if self._begun is not delivery:
            return []
        self._begun = None
        return [delivery, *self._unsuspected()]

    def discard(self, delivery: Delivery) -> bool:
        """Keep this one no more; whether it was here."""
        if self._begun is delivery:
            self._begun = None
            return True
        for at, found in enumerate(self._waiting):
            if found is delivery:
                del self._waiting[at]
                return True
        return False

    def withdraw(self) -> list[Delivery]:
        """All whose start was not told, which are here no more."""
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def _unsuspected(self) -> list[Delivery]:
        waiting = self._waiting
        free: list[Delivery] = []
        while waiting and not is_suspect(waiting[0]):
            free.append(waiting.popleft())
        return free
