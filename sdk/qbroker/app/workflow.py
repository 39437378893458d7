"""From a canvas to a workflow: the messages of all its tasks, and what waits for what, in one message.

Two steps, both linear in what the canvas is made of and without recursion, so a chain may be as long as one likes:

1. **Laying out.** Each signature becomes a row of steps: a task, or several at once (the header of a chord, a group).
   What follows a step waits for its *join*. A task's join has one member, and its value is the task's;
   a group's has one for each of its tasks, and its value is the list of theirs. Nobody waits for a join that
   nothing follows, and so there is none. A value may have its place in a join further out: that of the group
   whose member the row is.
2. **Writing.** When all ids are known, each task's message is written, with what it waits for, where its value
   goes, what follows it and its errbacks.

Options reach tasks as in Celery: those of a chain its first task, those of a group all its tasks, those of a chord both
header and body but for times, which are the header's. `link` goes to the last task, and `link_error` to
all of a chain and to the body of a chord.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from qbroker import envelope
from qbroker.app.sending import Call, relative_ms
from qbroker.canvas.primitives import (
    _chain,
    _chord,
    another,
    chunks,
    flat,
    group,
    is_nothing,
    link_body,
)
from qbroker.canvas.signature import Signature, as_links, as_list, maybe_signature
from qbroker.exceptions import ImproperlyConfigured
from qbroker.ids import uuid7
from qbroker.result import AsyncResult, GroupResult
from qbroker.serialization import Value
from qbroker_proto import checksum
from qbroker_proto.v1.message_pb2 import Join, Message, Workflow

__all__ = [
    "Layout",
    "Place",
    "Plan",
    "inherit",
    "is_composite",
    "lay_out",
    "place_of",
    "write",
]

Sig = Signature[Value]
Options = dict[str, Value]

ACCUMULATE_TASK = "celery.accumulate"
"""The task whose value is what it is given."""
START_TASK = "celery.start"
"""The task that stands for an errback that is more than one task: it becomes that canvas when it runs."""


class Prepare(Protocol):
    """Makes a call's message as the app does it: its settings, its task's attributes, its signals."""

    def __call__(
        self,
        sig: Sig,
        args: Sequence[Value],
        kwargs: Mapping[str, Value],
        options: Options,
        *,
        is_checked: bool,
    ) -> Call: ...


class Place(NamedTuple):
    """Where a value goes: it is a member of a join."""

    join_id: str
    number: int


class _After(NamedTuple):
    """What a step waits for."""

    join_id: str
    is_list: bool
    entry_id: str
    """The join whose failure is no failure of a chord that begins here: errbacks of its body do not run then. For the header
    of a chord that is another's body that is what the other waited for."""


class _Group(NamedTuple):
    """The Celery group that a task is in."""

    id: str
    number: int


@dataclass(slots=True)
class _Step:
    """A task, or several at once: `members` with the group's id."""

    sig: Sig | None
    members: list[Sig]
    args: tuple[Value, ...] = ()
    kwargs: Mapping[str, Value] = field(default_factory=dict)
    options: Options = field(default_factory=dict)
    links: list[Value] = field(default_factory=list)
    errbacks: list[Value] = field(default_factory=list)
    id: str = ""
    group: _Group | None = None
    is_body: bool = False
    """It is the first task of a chord's body."""
    takes_input: bool = True
    result: Value = None


@dataclass(slots=True)
class _Part:
    """A signature on its way to becoming steps, with what reaches it from around it."""

    sig: Sig
    args: tuple[Value, ...] = ()
    kwargs: Mapping[str, Value] = field(default_factory=dict)
    options: Options = field(default_factory=dict)
    links: list[Value] = field(default_factory=list)
    errbacks: list[Value] = field(default_factory=list)
    id: str | None = None
    group: _Group | None = None
    is_body: bool = False
    takes_input: bool = True


@dataclass(slots=True)
class _Node:
    """A task of the workflow."""

    step: _Step
    after: _After | None
    parent: Value
    """The result of what came before it."""
    place: Place | None = None
    followers: list[Value] = field(default_factory=list)
    """Results of what follows it."""


