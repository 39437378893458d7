"""Entries that fire again and again: when, what they publish, and each tick once.

    c <name>  → Entry

An entry keeps its next tick. A row of the time index reminds of it; whoever looks fires what is due and moves the
next tick behind `now`, in one transaction. So whatever dies in between, a tick fires once or is still due, and a clock
that is set back fires nothing again.

Which moments a timing means, and how a template becomes a message, is told by an `Almanac`: time zones are not
for the core. It computes inside the transaction, so that there is no tick between deciding and storing.

A message's id is made of the entry's name and the tick, so that even an entry that was removed and made anew
does not fire a tick twice.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Protocol

from qbroker_server.core import (
    frame,
    index,
    keys,
    limits,
    message,
    publish,
    revoke,
    timetable,
)
from qbroker_server.core.effects import Effects
from qbroker_server.core.errors import (
    Conflict,
    CoreError,
    CorruptRecord,
    Invalid,
    NotFound,
    ResourceFull,
)
from qbroker_server.core.names import check_name
from qbroker_server.core.ports import ReadTxn, Txn
from qbroker_server.core.publish import NewMessage
from qbroker_server.core.records import Record, Stage

VERSION: Final = 1
"""Of a schedule's entry; records.py says how to raise it."""

ON_TIME_MS: Final = 5_000
"""A tick that is looked at within this time is late, not missed: a broker that was restarted swallows none."""

CATCH_UP_MAX: Final = 1_000
"""Missed ticks that one look may fire at most."""

LABEL: Final = "schedule"
"""What the label of an entry's messages is called; so they can be listed."""

PAGE_MAX: Final = 1_000

_SPAN_MS_MAX: Final = 2**45
_TAKEN_STAGES: Final = (Stage.SCHEDULED, Stage.QUEUED, Stage.LEASED)


class Overlap(StrEnum):
    """What becomes of a tick while the message of the one before has not ended."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"
    """One may wait until the running one has ended; ticks more are skipped."""


class CatchUp(StrEnum):
    """What becomes of ticks that were missed: the broker was away, or the clock was set forward."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Definition:
    """What an entry is to do. Times are Unix milliseconds, spans milliseconds, 0 for none."""

    timing: str
    """As the almanac reads it."""
    template: bytes
    """The message without an id."""
    overlap: str = Overlap.ALLOW
    catch_up: str = CatchUp.LAST
    catch_up_max: int = 100
    """Missed ticks that are fired at once, with CatchUp.ALL: the newest."""
    late_ms_max: int = 0
    """Missed ticks that are older are not fired."""
    jitter_ms: int = 0
    """Each message is due up to so much after its tick; by how much, the tick says."""
    delay_ms: int = 0
    """Each message is due so much after its tick."""
    lifetime_ms: int = 0
    """Each message expires so much after it was published."""
    start_ms: int = 0
    end_ms: int = 0
    runs_max: int = 0
    """After so many ticks it has ended; 1: a one-off."""
    _told: str = field(default="", init=False, repr=False, compare=False)
    """As it is stored, once it was: it is the same at each tick."""

    def as_json(self) -> str:
        """All but the template, as it is stored."""
        if not self._told:
            values = asdict(self)
            del values["template"], values["_told"]
            object.__setattr__(self, "_told", _to_json(values))
        return self._told


@dataclass(slots=True)
class Entry:
    """An entry: what it is to do, and how far it is."""

    definition: Definition
    owner: str = ""
    """Which app declared it; "" when it was made by hand."""
    declared: str = ""
    """A digest of what was declared: an app that says the same again takes back no edit."""
    anchor_ms: int = 0
    """Where intervals are counted from."""
    next_ms: int = 0
    """The next tick; 0: it has ended."""
    paused_ms: int = 0
    paused_by: str = ""
    paused_why: str = ""
    changed_ms: int = 0
    run_count: int = 0
    skipped_count: int = 0
    last_ms: int = 0
    """The last tick that was fired."""
    last_id: str = ""
    """The message of the last tick, or of the last run by hand."""
    note: str = ""
    """Why the last tick that fired nothing did not."""


