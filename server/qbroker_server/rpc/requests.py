"""A request that cannot be read is the client's fault, and the client is told so.

gRPC decodes what a unary call asks before it calls the servicer, and a failure there it calls unknown, with a
traceback in the broker's log. So decoding waits until somebody can answer. (A stream's requests are
decoded while its servicer reads them, and each servicer sees to that itself.)
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn, Protocol

import grpc
from google.protobuf.message import DecodeError

from qbroker_server.rpc import convert, status

_OURS = "/qbroker.v1."


class _Context(Protocol):
    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn: ...


class Reading(grpc.aio.ServerInterceptor):
    """Decodes the request of each of our unary calls where it can be answered."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 — the stubs know one kind of handler, or none, where gRPC has four
        handler = await continuation(handler_call_details)
        # There is none for a method that nobody serves.
        if (
            handler is None
            or handler.request_streaming
            or not handler_call_details.method.startswith(_OURS)
        ):
            return handler
        decode, write = handler.request_deserializer, handler.response_serializer
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _streaming(decode, handler.unary_stream), response_serializer=write
            )
        return grpc.unary_unary_rpc_method_handler(
            _answering(decode, handler.unary_unary), response_serializer=write
        )


async def _read(decode: Callable[[bytes], Any], raw: bytes, context: _Context) -> Any:  # noqa: ANN401 — any request
    try:
        return decode(raw)
    except DecodeError as error:
        fault = convert.unreadable(error)
        return await context.abort(status.status_of(fault), status.details_of(fault))


def _answering(decode: Callable[[bytes], Any], behaviour: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(raw: bytes, context: _Context) -> object:
        return await behaviour(await _read(decode, raw, context), context)

    return answer


def _streaming(decode: Callable[[bytes], Any], behaviour: Callable[..., Any]) -> Callable[..., Any]:
    async def stream(raw: bytes, context: _Context) -> AsyncIterator[object]:
        async with aclosing(behaviour(await _read(decode, raw, context), context)) as replies:
            async for reply in replies:
                yield reply

    return stream
