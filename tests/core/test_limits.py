"""The limits fit each other."""

from qbroker_server.config import _MOST, Config
from qbroker_server.core import limits


def test_a_name_fits_the_byte_that_tells_its_length() -> None:
    assert limits.NAME_BYTES_MAX <= 255
    assert limits.SESSION_BYTES_MAX <= 255


def test_the_largest_message_fits_a_step() -> None:
    assert Config().max_message_bytes <= _MOST["max_message_bytes"] <= limits.STEP_BYTES_MAX


def test_a_chunk_fits_one_page_of_the_store() -> None:
    page_bytes, header_bytes = 4096, 16

    assert limits.INLINE_BYTES_MAX < limits.CHUNK_BYTES <= page_bytes - header_bytes
