"""The session against links that break, and a broker that fits in the head."""

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from qbroker_worker.session import REQUEST_ITEMS_MAX, Heard, Hello, Request, Session
from qbroker_worker.values import SUCCESS, Delivery, Lease


def _delivery(number: int, attempt: int = 1) -> Delivery:
    return Delivery(f"id-{number}", attempt, attempt > 1, "proj.add", "celery", False, b"message")


def _linked(*deliveries: Delivery) -> Session:
    session = Session(2)
    session.greet()
    session.heard(Heard(is_registered=True, deliveries=deliveries))
    return session


def _settle(session: Session, delivery: Delivery, result: bytes = b"4") -> bool:
    return session.settle(delivery, SUCCESS, result, requeue=False)


def test_a_new_session_greets_with_its_window_and_has_nothing_else_to_say() -> None:
    session = Session(2)

    hello = session.greet()

    assert hello == Hello(prefetch_count=2, held=())
    assert session.next_request() is None


def test_what_piled_up_leaves_as_one_request() -> None:
    first, second, third = (_delivery(n) for n in range(3))
    session = _linked(first, second, third)

    session.start(second, pid=7)
    _settle(session, first)
    session.release([third])
    session.want(8, floor=2)
    request = session.next_request()

    assert request is not None
    assert request.seq == 1
    assert [start.id for start in request.starts] == [second.id]
    assert [settle.id for settle in request.settles] == [first.id]
    assert request.releases == (Lease(third.id, 1),)
    assert request.prefetch_count == 8
    assert session.next_request() is None


def test_what_is_to_begin_is_told_of_and_heard_of_when_that_is_stored() -> None:
    first, second = _delivery(1, attempt=3), _delivery(2, attempt=3)
    session = _linked(first, second)

    session.begin(first)
    session.begin(second)
    said = session.next_request()
    session.hang_up()
    session.greet()
    again = session.next_request()
    session.settle(second, SUCCESS, b"")

    assert said is not None
    assert [start.id for start in said.starts] == [first.id, second.id]
    assert again == said
    # The other has ended meanwhile, and is not to begin.
    assert session.heard(Heard(applied_seq=said.seq)).begun == [first]
    assert session.heard(Heard(applied_seq=said.seq)).begun == []


def test_what_is_lost_before_its_start_is_stored_does_not_begin() -> None:
    delivery = _delivery(1, attempt=3)
    session = _linked(delivery)

    session.begin(delivery)
    request = session.next_request()
    assert request is not None
    news = session.heard(Heard(applied_seq=request.seq, lost=[Lease(delivery.id, 3)]))

    assert news.lost == [delivery]
    assert news.begun == []


def test_a_task_whose_settle_leaves_in_the_same_request_is_not_reported_as_started() -> None:
    delivery = _delivery(1)
    session = _linked(delivery)

    session.start(delivery, pid=7)
    _settle(session, delivery)
    request = session.next_request()

    assert request is not None
    assert request.starts == ()
    assert len(request.settles) == 1


def test_nothing_is_said_without_a_link() -> None:
    delivery = _delivery(1)
    session = _linked(delivery)
    session.hang_up()

    _settle(session, delivery)

    assert session.next_request() is None
    assert not session.is_flushed


def test_what_was_not_applied_is_said_again_on_the_next_link_under_its_number() -> None:
    first, second = _delivery(1), _delivery(2)
    session = _linked(first, second)
    _settle(session, first)
    said = session.next_request()
    session.hang_up()
    _settle(session, second)

    hello = session.greet()

    assert {lease.id for lease in hello.held} == {first.id, second.id}
    assert session.next_request() == said
    request = session.next_request()
    assert request is not None
    assert [settle.id for settle in request.settles] == [second.id]
    assert request.seq == 2


def test_what_was_applied_is_not_said_again() -> None:
    delivery = _delivery(1)
    session = _linked(delivery)
    _settle(session, delivery)
    session.next_request()

    session.heard(Heard(applied_seq=1))
    session.hang_up()
    hello = session.greet()

    assert hello.held == ()
    assert session.next_request() is None
    assert session.is_flushed


