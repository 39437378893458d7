"""The Worker service."""

import asyncio
from zlib import crc32

import grpc
import pytest

from qbroker_proto.v1 import admin_pb2, message_pb2, producer_pb2, results_pb2, worker_pb2
from qbroker_server.core import limits
from tests.support.engines import FlakyEngine
from tests.support.served import TASK, result, serving, until, wire


def lease(delivery: worker_pb2.Delivery) -> worker_pb2.Lease:
    """What the worker names the delivery by."""
    return worker_pb2.Lease(id=delivery.id, attempt=delivery.attempt)


# -- deliveries --------------------------------------------------------------------------------


async def test_a_worker_is_given_the_message_as_it_was_published() -> None:
    async with serving(grace_ms=1_234) as served:
        raw = wire(body=b"\x00\xff" * 3_000, ack_policy=message_pb2.ACK_POLICY_LATE)
        await served.publish(raw)
        worker = served.work()

        reply = await worker.register()
        (delivery,) = await worker.take()

        assert reply.registered.grace_ms == 1_234
        assert reply.registered.broker_version
        assert delivery == worker_pb2.Delivery(
            id="m1",
            attempt=1,
            task=TASK,
            queue="celery",
            ack_policy=message_pb2.ACK_POLICY_LATE,
            message=raw,
            checksum=crc32(raw),
        )


async def test_a_worker_is_told_how_large_a_result_may_be() -> None:
    async with serving(max_message_bytes=100_000) as served:
        reply = await served.work().register()

        assert reply.registered.result_bytes_max == 100_000


async def test_a_settle_is_told_when_it_is_on_disk_and_its_result_is_read() -> None:
    async with serving() as served:
        worker = served.work()
        await worker.register()
        await served.publish(wire())
        (delivery,) = await worker.take()

        lost = await worker.settle(delivery)

        assert lost == []
        state = await served.state()
        assert (state.state, state.is_final) == ("SUCCESS", True)
        assert message_pb2.Result.FromString(state.result).body == b"4"


async def test_starts_settles_and_wishes_may_come_in_one_request() -> None:
    async with serving() as served:
        worker = served.work()
        await worker.register(prefetch_count=1)
        await served.publish(wire("a"), wire("b"), wire("c"))
        (first,) = await worker.take()

        await worker.say(
            starts=[worker_pb2.Start(id=first.id, attempt=1)],
            settles=[
                worker_pb2.Settle(
                    id=first.id, attempt=1, outcome=worker_pb2.OUTCOME_SUCCESS, result=result()
                )
            ],
            prefetch_count=2,
        )

        assert [delivery.id for delivery in await worker.take(2)] == ["b", "c"]


async def test_the_first_request_may_register_and_report() -> None:
    async with serving() as served:
        await served.publish(wire())
        first = served.work()
        await first.register()
        (delivery,) = await first.take()
        first.call.cancel()
        again = served.work()

        await again.say(
            register=worker_pb2.Register(session_id="s1", held=[lease(delivery)]),
            settles=[
                worker_pb2.Settle(
                    id="m1", attempt=1, outcome=worker_pb2.OUTCOME_SUCCESS, result=result()
                )
            ],
        )

        assert await again.applied(1) == []
        assert (await served.state()).state == "SUCCESS"


async def test_a_release_goes_to_another_worker() -> None:
    async with serving() as served:
        one, other = served.work(), served.work()
        await one.register("s1", prefetch_count=1)
        await served.publish(wire())
        (delivery,) = await one.take()
        await other.register("s2")

        await one.say(releases=[lease(delivery)], prefetch_count=0)

        (again,) = await other.take()
        assert (again.id, again.attempt, again.redelivered) == ("m1", 2, False)


async def test_large_deliveries_come_in_replies_a_client_can_take() -> None:
    async with serving() as served:
        for number in range(6):
            await served.publish(wire(f"m{number}", body=b"x" * 3_900_000))
        worker = served.work()

        await worker.register(prefetch_count=6)
        sizes = []
        count = 0
        while count < 6:
            reply = await worker.hear()
            sizes.append(reply.ByteSize())
            count += len(reply.deliveries)

        assert max(sizes) < 16 * 1024 * 1024


# -- sessions ----------------------------------------------------------------------------------


async def test_a_session_that_comes_back_within_its_grace_keeps_its_leases() -> None:
    async with serving(grace_ms=60_000) as served:
        worker = served.work()
        await worker.register()
        await served.publish(wire("a"), wire("b"))
        first, _ = await worker.take(2)
        worker.call.cancel()
        await worker.end()
        again = served.work()

        reply = await again.register(held=[lease(first), worker_pb2.Lease(id="never", attempt=1)])

        assert [lost.id for lost in reply.lost] == ["never"]
        (anew,) = await again.take()
        assert (anew.id, anew.attempt) == ("b", 2)
        assert await again.settle(first) == []
        assert await again.settle(worker_pb2.Delivery(id="a", attempt=1)) != []


