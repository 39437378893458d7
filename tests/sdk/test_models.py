"""Tasks whose arguments are pydantic models."""

import datetime as dt
import re
import sys
from typing import TYPE_CHECKING, Generic, TypeVar

import pytest
from pydantic import (
    BaseModel,
    Field,
    PrivateAttr,
    SecretBytes,
    SecretStr,
    ValidationError,
    ValidationInfo,
    computed_field,
    model_validator,
)

from qbroker import App, group
from qbroker.app.sending import prepare
from qbroker.app.trace import build_runner
from qbroker.exceptions import EncodeError, ImproperlyConfigured
from qbroker.serialization import Value
from qbroker_proto.v1.message_pb2 import Message
from tests.sdk.conftest import MakeApp

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")


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


def test_an_annotation_for_the_type_checker_alone_does_not_hide_the_models_of_others(
    app: App,
) -> None:
    def pay(order: "Order", price: "Decimal") -> str:
        return f"{type(order).__name__} for {price}"

    task: Value = app.task(pydantic=True)(pay)

    assert task({"item": "tea"}, 3) == "Order for 3"


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


# -- nothing arrives changed without an error --------------------------------------------------------


class Login(BaseModel):
    """Has a secret, which a dump masks."""

    password: SecretStr


class Token(BaseModel):
    """The same in bytes."""

    token: SecretBytes


class Hidden(BaseModel):
    """Leaves a field out of its dump."""

    shown: int = 0
    hidden: int = Field(default=0, exclude=True)


class Gift(Order):
    """An order with more to it."""

    card: str = ""


class Private(BaseModel):
    """Has an attribute that is no field."""

    _mark: int = PrivateAttr(default=0)
    item: str = ""

    def marked(self, mark: int) -> "Private":
        """The model, with its attribute set."""
        self._mark = mark
        return self


class Aliased(BaseModel):
    """Is read by another name than it is dumped by."""

    item: str = Field(alias="Item")


class Basket(BaseModel):
    """Has models in it."""

    orders: list[Order] = []
    by_name: dict[str, Order] = {}
    first: Order | None = None


class Box(BaseModel, Generic[T]):
    """A generic model."""

    content: T


class Counted(BaseModel):
    """Has a computed field, which is dumped and not read."""

    items: list[str]

    @computed_field  # type: ignore[prop-decorator] # as pydantic's documentation has it
    @property
    def count(self) -> int:
        """How many."""
        return len(self.items)


class Raw(BaseModel):
    """Has bytes."""

    data: bytes


class Loose(BaseModel):
    """Has a value of any type, which JSON may not have."""

    value: Value


ARRIVE: list[tuple[type[BaseModel], BaseModel]] = [
    (Order, Order(item="tea", count=3)),
    (Hidden, Hidden(shown=1)),
    (Private, Private(item="tea")),
    (Basket, Basket(orders=[Order(item="tea")], by_name={"a": Order(item="cup")})),
    (Basket, Basket(first=Order(item="tea"))),
    (Box[int], Box[int](content=1)),
    (Box[Order], Box[Order](content=Order(item="tea"))),
    (Counted, Counted(items=["tea"])),
    (Raw, Raw(data=b"text")),
    (Loose, Loose(value={"a": [1, None]})),
]
REFUSED: list[tuple[type[BaseModel], BaseModel, str]] = [
    (Login, Login(password=SecretStr("hunter2")), "another value of 'password'"),
    (Token, Token(token=SecretBytes(b"hunter2")), "another value of 'token'"),
    (Hidden, Hidden(hidden=1), "another value of 'hidden'"),
    (Order, Gift(item="tea", card="hi"), "annotated with Order, which has other fields"),
    (Private, Private(item="tea").marked(1), "another value of '_mark'"),
    (Aliased, Aliased(Item="tea"), "refuses what it dumps"),
    (Basket, Basket(orders=[Gift(item="tea", card="hi")]), "another value of 'orders'"),
    (Basket, Basket(first=Gift(item="tea")), "another value of 'first'"),
    (Box[Order], Box[Order](content=Gift(item="tea")), "another value of 'content'"),
    (Raw, Raw(data=b"\xff"), "UnicodeDecodeError|invalid utf-8"),
    (Loose, Loose(value=(1, 2)), "another value of 'value'"),
    (Loose, Loose(value=dt.date(2030, 1, 1)), "another value of 'value'"),
]


