from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BroadcastRequest(_message.Message):
    __slots__ = ("command", "arguments", "words", "destination", "pattern", "matcher", "timeout_ms", "limit", "is_silent")
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    MATCHER_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    IS_SILENT_FIELD_NUMBER: _ClassVar[int]
    command: str
    arguments: bytes
    words: _containers.RepeatedScalarFieldContainer[str]
    destination: _containers.RepeatedScalarFieldContainer[str]
    pattern: str
    matcher: str
    timeout_ms: int
    limit: int
    is_silent: bool
    def __init__(self, command: _Optional[str] = ..., arguments: _Optional[bytes] = ..., words: _Optional[_Iterable[str]] = ..., destination: _Optional[_Iterable[str]] = ..., pattern: _Optional[str] = ..., matcher: _Optional[str] = ..., timeout_ms: _Optional[int] = ..., limit: _Optional[int] = ..., is_silent: _Optional[bool] = ...) -> None: ...

class BroadcastReply(_message.Message):
    __slots__ = ("worker", "body", "is_missing", "messages", "has_messages")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    IS_MISSING_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    HAS_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    worker: str
    body: bytes
    is_missing: bool
    messages: _containers.RepeatedCompositeFieldContainer[HeldMessage]
    has_messages: bool
    def __init__(self, worker: _Optional[str] = ..., body: _Optional[bytes] = ..., is_missing: _Optional[bool] = ..., messages: _Optional[_Iterable[_Union[HeldMessage, _Mapping]]] = ..., has_messages: _Optional[bool] = ...) -> None: ...

class HeldMessage(_message.Message):
    __slots__ = ("message", "is_acknowledged", "is_redelivered", "eta_ms")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    IS_ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    IS_REDELIVERED_FIELD_NUMBER: _ClassVar[int]
    ETA_MS_FIELD_NUMBER: _ClassVar[int]
    message: bytes
    is_acknowledged: bool
    is_redelivered: bool
    eta_ms: int
    def __init__(self, message: _Optional[bytes] = ..., is_acknowledged: _Optional[bool] = ..., is_redelivered: _Optional[bool] = ..., eta_ms: _Optional[int] = ...) -> None: ...

class ControlRequest(_message.Message):
    __slots__ = ("id", "command", "arguments", "words")
    ID_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    id: int
    command: str
    arguments: bytes
    words: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[int] = ..., command: _Optional[str] = ..., arguments: _Optional[bytes] = ..., words: _Optional[_Iterable[str]] = ...) -> None: ...

class ControlReply(_message.Message):
    __slots__ = ("id", "body")
    ID_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    id: int
    body: bytes
    def __init__(self, id: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...

class Consume(_message.Message):
    __slots__ = ("queues", "tasks")
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    queues: _containers.RepeatedScalarFieldContainer[str]
    tasks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, queues: _Optional[_Iterable[str]] = ..., tasks: _Optional[_Iterable[str]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("type", "body", "clock")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    type: str
    body: bytes
    clock: int
    def __init__(self, type: _Optional[str] = ..., body: _Optional[bytes] = ..., clock: _Optional[int] = ...) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("routing_key",)
    ROUTING_KEY_FIELD_NUMBER: _ClassVar[int]
    routing_key: str
    def __init__(self, routing_key: _Optional[str] = ...) -> None: ...

class EventsReply(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class SendEventsRequest(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class SendEventsReply(_message.Message):
    __slots__ = ("is_wanted",)
    IS_WANTED_FIELD_NUMBER: _ClassVar[int]
    is_wanted: bool
    def __init__(self, is_wanted: _Optional[bool] = ...) -> None: ...
