"""What waits for others goes on once, when the last of them has succeeded; or fails once, when one has not."""

from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from qbroker_server.core import dead, joins, keys
from qbroker_server.core.dispatch import Delivery
from qbroker_server.core.errors import CorruptRecord
from qbroker_server.core.lease import Outcome, Settle
from qbroker_server.core.publish import NewWorkflow
from qbroker_server.core.records import EndReason, Extras, Flag, Stage, Wait
from qbroker_server.core.revoke import Revoke
from tests.support.scene import Scene, done, lease_of, new
from tests.support.workflows import Chain, Group, Word, chain, group, names, workflow


def begin(word: Word, *, prefetch_count: int = 1_000) -> Scene:
    """A scene in which the word's workflow was published to one worker."""
    scene = Scene()
    scene.register(prefetch_count=prefetch_count)
    assert not scene.publish(workflow(word)).refusals
    return scene


def values(delivery: Delivery) -> list[bytes]:
    """The results that a delivery brings along."""
    return [value[1:] for value in delivery.inputs]


def test_the_next_link_of_a_chain_runs_with_the_result_of_the_one_before() -> None:
    scene = begin(chain("a", "b", "c"))
    assert scene.record("c").stage == Stage.WAITING

    scene.settle(scene.take_one(), result=b"1")
    b = scene.take_one()
    scene.settle(b, result=b"2")
    c = scene.take_one()
    scene.settle(c, result=b"3")

    assert (b.id, values(b), c.id, values(c)) == ("b", [b"1"], "c", [b"2"])
    assert scene.rows(keys.JOIN) == scene.rows(keys.VALUE) == scene.rows(keys.WAITER) == []
    assert scene.faults() == []


def test_a_body_runs_once_with_the_results_in_the_order_of_the_members() -> None:
    scene = begin(chain(group("a", "b", "c"), "body"))
    a, b, c = scene.take()

    scene.settle(c, result=b"3")
    scene.settle(a, result=b"1")
    assert scene.take() == []
    scene.settle(b, result=b"2")

    body = scene.take_one()
    assert (body.id, values(body)) == ("body", [b"1", b"2", b"3"])
    assert scene.faults() == []


def test_a_group_in_a_group_is_a_list_in_a_list() -> None:
    scene = begin(chain(group(chain("a", group("b", "c")), "d"), "body"))
    while (taken := scene.take()) and taken[0].id != "body":
        for delivery in taken:
            scene.settle(delivery, result=delivery.id.encode())

    (body,) = taken
    inner, d = body.inputs
    assert [value[1:] for value in joins.items(inner)] == [b"b", b"c"]
    assert d[1:] == b"d"


def test_a_body_that_is_run_again_gets_its_values_again() -> None:
    scene = begin(chain("a", "b"))
    scene.settle(scene.take_one(), result=b"1")
    scene.take_one()

    scene.die()
    scene.register("s2")

    assert values(scene.take_one("s2")) == [b"1"]
    assert scene.faults() == []


def test_a_member_that_is_told_twice_counts_once() -> None:
    scene = begin(chain(group("a", "b"), "body"))
    a, b = scene.take()

    scene.report(settles=[done(a), done(a)])
    scene.die()
    scene.register("s2")

    assert scene.take_ids("s2") == ["b"]
    assert scene.record("body").stage == Stage.WAITING
    del b


def test_a_failed_member_fails_the_body_once_and_names_itself() -> None:
    scene = begin(chain(group("a", "b"), "body", "after"))
    a, b = scene.take()

    failure = Settle("a", 1, Outcome.FAILURE, b"boom", detail="ValueError('x')")
    scene.report(settles=[failure])
    scene.settle(b)

    body, after = scene.record("body"), scene.record("after")
    assert (body.state, body.end_reason) == ("FAILURE", EndReason.DEPENDENCY)
    assert body.detail == "Dependency a raised ValueError('x')"
    assert (after.state, after.end_reason) == ("FAILURE", EndReason.DEPENDENCY)
    # The errbacks of what failed and of what waited for the group; not of what follows that.
    assert sorted(scene.take_ids()) == ["err-a", "err-body"]
    assert scene.faults() == []
    del a


