"""What is made of several calls: chain, group, chord; and of one for many arguments: map, starmap, chunks.

They make each other, so they live together. Celery's rules, which `|` and the constructors share:

    task | task          a chain                     group of one        is that one, inside a chain
    chain | chain        one longer chain            empty group, chain  are nothing, inside a chain
    group | task         a chord                     group in a group    its tasks are the outer group's
    chord | task         a chord with a longer body
    … group, task …      in a chain: a chord

How they get to the broker is the app's business (`qbroker.app.workflow`); `apply` runs them right here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import count, islice, repeat
from operator import or_
from typing import Self, cast

from qbroker.canvas.signature import Signature, as_links, checked, maybe_signature, signature
from qbroker.canvas.stamping import StampingVisitor, stamps_of
from qbroker.canvas.text import call_text, cut, without_repeated_module
from qbroker.exceptions import ChordError
from qbroker.ids import uuid7
from qbroker.result import EagerResult, GroupResult
from qbroker.serialization import Value
from qbroker.states import IGNORED, REJECTED

__all__ = [
    "chain",
    "chord",
    "chunks",
    "flat",
    "group",
    "is_nothing",
    "unrolled",
    "xmap",
    "xstarmap",
]

Sig = Signature[Value]


def unrolled(sig: Value) -> Value:
    """A group of one task as that task; anything else as it is."""
    while isinstance(sig, group) and len(sig.tasks) == 1:
        sig = maybe_signature(sig.tasks[0])
    return sig


maybe_unroll_group = unrolled
"""Celery's name for it."""


class _OfParts(Signature[Value]):
    """What is made of signatures, and so has their app where it has none of its own."""

    def _parts(self) -> Iterable[Value]:
        """The signatures."""
        return ()

    def _own_app(self) -> Value:
        if self._app is not None:
            return self._app
        for part in self._parts():
            found = part._own_app() if isinstance(part, Signature) else None  # noqa: SLF001 - of its own kind
            if found is not None:
                return found
        return None


class _Composite(_OfParts):
    """Several calls at once."""

    def apply_async(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        route_name: str | None = None,
        *,
        add_to_parent: bool = True,
        **options: Value,
    ) -> Value:
        """Send all of it, at once or not at all; options that are None change nothing."""
        options = {key: value for key, value in options.items() if value is not None}
        app = self.app
        if app.conf.task_always_eager:
            return app.apply_canvas(self, args, kwargs, options)
        return app.send_canvas(self, args, kwargs, options, add_to_parent=add_to_parent)

    async def aapply_async(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        route_name: str | None = None,
        *,
        add_to_parent: bool = True,
        **options: Value,
    ) -> Value:
        """Do the same without blocking the event loop."""
        options = {key: value for key, value in options.items() if value is not None}
        app = self.app
        if app.conf.task_always_eager:
            return app.apply_canvas(self, args, kwargs, options)
        return await app.asend_canvas(self, args, kwargs, options, add_to_parent=add_to_parent)

    def _call_options(self, options: Mapping[str, Value]) -> dict[str, Value]:
        return self._merge(None, None, options)[2]


# -- chain ---------------------------------------------------------------------------------------


def _with_step(steps: list[Sig], other: Sig) -> Value:
    """Add a step by the rules above; answers `steps`, or what the chain has become instead."""
    if is_nothing(other):
        return steps
    other = unrolled(other)
    if isinstance(other, _chain):
        tasks = other.unchain_tasks()
        for place, task in enumerate(tasks):
            made = _with_step(steps, task)
            if made is not steps:
                return reduce(or_, tasks[place + 1 :], made)
        return steps
    if isinstance(other, group) and not steps:
        return other
    last = steps[-1] if steps else None
    if isinstance(last, _chord) and not isinstance(other, _chord):
        last.body = last.body | other
    elif isinstance(last, group):
        steps[-1] = _chord(last, other)
        if len(steps) > 1 and isinstance(steps[-2], _chord):
            # Two chords in a row are one with a longer body.
            followed = steps.pop()
            before = cast("_chord", steps[-1])
            before.body = before.body | followed
    else:
        steps.append(other)
    return steps


