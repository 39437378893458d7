"""A call as bytes, and what came of it; the broker never looks inside.

A message's body is `[args, kwargs, embed]` as in Celery's protocol 2. Ids that equal the message's
own (`root_id`, `correlation_id`) are left out, and so are representations nobody asked for: who shows
them makes them from the body.
"""

import datetime as dt
import inspect
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from qbroker import failures, serialization, states
from qbroker.compression import UNPACKED_BYTES_MAX, compress, decompress
from qbroker.exceptions import (
    BackendStoreError,
    ChordError,
    EncodeError,
    InvalidTaskError,
    LimitExceeded,
    NestingTooDeep,
    SecurityError,
    SerializationError,
    SerializerNotInstalled,
    TaskRevokedError,
    WorkerLostError,
)
from qbroker.hints import signature_of
from qbroker.printable import clean, repr_of
from qbroker.sealing import Seal
from qbroker.serialization import Value
from qbroker_proto import checksum
from qbroker_proto.v1.message_pb2 import Message, Result

# The numbers of qbroker.v1.Outcome, without importing what serves the worker alone.
OUTCOME_SUCCESS = 1
OUTCOME_FAILURE = 2
OUTCOME_WORKER_LOST = 3
OUTCOME_IGNORED = 4
OUTCOME_REJECTED = 5
OUTCOME_REVOKED = 6
OUTCOME_RETRY = 7
OUTCOME_TIMEOUT = 8
OUTCOME_REPLACED = 9

# The numbers of qbroker.v1.EndReason.
END_WORKER_LOST = 2
END_EXPIRED = 3
END_REVOKED = 4
END_MAX_DELIVERIES = 5
END_REJECTED = 6
END_DROPPED = 7
END_REPLACED = 8
END_DEPENDENCY = 9

STAGES = ("unknown", "scheduled", "queued", "leased", "started", "done", "dead", "waiting")
"""Where a task is, each at the place of its number in qbroker.v1.Stage."""


_UNREADABLE = (SerializationError, SerializerNotInstalled, SecurityError, LimitExceeded)
"""What `read` raises."""

PICKLE = serialization.find("pickle").content_type


class Terms(NamedTuple):
    """How an app reads results, and writes what says more than a returned value."""

    accepted: frozenset[str]
    """Content types that may be decoded."""
    bytes_max: int = UNPACKED_BYTES_MAX
    """What a body may become."""
    seal: Seal | None = None
    serializer: str = "json"
    """Of failures and of states on the way."""
    keeps_calls: bool = False
    """Whether a result says what its task was called with."""


_EMBED_NONE: dict[str, Value] = {}


def encode_body(
    args: Sequence[Value], kwargs: Mapping[str, Value], embed: Mapping[str, Value] = _EMBED_NONE
) -> bytes:
    """The body of a call, as JSON."""
    return serialization.json_encode((args, kwargs, embed))


def write(
    value: Value, serializer: str, compression: str | None = None, level: int | None = None
) -> dict[str, Value]:
    """The fields of a Message or a Result that say what its body is and how it is written.

    What does not get smaller is not compressed.
    """
    content_type, encoding, body = serialization.encode(value, serializer)
    fields = {"content_type": content_type, "content_encoding": encoding, "body": body}
    if compression:
        packed, method = compress(body, compression, level)
        if len(packed) < len(body):
            fields |= {"compression": method, "body": packed}
    return fields


def check_shape(name: str, args: Value, kwargs: Value) -> None:
    """Raise TypeError where the arguments of a call are no list, or its keyword arguments no mapping."""
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(
            f"the keyword arguments of task {name!r} must be a mapping, not {kwargs!r} "
            f"({type(kwargs).__name__})"
        )
    if args is not None and not isinstance(args, Iterable):
        raise TypeError(
            f"the arguments of task {name!r} must be a list or a tuple, not {args!r} "
            f"({type(args).__name__})"
        )


def explained(
    exc: EncodeError, what: str, parts: Mapping[str, Value], serializer: str
) -> EncodeError:
    """The error again, with the place of what cannot be written: `parts` are values by their names."""
    if isinstance(exc, NestingTooDeep):
        return exc
    for name, value in parts.items():
        found = serialization.refused(value, serializer)
        if found is not None:
            place, culprit = found
            kind = type(culprit).__name__
            return EncodeError(
                f"{name}{place} of {what} is of type {kind!r}, which {serializer} cannot carry: {exc}"
            )
    return exc


