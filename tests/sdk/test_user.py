"""Who runs this program, also where the system has no name for it."""

import pytest

from qbroker.user import user_at_host, user_name


@pytest.mark.parametrize(
    "error",
    [KeyError("getpwuid(): uid not found: 61234"), OSError("No username"), ImportError("pwd")],
)
def test_a_user_without_a_name_is_its_number(error: Exception) -> None:
    def getuser() -> str:
        raise error

    assert user_name(getuser, lambda: 61234) == "uid 61234"


def test_a_user_with_a_name_is_that_name() -> None:
    assert user_name(lambda: "ann") == "ann"


def test_a_machine_without_a_name_leaves_the_user_alone() -> None:
    assert user_at_host(lambda: "ann", lambda: "web-1") == "ann@web-1"
    assert user_at_host(lambda: "ann", lambda: "") == "ann"
