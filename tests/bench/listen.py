"""Listens to events of tasks, and keeps in a file how many there were: python -m tests.bench.listen FILE."""

import mmap
import sys
from pathlib import Path

from tests.bench.tasks import app


def main(path: str) -> None:
    """Count until told to end, at as little cost as can be: the machine is the worker's too."""
    Path(path).write_bytes(bytes(8))
    with Path(path).open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
        words = memoryview(shared).cast("Q")
        events = app.client().events("task.*")
        print("listens", flush=True)
        for count, _ in enumerate(events, 1):
            words[0] = count


if __name__ == "__main__":
    main(*sys.argv[1:])