def test_the_links_after_a_failed_one_end_as_it_did_and_only_its_own_errback_runs() -> None:
    scene = begin(chain("a", "b", "c"))

    scene.report(settles=[Settle("a", 1, Outcome.FAILURE, b"boom", detail="ValueError('x')")])

    for name in ("b", "c"):
        record = scene.record(name)
        assert (record.state, record.end_reason, record.detail) == (
            "FAILURE",
            EndReason.DEPENDENCY,
            "",
        )
    assert scene.take_ids() == ["a", "err-a"]


def test_an_errback_is_told_what_failed_and_how() -> None:
    scene = begin(chain("a", "b"))
    scene.take_one()

    scene.report(settles=[Settle("a", 1, Outcome.FAILURE, b"boom", detail="ValueError('x')")])

    errback = scene.take_one()
    failure = errback.failure
    assert errback.id == "err-a"
    assert failure is not None
    assert (failure.id, failure.state, failure.result) == ("a", "FAILURE", b"boom")
    assert (failure.message, failure.detail) == (b"body", "ValueError('x')")
    scene.settle(errback)
    assert scene.rows(keys.FAILURE) == scene.rows(keys.ERRBACKS) == []


def test_the_errbacks_of_a_second_chord_do_not_run_when_the_first_failed() -> None:
    scene = begin(chain(group("a", "b"), "body", group("c", "d"), "end"))

    scene.report(settles=[Settle("a", 1, Outcome.FAILURE, b"boom", detail="E()")])

    assert scene.record("end").state == "FAILURE"
    ran = {delivery.id for delivery in scene.take()}
    assert ran == {"a", "b", "err-a", "err-body"}


def test_the_errback_of_an_outer_chord_runs_when_a_member_chain_failed_in_the_middle() -> None:
    scene = begin(chain(group(chain("a", "b"), "c"), "body"))

    scene.report(settles=[Settle("a", 1, Outcome.FAILURE, b"boom", detail="E()")])

    assert scene.record("body").detail == "Dependency a raised E()"
    assert {delivery.id for delivery in scene.take()} == {"a", "c", "err-a", "err-body"}


@pytest.mark.parametrize("how", ["revoked", "expired", "lost", "dead", "ignored"])
def test_however_a_member_ends_the_body_ends(how: str) -> None:
    scene = Scene()
    flow = workflow(chain(group("a", "b"), "body"))
    first = flow.messages[0]
    if how == "expired":
        first = replace(first, expires_ms=scene.now_ms + 10)
    if how == "dead":
        first = replace(first, flags=Flag.ACK_LATE, deaths_max=1)
    scene.publish(replace(flow, messages=(first, *flow.messages[1:])))

    if how == "revoked":
        scene.do(Revoke(["a"]))
    elif how == "expired":
        scene.pass_time(10)
    else:
        scene.register()
        a = scene.take()[0]
        scene.start(a)
        if how == "ignored":
            scene.settle(a, Outcome.IGNORED, b"")
        else:
            scene.die()

    body = scene.record("body")
    assert (body.stage, body.end_reason) == (Stage.DONE, EndReason.DEPENDENCY)
    assert body.detail.startswith("Dependency a raised ")
    assert scene.faults() == []


def test_a_message_that_waits_can_be_revoked_and_takes_what_follows_with_it() -> None:
    scene = begin(chain("a", "b", "c"))

    revoked = scene.do(Revoke(["b"]))
    scene.settle(scene.take_one())

    assert revoked.ended == ("b",)
    assert [scene.record(name).state for name in "abc"] == ["SUCCESS", "REVOKED", "REVOKED"]
    assert scene.take() == []
    assert scene.faults() == []


def test_a_message_that_waits_expires_and_is_due_by_the_clock_that_starts_when_it_is_its_turn() -> (
    None
):
    scene = Scene()
    scene.register()
    flow = workflow(chain("a", "b"))
    a, b = flow.messages
    assert b.extras is not None
    wait = replace(b.extras.wait or Wait("", True, False, 0, 0), delay_ms=50, lifetime_ms=20)
    b = replace(b, extras=replace(b.extras, wait=wait))
    scene.publish(replace(flow, messages=(a, b)))
    scene.pass_time(1_000)

    scene.settle(scene.take_one())

    record = scene.record("b")
    assert record.stage == Stage.SCHEDULED
    assert record.eta_ms == scene.now_ms + 50
    assert record.expires_ms == scene.now_ms + 70
    scene.pass_time(50)
    assert scene.take_ids() == ["b"]


