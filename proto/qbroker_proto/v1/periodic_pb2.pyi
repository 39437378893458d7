from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Schedule(_message.Message):
    __slots__ = ("name", "timing", "message", "overlap", "catch_up", "catch_up_max", "late_ms_max", "jitter_ms", "delay_ms", "lifetime_ms", "start_ms", "end_ms", "runs_max")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_FIELD_NUMBER: _ClassVar[int]
    CATCH_UP_FIELD_NUMBER: _ClassVar[int]
    CATCH_UP_MAX_FIELD_NUMBER: _ClassVar[int]
    LATE_MS_MAX_FIELD_NUMBER: _ClassVar[int]
    JITTER_MS_FIELD_NUMBER: _ClassVar[int]
    DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_MS_FIELD_NUMBER: _ClassVar[int]
    START_MS_FIELD_NUMBER: _ClassVar[int]
    END_MS_FIELD_NUMBER: _ClassVar[int]
    RUNS_MAX_FIELD_NUMBER: _ClassVar[int]
    name: str
    timing: str
    message: bytes
    overlap: str
    catch_up: str
    catch_up_max: int
    late_ms_max: int
    jitter_ms: int
    delay_ms: int
    lifetime_ms: int
    start_ms: int
    end_ms: int
    runs_max: int
    def __init__(self, name: _Optional[str] = ..., timing: _Optional[str] = ..., message: _Optional[bytes] = ..., overlap: _Optional[str] = ..., catch_up: _Optional[str] = ..., catch_up_max: _Optional[int] = ..., late_ms_max: _Optional[int] = ..., jitter_ms: _Optional[int] = ..., delay_ms: _Optional[int] = ..., lifetime_ms: _Optional[int] = ..., start_ms: _Optional[int] = ..., end_ms: _Optional[int] = ..., runs_max: _Optional[int] = ...) -> None: ...

class ScheduleInfo(_message.Message):
    __slots__ = ("schedule", "task", "queue", "argsrepr", "kwargsrepr", "next_ms", "last_ms", "last_id", "run_count", "skipped_count", "note", "paused_ms", "paused_by", "paused_why", "owner", "changed_ms", "dropped_count")
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    ARGSREPR_FIELD_NUMBER: _ClassVar[int]
    KWARGSREPR_FIELD_NUMBER: _ClassVar[int]
    NEXT_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_COUNT_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    PAUSED_MS_FIELD_NUMBER: _ClassVar[int]
    PAUSED_BY_FIELD_NUMBER: _ClassVar[int]
    PAUSED_WHY_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    CHANGED_MS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    schedule: Schedule
    task: str
    queue: str
    argsrepr: str
    kwargsrepr: str
    next_ms: int
    last_ms: int
    last_id: str
    run_count: int
    skipped_count: int
    note: str
    paused_ms: int
    paused_by: str
    paused_why: str
    owner: str
    changed_ms: int
    dropped_count: int
    def __init__(self, schedule: _Optional[_Union[Schedule, _Mapping]] = ..., task: _Optional[str] = ..., queue: _Optional[str] = ..., argsrepr: _Optional[str] = ..., kwargsrepr: _Optional[str] = ..., next_ms: _Optional[int] = ..., last_ms: _Optional[int] = ..., last_id: _Optional[str] = ..., run_count: _Optional[int] = ..., skipped_count: _Optional[int] = ..., note: _Optional[str] = ..., paused_ms: _Optional[int] = ..., paused_by: _Optional[str] = ..., paused_why: _Optional[str] = ..., owner: _Optional[str] = ..., changed_ms: _Optional[int] = ..., dropped_count: _Optional[int] = ...) -> None: ...

