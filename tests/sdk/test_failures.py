"""Exceptions as data and back: whatever a task raises can be stored and read."""

import asyncio
import copy
import dataclasses
import io
import json
import pickle
import traceback
import urllib.error
from collections.abc import Callable, Iterator
from typing import Self

import pytest
from click.testing import CliRunner
from hypothesis import given, settings, strategies as st

from qbroker import App, chord, failures, group
from qbroker.cli.qctl import qctl
from qbroker.exceptions import RemoteTraceback, SecurityError
from qbroker.serialization import Value, json_decode, json_encode
from qbroker.testing import LocalBroker
from tests.sdk.conftest import MakeApp

touched: list[str] = []
"""What constructors and hooks of the classes below have done."""


class Wanting(Exception):
    """Takes what is not in `args`."""

    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


class Many(LookupError):
    """Puts other things into `args` than it takes."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Picky(Exception):
    """Checks in `__new__`."""

    def __new__(cls, *args: Value) -> Self:
        if not args or not isinstance(args[0], set):
            raise SystemExit("Picky")
        return super().__new__(cls, *args)


class Checking(Exception):
    """Checks in `__init__`."""

    def __init__(self, path: object) -> None:
        if not isinstance(path, set):
            raise KeyboardInterrupt
        super().__init__(path)


class Effect(Exception):
    """Its constructor leaves a trace."""

    def __init__(self, where: object) -> None:
        touched.append(repr(where))
        super().__init__(where)


class Registering(Exception):
    """Its subclasses leave a trace."""

    def __init_subclass__(cls) -> None:
        touched.append(cls.__name__)

    def __init__(self) -> None:
        super().__init__("a", "b")


class Slotted(Exception):
    """Has its own slot."""

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code

    def __str__(self) -> str:
        return f"slot {self.code}"


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """Takes no attribute."""

    code: int


class Mute(ValueError):
    """Cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __repr__(self) -> str:
        raise SystemExit(3)


class Endless(Exception):
    """Recurses when it is printed."""

    def __str__(self) -> str:
        return str(self)


class NoText(Exception):
    """Prints as a number."""

    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


class OddAttributes(Exception):
    """Has no attribute, and says so wrongly."""

    def __getattr__(self, name: str) -> Value:
        raise KeyError(name)


class OddArgs(Exception):
    """Shows no arguments."""

    @property
    def args(self) -> Value:  # type: ignore[override]
        raise RuntimeError("no arguments")


class Own(BaseException):
    """Passes by `except Exception`."""


class Group(ExceptionGroup[Exception]):
    """Makes its own message."""

    def __new__(cls, excs: list[Exception]) -> Self:
        return super().__new__(cls, "own group", excs)


def _http_error() -> Exception:
    return urllib.error.HTTPError("http://x", 404, "Not Found", {}, io.BytesIO(b"gone"))  # type: ignore[arg-type]


def _noted() -> Exception:
    exc = ValueError("noted")
    exc.add_note("see \udcff")
    exc.add_note("and this")
    return exc


def _cyclic() -> Exception:
    one, two = ValueError("one"), KeyError("two")
    one.__cause__, two.__cause__ = two, one
    return one


def _nested_groups(depth: int) -> Exception:
    exc: Exception = ValueError("innermost")
    for number in range(depth):
        exc = ExceptionGroup(f"level {number}", [exc])
    return exc


def _deep_argument() -> Exception:
    value: list[Value] = []
    for _ in range(5_000):
        value = [value]
    return ValueError(value)