def call_parts(
    args: Sequence[Value] | None, kwargs: Mapping[str, Value] | None, task: Value = None
) -> dict[str, Value]:
    """The arguments of a call by the words that name them: the parameters' names where the task is known."""
    run = getattr(task, "run", None)
    try:
        parameters = signature_of(run).parameters.values() if run is not None else ()
    except (TypeError, ValueError):
        parameters = ()
    names = [parameter.name for parameter in parameters if parameter.kind in _BY_PLACE]
    parts: dict[str, Value] = {}
    for place, value in enumerate(args or ()):
        parts[f"argument {names[place]!r}" if place < len(names) else f"args[{place}]"] = value
    if run is None:
        return {**parts, "kwargs": kwargs}
    return parts | {f"argument {name!r}": value for name, value in (kwargs or {}).items()}


_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def read(
    carrier: Message | Result,
    accepted: Collection[str],
    bytes_max: int = UNPACKED_BYTES_MAX,
    seal: Seal | None = None,
) -> Value:
    """The value that was written.

    ContentDisallowed when `accepted` has not its content type, SecurityError when it is encrypted by a key that
    `seal` has not, or not encrypted and has to be, LimitExceeded when it unpacks to more than `bytes_max`,
    DecodeError when it cannot be read.
    """
    body = carrier.body
    # What is not accepted is not even unpacked.
    if carrier.content_type in accepted:
        if seal is not None:
            body = seal.open(carrier, "call" if isinstance(carrier, Message) else "result")
        elif carrier.encryption_key_id:
            raise SecurityError(
                f"what is said of task {carrier.task!r} is encrypted by the key {carrier.encryption_key_id!r}, and "
                "there are no keys here (the setting security_encryption_keys)"
            )
        if carrier.compression:
            body = decompress(body, carrier.compression, bytes_max)
    return serialization.decode(body, carrier.content_type, accepted)


def decode_body(
    message: Message,
    accepted: Collection[str],
    bytes_max: int = UNPACKED_BYTES_MAX,
    seal: Seal | None = None,
) -> tuple[list[Value], dict[str, Value], dict[str, Value]]:
    """Args, kwargs and what is embedded."""
    content = read(message, accepted, bytes_max, seal)
    if isinstance(content, list | tuple) and len(content) == 3:
        args, kwargs, embed = content
        if (
            isinstance(args, list | tuple)
            and type(kwargs) is dict
            and (embed is None or type(embed) is dict)
        ):
            return args if type(args) is list else list(args), kwargs, embed or {}
    raise InvalidTaskError(
        f"the body of message {message.id!r} is not [args, kwargs, embed] but "
        f"{type(content).__name__}"
    )


def decode_call(raw: bytes, accepted: Collection[str]) -> tuple[list[Value], dict[str, Value]]:
    """Args and kwargs of a serialized message."""
    args, kwargs, _ = decode_body(Message.FromString(raw), accepted)
    return args, kwargs


def encode_kept(value: Value, terms: Terms) -> bytes:
    """A result that no task made."""
    return _written(Result(state=states.SUCCESS, **write(value, terms.serializer)), terms)


def _written(result: Result, terms: Terms) -> bytes:
    if terms.seal is not None:
        terms.seal.close(result, "result")
    return checksum.sealed(result.SerializeToString())


def encode_call(args: Value, kwargs: Value, stamps: Value) -> bytes:
    """What a task was called with, for its result; as it is printed where that is nothing JSON has."""
    call = {"args": args, "kwargs": kwargs} | ({"stamps": stamps} if stamps else {})
    try:
        return serialization.json_encode(call)
    except EncodeError:
        shown = {"args": repr_of(args), "kwargs": repr_of(kwargs)}
        return serialization.json_encode({**call, **shown})


def decode_headers(raw: bytes) -> dict[str, Value]:
    """The caller's own headers of a serialized message."""
    headers: dict[str, Value] = json.loads(Message.FromString(raw).headers or "{}")
    return headers


def template(
    known: bytes,
    *,
    task: str,
    args: Sequence[Value] | None,
    kwargs: Mapping[str, Value] | None,
    queue: str | None,
    priority: int | None,
    name: str,
) -> bytes:
    """The message of the periodic entry `name`, without an id; what is None stays as it is in `known`."""
    message = Message.FromString(known) if known else Message(queue="celery")
    if message.encryption_key_id or message.content_type not in ("", serialization.JSON):
        raise SecurityError(
            f"the call of entry {name!r} is encrypted, or not plain JSON: change it where it was made, with app.schedules "
            "or beat_schedule"
        )
    old_args, old_kwargs, _ = serialization.json_decode(message.body) if known else ((), {}, {})
    args = old_args if args is None else args
    kwargs = old_kwargs if kwargs is None else kwargs
    message.task = task
    message.content_type, message.content_encoding = "application/json", "utf-8"
    message.body = encode_body(args, kwargs)
    message.argsrepr, message.kwargsrepr = repr(tuple(args)), repr(dict(kwargs))
    message.headers = json.dumps({"celery_beat_task": True, "periodic_task_name": name})
    if queue is not None:
        message.queue = queue
    if priority is not None:
        message.priority = priority
    return message.SerializeToString()


