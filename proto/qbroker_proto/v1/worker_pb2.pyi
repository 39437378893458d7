from qbroker_proto.v1 import control_pb2 as _control_pb2
from qbroker_proto.v1 import admin_pb2 as _admin_pb2
from qbroker_proto.v1 import message_pb2 as _message_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_SUCCESS: _ClassVar[Outcome]
    OUTCOME_FAILURE: _ClassVar[Outcome]
    OUTCOME_WORKER_LOST: _ClassVar[Outcome]
    OUTCOME_IGNORED: _ClassVar[Outcome]
    OUTCOME_REJECTED: _ClassVar[Outcome]
    OUTCOME_REVOKED: _ClassVar[Outcome]
    OUTCOME_RETRY: _ClassVar[Outcome]
    OUTCOME_TIMEOUT: _ClassVar[Outcome]
    OUTCOME_REPLACED: _ClassVar[Outcome]
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_SUCCESS: Outcome
OUTCOME_FAILURE: Outcome
OUTCOME_WORKER_LOST: Outcome
OUTCOME_IGNORED: Outcome
OUTCOME_REJECTED: Outcome
OUTCOME_REVOKED: Outcome
OUTCOME_RETRY: Outcome
OUTCOME_TIMEOUT: Outcome
OUTCOME_REPLACED: Outcome

class WorkRequest(_message.Message):
    __slots__ = ("seq", "register", "prefetch_count", "starts", "settles", "releases", "drain", "leave", "control_replies", "events", "consume", "unwanted")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    PREFETCH_COUNT_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    SETTLES_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    CONTROL_REPLIES_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    CONSUME_FIELD_NUMBER: _ClassVar[int]
    UNWANTED_FIELD_NUMBER: _ClassVar[int]
    seq: int
    register: Register
    prefetch_count: int
    starts: _containers.RepeatedCompositeFieldContainer[Start]
    settles: _containers.RepeatedCompositeFieldContainer[Settle]
    releases: _containers.RepeatedCompositeFieldContainer[Lease]
    drain: bool
    leave: bool
    control_replies: _containers.RepeatedCompositeFieldContainer[_control_pb2.ControlReply]
    events: _containers.RepeatedCompositeFieldContainer[_control_pb2.Event]
    consume: _control_pb2.Consume
    unwanted: Unwanted
    def __init__(self, seq: _Optional[int] = ..., register: _Optional[_Union[Register, _Mapping]] = ..., prefetch_count: _Optional[int] = ..., starts: _Optional[_Iterable[_Union[Start, _Mapping]]] = ..., settles: _Optional[_Iterable[_Union[Settle, _Mapping]]] = ..., releases: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ..., drain: _Optional[bool] = ..., leave: _Optional[bool] = ..., control_replies: _Optional[_Iterable[_Union[_control_pb2.ControlReply, _Mapping]]] = ..., events: _Optional[_Iterable[_Union[_control_pb2.Event, _Mapping]]] = ..., consume: _Optional[_Union[_control_pb2.Consume, _Mapping]] = ..., unwanted: _Optional[_Union[Unwanted, _Mapping]] = ...) -> None: ...

class Unwanted(_message.Message):
    __slots__ = ("tasks",)
    TASKS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tasks: _Optional[_Iterable[str]] = ...) -> None: ...

