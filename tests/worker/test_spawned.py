"""Processes that are begun as fresh interpreters: what they find, and what they say."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from qbroker_worker import spawned
from qbroker_worker.loading import Facts, Project
from qbroker_worker.pools import forkserver
from qbroker_worker.pools.forkserver import ForkServer, Loaded, Refusal
from qbroker_worker.values import Restart
from tests.worker.toys import begin


def _project(app: str = "proj") -> Project:
    return Project(app=app, modules=("json",), broker=None, hostname="a@host", loglevel=30)


def _server(project: Project) -> ForkServer:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        return forkserver.spawn(spawned.briefed(project), theirs.fileno())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a project is that this process has on its path, and others learn of."""
    (tmp_path / "proj.py").write_text(
        "import sys; from qbroker import App; app = App(sys.argv[-1]); app.task(name='t')(print)"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("method", "is_spawned"), [("fork", False), ("spawn", True)])
def test_children_are_begun_fresh_where_the_app_or_the_command_line_says_so(
    method: str, is_spawned: bool
) -> None:
    def load() -> Loaded:
        return Loaded(b"", begin, start_method=method, reload=lambda _: load())

    loaded = spawned.children(_project(), load)()
    assert loaded.reload is not None
    again = loaded.reload(Restart(("more",)))

    assert (loaded.spawn is not None) == is_spawned
    assert (again.spawn is not None) == is_spawned


def test_a_fresh_server_loads_the_app_by_its_name_with_this_process_s_path_and_arguments(
    folder: Path,
) -> None:
    server = _server(_project())

    facts = Facts.decode(server.facts())
    server.close()

    assert "t" in facts.tasks
    assert facts.app == sys.argv[-1]


def test_an_app_that_is_not_there_is_refused_by_a_fresh_server_too() -> None:
    server = _server(_project("no.such.app"))

    with pytest.raises(Refusal, match="there is no module 'no'"):
        server.facts()
    server.close()


def test_a_child_that_cannot_load_the_app_any_more_says_so_and_ends(tmp_path: Path) -> None:
    brief = tmp_path / "brief"
    brief.write_text(
        json.dumps({"project": asdict(_project("gone")), "path": sys.path, "argv": []})
    )
    with brief.open() as file:
        words = ("child", str(os.getpid()), "1", str(file.fileno()), "0", "0", "0")
        ended = subprocess.run(
            [sys.executable, "-m", spawned.MODULE, *words],
            pass_fds=(file.fileno(),),
            capture_output=True,
            text=True,
            check=False,
        )

    assert ended.returncode == 1
    assert "there is no module 'gone'" in ended.stderr
