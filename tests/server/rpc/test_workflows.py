"""The Workflows service, and a workflow's way through a served broker."""

import grpc
import pytest

from qbroker_proto.v1 import message_pb2, results_pb2, worker_pb2, workflow_pb2
from qbroker_server.rpc import convert
from tests.support.served import result, serving, wire


def chord(*names: str, body: str = "body") -> bytes:
    """A chord of tasks, as it is published."""
    workflow = message_pb2.Workflow(
        messages=[
            *(wire(name, join_id="j", join_index=index) for index, name in enumerate(names)),
            wire(body, waits_for="j", takes_input=True, input_is_list=True, fails_as_chord=True),
        ],
        joins=[message_pb2.Join(id="j", size=len(names), is_list=True)],
    )
    return message_pb2.Message(id="w", workflow=workflow).SerializeToString()


async def test_a_chord_goes_its_way_and_is_shown() -> None:
    async with serving() as served:
        worker = served.work()
        await worker.register()
        assert not (await served.publish(chord("a", "b"))).refusals
        taken = await worker.take(2)

        await worker.say(
            settles=[
                worker_pb2.Settle(
                    id=one.id,
                    attempt=one.attempt,
                    outcome=worker_pb2.OUTCOME_SUCCESS,
                    result=result(body=one.id.encode()),
                )
                for one in taken
            ]
        )
        (body,) = await worker.take()

        message = message_pb2.Message.FromString(body.message)
        values = [message_pb2.Result.FromString(one.result).body for one in message.inputs]
        assert (message.id, values) == ("body", [b"a", b"b"])
        (listed,) = (await served.workflows.List(workflow_pb2.ListRequest())).workflows
        assert (listed.id, listed.message_count, listed.ended_count) == ("w", 3, 2)
        shown = await served.workflows.Show(workflow_pb2.ShowRequest(id="body"))
        assert shown.workflow.id == "w"
        told = {one.id: (one.stage, one.join_index, one.waits_for) for one in shown.tasks}
        assert told == {
            "a": (results_pb2.STAGE_DONE, 0, ""),
            "b": (results_pb2.STAGE_DONE, 1, ""),
            "body": (results_pb2.STAGE_LEASED, 0, "j"),
        }


async def test_values_too_large_for_one_reply_arrive_in_parts() -> None:
    async with serving() as served:
        worker = served.work()
        await worker.register()
        await served.publish(chord("a", "b", "c"))
        big = b"x" * (convert.PART_BYTES // 2)
        for one in await worker.take(3):
            await worker.say(
                settles=[
                    worker_pb2.Settle(
                        id=one.id,
                        attempt=one.attempt,
                        outcome=worker_pb2.OUTCOME_SUCCESS,
                        result=result(body=big),
                    )
                ]
            )

        parts = await worker.take(2)

        assert [part.has_more for part in parts] == [True, False]
        message = message_pb2.Message.FromString(b"".join([part.message for part in parts]))
        assert [message_pb2.Result.FromString(one.result).body for one in message.inputs] == [
            big
        ] * 3


async def test_a_failure_is_told_to_the_errback_and_the_workflow_is_tried_again() -> None:
    async with serving() as served:
        worker = served.work()
        await worker.register()
        inner = message_pb2.Message.FromString(chord("a", "b"))
        inner.workflow.messages[2] = wire(
            "body",
            waits_for="j",
            takes_input=True,
            input_is_list=True,
            fails_as_chord=True,
            errbacks=[wire("err")],
        )
        await served.publish(inner.SerializeToString())
        a, b = await worker.take(2)

        await worker.say(
            settles=[
                worker_pb2.Settle(
                    id=a.id,
                    attempt=a.attempt,
                    outcome=worker_pb2.OUTCOME_FAILURE,
                    result=result("FAILURE"),
                    detail="E()",
                ),
                worker_pb2.Settle(
                    id=b.id, attempt=b.attempt, outcome=worker_pb2.OUTCOME_SUCCESS, result=result()
                ),
            ]
        )
        (errback,) = await worker.take()

        failure = message_pb2.Message.FromString(errback.message).failure
        assert (failure.id, failure.state) == ("body", "FAILURE")
        assert failure.end_reason == results_pb2.END_REASON_DEPENDENCY
        assert failure.detail == "Dependency a raised E()"
        assert message_pb2.Message.FromString(failure.message).id == "body"
        state = await served.state("body")
        assert (state.state, state.detail) == ("FAILURE", "Dependency a raised E()")
        retried = await served.workflows.Retry(workflow_pb2.RetryRequest(id="w"))
        assert (retried.retried_count, retried.waiting_count) == (1, 1)
        (again,) = await worker.take()
        assert (again.id, again.attempt) == ("a", 2)


async def test_a_workflow_is_cancelled_by_the_id_of_any_of_its_tasks() -> None:
    async with serving() as served:
        await served.publish(chord("a", "b"))

        reply = await served.workflows.Cancel(workflow_pb2.CancelRequest(id="a", why="no need"))

        assert sorted(reply.ended) == ["a", "b", "body"]
        assert (await served.state("body")).detail == "no need"


async def test_an_unknown_workflow_is_said_to_be_none() -> None:
    async with serving() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.workflows.Show(workflow_pb2.ShowRequest(id="x"))

        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError, match="is not 1 to 1000"):
            await served.workflows.List(workflow_pb2.ListRequest(limit=1_001))
