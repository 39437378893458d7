"""How commands end, and whom they speak to."""

import io

import click
import pytest

from qbroker.cli.target import Absent, Conflicting, Misused, Target, Unavailable, named
from qbroker.exceptions import Conflict, NotFound, OperationalError, RequestRefused


@pytest.mark.parametrize(
    ("error", "ends_as", "code"),
    [
        (RequestRefused("no"), Misused, 2),
        (NotFound("no"), Absent, 3),
        (OperationalError("no"), Unavailable, 5),
        (Conflict("no"), Conflicting, 6),
    ],
)
def test_each_refusal_has_its_exit_code(
    error: Exception, ends_as: type[click.ClickException], code: int
) -> None:
    with pytest.raises(ends_as, match="no") as caught, Target("qbroker://127.0.0.1:1").reached():
        raise error

    assert caught.value.exit_code == code


def test_a_url_of_another_kind_is_a_usage_error() -> None:
    with pytest.raises(click.UsageError, match="'redis'"), Target("redis://localhost").reached():
        raise AssertionError("it was reached")


def test_ids_come_once_each_and_from_standard_input_where_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("b\nc  a\n"))

    assert named(["a", "-", "d", "a"]) == ["a", "b", "c", "d"]