class _Row(NamedTuple):
    """A signature that is to be laid out, and where."""

    part: _Part
    after: _After | None
    parent: Value
    place: Place | None
    take: Callable[[Value], None]
    """Is given the row's result, that of its last step."""
    begin: Callable[[Value], None]
    """Is given the result of its first."""
    is_forced: bool = False


@dataclass(slots=True)
class Plan:
    """A canvas, laid out."""

    nodes: list[_Node]
    joins: list[Join]
    result: Value


@dataclass(slots=True)
class Layout:
    """A canvas as messages: each with its id, and the joins they speak of."""

    result: Value
    calls: list[Call]
    joins: list[Join]

    def workflow(self, workflow_id: str, messages: Sequence[bytes] | None = None) -> bytes:
        """The message of the whole workflow, or of these of its messages."""
        raw = [call.message for call in self.calls] if messages is None else messages
        workflow = Workflow(messages=raw, joins=self.joins)
        return checksum.sealed(Message(id=workflow_id, workflow=workflow).SerializeToString())


def place_of(message: Message) -> Place | None:
    """Where a message's value goes."""
    return Place(message.join_id, message.join_index) if message.join_id else None


def inherit(own: bytes, message: Message) -> bytes:
    """The message that takes another's place, with what follows that one."""
    heir = Message.FromString(own)
    heir.followers.extend(message.followers)
    heir.parent_id = message.parent_id
    heir.ClearField("checksum")
    return checksum.sealed(heir.SerializeToString())


def is_composite(sig: Value) -> bool:
    """Whether it is more than one task."""
    return isinstance(sig, _chain | _chord | group | chunks)


_NOT_FOR_TASKS = frozenset(
    [
        "chain",
        "chord",
        "group_id",
        "group_index",
        "link",
        "link_error",
        "parent_id",
        "root_id",
        "task_id",
    ]
)
"""Options that say where a task stands, not how it is called."""
_HEADER_ONLY = ("countdown", "eta")
_NOT_FOR_ERRBACKS = ("chain", "countdown", "expires", "link", "link_error")
"""Options that count from when the errback is called, or make it more than a message."""


# -- laying out ----------------------------------------------------------------------------------


def _steps_of(first: _Part, app: Value) -> list[_Step]:
    """The row of a signature."""
    steps: list[_Step] = []
    left = [first]
    while left:
        part = left.pop()
        sig = part.sig
        if isinstance(sig, _chord):
            left += reversed(_parts_of_chord(sig, part))
        elif isinstance(sig, _chain):
            left += reversed(_parts_of_chain(sig, part))
        elif isinstance(sig, chunks):
            part.sig = sig.group()
            left.append(part)
        elif isinstance(sig, group):
            steps += _step_of_group(sig, part, app)
        else:
            following = as_list(part.options.get("chain", sig.options.get("chain")))
            steps.append(_step_of_task(sig, part, is_last=not following))
            # Celery keeps the rest of a chain with its first task, the last one first.
            for place, rest in enumerate(following):
                left.append(_Part(maybe_signature(rest, app)))
                if not place:
                    left[-1].links, left[-1].id = part.links, part.id
                    left[-1].group = part.group
    return steps


def _parts_of_chain(sig: _chain, part: _Part) -> list[_Part]:
    options = sig._merge(None, None, part.options)[2]  # noqa: SLF001 - a signature's own
    tasks = sig.steps()
    errbacks = [*as_links(options, "link_error"), *part.errbacks]
    given = (*part.args, *sig.args) if not sig.immutable else tuple(sig.args)
    parts = [_Part(task, errbacks=errbacks) for task in tasks]
    if not parts:
        return []
    head, last = parts[0], parts[-1]
    head.args, head.kwargs = given, part.kwargs
    head.options = {key: value for key, value in options.items() if key not in _NOT_FOR_TASKS}
    head.is_body, head.takes_input = part.is_body, part.takes_input
    last.links = [*as_links(options, "link"), *part.links]
    last.id = part.id or options.get("task_id")
    last.group = part.group
    return parts


