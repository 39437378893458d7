from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RefusalCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFUSAL_CODE_UNSPECIFIED: _ClassVar[RefusalCode]
    REFUSAL_CODE_INVALID: _ClassVar[RefusalCode]
    REFUSAL_CODE_RESOURCE_EXHAUSTED: _ClassVar[RefusalCode]
    REFUSAL_CODE_ALREADY_EXISTS: _ClassVar[RefusalCode]
    REFUSAL_CODE_UNROUTABLE: _ClassVar[RefusalCode]
    REFUSAL_CODE_HEADERS_TOO_LARGE: _ClassVar[RefusalCode]
    REFUSAL_CODE_INVALID_NAME: _ClassVar[RefusalCode]
    REFUSAL_CODE_DAMAGED: _ClassVar[RefusalCode]
REFUSAL_CODE_UNSPECIFIED: RefusalCode
REFUSAL_CODE_INVALID: RefusalCode
REFUSAL_CODE_RESOURCE_EXHAUSTED: RefusalCode
REFUSAL_CODE_ALREADY_EXISTS: RefusalCode
REFUSAL_CODE_UNROUTABLE: RefusalCode
REFUSAL_CODE_HEADERS_TOO_LARGE: RefusalCode
REFUSAL_CODE_INVALID_NAME: RefusalCode
REFUSAL_CODE_DAMAGED: RefusalCode

class PublishRequest(_message.Message):
    __slots__ = ("seq", "messages")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    seq: int
    messages: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, seq: _Optional[int] = ..., messages: _Optional[_Iterable[bytes]] = ...) -> None: ...

class PublishReply(_message.Message):
    __slots__ = ("seq", "refusals", "duplicates", "existing")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    EXISTING_FIELD_NUMBER: _ClassVar[int]
    seq: int
    refusals: _containers.RepeatedCompositeFieldContainer[Refusal]
    duplicates: _containers.RepeatedScalarFieldContainer[int]
    existing: _containers.RepeatedCompositeFieldContainer[Existing]
    def __init__(self, seq: _Optional[int] = ..., refusals: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ..., duplicates: _Optional[_Iterable[int]] = ..., existing: _Optional[_Iterable[_Union[Existing, _Mapping]]] = ...) -> None: ...

class Existing(_message.Message):
    __slots__ = ("index", "id")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    index: int
    id: str
    def __init__(self, index: _Optional[int] = ..., id: _Optional[str] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("index", "code", "reason", "retry_after_ms")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    index: int
    code: RefusalCode
    reason: str
    retry_after_ms: int
    def __init__(self, index: _Optional[int] = ..., code: _Optional[_Union[RefusalCode, str]] = ..., reason: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...
