"""How a message comes in: checked, stored once by its id, and put where it waits; a workflow whole, or not at all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from qbroker_server.core import (
    dead,
    index,
    joins,
    keys,
    limits,
    message,
    payloads,
    queue,
    results,
    timetable,
    unique,
    workflows,
)
from qbroker_server.core.effects import Effects
from qbroker_server.core.errors import CoreError, Invalid, KeyTaken, ResourceFull, Unroutable
from qbroker_server.core.message import save
from qbroker_server.core.names import check_name
from qbroker_server.core.ports import ReadTxn, Txn
from qbroker_server.core.records import (
    EndReason,
    Extras,
    Flag,
    Overflow,
    Record,
    Stage,
    UniqueScope,
)
from qbroker_server.core.routes import Route
from qbroker_server.core.unique import UniquePolicy


# Nobody changes one, but to have that checked would make each five times as dear.
@dataclass(slots=True)
class NewMessage:
    """A message as a producer publishes it. Times are Unix milliseconds, 0 for none."""

    id: str
    task: str
    queue: str
    priority: int
    eta_ms: int
    expires_ms: int
    result_ttl_ms: int
    deaths_max: int
    flags: int
    payload: bytes
    """What a worker will be given; nobody looks inside before."""
    retries: int = 0
    extras: Extras | None = None
    unique_policy: int = UniquePolicy.REJECT
    errbacks: tuple["NewMessage", ...] = ()
    """Published when it fails."""
    route: Route | None = None
    """Where it was sent to, if not to `queue`."""

    @property
    def items(self) -> int:
        """How much of a step it takes."""
        return 1 + len(self.errbacks)

    @property
    def size(self) -> int:
        """Payload bytes it stores."""
        size = len(self.payload)
        return size + sum([errback.size for errback in self.errbacks]) if self.errbacks else size


@dataclass(frozen=True, slots=True)
class NewJoin:
    """A join as a producer publishes it (joins.py)."""

    id: str
    size: int
    is_list: bool
    place: tuple[str, int] | None = None
    entry_id: str = ""


@dataclass(frozen=True, slots=True)
class NewWorkflow:
    """Messages and joins that are stored together or not at all."""

    id: str
    messages: tuple[NewMessage, ...]
    joins: tuple[NewJoin, ...] = ()

    @property
    def items(self) -> int:
        """How much of a step it takes."""
        return len(self.joins) + sum([new.items for new in self.messages])

    @property
    def size(self) -> int:
        """Payload bytes it stores."""
        return sum([new.size for new in self.messages])


New = NewMessage | NewWorkflow


def check(new: NewMessage) -> None:
    """Raise Invalid, with a sentence, when the message breaks a rule of its form."""
    check_name("message id", new.id)
    check_name("task name", new.task)
    if new.route is None:
        check_name("queue name", new.queue)
    else:
        check_name("exchange name", new.route.exchange)
        check_name("routing key", new.route.routing_key, is_optional=True)
    if not 0 <= new.priority <= limits.PRIORITY_MAX:
        raise Invalid(
            f"priority {new.priority!r} of message {new.id!r} is not 0 to {limits.PRIORITY_MAX}"
        )
    if not 0 <= new.deaths_max < 2**16:
        raise Invalid(f"max_deliveries {new.deaths_max!r} of message {new.id!r} is not 0 to 65535")
    if not (0 <= new.eta_ms < 2**62 and 0 <= new.expires_ms < 2**62):
        raise Invalid(
            f"eta {new.eta_ms!r} or expires {new.expires_ms!r} of message {new.id!r} is not a Unix time in milliseconds"
        )
    if new.extras is not None:
        _check_extras(new.id, new.extras)
    if len(new.errbacks) > limits.ERRBACKS_MAX:
        raise Invalid(
            f"message {new.id!r} has {len(new.errbacks)} errbacks; it may have {limits.ERRBACKS_MAX}"
        )
    for errback in new.errbacks:
        check(errback)
        if errback.errbacks or (errback.extras is not None and errback.extras.unique_key):
            raise Invalid(
                f"errback {errback.id!r} of message {new.id!r} has errbacks or a unique key itself; it can have neither"
            )


def check_alone(new: NewMessage) -> None:
    """Raise Invalid when a message that comes without a workflow has a place in one."""
    if new.extras is not None and (new.extras.place or new.extras.wait):
        raise Invalid(f"message {new.id!r} names a join, but was published without one")


def check_workflow(workflow: NewWorkflow, *, waiters: tuple[NewMessage, ...] = ()) -> None:
    """Raise Invalid, with a sentence, when the workflow breaks a rule of its form.

    `waiters` are messages outside of it that wait for its joins.
    """
    check_name("workflow id", workflow.id)
    if not workflow.messages:
        raise Invalid(f"workflow {workflow.id!r} has no messages")
    for new in workflow.messages:
        check(new)
    known = {join.id: join for join in workflow.joins}
    if len(known) < len(workflow.joins) or len({new.id for new in workflow.messages}) < len(
        workflow.messages
    ):
        raise Invalid(f"workflow {workflow.id!r} has two messages or two joins of one id")
    members: dict[str, set[int]] = {join.id: set() for join in workflow.joins}
    needs: dict[str, list[str]] = {join.id: [] for join in workflow.joins}
    for new in (*workflow.messages, *waiters):
        wait = new.extras.wait if new.extras is not None else None
        if wait is not None and wait.join_id not in known:
            raise Invalid(
                f"message {new.id!r} waits for {wait.join_id!r}, which is not a join of its workflow"
            )
        place = new.extras.place if new.extras is not None else None
        if place is not None:
            _add_member(workflow, members, new.id, place)
            if wait is not None:
                needs[place[0]].append(wait.join_id)
    for join in workflow.joins:
        check_name("join id", join.id)
        if not 1 <= join.size <= limits.MEMBERS_MAX or (join.size > 1 and not join.is_list):
            raise Invalid(
                f"join {join.id!r} has {join.size} members; it may have 1 to {limits.MEMBERS_MAX}, and one if it is not a list"
            )
        if join.place is not None:
            _add_member(workflow, members, join.id, join.place)
            needs[join.place[0]].append(join.id)
    for join in workflow.joins:
        if members[join.id] != set(range(join.size)):
            raise Invalid(
                f"join {join.id!r} of workflow {workflow.id!r} has {len(members[join.id])} of its {join.size} members"
            )
    _check_reached(workflow, needs)


def _add_member(
    workflow: NewWorkflow, members: dict[str, set[int]], member_id: str, place: tuple[str, int]
) -> None:
    taken = members.get(place[0])
    if taken is None or place[1] in taken:
        raise Invalid(
            f"{member_id!r} is member {place[1]} of {place[0]!r}, which is not a join of workflow {workflow.id!r} or "
            "has that member already"
        )
    taken.add(place[1])


def _check_reached(workflow: NewWorkflow, needs: dict[str, list[str]]) -> None:
    """Raise Invalid when joins wait for each other in a circle: nothing of it would ever run."""
    missing = {join_id: len(needed) for join_id, needed in needs.items()}
    followers: dict[str, list[str]] = {join_id: [] for join_id in needs}
    for join_id, needed in needs.items():
        for one in needed:
            followers[one].append(join_id)
    reached = [join_id for join_id, count in missing.items() if not count]
    for join_id in reached:
        for follower in followers[join_id]:
            missing[follower] -= 1
            if not missing[follower]:
                reached.append(follower)
    if len(reached) < len(needs):
        raise Invalid(f"workflow {workflow.id!r} goes in a circle: a part of it waits for itself")


def _check_extras(message_id: str, extras: Extras) -> None:
    if extras.unique_key:
        check_name("unique key", extras.unique_key)
    if extras.root_id:
        check_name("root id", extras.root_id)
    if extras.fairness_key:
        check_name("fairness key", extras.fairness_key)
    if len(extras.labels) > limits.LABELS_MAX:
        raise Invalid(
            f"message {message_id!r} has {len(extras.labels)} labels; it may have {limits.LABELS_MAX}"
        )
    for label in extras.labels:
        check_name("label", label, bytes_max=limits.LABEL_BYTES_MAX)
        if "=" not in label:
            raise Invalid(f"label {label[:60]!r} is not of the form 'name=value'")
    if len(extras.limits) > limits.LIMITS_MAX:
        raise Invalid(
            f"message {message_id!r} is under {len(extras.limits)} limits; it may be under {limits.LIMITS_MAX}"
        )
    for limit in extras.limits:
        check_name("limit key", limit.key)
        if not 0 <= limit.rate < 1e9 or (limit.rate and not 0 < limit.per_ms < 2**40):
            raise Invalid(
                f"limit {limit.key!r} of {limit.rate!r} in {limit.per_ms!r} ms is not a rate"
            )


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a batch: all of it is stored, but for these."""

    refusals: tuple[tuple[int, CoreError], ...]
    duplicates: tuple[int, ...]
    """Places of the messages whose id was known already."""
    existing: tuple[tuple[int, str], ...] = ()
    """Places of the messages whose unique key is taken, the refused ones too, and by which message."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Store each message whose id is new, to be delivered at once or when it is due."""

    messages: tuple[New, ...]

    @property
    def cost(self) -> tuple[int, int]:
        items, size = len(self.messages), 0
        for new in self.messages:
            size += len(new.payload) if type(new) is NewMessage else new.size
            if type(new) is not NewMessage or new.errbacks:
                items += new.items
        return items, size

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> Published:
        refusals: list[tuple[int, CoreError]] = []
        duplicates: list[int] = []
        existing: list[tuple[int, str]] = []
        for place, new in enumerate(self.messages):
            try:
                if isinstance(new, NewMessage):
                    check(new)
                    if new.extras is not None:
                        check_alone(new)
                else:
                    check_workflow(new)
            except Invalid as error:
                refusals.append((place, error))
                continue
            is_known = (
                txn.get(keys.MESSAGE + new.id.encode()) is not None
                if isinstance(new, NewMessage)
                else workflows.find(txn, new.id, effects) is not None
            )
            if is_known:
                duplicates.append(place)
                continue
            try:
                effects.take_room(new.items, new.size)
                if isinstance(new, NewMessage):
                    admit(txn, new, now_ms, effects)
                else:
                    admit_workflow(txn, new, now_ms, effects)
            except KeyTaken as error:
                existing.append((place, error.holder))
                if (
                    isinstance(new, NewWorkflow)
                    or new.unique_policy != UniquePolicy.RETURN_EXISTING
                ):
                    refusals.append((place, error))
            except (Invalid, ResourceFull, Unroutable) as error:
                refusals.append((place, error))
        return Published(tuple(refusals), tuple(duplicates), tuple(existing))


