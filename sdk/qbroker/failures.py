"""An exception as data, and data as an exception; every exception can be stored and read again.

A failure is a JSON object. `exc_type`, `exc_module` and `exc_message` (the arguments) are Celery's and always
there; the other keys are left out where they say nothing new:

    exc_text      `str()` of the exception, where it differs from what its arguments alone would show
    exc_inexact   true: JSON changed an argument, or the argument was replaced by its `repr()`
    exc_notes     `__notes__`
    exc_members   the members of an exception group, each a failure

The reader calls the constructor with the arguments, as pickle would, and keeps what comes out only if it is of
that class and prints as the original did. Otherwise the reader makes a stand-in: a subclass of that class, or of
its nearest base that allows subclasses, under the original name, whose `str()` is the stored text.
"""

import abc
import asyncio
import contextlib
import importlib
import sys
import traceback
from collections.abc import Mapping, Sequence

from qbroker import serialization
from qbroker.exceptions import RemoteTraceback, SecurityError
from qbroker.printable import CHARS_MAX, clean, cut, repr_of, text_of
from qbroker.serialization import Value

__all__ = ["CHARS_TRIED", "bare", "decode", "encode", "line_of", "traceback_of"]

MEMBERS_MAX = 100
"""How many members of an exception group and the groups in it are kept; the text still says how many there were."""

DEPTH_MAX = 8
"""How deep exception groups may be nested; deeper ones are kept as text."""

NOTES_MAX = 100
"""How many notes of an exception are kept."""

LINE_CHARS_MAX = 500

CHARS_TRIED = (CHARS_MAX, 16 * 1024, 1024)
"""How long the texts of a failure may be, in the order in which a writer with little room tries them."""

_ENDING = (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)
"""A reader that raised one of these would end itself, so they are always read as stand-ins."""


# -- writing -------------------------------------------------------------------------------------


def encode(exc: BaseException, chars_max: int = CHARS_MAX) -> dict[str, Value]:
    """The exception as data; texts longer than `chars_max` are cut."""
    return _encoded(exc, chars_max, DEPTH_MAX, [MEMBERS_MAX])


def bare(exc: BaseException) -> dict[str, Value]:
    """The class and the beginning of the text, where even the shortest of `CHARS_TRIED` is too long."""
    found = encode(exc, 256)
    kept = {key: found[key] for key in ("exc_type", "exc_module")}
    return {**kept, "exc_message": [], "exc_text": text_of(exc, 256), "exc_inexact": True}


