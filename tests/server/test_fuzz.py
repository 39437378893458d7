"""Any request to any RPC is answered with a status that says whose fault it is, and does not harm the store.

Requests are made from the protocol's own descriptions, so a new field or method is asked with nonsense from its first day on.
A failure tells its seed.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from qbroker_proto.v1 import (
    admin_pb2,
    control_pb2,
    message_pb2,
    periodic_pb2,
    producer_pb2,
    results_pb2,
    worker_pb2,
    workflow_pb2,
)
from qbroker_server.core import check
from tests.support.served import QUEUE, TASK, WAIT_S, Served, serving

SEED = 20
ROUNDS = 15

LISTEN_S = 0.05
"""How long a stream is listened to: it ends only when one of both says so."""

METHODS: list[MethodDescriptor] = [
    method
    for module in (
        admin_pb2,
        control_pb2,
        periodic_pb2,
        producer_pb2,
        results_pb2,
        worker_pb2,
        workflow_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]

OURS = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
"""What would be the broker's fault."""

ABANDONED = "Internal error from Core"
"""What gRPC's client says itself, in place of the broker's answer, when it was still writing when that came."""

IDS = [f"id{number}" for number in range(12)]
TEXTS = (
    *IDS, *IDS, QUEUE, "other", TASK, "", "a.*.#", "k=v", "=", "x\0y", "\u202eabc", "é" * 127, "a" * 256, "z" * 20_000,
    "fanout", "headers", "{}", '{"x-match": "all"}', "[]", "null", "every 1s", "cron * * * * *", "Europe/Zurich", "SIGTERM",
)  # fmt: skip
INTS = (0, 0, 1, 2, 3, 9, 10, 255, 1_000, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, -1, -(2**31), -(2**63))  # fmt: skip
FLOATS = (0.0, 1.5, -1.0, 1e308, float("inf"), float("nan"))
BOUNDS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


class Nonsense:
    """Makes messages of any kind, some of which could be meant."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._depth = 0

    def pick(self, choices: Sequence[Any]) -> Any:  # noqa: ANN401 — one of any
        return self._chance.choice(choices)

    def request(self, kind: type[Message]) -> bytes:
        """Now and then not even a message."""
        if self._chance.random() < 0.03:
            return self._chance.randbytes(20)
        return self.message(kind).SerializeToString()

    def message(self, kind: type[Message]) -> Message:
        made = kind()
        density = self.pick((0.15, 0.4, 0.7, 0.95))
        self._depth += 1
        for field in kind.DESCRIPTOR.fields:
            if self._chance.random() < density:
                self._fill(made, field)
        self._depth -= 1
        if isinstance(made, message_pb2.Message) and self._chance.random() < 0.7:
            made.id, made.task, made.queue = self.pick(IDS), TASK, self.pick((QUEUE, "other"))
            made.priority %= 10
            for name in ("exchange", "headers", "eta_ms", "expires_ms", "failure", "workflow"):
                if self._chance.random() < 0.7:
                    made.ClearField(name)
        if isinstance(made, worker_pb2.Register) and self._chance.random() < 0.8:
            made.session_id, made.name = self.pick(IDS), self.pick(("w1", "w2"))
            made.queues[:], made.tasks[:] = [QUEUE, "other"], [TASK]
            made.ClearField("topology")
        return made

    def _fill(self, made: Message, field: Any) -> None:  # noqa: ANN401 — protobuf has two classes for it
        for _ in range(self.pick((0, 1, 1, 2, 5)) if field.is_repeated else 1):
            if field.message_type is not None:
                if self._depth > 3:
                    return
                value = self.message(GetMessageClass(field.message_type))
                into = getattr(made, field.name)
                (into.add() if field.is_repeated else into).CopyFrom(value)
            elif field.is_repeated:
                getattr(made, field.name).append(self._scalar(field))
            else:
                setattr(made, field.name, self._scalar(field))

    def _scalar(self, field: Any) -> object:  # noqa: ANN401 — the same
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            return self._bytes() if field.type == FieldDescriptor.TYPE_BYTES else self.pick(TEXTS)
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return self._chance.random() < 0.5
        if field.enum_type is not None:
            return self.pick((*(value.number for value in field.enum_type.values), 9_999))
        if field.cpp_type not in BOUNDS:
            return self.pick(FLOATS)
        least, most = BOUNDS[field.cpp_type]
        return self.pick([number for number in INTS if least <= number <= most])

    def _bytes(self) -> bytes:
        if self._depth > 3 or self._chance.random() < 0.3:
            return self._chance.randbytes(self.pick((0, 1, 30, 5_000)))
        kind = self.pick((message_pb2.Message, message_pb2.Message, message_pb2.Result))
        return self.message(kind).SerializeToString()


def questions(method: MethodDescriptor, nonsense: Nonsense) -> list[bytes]:
    """What one call asks."""
    kind = GetMessageClass(method.input_type)
    if not method.client_streaming:
        return [nonsense.request(kind)]
    asked = [nonsense.request(kind) for _ in range(3)]
    if kind is worker_pb2.WorkRequest:
        register = nonsense.message(worker_pb2.Register)
        assert isinstance(register, worker_pb2.Register)
        asked.insert(0, worker_pb2.WorkRequest(seq=1, register=register).SerializeToString())
    return asked


async def answer(served: Served, method: MethodDescriptor, asked: list[bytes]) -> grpc.StatusCode:
    """How a call ended that asked this."""
    path = f"/{method.containing_service.full_name}/{method.name}"

    async def requests() -> AsyncIterator[bytes]:
        for request in asked:
            yield request

    channel: Any = served.channel
    if method.client_streaming:
        call = channel.stream_stream(path)(requests())
    elif method.server_streaming:
        call = channel.unary_stream(path)(asked[0])
    else:
        call = channel.unary_unary(path)(asked[0], timeout=WAIT_S)
        unary: grpc.StatusCode = await call.code()
        return unary
    with suppress(TimeoutError):
        async with asyncio.timeout(LISTEN_S):
            await call.code()
    call.cancel()
    if await call.details() == ABANDONED:
        return grpc.StatusCode.CANCELLED
    code: grpc.StatusCode = await call.code()
    return code


async def test_nonsense_is_the_askers_fault_and_harms_nobody() -> None:
    nonsense = Nonsense(SEED)
    codes: Counter[tuple[str, grpc.StatusCode]] = Counter()

    async with serving(grace_ms=50) as served:

        async def call(method: MethodDescriptor) -> None:
            asked = questions(method, nonsense)
            codes[method.full_name, await answer(served, method, asked)] += 1

        for _ in range(ROUNDS):
            async with asyncio.TaskGroup() as group:
                for method in (*METHODS, *STREAMS * 10):
                    group.create_task(call(method))

        assert await served.is_alive()
        assert served.broker.read(check.faults) == []
    assert {(name, code) for name, code in codes if code in OURS} == set()
    assert sum(codes.values()) == ROUNDS * (len(METHODS) + 10 * len(STREAMS))


STREAMS = [method for method in METHODS if method.name in {"Publish", "Work"}]
"""Where most of what the store holds comes from."""
