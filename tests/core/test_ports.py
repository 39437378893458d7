"""The seams of the core."""

import ast
import inspect
from pathlib import Path

import pytest

from qbroker_server import core
from qbroker_server.core import ports

(FOLDER,) = map(Path, core.__path__)
MODULES = sorted(FOLDER.glob("*.py"))

ALLOWED = {
    "collections",
    "contextlib",
    "dataclasses",
    "enum",
    "difflib",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "json",
    "qbroker_proto",
    "qbroker_server",
    "struct",
    "typing",
    "zlib",
}
"""What is plain computation: no clock, no chance, no input, no output."""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_the_core_imports_only_itself_and_plain_computation(path: Path) -> None:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")

    assert {name.partition(".")[0] for name in names} <= ALLOWED
    ours = {name for name in names if name.startswith("qbroker")}
    assert all(name.startswith(("qbroker_server.core", "qbroker_proto")) for name in ours)
    assert not any(name.startswith("qbroker_proto.v1") for name in ours)


def test_an_engine_needs_no_more_than_this() -> None:
    names = {name for name in vars(ports.Engine) if not name.startswith("_")}

    assert names <= {"begin", "read", "stored_bytes", "room_bytes", "close", "name", "meaning"}
    assert inspect.getdoc(ports.StoreError)