def test_a_dead_letter_of_a_workflow_can_be_requeued_with_what_it_was_given() -> None:
    scene = begin(chain("a", "b"))
    scene.settle(scene.take_one(), result=b"1")
    b = scene.take_one()
    scene.report(settles=[Settle("b", 1, Outcome.REJECTED, b"", detail="no")])

    scene.do(dead.Requeue(("b",)))

    again = scene.take()
    assert [values(one) for one in again if one.id == "b"] == [[b"1"]]
    del b


def test_a_message_replaced_by_another_keeps_its_id_and_its_place() -> None:
    scene = begin(chain(group("a", "b"), "body"))
    a, b = scene.take()
    inner = NewWorkflow(
        "w2",
        tuple(
            [
                replace(m, id=f"x-{m.id}", errbacks=())
                for m in workflow(chain("n1", "n2")).messages[:1]
            ]
        ),
        workflow(chain("n1", "n2")).joins,
    )
    takes_over = replace(
        new("a", task="proj.add"),
        payload=b"other",
        extras=Extras(wait=Wait(inner.joins[0].id + "x", True, False, 0, 0)),
    )
    inner = replace(
        inner,
        joins=(replace(inner.joins[0], id=inner.joins[0].id + "x"),),
        messages=tuple(
            replace(
                m,
                extras=Extras(workflow_id="w2", place=(inner.joins[0].id + "x", 0)),
            )
            for m in inner.messages
        ),
    )

    scene.report(
        settles=[
            Settle("a", 1, Outcome.REPLACED, b"", follow_ups=(inner,), message=takes_over),
        ]
    )
    scene.settle(b, result=b"2")
    assert scene.record("body").stage == Stage.WAITING
    scene.settle(scene.take_one(), result=b"7")
    again = scene.take_one()
    scene.settle(again, result=b"1")

    assert (again.id, values(again), again.payload) == ("a", [b"7"], b"other")
    assert values(scene.take_one()) == [b"1", b"2"]
    assert scene.faults() == []
    del a


def test_a_member_can_add_one_to_its_own_join() -> None:
    scene = begin(chain(group("a", "b"), "body"))
    a, b = scene.take()

    scene.report(
        settles=[Settle("a", 1, Outcome.SUCCESS, b"1", added_members=(new("more"),))],
    )
    scene.settle(b, result=b"2")
    scene.settle(scene.take_one(), result=b"3")

    assert values(scene.take_one()) == [b"1", b"2", b"3"]
    assert scene.faults() == []
    del a


def test_a_join_with_more_behind_it_than_one_step_takes_carries_on_in_the_next() -> None:
    members = tuple(f"m{n:05}" for n in range(4_500))
    scene = Scene()
    scene.register(prefetch_count=100_000)
    scene.publish(workflow(chain("a", Group(members))))

    scene.settle(scene.take_one())
    scene.pass_time(0)

    assert len(scene.take()) == len(members)
    assert scene.faults() == []


def test_a_damaged_join_is_put_aside_and_costs_only_what_waits_for_it() -> None:
    scene = begin(chain("a", "b"))
    scene.damage(keys.JOIN + b"j0")

    scene.settle(scene.take_one())

    assert scene.record("a").state == "SUCCESS"
    assert scene.record("b").stage == Stage.WAITING


def test_a_join_survives_its_encoding() -> None:
    cause = joins.Cause("a", "FAILURE", 1, "", "E()", b"\x00result", is_loud=True, until_ms=7)
    join = joins.Join(3, True, ("outer", 2), "entry", "w", 1, 2, False, cause)

    raw = joins.encode_join(join)

    assert joins.decode_join(b"k", raw) == join
    with pytest.raises(CorruptRecord, match="checksum"):
        joins.decode_join(b"k", raw[:-1] + b"x")


# -- against a model -------------------------------------------------------------------------------

_LEAVES = st.just("t")


def _words(leaves: st.SearchStrategy[Word]) -> st.SearchStrategy[Word]:
    some = st.lists(leaves, min_size=1, max_size=4).map(tuple)
    return some.map(Chain) | some.map(Group)


def _named(word: Word, numbers: list[int]) -> Word:
    if isinstance(word, str):
        numbers.append(len(numbers))
        return f"t{numbers[-1]}"
    if isinstance(word, Chain):
        return Chain(tuple(_named(step, numbers) for step in word.steps))
    return Group(tuple(_named(member, numbers) for member in word.members))


