from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AckPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACK_POLICY_EARLY: _ClassVar[AckPolicy]
    ACK_POLICY_LATE: _ClassVar[AckPolicy]

class UniqueScope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNIQUE_SCOPE_FINISH: _ClassVar[UniqueScope]
    UNIQUE_SCOPE_START: _ClassVar[UniqueScope]
    UNIQUE_SCOPE_TIME: _ClassVar[UniqueScope]

class UniquePolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNIQUE_POLICY_REJECT: _ClassVar[UniquePolicy]
    UNIQUE_POLICY_RETURN_EXISTING: _ClassVar[UniquePolicy]
    UNIQUE_POLICY_REPLACE: _ClassVar[UniquePolicy]
ACK_POLICY_EARLY: AckPolicy
ACK_POLICY_LATE: AckPolicy
UNIQUE_SCOPE_FINISH: UniqueScope
UNIQUE_SCOPE_START: UniqueScope
UNIQUE_SCOPE_TIME: UniqueScope
UNIQUE_POLICY_REJECT: UniquePolicy
UNIQUE_POLICY_RETURN_EXISTING: UniquePolicy
UNIQUE_POLICY_REPLACE: UniquePolicy

class Unique(_message.Message):
    __slots__ = ("key", "scope", "ttl_ms", "policy")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    key: str
    scope: UniqueScope
    ttl_ms: int
    policy: UniquePolicy
    def __init__(self, key: _Optional[str] = ..., scope: _Optional[_Union[UniqueScope, str]] = ..., ttl_ms: _Optional[int] = ..., policy: _Optional[_Union[UniquePolicy, str]] = ...) -> None: ...