async def test_a_session_that_comes_back_is_told_at_once_what_was_revoked_meanwhile() -> None:
    async with serving(grace_ms=60_000) as served:
        worker = served.work()
        await worker.register()
        await served.publish(wire("a"), wire("b"))
        first, second = await worker.take(2)
        worker.call.cancel()
        await worker.end()
        await served.admin.Revoke(admin_pb2.RevokeRequest(ids=["a"], terminate=True))
        again = served.work()

        reply = await again.register(held=[lease(first), lease(second)])

        assert not reply.lost
        assert [(c.id, c.attempt, c.terminate) for c in reply.cancels] == [("a", 1, True)]


async def test_when_the_grace_ends_leases_go_to_another_worker() -> None:
    async with serving(grace_ms=50) as served:
        worker, other = served.work(), served.work()
        await worker.register("s1")
        await served.publish(wire())
        await worker.take()
        await other.register("s2")

        worker.call.cancel()

        (again,) = await other.take()
        assert (again.id, again.attempt) == ("m1", 2)
        assert [w.session_id for w in (await served.status()).workers] == ["s2"]


async def test_a_started_early_task_is_lost_with_its_worker() -> None:
    async with serving(grace_ms=0) as served:
        worker, watch = served.work(), served.watch()
        await worker.register()
        await served.publish(wire())
        (delivery,) = await worker.take()
        await worker.applied(await worker.say(starts=[worker_pb2.Start(id="m1", attempt=1)]))
        await watch.say(watch=["m1"])
        (before,) = await watch.hear()

        worker.call.cancel()

        (state,) = await watch.hear()
        assert before.stage == results_pb2.STAGE_STARTED
        assert state.is_final
        assert state.end_reason == results_pb2.END_REASON_WORKER_LOST
        assert delivery.attempt == 1


async def test_a_worker_that_leaves_returns_its_leases_at_once() -> None:
    async with serving(grace_ms=60_000) as served:
        worker, other = served.work(), served.work()
        await worker.register("s1")
        await served.publish(wire())
        await worker.take()
        await other.register("s2")

        await worker.applied(await worker.say(leave=True))
        await worker.call.done_writing()

        assert [delivery.id for delivery in await other.take()] == ["m1"]


async def test_a_draining_worker_is_given_no_more() -> None:
    async with serving() as served:
        worker, other = served.work(), served.work()
        await worker.register("s1")
        await worker.applied(await worker.say(drain=True))
        await other.register("s2", prefetch_count=1)

        await served.publish(wire("a"))

        assert [delivery.id for delivery in await other.take()] == ["a"]


async def test_another_stream_may_take_a_session_over() -> None:
    async with serving() as served:
        first, second = served.work(), served.work()
        await first.register()
        await served.publish(wire())
        (delivery,) = await first.take()

        await second.register(held=[lease(delivery)])

        assert await first.goodbye() == "another stream has taken over this session"
        assert await first.end() == (grpc.StatusCode.OK, "")
        assert await second.settle(delivery) == []
        assert len((await served.status()).workers) == 1


@pytest.mark.parametrize("number", range(5))
async def test_a_session_fought_over_by_many_streams_loses_nothing(number: int) -> None:
    async with serving(grace_ms=20) as served:
        workers = [served.work() for _ in range(8)]
        await served.publish(*(wire(f"m{n}") for n in range(50)))
        for worker in workers:
            await worker.say(
                register=worker_pb2.Register(
                    session_id="s1", queues=["celery"], tasks=[TASK], prefetch_count=5 + number
                )
            )
        for worker in workers:
            worker.call.cancel()

        last = served.work()
        await last.register("s2", prefetch_count=50)

        assert len({delivery.id for delivery in await last.take(50)}) == 50


async def test_a_stream_that_breaks_while_it_registers_keeps_no_messages() -> None:
    engine = FlakyEngine()
    async with serving(engine, grace_ms=0) as served:
        broken, producer = served.work(), served.producer.Publish()
        engine.gate.clear()
        await producer.write(
            producer_pb2.PublishRequest(messages=[wire(f"m{n}") for n in range(3)])
        )
        await until(lambda: engine.is_committing)
        await broken.say(
            register=worker_pb2.Register(
                session_id="s1", queues=["celery"], tasks=[TASK], prefetch_count=5
            )
        )
        await until(lambda: served.broker.has_work)

        broken.call.cancel()
        await until(lambda: not served.daemon._worker._by_session)
        engine.gate.set()
        survivor = served.work()
        await survivor.register("s2")

        assert {delivery.id for delivery in await survivor.take(3)} == {"m0", "m1", "m2"}
        assert [worker.session_id for worker in (await served.status()).workers] == ["s2"]