def _parts_of_chord(sig: _chord, part: _Part) -> list[_Part]:
    chord, kwargs = sig.with_body(part.kwargs)
    if chord.body is None:
        raise ImproperlyConfigured(f"a chord needs a body to be sent: {sig!r}")
    body_sig = maybe_signature(chord.body, sig.app)
    options = sig._merge(None, None, part.options)[2]  # noqa: SLF001 - a signature's own
    passed = {key: value for key, value in options.items() if key not in _NOT_FOR_TASKS}
    header = [maybe_signature(task, sig.app) for task in chord.header]
    header_sig = group(
        [_with_header_errbacks(task, part.errbacks, sig.app) for task in header]
        if part.errbacks and sig.app.conf.task_allow_error_cb_on_chord_header
        else header,
        app=sig.app,
    )
    header_id = chord.tasks.options.get("task_id") if isinstance(chord.tasks, group) else None
    own_id = sig.options.get("task_id")
    if own_id is not None and header_id is None:
        # Where freezing chose it, it is the header's, and the body has one, too; where a caller did, the result's.
        if body_sig.options.get("task_id"):
            header_id = own_id
        else:
            part.id = part.id or own_id
    given = (*part.args, *sig.args) if not sig.immutable else tuple(sig.args)
    links = [*as_links(options, "link"), *part.links]
    if isinstance(body_sig, group) and body_sig.tasks and links:
        body_sig = body_sig.clone()
        for link in links:
            link_body(body_sig, link, sig.app)
        links = []
    body = _Part(
        body_sig,
        options={key: value for key, value in passed.items() if key not in _HEADER_ONLY},
        links=links,
        errbacks=[*as_links(options, "link_error"), *part.errbacks],
        id=part.id,
        group=part.group,
        is_body=True,
    )
    if is_nothing(header_sig):
        # Nothing to wait for: the body is called with what nothing returned.
        body.args, body.takes_input = ([],), False
        return [body]
    return [
        _Part(
            header_sig,
            given,
            {**sig.kwargs.get("kwargs", {}), **kwargs},
            passed,
            id=header_id,
            takes_input=part.takes_input,
        ),
        body,
    ]


def _with_header_errbacks(task: Sig, errbacks: Sequence[Value], app: Value) -> Sig:
    """A task of a chord's header, with what `link_error` of that chord gives it."""
    linked = task.clone()
    for errback in errbacks:
        # One that a task inherits is written already, and as it is.
        if not isinstance(errback, bytes):
            linked.link_error(maybe_signature(errback, app).clone().set(immutable=True))
    return linked


def _step_of_group(sig: group, part: _Part, app: Value) -> list[_Step]:
    options = sig._merge(None, None, part.options)[2]  # noqa: SLF001 - a signature's own
    members = flat(sig.tasks, app)
    return [
        _Step(
            None,
            members,
            part.args,
            part.kwargs,
            {key: value for key, value in options.items() if key not in _NOT_FOR_TASKS},
            [*as_links(options, "link"), *part.links],
            [*as_links(options, "link_error"), *part.errbacks],
            part.id or options.get("task_id") or uuid7(),
            takes_input=part.takes_input,
            is_body=False,
        )
    ]


def _step_of_task(sig: Sig, part: _Part, *, is_last: bool) -> _Step:
    args, kwargs, options = sig._merge(part.args, part.kwargs, part.options)  # noqa: SLF001 - a signature's own
    errbacks: list[Value] = []
    for errback in (*as_links(options, "link_error"), *part.errbacks):
        if errback not in errbacks:
            errbacks.append(errback)
    links: list[Value] = []
    for link in (*as_links(options, "link"), *(part.links if is_last else ())):
        if link not in links:
            links.append(link)
    own_group = part.group
    if own_group is None and options.get("group_id"):
        own_group = _Group(options["group_id"], options.get("group_index") or 0)
    return _Step(
        sig,
        [],
        args,
        kwargs,
        options,
        links,
        errbacks,
        options.get("task_id") or (part.id if is_last else None) or uuid7(),
        own_group if is_last else None,
        is_body=part.is_body,
        takes_input=part.takes_input and not sig.immutable,
    )