def test_the_result_of_a_lost_lease_is_refused() -> None:
    delivery = _delivery(1)
    session = _linked(delivery)

    news = session.heard(Heard(lost=[Lease(delivery.id, 1)]))

    assert list(news.lost) == [delivery]
    assert not _settle(session, delivery)
    assert session.next_request() is None


def test_losing_an_older_attempt_leaves_the_newer_one_alone() -> None:
    newer = _delivery(1, attempt=2)
    session = _linked(newer)

    news = session.heard(Heard(lost=[Lease(newer.id, 1)]))

    assert not news.lost
    assert _settle(session, newer)


def test_a_newer_attempt_takes_the_place_of_the_older_one() -> None:
    older, newer = _delivery(1, attempt=1), _delivery(1, attempt=2)
    session = _linked(older)

    news = session.heard(Heard(deliveries=[newer]))

    assert list(news.lost) == [older]
    assert list(news.fresh) == [newer]
    assert not _settle(session, older)
    assert _settle(session, newer)


def test_a_delivery_heard_twice_is_run_once() -> None:
    delivery = _delivery(1)
    session = _linked(delivery)

    news = session.heard(Heard(deliveries=[_delivery(1)]))

    assert not news.fresh
    assert not news.lost


def test_a_change_of_the_window_is_said_only_when_it_matters() -> None:
    session = _linked()
    session.want(100, floor=2)
    session.next_request()

    session.want(110, floor=2)
    assert session.next_request() is None
    session.want(50, floor=2)
    halved = session.next_request()
    session.want(3, floor=2)
    session.next_request()
    session.want(2, floor=2)
    at_floor = session.next_request()

    assert halved is not None
    assert halved.prefetch_count == 50
    assert at_floor is not None
    assert at_floor.prefetch_count == 2


def test_a_draining_session_gives_back_what_still_arrives() -> None:
    session = _linked()
    session.drain()
    session.next_request()

    news = session.heard(Heard(deliveries=[_delivery(1)]))
    request = session.next_request()

    assert not news.fresh
    assert request is not None
    assert request.releases == (Lease("id-1", 1),)


def test_draining_is_said_again_after_a_reconnect_and_with_an_empty_window() -> None:
    session = _linked()
    session.drain()
    session.next_request()
    session.heard(Heard(applied_seq=1))
    session.hang_up()

    hello = session.greet()
    request = session.next_request()

    assert hello.prefetch_count == 0
    assert request is not None
    assert request.drain


def test_farewell_comes_after_everything_else() -> None:
    deliveries = [_delivery(n) for n in range(REQUEST_ITEMS_MAX + 1)]
    session = _linked(*deliveries)
    for delivery in deliveries:
        _settle(session, delivery)

    session.leave()
    first, second = session.next_request(), session.next_request()

    assert first is not None
    assert (len(first.settles), first.leave) == (REQUEST_ITEMS_MAX, False)
    assert second is not None
    assert (len(second.settles), second.leave) == (1, True)
    assert not session.has_left
    session.heard(Heard(applied_seq=2))
    assert session.has_left


def test_a_link_that_breaks_after_the_farewell_ends_the_session() -> None:
    session = _linked()
    session.leave()
    session.next_request()

    session.hang_up()

    assert session.has_left


def test_a_link_that_breaks_before_the_last_settle_was_applied_does_not_end_the_session() -> None:
    delivery = _delivery(1)
    session = _linked(delivery)
    _settle(session, delivery)
    session.next_request()
    session.leave()
    session.next_request()

    session.hang_up()

    assert not session.has_left


def test_requests_stay_below_their_limit_of_bytes() -> None:
    deliveries = [_delivery(n) for n in range(4)]
    session = _linked(*deliveries)
    for delivery in deliveries:
        _settle(session, delivery, b"x" * 1_500_000)

    sizes = []
    while (request := session.next_request()) is not None:
        sizes.append(len(request.settles))

    assert sizes == [1, 1, 1, 1]