class Almanac(Protocol):
    """What the core is told of calendars and of the wire."""

    def next_ms(self, timing: str, after_ms: int, anchor_ms: int) -> int | None:
        """The first moment after `after_ms`; Invalid when the timing means none at all."""

    def last_ms(self, timing: str, until_ms: int, anchor_ms: int) -> int | None:
        """The last moment that is not after `until_ms`."""

    def occurrence(
        self,
        template: bytes,
        *,
        id: str,  # noqa: A002 - the domain's word
        label: str,
        eta_ms: int,
        expires_ms: int,
        limit_key: str,
    ) -> NewMessage:
        """The template as a message; with a key, of those with that key one runs at a time."""


def key_of(name: str) -> bytes:
    """Where the entry is."""
    return keys.ENTRY + name.encode()


def encode(entry: Entry) -> bytes:
    """The entry as it is stored: version, checksum, length of what follows, that as JSON, and the template."""
    e = entry
    # Written at each tick, and three times as fast as by way of a dictionary.
    told = (
        f'[{e.definition.as_json()},{{"owner":{_quoted(e.owner)},"declared":{_quoted(e.declared)},'
        f'"anchor_ms":{e.anchor_ms},"next_ms":{e.next_ms},"paused_ms":{e.paused_ms},'
        f'"paused_by":{_quoted(e.paused_by)},"paused_why":{_quoted(e.paused_why)},'
        f'"changed_ms":{e.changed_ms},"run_count":{e.run_count},"skipped_count":{e.skipped_count},'
        f'"last_ms":{e.last_ms},"last_id":{_quoted(e.last_id)},"note":{_quoted(e.note)}}}]'
    ).encode()
    body = keys.U32.pack(len(told)) + told + entry.definition.template
    return frame.seal(frame.BIG, VERSION, body)


_to_json: Final = json.JSONEncoder(separators=(",", ":")).encode
# `json.loads` looks for what cannot be there.
_from_json: Final = json.JSONDecoder().raw_decode
_quoted: Final = json.encoder.encode_basestring_ascii
_BETWEEN: Final = b'},{"owner":'
"""Where one object ends and the next begins: inside of a string its quotes would have backslashes."""


@lru_cache(maxsize=4_096)
def _definition_from_json(told: bytes, template: bytes) -> Definition:
    """Read once, because it is the same at each tick."""
    return Definition(template=template, **json.loads(told))


def _read(key: bytes, raw: bytes) -> Entry:
    if len(raw) < 9:
        raise CorruptRecord(key, f"it is only {len(raw)} bytes long")
    template_at = 9 + keys.U32.unpack_from(raw, 5)[0]
    definition, between, values = raw[9:template_at].partition(_BETWEEN)
    if not between:
        raise CorruptRecord(key, "it is not an entry")
    known = _definition_from_json(definition[1:] + b"}", raw[template_at:])
    return Entry(known, **_from_json((between[2:] + values).decode())[0])


READERS: Final[Mapping[int, Callable[[bytes, bytes], Entry]]] = {1: _read}
"""By the first version that each reads."""


def decode(key: bytes, raw: bytes) -> Entry:
    """The entry stored at `key`; CorruptRecord when it is not what was written, NewerVersion."""
    return frame.read(frame.BIG, key, raw, VERSION, READERS)


def peek(txn: ReadTxn, name: str) -> Entry:
    """The entry; NotFound, CorruptRecord."""
    raw = txn.get(key_of(name))
    if raw is None:
        raise NotFound(f"there is no schedule {name!r}")
    return decode(key_of(name), raw)


def page(txn: ReadTxn, after: str, limit: int) -> list[tuple[str, Entry]]:
    """Up to `limit` entries in order of their names, from behind `after`; damaged ones are left out."""
    start = key_of(after) + b"\x00" if after else keys.ENTRY
    found: list[tuple[str, Entry]] = []
    for key, raw in txn.scan(start, keys.after(keys.ENTRY), limit):
        try:
            found.append((key[len(keys.ENTRY) :].decode(), decode(key, raw)))
        except CorruptRecord:
            continue
    return found