class Register(_message.Message):
    __slots__ = ("session_id", "name", "queues", "tasks", "prefetch_count", "version", "hostname", "pid", "pool", "concurrency", "held", "topology")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    PREFETCH_COUNT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    name: str
    queues: _containers.RepeatedScalarFieldContainer[str]
    tasks: _containers.RepeatedScalarFieldContainer[str]
    prefetch_count: int
    version: str
    hostname: str
    pid: int
    pool: str
    concurrency: int
    held: _containers.RepeatedCompositeFieldContainer[Lease]
    topology: _admin_pb2.Topology
    def __init__(self, session_id: _Optional[str] = ..., name: _Optional[str] = ..., queues: _Optional[_Iterable[str]] = ..., tasks: _Optional[_Iterable[str]] = ..., prefetch_count: _Optional[int] = ..., version: _Optional[str] = ..., hostname: _Optional[str] = ..., pid: _Optional[int] = ..., pool: _Optional[str] = ..., concurrency: _Optional[int] = ..., held: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ..., topology: _Optional[_Union[_admin_pb2.Topology, _Mapping]] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("id", "attempt")
    ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    id: str
    attempt: int
    def __init__(self, id: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("id", "attempt", "pid")
    ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    id: str
    attempt: int
    pid: int
    def __init__(self, id: _Optional[str] = ..., attempt: _Optional[int] = ..., pid: _Optional[int] = ...) -> None: ...

class Settle(_message.Message):
    __slots__ = ("id", "attempt", "outcome", "result", "requeue", "follow_ups", "message", "eta_ms", "detail", "added_members")
    ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    REQUEUE_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_UPS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ETA_MS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ADDED_MEMBERS_FIELD_NUMBER: _ClassVar[int]
    id: str
    attempt: int
    outcome: Outcome
    result: bytes
    requeue: bool
    follow_ups: _containers.RepeatedScalarFieldContainer[bytes]
    message: bytes
    eta_ms: int
    detail: str
    added_members: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, id: _Optional[str] = ..., attempt: _Optional[int] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., result: _Optional[bytes] = ..., requeue: _Optional[bool] = ..., follow_ups: _Optional[_Iterable[bytes]] = ..., message: _Optional[bytes] = ..., eta_ms: _Optional[int] = ..., detail: _Optional[str] = ..., added_members: _Optional[_Iterable[bytes]] = ...) -> None: ...

class WorkReply(_message.Message):
    __slots__ = ("registered", "deliveries", "applied_seq", "lost", "goodbye", "cancels", "controls", "events_wanted")
    REGISTERED_FIELD_NUMBER: _ClassVar[int]
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    APPLIED_SEQ_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    CANCELS_FIELD_NUMBER: _ClassVar[int]
    CONTROLS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_WANTED_FIELD_NUMBER: _ClassVar[int]
    registered: Registered
    deliveries: _containers.RepeatedCompositeFieldContainer[Delivery]
    applied_seq: int
    lost: _containers.RepeatedCompositeFieldContainer[Lease]
    goodbye: str
    cancels: _containers.RepeatedCompositeFieldContainer[Cancel]
    controls: _containers.RepeatedCompositeFieldContainer[_control_pb2.ControlRequest]
    events_wanted: bool
    def __init__(self, registered: _Optional[_Union[Registered, _Mapping]] = ..., deliveries: _Optional[_Iterable[_Union[Delivery, _Mapping]]] = ..., applied_seq: _Optional[int] = ..., lost: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ..., goodbye: _Optional[str] = ..., cancels: _Optional[_Iterable[_Union[Cancel, _Mapping]]] = ..., controls: _Optional[_Iterable[_Union[_control_pb2.ControlRequest, _Mapping]]] = ..., events_wanted: _Optional[bool] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("id", "attempt", "terminate", "signal")
    ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TERMINATE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    id: str
    attempt: int
    terminate: bool
    signal: str
    def __init__(self, id: _Optional[str] = ..., attempt: _Optional[int] = ..., terminate: _Optional[bool] = ..., signal: _Optional[str] = ...) -> None: ...

class Registered(_message.Message):
    __slots__ = ("broker_version", "grace_ms", "result_bytes_max")
    BROKER_VERSION_FIELD_NUMBER: _ClassVar[int]
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    RESULT_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    broker_version: str
    grace_ms: int
    result_bytes_max: int
    def __init__(self, broker_version: _Optional[str] = ..., grace_ms: _Optional[int] = ..., result_bytes_max: _Optional[int] = ...) -> None: ...

class Delivery(_message.Message):
    __slots__ = ("id", "attempt", "redelivered", "task", "queue", "ack_policy", "message", "has_more", "checksum")
    ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    REDELIVERED_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    ACK_POLICY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    id: str
    attempt: int
    redelivered: bool
    task: str
    queue: str
    ack_policy: _message_pb2.AckPolicy
    message: bytes
    has_more: bool
    checksum: int
    def __init__(self, id: _Optional[str] = ..., attempt: _Optional[int] = ..., redelivered: _Optional[bool] = ..., task: _Optional[str] = ..., queue: _Optional[str] = ..., ack_policy: _Optional[_Union[_message_pb2.AckPolicy, str]] = ..., message: _Optional[bytes] = ..., has_more: _Optional[bool] = ..., checksum: _Optional[int] = ...) -> None: ...
