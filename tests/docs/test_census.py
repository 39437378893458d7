"""The example the demo runs: right figures, and nothing left behind however it ends."""

import os
import re
import signal
import sys
import sysconfig
from pathlib import Path

import psutil
import pytest

from tests.docs import programs
from tests.docs.programs import Program

CENSUS = Path(__file__).resolve().parents[2] / "docs" / "examples" / "census"

SOURCES = {
    "small.py": "import os\nfrom json import dumps\n\ndef one():\n    return 1\n",
    "package/large.py": "import os\n\nclass A:\n    def two(self):\n        x = 1\n        return x\n",
    "package/broken.py": "def (:\n",
    "site-packages/foreign.py": "x = 1\n",
}


def census(folder: Path, scratch: Path) -> Program:
    """The census of `folder`, with its temporary files in `scratch`."""
    env = programs.environment(1, TMPDIR=str(scratch), COLUMNS="160")
    return Program((sys.executable, str(CENSUS), str(folder)), cwd=scratch, env=env)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    for name, text in SOURCES.items():
        path = tmp_path / "sources" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "sources"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def total(output: str, what: str) -> str:
    """The figure of a row of the table of totals."""
    row = re.search(rf"^\W*{what}\s*│\s*(.*?)\s*│$", output, re.MULTILINE)
    assert row is not None, output
    return row[1]


@pytest.mark.e2e
def test_it_counts_what_is_in_a_folder(sources: Path, scratch: Path) -> None:
    with census(sources, scratch) as program:
        code = program.wait(timeout_s=60)

    assert code == 0, program.output
    assert total(program.output, "files") == "3"
    assert total(program.output, "files that are not valid Python") == "1"
    assert total(program.output, "lines") == "12"
    assert total(program.output, "functions") == "2"
    assert total(program.output, "classes") == "1"
    assert total(program.output, "longest function") == "two (3 lines)"
    assert total(program.output, "most imported") == "os, json"


@pytest.mark.e2e
def test_it_reads_the_whole_standard_library_and_leaves_nothing_behind(scratch: Path) -> None:
    folder = Path(sysconfig.get_path("stdlib"))
    installed = {"site-packages", "dist-packages"}
    paths = [p for p in folder.rglob("*.py") if installed.isdisjoint(p.relative_to(folder).parts)]

    with census(folder, scratch) as program:
        code = program.wait(timeout_s=300)

    assert code == 0, program.output
    assert total(program.output, "files") == f"{len(paths):,}"
    assert list(scratch.iterdir()) == []


@pytest.mark.e2e
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_process_and_no_file(scratch: Path, signum: signal.Signals) -> None:
    with census(Path(sysconfig.get_path("stdlib")), scratch) as program:
        program.wait_for("Surveying")
        started = psutil.Process(program.process.pid).children(recursive=True)
        code = program.stop(signum)

    assert code == 130, program.output
    assert started
    assert psutil.wait_procs(started, timeout=0)[1] == []
    assert list(scratch.iterdir()) == []


@pytest.mark.e2e
def test_a_broker_that_does_not_start_is_told_of_and_leaves_nothing(
    sources: Path, scratch: Path
) -> None:
    env = programs.environment(1, TMPDIR=str(scratch), QBROKER_ENGINE="stone")
    argv = (sys.executable, str(CENSUS), str(sources))

    with Program(argv, cwd=scratch, env=env) as program:
        code = program.wait()

    assert code == 1
    assert "'stone'" in program.output
    assert list(scratch.iterdir()) == []


@pytest.mark.e2e
def test_a_folder_without_python_is_refused_with_a_sentence(scratch: Path) -> None:
    with census(scratch, scratch) as program:
        code = program.wait()

    assert code == 1
    assert "name a folder that has some" in program.output


def test_the_example_is_what_make_demo_runs() -> None:
    makefile = (CENSUS.parents[2] / "Makefile").read_text()

    assert f"{os.path.relpath(CENSUS, CENSUS.parents[2])}\n" in makefile
