"""A workflow run by hand: an interpreter of `qbroker.v1.Workflow`, apart from the broker and from the compiler.

It knows the .proto files and nothing else: messages, joins, what waits for what. Whatever may happen at one time is
taken in an order that chance decides. Tasks are run by the SDK's own runner, as a worker's child does.
"""

import random
from dataclasses import dataclass, field

from qbroker import envelope
from qbroker.app.trace import Ran, Runner
from qbroker.envelope import Stored
from qbroker_proto.v1.message_pb2 import Failure, Input, Join, Message

_DEPENDENCY = 9
_STATES = {
    envelope.OUTCOME_SUCCESS: "SUCCESS",
    envelope.OUTCOME_FAILURE: "FAILURE",
    envelope.OUTCOME_REJECTED: "FAILURE",
    envelope.OUTCOME_REVOKED: "REVOKED",
}


@dataclass
class End:
    """How a message ended."""

    state: str
    result: bytes = b""
    end_reason: int = 1
    detail: str = ""
    line: str = ""

    def stored(self) -> Stored:
        """What a client is told."""
        return envelope.decode_result(
            self.state,
            self.result,
            is_final=True,
            end_reason=self.end_reason,
            detail=self.detail,
            accepted=frozenset({"application/json"}),
        )


@dataclass
class _Joining:
    join: Join
    values: dict[int, Input] = field(default_factory=dict)
    is_over: bool = False
    failed: bool = False


class Interpreter:
    """Holds messages and joins, and runs what may run until nothing is left."""

    def __init__(self, run: Runner, chance: random.Random) -> None:
        self._run = run
        self._chance = chance
        self.ends: dict[str, End] = {}
        self.ran: list[str] = []
        self._known: set[str] = set()
        self._ready: list[Message] = []
        self._waiting: dict[str, list[Message]] = {}
        self._joins: dict[str, _Joining] = {}

    def publish(self, raw: bytes) -> None:
        """Take a message or a workflow. A known id changes nothing."""
        message = Message.FromString(raw)
        assert message.id not in self._known or not message.HasField("workflow"), "a workflow twice"
        if message.id in self._known:
            return
        self._known.add(message.id)
        if not message.HasField("workflow"):
            self._admit(message)
            return
        for join in message.workflow.joins:
            assert join.id not in self._joins, "a join twice"
            assert join.size > 0, "a join of nobody"
            assert join.is_list or join.size == 1, "a value of several members"
            self._joins[join.id] = _Joining(join)
        inside = [Message.FromString(one) for one in message.workflow.messages]
        assert len({one.id for one in inside}) == len(inside), "an id twice"
        for one in inside:
            assert one.id not in self._known, "an id that is known"
            self._known.add(one.id)
            self._admit(one)

    def _admit(self, message: Message) -> None:
        if message.waits_for:
            joining = self._joins[message.waits_for]
            assert message.input_is_list == (joining.join.is_list and message.takes_input)
            self._waiting.setdefault(message.waits_for, []).append(message)
        else:
            self._ready.append(message)

    def run(self) -> None:
        """Run everything, one at a time, in any order."""
        while self._ready:
            message = self._ready.pop(self._chance.randrange(len(self._ready)))
            self.ran.append(message.id)
            self._settle(message, self._run(message.SerializeToString(), 1, redelivered=False))
        assert not self._waiting, f"stuck: {list(self._waiting)}"

    def _settle(self, message: Message, ran: Ran) -> None:
        if ran.outcome == envelope.OUTCOME_REPLACED:
            for raw in ran.follow_ups:
                self.publish(raw)
            heir = Message.FromString(ran.message)
            assert heir.id == message.id
            assert (heir.join_id, heir.join_index) == (message.join_id, message.join_index)
            self._admit(heir)
            return
        if ran.outcome == envelope.OUTCOME_RETRY:
            again = Message.FromString(ran.message)
            assert again.id == message.id
            assert not again.inputs, "the broker adds them"
            if again.takes_input:
                again.inputs.extend(message.inputs)
            self._ready.append(again)
            return
        for raw in ran.follow_ups:
            self.publish(raw)
        for raw in ran.added_members:
            member = Message.FromString(raw)
            joining = self._joins[message.join_id]
            assert member.join_id == message.join_id
            member.join_index = joining.join.size
            joining.join.size += 1
            self._known.add(member.id)
            self._admit(member)
        assert ran.outcome in _STATES, f"no end: {ran.outcome}"
        self._end(message, End(_STATES[ran.outcome], ran.result, line=ran.detail), is_own=True)

    def _end(self, message: Message, end: End, *, is_own: bool) -> None:
        assert message.id not in self.ends, f"ended twice: {message.id}"
        self.ends[message.id] = end
        if end.state == "SUCCESS":
            if message.join_id:
                self._value(message.join_id, message.join_index, Input(result=end.result))
            return
        if is_own:
            for raw in message.errbacks:
                errback = Message.FromString(raw)
                if errback.id in self._known:
                    continue
                errback.failure.CopyFrom(
                    Failure(
                        id=message.id,
                        message=message.SerializeToString(),
                        state=end.state,
                        result=end.result,
                        end_reason=end.end_reason,
                        detail=end.detail,
                    )
                )
                self.publish(errback.SerializeToString())
        if message.join_id:
            self._fail(self._joins[message.join_id], message.id, end)

    def _value(self, join_id: str, index: int, value: Input) -> None:
        joining = self._joins[join_id]
        assert index < joining.join.size, "a place beyond the join"
        assert index not in joining.values, "a place taken twice"
        joining.values[index] = value
        if joining.is_over or len(joining.values) < joining.join.size:
            return
        joining.is_over = True
        join = joining.join
        values = [joining.values[place] for place in range(join.size)]
        for message in self._waiting.pop(join.id, []):
            message.inputs.extend(values)
            if not message.takes_input:
                message.ClearField("inputs")
            self._ready.append(message)
        if join.join_id:
            whole = Input(is_list=True, items=values) if join.is_list else values[0]
            self._value(join.join_id, join.join_index, whole)

    def _fail(self, joining: _Joining, member_id: str, end: End) -> None:
        if joining.is_over:
            return
        joining.is_over = joining.failed = True
        join = joining.join
        # A link's failure is its task's own, and told by that; so is what its entry's failure did.
        is_own = join.is_list and (not join.entry_id or not self._joins[join.entry_id].failed)
        for message in self._waiting.pop(join.id, []):
            detail = f"Dependency {member_id} raised {end.line}" if message.fails_as_chord else ""
            self._end(
                message, End("FAILURE", end.result, _DEPENDENCY, detail, end.line), is_own=is_own
            )
        if join.join_id:
            self._fail(self._joins[join.join_id], member_id, end)
