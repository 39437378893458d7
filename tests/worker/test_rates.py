"""Rates of tasks: what starts when, what is set aside, what is given back."""

from qbroker_worker.rates import Rates
from tests.worker.toys import delivery, ids


def test_a_task_without_a_rate_starts_as_it_comes() -> None:
    jobs = [delivery("fast") for _ in range(5)]

    assert Rates({"slow": 1.0}).sort(jobs, 0.0) == (jobs, [])
    assert Rates({}).sort(jobs, 0.0) == (jobs, [])


def test_a_limited_task_starts_evenly_and_holds_up_no_other() -> None:
    rates = Rates({"slow": 10.0})
    slow, fast = [delivery("slow") for _ in range(3)], delivery("fast")

    ready, excess = rates.sort([*slow, fast], 5.0)

    assert (ready, excess) == ([slow[0], fast], [])
    assert (rates.aside_count, rates.next_at) == (2, 5.1)
    assert rates.due(5.05) == []
    assert rates.due(5.1) == [slow[1]]
    assert rates.due(5.25) == [slow[2]]
    assert rates.next_at is None


def test_time_without_calls_saves_up_one_start_and_not_many() -> None:
    rates = Rates({"slow": 10.0})
    rates.sort([delivery("slow")], 0.0)

    ready, _ = rates.sort([delivery("slow") for _ in range(3)], 60.0)

    assert len(ready) == 1


def test_a_timer_that_is_late_costs_nothing_of_the_rate() -> None:
    rates = Rates({"slow": 10.0})
    rates.sort([delivery("slow") for _ in range(9)], 0.0)

    started = [len(rates.due(moment)) for moment in (0.15, 0.21, 0.31)]

    assert started == [1, 1, 1]


def test_what_a_second_will_not_start_is_given_back_and_no_more_is_wanted() -> None:
    rates = Rates({"slow": 4.0})
    jobs = [delivery("slow") for _ in range(10)]

    ready, excess = rates.sort(jobs, 0.0)

    assert (ready, excess) == (jobs[:1], jobs[5:])
    assert rates.unwanted == {"slow"}
    assert rates.due(0.25) == [jobs[1]]
    assert rates.unwanted == {"slow"}
    assert rates.due(0.5) == [jobs[2]]
    assert rates.unwanted == frozenset()


def test_at_least_one_is_set_aside_however_slow_the_rate() -> None:
    rates = Rates({"slow": 0.01})
    jobs = [delivery("slow") for _ in range(3)]

    assert rates.sort(jobs, 0.0) == ([jobs[0]], [jobs[2]])


def test_another_rate_holds_from_then_on() -> None:
    rates = Rates({"slow": 0.01})
    first, second = delivery("slow"), delivery("slow")
    rates.sort([first, second], 0.0)

    aside = rates.set("slow", 0.0)

    assert rates.sort(aside, 0.0) == ([second], [])
    assert rates.set("slow", 1.0) == []
    assert rates.sort([delivery("slow"), delivery("slow")], 0.0)[1] == []
    assert rates.aside_count == 1


def test_what_was_set_aside_can_be_taken_out() -> None:
    rates = Rates({"slow": 3.0})
    jobs = [delivery("slow") for _ in range(4)]
    rates.sort(jobs, 0.0)

    assert rates.discard(jobs[2])
    assert not rates.discard(jobs[0])
    assert not rates.discard(delivery("fast"))
    assert ids(rates.withdraw()) == [jobs[1].id, jobs[3].id]
    assert rates.aside_count == 0


def test_who_has_a_rate_is_known() -> None:
    rates = Rates({"a": 1.0, "b": 2.0})

    rates.set("a", 0.0)

    assert rates.limited == {"b"}
