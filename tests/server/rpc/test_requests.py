"""Requests that cannot be read, or repeat too much."""

from typing import TypeAlias

import grpc
import pytest

from qbroker_proto.v1 import admin_pb2
from tests.support.served import WAIT_S, serving

Raw: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
RawStream: TypeAlias = "grpc.aio.UnaryStreamMultiCallable[bytes, bytes]"


@pytest.mark.parametrize("method", ["Admin/ShowTask", "Periodic/NextTicks", "Results/Forget"])
async def test_bytes_that_are_no_request_are_the_clients_fault(method: str) -> None:
    async with serving() as served:
        call: Raw = served.channel.unary_unary(f"/qbroker.v1.{method}")

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\xff\xff", timeout=WAIT_S)

        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "the request cannot be read" in (caught.value.details() or "")


async def test_nor_does_a_call_that_is_answered_in_parts_take_them() -> None:
    async with serving() as served:
        call: RawStream = served.channel.unary_stream("/qbroker.v1.Control/Broadcast")

        assert await call(b"\xff\xff", timeout=WAIT_S).code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_name_of_any_length_gets_its_refusal() -> None:
    async with serving() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.admin.ShowTask(admin_pb2.ShowTaskRequest(id="é" * 100_000), timeout=WAIT_S)

        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        assert (caught.value.details() or "").startswith("there is no message")


async def test_a_method_that_is_not_there_is_told_as_such() -> None:
    async with serving() as served:
        call: Raw = served.channel.unary_unary("/qbroker.v1.Admin/Nonsense")

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=WAIT_S)

        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
