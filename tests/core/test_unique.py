"""Unique keys: at most one message with a key at a time, and no key stays taken by what has ended."""

from dataclasses import replace

import pytest

from qbroker_server.core import keys
from qbroker_server.core.errors import KeyTaken
from qbroker_server.core.lease import Outcome
from qbroker_server.core.publish import NewMessage
from qbroker_server.core.records import EndReason, Extras, Stage, UniqueScope
from qbroker_server.core.revoke import Revoke
from qbroker_server.core.unique import UniquePolicy
from tests.support.scene import Scene, new


def keyed(
    message_id: str,
    key: str = "k",
    *,
    scope: UniqueScope = UniqueScope.FINISH,
    ttl_ms: int = 0,
    policy: UniquePolicy = UniquePolicy.REJECT,
    eta_ms: int = 0,
) -> NewMessage:
    extras = Extras(unique_key=key, unique_scope=scope, unique_until_ms=ttl_ms)
    return replace(new(message_id, eta_ms=eta_ms), extras=extras, unique_policy=policy)


def test_a_second_message_with_the_key_is_refused_with_the_id_of_the_first() -> None:
    scene = Scene()

    published = scene.publish(keyed("a"), keyed("b"), keyed("c", "other"))

    ((place, error),) = published.refusals
    assert place == 1
    assert isinstance(error, KeyTaken)
    assert error.holder == "a"
    assert scene.find("b") is None
    assert scene.record("c").stage == Stage.QUEUED
    assert scene.faults() == []


def test_the_first_is_named_to_a_publisher_who_asks_for_it() -> None:
    scene = Scene()
    scene.publish(keyed("a"))

    published = scene.publish(keyed("b", policy=UniquePolicy.RETURN_EXISTING))

    assert published.existing == ((0, "a"),)
    assert published.refusals == ()
    assert scene.find("b") is None


@pytest.mark.parametrize("eta_ms", [0, 2**50])
def test_a_replacement_revokes_the_first_while_it_waits(eta_ms: int) -> None:
    scene = Scene()
    scene.publish(keyed("a", eta_ms=eta_ms))

    scene.publish(keyed("b", policy=UniquePolicy.REPLACE))
    scene.register()

    assert scene.record("a").end_reason == EndReason.REPLACED
    assert scene.take_ids() == ["b"]
    assert scene.publish(keyed("c")).refusals[0][1].args
    assert scene.faults() == []


def test_a_replacement_lets_the_first_run_that_has_begun() -> None:
    scene = Scene()
    scene.register()
    scene.publish(keyed("a"))
    first = scene.take_one()

    scene.publish(keyed("b", policy=UniquePolicy.REPLACE))
    scene.settle(first)

    assert scene.record("a").state == "SUCCESS"
    (refused,) = scene.publish(keyed("c")).refusals
    assert isinstance(refused[1], KeyTaken)
    assert refused[1].holder == "b"


@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED])
def test_the_key_is_free_when_its_message_has_ended(outcome: Outcome) -> None:
    scene = Scene()
    scene.register()
    scene.publish(keyed("a"))

    scene.settle(scene.take_one(), outcome)

    assert scene.rows(keys.UNIQUE) == []
    assert scene.publish(keyed("b")).refusals == ()


def test_the_key_of_a_revoked_message_is_free() -> None:
    scene = Scene()
    scene.publish(keyed("a"))

    scene.do(Revoke(["a"]))

    assert scene.publish(keyed("b")).refusals == ()


def test_the_key_of_a_lost_message_is_free_once_it_is_given_up() -> None:
    scene = Scene()
    scene.register()
    scene.publish(keyed("a"))
    scene.start(scene.take_one())

    scene.die()

    assert scene.record("a").state == "FAILURE"
    assert scene.publish(keyed("b")).refusals == ()


def test_a_key_until_the_start_is_free_from_then_on() -> None:
    scene = Scene()
    scene.register(prefetch_count=1)
    scene.publish(keyed("a", scope=UniqueScope.START))
    first = scene.take_one()

    while_leased = scene.publish(keyed("b", scope=UniqueScope.START))
    scene.start(first)
    once_started = scene.publish(keyed("c", scope=UniqueScope.START))

    assert len(while_leased.refusals) == 1
    assert once_started.refusals == ()


def test_a_key_for_a_time_is_taken_that_long_whatever_becomes_of_its_message() -> None:
    scene = Scene()
    scene.register()
    scene.publish(keyed("a", scope=UniqueScope.TIME, ttl_ms=60_000))
    scene.settle(scene.take_one())

    scene.pass_time(59_999)
    before = scene.publish(keyed("b", scope=UniqueScope.TIME, ttl_ms=60_000))
    scene.pass_time(1)
    after = scene.publish(keyed("c", scope=UniqueScope.TIME, ttl_ms=60_000))

    assert len(before.refusals) == 1
    assert after.refusals == ()


def test_a_key_for_a_time_leaves_nothing_behind() -> None:
    scene = Scene()
    scene.register()
    scene.publish(keyed("a", scope=UniqueScope.TIME, ttl_ms=60_000))
    scene.settle(scene.take_one())

    scene.pass_time(48 * 3_600_000)

    assert scene.find("a") is None
    assert scene.rows(keys.UNIQUE) == []
    assert scene.faults() == []


def test_of_many_publishers_with_one_key_exactly_one_wins() -> None:
    scene = Scene()

    published = [scene.publish(keyed(f"m{n}")) for n in range(64)]

    winners = [n for n, answer in enumerate(published) if not answer.refusals]
    assert winners == [0]
    assert {answer.refusals[0][1].args for answer in published[1:]} == {
        published[1].refusals[0][1].args
    }


def test_publishing_the_same_id_again_is_a_duplicate_not_a_conflict() -> None:
    scene = Scene()
    scene.publish(keyed("a"))

    again = scene.publish(keyed("a"))

    assert again.duplicates == (0,)
    assert again.refusals == ()


def test_a_restart_frees_no_key() -> None:
    scene = Scene()
    scene.publish(keyed("a"))

    scene.restart()

    assert len(scene.publish(keyed("b")).refusals) == 1
