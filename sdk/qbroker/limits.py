"""Limits that span all workers: how many may start in a time, and how many may run at once.

    @app.task(limits=[Limit("cust:{customer}", rate="100/m", concurrency=3)])
    def charge(customer): ...

Calls that name the same key share the limit, whatever their task. A call may be under several; all of
them must allow it to run. What the newest call says of a key goes for all.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Key", "Limit", "check_time_limits", "own_time_limit", "per_second"]

Key: TypeAlias = str | Callable[[Sequence[Any], Mapping[str, Any]], str]
"""A key made of a call's arguments: "cust:{customer}", by the names of the task's parameters, or a function of
(args, kwargs)."""

CONCURRENCY_MAX = (1 << 32) - 1
RATE_MAX = 1e9

RESULT_BYTES_MAX = 8 * 1024 * 1024
"""The largest result that any broker takes: the most its setting `max_message_bytes` can be."""

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000}
_RATE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(?:/\s*([smh]))?\s*")


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `rate` starts in a time, evenly, and at most `concurrency` at once, over all workers.

    `rate` is "100/s", "100/m", "100/h", or a number: so many a second. A rate of zero is no rate, as in Celery.
    As an attribute of a task `key` may be made of the arguments (see `Key`); at a call it stands as it is.
    """

    key: Key
    rate: str | float | None = None
    concurrency: int | None = None

    def __post_init__(self) -> None:
        if not callable(self.key) and not isinstance(self.key, str):
            raise TypeError(f"the key {self.key!r} of a limit is neither text nor a function")
        self.starts()
        concurrency: Any = self.concurrency
        if concurrency is not None and (
            not isinstance(concurrency, int)
            or isinstance(concurrency, bool)
            or not 1 <= concurrency <= CONCURRENCY_MAX
        ):
            raise ValueError(
                f"concurrency {concurrency!r} of limit {self.key!r} is not a whole number from 1 to "
                f"{CONCURRENCY_MAX}"
            )
        if self.rate is None and concurrency is None:
            raise ValueError(
                f"limit {self.key!r} limits nothing: give it a rate, as in rate='100/m', or a concurrency"
            )

    def starts(self) -> tuple[float, int]:
        """How many may start, and in how many milliseconds; (0, 0) without a rate or with a rate of zero."""
        rate = self.rate
        if rate is None:
            return 0.0, 0
        found = _RATE.fullmatch(rate) if isinstance(rate, str) else None
        if found is not None:
            count, per_ms = float(found[1]), _UNITS_MS[found[2] or "s"]
        elif isinstance(rate, int | float) and not isinstance(rate, bool):
            count, per_ms = float(rate), 1_000
        else:
            count, per_ms = 0.0, 0
        if count == 0 and per_ms:
            return 0.0, 0
        # A NaN is not between anything.
        if not 0 < count < RATE_MAX:
            raise ValueError(
                f"rate {rate!r} of limit {self.key!r} is not of the form '100/s', '100/m' or '100/h', nor a "
                f"number a second from 0 (no limit) to {RATE_MAX:.0e}"
            )
        return count, per_ms


def per_second(rate: str | float | None) -> float:
    """Starts a second that a task's `rate_limit` allows, 0.0 for no limit.

    None, "" and zero in any form ("0/m", 0.0) are no limit, as in Celery; other rates are written as
    `Limit.rate` is. Raises ValueError.
    """
    if rate is None or (isinstance(rate, str) and not rate.strip()):
        return 0.0
    count, per_ms = Limit("rate_limit", rate).starts()
    return count * 1_000 / per_ms if per_ms else 0.0


def own_time_limit(task: object, attribute: str) -> Any:  # noqa: ANN401 - users may set anything
    """A task's `time_limit` or `soft_time_limit` without the setting that stands in for None.

    A call carries only these: what the settings say is for the worker, whose options go before them.
    """
    own = task.__dict__
    return own[attribute] if attribute in own else getattr(task.__class__, attribute, None)


def check_time_limits(soft_s: float | None, hard_s: float | None) -> None:
    """Raise ValueError if the soft limit is above the hard one; None and 0 are no limit."""
    if soft_s and hard_s and soft_s > hard_s:
        raise ValueError(
            f"soft_time_limit must be less than or equal to time_limit, "
            f"got soft_time_limit {soft_s!r} and time_limit {hard_s!r}"
        )
