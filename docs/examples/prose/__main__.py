"""Find out what documents are about: a workflow of four tasks a file, and one on all of them.

    python docs/examples/prose [FOLDER]

Without a folder it reads what the modules of the standard library say of themselves. It brings its own
broker and worker, on a free port and in a temporary folder, and takes them away again.
"""

import argparse
import contextlib
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from tasks import app, compare, measure, profile, read, terms

from qbroker import chain, chord, group

HERE = Path(__file__).resolve().parent
KINDS = {".md", ".py", ".rst", ".txt"}
RESULT_S = 120.0
STOP_S = 15.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> int:
    """Run the workflow; the exit code."""
    options = argparse.ArgumentParser(prog="prose", description="Compare the texts in a folder.")
    options.add_argument("folder", nargs="?", type=Path, default=Path(sysconfig.get_path("stdlib")))
    folder: Path = options.parse_args().folder.resolve()
    console = Console()
    paths = documents(folder)
    if not paths:
        kinds = ", ".join(sorted(KINDS))
        console.print(f"No file in {folder} is one of {kinds}: name a folder that has some.")
        return 1
    try:
        with tempfile.TemporaryDirectory(prefix="prose-") as scratch, house(Path(scratch)):
            console.print(f"Reading {len(paths):,} files in {folder}")
            started = time.perf_counter()
            profiles = run(paths, console)
            seconds = time.perf_counter() - started
    except KeyboardInterrupt:
        console.print("Interrupted; broker and worker are stopped, nothing is left behind.")
        return 130
    report(profiles, seconds, console)
    return 0


def documents(folder: Path) -> list[Path]:
    """The folder's own texts and Python sources, in a stable order."""
    return sorted(p for p in folder.glob("*") if p.suffix in KINDS and p.is_file())


@contextlib.contextmanager
def house(scratch: Path) -> Iterator[None]:
    """A broker and a worker for as long as the block runs, which alone an interrupt may end."""
    came: list[int] = []
    for signum in STOP_SIGNALS:
        # One that comes while a program starts is kept until there is something to stop.
        signal.signal(signum, lambda signum, _: came.append(signum))
    # One program that runs both, in a process group of its own: Ctrl-C is ours.
    program = subprocess.Popen(
        [
            *(sys.executable, "-m", "qbroker", "dev", "-A", "tasks", "-l", "WARNING"),
            *("--port", "0", "--data-dir", str(scratch / "data")),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=HERE,
        process_group=0,
    )
    said: list[str] = []
    try:
        assert program.stdout is not None
        app.conf.update(broker_url=f"qbroker://{address(program.stdout, said)}")
        # A program that nobody listens to stops when the pipe is full.
        threading.Thread(target=said.extend, args=(program.stdout,), daemon=True).start()
        for signum in STOP_SIGNALS:
            signal.signal(signum, signal.default_int_handler)
        if came:
            signal.raise_signal(came[0])
        yield
    except Exception:
        sys.stderr.writelines(said)
        raise
    finally:
        for signum in STOP_SIGNALS:
            signal.signal(signum, signal.SIG_IGN)
        program.terminate()
        try:
            program.wait(STOP_S)
        except subprocess.TimeoutExpired:
            # The second one has it kill what it started.
            program.terminate()
            program.wait()


def address(lines: Iterable[str], said: list[str]) -> str:
    """Where the broker listens, which it says when it does. What it says until then is added to `said`."""
    for line in lines:
        said.append(line)
        if found := re.search(r"listens on ([\w.:]+)", line):
            return found[1]
    raise RuntimeError("the broker did not start")


def run(paths: list[Path], console: Console) -> list[dict[str, Any]]:
    """Publish the whole as one workflow, and show how it comes along."""
    each = (
        chain(read.s(str(path)), group(terms.s(), measure.s()), profile.s(str(path)))
        for path in paths
    )
    result = chord(each, compare.s()).delay()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        ends = result.parent.iter_native(timeout=RESULT_S)
        for _ in bar.track(ends, total=len(paths), description="files"):
            pass
        profiles: list[dict[str, Any]] = result.get(timeout=RESULT_S)
    return profiles


def report(profiles: list[dict[str, Any]], seconds: float, console: Console) -> None:
    """Print the totals and the ten longest texts."""
    texts = [one for one in profiles if one["words"]]
    totals = Table(title="All of them", show_header=False)
    totals.add_column()
    totals.add_column(justify="right")
    totals.add_row("files", f"{len(profiles):,}")
    totals.add_row("files without prose", f"{len(profiles) - len(texts):,}")
    totals.add_row("words", f"{sum(one['words'] for one in texts):,}")
    if texts:
        totals.add_row("easiest to read", name(min(texts, key=lambda one: -one["ease"])["path"]))
        totals.add_row("hardest to read", name(min(texts, key=lambda one: one["ease"])["path"]))
    totals.add_row("tasks", f"{4 * len(profiles) + 1:,}")
    totals.add_row("time", f"{seconds:.1f} s")

    longest = Table(title="The ten longest")
    longest.add_column("file")
    longest.add_column("words", justify="right")
    longest.add_column("ease", justify="right")
    longest.add_column("what it is about")
    longest.add_column("most like it")
    for one in sorted(texts, key=lambda one: one["words"], reverse=True)[:10]:
        longest.add_row(
            name(one["path"]),
            f"{one['words']:,}",
            f"{one['ease']:.0f}",
            ", ".join(one["keywords"]),
            name(one["nearest"]) if one["nearest"] else "-",
        )
    console.print(totals)
    console.print(longest)


def name(path: str) -> str:
    """What a reader calls the file."""
    return Path(path).name


if __name__ == "__main__":
    sys.exit(main())
