"""The pid file: it names the running process, and at most one process holds it."""

import os
from pathlib import Path


class PidFileTaken(Exception):
    """Another process has the file, and runs."""

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(
            f"The pid file {str(path)!r} names process {pid}, which runs. End that one, or name another file."
        )


class PidFileUnwritable(Exception):
    """The file cannot be created or written."""

    def __init__(self, path: Path, reason: OSError) -> None:
        super().__init__(
            f"The pid file {str(path)!r} cannot be written: {reason.strerror or reason}. "
            "Name a file in a writable directory with --pidfile."
        )


class PidFile:
    """A path, ours from `take` to `leave`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self) -> None:
        """Write our id, over that of a process that is gone. Raises PidFileTaken, PidFileUnwritable."""
        try:
            self._take()
        except OSError as exc:
            raise PidFileUnwritable(self._path, exc) from exc

    def _take(self) -> None:
        while True:
            try:
                fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                holder = self._holder()
                if holder is not None and holder != os.getpid() and _runs(holder):
                    raise PidFileTaken(self._path, holder) from None
                self._path.unlink(missing_ok=True)
                continue
            try:
                with os.fdopen(fd, "w") as file:
                    file.write(f"{os.getpid()}\n")
            except OSError:
                # The disk is full: an empty file would name no process.
                self._path.unlink(missing_ok=True)
                raise
            return

    def renew(self) -> None:
        """Write our id over that of the process we were forked from, which took the file."""
        self._path.write_text(f"{os.getpid()}\n")

    def leave(self) -> None:
        """Remove the file, if it is ours."""
        if self._holder() == os.getpid():
            self._path.unlink(missing_ok=True)

    def _holder(self) -> int | None:
        try:
            return int(self._path.read_text())
        except (OSError, ValueError):
            return None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True
