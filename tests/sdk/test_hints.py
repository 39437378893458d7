"""Functions whose annotations cannot be evaluated, as Python 3.14 has them where it evaluates them late."""

import sys
from collections.abc import Mapping

import pytest

from qbroker.hints import annotations_of, hints_of, signature_of
from qbroker.serialization import Value
from qbroker.utils.dispatch import Signal
from qbroker.utils.functional import fun_accepts_kwargs
from tests.sdk.conftest import MakeApp

LATE = sys.version_info >= (3, 14)


class Late:
    """Raises when its annotations are read, as a function of Python 3.14 does, on any version."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    @property
    def __annotations__(self) -> Mapping[str, Value]:  # type: ignore[override] # as a function's
        raise self._error

    def __call__(self, x: int = 0, **kwargs: Value) -> Value:
        return x


@pytest.fixture(params=[NameError("Missing"), AttributeError("Missing"), ZeroDivisionError()])
def late(request: pytest.FixtureRequest) -> Late:
    return Late(request.param)


def test_annotations_that_cannot_be_evaluated_are_none(late: Late) -> None:
    assert annotations_of(late) == {}
    assert hints_of(late) == {}


def test_parameters_are_known_without_the_annotations(late: Late) -> None:
    signal = Signal()
    signal.connect(late, weak=False)

    assert list(signature_of(late).parameters) == ["x", "kwargs"]
    assert fun_accepts_kwargs(late)
    assert signal.send(None, x=1) == [(late, 1)]


def test_one_unknown_name_does_not_hide_the_other_hints() -> None:
    def pay(order: "int", price: "Missing", note: "sys.Missing", tip: "int | None" = None) -> None:  # type: ignore[name-defined] # noqa: F821 - such is tested
        ...

    assert hints_of(pay) == {"order": int, "tip": int | None, "return": type(None)}


@pytest.mark.skipif(not LATE, reason="Python evaluates annotations late from 3.14 on")
def test_python_3_14_evaluates_only_what_it_can(make_app: MakeApp) -> None:
    scope: dict[str, Value] = {}
    exec("def late(x: Missing, y: int = 2, **kwargs): return x", scope)  # noqa: S102 - 3.11 refuses it as a statement

    task = make_app().task(name="late")(scope["late"])

    assert task.arguments((1,), {}) == {"x": 1, "y": 2, "kwargs": {}}
    assert hints_of(scope["late"]) == {"y": int}
    assert list(signature_of(scope["late"]).parameters) == ["x", "y", "kwargs"]
