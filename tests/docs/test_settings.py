"""docs/settings.md says what the SDK's table of settings says."""

from pathlib import Path

import pytest

from qbroker.app.defaults import SETTINGS, Setting

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"


def row(setting: Setting) -> str:
    """The line of the page's table for a setting."""
    default = setting.value_of(None)
    shown = f"`{default!r}`".replace("|", r"\|")
    return f"| `{setting.name}` | {setting.meaning} | {shown} |"


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=list(SETTINGS))
def test_each_setting_has_its_line(setting: Setting) -> None:
    assert row(setting) in PAGE.read_text().splitlines()


def test_the_table_has_no_other_lines_and_is_sorted() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]

    assert lines == [row(SETTINGS[name]) for name in sorted(SETTINGS)]
