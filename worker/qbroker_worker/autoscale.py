"""How many slots a worker has between a least and a greatest number. Knows no clock; moments are passed in.

While it scales, a worker lets the broker give it as many messages as its greatest number of slots. So what it
holds is what could run now: it grows to that at once, and shrinks to it when it has been less for a while.
"""

from dataclasses import dataclass

KEEP_S = 30.0
"""How long a slot that nothing runs in is kept. Celery's AUTOSCALE_KEEPALIVE."""


@dataclass(slots=True)
class Autoscale:
    """Between how many slots, and since when fewer than there are would do."""

    slots_max: int
    slots_min: int
    keep_s: float = KEEP_S
    _idle_since: float | None = None
    _needed_since_then: int = 0

    def slots(self, now: float, slots: int, held_count: int) -> int:
        """How many slots there are to be, with so many now, and so many messages held."""
        needed = max(self.slots_min, min(self.slots_max, held_count))
        if needed >= slots:
            self._idle_since = None
            return needed
        if self._idle_since is None:
            self._idle_since, self._needed_since_then = now, needed
        self._needed_since_then = max(self._needed_since_then, needed)
        if now - self._idle_since < self.keep_s:
            return slots
        self._idle_since = None
        return self._needed_since_then
