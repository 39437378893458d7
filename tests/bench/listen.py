"""Listens to events of tasks, and keeps in a file how many there were: python -m tests.bench.listen FILE."""

import os
import sys

from tests.bench.tasks import app


def main(path: str) -> None:
    """Count until told to end."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.pwrite(fd, b"0", 0)
    events = app.client().events("task.*")
    print("listens", flush=True)
    for count, _ in enumerate(events, 1):
        os.pwrite(fd, b"%d" % count, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
