"""`qctl`: what people and programs are told of a broker."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from qbroker.client import Client
from qbroker_proto.v1.admin_pb2 import StatusReply
from qbroker_proto.v1.message_pb2 import Message
from tests.docs import programs
from tests.docs.programs import Program


@dataclass(frozen=True)
class Broker:
    """A running broker with three messages in the queue `mail`."""

    folder: Path
    env: dict[str, str]
    url: str

    def qctl(self, *arguments: str, stdin: str | None = None, **env: str) -> Program:
        """`qctl` with these arguments."""
        argv = ("qctl", *arguments)
        return Program(argv, cwd=self.folder, env=self.env | env, stdin=stdin)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    port = programs.free_port()
    env = programs.environment(port)
    with Program(("qbroker", "serve"), cwd=tmp_path, env=env) as serve:
        serve.wait_for(programs.BROKER_READY)
        url = f"qbroker://127.0.0.1:{port}"
        messages = [Message(id=f"id-{n}", task="t", queue="mail") for n in range(3)]
        with closing(Client(url, timeout_s=10)) as client:
            refused = client.publish([message.SerializeToString() for message in messages])
        assert refused == []
        yield Broker(tmp_path, env, url)


@pytest.mark.e2e
def test_status_shows_broker_queues_and_that_there_is_no_worker(broker: Broker) -> None:
    with broker.qctl("status") as command:
        code = command.wait()

    assert code == 0, command.output
    assert broker.url in command.output
    assert ["mail", "3", "0", "0"] in [line.split() for line in command.output.splitlines()]
    assert "No workers" in command.output


@pytest.mark.e2e
def test_status_as_json_has_every_field(broker: Broker) -> None:
    with broker.qctl("status", "--json") as command:
        command.wait()

    found = json.loads(command.output)

    assert found["queues"][0]["ready_count"] == 3
    assert found["workers"] == []
    assert set(found) == {field.name for field in StatusReply.DESCRIPTOR.fields}


@pytest.mark.e2e
def test_the_option_wins_over_the_environment(broker: Broker) -> None:
    with broker.qctl("-b", broker.url, "status", QBROKER_URL="qbroker://127.0.0.1:1") as command:
        assert command.wait() == 0, command.output


@pytest.mark.e2e
def test_purge_asks_with_the_count_and_throws_away_what_waits(broker: Broker) -> None:
    with broker.qctl("purge", "mail", stdin="y\n") as command:
        code = command.wait()

    assert code == 0, command.output
    assert "Throw away 3 messages waiting in 'mail'?" in command.output
    assert "Threw away 3 messages." in command.output


@pytest.mark.e2e
def test_a_purge_that_is_not_wanted_throws_nothing_away(broker: Broker) -> None:
    with broker.qctl("purge", "mail", stdin="n\n") as command:
        code = command.wait()
    with broker.qctl("status", "--json") as after:
        after.wait()

    assert code == 1
    assert json.loads(after.output)["queues"][0]["ready_count"] == 3


@pytest.mark.e2e
def test_purge_with_yes_does_not_ask(broker: Broker) -> None:
    with broker.qctl("purge", "mail", "--yes") as command:
        code = command.wait()

    assert code == 0
    assert command.output == "Threw away 3 messages.\n"


@pytest.mark.e2e
def test_purging_a_queue_that_is_not_there_names_those_that_are(broker: Broker) -> None:
    with broker.qctl("purge", "male", "--yes") as command:
        code = command.wait()

    assert code == 3
    assert command.output == "Error: there is no queue 'male'; there are: mail\n"


@pytest.mark.e2e
def test_a_broker_that_is_away_is_one_sentence_and_exit_code_5(tmp_path: Path) -> None:
    env = programs.environment(1)

    with Program(("qctl", "status"), cwd=tmp_path, env=env) as command:
        code = command.wait()

    assert code == 5
    assert len(command.output.splitlines()) == 1
    assert "qbroker://127.0.0.1:1" in command.output


@pytest.mark.e2e
def test_a_url_of_another_kind_is_a_usage_error(tmp_path: Path) -> None:
    argv = ("qctl", "-b", "redis://localhost", "status")

    with Program(argv, cwd=tmp_path, env=programs.environment(1)) as command:
        code = command.wait()

    assert code == 2
    assert "'redis'" in command.output


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("XDG_CONFIG_HOME=. qctl ctx ls --json > /dev/full", "Error: No space left on device\n"),
        (
            "qctl ctx add a qbroker://127.0.0.1:1",
            "Error: /dev/null/qbroker/contexts.json: Not a directory\n",
        ),
    ],
)
def test_what_cannot_be_written_is_one_sentence_and_exit_code_74(
    tmp_path: Path, command: str, sentence: str
) -> None:
    env = programs.environment(1, XDG_CONFIG_HOME="/dev/null")

    with Program(("sh", "-c", command), cwd=tmp_path, env=env) as shell:
        code = shell.wait()

    assert (code, shell.output) == (74, sentence)