def lay_out(
    sig: Sig,
    args: Sequence[Value] | None,
    kwargs: Mapping[str, Value] | None,
    options: Mapping[str, Value],
    *,
    app: Value,
    task_id: str | None = None,
    is_forced: bool = False,
    place: Place | None = None,
    group_place: tuple[str, int] | None = None,
    errbacks: Sequence[Value] = (),
) -> Plan:
    """Give every task its id, and say what waits for what.

    With `is_forced` the last task has the id, and its value is the canvas's, whatever it is made of.
    """
    results: list[Value] = [None]
    nodes: list[_Node] = []
    joins: list[Join] = []
    part = _Part(
        sig, tuple(args or ()), dict(kwargs or {}), dict(options),
        errbacks=list(errbacks), id=task_id, group=_Group(*group_place) if group_place else None,
    )  # fmt: skip
    rows = [_Row(part, None, None, place, _put(results, 0), _nowhere, is_forced=is_forced)]
    while rows:
        row = rows.pop()
        later: list[_Row] = []
        _lay_row(row, app, nodes, joins, later)
        rows += reversed(later)
    return Plan(nodes, joins, results[0])


def _put(results: list[Value], place: int) -> Callable[[Value], None]:
    def take(result: Value) -> None:
        results[place] = result

    return take


def _part_of(link: Value, app: Value) -> _Part:
    return _Part(maybe_signature(link, app))


def _nowhere(result: Value) -> None:
    """Nobody asks."""


def _lay_row(
    row: _Row, app: Value, nodes: list[_Node], joins: list[Join], later: list[_Row]
) -> None:
    steps = _steps_of(row.part, app)
    if len(steps) > 1:
        steps = [step for step in steps if step.sig is not None or step.members]
    if row.is_forced:
        _make_one_last(steps, row.part, app)
    after, before = row.after, row.parent
    result: Value = None
    waiting: list[_Node] = []
    for number, step in enumerate(steps, 1):
        is_last = number == len(steps)
        place = row.place if is_last else None
        followed, waiting = waiting, []
        if step.sig is None:
            made = _lay_group(
                step, app, after, before, place, joins, later, is_followed=not is_last
            )
            next_after = _After(step.id, is_list=True, entry_id=after.entry_id if after else "")
        else:
            made = AsyncResult(step.id, None, step.sig.task, app)
            node = _Node(step, after, before, place)
            nodes.append(node)
            waiting.append(node)
            next_after = None
            if not is_last or step.links:
                join_id = uuid7()
                next_after = _After(join_id, is_list=False, entry_id=join_id)
                node.place = Place(next_after.join_id, 0)
                joins.append(_join(next_after.join_id, 1, place))
            later += [
                _Row(_part_of(link, app), next_after, made, None, _nowhere, node.followers.append)
                for link in step.links
            ]
        for node in followed:
            node.followers.insert(0, made)
        if number == 1:
            row.begin(made)
        made.parent = result
        result, before, after = made, made, next_after
    row.take(result)


def _make_one_last(steps: list[_Step], part: _Part, app: Value) -> None:
    """Let the row end in a task with nothing else to it, under the id that was asked for."""
    last = steps[-1]
    if last.sig is None or last.links:
        last.id, last.group = uuid7(), None
        sig: Sig = Signature(ACCUMULATE_TASK, kwargs={"index": 0}, app=app)
        last = _Step(sig, [], kwargs=sig.kwargs, group=part.group, is_body=last.sig is None)
        steps.append(last)
    assert part.id is not None, "an id was asked for"
    last.id = part.id


def _join(join_id: str, size: int, place: Place | None, *, entry: _After | None = None) -> Join:
    return Join(
        id=join_id,
        size=size,
        is_list=False,
        join_id=place.join_id if place else "",
        join_index=place.number if place else 0,
        entry_id=entry.entry_id if entry else "",
    )


def _lay_group(
    step: _Step,
    app: Value,
    after: _After | None,
    before: Value,
    place: Place | None,
    joins: list[Join],
    later: list[_Row],
    *,
    is_followed: bool,
) -> Value:
    results: list[Value] = [None] * len(step.members)
    made = GroupResult(step.id, (), app=app)
    made.results = results
    is_joined = is_followed or place is not None
    if is_joined and step.members:
        join = _join(step.id, len(step.members), place, entry=after)
        join.is_list = True
        joins.append(join)
    for index, member in enumerate(step.members):
        part = _Part(
            member,
            step.args,
            step.kwargs,
            step.options,
            [another(maybe_signature(link, app)) for link in step.links] if index else step.links,
            step.errbacks,
            group=_Group(step.id, index),
            takes_input=step.takes_input,
        )
        where = Place(step.id, index) if is_joined else None
        later.append(_Row(part, after, before, where, _put(results, index), _nowhere))
    return made