class _Broker:
    """A broker that fits in the head: leases with attempts, and requests applied once, in order."""

    def __init__(self) -> None:
        self.attempt: dict[str, int] = {}
        self.leased: dict[str, int] = {}
        self.queued: list[str] = []
        self.settled: dict[str, bytes] = {}
        self.settle_count: dict[str, int] = {}
        self.applied_seq = 0

    def publish(self, id_: str) -> None:
        self.attempt[id_] = 0
        self.queued.append(id_)

    def deliver(self) -> Delivery:
        id_ = self.queued.pop(0)
        self.attempt[id_] += 1
        self.leased[id_] = self.attempt[id_]
        return Delivery(id_, self.attempt[id_], False, "proj.add", "celery", False, b"")

    def register(self, hello: Hello) -> list[Lease]:
        held = set(hello.held)
        for id_, attempt in list(self.leased.items()):
            if Lease(id_, attempt) not in held:
                self._give_back(id_)
        return [lease for lease in held if self.leased.get(lease.id) != lease.attempt]

    def apply(self, request: Request) -> None:
        if request.seq <= self.applied_seq:
            return
        assert request.seq == self.applied_seq + 1, "requests come in order and without gaps"
        self.applied_seq = request.seq
        for settle in request.settles:
            if self.leased.get(settle.id) == settle.attempt:
                del self.leased[settle.id]
                self.settled[settle.id] = settle.result
                self.settle_count[settle.id] = self.settle_count.get(settle.id, 0) + 1
        for lease in request.releases:
            if self.leased.get(lease.id) == lease.attempt:
                self._give_back(lease.id)

    def end_grace(self) -> None:
        for id_ in list(self.leased):
            self._give_back(id_)

    def _give_back(self, id_: str) -> None:
        del self.leased[id_]
        self.queued.insert(0, id_)


class SessionMachine(RuleBasedStateMachine):
    """Links break between any two steps, on either way; nothing is lost and nothing settles twice."""

    @initialize()
    def begin(self) -> None:
        self.session = Session(2)
        self.broker = _Broker()
        self.is_linked = False
        self.up: list[Hello | Request] = []
        self.down: list[Heard] = []
        self.working: dict[str, Delivery] = {}
        self.finished: set[str] = set()
        self.number = 0
        # Most of what may go wrong needs work at hand.
        for _ in range(4):
            self.publish()
        self.connect()
        self.arrive()
        for _ in range(3):
            self.deliver()
        while self.down:
            self.hear()

    @rule()
    def publish(self) -> None:
        self.number += 1
        self.broker.publish(f"id-{self.number}")

    @precondition(lambda self: not self.is_linked)
    @rule()
    def connect(self) -> None:
        self.up, self.down = [self.session.greet()], []
        self.is_linked = True

    @precondition(lambda self: self.is_linked)
    @rule()
    def break_link(self) -> None:
        self.session.hang_up()
        self.is_linked = False

    @precondition(lambda self: not self.is_linked)
    @rule()
    def end_grace(self) -> None:
        self.broker.end_grace()
        self.finished.clear()

    @precondition(lambda self: self.is_linked)
    @rule()
    def speak(self) -> None:
        request = self.session.next_request()
        if request is not None:
            self.up.append(request)

    @precondition(lambda self: self.is_linked and self.up)
    @rule()
    def arrive(self) -> None:
        said = self.up.pop(0)
        if isinstance(said, Hello):
            lost = self.broker.register(said)
            self.down.append(
                Heard(is_registered=True, applied_seq=self.broker.applied_seq, lost=lost)
            )
        else:
            self.broker.apply(said)
            self.down.append(Heard(applied_seq=self.broker.applied_seq))

    @precondition(
        lambda self: (
            self.is_linked
            and self.broker.queued
            and not any(isinstance(said, Hello) for said in self.up)
        )
    )
    @rule()
    def deliver(self) -> None:
        self.down.append(Heard(deliveries=[self.broker.deliver()]))

    @precondition(lambda self: self.is_linked and self.down)
    @rule()
    def hear(self) -> None:
        news = self.session.heard(self.down.pop(0))
        for delivery in news.lost:
            if self.working.get(delivery.id) is delivery:
                del self.working[delivery.id]
        for delivery in news.fresh:
            assert delivery.id not in self.working, "what was there was lost first"
            assert delivery.id not in self.finished, "what was finished is not run again"
            self.working[delivery.id] = delivery
        if not self.down and not any(isinstance(said, Hello) for said in self.up):
            for delivery in self.working.values():
                assert self.broker.leased.get(delivery.id) == delivery.attempt

    @precondition(lambda self: self.working)
    @rule()
    def finish(self) -> None:
        self.settle_one()
        self.speak_if_linked()

    def settle_one(self) -> None:
        delivery = self.working.pop(min(self.working))
        assert _settle(self.session, delivery)
        if self.broker.leased.get(delivery.id) == delivery.attempt:
            self.finished.add(delivery.id)

    def speak_if_linked(self) -> None:
        if self.is_linked:
            self.speak()

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        delivery = self.working.pop(data.draw(st.sampled_from(sorted(self.working))))
        self.session.release([delivery])

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        delivery = self.working[data.draw(st.sampled_from(sorted(self.working)))]
        self.session.start(delivery, pid=1)

    @invariant()
    def nothing_is_settled_twice(self) -> None:
        assert all(count == 1 for count in self.broker.settle_count.values())

    @invariant()
    def what_the_worker_works_on_is_what_the_session_holds(self) -> None:
        assert self.session.held_count == len(self.working)

    def teardown(self) -> None:
        # However it went: on one good link, all there is comes to its end.
        if not hasattr(self, "session"):
            return
        if not self.is_linked:
            self.connect()
        while self.up or self.down or self.working or self.broker.queued or self._speaks():
            if self.up:
                self.arrive()
            elif self.down:
                self.hear()
            elif self.working:
                _settle(self.session, self.working.popitem()[1])
            elif self.broker.queued:
                self.deliver()
        assert self.session.is_flushed
        assert not self.broker.leased
        assert len(self.broker.settled) == self.number

    def _speaks(self) -> bool:
        before = len(self.up)
        self.speak()
        return len(self.up) > before