def cut(messages: Sequence[New]) -> list[tuple[New, ...]]:
    """The messages in parts, a command each, of which none has more than `ROUTED_ITEMS_MAX` through exchanges."""
    if not any(type(new) is NewMessage and new.route is not None for new in messages):
        return [tuple(messages)]
    parts: list[list[New]] = [[]]
    routed_count = 0
    for new in messages:
        if isinstance(new, NewMessage) and new.route is not None:
            if routed_count == limits.ROUTED_ITEMS_MAX:
                parts.append([])
                routed_count = 0
            routed_count += 1
        parts[-1].append(new)
    return [tuple(part) for part in parts]


def is_known(txn: Txn, new: New) -> bool:
    """Whether the message, or the first one of the workflow, was published before."""
    first = new.messages[0] if isinstance(new, NewWorkflow) else new
    return txn.get(keys.MESSAGE + first.id.encode()) is not None


def admit_workflow(txn: Txn, workflow: NewWorkflow, now_ms: int, effects: Effects) -> None:
    """Store a checked workflow that is new; a CoreError when something stands against any part of it."""
    pasts = _look_first(txn, workflow, now_ms, effects)
    _store_workflow(txn, workflow, pasts, now_ms, effects, admit)


def _look_first(
    txn: Txn, workflow: NewWorkflow, now_ms: int, effects: Effects
) -> list[tuple[str, Record]]:
    """Raise what any message of the workflow would be refused for: nothing of it is stored then.

    Answers the ids that have lived before and ended, with what is left of them.
    """
    pasts: list[tuple[str, Record]] = []
    taken: set[str] = set()
    coming: dict[str, tuple[int, int]] = {}
    for new in workflow.messages:
        record = message.find(txn, new.id, effects)
        if record is not None:
            if record.stage != Stage.DONE:
                raise Invalid(_in_use(new.id, record))
            pasts.append((new.id, record))
        key = new.extras.unique_key if new.extras is not None else ""
        if key:
            holder = unique.holder(txn, key, now_ms, effects)
            if holder is not None and new.unique_policy != UniquePolicy.REPLACE:
                raise KeyTaken(key, holder[0])
            if key in taken:
                raise Invalid(
                    f"two messages of workflow {workflow.id!r} have the unique key {key!r}"
                )
            taken.add(key)
        targets = (new,) if new.route is None else copies_of(txn, new, effects)
        if not targets:
            raise Unroutable(_nobody_takes(new))
        for one in targets:
            count, size = coming.get(one.queue, (0, 0))
            coming[one.queue] = count + 1, size + len(one.payload)
    for join in workflow.joins:
        # Behind the messages, because an id of a task says more to its caller.
        known = joins.of(effects).find(txn, join.id, effects)
        if known is not None and not known.is_complete and known.cause is None:
            raise Invalid(
                f"join {join.id!r} is in use: it waits in workflow {known.workflow_id!r} for "
                f"{known.size - known.arrived_count} of its {known.size} members. {_OTHER_IDS}"
            )
    for name, (count, size) in coming.items():
        counts = effects.queue(txn, name)
        options = counts.options
        length_max, bytes_max = options.length_max, options.bytes_max
        rejects = options.overflow == Overflow.REJECT
        if (bytes_max and size > bytes_max) or (
            rejects
            and (
                (length_max and counts.ready_count + count > length_max)
                or (bytes_max and counts.ready_bytes + size > bytes_max)
            )
        ):
            raise ResourceFull(
                f"queue {name!r} has no room for the {count} messages of workflow {workflow.id!r}: it holds "
                f"{counts.ready_count} of {length_max or 'any number of'} messages, {counts.ready_bytes} of "
                f"{bytes_max or 'any number of'} bytes. Raise the limit with 'qctl queue declare', or let workers empty it",
                retry_after_ms=1_000,
            )
    return pasts


