"""Celery's `rate_limit`: how often this worker starts a task. Knows no clock; moments are passed in.

A task with a rate has a bucket that holds one token and fills evenly. What finds it empty is set aside until
a token is there, up to what a second's tokens would start. More is not wanted: the broker is asked to send
none of that task for a while, and what has come already is given back. So a limited task holds up itself alone.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from qbroker_worker.values import Delivery

AHEAD_S = 1.0
"""How much is set aside, in what so many seconds will start; at least one."""


@dataclass(slots=True)
class _Bucket:
    """A task's rate, and what waits for it."""

    per_s: float
    next_at: float = 0.0
    """When the next may start."""
    aside: deque[Delivery] = field(default_factory=deque)
    is_wanted: bool = True

    @property
    def aside_max(self) -> int:
        return max(1, int(self.per_s * AHEAD_S))

    def take(self, now: float) -> bool:
        """Whether one may start at this moment; then it has."""
        if now < self.next_at:
            return False
        # A token that has long been there is one token, not many. One that came a moment ago was due then.
        due_at = self.next_at if now - self.next_at < 1.0 / self.per_s else now
        self.next_at = due_at + 1.0 / self.per_s
        return True


class Rates:
    """The buckets of all tasks that have a rate."""

    def __init__(self, per_s: Mapping[str, float]) -> None:
        self._buckets = {task: _Bucket(rate) for task, rate in per_s.items()}

    def set(self, task: str, per_s: float) -> list[Delivery]:
        """Give a task another rate, 0 for none; what was set aside for the old one, to be sorted again."""
        before = self._buckets.pop(task, None)
        if per_s:
            self._buckets[task] = _Bucket(per_s, before.next_at if before else 0.0)
        return list(before.aside) if before else []

    @property
    def limited(self) -> frozenset[str]:
        """Tasks that have a rate."""
        return frozenset(self._buckets)

    def sort(
        self, deliveries: Iterable[Delivery], now: float
    ) -> tuple[list[Delivery], list[Delivery]]:
        """What may start now, and what is to be given back; the rest is set aside."""
        if not self._buckets:
            return list(deliveries), []
        ready: list[Delivery] = []
        excess: list[Delivery] = []
        for delivery in deliveries:
            bucket = self._buckets.get(delivery.task)
            if bucket is None or (not bucket.aside and bucket.take(now)):
                ready.append(delivery)
                continue
            if len(bucket.aside) < bucket.aside_max:
                bucket.aside.append(delivery)
            else:
                excess.append(delivery)
            bucket.is_wanted = bucket.is_wanted and len(bucket.aside) < bucket.aside_max
        return ready, excess

    def due(self, now: float) -> list[Delivery]:
        """What was set aside and may start now."""
        ready: list[Delivery] = []
        for bucket in self._buckets.values():
            while bucket.aside and bucket.take(now):
                ready.append(bucket.aside.popleft())
            if len(bucket.aside) <= bucket.aside_max // 2:
                bucket.is_wanted = True
        return ready

    @property
    def next_at(self) -> float | None:
        """When something that was set aside may start; None where nothing was."""
        return min((one.next_at for one in self._buckets.values() if one.aside), default=None)

    @property
    def aside_count(self) -> int:
        """How many wait here."""
        return sum(len(bucket.aside) for bucket in self._buckets.values())

    @property
    def unwanted(self) -> frozenset[str]:
        """Tasks of which enough wait here."""
        return frozenset(task for task, one in self._buckets.items() if not one.is_wanted)

    def discard(self, delivery: Delivery) -> bool:
        """Set this one aside no more; whether it was."""
        bucket = self._buckets.get(delivery.task)
        for at, found in enumerate(bucket.aside if bucket else ()):
            if bucket is not None and found is delivery:
                del bucket.aside[at]
                return True
        return False

    def withdraw(self) -> list[Delivery]:
        """All that was set aside, which it is no more."""
        taken = [delivery for bucket in self._buckets.values() for delivery in bucket.aside]
        for bucket in self._buckets.values():
            bucket.aside.clear()
        return taken
