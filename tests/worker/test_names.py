"""Names with letters for host, worker and child."""

import platform

from qbroker_worker.names import file_name, names_children, node_name


def test_the_node_name_is_made_of_the_hosts_names() -> None:
    host = platform.node()

    assert node_name("celery@%h") == f"celery@{host}"
    assert node_name("mail") == f"mail@{host}"
    assert node_name("a@%n") == f"a@{host.partition('.')[0]}"
    assert node_name("a@100%%h") == "a@100%h"


def test_a_file_name_is_made_of_the_workers() -> None:
    assert file_name("%n|%h|%d|%p|%i|%I|%%n", "mail@a.b.c") == "mail|a.b.c|b.c|mail@a.b.c|0||%n"
    assert file_name("%n%I-%i.log", "mail@host", 3) == "mail-3-3.log"


def test_only_with_a_childs_letter_has_each_child_a_file() -> None:
    assert names_children("%n%I.log")
    assert names_children("%i")
    assert not names_children("%n-%%i.log")