# -- writing -------------------------------------------------------------------------------------


def _last_id(result: Value) -> str:
    while isinstance(result, GroupResult):
        result = result.results[-1]
    found: str = result.id
    return found


def _child(result: Value) -> str:
    if isinstance(result, GroupResult):
        return envelope.encode_child(str(result.id), [str(one.id) for one in result.results])
    return envelope.encode_child(result.id)


def write(
    plan: Plan,
    prepare: Prepare,
    *,
    root_id: str | None,
    parent_id: str | None,
    nesting: int = 0,
) -> Layout:
    """The messages of a plan. `root_id` and `parent_id` are of what begins it; None: the first task is the root."""
    if root_id is None:
        root_id = next((node.step.id for node in plan.nodes if node.after is None), None)
    calls = []
    for node in plan.nodes:
        step = node.step
        assert step.sig is not None, "a node is a task"
        options = {key: value for key, value in step.options.items() if key not in _NOT_FOR_TASKS}
        more = Message()
        if node.after is not None:
            more.waits_for = node.after.join_id
            more.fails_as_chord = step.is_body and node.after.is_list
            if step.takes_input:
                more.takes_input = True
                more.input_is_list = node.after.is_list
            _make_relative(more, options, step.sig)
        if node.place is not None:
            more.join_id, more.join_index = node.place
        if step.group is not None:
            more.group_id, more.group_index = step.group
        more.followers.extend(_child(follower) for follower in node.followers)
        for errback in step.errbacks:
            more.errbacks.append(_write_errback(errback, step, root_id, prepare))
        options["task_id"] = step.id
        options["root_id"] = root_id
        options["parent_id"] = parent_id if node.parent is None else _last_id(node.parent)
        if nesting:
            options["embed"] = {"replaced_task_nesting": nesting}
        takes_input = node.after is not None and step.takes_input
        if takes_input:
            options["takes_input"] = True
        call = prepare(step.sig, step.args, step.kwargs, options, is_checked=not takes_input)
        # Protobuf messages in a row are one.
        call.message = checksum.sealed(call.message + more.SerializeToString())
        calls.append(call)
    return Layout(plan.result, calls, plan.joins)


def _make_relative(more: Message, options: Options, sig: Sig) -> None:
    """Times of a task that waits count from when it need not wait any more."""
    name = sig.task
    countdown = options.pop("countdown", None)
    if countdown is not None:
        more.delay_ms = relative_ms("countdown", countdown, name)
        options.pop("eta", None)
    # None takes back what the task's attribute says, so it is looked for, not got.
    expires = options["expires"] if "expires" in options else _own_expires(sig)
    if isinstance(expires, int | float) and not isinstance(expires, bool):
        more.lifetime_ms = max(1, relative_ms("expires", expires, name))
        options["expires"] = None


def _own_expires(sig: Sig) -> Value:
    return getattr(sig._known_task(), "expires", None)  # noqa: SLF001 - a signature's own


def _write_errback(errback: Value, failing: _Step, root_id: str | None, prepare: Prepare) -> bytes:
    if isinstance(errback, bytes):
        return errback
    assert failing.sig is not None, "a node is a task"
    sig = maybe_signature(errback, failing.sig.app)
    args, kwargs, options = tuple(sig.args), sig.kwargs, sig.options
    embed = {"immutable": True} if sig.immutable else {}
    if is_composite(sig) or any(options.get(key) is not None for key in _NOT_FOR_ERRBACKS):
        # The broker publishes one message, at once: of a task that becomes all of it when it runs.
        args, kwargs, options, embed = (sig,), {}, {}, {}
        sig = Signature(START_TASK, args, app=sig.app)
    errback_id = options.get("task_id") or uuid7()
    call_options = {key: value for key, value in options.items() if key not in _NOT_FOR_TASKS}
    call = prepare(
        sig,
        args,
        kwargs,
        {
            **call_options,
            "task_id": errback_id,
            "root_id": root_id,
            "parent_id": failing.id,
            "unique_key": None,
            "embed": embed,
            "takes_input": not sig.immutable,
        },
        is_checked=False,
    )
    return call.message
