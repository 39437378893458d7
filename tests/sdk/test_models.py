"""Tasks whose arguments are pydantic models."""

import datetime as dt
import sys
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel, ValidationError, ValidationInfo, model_validator

from qbroker import App
from qbroker.app.sending import prepare
from qbroker.app.trace import build_runner
from qbroker.exceptions import ImproperlyConfigured
from qbroker.serialization import Value
from qbroker_proto.v1.message_pb2 import Message
from tests.sdk.conftest import MakeApp

if TYPE_CHECKING:
    from decimal import Decimal


class Order(BaseModel):
    """What is ordered."""

    item: str
    count: int = 1


class Receipt(BaseModel):
    """What is answered."""

    total: int
    at: dt.date | None = None


@pytest.fixture
def app(make_app: MakeApp) -> App:
    return make_app(backend="qbroker://")


def test_a_dict_becomes_the_model_and_the_returned_model_a_dict(app: App) -> None:
    seen: list[Value] = []

    @app.task(pydantic=True)
    def buy(order: Order, note: str, extra: Order | None = None) -> Receipt:
        seen.append((order, note, extra))
        return Receipt(total=order.count, at=dt.date(2030, 1, 31))

    assert buy({"item": "tea", "count": "2"}, "n") == {"total": 2, "at": "2030-01-31"}  # type: ignore[arg-type,comparison-overlap] # as a worker calls it
    ran: Value = buy.apply(({"item": "tea"}, "n"), {"extra": {"item": "cup"}}).get()
    assert ran == {"total": 1, "at": "2030-01-31"}
    assert seen == [
        (Order(item="tea", count=2), "n", None),
        (Order(item="tea"), "n", Order(item="cup")),
    ]


def test_a_caller_may_give_models_and_they_travel_as_dicts(app: App) -> None:
    @app.task(name="buy", pydantic=True)
    def buy(order: Order) -> int:
        assert isinstance(order, Order)
        return order.count

    call = prepare(app.conf, "buy", (Order(item="tea", count=3),), {}, task_type=app.tasks["buy"])
    ran = build_runner(app, hostname="here")(call.message, 1, False)

    assert Message.FromString(call.message).body == b'[[{"item":"tea","count":3}],{},{}]'
    assert ran.retval_or_exc == 3


def test_strict_tasks_take_no_text_for_a_number(app: App) -> None:
    @app.task(pydantic=True, pydantic_strict=True)
    def buy(order: Order) -> int:
        return order.count

    with pytest.raises(ValidationError):
        buy({"item": "tea", "count": "2"})  # type: ignore[arg-type] # as a worker calls it


def test_validators_are_told_the_app_the_task_and_what_the_task_says(app: App) -> None:
    told: list[Value] = []

    class Watched(BaseModel):
        @model_validator(mode="wrap")
        @classmethod
        def watch(cls, value: Value, handler: Value, info: ValidationInfo) -> Value:
            told.append(info.context)
            return handler(value)

    def run(one: Watched) -> None: ...

    run.__annotations__["one"] = Watched
    task = app.task(name="own", pydantic=True, pydantic_context={"tenant": 7})(run)

    task({})  # type: ignore[arg-type] # as a worker calls it

    assert told == [{"celery_app": app, "celery_task_name": "own", "tenant": 7}]


def test_how_the_model_is_dumped_can_be_said(app: App) -> None:
    @app.task(pydantic=True, pydantic_dump_kwargs={"mode": "python", "exclude_unset": True})
    def answer() -> Receipt:
        return Receipt(total=1)

    assert answer() == {"total": 1}  # type: ignore[comparison-overlap] # as a worker gets it


def test_a_bound_task_and_a_coroutine_have_models_too(app: App) -> None:
    @app.task(bind=True, pydantic=True)
    def bound(self: Value, order: Order) -> str:
        return f"{type(self).__name__} {order.item}"

    @app.task(pydantic=True)
    async def later(order: Order) -> Receipt:
        return Receipt(total=order.count)

    assert bound.apply(({"item": "tea"},)).get() == "bound tea"
    ran: Value = later.apply(({"item": "tea"},)).get()
    assert ran == {"total": 1, "at": None}


def test_an_annotation_for_the_type_checker_alone_is_left_alone(app: App) -> None:
    def pay(order: Order, price: "Decimal") -> str:
        return f"{order.item} {price}"

    task = app.task(pydantic=True)(pay)

    assert task({"item": "tea"}, 5) == "tea 5"  # type: ignore[arg-type] # as a worker calls it


def test_several_models_in_one_annotation_are_not_chosen_from(app: App) -> None:
    @app.task(pydantic=True)
    def either(one: Order | Receipt, *rest: Order) -> list[str]:
        return [type(value).__name__ for value in (one, *rest)]

    assert either({"item": "x"}, {"item": "y"}) == ["dict", "dict"]  # type: ignore[arg-type] # as a worker calls it


def test_without_pydantic_the_task_says_what_is_missing(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.task(pydantic=True)
    def buy(order: int) -> int:
        return order

    monkeypatch.setitem(sys.modules, "pydantic", None)

    with pytest.raises(ImproperlyConfigured, match="You need to install pydantic"):
        buy(1)
