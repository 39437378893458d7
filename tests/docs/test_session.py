"""The interpreter that runs a page's blocks can fail: else the docs' tests would say nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SESSION = Path(__file__).with_name("session.py")


def run(*blocks: tuple[str, str]) -> "subprocess.CompletedProcess[str]":
    """What the session makes of blocks of (language, code)."""
    text = json.dumps([(f"page:{n}", language, code) for n, (language, code) in enumerate(blocks)])
    return subprocess.run(
        [sys.executable, SESSION], input=text, capture_output=True, text=True, check=False
    )


def test_names_last_from_block_to_block_of_either_language() -> None:
    ended = run(
        ("python", "x = 1"), ("pycon", ">>> y = x + 1\n"), ("python", "assert (x, y) == (1, 2)")
    )

    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize(
    "block", [("python", "assert 1 == 2"), ("pycon", ">>> 1 + 1\n3\n"), ("python", "exit()")]
)
def test_a_block_that_is_not_true_fails_and_says_where(block: tuple[str, str]) -> None:
    ended = run(("python", "x = 1"), block)

    assert ended.returncode == 1
    assert "page:1" in ended.stdout
