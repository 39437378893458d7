"""Calls as values: a Signature is a task's name with its arguments and options, not yet sent.

It is a dict of Celery's keys, so it can travel as an argument of another task. What is made of several of them is a
Signature too (`qbroker.canvas.primitives`); its class is found by its "subtask_type".
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Generic, TypeVar, cast

from qbroker import _state
from qbroker.canvas.stamping import StampingVisitor, stamps_of
from qbroker.canvas.text import call_text
from qbroker.envelope import check_shape
from qbroker.ids import uuid7
from qbroker.result import AsyncResult, EagerResult
from qbroker.serialization import Value

__all__ = [
    "Signature",
    "as_links",
    "as_list",
    "checked",
    "maybe_signature",
    "signature",
    "subtask",
]

R = TypeVar("R")

_KEPT_OPTIONS = frozenset({"group_id", "stamped_headers"})
"""Options that stay once they are set, whatever is given later."""


def as_list(found: Value) -> list[Value]:
    """Nothing, one or several, as a list."""
    if found is None:
        return []
    if isinstance(found, dict) or not isinstance(found, list | tuple):
        return [found]
    return list(found)


def checked(found: Value, whole: str) -> Value:
    """Return `found` if it is a signature or the dict of one; else raise a TypeError that says what to pass.

    `whole` is what it is a part of: "a group", "the option 'link'".
    """
    if "task" in found if isinstance(found, dict) else hasattr(found, "freeze"):
        return found
    raise TypeError(f"{whole} is made of signatures, not of {found!r}{_hint(found)}")


def _hint(found: Value) -> str:
    """Advice on the value to pass in place of one that is not a signature."""
    if callable(getattr(found, "s", None)):
        return f"; pass the task's signature, {found.name}.s()"
    if inspect.iscoroutine(found):
        return "; pass the signature of an `async def` task, which a worker awaits"
    if isinstance(found, str):
        return f"; pass app.signature({found!r}) for the task of that name"
    if hasattr(found, "get") and hasattr(found, "id"):
        return "; pass the signature that was called, not its result"
    if callable(found):
        return "; make the function a task with @app.task, and pass its signature"
    return ""


def as_links(options: Mapping[str, Value], option: str) -> list[Value]:
    """The callbacks of `options`, "link", or the errbacks, "link_error". Raises TypeError for other things than signatures."""
    return [checked(link, f"the option {option!r}") for link in as_list(options.get(option))]


def _item(key: str, doc: str) -> Value:
    """A property for one of a signature's keys."""

    def look(sig: "Signature[Value]") -> Value:
        # Dicts of Celery's may leave something out.
        return sig.get(key)

    def put(sig: "Signature[Value]", value: Value) -> None:
        sig[key] = value

    return property(look, put, doc=doc)


def _option(key: str, doc: str) -> Value:
    """A property for one of a signature's options."""

    def look(sig: "Signature[Value]") -> Value:
        return sig["options"].get(key)

    def put(sig: "Signature[Value]", value: Value) -> None:
        sig["options"][key] = value

    return property(look, put, doc=doc)