def id_of(name: str, tick_ms: int) -> str:
    """The id of a tick's message: a UUIDv7 of its time and, in place of chance, a digest."""
    digest = blake2b(
        name.encode() + b"\x00" + tick_ms.to_bytes(8, "big", signed=True), digest_size=10
    )
    number = int.from_bytes(digest.digest(), "big")
    high = (tick_ms % 2**48) << 16 | 0x7000 | number >> 62 & 0xFFF
    text = f"{high << 64 | 1 << 63 | number & (1 << 62) - 1:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def check(name: str, definition: Definition, almanac: Almanac) -> None:
    """Raise Invalid, with a sentence, when no entry can be that."""
    check_name("schedule's name", name)
    label_bytes = len(f"{LABEL}={name}".encode())
    if label_bytes > limits.LABEL_BYTES_MAX:
        raise Invalid(
            f"schedule's name {name[:60]!r} has {label_bytes - len(LABEL) - 1} bytes; it may have "
            f"{limits.LABEL_BYTES_MAX - len(LABEL) - 1}"
        )
    for option, kinds in (("overlap", Overlap), ("catch_up", CatchUp)):
        value = getattr(definition, option)
        if value not in tuple(kinds):
            raise Invalid(
                f"{option} {value!r} of schedule {name!r} must be one of {', '.join(kinds)}"
            )
    if not 1 <= definition.catch_up_max <= CATCH_UP_MAX:
        raise Invalid(
            f"catch_up_max {definition.catch_up_max!r} of schedule {name!r} is not 1 to {CATCH_UP_MAX}"
        )
    for option in ("late_ms_max", "jitter_ms", "delay_ms", "lifetime_ms", "runs_max"):
        value = getattr(definition, option)
        if not 0 <= value < _SPAN_MS_MAX:
            raise Invalid(f"{option} {value!r} of schedule {name!r} is not from 0 to 1,000 years")
    for option in ("start_ms", "end_ms"):
        value = getattr(definition, option)
        if not 0 <= value < 2**62:
            raise Invalid(
                f"{option} {value!r} of schedule {name!r} is not a Unix time in milliseconds"
            )
    almanac.next_ms(definition.timing, 0, 0)
    publish.check(_message(name, definition, id_of(name, 0), 0, 0, almanac))


def _message(
    name: str,
    definition: Definition,
    message_id: str,
    tick_ms: int,
    now_ms: int,
    almanac: Almanac,
) -> NewMessage:
    eta_ms = 0
    if definition.delay_ms or definition.jitter_ms:
        spread = int.from_bytes(blake2b(message_id.encode(), digest_size=8).digest(), "big")
        eta_ms = tick_ms + definition.delay_ms + spread % (definition.jitter_ms + 1)
    return almanac.occurrence(
        definition.template,
        id=message_id,
        label=f"{LABEL}={name}",
        eta_ms=eta_ms,
        expires_ms=now_ms + definition.lifetime_ms if definition.lifetime_ms else 0,
        limit_key=f"{LABEL}:{name}" if definition.overlap == Overlap.QUEUE else "",
    )


# -- firing ----------------------------------------------------------------------------------------


def look_at(txn: Txn, name: str, now_ms: int, effects: Effects, almanac: Almanac) -> None:
    """Fire what is due of the entry, and have it looked at when the next tick comes."""
    entry = _find(txn, name, effects)
    if entry is None or entry.paused_ms or not 0 < entry.next_ms <= now_ms:
        # It was removed, paused, or fired already: another reminder tells of the next tick.
        return
    for tick_ms in _due(entry, now_ms, almanac):
        wait_ms = _fire(txn, name, entry, tick_ms, now_ms, effects, almanac)
        if wait_ms:
            # No room for its message now. The tick stays due.
            entry.next_ms = tick_ms
            timetable.remind(txn, now_ms + wait_ms, timetable.PERIODIC, name, effects)
            txn.put(key_of(name), encode(entry))
            return
        if 0 < entry.definition.runs_max <= entry.run_count:
            break
    _go_on(txn, name, entry, now_ms, effects, almanac)