def _fold(sigs: Sequence[Value]) -> Value:
    """What `chain(*sigs)` is."""
    steps: list[Sig] = []
    for place, sig in enumerate(sigs):
        sig = maybe_signature(checked(sig, "a chain"))
        # What a caller keeps is not what the chain changes; the last one it may have as it is.
        made = _with_step(steps, sig if place == len(sigs) - 1 else sig.clone())
        if made is not steps:
            return reduce(or_, sigs[place + 1 :], made)
    return _chain(steps)


@Signature.register_type("chain")
class _chain(_Composite):  # noqa: N801 - Celery's name
    """Tasks that follow each other, as they stand; `chain` applies the rules above to them."""

    @property
    def tasks(self) -> list[Sig]:
        """Its steps."""
        return cast("list[Sig]", self["kwargs"]["tasks"])

    @tasks.setter
    def tasks(self, tasks: Iterable[Value]) -> None:
        self["kwargs"]["tasks"] = list(tasks)

    def __init__(self, *tasks: Value, app: Value = None, **options: Value) -> None:
        given: Iterable[Value] = tasks
        if len(tasks) == 1 and not isinstance(tasks[0], dict):
            given = tasks[0]
        super().__init__("celery.chain", (), {"tasks": list(given)}, options, app=app)
        self["subtask_type"] = "chain"

    @classmethod
    def from_dict(cls, d: Mapping[str, Value], app: Value = None) -> Sig:
        """The chain that `d` describes."""
        tasks = [maybe_signature(task, app) for task in d["kwargs"]["tasks"]]
        made = cls(tasks, app=app, **d["options"])
        made["args"] = tuple(d.get("args") or ())
        made["immutable"] = bool(d.get("immutable"))
        return made

    @classmethod
    def _joined(cls, first: Sig, other: Sig) -> Value:
        """A task or chord, and what follows it."""
        after = other.unchain_tasks() if isinstance(other, _chain) else [unrolled(other)]
        return cls([first, *after], app=first._app)  # noqa: SLF001 - of its own kind

    def _parts(self) -> Iterable[Value]:
        return self.tasks

    def __call__(self, *args: Value, **kwargs: Value) -> Value:
        """Send it, with arguments for its first task."""
        return self.apply_async(args, kwargs) if self.tasks else None

    def __or__(self, other: Value) -> Value:
        if not isinstance(other, Signature):
            return NotImplemented
        if is_nothing(other):
            return self
        steps = self.unchain_tasks()
        made = _with_step(steps, other)
        if made is not steps:
            return made
        joined = type(self).__new__(type(self))
        _chain.__init__(joined, steps, app=self._app)
        return joined

    def clone(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> Sig:
        """A copy of it and of its tasks."""
        copied = super().clone(args, kwargs, **options)
        tasks = [maybe_signature(task, self._app, clone=True) for task in copied["kwargs"]["tasks"]]
        copied["kwargs"]["tasks"] = tasks
        return copied

    def unchain_tasks(self) -> list[Sig]:
        """Copies of its tasks, with its own callbacks at the last and its own errbacks at each."""
        tasks = [maybe_signature(task).clone() for task in self.tasks]
        if tasks:
            for callback in as_links(self.options, "link"):
                tasks[-1].link(callback)
            for errback in as_links(self.options, "link_error"):
                for task in tasks:
                    # Each task has its own, so that a stamp on one is not a stamp on all.
                    task.link_error(maybe_signature(errback, self._app, clone=True))
        return tasks

    def steps(self) -> list[Sig]:
        """Its tasks without what stands for nothing, inner chains unrolled: each a task, a group or a chord."""
        found: list[Sig] = []
        empty: Sig | None = None
        left = list(reversed(self.tasks))
        while left:
            task = unrolled(maybe_signature(left.pop(), self._app))
            if isinstance(task, _chain):
                # What is linked to an inner chain is linked to its tasks.
                inner = task.unchain_tasks() if _has_links(task) else task.tasks
                left.extend(reversed(inner))
            elif is_nothing(task):
                empty = task
            else:
                found.append(task)
        return found or ([empty] if empty is not None else [])

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Value = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Value:
        """Choose the ids of its tasks; the last one's is the chain's."""
        self.tasks = self.steps()
        result: Value = None
        for place, task in enumerate(self.tasks, 1):
            frozen = (
                task.freeze(_id, group_id, chord, root_id, None, group_index)
                if place == len(self.tasks)
                else task.freeze(root_id=root_id)
            )
            _eldest(frozen).parent = result
            result = frozen
        if result is None:
            raise ValueError("an empty chain has no result")
        self.options["task_id"] = result.id
        return result

    def apply(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> Value:
        """Run it right here. Raises what a task raises that is not the last."""
        options = self._call_options(options)
        callbacks, errbacks = _taken_links(options)
        task_id = options.pop("task_id", None)
        given = (*args, *self.args) if args and not self.immutable else tuple(self.args)
        last: Value = None
        steps = self.steps()
        for place, step in enumerate(steps, 1):
            task = step.clone()
            for errback in errbacks:
                task.link_error(maybe_signature(errback, self._app, clone=True))
            more = options
            if place == len(steps):
                task = with_callbacks(task, callbacks)
                if task_id is not None:
                    more = {**options, "task_id": task_id}
            if last is not None:
                given, kwargs = (last.get(disable_sync_subtasks=False),), None
            if _is_elsewhere(task):
                # The rest of the chain waits for it, so all of that is the broker's.
                links = {"link": callbacks, "link_error": errbacks, "task_id": task_id}
                rest = _chain(steps[place - 1 :], app=self._app)
                result = self.app.send_canvas(rest, given, kwargs, {**options, **_given(links)})
                _eldest(result).parent = last
                return result
            result = task.apply(given, kwargs, **more)
            _eldest(result).parent = last
            last = result
            if isinstance(last, EagerResult) and last.state in (IGNORED, REJECTED):
                break
        return last

    def stamp(
        self,
        visitor: StampingVisitor | None = None,
        append_stamps: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        **headers: Value,
    ) -> None:
        """Put stamps on its tasks."""
        visited = None if visitor is None else visitor.on_chain_start(self, **headers) or {}
        stamps = stamps_of(headers, visited, self.options, appends=append_stamps)
        self.stamp_links(visitor, append_stamps, **stamps)
        for task in self.tasks:
            task.stamp(visitor, append_stamps, **stamps)
        if visitor is not None:
            visitor.on_chain_end(self, **stamps)

    def __repr__(self) -> str:
        if not self.tasks:
            return f"<{type(self).__name__}@{id(self):#x}: empty>"
        return without_repeated_module(
            self.tasks[0]["task"], " | ".join(repr(task) for task in self.tasks)
        )


class chain(_chain):  # noqa: N801 - Celery's name
    """Tasks that follow each other: each is called with the result of the one before.

    Of several signatures, or of one iterable of them, it makes what `|` makes: `chain(a, b)` is `a | b`.
    """

    def __new__(cls, *tasks: Value, **options: Value) -> Self:
        """What `|` makes of the tasks."""
        if cls is not chain or options or not tasks:
            return super().__new__(cls)
        if len(tasks) == 1 and isinstance(tasks[0], dict):
            return super().__new__(cls)
        if len(tasks) == 1 and (isinstance(tasks[0], str) or not isinstance(tasks[0], Iterable)):
            checked(tasks[0], "a chain")
        sigs = list(tasks[0]) if len(tasks) == 1 else list(tasks)
        made = _fold(sigs)
        return cast("Self", made)


def _has_links(sig: Sig) -> bool:
    return bool(sig.options.get("link") or sig.options.get("link_error"))


def _eldest(result: Value) -> Value:
    """The result that others of its call come from: the one without a parent."""
    while result.parent is not None:
        result = result.parent
    return result


def with_callbacks(sig: Sig, callbacks: Sequence[Value]) -> Sig:
    """The signature, which the caller owns, with callbacks that hear of its value."""
    for callback in callbacks:
        if isinstance(sig, _chord):
            sig.link(callback)
        else:
            sig.append_to_list_option("link", callback)
    return sig


def link_body(body: Sig, callback: Value, app: Value = None) -> None:
    """Have `callback` called with the value of a chord's body, which the caller owns.

    A body that is a group has a value for each task, so the callback is called with each. An immutable callback takes no
    value: it is called once, after the first task, as in Celery.
    """
    callback = maybe_signature(checked(callback, "the option 'link'"), app)
    if isinstance(body, _chord):
        body.link(callback)
    elif not isinstance(body, group) or not body.tasks:
        body.append_to_list_option("link", callback)
    elif callback.immutable:
        body.link(callback)
    else:
        body.tasks = [maybe_signature(task, app) for task in body.tasks]
        for number, task in enumerate(body.tasks):
            link_body(task, another(callback) if number else callback.clone(), app)


def another(callback: Sig) -> Sig:
    """A copy of a callback for one more task: an id that was chosen for it is that of one call."""
    copied = callback.clone()
    copied.options.pop("task_id", None)
    return copied


def _is_elsewhere(sig: Sig) -> bool:
    """Whether it is one call, of a task that this app does not know."""
    return not isinstance(sig, _Composite | _Mapped) and sig._known_task() is None  # noqa: SLF001 - a signature's own


def _is_here(sig: Value, app: Value) -> bool:
    """Whether this app knows all tasks in it."""
    left = [sig]
    while left:
        one = maybe_signature(left.pop(), app)
        if isinstance(one, _OfParts):
            left += [part for part in one._parts() if part is not None]  # noqa: SLF001 - of its own kind
        elif _is_elsewhere(one):
            return False
    return True


def apply_or_send(
    sig: Sig,
    args: Sequence[Value] | None,
    kwargs: Mapping[str, Value] | None,
    options: Mapping[str, Value],
) -> Value:
    """Run it right here; a call of a task that this app does not know goes to the broker, for a worker that does."""
    if _is_elsewhere(sig):
        return sig.app.send_canvas(sig, args, kwargs, options)
    return sig.apply(args, kwargs, **options)


def _given(options: Mapping[str, Value]) -> dict[str, Value]:
    """The options that say something."""
    return {key: value for key, value in options.items() if value}


def _taken_links(options: dict[str, Value]) -> tuple[list[Value], list[Value]]:
    """Callbacks and errbacks, which are removed from `options`."""
    links = as_links(options, "link"), as_links(options, "link_error")
    options.pop("link", None)
    options.pop("link_error", None)
    return links


# -- group ---------------------------------------------------------------------------------------


def flat(sigs: Iterable[Value], app: Value = None) -> list[Sig]:
    """The tasks of a group: those of a group among them in its place, and nothing for what is empty."""
    found: list[Sig] = []
    left = list(sigs)
    left.reverse()
    while left:
        sig = maybe_signature(checked(left.pop(), "a group"), app)
        if isinstance(sig, group):
            left.extend(reversed(sig.tasks))
        elif not is_nothing(sig):
            found.append(sig)
    return found


def is_nothing(sig: Value) -> bool:
    """Whether no task is in it: an empty group or chain, or one of nothing but such."""
    left = [sig]
    while left:
        one = left.pop()
        if not isinstance(one, _chain | group):
            return False
        left += one.tasks
    return True


@Signature.register_type()
class group(_Composite):  # noqa: N801 - Celery's name
    """Tasks that run side by side: of several signatures, or of one iterable of them.

    Its result is a GroupResult, in their order. Options it is called with are for each task.
    """

    @property
    def tasks(self) -> list[Sig]:
        """Its tasks."""
        return cast("list[Sig]", self["kwargs"]["tasks"])

    @tasks.setter
    def tasks(self, tasks: Iterable[Value]) -> None:
        self["kwargs"]["tasks"] = list(tasks)

    def __init__(self, *tasks: Value, app: Value = None, **options: Value) -> None:
        given: Iterable[Value] = tasks
        if len(tasks) == 1:
            only = tasks[0]
            if isinstance(only, group):
                given = only.tasks
            elif isinstance(only, Signature):
                given = [only.clone()]
            elif isinstance(only, dict):
                given = [maybe_signature(checked(only, "a group"))]
            elif isinstance(only, str) or not isinstance(only, Iterable):
                given = [checked(only, "a group")]
            else:
                given = only
        super().__init__("celery.group", (), {"tasks": list(given)}, options, app=app)
        self["subtask_type"] = "group"

    @classmethod
    def from_dict(cls, d: Mapping[str, Value], app: Value = None) -> Sig:
        """The group that `d` describes."""
        tasks = [maybe_signature(task, app) for task in d["kwargs"]["tasks"]]
        return cls(tasks, app=app, **d["options"])

    def _parts(self) -> Iterable[Value]:
        return self.tasks

    def __call__(self, *partial_args: Value, **options: Value) -> Value:
        """Send it, with further arguments for each task."""
        return self.apply_async(partial_args, **options)

    def __or__(self, other: Value) -> Value:
        if not isinstance(other, Signature):
            return NotImplemented
        return self if is_nothing(other) else _chord(self, other, app=self._app)

    def __len__(self) -> int:
        return len(self.tasks)

    def __bool__(self) -> bool:
        return True

    def clone(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> Sig:
        """A copy of it and of its tasks."""
        copied = super().clone(args, kwargs, **options)
        copied["kwargs"]["tasks"] = [
            maybe_signature(task, self._app, clone=True) for task in copied["kwargs"]["tasks"]
        ]
        return copied

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> Self:
        """Let each task start `step` seconds after the one before, from `start` on and up to `stop`."""
        delays: Iterator[float] = count(start, step)
        if stop is not None:
            steps = int((stop - start) / step)
            delays = iter([*islice(delays, steps), *repeat(stop, max(len(self.tasks) - steps, 0))])
        for task, delay in zip(self.tasks, delays, strict=False):
            task.set(countdown=delay)
        return self

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Value = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> GroupResult:
        """Choose the ids of its tasks, and its own."""
        options = self.options
        if "task_id" not in options:
            options["task_id"] = _id or uuid7()
        self._place(group_id, chord, root_id, parent_id, group_index)
        tasks = [task.clone() for task in flat(self.tasks, self._app)]
        results = [
            task.freeze(
                group_id=group_id or options["task_id"],
                chord=chord,
                root_id=root_id,
                parent_id=parent_id,
                group_index=index,
            )
            for index, task in enumerate(tasks)
        ]
        self.tasks[:] = tasks
        return cast("GroupResult", self.app.GroupResult(options["task_id"], results))

    def apply_async(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        route_name: str | None = None,
        *,
        add_to_parent: bool = True,
        link: Value = None,
        link_error: Value = None,
        **options: Value,
    ) -> Value:
        """Send all of it, at once or not at all; options that are None change nothing."""
        if link is not None:
            raise TypeError("Cannot add link to group: use a chord")
        if link_error is not None:
            raise TypeError("Cannot add link to group: do that on individual tasks")
        return super().apply_async(args, kwargs, add_to_parent=add_to_parent, **options)

    def apply(  # type: ignore[override] # its result is that of several
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> GroupResult:
        """Run its tasks right here, one after the other."""
        options = self._call_options(options)
        callbacks, errbacks = _taken_links(options)
        group_id = options.pop("task_id", None) or uuid7()
        results = []
        for index, task in enumerate(flat(self.tasks, self._app)):
            member = with_callbacks(task.clone(), callbacks)
            for errback in errbacks:
                member.link_error(maybe_signature(errback, self._app, clone=True))
            member.set(group_id=group_id, group_index=index)
            results.append(apply_or_send(member, args, kwargs, options))
        return cast("GroupResult", self.app.GroupResult(group_id, results))

    def set_immutable(self, immutable: bool) -> None:  # noqa: FBT001 - Celery's signature
        """Say whether its tasks take further arguments."""
        for task in self.tasks:
            task.set_immutable(immutable)

    def link(self, callback: Value) -> Value:
        """Have `callback` called, without the result, when the first task has succeeded."""
        callback = maybe_signature(checked(callback, "the option 'link'"))
        return self.tasks[0].link(callback.clone().set(immutable=True))

    def link_error(self, errback: Value) -> Value:
        """Have `errback` called for each task that fails."""
        errback = maybe_signature(checked(errback, "the option 'link_error'"))
        return tuple(task.link_error(errback.clone()) for task in self.tasks)

    def stamp(
        self,
        visitor: StampingVisitor | None = None,
        append_stamps: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        **headers: Value,
    ) -> None:
        """Put stamps on its tasks."""
        visited = None if visitor is None else visitor.on_group_start(self, **headers) or {}
        stamps = stamps_of(headers, visited, self.options, appends=append_stamps)
        self.stamp_links(visitor, append_stamps, **stamps)
        self.tasks = [maybe_signature(task, self._app) for task in self.tasks]
        for task in self.tasks:
            task.stamp(visitor, append_stamps, **stamps)
        if visitor is not None:
            visitor.on_group_end(self, **stamps)

    def __repr__(self) -> str:
        if not self.tasks:
            return "group(<empty>)"
        return without_repeated_module(self.tasks[0]["task"], f"group({self.tasks!r})")


# -- chord ---------------------------------------------------------------------------------------


def _header(tasks: Value, app: Value) -> list[Sig]:
    if isinstance(tasks, dict) and not isinstance(tasks, Signature):
        tasks = signature(tasks, app=app)
    if isinstance(tasks, group | _chain):
        return tasks.tasks
    if isinstance(tasks, Signature):
        return [tasks]
    if isinstance(tasks, str) or not isinstance(tasks, Iterable):
        checked(tasks, "a chord's header")
    return [_member(task, app) for task in tasks]


def _member(task: Value, app: Value) -> Sig:
    """A task of a chord's header; the name of a task and a task itself are taken too, as in Celery."""
    is_known = isinstance(task, str) or callable(getattr(task, "s", None))
    return signature(task if is_known else checked(task, "a chord's header"), app=app)


def _body(body: Value, app: Value) -> Value:
    """A chord's body; None: it has none yet."""
    return None if body is None else maybe_signature(checked(body, "a chord's body"), app)


@Signature.register_type("chord")
class _chord(_Composite):  # noqa: N801 - Celery's name
    """A header of tasks that run side by side, and a body that is called with the list of their results.

    `chord(header)(body)` sends it. Its result is the body's; that one's parent is the header's.
    """

    @property
    def tasks(self) -> Value:
        """Its header."""
        return self["kwargs"]["header"]

    @tasks.setter
    def tasks(self, tasks: Value) -> None:
        self["kwargs"]["header"] = tasks

    @property
    def body(self) -> Value:
        """Its body."""
        return self["kwargs"]["body"]

    @body.setter
    def body(self, body: Value) -> None:
        self["kwargs"]["body"] = body

    def __init__(
        self,
        header: Value,
        body: Value = None,
        task: str = "celery.chord",
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        app: Value = None,
        **options: Value,
    ) -> None:
        parts = {"header": _header(header, app), "body": _body(body, app)}
        super().__init__(task, args, {**(kwargs or {"kwargs": {}}), **parts}, app=app, **options)
        self["subtask_type"] = "chord"

    @classmethod
    def from_dict(cls, d: Mapping[str, Value], app: Value = None) -> Sig:
        """The chord that `d` describes."""
        given = dict(d)
        kwargs = dict(given.pop("kwargs"))
        header, body = kwargs.pop("header", None), kwargs.pop("body", None)
        if not isinstance(header, list | tuple):
            return cls(header, body, kwargs=kwargs, app=app, **given)
        made = cls([], body, kwargs=kwargs, app=app, **given)
        made.tasks = [maybe_signature(task, app) for task in header]
        return made

    @property
    def header(self) -> list[Sig]:
        """The tasks of its header, as a list in either form it may have."""
        return cast("list[Sig]", self.tasks.tasks if isinstance(self.tasks, group) else self.tasks)

    def _parts(self) -> Iterable[Value]:
        return [*self.header, self.body]

    def __call__(self, body: Value = None, **options: Value) -> Value:
        """Send it, with a body if it has none or another one."""
        return self.apply_async((), {"body": body} if body else {}, **options)

    def __or__(self, other: Value) -> Value:
        if not isinstance(other, Signature):
            return NotImplemented
        other = unrolled(other)
        if isinstance(other, group | _chain):
            return super().__or__(other)
        copied = cast("_chord", self.clone())
        copied.body = copied.body | other
        return copied

    def clone(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> Sig:
        """A copy of it and of its body. Tasks of the header are copied when they are changed: there may be many."""
        copied = cast("_chord", super().clone(args, kwargs, **options))
        copied.body = maybe_signature(copied.body, self._app, clone=True)
        if isinstance(copied.tasks, group):
            copied.tasks = copied.tasks.clone()
        else:
            copied.tasks = list(copied.tasks)
        return copied

    def _own_header(self) -> list[Sig]:
        """The tasks of its header, no other chord's."""
        header = self.header
        header[:] = [maybe_signature(task, self._app, clone=True) for task in header]
        return header

    def with_body(self, kwargs: Mapping[str, Value] | None) -> "tuple[_chord, dict[str, Value]]":
        """The chord with the body among the arguments of a call, and what is left of them."""
        left = dict(kwargs or {})
        body = left.pop("body", None)
        if body is None:
            return self, left
        other = cast("_chord", self.clone())
        other.body = _body(body, self._app)
        return other, left

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Value = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Value:
        """Choose the ids of its header and its body; the header's is its own, the result is the body's."""
        if not isinstance(self.tasks, group):
            self.tasks = group(self.tasks, app=self._app)
        header = self.tasks.freeze(root_id=root_id, parent_id=parent_id, chord=self.body)
        self.options["task_id"] = self.tasks.options["task_id"]
        if self.body is None:
            return None
        result = self.body.freeze(
            _id, group_id=group_id, chord=chord, root_id=root_id, group_index=group_index
        )
        eldest = _eldest(result)
        if eldest is not header:
            eldest.parent = header
        return result

    def apply(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        propagate: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        body: Value = None,
        **options: Value,
    ) -> Value:
        """Run it right here. Raises what a task of the header raises, after its body's errbacks were told."""
        options = self._call_options(options)
        callbacks, errbacks = _taken_links(options)
        sig, kwargs = self.with_body({**(kwargs or {}), **({"body": body} if body else {})})
        own = sig.body.clone()
        for callback in callbacks:
            link_body(own, callback, self._app)
        for errback in errbacks:
            own.link_error(maybe_signature(errback, self._app, clone=True))
        more = {"task_id": options["task_id"]} if options.get("task_id") else {}
        given = (*args, *self.args) if args and not self.immutable else tuple(self.args)
        if not all(_is_here(task, self._app) for task in sig.header):
            whole = cast("_chord", sig.clone())
            whole.body = own
            return self.app.send_canvas(whole, args, kwargs, options)
        header = group(sig.header, app=self._app).apply(
            given, {**self["kwargs"].get("kwargs", {}), **kwargs}
        )
        try:
            values = header.get(propagate=propagate, disable_sync_subtasks=False)
        except Exception as exc:
            failed = next((one for one in header.leaves() if one.failed()), None)
            told = ChordError(f"Dependency {failed and failed.id} raised {exc!r}")
            told.__cause__ = exc
            self.app.tell_errbacks(own, told)
            raise
        result = apply_or_send(own, (values,), None, more)
        _eldest(result).parent = header
        return result

    def link(self, callback: Value) -> Value:
        """Have `callback` called with the body's result, or with that of each task of a body that is a group."""
        link_body(self.body, callback, self._app)
        return callback

    def link_error(self, errback: Value) -> Value:
        """Have `errback` called when the body fails, be it that a task of the header failed.

        With the setting `task_allow_error_cb_on_chord_header` it is called, without arguments, for each task of
        the header that fails, too.
        """
        errback = maybe_signature(checked(errback, "the option 'link_error'"))
        if self.app.conf.task_allow_error_cb_on_chord_header:
            for task in self._own_header():
                task.link_error(errback.clone().set(immutable=True))
        self.body.link_error(errback)
        return errback

    def set_immutable(self, immutable: bool) -> None:  # noqa: FBT001 - Celery's signature
        """Say whether the tasks of its header take further arguments."""
        for task in self._own_header():
            task.set_immutable(immutable)

    def stamp(
        self,
        visitor: StampingVisitor | None = None,
        append_stamps: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        **headers: Value,
    ) -> None:
        """Put stamps on its header, and with a visitor on its body."""
        visited = None if visitor is None else visitor.on_chord_header_start(self, **headers) or {}
        stamps = stamps_of(headers, visited, self.options, appends=append_stamps)
        self.stamp_links(visitor, append_stamps, **stamps)
        for task in self._own_header():
            task.stamp(visitor, append_stamps, **stamps)
        if visitor is not None:
            visitor.on_chord_header_end(self, **stamps)
        if visitor is not None and self.body is not None:
            visited = visitor.on_chord_body(self, **stamps) or {}
            stamps = stamps_of(stamps, visited, self.options, appends=append_stamps)
            self.body.stamp(visitor, append_stamps, **stamps)

    def __length_hint__(self) -> int:
        return len(flat(self.header))

    def __repr__(self) -> str:
        if not self.body:
            return f"<chord without body: {self.tasks!r}>"
        if isinstance(self.body, _chain) and self.body.tasks:
            first, *rest = self.body.tasks
            if not rest:
                return f"%{without_repeated_module(first['task'], first.reprcall(self.tasks))}"
            return without_repeated_module(
                first["task"], f"%({first.reprcall(self.tasks)} | {_chain(rest)!r})"
            )
        called = call_text(self.body["task"], (self.tasks, *self.body.args), self.body.kwargs)
        return f"%{without_repeated_module(self.body['task'], called)}"


chord = _chord


# -- one task for many arguments -----------------------------------------------------------------


class _Mapped(_OfParts):
    """One message that calls a task for each of many arguments, in turn."""

    task_name = ""

    def __init__(
        self, task: Value, it: Iterable[Value], app: Value = None, **options: Value
    ) -> None:
        super().__init__(
            self.task_name,
            (),
            {"task": maybe_signature(checked(task, self.task_name), app), "it": list(it)},
            options,
            subtask_type=type(self).__name__,
            immutable=True,
            app=app,
        )

    @classmethod
    def from_dict(cls, d: Mapping[str, Value], app: Value = None) -> Sig:
        """The signature that `d` describes."""
        return cls(d["kwargs"]["task"], d["kwargs"]["it"], app=app, **d["options"])

    def _parts(self) -> Iterable[Value]:
        return (self.kwargs["task"],)

    def _merge(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        options: Mapping[str, Value] | None = None,
        force: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
    ) -> tuple[tuple[Value, ...], dict[str, Value], dict[str, Value]]:
        args, kwargs, options = super()._merge(args, kwargs, options, force)
        # It goes where calls of its task go.
        queue = getattr(self.kwargs["task"]._known_task(), "queue", None)  # noqa: SLF001 - of its own kind
        return args, kwargs, {"queue": queue, **options} if queue else options


@Signature.register_type()
class xmap(_Mapped):  # noqa: N801 - Celery's name
    """`[task(x) for x in it]`, in one message."""

    task_name = "celery.map"

    def __repr__(self) -> str:
        return f"[{self.kwargs['task'].task}(x) for x in {cut(repr(self.kwargs['it']), 100)}]"


@Signature.register_type()
class xstarmap(_Mapped):  # noqa: N801 - Celery's name
    """`[task(*x) for x in it]`, in one message."""

    task_name = "celery.starmap"

    def __repr__(self) -> str:
        return f"[{self.kwargs['task'].task}(*x) for x in {cut(repr(self.kwargs['it']), 100)}]"


@Signature.register_type()
class chunks(_Composite):  # noqa: N801 - Celery's name
    """A group of starmaps, each of `n` of the arguments."""

    def __init__(
        self, task: Value, it: Iterable[Value], n: int, app: Value = None, **options: Value
    ) -> None:
        super().__init__(
            "celery.chunks",
            (),
            {"task": maybe_signature(checked(task, "celery.chunks"), app), "it": list(it), "n": n},
            options,
            subtask_type="chunks",
            immutable=True,
            app=app,
        )

    @classmethod
    def from_dict(cls, d: Mapping[str, Value], app: Value = None) -> Sig:
        """The signature that `d` describes."""
        kwargs = d["kwargs"]
        return cls(kwargs["task"], kwargs["it"], kwargs["n"], app=app, **d["options"])

    @classmethod
    def apply_chunks(cls, task: Value, it: Iterable[Value], n: int, app: Value = None) -> Value:
        """Send it."""
        return cls(task, it, n, app=app)()

    def _parts(self) -> Iterable[Value]:
        return (self.kwargs["task"],)

    def __call__(self, **options: Value) -> Value:
        """Send it."""
        return self.apply_async(**options)

    def group(self) -> group:
        """The group it stands for."""
        kwargs = self.kwargs
        left = iter(kwargs["it"])
        parts = iter(lambda: list(islice(left, kwargs["n"])), [])
        return group(
            [xstarmap(kwargs["task"], part, app=self._app) for part in parts],
            app=self._app,
            **self.options,
        )

    def apply(  # type: ignore[override] # its result is that of several
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> GroupResult:
        """Run it right here."""
        return self.group().apply(args, kwargs, **options)