STEPS = (
    "finish",
    "finish",
    "arrive",
    "hear",
    "publish",
    "deliver",
    "hear",
    "finish",
    "arrive",
    "hear",
)


@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize("step", range(len(STEPS) + 1))
def test_a_link_that_breaks_at_any_step_loses_nothing_and_settles_nothing_twice(
    step: int, arrives: bool
) -> None:
    machine = SessionMachine()
    machine.begin()
    for name in STEPS[:step]:
        getattr(machine, name)()

    # What is under way to the broker may still reach it, while its answers are lost.
    while arrives and machine.up:
        machine.arrive()
    machine.break_link()
    machine.connect()
    for name in STEPS[step:]:
        if name in ("arrive", "hear") or (name == "finish" and not machine.working):
            continue
        if name == "deliver":
            while machine.up:
                machine.arrive()
        getattr(machine, name)()

    machine.teardown()


SessionMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestSessionMachine = SessionMachine.TestCase


@given(st.lists(st.integers(1, 3_000_000), min_size=1, max_size=8))
def test_however_results_are_cut_into_requests_each_leaves_once_and_in_order(
    sizes: list[int],
) -> None:
    deliveries = [_delivery(n) for n in range(len(sizes))]
    session = _linked(*deliveries)
    for delivery, size in zip(deliveries, sizes, strict=True):
        _settle(session, delivery, bytes(size))

    said = []
    while (request := session.next_request()) is not None:
        said += [settle.id for settle in request.settles]

    assert said == [delivery.id for delivery in deliveries]


def test_what_is_not_wanted_is_said_once_and_again_on_the_next_link() -> None:
    session = _linked()

    session.refuse(frozenset({"slow"}))
    session.refuse(frozenset({"slow"}))
    request = session.next_request()

    assert request is not None
    assert request.unwanted == frozenset({"slow"})
    assert session.next_request() is None
    session.heard(Heard(applied_seq=request.seq))
    session.hang_up()
    session.greet()
    again = session.next_request()
    assert again is not None
    assert again.unwanted == frozenset({"slow"})


def test_what_is_wanted_again_is_said_too() -> None:
    session = _linked()
    session.refuse(frozenset({"slow"}))
    session.next_request()

    session.refuse(frozenset())
    request = session.next_request()

    assert request is not None
    assert request.unwanted == frozenset()
