"""`qctl ctx`, and which broker is meant."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qbroker.cli import contexts
from qbroker.cli.contexts import Contexts
from qbroker.cli.qctl import qctl as command
from tests.sdk.cli.asking import Shell
from tests.sdk.real_broker import RealBroker


class Typed:
    """`qctl` with a folder for settings of its own."""

    def __init__(self, folder: Path) -> None:
        self.env = {"XDG_CONFIG_HOME": str(folder), "QBROKER_URL": None}

    def __call__(self, *arguments: str) -> Result:
        return CliRunner(env=self.env).invoke(command, list(arguments))

    def said(self, *arguments: str) -> str:
        result = self(*arguments)
        assert result.exit_code == 0, result.output
        return result.output


@pytest.fixture
def typed(tmp_path: Path) -> Typed:
    return Typed(tmp_path)


def test_the_first_is_the_current_one_until_another_is_used(typed: Typed) -> None:
    first = typed.said("ctx", "add", "prod", "qbroker://10.0.0.5:7450")
    typed.said("ctx", "add", "test", "qbroker://10.0.0.6:7450")
    used = typed.said("ctx", "use", "test")
    listed = json.loads(typed.said("ctx", "ls", "--json"))
    typed.said("ctx", "rm", "test")
    rest = typed.said("ctx", "ls")

    assert "the current one" in first
    assert "10.0.0.6" in used
    assert listed == {
        "current": "test",
        "brokers": {"prod": "qbroker://10.0.0.5:7450", "test": "qbroker://10.0.0.6:7450"},
    }
    assert "prod" in rest
    assert "current" not in rest


def test_a_verb_goes_to_the_current_broker_the_named_one_or_the_one_of_b(
    typed: Typed, real_broker: RealBroker
) -> None:
    typed.said("ctx", "add", "here", real_broker.url)
    typed.said("ctx", "add", "away", "qbroker://127.0.0.1:1")

    current = typed("status", "--json")
    named = typed("-c", "here", "status", "--json")
    typed.said("ctx", "use", "away")
    by_address = typed("-b", real_broker.url, "status", "--json")

    assert [one.exit_code for one in (current, named, by_address)] == [0, 0, 0]
    assert typed("-c", "nosuch", "status").exit_code == 2


@pytest.mark.parametrize("verb", ["use", "rm"])
def test_a_name_that_is_not_there_is_3_and_the_others_are_told(typed: Typed, verb: str) -> None:
    typed.said("ctx", "add", "prod", "qbroker://10.0.0.5:7450")

    ended = typed("ctx", verb, "nosuch")

    assert ended.exit_code == 3
    assert "there are: prod" in ended.output


def test_an_address_that_is_none_is_refused(typed: Typed) -> None:
    assert typed("ctx", "add", "prod", "http://10.0.0.5").exit_code == 2
    assert "None" in typed.said("ctx", "ls")


def test_a_damaged_file_is_a_sentence(typed: Typed, tmp_path: Path) -> None:
    typed.said("ctx", "add", "prod", "qbroker://10.0.0.5:7450")
    (tmp_path / "qbroker" / "contexts.json").write_text("{")

    ended = typed("ctx", "ls")

    assert ended.exit_code == 1
    assert "is damaged" in ended.output


def test_without_a_folder_for_settings_it_is_in_the_home() -> None:
    assert contexts.path_of({}) == Path.home() / ".config" / "qbroker" / "contexts.json"
    assert contexts.load({"XDG_CONFIG_HOME": "/nonexistent"}) == Contexts()


def test_no_name_is_no_address() -> None:
    assert Contexts().url() is None
    assert Contexts("a", {"a": "x"}).url() == "x"


def test_the_tests_of_other_verbs_name_their_broker(qctl: Shell) -> None:
    assert qctl("status").exit_code == 0


def test_without_a_home_folder_there_are_no_contexts_and_none_can_be_added() -> None:
    def typed(*arguments: str) -> Result:
        env = {"XDG_CONFIG_HOME": None, "QBROKER_URL": None, "HOME": "~"}
        return CliRunner(env=env).invoke(command, list(arguments))

    listed = typed("ctx", "ls")
    added = typed("ctx", "add", "prod", "qbroker://h:1")

    assert (listed.exit_code, added.exit_code) == (0, 1)
    assert "None: add one" in listed.output
    assert "set HOME or XDG_CONFIG_HOME" in added.output
