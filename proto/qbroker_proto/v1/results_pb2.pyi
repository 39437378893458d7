from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_UNKNOWN: _ClassVar[Stage]
    STAGE_SCHEDULED: _ClassVar[Stage]
    STAGE_QUEUED: _ClassVar[Stage]
    STAGE_LEASED: _ClassVar[Stage]
    STAGE_STARTED: _ClassVar[Stage]
    STAGE_DONE: _ClassVar[Stage]
    STAGE_DEAD: _ClassVar[Stage]
    STAGE_WAITING: _ClassVar[Stage]

class EndReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    END_REASON_UNSPECIFIED: _ClassVar[EndReason]
    END_REASON_SETTLED: _ClassVar[EndReason]
    END_REASON_WORKER_LOST: _ClassVar[EndReason]
    END_REASON_EXPIRED: _ClassVar[EndReason]
    END_REASON_REVOKED: _ClassVar[EndReason]
    END_REASON_MAX_DELIVERIES: _ClassVar[EndReason]
    END_REASON_REJECTED: _ClassVar[EndReason]
    END_REASON_DROPPED: _ClassVar[EndReason]
    END_REASON_REPLACED: _ClassVar[EndReason]
    END_REASON_DEPENDENCY: _ClassVar[EndReason]
STAGE_UNKNOWN: Stage
STAGE_SCHEDULED: Stage
STAGE_QUEUED: Stage
STAGE_LEASED: Stage
STAGE_STARTED: Stage
STAGE_DONE: Stage
STAGE_DEAD: Stage
STAGE_WAITING: Stage
END_REASON_UNSPECIFIED: EndReason
END_REASON_SETTLED: EndReason
END_REASON_WORKER_LOST: EndReason
END_REASON_EXPIRED: EndReason
END_REASON_REVOKED: EndReason
END_REASON_MAX_DELIVERIES: EndReason
END_REASON_REJECTED: EndReason
END_REASON_DROPPED: EndReason
END_REASON_REPLACED: EndReason
END_REASON_DEPENDENCY: EndReason

class WatchRequest(_message.Message):
    __slots__ = ("watch", "unwatch", "read", "ends")
    WATCH_FIELD_NUMBER: _ClassVar[int]
    UNWATCH_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    ENDS_FIELD_NUMBER: _ClassVar[int]
    watch: _containers.RepeatedScalarFieldContainer[str]
    unwatch: _containers.RepeatedScalarFieldContainer[str]
    read: _containers.RepeatedScalarFieldContainer[str]
    ends: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, watch: _Optional[_Iterable[str]] = ..., unwatch: _Optional[_Iterable[str]] = ..., read: _Optional[_Iterable[str]] = ..., ends: _Optional[_Iterable[str]] = ...) -> None: ...

class WatchReply(_message.Message):
    __slots__ = ("states",)
    STATES_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedCompositeFieldContainer[TaskState]
    def __init__(self, states: _Optional[_Iterable[_Union[TaskState, _Mapping]]] = ...) -> None: ...

class TaskState(_message.Message):
    __slots__ = ("id", "stage", "state", "result", "is_final", "end_reason", "detail", "attempt", "worker")
    ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    IS_FINAL_FIELD_NUMBER: _ClassVar[int]
    END_REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    id: str
    stage: Stage
    state: str
    result: bytes
    is_final: bool
    end_reason: EndReason
    detail: str
    attempt: int
    worker: str
    def __init__(self, id: _Optional[str] = ..., stage: _Optional[_Union[Stage, str]] = ..., state: _Optional[str] = ..., result: _Optional[bytes] = ..., is_final: _Optional[bool] = ..., end_reason: _Optional[_Union[EndReason, str]] = ..., detail: _Optional[str] = ..., attempt: _Optional[int] = ..., worker: _Optional[str] = ...) -> None: ...

class TellRequest(_message.Message):
    __slots__ = ("id", "attempt", "state", "result")
    ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    id: str
    attempt: int
    state: str
    result: bytes
    def __init__(self, id: _Optional[str] = ..., attempt: _Optional[int] = ..., state: _Optional[str] = ..., result: _Optional[bytes] = ...) -> None: ...

class TellReply(_message.Message):
    __slots__ = ("is_told",)
    IS_TOLD_FIELD_NUMBER: _ClassVar[int]
    is_told: bool
    def __init__(self, is_told: _Optional[bool] = ...) -> None: ...

class KeepRequest(_message.Message):
    __slots__ = ("id", "result", "ttl_ms", "state")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    id: str
    result: bytes
    ttl_ms: int
    state: str
    def __init__(self, id: _Optional[str] = ..., result: _Optional[bytes] = ..., ttl_ms: _Optional[int] = ..., state: _Optional[str] = ...) -> None: ...

class KeepReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ForgetRequest(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ForgetReply(_message.Message):
    __slots__ = ("forgotten_count",)
    FORGOTTEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    forgotten_count: int
    def __init__(self, forgotten_count: _Optional[int] = ...) -> None: ...