def _due(entry: Entry, now_ms: int, almanac: Almanac) -> list[int]:
    """The ticks that are to be fired now, oldest first."""
    definition = entry.definition
    is_each = definition.catch_up == CatchUp.ALL
    oldest_ms = entry.next_ms
    if definition.late_ms_max:
        oldest_ms = max(oldest_ms, now_ms - max(definition.late_ms_max, ON_TIME_MS))
    found: list[int] = []
    tick_ms = almanac.last_ms(definition.timing, now_ms, entry.anchor_ms)
    while tick_ms is not None and tick_ms >= oldest_ms and len(found) < definition.catch_up_max:
        is_missed = now_ms - tick_ms > ON_TIME_MS
        if is_missed and not is_each and (found or definition.catch_up == CatchUp.NONE):
            break
        found.append(tick_ms)
        if tick_ms == entry.next_ms:
            # Nothing was to be fired before it.
            break
        tick_ms = almanac.last_ms(definition.timing, tick_ms - 1, entry.anchor_ms)
    if not found:
        entry.note = f"the tick at {entry.next_ms} was missed"
        entry.skipped_count += 1
    return found[::-1]


def _fire(
    txn: Txn,
    name: str,
    entry: Entry,
    tick_ms: int,
    now_ms: int,
    effects: Effects,
    almanac: Almanac,
) -> int:
    """Publish the tick's message, unless something stands against it; answers in how many milliseconds to try again."""
    if why := _stands_against(txn, entry, effects):
        entry.skipped_count += 1
        entry.note = f"the tick at {tick_ms} was skipped: {why}"
        return 0
    message_id = id_of(name, tick_ms)
    try:
        _publish(txn, name, entry, message_id, tick_ms, now_ms, effects, almanac)
    except ResourceFull as error:
        entry.note = f"the tick at {tick_ms} waits: {error}"
        return error.retry_after_ms
    except CoreError as error:
        # Whatever it is, it must not stand against the other entries.
        entry.skipped_count += 1
        entry.note = f"the tick at {tick_ms} was skipped: {error}"
        return 0
    entry.run_count += 1
    entry.last_ms = tick_ms
    entry.last_id = message_id
    return 0


def _publish(
    txn: Txn,
    name: str,
    entry: Entry,
    message_id: str,
    tick_ms: int,
    now_ms: int,
    effects: Effects,
    almanac: Almanac,
) -> None:
    # Its form was looked at when the entry was made.
    new = _message(name, entry.definition, message_id, tick_ms, now_ms, almanac)
    if txn.get(message.key_of(message_id)) is None:
        effects.take_room(new.items, new.size)
        publish.admit(txn, new, now_ms, effects)


def _stands_against(txn: Txn, entry: Entry, effects: Effects) -> str:
    overlap = entry.definition.overlap
    if overlap == Overlap.ALLOW or not entry.last_id:
        return ""
    record = message.find(txn, entry.last_id, effects)
    if record is None or record.stage in (Stage.DONE, Stage.DEAD):
        return ""
    if overlap == Overlap.QUEUE and record.stage not in _TAKEN_STAGES:
        return ""
    return f"message {entry.last_id!r} of the one before is {Stage(record.stage).name.lower()}"


def _go_on(
    txn: Txn, name: str, entry: Entry, now_ms: int, effects: Effects, almanac: Almanac
) -> None:
    """Find the next tick after now, have it looked at then, and save the entry."""
    definition = entry.definition
    entry.next_ms = 0
    if not definition.runs_max or entry.run_count < definition.runs_max:
        entry.next_ms = _next_ms(definition, now_ms, entry.anchor_ms, almanac)
    if entry.next_ms:
        timetable.remind(txn, entry.next_ms, timetable.PERIODIC, name, effects)
    txn.put(key_of(name), encode(entry))


def _next_ms(definition: Definition, now_ms: int, anchor_ms: int, almanac: Almanac) -> int:
    """The first tick after now, 0 for none."""
    after_ms = max(now_ms, definition.start_ms - 1)
    found = almanac.next_ms(definition.timing, after_ms, anchor_ms)
    return 0 if found is None or 0 < definition.end_ms < found else found


def _find(txn: Txn, name: str, effects: Effects) -> Entry | None:
    """The entry, or None. A damaged one is put aside."""
    raw = txn.get(key_of(name))
    if raw is None:
        return None
    try:
        return decode(key_of(name), raw)
    except CorruptRecord as error:
        txn.put(keys.DAMAGED + name.encode(), raw)
        txn.delete(key_of(name))
        effects.damaged.append(str(error))
        return None


