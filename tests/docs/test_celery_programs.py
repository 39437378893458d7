"""The programs of Celery's documentation: on one broker, a worker of the first steps and one of the project, side by side."""

import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.docs import programs
from tests.docs.programs import Program

CELERY = Path(__file__).resolve().parents[2] / "docs" / "examples" / "celery"

SAID = {
    "first_steps.py": """
        4 + 4 = 8
        ready: True
        raised: TypeError("unsupported operand type(s) for +: 'int' and 'str'")
        state: FAILURE True False
        where: Traceback (most recent call last):
        zone: Europe/Oslo
    """,
    "next_steps.py": """
        delay: 4
        apply_async: 4
        called here: 4
        unknown: PENDING
        signature: proj.tasks.add(2, 2) {'countdown': 10}
        partial: 10
        group: [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
        partial group: [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
        chain: 64
        partial chain: 64
        chord: 90
        upgraded: 90
        ping: True
    """,
    "calling.py": """
        link: 4
        link_error: division by zero
        on_message: hello world: 3 SUCCESS
        eta: PENDING
        expires: expired REVOKED
        serializer: 100
        queue: 6
        retry: 7
        ignored: None
        by name: 10
    """,
    "canvas.py": """
        by name: 4
        keywords: 6
        immutable: 16
        chain: 16 8 4
        tilde: 8
        group: [4, 8, 16] True 3
        chord: 9900
        broken chord: ChordError
        map: [45, 4950]
        starmap: [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
        chunks: [20, 22, 24, 26, 28, 30, 32, 34, 36, 38]
        skewed: [0.01, 0.02, 0.03]
        nested: 20
        stamped: 10 42
    """,
    "routing.py": """
        default: ['tasks', 'task.#']
        route: ['tasks', 'feed.import']
        by hand: ['tasks', 'feed.import.news']
        router: ['media', 'media.image', 9]
        exchange: ['media', 'media.video']
        new queue: ['', 'reports']
    """,
    "webhooks.py": """
        get: 100
        post: 90
        task: 9
        failure: Invalid moon alignment.
    """,
}


@pytest.mark.e2e
def test_each_chapters_program_says_what_its_chapter_says(tmp_path: Path) -> None:
    shutil.copytree(CELERY, tmp_path, dirs_exist_ok=True)
    port = programs.free_port()
    env = programs.environment(port, PYTHONPATH=str(tmp_path))
    with ExitStack() as stack:

        def start(*argv: str) -> Program:
            return stack.enter_context(Program(argv, cwd=tmp_path, env=env))

        start("qbroker", "serve").wait_for(programs.BROKER_READY)
        first = start("qbroker", "worker", "-A", "tasks", "-n", "first@%h", "-c", "1", "-l", "INFO")
        project = start("qbroker", "worker", "-A", "proj", "-B", "-c", "2", "-l", "INFO")
        for worker in (first, project):
            worker.wait_for(programs.WORKER_READY)
        running = {name: start(sys.executable, name) for name in SAID}
        testing = start(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_tasks.py")  # fmt: skip
        codes = {name: program.wait() for name, program in running.items()}
        tested = testing.wait()
        for word in ("hello", "world"):
            project.wait_for(f"periodic {word}")
        ended = [worker.stop() for worker in (first, project)]

    for name, wanted in SAID.items():
        said = running[name].output.splitlines()
        assert said == [line.strip() for line in wanted.strip().splitlines()], running[name].output
    assert tested == 0, testing.output
    assert codes == dict.fromkeys(SAID, 0)
    assert ended == [0, 0]
