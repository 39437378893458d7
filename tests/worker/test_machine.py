"""How many processors there are for a worker."""

from pathlib import Path

import pytest

from qbroker_worker.machine import cores


@pytest.mark.parametrize("quota", ["100000 100000", "50000 100000"])
def test_a_containers_share_counts(tmp_path: Path, quota: str) -> None:
    cpu_max = tmp_path / "cpu.max"
    cpu_max.write_text(f"{quota}\n")

    assert cores(cpu_max) == 1


def test_without_a_share_all_there_are_count(tmp_path: Path) -> None:
    cpu_max = tmp_path / "cpu.max"
    unlimited = cores(cpu_max)
    cpu_max.write_text("max 100000\n")

    assert cores(cpu_max) == unlimited >= 1