def _encoded(
    exc: BaseException, chars_max: int, depth: int, members_left: list[int]
) -> dict[str, Value]:
    class_ = type(exc)
    module: object = class_.__module__
    text = text_of(exc, chars_max)
    members: list[BaseException] = []
    if isinstance(exc, BaseExceptionGroup):
        members = list(BaseExceptionGroup.exceptions.__get__(exc))
        message = clean(cut(str(BaseExceptionGroup.message.__get__(exc)), chars_max))
        args: list[Value] = [message, [repr_of(one, 64) for one in members[:MEMBERS_MAX]]]
        is_exact = True
    else:
        args, is_exact = _written(_args_of(exc), chars_max)
    found: dict[str, Value] = {
        "exc_type": clean(class_.__qualname__),
        "exc_message": args,
        "exc_module": clean(module) if isinstance(module, str) else "",
    }
    if members and depth:
        kept: list[Value] = []
        for one in members:
            if not members_left[0]:
                break
            members_left[0] -= 1
            kept.append(_encoded(one, chars_max // 8, depth - 1, members_left))
        if kept:
            found["exc_members"] = kept
    if not is_exact:
        found["exc_inexact"] = True
    if text != _plain_text(args):
        found["exc_text"] = text
    notes = _notes_of(exc, chars_max // 8)
    if notes:
        found["exc_notes"] = notes
    return found


def _args_of(exc: BaseException) -> Sequence[Value]:
    args: Sequence[Value] = vars(BaseException)["args"].__get__(exc)
    if isinstance(exc, OSError) and len(args) == 2 and exc.filename is not None:
        # OSError takes its file names out of `args`.
        if exc.filename2 is not None:
            return (*args, exc.filename, None, exc.filename2)
        return (*args, exc.filename)
    return args


def _written(args: Sequence[Value], chars_max: int) -> tuple[list[Value], bool]:
    """The arguments as JSON can carry them, and whether they come back as they were."""
    found: list[Value] = []
    is_exact = True
    left = 2 * chars_max
    for arg in args:
        written, size, is_like_it = _written_one(arg, chars_max)
        left -= size
        if left < 0:
            found.append(f"[... {len(args) - len(found)} arguments left out ...]")
            return found, False
        found.append(written)
        is_exact = is_exact and is_like_it
    return found, is_exact


def _written_one(arg: Value, chars_max: int) -> tuple[Value, int, bool]:
    if type(arg) is str:
        text = clean(cut(arg, chars_max))
        return text, len(text), len(arg) <= chars_max
    if arg is None or type(arg) in (bool, float):
        return arg, 4, True
    if type(arg) is int and arg.bit_length() < 64:
        return arg, 8, True
    try:
        body = serialization.json_encode(arg)
        if len(body) <= chars_max:
            read = serialization.json_decode(body)
            # The reading, because the argument may be written by code of its own, and no second time alike.
            plain = serialization.json_decode(serialization.json_encode(read))
            return read, len(body), bool(_is_alike(read, arg) and _is_alike(plain, read))
    except BaseException:  # noqa: BLE001, S110 - the argument's own code may raise anything
        pass
    text = repr_of(arg, chars_max)
    return text, len(text), False


def _is_alike(one: Value, other: Value) -> bool:
    return type(one) is type(other) and one == other


def _notes_of(exc: BaseException, chars_max: int) -> list[str]:
    try:
        notes = exc.__notes__
        kept = [text_of(note, chars_max) for note in notes[:NOTES_MAX]]
        if len(notes) > NOTES_MAX:
            kept.append(f"[... {len(notes) - NOTES_MAX} notes left out ...]")
    except BaseException:  # noqa: BLE001 - mostly there is none; and a class may answer with anything
        return []
    return kept


def _plain_text(args: Sequence[Value]) -> str:
    """The `str()` of an exception with these arguments, for classes without a `__str__` of their own."""
    if not args:
        return ""
    return text_of(args[0] if len(args) == 1 else tuple(args))


def traceback_of(exc: BaseException, frames_skipped: int = 0) -> str:
    """The traceback as text, cut, without the outermost frames, which are ours."""
    where = exc.__traceback__
    for _ in range(frames_skipped):
        if where is not None and where.tb_next is not None:
            where = where.tb_next
    try:
        text = "".join(traceback.format_exception(type(exc), exc, where))
    except BaseException:  # noqa: BLE001 - the class may break whatever the formatter asks it for
        frames = "".join(traceback.format_tb(where))
        text = f"Traceback (most recent call last):\n{frames}{line_of(exc)}\n"
    return clean(cut(text, 2 * CHARS_MAX))


def line_of(exc: BaseException) -> str:
    """Class and first line of the text."""
    first = text_of(exc).partition("\n")[0]
    return f"{clean(type(exc).__name__)}: {first}"[:LINE_CHARS_MAX]


# -- reading -------------------------------------------------------------------------------------


def decode(found: Value, traceback_text: str = "", *, may_import: bool = False) -> BaseException:
    """The exception that was encoded, or a stand-in for it.

    A module is not imported because a result names it: that would run code of the writer's choice. A reader
    that accepts pickle trusts the writer with as much, and there it is imported (`may_import`).
    """
    exc = _decoded(found, may_import=may_import, depth=DEPTH_MAX + 1)
    if traceback_text:
        BaseException.__setattr__(exc, "__cause__", RemoteTraceback(traceback_text))
    return exc


def _decoded(found: Value, *, may_import: bool, depth: int) -> BaseException:
    if not isinstance(found, Mapping) or not isinstance(found.get("exc_type"), str) or not depth:
        return SecurityError(f"a failure without a type was stored: {repr_of(found, 256)}")
    module_name = found.get("exc_module")
    module_name = module_name if isinstance(module_name, str) else ""
    if may_import and module_name:
        # Importing runs the module, which may raise anything.
        with contextlib.suppress(Exception):
            importlib.import_module(module_name)
    message = found.get("exc_message", ())
    args = list(message) if isinstance(message, list | tuple) else [message]
    class_ = _found_class(module_name, found["exc_type"])
    if class_ is not None and not (isinstance(class_, type) and issubclass(class_, BaseException)):
        return SecurityError(
            f"Expected an exception class, got {module_name}.{found['exc_type']} with payload {message!r}"
        )
    text = found.get("exc_text")
    members: list[BaseException] = []
    if isinstance(found.get("exc_members"), list):
        members = [
            _decoded(one, may_import=may_import, depth=depth - 1) for one in found["exc_members"]
        ]
        args = [args[0] if args and isinstance(args[0], str) else "", members]
    exc = _rebuilt(class_, args, text, is_exact=not found.get("exc_inexact"))
    if exc is None:
        if not isinstance(text, str):
            text = _plain_text(args)
        exc = _stand_in(class_, found["exc_type"], module_name, args, text)
    notes = found.get("exc_notes")
    if isinstance(notes, list) and all(isinstance(note, str) for note in notes):
        BaseException.__setattr__(exc, "__notes__", notes)
    return exc


def _found_class(module_name: str, type_name: str) -> Value:
    """What is loaded under that name, without running a `__getattr__` of its module."""
    found: Value = sys.modules.get(module_name)
    for part in type_name.split("."):
        if found is None:
            return None
        found = getattr(found, "__dict__", {}).get(part)
    return found


def _rebuilt(
    class_: type[BaseException] | None, args: list[Value], text: Value, *, is_exact: bool
) -> BaseException | None:
    """An instance of the class itself, if it prints as the original did."""
    if class_ is None or issubclass(class_, _ENDING):
        return None
    if not is_exact and not (_is_native(class_.__init__) and _is_native(class_.__new__)):
        # A constructor of Python code that is given text in place of an object makes half of an exception.
        return None
    try:
        exc = class_(*args)
        told = str(exc)
        repr(exc)
        getattr(exc, "__notes__", None)
        is_it = type(exc) is class_ and (not isinstance(text, str) or clean(told) == text)
    except BaseException:  # noqa: BLE001 - a constructor may take other arguments than `args`, and raise anything
        return None
    return exc if is_it else None


def _is_native(function: Value) -> bool:
    return not hasattr(function, "__code__")


class StandIn:
    """What all stand-ins have: nothing of it depends on a constructor that did not run."""

    _told = ""
    _data: tuple[Value, ...] = ()

    def __str__(self) -> str:
        return self._told

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._told!r})"

    def __getattr__(self, name: str) -> Value:
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    __getattribute__ = BaseException.__getattribute__
    __setattr__ = BaseException.__setattr__
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __reduce__(self) -> tuple[Value, ...]:
        return _stand_in, self._data

    def __reduce_ex__(self, protocol: object) -> tuple[Value, ...]:
        return _stand_in, self._data


def _stand_in(
    class_: type[BaseException] | None,
    type_name: str,
    module_name: str,
    args: list[Value],
    text: str,
) -> BaseException:
    """An exception named `type_name` that prints as `text`, as near to `class_` as can be."""
    text = clean(text)
    qualname = clean(type_name).replace("\0", "")
    name = qualname.rpartition(".")[2] or "Exception"
    for base in _bases(class_):
        if not _is_open(base):
            continue
        try:
            metaclass: Value = type(base)
            made: type[BaseException] = metaclass(
                name,
                (StandIn, base),
                {"__module__": module_name, "__qualname__": qualname, "__doc__": None},
            )
            return _bare(made, base, args, text, (class_, type_name, module_name, args, text))
        except Exception:  # noqa: BLE001, S112 - a class may refuse to be a base; then its own base may serve
            continue
    raise AssertionError("Exception itself can always be the base")


def _bases(class_: type[BaseException] | None) -> list[type[BaseException]]:
    """What a stand-in can be a subclass of, the nearest first. Whatever it is, it ends no reader."""
    found: list[type[BaseException]] = [] if class_ is None else list(class_.__mro__)
    if class_ is BaseExceptionGroup:
        found.insert(0, ExceptionGroup)
    return [
        base
        for base in (*found, Exception)
        if issubclass(base, BaseException)
        and not issubclass(base, _ENDING)
        and base is not BaseException
    ]


def _is_open(base: type[BaseException]) -> bool:
    """Whether a subclass can be made without running code of the class's own."""
    return type(base) in (type, abc.ABCMeta) and not any(
        "__init_subclass__" in vars(one) for one in base.__mro__ if one is not object
    )


def _bare(
    made: type[BaseException],
    base: type[BaseException],
    args: list[Value],
    text: str,
    data: tuple[Value, ...],
) -> BaseException:
    """An instance whose only constructor that ran is the one of the interpreter's own class."""
    native = next(one for one in base.__mro__ if one.__module__ == "builtins" and _is_static(one))
    exc: BaseException
    if issubclass(native, BaseExceptionGroup):
        members = args[1] if len(args) > 1 and isinstance(args[1], list) else []
        message = args[0] if args and isinstance(args[0], str) else text
        kept = [one if isinstance(one, BaseException) else Exception(one) for one in members]
        new: Value = native.__new__
        exc = new(made, message, kept)
    else:
        exc = native.__new__(made, *args)
        with contextlib.suppress(TypeError, ValueError):
            native.__init__(exc, *args)  # so that an OSError has its number and its file's name
        exc.args = tuple(args)
    vars(exc).update(_told=text, _data=data)
    return exc


_HEAP_TYPE = 1 << 9


def _is_static(class_: type) -> bool:
    """Whether the class is the interpreter's own, not made by a `class` statement."""
    return not class_.__flags__ & _HEAP_TYPE