def check_size(message: bytes, name: str, bytes_max: int) -> None:
    """Refuse here what the broker would refuse after the journey."""
    if len(message) > bytes_max:
        raise LimitExceeded(
            f"a message for task {name!r} is {len(message)} bytes; the limit is {bytes_max} (the "
            "setting task_message_bytes_max). Store large data elsewhere and pass a reference."
        )


# -- exceptions ----------------------------------------------------------------------------------

encode_exception = failures.encode
decode_exception = failures.decode


def with_traceback(encoded: dict[str, Value], text: str) -> dict[str, Value]:
    """An encoded exception that has its traceback with it, where nobody but its readers may see that."""
    return {**encoded, "exc_traceback": text} if text else encoded


# -- results -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Stored:
    """What is known of a task: its state, and its result or why there is none."""

    state: str = states.PENDING
    stage: str = STAGES[0]
    result: Value = None
    traceback: str | None = None
    is_final: bool = False
    is_kept: bool = False
    is_readable: bool = True
    """Else `result` is the exception that tells why not, whatever the state is."""
    name: str | None = None
    worker: str | None = None
    queue: str | None = None
    retries: int | None = None
    done_ms: int | None = None
    runtime_s: float | None = None
    parent_id: str | None = None
    root_id: str | None = None
    children: list[str] = field(default_factory=list)
    call: dict[str, Value] = field(default_factory=dict)


def encode_state(
    state: str,
    value: Value,
    traceback_text: str | None,
    now_ms: int,
    terms: Terms,
    request: Value = None,
) -> bytes:
    """A state on the way and what goes with it, as a serialized Result."""
    if isinstance(value, BaseException) and state in states.EXCEPTION_STATES:
        value = encode_exception(value)
        if terms.seal is not None:
            value, traceback_text = with_traceback(value, traceback_text or ""), None
    result = Result(
        state=state,
        traceback=clean(traceback_text or ""),
        done_ms=now_ms,
        worker=(request.hostname or "") if request is not None else "",
        **write(value, terms.serializer),
    )
    return _written(result, terms)


def encode_ended(
    state: str,
    fields: Mapping[str, Value],
    traceback_text: str | None,
    now_ms: int,
    terms: Terms,
    request: Value,
    children: Iterable[str] = (),
) -> bytes:
    """How a run ended that came by no message, as a serialized Result; `fields` are its body's, as `write` has them."""
    known = {
        field: getattr(request, name, None)
        for field, name in (
            ("worker", "hostname"),
            ("retries", "retries"),
            ("parent_id", "parent_id"),
            ("root_id", "root_id"),
        )
    }
    result = Result(
        state=state,
        traceback=clean(traceback_text or ""),
        done_ms=now_ms,
        # A request knows its task; one that a program has made may know the name.
        task=getattr(task := getattr(request, "task", None), "name", task) or "",
        children=children,
        **{field: value for field, value in known.items() if value},
        **fields,
    )
    if terms.keeps_calls and request is not None:
        asked = {name: getattr(request, name, None) for name in ("args", "kwargs", "stamps")}
        result.call = encode_call(asked["args"] or [], asked["kwargs"] or {}, asked["stamps"])
        came_by = getattr(request, "delivery_info", None) or {}
        result.queue = came_by.get("routing_key") or ""
    return _written(result, terms)


