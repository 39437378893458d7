"""Limits over all workers: never exceeded, and what they hold back holds nothing else back."""

from dataclasses import replace

from qbroker_server.core.publish import NewMessage
from qbroker_server.core.records import Extras, Limit
from tests.support.scene import Scene, new

SLOW = Limit("slow", 10, 60_000, 0)
TWO = Limit("two", 0, 0, 2)


def limited(message_id: str, *limits: Limit, fairness_key: str = "", weight: int = 1) -> NewMessage:
    extras = Extras(limits=limits, fairness_key=fairness_key, fairness_weight=weight)
    return replace(new(message_id), extras=extras)


def test_a_rate_lets_one_start_at_a_time_evenly() -> None:
    scene = Scene()
    scene.register()
    scene.publish(*[limited(f"m{n}", SLOW) for n in range(5)])

    at_once = scene.take_ids()
    scene.pass_time(5_999)
    too_early = scene.take_ids()
    scene.pass_time(1)
    in_time = scene.take_ids()

    assert (at_once, too_early, in_time) == (["m0"], [], ["m1"])
    assert scene.faults() == []


def test_the_broker_says_when_the_next_may_start() -> None:
    scene = Scene()
    scene.register()

    scene.publish(*[limited(f"m{n}", SLOW) for n in range(2)])

    assert scene.broker.dispatcher.wake_ms == scene.now_ms + 6_000


def test_what_a_limit_holds_back_holds_nothing_behind_it_back() -> None:
    scene = Scene()
    scene.register()

    scene.publish(*[limited(f"slow{n}", SLOW) for n in range(50)], new("free"))

    assert sorted(scene.take_ids()) == ["free", "slow0"]


def test_a_concurrency_limit_spans_workers() -> None:
    scene = Scene()
    scene.register("s1")
    scene.register("s2")

    scene.publish(*[limited(f"m{n}", TWO) for n in range(5)])

    first = scene.take("s1") + scene.take("s2")
    assert len(first) == 2
    scene.settle(first[0], session=first[0].record.session)
    assert len(scene.take("s1") + scene.take("s2")) == 1
    assert scene.faults() == []


def test_a_dead_worker_frees_its_places() -> None:
    scene = Scene()
    scene.register("s1")
    scene.publish(*[limited(f"m{n}", TWO) for n in range(4)])
    assert len(scene.take("s1")) == 2

    scene.die("s1")
    scene.register("s2")

    assert scene.take_ids("s2") == ["m0", "m1"]


def test_places_taken_are_counted_again_after_a_restart() -> None:
    scene = Scene()
    scene.register("s1")
    scene.publish(*[limited(f"m{n}", TWO) for n in range(4)])
    held = scene.take("s1")

    scene.restart()
    scene.register("s2")

    assert len(held) == 2
    assert scene.take("s2") == []


def test_a_restart_gives_no_second_burst() -> None:
    scene = Scene()
    scene.register("s1")
    scene.publish(*[limited(f"m{n}", SLOW) for n in range(3)])
    assert scene.take_ids("s1") == ["m0"]

    scene.restart()
    scene.register("s2")

    assert scene.take("s2") == []


def test_several_limits_must_all_allow() -> None:
    scene = Scene()
    scene.register()

    scene.publish(limited("a", TWO, SLOW), limited("b", TWO, SLOW), limited("c", TWO))

    assert sorted(scene.take_ids()) == ["a", "c"]


def test_keys_are_limited_each_for_itself() -> None:
    scene = Scene()
    scene.register()
    one, other = Limit("one", 0, 0, 1), Limit("other", 0, 0, 1)

    scene.publish(limited("a1", one), limited("a2", one), limited("b1", other))

    assert sorted(scene.take_ids()) == ["a1", "b1"]


def test_a_clock_set_back_lets_nothing_start_early() -> None:
    scene = Scene()
    scene.register()
    scene.publish(*[limited(f"m{n}", SLOW) for n in range(3)])
    scene.take()

    scene.pass_time(-3_600_000)
    back = scene.take_ids()
    scene.pass_time(6_000)

    assert back == []
    assert scene.take_ids() == ["m1"]


def test_fairness_keys_share_a_worker_whoever_came_first() -> None:
    scene = Scene()
    scene.publish(*[limited(f"noisy{n}", fairness_key="noisy") for n in range(20)])
    scene.publish(*[limited(f"quiet{n}", fairness_key="quiet") for n in range(2)])

    scene.register(prefetch_count=4)

    assert sorted(scene.take_ids()) == ["noisy0", "noisy1", "quiet0", "quiet1"]


def test_weights_are_honoured() -> None:
    scene = Scene()
    scene.publish(*[limited(f"a{n}", fairness_key="a", weight=3) for n in range(40)])
    scene.publish(*[limited(f"b{n}", fairness_key="b", weight=1) for n in range(40)])

    scene.register(prefetch_count=20)

    taken = [message_id[0] for message_id in scene.take_ids()]
    assert (taken.count("a"), taken.count("b")) == (15, 5)


def test_priority_goes_before_fairness() -> None:
    scene = Scene()
    scene.publish(*[limited(f"low{n}", fairness_key="low") for n in range(3)])
    scene.publish(
        *[replace(limited(f"high{n}", fairness_key="high"), priority=9) for n in range(3)]
    )

    scene.register(prefetch_count=3)

    assert scene.take_ids() == ["high0", "high1", "high2"]


def test_a_limited_message_of_an_unknown_task_waits_apart() -> None:
    scene = Scene()
    scene.register("s1", tasks=["known"])

    scene.publish(replace(limited("parked", SLOW), task="unknown"), new("free", task="known"))
    first = scene.take_ids("s1")
    scene.register("s2", tasks=["unknown"])

    assert first == ["free"]
    assert scene.take_ids("s2") == ["parked"]
    assert scene.faults() == []