def _known(txn: Txn, name: str, effects: Effects) -> Entry:
    entry = _find(txn, name, effects)
    if entry is None:
        raise NotFound(f"there is no schedule {name!r}")
    return entry


# -- commands --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Put:
    """Make the entry, or change it; answers what it is then. Conflict when `is_new` and there is one of the name.

    A paused entry stays paused. One whose moments stay the same keeps its next tick.
    """

    name: str
    definition: Definition
    almanac: Almanac
    is_new: bool = False

    @property
    def cost(self) -> tuple[int, int]:
        return 1, len(self.definition.template)

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> Entry:
        check(self.name, self.definition, self.almanac)
        entry = _find(txn, self.name, effects)
        if entry is not None and self.is_new:
            raise Conflict(
                f"there is a schedule {self.name!r} already; change it, or choose another name"
            )
        if entry is None or _moments(entry.definition) != _moments(self.definition):
            first_ms = _next_ms(self.definition, now_ms, now_ms, self.almanac)
            if not first_ms:
                raise Invalid(
                    f"schedule {self.name!r} would never fire: {self.definition.timing!r} has no moment "
                    "from now on, or none before its end"
                )
        if entry is None or entry.definition != self.definition:
            effects.take_room(*self.cost)
        return _set(txn, self.name, entry, self.definition, now_ms, effects, self.almanac)


def _set(
    txn: Txn,
    name: str,
    entry: Entry | None,
    definition: Definition,
    now_ms: int,
    effects: Effects,
    almanac: Almanac,
) -> Entry:
    """Give the entry, or a new one, this definition."""
    begins = entry is None or _moments(entry.definition) != _moments(definition)
    entry = entry or Entry(definition)
    if not begins and entry.definition == definition:
        return entry
    entry.definition = definition
    entry.changed_ms = now_ms
    if begins:
        entry.anchor_ms = now_ms
        entry.run_count = 0
        _go_on(txn, name, entry, now_ms, effects, almanac)
    else:
        txn.put(key_of(name), encode(entry))
    return entry


def _moments(definition: Definition) -> tuple[object, ...]:
    return definition.timing, definition.start_ms, definition.end_ms, definition.runs_max


@dataclass(frozen=True, slots=True)
class Declared:
    """What became of a declaration, by the entries' names."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]
    taken: tuple[tuple[str, str], ...]
    """Left alone, because another app or somebody by hand made them: (name, owner)."""


@dataclass(frozen=True, slots=True)
class Declare:
    """Have exactly these entries of one owner: add, change and remove what is needed, all of it or nothing.

    An entry that was declared the same before stays as it is, also where somebody has edited it since.
    """

    owner: str
    entries: tuple[tuple[str, Definition], ...]
    almanac: Almanac
    is_dry: bool = False
    """Only say what would be."""

    @property
    def cost(self) -> tuple[int, int]:
        size = sum([len(definition.template) for _, definition in self.entries])
        return 1 + len(self.entries), size

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> Declared:
        check_name("schedule's owner", self.owner)
        for name, definition in self.entries:
            check(name, definition, self.almanac)
        added, changed, unchanged = list[str](), list[str](), list[str]()
        wanted: list[tuple[str, Definition, Entry | None, str]] = []
        taken: list[tuple[str, str]] = []
        for name, definition in self.entries:
            entry = _find(txn, name, effects)
            digest = blake2b(repr(definition).encode(), digest_size=16).hexdigest()
            if entry is not None and entry.owner != self.owner:
                taken.append((name, entry.owner))
                continue
            if entry is not None and entry.declared == digest:
                unchanged.append(name)
                continue
            (added if entry is None else changed).append(name)
            wanted.append((name, definition, entry, digest))
        if wanted and not self.is_dry:
            effects.take_room(
                len(wanted), sum([len(definition.template) for _, definition, _, _ in wanted])
            )
        for name, definition, entry, digest in () if self.is_dry else wanted:
            entry = _set(txn, name, entry, definition, now_ms, effects, self.almanac)
            entry.owner, entry.declared = self.owner, digest
            txn.put(key_of(name), encode(entry))
        declared = {name for name, _ in self.entries}
        removed = [name for name in _owned(txn, self.owner) if name not in declared]
        if not self.is_dry:
            for name in removed:
                txn.delete(key_of(name))
        return Declared(
            tuple(added), tuple(changed), tuple(removed), tuple(unchanged), tuple(taken)
        )


def _owned(txn: ReadTxn, owner: str) -> list[str]:
    found: list[str] = []
    after = ""
    while True:
        start = key_of(after) + b"\x00" if after else keys.ENTRY
        rows = txn.scan(start, keys.after(keys.ENTRY), PAGE_MAX)
        for key, raw in rows:
            after = key[len(keys.ENTRY) :].decode()
            try:
                if decode(key, raw).owner == owner:
                    found.append(after)
            except CorruptRecord:
                continue
        if len(rows) < PAGE_MAX:
            return found


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget the entry. What it has published stays."""

    name: str

    @property
    def cost(self) -> tuple[int, int]:
        return 1, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> None:
        del now_ms
        _known(txn, self.name, effects)
        txn.delete(key_of(self.name))


