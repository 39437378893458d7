"""The result of a task whose own process can write none any more."""

from qbroker import envelope, serialization, states
from qbroker_proto.v1.message_pb2 import Message, Result
from qbroker_proto.v1.worker_pb2 import Settle
from qbroker_worker.clock import now_ms
from qbroker_worker.pools.pool import LostResult
from qbroker_worker.values import Delivery


def lost_result(hostname: str) -> LostResult:
    """Makes a result of what ended a task; nothing where the message wants no failure kept."""

    def make(delivery: Delivery, exc: Exception) -> tuple[bytes, bytes]:
        # In the history stands which worker it was; here how it died.
        more = Settle(detail=str(exc)).SerializeToString()
        call = Message.FromString(delivery.message)
        is_heard = not call.ignore_result or call.join_id or call.errbacks
        if not is_heard and not call.store_errors_even_if_ignored:
            return b"", more
        found = envelope.encode_exception(exc)
        result = Result(
            state=states.FAILURE,
            content_type="application/json",
            content_encoding="utf-8",
            body=serialization.json_encode(found),
            done_ms=now_ms(),
            worker=hostname,
            retries=call.retries,
            task=call.task,
            queue=call.queue,
            parent_id=call.parent_id,
            root_id=call.root_id,
        )
        return result.SerializeToString(), more

    return make


def why_lost(more: bytes) -> str:
    """How its process ended, of what its settle says beside the result."""
    return Settle.FromString(more).detail
