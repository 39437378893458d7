"""The Producer service."""

import grpc
import pytest

from qbroker_proto.v1 import producer_pb2, results_pb2
from qbroker_server.core import limits
from tests.support.engines import FlakyEngine
from tests.support.served import PublishCall, hear, serving, wire


async def test_a_confirmed_message_is_stored() -> None:
    async with serving() as served:
        reply = await served.publish(wire())

        assert reply == producer_pb2.PublishReply(seq=1)
        assert (await served.state()).stage == results_pb2.STAGE_QUEUED


async def test_replies_come_in_order_each_with_its_number() -> None:
    async with serving() as served:
        call: PublishCall = served.producer.Publish()
        for seq in range(1, 101):
            await call.write(producer_pb2.PublishRequest(seq=seq, messages=[wire(f"m{seq}")]))
        await call.done_writing()

        replies = [reply.seq async for reply in call]

        assert replies == list(range(1, 101))
        assert await call.code() == grpc.StatusCode.OK


async def test_a_bad_message_is_refused_by_its_place_and_the_others_are_stored() -> None:
    async with serving(max_message_bytes=1_000) as served:
        await served.publish(wire("known"))

        reply = await served.publish(
            wire("a"),
            b"\xff\xff garbage",
            wire("b", body=b"x" * 1_000),
            wire("known"),
            wire("", task="t"),
            wire("c", queue="q" * 256),
            wire("d"),
            wire("a"),
            b"",
        )

        reasons = {refusal.index: refusal.reason for refusal in reply.refusals}
        assert sorted(reasons) == [1, 2, 4, 5, 8]
        assert "not a qbroker.v1.Message" in reasons[1]
        assert "max_message_bytes is 1000" in reasons[2]
        assert "message id ''" in reasons[4]
        assert "queue name" in reasons[5]
        codes = {refusal.index: refusal.code for refusal in reply.refusals}
        named, formed = producer_pb2.REFUSAL_CODE_INVALID_NAME, producer_pb2.REFUSAL_CODE_INVALID
        assert codes == {1: formed, 2: formed, 4: named, 5: named, 8: named}
        assert sorted(reply.duplicates) == [3, 7]
        assert (await served.status()).queues[0].ready_count == 3


async def test_a_full_store_refuses_with_a_time_to_try_again() -> None:
    async with serving(reserve_bytes=2**53, engine=FullEngine()) as served:
        reply = await served.publish(wire())

        (refusal,) = reply.refusals
        assert refusal.code == producer_pb2.REFUSAL_CODE_RESOURCE_EXHAUSTED
        assert refusal.retry_after_ms > 0
        assert "reserve_bytes" in refusal.reason


class FullEngine(FlakyEngine):
    """An engine on a full disk."""

    room_bytes = 10


@pytest.mark.parametrize(
    "odd",
    [
        wire("a\x00b"),
        wire("a", task="\x00"),
        wire("a", queue="\x00"),
        wire("é" * 128),
        wire("a", priority=2**32 - 1),
        wire("a", eta_ms=-(2**63)),
        wire("a", expires_ms=2**63 - 1),
        wire("a", max_deliveries=2**32 - 1),
        b"\x0a\x02\xff\xfe",
    ],
    ids=range(9),
)
async def test_an_odd_message_is_refused_with_a_sentence(odd: bytes) -> None:
    async with serving() as served:
        reply = await served.publish(odd, wire("good"))

        (refusal,) = reply.refusals
        assert refusal.index == 0
        assert refusal.reason
        assert (await served.state("good")).stage == results_pb2.STAGE_QUEUED


async def test_an_empty_request_is_answered() -> None:
    async with serving() as served:
        assert await served.publish() == producer_pb2.PublishReply(seq=1)


async def test_a_request_of_too_many_messages_ends_its_stream_and_no_other() -> None:
    async with serving() as served:
        other: PublishCall = served.producer.Publish()
        call: PublishCall = served.producer.Publish()

        await call.write(
            producer_pb2.PublishRequest(messages=[b""] * (limits.PUBLISH_ITEMS_MAX + 1))
        )

        assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "send up to 10000 at once" in await call.details()
        await other.write(producer_pb2.PublishRequest(seq=7, messages=[wire()]))
        assert await hear(other) == producer_pb2.PublishReply(seq=7)
        other.cancel()


async def test_bytes_that_are_no_request_end_their_stream_and_no_other() -> None:
    async with serving() as served:
        other: PublishCall = served.producer.Publish()
        call = served.raw("/qbroker.v1.Producer/Publish")

        await call.write(b"\xff\xff\xff")

        assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "cannot be read" in await call.details()
        await other.write(producer_pb2.PublishRequest(seq=7, messages=[wire()]))
        assert await hear(other) == producer_pb2.PublishReply(seq=7)
        other.cancel()


async def test_a_request_larger_than_any_is_refused_by_name() -> None:
    async with serving() as served:
        call: PublishCall = served.producer.Publish()

        await call.write(producer_pb2.PublishRequest(messages=[b"x" * 65 * 1024 * 1024]))

        assert await call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await served.is_alive()


async def test_a_stream_cut_in_the_middle_keeps_what_was_read() -> None:
    async with serving() as served:
        call: PublishCall = served.producer.Publish()
        for seq in range(50):
            await call.write(producer_pb2.PublishRequest(seq=seq, messages=[wire(f"m{seq}")]))
        await hear(call)

        call.cancel()

        assert await served.is_alive()
        assert (await served.publish(wire("m0"))).duplicates == [0]


async def test_a_stopping_broker_confirms_what_it_read_and_says_why_it_ends() -> None:
    async with serving() as served:
        call: PublishCall = served.producer.Publish()
        await call.write(producer_pb2.PublishRequest(seq=1, messages=[wire()]))
        await hear(call)

        await served.stop()

        assert await call.code() == grpc.StatusCode.UNAVAILABLE
        assert await call.details() == "the broker is shutting down"


async def test_a_request_of_many_messages_through_exchanges_is_confirmed_as_one() -> None:
    async with serving() as served:
        await served.publish(wire("known"))
        routed = [
            wire(f"m{n}", queue="", exchange="" if n != 20 else "absent", routing_key="celery")
            for n in range(50)
        ]

        reply = await served.publish(*routed, wire("known"), wire("m49"))

        assert [refusal.index for refusal in reply.refusals] == [20]
        assert list(reply.duplicates) == [50, 51]
        assert (await served.status()).queues[0].ready_count == 50


@pytest.mark.parametrize("field", ["headers", "properties"])
async def test_headers_are_for_small_things(field: str) -> None:
    async with serving() as served:
        fits = '{"a":"' + "x" * (limits.HEADERS_BYTES_MAX - 8) + '"}'

        reply = await served.publish(
            wire("a", **{field: fits + " "}), wire("b", **{field: fits}), wire("c")
        )

        (refusal,) = reply.refusals
        assert (refusal.index, refusal.code) == (0, producer_pb2.REFUSAL_CODE_HEADERS_TOO_LARGE)
        assert f"the {field} of message 'a' have 65537 bytes; they may have 65536" in refusal.reason
        assert (await served.status()).queues[0].ready_count == 2
