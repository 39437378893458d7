"""ARCHITECTURE.md tells the truth about what machines check."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = [c["name"] for c in PROJECT["tool"]["importlinter"]["contracts"]]
PACKAGES = ("proto/qbroker_proto", "server/qbroker_server", "sdk/qbroker", "worker/qbroker_worker")


def prose() -> str:
    """The page with its line breaks as spaces, so that a sentence may be wrapped."""
    return " ".join((ROOT / "ARCHITECTURE.md").read_text().split())


@pytest.mark.parametrize("contract", CONTRACTS)
def test_each_import_contract_is_a_sentence_of_the_page(contract: str) -> None:
    assert contract in prose()


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_on_the_map(package: str) -> None:
    assert package in prose()


@pytest.mark.parametrize("requirement", PROJECT["project"]["dependencies"])
def test_each_dependency_has_its_reason(requirement: str) -> None:
    name = requirement.partition(">")[0]

    assert f"**{name}**" in prose()


def test_the_page_is_one_page() -> None:
    words = prose().split()

    assert len(words) < 1800
