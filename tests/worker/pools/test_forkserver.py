"""What the fork server tells its parent when there is nothing to fork."""

import pytest

from qbroker_worker.pools import forkserver
from tests.worker.toys import fork_server


def test_an_app_that_cannot_be_loaded_is_refused_with_a_sentence() -> None:
    server = fork_server("refuse")

    with pytest.raises(forkserver.Refusal, match=r"^There is no app\.$") as caught:
        server.facts()
    assert caught.value.details == "details"
    server.close()


def test_an_app_that_ends_its_process_is_refused_with_a_sentence() -> None:
    server = fork_server("collapse")

    with pytest.raises(forkserver.Refusal, match=r"signal 9 \(SIGKILL\)"):
        server.facts()
    server.close()


def test_the_facts_arrive_as_they_were_loaded() -> None:
    server = fork_server()

    assert server.facts() == b"facts"
    server.close()


@pytest.mark.parametrize(
    ("status", "words"), [(9, "signal 9 (SIGKILL)"), (3 << 8, "exitcode 3"), (0, "exitcode 0")]
)
def test_a_wait_status_reads_as_celery_says_it(status: int, words: str) -> None:
    assert forkserver.how_it_ended(status) == words
