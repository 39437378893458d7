"""Bodies that only those can read who have the key, alone and through the real broker."""

import base64

import pytest

from qbroker import App, envelope
from qbroker.app.config import Settings
from qbroker.app.trace import Ran
from qbroker.envelope import STAGES
from qbroker.exceptions import (
    ContentDisallowed,
    ImproperlyConfigured,
    SecurityError,
    TimeLimitExceeded,
    WorkerLostError,
    WorkerShutdown,
)
from qbroker.sealing import Seal, keys_of
from qbroker.serialization import Value
from qbroker_proto.v1.message_pb2 import Message, Result
from tests.sdk.conftest import MakeApp
from tests.sdk.real_broker import RealBroker, ToyWorker

NEW, OLD = {"new": b"n" * 32}, {"old": b"o" * 32}
CARD = "4111 1111 1111 1111"


def sealed(seal: Seal | None, body: bytes = b"[[1],{},{}]") -> Message:
    assert seal is not None
    carrier = Message(id="m", task="pay", content_type="application/json", content_encoding="utf-8")
    carrier.body = body
    seal.close(carrier, "call")
    return carrier


def worked(app: App, real_broker: RealBroker, count: int = 1) -> list[Ran]:
    worker = ToyWorker(app, real_broker.url)
    for _ in range(count):
        worker.work()
    worker.leave()
    return worker.ran


def paying(app: App) -> App:
    app.task(name="pay")(lambda card: f"paid by {card}")

    @app.task(name="fail")
    def fail(card: str) -> None:
        raise LookupError(card)

    @app.task(name="again", bind=True, max_retries=1)
    def again(self: Value, card: str) -> str:
        if self.request.retries:
            return card
        raise self.retry(countdown=0)

    return app


def test_the_first_key_seals_and_all_of_them_open() -> None:
    before, during, after = Seal(OLD), Seal(NEW | OLD), Seal(NEW)
    old, new = sealed(before), sealed(during)

    assert (old.encryption_key_id, new.encryption_key_id) == ("old", "new")
    assert during.open(old, "call") == during.open(new, "call") == after.open(new, "call")
    with pytest.raises(SecurityError, match=r"by the key 'old', and there are only \['new'\]"):
        after.open(old, "call")


def test_no_two_sealed_bodies_are_alike_and_none_shows_what_it_says() -> None:
    one, other = (sealed(Seal(NEW), CARD.encode()) for _ in range(2))

    assert one.body != other.body
    assert CARD.encode() not in one.SerializeToString()


def test_a_change_of_any_byte_is_found_out() -> None:
    carrier = sealed(Seal(NEW))
    body = carrier.body

    for place in range(len(body)):
        changed = bytearray(body)
        changed[place] ^= 1
        carrier.body = bytes(changed)
        with pytest.raises(SecurityError, match="changed on its way"):
            Seal(NEW).open(carrier, "call")
    for short in (b"", body[:5], body[:-1]):
        carrier.body = short
        with pytest.raises(SecurityError, match="changed on its way"):
            Seal(NEW).open(carrier, "call")


@pytest.mark.parametrize("field", ["task", "content_type", "content_encoding", "compression"])
def test_what_goes_with_a_body_cannot_be_exchanged(field: str) -> None:
    carrier = sealed(Seal(NEW))
    setattr(carrier, field, "other")

    with pytest.raises(SecurityError, match="changed on its way"):
        Seal(NEW).open(carrier, "call")


def test_a_call_cannot_be_passed_off_as_a_result() -> None:
    with pytest.raises(SecurityError, match="changed on its way"):
        Seal(NEW).open(sealed(Seal(NEW)), "result")


def test_another_key_of_the_same_id_opens_nothing() -> None:
    with pytest.raises(SecurityError, match="another key has that id here"):
        Seal({"new": b"x" * 32}).open(sealed(Seal(NEW)), "call")