NASTY: dict[str, Callable[[], BaseException]] = {
    "keyword-only constructor": lambda: Wanting(code=3),
    "constructor of two": lambda: Many("this", "that"),
    "__new__ that checks": lambda: Picky({1}),
    "__init__ that checks": lambda: Checking({1}),
    "constructor with an effect": lambda: Effect({1}),
    "subclass hook": Registering,
    "slots": lambda: Slotted(4),
    "frozen dataclass": lambda: Frozen(5),
    "str and repr that raise": lambda: Mute("x"),
    "str that recurses": lambda: Endless("x"),
    "str that returns no string": lambda: NoText("x"),
    "attributes that raise KeyError": lambda: OddAttributes("x"),
    "args that raise": lambda: OddArgs("x"),
    "surrogate": lambda: ValueError("file \udcff.txt"),
    "arguments that JSON changes": lambda: KeyError((1, 2)),
    "arguments that JSON refuses": lambda: LookupError("no", object),
    "very deep argument": _deep_argument,
    "group": lambda: ExceptionGroup("many", [ValueError("x"), KeyError("y")]),
    "group in a group": lambda: _nested_groups(3),
    "groups too deep": lambda: _nested_groups(60),
    "group of own class": lambda: Group([ValueError("x")]),
    "base group": lambda: BaseExceptionGroup("base", [KeyboardInterrupt(), ValueError("x")]),
    "thousands of members": lambda: ExceptionGroup("all", [ValueError(n) for n in range(5_000)]),
    "thousands of arguments": lambda: ValueError(*range(50_000)),
    "long text": lambda: ValueError("begin\n" + "y" * 6_000_000 + "\nend"),
    "notes": _noted,
    "cyclic causes": _cyclic,
    "OSError": lambda: FileNotFoundError(2, "No such file", "/x"),
    "OSError of two files": lambda: OSError(18, "Cross-device link", "/a", None, "/b"),
    "UnicodeDecodeError": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    "UnicodeEncodeError": lambda: UnicodeEncodeError("utf-8", "\udcff", 0, 1, "bad"),
    "half-made HTTPError": _http_error,
    "BaseException": lambda: Own("own"),
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "local class": lambda: type("Local", (ValueError,), {"__module__": "not.loaded"})("x"),
    "module that is no text": lambda: type("Odd", (ValueError,), {"__module__": 5})("x"),
}


def _travelled(exc: BaseException, text: str = "") -> BaseException:
    return failures.decode(json_decode(json_encode(failures.encode(exc))), text)


def _text(exc: BaseException) -> str | None:
    try:
        return str(exc)
    except Exception:  # noqa: BLE001 - some are made so
        return None


@pytest.mark.parametrize("name", NASTY)
def test_every_exception_can_be_written_and_read_with_its_class_and_text(name: str) -> None:
    raised = NASTY[name]()

    found = _travelled(raised, failures.traceback_of(raised))

    assert type(found).__name__ == type(raised).__name__
    told = _text(raised)
    if told is None:
        assert str(found) == f"<unprintable {type(raised).__name__} object>"
    elif len(told) < 1_000 and told.isprintable():
        assert str(found) == told
    assert repr(found)
    assert isinstance(found.__cause__, RemoteTraceback)
    assert type(raised).__name__ in "".join(traceback.format_exception(found))
    assert len(json_encode(failures.encode(raised))) < 3_000_000
    str(found).encode()


@pytest.mark.parametrize("name", NASTY)
def test_what_was_read_can_be_written_and_copied_again(name: str) -> None:
    found = _travelled(NASTY[name]())

    again = _travelled(found)

    assert (type(again).__name__, str(again)) == (type(found).__name__, str(found))
    if isinstance(found, failures.StandIn):
        unpickled = pickle.loads(pickle.dumps(found))  # noqa: S301 - pickled here
        assert str(unpickled) == str(copy.copy(found)) == str(found)


