"""Signatures as text."""

import pytest

from qbroker.canvas.text import call_text, cut, without_repeated_module


def test_a_call_is_as_python_would_write_it() -> None:
    assert call_text("add", (1, "two"), {"z": None}) == "add(1, 'two', z=None)"
    assert call_text("add", (), {"z": 3}) == "add(z=3)"
    assert call_text("add", (), {}) == "add()"


@pytest.mark.parametrize(
    ("task", "text", "wanted"),
    [
        ("proj.add", "proj.add(1) | proj.mul(2)", "proj.add(1) | mul(2)"),
        ("add", "add(1) | add(2)", "add(1) | add(2)"),
        ("proj.add", "proj.add(1) | myproj.add(2)", "proj.add(1) | myproj.add(2)"),
        ("proj.add", "other.add(1)", "other.add(1)"),
        ("proj.add", "group([proj.add(1), proj.add(2)])", "group([proj.add(1), add(2)])"),
    ],
)
def test_a_module_is_named_once(task: str, text: str, wanted: str) -> None:
    assert without_repeated_module(task, text) == wanted


def test_a_long_text_is_cut_between_words() -> None:
    assert cut("one two three", 9) == "one two..."
    assert cut("short", 9) == "short"
