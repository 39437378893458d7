"""What operators see of messages: pages of them, and why one is where it is."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from qbroker_server.core import index, joins, keys, message, queue, timetable
from qbroker_server.core.dispatch import Dispatcher
from qbroker_server.core.errors import CorruptRecord, Invalid
from qbroker_server.core.ports import ReadTxn
from qbroker_server.core.records import Flag, Record, Stage

PAGE_MAX = 1_000

_LOOK_MAX = 2_000
"""Rows one page looks at: with more, it would keep the store's pages, and the caller, too long."""

_AHEAD_MAX = 1_000
"""Messages that are counted one by one."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which messages; "" and empty mean any."""

    queue: str = ""
    task: str = ""
    stages: frozenset[Stage] = frozenset()
    label: str = ""
    published_ms_min: int = 0
    published_ms_max: int = 2**62

    def takes(self, record: Record) -> bool:
        """Whether the message is one of them."""
        return (
            (not self.queue or record.queue == self.queue)
            and (not self.task or record.task == self.task)
            and (not self.stages or record.stage in self.stages)
            and (
                not self.label or (record.extras is not None and self.label in record.extras.labels)
            )
            and self.published_ms_min <= record.published_ms <= self.published_ms_max
        )


def page(
    txn: ReadTxn, wanted: Filter, after: str, limit: int
) -> tuple[list[tuple[str, Record]], str]:
    """Up to `limit` messages from behind `after`, and what to go on behind; "" when there are no more.

    It takes the shortest way: by label, by queue, by lease, by time, or through all records.
    """
    if not 1 <= limit <= PAGE_MAX:
        raise Invalid(f"limit {limit!r} is not 1 to {PAGE_MAX}")
    prefix, id_of = _way(wanted)
    start = prefix
    if after:
        try:
            start = bytes.fromhex(after) + b"\x00"
        except ValueError:
            raise Invalid(f"after {after[:60]!r} does not come from a page") from None
        if not start.startswith(prefix):
            raise Invalid(f"after {after[:60]!r} comes from a page of another question")
    found: list[tuple[str, Record]] = []
    rows = txn.scan(start, keys.after(prefix), _LOOK_MAX)
    for key, raw in rows:
        message_id = id_of(key, raw)
        record = _peek(txn, message_id) if message_id else None
        if record is None or not wanted.takes(record):
            continue
        found.append((message_id, record))
        if len(found) == limit:
            return found, key.hex()
    return found, rows[-1][0].hex() if len(rows) == _LOOK_MAX else ""


def _peek(txn: ReadTxn, message_id: str) -> Record | None:
    try:
        return message.peek(txn, message_id)
    except CorruptRecord:
        return None


def _way(wanted: Filter) -> tuple[bytes, Callable[[bytes, bytes], str]]:
    """Which rows to walk, and how each names its message."""
    if wanted.label:
        prefix = keys.INDEX + index.LABEL + wanted.label.encode() + b"\x00"
        return prefix, lambda key, _: key[len(prefix) :].decode()
    if wanted.stages == {Stage.QUEUED}:
        ready = queue.prefix(wanted.queue) if wanted.queue else keys.READY
        return ready, lambda _, raw: raw.decode("utf-8", "replace")
    if wanted.stages == {Stage.DEAD}:
        return keys.DEAD, lambda key, _: key[len(keys.DEAD) + 8 :].decode()
    if wanted.stages and wanted.stages <= {Stage.LEASED, Stage.STARTED}:
        return keys.LEASE, lambda key, _: key[len(keys.LEASE) :].partition(b"\x00")[2].decode()
    if wanted.stages == {Stage.SCHEDULED}:
        return keys.TIME, _scheduled_id
    return keys.MESSAGE, lambda key, _: key[len(keys.MESSAGE) :].decode()


def _scheduled_id(key: bytes, _: bytes) -> str:
    kind_at = len(keys.TIME) + 8
    return key[kind_at + 1 :].decode() if key[kind_at : kind_at + 1] == timetable.DUE else ""


def explain(
    txn: ReadTxn, message_id: str, dispatcher: Dispatcher, now_ms: int
) -> tuple[Record | None, str]:
    """Why the message is where it is, in a sentence, with its record."""
    record = message.peek(txn, message_id)
    if record is None:
        return None, (
            "The broker does not know it: it was never published here, or it ended and was forgotten."
        )
    return record, " ".join(_reasons(txn, record, dispatcher, now_ms))


