"""Who gets what next.

The dispatcher knows which worker sessions there are, what they may take and how much room they have, and
which lanes the queues have; that is all it remembers, and it can be made anew from the store and the
sessions at any time. It looks only at the heads of lanes that may run now, by priority, then fairness,
then arrival, so what must wait is never scanned past. It works in the transaction in which the messages
came, so a message that finds a free worker is stored and leased by one commit.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from qbroker_server.core import joins, keys, lease, limits, message, payloads, queue, results
from qbroker_server.core.effects import Effects, SessionOpened
from qbroker_server.core.errors import CorruptRecord
from qbroker_server.core.ports import ReadTxn, Txn
from qbroker_server.core.records import EndReason, Flag, Limit, Record, Stage
from qbroker_server.core.throttle import Throttle

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
    unwanted: frozenset[str] = frozenset()
    """Tasks it knows and wants none of for now."""
    unsent_bytes: int = 0
    """Payload of deliveries that its stream has not taken yet."""

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


# Nobody changes one, but to have that checked would make each five times as dear.
@dataclass(slots=True)
class Delivery:
    """A message on its way to the session that has it on lease."""

    id: str
    record: Record
    payload: bytes
    inputs: list[bytes] = field(default_factory=list)
    """The values of the join it has waited for, in order (joins.py)."""
    failure: joins.Failure | None = None
    """The end that it is told of, when it is an errback."""

    @property
    def size(self) -> int:
        """What of it travels, in bytes."""
        return len(self.payload) + sum(map(len, self.inputs))


@dataclass(slots=True)
class _Share:
    """What the messages of one fairness key have had of their queue's workers, by weight."""

    used: float
    weight: int
    lane_count: int = 0


@dataclass(slots=True)
class _Lane:
    """A lane beside the plain one."""

    id: bytes
    task: str
    """Set when its messages wait for a worker that knows this task."""
    limits: tuple[Limit, ...]
    fairness_key: str
    head: bytes | None = None
    """The place of its first message, when that is known."""


@dataclass(slots=True)
class _Queue:
    """What the dispatcher remembers of a queue."""

    consumers: list[Session] = field(default_factory=list)
    lanes: dict[bytes, _Lane] = field(default_factory=dict)
    """Lanes beside the plain one that may hold messages."""
    shares: dict[str, _Share] = field(default_factory=dict)
    may_have_ready: bool = True
    is_paused: bool = False
    ageing_ms: int = 0

    def share(self, key: str) -> _Share:
        """The key's share; a new key starts level with the one that has had least."""
        share = self.shares.get(key)
        if share is None:
            least = min((other.used for other in self.shares.values()), default=0.0)
            share = self.shares[key] = _Share(least, 1)
        return share

    def add(self, lane_id: bytes, record: Record) -> None:
        """The lane has a message like `record`, maybe a new head."""
        lane = self.lanes.get(lane_id)
        if lane is not None:
            lane.head = None
            if record.extras is not None:
                lane.limits = record.extras.limits
        else:
            extras = record.extras
            lane = self.lanes[lane_id] = _Lane(
                lane_id,
                record.task if lane_id.startswith(queue.PARKED) else "",
                extras.limits if extras else (),
                extras.fairness_key if extras else "",
            )
            self.share(lane.fairness_key).lane_count += 1
        if record.extras is not None and record.extras.fairness_key:
            self.share(lane.fairness_key).weight = max(1, record.extras.fairness_weight)

    def discard(self, lane: _Lane) -> None:
        """The lane holds nothing."""
        if self.lanes.pop(lane.id, None) is not None:
            share = self.shares[lane.fairness_key]
            share.lane_count -= 1
            if not share.lane_count and lane.fairness_key:
                del self.shares[lane.fairness_key]


