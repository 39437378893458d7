"""The versions of Python that are promised are named alike wherever a reader looks."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def promised() -> list[str]:
    """The versions of the classifiers, oldest first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [
        re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", one)
        for one in project["classifiers"]
    ]
    return [one[1] for one in found if one]


def test_the_readme_names_the_versions_of_the_classifiers() -> None:
    *first, last = promised()

    assert f"CPython {', '.join(first)} or {last}" in (ROOT / "README.md").read_text()


def test_the_oldest_promised_version_is_the_oldest_that_is_installed_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["requires-python"] == f">={promised()[0]}"