def decode_result(
    state: str,
    result: bytes,
    *,
    stage: int = 0,
    is_final: bool,
    end_reason: int,
    detail: str,
    accepted: Collection[str],
    bytes_max: int = UNPACKED_BYTES_MAX,
    seal: Seal | None = None,
) -> Stored:
    """What the broker told about a task, as a value."""
    # A stage of a newer broker's is none we know.
    where = STAGES[stage] if stage < len(STAGES) else STAGES[0]
    if not result:
        # Ended by the broker, or ended without anything to keep, or not ended.
        ended_by_broker = _ENDINGS.get(end_reason)
        if ended_by_broker is None and state in states.PROPAGATE_STATES and detail:
            # The broker could not keep, or not deliver, what there was, and says why.
            return Stored(state, where, BackendStoreError(detail), is_final=is_final)
        if ended_by_broker is None:
            return Stored(state or states.PENDING, where, is_final=is_final)
        ended_state, make = ended_by_broker
        if state not in states.READY_STATES:
            state = ended_state
        return Stored(state, where, make(detail), is_final=is_final)
    if checksum.is_damaged(result):
        damage = BackendStoreError("the result was damaged on the way; ask for it again")
        return Stored(state, where, damage, is_final=is_final)
    kept = Result.FromString(result)
    value: Value = None
    is_readable = True
    if kept.body or seal is not None:
        try:
            value = read(kept, accepted, bytes_max, seal)
        except _UNREADABLE as exc:
            value, is_readable = _plain_failure(kept), True
            if value is None:
                value, is_readable = exc, False
    text = kept.traceback
    if kept.state in states.EXCEPTION_STATES and isinstance(value, dict):
        text = value.get("exc_traceback") or text
    # A retry may have had no exception as its reason.
    is_without_reason = value is None and kept.state == states.RETRY
    if (
        kept.state in states.EXCEPTION_STATES
        and not isinstance(value, BaseException)
        and not is_without_reason
    ):
        value = decode_exception(value, text, may_import=PICKLE in accepted)
    if end_reason == END_DEPENDENCY:
        return _of_dependency(state, where, value, detail, text, is_final=is_final)
    return Stored(
        state=kept.state,
        stage=where,
        result=value,
        traceback=text or None,
        is_final=is_final,
        is_kept=True,
        is_readable=is_readable,
        name=kept.task or None,
        worker=kept.worker or None,
        queue=kept.queue or None,
        retries=kept.retries,
        done_ms=kept.done_ms or None,
        runtime_s=kept.runtime_s,
        parent_id=kept.parent_id or None,
        root_id=kept.root_id or None,
        children=list(kept.children),
        call=serialization.json_decode(kept.call) if kept.call else {},
    )


_TOLD_PLAINLY = frozenset(
    [
        "ContentDisallowed",
        "SecurityError",
        "TaskRevokedError",
        "Terminated",
        "TimeLimitExceeded",
        "WorkerLostError",
    ]
)


def _plain_failure(kept: Result) -> BaseException | None:
    """A failure that came neither encrypted nor signed, from a worker that has no keys, as the parent of one that died has none.

    It is believed where it says no more than the broker itself can say: that the task was ended, or could not be read.
    """
    is_plain = kept.content_type == serialization.JSON and not (
        kept.compression or kept.encryption_key_id
    )
    if not is_plain or kept.state != states.FAILURE:
        return None
    try:
        found = serialization.decode(kept.body, serialization.JSON, (serialization.JSON,))
    except SerializationError:
        return None
    if (
        not isinstance(found, dict)
        or found.get("exc_module") != WorkerLostError.__module__
        or str(found.get("exc_type")) not in _TOLD_PLAINLY
    ):
        return None
    return decode_exception(found, kept.traceback)


def _of_dependency(
    state: str, stage: str, found: Value, detail: str, traceback_text: str, *, is_final: bool
) -> Stored:
    """What is known of a task that did not run, because what it waited for failed: `found` is that one's exception."""
    value = found if isinstance(found, BaseException) else None
    if detail or value is None:
        chord_error = ChordError(detail or "what it waited for failed")
        chord_error.__cause__ = value
        value = chord_error
    return Stored(
        state=state if state in states.PROPAGATE_STATES else states.FAILURE,
        stage=stage,
        result=value,
        traceback=traceback_text or None,
        is_final=is_final,
        is_kept=True,
    )


def encode_child(child_id: str, members: Sequence[str] | None = None) -> str:
    """A task's id, or a group's with those of its members, as `Result.children` has it."""
    text = _quoted(child_id)
    return text if members is None else f"{text}:{','.join(map(_quoted, members))}"


def decode_child(text: str) -> tuple[str, list[str] | None]:
    """A task's id, or a group's with those of its members."""
    child_id, colon, members = text.partition(":")
    if not colon:
        return _unquoted(child_id), None
    return _unquoted(child_id), [_unquoted(member) for member in members.split(",") if member]


def _quoted(text: str) -> str:
    # Ids are what callers chose; few have anything to hide in them.
    return text.replace("%", "%25").replace(":", "%3A").replace(",", "%2C")


def _unquoted(text: str) -> str:
    return text.replace("%2C", ",").replace("%3A", ":").replace("%25", "%")


