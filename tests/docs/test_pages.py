"""What the docs say, done. The convention stands in pages.py."""

import json
import os
import re
import subprocess
import sys
import tomllib
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.docs import pages, programs
from tests.docs.pages import Page
from tests.docs.programs import Program

SESSION = Path(__file__).with_name("session.py")


@pytest.mark.parametrize("page", pages.pages(), ids=str)
def test_every_block_says_in_which_language_it_is(page: Page) -> None:
    languages = {block.language for block in page.blocks(port=1)}

    assert languages <= pages.LANGUAGES


@pytest.mark.parametrize("page", pages.pages(), ids=str)
def test_every_toml_block_parses(page: Page) -> None:
    for block in page.blocks(port=1):
        if block.language == "toml":
            tomllib.loads(block.code)


@pytest.mark.parametrize("page", pages.pages(), ids=str)
def test_every_make_target_a_page_names_exists(page: Page) -> None:
    makefile = (pages.ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))

    named = {
        word
        for command in pages.commands(page.blocks(port=1))
        if command[0] == "make"
        for word in command[1:]
        if "=" not in word
    }

    assert named <= targets


@pytest.mark.parametrize("page", pages.pages(), ids=str)
def test_every_link_to_a_file_leads_somewhere(page: Page) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.path.read_text())

    broken = [link for link in links if not (page.path.parent / link).exists()]

    assert broken == []


@pytest.mark.e2e
@pytest.mark.parametrize("page", [page for page in pages.pages() if page.blocks(port=1)], ids=str)
def test_every_block_of_a_page_runs(page: Page, tmp_path: Path) -> None:
    port, dev_port = programs.free_port(), programs.free_port()
    blocks = page.blocks(port=port)
    env = programs.environment(port, QBROKER_DEV_PORT=str(dev_port))
    files = pages.files(blocks)
    commands = [c for c in pages.commands(blocks) if c[0] not in pages.SETUP]
    servers = [c for c in commands if pages.is_server(c)]
    finite = [c for c in commands if not pages.is_server(c)]
    for name, code in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)

    # What finds the packages under test, where they are not installed, must go on doing so.
    path_ahead = os.pathsep.join(filter(None, (str(tmp_path), env.get("PYTHONPATH"))))

    for argv in (c for c in servers if "dev" in c):
        with Program(argv, cwd=tmp_path, env=env) as dev:
            dev.wait_for(programs.WORKER_READY)
            assert dev.stop() == 0, dev.output

    serve = [c for c in servers if "serve" in c] or [["qbroker", "serve"]]
    work = [c for c in servers if "worker" in c]
    if files and not work:
        work = [["qbroker", "worker", "-A", Path(next(iter(files))).stem, "-l", "INFO", "-c", "2"]]
    with ExitStack() as stack:
        running = []
        for argv, ready in [
            *((argv, programs.BROKER_READY) for argv in serve),
            *((argv, programs.WORKER_READY) for argv in work),
        ]:
            program = stack.enter_context(Program(argv, cwd=tmp_path, env=env))
            program.wait_for(ready)
            running.append(program)
        session = subprocess.run(
            [sys.executable, SESSION],
            input=json.dumps(
                [
                    (f"{page}:{block.line}", block.language, block.code)
                    for block in blocks
                    if block.language in {"python", "pycon"} and block.file is None
                ]
            ),
            cwd=tmp_path,
            env=env | {"PYTHONPATH": path_ahead},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert session.returncode == 0, session.stdout + session.stderr
        for argv in finite:
            with Program(argv, cwd=tmp_path, env=env) as command:
                assert command.wait() == 0, command.output
        for program in reversed(running):
            assert program.stop() == 0, program.output