_OTHER_IDS = (
    "To run the canvas beside it, build it again, or clone it before it is frozen: a canvas that was frozen keeps its "
    "ids, and so do its clones"
)


def _in_use(message_id: str, record: Record) -> str:
    """Why no workflow can have this id now, where its message is, and what the caller can do."""
    if record.stage == Stage.DEAD:
        where = f"it is a dead letter of queue {record.queue!r}"
        remedy = (
            f"requeue or remove it ('qctl dead requeue {message_id}', 'qctl dead rm {message_id}')"
        )
    else:
        where = f"its task is {Stage(record.stage).name.lower()} in queue {record.queue!r}"
        remedy = f"wait for its end or revoke it ('qctl revoke {message_id}')"
    return (
        f"id {message_id!r} is in use: {where}. Give the call another task_id, or {remedy}. "
        f"{_OTHER_IDS}"
    )


def store_workflow(txn: Txn, workflow: NewWorkflow, now_ms: int, effects: Effects) -> None:
    """Store a checked workflow whatever stands against it: a task's end, which brings it, cannot be refused."""
    found = ((new.id, message.find(txn, new.id, effects)) for new in workflow.messages)
    pasts = [(message_id, past) for message_id, past in found if past is not None]
    _store_workflow(txn, workflow, pasts, now_ms, effects, store)