def _task_of(app: App, model: Value, serializer: str = "json") -> tuple[Value, list[Value]]:
    """A task whose parameter is annotated with the model, and what it was called with."""
    seen: list[Value] = []

    def take(one: Value, *, other: Value = None) -> None:
        seen.append(one if other is None else other)

    take.__annotations__ |= {"one": model, "other": model | None}
    app.task(name="take", pydantic=True, serializer=serializer, shared=False)(take)
    return app.tasks["take"], seen


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml"])
@pytest.mark.parametrize(("model", "value"), ARRIVE)
def test_a_model_that_can_be_rebuilt_arrives_as_it_is(
    app: App, model: Value, value: BaseModel, serializer: str
) -> None:
    app.conf.accept_content = ["json", "msgpack", "yaml"]
    task, seen = _task_of(app, model, serializer)
    runner = build_runner(app, hostname="here")

    for args, kwargs in (((value,), {}), ((), {"one": value}), ((value,), {"other": value})):
        call, _ = app.prepare("take", args, kwargs, task, {})
        ran = runner(call.message, 1, False)
        assert ran.state == "SUCCESS", ran.retval_or_exc

    assert seen == [value] * 3


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml"])
@pytest.mark.parametrize(("model", "value", "why"), REFUSED)
def test_a_model_that_would_arrive_changed_is_refused_at_the_call(
    app: App, model: Value, value: BaseModel, why: str, serializer: str
) -> None:
    task, seen = _task_of(app, model, serializer)

    for call in (
        lambda: task.delay(value),
        lambda: task.apply_async(kwargs={"one": value}),
        lambda: app.send_task("take", (value,)),
        lambda: task.s(value).apply_async(),
        lambda: (task.s(value) | task.si(value)).apply_async(),
        lambda: group(task.s(value), task.s(value)).apply_async(),
    ):
        with pytest.raises(
            EncodeError, match=rf"'take' is the model {re.escape(type(value).__name__)}.*({why})"
        ):
            call()

    assert seen == []


def test_a_model_of_a_parameter_that_is_not_annotated_with_it_is_refused(app: App) -> None:
    @app.task(name="loose", pydantic=True)
    def loose(
        plain: Value = None, many: list[Order] | None = None, *rest: Value, **named: Value
    ) -> None: ...

    order = Order(item="tea")

    for args, kwargs in (
        ((order,), {}),
        ((None, [order]), {}),
        ((), {"many": [order]}),
        ((None, None, order), {}),
        ((), {"more": {"deep": [order]}}),
    ):
        with pytest.raises(
            EncodeError, match="is the model Order, which would not arrive as it is"
        ):
            _ = loose.apply_async(args, kwargs)


def test_a_model_after_the_value_of_the_task_before_has_its_own_parameter(app: App) -> None:
    @app.task(name="first", pydantic=True)
    def first() -> int:
        return 1

    @app.task(name="second", pydantic=True)
    def second(number: int, order: Order) -> None: ...

    call, _ = app.prepare(
        "second", (Order(item="tea"),), {}, app.tasks["second"], {"takes_input": True}
    )

    assert Message.FromString(call.message).body == b'[[{"item":"tea","count":1}],{},{}]'


def test_pickle_carries_models_as_they_are(app: App) -> None:
    app.conf.accept_content = ["json", "pickle"]
    task, seen = _task_of(app, Login, "pickle")
    value = Login(password=SecretStr("hunter2"))

    call, _ = app.prepare("take", (value,), {}, task, {})
    build_runner(app, hostname="here")(call.message, 1, False)

    assert seen[0].password.get_secret_value() == "hunter2"


def test_arguments_without_models_are_left_as_they_are(app: App) -> None:
    task, _ = _task_of(app, Order)
    args, kwargs = [{"item": "tea"}], {"other": None}

    sent = task.__models__.sent(args, kwargs)

    assert sent[0] is args
    assert sent[1] is kwargs


@pytest.mark.parametrize(
    ("model", "value"),
    [
        (Login, Login(password=SecretStr("hunter2"))),
        (Basket, Basket(first=Gift(item="tea", card="hi"))),
    ],
)
def test_a_returned_model_with_a_value_that_is_masked_or_cut_fails_the_task(
    app: App, model: type[BaseModel], value: BaseModel
) -> None:
    def answer() -> Value:
        return value

    answer.__annotations__["return"] = model
    task = app.task(pydantic=True)(answer)

    with pytest.raises(EncodeError, match="returned would arrive with other values of"):
        task.apply().get()


def test_a_returned_model_leaves_out_what_it_excludes(app: App) -> None:
    @app.task(pydantic=True)
    def answer() -> Hidden:
        return Hidden(shown=1, hidden=2)

    returned: Value = answer.apply().get()

    assert returned == {"shown": 1}


def test_how_a_returned_model_is_dumped_is_the_authors_word(app: App) -> None:
    @app.task(pydantic=True, pydantic_dump_kwargs={"mode": "json"})
    def answer() -> Login:
        return Login(password=SecretStr("hunter2"))

    returned: Value = answer.apply().get()

    assert returned == {"password": "**********"}


@pytest.mark.parametrize(
    "value", [one for _, one, _ in REFUSED if not isinstance(one, Gift | Aliased)]
)
def test_a_task_without_models_is_sent_no_model_that_says_less_as_a_dict(
    app: App, value: BaseModel
) -> None:
    @app.task(name="plain")
    def plain(one: Value) -> None: ...

    with pytest.raises(EncodeError):
        _ = plain.delay(value)
