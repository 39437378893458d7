"""Questions that are out with workers."""

import asyncio

from qbroker_proto.v1.control_pb2 import ControlReply
from qbroker_server.rpc.calls import Asked, Call, Calls

A, B = Asked("s1", "a@host"), Asked("s2", "b@host")


def opened(*absent: str) -> tuple[Calls, int, Call]:
    calls = Calls()
    number, call = calls.open([A, B], lambda session, _: session not in absent)
    return calls, number, call


async def test_a_question_is_over_when_all_have_answered() -> None:
    calls, number, call = opened()

    calls.answered("s2", ControlReply(id=number, body=b"2"))
    calls.answered("s1", ControlReply(id=number, body=b"1"))

    assert [await call.next() for _ in range(3)] == [("b@host", b"2"), ("a@host", b"1"), None]


async def test_who_goes_away_is_waited_for_no_more() -> None:
    calls, number, call = opened()
    calls.answered("s1", ControlReply(id=number, body=b"1"))
    first = await call.next()

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(call.next())
        await asyncio.sleep(0)
        calls.gone("s2")

    assert first == ("a@host", b"1")
    assert waiting.result() is None


async def test_who_is_not_connected_is_not_asked() -> None:
    calls, number, call = opened("s1")

    calls.answered("s2", ControlReply(id=number, body=b"2"))

    assert [await call.next() for _ in range(2)] == [("b@host", b"2"), None]


async def test_a_second_answer_a_late_one_and_one_of_somebody_else_are_none() -> None:
    calls, number, call = opened()
    for session in ("s1", "s1", "s9"):
        calls.answered(session, ControlReply(id=number, body=b"1"))
    calls.close(number)
    calls.answered("s2", ControlReply(id=number, body=b"2"))

    assert await call.next() == ("a@host", b"1")
    assert call.waiting == {"s2": "b@host"}


async def test_ending_a_question_lets_go_of_all_who_have_not_answered() -> None:
    calls, number, call = opened()

    calls.end(number)
    calls.end(number + 1)

    assert await call.next() is None


async def test_a_question_nobody_hears_is_over_with_its_last_answer_and_can_be_waited_for() -> None:
    calls = Calls()
    number, _ = calls.open([A, B], lambda *_: True, "cancel_consumer", is_heard=False)

    async with asyncio.TaskGroup() as group:
        others = group.create_task(calls.settled({"ping"}, {"s1", "s2"}))
        one = group.create_task(calls.settled({"cancel_consumer"}, {"s1"}))
        both = group.create_task(calls.settled({"cancel_consumer"}, {"s1", "s2"}))
        await asyncio.sleep(0)
        at_first = others.done(), one.done(), both.done()
        calls.answered("s1", ControlReply(id=number, body=b"1"))
        await one
        then = both.done()
        calls.gone("s2")

    assert at_first == (True, False, False)
    assert not then
    assert calls._open == {}