def _store_workflow(
    txn: Txn,
    workflow: NewWorkflow,
    pasts: Sequence[tuple[str, Record]],
    now_ms: int,
    effects: Effects,
    take: Callable[[Txn, NewMessage, int, Effects], None],
) -> None:
    first = workflow.messages[0]
    workflows.add(
        workflow.id,
        workflows.Workflow(now_ms, first.task, first.id, len(workflow.messages), changed_ms=now_ms),
        effects,
    )
    known = joins.of(effects)
    for message_id, past in pasts:
        # A canvas that was frozen may be sent again when it has ended: its ids begin another life.
        joins.erase(txn, message_id, past, effects)
    for join in workflow.joins:
        if known.find(txn, join.id, effects) is not None:
            known.remove(txn, join.id)
        known.add(
            join.id, joins.Join(join.size, join.is_list, join.place, join.entry_id, workflow.id)
        )
    for new in workflow.messages:
        take(txn, new, now_ms, effects)


def store_follow_up(txn: Txn, new: New, now_ms: int, effects: Effects) -> None:
    """Store what a task's end brings with it, unless it is known; nothing stands against it any more."""
    if is_known(txn, new):
        return
    if isinstance(new, NewWorkflow):
        store_workflow(txn, new, now_ms, effects)
    else:
        store(txn, new, now_ms, effects)