async def test_a_session_is_not_given_what_was_on_its_way_when_it_came_back() -> None:
    engine = FlakyEngine()
    async with serving(engine) as served:
        first, second, producer = served.work(), served.work(), served.producer.Publish()
        await first.register()
        engine.gate.clear()
        await producer.write(
            producer_pb2.PublishRequest(messages=[wire(f"m{n}") for n in range(3)])
        )
        await until(lambda: engine.is_committing)
        await second.say(
            register=worker_pb2.Register(
                session_id="s1", queues=["celery"], tasks=[TASK], prefetch_count=5
            )
        )
        await until(lambda: served.broker.has_work)

        engine.gate.set()

        assert [(d.id, d.attempt) for d in await second.take(3)] == [
            ("m0", 2),
            ("m1", 2),
            ("m2", 2),
        ]


# -- attacks -----------------------------------------------------------------------------------


async def test_a_stream_that_does_not_register_first_is_refused() -> None:
    async with serving() as served:
        worker = served.work()

        await worker.say(
            settles=[worker_pb2.Settle(id="m1", attempt=1, outcome=worker_pb2.OUTCOME_SUCCESS)]
        )

        code, details = await worker.end()
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert details == "the first request of a work stream must register"


@pytest.mark.parametrize(
    ("register", "words"),
    [
        (worker_pb2.Register(), "session id ''"),
        (worker_pb2.Register(session_id="s" * 65), "must have 1 to 64"),
        (worker_pb2.Register(session_id="s" * 10_000), "must have 1 to 64"),
        (worker_pb2.Register(session_id="s\x00"), "contains U+0000"),
        (worker_pb2.Register(session_id="s", queues=[""]), "queue name ''"),
        (worker_pb2.Register(session_id="s", queues=["q" * 256]), "queue name"),
        (
            worker_pb2.Register(session_id="s", prefetch_count=2**32 - 1),
            "prefetch_count 4294967295",
        ),
        (
            worker_pb2.Register(
                session_id="s", held=[worker_pb2.Lease()] * (limits.REPORT_ITEMS_MAX + 1)
            ),
            "held leases",
        ),
    ],
    ids=range(8),
)
async def test_a_bad_registration_is_refused_with_a_sentence(
    register: worker_pb2.Register, words: str
) -> None:
    async with serving() as served:
        worker = served.work()

        await worker.say(register=register)

        code, details = await worker.end()
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert words in details
        assert await served.is_alive()


async def test_a_bad_registration_does_not_cost_the_session_that_is_there() -> None:
    async with serving() as served:
        worker, impostor = served.work(), served.work()
        await worker.register("s1")

        await impostor.say(register=worker_pb2.Register(session_id="s1", prefetch_count=2**31))
        await impostor.end()
        await served.publish(wire())

        assert [delivery.id for delivery in await worker.take()] == ["m1"]


async def test_an_unknown_outcome_fails_the_task_and_keeps_the_stream() -> None:
    async with serving() as served:
        worker = served.work()
        await worker.register(prefetch_count=1)
        await served.publish(wire("a"), wire("b"))
        (delivery,) = await worker.take()

        await worker.settle(delivery, 99)  # type: ignore[arg-type]  # of a newer version

        state = await served.state("a")
        assert (state.state, state.is_final) == ("FAILURE", True)
        assert "outcome 99 is unknown to this broker" in state.detail
        assert [delivery.id for delivery in await worker.take()] == ["b"]


async def test_a_result_too_large_fails_the_task_and_keeps_the_stream() -> None:
    async with serving(max_message_bytes=1_000) as served:
        worker = served.work()
        await worker.register(prefetch_count=1)
        await served.publish(wire("a"), wire("b"))
        (delivery,) = await worker.take()

        await worker.settle(delivery, body=b"x" * 1_001)

        state = await served.state("a")
        assert (state.state, state.is_final) == ("FAILURE", True)
        assert "the broker's max_message_bytes is 1000" in state.detail
        assert [delivery.id for delivery in await worker.take()] == ["b"]


@pytest.mark.parametrize("follow_up", [b"\xff\xff", wire(""), wire("n", body=b"x" * 2_000)])
async def test_a_bad_follow_up_fails_the_task_and_keeps_the_stream(follow_up: bytes) -> None:
    async with serving(max_message_bytes=1_000) as served:
        worker = served.work()
        await worker.register(prefetch_count=1)
        await served.publish(wire("a"), wire("b"))
        (delivery,) = await worker.take()

        await worker.settle(delivery, follow_ups=[wire("next"), follow_up])

        assert (await served.state("a")).state == "FAILURE"
        assert (await served.state("next")).stage == results_pb2.STAGE_UNKNOWN
        assert [delivery.id for delivery in await worker.take()] == ["b"]


