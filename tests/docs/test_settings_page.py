"""The page's tables are made again from what is there."""

from qbroker.app.defaults import Setting
from tests.docs.settings_page import HEADS, ignored_rows, rendered, row


def test_a_row_shows_both_names_the_meaning_and_the_default() -> None:
    setting = Setting("task_x", str, "a|b", "What it means.")

    assert row(setting) == r"| `task_x` | `CELERY_X` | What it means. | `'a\|b'` |"


def test_settings_without_effect_share_a_row_by_reason() -> None:
    one, two = (Setting(name, str, None, "why", is_ignored=True) for name in ("b_x", "a_x"))

    assert ignored_rows([one, two]) == ["| `a_x`, `b_x` | why |"]


def test_old_rows_are_replaced_and_text_around_them_stays() -> None:
    page = f"before\n{HEADS[0]}| old |\nbetween\n{HEADS[1]}| old |\nafter\n"

    made = rendered(page)

    assert "| old |" not in made
    assert [word for word in made.splitlines() if "|" not in word] == ["before", "between", "after"]
    assert rendered(made) == made