class ListSchedulesRequest(_message.Message):
    __slots__ = ("name", "after", "limit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    after: str
    limit: int
    def __init__(self, name: _Optional[str] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListSchedulesReply(_message.Message):
    __slots__ = ("schedules", "next")
    SCHEDULES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    schedules: _containers.RepeatedCompositeFieldContainer[ScheduleInfo]
    next: str
    def __init__(self, schedules: _Optional[_Iterable[_Union[ScheduleInfo, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class PutScheduleRequest(_message.Message):
    __slots__ = ("schedule", "is_new", "with_waiting")
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    IS_NEW_FIELD_NUMBER: _ClassVar[int]
    WITH_WAITING_FIELD_NUMBER: _ClassVar[int]
    schedule: Schedule
    is_new: bool
    with_waiting: bool
    def __init__(self, schedule: _Optional[_Union[Schedule, _Mapping]] = ..., is_new: _Optional[bool] = ..., with_waiting: _Optional[bool] = ...) -> None: ...

class DeclareSchedulesRequest(_message.Message):
    __slots__ = ("owner", "schedules", "dry_run", "with_waiting")
    OWNER_FIELD_NUMBER: _ClassVar[int]
    SCHEDULES_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    WITH_WAITING_FIELD_NUMBER: _ClassVar[int]
    owner: str
    schedules: _containers.RepeatedCompositeFieldContainer[Schedule]
    dry_run: bool
    with_waiting: bool
    def __init__(self, owner: _Optional[str] = ..., schedules: _Optional[_Iterable[_Union[Schedule, _Mapping]]] = ..., dry_run: _Optional[bool] = ..., with_waiting: _Optional[bool] = ...) -> None: ...

class DeclareSchedulesReply(_message.Message):
    __slots__ = ("added", "changed", "removed", "unchanged", "taken", "dropped_count")
    ADDED_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    added: _containers.RepeatedScalarFieldContainer[str]
    changed: _containers.RepeatedScalarFieldContainer[str]
    removed: _containers.RepeatedScalarFieldContainer[str]
    unchanged: _containers.RepeatedScalarFieldContainer[str]
    taken: _containers.RepeatedCompositeFieldContainer[TakenSchedule]
    dropped_count: int
    def __init__(self, added: _Optional[_Iterable[str]] = ..., changed: _Optional[_Iterable[str]] = ..., removed: _Optional[_Iterable[str]] = ..., unchanged: _Optional[_Iterable[str]] = ..., taken: _Optional[_Iterable[_Union[TakenSchedule, _Mapping]]] = ..., dropped_count: _Optional[int] = ...) -> None: ...

class TakenSchedule(_message.Message):
    __slots__ = ("name", "owner")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    name: str
    owner: str
    def __init__(self, name: _Optional[str] = ..., owner: _Optional[str] = ...) -> None: ...

class RemoveScheduleRequest(_message.Message):
    __slots__ = ("name", "with_waiting")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WITH_WAITING_FIELD_NUMBER: _ClassVar[int]
    name: str
    with_waiting: bool
    def __init__(self, name: _Optional[str] = ..., with_waiting: _Optional[bool] = ...) -> None: ...

class RemoveScheduleReply(_message.Message):
    __slots__ = ("dropped_count",)
    DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    dropped_count: int
    def __init__(self, dropped_count: _Optional[int] = ...) -> None: ...

class PauseScheduleRequest(_message.Message):
    __slots__ = ("name", "by", "why", "with_waiting")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    WITH_WAITING_FIELD_NUMBER: _ClassVar[int]
    name: str
    by: str
    why: str
    with_waiting: bool
    def __init__(self, name: _Optional[str] = ..., by: _Optional[str] = ..., why: _Optional[str] = ..., with_waiting: _Optional[bool] = ...) -> None: ...

class ResumeScheduleRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RunScheduleRequest(_message.Message):
    __slots__ = ("name", "id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    id: str
    def __init__(self, name: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class RunScheduleReply(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class NextTicksRequest(_message.Message):
    __slots__ = ("name", "timing", "count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    timing: str
    count: int
    def __init__(self, name: _Optional[str] = ..., timing: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class NextTicksReply(_message.Message):
    __slots__ = ("ticks_ms",)
    TICKS_MS_FIELD_NUMBER: _ClassVar[int]
    ticks_ms: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ticks_ms: _Optional[_Iterable[int]] = ...) -> None: ...
