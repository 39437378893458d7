"""CHANGELOG.md keeps its form: newest first, sections in one order, sentences for users."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FRAGMENTS = sorted((ROOT / "changelog.d").glob("*.*.md"))
LINES = (ROOT / "CHANGELOG.md").read_text().splitlines()
SECTIONS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
HEADING = re.compile(r"## (Unreleased|\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\))")


def test_it_begins_with_what_is_unreleased() -> None:
    headings = [line for line in LINES if line.startswith("## ")]

    assert headings[0] == "## Unreleased"
    assert all(HEADING.fullmatch(heading) for heading in headings)


def test_no_released_version_is_newer_than_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    released = [re.findall(r"\d+", line)[:3] for line in LINES if re.match(r"## \d", line)]

    assert all(
        [int(n) for n in version] <= [int(n) for n in project["version"].split(".")]
        for version in released
    )


def test_sections_are_known_and_in_order() -> None:
    order: list[int] = []
    for line in LINES:
        if line.startswith("## "):
            order = []
        elif line.startswith("### "):
            order.append(SECTIONS.index(line.removeprefix("### ")))
            assert order == sorted(set(order)), line


def test_entries_are_sentences() -> None:
    text = "\n".join(LINES)
    entries = re.findall(r"^- ((?:.+\n?)(?:  .+\n?)*)", text, re.MULTILINE)

    assert entries
    assert [entry for entry in entries if not entry.rstrip().endswith(".")] == []


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda path: path.name)
def test_a_fragment_is_named_for_its_section_and_holds_sentences(fragment: Path) -> None:
    topic, type_, *number, _ = fragment.name.split(".")

    text = fragment.read_text().strip()

    assert topic
    assert type_.capitalize() in SECTIONS
    assert number == [] or number[0].isdigit()
    assert text.endswith(".")
    assert not text.startswith(("-", "#"))
