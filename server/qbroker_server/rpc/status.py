"""Which gRPC status, and which code of a refused message, each core error becomes."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Final, NoReturn, Protocol, TypeVar

import grpc

from qbroker_proto.v1 import producer_pb2
from qbroker_server.broker import InternalError
from qbroker_server.core import errors

STATUS: Final[dict[type[errors.CoreError], grpc.StatusCode]] = {
    errors.Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidName: grpc.StatusCode.INVALID_ARGUMENT,
    errors.HeadersTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    # Retriable: the stream is opened again, and what was not confirmed is sent again.
    errors.Damaged: grpc.StatusCode.UNAVAILABLE,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Unroutable: grpc.StatusCode.NOT_FOUND,
    errors.Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    errors.KeyTaken: grpc.StatusCode.ALREADY_EXISTS,
    errors.NameTaken: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ResourceFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.SessionLost: grpc.StatusCode.ABORTED,
    errors.StoreFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StoreLost: grpc.StatusCode.UNAVAILABLE,
    errors.StoreDamaged: grpc.StatusCode.DATA_LOSS,
    errors.NewerVersion: grpc.StatusCode.DATA_LOSS,
    errors.CorruptRecord: grpc.StatusCode.DATA_LOSS,
    InternalError: grpc.StatusCode.INTERNAL,
}

REFUSAL: Final[dict[type[errors.CoreError], producer_pb2.RefusalCode]] = {
    errors.Invalid: producer_pb2.REFUSAL_CODE_INVALID,
    errors.InvalidName: producer_pb2.REFUSAL_CODE_INVALID_NAME,
    errors.Damaged: producer_pb2.REFUSAL_CODE_DAMAGED,
    errors.HeadersTooLarge: producer_pb2.REFUSAL_CODE_HEADERS_TOO_LARGE,
    errors.KeyTaken: producer_pb2.REFUSAL_CODE_ALREADY_EXISTS,
    errors.ResourceFull: producer_pb2.REFUSAL_CODE_RESOURCE_EXHAUSTED,
    errors.Unroutable: producer_pb2.REFUSAL_CODE_UNROUTABLE,
}


def status_of(error: errors.CoreError) -> grpc.StatusCode:
    """The status of a call that ended with `error`."""
    return STATUS[type(error)]


DETAILS_BYTES_MAX = 2_000
"""Of a sentence that travels in a call's trailers: gRPC takes three bytes for each that is not ASCII, and cuts a call off past 8 KiB."""


def details_of(error: errors.CoreError) -> str:
    """What a client is told of `error`; a long name that he sent himself is not repeated whole."""
    raw = str(error).encode(errors="replace")
    if len(raw) <= DETAILS_BYTES_MAX:
        return raw.decode()
    half = DETAILS_BYTES_MAX // 2
    return f"{raw[:half].decode(errors='ignore')} … {raw[-half:].decode(errors='ignore')}"


def refusal_of(index: int, error: errors.CoreError) -> producer_pb2.Refusal:
    """Why the message at `index` of a batch was not stored."""
    return producer_pb2.Refusal(
        index=index,
        code=REFUSAL[type(error)],
        reason=details_of(error),
        retry_after_ms=_retry_after_ms(error),
    )


def _retry_after_ms(error: errors.CoreError) -> int:
    """When what was refused is worth trying again; 0: never."""
    match error:
        case errors.ResourceFull():
            return error.retry_after_ms
        case errors.Damaged():
            return 1
        case _:
            return 0


S = TypeVar("S")
Q = TypeVar("Q")
A = TypeVar("A")


class _Context(Protocol):
    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn: ...


def refusing(
    method: Callable[[S, Q], Awaitable[A]],
) -> Callable[[S, Q, _Context], Awaitable[A]]:
    """Have the core's refusals end the call with their status."""

    @wraps(method)
    async def call(self: S, request: Q, context: _Context) -> A:
        try:
            return await method(self, request)
        except errors.CoreError as error:
            return await context.abort(status_of(error), details_of(error))

    return call