def test_what_is_not_sealed_is_read_where_that_was_allowed_alone() -> None:
    plain = Message(task="pay", body=b"1")

    assert Seal(NEW, accepts_plain=True).open(plain, "call") == b"1"
    with pytest.raises(SecurityError, match="not encrypted"):
        Seal(NEW).open(plain, "call")


def test_keys_are_bytes_or_base64_in_a_mapping_or_a_line_of_text() -> None:
    text = base64.b64encode(NEW["new"]).decode()

    assert keys_of({"new": text, "old": OLD["old"]}) == NEW | OLD
    assert keys_of(f"new={text}, old={base64.b64encode(OLD['old']).decode()}") == NEW | OLD


@pytest.mark.parametrize("value", [7, {"": b"n" * 32}, {"new": "not-base64"}, {"new": b"topsecret"}, "new"])  # fmt: skip
def test_keys_that_are_none_are_refused_without_showing_them(value: Value) -> None:
    with pytest.raises(ImproperlyConfigured, match="security_encryption_keys") as caught:
        Settings({"security_encryption_keys": value})

    assert "topsecret" not in str(caught.value)
    assert "not-base64" not in str(caught.value)


def test_settings_show_the_ids_of_keys_and_no_key() -> None:
    shown = Settings({"security_encryption_keys": NEW | OLD}).humanize()

    assert "'new': '********'" in shown
    assert "nnn" not in shown


def test_the_broker_never_sees_arguments_results_failures_or_states(
    real_broker: RealBroker, make_app: MakeApp
) -> None:
    app = paying(
        make_app(broker=real_broker.url, backend="qbroker://", security_encryption_keys=NEW)
    )

    sent = [app.send_task(name, (CARD,)) for name in ("pay", "fail", "again")]
    messages = [app.client().show_task(one.id).message for one in sent]
    ran = worked(app, real_broker, 4)
    app.backend.store_result("progress", {"card": CARD}, "PROGRESS")

    assert sent[0].get(timeout=5) == f"paid by {CARD}"
    with pytest.raises(LookupError, match=CARD):
        sent[1].get(timeout=5)
    assert sent[2].get(timeout=5) == CARD
    kept = [app.client().show_task(one.id).result for one in sent]
    bodies = [Message.FromString(one) for one in messages]
    assert [one.encryption_key_id for one in bodies] == ["new"] * 3
    assert not any(CARD.encode() in raw for raw in messages + kept)
    assert [one.detail for one in ran] == ["", "LookupError", "Retry", ""]
    assert f"LookupError: {CARD}" in str(sent[1].traceback)


def test_a_chain_hands_sealed_results_on_and_a_saved_group_is_restored(
    real_broker: RealBroker, make_app: MakeApp
) -> None:
    app = make_app(broker=real_broker.url, backend="qbroker://", security_encryption_keys=NEW)
    add = app.task(name="add")(lambda x, y: x + y)

    result = (add.s(1, 2) | add.s(4)).apply_async()
    worked(app, real_broker, 2)
    group = app.GroupResult("a-group", [result])
    group.save()

    assert result.get(timeout=5) == 7
    restored = app.backend.restore_group("a-group")
    assert restored is not None
    assert [one.id for one in restored] == [result.id]


def test_who_has_not_the_key_runs_nothing_of_it_and_the_message_is_kept(
    real_broker: RealBroker, make_app: MakeApp
) -> None:
    def named(keys: Value) -> App:
        return paying(
            make_app(broker=real_broker.url, backend="qbroker://", security_encryption_keys=keys)
        )

    caller, without = named(NEW), named(None)
    result = caller.send_task("pay", (CARD,))
    worked(without, real_broker)

    info = caller.client().show_task(result.id)
    assert STAGES[info.stage] == "dead"
    assert info.detail.startswith(
        "SecurityError: what is said of task 'pay' is encrypted by the key 'new'"
    )
    with pytest.raises(
        SecurityError, match="encrypted by the key 'new', and there are no keys here"
    ):
        result.get(timeout=5)
    with pytest.raises(SecurityError, match="'new'"):
        without.AsyncResult(result.id).get(timeout=5)
    assert caller.client().requeue_dead([result.id]) == 1
    worked(named(NEW | OLD), real_broker)
    assert caller.AsyncResult(result.id).get(timeout=5) == f"paid by {CARD}"
    unread = without.AsyncResult(result.id)
    with pytest.raises(SecurityError, match="no keys here"):
        unread.get(timeout=5)
    assert unread.state == "SUCCESS"


