"""What a client can be told."""

import inspect

from qbroker_server.core import errors


def test_the_tree_in_the_docstring_names_every_error() -> None:
    tree = inspect.getdoc(errors) or ""
    names = [
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.CoreError)
    ]

    assert len(names) > 3
    assert [name for name in names if name not in tree] == []


def test_a_full_store_says_when_to_try_again() -> None:
    error = errors.ResourceFull("the disk is full", retry_after_ms=5)

    assert (str(error), error.retry_after_ms) == ("the disk is full", 5)


def test_a_corrupt_record_names_its_key() -> None:
    error = errors.CorruptRecord(b"\x00m", "too short")

    assert error.key == b"\x00m"
    assert str(error) == "record b'\\x00m' is damaged: too short"
