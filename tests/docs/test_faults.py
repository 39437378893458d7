"""Each fault that was found has a test that holds it mended: faults.toml names it."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAULTS: dict[str, list[str]] = tomllib.loads((ROOT / "tests/docs/faults.toml").read_text())


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_fault_names_tests_that_exist(fault: str) -> None:
    for test in FAULTS[fault]:
        path, _, name = test.partition("::")
        function = name.rpartition("::")[2].partition("[")[0]
        assert re.search(rf"^\s*(async )?def {function}\(", (ROOT / path).read_text(), re.MULTILINE)