def test_who_has_keys_runs_nothing_that_is_not_encrypted_unless_he_is_told_to(
    real_broker: RealBroker, make_app: MakeApp
) -> None:
    strict = paying(
        make_app(broker=real_broker.url, backend="qbroker://", security_encryption_keys=NEW)
    )
    lenient = paying(
        make_app(
            broker=real_broker.url,
            backend="qbroker://",
            security_encryption_keys=NEW,
            security_accept_unencrypted=True,
        )
    )
    plain = make_app(broker=real_broker.url, backend="qbroker://")
    result = plain.send_task("pay", ("x",))
    worked(strict, real_broker)

    assert strict.client().show_task(result.id).detail.startswith("SecurityError: a call of task")
    strict.client().requeue_dead([result.id])
    worked(lenient, real_broker)
    assert strict.AsyncResult(result.id).get(timeout=5) == "paid by x"


def test_monitors_are_shown_that_arguments_are_encrypted(make_app: MakeApp) -> None:
    app = paying(make_app(security_encryption_keys=NEW))
    carrier = sealed(app.conf.seal)

    info = envelope.task_info(
        carrier.SerializeToString(), app.accepted_content, hostname="x", redelivered=False
    )

    assert info["args"] == [f"<{len(carrier.body)} encrypted bytes of application/json>"]


def test_events_of_a_worker_that_cannot_read_a_result_say_so() -> None:
    kept = Result(state="SUCCESS", **envelope.write(CARD, "json"))
    Seal(NEW).close(kept, "result")

    told = envelope.end_fields(kept.SerializeToString(), frozenset({"application/json"}))

    assert "SecurityError" in told["result"]
    assert CARD not in str(told)


@pytest.mark.parametrize("accepted", [frozenset({"application/json"}), frozenset[str]()])
@pytest.mark.parametrize(
    ("exc", "is_believed"),
    [
        (WorkerLostError("Worker exited prematurely."), True),
        (TimeLimitExceeded(5), True),
        (LookupError("forged"), False),
        (WorkerShutdown("forged"), False),
        (SystemExit("forged"), False),
    ],
)
def test_of_failures_that_are_not_encrypted_those_are_believed_that_the_broker_could_tell_too(
    accepted: frozenset[str], exc: BaseException, is_believed: bool
) -> None:
    kept = Result(state="FAILURE", **envelope.write(envelope.encode_exception(exc), "json"))

    stored = envelope.decode_result(
        "FAILURE",
        kept.SerializeToString(),
        is_final=True,
        end_reason=0,
        detail="",
        accepted=accepted,
        seal=Seal(NEW),
    )

    assert stored.is_readable is is_believed
    if is_believed:
        assert (type(stored.result), stored.result.args) == (type(exc), exc.args)
    else:
        assert isinstance(stored.result, SecurityError | ContentDisallowed)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"exc_type": []}', b'{"exc_module": "qbroker.exceptions", "exc_type": []}', b'{"__type__": [], "__value__": 1}'])  # fmt: skip
def test_nothing_else_that_is_not_encrypted_is_believed(body: bytes) -> None:
    for state in ("SUCCESS", "FAILURE"):
        kept = Result(state=state, content_type="application/json", body=body)

        stored = envelope.decode_result(
            state,
            kept.SerializeToString(),
            is_final=True,
            end_reason=0,
            detail="",
            accepted=frozenset({"application/json"}),
            seal=Seal(NEW),
        )

        assert isinstance(stored.result, SecurityError)
        assert not stored.is_readable
