"""Each fault that was found has a test that holds it mended: faults.toml names it."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAULTS: dict[str, list[str]] = tomllib.loads((ROOT / "tests/docs/faults.toml").read_text())

OPEN = {
    "F-06": "Spans still follow the wall clock: steady time for the core is designed, not built.",
}
"""Faults that are not mended yet, each with what is missing."""


def test_a_fault_has_a_test_or_is_known_to_be_open() -> None:
    untested = [fault for fault, tests in FAULTS.items() if not tests]

    assert untested == sorted(OPEN)


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_fault_names_tests_that_exist(fault: str) -> None:
    for test in FAULTS[fault]:
        path, _, name = test.partition("::")
        function = name.rpartition("::")[2].partition("[")[0]
        assert re.search(rf"^\s*(async )?def {function}\(", (ROOT / path).read_text(), re.MULTILINE)
