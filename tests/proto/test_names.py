"""Names: which characters none may have, and how other text is shown."""

from hypothesis import given
from hypothesis.strategies import characters, text

from qbroker_proto import names

UNSAFE = {
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *map(chr, range(0x202A, 0x202F)),
    *map(chr, range(0x2066, 0x206A)),
    *map(chr, range(0xD800, 0xE000)),
    *"\u061c\u200e\u200f\u2028\u2029",
}


def test_exactly_the_characters_that_can_forge_a_line_or_drive_a_terminal_are_unsafe() -> None:
    found = {chr(point) for point in range(0x110000) if names.unsafe_character(chr(point))}

    assert found == UNSAFE


@given(text(characters()))
def test_escaped_text_is_one_line_of_safe_characters_that_utf8_can_encode(given: str) -> None:
    shown = names.escaped(given)

    assert not UNSAFE & {*shown}
    assert shown.encode().decode() == shown
    assert (shown == given) == (not UNSAFE & {*given})


@given(text(characters()))
def test_escaped_lines_keep_tabs_and_newlines_only(given: str) -> None:
    shown = names.escaped_lines(given)

    assert UNSAFE & {*shown} == {*"\t\n"} & {*given}


@given(text(characters(), max_size=100))
def test_a_name_has_a_fault_when_it_is_too_long_empty_or_has_an_unsafe_character(name: str) -> None:
    fault = names.fault("queue name", name, 60)

    is_right = 0 < len(name.encode("utf-8", "replace")) <= 60 and not UNSAFE & {*name}
    assert (fault == "") == is_right
    assert fault.isprintable()
    assert not fault or fault.startswith("queue name ")


def test_a_fault_names_the_first_character_and_what_it_is() -> None:
    assert names.fault("task id", "a\x1b\n", 255) == (
        r"task id 'a\x1b\n' contains U+001B, a control character; leave it out"
    )
    assert "U+DCFF, a lone surrogate" in names.fault("task id", "a\udcff", 255)


def test_an_optional_name_may_be_empty() -> None:
    assert names.fault("reason", "", 10, is_optional=True) == ""
    assert names.fault("reason", "x" * 11, 10, is_optional=True) == (
        "reason 'xxxxxxxxxxx' has 11 bytes; it must have 0 to 10"
    )


def test_only_a_surrogate_is_at_fault_in_text() -> None:
    assert names.surrogate_fault("argsrepr", "('\x1b\n',)") == ""
    assert "U+DCFF" in names.surrogate_fault("argsrepr", "\x1b\udcff")