class Limit(_message.Message):
    __slots__ = ("key", "rate", "per_ms", "concurrency")
    KEY_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    PER_MS_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    key: str
    rate: float
    per_ms: int
    concurrency: int
    def __init__(self, key: _Optional[str] = ..., rate: _Optional[float] = ..., per_ms: _Optional[int] = ..., concurrency: _Optional[int] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("id", "task", "queue", "priority", "eta_ms", "expires_ms", "ack_policy", "ignore_result", "store_errors_even_if_ignored", "result_ttl_ms", "max_deliveries", "retries", "root_id", "parent_id", "content_type", "content_encoding", "compression", "body", "origin", "shadow", "argsrepr", "kwargsrepr", "headers", "time_limit", "soft_time_limit", "reply_to", "correlation_id", "track_started", "requeue_on_timeout", "reject_on_failure", "unique", "limits", "fairness_key", "fairness_weight", "labels", "stamped_headers", "stamps", "join_id", "join_index", "waits_for", "takes_input", "fails_as_chord", "delay_ms", "lifetime_ms", "inputs", "input_is_list", "errbacks", "failure", "group_id", "group_index", "followers", "workflow", "exchange", "routing_key", "encryption_key_id", "properties", "task_limits", "checksum")
    ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    ETA_MS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    ACK_POLICY_FIELD_NUMBER: _ClassVar[int]
    IGNORE_RESULT_FIELD_NUMBER: _ClassVar[int]
    STORE_ERRORS_EVEN_IF_IGNORED_FIELD_NUMBER: _ClassVar[int]
    RESULT_TTL_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    ROOT_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_ID_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_ENCODING_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    ARGSREPR_FIELD_NUMBER: _ClassVar[int]
    KWARGSREPR_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    TIME_LIMIT_FIELD_NUMBER: _ClassVar[int]
    SOFT_TIME_LIMIT_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    TRACK_STARTED_FIELD_NUMBER: _ClassVar[int]
    REQUEUE_ON_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    REJECT_ON_FAILURE_FIELD_NUMBER: _ClassVar[int]
    UNIQUE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    FAIRNESS_KEY_FIELD_NUMBER: _ClassVar[int]
    FAIRNESS_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    STAMPED_HEADERS_FIELD_NUMBER: _ClassVar[int]
    STAMPS_FIELD_NUMBER: _ClassVar[int]
    JOIN_ID_FIELD_NUMBER: _ClassVar[int]
    JOIN_INDEX_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    TAKES_INPUT_FIELD_NUMBER: _ClassVar[int]
    FAILS_AS_CHORD_FIELD_NUMBER: _ClassVar[int]
    DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_MS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_IS_LIST_FIELD_NUMBER: _ClassVar[int]
    ERRBACKS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_INDEX_FIELD_NUMBER: _ClassVar[int]
    FOLLOWERS_FIELD_NUMBER: _ClassVar[int]
    WORKFLOW_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    ROUTING_KEY_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    TASK_LIMITS_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    id: str
    task: str
    queue: str
    priority: int
    eta_ms: int
    expires_ms: int
    ack_policy: AckPolicy
    ignore_result: bool
    store_errors_even_if_ignored: bool
    result_ttl_ms: int
    max_deliveries: int
    retries: int
    root_id: str
    parent_id: str
    content_type: str
    content_encoding: str
    compression: str
    body: bytes
    origin: str
    shadow: str
    argsrepr: str
    kwargsrepr: str
    headers: str
    time_limit: float
    soft_time_limit: float
    reply_to: str
    correlation_id: str
    track_started: bool
    requeue_on_timeout: bool
    reject_on_failure: bool
    unique: Unique
    limits: _containers.RepeatedCompositeFieldContainer[Limit]
    fairness_key: str
    fairness_weight: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    stamped_headers: _containers.RepeatedScalarFieldContainer[str]
    stamps: bytes
    join_id: str
    join_index: int
    waits_for: str
    takes_input: bool
    fails_as_chord: bool
    delay_ms: int
    lifetime_ms: int
    inputs: _containers.RepeatedCompositeFieldContainer[Input]
    input_is_list: bool
    errbacks: _containers.RepeatedScalarFieldContainer[bytes]
    failure: Failure
    group_id: str
    group_index: int
    followers: _containers.RepeatedScalarFieldContainer[str]
    workflow: Workflow
    exchange: str
    routing_key: str
    encryption_key_id: str
    properties: str
    task_limits: TaskLimits
    checksum: int
    def __init__(self, id: _Optional[str] = ..., task: _Optional[str] = ..., queue: _Optional[str] = ..., priority: _Optional[int] = ..., eta_ms: _Optional[int] = ..., expires_ms: _Optional[int] = ..., ack_policy: _Optional[_Union[AckPolicy, str]] = ..., ignore_result: _Optional[bool] = ..., store_errors_even_if_ignored: _Optional[bool] = ..., result_ttl_ms: _Optional[int] = ..., max_deliveries: _Optional[int] = ..., retries: _Optional[int] = ..., root_id: _Optional[str] = ..., parent_id: _Optional[str] = ..., content_type: _Optional[str] = ..., content_encoding: _Optional[str] = ..., compression: _Optional[str] = ..., body: _Optional[bytes] = ..., origin: _Optional[str] = ..., shadow: _Optional[str] = ..., argsrepr: _Optional[str] = ..., kwargsrepr: _Optional[str] = ..., headers: _Optional[str] = ..., time_limit: _Optional[float] = ..., soft_time_limit: _Optional[float] = ..., reply_to: _Optional[str] = ..., correlation_id: _Optional[str] = ..., track_started: _Optional[bool] = ..., requeue_on_timeout: _Optional[bool] = ..., reject_on_failure: _Optional[bool] = ..., unique: _Optional[_Union[Unique, _Mapping]] = ..., limits: _Optional[_Iterable[_Union[Limit, _Mapping]]] = ..., fairness_key: _Optional[str] = ..., fairness_weight: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., stamped_headers: _Optional[_Iterable[str]] = ..., stamps: _Optional[bytes] = ..., join_id: _Optional[str] = ..., join_index: _Optional[int] = ..., waits_for: _Optional[str] = ..., takes_input: _Optional[bool] = ..., fails_as_chord: _Optional[bool] = ..., delay_ms: _Optional[int] = ..., lifetime_ms: _Optional[int] = ..., inputs: _Optional[_Iterable[_Union[Input, _Mapping]]] = ..., input_is_list: _Optional[bool] = ..., errbacks: _Optional[_Iterable[bytes]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., group_id: _Optional[str] = ..., group_index: _Optional[int] = ..., followers: _Optional[_Iterable[str]] = ..., workflow: _Optional[_Union[Workflow, _Mapping]] = ..., exchange: _Optional[str] = ..., routing_key: _Optional[str] = ..., encryption_key_id: _Optional[str] = ..., properties: _Optional[str] = ..., task_limits: _Optional[_Union[TaskLimits, _Mapping]] = ..., checksum: _Optional[int] = ...) -> None: ...

class TaskLimits(_message.Message):
    __slots__ = ("soft", "hard")
    SOFT_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    soft: float
    hard: float
    def __init__(self, soft: _Optional[float] = ..., hard: _Optional[float] = ...) -> None: ...

class Input(_message.Message):
    __slots__ = ("result", "is_list", "items")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    IS_LIST_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    result: bytes
    is_list: bool
    items: _containers.RepeatedCompositeFieldContainer[Input]
    def __init__(self, result: _Optional[bytes] = ..., is_list: _Optional[bool] = ..., items: _Optional[_Iterable[_Union[Input, _Mapping]]] = ...) -> None: ...

class Workflow(_message.Message):
    __slots__ = ("messages", "joins")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    JOINS_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedScalarFieldContainer[bytes]
    joins: _containers.RepeatedCompositeFieldContainer[Join]
    def __init__(self, messages: _Optional[_Iterable[bytes]] = ..., joins: _Optional[_Iterable[_Union[Join, _Mapping]]] = ...) -> None: ...

class Join(_message.Message):
    __slots__ = ("id", "size", "is_list", "join_id", "join_index", "entry_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    IS_LIST_FIELD_NUMBER: _ClassVar[int]
    JOIN_ID_FIELD_NUMBER: _ClassVar[int]
    JOIN_INDEX_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    size: int
    is_list: bool
    join_id: str
    join_index: int
    entry_id: str
    def __init__(self, id: _Optional[str] = ..., size: _Optional[int] = ..., is_list: _Optional[bool] = ..., join_id: _Optional[str] = ..., join_index: _Optional[int] = ..., entry_id: _Optional[str] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("id", "message", "state", "result", "end_reason", "detail")
    ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    END_REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    id: str
    message: bytes
    state: str
    result: bytes
    end_reason: int
    detail: str
    def __init__(self, id: _Optional[str] = ..., message: _Optional[bytes] = ..., state: _Optional[str] = ..., result: _Optional[bytes] = ..., end_reason: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("state", "content_type", "content_encoding", "compression", "body", "traceback", "done_ms", "worker", "runtime_s", "retries", "task", "queue", "parent_id", "root_id", "children", "encryption_key_id", "call", "checksum")
    STATE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_ENCODING_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    DONE_MS_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_S_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    PARENT_ID_FIELD_NUMBER: _ClassVar[int]
    ROOT_ID_FIELD_NUMBER: _ClassVar[int]
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    state: str
    content_type: str
    content_encoding: str
    compression: str
    body: bytes
    traceback: str
    done_ms: int
    worker: str
    runtime_s: float
    retries: int
    task: str
    queue: str
    parent_id: str
    root_id: str
    children: _containers.RepeatedScalarFieldContainer[str]
    encryption_key_id: str
    call: bytes
    checksum: int
    def __init__(self, state: _Optional[str] = ..., content_type: _Optional[str] = ..., content_encoding: _Optional[str] = ..., compression: _Optional[str] = ..., body: _Optional[bytes] = ..., traceback: _Optional[str] = ..., done_ms: _Optional[int] = ..., worker: _Optional[str] = ..., runtime_s: _Optional[float] = ..., retries: _Optional[int] = ..., task: _Optional[str] = ..., queue: _Optional[str] = ..., parent_id: _Optional[str] = ..., root_id: _Optional[str] = ..., children: _Optional[_Iterable[str]] = ..., encryption_key_id: _Optional[str] = ..., call: _Optional[bytes] = ..., checksum: _Optional[int] = ...) -> None: ...
