"""Text of objects whose own methods misbehave."""

import pytest

from qbroker.printable import clean, cut, repr_of, text_of


class Nasty:
    """Misbehaves as it is told."""

    def __init__(self, deed: object) -> None:
        self.deed = deed

    def __str__(self) -> str:
        if isinstance(self.deed, BaseException):
            raise self.deed
        return self.deed if self.deed is not None else str(self)  # type: ignore[return-value]

    __repr__ = __str__


@pytest.mark.parametrize(
    "deed", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), 5, None], ids=repr
)
def test_an_object_that_cannot_be_printed_is_named_by_its_class(deed: object) -> None:
    assert text_of(Nasty(deed)) == "<unprintable Nasty object>"
    assert repr_of(Nasty(deed)) == "<unprintable Nasty object>"


def test_lone_surrogates_become_backslash_escapes() -> None:
    assert clean("file \udcff.txt") == "file \\udcff.txt"
    assert text_of(Nasty("\ud800")) == "\\ud800"
    assert clean("Grüße") == "Grüße"


def test_a_subclass_of_str_becomes_a_plain_str() -> None:
    class Odd(str):
        __slots__ = ()

        def isascii(self) -> bool:
            raise ValueError("not now")

    assert type(clean(Odd("x"))) is str


def test_a_long_text_keeps_its_first_and_last_lines_around_a_mark() -> None:
    text = "first\n" + "line\n" * 10_000 + "last"

    found = cut(text, 1_000)

    assert len(found) <= 1_000
    lines = found.splitlines()
    assert (lines[0], lines[-1]) == ("first", "last")
    assert any("characters left out" in line for line in lines)
    assert cut(found, 1_000) == found


def test_a_text_that_fits_is_not_cut() -> None:
    assert cut("x" * 100, 100) == "x" * 100
