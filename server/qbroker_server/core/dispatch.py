"""Who gets what next.

The dispatcher knows which worker sessions there are, what they may take and how much room they have; that
is all it remembers, and it can be made anew from the store and the sessions at any time. It looks only
at the heads of lanes, in the same transaction in which the messages came, so a message that
finds a free worker is stored and leased by one commit.
"""

from dataclasses import dataclass, field
from heapq import merge
from itertools import islice

from qbroker_server.core import keys, lease, limits, message, payloads, queue, results
from qbroker_server.core.effects import Effects, SessionOpened
from qbroker_server.core.errors import CorruptRecord
from qbroker_server.core.ports import ReadTxn, Txn
from qbroker_server.core.records import EndReason, Record, Stage

_PLACE_BYTES = 9
"""Priority and number, at the end of a ready message's key."""


@dataclass(slots=True)
class Session:
    """A worker's session, as far as dispatch is concerned."""

    id: str
    name: str
    queues: tuple[str, ...]
    tasks: frozenset[str]
    prefetch_count: int
    leased_count: int
    is_connected: bool = True
    is_draining: bool = False
    unsent_bytes: int = 0
    """Payload of deliveries that its stream has not taken yet."""
    lanes: frozenset[bytes] = frozenset()
    """The lanes of the tasks it knows."""

    @property
    def room(self) -> int:
        """How many more messages it may be given now."""
        if (
            not self.is_connected
            or self.is_draining
            or self.unsent_bytes >= limits.UNSENT_BYTES_MAX
        ):
            return 0
        return max(0, self.prefetch_count - self.leased_count)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message on its way to the session that has it on lease."""

    id: str
    record: Record
    payload: bytes


@dataclass(slots=True)
class _Queue:
    """What the dispatcher remembers of a queue."""

    consumers: list[Session] = field(default_factory=list)
    lanes: set[bytes] = field(default_factory=set)
    """Lanes beside the plain one that may hold messages."""
    may_have_ready: bool = True


class Dispatcher:
    """Leases ready messages to sessions with room."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.is_cut_short = False
        """The last dispatch looked at as much as one step may: there may be more to give."""
        self._queues: dict[str, _Queue] = {}
        self._turn = 0

    def load(self, txn: ReadTxn) -> None:
        """Learn which queues and lanes the store holds; O(queues)."""
        for name in queue.names(txn):
            self._queues[name] = _Queue(lanes=set(queue.lanes(txn, name)))

    def consumer_count(self, name: str) -> int:
        """How many connected sessions take from the queue."""
        known = self._queues.get(name)
        return sum(session.is_connected for session in known.consumers) if known else 0

    def disconnect(self, session_id: str) -> None:
        """The session's stream broke: it keeps what it has for now, and is given no more."""
        session = self.sessions.get(session_id)
        if session is not None:
            session.is_connected = False
            session.unsent_bytes = 0

    def sent(self, session_id: str, size: int) -> bool:
        """The session's stream took `size` bytes; whether it has room only since then."""
        session = self.sessions.get(session_id)
        if session is None:
            return False
        was_clogged = session.unsent_bytes >= limits.UNSENT_BYTES_MAX
        session.unsent_bytes = max(0, session.unsent_bytes - size)
        return was_clogged and session.unsent_bytes < limits.UNSENT_BYTES_MAX

    def absorb(self, effects: Effects) -> None:
        """Take note of what the commands of this step did."""
        for opened in effects.opened:
            self._open(opened)
        for session_id, count in effects.freed.items():
            if session := self.sessions.get(session_id):
                session.leased_count -= count
        for session_id, prefetch_count in effects.prefetch.items():
            if session := self.sessions.get(session_id):
                session.prefetch_count = prefetch_count
        for session_id in effects.draining:
            if session := self.sessions.get(session_id):
                session.is_draining = True
        for session_id in effects.closed:
            if (session := self.sessions.get(session_id)) and not session.is_connected:
                self._close(session)
        for name in effects.ready:
            self._queue(name).may_have_ready = True

    def _queue(self, name: str) -> _Queue:
        known = self._queues.get(name)
        if known is None:
            known = self._queues[name] = _Queue()
        return known

    def _open(self, opened: SessionOpened) -> None:
        if before := self.sessions.get(opened.id):
            self._close(before)
        session = Session(
            opened.id,
            opened.name,
            tuple(opened.queues),
            opened.tasks,
            opened.prefetch_count,
            opened.leased_count,
            lanes=frozenset(map(queue.lane_of, opened.tasks)),
        )
        self.sessions[session.id] = session
        for name in session.queues:
            known = self._queue(name)
            known.consumers.append(session)
            known.may_have_ready = True

    def _close(self, session: Session) -> None:
        del self.sessions[session.id]
        for name in session.queues:
            self._queues[name].consumers.remove(session)

    def dispatch(self, txn: Txn, now_ms: int, effects: Effects) -> dict[str, list[Delivery]]:
        """Lease what can be leased now, a bounded number of messages; by session id."""
        given: dict[str, list[Delivery]] = {}
        budget = limits.DELIVERIES_PER_STEP_MAX
        self.is_cut_short = False
        hungry = [
            (name, known)
            for name, known in self._queues.items()
            if known.may_have_ready and any(session.room for session in known.consumers)
        ]
        if not hungry:
            return given
        # Queues take turns to be first, and each takes its share before any takes the rest.
        self._turn = (self._turn + 1) % len(hungry)
        hungry = hungry[self._turn :] + hungry[: self._turn]
        while hungry and budget > 0:
            share = max(1, budget // len(hungry))
            still_hungry = []
            # Before any is fed: who comes later shares the same room.
            rooms = [sum([session.room for session in known.consumers]) for _, known in hungry]
            for (name, known), room in zip(hungry, rooms, strict=True):
                fair = -(-room // len(hungry))
                limit = min(share, fair, budget)
                looked = self._feed(txn, name, known, limit, now_ms, effects, given)
                budget -= looked
                if looked and known.may_have_ready:
                    still_hungry.append((name, known))
            hungry = still_hungry
        self.is_cut_short = budget <= 0
        return given

    def _feed(
        self,
        txn: Txn,
        name: str,
        known: _Queue,
        limit: int,
        now_ms: int,
        effects: Effects,
        given: dict[str, list[Delivery]],
    ) -> int:
        """Lease up to `limit` messages from the heads of the queue's lanes; how many were looked at."""
        takers = [session for session in known.consumers if session.room]
        limit = min(limit, sum(session.room for session in takers))
        if not limit:
            return 0
        rows = self._heads(txn, name, known, takers, limit)
        counts = effects.queue(txn, name)
        for key, raw_id in rows:
            message_id = raw_id.decode("utf-8", "replace")
            record = message.find(txn, message_id, effects)
            if record is None or record.stage != Stage.QUEUED:
                # A row that is damaged, or whose message was and is put aside.
                txn.delete(key)
                counts.ready_count -= 1
                continue
            if record.expires_ms and record.expires_ms <= now_ms:
                queue.remove(txn, record, effects)
                results.end(
                    txn,
                    message_id,
                    record,
                    now_ms,
                    effects,
                    reason=EndReason.EXPIRED,
                    state="REVOKED",
                    detail="expired",
                )
                continue
            session = _roomiest(takers, record.task)
            if session is None:
                self._park(txn, message_id, record, known)
                continue
            queue.remove(txn, record, effects)
            try:
                payload = payloads.read(txn, message_id, record)
            except CorruptRecord as error:
                effects.damaged.append(str(error))
                results.end(
                    txn,
                    message_id,
                    record,
                    now_ms,
                    effects,
                    reason=EndReason.NONE,
                    state="FAILURE",
                    detail=f"The broker cannot deliver it: {error}.",
                )
                continue
            lease.grant(txn, message_id, record, session.id, now_ms)
            counts.leased_count += 1
            session.leased_count += 1
            session.unsent_bytes += len(payload)
            given.setdefault(session.id, []).append(Delivery(message_id, record, payload))
        if len(rows) < limit and not known.lanes:
            known.may_have_ready = False
        return len(rows)

    def _heads(
        self, txn: Txn, name: str, known: _Queue, takers: list[Session], limit: int
    ) -> list[tuple[bytes, bytes]]:
        """The first `limit` rows of all lanes that the takers may take from, in queue order."""
        plain = queue.prefix(name, queue.PLAIN)
        rows = list(txn.scan(plain, keys.after(plain), limit))
        if not known.lanes:
            return rows
        runs = [rows]
        knowing = frozenset().union(*(session.lanes for session in takers))
        for lane in sorted(known.lanes & knowing):
            prefix = queue.prefix(name, lane)
            run = list(txn.scan(prefix, prefix + b"\xff" * (_PLACE_BYTES + 1), limit))
            if run:
                runs.append(run)
            else:
                known.lanes.discard(lane)
        return list(islice(merge(*runs, key=lambda row: row[0][-_PLACE_BYTES:]), limit))

    def _park(self, txn: Txn, message_id: str, record: Record, known: _Queue) -> None:
        """Move a message that no taker knows to its task's own lane, so that it holds nobody back."""
        lane = queue.lane_of(record.task)
        if record.lane == lane:
            return
        txn.delete(queue.ready_key(record))
        record.lane = lane
        txn.put(queue.ready_key(record), message_id.encode())
        message.save(txn, message_id, record)
        known.lanes.add(lane)


def _roomiest(takers: list[Session], task: str) -> Session | None:
    """The session with the most room among those that know the task."""
    best: Session | None = None
    best_room = 0
    for session in takers:
        room = session.room
        if room > best_room and task in session.tasks:
            best, best_room = session, room
    return best
