"""One process owns a data directory, and the directory is on a disk of this machine."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NETWORK_FILE_SYSTEMS = frozenset(
    (
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.sshfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
    )
)
"""LMDB maps its file and locks by byte ranges; over a network neither can be relied on."""

_ESCAPE = re.compile(r"\\([0-7]{3})")

MOUNTS = Path("/proc/self/mountinfo")


class DataDirError(Exception):
    """The data directory cannot be used; the text is a sentence that says why."""


@contextmanager
def owned(directory: Path, mounts: Path = MOUNTS) -> Iterator[None]:
    """Own `directory`, made when missing, until the block ends; DataDirError when that cannot be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        kind = file_system(directory, mounts)
        if kind in NETWORK_FILE_SYSTEMS:
            raise DataDirError(
                f"The data directory {directory} is on a network file system ({kind}), where a crash can lose data; "
                "choose a directory on a local disk with --data-dir."
            )
        descriptor = os.open(directory / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileExistsError, NotADirectoryError) as error:
        file = next(path for path in (directory, *directory.parents) if path.exists())
        raise DataDirError(
            f"The data directory {directory} cannot be used: {file} is a file, not a directory; "
            "choose a directory with --data-dir."
        ) from error
    except OSError as error:
        raise DataDirError(
            f"The data directory {directory} cannot be used: {error.strerror}; "
            "choose a directory this user can write to with --data-dir."
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise DataDirError(
                f"The data directory {directory} is in use by another broker (process {owner}); "
                "stop that one, or choose another directory with --data-dir."
            ) from error
        # The number is only for people: a full disk, which may have no block for it, is no reason to end.
        with suppress(OSError):
            os.ftruncate(descriptor, os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0))
        yield
    finally:
        os.close(descriptor)


def file_system(directory: Path, mounts: Path) -> str:
    """The kind of file system `directory` is on, as the kernel names it; "" where it does not tell."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    target = directory.resolve()
    best, kind = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        # Blanks in it are written as octal escapes, all else as it is.
        point = _ESCAPE.sub(lambda found: chr(int(found[1], 8)), left.split(" ")[4])
        if len(point) >= len(best) and (target == Path(point) or Path(point) in target.parents):
            best, kind = point, right.split(" ", 1)[0]
    return kind