class Signature(dict[str, Value], Generic[R]):
    """A call that can be kept, changed, passed on and made.

    Arguments given later are put before those it has; keyword arguments and options given later win. An
    immutable one takes no further arguments.
    """

    TYPES: ClassVar[dict[str, type["Signature[Value]"]]] = {}
    _app: Value = None
    _type: Value = None

    task: str = _item("task", "The task's name.")
    args: tuple[Value, ...] = _item("args", "Its arguments.")
    kwargs: dict[str, Value] = _item("kwargs", "Its keyword arguments.")
    options: dict[str, Value] = _item("options", "Its options, as `apply_async` takes them.")
    subtask_type: str | None = _item(
        "subtask_type", "What it is made of several as: chain, group, …"
    )
    immutable: bool = _item("immutable", "Whether it takes no further arguments.")
    id: str | None = _option("task_id", "The id its call will have, where one was chosen.")
    parent_id: str | None = _option("parent_id", "The id of the task that calls it.")
    root_id: str | None = _option("root_id", "The id of the task that all began with.")

    def __init__(
        self,
        task: Value = None,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        options: Mapping[str, Value] | None = None,
        type: Value = None,  # noqa: A002 - Celery's name
        subtask_type: str | None = None,
        immutable: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        app: Value = None,
        **more_options: Value,
    ) -> None:
        self._app = app
        self._type = type
        if isinstance(task, dict):
            super().__init__(task)
            return
        name = getattr(task, "name", task)
        if name is not task:
            self._type = task
        check_shape(str(name), args, kwargs)
        super().__init__(
            task=name,
            args=tuple(args or ()),
            kwargs=dict(kwargs or {}),
            options={**(options or {}), **more_options},
            subtask_type=subtask_type,
            immutable=immutable,
        )

    @classmethod
    def register_type(
        cls, name: str | None = None
    ) -> "Callable[[type[Signature[Value]]], type[Signature[Value]]]":
        """Register a kind of signature, which dicts with its "subtask_type" become: a class decorator."""

        def register(subclass: "type[Signature[Value]]") -> "type[Signature[Value]]":
            cls.TYPES[name or subclass.__name__] = subclass
            return subclass

        return register

    @classmethod
    def from_dict(cls, d: Mapping[str, Value], app: Value = None) -> "Signature[Value]":
        """The signature that `d` describes, of the kind it names."""
        kind = d.get("subtask_type")
        if kind:
            found = cls.TYPES[kind]
            if found is not cls:
                return found.from_dict(d, app=app)
        return Signature(dict(d), app=app)

    # -- what it is of

    @property
    def app(self) -> Value:
        """The app the call is made with."""
        found = self._own_app()
        return _state.get_current_app() if found is None else found

    def _own_app(self) -> Value:
        """The app it was made for, or None."""
        if self._app is not None:
            return self._app
        return None if self._type is None else self._type.app

    @property
    def type(self) -> Value:
        """The task itself."""
        return self._type or self.app.tasks[self["task"]]

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task

    def _known_task(self) -> Value:
        return self._type or self.app.tasks.get(self.task)

    def _merge(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        options: Mapping[str, Value] | None = None,
        force: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
    ) -> tuple[tuple[Value, ...], dict[str, Value], dict[str, Value]]:
        if kwargs and type(kwargs) is not dict:
            check_shape(self.task, args, kwargs)
        own = self.options
        merged = own
        if options:
            kept = _KEPT_OPTIONS
            if "stamped_headers" in own:
                kept = kept.union(own["stamped_headers"] or ())
            merged = {
                **own,
                **{
                    key: value
                    for key, value in options.items()
                    if key not in kept or key not in own
                },
            }
        if self.immutable and not force:
            return tuple(self.args), self.kwargs, merged
        return (
            (*args, *self.args) if args else tuple(self.args),
            {**self.kwargs, **kwargs} if kwargs else self.kwargs,
            merged,
        )

    # -- calling

    def __call__(self, *partial_args: Value, **partial_kwargs: Value) -> Value:
        """Call the task right here, like a function."""
        args, kwargs, _ = self._merge(partial_args, partial_kwargs)
        return self.type(*args, **kwargs)

    def delay(self, *partial_args: Value, **partial_kwargs: Value) -> AsyncResult[R]:
        """Send the call."""
        return self.apply_async(partial_args, partial_kwargs)

    def apply_async(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        route_name: str | None = None,
        **options: Value,
    ) -> AsyncResult[R]:
        """Send the call, with further arguments and options; those that are None change nothing."""
        args, kwargs, options = self._merge(args, kwargs, _given(options))
        task = self._known_task()
        sent: AsyncResult[R] = (
            self.app.send_task(self.task, args, kwargs, **options)
            if task is None
            else task.apply_async(args, kwargs, **options)
        )
        return sent

    async def aapply_async(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        route_name: str | None = None,
        **options: Value,
    ) -> AsyncResult[R]:
        """Do the same without blocking the event loop."""
        args, kwargs, options = self._merge(args, kwargs, _given(options))
        task = self._known_task()
        sent: AsyncResult[R] = await (
            self.app.asend_task(self.task, args, kwargs, **options)
            if task is None
            else task.aapply_async(args, kwargs, **options)
        )
        return sent

    async def adelay(self, *partial_args: Value, **partial_kwargs: Value) -> AsyncResult[R]:
        """Send the call without blocking the event loop."""
        return await self.aapply_async(partial_args, partial_kwargs)

    def apply(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> EagerResult[R]:
        """Run the task right here, as a worker would."""
        args, kwargs, options = self._merge(args, kwargs, _given(options))
        ran: EagerResult[R] = self.type.apply(args, kwargs, **options)
        return ran

    def __invert__(self) -> R:
        """Send the call and wait for its result."""
        return self.apply_async().get()

    # -- changing

    def clone(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> "Signature[R]":
        """A copy with further arguments and options; the original stays as it is."""
        args, kwargs, options = self._merge(args, kwargs, options)
        copied = Signature.from_dict(
            {
                "task": self.task,
                "args": tuple(args),
                "kwargs": dict(kwargs),
                "options": copy.deepcopy(options),
                "subtask_type": self.get("subtask_type"),
                "immutable": self.get("immutable", False),
            },
            app=self._app,
        )
        copied._type = self._type  # noqa: SLF001 - its own copy
        return copied

    partial = clone

    def set(self, immutable: bool | None = None, **options: Value) -> "Signature[R]":  # noqa: FBT001 - Celery's signature
        """Change options in place."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:  # noqa: FBT001 - Celery's signature
        """Say whether it takes further arguments."""
        self["immutable"] = immutable

    def replace(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        options: Mapping[str, Value] | None = None,
    ) -> "Signature[R]":
        """A copy with other arguments or options in place of those it has."""
        copied = self.clone()
        if args is not None:
            copied["args"] = args
        if kwargs is not None:
            copied["kwargs"] = kwargs
        if options is not None:
            copied["options"] = options
        return copied

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Value = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Value:
        """Choose the id of its call, if none was chosen, and answer the result that call will have.

        It can be sent once after that: a second call with the same id is the first one.
        """
        options = self.options
        if "task_id" not in options:
            options["task_id"] = _id or uuid7()
        self._place(group_id, chord, root_id, parent_id, group_index)
        return self.AsyncResult(options["task_id"])

    def _place(
        self,
        group_id: str | None,
        chord: Value,
        root_id: str | None,
        parent_id: str | None,
        group_index: int | None,
    ) -> None:
        options = self.options
        if root_id:
            options["root_id"] = root_id
        if parent_id:
            options["parent_id"] = parent_id
        if group_id and "group_id" not in options:
            options["group_id"] = group_id
        if chord:
            options["chord"] = chord
        if group_index is not None:
            options["group_index"] = group_index

    def AsyncResult(self, task_id: str, **kwargs: Value) -> Value:  # noqa: N802 - Celery's name
        """The result of a call of it."""
        return self.app.AsyncResult(task_id, task_name=self.task, **kwargs)

    # -- what follows it

    def _with_list_option(self, key: str) -> list[Value]:
        found: list[Value] = as_list(self.options.get(key))
        self.options[key] = found
        return found

    def append_to_list_option(self, key: str, value: Value) -> Value:
        """Add to an option that is a list, unless it is there; answers `value`."""
        items = self._with_list_option(key)
        if value not in items:
            items.append(value)
        return value

    def extend_list_option(self, key: str, value: Value) -> None:
        """Add one or several to an option that is a list."""
        self._with_list_option(key).extend(as_list(value))

    def link(self, callback: Value) -> Value:
        """Have `callback` called with the result when it has succeeded; answers `callback`."""
        return self.append_to_list_option("link", checked(callback, "the option 'link'"))

    def link_error(self, errback: Value) -> Value:
        """Have `errback` called when it has failed; answers `errback`."""
        return self.append_to_list_option("link_error", checked(errback, "the option 'link_error'"))

    def on_error(self, errback: Value) -> "Signature[R]":
        """Do the same, and answer this signature."""
        self.link_error(errback)
        return self

    def flatten_links(self) -> "list[Signature[Value]]":
        """This signature and all that is linked to it, and to that, and so on."""
        found: list[Signature[Value]] = [self]
        for link in as_links(self.options, "link"):
            found += maybe_signature(link, self._app).flatten_links()
        return found

    def __or__(self, other: Value) -> "Signature[Value]":  # type: ignore[override] # a chain, where a dict would merge
        if not isinstance(other, Signature):
            return NotImplemented
        return cast("Signature[Value]", self.TYPES["chain"]._joined(self, other))  # type: ignore[attr-defined]

    def __ror__(self, other: Value) -> "Signature[Value]":  # type: ignore[override] # only signatures are joined
        return NotImplemented

    def __ior__(self, other: Value) -> "Signature[Value]":  # type: ignore[override] # the same
        return self.__or__(other)

    # -- stamps

    def stamp(
        self,
        visitor: StampingVisitor | None = None,
        append_stamps: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        **headers: Value,
    ) -> "Signature[R] | None":
        """Put stamps on it and on what is linked to it: headers, and what a visitor says.

        A stamp it has already stays, or with `append_stamps` becomes a list of both.
        """
        self.stamp_links(visitor, append_stamps, **headers)
        visited = None if visitor is None else visitor.on_signature(self, **headers) or {}
        self.options.update(stamps_of(headers, visited, self.options, appends=append_stamps))
        return self

    def stamp_links(
        self,
        visitor: StampingVisitor | None,
        append_stamps: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        **headers: Value,
    ) -> None:
        """Put stamps on its callbacks and errbacks, not those it has itself."""
        kinds = (
            ("link", visitor.on_callback if visitor is not None else None),
            ("link_error", visitor.on_errback if visitor is not None else None),
        )
        for option, visit in kinds:
            if not self.options.get(option):
                continue
            links = self.options[option] = [
                maybe_signature(link, self._app) for link in as_links(self.options, option)
            ]
            for link in links:
                visited = None if visit is None else visit(link, **headers) or {}
                stamps = stamps_of(copy.deepcopy(headers), visited, None, appends=append_stamps)
                link.stamp(visitor, append_stamps, **stamps)

    # -- as data and as text

    def __deepcopy__(self, memo: dict[int, Value]) -> "Signature[R]":
        # Its options are changed on the way to the broker, so they are its own; arguments may be anything.
        copied = self.clone()
        memo[id(self)] = copied
        return copied

    def __reduce__(self) -> tuple[Value, ...]:
        return signature, (dict(self),)

    def __json__(self) -> dict[str, Value]:
        return dict(self)

    def reprcall(self, *args: Value, **kwargs: Value) -> str:
        """The call as text, with further arguments."""
        args, kwargs, _ = self._merge(args, kwargs, {}, force=True)
        return call_text(self["task"], args, kwargs)

    def __repr__(self) -> str:
        return self.reprcall()


def _given(options: Mapping[str, Value]) -> dict[str, Value]:
    return {key: value for key, value in options.items() if value is not None}


def signature(
    varies: Value,
    args: Sequence[Value] | None = None,
    kwargs: Mapping[str, Value] | None = None,
    options: Mapping[str, Value] | None = None,
    *,
    app: Value = None,
    immutable: bool = False,
    **more_options: Value,
) -> Signature[Value]:
    """A signature of a task, a task's name, or the dict a signature became on its way."""
    if isinstance(varies, Signature):
        return varies.clone()
    if isinstance(varies, dict):
        return Signature.from_dict(varies, app=app)
    return Signature(varies, args, kwargs, options, immutable=immutable, app=app, **more_options)


subtask = signature
"""Celery's old name for it."""


def maybe_signature(d: Value, app: Value = None, clone: bool = False) -> Value:  # noqa: FBT001, FBT002 - Celery's signature
    """A dict that describes a signature as one, of the app where one is given; anything else as it is.

    With `clone` a signature is copied.
    """
    if isinstance(d, Signature):
        if clone:
            d = d.clone()
    elif isinstance(d, dict) and "task" in d:
        d = Signature.from_dict(d, app=app)
    else:
        return d
    if app is not None:
        d._app = app  # noqa: SLF001 - a signature's app is set here and in its constructor
    return d
