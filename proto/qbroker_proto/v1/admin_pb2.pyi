from qbroker_proto.v1 import results_pb2 as _results_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("version", "started_ms", "engine", "queues", "workers", "scheduled_count", "stored_bytes", "dead_count")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    SCHEDULED_COUNT_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEAD_COUNT_FIELD_NUMBER: _ClassVar[int]
    version: str
    started_ms: int
    engine: str
    queues: _containers.RepeatedCompositeFieldContainer[QueueStatus]
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    scheduled_count: int
    stored_bytes: int
    dead_count: int
    def __init__(self, version: _Optional[str] = ..., started_ms: _Optional[int] = ..., engine: _Optional[str] = ..., queues: _Optional[_Iterable[_Union[QueueStatus, _Mapping]]] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., scheduled_count: _Optional[int] = ..., stored_bytes: _Optional[int] = ..., dead_count: _Optional[int] = ...) -> None: ...

class QueueStatus(_message.Message):
    __slots__ = ("name", "ready_count", "leased_count", "consumer_count", "is_paused")
    NAME_FIELD_NUMBER: _ClassVar[int]
    READY_COUNT_FIELD_NUMBER: _ClassVar[int]
    LEASED_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_COUNT_FIELD_NUMBER: _ClassVar[int]
    IS_PAUSED_FIELD_NUMBER: _ClassVar[int]
    name: str
    ready_count: int
    leased_count: int
    consumer_count: int
    is_paused: bool
    def __init__(self, name: _Optional[str] = ..., ready_count: _Optional[int] = ..., leased_count: _Optional[int] = ..., consumer_count: _Optional[int] = ..., is_paused: _Optional[bool] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("name", "session_id", "hostname", "pid", "pool", "concurrency", "prefetch_count", "leased_count", "is_connected", "queues", "version", "is_draining")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    PREFETCH_COUNT_FIELD_NUMBER: _ClassVar[int]
    LEASED_COUNT_FIELD_NUMBER: _ClassVar[int]
    IS_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IS_DRAINING_FIELD_NUMBER: _ClassVar[int]
    name: str
    session_id: str
    hostname: str
    pid: int
    pool: str
    concurrency: int
    prefetch_count: int
    leased_count: int
    is_connected: bool
    queues: _containers.RepeatedScalarFieldContainer[str]
    version: str
    is_draining: bool
    def __init__(self, name: _Optional[str] = ..., session_id: _Optional[str] = ..., hostname: _Optional[str] = ..., pid: _Optional[int] = ..., pool: _Optional[str] = ..., concurrency: _Optional[int] = ..., prefetch_count: _Optional[int] = ..., leased_count: _Optional[int] = ..., is_connected: _Optional[bool] = ..., queues: _Optional[_Iterable[str]] = ..., version: _Optional[str] = ..., is_draining: _Optional[bool] = ...) -> None: ...

class QueueOptions(_message.Message):
    __slots__ = ("length_max", "bytes_max", "overflow", "message_ttl_ms", "max_deliveries", "expires_ms", "ageing_ms")
    LENGTH_MAX_FIELD_NUMBER: _ClassVar[int]
    BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    OVERFLOW_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TTL_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    AGEING_MS_FIELD_NUMBER: _ClassVar[int]
    length_max: int
    bytes_max: int
    overflow: str
    message_ttl_ms: int
    max_deliveries: int
    expires_ms: int
    ageing_ms: int
    def __init__(self, length_max: _Optional[int] = ..., bytes_max: _Optional[int] = ..., overflow: _Optional[str] = ..., message_ttl_ms: _Optional[int] = ..., max_deliveries: _Optional[int] = ..., expires_ms: _Optional[int] = ..., ageing_ms: _Optional[int] = ...) -> None: ...

class QueueInfo(_message.Message):
    __slots__ = ("name", "ready_count", "leased_count", "scheduled_count", "ready_bytes", "consumer_count", "oldest_ms", "in_rate", "out_rate", "options", "paused_ms", "paused_by", "paused_why", "unknown_count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    READY_COUNT_FIELD_NUMBER: _ClassVar[int]
    LEASED_COUNT_FIELD_NUMBER: _ClassVar[int]
    SCHEDULED_COUNT_FIELD_NUMBER: _ClassVar[int]
    READY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_COUNT_FIELD_NUMBER: _ClassVar[int]
    OLDEST_MS_FIELD_NUMBER: _ClassVar[int]
    IN_RATE_FIELD_NUMBER: _ClassVar[int]
    OUT_RATE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    PAUSED_MS_FIELD_NUMBER: _ClassVar[int]
    PAUSED_BY_FIELD_NUMBER: _ClassVar[int]
    PAUSED_WHY_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    ready_count: int
    leased_count: int
    scheduled_count: int
    ready_bytes: int
    consumer_count: int
    oldest_ms: int
    in_rate: float
    out_rate: float
    options: QueueOptions
    paused_ms: int
    paused_by: str
    paused_why: str
    unknown_count: int
    def __init__(self, name: _Optional[str] = ..., ready_count: _Optional[int] = ..., leased_count: _Optional[int] = ..., scheduled_count: _Optional[int] = ..., ready_bytes: _Optional[int] = ..., consumer_count: _Optional[int] = ..., oldest_ms: _Optional[int] = ..., in_rate: _Optional[float] = ..., out_rate: _Optional[float] = ..., options: _Optional[_Union[QueueOptions, _Mapping]] = ..., paused_ms: _Optional[int] = ..., paused_by: _Optional[str] = ..., paused_why: _Optional[str] = ..., unknown_count: _Optional[int] = ...) -> None: ...

class ListQueuesRequest(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: str
    def __init__(self, queue: _Optional[str] = ...) -> None: ...

class ListQueuesReply(_message.Message):
    __slots__ = ("queues",)
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    queues: _containers.RepeatedCompositeFieldContainer[QueueInfo]
    def __init__(self, queues: _Optional[_Iterable[_Union[QueueInfo, _Mapping]]] = ...) -> None: ...

class DeclareQueueRequest(_message.Message):
    __slots__ = ("queue", "options", "is_new")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    IS_NEW_FIELD_NUMBER: _ClassVar[int]
    queue: str
    options: QueueOptions
    is_new: bool
    def __init__(self, queue: _Optional[str] = ..., options: _Optional[_Union[QueueOptions, _Mapping]] = ..., is_new: _Optional[bool] = ...) -> None: ...

class PauseQueueRequest(_message.Message):
    __slots__ = ("queue", "by", "why")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    queue: str
    by: str
    why: str
    def __init__(self, queue: _Optional[str] = ..., by: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class ResumeQueueRequest(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: str
    def __init__(self, queue: _Optional[str] = ...) -> None: ...

class PurgeQueueRequest(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: str
    def __init__(self, queue: _Optional[str] = ...) -> None: ...

class PurgeQueueReply(_message.Message):
    __slots__ = ("purged_count",)
    PURGED_COUNT_FIELD_NUMBER: _ClassVar[int]
    purged_count: int
    def __init__(self, purged_count: _Optional[int] = ...) -> None: ...

class MoveQueueRequest(_message.Message):
    __slots__ = ("source", "target")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    source: str
    target: str
    def __init__(self, source: _Optional[str] = ..., target: _Optional[str] = ...) -> None: ...

class MoveQueueReply(_message.Message):
    __slots__ = ("moved_count",)
    MOVED_COUNT_FIELD_NUMBER: _ClassVar[int]
    moved_count: int
    def __init__(self, moved_count: _Optional[int] = ...) -> None: ...

class RemoveQueueRequest(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: str
    def __init__(self, queue: _Optional[str] = ...) -> None: ...

class RemoveQueueReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TaskInfo(_message.Message):
    __slots__ = ("id", "task", "queue", "stage", "state", "priority", "attempt", "retries", "deaths", "published_ms", "eta_ms", "expires_ms", "changed_ms", "worker", "end_reason", "detail", "labels", "root_id", "unique_key", "message_bytes", "history", "is_waiting_to_retry", "message", "result", "workflow_id", "join_id", "join_index", "waits_for")
    ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    DEATHS_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_MS_FIELD_NUMBER: _ClassVar[int]
    ETA_MS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    CHANGED_MS_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    END_REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ROOT_ID_FIELD_NUMBER: _ClassVar[int]
    UNIQUE_KEY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    IS_WAITING_TO_RETRY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    JOIN_ID_FIELD_NUMBER: _ClassVar[int]
    JOIN_INDEX_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    id: str
    task: str
    queue: str
    stage: _results_pb2.Stage
    state: str
    priority: int
    attempt: int
    retries: int
    deaths: int
    published_ms: int
    eta_ms: int
    expires_ms: int
    changed_ms: int
    worker: str
    end_reason: _results_pb2.EndReason
    detail: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    root_id: str
    unique_key: str
    message_bytes: int
    history: _containers.RepeatedCompositeFieldContainer[Attempt]
    is_waiting_to_retry: bool
    message: bytes
    result: bytes
    workflow_id: str
    join_id: str
    join_index: int
    waits_for: str
    def __init__(self, id: _Optional[str] = ..., task: _Optional[str] = ..., queue: _Optional[str] = ..., stage: _Optional[_Union[_results_pb2.Stage, str]] = ..., state: _Optional[str] = ..., priority: _Optional[int] = ..., attempt: _Optional[int] = ..., retries: _Optional[int] = ..., deaths: _Optional[int] = ..., published_ms: _Optional[int] = ..., eta_ms: _Optional[int] = ..., expires_ms: _Optional[int] = ..., changed_ms: _Optional[int] = ..., worker: _Optional[str] = ..., end_reason: _Optional[_Union[_results_pb2.EndReason, str]] = ..., detail: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., root_id: _Optional[str] = ..., unique_key: _Optional[str] = ..., message_bytes: _Optional[int] = ..., history: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ..., is_waiting_to_retry: _Optional[bool] = ..., message: _Optional[bytes] = ..., result: _Optional[bytes] = ..., workflow_id: _Optional[str] = ..., join_id: _Optional[str] = ..., join_index: _Optional[int] = ..., waits_for: _Optional[str] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("attempt", "how", "at_ms", "worker", "line")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    HOW_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    how: str
    at_ms: int
    worker: str
    line: str
    def __init__(self, attempt: _Optional[int] = ..., how: _Optional[str] = ..., at_ms: _Optional[int] = ..., worker: _Optional[str] = ..., line: _Optional[str] = ...) -> None: ...

class ListTasksRequest(_message.Message):
    __slots__ = ("queue", "task", "stages", "label", "age_ms_min", "age_ms_max", "limit", "after")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_MIN_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_MAX_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    queue: str
    task: str
    stages: _containers.RepeatedScalarFieldContainer[_results_pb2.Stage]
    label: str
    age_ms_min: int
    age_ms_max: int
    limit: int
    after: str
    def __init__(self, queue: _Optional[str] = ..., task: _Optional[str] = ..., stages: _Optional[_Iterable[_Union[_results_pb2.Stage, str]]] = ..., label: _Optional[str] = ..., age_ms_min: _Optional[int] = ..., age_ms_max: _Optional[int] = ..., limit: _Optional[int] = ..., after: _Optional[str] = ...) -> None: ...

class ListTasksReply(_message.Message):
    __slots__ = ("tasks", "next")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[TaskInfo]
    next: str
    def __init__(self, tasks: _Optional[_Iterable[_Union[TaskInfo, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class ShowTaskRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ExplainReply(_message.Message):
    __slots__ = ("stage", "sentence", "lacks_worker")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    LACKS_WORKER_FIELD_NUMBER: _ClassVar[int]
    stage: _results_pb2.Stage
    sentence: str
    lacks_worker: bool
    def __init__(self, stage: _Optional[_Union[_results_pb2.Stage, str]] = ..., sentence: _Optional[str] = ..., lacks_worker: _Optional[bool] = ...) -> None: ...

class RescheduleRequest(_message.Message):
    __slots__ = ("id", "eta_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    ETA_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    eta_ms: int
    def __init__(self, id: _Optional[str] = ..., eta_ms: _Optional[int] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("ids", "labels", "root_id", "terminate", "signal", "why")
    IDS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ROOT_ID_FIELD_NUMBER: _ClassVar[int]
    TERMINATE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.RepeatedScalarFieldContainer[str]
    root_id: str
    terminate: bool
    signal: str
    why: str
    def __init__(self, ids: _Optional[_Iterable[str]] = ..., labels: _Optional[_Iterable[str]] = ..., root_id: _Optional[str] = ..., terminate: _Optional[bool] = ..., signal: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class RevokeReply(_message.Message):
    __slots__ = ("ended", "told", "late")
    ENDED_FIELD_NUMBER: _ClassVar[int]
    TOLD_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    ended: _containers.RepeatedScalarFieldContainer[str]
    told: _containers.RepeatedScalarFieldContainer[str]
    late: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ended: _Optional[_Iterable[str]] = ..., told: _Optional[_Iterable[str]] = ..., late: _Optional[_Iterable[str]] = ...) -> None: ...

class DeadRequest(_message.Message):
    __slots__ = ("ids", "task", "queue", "all", "dry_run")
    IDS_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    task: str
    queue: str
    all: bool
    dry_run: bool
    def __init__(self, ids: _Optional[_Iterable[str]] = ..., task: _Optional[str] = ..., queue: _Optional[str] = ..., all: _Optional[bool] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class DeadReply(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class Exchange(_message.Message):
    __slots__ = ("name", "type", "is_auto_delete", "alternate")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    IS_AUTO_DELETE_FIELD_NUMBER: _ClassVar[int]
    ALTERNATE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    is_auto_delete: bool
    alternate: str
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., is_auto_delete: _Optional[bool] = ..., alternate: _Optional[str] = ...) -> None: ...

class Binding(_message.Message):
    __slots__ = ("exchange", "destination", "routing_key", "is_to_exchange", "arguments")
    EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    ROUTING_KEY_FIELD_NUMBER: _ClassVar[int]
    IS_TO_EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    exchange: str
    destination: str
    routing_key: str
    is_to_exchange: bool
    arguments: str
    def __init__(self, exchange: _Optional[str] = ..., destination: _Optional[str] = ..., routing_key: _Optional[str] = ..., is_to_exchange: _Optional[bool] = ..., arguments: _Optional[str] = ...) -> None: ...

class QueueDeclaration(_message.Message):
    __slots__ = ("name", "options", "is_auto_delete")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    IS_AUTO_DELETE_FIELD_NUMBER: _ClassVar[int]
    name: str
    options: QueueOptions
    is_auto_delete: bool
    def __init__(self, name: _Optional[str] = ..., options: _Optional[_Union[QueueOptions, _Mapping]] = ..., is_auto_delete: _Optional[bool] = ...) -> None: ...

class Topology(_message.Message):
    __slots__ = ("exchanges", "queues", "bindings")
    EXCHANGES_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    BINDINGS_FIELD_NUMBER: _ClassVar[int]
    exchanges: _containers.RepeatedCompositeFieldContainer[Exchange]
    queues: _containers.RepeatedCompositeFieldContainer[QueueDeclaration]
    bindings: _containers.RepeatedCompositeFieldContainer[Binding]
    def __init__(self, exchanges: _Optional[_Iterable[_Union[Exchange, _Mapping]]] = ..., queues: _Optional[_Iterable[_Union[QueueDeclaration, _Mapping]]] = ..., bindings: _Optional[_Iterable[_Union[Binding, _Mapping]]] = ...) -> None: ...

class DeclareReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListTopologyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RemoveExchangeRequest(_message.Message):
    __slots__ = ("exchange",)
    EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    exchange: str
    def __init__(self, exchange: _Optional[str] = ...) -> None: ...

class RemoveExchangeReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RemoveBindingReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TestRouteRequest(_message.Message):
    __slots__ = ("exchange", "routing_key", "headers")
    EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    ROUTING_KEY_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    exchange: str
    routing_key: str
    headers: str
    def __init__(self, exchange: _Optional[str] = ..., routing_key: _Optional[str] = ..., headers: _Optional[str] = ...) -> None: ...

class TestRouteReply(_message.Message):
    __slots__ = ("queues",)
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    queues: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, queues: _Optional[_Iterable[str]] = ...) -> None: ...
