"""Take a census of Python source files: one task a file, from publish to result.

    python docs/examples/census [FOLDER]

Without a folder it reads the standard library of the Python that runs it. It brings its own broker
and worker, on a free port and in a temporary folder, and takes them away again.
"""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from tasks import app, survey

HERE = Path(__file__).resolve().parent
STOP_S = 15.0
RESULT_S = 120.0


def main() -> int:
    """Run the census; the exit code."""
    options = argparse.ArgumentParser(prog="census", description="Survey every .py file.")
    options.add_argument("folder", nargs="?", type=Path, default=Path(sysconfig.get_path("stdlib")))
    folder: Path = options.parse_args().folder.resolve()
    console = Console()
    paths = sources(folder)
    if not paths:
        console.print(f"No .py file in {folder}: name a folder that has some.")
        return 1
    interrupts = Interrupts()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="census-") as scratch,
            house(Path(scratch)),
            interrupts.welcome(),
        ):
            console.print(f"Surveying {len(paths):,} files in {folder}")
            started = time.perf_counter()
            findings = take(paths, console)
            seconds = time.perf_counter() - started
    except KeyboardInterrupt:
        console.print("Interrupted; broker and worker are stopped, nothing is left behind.")
        return 130
    report(findings, folder, seconds, console)
    return 0


class Interrupts:
    """Ctrl-C and a polite kill, kept until they may end the census.

    One that came while a program starts or is cleared away would leave it behind.
    """

    def __init__(self) -> None:
        self._came = False
        self._may_raise = False
        signal.signal(signal.SIGINT, self._note)
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: object) -> None:
        self._came = True
        if self._may_raise:
            self._may_raise = False
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def welcome(self) -> Iterator[None]:
        """Let an interrupt end this block, also one that came before it."""
        if self._came:
            raise KeyboardInterrupt
        self._may_raise = True
        try:
            yield
        finally:
            self._may_raise = False
        if self._came:
            # It was raised inside a callback, a weak reference's say, where Python drops what is raised.
            raise KeyboardInterrupt


def sources(folder: Path) -> list[Path]:
    """Every .py file below, installed packages left out, in a stable order."""
    installed = {"site-packages", "dist-packages"}
    return sorted(
        path
        for path in folder.rglob("*.py")
        if path.is_file() and installed.isdisjoint(path.relative_to(folder).parts)
    )


@contextlib.contextmanager
def house(scratch: Path) -> Iterator[None]:
    """A broker and a worker for as long as the block runs."""
    serve = ("serve", "--data-dir", str(scratch / "data"), "--listen", "127.0.0.1:0")
    with (scratch / "log").open("w+") as log:
        try:
            with running(serve, log, stdout=subprocess.PIPE) as broker:
                url = f"qbroker://{address(broker)}"
                app.conf.update(broker_url=url)
                with running(("-b", url, "-A", "tasks", "worker", "-l", "WARNING"), log):
                    yield
        except Exception:
            # The folder is about to go, and with it the only account of what went wrong.
            log.seek(0)
            sys.stderr.write(log.read())
            raise


@contextlib.contextmanager
def running(
    arguments: Sequence[str], log: TextIO, stdout: TextIO | int | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """`qbroker` for as long as the block runs, in a process group of its own: Ctrl-C is ours."""
    program = subprocess.Popen(
        [sys.executable, "-m", "qbroker", *arguments],
        stdout=stdout or log,
        stderr=log,
        text=True,
        cwd=HERE,
        process_group=0,
    )
    try:
        yield program
    finally:
        program.terminate()
        try:
            program.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            program.wait()


def address(broker: "subprocess.Popen[str]") -> str:
    """Where the broker listens, which it says in its first line."""
    assert broker.stdout is not None
    with broker.stdout as lines:
        line = lines.readline()
    found = re.search(r"listens on ([\w.:]+)", line)
    if found is None:
        raise RuntimeError(f"the broker did not start: {line!r}")
    return found[1]


def take(paths: list[Path], console: Console) -> list[dict[str, Any]]:
    """Publish one task a file and gather what they return, with a bar to watch."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        with app.pipeline():
            results = [survey.delay(str(path)) for path in paths]
        return [result.get(timeout=RESULT_S) for result in bar.track(results, description="files")]


def report(findings: list[dict[str, Any]], folder: Path, seconds: float, console: Console) -> None:
    """Print the totals and the ten largest files."""
    parsed = [found for found in findings if "unparsable" not in found]
    imports = Counter(name for found in parsed for name in found["imports"])
    longest = max(parsed, key=lambda found: found["longest_lines"], default=None)
    totals = Table(title=f"Census of {folder}", show_header=False)
    totals.add_column()
    totals.add_column(justify="right")
    totals.add_row("files", f"{len(findings):,}")
    totals.add_row("files that are not valid Python", f"{len(findings) - len(parsed):,}")
    for what in ("lines", "functions", "classes"):
        totals.add_row(what, f"{sum(found.get(what, 0) for found in findings):,}")
    if longest:
        totals.add_row("longest function", longest_function(longest))
    totals.add_row("most imported", ", ".join(name for name, _ in imports.most_common(5)))
    totals.add_row("time", f"{seconds:.1f} s, {len(findings) / seconds:,.0f} files/s")

    largest = Table(title="The ten largest")
    largest.add_column("file")
    for what in ("lines", "functions", "classes"):
        largest.add_column(what, justify="right")
    largest.add_column("longest function")
    for found in sorted(findings, key=lambda found: found["lines"], reverse=True)[:10]:
        largest.add_row(
            str(Path(found["path"]).relative_to(folder)),
            f"{found['lines']:,}",
            *(f"{found[what]:,}" if what in found else "-" for what in ("functions", "classes")),
            found.get("unparsable") or longest_function(found),
        )
    console.print(totals)
    console.print(largest)


def longest_function(found: dict[str, Any]) -> str:
    """Its name and length; "" where there is no function."""
    name = found["longest_function"]
    return f"{name} ({found['longest_lines']:,} lines)" if name else ""


if __name__ == "__main__":
    sys.exit(main())
