"""`qbroker serve`: one sentence and an exit code when it cannot start."""

import contextlib
import fcntl
import logging
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qbroker_server.cli import EX_IOERR, EX_UNAVAILABLE, EX_USAGE, Formatter, serve


def run(*arguments: str, **environment: str) -> Result:
    """`qbroker serve <arguments>` in this process."""
    return CliRunner().invoke(serve, arguments, env=environment)


def only_line(result: Result) -> str:
    """The one line it said."""
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def test_help_names_every_flag() -> None:
    result = run("--help")

    assert result.exit_code == 0
    for flag in ("--data-dir", "--listen", "--config", "--log-level", "--engine"):
        assert flag in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--listen", "nowhere"), "listen = 'nowhere' on the command line must be HOST:PORT"),
        (("--log-level", "loud"), "must be one of debug, info, warning, error"),
        (("--engine", "paper"), "must be one of lmdb, memory"),
        (("--config", "/nowhere.toml"), "cannot read /nowhere.toml: No such file or directory"),
    ],
)
def test_a_setting_that_cannot_be_used_is_told(arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments)

    assert result.exit_code == EX_USAGE
    assert words in only_line(result)


def test_a_setting_of_the_environment_is_told_as_such() -> None:
    result = run(QBROKER_GRACE_MS="soon")

    assert result.exit_code == EX_USAGE
    assert "grace_ms = 'soon' in the environment" in only_line(result)


def test_a_directory_in_use_is_told(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "LOCK", os.O_CREAT | os.O_RDWR)
    os.write(descriptor, b"4711\n")
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    result = run("--data-dir", str(tmp_path), "--listen", "127.0.0.1:0")
    os.close(descriptor)

    assert result.exit_code == EX_UNAVAILABLE
    assert "is in use by another broker (process 4711)" in only_line(result)


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    result = run("--data-dir", str(tmp_path / "file" / "data"))

    assert result.exit_code == EX_UNAVAILABLE
    assert f"{tmp_path / 'file'} is a file, not a directory" in only_line(result)


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"

        result = run("--data-dir", str(tmp_path), "--listen", listen)

    assert result.exit_code == EX_UNAVAILABLE
    assert only_line(result) == (
        f"qbroker serve: Cannot listen on {listen}: Address already in use; "
        "choose another address with --listen HOST:PORT."
    )


def test_a_taken_port_of_the_pages_is_told_once_and_plainly(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"

        result = run(
            "--data-dir", str(tmp_path), "--listen", "127.0.0.1:0", "--http-listen", listen
        )

    assert result.exit_code == EX_UNAVAILABLE
    assert only_line(result) == (
        f"qbroker serve: Cannot listen on {listen}: Address already in use; "
        "choose another address with --http-listen HOST:PORT."
    )


def test_a_store_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not a store" * 1_000)

    result = run("--data-dir", str(tmp_path), "--listen", "127.0.0.1:0")

    assert result.exit_code == EX_IOERR
    assert f"The store in {tmp_path} cannot be opened" in only_line(result)


def test_it_has_as_many_connections_as_the_system_lets_it(tmp_path: Path) -> None:
    program = (
        "import resource, sys; from qbroker_server.cli import serve;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]));"
        "serve(['--listen', '127.0.0.1:0', '--engine', 'memory', '--data-dir', sys.argv[1]])"
    )
    argv = (sys.executable, "-c", program, str(tmp_path))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as broker:
        assert broker.stdout is not None
        found = re.search(r"listens on 127\.0\.0\.1:(\d+)", broker.stdout.readline())
        assert found is not None
        port = int(found[1])
        with contextlib.ExitStack() as held:
            held.callback(broker.terminate)
            for _ in range(100):
                sock = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
                # It speaks first, to those it has taken.
                sock.sendall(
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
                )
                assert sock.recv(1)

    assert broker.returncode == 0


def test_text_of_a_client_neither_ends_a_line_of_the_log_nor_drives_a_terminal() -> None:
    record = logging.LogRecord("n", logging.INFO, "", 0, "%s came", ("\x1b[31ma\nb\u202e",), None)

    assert Formatter("[%(name)s] %(message)s").format(record) == (r"[n] \x1b[31ma\nb\u202e came")


def test_a_traceback_in_the_log_keeps_its_lines() -> None:
    record = logging.LogRecord("n", logging.ERROR, "", 0, "failed", (), None)
    record.exc_text = "Traceback:\n\tValueError: \x9b31m"

    assert Formatter("%(message)s").format(record) == "failed\nTraceback:\n\tValueError: \\x9b31m"