async def test_a_wish_too_great_ends_the_stream_with_a_sentence() -> None:
    async with serving() as served:
        worker = served.work()
        await worker.register()

        await worker.say(prefetch_count=100_001)

        code, details = await worker.end()
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert "prefetch_count 100001 is not 0 to 100000" in details


async def test_a_report_of_too_many_words_ends_the_stream_with_a_sentence() -> None:
    async with serving() as served:
        worker = served.work()
        await worker.register()

        await worker.say(starts=[worker_pb2.Start()] * (limits.REPORT_ITEMS_MAX + 1))

        code, details = await worker.end()
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert "send up to 200000 at once" in details
        assert await served.is_alive()


async def test_words_about_what_one_never_had_are_harmless() -> None:
    async with serving() as served:
        worker = served.work()
        await worker.register()
        odd = ["", "\x00", "x" * 10_000, "é" * 300, "unknown"]

        seq = await worker.say(
            starts=[worker_pb2.Start(id=name, attempt=1) for name in odd],
            settles=[
                worker_pb2.Settle(id=name, attempt=2**32 - 1, outcome=worker_pb2.OUTCOME_SUCCESS)
                for name in odd
            ],
            releases=[worker_pb2.Lease(id=name) for name in odd],
        )

        assert [lost.id for lost in await worker.applied(seq)] == odd
        assert await served.is_alive()


@pytest.mark.parametrize("is_first", [True, False])
async def test_bytes_that_are_no_request_end_their_stream_and_no_other(is_first: bool) -> None:
    async with serving(grace_ms=0) as served:
        other = served.work()
        await other.register("s2", tasks=["other"])
        call = served.raw("/qbroker.v1.Worker/Work")
        if not is_first:
            register = worker_pb2.Register(session_id="s1", queues=["celery"], prefetch_count=1)
            await call.write(worker_pb2.WorkRequest(register=register).SerializeToString())
            await call.read()

        await call.write(b"\xff\xff\xff")

        assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "cannot be read" in await call.details()
        await served.publish(wire(task="other"))
        assert [delivery.id for delivery in await other.take()] == ["m1"]


async def test_ten_thousand_queues_are_served() -> None:
    async with serving() as served:
        names = [f"q{n}" for n in range(10_000)]
        worker = served.work()
        await worker.register(queues=names, prefetch_count=100)

        await served.publish(wire("a", queue="q0"), wire("b", queue="q9999"))

        assert {delivery.id for delivery in await worker.take(2)} == {"a", "b"}
        assert len((await served.status()).queues) == 10_000


async def test_a_stream_without_a_word_does_not_keep_the_broker_from_stopping() -> None:
    async with serving(drain_ms=60_000) as served:
        silent = served.work()
        await silent.call.wait_for_connection()

        async with asyncio.timeout(5):
            await served.stop()

        code, _ = await silent.end()
        # The broker ended it, or the connection went first.
        assert code in (
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.UNAVAILABLE,
        )


async def test_a_stopping_broker_applies_what_it_heard_and_says_goodbye() -> None:
    async with serving() as served:
        worker = served.work()
        await worker.register()
        await served.publish(wire())
        (delivery,) = await worker.take()
        seq = await worker.say(
            settles=[
                worker_pb2.Settle(
                    id="m1", attempt=delivery.attempt, outcome=worker_pb2.OUTCOME_SUCCESS
                )
            ]
        )
        await worker.applied(seq)

        await served.stop()

        assert await worker.goodbye() == "the broker is shutting down"
        assert await worker.end() == (grpc.StatusCode.OK, "")


async def test_a_second_worker_of_a_name_is_refused_and_told_who_has_it() -> None:
    async with serving() as served:
        one, other = served.work(), served.work()
        await one.say(
            register=worker_pb2.Register(
                session_id="s1", name="mail@here", hostname="here.example", pid=17
            )
        )
        await one.hear()
        await other.say(register=worker_pb2.Register(session_id="s2", name="mail@here"))

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await other.hear()

        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert caught.value.details() == (
            "a worker of the name 'mail@here' is connected already: process 17 on host 'here.example'. Give "
            "this one another name, as in -n other@%h, or end that one"
        )


async def test_the_name_is_free_when_the_other_is_gone_and_its_own_for_who_comes_back() -> None:
    async with serving() as served:
        one, again, other = served.work(), served.work(), served.work()
        for worker in (one, again):
            await worker.say(register=worker_pb2.Register(session_id="s1", name="mail@here"))
            await worker.hear()
        again.call.cancel()
        await until(
            lambda: not any(s.is_connected for s in served.broker.dispatcher.sessions.values())
        )

        await other.say(register=worker_pb2.Register(session_id="s2", name="mail@here"))

        assert (await other.hear()).HasField("registered")