_ENDINGS: dict[int, tuple[str, Callable[[str], BaseException]]] = {
    END_WORKER_LOST: (
        states.FAILURE,
        lambda detail: WorkerLostError(detail or "Worker exited prematurely."),
    ),
    END_EXPIRED: (states.REVOKED, lambda detail: TaskRevokedError(detail or "expired")),
    END_REVOKED: (states.REVOKED, lambda detail: TaskRevokedError(detail or "revoked")),
    END_MAX_DELIVERIES: (
        states.FAILURE,
        lambda detail: WorkerLostError(detail or "Its workers died too often."),
    ),
    END_REJECTED: (states.FAILURE, lambda detail: TaskRevokedError(detail or "rejected")),
    END_DROPPED: (states.REVOKED, lambda detail: TaskRevokedError(detail or "dropped")),
    END_REPLACED: (states.REVOKED, lambda detail: TaskRevokedError(detail or "replaced")),
    END_DEPENDENCY: (
        states.FAILURE,
        lambda detail: ChordError(detail or "what it waited for failed"),
    ),
}


# -- what monitors are shown ---------------------------------------------------------------------

_REPR_CHARS_MAX = 1024


def _shown(value: Value) -> str:
    text = repr_of(value)
    return text if len(text) <= _REPR_CHARS_MAX else f"{text[: _REPR_CHARS_MAX - 3]}..."


def _arguments(message: Message, accepted: frozenset[str]) -> tuple[Value, Value]:
    """Args and kwargs as far as they may be read: a body that may not is told of in their place."""
    try:
        args, kwargs, _ = decode_body(message, accepted)
    except (*_UNREADABLE, InvalidTaskError):
        how = "encrypted " if message.encryption_key_id else ""
        return [f"<{len(message.body)} {how}bytes of {message.content_type}>"], {}
    return args, kwargs


def task_info(
    raw: bytes,
    accepted: frozenset[str],
    *,
    hostname: str,
    redelivered: bool,
    time_start: float | None = None,
    acknowledged: bool = False,
    worker_pid: int | None = None,
    safe: bool = False,
) -> dict[str, Value]:
    """A serialized message in the shape of Celery's `Request.info()`. With `safe`, args and kwargs are text."""
    message = Message.FromString(raw)
    args, kwargs = _arguments(message, accepted)
    if safe:
        args, kwargs = _shown(tuple(args)), _shown(kwargs)
    return {
        "id": message.id,
        "name": message.task,
        "args": args,
        "kwargs": kwargs,
        "type": message.task,
        "hostname": hostname,
        "time_start": time_start,
        "acknowledged": acknowledged,
        "delivery_info": {
            "exchange": "",
            "routing_key": message.queue,
            "priority": message.priority,
            "redelivered": redelivered,
        },
        "worker_pid": worker_pid,
    }


def call_fields(raw: bytes, accepted: frozenset[str]) -> dict[str, Value]:
    """What an event tells of a call: arguments as text, and when it is due."""
    message = Message.FromString(raw)
    args, kwargs = _arguments(message, accepted)
    return {
        "uuid": message.id,
        "name": message.task,
        "args": message.argsrepr or _shown(tuple(args)),
        "kwargs": message.kwargsrepr or _shown(kwargs),
        "root_id": message.root_id or message.id,
        "parent_id": message.parent_id or None,
        "retries": message.retries,
        "eta": iso(message.eta_ms),
        "expires": iso(message.expires_ms),
    }


def sent_fields(raw: bytes, accepted: frozenset[str]) -> dict[str, Value]:
    """The same of a call that was just sent, and where it went."""
    queue = Message.FromString(raw).queue
    where = {"queue": queue, "exchange": "", "routing_key": queue}
    return call_fields(raw, accepted) | where


def iso(unix_ms: int) -> str | None:
    """A time as ISO 8601, or None for none."""
    if not unix_ms:
        return None
    return dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC).isoformat()


def end_fields(result: bytes, accepted: frozenset[str]) -> dict[str, Value]:
    """What an event tells of an end: `result` as text, or `exception` and `traceback`. Nothing is known where nothing is kept."""
    if not result:
        return {"result": _shown(None), "exception": None, "traceback": None}
    kept = Result.FromString(result)
    value: Value = None
    if kept.body and kept.body != b"null":
        try:
            value = read(kept, accepted)
        except _UNREADABLE as exc:
            value = exc
    if kept.state in states.EXCEPTION_STATES and isinstance(value, dict):
        value = decode_exception(value)
    return {
        "result": _shown(value),
        "exception": _shown(value),
        "traceback": kept.traceback or None,
    }
