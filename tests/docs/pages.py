"""The code in the docs, found and made runnable; CONTRIBUTING.md tells writers the convention.

A fenced block is, by its language and its first line:

    python, first line `# name.py`   part of that file; blocks of one name follow each other
    python                           a statement run in the page's own interpreter
    pycon                            a session in that interpreter, its output compared (`...` skips)
    console                          commands after `$ `; those in SERVERS run until the page ends
    toml                             must parse
    text                             nothing runs

Everywhere the port 7450 becomes the page's own.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = frozenset({"python", "pycon", "console", "toml", "text"})
DEFAULT_PORT = "7450"

SERVERS = frozenset({("qbroker", "serve"), ("qbroker", "worker"), ("qbroker", "dev")})
"""Commands that go on until they are stopped."""

SETUP = frozenset({"make", "git", "pip", "python3", "cd", "sudo", "systemctl", "docker"})
"""Commands that change the machine: they are parsed, and a `make` target must exist."""

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^# (?P<name>[\w/]+\.py)\n")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    language: str
    code: str
    line: int

    @property
    def file(self) -> str | None:
        """The file the block is part of."""
        match = _FILE.match(self.code) if self.language == "python" else None
        return match["name"] if match else None


@dataclass(frozen=True, slots=True)
class Page:
    """A Markdown file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    def blocks(self, *, port: int) -> list[Block]:
        """The page's blocks, with the default port replaced."""
        text = self.path.read_text().replace(DEFAULT_PORT, str(port))
        return [
            Block(match["language"], match["code"], text.count("\n", 0, match.start()) + 1)
            for match in _FENCE.finditer(text)
        ]


def pages() -> list[Page]:
    """Every page whose code is checked."""
    tops = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md")
    return [Page(path) for path in (*tops, *sorted((ROOT / "docs").rglob("*.md")))]


def files(blocks: list[Block]) -> dict[str, str]:
    """The files the blocks make together."""
    made: dict[str, str] = {}
    for block in blocks:
        if block.file is not None:
            made[block.file] = made.get(block.file, "") + block.code + "\n"
    return made


def commands(blocks: list[Block]) -> Iterator[list[str]]:
    """The commands of the console blocks, as words; what is no `$ ` line is output."""
    for block in blocks:
        if block.language == "console":
            for line in block.code.replace("\\\n", " ").splitlines():
                if line.startswith("$ "):
                    yield shlex.split(line[2:], comments=True)


def is_server(command: list[str]) -> bool:
    """Whether the command runs until it is stopped; options may stand before the sub-command."""
    return any((command[0], word) in SERVERS for word in command[1:])
