"""How many messages a second came into each queue and left it, over about the last minute.

These are for looking at: they live in memory, and start from nothing with the broker.
"""

from dataclasses import dataclass
from math import exp

from qbroker_server.broker import Step
from qbroker_server.clock import Clock

_SPAN_S = 60.0


@dataclass(slots=True)
class _Meter:
    at_s: float
    came: float = 0.0
    went: float = 0.0

    def age(self, now_s: float) -> None:
        kept = exp((self.at_s - now_s) / _SPAN_S)
        self.came *= kept
        self.went *= kept
        self.at_s = now_s


class Rates:
    """Counts what the steps did, older ones for less."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._meters: dict[str, _Meter] = {}

    def stepped(self, step: Step) -> None:
        """Count a step."""
        now_s = self._clock.monotonic()
        for counts, is_coming in ((step.came, True), (step.went, False)):
            for name, count in counts.items():
                meter = self._meters.get(name)
                if meter is None:
                    meter = self._meters[name] = _Meter(now_s)
                meter.age(now_s)
                if is_coming:
                    meter.came += count
                else:
                    meter.went += count
        for name in step.removed_queues:
            self._meters.pop(name, None)

    def of(self, name: str) -> tuple[float, float]:
        """Messages a second that came into the queue, and that left it for good."""
        meter = self._meters.get(name)
        if meter is None:
            return 0.0, 0.0
        meter.age(self._clock.monotonic())
        return meter.came / _SPAN_S, meter.went / _SPAN_S
