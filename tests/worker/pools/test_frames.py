"""What must be true of the layout for both ends to understand each other."""

from qbroker_worker.pools import frames
from qbroker_worker.pools.pace import HAND_OVER_COUNT_MAX


def test_words_and_regions_lie_apart_and_inside_the_shared_memory() -> None:
    even, odd = frames.REGIONS

    assert max(frames.WORDS) * 8 + 8 <= even
    assert even + frames.REGION_BYTES <= odd
    assert odd + frames.REGION_BYTES <= frames.SHARED_BYTES


def test_the_two_words_share_no_cache_line() -> None:
    first, second = frames.WORDS

    assert (second - first) * 8 >= 64


def test_the_index_of_any_task_of_a_batch_fits_a_record() -> None:
    record = frames.RECORD.pack(HAND_OVER_COUNT_MAX - 1, 1, False, 0.0, 50, 0, 0, 0)

    assert frames.RECORD.unpack(record)[0] == HAND_OVER_COUNT_MAX - 1
