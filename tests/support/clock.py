"""A clock that stands still until it is told to move."""


class FakeClock:
    """Unix milliseconds, set by hand."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms
        self._passed_ms = 0

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic(self) -> float:
        return self._passed_ms / 1000

    def advance(self, delta_ms: int) -> None:
        """Let `delta_ms` milliseconds pass; negative ones set the clock back."""
        self._now_ms += delta_ms
        self._passed_ms += max(0, delta_ms)
