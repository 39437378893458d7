"""How long tasks take, and what follows from it: how many to hand over, how many to have at hand.

Short tasks are handed over many at a time because a hand-over costs more than they do; long ones
singly because what is handed over waits behind its neighbours.
"""

from collections import deque
from typing import NamedTuple

from qbroker_worker.values import Delivery

HAND_OVER_S = 0.005
"""How much expected work one hand-over may carry."""

AT_HAND_S = 0.020
"""How much expected work a slot wants at hand beyond what it runs."""

SHORT_S = 0.002
"""A task expected to end sooner is not reported as started until it turns out to be slower."""

TASK_COST_S = 10e-6
"""What carrying a task to a slot and back costs at least, however short it is."""

HAND_OVER_COUNT_MAX = 128
HAND_OVER_BYTES_MAX = 64 * 1024
AT_HAND_COUNT_MAX = 1_000

_WEIGHT = 0.3
"""Of the newest measurement in the moving average."""


class Portion(NamedTuple):
    """Deliveries to hand over together. `is_short` when all of them are expected to end soon."""

    deliveries: list[Delivery]
    is_short: bool


class Pace:
    """Moving averages of run times, by task name and over all."""

    def __init__(self) -> None:
        self._mean_s: dict[str, float] = {}
        self._count_max: dict[str, int] = {}
        self._overall_s = 0.0
        self._at_hand_count = 0

    def observe(self, task: str, total_s: float, count: int) -> None:
        """Learn that `count` runs of `task` in a row took `total_s` together."""
        taken_s = total_s / count + TASK_COST_S
        mean_s = self._mean_s.get(task)
        if mean_s is None:
            self._mean_s[task] = taken_s
        else:
            self._mean_s[task] = mean_s + _WEIGHT * (taken_s - mean_s)
        overall_s = self._overall_s or taken_s
        self._overall_s = overall_s + _WEIGHT * (taken_s - overall_s)
        grown = self._count_max.get(task, 1) * 2
        self._count_max[task] = min(grown, HAND_OVER_COUNT_MAX)
        at_hand = int(AT_HAND_S / self._overall_s)
        self._at_hand_count = min(at_hand, self._at_hand_count * 2 + 1, AT_HAND_COUNT_MAX)

    @property
    def at_hand_count(self) -> int:
        """How many unstarted deliveries a slot wants behind the one it runs."""
        return self._at_hand_count

    def is_short(self, task: str) -> bool:
        """Whether the task is known to end soon."""
        return self._mean_s.get(task, SHORT_S) < SHORT_S

    def cut(self, waiting: deque[Delivery], count_max: int) -> Portion:
        """Take from the head of `waiting` what one hand-over may carry: at least one delivery."""
        portion: list[Delivery] = []
        expected_s = mean_s = 0.0
        bytes_ = limit = 0
        is_short = True
        task = None
        while waiting:
            delivery = waiting[0]
            if delivery.task != task:
                task = delivery.task
                mean_s = self._mean_s.get(task, HAND_OVER_S)
                limit = min(count_max, self._count_max.get(task, 1))
            expected_s += mean_s
            bytes_ += len(delivery.message)
            if portion and (
                len(portion) >= limit or expected_s > HAND_OVER_S or bytes_ > HAND_OVER_BYTES_MAX
            ):
                break
            portion.append(waiting.popleft())
            is_short = is_short and mean_s < SHORT_S
        return Portion(portion, is_short)