def _reasons(txn: ReadTxn, record: Record, dispatcher: Dispatcher, now_ms: int) -> Iterator[str]:
    session = dispatcher.sessions.get(record.session)
    worker = session.name if session else "a worker that is gone"
    since = duration(now_ms - record.changed_ms)
    if record.stage == Stage.SCHEDULED:
        what = "tried again" if record.flags & Flag.LEFT_TO_RETRY else "due"
        yield f"It will be {what} in {duration(record.eta_ms - now_ms)}."
    elif record.stage == Stage.WAITING:
        yield from _why_joining(txn, record)
    elif record.stage == Stage.QUEUED:
        yield from _why_waiting(txn, record, dispatcher, now_ms)
    elif record.stage == Stage.LEASED:
        yield f"It has been with {worker} for {since}, not started yet (delivery {record.attempt})."
    elif record.stage == Stage.STARTED:
        yield f"It has been running on {worker} for {since} (delivery {record.attempt})."
    elif record.stage == Stage.DEAD:
        yield f"It has been a dead letter for {since}: {record.detail}"
    else:
        state = record.state or "done, and nothing was kept of it"
        yield f"It ended {since} ago: {state}."
        if record.detail:
            yield f"({record.detail})"
    if record.flags & Flag.REVOKING and record.stage in (Stage.LEASED, Stage.STARTED):
        yield "It has been revoked; its worker was told."


def _why_joining(txn: ReadTxn, record: Record) -> Iterator[str]:
    wait = record.extras.wait if record.extras is not None else None
    join = joins.peek(txn, wait.join_id) if wait is not None else None
    if join is None:
        yield "It waits for others of its workflow."
    elif join.is_list:
        yield f"It waits for a group of {join.size} tasks; {join.arrived_count} have succeeded."
    else:
        yield "It waits for the task before it in its workflow."


def lacks_worker(record: Record, dispatcher: Dispatcher) -> bool:
    """Whether the message is queued and no connected worker would run it."""
    return record.stage == Stage.QUEUED and not any(
        record.task in session.tasks for session in dispatcher.consumers(record.queue)
    )


def _suggestion(name: str, known: Iterable[str]) -> str:
    """The known name that is most like a name of no effect, in brackets."""
    close = get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _why_waiting(
    txn: ReadTxn, record: Record, dispatcher: Dispatcher, now_ms: int
) -> Iterator[str]:
    options = queue.counts(txn, record.queue).options
    if options.paused_ms:
        why = f": {options.paused_why}" if options.paused_why else ""
        yield (
            f"Its queue {record.queue!r} was paused by {options.paused_by or 'somebody'} "
            f"{duration(now_ms - options.paused_ms)} ago{why}."
        )
        return
    consumers = dispatcher.consumers(record.queue)
    sessions = dispatcher.sessions.values()
    if not consumers:
        queues = {name for session in sessions for name in session.queues}
        yield (
            f"No connected worker consumes from its queue {record.queue!r}"
            f"{_suggestion(record.queue, queues)}."
        )
        return
    knowing = [session for session in consumers if record.task in session.tasks]
    if not knowing:
        tasks = {name for session in sessions for name in session.tasks}
        yield (
            f"No connected worker knows the task {record.task!r}{_suggestion(record.task, tasks)}; "
            f"{len(consumers)} consume from its queue {record.queue!r}."
        )
        return
    if all(record.task in session.unwanted for session in knowing):
        yield (
            f"The {len(knowing)} workers that know the task {record.task!r} have enough of it: their "
            "rate_limit lets it start later."
        )
        return
    for limit in record.extras.limits if record.extras else ():
        wait_ms = dispatcher.throttle.wait_ms(txn, limit, now_ms)
        if wait_ms is None:
            yield f"The limit {limit.key!r} lets {limit.concurrency} run at a time, and they do."
        elif wait_ms:
            yield (
                f"The limit {limit.key!r} ({limit.rate:g} in {duration(limit.per_ms)}) "
                f"lets the next start in {duration(wait_ms)}."
            )
    here = queue.ready_key(record)
    ahead = len(txn.scan(queue.prefix(record.queue, record.lane), here, _AHEAD_MAX))
    count = f"{ahead}" if ahead < _AHEAD_MAX else f"{_AHEAD_MAX} or more"
    room = sum(session.room for session in knowing)
    busy = "have no room" if not room else f"have room for {room}"
    yield f"{count} messages are ahead of it, and the {len(knowing)} workers that know it {busy}."


def duration(ms: int) -> str:
    """A time span as people say it: "350 ms", "12.3 s", "5 min 10 s", "3 h 5 min", "2 d 4 h"."""
    ms = max(0, ms)
    if ms < 1_000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    seconds = ms // 1000
    for size, name, small, small_name in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if seconds >= size:
            return f"{seconds // size} {name} {seconds % size // small} {small_name}"
    return f"{seconds} s"
