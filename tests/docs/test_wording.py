"""Messages that people read use the field's standard words."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

STANDARD = {
    r"(?<!there )(?<!There )\bis no (?!longer|such)[a-zA-Z{]": "is not a …",
    r"\bis none of\b": "must be one of …, or is not one of …",
    r"\bit is to (be|have|name)\b": "it must be …",
    r"\bparted by\b": "separated by",
    r"\bspan of time\b": "duration",
    r"\bcannot be meant\b": "is not valid",
    r"\b(runs( on \S+)?|with \S+|dead letter) since\b": "has been running for …",
    r"\bno JSON\b": "not valid JSON",
    r"pip install qbroker\b": "the package to install: qbroker on the public index is somebody else's",
}
"""Constructions that read as translated, and the words to use instead."""


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a module that are not docstrings, with their lines."""
    tree = ast.parse(path.read_text())
    bare = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (
                str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
            )
            yield node.lineno, "".join(parts)


@pytest.mark.parametrize("package", ["proto", "sdk", "server", "worker"])
def test_no_message_uses_a_banned_construction(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text!r}: write {standard}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if "_pb2" not in path.name
        for line, text in messages(path)
        for banned, standard in STANDARD.items()
        if re.search(banned, text)
    ]

    assert found == []


def test_no_page_names_the_package_of_the_public_index() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

    assert [
        page.name for page in pages if re.search(r"pip install qbroker\b", page.read_text())
    ] == []


@pytest.mark.parametrize(
    "text",
    ["'2,2' is no JSON", "it is to have 5", "'x' is no span of time", "It runs on a since 3 s"],
)
def test_the_check_finds_what_it_looks_for(text: str) -> None:
    assert any(re.search(banned, text) for banned in STANDARD)
