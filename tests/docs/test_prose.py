"""The workflow on real files: what it finds is right, and nothing is left behind however it ends."""

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

PROSE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "prose"

TEXTS = {
    "pond.txt": "A frog sat. The frog sat near water.",
    "lake.md": "The frog and the swan swam.\n\nThe water was cold.",
    "code.py": '"""Parse a grammar."""\n\ndef one():\n    """Give the grammar."""\n    return "frog"\n',
    "bare.py": "x = 1\n",
    "broken.py": "def (:\n",
    "picture.png": "not a text.",
    "below/more.txt": "This is not read.",
}


def prose(folder: Path, scratch: Path, **more: str) -> Program:
    """The workflow on `folder`, with its temporary files in `scratch`."""
    env = programs.environment(1, TMPDIR=str(scratch), COLUMNS="160", **more)
    return Program((sys.executable, str(PROSE), str(folder)), cwd=scratch, env=env)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    for name, text in TEXTS.items():
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "texts"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def row(output: str, what: str) -> list[str]:
    """The cells behind the first one, in the row that begins with `what`."""
    found = re.search(rf"^\W*{re.escape(what)}\s*│\s*(.*?)\s*│$", output, re.MULTILINE)
    assert found is not None, output
    return [cell.strip() for cell in found[1].split("│")]


@pytest.mark.e2e
def test_it_compares_the_texts_of_a_folder(texts: Path, scratch: Path) -> None:
    with prose(texts, scratch) as program:
        code = program.wait(timeout_s=60)

    assert code == 0, program.output
    assert row(program.output, "files") == ["5"]
    assert row(program.output, "files without prose") == ["2"]
    assert row(program.output, "words") == ["24"]
    assert row(program.output, "tasks") == ["21"]
    # By Flesch's formula: 8 words in 2 sentences, with 9 syllables.
    assert row(program.output, "pond.txt") == ["8", "108", "sat, frog, near, water, the", "lake.md"]
    assert row(program.output, "code.py")[2:] == ["grammar, give, parse, the", "lake.md"]


@pytest.mark.e2e
def test_it_reads_the_standard_library_and_leaves_nothing_behind(scratch: Path) -> None:
    folder = Path(sysconfig.get_path("stdlib"))
    paths = [path for path in folder.iterdir() if path.suffix in {".md", ".py", ".rst", ".txt"}]

    with prose(folder, scratch) as program:
        code = program.wait(timeout_s=120)

    assert code == 0, program.output
    assert row(program.output, "files") == [f"{len(paths):,}"]
    assert "grammar" not in row(program.output, "turtle.py")[2]
    assert "turtle" in row(program.output, "turtle.py")[2]
    assert list(scratch.iterdir()) == []


@pytest.mark.e2e
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_process_and_no_file(scratch: Path, signum: signal.Signals) -> None:
    with prose(Path(sysconfig.get_path("stdlib")), scratch) as program:
        program.wait_for("Reading")
        started = psutil.Process(program.process.pid).children(recursive=True)
        code = program.stop(signum)

    assert code == 130, program.output
    assert started
    assert psutil.wait_procs(started, timeout=0)[1] == []
    assert list(scratch.iterdir()) == []


@pytest.mark.e2e
def test_a_broker_that_does_not_start_is_told_of_and_leaves_nothing(
    texts: Path, scratch: Path
) -> None:
    with prose(texts, scratch, QBROKER_ENGINE="stone") as program:
        code = program.wait()

    assert code == 1
    assert "'stone'" in program.output
    assert list(scratch.iterdir()) == []


@pytest.mark.e2e
def test_a_folder_without_texts_is_refused_with_a_sentence(scratch: Path) -> None:
    with prose(scratch, scratch) as program:
        code = program.wait()

    assert code == 1
    assert "name a folder that has some" in program.output


def test_the_example_is_what_make_prose_runs() -> None:
    makefile = (PROSE.parents[2] / "Makefile").read_text()

    assert f"{os.path.relpath(PROSE, PROSE.parents[2])}\n" in makefile