def admit(txn: Txn, new: NewMessage, now_ms: int, effects: Effects) -> None:
    """Store a checked message whose id is new, once for each queue that it goes to.

    KeyTaken, ResourceFull, Unroutable: something stands against it, or against one of its copies.
    """
    if new.route is None:
        options = effects.queue(txn, new.queue).options
        has_key = new.extras is not None and new.extras.unique_key
        if not (has_key or options.length_max or options.bytes_max):
            # As nearly all are: nothing can stand against it.
            _store(txn, new, now_ms, effects)
        else:
            _admit(txn, (new,), now_ms, effects)
        return
    copies = copies_of(txn, new, effects)
    if not copies:
        raise Unroutable(_nobody_takes(new))
    _admit(txn, copies, now_ms, effects)


def _nobody_takes(new: NewMessage) -> str:
    route = new.route
    assert route is not None, "it was sent to a queue by name"
    return (
        f"nothing takes message {new.id!r}: exchange {route.exchange!r} has no binding for the routing key "
        f"{route.routing_key!r}, or is not there. Declare the queue, or bind it ('qctl binding add')"
    )


def copies_of(txn: ReadTxn, new: NewMessage, effects: Effects) -> tuple[NewMessage, ...]:
    """A message for each queue that `new` goes to; the first one has its id, unique key and place in a workflow."""
    assert new.route is not None, "it was sent to a queue by name"
    queues = effects.routes.queues(txn, new.route)
    if len(queues) <= 1:
        return (_sent_to(new, queues[0]),) if queues else ()
    extras = new.extras
    if extras is not None and extras.unique_key:
        extras = replace(extras, unique_key="")
    if extras is not None:
        extras = replace(extras, workflow_id="", place=None, history=[])
    first = _sent_to(new, queues[0])
    stem = new.id[:_COPY_STEM_CHARS]
    seed = new.id.encode()
    # By position: a fanout makes many.
    rest = [
        NewMessage(
            f"{stem}~{_digest(seed, name)}",
            new.task,
            name,
            new.priority,
            new.eta_ms,
            new.expires_ms,
            new.result_ttl_ms,
            new.deaths_max,
            new.flags,
            new.payload,
            new.retries,
            extras,
        )
        for name in queues[1 : limits.COPIES_MAX]
    ]
    return (first, *rest)


def _sent_to(new: NewMessage, queue_name: str) -> NewMessage:
    """The message, as if it had been sent to that queue by name."""
    return NewMessage(
        new.id,
        new.task,
        queue_name,
        new.priority,
        new.eta_ms,
        new.expires_ms,
        new.result_ttl_ms,
        new.deaths_max,
        new.flags,
        new.payload,
        new.retries,
        new.extras,
        new.unique_policy,
        new.errbacks,
    )


def copy_id(message_id: str, queue_name: str) -> str:
    """The id of the copy for a queue: the same whenever the message is published again."""
    return f"{message_id[:_COPY_STEM_CHARS]}~{_digest(message_id.encode(), queue_name)}"


def _digest(seed: bytes, queue_name: str) -> str:
    return blake2b(seed + b"\x00" + queue_name.encode(), digest_size=8).hexdigest()


