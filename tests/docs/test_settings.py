"""docs/settings.md says what the SDK's table of settings says."""

from tests.docs.settings_page import PAGE, rendered


def test_the_pages_tables_are_those_of_the_code() -> None:
    page = PAGE.read_text()

    assert page == rendered(page), "run `make settings`"
