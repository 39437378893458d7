"""The program of processes that are begun as fresh interpreters: the pool's server, its children, what runs commands.

Each is handed a file without a name, which says what it is for: the app, and what the process that began it has as
its path and its arguments. Words on the command line, which others can read, say only which role and which descriptors.
"""

import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, replace

from qbroker import _state
from qbroker_worker import aide
from qbroker_worker.loading import Project
from qbroker_worker.pools import forkserver, ledger, spawn
from qbroker_worker.pools.forkserver import Load, Loaded
from qbroker_worker.pools.spawn import Spawn
from qbroker_worker.values import Restart

MODULE = "qbroker_worker.spawned"


def briefed(project: Project) -> Spawn:
    """What starts fresh interpreters for this project. The file they are handed stays open as long as this process."""
    brief = {"project": asdict(project), "path": sys.path, "argv": sys.argv}
    with ledger.memory() as file:
        file.write(json.dumps(brief).encode())
        file.flush()
        kept = os.dup(file.fileno())
    command = (*spawn.interpreter(), "-m", MODULE)
    return lambda role, words, fds: spawn.start(command, role, words, (kept, *fds))


def children(project: Project, load: Load) -> Load:
    """The loader, which also says that children are begun fresh where that is wanted."""
    return lambda: _fresh(project, load())


def _fresh(project: Project, loaded: Loaded) -> Loaded:
    reload = loaded.reload
    if loaded.start_method != "spawn" or reload is None:
        return loaded

    def reload_too(wanted: Restart) -> Loaded:
        # They import everything themselves, and what was asked for besides.
        more = tuple(name for name in wanted.modules or () if name not in project.modules)
        again = replace(project, modules=(*project.modules, *more))
        return _fresh(again, reload(wanted))

    return loaded._replace(spawn=briefed(project), reload=reload_too)


def _read(fd: int) -> Project:
    """What the file says, of which the path and the arguments are at once this process's."""
    brief = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    os.close(fd)
    sys.path[:], sys.argv[:] = brief["path"], brief["argv"]
    project = brief["project"]
    return Project(**project | {name: tuple(project[name]) for name in ("modules", "settings")})


def _serve(parent: int, brief: int, control: int, commands: int) -> None:
    """Be the server that children come from."""
    project = _read(brief)
    link, theirs = socket.socket(fileno=control), socket.socket(fileno=commands)
    for end in (link, theirs):
        end.set_inheritable(False)
    load = aide.beside(theirs, project.hostname, project.load)
    forkserver.serve(link, parent, children(project, load))


def _live(parent: int, number: int, brief: int, *fds: int) -> None:
    """Be a child that runs tasks."""
    forkserver.belong_to(parent)
    project = _read(brief)
    forkserver.live(number, fds, project.load(is_child=True))


def _run_commands(parent: int, brief: int, link: int) -> None:
    """Be the process that runs the app's own remote commands."""
    forkserver.belong_to(parent)
    project = _read(brief)
    project.load(is_child=True)
    aide.serve(socket.socket(fileno=link), project.hostname, _state.get_current_app())


_ROLES: dict[str, Callable[..., None]] = {
    "server": _serve,
    "child": _live,
    "beside": _run_commands,
}


def main(role: str, *words: str) -> None:
    """Be what the words say, to the end of this process."""
    forkserver.run_to_end(lambda: _ROLES[role](*map(int, words)))


if __name__ == "__main__":
    main(*sys.argv[1:])