class Dispatcher:
    """Leases ready messages to sessions with room."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.is_cut_short = False
        """The last dispatch looked at as much as one step may: there may be more to give."""
        self.throttle = Throttle()
        self.wake_ms: int | None = None
        """When a limit lets something run that it held back at the last dispatch."""
        self._queues: dict[str, _Queue] = {}
        self._consumed: dict[str, _Queue] = {}
        """Those that somebody takes from. There may be many others, and no step must cost more for them."""
        self._turn = 0

    def load(self, txn: ReadTxn, now_ms: int) -> None:
        """Learn what the store holds; O(queues + lanes + leases)."""
        for name in queue.names(txn):
            known = self._queue(name)
            known.may_have_ready = True
            options = queue.counts(txn, name).options
            known.is_paused = bool(options.paused_ms)
            known.ageing_ms = options.ageing_ms
            for lane_id, message_id in queue.lanes(txn, name):
                record = message.peek(txn, message_id)
                if record is not None:
                    known.add(lane_id, record)
        self.throttle = Throttle()
        for session_id in lease.sessions(txn):
            after_id = ""
            while leases := lease.held(txn, session_id, after_id):
                after_id = leases[-1].id
                for one in leases:
                    record = message.peek(txn, one.id)
                    if record is not None and record.extras is not None:
                        for limit in record.extras.limits:
                            self.throttle.hold(txn, limit, now_ms)

    def reload(self, txn: ReadTxn, now_ms: int, undelivered: dict[str, list[Delivery]]) -> None:
        """Forget a step that was not stored: how much each session holds is what the store says."""
        for known in self._queues.values():
            known.lanes.clear()
            known.shares.clear()
        self.load(txn, now_ms)
        for session in self.sessions.values():
            session.leased_count = lease.count(txn, session.id)
        for session_id, deliveries in undelivered.items():
            self.sent(session_id, sum([delivery.size for delivery in deliveries]))

    def consumers(self, name: str) -> list[Session]:
        """The connected sessions that take from the queue."""
        known = self._queues.get(name)
        return [session for session in known.consumers if session.is_connected] if known else []

    def unknown_count(self, txn: ReadTxn, name: str) -> int:
        """How many of the queue's messages are parked for a worker that knows their task, up to a step's worth a task."""
        known = self._queues.get(name)
        if known is None:
            return 0
        consumers = self.consumers(name)
        count = 0
        for lane in known.lanes.values():
            if lane.task and not any(lane.task in session.tasks for session in consumers):
                start = queue.prefix(name, lane.id)
                count += len(txn.scan(start, start + b"\xff" * 10, limits.STEP_ITEMS_MAX))
        return count

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
        for key in effects.freed_limits:
            self.throttle.free(key)
        for session_id, prefetch_count in effects.prefetch.items():
            if session := self.sessions.get(session_id):
                session.prefetch_count = prefetch_count
        for session_id, unwanted in effects.unwanted.items():
            if session := self.sessions.get(session_id):
                session.unwanted = unwanted
                for name in session.queues:
                    self._queue(name).may_have_ready = True
        for session_id in effects.draining:
            if session := self.sessions.get(session_id):
                session.is_draining = True
        for session_id, names in effects.consuming.items():
            if session := self.sessions.get(session_id):
                session.tasks = effects.knowing.get(session_id, session.tasks)
                self._take_from(session, names)
        for session_id in effects.closed:
            if (session := self.sessions.get(session_id)) and not session.is_connected:
                self._close(session)
        # What was put into a removed queue that was made again comes after that.
        for name in effects.removed_queues:
            known = self._queue(name)
            known.is_paused = False
            known.ageing_ms = 0
            if not known.consumers:
                del self._queues[name]
        self.absorb_ready(effects)
        for name, options in effects.options.items():
            known = self._queue(name)
            known.is_paused = bool(options.paused_ms)
            known.ageing_ms = options.ageing_ms
            known.may_have_ready = True

    def absorb_ready(self, effects: Effects) -> None:
        """Take note of what the commands of this step put into queues."""
        for name in effects.ready:
            self._queue(name).may_have_ready = True
        for (name, lane_id), record in effects.lanes.items():
            self._queue(name).add(lane_id, record)

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
        )
        self.sessions[session.id] = session
        self._begin_to_take(session)

    def _take_from(self, session: Session, names: tuple[str, ...]) -> None:
        self._cease_to_take(session)
        session.queues = names
        self._begin_to_take(session)

    def _close(self, session: Session) -> None:
        del self.sessions[session.id]
        self._cease_to_take(session)

    def _begin_to_take(self, session: Session) -> None:
        for name in session.queues:
            known = self._consumed[name] = self._queue(name)
            known.consumers.append(session)
            known.may_have_ready = True

    def _cease_to_take(self, session: Session) -> None:
        for name in session.queues:
            known = self._consumed[name]
            known.consumers.remove(session)
            if not known.consumers:
                del self._consumed[name]

    def dispatch(self, txn: Txn, now_ms: int, effects: Effects) -> dict[str, list[Delivery]]:
        """Lease what can be leased now, a bounded number of messages; by session id."""
        given: dict[str, list[Delivery]] = {}
        self.wake_ms = None
        self.is_cut_short = False
        budget = limits.DELIVERIES_PER_STEP_MAX
        hungry = [
            (name, known)
            for name, known in self._consumed.items()
            if known.may_have_ready
            and not known.is_paused
            and any(session.room for session in known.consumers)
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
                feed = _Feed(self, txn, name, known, now_ms, effects, given)
                looked = feed.run(limit)
                budget -= looked
                if looked and known.may_have_ready:
                    still_hungry.append((name, known))
            hungry = still_hungry
        self.is_cut_short = budget <= 0
        self.throttle.flush(txn)
        return given


class _Feed:
    """One queue's turn at one dispatch."""

    __slots__ = (
        "_dispatcher",
        "_effects",
        "_given",
        "_known",
        "_name",
        "_now_ms",
        "_takers",
        "_txn",
    )

    def __init__(
        self,
        dispatcher: Dispatcher,
        txn: Txn,
        name: str,
        known: _Queue,
        now_ms: int,
        effects: Effects,
        given: dict[str, list[Delivery]],
    ) -> None:
        self._dispatcher = dispatcher
        self._txn = txn
        self._name = name
        self._known = known
        self._now_ms = now_ms
        self._effects = effects
        self._given = given
        self._takers = [session for session in known.consumers if session.room]

    def run(self, limit: int) -> int:
        """Lease up to `limit` messages from the heads of the queue's lanes; how many were looked at."""
        limit = min(limit, sum([session.room for session in self._takers]))
        if limit <= 0:
            return 0
        if self._known.lanes or self._known.ageing_ms:
            return self._run_lanes(limit)
        plain = queue.prefix(self._name, queue.PLAIN)
        rows = self._txn.scan(plain, keys.after(plain), limit)
        for key, raw_id in rows:
            self._offer(key, raw_id)
        if len(rows) < limit and not self._known.lanes:
            self._known.may_have_ready = False
        return len(rows)

    def _run_lanes(self, limit: int) -> int:
        known, txn = self._known, self._txn
        heap: list[tuple[int, float, bytes, bytes]] = []
        lanes: dict[bytes, _Lane] = {}
        for lane in [*self._plain_lanes(), *known.lanes.values()]:
            if (entry := self._entry(lane)) is not None:
                lanes[lane.id] = lane
                heap.append(entry)
        heapify(heap)
        looked = 0
        while heap and looked < limit:
            _, used, place, lane_id = heappop(heap)
            lane = lanes[lane_id]
            if known.share(lane.fairness_key).used == used and lane.head == place:
                looked += 1
                key = queue.prefix(self._name, queue.stem(lane_id)) + place
                raw_id = txn.get(key)
                lane.head = None
                if raw_id is not None and self._offer(key, raw_id):
                    share = known.share(lane.fairness_key)
                    share.used += 1 / share.weight
                    for limit_ in lane.limits:
                        self._dispatcher.throttle.take(txn, limit_, self._now_ms)
            if (entry := self._entry(lane)) is not None:
                heappush(heap, entry)
        if not heap and not known.lanes and not known.ageing_ms:
            known.may_have_ready = False
        return looked

    def _plain_lanes(self) -> Iterable[_Lane]:
        """The plain lane; where messages age, its priorities, each a lane."""
        if not self._known.ageing_ms:
            return [_Lane(queue.PLAIN, "", (), "")]
        return [
            _Lane(queue.PLAIN + bytes((9 - priority,)), "", (), "")
            for priority in range(limits.PRIORITY_MAX, -1, -1)
        ]

    def _entry(self, lane: _Lane) -> tuple[int, float, bytes, bytes] | None:
        """The lane's place in the order of lanes, or None when nothing of it may run now."""
        if lane.task and _roomiest(self._takers, lane.task) is None:
            return None
        dispatcher, txn, now_ms = self._dispatcher, self._txn, self._now_ms
        for limit in lane.limits:
            wait_ms = dispatcher.throttle.wait_ms(txn, limit, now_ms)
            if wait_ms is None:
                return None
            if wait_ms:
                wake_ms = now_ms + wait_ms
                if dispatcher.wake_ms is None or wake_ms < dispatcher.wake_ms:
                    dispatcher.wake_ms = wake_ms
                return None
        if lane.head is None:
            prefix = queue.prefix(self._name, lane.id)
            rows = txn.scan(prefix, prefix + b"\xff" * (_PLACE_BYTES + 1), 1)
            if not rows:
                self._known.discard(lane)
                return None
            lane.head = rows[0][0][-_PLACE_BYTES:]
        return self._rank(lane), self._known.share(lane.fairness_key).used, lane.head, lane.id

    def _rank(self, lane: _Lane) -> int:
        """Its head's priority, greatest first, raised by its age where messages age."""
        head = lane.head
        assert head is not None, "the caller has looked"
        if not self._known.ageing_ms:
            return head[0]
        raw_id = self._txn.get(queue.prefix(self._name, queue.stem(lane.id)) + head)
        record = raw_id and message.find(self._txn, raw_id.decode(), self._effects)
        if not record:
            return head[0]
        waited_ms = max(0, self._now_ms - max(record.published_ms, record.eta_ms))
        return head[0] - waited_ms // self._known.ageing_ms

    def _offer(self, key: bytes, raw_id: bytes) -> bool:
        """Lease the message at `key` to the session with the most room that knows it; whether it was."""
        txn, now_ms, effects = self._txn, self._now_ms, self._effects
        message_id = raw_id.decode("utf-8", "replace")
        record = message.find(txn, message_id, effects)
        if record is None or record.stage != Stage.QUEUED:
            # A row whose message was damaged and put aside.
            txn.delete(key)
            self._effects.queue_to_change(self._txn, self._name).ready_count -= 1
            return False
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
            return False
        session = _roomiest(self._takers, record.task)
        if session is None:
            self._park(message_id, record)
            return False
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
            return False
        lease.grant(txn, message_id, record, session.id, now_ms)
        self._effects.queue_to_change(self._txn, self._name).leased_count += 1
        session.leased_count += 1
        delivery = Delivery(
            message_id,
            record,
            payload,
            joins.inputs(txn, record) if record.extras is not None else [],
            joins.read_failure(txn, message_id) if record.flags & Flag.IS_ERRBACK else None,
        )
        session.unsent_bytes += delivery.size
        self._given.setdefault(session.id, []).append(delivery)
        return True

    def _park(self, message_id: str, record: Record) -> None:
        """Move a message that no taker knows to its task's own lane, so that it holds nobody back."""
        lane_id = queue.lane_of(record, is_parked=True)
        if record.lane == lane_id:
            return
        txn = self._txn
        txn.delete(queue.ready_key(record))
        record.lane = lane_id
        txn.put(queue.ready_key(record), message_id.encode())
        message.save(txn, message_id, record)
        self._known.add(lane_id, record)


def _roomiest(takers: list[Session], task: str) -> Session | None:
    """The session with the most room among those that know the task and want it."""
    best: Session | None = None
    best_room = 0
    for session in takers:
        room = session.room
        if room > best_room and task in session.tasks and task not in session.unwanted:
            best, best_room = session, room
    return best
