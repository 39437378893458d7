"""Limits as users write them."""

import pytest

from qbroker.limits import Limit, per_second
from qbroker.serialization import Value


@pytest.mark.parametrize(
    ("rate", "starts"),
    [
        ("100/s", (100.0, 1_000)),
        ("100/m", (100.0, 60_000)),
        ("0.5 / h", (0.5, 3_600_000)),
        ("7", (7.0, 1_000)),
        (2.5, (2.5, 1_000)),
    ],
)
def test_a_rate_is_so_many_in_a_time(rate: str | float, starts: tuple[float, int]) -> None:
    assert Limit("k", rate).starts() == starts


def test_a_rate_limit_is_so_many_a_second() -> None:
    assert [per_second(rate) for rate in ("30/m", "36/h", 4)] == [0.5, 0.01, 4.0]


ZEROS = ["0", "0/s", "0/m", "0/h", "0.0/m", " 0 / m ", ".0", 0, 0.0, -0.0]


@pytest.mark.parametrize("rate", [*ZEROS, "", " ", None], ids=repr)
def test_a_rate_limit_of_zero_is_no_limit(rate: str | float | None) -> None:
    assert per_second(rate) == 0.0


@pytest.mark.parametrize("rate", ZEROS, ids=repr)
def test_a_limit_with_a_rate_of_zero_has_no_rate(rate: str | float) -> None:
    assert Limit("k", rate, concurrency=2).starts() == (0.0, 0)
    assert Limit("k", rate).starts() == (0.0, 0)


@pytest.mark.parametrize("rate", ["fast", "100/d", "/m", "-1/s", -1, float("nan"), 1e9, True, [1]])  # fmt: skip
def test_a_rate_of_another_form_is_refused_with_the_forms_there_are(rate: Value) -> None:
    with pytest.raises(ValueError, match=r"'100/s', '100/m' or '100/h'") as caught:
        Limit("cust:42", rate)

    assert repr(rate) in str(caught.value)
    assert "'cust:42'" in str(caught.value)


@pytest.mark.parametrize("concurrency", [0, -1, 2.5, True, "3", 1 << 32])
def test_a_concurrency_is_a_whole_number_from_one(concurrency: Value) -> None:
    with pytest.raises(ValueError, match="is not a whole number from 1"):
        Limit("k", concurrency=concurrency)


def test_a_limit_that_limits_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="limits nothing"):
        Limit("k")


def test_a_key_is_text_or_a_function() -> None:
    wrong: Value = 42

    with pytest.raises(TypeError, match="neither text nor a function"):
        Limit(wrong, "1/s")
