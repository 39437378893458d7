"""One process at a time has the file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qbroker_worker.pidfile import PidFile, PidFileTaken, PidFileUnwritable


def test_the_file_names_the_process_until_it_leaves(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    held = PidFile(path)

    held.take()
    content = path.read_text()
    held.leave()

    assert content == f"{os.getpid()}\n"
    assert not path.exists()


def test_another_that_runs_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(f"{os.getppid()}\n")

    with pytest.raises(PidFileTaken, match=f"names process {os.getppid()}, which runs"):
        PidFile(path).take()
    PidFile(path).leave()

    assert path.exists()


def test_one_that_is_gone_loses_it(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = tmp_path / "pid"
    path.write_text(f"{gone.pid}\n")

    PidFile(path).take()

    assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("content", ["", "no number"])
def test_what_names_nobody_is_nobodys(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pid"
    path.write_text(content)

    PidFile(path).take()

    assert path.read_text() == f"{os.getpid()}\n"


def test_the_same_process_may_take_it_again_after_it_began_anew(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    PidFile(path).take()

    PidFile(path).take()

    assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_file_that_cannot_be_written_is_named_with_the_reason(
    tmp_path: Path, folder: str
) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / folder / "x.pid"

    with pytest.raises(PidFileUnwritable) as caught:
        PidFile(path).take()

    assert f"The pid file {str(path)!r} cannot be written: " in str(caught.value)
    assert "--pidfile" in str(caught.value)