@dataclass(frozen=True, slots=True)
class Drop:
    """Revoke up to a step's worth of the entry's messages that have not started, or wait for another try.

    Answers how many, and the id to go on from; "" at the end. What runs goes on. Messages published after
    `until_ms` stay: they are of a later definition, or of a later entry of this name. The entry may be gone.
    """

    name: str
    until_ms: int
    after_id: str = ""

    @property
    def cost(self) -> tuple[int, int]:
        return limits.STEP_ITEMS_MAX, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> tuple[int, str]:
        ids = index.find(txn, index.LABEL, f"{LABEL}={self.name}", self.after_id)
        waiting = [one for one in ids if self._is_dropped(message.find(txn, one, effects))]
        revoke.Revoke(waiting, why=f"schedule {self.name!r} was changed, paused or removed").apply(
            txn, now_ms, effects
        )
        return len(waiting), ids[-1] if ids else ""

    def _is_dropped(self, record: Record | None) -> bool:
        return (
            record is not None
            and record.stage in _TAKEN_STAGES
            and record.published_ms <= self.until_ms
        )


@dataclass(frozen=True, slots=True)
class Pause:
    """Fire nothing until it is resumed. Answers the entry."""

    name: str
    by: str
    why: str

    @property
    def cost(self) -> tuple[int, int]:
        return 1, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> Entry:
        check_name(
            "by whom it is paused", self.by, bytes_max=limits.TEXT_BYTES_MAX, is_optional=True
        )
        check_name(
            "reason of the pause", self.why, bytes_max=limits.TEXT_BYTES_MAX, is_optional=True
        )
        entry = _known(txn, self.name, effects)
        entry.paused_ms, entry.paused_by, entry.paused_why = now_ms, self.by[:200], self.why[:500]
        txn.put(key_of(self.name), encode(entry))
        return entry


@dataclass(frozen=True, slots=True)
class Resume:
    """Fire again from now on: ticks of the pause are not made up for. Answers the entry."""

    name: str
    almanac: Almanac

    @property
    def cost(self) -> tuple[int, int]:
        return 1, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> Entry:
        entry = _known(txn, self.name, effects)
        if entry.paused_ms:
            entry.paused_ms, entry.paused_by, entry.paused_why = 0, "", ""
            _go_on(txn, self.name, entry, now_ms, effects, self.almanac)
        return entry


@dataclass(frozen=True, slots=True)
class Run:
    """Publish the entry's message now, beside its ticks, paused or not; answers the message's id.

    The id comes from who asks, so that asking again publishes nothing again.
    """

    name: str
    id: str
    almanac: Almanac

    @property
    def cost(self) -> tuple[int, int]:
        return 1, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> str:
        check_name("message id", self.id)
        entry = _known(txn, self.name, effects)
        if why := _stands_against(txn, entry, effects):
            raise Conflict(f"schedule {self.name!r} does not overlap itself: {why}")
        definition = replace(entry.definition, delay_ms=0, jitter_ms=0)
        by_hand = replace(entry, definition=definition)
        _publish(txn, self.name, by_hand, self.id, now_ms, now_ms, effects, self.almanac)
        entry.last_id = self.id
        txn.put(key_of(self.name), encode(entry))
        return self.id
