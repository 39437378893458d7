"""What happens in this worker: counted, and told to those who listen.

Counting is for `stats` and the heartbeat. Telling costs something, so an event is made only while somebody listens
(the broker says so) and, for what becomes of each task, while the worker is told to (`-E`, `enable_events`).
"""

import asyncio
import json
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from qbroker import envelope
from qbroker.clock import utcoffset
from qbroker.serialization import Value, json_encode
from qbroker_worker import clock
from qbroker_worker.values import (
    FAILURE,
    IGNORED,
    REJECTED,
    RETRY,
    REVOKED,
    SUCCESS,
    Aside,
    Delivery,
    Event,
    Finished,
)

HEARTBEAT_S = 2.0
"""How often a heartbeat is sent while somebody listens."""

HEADS_MS = 1_000
"""For how long what events have in common is taken to be the same."""

READABLE = frozenset({"application/json"})
"""The worker's parent reads no other arguments: they may run code."""


class Running(NamedTuple):
    """A task that runs here."""

    delivery: Delivery
    pid: int
    since_ms: int


def _nobody(_: Aside) -> None:
    """Who hears what is said before there is a stream."""


class Journal:
    """One worker's."""

    def __init__(
        self,
        *,
        name: str,
        pid: int = 0,
        version: str = "",
        sends_task_events: bool = False,
        silent_tasks: frozenset[str] = frozenset(),
        now_ms: Callable[[], int] = clock.now_ms,
        load: Callable[[], Sequence[float]] = lambda: (),
    ) -> None:
        self._name = name
        self._pid = pid
        self._software = {
            "sw_ident": "py-qbroker",
            "sw_ver": version,
            "sw_sys": platform.system(),
        }
        self._silent_tasks = silent_tasks
        self._now_ms = now_ms
        self._load = load
        self._timer: asyncio.TimerHandle | None = None
        self._is_wanted = False
        self._is_online = False
        self._heads: dict[str, bytes] = {}
        """How events of each type begin."""
        self._heads_until_ms = 0
        self.say: Callable[[Aside], None] = _nobody
        """How an event leaves."""
        self.sends_task_events = sends_task_events
        """Whether what becomes of each task is told."""
        self.running: dict[str, Running] = {}
        """Tasks that were reported to run, by id; short ones end before they are."""
        self.totals: Counter[str] = Counter()
        """How many tasks of each name have ended here."""
        self.ended_count = 0
        self.outcomes: Counter[int] = Counter()
        """How many ended in each way."""
        self.runtime_s = 0.0
        """How long they took together."""

    # -- what the worker tells -----------------------------------------------------------------

    def want(self, is_wanted: bool) -> None:  # noqa: FBT001 - a plain callback
        """Somebody listens now, or nobody does any more."""
        self._is_wanted = is_wanted
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if is_wanted:
            if not self._is_online:
                self._send("worker-online", {"freq": HEARTBEAT_S, **self._state()})
            self._beat()
        self._is_online = True

    def unlinked(self) -> None:
        """The link is gone, and what is said is heard by nobody."""
        self.want(False)  # noqa: FBT003 - a plain callback
        self._is_online = False

    def leaving(self) -> None:
        """The worker says farewell next."""
        if self._is_wanted:
            self._send("worker-offline", {"freq": HEARTBEAT_S, **self._state()})
        self.want(False)  # noqa: FBT003 - a plain callback

    def heartbeat(self) -> None:
        """Send one now."""
        if self._is_wanted:
            self._send("worker-heartbeat", {"freq": HEARTBEAT_S, **self._state()})

    def received(self, deliveries: Iterable[Delivery]) -> None:
        """These have come."""
        if not self._tells_tasks:
            return
        for delivery in deliveries:
            # Before anything is read for it.
            if delivery.task not in self._silent_tasks:
                fields = envelope.call_fields(delivery.message, READABLE)
                self._tell(delivery, "task-received", fields)

    def started(self, delivery: Delivery, pid: int) -> None:
        """This one runs."""
        now_ms = self._now_ms()
        self.running[delivery.id] = Running(delivery, pid, now_ms)
        if self._tells_tasks:
            self._tell(delivery, "task-started", {}, now_ms)

    def lost(self, deliveries: Iterable[Delivery]) -> None:
        """These are somebody else's now."""
        for delivery in deliveries:
            self.running.pop(delivery.id, None)

    def revoked(self, delivery: Delivery) -> None:
        """This one was revoked before it began."""
        if self._tells_tasks:
            fields = {"terminated": False, "signum": None, "expired": False}
            self._tell(delivery, "task-revoked", fields)

    def finished(self, finished: Sequence[Finished]) -> None:
        """These have ended."""
        running = self.running
        self.ended_count += len(finished)
        tells = self._tells_tasks
        for one in finished:
            delivery = one.delivery
            self.totals[delivery.task] += 1
            self.outcomes[one.outcome] += 1
            self.runtime_s += one.runtime_s
            was_told = running.pop(delivery.id, None) is not None if running else False
            if tells and delivery.task not in self._silent_tasks:
                self._tell_end(one, was_told=was_told)

    # -- events --------------------------------------------------------------------------------

    @property
    def _tells_tasks(self) -> bool:
        return self._is_wanted and self.sends_task_events

    def _state(self) -> dict[str, Value]:
        return {
            **self._software,
            "active": len(self.running),
            "processed": self.ended_count,
            "loadavg": list(self._load()),
        }

    def _beat(self) -> None:
        self.heartbeat()
        self._timer = asyncio.get_running_loop().call_later(HEARTBEAT_S, self._beat)

    def _tell_end(self, finished: Finished, *, was_told: bool) -> None:
        delivery = finished.delivery
        now_ms = self._now_ms()
        if not was_told and finished.outcome in (SUCCESS, FAILURE, RETRY):
            # A short task is not reported when it starts, so when that was is known only now.
            self._tell(delivery, "task-started", {}, now_ms - round(finished.runtime_s * 1000))
        end = envelope.end_fields(finished.result, READABLE)
        why = {"exception": end["exception"], "traceback": end["traceback"]}
        match finished.outcome:
            case _ if finished.outcome == SUCCESS:
                fields = {"result": end["result"], "runtime": finished.runtime_s}
                self._tell(delivery, "task-succeeded", fields, now_ms)
            case _ if finished.outcome == RETRY:
                self._tell(delivery, "task-retried", why, now_ms)
            case _ if finished.outcome == REJECTED:
                self._tell(delivery, "task-rejected", {"requeue": finished.requeue}, now_ms)
            case _ if finished.outcome == REVOKED:
                expired = end["exception"] is not None and "expired" in end["exception"]
                fields = {"terminated": not expired, "signum": None, "expired": expired}
                self._tell(delivery, "task-revoked", fields, now_ms)
            case _ if finished.outcome == IGNORED:
                pass  # as in Celery: what was ignored is not told of
            case _:
                self._tell(delivery, "task-failed", why, now_ms)

    def _tell(
        self,
        delivery: Delivery,
        type_: str,
        fields: Mapping[str, Value],
        at_ms: int | None = None,
    ) -> None:
        if delivery.task not in self._silent_tasks:
            self._send(type_, {"uuid": delivery.id, **fields}, at_ms)

    def _send(self, type_: str, fields: Mapping[str, Value], at_ms: int | None = None) -> None:
        now_ms = self._now_ms()
        if now_ms >= self._heads_until_ms:
            # What is the same in every event is written once; but the hour may change.
            self._heads.clear()
            self._heads_until_ms = now_ms + HEADS_MS
        head = self._heads.get(type_)
        if head is None:
            common = {
                "type": type_,
                "hostname": self._name,
                "pid": self._pid,
                "utcoffset": utcoffset(),
            }
            head = self._heads[type_] = json_encode(common)[:-1] + b',"timestamp":'
        at_s = (now_ms if at_ms is None else at_ms) / 1000
        self.say(Event(type_, b"%b%r,%b" % (head, at_s, json_encode(fields)[1:])))


def plain(value: Value) -> bytes:
    """JSON of a command's answer; what cannot be written as such is shown as text."""
    return json.dumps(value, default=repr).encode()