def _plain(word: Word) -> Word:
    """Without a chain in a chain, a group in a group, or one alone: what an SDK makes of them."""
    if isinstance(word, str):
        return word
    parts: list[Word] = []
    for part in word.steps if isinstance(word, Chain) else word.members:
        plain = _plain(part)
        if isinstance(plain, Chain) and isinstance(word, Chain):
            parts += plain.steps
        elif isinstance(plain, Group) and isinstance(word, Group):
            parts += plain.members
        else:
            parts.append(plain)
    if len(parts) == 1:
        return parts[0]
    return type(word)(tuple(parts))


Outcomes = dict[str, str]


def _expect(word: Word, failing: set[str], fate: Outcomes, *, is_reached: bool) -> bool:
    """Note each task's fate: "ran", "failed" or "never"; whether the word has a value."""
    if isinstance(word, str):
        fate[word] = "never" if not is_reached else "failed" if word in failing else "ran"
        return fate[word] == "ran"
    if isinstance(word, Chain):
        for step in word.steps:
            is_reached = _expect(step, failing, fate, is_reached=is_reached)
        return is_reached
    kept = [_expect(member, failing, fate, is_reached=is_reached) for member in word.members]
    return all(kept)


@given(
    word=st.recursive(_LEAVES, _words, max_leaves=12),
    failing=st.sets(st.integers(0, 11), max_size=2),
    order=st.randoms(use_true_random=False),
    crash=st.integers(0, 20),
)
@settings(max_examples=200)
def test_every_workflow_ends_as_its_tasks_do_whatever_the_order(
    word: Word, failing: set[int], order: "object", crash: int
) -> None:
    word = _plain(_named(word, []))
    bad = {f"t{n}" for n in failing}
    fate: Outcomes = {}
    _expect(word, bad, fate, is_reached=True)
    scene = begin(word)
    ran: list[str] = []
    held: list[Delivery] = []
    steps = 0
    while True:
        held += scene.take()
        if not held:
            break
        steps += 1
        if steps == crash:
            # What a worker had not begun comes again, with its values.
            scene.die()
            scene.register()
            held = scene.take()
        order.shuffle(held)  # type: ignore[attr-defined] # a random.Random, which hypothesis does not name
        delivery = held.pop()
        ran.append(delivery.id)
        is_bad = delivery.id in bad
        outcome = Outcome.FAILURE if is_bad else Outcome.SUCCESS
        scene.report(
            settles=[Settle(delivery.id, lease_of(delivery).attempt, outcome, b"r", detail="E()")]
        )
        assert scene.faults() == []

    assert len(ran) == len(set(ran)), "nothing runs twice"
    tasks = {name for name in ran if not name.startswith("err-")}
    assert tasks == {name for name, how in fate.items() if how != "never"}
    for name in names(word):
        record = scene.record(name)
        assert record.stage == Stage.DONE
        assert record.state == ("SUCCESS" if fate[name] == "ran" else "FAILURE")
    errbacks = {name for name in ran if name.startswith("err-")}
    assert {f"err-{name}" for name, how in fate.items() if how == "failed"} <= errbacks
    assert not {f"err-{name}" for name, how in fate.items() if how == "ran"} & errbacks


def test_a_replacement_in_another_queue_stands_behind_what_waits_there() -> None:
    scene = Scene()
    scene.register(queues=("a",))
    scene.publish(new("waiting", queue="b"), new("m1", queue="a"))

    scene.report(
        settles=[Settle("m1", 1, Outcome.REPLACED, b"", message=new("m1", queue="b"))],
    )

    assert scene.faults() == []
    scene.register("s2", queues=("b",))
    assert scene.take_ids("s2") == ["waiting", "m1"]


def test_an_errback_waits_for_its_own_time() -> None:
    scene = Scene()
    scene.register()
    errback = new("err", eta_ms=scene.now_ms + 50)
    scene.publish(replace(new("m1"), errbacks=(errback,)))

    scene.settle(scene.take_one(), Outcome.FAILURE, b"boom")

    assert scene.record("err").stage == Stage.SCHEDULED
    assert scene.faults() == []
    scene.pass_time(50)
    assert scene.take_ids() == ["err"]
