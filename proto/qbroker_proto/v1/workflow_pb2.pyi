from qbroker_proto.v1 import admin_pb2 as _admin_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkflowInfo(_message.Message):
    __slots__ = ("id", "task", "root_id", "published_ms", "changed_ms", "message_count", "ended_count", "failed_count")
    ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ROOT_ID_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_MS_FIELD_NUMBER: _ClassVar[int]
    CHANGED_MS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    ENDED_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILED_COUNT_FIELD_NUMBER: _ClassVar[int]
    id: str
    task: str
    root_id: str
    published_ms: int
    changed_ms: int
    message_count: int
    ended_count: int
    failed_count: int
    def __init__(self, id: _Optional[str] = ..., task: _Optional[str] = ..., root_id: _Optional[str] = ..., published_ms: _Optional[int] = ..., changed_ms: _Optional[int] = ..., message_count: _Optional[int] = ..., ended_count: _Optional[int] = ..., failed_count: _Optional[int] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("limit", "after")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    limit: int
    after: str
    def __init__(self, limit: _Optional[int] = ..., after: _Optional[str] = ...) -> None: ...

class ListReply(_message.Message):
    __slots__ = ("workflows", "next")
    WORKFLOWS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    workflows: _containers.RepeatedCompositeFieldContainer[WorkflowInfo]
    next: str
    def __init__(self, workflows: _Optional[_Iterable[_Union[WorkflowInfo, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class ShowRequest(_message.Message):
    __slots__ = ("id", "after")
    ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    id: str
    after: str
    def __init__(self, id: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class ShowReply(_message.Message):
    __slots__ = ("workflow", "tasks", "next")
    WORKFLOW_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    workflow: WorkflowInfo
    tasks: _containers.RepeatedCompositeFieldContainer[_admin_pb2.TaskInfo]
    next: str
    def __init__(self, workflow: _Optional[_Union[WorkflowInfo, _Mapping]] = ..., tasks: _Optional[_Iterable[_Union[_admin_pb2.TaskInfo, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("id", "terminate", "signal", "why")
    ID_FIELD_NUMBER: _ClassVar[int]
    TERMINATE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    id: str
    terminate: bool
    signal: str
    why: str
    def __init__(self, id: _Optional[str] = ..., terminate: _Optional[bool] = ..., signal: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class RetryRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class RetryReply(_message.Message):
    __slots__ = ("retried_count", "waiting_count")
    RETRIED_COUNT_FIELD_NUMBER: _ClassVar[int]
    WAITING_COUNT_FIELD_NUMBER: _ClassVar[int]
    retried_count: int
    waiting_count: int
    def __init__(self, retried_count: _Optional[int] = ..., waiting_count: _Optional[int] = ...) -> None: ...