_COPY_STEM_CHARS = 50
"""No character has more than four bytes, so a copy's id is never too long."""


def _admit(txn: Txn, copies: Sequence[NewMessage], now_ms: int, effects: Effects) -> None:
    leaving: list[tuple[str, Record, EndReason, str]] = []
    for new in copies:
        options = effects.queue(txn, new.queue).options
        if new.extras is not None and new.extras.unique_key:
            holder = unique.holder(txn, new.extras.unique_key, now_ms, effects)
            if holder is not None:
                if new.unique_policy != UniquePolicy.REPLACE:
                    raise KeyTaken(new.extras.unique_key, holder[0])
                if holder[1].stage in (Stage.WAITING, Stage.SCHEDULED, Stage.QUEUED):
                    leaving.append((*holder, EndReason.REPLACED, f"replaced by {new.id}"))
        if (options.length_max or options.bytes_max) and not _waits(new):
            verdict = queue.make_room(txn, new.queue, len(new.payload), now_ms, effects)
            if isinstance(verdict, ResourceFull):
                raise verdict
            if (
                verdict is not None
                and _takes_room(new, now_ms)
                and all(verdict[0] != other[0] for other in leaving)
            ):
                leaving.append((*verdict, EndReason.DROPPED, f"queue {new.queue!r} was full"))
    for message_id, record, reason, detail in leaving:
        _evict(txn, message_id, record, now_ms, effects, reason=reason, detail=detail)
    _store_copies(txn, copies, now_ms, effects)


def _store_copies(txn: Txn, copies: Sequence[NewMessage], now_ms: int, effects: Effects) -> None:
    """Store a message for each of its queues, and what it carries once if that is much."""
    shared = b""
    if len(copies) > 1:
        copies = (copies[0], *[new for new in copies[1:] if _is_free(txn, new.id, effects)])
        payload = copies[0].payload
        if len(payload) * len(copies) >= limits.SHARED_BYTES_MIN and len(copies) > 1:
            shared = payloads.share(txn, payload, len(copies))
    for new in copies:
        _store(txn, new, now_ms, effects, shared=shared)
    effects.copied_count += len(copies) - 1


def _is_free(txn: Txn, copy_id: str, effects: Effects) -> bool:
    """Whether a copy may have this id. Of a message that is published again long after, some may not have run yet."""
    if txn.get(keys.MESSAGE + copy_id.encode()) is None:
        return True
    past = message.find(txn, copy_id, effects)
    if past is None or past.stage == Stage.DONE:
        if past is not None:
            joins.erase(txn, copy_id, past, effects)
        return True
    return False


def _waits(new: NewMessage) -> bool:
    return new.extras is not None and new.extras.wait is not None


def _takes_room(new: NewMessage, now_ms: int) -> bool:
    """Whether the message waits in its queue at once: one that is due later evicts nothing, nor one that has expired."""
    return new.eta_ms <= now_ms and not 0 < new.expires_ms <= now_ms


def _evict(
    txn: Txn,
    message_id: str,
    record: Record,
    now_ms: int,
    effects: Effects,
    *,
    reason: EndReason,
    detail: str,
) -> None:
    """A waiting message makes way for a new one."""
    counts = effects.queue_to_change(txn, record.queue)
    if record.stage == Stage.QUEUED:
        queue.remove(txn, record, effects)
    elif record.stage == Stage.SCHEDULED:
        counts.scheduled_count -= 1
    is_kept = reason == EndReason.DROPPED and counts.options.overflow == Overflow.DEAD_LETTER
    finish = dead.bury if is_kept else results.end
    finish(txn, message_id, record, now_ms, effects, reason=reason, state="REVOKED", detail=detail)


def store(txn: Txn, new: NewMessage, now_ms: int, effects: Effects) -> None:
    """Store a checked message whose id is new, whatever stands against it.

    One that nothing takes becomes a dead letter: nobody is there to be told.
    """
    if new.route is None:
        _store(txn, new, now_ms, effects)
        return
    copies = copies_of(txn, new, effects)
    if copies:
        _store_copies(txn, copies, now_ms, effects)
    else:
        lost = replace(new, queue=new.route.routing_key or new.route.exchange, route=None)
        _store(txn, lost, now_ms, effects, fault=_nobody_takes(new))


