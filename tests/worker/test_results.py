"""The result that the parent writes for a task whose process died."""

from qbroker import envelope
from qbroker.exceptions import WorkerLostError
from qbroker_proto.v1.message_pb2 import Message
from qbroker_proto.v1.worker_pb2 import Settle
from qbroker_worker.results import lost_result, why_lost
from qbroker_worker.values import Delivery

SENTENCE = "Worker exited prematurely: signal 9 (SIGKILL) Job: id."


def _delivery(message: Message) -> Delivery:
    return Delivery("id", 1, False, "proj.add", "celery", False, message.SerializeToString())


def test_the_caller_finds_a_worker_lost_error_with_the_sentence() -> None:
    message = Message(id="id", task="proj.add", queue="mail", root_id="root")

    result, more = lost_result("celery@here")(_delivery(message), WorkerLostError(SENTENCE))
    stored = envelope.decode_result(
        "FAILURE",
        result,
        is_final=True,
        end_reason=0,
        detail="",
        accepted=frozenset({"application/json"}),
    )

    assert isinstance(stored.result, WorkerLostError)
    assert str(stored.result) == SENTENCE
    assert (stored.worker, stored.queue, stored.root_id) == ("celery@here", "mail", "root")
    assert Settle.FromString(more).detail == SENTENCE


def test_a_message_that_wants_no_result_gets_none() -> None:
    message = Message(id="id", ignore_result=True)

    assert lost_result("celery@here")(_delivery(message), WorkerLostError(SENTENCE))[0] == b""


def test_a_message_that_wants_failures_kept_all_the_same_gets_one() -> None:
    message = Message(id="id", ignore_result=True, store_errors_even_if_ignored=True)

    assert lost_result("celery@here")(_delivery(message), WorkerLostError(SENTENCE))[0] != b""


def test_what_waits_for_it_and_its_errbacks_hear_of_it_all_the_same() -> None:
    for heard in (Message(id="id", join_id="join"), Message(id="id", errbacks=[b"errback"])):
        heard.ignore_result = True

        assert lost_result("celery@here")(_delivery(heard), WorkerLostError(SENTENCE))[0] != b""


def test_what_its_settle_says_tells_how_its_process_ended() -> None:
    _, more = lost_result("celery@here")(_delivery(Message(id="id")), WorkerLostError(SENTENCE))

    assert why_lost(more) == SENTENCE
