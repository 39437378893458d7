"""Every setting, where it comes from, and what is said of one that cannot be used."""

from pathlib import Path

import pytest

from qbroker_server.config import Config, ConfigError, load


def test_without_a_word_the_defaults_apply() -> None:
    assert load({}, {}, None) == Config()


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "q.toml"
    file.write_text('listen = "a:1"\nlog_level = "DEBUG"\ngrace_ms = 1\n')

    config = load({"listen": "c:3"}, {"QBROKER_LISTEN": "b:2", "QBROKER_LOG_LEVEL": "Error"}, file)

    assert (config.listen, config.log_level, config.grace_ms) == ("c:3", "error", 1)


def test_numbers_and_paths_of_the_environment_are_converted() -> None:
    config = load({}, {"QBROKER_GRACE_MS": "0", "QBROKER_DATA_DIR": "/x"}, None)

    assert (config.grace_ms, config.data_dir) == (0, Path("/x"))


def test_what_the_environment_says_to_others_is_left_alone() -> None:
    assert load({}, {"QBROKER_URL": "qbroker://h", "GRACE_MS": "7", "PATH": ""}, None) == Config()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"no_such": 1}, "unknown setting 'no_such' on the command line; there are: data_dir"),
        ({"grace_ms": "soon"}, "grace_ms = 'soon' on the command line must be a whole number"),
        ({"grace_ms": True}, "must be a whole number"),
        ({"grace_ms": 1.5}, "must be a whole number"),
        ({"grace_ms": -1}, "grace_ms = -1 on the command line must be at least 0"),
        ({"max_deliveries": 0}, "must be at least 1"),
        ({"max_deliveries": 65_536}, "must be at most 65535"),
        ({"result_ttl_ms": 10**30}, "must be at most"),
        ({"max_message_bytes": 0}, "must be at least 1"),
        ({"max_message_bytes": 2**30}, "max_message_bytes = 1073741824 .* must be at most 8388608"),
        ({"engine": "paper"}, "engine = 'paper' on the command line must be one of lmdb, memory"),
        ({"log_level": "loud"}, "must be one of debug, info, warning, error"),
        ({"log_level": 3}, "must be text"),
        ({"listen": "7450"}, "must be HOST:PORT, such as 127.0.0.1:7450"),
        ({"listen": ":7450"}, "must be HOST:PORT"),
        ({"listen": "h:"}, "must be HOST:PORT"),
        ({"listen": "h:65536"}, "must be HOST:PORT"),
        ({"listen": "h:²"}, "must be HOST:PORT"),
        ({"listen": "h:-1"}, "must be HOST:PORT"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_used_is_told_with_its_place(
    values: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        load(values, {}, None)


@pytest.mark.parametrize("listen", ["h:0", "[::1]:7450", "0.0.0.0:65535"])
def test_an_address_may_have_many_forms(listen: str) -> None:
    assert load({"listen": listen}, {}, None).listen == listen


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"listen = ", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        (b"no_such = 1", "unknown setting 'no_such' in "),
        (b"[server]\nlisten = 'h:1'", "unknown setting 'server'"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "q.toml"
    file.write_bytes(content)

    with pytest.raises(ConfigError, match=words):
        load({}, {}, file)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*q.toml: No such file"):
        load({}, {}, tmp_path / "q.toml")