def _store(
    txn: Txn,
    new: NewMessage,
    now_ms: int,
    effects: Effects,
    *,
    fault: str = "",
    shared: bytes = b"",
) -> None:
    effects.came[new.queue] = effects.came.get(new.queue, 0) + 1
    extras = new.extras
    is_inline = shared or len(new.payload) <= limits.INLINE_BYTES_MAX
    payload = (shared or new.payload) if is_inline else b""
    record = record_of(new, now_ms, payload)
    if shared:
        record.flags |= Flag.PAYLOAD_SHARED
    elif not is_inline:
        payloads.attach(txn, new.id, record, new.payload)
    if new.errbacks:
        keep_errbacks(txn, new, record, now_ms, effects)
    if extras is not None:
        if extras.unique_key:
            if extras.unique_scope == UniqueScope.TIME:
                extras.unique_until_ms += now_ms
            unique.take(txn, extras.unique_key, new.id)
        index.add(txn, new.id, extras)
    if fault:
        dead.bury(
            txn,
            new.id,
            record,
            now_ms,
            effects,
            reason=EndReason.REJECTED,
            state="FAILURE",
            detail=fault,
        )
        return
    # Also of a message that does not stand in it yet, because it waits for a join.
    effects.queue_to_change(txn, new.queue)
    place(txn, new.id, record, now_ms, effects)


def resume(txn: Txn, message_id: str, record: Record, now_ms: int, effects: Effects) -> None:
    """Put a message that had ended back: where it waited for its join, or behind what waits for a worker."""
    wait = record.extras.wait if record.extras is not None else None
    if wait is not None and joins.wait_again(txn, message_id, wait.join_id, effects):
        record.stage = Stage.WAITING
        save(txn, message_id, record)
        return
    queue.arrive(txn, message_id, record, now_ms, effects)


def place(txn: Txn, message_id: str, record: Record, now_ms: int, effects: Effects) -> None:
    """Put a message that stands nowhere where it waits: for its join, for its time, or for a worker."""
    if record.extras is None or record.extras.wait is None:
        queue.arrive(txn, message_id, record, now_ms, effects)
        return
    record.stage = Stage.WAITING
    joins.wait(txn, message_id, record.extras.wait.join_id, effects)
    if not record.expires_ms:
        save(txn, message_id, record)
    elif record.expires_ms > now_ms:
        timetable.remind(txn, record.expires_ms, timetable.EXPIRES, message_id, effects)
        save(txn, message_id, record)
    else:
        queue.expire(txn, message_id, record, now_ms, effects)


def record_of(new: NewMessage, now_ms: int, payload: bytes) -> Record:
    """The record of a message that comes in."""
    # By position: a record is made for each message, and names would cost it a tenth more.
    return Record(
        Stage.QUEUED,
        new.flags,
        new.priority,
        EndReason.NONE,
        0,
        0,
        new.deaths_max,
        new.retries,
        len(new.payload),
        0,
        now_ms,
        new.eta_ms,
        new.expires_ms,
        new.result_ttl_ms,
        now_ms,
        new.queue,
        new.task,
        "",
        b"",
        "",
        "",
        new.extras,
        payload,
    )


def keep_errbacks(txn: Txn, new: NewMessage, record: Record, now_ms: int, effects: Effects) -> None:
    """Keep what is to be published when the message fails."""
    record.flags |= Flag.HAS_ERRBACKS
    errbacks: list[tuple[str, Record]] = []
    for errback in new.errbacks:
        if errback.route is not None:
            # It has one way only, and one that leads nowhere is a queue by the key's name.
            taken = effects.routes.queues(txn, errback.route)
            name = taken[0] if taken else errback.route.routing_key or errback.route.exchange
            errback = replace(errback, queue=name, route=None)
        waiting = record_of(errback, now_ms, errback.payload)
        waiting.flags |= Flag.IS_ERRBACK
        errbacks.append((errback.id, waiting))
    joins.save_errbacks(txn, new.id, tuple(errbacks))
