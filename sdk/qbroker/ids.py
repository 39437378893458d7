"""Names for messages: UUIDv7 (RFC 9562, section 5.7) in text form.

Time comes first, so ids sort as they were made and the broker's store appends instead of jumping:
random ids cost it three times the work (DESIGN.md, section 3). Within a process ids only rise, also
when the clock steps back.
"""

import os
import threading
from collections.abc import Callable

from qbroker.clock import wall_ms

_TAIL_SEED_MAX = (1 << 47) - 1


class IdSource:
    """Makes ids; safe to share between threads, and good again in a forked child."""

    __slots__ = ("_entropy", "_head", "_lock", "_ms", "_now_ms", "_tail")

    def __init__(
        self,
        now_ms: Callable[[], int] = wall_ms,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._now_ms = now_ms
        self._entropy = entropy
        self.reset()

    def reset(self) -> None:
        """Start over with fresh chance. A forked child must, or it repeats its parent's ids."""
        self._lock = threading.Lock()
        self._ms = 0
        self._head = ""
        self._tail = 0

    def __call__(self) -> str:
        """A new id, greater than all before it."""
        with self._lock:
            ms = self._now_ms()
            if ms > self._ms:
                self._ms = ms
                chance = int.from_bytes(self._entropy(10), "big")
                time_text = f"{ms:012x}"
                # 12 random bits, the variant 0b10 and 14 more. The last 48 bits are seeded to 47, so
                # there is room to count within a millisecond.
                self._head = (
                    f"{time_text[:8]}-{time_text[8:]}-7{chance >> 68:03x}-"
                    f"{0x8000 | chance >> 54 & 0x3FFF:04x}-"
                )
                self._tail = chance & _TAIL_SEED_MAX
            else:
                self._tail += 1
            return f"{self._head}{self._tail:012x}"


uuid7 = IdSource()
"""The process's own source."""

uuid = uuid7
"""Celery's name for it."""

os.register_at_fork(after_in_child=uuid7.reset)