@pytest.mark.parametrize(
    ("exc", "caught"),
    [
        (Wanting(code=3), Wanting),
        (Many("a", "b"), LookupError),
        (Mute("x"), ValueError),
        (_http_error(), OSError),
        (KeyError((1, 2)), KeyError),
        (ExceptionGroup("many", [ValueError("x")]), ExceptionGroup),
        (BaseExceptionGroup("base", [KeyboardInterrupt()]), BaseExceptionGroup),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_stand_in_is_caught_like_the_class_it_stands_for(
    exc: BaseException, caught: type[BaseException]
) -> None:
    with pytest.raises(caught):
        raise _travelled(exc)


def test_an_exception_that_is_rebuilt_is_of_its_own_class() -> None:
    for exc in (ValueError("x"), KeyError("k"), Frozen(5), FileNotFoundError(2, "no", "/x")):
        assert type(_travelled(exc)) is type(exc)


def test_an_os_error_keeps_its_number_and_file() -> None:
    found = _travelled(FileNotFoundError(2, "No such file", "/x"))

    assert isinstance(found, FileNotFoundError)
    assert (found.errno, found.filename) == (2, "/x")
    assert str(found) == "[Errno 2] No such file: '/x'"


def test_a_group_keeps_its_members_and_theirs() -> None:
    found = _travelled(ExceptionGroup("many", [ExceptionGroup("in", [KeyError("k")]), Mute()]))

    assert isinstance(found, ExceptionGroup)
    inner, mute = found.exceptions
    assert isinstance(inner, ExceptionGroup)
    assert repr(inner.exceptions[0]) == "KeyError('k')"
    assert str(mute) == "<unprintable Mute object>"


def test_notes_are_kept() -> None:
    assert _travelled(_noted()).__notes__ == ["see \\udcff", "and this"]


@pytest.mark.parametrize(
    "ending", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError]
)
def test_a_failure_that_names_an_end_of_the_process_does_not_end_its_reader(
    ending: type[BaseException],
) -> None:
    told = {"exc_type": ending.__name__, "exc_module": ending.__module__, "exc_message": [3]}

    with pytest.raises(Exception, match="3") as caught:
        raise failures.decode(told)

    assert type(caught.value).__name__ == ending.__name__


def test_reading_runs_no_constructor_with_text_in_place_of_an_object_and_no_hook() -> None:
    raised = Effect({1}), Registering()
    touched.clear()

    for exc in raised:
        _travelled(exc)

    assert touched == []


def test_failures_of_the_release_before_are_read() -> None:
    def told(class_: type[BaseException], *args: Value) -> BaseException:
        return failures.decode(
            {"exc_type": class_.__qualname__, "exc_module": class_.__module__, "exc_message": args}
        )

    assert repr(told(ValueError, "x")) == "ValueError('x')"
    assert isinstance(told(ExceptionGroup, "many", ["ValueError('x')"]), ExceptionGroup)
    assert str(told(Wanting)) == ""
    assert str(told(Many, "a and b")) == "a and b"


def test_an_older_reader_finds_class_module_and_arguments_where_they_were() -> None:
    found = failures.encode(Many("a", "b"))

    assert (found["exc_type"], found["exc_module"]) == ("Many", __name__)
    assert found["exc_message"] == ["a and b"]
    assert failures.encode(ValueError("x")) == {
        "exc_type": "ValueError",
        "exc_module": "builtins",
        "exc_message": ["x"],
    }


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_names = st.sampled_from(
    [
        "ValueError",
        "SystemExit",
        "OSError",
        "ExceptionGroup",
        "UnicodeDecodeError",
        "int",
        "Frozen",
        "",
        "a.b",
        "\0",
    ]
)
_failure = st.fixed_dictionaries(
    {"exc_type": _names},
    optional={
        "exc_module": st.sampled_from(["builtins", __name__, "os", ""]) | _json,
        "exc_message": _json,
        "exc_text": _json,
        "exc_notes": _json,
        "exc_members": _json,
        "exc_inexact": _json,
    },
)


@given(_failure | _json)
@settings(deadline=None, max_examples=80)
def test_whatever_is_stored_is_read_as_an_exception_that_can_be_printed(found: Value) -> None:
    exc = failures.decode(found)

    assert isinstance(exc, Exception | BaseExceptionGroup)
    str(exc)
    repr(exc)
    traceback.format_exception(exc)


def _class_of(text: Value, base: type[BaseException], verb: str) -> BaseException:
    def misbehave(self: object, *_: object) -> Value:
        del self
        if isinstance(text, BaseException):
            raise text
        return text

    made: type[BaseException] = type("Made", (base,), {verb: misbehave})
    return made("x")


@given(
    st.sampled_from(
        [5, None, "\udcff", "x" * 300_000, ValueError("v"), SystemExit(1), KeyError("k")]
    ),
    st.sampled_from([Exception, ValueError, LookupError, RuntimeError]),
    st.sampled_from(
        [
            "__str__",
            "__repr__",
            "__getattr__",
            "__setattr__",
            "__eq__",
            "__hash__",
            "__reduce__",
            "__bool__",
            "__format__",
        ]
    ),
)
@settings(deadline=None, max_examples=80)
def test_a_class_whose_methods_misbehave_makes_a_failure_all_the_same(
    text: Value, base: type[BaseException], verb: str
) -> None:
    exc = _class_of(text, base, verb)

    told = json.dumps(failures.encode(exc))
    found = failures.decode(json.loads(told), failures.traceback_of(exc))

    assert type(found).__name__ == "Made"
    str(found).encode()
    failures.line_of(exc).encode()


def test_what_is_no_exception_class_is_not_called() -> None:
    found = failures.decode({"exc_type": "system", "exc_module": "os", "exc_message": ["true"]})

    assert isinstance(found, SecurityError)


def test_the_traceback_of_an_endless_text_is_cut_and_keeps_both_ends() -> None:
    found = failures.traceback_of(ValueError("y" * 5_000_000 + "\nthe end"))

    assert len(found) < 1_000_000
    assert found.startswith("ValueError: yyy")
    assert "characters left out" in found
    assert found.rstrip().endswith("the end")


# -- each reader of a failure ----------------------------------------------------------------------

READ = {
    "group": (NASTY["group"], "many (2 sub-exceptions)"),
    "keyword-only constructor": (NASTY["keyword-only constructor"], None),
    "str and repr that raise": (NASTY["str and repr that raise"], "<unprintable Mute object>"),
}


@dataclasses.dataclass
class Failing:
    """An app whose task `boom` fails as the parameter says, at a broker in this process."""

    broker: LocalBroker
    app: App
    heard: list[tuple[str, str]]
    kind: str
    text: str


@pytest.fixture(params=READ)
def failing(request: pytest.FixtureRequest, make_app: MakeApp) -> Iterator[Failing]:
    make, text = READ[request.param]
    text = str(make()) if text is None else text
    with LocalBroker() as broker:
        app = make_app("shop", broker=broker.url, backend="qbroker://")
        heard: list[tuple[str, str]] = []

        @app.task(shared=False, name="boom")
        def boom() -> None:
            raise make()

        @app.task(shared=False, name="fine")
        def fine() -> int:
            return 1

        @app.task(shared=False, name="total")
        def total(values: list[int]) -> int:
            return sum(values)

        @app.task(shared=False, name="hear")
        def hear(context: Value, exc: BaseException, tb: Value) -> None:
            heard.append((type(exc).__name__, str(exc)))

        yield Failing(broker, app, heard, type(make()).__name__, text)


def test_an_errback_receives_a_failure_that_cannot_be_rebuilt_or_printed(failing: Failing) -> None:
    tasks = failing.app.tasks

    _ = tasks["boom"].apply_async(link_error=tasks["hear"].s())
    failing.broker.drain(failing.app)

    assert failing.heard == [(failing.kind, failing.text)]


def test_a_chord_raises_a_failure_that_cannot_be_rebuilt_or_printed(failing: Failing) -> None:
    tasks = failing.app.tasks

    result = chord([tasks["fine"].s(), tasks["boom"].s()])(tasks["total"].s())
    failing.broker.drain(failing.app)

    with pytest.raises(Exception) as caught:  # noqa: PT011 - compared below
        result.get(timeout=10)
    assert (caught.type.__name__, str(caught.value)) == (failing.kind, failing.text)


def test_a_group_with_a_failure_that_cannot_be_rebuilt_or_printed_is_not_successful(
    failing: Failing,
) -> None:
    tasks = failing.app.tasks

    result = group(tasks["fine"].s(), tasks["boom"].s()).apply_async()
    failing.broker.drain(failing.app)

    assert result.ready()
    assert not result.successful()
    assert result.failed()


def test_qctl_result_shows_a_failure_that_cannot_be_rebuilt_or_printed(failing: Failing) -> None:
    sent = failing.app.tasks["boom"].delay()
    failing.broker.drain(failing.app)
    command = ["-b", failing.broker.address, "result", sent.id]

    as_text = CliRunner().invoke(qctl, command)
    as_json = CliRunner().invoke(qctl, [*command, "--json"])

    assert as_text.exit_code == as_json.exit_code == 1
    assert f"FAILURE {failing.kind}: {failing.text}" in as_text.output
    told = json.loads(as_json.output.splitlines()[0])
    assert told["state"] == "FAILURE"
    assert failing.kind in told["result"]
    assert failing.kind in told["traceback"]


def test_the_worker_logs_a_failure_that_cannot_be_rebuilt_or_printed(
    failing: Failing, caplog: pytest.LogCaptureFixture
) -> None:
    sent = failing.app.tasks["boom"].delay()

    failing.broker.drain(failing.app)

    line = next(one.getMessage() for one in caplog.records if sent.id in one.getMessage())
    assert "raised unexpected: " in line
    assert failing.text in line
